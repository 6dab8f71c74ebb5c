//! Who used most, among any number, in bounded memory.
//!
//! Space-Saving (Metwally et al., 2005), with the least of the counters given up many at a time
//! as in lossy counting (Manku and Motwani, 2002). Counters add up (Agarwal et al., Mergeable
//! Summaries, 2012). What is told of somebody was used; `missed_max` requests more may have been,
//! which is zero as long as there were no more of them than counters.

use crate::analytics::figures::Usage;
use ahash::RandomState;
use std::{collections::HashMap, hash::Hash};

/// Counters that remain when some are given up; there are at most twice as many.
const KEPT: usize = 2_048;

/// What is known of one of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counter {
    pub(super) usage: Usage,
    pub(super) missed_max: u64,
}

impl Counter {
    fn requests_max(&self) -> u64 {
        self.usage.requests + self.missed_max
    }
}

/// Counters of those who used most.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Top<K: Eq + Hash> {
    counters: HashMap<K, Counter, RandomState>,
    /// What somebody without a counter may have asked at most.
    floor: u64,
}

impl<K: Eq + Hash> Default for Top<K> {
    fn default() -> Self {
        Self { counters: HashMap::default(), floor: 0 }
    }
}

impl<K: Eq + Hash + Ord + Clone> Top<K> {
    pub(super) fn add(&mut self, key: &K, usage: &Usage) {
        match self.counters.get_mut(key) {
            Some(counter) => counter.usage.add(usage),
            None => self.insert(key, Counter { usage: *usage, missed_max: self.floor }),
        }
    }

    fn insert(&mut self, key: &K, counter: Counter) {
        self.counters.insert(key.clone(), counter);
        if self.counters.len() > 2 * KEPT {
            self.keep(KEPT);
        }
    }

    /// Gives up all but `count` counters.
    pub(super) fn keep(&mut self, count: usize) {
        if self.counters.len() <= count {
            return;
        }
        let mut of_all: Vec<u64> = self.counters.values().map(Counter::requests_max).collect();
        let (_, least, _) = of_all.select_nth_unstable_by(count, |a, b| b.cmp(a));
        // Those that are equal go together, which may leave fewer.
        let floor = *least;
        self.counters.retain(|_, counter| counter.requests_max() > floor);
        self.floor = self.floor.max(floor);
    }

    /// Adds another summary, of other requests.
    pub(super) fn merge(&mut self, other: &Self) {
        let (mine, others) = (self.floor, other.floor);
        if others > 0 {
            for (key, counter) in &mut self.counters {
                if !other.counters.contains_key(key) {
                    counter.missed_max += others;
                }
            }
        }
        for (key, counter) in &other.counters {
            match self.counters.get_mut(key) {
                Some(known) => {
                    known.usage.add(&counter.usage);
                    known.missed_max += counter.missed_max;
                }
                None => {
                    let missed_max = counter.missed_max + mine;
                    self.counters.insert(key.clone(), Counter { missed_max, ..*counter });
                }
            }
        }
        self.floor = mine + others;
        if self.counters.len() > 2 * KEPT {
            self.keep(KEPT);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.counters.is_empty() && self.floor == 0
    }

    pub(super) fn floor(&self) -> u64 {
        self.floor
    }

    /// Those of a summary that was stored.
    pub(super) fn of(counters: impl Iterator<Item = (K, Counter)>, floor: u64) -> Self {
        Self { counters: counters.collect(), floor }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&K, &Counter)> {
        self.counters.iter()
    }

    /// The first `count` of those that are wanted, most of `by` first.
    pub(super) fn first(
        &self,
        count: usize,
        is_wanted: impl Fn(&K) -> bool,
        by: impl Fn(&Usage) -> u64,
    ) -> Vec<(&K, &Counter)> {
        let wanted = self.counters.iter().filter(|(key, _)| is_wanted(key));
        let mut all: Vec<_> = wanted.filter(|(_, counter)| by(&counter.usage) > 0).collect();
        all.sort_unstable_by(|(a, one), (b, other)| {
            by(&other.usage).cmp(&by(&one.usage)).then_with(|| a.cmp(b))
        });
        all.truncate(count);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one() -> Usage {
        Usage::one(200, 0, 10)
    }

    #[test]
    fn a_few_are_counted_exactly() {
        let mut top = Top::default();
        for user in 0..500_u64 {
            (0..=user).for_each(|_| top.add(&user, &one()));
        }
        let first = top.first(3, |_| true, |usage| usage.requests);
        let told: Vec<_> =
            first.iter().map(|(user, c)| (**user, c.usage.requests, c.missed_max)).collect();
        assert_eq!(told, [(499, 500, 0), (498, 499, 0), (497, 498, 0)]);
        assert_eq!(
            top.first(9, |user| *user == 7, |usage| usage.bytes_out)[0].1.usage.bytes_out,
            80
        );
    }

    #[test]
    fn among_very_many_the_bounds_hold_and_memory_does() {
        let mut parts = [Top::default(), Top::default()];
        for number in 0..1_000_000_u64 {
            let part = &mut parts[usize::from(number % 3 == 0)];
            part.add(&(1_000 + number), &one());
            // Twenty ask much more than the others.
            part.add(&(number % 20), &one());
        }
        assert!(parts.iter().all(|part| part.counters.len() <= 2 * KEPT));
        let [mut top, other] = parts;
        top.merge(&other);
        assert!(top.counters.len() <= 2 * KEPT && top.floor > 0);
        let mut first: Vec<u64> =
            top.first(20, |_| true, |usage| usage.requests).iter().map(|(key, _)| **key).collect();
        first.sort_unstable();
        assert_eq!(first, (0..20).collect::<Vec<_>>());
        for (key, counter) in top.iter() {
            let really = if *key < 20 { 50_000 } else { 1 };
            let least = counter.usage.requests;
            assert!((least..=counter.requests_max()).contains(&really), "{key} {counter:?}");
        }
        assert!((0..20).all(|key| top.counters[&key].usage.requests == 50_000));
    }
}

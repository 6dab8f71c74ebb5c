//! Who was refused lately, in bounded memory.
//!
//! Refusals are counted exactly. Subjects are counted by Space-Saving (Metwally et al., 2005)
//! in each slot of time: one that is shown was refused at most as often as it says, and at
//! least as often less `over_max`.

use crate::{analytics::Range, limit::subject::Named};
use ahash::RandomState;
use parking_lot::Mutex;
use serde::Serialize;
use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

/// Subjects that a slot tells apart.
const SUBJECTS_MAX: usize = 64;
/// Subjects that a report shows.
const SHOWN_MAX: usize = 20;
/// Slots for the last minutes, and for the last hour: their length, and how many are kept.
const FINE: (Duration, usize) = (Duration::from_secs(5), 61);
const COARSE: (Duration, usize) = (Duration::from_secs(60), 61);

/// Refusals of one rule.
#[derive(Debug, Default)]
pub(super) struct Tally {
    total: AtomicU64,
    recent: Mutex<Recent>,
}

#[derive(Debug, Default)]
struct Recent {
    fine: VecDeque<Slot>,
    coarse: VecDeque<Slot>,
}

#[derive(Debug, Default)]
struct Slot {
    number: u64,
    refused: u64,
    subjects: HashMap<Arc<Named>, Count, RandomState>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Count {
    refused: u64,
    over_max: u64,
}

/// How many requests were refused, or would have been, and whose.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct Refusals {
    /// Requests, in the time asked for and up to one slot more (five seconds; a minute where an
    /// hour was asked for).
    pub refused: u64,
    /// Those that were refused most often, at most twenty.
    pub subjects: Vec<Refused>,
}

/// A subject that was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[schemars(rename = "RefusedByLimit")]
pub struct Refused {
    /// Who it is.
    pub subject: Arc<Named>,
    /// How often it was refused at most.
    pub refused: u64,
    /// How much less it may have been, where there were many subjects.
    pub over_max: u64,
}

impl Tally {
    /// Notes that `count` requests of `subject` were refused at `now`.
    pub(super) fn add(&self, now: Duration, subject: &Arc<Named>, count: u64) {
        if count == 0 {
            return;
        }
        self.total.fetch_add(count, Relaxed);
        let mut recent = self.recent.lock();
        slot(&mut recent.fine, FINE, now).add(subject, count);
        slot(&mut recent.coarse, COARSE, now).add(subject, count);
    }

    /// Refusals ever.
    pub(super) fn total(&self) -> u64 {
        self.total.load(Relaxed)
    }

    /// Refusals of the last `range`.
    pub(super) fn report(&self, range: Range, now: Duration) -> Refusals {
        let recent = self.recent.lock();
        let (slots, (length, _), range) = match range {
            Range::OneMinute => (&recent.fine, FINE, Duration::from_secs(60)),
            Range::FiveMinutes => (&recent.fine, FINE, Duration::from_secs(300)),
            Range::OneHour => (&recent.coarse, COARSE, Duration::from_secs(3600)),
        };
        let first = number(now.saturating_sub(range), length);
        let mut refused = 0;
        let mut subjects: HashMap<Arc<Named>, Count, RandomState> = HashMap::default();
        for slot in slots.iter().filter(|slot| slot.number >= first) {
            refused += slot.refused;
            for (subject, count) in &slot.subjects {
                let sum = subjects.entry(subject.clone()).or_default();
                sum.refused += count.refused;
                sum.over_max += count.over_max;
            }
        }
        let mut subjects: Vec<Refused> = subjects
            .into_iter()
            .map(|(subject, Count { refused, over_max })| Refused { subject, refused, over_max })
            .collect();
        subjects.sort_by(|a, b| b.refused.cmp(&a.refused).then_with(|| a.subject.cmp(&b.subject)));
        subjects.truncate(SHOWN_MAX);
        Refusals { refused, subjects }
    }
}

impl Slot {
    fn add(&mut self, subject: &Arc<Named>, count: u64) {
        self.refused += count;
        if let Some(known) = self.subjects.get_mut(subject) {
            known.refused += count;
            return;
        }
        let mut new = Count { refused: count, over_max: 0 };
        if self.subjects.len() >= SUBJECTS_MAX {
            let least = self.subjects.iter().min_by_key(|(_, count)| count.refused);
            if let Some((least, gone)) = least.map(|(least, gone)| (least.clone(), *gone)) {
                self.subjects.remove(&least);
                new = Count { refused: gone.refused + count, over_max: gone.refused };
            }
        }
        self.subjects.insert(subject.clone(), new);
    }
}

fn number(at: Duration, length: Duration) -> u64 {
    at.as_secs() / length.as_secs()
}

/// The slot of `now`, or the last one: threads see the time a little apart.
fn slot(slots: &mut VecDeque<Slot>, (length, keep): (Duration, usize), now: Duration) -> &mut Slot {
    let number = number(now, length);
    if slots.back().is_none_or(|last| last.number < number) {
        slots.push_back(Slot { number, ..Slot::default() });
        if slots.len() > keep {
            slots.pop_front();
        }
    }
    slots.back_mut().expect("there is one, or it was just added")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str) -> Arc<Named> {
        Arc::new(Named { route: Some(name.into()), ..Named::default() })
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn what_is_older_than_the_range_is_not_told() {
        let tally = Tally::default();
        for (seconds, count) in [(10, 1), (3_000, 2), (3_400, 4), (3_590, 8)] {
            tally.add(at(seconds), &user("a"), count);
        }
        let told = |range| tally.report(range, at(3_610)).refused;
        assert_eq!(told(Range::OneMinute), 8);
        assert_eq!(told(Range::FiveMinutes), 12);
        assert_eq!(told(Range::OneHour), 15, "the first is within the slot more");
        assert_eq!(tally.report(Range::OneHour, at(3_700)).refused, 14);
        assert_eq!(tally.total(), 15);
    }

    #[test]
    fn those_refused_most_are_found_among_any_number_and_never_told_too_few() {
        let tally = Tally::default();
        for round in 0..50 {
            tally.add(at(1), &user("often"), 2);
            for other in 0..100 {
                tally.add(at(1), &user(&format!("{round}-{other}")), 1);
            }
        }
        let report = tally.report(Range::OneMinute, at(1));
        assert_eq!((report.refused, report.subjects.len()), (5_100, SHOWN_MAX));
        let often = report.subjects.iter().find(|shown| *shown.subject == *user("often")).unwrap();
        assert!(often.refused >= 100 && often.refused - often.over_max <= 100, "{often:?}");
        assert_eq!(tally.recent.lock().fine[0].subjects.len(), SUBJECTS_MAX);
    }
}

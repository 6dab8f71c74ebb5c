//! What was out of the ordinary: a route whose errors or latencies left the band of the hour before.
//!
//! Each minute is held against the median of the sixty before it, and the band around that is a
//! multiple of their median absolute deviation, which single outliers do not move (Leys et al.,
//! Detecting Outliers, 2013). Two minutes beyond the band begin a note, two within it end it.

use crate::analytics::figures::Counts;
use serde::Serialize;
use std::sync::Arc;
use types::Timestamp;

const MINUTE: u64 = 60_000;
/// A minute with fewer requests says nothing.
pub(super) const REQUESTS_MIN: u64 = 20;
/// Minutes that the usual is taken from, and how many of them have to say something.
const BEFORE: u64 = 60;
const BEFORE_MIN: usize = 10;
/// Minutes in a row that begin or end a note.
const IN_A_ROW: usize = 2;
/// Minutes that say nothing before a note that is open ends with the last one that did.
const QUIET_MAX: u64 = 10;
/// So many deviations make the band, as of a normal distribution.
const DEVIATIONS: f64 = 6.0;
/// Of a normal distribution the median absolute deviation is one 1.4826th of the standard one.
const NORMAL: f64 = 1.4826;
/// A change that is smaller than this is never noted: a share of requests; a part of the usual
/// latency, and milliseconds.
const ERRORS_MIN: f64 = 0.05;
const LATENCY_PART_MIN: f64 = 0.5;
const LATENCY_MS_MIN: f64 = 5.0;

/// What left its band.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, PartialOrd, Ord, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "NoteKind")]
pub enum What {
    /// The share of requests with a status of 500 and above.
    Errors,
    /// The 95th percentile of latencies, in milliseconds.
    Latency,
}

/// Something out of the ordinary.
#[derive(Debug, Clone, PartialEq, Serialize, schemars::JsonSchema)]
pub struct Note {
    /// The route.
    pub route: Arc<str>,
    /// The service that it leads to.
    pub service: Arc<str>,
    /// What it was.
    #[serde(flatten)]
    pub episode: Episode,
}

/// When something was out of the ordinary, and how far.
#[derive(Debug, Clone, PartialEq, Serialize, schemars::JsonSchema)]
pub struct Episode {
    /// What left its band.
    pub what: What,
    /// The first minute beyond it.
    pub begin: Timestamp,
    /// The first minute within it again; none: it goes on.
    pub end: Option<Timestamp>,
    /// What was usual before.
    pub usual: f64,
    /// The end of the band.
    pub band: f64,
    /// What was furthest beyond.
    pub worst: f64,
}

/// What a minute says of a route.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Minute {
    pub(super) start: u64,
    requests: u64,
    errors: f64,
    latency_ms: f64,
}

impl Minute {
    pub(super) fn of(start: u64, counts: &Counts) -> Self {
        let requests = counts.usage.requests;
        let latency = counts.latency.quantile(0.95).unwrap_or_default();
        Self {
            start,
            requests,
            errors: counts.usage.server_errors as f64 / requests.max(1) as f64,
            latency_ms: latency.as_secs_f64() * 1e3,
        }
    }

    fn value(&self, what: What) -> f64 {
        match what {
            What::Errors => self.errors,
            What::Latency => self.latency_ms,
        }
    }
}

/// What was usual, and how far from it is still within the band.
#[derive(Clone, Copy)]
struct Band {
    usual: f64,
    end: f64,
}

fn median(values: &mut [f64]) -> f64 {
    let middle = values.len() / 2;
    let (_, median, _) = values.select_nth_unstable_by(middle, f64::total_cmp);
    *median
}

/// The band for a minute of so many requests; none if too little is known.
fn band(before: &[Minute], what: What, requests: u64) -> Option<Band> {
    if before.len() < BEFORE_MIN {
        return None;
    }
    let mut values: Vec<f64> = before.iter().map(|minute| minute.value(what)).collect();
    let usual = median(&mut values);
    values.iter_mut().for_each(|value| *value = (*value - usual).abs());
    let spread = DEVIATIONS * NORMAL * median(&mut values);
    let least = match what {
        // Of few requests the share varies by chance.
        What::Errors => {
            let share = usual.clamp(0.01, 0.99);
            let by_chance = (share * (1.0 - share) / requests.max(1) as f64).sqrt();
            ERRORS_MIN.max(DEVIATIONS * by_chance)
        }
        What::Latency => LATENCY_MS_MIN.max(LATENCY_PART_MIN * usual),
    };
    Some(Band { usual, end: usual + spread.max(least) })
}

/// What was out of the ordinary in these minutes of a route, which are in order and lie before
/// `until`. Minutes of a note are no part of what is usual later; of a route that nobody asks any
/// more nothing goes on.
pub(super) fn episodes(minutes: &[Minute], what: What, until: u64) -> Vec<Episode> {
    let mut found: Vec<Episode> = Vec::new();
    let mut usual: Vec<Minute> = Vec::new();
    let mut open: Option<(Episode, Band)> = None;
    let mut turned: Vec<Minute> = Vec::new();
    for minute in minutes.iter().filter(|minute| minute.requests >= REQUESTS_MIN) {
        let value = minute.value(what);
        match &mut open {
            None => {
                usual.retain(|past| past.start + BEFORE * MINUTE >= minute.start);
                let Some(band) = band(&usual, what, minute.requests) else {
                    usual.push(*minute);
                    continue;
                };
                if value <= band.end {
                    usual.append(&mut turned);
                    usual.push(*minute);
                    continue;
                }
                turned.push(*minute);
                if turned.len() >= IN_A_ROW {
                    let worst = turned.iter().map(|minute| minute.value(what)).fold(0.0, f64::max);
                    let begin = Timestamp(turned[0].start);
                    let Band { usual, end } = band;
                    let episode = Episode { what, begin, end: None, usual, band: end, worst };
                    open = Some((episode, band));
                    turned.clear();
                }
            }
            Some((episode, band)) => {
                if value > band.end {
                    episode.worst = episode.worst.max(value);
                    turned.clear();
                    continue;
                }
                turned.push(*minute);
                if turned.len() >= IN_A_ROW {
                    episode.end = Some(Timestamp(turned[0].start));
                    found.push(episode.clone());
                    open = None;
                    usual.append(&mut turned);
                }
            }
        }
    }
    let said = minutes.iter().filter(|minute| minute.requests >= REQUESTS_MIN);
    let last = said.map(|minute| minute.start).max().unwrap_or_default();
    found.extend(open.map(|(mut episode, _)| {
        if last + QUIET_MAX * MINUTE < until {
            episode.end = Some(Timestamp(last + MINUTE));
        }
        episode
    }));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const END: u64 = 120 * MINUTE;

    /// A series that is always the same for a seed (xorshift64*, Vigna 2016).
    struct Random(u64);

    impl Random {
        fn next(&mut self) -> f64 {
            self.0 ^= self.0 >> 12;
            self.0 ^= self.0 << 25;
            self.0 ^= self.0 >> 27;
            (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11) as f64 / (1_u64 << 53) as f64
        }
    }

    /// Two hours of a route: how many requests a minute, which share fails, how slow it is; each
    /// request by chance, latencies with a long tail.
    fn series(seed: u64, requests: u64, of: impl Fn(u64) -> (f64, f64)) -> Vec<Minute> {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let minutes = (0..120).map(|number| {
            let (errors, latency_ms) = of(number);
            let mut counts = Counts::default();
            for _ in 0..requests {
                let status = if random.next() < errors { 500 } else { 200 };
                let latency = -latency_ms * (1.0 - random.next()).ln();
                let latency = std::time::Duration::from_secs_f64(latency / 1e3);
                counts.add_one(&super::super::figures::Usage::one(status, 0, 0), latency);
            }
            Minute::of(number * MINUTE, &counts)
        });
        minutes.collect()
    }

    #[test]
    fn steady_noise_is_not_noted() {
        for seed in 0..400 {
            let requests = [20, 50, 300][seed as usize % 3];
            let errors = [0.0, 0.01, 0.1][seed as usize / 3 % 3];
            let minutes = series(seed, requests, |_| (errors, 20.0));
            for what in [What::Errors, What::Latency] {
                assert_eq!(episodes(&minutes, what, END), [], "seed {seed}");
            }
        }
    }

    #[test]
    fn a_jump_is_noted_and_ends_when_it_is_over() {
        for seed in 0..100 {
            let bad = 70..85;
            let errors = series(seed, 200, |at| (if bad.contains(&at) { 0.4 } else { 0.01 }, 20.0));
            let slow = series(seed, 200, |at| (0.01, if bad.contains(&at) { 200.0 } else { 20.0 }));
            for (minutes, what, least) in
                [(&errors, What::Errors, 0.35), (&slow, What::Latency, 300.0)]
            {
                let found = episodes(minutes, what, END);
                assert_eq!(found.len(), 1, "seed {seed}: {found:?}");
                let Episode { begin, end, usual, band, worst, .. } = &found[0];
                assert_eq!((begin.0, *end), (70 * MINUTE, Some(Timestamp(85 * MINUTE))));
                assert!(usual < band && band < worst && *worst > least, "seed {seed}: {found:?}");
            }
            assert_eq!(episodes(&errors, What::Latency, END), []);
            assert_eq!(episodes(&slow, What::Errors, END), []);
            // While it lasts it has no end, and one bad minute is none.
            let last = |until: u64| episodes(&errors[..80], What::Errors, until * MINUTE)[0].end;
            assert_eq!(last(80), None);
            // Nor if nobody asks for a while; after that it does not go on.
            assert_eq!((last(89), last(90)), (None, Some(Timestamp(80 * MINUTE))));
            assert_eq!(episodes(&errors[..71], What::Errors, END), []);
        }
    }

    #[test]
    fn little_traffic_and_a_short_past_say_nothing() {
        let wild = |at: u64| (if at > 60 { 1.0 } else { 0.0 }, 20.0);
        assert_eq!(episodes(&series(1, REQUESTS_MIN - 1, wild), What::Errors, END), []);
        assert_eq!(episodes(&series(1, 500, wild)[60..], What::Errors, END), []);
        assert_eq!(episodes(&series(1, 500, wild)[50..], What::Errors, END).len(), 1);
    }
}

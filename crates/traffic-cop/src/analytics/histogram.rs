//! A log-linear histogram: sixteen buckets for each power of two of microseconds, so that a
//! percentile is off by at most one sixteenth. Histograms of cores, seconds and nodes add up.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
use std::time::Duration;

const SUB_BITS: u32 = 4;
const SUB: u64 = 1 << SUB_BITS;
/// Above 2^36 µs, 19 hours, everything counts as that.
const MICROS_MAX: u64 = (1 << 36) - 1;

/// How often which latency was seen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Histogram {
    /// Grows up to the largest bucket that was ever used.
    counts: Vec<u64>,
    sum_micros: u64,
}

fn index(micros: u64) -> usize {
    if micros < SUB {
        return micros as usize;
    }
    let exponent = micros.ilog2() - SUB_BITS;
    (u64::from(exponent + 1) * SUB + ((micros >> exponent) - SUB)) as usize
}

/// The largest value that falls into the bucket.
fn upper(index: usize) -> u64 {
    let index = index as u64;
    if index < SUB {
        return index;
    }
    let exponent = index / SUB - 1;
    ((index % SUB + SUB + 1) << exponent) - 1
}

/// The sum, and each bucket that is not empty: its number and its count.
impl Serialize for Histogram {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let used: Vec<(usize, u64)> =
            self.counts.iter().copied().enumerate().filter(|(_, count)| *count > 0).collect();
        (self.sum_micros, used).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Histogram {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (sum_micros, used) = <(u64, Vec<(usize, u64)>)>::deserialize(deserializer)?;
        let mut counts =
            vec![0; used.last().map_or(0, |(at, _)| at + 1).min(index(MICROS_MAX) + 1)];
        for (at, count) in used {
            *counts.get_mut(at).ok_or_else(|| D::Error::custom("no such bucket"))? = count;
        }
        Ok(Self { counts, sum_micros })
    }
}

impl Histogram {
    /// Counts one latency.
    pub fn record(&mut self, latency: Duration) {
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX).min(MICROS_MAX);
        let at = index(micros);
        if at >= self.counts.len() {
            self.counts.resize(at + 1, 0);
        }
        self.counts[at] += 1;
        self.sum_micros += micros;
    }

    /// Adds another histogram.
    pub fn add(&mut self, other: &Self) {
        if other.counts.len() > self.counts.len() {
            self.counts.resize(other.counts.len(), 0);
        }
        for (sum, more) in self.counts.iter_mut().zip(&other.counts) {
            *sum += more;
        }
        self.sum_micros += other.sum_micros;
    }

    /// How many were counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The sum of all latencies.
    #[must_use]
    pub fn sum(&self) -> Duration {
        Duration::from_micros(self.sum_micros)
    }

    /// How many were at most `bound`, as exactly as the buckets tell.
    #[must_use]
    pub fn at_most(&self, bound: Duration) -> u64 {
        let micros = u64::try_from(bound.as_micros()).unwrap_or(u64::MAX).min(MICROS_MAX);
        let end = (index(micros) + 1).min(self.counts.len());
        self.counts[..end].iter().sum()
    }

    /// The latency that the fraction `quantile` (0 to 1) did not exceed; `None` of nothing.
    #[must_use]
    pub fn quantile(&self, quantile: f64) -> Option<Duration> {
        let total = self.count();
        if total == 0 {
            return None;
        }
        let rank = ((total as f64 * quantile).ceil() as u64).clamp(1, total);
        let mut seen = 0;
        let at = self.counts.iter().position(|count| {
            seen += count;
            seen >= rank
        })?;
        Some(Duration::from_micros(upper(at)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_tile_the_line() {
        let mut last = 0;
        for micros in 0..100_000 {
            let at = index(micros);
            assert!(at == last || at == last + 1, "{micros}");
            assert!(
                upper(at) >= micros && (upper(at) - micros) * 16 <= upper(at).max(16),
                "{micros}"
            );
            last = at;
        }
    }

    #[test]
    fn quantiles_are_off_by_a_sixteenth_at_most() {
        let mut histogram = Histogram::default();
        (1..=1000).for_each(|ms| histogram.record(Duration::from_millis(ms)));
        for (quantile, exact) in [(0.5, 500), (0.99, 990), (1.0, 1000)] {
            let told = histogram.quantile(quantile).unwrap().as_millis();
            assert!((exact..=exact + exact / 15).contains(&told), "{quantile}: {told}");
        }
        assert_eq!(Histogram::default().quantile(0.5), None);
    }
}

//! A log-linear histogram: sixteen buckets for each power of two of microseconds. A percentile is
//! told as the middle of its bucket, and so is off by at most one in 32. Histograms of cores, spans
//! and nodes add up.

use crate::analytics::row::Row;
use std::time::Duration;

const SUB_BITS: u32 = 4;
const SUB: u64 = 1 << SUB_BITS;
/// Above 2^36 µs, 19 hours, everything counts as that.
const MICROS_MAX: u64 = (1 << 36) - 1;

/// How often which latency was seen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Histogram {
    /// The first of `counts`.
    first: usize,
    /// From the first power of two that was ever used to the last: latencies of one route lie close
    /// to each other, and there may be thousands of routes.
    counts: Row,
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

/// The value in the middle of the bucket.
fn middle(index: usize) -> u64 {
    match index.checked_sub(1) {
        None => 0,
        Some(before) => (upper(before) + 1).midpoint(upper(index)),
    }
}

impl Histogram {
    /// Counts one latency.
    pub fn record(&mut self, latency: Duration) {
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX).min(MICROS_MAX);
        self.add_to(index(micros), 1);
        self.sum_micros += micros;
    }

    fn add_to(&mut self, at: usize, more: u64) {
        if !self.counts.add(at.wrapping_sub(self.first), more) {
            self.cover(at, at);
            self.counts.add(at - self.first, more);
        }
    }

    /// Makes room for the powers of two from that of the bucket `first` to that of `last`, and for
    /// no more.
    fn cover(&mut self, first: usize, last: usize) {
        let sub = SUB as usize;
        let (first, last) = (first / sub * sub, last / sub * sub + sub - 1);
        if self.counts.len() == 0 {
            self.first = first;
        }
        let before = self.first.saturating_sub(first);
        let after = (last + 1).saturating_sub(self.first + self.counts.len());
        if before + after > 0 {
            self.counts.widen(before, after);
            self.first -= before;
        }
    }

    /// Adds another histogram.
    pub fn add(&mut self, other: &Self) {
        if let Some(last) = other.counts.len().checked_sub(1) {
            self.cover(other.first, other.first + last);
            other.used().for_each(|(at, count)| self.add_to(at, count));
        }
        self.sum_micros += other.sum_micros;
    }

    /// The buckets that are not empty, in order: number and count.
    pub(super) fn used(&self) -> impl Iterator<Item = (usize, u64)> {
        let counts = (self.first..).zip(self.counts.iter());
        counts.filter(|(_, count)| *count > 0)
    }

    /// The histogram of these buckets.
    pub(super) fn of_used(
        used: impl Iterator<Item = (usize, u64)> + Clone,
        sum_micros: u64,
    ) -> Self {
        let mut histogram = Self { sum_micros, ..Self::default() };
        let used = used.filter(|(at, _)| *at <= index(MICROS_MAX));
        let ends = used.clone().map(|(at, _)| at);
        if let (Some(first), Some(last)) = (ends.clone().min(), ends.max()) {
            histogram.cover(first, last);
            used.for_each(|(at, count)| histogram.add_to(at, count));
        }
        histogram
    }

    pub(super) fn sum_micros(&self) -> u64 {
        self.sum_micros
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
        let end = (index(micros) + 1).saturating_sub(self.first).min(self.counts.len());
        self.counts.iter().take(end).sum()
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
        Some(Duration::from_micros(middle(self.first + at)))
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
    fn latencies_come_in_any_order() {
        let micros = [5_000, 3, 70_000_000, 0, 5_000, 64];
        let of = |micros: &[u64]| {
            let mut histogram = Histogram::default();
            micros.iter().for_each(|micros| histogram.record(Duration::from_micros(*micros)));
            histogram
        };
        let all = of(&micros);
        assert_eq!((all.count(), all.sum()), (6, Duration::from_micros(70_010_067)));
        assert_eq!(all.at_most(Duration::from_micros(63)), 2);
        assert_eq!(all.quantile(0.0), Some(Duration::ZERO));
        for at in 0..=micros.len() {
            let (mut sum, more) = (of(&micros[..at]), of(&micros[at..]));
            sum.add(&more);
            assert_eq!(sum, all, "the first {at} and the others");
        }
        let stored = all.used().collect::<Vec<_>>();
        assert_eq!(Histogram::of_used(stored.into_iter(), all.sum_micros), all);
        assert_eq!(Histogram::of_used([(9_999, 1)].into_iter(), 0), Histogram::default());
        let late = of(&[5_000]);
        assert_eq!(late.at_most(Duration::from_micros(63)), 0);
        assert_eq!(late.counts.len(), 16, "no room is taken for what is not there");
    }

    #[test]
    fn quantiles_are_off_by_one_in_32_at_most() {
        for scale in [1, 17, 1_000, 65_537] {
            let mut histogram = Histogram::default();
            (1..=10_000).for_each(|n| histogram.record(Duration::from_micros(n * scale)));
            for (quantile, nth) in [(0.5, 5_000), (0.9, 9_000), (0.95, 9_500), (0.99, 9_900)]
                .into_iter()
                .chain([(0.999, 9_990), (1.0, 10_000), (0.0001, 1)])
            {
                let told = histogram.quantile(quantile).unwrap().as_micros() as f64;
                let exact = (nth * scale) as f64;
                assert!((told / exact - 1.0).abs() <= 1.0 / 32.0, "{quantile}: {told} for {exact}");
            }
        }
        assert_eq!(Histogram::default().quantile(0.5), None);
    }
}

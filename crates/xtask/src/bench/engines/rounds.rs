//! Rounds that took turns, and what they come to.

use crate::{bench::numbers::median, process::Cpu};

/// One turn of one side.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Round {
    /// Of whoever asks.
    pub(super) near: Cpu,
    /// Of the servers that are asked.
    pub(super) far: Cpu,
    pub(super) operations: u64,
    pub(super) seconds: f64,
}

impl Round {
    /// CPU per operation, of both ends.
    pub(super) fn micros(&self) -> f64 {
        micros(self.near, self.operations) + micros(self.far, self.operations)
    }
}

fn micros(cpu: Cpu, operations: u64) -> f64 {
    cpu.total().as_micros() as f64 / operations.max(1) as f64
}

/// The turns of one side.
#[derive(Debug, Clone, Default)]
pub(super) struct Rounds(pub(super) Vec<Round>);

impl Rounds {
    /// The median of the rounds, each in microseconds per operation.
    pub(super) fn median_micros(&self) -> f64 {
        median(self.0.iter().map(Round::micros))
    }

    /// Of whoever asks alone.
    pub(super) fn median_near(&self) -> f64 {
        median(self.0.iter().map(|round| micros(round.near, round.operations)))
    }

    /// Of the servers alone.
    pub(super) fn median_far(&self) -> f64 {
        median(self.0.iter().map(|round| micros(round.far, round.operations)))
    }

    /// All CPU over all operations.
    fn total_micros(&self) -> f64 {
        let both = self.0.iter().map(|round| round.near.plus(round.far));
        micros(both.fold(Cpu::default(), Cpu::plus), self.operations())
    }

    pub(super) fn operations(&self) -> u64 {
        self.0.iter().map(|round| round.operations).sum()
    }

    pub(super) fn per_second(&self) -> f64 {
        let seconds: f64 = self.0.iter().map(|round| round.seconds).sum();
        self.operations() as f64 / seconds.max(f64::MIN_POSITIVE)
    }
}

/// Ours by theirs, read in three ways.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ratio {
    /// The headline.
    pub(super) of_medians: f64,
    pub(super) of_totals: f64,
    pub(super) median_of_pairs: f64,
}

impl Ratio {
    pub(super) fn of(ours: &Rounds, theirs: &Rounds) -> Self {
        let pairs = ours.0.iter().zip(&theirs.0);
        Self {
            of_medians: ours.median_micros() / theirs.median_micros(),
            of_totals: ours.total_micros() / theirs.total_micros(),
            median_of_pairs: median(pairs.map(|(ours, theirs)| ours.micros() / theirs.micros())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn rounds<const N: usize>(each: [(u64, u64, u64); N]) -> Rounds {
        let cpu = |ms| Cpu { user: Duration::from_millis(ms), system: Duration::ZERO };
        let round = |(near, far, operations)| Round {
            near: cpu(near),
            far: cpu(far),
            operations,
            seconds: 1.0,
        };
        Rounds(each.map(round).to_vec())
    }

    #[test]
    fn both_ends_are_counted() {
        let ours = rounds([(10, 20, 1_000), (30, 30, 1_000), (20, 20, 1_000)]);
        assert_eq!(ours.median_micros(), 40.0);
        assert_eq!((ours.median_near(), ours.median_far()), (20.0, 20.0));
        assert_eq!((ours.operations(), ours.per_second()), (3_000, 1_000.0));
    }

    #[test]
    fn a_ratio_is_read_in_three_ways() {
        let ours = rounds([(10, 0, 1_000), (20, 0, 1_000), (90, 0, 1_000)]);
        let theirs = rounds([(10, 0, 1_000), (10, 0, 1_000), (40, 0, 1_000)]);
        let ratio = Ratio::of(&ours, &theirs);
        assert_eq!((ratio.of_medians, ratio.of_totals, ratio.median_of_pairs), (2.0, 2.0, 2.0));
        let slower = rounds([(40, 0, 1_000), (10, 0, 1_000), (10, 0, 1_000)]);
        let ratio = Ratio::of(&slower, &theirs);
        assert_eq!((ratio.of_medians, ratio.median_of_pairs), (1.0, 1.0));
    }
}

//! What goes wrong, and when.

use std::{collections::HashMap, time::Duration};

/// What happens to one commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Not applied, answered with [`store::Error::Unavailable`].
    LoseRequest,
    /// Applied, yet answered with [`store::Error::Unavailable`]: the unknown outcome.
    LoseReply,
    /// Not applied, answered with [`store::Error::Full`].
    Full,
    /// Applied after so long.
    Delay(Duration),
}

/// Which commits and reads fail. The same plan and the same calls give the same faults.
#[derive(Debug, Default)]
pub struct Faults {
    commits: HashMap<u64, Fault>,
    reads: HashMap<u64, ()>,
    random: Option<Random>,
    commits_seen: u64,
    reads_seen: u64,
}

#[derive(Debug)]
struct Random {
    state: u64,
    commits_per_mille: u64,
    reads_per_mille: u64,
    delay_max: Duration,
}

impl Faults {
    /// Nothing fails.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Commits and reads fail at random, so many of a thousand; delays last up to `delay_max`.
    #[must_use]
    pub fn seeded(
        seed: u64,
        commits_per_mille: u16,
        reads_per_mille: u16,
        delay_max: Duration,
    ) -> Self {
        let random = Random {
            state: seed,
            commits_per_mille: commits_per_mille.into(),
            reads_per_mille: reads_per_mille.into(),
            delay_max,
        };
        Self { random: Some(random), ..Self::default() }
    }

    /// The `nth` commit from now on, counted from 1, meets `fault`.
    #[must_use]
    pub fn on_commit(mut self, nth: u64, fault: Fault) -> Self {
        self.commits.insert(self.commits_seen + nth, fault);
        self
    }

    /// The `nth` read from now on, counted from 1, is answered with
    /// [`store::Error::Unavailable`].
    #[must_use]
    pub fn on_read(mut self, nth: u64) -> Self {
        self.reads.insert(self.reads_seen + nth, ());
        self
    }

    pub(crate) fn next_commit(&mut self) -> Option<Fault> {
        self.commits_seen += 1;
        let scripted = self.commits.remove(&self.commits_seen);
        scripted.or_else(|| self.random.as_mut()?.commit())
    }

    pub(crate) fn next_read_fails(&mut self) -> bool {
        self.reads_seen += 1;
        let scripted = self.reads.remove(&self.reads_seen).is_some();
        scripted || self.random.as_mut().is_some_and(Random::read)
    }
}

impl Random {
    fn commit(&mut self) -> Option<Fault> {
        if self.below(1000) >= self.commits_per_mille {
            return None;
        }
        Some(match self.below(4) {
            0 => Fault::LoseRequest,
            1 => Fault::LoseReply,
            2 => Fault::Full,
            _ => {
                let most = u64::try_from(self.delay_max.as_micros()).unwrap_or(u64::MAX);
                Fault::Delay(Duration::from_micros(self.below(most.saturating_add(1).max(1))))
            }
        })
    }

    fn read(&mut self) -> bool {
        self.below(1000) < self.reads_per_mille
    }

    /// SplitMix64 (Steele, Lea, Flood 2014).
    fn below(&mut self, bound: u64) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % bound
    }
}

//! How fast a node opens connections: those that come all at once, after another node has gone,
//! wait for their turn.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// A connection waits at most so long; those beyond are told to come back.
const WAIT_MAX: Duration = Duration::from_secs(5);
/// So many of a second's connections open at once.
const BURST: Duration = Duration::from_millis(250);

/// The turns of a node's connections: a virtual schedule (GCRA, as limits are counted).
#[derive(Debug)]
pub(crate) struct Admission {
    interval: Duration,
    /// When the next turn would come if all were evenly spaced, in nanoseconds.
    next: AtomicU64,
}

impl Admission {
    /// `rate` connections a second, at least one.
    pub(crate) fn new(rate: u32) -> Self {
        Self { interval: Duration::from_secs(1) / rate.max(1), next: AtomicU64::new(0) }
    }

    /// How long a connection that comes now has to wait; `None` if that is too long.
    pub(crate) fn turn(&self, now: Duration) -> Option<Duration> {
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let taken = self.next.try_update(Relaxed, Relaxed, |next| {
            let turn = next.max(nanos(now));
            let latest = nanos(now + BURST + WAIT_MAX);
            (turn <= latest).then(|| turn.saturating_add(nanos(self.interval)))
        });
        let turn = Duration::from_nanos(taken.ok()?).max(now);
        Some(turn.saturating_sub(now + BURST))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_herd_waits_for_its_turns_and_its_tail_is_sent_away() {
        let admission = Admission::new(1_000);
        let now = Duration::from_secs(9);
        let turns: Vec<_> = (0..6_000).map(|_| admission.turn(now)).collect();
        let at_once = turns.iter().filter(|turn| **turn == Some(Duration::ZERO)).count();
        assert!((250..=252).contains(&at_once), "{at_once}");
        assert_eq!(turns[1_250], Some(Duration::from_secs(1)));
        assert!(turns[5_200].is_some() && turns[5_300].is_none());
        // Those sent away take no turn from others.
        assert!(admission.turn(now + Duration::from_millis(10)).is_some());
        assert_eq!(admission.turn(now + Duration::from_secs(60)), Some(Duration::ZERO));
    }
}

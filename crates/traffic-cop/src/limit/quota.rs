//! The count of a calendar's period: what is used, and what the store knows as used already.
//!
//! What may be used is reserved first: the store notes it as if it were used. So whoever comes
//! after a crash finds a count that is never too small, and too large by what was reserved and
//! not used, which is a part of the quota ([`part`]).
//!
//! A count never goes back to an earlier period, whatever the clock says.

use crate::limit::{calendar::Period, gcra::Taken};
use std::time::Duration;
use types::Timestamp;

/// A count on which nobody drew for so long gives back what it reserved.
const QUIET: Duration = Duration::from_secs(10);

/// What is reserved ahead, and what a node may admit in a period without being able to reserve.
pub(super) fn part(limit: u64) -> u64 {
    (limit / 100).max(1)
}

/// The count of one subject.
#[derive(Debug, Default)]
pub(super) struct Quota {
    /// The period that is counted, by its beginning.
    begun: Timestamp,
    /// Until it is loaded: what came on top of what the store knows.
    used: u64,
    /// What may be used; the store knows as much as used, or more.
    reserved: u64,
    /// What requests wait for.
    wanted: u64,
    /// What was used on this node in the period without being reserved.
    unasked: u64,
    loaded: bool,
    /// The store has to be told, whatever it knows.
    changed: bool,
    /// When it was drawn on last, since the node's clock was made.
    drawn: Duration,
}

/// The quota, and the time at which it is drawn on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Drawing {
    pub(super) limit: u64,
    /// The time of day.
    pub(super) at: Timestamp,
    /// The period of the clock, or the later one that is counted.
    pub(super) period: Period,
    /// The time since the node's clock was made.
    pub(super) now: Duration,
}

impl Drawing {
    fn left(&self) -> Duration {
        self.period.ends.since(self.at)
    }
}

/// What drawing on a quota comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Counted {
    /// The request may go on; reserve more ahead if `low`.
    Taken { taken: Taken, low: bool },
    /// The quota is used up.
    Refused(Taken),
    /// More has to be reserved first.
    Short,
}

impl Quota {
    /// A count that no store keeps.
    pub(super) fn in_memory() -> Self {
        Self { reserved: u64::MAX, loaded: true, ..Self::default() }
    }

    /// The period that is counted, by its beginning.
    pub(super) fn begun(&self) -> Timestamp {
        self.begun
    }

    /// Begins anew if `period` is later than what is counted.
    pub(super) fn turn(&mut self, period: Period) {
        if period.begins > self.begun {
            let reserved = if self.reserved == u64::MAX { u64::MAX } else { 0 };
            (self.begun, self.used, self.reserved, self.unasked) = (period.begins, 0, reserved, 0);
        }
    }

    /// Takes `cost`, or for 0 asks whether there is room for one.
    pub(super) fn take(&mut self, by: Drawing, cost: u64) -> Counted {
        self.drawn = by.now;
        let needed = self.used.saturating_add(cost.max(1));
        if self.loaded && needed > by.limit {
            return Counted::Refused(Taken { retry_after: by.left(), ..self.state(by) });
        }
        if !self.loaded || needed > self.reserved {
            self.wanted = self.wanted.saturating_add(cost.max(1));
            return Counted::Short;
        }
        self.used += cost;
        Counted::Taken { taken: self.state(by), low: self.is_low(by.limit) }
    }

    /// Takes `cost` if there is room, reserved or not; for rules that refuse nothing.
    pub(super) fn take_freely(&mut self, by: Drawing, cost: u64) -> bool {
        self.drawn = by.now;
        let fits = self.used.saturating_add(cost.max(1)) <= by.limit;
        if fits {
            self.used += cost;
        }
        fits
    }

    /// Takes `cost` while nothing can be reserved, if that is within this node's part. Where
    /// another node counts, it has to be told (`is_told`).
    pub(super) fn take_unasked(&mut self, by: Drawing, cost: u64, is_told: bool) -> Option<Taken> {
        self.wanted = 0;
        let needed = self.unasked.saturating_add(cost.max(1));
        let fits = needed <= part(by.limit) && self.used.saturating_add(cost.max(1)) <= by.limit;
        if !fits {
            return None;
        }
        self.unasked += cost;
        if !is_told {
            self.used += cost;
        }
        Some(Taken { remaining: part(by.limit) - self.unasked, ..self.state(by) })
    }

    /// Takes `cost`, whether there is room for it or not.
    pub(super) fn debit(&mut self, by: Drawing, cost: u64) -> Taken {
        self.drawn = by.now;
        self.used = self.used.saturating_add(cost);
        self.state(by)
    }

    /// What is admitted without its owner is charged to this node's part of it as well.
    pub(super) fn debit_unasked(&mut self, cost: u64) {
        self.unasked = self.unasked.saturating_add(cost);
    }

    /// Undoes a charge of this moment.
    pub(super) fn put_back(&mut self, cost: u64) {
        self.used = self.used.saturating_sub(cost);
    }

    /// Takes what was granted in the period of `begun` and not used.
    pub(super) fn take_back(&mut self, begun: Timestamp, back: u64) {
        if begun == self.begun {
            self.put_back(back);
        }
    }

    /// Whether `want` can be granted, or nothing will be. If not, it is wished for.
    pub(super) fn is_ready(&mut self, by: Drawing, want: u64) -> bool {
        self.drawn = by.now;
        let needed = self.used.saturating_add(want).min(by.limit);
        if self.loaded && needed <= self.reserved.max(self.used) && !self.changed {
            return true;
        }
        self.wanted = self.wanted.saturating_add(want);
        false
    }

    /// Takes as many as are reserved, up to `want`; `None` if nothing is known. Where others were
    /// faster, nothing is taken although there is more.
    pub(super) fn take_up_to(&mut self, by: Drawing, want: u64) -> Option<(u64, Taken)> {
        if !self.loaded {
            return None;
        }
        let room = self.reserved.min(by.limit).saturating_sub(self.used);
        let granted = want.min(room);
        self.used += granted;
        let is_over = granted == 0 && self.used >= by.limit;
        let retry_after = if is_over { by.left() } else { Duration::ZERO };
        Some((granted, Taken { retry_after, ..self.state(by) }))
    }

    /// Makes it full again, in the period of the clock.
    pub(super) fn reset(&mut self, period: Period) {
        let reserved = if self.reserved == u64::MAX { u64::MAX } else { 0 };
        *self = Self {
            begun: period.begins,
            reserved,
            loaded: true,
            changed: reserved == 0,
            drawn: self.drawn,
            ..Self::default()
        };
    }

    /// Somebody else may count from now on.
    pub(super) fn unload(&mut self) {
        self.used = self.used.saturating_sub(self.reserved);
        (self.reserved, self.wanted) = (0, 0);
        (self.loaded, self.changed) = (false, false);
    }

    /// Takes what the store knows: a period, and what is used of it.
    pub(super) fn load(&mut self, known: Option<(Timestamp, u64)>) {
        if self.loaded {
            return;
        }
        self.loaded = true;
        let Some((begun, used)) = known else { return };
        if begun > self.begun {
            (self.begun, self.unasked) = (begun, 0);
        }
        if begun == self.begun {
            (self.used, self.reserved) = (self.used.saturating_add(used), used);
        }
    }

    /// Whether the store has to be asked what it knows.
    pub(super) fn needs_load(&self) -> bool {
        !self.loaded && (self.wanted > 0 || self.used > 0)
    }

    /// What the store has to be told: the period, by its beginning, and what of it is to count
    /// as used. To be followed by [`Self::saved`]. `leaving`: nobody will draw on it any more.
    pub(super) fn due(
        &mut self,
        limit: u64,
        now: Duration,
        leaving: bool,
    ) -> Option<(Timestamp, u64)> {
        if !self.loaded || self.reserved == u64::MAX {
            return None;
        }
        let is_quiet = leaving || now.saturating_sub(self.drawn) >= QUIET;
        let ahead = if is_quiet && self.wanted == 0 { 0 } else { part(limit) };
        let most = self.used.max(limit);
        let target = self.used.saturating_add(self.wanted).saturating_add(ahead).min(most);
        let is_short = (self.wanted > 0 || self.is_low(limit)) && self.reserved < target;
        // Not earlier: whoever waited for it has yet to come and take it.
        let is_too_much = ahead == 0 && self.reserved > target;
        if !(is_short || is_too_much || self.used > self.reserved || self.changed) {
            self.wanted = 0;
            return None;
        }
        // What will no longer be reserved must not be used from now on.
        self.reserved = self.reserved.min(target);
        (self.wanted, self.changed) = (0, false);
        Some((self.begun, target))
    }

    /// The store has been told; or, if that is not known, it may have been.
    pub(super) fn saved(&mut self, begun: Timestamp, target: u64, is_known: bool) {
        if begun != self.begun || !self.loaded {
            return;
        }
        if is_known {
            self.reserved = target;
        } else {
            self.changed = true;
        }
    }

    /// Whether nothing is lost with it.
    pub(super) fn is_idle(&self, now: Duration) -> bool {
        let is_kept = match self.loaded {
            true => self.used == self.reserved && !self.changed,
            false => self.used == 0,
        };
        is_kept && self.unasked == 0 && now.saturating_sub(self.drawn) >= QUIET
    }

    fn is_low(&self, limit: u64) -> bool {
        self.reserved < limit && self.reserved.saturating_sub(self.used) <= part(limit) / 2
    }

    fn state(&self, by: Drawing) -> Taken {
        let remaining = by.limit.saturating_sub(self.used);
        Taken { remaining, reset: by.left(), retry_after: Duration::ZERO }
    }
}

#[cfg(test)]
mod tests;

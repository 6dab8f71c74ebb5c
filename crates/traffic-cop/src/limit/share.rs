//! What a node holds of a limit that another node owns: requests that the owner granted ahead.
//!
//! A share is sized by what was asked for lately: enough for a while where plenty remains, and
//! for a moment where little does, since what one node holds no other can use. A quiet key
//! holds nothing, and what is not used within a second is given back.

use crate::limit::{calendar::Calendar, gcra::Taken};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use types::Timestamp;

/// A share is to last so long; and so long if it is at most this part of what remains.
const AHEAD: Duration = Duration::from_millis(100);
const FAR_AHEAD: Duration = Duration::from_millis(500);
const PART_OF_REST: f64 = 0.1;
/// A share that is not used up by then is given back.
const KEPT: Duration = Duration::from_secs(1);
/// After a refusal the owner is not asked for so long at least, and at most.
const QUIET: [Duration; 2] = [Duration::from_millis(10), Duration::from_secs(1)];

/// What a node asks of an owner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ask {
    /// Whose limit.
    pub key: u128,
    /// Nanoseconds that one request costs.
    pub interval: u64,
    /// Requests that a rested bucket takes at once.
    pub burst: u64,
    /// Requests to be granted.
    pub want: u64,
    /// Requests granted before and not used.
    pub back: u64,
    /// What was used beyond what was granted, by requests whose cost is known afterwards.
    #[serde(default, skip_serializing_if = "is_none")]
    pub spent: u64,
    /// The limit is to be full again before anything else is done.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub reset: bool,
    /// If it is a quota; `burst` is then how much there is of it in a period.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota: Option<AskedQuota>,
}

/// What an owner has to know of a quota.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AskedQuota {
    /// Its periods.
    pub calendar: Calendar,
    /// The beginning of the period in which that was granted which is given back.
    pub begun: Timestamp,
}

/// Nodes of versions that do not know of it are told where it matters only.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants it so")]
fn is_none(spent: &u64) -> bool {
    *spent == 0
}

/// As [`is_none`].
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants it so")]
fn is_beginning(begun: &Timestamp) -> bool {
    *begun == Timestamp(0)
}

/// What the owner answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grant {
    /// Requests granted, at most as many as wanted.
    pub granted: u64,
    /// Requests that could be granted now.
    pub remaining: u64,
    /// Nanoseconds until the limit is full again.
    pub reset: u64,
    /// Nanoseconds until the next request can be granted, if none was.
    pub retry_after: u64,
    /// Of a quota: the beginning of the period, which ends with `reset`.
    #[serde(default, skip_serializing_if = "is_beginning")]
    pub begun: Timestamp,
}

/// Requests granted by an owner and not used yet. Times are since the node's clock was made.
#[derive(Debug, Default)]
pub(super) struct Share {
    left: u64,
    kept_until: Duration,
    /// What could not be used in time.
    back: u64,
    /// The owner has said that there is nothing until then; it is asked again a little earlier.
    refused_until: Duration,
    quiet_until: Duration,
    /// Requests since the last answer, and when that was; those of them that wait.
    demand: u64,
    since: Duration,
    waiting: u64,
    /// What requests took that did not wait for the answer, and how many they were.
    late: (u64, u64),
    /// What was used beyond the share, and the part of it that the owner is being told.
    spent: u64,
    telling: u64,
    last: Option<Grant>,
    asking: bool,
}

/// What drawing on a share comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Drawn {
    /// The request may go on; ask the owner for more ahead if `low`.
    Taken { taken: Taken, low: bool },
    /// The owner has said no.
    Refused(Taken),
    /// The owner has to be asked.
    Short,
}

impl Share {
    /// Draws `cost`, or for 0 asks whether there is room for one.
    pub(super) fn draw(&mut self, now: Duration, cost: u64) -> Drawn {
        self.expire(now);
        self.demand = self.demand.saturating_add(cost);
        let last = self.last.unwrap_or_default();
        let taken = Taken {
            remaining: last.remaining + self.left.saturating_sub(cost),
            reset: Duration::from_nanos(last.reset),
            retry_after: Duration::ZERO,
        };
        if self.left >= cost.max(1) {
            self.left -= cost;
            let low = !self.asking && self.left < last.granted / 4;
            return Drawn::Taken { taken, low };
        }
        if now < self.quiet_until {
            let retry_after = self.refused_until.saturating_sub(now);
            return Drawn::Refused(Taken { remaining: 0, retry_after, ..taken });
        }
        self.waiting = self.waiting.saturating_add(cost.max(1));
        Drawn::Short
    }

    /// Takes `cost`, of which the owner is told what the share does not hold. Whether it should
    /// be told now.
    pub(super) fn spend(&mut self, now: Duration, cost: u64) -> (Taken, bool) {
        self.expire(now);
        self.demand = self.demand.saturating_add(cost);
        let paid = cost.min(self.left);
        self.left -= paid;
        self.spent = self.spent.saturating_add(cost - paid);
        let (rest, reset) = self.last.map_or((0, 0), |last| (last.remaining, last.reset));
        let remaining = if self.spent > 0 { 0 } else { rest + self.left };
        let (reset, retry_after) = (Duration::from_nanos(reset), Duration::ZERO);
        (Taken { remaining, reset, retry_after }, self.spent > 0 && !self.asking)
    }

    /// Forgets that the owner has refused, and what it was to be told.
    pub(super) fn reset(&mut self) {
        (self.quiet_until, self.refused_until, self.spent) = (Duration::ZERO, Duration::ZERO, 0);
    }

    /// Undoes a draw of this moment.
    pub(super) fn put_back(&mut self, cost: u64) {
        self.left += cost;
        self.demand = self.demand.saturating_sub(cost);
    }

    /// Notes that a request that was drawn in vain went on, to be paid for with the next answer.
    pub(super) fn owe(&mut self, cost: u64) {
        let (owed, requests) = self.late;
        self.late = (owed.saturating_add(cost), requests + 1);
    }

    /// What to ask the owner for; `None` while an answer is awaited.
    pub(super) fn ask(
        &mut self,
        now: Duration,
        key: u128,
        interval: u64,
        burst: u64,
    ) -> Option<Ask> {
        if self.asking {
            return None;
        }
        self.expire(now);
        self.asking = true;
        let over = now.saturating_sub(self.since).max(Duration::from_millis(1));
        let pace = self.demand as f64 / over.as_secs_f64();
        // So much harms nobody.
        let part = self.last.map_or(0, |last| last.remaining) as f64 * PART_OF_REST;
        let far = (pace * FAR_AHEAD.as_secs_f64()).min(part);
        let ahead = (pace * AHEAD.as_secs_f64()).max(far);
        // Beyond it a short look back misleads: no more than twice what was granted last.
        let most = self.last.map_or(1, |last| 2 * last.granted + 1).max(part as u64);
        let want = (ahead.ceil() as u64).min(most).max(self.waiting).min(burst);
        self.telling = std::mem::take(&mut self.spent);
        let (back, spent) = (std::mem::take(&mut self.back), self.telling);
        Some(Ask { key, interval, burst, want, back, spent, reset: false, quota: None })
    }

    /// The beginning of the period that the last answer was about.
    pub(super) fn begun(&self) -> Timestamp {
        self.last.map_or(Timestamp(0), |last| last.begun)
    }

    /// From now on, nothing is kept that is not used.
    pub(super) fn release(&mut self) {
        self.back += std::mem::take(&mut self.left);
    }

    /// Takes the owner's answer, and tells how many of the requests that did not wait for it
    /// are refused by it.
    pub(super) fn answered(&mut self, now: Duration, grant: Option<Grant>) -> u64 {
        self.asking = false;
        let (owed, requests) = std::mem::take(&mut self.late);
        let told = std::mem::take(&mut self.telling);
        let Some(grant) = grant else {
            // If it did hear, it counts this twice: rather that than never.
            self.spent = self.spent.saturating_add(told);
            return 0;
        };
        if self.begun() != grant.begun {
            // Another period of a quota: what is left of the one before is nothing now.
            self.left = 0;
        }
        (self.demand, self.waiting, self.since, self.last) = (0, 0, now, Some(grant));
        self.left += grant.granted;
        let is_quota = grant.begun != Timestamp(0);
        let kept = if is_quota { KEPT.min(Duration::from_nanos(grant.reset)) } else { KEPT };
        self.kept_until = now + kept;
        if grant.granted == 0 && grant.retry_after > 0 {
            let wait = Duration::from_nanos(grant.retry_after);
            self.refused_until = now + wait;
            self.quiet_until = now + wait.clamp(QUIET[0], QUIET[1]);
        }
        let paid = owed.min(self.left);
        self.left -= paid;
        if owed == 0 { 0 } else { ((owed - paid) * requests).div_ceil(owed) }
    }

    /// Whether the owner is to be told something that nobody asks after: what is given back, or
    /// was spent.
    pub(super) fn has_news(&mut self, now: Duration) -> bool {
        self.expire(now);
        (self.back > 0 || self.spent > 0) && !self.asking
    }

    /// Whether nothing is lost with it.
    pub(super) fn is_idle(&self) -> bool {
        self.left == 0 && self.back == 0 && self.spent == 0 && !self.asking
    }

    fn expire(&mut self, now: Duration) {
        if now >= self.kept_until {
            self.release();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(granted: u64, retry_after: u64) -> Grant {
        Grant { granted, retry_after, ..Grant::default() }
    }

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn asked(share: &mut Share, now: Duration) -> Option<u64> {
        share.ask(now, 1, 1, 1_000).map(|ask| ask.want)
    }

    /// What a key that is drawn on each millisecond asks for in the end, and how often in five
    /// seconds, where so much remains.
    fn busy(remaining: u64) -> (u64, u64) {
        let mut share = Share::default();
        let mut now = at(5_000);
        assert_eq!(share.draw(now, 1), Drawn::Short);
        assert_eq!(asked(&mut share, now), Some(1));
        assert_eq!(asked(&mut share, now), None, "one question at a time");
        share.answered(now, Some(grant(1, 0)));
        let (mut calls, mut last) = (1, 1);
        for _ in 0..5_000 {
            now += at(1);
            let drawn = share.draw(now, 1);
            if !matches!(drawn, Drawn::Taken { low: false, .. })
                && let Some(want) = asked(&mut share, now)
            {
                (calls, last) = (calls + 1, want);
                share.answered(now, Some(Grant { remaining, ..grant(want, 0) }));
            }
        }
        (last, calls)
    }

    #[test]
    fn a_cold_key_asks_for_one_and_a_busy_one_for_as_long_as_what_remains_allows() {
        let (last, calls) = busy(0);
        assert!((90..=110).contains(&last) && calls < 130, "{last}, {calls} times");
        let (last, calls) = busy(2_000);
        assert!((190..=210).contains(&last) && calls < 70, "{last}, {calls} times");
        let (last, calls) = busy(1_000_000);
        assert!((490..=510).contains(&last) && calls < 35, "{last}, {calls} times");
    }

    #[test]
    fn a_refusal_is_remembered_but_not_for_long() {
        let mut share = Share::default();
        assert_eq!(share.draw(at(0), 1), Drawn::Short);
        share.ask(at(0), 1, 1, 10);
        share.answered(at(0), Some(grant(0, 5_000_000_000)));
        let Drawn::Refused(taken) = share.draw(at(999), 1) else { panic!("it is known") };
        assert_eq!(taken.retry_after, at(4_001));
        assert_eq!(share.draw(at(1_000), 1), Drawn::Short);
    }

    #[test]
    fn who_does_not_wait_is_judged_by_the_answer() {
        let mut share = Share::default();
        for _ in 0..5 {
            assert_eq!(share.draw(at(0), 2), Drawn::Short);
            share.owe(2);
        }
        assert_eq!(asked(&mut share, at(0)), Some(10));
        assert_eq!(share.answered(at(1), Some(grant(6, 0))), 2, "of five, for three was room");
        assert_eq!(share.draw(at(1), 2), Drawn::Short, "nothing is left of it");
        share.owe(2);
        asked(&mut share, at(1));
        assert_eq!(share.answered(at(2), None), 0, "without an answer nobody is counted");
    }

    #[test]
    fn what_is_spent_beyond_the_share_is_told_until_it_is_heard() {
        let mut share = Share::default();
        assert_eq!(share.draw(at(0), 0), Drawn::Short);
        assert_eq!(asked(&mut share, at(0)), Some(1));
        share.answered(at(0), Some(grant(3, 0)));
        assert!(matches!(share.draw(at(0), 0), Drawn::Taken { .. }));
        assert!(!share.spend(at(0), 2).1, "the share held it");
        assert!(matches!(share.draw(at(0), 0), Drawn::Taken { .. }));
        assert!(share.spend(at(0), 10).1);
        assert_eq!(share.draw(at(0), 0), Drawn::Short, "nothing is left");
        for _ in 0..2 {
            assert!(share.has_news(at(1)) && !share.is_idle());
            assert_eq!(share.ask(at(1), 1, 1, 1_000).unwrap().spent, 9);
            share.answered(at(1), None);
        }
        assert_eq!(share.ask(at(1), 1, 1, 1_000).unwrap().spent, 9);
        share.answered(at(1), Some(grant(0, 5_000_000_000)));
        assert!(!share.has_news(at(1)));
        assert!(matches!(share.draw(at(2), 0), Drawn::Refused(_)));
        share.reset();
        assert_eq!(share.draw(at(2), 0), Drawn::Short, "the owner is asked again");
    }

    #[test]
    fn what_is_not_used_is_given_back() {
        let mut share = Share::default();
        share.draw(at(0), 1);
        share.ask(at(0), 1, 1, 10);
        share.answered(at(0), Some(grant(10, 0)));
        assert!(matches!(share.draw(at(1), 3), Drawn::Taken { .. }));
        assert!(!share.has_news(at(999)));
        assert!(share.has_news(at(1_000)));
        let ask = share.ask(at(1_000), 1, 1, 10).unwrap();
        assert_eq!(ask.back, 7);
        assert_eq!(share.draw(at(1_000), 1), Drawn::Short, "it is given back, and not kept");
    }
}

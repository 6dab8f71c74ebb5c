//! What a request costs that is known only once it is answered.
//!
//! Such a request is let in while its bucket is not empty, and charged afterwards, whatever it
//! came to. So a bucket may owe: what is beyond the limit is what the requests came to that were
//! under way when it became empty, and it is paid off before anything else is let in.

use crate::limit::{
    charge::{Buckets, Counter, Decision},
    gcra::Rate,
};
use clock::SharedClock;
use http::{HeaderMap, HeaderName};
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

/// The most that an answer's header field may say that it cost.
pub const COST_MAX: u64 = 1_000_000_000;

/// What tells a cost afterwards.
#[derive(Debug)]
pub(super) enum Later {
    /// The bytes of both bodies.
    Bytes,
    /// A field of the answer's head.
    Field {
        name: HeaderName,
        /// Whether the client sees it, too.
        kept: bool,
        /// The cost of an answer that does not say, or of none.
        default: u32,
        /// Answers whose field could not be read.
        malformed: Arc<AtomicU64>,
    },
}

/// What a request that was let in owes. To be told of the answer's head, and of the end.
#[derive(Debug)]
pub struct Owing {
    buckets: Arc<Buckets>,
    /// Rules in shadow that would have refused it.
    unmoved: u64,
    answered: bool,
}

impl Owing {
    pub(super) fn new(buckets: Arc<Buckets>, unmoved: u64) -> Self {
        Self { buckets, unmoved, answered: false }
    }

    /// Charges what the head of the answer says, brings `decision` up to date, and removes the
    /// fields that say it, unless all the rules that read one keep it.
    pub fn answered(&mut self, clock: &SharedClock, head: &mut HeaderMap, decision: &mut Decision) {
        self.answered = true;
        let now = clock.elapsed();
        let shared = &self.buckets.shared;
        for (at, later, counter, rate) in self.all() {
            let Later::Field { name, default, malformed, .. } = later else { continue };
            let cost = cost(head, name).unwrap_or_else(|Malformed| {
                malformed.fetch_add(1, Relaxed);
                None
            });
            let cost = cost.unwrap_or(u64::from(*default));
            let taken = counter.debit(shared, rate, now, cost);
            if let Some(at) = at {
                decision.came_to(at, taken);
            }
        }
        let parts = self.buckets.parts.iter().filter_map(|part| part.later.as_ref());
        let shadows = self.buckets.shadows.iter().filter_map(|shadow| shadow.later.as_ref());
        for later in parts.chain(shadows) {
            if let Later::Field { name, kept: false, .. } = later {
                head.remove(name);
            }
        }
    }

    /// Charges the rest, at the end of the request: the bytes of both bodies, and the default
    /// of what an answer should have said if there was none.
    pub fn ended(self, clock: &SharedClock, bytes: u64) {
        let now = clock.elapsed();
        let shared = &self.buckets.shared;
        for (_, later, counter, rate) in self.all() {
            let cost = match later {
                Later::Bytes => bytes,
                Later::Field { .. } if self.answered => continue,
                Later::Field { default, .. } => u64::from(*default),
            };
            counter.debit(shared, rate, now, cost);
        }
    }

    /// Each bucket that is owed to; those of rules that hold with their place.
    fn all(&self) -> impl Iterator<Item = (Option<usize>, &Later, &Counter, Rate)> {
        let parts = self.buckets.parts.iter().enumerate().filter_map(|(at, part)| {
            Some((Some(at), part.later.as_ref()?, &part.counter, part.rate))
        });
        let moved =
            |at: usize| 1_u64.checked_shl(at as u32).is_none_or(|bit| self.unmoved & bit == 0);
        let shadows = self.buckets.shadows.iter().enumerate();
        let shadows = shadows.filter(move |(at, _)| moved(*at)).filter_map(|(_, shadow)| {
            Some((None, shadow.later.as_ref()?, &shadow.counter, shadow.rate))
        });
        parts.chain(shadows)
    }
}

/// The field is there, but says no cost.
#[derive(Debug, PartialEq, Eq)]
struct Malformed;

/// What a head says that its request cost; `None` if it says nothing.
fn cost(head: &HeaderMap, name: &HeaderName) -> Result<Option<u64>, Malformed> {
    let mut values = head.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let digits = value.as_bytes();
    if values.next().is_some() || digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(Malformed);
    }
    let number = value.to_str().ok().and_then(|text| text.parse().ok());
    number.filter(|number| *number <= COST_MAX).map(Some).ok_or(Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn a_cost_is_one_whole_number() {
        let name = HeaderName::from_static("x-tokens-used");
        let read = |values: &[&str]| {
            let mut head = HeaderMap::new();
            for value in values {
                head.append(&name, HeaderValue::from_str(value).unwrap());
            }
            cost(&head, &name)
        };
        assert_eq!(read(&[]), Ok(None));
        assert_eq!(read(&["0"]), Ok(Some(0)));
        assert_eq!(read(&["1000000000"]), Ok(Some(COST_MAX)));
        for bad in [&["1000000001"][..], &[""], &["-1"], &["+1"], &["1.5"], &["7", "7"], &["7, 7"]]
        {
            assert_eq!(read(bad), Err(Malformed), "{bad:?}");
        }
        assert_eq!(read(&["99999999999999999999999"]), Err(Malformed));
    }
}

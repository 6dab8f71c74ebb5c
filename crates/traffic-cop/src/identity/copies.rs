//! Callers as they were known, for while the store that could tell is away.

use crate::identity::{Hold, Identified};
use ahash::RandomState;
use parking_lot::Mutex;
use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use types::{Caller, Timestamp};

/// How long a copy serves before the store is asked again whether it is back.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// Credentials that are remembered; when there are more, all are forgotten.
const CAPACITY: usize = 65_536;

/// What was proved by a store, by credential.
#[derive(Debug)]
pub(super) struct Copies {
    serve_for: Duration,
    copies: Mutex<HashMap<Box<str>, Copy, RandomState>>,
    served: AtomicU64,
}

#[derive(Debug)]
struct Copy {
    caller: Arc<Caller>,
    hold: Option<Hold>,
    checked: Timestamp,
    epoch: u64,
}

impl Copies {
    /// Copies that serve for so long after the credential was checked.
    pub(super) fn new(serve_for: Duration) -> Self {
        Self { serve_for, copies: Mutex::default(), served: AtomicU64::new(0) }
    }

    /// How often one has served.
    pub(super) fn served(&self) -> u64 {
        self.served.load(Relaxed)
    }

    /// Remembers what was checked at `checked`.
    pub(super) fn keep(&self, token: &str, identified: &Identified, checked: Timestamp) {
        if self.serve_for.is_zero() {
            return;
        }
        let Identified { caller, hold, epoch, .. } = identified.clone();
        let mut copies = self.copies.lock();
        if copies.len() >= CAPACITY {
            copies.clear();
        }
        copies.insert(token.into(), Copy { caller, hold, checked, epoch });
    }

    /// What is known of `token` at `now`, if nothing was revoked since (`epoch`), and neither
    /// the copy's time nor the caller's is over.
    pub(super) fn get(&self, token: &str, epoch: u64, now: Timestamp) -> Option<Identified> {
        let mut copies = self.copies.lock();
        let copy = copies.get(token)?;
        let until = copy.checked.plus(self.serve_for);
        let until = copy.caller.expires.map_or(until, |expires| expires.min(until));
        if copy.epoch != epoch || now >= until {
            copies.remove(token);
            return None;
        }
        self.served.fetch_add(1, Relaxed);
        let valid_until = now.plus(ASK_AGAIN).min(until);
        let (caller, hold) = (copy.caller.clone(), copy.hold.clone());
        Some(Identified { caller, valid_until, epoch, hold })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use types::{CredentialKind, Principal, PrincipalId, PrincipalKind, TenantId};

    fn identified(expires: Option<Timestamp>) -> Identified {
        let id = PrincipalId::new("ann").unwrap();
        let caller = Caller {
            expires,
            ..Caller::new(
                TenantId::new("acme").unwrap(),
                Principal { kind: PrincipalKind::User, id },
                CredentialKind::SessionToken,
            )
        };
        Identified { caller: Arc::new(caller), valid_until: Timestamp(9), epoch: 1, hold: None }
    }

    fn valid_until(copies: &Copies, epoch: u64, now: u64) -> Option<u64> {
        copies.get("t", epoch, Timestamp(now)).map(|known| known.valid_until.0)
    }

    #[test]
    fn a_copy_serves_for_its_time_and_asks_in_between() {
        let copies = Copies::new(Duration::from_secs(5));
        assert_eq!(valid_until(&copies, 1, 0), None);
        copies.keep("t", &identified(None), Timestamp(1_000));
        assert_eq!(valid_until(&copies, 1, 1_000), Some(2_000));
        assert_eq!(valid_until(&copies, 1, 5_999), Some(6_000));
        assert_eq!(valid_until(&copies, 1, 6_000), None);
        assert_eq!(copies.served(), 2);
    }

    #[test]
    fn neither_a_revocation_nor_the_end_of_the_credential_is_passed_over() {
        let copies = Copies::new(Duration::from_secs(5));
        copies.keep("t", &identified(None), Timestamp(1_000));
        assert_eq!(valid_until(&copies, 2, 1_000), None);
        assert_eq!(valid_until(&copies, 1, 1_000), None, "it is gone for good");
        copies.keep("t", &identified(Some(Timestamp(1_500))), Timestamp(1_000));
        assert_eq!(valid_until(&copies, 1, 1_400), Some(1_500));
        assert_eq!(valid_until(&copies, 1, 1_500), None);
    }

    #[test]
    fn there_may_be_none() {
        let copies = Copies::new(Duration::ZERO);
        copies.keep("t", &identified(None), Timestamp(1_000));
        assert_eq!(valid_until(&copies, 1, 1_000), None);
    }
}

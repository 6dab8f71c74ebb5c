//! What a core remembers of checked credentials.

use crate::identity::Hold;
use ahash::RandomState;
use std::{collections::HashMap, sync::Arc};
use types::{Caller, Timestamp};

/// A caller, and for how long the credential need not be checked again.
#[derive(Debug, Clone)]
pub struct Identified {
    /// Who it is.
    pub caller: Arc<Caller>,
    /// Until when this holds.
    pub valid_until: Timestamp,
    /// The revocation epoch in which it was checked.
    pub epoch: u64,
    /// Looks out for the credential's revocation, if it can be revoked.
    pub hold: Option<Hold>,
}

/// The callers of one core, by credential. At most `capacity`; when full it starts afresh,
/// which costs each caller one full check.
#[derive(Debug)]
pub struct CallerCache {
    callers: HashMap<Box<str>, Identified, RandomState>,
    capacity: usize,
}

impl CallerCache {
    /// A cache of at most `capacity` callers.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self { callers: HashMap::default(), capacity }
    }

    /// The caller of `token`, if it was checked in this `epoch` and still holds at `now`.
    pub fn get(&mut self, token: &str, epoch: u64, now: Timestamp) -> Option<Arc<Caller>> {
        let known = self.callers.get(token)?;
        if known.epoch == epoch && now < known.valid_until {
            return Some(known.caller.clone());
        }
        self.callers.remove(token);
        None
    }

    /// Remembers a checked credential.
    pub fn insert(&mut self, token: String, identified: &Identified) {
        if self.callers.len() >= self.capacity {
            self.callers.clear();
        }
        self.callers.insert(token.into(), identified.clone());
    }
}

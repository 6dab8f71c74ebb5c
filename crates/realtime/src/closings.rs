//! Why connections of this node have ended, counted since its start.

use parking_lot::Mutex;
use std::collections::BTreeMap;

/// Connections that have ended, by close code; 0 for those whose client closed them, or broke
/// off.
#[derive(Debug, Default)]
pub(crate) struct Closings(Mutex<BTreeMap<u16, (&'static str, u64)>>);

impl Closings {
    /// One more.
    pub(crate) fn count(&self, code: u16, why: &'static str) {
        self.0.lock().entry(code).or_insert((why, 0)).1 += 1;
    }

    /// All of them: code, reason, and how many.
    pub(crate) fn all(&self) -> Vec<(u16, &'static str, u64)> {
        self.0.lock().iter().map(|(code, (why, count))| (*code, *why, *count)).collect()
    }
}

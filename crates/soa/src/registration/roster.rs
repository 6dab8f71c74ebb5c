//! Who is registered, as a node knows it: the rules, without clocks and stores.
//!
//! The store ends a registration by its own clock, and tells nobody. So a node notes when the
//! time of one is over at the latest, by its own monotonic clock, and asks the store then. No
//! clock is compared with another.

use crate::registration::Registered;
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// How soon the store is asked about a registration of unknown age, or one whose time is over
/// and that is still there.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How a record came to be known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    /// As it was written.
    Written,
    /// Some time later.
    Read,
}

#[derive(Debug)]
struct Entry {
    registered: Registered,
    /// When to ask whether it is still there.
    look_at: Duration,
}

/// The registered instances of a service.
#[derive(Debug, Default)]
pub(super) struct Roster(BTreeMap<Arc<str>, Entry>);

impl Roster {
    /// A record is there. Says whether that changes who is called, and how.
    pub(super) fn put(&mut self, registered: Registered, seen: Seen, elapsed: Duration) -> bool {
        let after = match seen {
            Seen::Written => registered.ttl(),
            Seen::Read => LOOK_EVERY,
        };
        let entry = Entry { registered, look_at: elapsed + after };
        let (address, weight) = (entry.registered.address, entry.registered.weight);
        let before = self.0.insert(Arc::clone(&entry.registered.id), entry);
        before.is_none_or(|before| {
            (before.registered.address, before.registered.weight) != (address, weight)
        })
    }

    /// A record is not there. Says whether it was.
    pub(super) fn remove(&mut self, id: &str) -> bool {
        self.0.remove(id).is_some()
    }

    /// Takes what was read of the whole for the truth.
    pub(super) fn replace(&mut self, read: Vec<Registered>, elapsed: Duration) {
        let mut before = std::mem::take(&mut self.0);
        for registered in read {
            match before.remove(&registered.id) {
                // No heartbeat has come since: its time is known.
                Some(entry) if entry.registered == registered => {
                    self.0.insert(Arc::clone(&registered.id), entry);
                }
                Some(_) | None => {
                    self.put(registered, Seen::Read, elapsed);
                }
            }
        }
    }

    /// Those to ask the store about.
    pub(super) fn due(&self, elapsed: Duration) -> Vec<Arc<str>> {
        let due = self.0.iter().filter(|(_, entry)| entry.look_at <= elapsed);
        due.map(|(id, _)| Arc::clone(id)).collect()
    }

    /// Asks about `id` again later.
    pub(super) fn later(&mut self, id: &str, elapsed: Duration) {
        if let Some(entry) = self.0.get_mut(id) {
            entry.look_at = elapsed + LOOK_EVERY;
        }
    }

    /// When the next has to be asked about.
    pub(super) fn next(&self) -> Option<Duration> {
        self.0.values().map(|entry| entry.look_at).min()
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Registered> {
        self.0.values().map(|entry| &entry.registered)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn registered(id: &str, weight: u32, expires: u64) -> Registered {
        let text = serde_json::json!({
            "id": id, "tenant": "acme", "kind": "service", "by": "shop", "tags": [],
            "url": "http://10.0.0.1:80", "address": "10.0.0.1:80", "weight": weight,
            "ttl_ms": 15_000, "metadata": {}, "since": 0, "expires": expires,
        });
        serde_json::from_value(text).unwrap()
    }

    #[test]
    fn a_node_asks_when_the_time_is_over_by_its_own_clock() {
        let mut roster = Roster::default();
        assert!(roster.put(registered("a", 1, 1), Seen::Written, SECOND));
        assert_eq!(roster.next(), Some(SECOND * 16));
        // A heartbeat changes nothing but the time.
        assert!(!roster.put(registered("a", 1, 2), Seen::Written, SECOND * 10));
        assert!(roster.due(SECOND * 24).is_empty());
        assert_eq!(&*roster.due(SECOND * 25)[0], "a");
        roster.later("a", SECOND * 25);
        assert_eq!(roster.next(), Some(SECOND * 26));
        assert!(roster.put(registered("a", 3, 3), Seen::Written, SECOND * 26));
        assert!(roster.remove("a") && !roster.remove("a"));
        assert_eq!(roster.next(), None);
    }

    #[test]
    fn what_is_read_again_without_a_heartbeat_gets_no_longer_time() {
        let mut roster = Roster::default();
        roster.put(registered("a", 1, 1), Seen::Written, SECOND);
        roster.put(registered("b", 1, 1), Seen::Written, SECOND);
        roster.put(registered("c", 1, 1), Seen::Written, SECOND);
        roster.replace(vec![registered("a", 1, 1), registered("b", 1, 2)], SECOND * 12);
        assert_eq!(roster.due(SECOND * 13), ["b".into()]);
        assert_eq!(roster.due(SECOND * 16).len(), 2);
        assert_eq!(roster.all().count(), 2);
    }
}

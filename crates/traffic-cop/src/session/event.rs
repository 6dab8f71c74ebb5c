//! What happened to a session, as it is stored and shown.

use crate::storage::{self, Stored};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};
use types::{Principal, SessionId, Timestamp};

/// Bytes of an event as it is stored; beyond it, what it tells besides is left out.
pub(super) const EVENT_BYTES_MAX: usize = 4 * 1024;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// It was made.
    Created,
    /// Its metadata were changed.
    Updated,
    /// It works in other pillars, or in something else of one.
    Bound,
    /// It was moved from one binding to another.
    Moved,
    /// Its requests to a service go to one instance, or to any again.
    Routed,
    /// They go to another instance, since that one was gone.
    Rebound,
    /// Its requests go before others, or after.
    Prioritised,
    /// It may not be used.
    Suspended,
    /// It may be used again.
    Resumed,
    /// A code was made by which somebody may take it over.
    HandoverOffered,
    /// Somebody took it over.
    HandedOver,
    /// The code was tried too often, and holds no more.
    HandoverRefused,
    /// A socket or a stream of it opened.
    SocketOpened,
    /// One closed.
    SocketClosed,
    /// Its time was over: `idle`, or its whole life.
    Expired,
    /// It was ended.
    Revoked,
    /// Sockets opened or closed of which no more is known, for want of room.
    Gap,
}

/// What happened to a session, and when.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[schemars(rename = "SessionEvent")]
pub struct Event {
    /// When, in milliseconds since 1970 UTC, by the clock of the node that did it.
    pub at: Timestamp,
    /// What.
    pub kind: EventKind,
    /// Who did it, if somebody did: `user:ann`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// What else there is to tell of it.
    #[serde(flatten)]
    pub details: Map<String, Json>,
}

/// An event in the stream of the sessions that share a partition.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct EventRecord {
    session: SessionId,
    /// Whose session it is.
    of: String,
    event: Event,
}

impl Stored for EventRecord {
    const VERSION: u8 = 1;
}

impl Event {
    /// An event that tells nothing more yet.
    #[must_use]
    pub fn new(at: Timestamp, kind: EventKind, by: Option<&Principal>) -> Self {
        Self { at, kind, by: by.map(named), details: Map::new() }
    }

    /// The same with one thing more to tell.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Json>) -> Self {
        self.details.insert(name.to_owned(), value.into());
        self
    }

    /// The same with one thing more, if there is one.
    #[must_use]
    pub fn with_some(self, name: &str, value: Option<impl Into<Json>>) -> Self {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }
}

/// A principal in an event.
pub(super) fn named(principal: &Principal) -> String {
    format!("{}:{}", principal.kind, principal.id)
}

impl EventRecord {
    pub(super) fn written(session: SessionId, of: String, event: Event) -> Bytes {
        let mut record = Self { session, of, event };
        let bytes = storage::encode(&record);
        if bytes.len() <= EVENT_BYTES_MAX {
            return bytes;
        }
        record.event.details = Map::from_iter([("cut".to_owned(), true.into())]);
        storage::encode(&record)
    }

    /// The event, if it is one of `session`; none either if a later version wrote of something
    /// that this one does not know.
    pub(super) fn read(bytes: &[u8], session: SessionId) -> Option<(String, Event)> {
        let (version, json) = bytes.split_first()?;
        let record: Self =
            (*version == Self::VERSION).then(|| serde_json::from_slice(json).ok()).flatten()?;
        (record.session == session).then_some((record.of, record.event))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_read_as_it_was_written_and_is_bounded() {
        let (session, other) = (SessionId::new(1, [2; 16]), SessionId::new(1, [3; 16]));
        let event = Event::new(Timestamp(7), EventKind::Moved, None).with("reason", "lunch");
        let bytes = EventRecord::written(session, "user:ann".into(), event.clone());
        assert_eq!(EventRecord::read(&bytes, session), Some(("user:ann".into(), event.clone())));
        assert_eq!(EventRecord::read(&bytes, other), None);
        let large = event.with("reason", "x".repeat(EVENT_BYTES_MAX));
        let bytes = EventRecord::written(session, "user:ann".into(), large);
        assert!(bytes.len() <= EVENT_BYTES_MAX);
        assert_eq!(EventRecord::read(&bytes, session).unwrap().1.details["cut"], true);
    }

    #[test]
    fn what_a_later_version_tells_is_passed_over() {
        let session = SessionId::new(1, [2; 16]);
        let text = format!(
            r#"{{"session":"{session}","of":"user:ann","event":{{"at":1,"kind":"dreamt"}}}}"#
        );
        assert_eq!(EventRecord::read(&[&[1], text.as_bytes()].concat(), session), None);
        assert_eq!(EventRecord::read(b"\x02{}", session), None);
    }
}

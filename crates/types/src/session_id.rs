//! Ids that the platform gives: sessions and connections.

use crate::InvalidId;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use std::{fmt, str::FromStr};

/// A session. Its first eight bytes say which partition holds it, so that a lookup by id
/// needs no index; the other sixteen are random. Prints as `ses_…`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId {
    shelf: u64,
    random: [u8; 16],
}

impl SessionId {
    /// An id on `shelf`, the number of the partition that will hold the session.
    #[must_use]
    pub fn new(shelf: u64, random: [u8; 16]) -> Self {
        Self { shelf, random }
    }

    /// This id, saying by its last bit whether its session may be durable.
    #[must_use]
    pub fn marked(mut self, durable: bool) -> Self {
        self.random[15] = (self.random[15] & !1) | u8::from(durable);
        self
    }

    /// Whether its session may be durable. That of an id without the mark is not; that of one
    /// with it may be older than the mark, so that its record has to be asked.
    #[must_use]
    pub fn may_be_durable(&self) -> bool {
        self.random[15] & 1 == 1
    }

    /// The number of the partition that holds the session.
    #[must_use]
    pub fn shelf(&self) -> u64 {
        self.shelf
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = [0; 24];
        bytes[..8].copy_from_slice(&self.shelf.to_be_bytes());
        bytes[8..].copy_from_slice(&self.random);
        write!(f, "ses_{}", URL_SAFE_NO_PAD.encode(bytes))
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for SessionId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let invalid = InvalidId { kind: "session id", rule: "`ses_` and 32 base64url characters" };
        let encoded = text.strip_prefix("ses_").ok_or_else(|| invalid.clone())?;
        let bytes: [u8; 24] = URL_SAFE_NO_PAD
            .decode(encoded)
            .ok()
            .and_then(|bytes| bytes.try_into().ok())
            .ok_or(invalid)?;
        let (shelf, random) = bytes.split_at(8);
        Ok(Self {
            shelf: u64::from_be_bytes(shelf.try_into().expect("eight bytes")),
            random: random.try_into().expect("sixteen bytes"),
        })
    }
}

impl serde::Serialize for SessionId {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for SessionId {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        <std::borrow::Cow<'de, str>>::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

impl schemars::JsonSchema for SessionId {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "SessionId".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "pattern": "^ses_[A-Za-z0-9_-]{32}$" })
    }
}

/// A connection of this node, counted from its start. Prints as `con_…`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(pub u64);

impl ConnectionId {
    /// Reads what [`fmt::Display`] has written.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let number = text.strip_prefix("con_")?;
        u64::from_str_radix(number, 16).ok().map(Self).filter(|id| id.to_string() == text)
    }
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "con_{:x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_tells_whether_to_ask_for_what_a_session_keeps() {
        for byte in [0, 1, 0xFE, 0xFF] {
            let id = SessionId::new(7, [byte; 16]);
            for durable in [true, false] {
                let read: SessionId = id.marked(durable).to_string().parse().unwrap();
                assert_eq!(read.may_be_durable(), durable, "{byte}");
            }
        }
    }

    #[test]
    fn a_session_id_survives_printing() {
        let id = SessionId::new(7, [9; 16]);
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(id.shelf(), 7);
        for bad in ["", "ses_", "ses_AA", "AAAA", "ses_!!!!", &format!("{id}A")] {
            assert!(bad.parse::<SessionId>().is_err(), "{bad:?}");
        }
    }
}

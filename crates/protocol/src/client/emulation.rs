//! Commands for a connection whose transport goes one way only.

use crate::client::{Encoding, Unreadable, protobuf};
use serde::Deserialize;

/// Brings commands to a connection, by a request of its own.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct EmulationRequest {
    /// The connection, as the answer to `connect` has named it.
    pub session: String,
    /// The node that it is at.
    pub node: String,
    /// The commands, in the connection's encoding: in JSON a string that holds their text.
    pub data: Commands,
}

/// The bytes of commands.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "String")]
pub struct Commands(pub Vec<u8>);

impl From<String> for Commands {
    fn from(text: String) -> Self {
        Self(text.into_bytes())
    }
}

impl EmulationRequest {
    /// Reads a request.
    ///
    /// # Errors
    /// [`Unreadable::Message`] if it is none.
    pub fn read(encoding: Encoding, body: &[u8]) -> Result<Self, Unreadable> {
        match encoding {
            Encoding::Json => serde_json::from_slice(body).map_err(|_| Unreadable::Message),
            Encoding::Protobuf => protobuf::emulation(body),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_read_in_both_encodings() {
        let expected = EmulationRequest {
            session: "s".into(),
            node: "n".into(),
            data: Commands(b"{}\n{}".to_vec()),
        };
        let json = br#"{"session":"s","node":"n","data":"{}\n{}","later":1}"#;
        let protobuf = b"\x0a\x01n\x12\x01s\x1a\x05{}\n{}";
        let read = EmulationRequest::read;
        assert_eq!(read(Encoding::Json, json), Ok(expected.clone()));
        assert_eq!(read(Encoding::Protobuf, protobuf), Ok(expected));
        for bad in [&b"{}"[..], b"", br#"{"session":"s","node":"n","data":{}}"#, b"\xff"] {
            assert!(read(Encoding::Json, bad).is_err());
        }
        for bad in [&b"\x0a"[..], b"\x0a\x02n", b"\xff"] {
            assert!(read(Encoding::Protobuf, bad).is_err());
        }
    }
}

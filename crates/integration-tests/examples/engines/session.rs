//! A session as the raw side keeps it: the same members as ours.

use crate::entry::encoded;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};

/// Sessions that are read in turn.
pub(crate) const SESSIONS: usize = 256;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Session {
    id: String,
    principal: String,
    principal_kind: String,
    kind: String,
    status: String,
    created: u64,
    last_used: u64,
    ttl_ms: u64,
    sliding: bool,
    ends: u64,
    metadata: Map<String, Json>,
    implicit: bool,
    token_hash: String,
}

impl Session {
    pub(crate) fn new(number: usize, now: u64) -> Self {
        Self {
            id: format!("ses_{number:032x}"),
            principal: user(number),
            principal_kind: "user".into(),
            kind: "web".into(),
            status: "active".into(),
            created: now,
            last_used: now,
            ttl_ms: 86_400_000,
            sliding: true,
            ends: now + 30 * 86_400_000,
            metadata: metadata(),
            implicit: false,
            token_hash: "0".repeat(64),
        }
    }

    pub(crate) fn written(&self) -> Vec<u8> {
        encoded(self)
    }

    /// Reads one back and says whether it is alive.
    pub(crate) fn read(bytes: &[u8], now: u64) -> Result<bool, String> {
        let session: Self =
            serde_json::from_slice(bytes.get(1..).unwrap_or_default()).map_err(crate::told)?;
        Ok((session.last_used + session.ttl_ms).min(session.ends) > now)
    }
}

pub(crate) fn user(number: usize) -> String {
    format!("user-{number:08}")
}

pub(crate) fn metadata() -> Map<String, Json> {
    let members = [("device", "a browser on a desk"), ("language", "en"), ("theme", "dark")];
    members.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect()
}

//! A session as it is stored, asked for and shown.

use crate::storage::{self, Stored};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use types::{Pillars, Principal, PrincipalId, PrincipalKind, SessionId, TenantId, Timestamp};

type Metadata = serde_json::Map<String, serde_json::Value>;

/// What a session is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SessionKind {
    /// A browser.
    #[default]
    Web,
    /// A mobile app.
    Mobile,
    /// An agent.
    Agent,
    /// A service.
    Service,
    /// A program that calls the API.
    Api,
}

/// Whether a session may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It may.
    Active,
    /// Not until it is made active again.
    Suspended,
}

/// What a new session is to be.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NewSession {
    /// What it is for.
    pub kind: SessionKind,
    /// How long it lives without use (sliding), or in all (not sliding). In text: `30m`.
    #[serde(deserialize_with = "types::duration::optional")]
    pub ttl: Option<Duration>,
    /// How long it lives at most, however much it is used.
    #[serde(deserialize_with = "types::duration::optional")]
    pub ttl_max: Option<Duration>,
    /// Whether use prolongs it.
    pub sliding: bool,
    /// Whether it keeps the subscriptions of its connections; see [`super::Kept`].
    pub durable: bool,
    /// In which pillars it works, each bound or not. They open channels and documents: whoever lets
    /// a user make a session of his own lets him name none.
    pub pillars: Pillars,
    /// Whatever its creator wants to keep with it.
    pub metadata: Option<Metadata>,
    /// Made for a socket whose credential names no session; one for each principal and kind.
    #[serde(skip)]
    pub implicit: bool,
}

impl Default for NewSession {
    fn default() -> Self {
        let kind = SessionKind::default();
        Self {
            kind,
            ttl: None,
            ttl_max: None,
            sliding: true,
            durable: false,
            pillars: Pillars::default(),
            metadata: None,
            implicit: false,
        }
    }
}

/// A change to a session; what is not named stays.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Update {
    /// The new metadata, as a whole.
    pub metadata: Option<Metadata>,
    /// The new status.
    pub status: Option<Status>,
    /// The new pillars, all of them; see [`NewSession::pillars`].
    pub pillars: Option<Pillars>,
}

/// A session as it is shown.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Session {
    /// Its id.
    pub id: SessionId,
    /// The tenant that it belongs to.
    pub tenant: TenantId,
    /// Whose it is.
    pub principal: PrincipalId,
    /// What they are.
    pub principal_kind: PrincipalKind,
    /// What it is for.
    pub kind: SessionKind,
    /// Whether it may be used.
    pub status: Status,
    /// When it was made, in milliseconds since 1970 UTC.
    pub created: Timestamp,
    /// When it was last used, to within a tenth of its `ttl` or a minute.
    pub last_used: Timestamp,
    /// When it ends if it is not used.
    pub expires: Timestamp,
    /// When it ends in any case.
    pub ends: Timestamp,
    /// Whether use prolongs it.
    pub sliding: bool,
    /// Whether it keeps the subscriptions of its connections.
    pub durable: bool,
    /// In which pillars it works.
    pub pillars: Pillars,
    /// What its creator keeps with it.
    pub metadata: Metadata,
}

/// A session as it is stored.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct SessionRecord {
    pub(super) id: SessionId,
    pub(super) principal: PrincipalId,
    pub(super) principal_kind: PrincipalKind,
    pub(super) kind: SessionKind,
    pub(super) status: Status,
    pub(super) created: Timestamp,
    pub(super) last_used: Timestamp,
    pub(super) ttl_ms: u64,
    pub(super) sliding: bool,
    /// Records of before there were such sessions do not say.
    #[serde(default)]
    pub(super) durable: bool,
    pub(super) ends: Timestamp,
    #[serde(default, skip_serializing_if = "Pillars::is_empty")]
    pub(super) pillars: Pillars,
    pub(super) metadata: Metadata,
    pub(super) implicit: bool,
    pub(super) token_hash: String,
}

impl Stored for SessionRecord {
    const VERSION: u8 = 1;
}

/// In which pillars a stored session works, if it may be used. What cannot be read is told to
/// whoever uses it.
pub(super) fn stands(stored: &[u8]) -> Option<Pillars> {
    let record = storage::decode::<SessionRecord>(stored).ok()?;
    (record.status == Status::Active).then_some(record.pillars)
}

impl SessionRecord {
    pub(super) fn expires(&self) -> Timestamp {
        let from = if self.sliding { self.last_used } else { self.created };
        from.plus(Duration::from_millis(self.ttl_ms)).min(self.ends)
    }

    /// Whether a use at `now` is worth a write: after a tenth of the ttl, or a minute.
    pub(super) fn wants_touch(&self, now: Timestamp) -> bool {
        let pause = Duration::from_millis(self.ttl_ms / 10).min(Duration::from_secs(60));
        self.sliding && now.since(self.last_used) >= pause
    }

    pub(super) fn shown(&self, tenant: &TenantId) -> Session {
        Session {
            id: self.id,
            tenant: tenant.clone(),
            principal: self.principal.clone(),
            principal_kind: self.principal_kind,
            kind: self.kind,
            status: self.status,
            created: self.created,
            last_used: self.last_used,
            expires: self.expires(),
            ends: self.ends,
            sliding: self.sliding,
            durable: self.durable,
            pillars: self.pillars.clone(),
            metadata: self.metadata.clone(),
        }
    }
}

/// The number of the partition that holds a principal's sessions. Two principals may share
/// one; records name whose they are.
pub(super) fn shelf(principal: &Principal) -> u64 {
    xxhash_rust::xxh3::xxh3_64(format!("{}\0{}", principal.kind, principal.id).as_bytes())
}

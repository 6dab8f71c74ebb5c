//! A session as it is stored, asked for and shown.

use crate::{
    identity::{Epitaph, Looked, Standing},
    session::{Device, NewDevice, event::named},
    storage::{self, Stored},
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, net::IpAddr, sync::Arc, time::Duration};
use types::{
    Pillars, Principal, PrincipalId, PrincipalKind, Priority, SessionId, Steering, TenantId,
    Timestamp,
};

type Metadata = serde_json::Map<String, serde_json::Value>;

/// What a session is for.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, schemars::JsonSchema,
)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "SessionStatus")]
pub enum Status {
    /// It may.
    Active,
    /// Not until it is made active again.
    Suspended,
}

/// What a new session is to be.
#[derive(Debug, Clone, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct NewSession {
    /// What it is for.
    pub kind: SessionKind,
    /// How long it lives without use (sliding), or in all (not sliding). In text: `30m`.
    #[serde(deserialize_with = "types::duration::optional")]
    #[schemars(with = "Option<types::duration::Text>")]
    pub ttl: Option<Duration>,
    /// How long it lives at most, however much it is used.
    #[serde(deserialize_with = "types::duration::optional")]
    #[schemars(with = "Option<types::duration::Text>")]
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
    /// On what it is used, if that is said.
    pub device: Option<NewDevice>,
    /// Who makes it, for those who read what happened; its principal, unless that is said.
    #[serde(skip)]
    pub by: Option<Principal>,
    /// From where.
    #[serde(skip)]
    pub address: Option<IpAddr>,
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
            device: None,
            by: None,
            address: None,
            implicit: false,
        }
    }
}

/// A change to a session; what is not named stays.
#[derive(Debug, Clone, Default, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "SessionUpdate")]
pub struct Update {
    /// The new metadata, as a whole.
    pub metadata: Option<Metadata>,
    /// The new status.
    pub status: Option<Status>,
    /// The new pillars, all of them; see [`NewSession::pillars`].
    pub pillars: Option<Pillars>,
    /// Whether its requests go before others, or after. As with pillars, whoever lets a user
    /// change a session of his own lets him not say it.
    pub priority: Option<Priority>,
    /// Who changes it, for those who read what happened.
    #[serde(skip)]
    pub by: Option<Principal>,
}

/// The instance of a service that a session's requests go to while it is fit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[schemars(rename = "SessionRoute")]
pub struct Route {
    /// The instance: host and port.
    pub instance: String,
    /// In which pillar the session was bound to it, if that was said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pillar: Option<String>,
    /// Since when.
    pub since: Timestamp,
}

/// A session as it is shown.
#[derive(Debug, Clone, PartialEq, Serialize, schemars::JsonSchema)]
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
    /// Who uses it, if it was handed over to somebody else: `agent:planner`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub holder: Option<String>,
    /// On what it is used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<Device>,
    /// Whether its requests go before others, or after.
    #[schemars(default)]
    #[serde(skip_serializing_if = "is_normal")]
    pub priority: Priority,
    /// The instances that its requests go to, by service.
    #[schemars(default)]
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub routes: BTreeMap<String, Route>,
    /// How often it was handed over.
    #[schemars(default)]
    #[serde(skip_serializing_if = "is_zero")]
    pub handed: u64,
}

impl Session {
    /// Whether it is `principal`'s, or used by that one.
    #[must_use]
    pub fn is_of(&self, principal: &Principal) -> bool {
        let owns = self.principal == principal.id && self.principal_kind == principal.kind;
        owns || self.holder.as_ref().is_some_and(|holder| *holder == named(principal))
    }
}

fn is_normal(priority: &Priority) -> bool {
    *priority == Priority::Normal
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// Somebody else than the principal, who a session was handed over to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Holder {
    pub(super) kind: PrincipalKind,
    pub(super) id: PrincipalId,
}

impl Holder {
    pub(super) fn principal(&self) -> Principal {
        Principal { kind: self.kind, id: self.id.clone() }
    }
}

/// A code by which somebody may take a session over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Offer {
    pub(super) code_hash: String,
    pub(super) until: Timestamp,
    pub(super) tries_left: u32,
    /// Whom alone, if that was said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) to: Option<Holder>,
    pub(super) keep: bool,
    pub(super) grace_ms: u64,
}

/// The token of before a handover, for as long as it holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Former {
    pub(super) token_hash: String,
    pub(super) until: Timestamp,
    /// Whose it was, if not the principal's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) holder: Option<Holder>,
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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) device: Option<Device>,
    #[serde(default, skip_serializing_if = "is_normal")]
    pub(super) priority: Priority,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) routes: BTreeMap<String, Route>,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(super) handed: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) holder: Option<Holder>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) offer: Option<Offer>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) former: Option<Former>,
    /// The hash of the code by which it was handed over last, to tell that it was used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) spent: Option<String>,
    /// Whether connections of before the last handover go on.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) keeps: bool,
    /// Of what is left of a session beside it: how it is over. Such a record is suspended and has
    /// ended long ago, so that it lets nobody in who does not know this member.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) over: Option<Over>,
}

/// How a session is over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Over {
    /// When that is by itself.
    pub(super) at: Timestamp,
    /// Whether nobody used it then, and its life was not at its end.
    pub(super) idle: bool,
    /// Why it was ended before that, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) why: Option<String>,
}

impl Stored for SessionRecord {
    const VERSION: u8 = 1;
}

/// What a stored session says, if it may be used. What cannot be read is told to whoever uses it.
pub(super) fn stands(stored: &[u8]) -> Looked {
    let Ok(record) = storage::decode::<SessionRecord>(stored) else { return Looked::Ended(None) };
    match record.status {
        Status::Active => Looked::Stands(record.standing()),
        Status::Suspended => {
            Looked::Ended(Some(Epitaph { told: SUSPENDED.into(), is_expiry: false }))
        }
    }
}

/// What the client of a socket is told whose session is over, as what is left of that says.
pub(super) fn epitaph(stored: &[u8]) -> Option<Epitaph> {
    let over = storage::decode::<SessionRecord>(stored).ok()?.over?;
    let own = if over.idle { "idle" } else { "absolute" };
    let told = parting(over.why.as_deref().unwrap_or(own)).into();
    Some(Epitaph { told, is_expiry: over.why.is_none() })
}

/// What the client of a suspended session's socket is told.
pub(super) const SUSPENDED: &str = "session suspended";

/// What the client of an ended session's socket is told.
pub(super) fn parting(why: &str) -> String {
    format!("session ended: {why}")
}

impl SessionRecord {
    pub(super) fn expires(&self) -> Timestamp {
        let from = if self.sliding { self.last_used } else { self.created };
        from.plus(Duration::from_millis(self.ttl_ms)).min(self.ends)
    }

    /// How it will be over by itself.
    fn own_end(&self) -> Over {
        let at = self.expires();
        Over { at, idle: self.sliding && at < self.ends, why: None }
    }

    /// Whose it is.
    pub(super) fn owner(&self) -> Principal {
        Principal { kind: self.principal_kind, id: self.principal.clone() }
    }

    /// Who uses it.
    pub(super) fn user(&self) -> Principal {
        self.holder.as_ref().map_or_else(|| self.owner(), Holder::principal)
    }

    pub(super) fn is_of(&self, principal: &Principal) -> bool {
        self.principal == principal.id && self.principal_kind == principal.kind
    }

    pub(super) fn steering(&self) -> Arc<Steering> {
        let instances = self.routes.iter();
        let instances = instances
            .map(|(service, route)| (service.as_str().into(), route.instance.as_str().into()));
        Arc::new(Steering {
            priority: self.priority,
            instances: instances.collect(),
            handed: self.handed,
        })
    }

    pub(super) fn standing(&self) -> Standing {
        Standing {
            pillars: self.pillars.clone(),
            steering: self.steering(),
            keeps: self.keeps,
            expires: Some(self.expires()),
        }
    }

    /// What is left of it once it is over: for this reason, or by itself.
    pub(super) fn leftover(&self, why: Option<&str>) -> Self {
        Self {
            status: Status::Suspended,
            ends: Timestamp(0),
            over: Some(Over { why: why.map(ToOwned::to_owned), ..self.own_end() }),
            token_hash: String::new(),
            metadata: Metadata::new(),
            pillars: Pillars::default(),
            routes: BTreeMap::new(),
            offer: None,
            former: None,
            spent: None,
            ..self.clone()
        }
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
            holder: self.holder.as_ref().map(|holder| named(&holder.principal())),
            device: self.device.clone(),
            priority: self.priority,
            routes: self.routes.clone(),
            handed: self.handed,
        }
    }
}

/// The number of the partition that holds a principal's sessions. Two principals may share
/// one; records name whose they are.
pub(super) fn shelf(principal: &Principal) -> u64 {
    xxhash_rust::xxh3::xxh3_64(format!("{}\0{}", principal.kind, principal.id).as_bytes())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A session of ann's on some device.
    pub(in crate::session) fn record(number: u8) -> SessionRecord {
        let id = SessionId::new(7, [number; 16]);
        let text = format!(
            r#"{{"id":"{id}","principal":"ann","principal_kind":"user","kind":"web",
                "status":"active","created":1000,"last_used":1000,"ttl_ms":500,"sliding":true,
                "durable":false,"ends":9000,"metadata":{{}},"implicit":false,"token_hash":"",
                "device":{{"id":"phone","name":"phone","first_seen":1000}}}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn a_record_of_before_is_read_and_an_ended_one_lets_nobody_in() {
        let plain = SessionRecord { device: None, ..record(1) };
        let written = serde_json::to_string(&plain).unwrap();
        for member in ["device", "priority", "routes", "handed", "offer", "former", "over"] {
            assert!(!written.contains(member), "{member} is not written for nothing: {written}");
        }
        let own = plain.own_end();
        assert_eq!((own.at, own.idle), (Timestamp(1500), true));
        let used = SessionRecord { last_used: Timestamp(8_800), ..plain };
        let own = used.own_end();
        assert_eq!((own.at, own.idle), (Timestamp(9_000), false));
        assert!(matches!(stands(&storage::encode(&used)), Looked::Stands(_)));

        let told = |why| {
            let left = used.leftover(why);
            assert_eq!(left.expires(), Timestamp(0), "it is over by whichever clock");
            assert!(matches!(stands(&storage::encode(&left)), Looked::Ended(_)));
            epitaph(&storage::encode(&left)).unwrap()
        };
        let expected = |told: &str, is_expiry| Epitaph { told: told.into(), is_expiry };
        assert_eq!(told(Some("limit")), expected("session ended: limit", false));
        assert_eq!(told(None), expected("session ended: absolute", true));
    }
}

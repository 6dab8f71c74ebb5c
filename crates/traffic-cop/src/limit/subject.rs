//! Whom a limit counts: a subject, its name, and the key of its bucket.

use crate::limit::{Per, calendar::Calendar, gcra::Rate};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::{net::IpAddr, sync::Arc};
use types::{Principal, PrincipalId, PrincipalKind, SessionId, TenantId};

/// Whom a request is charged to.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// The tenant, once known.
    pub tenant: Option<&'a TenantId>,
    /// The principal, once known.
    pub principal: Option<&'a Principal>,
    /// The session, if there is one.
    pub session: Option<SessionId>,
    /// Where it comes from.
    pub ip: IpAddr,
    /// The route's name.
    pub route: &'a str,
}

/// A subject by name, as reports show it and as operators write it: those members that the
/// rule's `per` looks at.
#[derive(
    Debug,
    Clone,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    Serialize,
    Deserialize,
    schemars::JsonSchema,
)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "LimitSubject")]
pub struct Named {
    /// The tenant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant: Option<TenantId>,
    /// What the principal is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<PrincipalKind>,
    /// The principal's name inside the tenant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub principal: Option<PrincipalId>,
    /// The session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
    /// The IPv4 address, or the IPv6 /64 by its first address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip: Option<IpAddr>,
    /// The route's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route: Option<Box<str>>,
}

#[derive(Debug, Clone)]
pub(super) struct BucketKey {
    pub(super) rule: Arc<str>,
    pub(super) pace: Pace,
    pub(super) subject: SubjectKey,
}

/// What a count stops counting for, when it is configured anew: another rate, or another
/// calendar. A quota keeps its count when its size changes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Pace {
    Rate(Rate),
    Quota(Calendar),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum SubjectKey {
    User(TenantId, Principal),
    Session(TenantId, SessionId),
    Route(Option<TenantId>, Box<str>),
    Ip(IpAddr),
    Tenant(TenantId),
    Global,
    /// Where those are counted together for whom there is no room.
    Crowd,
}

impl BucketKey {
    /// The key of those for whom there is no room.
    pub(super) fn crowd(&self) -> Self {
        Self { subject: SubjectKey::Crowd, ..self.clone() }
    }

    /// The same on every node; nobody can choose a subject that falls on another's.
    pub(super) fn digest(&self) -> u128 {
        let mut hash = Sha256::new();
        let mut add = |bytes: &[u8]| {
            hash.update((bytes.len() as u64).to_be_bytes());
            hash.update(bytes);
        };
        add(self.rule.as_bytes());
        match &self.pace {
            Pace::Rate(rate) => {
                add(&rate.interval.to_be_bytes());
                add(&rate.burst.to_be_bytes());
            }
            Pace::Quota(calendar) => add(calendar.to_string().as_bytes()),
        }
        match &self.subject {
            SubjectKey::User(tenant, principal) => {
                add(b"user");
                add(tenant.as_str().as_bytes());
                add(format!("{:?}", principal.kind).as_bytes());
                add(principal.id.as_str().as_bytes());
            }
            SubjectKey::Session(tenant, session) => {
                add(b"session");
                add(tenant.as_str().as_bytes());
                add(session.to_string().as_bytes());
            }
            SubjectKey::Route(tenant, route) => {
                add(b"route");
                add(tenant.as_ref().map_or("", TenantId::as_str).as_bytes());
                add(route.as_bytes());
            }
            SubjectKey::Ip(ip) => {
                add(b"ip");
                add(ip.to_string().as_bytes());
            }
            SubjectKey::Tenant(tenant) => {
                add(b"tenant");
                add(tenant.as_str().as_bytes());
            }
            SubjectKey::Global => add(b"global"),
            SubjectKey::Crowd => add(b"crowd"),
        }
        let digest: [u8; 32] = hash.finalize().into();
        let (half, _) = digest.split_at(16);
        half.iter().fold(0, |number, byte| number << 8 | u128::from(*byte))
    }
}

impl SubjectKey {
    /// Whose bucket of a rule a request draws on; `None` if the rule does not count it.
    pub(super) fn of(per: Per, subject: &Subject<'_>) -> Option<Self> {
        let user = || Some(Self::User(subject.tenant?.clone(), subject.principal?.clone()));
        Some(match per {
            Per::User => user()?,
            Per::Session => match (subject.tenant, subject.session) {
                (Some(tenant), Some(session)) => Self::Session(tenant.clone(), session),
                (_, _) => user()?,
            },
            Per::Route => Self::Route(subject.tenant.cloned(), subject.route.into()),
            Per::Ip => Self::Ip(network(subject.ip)),
            Per::Tenant => Self::Tenant(subject.tenant?.clone()),
            Per::Global => Self::Global,
        })
    }

    pub(super) fn named(&self) -> Named {
        let nobody = Named::default();
        match self.clone() {
            Self::User(tenant, principal) => {
                let (kind, id) = (Some(principal.kind), Some(principal.id));
                Named { tenant: Some(tenant), kind, principal: id, ..nobody }
            }
            Self::Session(tenant, session) => {
                Named { tenant: Some(tenant), session: Some(session), ..nobody }
            }
            Self::Route(tenant, route) => Named { tenant, route: Some(route), ..nobody },
            Self::Ip(ip) => Named { ip: Some(ip), ..nobody },
            Self::Tenant(tenant) => Named { tenant: Some(tenant), ..nobody },
            Self::Global | Self::Crowd => nobody,
        }
    }
}

/// The address that is counted: one of IPv4, or the first of an IPv6 /64, of which one customer
/// may take any.
#[must_use]
pub fn network(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) & !u128::from(u64::MAX)).into()),
    }
}

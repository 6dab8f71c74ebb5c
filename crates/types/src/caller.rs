//! Who is calling.

use crate::{Info, Pillar, Pillars, PrincipalId, Role, SessionId, Steering, TenantId, Timestamp};
use std::{fmt, sync::Arc};

/// What a principal is.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    serde::Serialize,
    serde::Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum PrincipalKind {
    /// A person.
    User,
    /// A program that acts by its own judgement, for a person or a team.
    Agent,
    /// A program of the platform.
    Service,
}

impl fmt::Display for PrincipalKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::User => "user",
            Self::Agent => "agent",
            Self::Service => "service",
        })
    }
}

/// A user, agent or service of a tenant.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Principal {
    /// What it is.
    pub kind: PrincipalKind,
    /// Its name inside the tenant.
    pub id: PrincipalId,
}

/// What proved the caller's identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CredentialKind {
    /// A JSON Web Token of a configured issuer.
    Jwt,
    /// An API key.
    ApiKey,
    /// The token of a session.
    SessionToken,
    /// The client's certificate, by which its connection was made.
    Certificate,
    /// What a service of the operator's took for one, which was asked.
    Vouched,
    /// Nothing: the anonymous policy let it in.
    Anonymous,
}

/// Who calls, proved by a credential at the edge. Never made from what a client wrote
/// in a header or a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The tenant, which is part of every key that the caller can reach.
    pub tenant: TenantId,
    /// The user, agent or service.
    pub principal: Principal,
    /// The session that the credential belongs to, if it names one.
    pub session: Option<SessionId>,
    /// Roles that the credential grants.
    pub roles: Arc<[Role]>,
    /// Pillars that it works in: its session's, and those that the credential names.
    pub pillars: Pillars,
    /// When the credential ends, if it does.
    pub expires: Option<Timestamp>,
    /// What proved it.
    pub credential: CredentialKind,
    /// Channels that the credential subscribes its connections to.
    pub channels: Arc<[Box<str>]>,
    /// What it allows in channels, whatever their namespaces allow.
    pub capabilities: Arc<[Capability]>,
    /// What the credential says of its holder for others to see, if anything.
    pub info: Option<Info>,
    /// How its requests are served, if its session says that.
    pub steering: Option<Arc<Steering>>,
}

/// What a credential allows in some channels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capability {
    /// Their names.
    pub channels: Vec<String>,
    /// Whether `*` in a name stands for any characters.
    pub wildcard: bool,
    /// What is allowed there.
    pub allow: Vec<ChannelAction>,
}

/// What can be done with a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
pub enum ChannelAction {
    /// Following it.
    #[serde(rename = "sub")]
    Subscribe,
    /// Publishing to it.
    #[serde(rename = "pub")]
    Publish,
    /// Asking who is there.
    #[serde(rename = "prs")]
    Presence,
    /// Reading its history.
    #[serde(rename = "hst")]
    History,
}

impl Caller {
    /// Whom a credential proves that says no more than this.
    #[must_use]
    pub fn new(tenant: TenantId, principal: Principal, credential: CredentialKind) -> Self {
        Self {
            tenant,
            principal,
            session: None,
            roles: Arc::default(),
            pillars: Pillars::default(),
            expires: None,
            credential,
            channels: Arc::default(),
            capabilities: Arc::default(),
            info: None,
            steering: None,
        }
    }

    /// Whether it may act for others of its tenant: a service, or an admin.
    #[must_use]
    pub fn is_trusted(&self) -> bool {
        self.principal.kind == PrincipalKind::Service || self.has_role("admin")
    }

    /// Whether it works in one of `pillars`.
    #[must_use]
    pub fn works_in_one_of(&self, pillars: &[Pillar]) -> bool {
        pillars.iter().any(|pillar| self.pillars.contains(pillar))
    }

    /// Whether the credential grants `role`.
    #[must_use]
    pub fn has_role(&self, role: &str) -> bool {
        self.roles.iter().any(|held| held.as_str() == role)
    }
}

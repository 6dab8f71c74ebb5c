//! Who calls, proved by a credential.
//!
//! A credential is a JSON Web Token of a configured issuer ([`jws`], [`issuer`]), an API key
//! ([`api_key`]) or a session token ([`crate::session`]). [`Identity`] checks one in full;
//! a [`CallerCache`] remembers, per core, whom it belongs to, until it ends or anything is
//! revoked. Without one, the certificate of a client's connection is its credential
//! ([`certificate`]), if it has one and a rule knows it.

pub mod api_key;
mod blocks;
mod cache;
pub mod certificate;
mod copies;
pub mod issuer;
pub mod jws;
pub mod membership;
pub(crate) mod revocations;
mod standing;

pub use blocks::{Block, Blocks, NewBlock};
pub use cache::{CallerCache, Identified};
pub use revocations::{Connections, Hold, Revocations};
pub(crate) use standing::{Epitaph, Looked, Standing};

use crate::{
    identity::{
        api_key::ApiKeys,
        copies::Copies,
        issuer::{Issuers, Proved},
    },
    session::Sessions,
};
use clock::SharedClock;
use http::HeaderMap;
use protocol::{Code, Problem};
use serde::Deserialize;
use std::{sync::Arc, time::Duration};
use types::{
    Caller, CredentialKind, Principal, PrincipalId, PrincipalKind, Role, TenantId, Timestamp,
};

/// A credential longer than this is refused unread.
pub const CREDENTIAL_BYTES_MAX: usize = 8 * 1024;

/// How callers are identified.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// How long a checked credential is trusted without asking again, 100ms to 5m. Revocations
    /// end it at once, those of other nodes as fast as the store tells of them.
    #[serde(with = "types::duration")]
    pub trusted_for: Duration,
    /// While the store is away: how long a session token or an API key that was checked before
    /// goes on letting its caller in, counted from that check; at most an hour, and `0s`: not
    /// beyond `trusted_for`. Revocations by other nodes are not seen in that time.
    #[serde(with = "types::duration")]
    pub copies_for: Duration,
    /// Whose JSON Web Tokens are taken.
    pub issuers: Vec<issuer::Config>,
    /// Whom clients' certificates stand for, the first rule that knows one first.
    pub certificates: Vec<certificate::Rule>,
    /// Whom a request without a credential stands for; nobody, unless configured.
    pub anonymous: Option<AnonymousConfig>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            trusted_for: Duration::from_secs(30),
            copies_for: Duration::from_secs(120),
            issuers: Vec::new(),
            certificates: Vec::new(),
            anonymous: None,
        }
    }
}

impl Config {
    /// Refuses what cannot work.
    ///
    /// # Errors
    /// One line that says what is wrong.
    pub fn check(&self) -> Result<(), String> {
        let (least, most) = (Duration::from_millis(100), Duration::from_secs(300));
        if !(least..=most).contains(&self.trusted_for) {
            return Err("`identity.trusted_for` must be 100ms to 5m".into());
        }
        if self.copies_for > Duration::from_secs(3600) {
            return Err("`identity.copies_for` must be at most 1h".into());
        }
        Ok(())
    }
}

/// Whom a request without a credential stands for.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AnonymousConfig {
    /// The tenant.
    pub tenant: TenantId,
    /// The user's name, `anonymous` unless told otherwise.
    #[serde(default = "anonymous_user")]
    pub user: PrincipalId,
    /// The roles granted.
    #[serde(default)]
    pub roles: Vec<Role>,
}

fn anonymous_user() -> PrincipalId {
    PrincipalId::new("anonymous").expect("a valid name")
}

/// Checks credentials for the whole node.
pub struct Identity {
    issuers: Issuers,
    certificates: Vec<certificate::Rule>,
    anonymous: Option<Arc<Caller>>,
    api_keys: ApiKeys,
    sessions: Arc<Sessions>,
    revocations: Revocations,
    clock: SharedClock,
    trusted_for: Duration,
    copies: Copies,
}

impl Identity {
    /// Identity by `config`.
    #[must_use]
    pub fn new(
        config: &Config,
        issuers: Issuers,
        api_keys: ApiKeys,
        sessions: Arc<Sessions>,
        revocations: Revocations,
        clock: SharedClock,
    ) -> Self {
        let anonymous = config.anonymous.clone().map(|anonymous| {
            Arc::new(Caller {
                roles: anonymous.roles.into(),
                ..Caller::new(
                    anonymous.tenant,
                    Principal { kind: PrincipalKind::User, id: anonymous.user },
                    CredentialKind::Anonymous,
                )
            })
        });
        Self {
            issuers,
            certificates: config.certificates.clone(),
            anonymous,
            api_keys,
            sessions,
            revocations,
            clock,
            trusted_for: config.trusted_for,
            copies: Copies::new(config.copies_for),
        }
    }

    /// The one credential of a request: `Authorization: Bearer`, `X-API-Key` or
    /// `X-Session-Token`.
    ///
    /// # Errors
    /// `bad_request` if there are two, `unauthenticated` if it is of another scheme or too
    /// long.
    pub fn credential(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
        let mut found = None;
        // One look at each field costs less than a search for each of three.
        for (name, value) in headers {
            let has_scheme = match name.as_str() {
                "authorization" => true,
                "x-api-key" | "x-session-token" => false,
                _ => continue,
            };
            let refused = |detail| Err(Problem::new(Code::Unauthenticated, detail));
            let Ok(text) = value.to_str() else {
                return refused("the credential has a character outside ASCII");
            };
            if found.is_some() {
                let detail = "a request carries one credential, and this one has more";
                return Err(Problem::new(Code::BadRequest, detail));
            }
            if text.len() > CREDENTIAL_BYTES_MAX {
                return refused("the credential is longer than 8 KiB");
            }
            found = if has_scheme {
                match text.split_once(' ') {
                    Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => {
                        Some(token.trim())
                    }
                    Some(_) | None => return refused("`Authorization` takes `Bearer` only"),
                }
            } else {
                Some(text)
            };
        }
        Ok(found)
    }

    /// Whom a request without a credential stands for, if anybody.
    #[must_use]
    pub fn anonymous(&self) -> Option<Arc<Caller>> {
        self.anonymous.clone()
    }

    /// Whom a client's certificate stands for, in DER, once it was verified and its holder has
    /// proved that it is his; nobody, if no rule says so.
    #[must_use]
    pub fn certified(&self, certificate: &[u8]) -> Option<Arc<Caller>> {
        certificate::caller(&self.certificates, certificate).map(Arc::new)
    }

    /// Changes when anything was revoked; a cached caller of another epoch is asked for again.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.revocations.epoch()
    }

    /// Checks a credential in full. It may ask the store or an issuer's key server.
    ///
    /// # Errors
    /// `unauthenticated`, `token_expired`, or `store_unavailable` if it cannot be told now.
    pub async fn identify(self: Arc<Self>, token: String) -> Result<Identified, Problem> {
        let (epoch, now) = (self.epoch(), self.clock.now());
        match self.check(&token, now).await {
            Ok(Checked { caller, hold, until }) => {
                self.revocations.refuse_blocked(&caller, now).await?;
                let by_store = hold.is_some() || until.is_some();
                let trusted = now.plus(self.trusted_for);
                let valid_until =
                    [until, caller.expires].into_iter().flatten().fold(trusted, Timestamp::min);
                let identified = Identified { caller: Arc::new(caller), valid_until, epoch, hold };
                if by_store {
                    self.copies.keep(&token, &identified, now);
                }
                Ok(identified)
            }
            Err(problem) if problem.code == Code::StoreUnavailable => {
                self.copies.get(&token, epoch, now).ok_or(problem)
            }
            Err(problem) => Err(problem),
        }
    }

    /// Whether it is known already who of the caller's tenant is blocked.
    #[must_use]
    pub fn knows_blocks(&self, caller: &Caller) -> bool {
        self.revocations.known_blocks(&caller.tenant).is_some()
    }

    /// Learns who of the caller's tenant is blocked, and refuses him if he is.
    ///
    /// # Errors
    /// `forbidden`, or those of the store.
    pub async fn look_at_blocks(self: Arc<Self>, caller: Arc<Caller>) -> Result<(), Problem> {
        self.revocations.refuse_blocked(&caller, self.clock.now()).await
    }

    /// Refuses a caller who was identified, and has been blocked since.
    ///
    /// # Errors
    /// `forbidden`.
    pub fn refuse_blocked(&self, caller: &Caller) -> Result<(), Problem> {
        self.revocations.refuse_known_blocked(caller, self.clock.now())
    }

    /// Checks a subscription token: a JSON Web Token with the claim `channel`, of the same
    /// issuers, algorithms and claims as a connection's.
    ///
    /// # Errors
    /// As [`Self::identify`].
    pub async fn subscription(self: Arc<Self>, token: String) -> Result<Permit, Problem> {
        let proved = self.issuers.identify(&token, self.clock.now()).await?;
        let Proved { caller, channel, .. } = proved;
        let channel = channel.ok_or_else(|| refused("the token names no channel"))?;
        Ok(Permit { caller, channel })
    }

    async fn check(&self, token: &str, now: Timestamp) -> Result<Checked, Problem> {
        let (caller, hold) = if token.starts_with(api_key::PREFIX) {
            self.api_keys.identify(token, now).await?
        } else if token.starts_with(crate::session::TOKEN_PREFIX) {
            self.sessions.identify(token).await?
        } else {
            let proved = self.issuers.identify(token, now).await?;
            let Proved { caller, looked_up_until, channel } = proved;
            if channel.is_some() {
                return Err(refused("the token is for a subscription to one channel"));
            }
            return Ok(Checked { caller, hold: None, until: looked_up_until });
        };
        Ok(Checked { caller, hold: Some(hold), until: None })
    }

    /// How often a credential was taken for what it was known to be, since the store was away.
    #[must_use]
    pub fn from_copies(&self) -> u64 {
        self.copies.served()
    }
}

/// What a subscription token allows: `caller` may be subscribed to `channel` until his
/// credential, which this is, ends.
#[derive(Debug)]
pub struct Permit {
    /// Who.
    pub caller: Caller,
    /// To what.
    pub channel: String,
}

/// A credential that was checked in full.
struct Checked {
    caller: Caller,
    /// Of what a store keeps, and may end.
    hold: Option<Hold>,
    /// Until when what was looked up is trusted.
    until: Option<Timestamp>,
}

/// The answer to a credential that does not hold. It does not tell which part of it.
pub(crate) fn refused(detail: &str) -> Problem {
    Problem::new(Code::Unauthenticated, detail)
}

#[cfg(test)]
mod tests;

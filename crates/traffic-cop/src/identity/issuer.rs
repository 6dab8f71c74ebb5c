//! Issuers of JSON Web Tokens, as configured, and the claims that they must and may make.

use crate::identity::{
    jws::{self, VerifyingKey},
    membership::{self, Members, Memberships},
    refused,
};
use async_trait::async_trait;
use base64::{Engine, engine::general_purpose::STANDARD};
use clock::SharedClock;
use jsonwebtoken::jwk::JwkSet;
use parking_lot::Mutex;
use protocol::{Code, Problem};
use serde::Deserialize;
use std::{
    collections::{HashMap, HashSet},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};
use store::BoxError;
use types::{
    Caller, Capability, ChannelAction, CredentialKind, Info, Pillars, Principal, PrincipalId,
    PrincipalKind, Role, SessionId, TenantId, Timestamp,
};

/// An unknown key, or keys older than this, make the node ask the key server again.
const KEYS_FRESH: Duration = Duration::from_secs(300);
/// The key server is asked at most this often, whatever tokens come.
const ASK_AT_MOST_EVERY: Duration = Duration::from_secs(10);
/// Clocks of issuers may be off by this much.
const LEEWAY_SECS: u64 = 30;

/// Channels that a token may subscribe its connections to.
const CHANNELS_MAX: usize = 64;

/// A claim that is required unless waived.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Claim {
    /// Who issued the token.
    Iss,
    /// For whom.
    Aud,
    /// Until when.
    Exp,
}

/// An issuer.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// A name for messages and logs.
    pub name: String,
    /// The claim `iss` of its tokens.
    pub issuer: Option<String>,
    /// The claim `aud` of its tokens must name one of these.
    #[serde(default)]
    pub audience: Vec<String>,
    /// The algorithms that it signs with: `HS256`, `RS256`, `ES256`, `EdDSA`.
    pub algorithms: Vec<String>,
    /// The shared secret for HS256. Better: `secret_file`.
    pub secret: Option<String>,
    /// A file with the shared secret; a line end after it is not part of it.
    pub secret_file: Option<PathBuf>,
    /// A file with its JWK set.
    pub jwks_file: Option<PathBuf>,
    /// Where it serves its JWK set.
    pub jwks_url: Option<String>,
    /// The tenant of all its tokens. Without it, the claim `tenant_claim` names the tenant.
    pub tenant: Option<TenantId>,
    /// The claim that names the tenant: `tenant` unless told otherwise. `app_metadata.tenant`
    /// names a member of another claim.
    #[serde(default = "tenant_claim")]
    pub tenant_claim: String,
    /// Looks the tenant up in a table; the claim `tenant_claim` chooses if there are several.
    pub membership: Option<membership::Config>,
    /// The claim that lists roles, named as `tenant_claim` is: `roles` unless told otherwise.
    #[serde(default = "roles_claim")]
    pub roles_claim: String,
    /// The claim that lists pillars, at most 16, named as `tenant_claim` is: `pillars` unless told
    /// otherwise. The token's connections and requests work in them.
    #[serde(default = "pillars_claim")]
    pub pillars_claim: String,
    /// Required claims that its tokens may lack. With it, only loopback listeners start.
    #[serde(default)]
    pub waive: HashSet<Claim>,
}

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Config")
            .field("name", &self.name)
            .field("issuer", &self.issuer)
            .field("audience", &self.audience)
            .field("algorithms", &self.algorithms)
            .field("secret", &self.secret.as_ref().map(|_| "(redacted)"))
            .field("tenant", &self.tenant)
            .field("membership", &self.membership)
            .field("waive", &self.waive)
            .finish_non_exhaustive()
    }
}

fn tenant_claim() -> String {
    "tenant".into()
}

fn roles_claim() -> String {
    "roles".into()
}

fn pillars_claim() -> String {
    "pillars".into()
}

/// Fetches a JWK set. The edge implements it.
#[async_trait]
pub trait FetchKeys: Send + Sync {
    /// The document at `url`, at most 1 MiB of it.
    async fn fetch(&self, url: &str) -> Result<Vec<u8>, BoxError>;
}

/// Every issuer.
#[derive(Default)]
pub struct Issuers {
    issuers: Vec<Issuer>,
    /// `None` if there is none.
    fetch: Option<Arc<dyn FetchKeys>>,
}

struct Issuer {
    config: Config,
    keys: Mutex<Keys>,
    memberships: Option<Memberships>,
}

/// Whom a token proves.
#[derive(Debug)]
pub struct Proved {
    /// The caller.
    pub caller: Caller,
    /// Until when what was looked up of him is trusted, if anything was.
    pub looked_up_until: Option<Timestamp>,
    /// The one channel that the token is for, if it is a subscription token.
    pub channel: Option<String>,
}

/// What a token claims, once its signature, its issuer, its audience and its times hold.
#[derive(Debug)]
struct Claims {
    /// What the claim that names a tenant says.
    tenant: Option<String>,
    principal: Principal,
    session: Option<SessionId>,
    roles: Vec<Role>,
    pillars: Pillars,
    expires: Option<Timestamp>,
    channel: Option<String>,
    channels: Vec<Box<str>>,
    capabilities: Vec<Capability>,
    info: Option<Info>,
}

#[derive(Default)]
struct Keys {
    keys: Arc<[VerifyingKey]>,
    fetched: Option<Instant>,
    asked: Option<Instant>,
}

impl Issuers {
    /// Whether `configs` can be used, without asking any server.
    ///
    /// # Errors
    /// A sentence that names the issuer, what is wrong and what to do.
    pub fn check(configs: &[Config]) -> Result<(), String> {
        configs.iter().try_for_each(|config| config.named(config.open()).map(drop))
    }

    /// Reads secrets and key files. `members` are the tables of the issuers, by their names,
    /// whose memberships are looked up.
    ///
    /// # Errors
    /// As [`Self::check`].
    pub fn open(
        configs: &[Config],
        fetch: Arc<dyn FetchKeys>,
        members: &HashMap<String, Arc<dyn Members>>,
        clock: &SharedClock,
    ) -> Result<Self, String> {
        let open = |config: &Config| {
            let keys = Keys { keys: config.open()?.into(), ..Keys::default() };
            let memberships = match &config.membership {
                None => None,
                Some(of) => {
                    let members = members.get(&config.name).ok_or("its members have no table")?;
                    Some(Memberships::new(of, members.clone(), clock.clone()))
                }
            };
            Ok(Issuer { config: config.clone(), keys: Mutex::new(keys), memberships })
        };
        let issuers = configs.iter().map(|config| config.named(open(config)));
        Ok(Self { issuers: issuers.collect::<Result<_, _>>()?, fetch: Some(fetch) })
    }

    /// The caller that a token proves.
    ///
    /// # Errors
    /// `unauthenticated` or `token_expired`; `overloaded` if the issuer's keys cannot be had,
    /// `store_unavailable` if memberships cannot.
    pub async fn identify(&self, token: &str, now: Timestamp) -> Result<Proved, Problem> {
        let header = jws::header(token).map_err(|error| refused(&error.to_string()))?;
        let mut why = refused("no configured issuer signed the token");
        for issuer in &self.issuers {
            let mut keys = issuer.keys_for(header.kid.as_deref(), false);
            if keys.is_none() {
                self.refresh(issuer).await?;
                keys = issuer.keys_for(header.kid.as_deref(), true);
            }
            let pinned = |key: &&VerifyingKey| {
                issuer.config.algorithms.iter().any(|name| name == key.algorithm())
            };
            for key in keys.unwrap_or_default().iter().filter(pinned) {
                match key.verify(token) {
                    Ok(payload) => match issuer.config.claims(&payload, now) {
                        Ok(claims) => return issuer.proved(claims).await,
                        Err(problem) => why = problem,
                    },
                    Err(jws::Error::Signature | jws::Error::Algorithm) => {}
                    Err(error @ jws::Error::Malformed) => return Err(refused(&error.to_string())),
                }
            }
        }
        Err(why)
    }

    async fn refresh(&self, issuer: &Issuer) -> Result<(), Problem> {
        let (Some(url), Some(fetch)) = (&issuer.config.jwks_url, &self.fetch) else {
            return Ok(());
        };
        {
            let mut keys = issuer.keys.lock();
            if keys.asked.is_some_and(|asked| asked.elapsed() < ASK_AT_MOST_EVERY) {
                return Ok(());
            }
            keys.asked = Some(Instant::now());
        }
        let name = &issuer.config.name;
        let fetched = match fetch.fetch(url).await {
            Ok(document) => read_set(&document).map_err(BoxError::from),
            Err(error) => Err(error),
        };
        match fetched {
            Ok(set) => {
                let mut keys = issuer.keys.lock();
                keys.keys = set.into();
                keys.fetched = Some(Instant::now());
                Ok(())
            }
            Err(error) => {
                tracing::warn!(issuer = %name, %error, "the issuer's keys cannot be fetched");
                if issuer.keys.lock().fetched.is_some() {
                    return Ok(()); // Older keys still hold.
                }
                let detail = "the keys of the token's issuer cannot be fetched now";
                Err(Problem::new(Code::Overloaded, detail).retry_after(ASK_AT_MOST_EVERY))
            }
        }
    }
}

impl Issuer {
    async fn proved(&self, claims: Claims) -> Result<Proved, Problem> {
        let mut claims = claims;
        let channel = claims.channel.take();
        let Some(memberships) = &self.memberships else {
            let tenant = self.config.tenant_of(&claims)?;
            return Ok(Proved { caller: claims.of(tenant), looked_up_until: None, channel });
        };
        let user = claims.principal.id.clone();
        let acting = memberships.of(user.as_str(), claims.tenant.as_deref()).await?;
        claims.roles.extend(acting.roles);
        let looked_up_until = Some(acting.until);
        Ok(Proved { caller: claims.of(acting.tenant), looked_up_until, channel })
    }

    /// The keys that may have signed; `None` if the key server should be asked first.
    fn keys_for(&self, kid: Option<&str>, asked: bool) -> Option<Vec<VerifyingKey>> {
        let keys = self.keys.lock();
        let named = |key: &&VerifyingKey| match (&key.id, kid) {
            (Some(id), Some(kid)) => id == kid,
            (Some(_) | None, None) => true,
            (None, Some(_)) => self.config.jwks_url.is_none(),
        };
        let found: Vec<_> = keys.keys.iter().filter(named).cloned().collect();
        let fresh = keys.fetched.is_some_and(|fetched| fetched.elapsed() < KEYS_FRESH);
        let settled = asked || self.config.jwks_url.is_none() || (fresh && !found.is_empty());
        settled.then_some(found)
    }
}

fn read_set(document: &[u8]) -> Result<Vec<VerifyingKey>, String> {
    let set: JwkSet =
        serde_json::from_slice(document).map_err(|error| format!("not a JWK set: {error}"))?;
    // A set may hold keys for other purposes; those that we cannot use are passed over.
    Ok(set.keys.iter().filter_map(|jwk| VerifyingKey::from_jwk(jwk).ok()).collect())
}

impl Claims {
    fn of(self, tenant: TenantId) -> Caller {
        let Self {
            principal, session, roles, pillars, expires, channels, capabilities, info, ..
        } = self;
        let capabilities = capabilities.into();
        let (roles, channels, credential) = (roles.into(), channels.into(), CredentialKind::Jwt);
        Caller {
            tenant,
            principal,
            session,
            roles,
            pillars,
            expires,
            credential,
            channels,
            capabilities,
            info,
            steering: None,
        }
    }
}

impl Config {
    /// What went wrong, with the issuer's name before it.
    fn named<T>(&self, result: Result<T, String>) -> Result<T, String> {
        result.map_err(|what| format!("issuer `{}`: {what}", self.name))
    }

    fn open(&self) -> Result<Vec<VerifyingKey>, String> {
        let known = ["HS256", "RS256", "ES256", "EdDSA"];
        if let Some(other) = self.algorithms.iter().find(|name| !known.contains(&name.as_str())) {
            return Err(format!("`{other}` is not supported; use HS256, RS256, ES256 or EdDSA"));
        }
        if self.algorithms.is_empty() {
            return Err("`algorithms` must name at least one".into());
        }
        if self.issuer.is_none() && !self.waive.contains(&Claim::Iss) {
            return Err(
                "`issuer` is missing; set it, or waive the claim: `waive = [\"iss\"]`".into()
            );
        }
        if self.audience.is_empty() && !self.waive.contains(&Claim::Aud) {
            return Err(
                "`audience` is missing; set it, or waive the claim: `waive = [\"aud\"]`".into()
            );
        }
        if let Some(membership) = &self.membership {
            membership.check()?;
            if self.tenant.is_some() {
                return Err("set either `tenant` or `membership`".into());
            }
        }
        let read = |path: &PathBuf| {
            std::fs::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()))
        };
        match (&self.secret, &self.secret_file, &self.jwks_file, &self.jwks_url) {
            (Some(secret), None, None, None) => self.shared_secret(secret.as_bytes()),
            (None, Some(path), None, None) => {
                let bytes = read(path)?;
                self.shared_secret(bytes.trim_ascii_end())
            }
            (None, None, Some(path), None) => read_set(&read(path)?),
            (None, None, None, Some(url)) => match url::Url::parse(url) {
                Ok(url) if matches!(url.scheme(), "https" | "http") => Ok(Vec::new()),
                Ok(_) | Err(_) => Err(format!("`jwks_url` is not an http or https URL: {url}")),
            },
            _ => Err("set exactly one of `secret`, `secret_file`, `jwks_file`, `jwks_url`".into()),
        }
    }

    fn shared_secret(&self, secret: &[u8]) -> Result<Vec<VerifyingKey>, String> {
        // RFC 7518, section 3.2: at least as long as the hash. An issuer with waived claims
        // is a test's or a migration's, and stays on loopback.
        if secret.len() < 32 && self.waive.is_empty() {
            return Err(
                "the secret must have at least 32 bytes; make one with `openssl rand -hex 32`"
                    .into(),
            );
        }
        Ok(vec![VerifyingKey::from_secret(secret)])
    }

    /// The tenant that is configured or claimed.
    fn tenant_of(&self, claims: &Claims) -> Result<TenantId, Problem> {
        match &self.tenant {
            Some(fixed) => Ok(fixed.clone()),
            None => TenantId::new(claims.tenant.as_deref().unwrap_or_default())
                .map_err(|error| refused(&error.to_string())),
        }
    }

    /// Reads the claims of a token whose signature holds (RFC 7519, section 4.1).
    fn claims(&self, payload: &[u8], now: Timestamp) -> Result<Claims, Problem> {
        let claims: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(payload)
            .map_err(|_| refused("the claims are not a JSON object"))?;
        let text = |name: &str| match claim(&claims, name) {
            None => Ok(None),
            Some(serde_json::Value::String(text)) => Ok(Some(text.as_str())),
            Some(_) => Err(refused(&format!("the claim `{name}` is not a text"))),
        };
        let seconds = |name: &str| match claims.get(name) {
            None => Ok(None),
            Some(value) => match value.as_f64() {
                Some(at) if (0.0..1e12).contains(&at) => Ok(Some(at as u64)),
                Some(_) | None => Err(refused(&format!("the claim `{name}` is not a time"))),
            },
        };

        match (text("iss")?, &self.issuer) {
            (Some(told), Some(expected)) if told == expected => {}
            (None, _) if self.waive.contains(&Claim::Iss) => {}
            (Some(_), None) => {}
            (Some(_) | None, _) => return Err(refused("the claim `iss` is not the issuer's")),
        }
        let audience: Vec<&str> = match claims.get("aud") {
            None => Vec::new(),
            Some(serde_json::Value::String(one)) => vec![one],
            Some(serde_json::Value::Array(many)) => {
                many.iter().filter_map(|v| v.as_str()).collect()
            }
            Some(_) => return Err(refused("the claim `aud` is not a text or a list of texts")),
        };
        let waived = audience.is_empty() && self.waive.contains(&Claim::Aud);
        let open = self.audience.is_empty();
        if !waived && !open && !audience.iter().any(|name| self.audience.iter().any(|a| a == name))
        {
            return Err(refused("the claim `aud` does not name this platform"));
        }
        let expires = seconds("exp")?;
        match expires {
            None if !self.waive.contains(&Claim::Exp) => {
                return Err(refused("the claim `exp` is missing"));
            }
            Some(at) if now.as_secs() >= at.saturating_add(LEEWAY_SECS) => {
                return Err(Problem::new(Code::TokenExpired, "the token has expired"));
            }
            Some(_) | None => {}
        }
        if seconds("nbf")?.is_some_and(|at| at > now.as_secs() + LEEWAY_SECS) {
            return Err(refused("the token is not valid yet"));
        }

        let wrong = |error: types::InvalidId| refused(&error.to_string());
        let tenant = match &self.tenant {
            Some(_) => None,
            None => text(&self.tenant_claim)?.map(str::to_owned),
        };
        let id = PrincipalId::new(text("sub")?.unwrap_or_default()).map_err(wrong)?;
        let kind = match text("kind")? {
            None | Some("user") => PrincipalKind::User,
            Some("agent") => PrincipalKind::Agent,
            Some("service") => PrincipalKind::Service,
            Some(_) => return Err(refused("the claim `kind` is not user, agent or service")),
        };
        let session = match text("session")? {
            None => None,
            Some(id) => Some(id.parse::<SessionId>().map_err(wrong)?),
        };
        let roles: Vec<Role> = match claim(&claims, &self.roles_claim) {
            None => Vec::new(),
            Some(value) => serde_json::from_value(value.clone())
                .map_err(|_| refused("the roles are not a list of role names"))?,
        };
        let pillars: Pillars = match claim(&claims, &self.pillars_claim) {
            None => Pillars::default(),
            Some(value) => serde_json::from_value(value.clone())
                .map_err(|_| refused("the pillars are not a list of at most 16 names"))?,
        };
        let channel = text("channel")?.map(str::to_owned);
        let (channels, capabilities) = (channels(&claims)?, capabilities(&claims)?);
        Ok(Claims {
            tenant,
            principal: Principal { kind, id },
            session,
            roles,
            pillars,
            expires: expires.map(|at| Timestamp(at.saturating_add(LEEWAY_SECS) * 1000)),
            channel,
            channels,
            capabilities,
            info: info(&claims)?,
        })
    }
}

/// The channels that a token subscribes its connections to: the list `channels`, and the names
/// of the members of `subs`.
fn channels(claims: &serde_json::Map<String, serde_json::Value>) -> Result<Vec<Box<str>>, Problem> {
    let mut channels: Vec<Box<str>> = match claims.get("channels") {
        None => Vec::new(),
        Some(listed) => serde_json::from_value(listed.clone())
            .map_err(|_| refused("the claim `channels` is not a list of channels"))?,
    };
    match claims.get("subs") {
        None => {}
        Some(serde_json::Value::Object(subs)) => {
            channels.extend(subs.keys().map(|channel| channel.as_str().into()));
        }
        Some(_) => return Err(refused("the claim `subs` does not name channels")),
    }
    channels.sort_unstable();
    channels.dedup();
    if channels.len() > CHANNELS_MAX {
        return Err(refused("the token names more than 64 channels"));
    }
    Ok(channels)
}

/// What the token allows in channels: the claim `caps`, as Centrifugo's tokens have it.
fn capabilities(
    claims: &serde_json::Map<String, serde_json::Value>,
) -> Result<Vec<Capability>, Problem> {
    #[derive(Deserialize)]
    struct Form {
        channels: Vec<String>,
        #[serde(default, rename = "match")]
        by: By,
        allow: Vec<ChannelAction>,
    }
    #[derive(Default, PartialEq, Deserialize)]
    enum By {
        #[default]
        #[serde(rename = "", alias = "exact")]
        Exact,
        #[serde(rename = "wildcard")]
        Wildcard,
    }
    let Some(caps) = claims.get("caps") else { return Ok(Vec::new()) };
    let forms: Vec<Form> = serde_json::from_value(caps.clone()).map_err(|_| {
        refused(
            "the claim `caps` is not a list of `channels`, `match` (`exact`, `wildcard`) and \
                 `allow` (`sub`, `pub`, `prs`, `hst`)",
        )
    })?;
    let count: usize = forms.iter().map(|form| form.channels.len()).sum();
    if count > CHANNELS_MAX || forms.len() > CHANNELS_MAX {
        return Err(refused("the claim `caps` names more than 64 channels"));
    }
    let capability =
        |Form { channels, by, allow }| Capability { channels, wildcard: by == By::Wildcard, allow };
    Ok(forms.into_iter().map(capability).collect())
}

/// What the token says of its holder for others to see: the claim `info`, or the same in base64 as
/// `b64info`, which comes first.
fn info(claims: &serde_json::Map<String, serde_json::Value>) -> Result<Option<Info>, Problem> {
    use serde_json::Value;
    let value = match (claims.get("b64info"), claims.get("info")) {
        (Some(Value::String(text)), _) if !text.is_empty() => {
            let bytes = STANDARD.decode(text).ok();
            let value = bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok());
            value.ok_or_else(|| refused("the claim `b64info` is not JSON in base64"))?
        }
        (None | Some(Value::Null | Value::String(_)), value) => value.cloned().unwrap_or_default(),
        (Some(_), _) => return Err(refused("the claim `b64info` is not a text")),
    };
    if value.is_null() {
        return Ok(None);
    }
    let long =
        || refused(&format!("the info of the token has more than {} bytes", Info::BYTES_MAX));
    Info::new(&value.to_string()).map(Some).ok_or_else(long)
}

/// The claim of this name, or the member of a claim that the name's dots lead to.
fn claim<'a>(
    claims: &'a serde_json::Map<String, serde_json::Value>,
    name: &str,
) -> Option<&'a serde_json::Value> {
    claims.get(name).or_else(|| {
        let (of, member) = name.split_once('.')?;
        claim(claims.get(of)?.as_object()?, member)
    })
}

#[cfg(test)]
mod tests;

//! Realms and bridges as they are configured.

use semver::Version;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, path::PathBuf, time::Duration};
use types::{Cidr, Role, TenantId};

/// Realms by name.
pub type Config = BTreeMap<String, RealmConfig>;

/// A set of services with a policy.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RealmConfig {
    /// Roles, of which a caller with one speaks for the realm. Default: nobody does.
    pub roles: Vec<Role>,
    /// Tenants of those who speak for it. Default: any.
    pub tenants: Vec<TenantId>,
    /// Its services, by their names in `[services]`. A service belongs to one realm at most.
    pub services: BTreeMap<String, MemberConfig>,
}

/// A service as a member of its realm.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MemberConfig {
    /// What callers name it. Default: as `[services]` does. Several services of a realm may have
    /// one name if their versions differ.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its version. Default `1.0.0`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<Version>,
    /// Words by which callers choose among versions.
    pub tags: Vec<String>,
    /// Whether it is only called by those who ask for its version.
    pub preview: bool,
    /// Its OpenAPI document, 3.0 or 3.1, as JSON or YAML. Default: none, and every path of it can
    /// be called.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub openapi: Option<Source>,
    /// What becomes of requests that break the document.
    pub requests: Validation,
    /// What becomes of answers that break it.
    pub responses: ResponseValidation,
}

/// Where a document comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "expected the name of a file, `{ url = \"…\" }` or `{ registered = true }`"
)]
pub enum Source {
    /// A file.
    File(PathBuf),
    /// Somewhere on the network.
    Url(UrlSource),
    /// Whoever speaks for the realm publishes it.
    Registered(RegisteredSource),
}

/// A document on the network. Redirects are not followed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UrlSource {
    /// `http://…` or `https://…`.
    pub url: String,
    /// How often it is fetched, 10s to 24h. Default `5m`.
    #[serde(default = "every", with = "types::duration")]
    pub every: Duration,
    /// Networks that it has to be in, such as `10.0.0.0/8`. Default: anywhere that is public, and
    /// nowhere else.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub networks: Vec<Cidr>,
    /// Whether it may be on this machine. Default false.
    #[serde(default)]
    pub loopback: bool,
}

fn every() -> Duration {
    Duration::from_secs(300)
}

/// A document that comes by `PUT /crosstown/v1/realms/{realm}/services/{service}/openapi`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegisteredSource {
    /// Whether it does.
    pub registered: Always,
}

/// `true`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "bool", into = "bool")]
pub struct Always;

impl TryFrom<bool> for Always {
    type Error = &'static str;

    fn try_from(truth: bool) -> Result<Self, Self::Error> {
        if truth { Ok(Self) } else { Err("leave it out instead of saying `false`") }
    }
}

impl From<Always> for bool {
    fn from(Always: Always) -> Self {
        true
    }
}

/// What becomes of requests that break a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Validation {
    /// They are refused with 400.
    #[default]
    Enforce,
    /// They pass, and are counted and logged.
    Warn,
    /// Nobody looks.
    Off,
}

/// What becomes of answers that break a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ResponseValidation {
    /// They pass, and are counted and logged.
    Warn,
    /// Nobody looks.
    #[default]
    Off,
}

/// Which realm may call what of which other. The first that concerns a call decides; a call that
/// none concerns is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BridgeConfig {
    /// Its name, which those are told whom it refuses.
    pub name: String,
    /// The realm that calls.
    pub from: String,
    /// The realm that is called.
    pub to: String,
    /// Services of it; `*` stands for any characters. Default: all.
    #[serde(default = "any")]
    pub services: Vec<String>,
    /// Operations, by their ids in the document; `*` stands for any characters. Default: all. What
    /// has no document has no operations, and is concerned by rules for all only.
    #[serde(default = "any")]
    pub operations: Vec<String>,
    /// Whether such calls pass. Default true.
    #[serde(default = "yes")]
    pub allow: bool,
}

fn any() -> Vec<String> {
    vec!["*".into()]
}

fn yes() -> bool {
    true
}

/// Realms that cannot be served.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// In a realm.
    #[error("realm `{realm}`: {why}")]
    Realm {
        /// Its name.
        realm: String,
        /// What to change.
        why: String,
    },
    /// In a document.
    #[error("the OpenAPI document of `{service}`: {why}")]
    Document {
        /// Whose it is.
        service: String,
        /// What to change.
        why: String,
    },
    /// In a bridge.
    #[error("bridge `{bridge}`: {why}")]
    Bridge {
        /// Its name.
        bridge: String,
        /// What to change.
        why: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_is_a_file_or_is_published() {
        let read = |text: &str| toml::from_str::<MemberConfig>(text).map(|member| member.openapi);
        let file = Some(Source::File("plans.yaml".into()));
        assert_eq!(read("openapi = \"plans.yaml\"").unwrap(), file);
        let registered = Some(Source::Registered(RegisteredSource { registered: Always }));
        assert_eq!(read("openapi = { registered = true }").unwrap(), registered);
        let fetched = read("openapi = { url = \"https://a.example/openapi.json\" }").unwrap();
        assert!(matches!(fetched, Some(Source::Url(UrlSource { loopback: false, .. }))));
        for wrong in ["{ registred = true }", "{ registered = false }", "{ url = \"x\", uri = 1 }"]
        {
            let why = read(&format!("openapi = {wrong}")).unwrap_err().to_string();
            assert!(why.contains("the name of a file"), "{why}");
        }
        assert!(toml::from_str::<MemberConfig>("version = \"2\"").is_err());
    }
}

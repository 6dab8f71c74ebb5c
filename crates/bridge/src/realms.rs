//! The realms of a node, ready to decide.

use crate::{
    config::{BridgeConfig, Config, ConfigError, MemberConfig, RealmConfig},
    document::Document,
    policy::{NO_BRIDGE, Policy},
};
use http::HeaderValue;
use semver::{Version, VersionReq};
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    sync::Arc,
};
use traffic_cop::limit::Rule;
use types::Caller;

/// Documents by service; of a service that has one to come, none until it has come.
pub type Documents = BTreeMap<String, Arc<Document>>;

/// All realms.
#[derive(Default)]
pub struct Realms {
    realms: Vec<Arc<Realm>>,
    policy: Policy,
    /// By the service's name in `[services]`.
    members: HashMap<String, Arc<Member>>,
    /// By the realm and the name there; the newest first.
    named: HashMap<String, HashMap<String, Vec<Arc<Member>>>>,
}

impl fmt::Debug for Realms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.realms.iter().map(|realm| &realm.name)).finish()
    }
}

/// A realm.
#[derive(Debug)]
pub struct Realm {
    name: Arc<str>,
    field: HeaderValue,
    config: RealmConfig,
}

impl Realm {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The same, as services are told it.
    #[must_use]
    pub fn field(&self) -> &HeaderValue {
        &self.field
    }

    /// Whether a caller speaks for it.
    #[must_use]
    pub fn lets_speak(&self, caller: &Caller) -> bool {
        let tenants = &self.config.tenants;
        (tenants.is_empty() || tenants.contains(&caller.tenant))
            && self.config.roles.iter().any(|role| caller.has_role(role.as_str()))
    }
}

/// A service of a realm.
#[derive(Debug)]
pub struct Member {
    /// The realm.
    pub realm: String,
    /// What callers name it.
    pub name: String,
    /// Its name in `[services]`.
    pub service: String,
    /// Its version.
    pub version: Version,
    /// How it is configured.
    pub config: MemberConfig,
    /// What it promises; none if it has no document, or if that has not come yet.
    pub document: Option<Arc<Document>>,
}

impl Member {
    /// Whether it is to have a document that nobody has.
    #[must_use]
    pub fn waits_for_document(&self) -> bool {
        self.config.openapi.is_some() && self.document.is_none()
    }
}

/// Which of several services of one name is wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// The version, as `2`, `^2.1` or `=2.1.0`; none: the newest that is no preview.
    pub version: Option<VersionReq>,
    /// Words that it has to have.
    pub tags: Vec<String>,
}

impl Wanted {
    /// Whether a service is such a one.
    #[must_use]
    pub fn takes(&self, member: &Member) -> bool {
        let version = match &self.version {
            Some(wanted) => wanted.matches(&member.version),
            None => !member.config.preview,
        };
        version && self.tags.iter().all(|tag| member.config.tags.contains(tag))
    }
}

impl Realms {
    /// Compiles realms.
    ///
    /// # Errors
    /// [`ConfigError`] says in one line what to change.
    pub fn compile(
        config: &Config,
        bridges: &[BridgeConfig],
        documents: &Documents,
    ) -> Result<Self, ConfigError> {
        let mut compiled = Self::default();
        for (name, realm) in config {
            let refused = |why: String| ConfigError::Realm { realm: name.clone(), why };
            if !is_plain(name) {
                return Err(refused("its name has up to 64 letters, digits, `-` and `_`".into()));
            }
            let named = compiled.named.entry(name.clone()).or_default();
            for (service, member) in &realm.services {
                let known_as = member.name.clone().unwrap_or_else(|| service.clone());
                if !is_plain(&known_as) {
                    let rule = "has up to 64 letters, digits, `-` and `_`";
                    return Err(refused(format!("the name of the service `{service}` {rule}")));
                }
                let version = member.version.clone().unwrap_or_else(|| Version::new(1, 0, 0));
                let member = Arc::new(Member {
                    realm: name.clone(),
                    name: known_as,
                    service: service.clone(),
                    version,
                    config: member.clone(),
                    document: documents.get(service).cloned(),
                });
                let same = named.entry(member.name.clone()).or_default();
                if let Some(other) = same.iter().find(|other| other.version == member.version) {
                    return Err(refused(format!(
                        "`{service}` and `{}` have one name and one version",
                        other.service
                    )));
                }
                same.push(Arc::clone(&member));
                same.sort_by_key(|member| Reverse(member.version.clone()));
                if compiled.members.insert(service.clone(), member).is_some() {
                    return Err(refused(format!("`{service}` belongs to another realm, too")));
                }
            }
            let field = HeaderValue::from_str(name).map_err(|error| refused(error.to_string()))?;
            let (name, config) = (name.as_str().into(), realm.clone());
            compiled.realms.push(Arc::new(Realm { name, field, config }));
        }
        check_bridges(config, bridges)?;
        compiled.policy = Policy::new(bridges.to_vec());
        Ok(compiled)
    }

    /// The realms, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Realm> {
        self.realms.iter().map(|realm| &**realm)
    }

    /// The bridges between them.
    #[must_use]
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// The services of all realms, in no order.
    pub fn members(&self) -> impl Iterator<Item = &Arc<Member>> {
        self.members.values()
    }

    /// A service as a member of its realm.
    #[must_use]
    pub fn member(&self, service: &str) -> Option<&Arc<Member>> {
        self.members.get(service)
    }

    /// What services are called by: the realm, the name there, and those that have it, the newest
    /// first.
    pub fn named(&self) -> impl Iterator<Item = (&str, &str, &[Arc<Member>])> {
        self.named.iter().flat_map(|(realm, names)| {
            names.iter().map(|(name, versions)| (realm.as_str(), name.as_str(), &**versions))
        })
    }

    /// The realm that a caller speaks for: the first that lets it.
    #[must_use]
    pub fn spoken_for(&self, caller: &Caller) -> Option<&Arc<Realm>> {
        self.realms.iter().find(|realm| realm.lets_speak(caller))
    }

    /// Its name.
    #[must_use]
    pub fn of_caller(&self, caller: &Caller) -> Option<&Arc<str>> {
        self.spoken_for(caller).map(|realm| &realm.name)
    }

    /// The service of a realm that is wanted by a name: the newest that fits.
    #[must_use]
    pub fn find(&self, realm: &str, name: &str, wanted: &Wanted) -> Option<&Arc<Member>> {
        let versions = self.named.get(realm)?.get(name)?;
        versions.iter().find(|member| wanted.takes(member))
    }

    /// The limits that documents ask for, each for the operation's route.
    #[must_use]
    pub fn limits(&self) -> Vec<Rule> {
        let mut rules = Vec::new();
        for member in self.members.values() {
            let operations = member.document.iter().flat_map(|document| document.operations());
            for operation in operations {
                let route = route_name(&member.service, operation.id());
                rules.extend(operation.limits().iter().map(|rule| Rule {
                    name: format!("{}.{}", member.service, rule.name).into(),
                    routes: vec![route.clone()],
                    ..rule.clone()
                }));
            }
        }
        rules.sort_by(|a, b| a.name.cmp(&b.name));
        rules
    }
}

/// What the route of an operation is called, wherever it is reached.
#[must_use]
pub fn route_name(service: &str, operation: &str) -> String {
    format!("{service}.{operation}")
}

fn is_plain(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    (1..=64).contains(&name.len()) && name.bytes().all(plain)
}

fn check_bridges(config: &Config, bridges: &[BridgeConfig]) -> Result<(), ConfigError> {
    let mut names = BTreeSet::new();
    for bridge in bridges {
        let refused = |why: String| ConfigError::Bridge { bridge: bridge.name.clone(), why };
        if !is_plain(&bridge.name) || bridge.name == NO_BRIDGE {
            return Err(refused("a name has up to 64 letters, digits, `-` and `_`".into()));
        }
        if !names.insert(&bridge.name) {
            return Err(refused("another bridge has this name".into()));
        }
        for realm in [&bridge.from, &bridge.to] {
            if !config.contains_key(realm) {
                return Err(refused(format!(
                    "there is no realm `{realm}`; add `[realms.{realm}]`"
                )));
            }
        }
        if bridge.from == bridge.to {
            return Err(refused("within a realm everything may be called".into()));
        }
        if bridge.services.is_empty() || bridge.operations.is_empty() {
            return Err(refused(
                "`services` and `operations` name something, or are left out".into(),
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;
    use types::{CredentialKind, Principal, PrincipalId, PrincipalKind, Role, TenantId};

    #[derive(Deserialize)]
    struct Whole {
        realms: Config,
        #[serde(default)]
        bridges: Vec<BridgeConfig>,
    }

    fn compile(text: &str) -> Result<Realms, String> {
        let whole: Whole = toml::from_str(text).unwrap();
        let compiled = Realms::compile(&whole.realms, &whole.bridges, &Documents::new());
        compiled.map_err(|error| error.to_string())
    }

    const TWO: &str = "[realms.solution]\nroles = [\"sol\"]\ntenants = [\"acme\"]\n\
        [realms.solution.services]\n\
        plans-1 = { name = \"plans\", version = \"1.4.0\" }\n\
        plans-2 = { name = \"plans\", version = \"2.0.1\", tags = [\"eu\", \"fast\"] }\n\
        plans-3 = { name = \"plans\", version = \"3.0.0\", preview = true }\n\
        bills = {}\n[realms.experience]\nroles = [\"exp\"]\n";

    #[test]
    fn the_newest_version_that_fits_is_found() {
        let realms = compile(TWO).unwrap();
        let find = |name: &str, version: Option<&str>, tags: &[&str]| {
            let version = version.map(|version| version.parse().unwrap());
            let tags = tags.iter().map(|tag| (*tag).to_owned()).collect();
            let found = realms.find("solution", name, &Wanted { version, tags });
            found.map(|member| member.service.clone())
        };
        for (name, version, tags, expected) in [
            ("plans", None, &[][..], Some("plans-2")),
            ("plans", Some("1"), &[], Some("plans-1")),
            ("plans", Some("^1.2"), &[], Some("plans-1")),
            ("plans", Some("=2.0.0"), &[], None),
            ("plans", Some("3"), &[], Some("plans-3")),
            ("plans", Some(">=1"), &[], Some("plans-3")),
            ("plans", None, &["eu"], Some("plans-2")),
            ("plans", None, &["eu", "slow"], None),
            ("plans", Some("1"), &["eu"], None),
            ("bills", None, &[], Some("bills")),
            ("plans-1", None, &[], None),
        ] {
            let found = find(name, version, tags);
            assert_eq!(found.as_deref(), expected, "{name} {version:?} {tags:?}");
        }
        assert!(realms.find("experience", "plans", &Wanted::default()).is_none());
    }

    #[test]
    fn a_caller_speaks_for_a_realm_by_role_and_tenant() {
        let realms = compile(TWO).unwrap();
        let of = |tenant: &str, role: &str| {
            let principal =
                Principal { kind: PrincipalKind::Service, id: PrincipalId::new("s").unwrap() };
            let mut caller =
                Caller::new(TenantId::new(tenant).unwrap(), principal, CredentialKind::ApiKey);
            caller.roles = [Role::new(role).unwrap()].into();
            realms.of_caller(&caller).map(ToString::to_string)
        };
        assert_eq!(of("acme", "sol").as_deref(), Some("solution"));
        assert_eq!(of("other", "sol"), None);
        assert_eq!(of("other", "exp").as_deref(), Some("experience"));
        assert_eq!(of("acme", "none"), None);
    }

    #[test]
    fn what_cannot_be_kept_apart_is_refused() {
        for (text, expected) in [
            (
                "[realms.a.services]\nx = { name = \"n\" }\ny = { name = \"n\" }\n",
                "one name and one version",
            ),
            ("[realms.a.services]\nx = {}\n[realms.b.services]\nx = {}\n", "another realm"),
            ("[realms.\"a/b\"]\n", "its name has"),
            ("[realms.a.services]\nx = { name = \"../y\" }\n", "the name of the service"),
            ("[realms.a]\n[[bridges]]\nname = \"r\"\nfrom = \"a\"\nto = \"b\"\n", "no realm `b`"),
            ("[realms.a]\n[[bridges]]\nname = \"r\"\nfrom = \"a\"\nto = \"a\"\n", "within a realm"),
            (
                "[realms.a]\n[realms.b]\n[[bridges]]\nname = \"no-bridge\"\nfrom = \"a\"\nto = \"b\"\n",
                "a name has",
            ),
        ] {
            let why = compile(text).map(|_| ()).unwrap_err();
            assert!(why.contains(expected), "{why}");
        }
        let bridge = "[[bridges]]\nname = \"r\"\nfrom = \"a\"\nto = \"b\"\n";
        let twice = format!("[realms.a]\n[realms.b]\n{bridge}{bridge}");
        assert!(compile(&twice).unwrap_err().contains("another bridge"));
    }
}

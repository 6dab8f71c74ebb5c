//! The configuration: one file, composed of each part's own, every key with a default.

pub(crate) mod diff;

use crate::{stores::StoresConfig, telemetry};
use gateway::ClientAuth;
use serde::Deserialize;
use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};
use traffic_cop::{analytics, identity, limit, session, state};

/// Everything that can be configured.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// Where data is kept.
    pub(crate) stores: StoresConfig,
    /// The listener for clients.
    pub(crate) edge: gateway::Config,
    /// The listener for operators.
    pub(crate) admin: AdminConfig,
    /// Which requests go to which service.
    pub(crate) routes: Vec<gateway::RouteConfig>,
    /// Where the services run.
    pub(crate) services: soa::Config,
    /// Which services belong together, and who speaks for them.
    pub(crate) realms: bridge::Config,
    /// Which realm may call what of which other.
    pub(crate) bridges: Vec<bridge::BridgeConfig>,
    /// Whose credentials are taken.
    pub(crate) identity: identity::Config,
    /// Bounds of sessions.
    pub(crate) sessions: session::Config,
    /// Bounds of documents.
    pub(crate) state: state::Config,
    pub(crate) mailboxes: post_office::Config,
    /// Sockets and channels.
    pub(crate) realtime: realtime::Config,
    /// Rate limits.
    pub(crate) limits: Vec<limit::Rule>,
    /// How traffic is counted.
    pub(crate) analytics: analytics::Config,
    /// Whom figures are told.
    pub(crate) telemetry: telemetry::Config,
    /// How nodes that share their stores reach each other.
    pub(crate) peers: PeersConfig,
    /// Shutting down.
    pub(crate) shutdown: ShutdownConfig,
}

/// The listener for operators.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct AdminConfig {
    /// Where it listens; a loopback address.
    pub(crate) listen: SocketAddr,
    /// Where its key is kept. It is made at the first start, readable by its owner only.
    pub(crate) key_file: Option<PathBuf>,
}

impl Default for AdminConfig {
    fn default() -> Self {
        Self { listen: (Ipv4Addr::LOCALHOST, 8081).into(), key_file: None }
    }
}

impl AdminConfig {
    /// The key's file: beside the data, unless configured.
    pub(crate) fn key_file(&self, stores: &StoresConfig) -> PathBuf {
        let beside = || match stores.folder() {
            Some(folder) => folder.with_extension("admin-key"),
            None => PathBuf::from("crosstown.admin-key"),
        };
        self.key_file.clone().unwrap_or_else(beside)
    }
}

/// How nodes that share their stores reach each other.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct PeersConfig {
    /// Where this node listens for others; a loopback address, unless `insecure`.
    pub(crate) listen: SocketAddr,
    /// Where others reach it, if that is not where it listens.
    pub(crate) advertise: Option<SocketAddr>,
    /// Allows an address that others on the network can reach: what nodes say to each other is
    /// signed, but not encrypted.
    pub(crate) insecure: bool,
}

impl Default for PeersConfig {
    fn default() -> Self {
        Self { listen: (Ipv4Addr::LOCALHOST, 0).into(), advertise: None, insecure: false }
    }
}

/// Shutting down.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ShutdownConfig {
    /// After SIGTERM: how long the node still takes requests while it sends clients elsewhere
    /// and `/ready` says 503. Longer than a load balancer takes to notice; at most 5m.
    #[serde(with = "types::duration")]
    pub(crate) announce: Duration,
    /// How long requests in flight may still take; then they are cut off.
    #[serde(with = "types::duration")]
    pub(crate) drain: Duration,
}

impl Default for ShutdownConfig {
    fn default() -> Self {
        Self { announce: Duration::from_secs(1), drain: Duration::from_secs(15) }
    }
}

impl Config {
    /// Reads `file`, or `crosstown.toml` if it is there, or takes the defaults.
    ///
    /// # Errors
    /// File, line, what is wrong and what to do, in one line.
    pub(crate) fn load(file: Option<&Path>) -> Result<Self, String> {
        let default = Path::new("crosstown.toml");
        let path = match file {
            Some(path) => path,
            None if default.exists() => default,
            None => return Ok(Self::default()),
        };
        let text = std::fs::read_to_string(path)
            .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        Self::parse(&text, &path.display().to_string())
    }

    /// Reads a configuration; `name` stands for the file in messages.
    pub(crate) fn parse(text: &str, name: &str) -> Result<Self, String> {
        let mut config: Self = toml::from_str(text).map_err(|error| {
            let before = error.span().map_or("", |span| text.get(..span.start).unwrap_or(""));
            let line = before.matches('\n').count() + 1;
            let message = error.message().replace('\n', " ");
            format!("{name}:{line}: {message}")
        })?;
        if !config.edge.routes.is_empty() {
            return Err(format!("{name}: routes stand at the top: `[[routes]]`, not under `edge`"));
        }
        config.edge.routes = std::mem::take(&mut config.routes);
        config.check().map_err(|why| format!("{name}: {why}"))?;
        Ok(config)
    }

    /// Refuses what no single part can see to be wrong.
    fn check(&self) -> Result<(), String> {
        self.stores.engines()?;
        self.stores.guard.check().map_err(|why| format!("`stores.guard`: {why}"))?;
        self.identity.check()?;
        self.realtime.check()?;
        self.state.check()?;
        self.mailboxes.check()?;
        self.analytics.check()?;
        self.telemetry.check()?;
        if !self.admin.listen.ip().is_loopback() {
            return Err(format!(
                "`admin.listen = \"{}\"` can be reached by others; use a loopback address",
                self.admin.listen
            ));
        }
        if !self.peers.listen.ip().is_loopback() && !self.peers.insecure {
            return Err(format!(
                "`peers.listen = \"{}\"` can be reached by others, and what nodes say to each \
                 other is signed but not encrypted; use a loopback address, or set \
                 `peers.insecure = true` in a network of your own",
                self.peers.listen
            ));
        }
        let waiving = self.identity.issuers.iter().find(|issuer| !issuer.waive.is_empty());
        if let Some(issuer) = waiving
            && !self.edge.listen.ip().is_loopback()
        {
            return Err(format!(
                "the issuer `{}` waives required claims, which is for loopback listeners only; \
                 remove `waive`, or listen on a loopback address",
                issuer.name
            ));
        }
        let asked = self.edge.tls.as_ref().map(|tls| tls.client_auth);
        let asks = matches!(asked, Some(ClientAuth::Optional | ClientAuth::Required));
        if !asks && !self.identity.certificates.is_empty() {
            return Err("`identity.certificates` needs clients that show one; set \
                 `edge.tls.client_auth`"
                .into());
        }
        for route in &self.edge.routes {
            let missing = route.services().find(|service| !self.services.contains_key(*service));
            if let Some(service) = missing {
                return Err(format!(
                    "the route `{}` leads to the service `{service}`, which is not configured; \
                     add `[services.{service}]`",
                    route.name
                ));
            }
        }
        for (realm, config) in &self.realms {
            let mut services = config.services.keys();
            if let Some(service) = services.find(|name| !self.services.contains_key(*name)) {
                return Err(format!(
                    "the realm `{realm}` has the service `{service}`, which is not configured; \
                     add `[services.{service}]`"
                ));
            }
        }
        for (at, limit) in self.limits.iter().enumerate() {
            if self.limits[..at].iter().any(|other| other.name == limit.name) {
                return Err(format!("two limits are named `{}`; rename one", limit.name));
            }
            let mut named = limit.routes.iter().chain(limit.costs.keys());
            let unknown = named.find(|name| {
                let is_route = self.edge.routes.iter().any(|route| route.name == **name);
                !is_route && !self.is_operation(name)
            });
            if let Some(route) = unknown.filter(|name| !name.starts_with('_')) {
                return Err(format!(
                    "the limit `{}` covers the route `{route}`, which is not configured",
                    limit.name
                ));
            }
        }
        if self.shutdown.announce > Duration::from_secs(300) {
            return Err("`shutdown.announce` must be at most 5m".into());
        }
        if !(1..=1_000).contains(&self.sessions.per_user_max) {
            return Err("`sessions.per_user_max` must be 1 to 1000".into());
        }
        self.sessions.check()?;
        if self.sessions.metadata_bytes_max > 64 * 1024 {
            return Err("`sessions.metadata_bytes_max` must be at most 65536".into());
        }
        if self.state.value_bytes_max > 128 * 1024 {
            return Err("`state.value_bytes_max` must be at most 131072".into());
        }
        if !(64..=100_000).contains(&self.state.history_max) {
            return Err("`state.history_max` must be 64 to 100000".into());
        }
        if !(1..=64).contains(&self.state.depth_max) {
            return Err("`state.depth_max` must be 1 to 64".into());
        }
        Ok(())
    }

    /// Whether a route's name is of the form that those of operations have, `service.operation`.
    /// Which there are, documents tell that may yet come.
    fn is_operation(&self, route: &str) -> bool {
        let of = |realm: &bridge::RealmConfig| {
            realm.services.iter().any(|(service, member)| {
                let rest = route.strip_prefix(service.as_str());
                member.openapi.is_some() && rest.is_some_and(|rest| rest.starts_with('.'))
            })
        };
        self.realms.values().any(of)
    }

    /// The configuration as it came out, secrets redacted.
    pub(crate) fn printed(&self) -> String {
        format!("{self:#?}\n")
    }
}

/// The shared secret of an issuer, for making tokens.
pub(crate) fn shared_secret(issuer: &identity::issuer::Config) -> Result<Vec<u8>, String> {
    match (&issuer.secret, &issuer.secret_file) {
        (Some(secret), _) => Ok(secret.clone().into_bytes()),
        (None, Some(path)) => std::fs::read(path)
            .map(|bytes| bytes.trim_ascii_end().to_vec())
            .map_err(|error| format!("cannot read {}: {error}", path.display())),
        (None, None) => Err(format!(
            "the issuer `{}` has no shared secret; only it can sign its tokens",
            issuer.name
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str, expected: &str) {
        let message = Config::parse(text, "c.toml").map(|_| ()).unwrap_err();
        assert!(message.contains(expected), "{message}");
        assert!(!message.contains('\n'), "{message}");
    }

    #[test]
    fn everything_has_a_default() {
        let config = Config::parse("", "c.toml").unwrap();
        assert_eq!(config.edge.listen.to_string(), "127.0.0.1:8080");
        assert!(config.printed().contains("embedded:crosstown-data"));
    }

    #[test]
    fn no_password_is_printed() {
        let text = "[stores]\ndurable = \"postgres://a:hush@127.0.0.1/c\"";
        let printed = Config::parse(text, "c.toml").unwrap().printed();
        assert!(printed.contains("postgres://a:***@127.0.0.1/c") && !printed.contains("hush"));
    }

    #[test]
    fn mistakes_are_told_with_their_line() {
        refused(
            "[edge]\nlisten = \"127.0.0.1:80\"\nlissen = 1",
            "c.toml:3: unknown field `lissen`",
        );
        refused("[edge]\n\nheader_timeout = \"10\"", "c.toml:3: `10` is not a duration");
        refused(
            "[[limits]]\nname = \"a\"\nper = \"user\"\nrequests = 0\nperiod = \"1s\"",
            "`requests`",
        );
        let twice = "[[limits]]\nname = \"a\"\nper = \"ip\"\nrequests = 1\nperiod = \"1s\"\n";
        refused(&twice.repeat(2), "two limits are named `a`; rename one");
        refused("[admin]\nlisten = \"0.0.0.0:8081\"", "loopback");
        refused("[store]\nurl = \"memory:\"", "c.toml:1: unknown field `store`");
        refused("[peers]\nlisten = \"0.0.0.0:8082\"", "`peers.insecure = true`");
        refused("[stores.guard]\npatience = \"1ms\"", "`stores.guard`: `patience` must be 10ms");
        refused("[identity]\ncopies_for = \"2h\"", "`identity.copies_for` must be at most 1h");
        refused("[stores]\nhot = \"oracle://x\"", "`redis://HOST` or `memory:`");
        refused("[[routes]]\nname = \"r\"\nservice = \"s\"", "[services.s]");
        refused("[realms.r.services]\ns = {}", "[services.s]");
        let limit = "[services.s]\n[realms.r.services]\ns = { openapi = \"s.yaml\" }\n[[limits]]\n\
            name = \"l\"\nper = \"ip\"\nrequests = 1\nperiod = \"1s\"\nroutes = [\"s.get\"]\n";
        assert!(Config::parse(limit, "c.toml").is_ok());
        refused(&limit.replace("s.get", "t.get"), "the route `t.get`");
        refused("[[state.rules]]\ndocument = \"x:y\"", "the state rule for `x:y`");
        let rule = "[[identity.certificates]]\nuri = \"s://{tenant}/{name}\"";
        refused(rule, "set `edge.tls.client_auth`");
        refused(&rule.replace("{name}", "x"), "c.toml:1: the certificates of");
        refused(
            "[edge]\ntrusted_proxies = [\"10.0.0.1/8\"]",
            "c.toml:2: `10.0.0.1/8` is no network",
        );
        refused("[analytics]\nflush_interval = \"2m\"", "`analytics.flush_interval` must be 1s");
        refused("[analytics.log]\nsample = 1.5", "`analytics.log.sample` must be 0 to 1");
        refused("= 1", "c.toml:1:");
    }

    #[test]
    fn an_issuer_that_waives_claims_stays_on_loopback() {
        let issuer = "[[identity.issuers]]\nname = \"t\"\nalgorithms = [\"HS256\"]\n\
            secret = \"s\"\nwaive = [\"exp\"]\n";
        let open = "[edge]\nlisten = \"0.0.0.0:8080\"\ninsecure = true\n";
        assert!(Config::parse(issuer, "c.toml").is_ok());
        refused(&format!("{open}{issuer}"), "loopback listeners only");
    }
}

//! Where the edge listens, what it allows, and its routes.

use crate::{
    cache::CacheConfig, compress::CompressConfig, cors::CorsConfig, edit::EditConfig,
    forward_auth::ForwardAuthConfig, mirror::MirrorConfig, reshape::ReshapeConfig, tls::TlsConfig,
};
use bridge::Realms;
use serde::{Deserialize, Serialize};
use soa::{HashKey, Priority};
use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use types::{Cidr, Role, TenantId};

/// The edge listener and its routes.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where it listens. Default `127.0.0.1:8080`: nothing is open to the network unasked.
    pub listen: SocketAddr,
    /// Allows to listen on an address that others can reach, although there is no TLS; for use
    /// behind something that has. Default false: such a `listen` is refused at start. With
    /// `tls` it changes nothing.
    pub insecure: bool,
    /// TLS. Default: none, so that clients speak HTTP in the clear.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsConfig>,
    /// Networks of proxies that are believed: what `X-Forwarded-For` says of the client, and
    /// `X-Forwarded-Proto` and `-Host` of what it asked for; `connections_per_ip_max` does not
    /// hold for them. Default: none, and what clients say of that is removed.
    pub trusted_proxies: Vec<Cidr>,
    /// Whether each connection begins with a header of the PROXY protocol, version 1 or 2, by
    /// one of `trusted_proxies`; others are closed. Default false.
    pub proxy_protocol: bool,
    /// Threads that serve connections, each with its own runtime. Default 0: one per core.
    pub workers: usize,
    /// Open connections of the node, sockets included; one more is answered `503 overloaded`.
    /// Default 10,000.
    pub connections_max: usize,
    /// Open connections of one IPv4 address or one IPv6 /64; one more is answered
    /// `503 overloaded`. Default 1,000, so that one address cannot take the node.
    pub connections_per_ip_max: usize,
    /// How long what is ready may wait for its core, for as long as it likes. If it waits longer
    /// for 2 s on end, requests are refused with `503 overloaded`, those of routes of low
    /// `priority` first and more as long as it lasts, until the wait is a tenth of it. Default
    /// `500ms`; `0s`: nothing is refused for that. Else `20ms` to `10s`.
    #[serde(with = "types::duration")]
    pub lag_max: Duration,
    /// Time for the head of a request, from its first byte, or from the connection's start;
    /// then `408`. Default `10s`.
    #[serde(with = "types::duration")]
    pub header_timeout: Duration,
    /// Time that a request may keep us waiting for its body in all, besides what
    /// `body_rate_min` grants; then `408`. Default `10s`.
    #[serde(with = "types::duration")]
    pub body_timeout: Duration,
    /// Bytes each of which earns a body a second divided by this number. Default 1024: a body
    /// may come as slowly as 1 KiB a second for as long as it takes. At least 1.
    pub body_rate_min: u64,
    /// How long a connection may wait for its next request; then it is closed. Default `60s`.
    #[serde(with = "types::duration")]
    pub idle_timeout: Duration,
    /// How long a client may take no byte of an answer while there are some; then the
    /// connection is cut. Default `10s`.
    #[serde(with = "types::duration")]
    pub write_timeout: Duration,
    /// Bytes each of which earns the client of an answer a second divided by this number, up to
    /// `write_timeout` again. Default 1024: an answer may be taken as slowly as 1 KiB a second for
    /// as long as it takes. At least 1.
    pub write_rate_min: u64,
    /// How long a proxied upgraded connection may stay silent in both directions. Default
    /// `10m`.
    #[serde(with = "types::duration")]
    pub tunnel_idle_timeout: Duration,
    /// Bytes of a request body; beyond it `413`. Default 1 MiB. A route may set its own.
    pub body_bytes_max: u64,
    /// Bytes of a request target; beyond it `414`. Default 8 KiB, at most 32 KiB.
    pub target_bytes_max: usize,
    /// Bytes of all header fields of a request; beyond it `431`. Default 8 KiB, at most 64 KiB.
    /// More than 100 fields are refused in any case.
    pub header_bytes_max: usize,
    /// Bytes of answers that are kept for routes with `cache`, in all. Default 64 MiB. Read at
    /// the start.
    pub cache_bytes_max: u64,
    /// Roles of which a caller needs one to be told, in `X-Crosstown-Explain` of an answer, which
    /// way his request went, if it has that field. Default: nobody is told.
    pub explain_roles: Vec<Role>,
    /// The routes, first the more specific, then the earlier.
    pub routes: Vec<RouteConfig>,
    /// The realms, with the documents that there are. Not read from the listener's section.
    #[serde(skip)]
    pub realms: Arc<Realms>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)),
            insecure: false,
            tls: None,
            trusted_proxies: Vec::new(),
            proxy_protocol: false,
            workers: 0,
            connections_max: 10_000,
            connections_per_ip_max: 1_000,
            lag_max: Duration::from_millis(500),
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(10),
            body_rate_min: 1024,
            idle_timeout: Duration::from_secs(60),
            write_timeout: Duration::from_secs(10),
            write_rate_min: 1024,
            tunnel_idle_timeout: Duration::from_secs(600),
            body_bytes_max: 1024 * 1024,
            target_bytes_max: 8 * 1024,
            header_bytes_max: 8 * 1024,
            cache_bytes_max: 64 * 1024 * 1024,
            explain_roles: Vec::new(),
            routes: Vec::new(),
            realms: Arc::default(),
        }
    }
}

/// Who may use a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Auth {
    /// Who carries a valid credential; others get `401`.
    #[default]
    Required,
    /// Everyone; who carries a credential needs a valid one. Without one, the anonymous policy
    /// names the caller, if there is one.
    Optional,
    /// Everyone, and nobody is identified.
    None,
}

/// Which requests go to which service.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RouteConfig {
    /// Its name, unlike any other route's; analytics and limits use it.
    pub name: String,
    /// The service that answers. Either this or `split`.
    pub service: String,
    /// Services that answer, each its share: for instance a new version that is tried with a
    /// part of the requests.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub split: Vec<SplitConfig>,
    /// What leads to the same service of `split` each time; as `hash` of a service. Default:
    /// by chance for each request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub split_by: Option<HashKey>,
    /// Where copies of its requests go. Default: nowhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mirror: Option<MirrorConfig>,
    /// Tenants of the caller, of which one has to match. Default: any caller, or none.
    pub tenants: Vec<TenantId>,
    /// Hosts, exact or as `*.example.org` for all below it; ports are not compared. Default:
    /// any.
    pub hosts: Vec<String>,
    /// One path, exactly. A segment `{name}` stands for any one segment. Either this, `prefix`
    /// or `regex`.
    pub path: Option<String>,
    /// A path and all below it: `/api` takes `/api` and `/api/x`, not `/apix`. It may have
    /// `{name}` segments. Default `/`.
    pub prefix: Option<String>,
    /// A regular expression that the whole path matches, without its parameters (`;x=1`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub regex: Option<String>,
    /// The path that the service sees instead of `path`, `prefix` (what follows it is kept) or
    /// what `regex` takes; `{name}` is what stood there, or a named group of the expression.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rewrite: Option<String>,
    /// Methods. Default: any.
    pub methods: Vec<String>,
    /// Header fields that the request must carry, with exactly this value. Default: none.
    pub headers: BTreeMap<String, String>,
    /// Query parameters that the request must carry, with exactly this value once it is
    /// unescaped. Default: none.
    pub query: BTreeMap<String, String>,
    /// What to change in the header fields that the service sees.
    pub request_headers: EditConfig,
    /// What to change in the header fields of the service's answers.
    pub response_headers: EditConfig,
    /// Which pages of other origins may use it. Default: none; the browser then asks the
    /// service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cors: Option<CorsConfig>,
    /// What to change in JSON bodies on their way to the service. One that is too long or no JSON
    /// is refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_json: Option<ReshapeConfig>,
    /// What to change in JSON bodies of the service's answers. One that is too long or no JSON is
    /// not passed on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_json: Option<ReshapeConfig>,
    /// Which answers are compressed. Default: none is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compress: Option<CompressConfig>,
    /// Whether answers are kept and given again. Default: none is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache: Option<CacheConfig>,
    /// Removes `prefix` from the path that the service sees. Default false.
    pub strip_prefix: bool,
    /// Takes the operations of the service's OpenAPI document below `prefix`, and nothing else:
    /// with their methods, and held to the document. The service belongs to a realm. Default
    /// false.
    pub openapi: bool,
    /// Time to the head of the answer, instead of the service's `response_timeout`.
    #[serde(
        deserialize_with = "types::duration::optional",
        serialize_with = "types::duration::serialize_optional",
        skip_serializing_if = "Option::is_none"
    )]
    pub timeout: Option<Duration>,
    /// Whether its requests may be sent twice, where the service has retries or hedging.
    /// Default: as their methods say (RFC 9110, section 9.2.2).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idempotent: Option<bool>,
    /// Whether its requests go before others when not all can be served. Default `normal`.
    pub priority: Priority,
    /// Bytes of a request body, instead of the listener's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body_bytes_max: Option<u64>,
    /// Who may use it. Default `required`.
    pub auth: Auth,
    /// A service that decides whether a request may go on. Default: none is asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forward_auth: Option<ForwardAuthConfig>,
    /// Roles of which the caller needs one; others get `403`. Default: none is needed.
    pub roles: Vec<String>,
}

impl RouteConfig {
    /// The names of the services that it leads to.
    pub fn services(&self) -> impl Iterator<Item = &str> {
        let one = (!self.service.is_empty()).then_some(&self.service);
        let split = self.split.iter().map(|part| &part.service);
        let mirror = self.mirror.iter().map(|mirror| &mirror.service);
        let auth = self.forward_auth.iter().map(|auth| &auth.service);
        one.into_iter().chain(split).chain(mirror).chain(auth).map(String::as_str)
    }
}

/// One of several services behind a route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SplitConfig {
    /// The service.
    pub service: String,
    /// Its share, beside those of the others; 0 for none.
    pub weight: u32,
}

/// A configuration that cannot be served.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Open to the network without TLS.
    #[error(
        "`listen = \"{0}\"` can be reached by others and there is no TLS; \
         use a loopback address, add `[edge.tls]`, or set `insecure = true` behind something \
         that has TLS"
    )]
    Insecure(SocketAddr),
    /// TLS that cannot be spoken.
    #[error("`edge.tls`: {0}")]
    Tls(String),
    /// Nobody may say what everybody has to.
    #[error(
        "`proxy_protocol = true` closes every connection that is not from one of \
         `trusted_proxies`, and there is none; name the proxies' networks"
    )]
    NoProxy,
    /// A bound outside its range.
    #[error("`{field}` must be {range}")]
    Range {
        /// The field.
        field: &'static str,
        /// What it may be.
        range: &'static str,
    },
    /// A route that cannot be matched or served.
    #[error("route `{route}`: {reason}")]
    Route {
        /// Its name.
        route: String,
        /// What to change.
        reason: String,
    },
    /// A service that cannot be called.
    #[error(transparent)]
    Service(#[from] soa::ConfigError),
}

impl Config {
    /// Checks what concerns the listener.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        if !self.listen.ip().is_loopback() && !self.insecure && self.tls.is_none() {
            return Err(ConfigError::Insecure(self.listen));
        }
        if self.proxy_protocol && self.trusted_proxies.is_empty() {
            return Err(ConfigError::NoProxy);
        }
        let more_than_zero = "more than zero";
        let lag = (Duration::from_millis(20)..=Duration::from_secs(10)).contains(&self.lag_max);
        let ranges = [
            ("connections_max", self.connections_max > 0, more_than_zero),
            ("connections_per_ip_max", self.connections_per_ip_max > 0, more_than_zero),
            ("lag_max", lag || self.lag_max.is_zero(), "20ms to 10s, or 0s for no bound"),
            ("header_timeout", !self.header_timeout.is_zero(), more_than_zero),
            ("body_timeout", !self.body_timeout.is_zero(), more_than_zero),
            ("body_rate_min", self.body_rate_min > 0, more_than_zero),
            ("idle_timeout", !self.idle_timeout.is_zero(), more_than_zero),
            ("write_timeout", !self.write_timeout.is_zero(), more_than_zero),
            ("write_rate_min", self.write_rate_min > 0, more_than_zero),
            ("tunnel_idle_timeout", !self.tunnel_idle_timeout.is_zero(), more_than_zero),
            ("target_bytes_max", (1..=32 * 1024).contains(&self.target_bytes_max), "1 to 32768"),
            ("header_bytes_max", (1..=64 * 1024).contains(&self.header_bytes_max), "1 to 65536"),
        ];
        match ranges.into_iter().find(|(_, holds, _)| !holds) {
            Some((field, _, range)) => Err(ConfigError::Range { field, range }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_open_to_the_network_has_to_be_meant() {
        let mut config = Config { listen: "0.0.0.0:80".parse().unwrap(), ..Config::default() };
        assert!(matches!(config.check(), Err(ConfigError::Insecure(_))));
        config.insecure = true;
        assert_eq!(config.check(), Ok(()));
        config.proxy_protocol = true;
        assert_eq!(config.check(), Err(ConfigError::NoProxy));
        config.trusted_proxies.push("10.0.0.0/8".parse().unwrap());
        for (lag_max, may) in [(0, true), (1, false), (20, true), (10_001, false)] {
            config.lag_max = Duration::from_millis(lag_max);
            assert_eq!(config.check().is_ok(), may, "{lag_max}");
        }
        config.lag_max = Duration::ZERO;
        config.body_rate_min = 0;
        assert!(config.check().unwrap_err().to_string().contains("body_rate_min"));
    }

    #[test]
    fn the_configuration_survives_being_written() {
        let text = "header_timeout = \"5s\"\ntrusted_proxies = [\"10.0.0.0/8\"]\n\
            [tls]\ncertificate = \"c.pem\"\nkey = \"k.pem\"\n[[routes]]\nname = \"a\"\nservice = \"s\"\n\
            prefix = \"/a\"\ntimeout = \"250ms\"\nauth = \"none\"\n";
        let config: Config = toml::from_str(text).unwrap();
        assert_eq!(config.routes[0].timeout, Some(Duration::from_millis(250)));
        let written = toml::to_string(&config).unwrap();
        let read: Config = toml::from_str(&written).unwrap();
        assert_eq!(format!("{read:?}"), format!("{config:?}"));
        assert!(toml::from_str::<Config>("lenient = true").is_err());
    }
}

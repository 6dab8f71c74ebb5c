//! Which services there are, and how to reach them.

mod dns;
mod registration;
mod resilience;

pub(crate) use dns::Sought;
pub use dns::{DnsConfig, Scheme};
pub use registration::RegistrationConfig;
pub use resilience::{
    BreakerConfig, BudgetConfig, ConcurrencyConfig, HedgeAfter, HedgeConfig, RetryConfig,
};

use crate::tls::TlsConfig;
use http::HeaderName;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, time::Duration};
use types::Pillar;
pub use types::Priority;

/// Services by name.
pub type Config = BTreeMap<String, ServiceConfig>;

/// How an instance is chosen. Only instances that are fit take part; each takes its share by
/// weight, and less while it starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Balance {
    /// One after another, over all cores of the node.
    RoundRobin,
    /// Any.
    Random,
    /// The one with the least requests and tunnels in flight from this node.
    LeastConnections,
    /// The less loaded of two taken at random (Mitzenmacher 2001).
    #[default]
    LeastLoaded,
    /// Of two taken at random, the one whose latency, at its worst lately, times its load is
    /// less (Finagle's peak EWMA).
    PeakEwma,
    /// The same for the same `hash`, as long as it is fit and has no more than its share and a
    /// quarter to do.
    ConsistentHash,
}

/// What has to lead to the same instance each time.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum HashKey {
    /// `ip`: the client's address.
    #[default]
    Ip,
    /// `user`: the verified caller; its address without one.
    User,
    /// `session`: the caller's session; the caller without one.
    Session,
    /// `pillar:NAME`: what the caller is bound to in that pillar; as `session` if it is to nothing.
    Pillar(Pillar),
    /// `path`: the path without its query.
    Path,
    /// `header:NAME`: a header field; the address without it.
    Header(HeaderName),
    /// `cookie:NAME`: a cookie; the address without it.
    Cookie(String),
}

impl TryFrom<String> for HashKey {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let wrong = || {
            format!(
                "`{text}` is not `ip`, `user`, `session`, `pillar:NAME`, `path`, `header:NAME` or \
                 `cookie:NAME`"
            )
        };
        Ok(match text.split_once(':') {
            None => match text.as_str() {
                "ip" => Self::Ip,
                "user" => Self::User,
                "session" => Self::Session,
                "path" => Self::Path,
                _ => return Err(wrong()),
            },
            Some(("pillar", name)) => Self::Pillar(Pillar::new(name).map_err(|_| wrong())?),
            Some(("header", name)) => Self::Header(name.parse().map_err(|_| wrong())?),
            Some(("cookie", name)) if !name.is_empty() => Self::Cookie(name.to_owned()),
            Some(_) => return Err(wrong()),
        })
    }
}

impl From<HashKey> for String {
    fn from(key: HashKey) -> Self {
        match key {
            HashKey::Ip => "ip".into(),
            HashKey::User => "user".into(),
            HashKey::Session => "session".into(),
            HashKey::Pillar(name) => format!("pillar:{name}"),
            HashKey::Path => "path".into(),
            HashKey::Header(name) => format!("header:{name}"),
            HashKey::Cookie(name) => format!("cookie:{name}"),
        }
    }
}

/// Where a service runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "InstanceText")]
pub struct InstanceConfig {
    /// `http://host:port` or `https://host:port`. A host name is looked up at each connect.
    pub url: String,
    /// Its share, beside those of the others. Default 1.
    pub weight: u32,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum InstanceText {
    Url(String),
    Weighted { url: String, weight: u32 },
}

impl From<InstanceText> for InstanceConfig {
    fn from(text: InstanceText) -> Self {
        match text {
            InstanceText::Url(url) => url.into(),
            InstanceText::Weighted { url, weight } => Self { url, weight },
        }
    }
}

impl From<String> for InstanceConfig {
    fn from(url: String) -> Self {
        Self { url, weight: 1 }
    }
}

/// How instances are asked whether they are fit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HealthConfig {
    /// The path to `GET`; a status from 200 to 399 says yes. Without it, and without `grpc`, a
    /// TCP connection does.
    #[serde(default)]
    pub path: Option<String>,
    /// Asks `grpc.health.v1.Health/Check` instead, for the server (`true`) or for a service of
    /// it (its name); `SERVING` says yes. For `protocol = "h2"` only.
    #[serde(default)]
    pub grpc: Option<GrpcCheck>,
    /// Time between two checks. Default `5s`.
    #[serde(default = "health_interval", with = "types::duration")]
    pub interval: Duration,
    /// Time that an answer may take. Default `1s`.
    #[serde(default = "health_timeout", with = "types::duration")]
    pub timeout: Duration,
    /// Checks in a row that make it unfit. Default 3.
    #[serde(default = "unfit_after")]
    pub unfit_after: u32,
    /// Checks in a row that make it fit again. Default 2.
    #[serde(default = "fit_after")]
    pub fit_after: u32,
}

impl Default for HealthConfig {
    fn default() -> Self {
        Self {
            path: None,
            grpc: None,
            interval: health_interval(),
            timeout: health_timeout(),
            unfit_after: unfit_after(),
            fit_after: fit_after(),
        }
    }
}

/// Whom the health service of gRPC is asked about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum GrpcCheck {
    /// `true`: the server as a whole. `false`: it is not asked.
    Whole(bool),
    /// One service of it.
    Service(String),
}

impl HealthConfig {
    /// The name that the health service of gRPC is asked about, if it is asked.
    pub(crate) fn grpc_service(&self) -> Option<&str> {
        match self.grpc.as_ref()? {
            GrpcCheck::Whole(asks) => asks.then_some(""),
            GrpcCheck::Service(name) => Some(name),
        }
    }

    /// # Errors
    /// What is wrong with it.
    pub(crate) fn check(&self, protocol: Protocol) -> Result<(), &'static str> {
        let Some(name) = self.grpc_service() else { return Ok(()) };
        if protocol != Protocol::H2 {
            Err("`grpc` needs `protocol = \"h2\"`")
        } else if self.path.is_some() {
            Err("`grpc` and `path` are two ways to ask; give one")
        } else if name.len() > GRPC_NAME_BYTES_MAX {
            Err("`grpc` is a name of at most 127 bytes")
        } else {
            Ok(())
        }
    }
}

/// What one byte of a length can say.
const GRPC_NAME_BYTES_MAX: usize = 127;

/// When an instance that fails calls is left out for a while.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EjectionConfig {
    /// Failures in a row: no answer, a broken one, or a status from 500. Default 5; 0 never
    /// ejects.
    pub failures: u32,
    /// For how long, the first time; each time longer by as much, up to ten times. Default
    /// `30s`.
    #[serde(with = "types::duration")]
    pub time: Duration,
    /// Instances of a hundred that may be left out at once, rounded down. Default 50: a fault
    /// of all is not made worse.
    pub percent_max: u32,
}

impl Default for EjectionConfig {
    fn default() -> Self {
        Self { failures: 5, time: Duration::from_secs(30), percent_max: 50 }
    }
}

fn health_interval() -> Duration {
    Duration::from_secs(5)
}

fn health_timeout() -> Duration {
    Duration::from_secs(1)
}

fn unfit_after() -> u32 {
    3
}

fn fit_after() -> u32 {
    2
}

/// What the service sees as `Host`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HostHeader {
    /// What the client sent.
    #[default]
    Preserve,
    /// The host and port of the instance.
    Instance,
}

/// What is spoken with the instances of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2: agreed on by ALPN at `https://`, with prior knowledge at `http://`.
    H2,
}

/// One service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceConfig {
    /// Where it runs: `http://host:port` or `https://host:port`, one or more, or
    /// `{ url, weight }`. None only where others are found, by `dns`
    /// or `registration`.
    #[serde(default)]
    pub instances: Vec<InstanceConfig>,
    /// What is spoken with them: `http1` or `h2`. Default `http1`. gRPC needs `h2`.
    #[serde(default)]
    pub protocol: Protocol,
    /// Requests that one connection carries at once with `h2`, unless the instance takes fewer.
    /// Default 100: each may hold 64 KiB of an answer that its client does not read.
    #[serde(default = "streams_max")]
    pub streams_max: u32,
    /// How long a connection of `h2` with requests in flight may be silent before it is asked
    /// for a sign of life; it has 10 s for that. Default `5m`: gRPC servers end connections that
    /// ask more often, unless they are told not to. A peer whose machine is gone is noticed
    /// within 35 s in any case.
    #[serde(default = "ping_interval", with = "types::duration")]
    pub ping_interval: Duration,
    /// A name in the DNS that tells further ones. Default: none.
    #[serde(default)]
    pub dns: Option<DnsConfig>,
    /// Who may register further ones. Default: nobody.
    #[serde(default)]
    pub registration: Option<RegistrationConfig>,
    /// What instances at `https://` have to prove. Default: that a certificate which the machine
    /// trusts is theirs.
    #[serde(default)]
    pub tls: Option<TlsConfig>,
    /// How an instance is chosen. Default `least_loaded`, since it also avoids slow instances.
    #[serde(default)]
    pub balance: Balance,
    /// What leads to the same instance with `consistent_hash`. Default `ip`.
    #[serde(default)]
    pub hash: HashKey,
    /// How long an instance that is fit again takes to get its whole share. Default `0s`: at
    /// once.
    #[serde(default, with = "types::duration")]
    pub slow_start: Duration,
    /// How instances are asked whether they are fit. Default: they are not asked.
    #[serde(default)]
    pub health: Option<HealthConfig>,
    /// When an instance that fails calls is left out.
    #[serde(default)]
    pub ejection: EjectionConfig,
    /// Whether requests that failed are sent again. Default: only those of which not a byte
    /// had left.
    #[serde(default)]
    pub retry: Option<RetryConfig>,
    /// How many attempts there may be beside the first ones: retries and hedges.
    #[serde(default)]
    pub budget: BudgetConfig,
    /// Whether a second instance is asked when the first is slow. Default: it is not.
    #[serde(default)]
    pub hedge: Option<HedgeConfig>,
    /// When a service that fails is not called for a while. Default: it always is.
    #[serde(default)]
    pub breaker: Option<BreakerConfig>,
    /// How many calls it is given at once. Default: any number, up to `connections_max` for
    /// each instance.
    #[serde(default)]
    pub concurrency: Option<ConcurrencyConfig>,
    /// Time for one connect, the handshake of TLS included. Default `2s`: a service in the same
    /// network answers in milliseconds, and another instance may be tried after it.
    #[serde(default = "connect_timeout", with = "types::duration")]
    pub connect_timeout: Duration,
    /// Time from the call to the head of the answer, connecting included; then
    /// `upstream_timeout`. Default `30s`. A route may set its own.
    #[serde(default = "response_timeout", with = "types::duration")]
    pub response_timeout: Duration,
    /// How long a connection may wait unused. Default `30s`: shorter than the keep-alive of
    /// common servers, so that they seldom close while we send.
    #[serde(default = "idle_timeout", with = "types::duration")]
    pub idle_timeout: Duration,
    /// Unused connections kept for each instance and core; the oldest goes first. Default 128.
    #[serde(default = "idle_max")]
    pub idle_max: usize,
    /// Connections of this node to one instance, unused ones included; beyond it another
    /// instance is taken, or the call is refused as `overloaded`. Default 4096.
    #[serde(default = "connections_max")]
    pub connections_max: usize,
    /// What the service sees as `Host`. Default `preserve`.
    #[serde(default)]
    pub host: HostHeader,
    /// Whether the service may see the client's credential. Default false: it is given the
    /// verified caller instead.
    #[serde(default)]
    pub forward_credentials: bool,
}

fn connect_timeout() -> Duration {
    Duration::from_secs(2)
}

fn response_timeout() -> Duration {
    Duration::from_secs(30)
}

fn idle_timeout() -> Duration {
    Duration::from_secs(30)
}

fn idle_max() -> usize {
    128
}

fn connections_max() -> usize {
    4096
}

fn streams_max() -> u32 {
    100
}

fn ping_interval() -> Duration {
    Duration::from_secs(300)
}

impl ServiceConfig {
    /// A service at these addresses, with the defaults.
    #[must_use]
    pub fn at(instances: impl IntoIterator<Item = String>) -> Self {
        Self {
            instances: instances.into_iter().map(Into::into).collect(),
            protocol: Protocol::default(),
            streams_max: streams_max(),
            ping_interval: ping_interval(),
            dns: None,
            registration: None,
            tls: None,
            balance: Balance::default(),
            hash: HashKey::default(),
            slow_start: Duration::ZERO,
            health: None,
            ejection: EjectionConfig::default(),
            retry: None,
            budget: BudgetConfig::default(),
            hedge: None,
            breaker: None,
            concurrency: None,
            connect_timeout: connect_timeout(),
            response_timeout: response_timeout(),
            idle_timeout: idle_timeout(),
            idle_max: idle_max(),
            connections_max: connections_max(),
            host: HostHeader::default(),
            forward_credentials: false,
        }
    }
}

/// A service that cannot be called as configured.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Nothing to call.
    #[error(
        "service `{service}` has no instance; give at least one `http://host:port`, `dns` or \
         `registration`"
    )]
    NoInstance {
        /// The service.
        service: String,
    },
    /// Not an address that we can call.
    #[error(
        "service `{service}`: `{instance}` is not of the form `http://host:port` or \
         `https://host:port`"
    )]
    Address {
        /// The service.
        service: String,
        /// The address as written.
        instance: String,
    },
    /// A lookup that cannot be made.
    #[error("service `{service}`: `dns`: {why}")]
    Dns {
        /// The service.
        service: String,
        /// What to change.
        why: String,
    },
    /// TLS that cannot be spoken.
    #[error("service `{service}`: `tls`: {why}")]
    Tls {
        /// The service.
        service: String,
        /// What to change.
        why: String,
    },
    /// A path that cannot be asked.
    #[error("service `{service}`: `health.path` is not a path that begins with `/`")]
    HealthPath {
        /// The service.
        service: String,
    },
    /// Checks that cannot be made.
    #[error("service `{service}`: `health`: {why}")]
    Health {
        /// The service.
        service: String,
        /// What to change.
        why: &'static str,
    },
    /// A bound outside its range.
    #[error("service `{service}`: `{field}` must be {range}")]
    Range {
        /// The service.
        service: String,
        /// The field.
        field: &'static str,
        /// What it may be.
        range: &'static str,
    },
    /// A bound that would stop every call.
    #[error("service `{service}`: `{field}` must be more than zero")]
    Zero {
        /// The service.
        service: String,
        /// The field.
        field: &'static str,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_needs_only_its_instances() {
        let text = "[echo]\ninstances = [\"http://127.0.0.1:9001\"]\n";
        let config: Config = toml::from_str(text).unwrap();
        assert_eq!(config["echo"], ServiceConfig::at(["http://127.0.0.1:9001".to_owned()]));
        assert!(toml::from_str::<Config>(&format!("{text}retries = 3")).is_err());
        for hash in
            ["ip", "user", "session", "pillar:content", "path", "header:x-cart", "cookie:cart"]
        {
            let config: Config = toml::from_str(&format!("{text}hash = \"{hash}\"")).unwrap();
            assert_eq!(String::from(config["echo"].hash.clone()), hash);
        }
        for hash in ["", "header:", "header:a b", "cookie:", "pillar:", "pillar", "ips", "x:y"] {
            assert!(toml::from_str::<Config>(&format!("{text}hash = \"{hash}\"")).is_err());
        }
        let weighted = "[echo]\ninstances = [{ url = \"http://127.0.0.1:9001\", weight = 3 }]\n";
        let config: Config = toml::from_str(weighted).unwrap();
        assert_eq!(config["echo"].instances[0].weight, 3);
    }
}

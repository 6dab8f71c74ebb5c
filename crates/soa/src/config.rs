//! Which services there are, and how to reach them.

use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, time::Duration};

/// Services by name.
pub type Config = BTreeMap<String, ServiceConfig>;

/// How an instance is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Balance {
    /// One after another, over all cores of the node.
    RoundRobin,
    /// The less loaded of two taken at random (Mitzenmacher 2001), by requests and tunnels in
    /// flight from this node.
    #[default]
    LeastLoaded,
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

/// One service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceConfig {
    /// Where it runs: `http://host:port`, one or more. A host name is looked up at each connect.
    pub instances: Vec<String>,
    /// How an instance is chosen. Default `least_loaded`, since it also avoids slow instances.
    #[serde(default)]
    pub balance: Balance,
    /// Time for one TCP connect. Default `2s`: a service in the same network answers in
    /// milliseconds, and another instance may be tried after it.
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

impl ServiceConfig {
    /// A service at these addresses, with the defaults.
    #[must_use]
    pub fn at(instances: impl IntoIterator<Item = String>) -> Self {
        Self {
            instances: instances.into_iter().collect(),
            balance: Balance::default(),
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
    #[error("service `{service}` has no instance; give at least one `http://host:port`")]
    NoInstance {
        /// The service.
        service: String,
    },
    /// Not an address that we can call.
    #[error("service `{service}`: `{instance}` is not of the form `http://host:port`")]
    Address {
        /// The service.
        service: String,
        /// The address as written.
        instance: String,
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
    }
}

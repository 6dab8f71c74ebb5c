//! Instances by DNS.

use crate::config::ConfigError;
use hickory_resolver::proto::rr::Name;
use serde::{Deserialize, Serialize};
use std::{net::SocketAddr, time::Duration};

/// How instances at addresses that are not in the configuration are spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scheme {
    /// In the clear.
    #[default]
    Http,
    /// By TLS; the certificate has to name the host, unless `tls.server_name` is given.
    Https,
}

/// Instances that a name in the DNS stands for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DnsConfig {
    /// A name whose addresses (A and AAAA, RFC 1035 and 3596) are an instance each, with `port`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Where all of them listen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Instead: a name of services (SRV, RFC 2782) such as `_http._tcp.shop.internal`, which
    /// tells hosts, ports and weights. Only those of the best priority are called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub srv: Option<String>,
    /// `http` or `https`. Default `http`.
    #[serde(default)]
    pub scheme: Scheme,
    /// Time between two lookups at most; a shorter time to live of the records counts, down to
    /// a second. Default `10s`.
    #[serde(default = "interval", with = "types::duration")]
    pub interval: Duration,
    /// How long the addresses are kept after the name has none any more. Default `30s`: it may be
    /// a slip of whoever tends the zone. After a lookup that failed they are kept until one
    /// succeeds.
    #[serde(default = "keep", with = "types::duration")]
    pub keep: Duration,
    /// The DNS server to ask. Default: those of the machine, and its file of hosts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<SocketAddr>,
}

fn interval() -> Duration {
    Duration::from_secs(10)
}

fn keep() -> Duration {
    Duration::from_secs(30)
}

/// What is looked up.
pub(crate) enum Sought<'a> {
    Addresses { name: &'a str, port: u16 },
    Services(&'a str),
}

impl DnsConfig {
    pub(crate) fn sought(&self) -> Option<Sought<'_>> {
        match (&self.name, self.port, &self.srv) {
            (Some(name), Some(port), None) => Some(Sought::Addresses { name, port }),
            (None, None, Some(name)) => Some(Sought::Services(name)),
            _ => None,
        }
    }

    pub(crate) fn check(&self, service: &str) -> Result<(), ConfigError> {
        let wrong = |why: &str| ConfigError::Dns { service: service.into(), why: why.into() };
        let name = match self.sought() {
            Some(Sought::Addresses { port: 0, .. }) => return Err(wrong("`port` is 0")),
            Some(Sought::Addresses { name, .. } | Sought::Services(name)) => name,
            None => return Err(wrong("give `name` and `port`, or `srv` alone")),
        };
        if name.parse::<std::net::IpAddr>().is_ok() || Name::from_utf8(name).is_err() {
            return Err(wrong(&format!("`{name}` is no name")));
        }
        if self.interval.is_zero() {
            return Err(ConfigError::Zero { service: service.into(), field: "dns.interval" });
        }
        Ok(())
    }
}

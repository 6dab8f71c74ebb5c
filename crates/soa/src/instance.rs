//! One address of a service, and how it has been lately.

use crate::{config::Scheme, found::Found};
use http::HeaderValue;
use rustls::pki_types::ServerName;
use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

/// After this long a measured latency counts for a third of what it did (Finagle's peak EWMA).
const LATENCY_DECAY: Duration = Duration::from_secs(10);
/// What an instance is given at least while it starts slowly.
const SLOW_START_MIN: f64 = 0.1;

/// One address of a service.
#[derive(Debug)]
pub struct Instance {
    pub(crate) id: u64,
    pub(crate) authority: String,
    pub(crate) host: HeaderValue,
    /// Set when the host is an address, so that no lookup is needed.
    pub(crate) address: Option<SocketAddr>,
    /// What its certificate names, if it is called by TLS.
    pub(crate) tls_name: Option<ServerName<'static>>,
    in_flight: AtomicUsize,
    connections: AtomicUsize,
    avoided_until_ms: AtomicU64,
    /// An active check found it unfit.
    unfit: AtomicBool,
    /// Since when it takes part, as far as that matters: zero from the beginning.
    since_ms: AtomicU64,
    failures: AtomicU32,
    ejections: AtomicU32,
    ejected_until_ms: AtomicU64,
    /// The peak-sensitive average of its latency, in nanoseconds, and when it was measured.
    latency_ns: AtomicU64,
    latency_at_ms: AtomicU64,
}

/// How an instance is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// It takes calls.
    Fit,
    /// It failed several calls in a row, and is left out for a while.
    Ejected,
    /// It failed its checks.
    Unfit,
}

impl Condition {
    /// Its name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fit => "fit",
            Self::Ejected => "ejected",
            Self::Unfit => "unfit",
        }
    }
}

pub(crate) fn millis(elapsed: Duration) -> u64 {
    u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX / 2)
}

impl Instance {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let url = url::Url::parse(text).ok()?;
        let is_tls = url.scheme() == "https";
        let plain = (is_tls || url.scheme() == "http")
            && url.path() == "/"
            && url.query().is_none()
            && url.fragment().is_none()
            && url.username().is_empty()
            && url.password().is_none();
        if !plain {
            return None;
        }
        let port = url.port_or_known_default()?;
        let address = match url.host()? {
            url::Host::Ipv4(ip) => Some(SocketAddr::from((ip, port))),
            url::Host::Ipv6(ip) => Some(SocketAddr::from((ip, port))),
            url::Host::Domain(_) => None,
        };
        let tls_name = match url.host()? {
            _ if !is_tls => None,
            url::Host::Domain(name) => Some(ServerName::try_from(name.to_owned()).ok()?),
            url::Host::Ipv4(ip) => Some(ServerName::from(IpAddr::V4(ip))),
            url::Host::Ipv6(ip) => Some(ServerName::from(IpAddr::V6(ip))),
        };
        let authority = format!("{}:{port}", url.host_str()?);
        let host = HeaderValue::from_str(&authority).ok()?;
        Some(Self::new(authority, host, address, tls_name))
    }

    /// One at an address that is known; nothing if its host is no name.
    pub(crate) fn found(found: &Found) -> Option<Self> {
        let Found { scheme, host, address, .. } = found;
        let tls_name = match scheme {
            Scheme::Http => None,
            Scheme::Https => Some(ServerName::try_from(host.clone()).ok()?),
        };
        let field = match host.parse::<IpAddr>() {
            Ok(_) => HeaderValue::from_str(&address.to_string()).ok()?,
            Err(_) => HeaderValue::from_str(&format!("{host}:{}", address.port())).ok()?,
        };
        Some(Self::new(address.to_string(), field, Some(*address), tls_name))
    }

    fn new(
        authority: String,
        host: HeaderValue,
        address: Option<SocketAddr>,
        tls_name: Option<ServerName<'static>>,
    ) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self {
            id: NEXT.fetch_add(1, Relaxed),
            host,
            authority,
            address,
            tls_name,
            in_flight: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
            avoided_until_ms: AtomicU64::new(0),
            unfit: AtomicBool::new(false),
            since_ms: AtomicU64::new(0),
            failures: AtomicU32::new(0),
            ejections: AtomicU32::new(0),
            ejected_until_ms: AtomicU64::new(0),
            latency_ns: AtomicU64::new(0),
            latency_at_ms: AtomicU64::new(0),
        }
    }

    /// Whether it is reached in the same way as `other`.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.authority == other.authority
            && self.host == other.host
            && self.tls_name == other.tls_name
    }

    /// A number that no other instance of this process has.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.id
    }

    /// Its host and port.
    #[must_use]
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// Requests and tunnels from this node that have not ended.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Relaxed)
    }

    /// Connections of this node to it.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.load(Relaxed)
    }

    /// How it is at this time of the node.
    #[must_use]
    pub fn condition(&self, elapsed: Duration) -> Condition {
        if self.unfit.load(Relaxed) {
            Condition::Unfit
        } else if self.ejected_until_ms.load(Relaxed) > millis(elapsed) {
            Condition::Ejected
        } else {
            Condition::Fit
        }
    }

    /// How long it takes to answer, nearly: what it took at its worst lately.
    #[must_use]
    pub fn latency(&self) -> Duration {
        Duration::from_nanos(self.latency_ns.load(Relaxed))
    }

    /// Whether it is to be called: it is fit, and did not refuse a connection just now.
    pub(crate) fn is_open(&self, elapsed: Duration) -> bool {
        self.condition(elapsed) == Condition::Fit
            && self.avoided_until_ms.load(Relaxed) <= millis(elapsed)
    }

    /// It refused a connection: others go first for a second.
    pub(crate) fn avoid(&self, elapsed: Duration) {
        self.avoided_until_ms.store(millis(elapsed).saturating_add(1000), Relaxed);
    }

    /// It comes while others are called: it starts slowly, and not before it is `fit`.
    pub(crate) fn begin(&self, fit: bool, elapsed: Duration) {
        self.unfit.store(!fit, Relaxed);
        self.since_ms.store(millis(elapsed).max(1), Relaxed);
    }

    /// An active check has decided. One that is fit again starts slowly.
    pub(crate) fn set_fit(&self, fit: bool, elapsed: Duration) {
        if self.unfit.swap(!fit, Relaxed) && fit {
            self.since_ms.store(millis(elapsed).max(1), Relaxed);
        }
    }

    /// It answered, after `latency`. A peak counts at once, and is forgotten slowly.
    pub(crate) fn answered(&self, latency: Duration, elapsed: Duration) {
        let now = millis(elapsed);
        let taken = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        let held = self.latency_ns.load(Relaxed);
        let since = now.saturating_sub(self.latency_at_ms.swap(now, Relaxed));
        let kept = (-(since as f64) / LATENCY_DECAY.as_millis() as f64).exp();
        let next = if taken >= held {
            taken
        } else {
            // Many answers within a millisecond still have to move it.
            let kept = kept.min(0.999);
            (held as f64 * kept + taken as f64 * (1.0 - kept)) as u64
        };
        self.latency_ns.store(next, Relaxed);
    }

    /// The call went well, as far as the instance is concerned.
    pub(crate) fn succeeded(&self) {
        if self.failures.load(Relaxed) != 0 {
            self.failures.store(0, Relaxed);
        }
    }

    /// The call failed. How many have in a row.
    pub(crate) fn failed(&self) -> u32 {
        self.failures.fetch_add(1, Relaxed) + 1
    }

    /// Leaves it out for `base`, and longer each time it comes to that, up to ten times.
    pub(crate) fn eject(&self, base: Duration, elapsed: Duration) {
        self.failures.store(0, Relaxed);
        let now = millis(elapsed);
        // Well for as long again as it was left out: it starts anew.
        let well = now.saturating_sub(self.ejected_until_ms.load(Relaxed));
        let before = self.ejections.load(Relaxed);
        let before = if well > millis(base) * u64::from(before) { 0 } else { before };
        let times = (before + 1).min(10);
        self.ejections.store(times, Relaxed);
        let until = now.saturating_add(millis(base) * u64::from(times));
        self.ejected_until_ms.store(until, Relaxed);
        self.since_ms.store(until.max(1), Relaxed);
    }

    /// The part of its share that it is given while it starts.
    pub(crate) fn warmth(&self, slow_start: Duration, elapsed: Duration) -> f64 {
        let since = self.since_ms.load(Relaxed);
        if slow_start.is_zero() || since == 0 {
            return 1.0;
        }
        let run = millis(elapsed).saturating_sub(since) as f64;
        (run / millis(slow_start) as f64).clamp(SLOW_START_MIN, 1.0)
    }
}

/// A request in flight to an instance, for as long as it is held.
#[derive(Debug)]
pub(crate) struct Lease(Arc<Instance>);

impl Lease {
    pub(crate) fn new(instance: &Arc<Instance>) -> Self {
        instance.in_flight.fetch_add(1, Relaxed);
        Self(Arc::clone(instance))
    }

    pub(crate) fn instance(&self) -> &Instance {
        &self.0
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Relaxed);
    }
}

/// A connection to an instance, for as long as it is held.
#[derive(Debug)]
pub(crate) struct Slot(Arc<Instance>);

impl Slot {
    /// A place for one more connection, or nothing at the bound.
    pub(crate) fn take(instance: &Arc<Instance>, max: usize) -> Option<Self> {
        if instance.connections.fetch_add(1, Relaxed) >= max {
            instance.connections.fetch_sub(1, Relaxed);
            return None;
        }
        Some(Self(Arc::clone(instance)))
    }

    pub(crate) fn instance(&self) -> &Arc<Instance> {
        &self.0
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_addresses_are_accepted() {
        for bad in ["", "127.0.0.1:1", "ftp://a", "http://a/b", "http://u@a", "http://a?b"] {
            assert!(Instance::parse(bad).is_none(), "{bad}");
        }
        let instance = Instance::parse("http://[::1]:80").unwrap();
        assert_eq!(instance.authority(), "[::1]:80");
        assert!(instance.address.is_some() && instance.tls_name.is_none());
        let instance = Instance::parse("https://a.example").unwrap();
        assert_eq!(instance.authority(), "a.example:443");
        assert_eq!(instance.tls_name.unwrap().to_str(), "a.example");
    }
}

//! Services and their instances, shared by the cores of a node.

use crate::config::{Balance, Config, ConfigError, HostHeader, ServiceConfig};
use http::{HeaderMap, HeaderValue, header};
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

/// Every service that can be called, compiled from the configuration. Never changes.
#[derive(Debug, Default)]
pub struct Services(BTreeMap<String, Arc<Service>>);

impl Services {
    /// Compiles a configuration. Instances that `previous` knows keep their load and their
    /// connections.
    ///
    /// # Errors
    /// [`ConfigError`] names the service and what to write instead.
    pub fn compile(config: &Config, previous: Option<&Self>) -> Result<Self, ConfigError> {
        let known: BTreeMap<&str, &Arc<Instance>> = previous
            .into_iter()
            .flat_map(|services| services.0.values())
            .flat_map(|service| &service.instances)
            .map(|instance| (instance.authority.as_str(), instance))
            .collect();
        let mut services = BTreeMap::new();
        for (name, config) in config {
            let service = Service::compile(name, config, &known)?;
            services.insert(name.clone(), Arc::new(service));
        }
        Ok(Self(services))
    }

    /// The service of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Arc<Service>> {
        self.0.get(name)
    }

    /// Every service, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.0.values()
    }
}

/// One service.
#[derive(Debug)]
pub struct Service {
    pub(crate) name: String,
    pub(crate) instances: Box<[Arc<Instance>]>,
    pub(crate) config: ServiceConfig,
    turn: AtomicUsize,
}

impl Service {
    fn compile(
        name: &str,
        config: &ServiceConfig,
        known: &BTreeMap<&str, &Arc<Instance>>,
    ) -> Result<Self, ConfigError> {
        let service = || name.to_owned();
        if config.instances.is_empty() {
            return Err(ConfigError::NoInstance { service: service() });
        }
        for (field, zero) in [
            ("connect_timeout", config.connect_timeout.is_zero()),
            ("response_timeout", config.response_timeout.is_zero()),
            ("connections_max", config.connections_max == 0),
        ] {
            if zero {
                return Err(ConfigError::Zero { service: service(), field });
            }
        }
        let instances = config
            .instances
            .iter()
            .map(|text| {
                let instance = Instance::parse(text).ok_or_else(|| ConfigError::Address {
                    service: service(),
                    instance: text.clone(),
                })?;
                let known = known.get(instance.authority.as_str());
                Ok(known.map_or_else(|| Arc::new(instance), |known| Arc::clone(known)))
            })
            .collect::<Result<_, ConfigError>>()?;
        Ok(Self { name: service(), instances, config: config.clone(), turn: AtomicUsize::new(0) })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How it is configured.
    #[must_use]
    pub fn config(&self) -> &ServiceConfig {
        &self.config
    }

    /// Its instances.
    #[must_use]
    pub fn instances(&self) -> &[Arc<Instance>] {
        &self.instances
    }

    /// An instance other than those `tried`, by the service's rule. One that refused a
    /// connection within the last second is taken only if there is no other.
    pub(crate) fn choose(
        &self,
        tried: &[u64],
        elapsed: Duration,
        random: u64,
    ) -> Option<&Arc<Instance>> {
        if let [only] = &*self.instances {
            return (!tried.contains(&only.id)).then_some(only);
        }
        let open = |instance: &&Arc<Instance>| {
            !tried.contains(&instance.id) && !instance.is_avoided(elapsed)
        };
        let count = self.instances.iter().filter(open).count();
        if count == 0 {
            return self.instances.iter().find(|instance| !tried.contains(&instance.id));
        }
        let at = |index: usize| self.instances.iter().filter(open).nth(index % count);
        match self.config.balance {
            Balance::RoundRobin => at(self.turn.fetch_add(1, Relaxed)),
            Balance::LeastLoaded => {
                let first = (random as u32) as usize % count;
                if count == 1 {
                    return at(first);
                }
                // Another one, each equally likely.
                let second = first + 1 + (random >> 32) as usize % (count - 1);
                let (first, second) = (at(first)?, at(second)?);
                Some(if second.in_flight() < first.in_flight() { second } else { first })
            }
        }
    }

    /// The `Host` to set, if the request's own does not do.
    pub(crate) fn host<'a>(
        &self,
        instance: &'a Instance,
        headers: &HeaderMap,
    ) -> Option<&'a HeaderValue> {
        match self.config.host {
            // HTTP/1.0 clients may leave it out; HTTP/1.1 servers may not be spared it.
            HostHeader::Preserve => (!headers.contains_key(header::HOST)).then_some(&instance.host),
            HostHeader::Instance => Some(&instance.host),
        }
    }
}

/// One address of a service.
#[derive(Debug)]
pub struct Instance {
    pub(crate) id: u64,
    pub(crate) authority: String,
    pub(crate) host: HeaderValue,
    /// Set when the host is an address, so that no lookup is needed.
    pub(crate) address: Option<SocketAddr>,
    in_flight: AtomicUsize,
    connections: AtomicUsize,
    avoided_until_ms: AtomicU64,
}

impl Instance {
    fn parse(text: &str) -> Option<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let url = url::Url::parse(text).ok()?;
        let plain = url.scheme() == "http"
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
        let authority = format!("{}:{port}", url.host_str()?);
        Some(Self {
            id: NEXT.fetch_add(1, Relaxed),
            host: HeaderValue::from_str(&authority).ok()?,
            authority,
            address,
            in_flight: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
            avoided_until_ms: AtomicU64::new(0),
        })
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

    fn is_avoided(&self, elapsed: Duration) -> bool {
        let until = self.avoided_until_ms.load(Relaxed);
        until != 0 && u128::from(until) > elapsed.as_millis()
    }

    /// It refused a connection: others go first for a second.
    pub(crate) fn avoid(&self, elapsed: Duration) {
        let until = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX).saturating_add(1000);
        self.avoided_until_ms.store(until, Relaxed);
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

    fn service(balance: Balance, count: usize) -> Service {
        let instances = (0..count).map(|index| format!("http://127.0.0.1:{}", 9000 + index));
        let config = ServiceConfig { balance, ..ServiceConfig::at(instances) };
        Service::compile("s", &config, &BTreeMap::new()).unwrap()
    }

    #[test]
    fn round_robin_takes_each_in_turn() {
        let service = service(Balance::RoundRobin, 3);
        let mut taken = [0; 3];
        for _ in 0..9 {
            let chosen = service.choose(&[], Duration::ZERO, 0).unwrap();
            let index = service.instances.iter().position(|i| i.id == chosen.id).unwrap();
            taken[index] += 1;
        }
        assert_eq!(taken, [3, 3, 3]);
    }

    #[test]
    fn the_less_loaded_of_two_is_taken_and_never_the_same_twice() {
        let service = service(Balance::LeastLoaded, 2);
        let _lease = Lease::new(&service.instances[0]);
        for random in [0, 1, u64::MAX, 1 << 32, 0xdead_beef_cafe_f00d] {
            let chosen = service.choose(&[], Duration::ZERO, random).unwrap();
            assert_eq!(chosen.id, service.instances[1].id);
        }
    }

    #[test]
    fn an_instance_that_refused_is_the_last_choice() {
        let service = service(Balance::RoundRobin, 2);
        let (a, b) = (&service.instances[0], &service.instances[1]);
        a.avoid(Duration::from_secs(5));
        for _ in 0..4 {
            assert_eq!(service.choose(&[], Duration::from_secs(5), 0).unwrap().id, b.id);
        }
        assert_eq!(service.choose(&[b.id], Duration::from_secs(5), 0).unwrap().id, a.id);
        assert!(service.choose(&[a.id, b.id], Duration::from_secs(5), 0).is_none());
        assert!(!a.is_avoided(Duration::from_secs(7)));
    }

    #[test]
    fn only_plain_addresses_are_accepted() {
        for bad in ["", "127.0.0.1:1", "https://a", "http://a/b", "http://u@a", "http://a?b"] {
            assert!(Instance::parse(bad).is_none(), "{bad}");
        }
        let instance = Instance::parse("http://[::1]:80").unwrap();
        assert_eq!(instance.authority(), "[::1]:80");
        assert!(instance.address.is_some());
    }

    #[test]
    fn a_reload_keeps_instances_it_knows() {
        let mut config = Config::new();
        config.insert("a".into(), ServiceConfig::at(["http://127.0.0.1:1".to_owned()]));
        let before = Services::compile(&config, None).unwrap();
        let _lease = Lease::new(&before.get("a").unwrap().instances[0]);
        config.get_mut("a").unwrap().instances.push("http://127.0.0.1:2".to_owned());
        let after = Services::compile(&config, Some(&before)).unwrap();
        let service = after.get("a").unwrap();
        assert_eq!((service.instances[0].in_flight(), service.instances[1].in_flight()), (1, 0));
    }
}

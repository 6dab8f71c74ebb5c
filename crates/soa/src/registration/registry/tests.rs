use super::*;
use crate::{check::Checks, target::tests::REFUSED};
use clock::SystemClock;
use std::net::{IpAddr, SocketAddr};
use store_memory::MemoryStore;
use tokio::net::TcpListener;

/// Each way to ask an instance whether it is fit.
const CHECKS: [(&str, &str); 4] = [
    ("http1", "interval = \"10ms\""),
    ("http1", "interval = \"10ms\"\npath = \"/health\""),
    ("h2", "interval = \"10ms\"\npath = \"/health\""),
    ("h2", "interval = \"10ms\"\ngrpc = true"),
];

/// A service `s` for each way to ask, whose instances register themselves on these terms.
fn config(terms: &str) -> Config {
    let service = |(index, (protocol, health)): (usize, &(&str, &str))| {
        let text = format!(
            "protocol = \"{protocol}\"\n[health]\n{health}\n\
             [registration]\ntenants = [\"acme\"]\nroles = [\"registrar\"]\n{terms}\n"
        );
        (format!("s{index}"), toml::from_str(&text).unwrap())
    };
    CHECKS.iter().enumerate().map(service).collect()
}

/// A registration as it stands in the store, however it came there.
fn record(number: usize, url: &str, address: SocketAddr) -> Registered {
    let record = serde_json::json!({
        "id": format!("ins_{number}"), "tenant": "acme", "kind": "service", "by": "shop",
        "url": url, "address": address, "weight": 1, "ttl_ms": 60_000, "tags": [],
        "metadata": {}, "since": 0, "expires": 60_000,
    });
    serde_json::from_value(record).unwrap()
}

struct Ground {
    clock: SharedClock,
    registry: Registry,
    config: Config,
}

impl Ground {
    /// A node that finds these registrations in its store for each of its services.
    async fn with(records: &[Registered], terms: &str) -> Self {
        let clock = SystemClock::shared();
        let store: SharedStore = Arc::new(MemoryStore::new(clock.clone()));
        let config = config(terms);
        for (name, registered) in
            config.keys().flat_map(|name| records.iter().map(move |one| (name, one)))
        {
            let write = put(&key(&registered.id).unwrap(), registered);
            store.commit(Commit::new(partition(name).unwrap()).write(write)).await.unwrap();
        }
        let registry = Registry::new(store, clock.clone());
        registry.learn(&config).await.unwrap();
        Self { clock, registry, config }
    }

    /// Serves, and checks whom it may call.
    fn check(&self) -> (Services, Checks) {
        let services = Services::compile(&self.config, None).unwrap();
        self.registry.attach(&services);
        let checks = Checks::start(&services, &self.clock);
        (services, checks)
    }
}

fn members(services: &Services) -> Vec<String> {
    let mut members = Vec::new();
    for service in services.iter() {
        service.instances(|instance, _, _| members.push(instance.authority().to_owned()));
    }
    members
}

/// What is asked for is refused, and what is in the store all the same, since it was let in on
/// other terms, is not checked.
#[tokio::test]
async fn an_address_that_is_not_allowed_is_not_checked_in_any_spelling() {
    let here = TcpListener::bind("[::]:0").await.unwrap();
    let port = here.local_addr().unwrap().port();
    let loopback = SocketAddr::from(([127, 0, 0, 1], port));
    let mut records = Vec::new();
    for text in REFUSED {
        let url = text.replacen(":80", &format!(":{port}"), 1);
        let host = Target::parse(&url).ok().map(|target| target.host);
        let own = match host {
            Some(Host::Ipv4(ip)) => Some(IpAddr::V4(ip)),
            Some(Host::Ipv6(ip)) => Some(IpAddr::V6(ip)),
            Some(Host::Domain(_)) | None => None,
        };
        // Where it is if it was read well, and if it was read as one may wish.
        let own = own.map(|ip| SocketAddr::new(ip, port));
        for address in own.into_iter().chain([loopback]) {
            records.push(record(records.len(), &url, address));
        }
    }
    // A name whose address is another one by now, or was in a time of other rules.
    for ip in ["127.0.0.1", "::1", "::ffff:127.0.0.1", "127.255.255.254", "0.0.0.0", "::"] {
        let address = SocketAddr::new(ip.parse().unwrap(), port);
        records.push(record(records.len(), &format!("http://shop.example:{port}"), address));
    }
    assert!(records.len() > REFUSED.len() + 40, "{}", records.len());

    let ground = Ground::with(&records, "").await;
    let (services, checks) = ground.check();
    assert_eq!(members(&services), Vec::<String>::new());
    let connected = tokio::time::timeout(Duration::from_millis(300), here.accept()).await;
    assert!(connected.is_err(), "{connected:?}");
    drop(checks);

    // It would have been seen, of each way to ask: where it is allowed it is connected to.
    for name in ground.config.keys() {
        let mut ground = Ground::with(&records, "loopback = true").await;
        ground.config.retain(|held, _| held == name);
        let (services, _checks) = ground.check();
        assert!(members(&services).contains(&loopback.to_string()), "{name}");
        let connected = tokio::time::timeout(Duration::from_secs(10), here.accept()).await;
        assert!(connected.is_ok(), "{name}");
    }
}

/// A configuration that is tried takes over who is there, without asking who may be.
#[tokio::test]
async fn who_is_taken_over_is_held_to_the_terms_of_now() {
    let address = SocketAddr::from(([127, 0, 0, 1], 9_001));
    let ground =
        Ground::with(&[record(1, "http://127.0.0.1:9001", address)], "loopback = true").await;
    let services = Services::compile(&ground.config, None).unwrap();
    ground.registry.attach(&services);
    assert_eq!(members(&services).len(), CHECKS.len());
    let taken_over = |terms: &str| {
        let services = Services::compile(&config(terms), Some(&services)).unwrap();
        members(&services).len()
    };
    assert_eq!(taken_over("loopback = true\nttl_max = \"1m\""), CHECKS.len());
    assert_eq!(taken_over(""), 0);
    assert_eq!(taken_over("networks = [\"127.0.0.0/8\"]"), 0);
}

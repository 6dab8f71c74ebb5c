//! Looks instances up in the DNS, again and again.

use crate::{
    config::{DnsConfig, Sought},
    found::{FOUND_MAX, Found, Origin},
    service::{Service, Services},
};
use clock::SharedClock;
use hickory_resolver::{
    Resolver, TokioResolver,
    config::{ConnectionConfig, NameServerConfig, ResolverConfig},
    net::{NetError, runtime::TokioRuntimeProvider},
    proto::rr::{RData, RecordType, rdata::SRV},
};
use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use tokio::task::JoinSet;

/// Time that all the questions of one lookup may take.
const LOOKUP_MAX: Duration = Duration::from_secs(5);
/// However short records may live.
const TTL_MIN: Duration = Duration::from_secs(1);

/// The lookups of all services, until dropped.
#[derive(Debug)]
pub struct Lookups {
    _tasks: JoinSet<()>,
}

impl Lookups {
    /// Follows the names of the services that have one, on the current runtime.
    #[must_use]
    pub fn start(services: &Services, clock: &SharedClock) -> Self {
        let mut tasks = JoinSet::new();
        for service in services.iter() {
            if let Some(dns) = service.config().dns.clone() {
                tasks.spawn(follow(Arc::clone(service), dns, clock.clone()));
            }
        }
        Self { _tasks: tasks }
    }
}

async fn follow(service: Arc<Service>, config: DnsConfig, clock: SharedClock) {
    let mut emptiness = Emptiness::default();
    loop {
        let answer = match tokio::time::timeout(LOOKUP_MAX, look_up(&config)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => Answer::Failed(error.to_string()),
            Err(_) => Answer::Failed("no answer in time".into()),
        };
        let (ttl, trouble) = match &answer {
            Answer::Found(_, ttl) => (*ttl, None),
            Answer::Nothing => (config.interval, Some("the name has no address".to_owned())),
            Answer::Partly(_, why) | Answer::Failed(why) => (config.interval, Some(why.clone())),
        };
        service.set_trouble(trouble);
        let elapsed = clock.elapsed();
        if let Some(found) = emptiness.next(answer, &service.dns(), config.keep, elapsed) {
            service.set_dns(found, elapsed);
        }
        tokio::time::sleep(pause(ttl, config.interval)).await;
    }
}

/// Until the next lookup.
fn pause(ttl: Duration, interval: Duration) -> Duration {
    ttl.max(TTL_MIN).min(interval)
}

/// What a lookup came to.
#[derive(Debug)]
enum Answer {
    /// Instances, and how long that holds.
    Found(Vec<Found>, Duration),
    /// Instances, but nobody can say whether these are all.
    Partly(Vec<Found>, String),
    /// The name is not there (NXDOMAIN), or stands for nothing.
    Nothing,
    /// Nobody can say.
    Failed(String),
}

/// Since when a name stands for nothing.
#[derive(Debug, Default)]
struct Emptiness(Option<Duration>);

impl Emptiness {
    /// After one more lookup: which instances there are, if that may not be as it is `known`.
    fn next(
        &mut self,
        answer: Answer,
        known: &[Found],
        keep: Duration,
        elapsed: Duration,
    ) -> Option<Vec<Found>> {
        match answer {
            Answer::Found(found, _) => {
                self.0 = None;
                Some(found)
            }
            Answer::Partly(mut found, _) => {
                self.0 = None;
                let is_told = |one: &&Found| found.iter().all(|told| told.address != one.address);
                let untold: Vec<Found> = known.iter().filter(is_told).cloned().collect();
                found.extend(untold);
                found.truncate(FOUND_MAX);
                Some(found)
            }
            Answer::Nothing => {
                let since = *self.0.get_or_insert(elapsed);
                (elapsed.saturating_sub(since) >= keep).then(Vec::new)
            }
            Answer::Failed(_) => None,
        }
    }
}

/// Every address that `name` stands for at this time; at least one, IPv4 first.
///
/// # Errors
/// What is in the way.
pub(crate) async fn resolve(name: &str, server: Option<SocketAddr>) -> Result<Vec<IpAddr>, String> {
    let look_up = async {
        let resolver = resolver(server)?;
        // All of them are to be judged: what is not known cannot be.
        match addresses(&resolver, name, &mut Duration::MAX.clone()).await {
            (_, Some(failure)) => Err(failure),
            (ips, None) => Ok(ips),
        }
    };
    let mut ips = match tokio::time::timeout(LOOKUP_MAX, look_up).await {
        Ok(Ok(ips)) if ips.is_empty() => return Err("it has no address".into()),
        Ok(Ok(ips)) => ips,
        Ok(Err(error)) => return Err(error.to_string()),
        Err(_) => return Err("no answer in time".into()),
    };
    ips.sort();
    Ok(ips)
}

async fn look_up(config: &DnsConfig) -> Result<Answer, NetError> {
    let resolver = resolver(config.server)?;
    let (mut found, mut ttl, mut failure) = (Vec::new(), Duration::MAX, None);
    for Target { host, port, weight } in targets(&resolver, config, &mut ttl).await? {
        let (addresses, failed) = addresses(&resolver, &host, &mut ttl).await;
        failure = failure.or(failed);
        found.extend(addresses.into_iter().map(|ip| Found {
            scheme: config.scheme,
            host: host.trim_end_matches('.').to_owned(),
            address: SocketAddr::new(ip, port),
            weight,
            origin: Origin::Dns,
        }));
    }
    found.sort_by_key(|found| found.address);
    found.dedup_by_key(|found| found.address);
    if found.len() > FOUND_MAX {
        tracing::warn!(count = found.len(), "DNS tells of more instances than are called");
        found.truncate(FOUND_MAX);
    }
    Ok(match failure {
        Some(failure) if found.is_empty() => return Err(failure),
        Some(failure) => Answer::Partly(found, failure.to_string()),
        None if found.is_empty() => Answer::Nothing,
        None => Answer::Found(found, ttl),
    })
}

/// The machine's resolver, or that of one server. Made anew each time, for the machine's
/// configuration may have changed, and it remembers nothing: when to ask again is decided here.
fn resolver(server: Option<SocketAddr>) -> Result<TokioResolver, NetError> {
    let provider = TokioRuntimeProvider::default();
    let mut builder = match server {
        None => Resolver::builder(provider)?,
        Some(server) => {
            let mut connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()];
            connections.iter_mut().for_each(|connection| connection.port = server.port());
            let server = NameServerConfig::new(server.ip(), true, connections.into());
            let config = ResolverConfig::from_parts(None, Vec::new(), vec![server]);
            Resolver::builder_with_config(config, provider)
        }
    };
    let options = builder.options_mut();
    options.cache_size = 0;
    options.timeout = Duration::from_secs(1);
    builder.build()
}

struct Target {
    host: String,
    port: u16,
    weight: u32,
}

async fn targets(
    resolver: &TokioResolver,
    config: &DnsConfig,
    ttl: &mut Duration,
) -> Result<Vec<Target>, NetError> {
    let name = match config.sought() {
        Some(Sought::Addresses { name, port }) => {
            return Ok(vec![Target { host: name.to_owned(), port, weight: 1 }]);
        }
        Some(Sought::Services(name)) => name,
        None => return Ok(Vec::new()),
    };
    let lookup = match resolver.srv_lookup(name).await {
        Ok(lookup) => lookup,
        Err(error) if error.is_no_records_found() => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut services = Vec::new();
    for record in lookup.answers() {
        *ttl = (*ttl).min(Duration::from_secs(record.ttl.into()));
        if let RData::SRV(service) = &record.data {
            services.push(service.clone());
        }
    }
    Ok(best(services))
}

/// Those of the best priority, which is the least number (RFC 2782). A root target says that
/// there is no such service.
fn best(mut services: Vec<SRV>) -> Vec<Target> {
    services.retain(|service| !service.target.is_root() && service.port != 0);
    let best = services.iter().map(|service| service.priority).min();
    services.retain(|service| Some(service.priority) == best);
    let target = |service: SRV| Target {
        host: service.target.to_utf8(),
        port: service.port,
        // Zero means: hardly ever.
        weight: u32::from(service.weight).max(1),
    };
    services.into_iter().map(target).collect()
}

/// The addresses of a host, and why these may not be all: IPv4 and IPv6 are asked for apart, and
/// one may fail without the other.
async fn addresses(
    resolver: &TokioResolver,
    host: &str,
    ttl: &mut Duration,
) -> (Vec<IpAddr>, Option<NetError>) {
    let asked =
        tokio::join!(resolver.lookup(host, RecordType::A), resolver.lookup(host, RecordType::AAAA));
    let (mut ips, mut failure) = (Vec::new(), None);
    for answer in [asked.0, asked.1] {
        match answer {
            Ok(lookup) => {
                for record in lookup.answers() {
                    *ttl = (*ttl).min(Duration::from_secs(record.ttl.into()));
                    ips.extend(record.data.ip_addr());
                }
            }
            Err(error) if error.is_no_records_found() => {}
            Err(error) => failure = Some(error),
        }
    }
    (ips, failure)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn found(address: &str) -> Found {
        Found {
            scheme: crate::Scheme::Http,
            host: "shop.internal".into(),
            address: address.parse().unwrap(),
            weight: 1,
            origin: Origin::Dns,
        }
    }

    #[test]
    fn what_is_known_is_kept_for_a_while_and_over_any_failure() {
        let (mut emptiness, keep) = (Emptiness::default(), SECOND * 30);
        let (one, two) = (vec![found("10.0.0.1:80")], vec![found("10.0.0.2:80")]);
        let mut at = |second: u32, answer| emptiness.next(answer, &one, keep, SECOND * second);
        assert_eq!(at(0, Answer::Found(one.clone(), SECOND)), Some(one.clone()));
        assert_eq!(at(1, Answer::Nothing), None);
        assert_eq!(at(30, Answer::Nothing), None);
        assert_eq!(at(31, Answer::Nothing), Some(Vec::new()));
        assert_eq!(at(32, Answer::Found(one.clone(), SECOND)), Some(one.clone()));
        let both = [&two[..], &one[..]].concat();
        assert_eq!(at(32, Answer::Partly(two.clone(), "no AAAA".into())), Some(both));
        assert_eq!(at(33, Answer::Nothing), None);
        assert_eq!(at(900, Answer::Failed("no answer".into())), None);
        let at_once = emptiness.next(Answer::Nothing, &[], Duration::ZERO, SECOND);
        assert_eq!(at_once, Some(Vec::new()));
    }

    #[test]
    fn records_are_asked_for_again_when_they_end_but_neither_at_once_nor_late() {
        for (ttl, interval, expected) in [(0, 10, 1), (3, 10, 3), (600, 10, 10)] {
            assert_eq!(pause(SECOND * ttl, SECOND * interval), SECOND * expected);
        }
        assert_eq!(pause(SECOND, SECOND / 10), SECOND / 10);
    }

    #[test]
    fn services_of_the_best_priority_are_taken() {
        let service = |priority, weight, port, target: &str| {
            SRV::new(priority, weight, port, target.parse().unwrap())
        };
        let taken = best(vec![
            service(20, 1, 80, "spare.internal."),
            service(10, 3, 81, "a.internal."),
            service(10, 0, 82, "b.internal."),
            service(1, 1, 80, "."),
        ]);
        let taken: Vec<_> =
            taken.iter().map(|one| (one.host.as_str(), one.port, one.weight)).collect();
        assert_eq!(taken, [("a.internal.", 81, 3), ("b.internal.", 82, 1)]);
    }
}

//! Registrations in the store, and the services of this node that are told of them.

use crate::{
    config::{Config, RegistrationConfig, Scheme},
    found::Found,
    registration::{
        NewInstance, Registered,
        roster::{Roster, Seen},
    },
    service::{Service, Services},
    target::{Target, judge, locate},
};
use clock::SharedClock;
use parking_lot::Mutex;
use protocol::{Code, Problem};
use sha2::Digest;
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};
use store::{
    Check, Commit, Error, Key, Kind, Partition, Position, Record, SharedStore, Watcher, Write,
};
use tokio::sync::Notify;
use traffic_cop::store_problem;
use types::{Caller, TenantId};
use url::Host;

const KIND: Kind = Kind::new("registration");
/// How often a change is tried that meets another.
const ATTEMPTS: usize = 8;
const PAGE: usize = 1_000;
/// The pause after the store did not answer.
const PAUSE: Duration = Duration::from_millis(200);
/// Nobody asks, since nobody is registered.
const IDLE: Duration = Duration::from_secs(3600);

/// The registered instances of all services. Cheap to clone.
#[derive(Clone)]
pub struct Registry(Arc<Inner>);

struct Inner {
    store: SharedStore,
    clock: SharedClock,
    /// Held from a read or a write of the store until what it says is known: what was read first
    /// is not to replace what was read later.
    turn: tokio::sync::Mutex<()>,
    known: Mutex<Known>,
    attached: Notify,
}

#[derive(Default)]
struct Known {
    /// Those that take registrations.
    services: BTreeMap<String, Arc<Service>>,
    rosters: BTreeMap<String, Roster>,
}

impl Known {
    /// Tells the service who is registered and may be called.
    fn show(&self, name: &str, elapsed: Duration) {
        let (Some(service), Some(roster)) = (self.services.get(name), self.rosters.get(name))
        else {
            return;
        };
        let found = roster.all().filter_map(|registered| admit(service, registered));
        service.set_registered(found.collect(), elapsed);
    }
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry").finish_non_exhaustive()
    }
}

impl Registry {
    /// Registrations kept in `store`.
    #[must_use]
    pub fn new(store: SharedStore, clock: SharedClock) -> Self {
        Self(Arc::new(Inner {
            store,
            clock,
            turn: tokio::sync::Mutex::default(),
            known: Mutex::default(),
            attached: Notify::new(),
        }))
    }

    /// Reads who is registered, so that services have their instances from the start on.
    ///
    /// # Errors
    /// Those of the store; [`Self::run`] then goes on trying.
    pub async fn learn(&self, config: &Config) -> Result<(), Problem> {
        let takes = config.iter().filter(|(_, service)| service.registration.is_some());
        for (name, _) in takes {
            self.read_all(name).await.map_err(store_problem)?;
        }
        Ok(())
    }

    /// From now on these services are told who is registered.
    pub fn attach(&self, services: &Services) {
        let takes = |service: &&Arc<Service>| service.config().registration.is_some();
        let named = |service: &Arc<Service>| (service.name().to_owned(), Arc::clone(service));
        let elapsed = self.0.clock.elapsed();
        let mut known = self.0.known.lock();
        known.services = services.iter().filter(takes).map(named).collect();
        let Known { services, rosters } = &mut *known;
        rosters.retain(|name, _| services.contains_key(name));
        for name in services.keys() {
            rosters.entry(name.clone()).or_default();
        }
        for name in known.services.keys() {
            known.show(name, elapsed);
        }
        drop(known);
        self.0.attached.notify_one();
    }

    /// Registers an instance of `service`, or says anew what it is. The flag says whether it is
    /// new. Once this returns it is durable, and takes calls of this node if it is fit.
    ///
    /// # Errors
    /// `forbidden` if the caller may not, or not that address; `bad_request`; `conflict` if
    /// another principal has registered it; `overloaded` at the bounds of the service; those of
    /// the store.
    pub async fn register(
        &self,
        by: &Caller,
        service: &str,
        new: NewInstance,
    ) -> Result<(Registered, bool), Problem> {
        let (held, config) = self.allowed(by, service)?;
        new.check(config.ttl_max)?;
        let target = Target::parse(&new.url).map_err(|why| Problem::new(Code::BadRequest, why))?;
        if target.scheme == Scheme::Https && held.tls.is_none() {
            let detail = format!("`{service}` is not called by TLS: it has no `tls`");
            return Err(Problem::new(Code::BadRequest, detail));
        }
        let address =
            locate(&target, &config.reach(), config.server).await.inspect_err(|problem| {
                tracing::warn!(service, tenant = %by.tenant, by = %by.principal.id, url = new.url,
                why = problem.detail, "a registration is refused");
            })?;
        let (partition, id) = (partition(service)?, id(&new.url));
        let key = key(&id)?;
        let _turn = self.0.turn.lock().await;
        for _ in 0..ATTEMPTS {
            let all = self.scan(&partition).await?.1;
            let before = all.iter().find(|(registered, _)| registered.id == id);
            let check = match before {
                Some((before, _)) if !before.is_of(by) => {
                    let detail = "another principal has registered this instance";
                    return Err(Problem::new(Code::Conflict, detail));
                }
                Some((_, revision)) => Check::Revision { key: key.clone(), revision: *revision },
                None => {
                    has_room(by, &config, &all)?;
                    Check::Absent { key: key.clone() }
                }
            };
            let now = self.0.clock.now();
            let registered = Registered {
                id: Arc::clone(&id),
                tenant: by.tenant.clone(),
                kind: by.principal.kind,
                by: by.principal.id.clone(),
                url: new.url.clone(),
                address,
                weight: new.weight,
                ttl_ms: u64::try_from(new.ttl.as_millis()).unwrap_or(u64::MAX),
                version: new.version.clone(),
                tags: new.tags.clone(),
                metadata: new.metadata.clone(),
                since: before.map_or(now, |(before, _)| before.since),
                expires: now.plus(new.ttl),
            };
            let commit = Commit::new(partition.clone()).check(check).write(put(&key, &registered));
            match self.0.store.commit(commit).await {
                Ok(_) => {
                    self.note(service, registered.clone(), Seen::Written);
                    return Ok((registered, before.is_none()));
                }
                Err(Error::Conflict { .. }) => {}
                Err(error) => return Err(store_problem(error)),
            }
        }
        Err(busy())
    }

    /// A heartbeat: the instance stays for its time to live again.
    ///
    /// # Errors
    /// `not_found` if it is not registered any more: register it again. `forbidden` unless the
    /// caller registered it, and still may; those of the store.
    pub async fn renew(&self, by: &Caller, service: &str, id: &str) -> Result<Registered, Problem> {
        self.allowed(by, service)?;
        let (partition, key) = (partition(service)?, key(id)?);
        for _ in 0..ATTEMPTS {
            let (mut registered, revision) = self.own(by, &partition, &key).await?;
            registered.expires = self.0.clock.now().plus(registered.ttl());
            let check = Check::Revision { key: key.clone(), revision };
            let commit = Commit::new(partition.clone()).check(check).write(put(&key, &registered));
            // Lost with the process, it is as if this heartbeat had not come.
            match self.0.store.commit(commit.applied()).await {
                Ok(_) => return Ok(registered),
                Err(Error::Conflict { .. }) => {}
                Err(error) => return Err(store_problem(error)),
            }
        }
        Err(busy())
    }

    /// The instance gets no new call of this node once this returns, and of others as soon as
    /// they hear of it; calls in flight go on.
    ///
    /// # Errors
    /// As [`Self::renew`].
    pub async fn deregister(&self, by: &Caller, service: &str, id: &str) -> Result<(), Problem> {
        self.allowed(by, service)?;
        self.own(by, &partition(service)?, &key(id)?).await?;
        self.delete(service, id).await
    }

    /// As [`Self::deregister`], by the operator.
    ///
    /// # Errors
    /// `not_found`; those of the store.
    pub async fn remove(&self, service: &str, id: &str) -> Result<(), Problem> {
        self.get(&partition(service)?, &key(id)?).await?;
        self.delete(service, id).await
    }

    /// The instances that the caller's tenant has registered.
    ///
    /// # Errors
    /// `forbidden` unless the caller may register some; those of the store.
    pub async fn list(&self, by: &Caller, service: &str) -> Result<Vec<Registered>, Problem> {
        self.allowed(by, service)?;
        let (_, all) = self.scan(&partition(service)?).await?;
        let of_tenant = all.into_iter().map(|(registered, _)| registered);
        Ok(of_tenant.filter(|registered| registered.tenant == by.tenant).collect())
    }

    /// The services of which the caller may register instances.
    #[must_use]
    pub fn services(&self, by: &Caller) -> Vec<String> {
        let known = self.0.known.lock();
        let lets = |service: &&Arc<Service>| {
            service.config().registration.as_ref().is_some_and(|config| config.lets(by))
        };
        known.services.values().filter(lets).map(|service| service.name().to_owned()).collect()
    }

    /// A registration as this node knows it.
    #[must_use]
    pub fn known(&self, service: &str, id: &str) -> Option<Registered> {
        let known = self.0.known.lock();
        known.rosters.get(service)?.all().find(|registered| &*registered.id == id).cloned()
    }

    /// Follows what happens on all nodes, until dropped.
    pub async fn run(self) {
        let mut watcher = store::watch(self.0.store.clone());
        let mut positions: HashMap<String, Option<Position>> = HashMap::new();
        loop {
            let now = self.0.clock.elapsed();
            let pause = self.next().map_or(IDLE, |at| at.saturating_sub(now));
            tokio::select! {
                () = self.0.attached.notified() => self.follow(&mut watcher, &mut positions),
                partition = watcher.touched() => {
                    let Some(position) = positions.get_mut(partition.id()) else { continue };
                    match self.look(&partition, *position).await {
                        Ok(now) => *position = Some(now),
                        Err(error) => {
                            tracing::warn!(%error, "registrations cannot be seen now");
                            // What is seen next may have been written long before.
                            *position = None;
                            tokio::time::sleep(PAUSE).await;
                            watcher.follow(partition, Position::ZERO);
                        }
                    }
                }
                () = tokio::time::sleep(pause) => self.ask().await,
            }
        }
    }

    fn follow(&self, watcher: &mut Watcher, positions: &mut HashMap<String, Option<Position>>) {
        let names: Vec<String> = self.0.known.lock().services.keys().cloned().collect();
        positions.retain(|name, _| {
            let stays = names.contains(name);
            if let (false, Ok(partition)) = (stays, partition(name)) {
                watcher.leave(&partition);
            }
            stays
        });
        for name in names {
            if let (false, Ok(partition)) = (positions.contains_key(&name), partition(&name)) {
                positions.insert(name, None);
                watcher.follow(partition, Position::ZERO);
            }
        }
    }

    /// When the store has to be asked whether somebody is still there.
    fn next(&self) -> Option<Duration> {
        self.0.known.lock().rosters.values().filter_map(Roster::next).min()
    }

    /// Learns what has changed since `position`, or all of it.
    async fn look(
        &self,
        partition: &Partition,
        position: Option<Position>,
    ) -> Result<Position, Error> {
        let service = partition.id();
        let Some(since) = position else { return self.read_all(service).await };
        let turn = self.0.turn.lock().await;
        let changes = match self.0.store.changes(partition, since).await {
            Ok(changes) => changes,
            Err(Error::Lagged { .. }) => {
                drop(turn);
                return self.read_all(service).await;
            }
            Err(error) => return Err(error),
        };
        for change in changes.keys {
            match change.value.map(|value| Registered::decode(&value)) {
                Some(Ok(registered)) => self.note(service, registered, Seen::Written),
                Some(Err(_)) | None => self.forget(service, &text(&change.key)),
            }
        }
        Ok(changes.position)
    }

    async fn read_all(&self, service: &str) -> Result<Position, Error> {
        let partition = Partition::new(TenantId::system(), KIND, service)?;
        let _turn = self.0.turn.lock().await;
        let (position, records) = pages(&self.0.store, &partition).await?;
        let read =
            records.into_iter().filter_map(|(_, record)| Registered::decode(&record.value).ok());
        let elapsed = self.0.clock.elapsed();
        let mut known = self.0.known.lock();
        known.rosters.entry(service.to_owned()).or_default().replace(read.collect(), elapsed);
        known.show(service, elapsed);
        Ok(position)
    }

    /// Asks the store about those whose time is over.
    async fn ask(&self) {
        let _turn = self.0.turn.lock().await;
        let elapsed = self.0.clock.elapsed();
        let due: Vec<(String, Arc<str>)> = {
            let known = self.0.known.lock();
            let of = |(name, roster): (&String, &Roster)| {
                let name = name.clone();
                roster.due(elapsed).into_iter().map(move |id| (name.clone(), id))
            };
            known.rosters.iter().flat_map(of).collect()
        };
        for (service, id) in due {
            let (Ok(partition), Ok(key)) = (partition(&service), key(&id)) else { continue };
            match self.0.store.get(&partition, &key).await {
                Ok(None) => self.forget(&service, &id),
                Ok(Some(record)) => {
                    if let Ok(registered) = Registered::decode(&record.value) {
                        self.note(&service, registered, Seen::Read);
                    }
                }
                // Nobody can send a heartbeat either, so nobody is left out for that.
                Err(error) => {
                    tracing::warn!(%error, service, "it cannot be seen who is still registered");
                    if let Some(roster) = self.0.known.lock().rosters.get_mut(&service) {
                        roster.later(&id, elapsed);
                    }
                }
            }
        }
    }

    fn note(&self, service: &str, registered: Registered, seen: Seen) {
        let elapsed = self.0.clock.elapsed();
        let mut known = self.0.known.lock();
        let Some(roster) = known.rosters.get_mut(service) else { return };
        if roster.put(registered, seen, elapsed) {
            known.show(service, elapsed);
        }
    }

    fn forget(&self, service: &str, id: &str) {
        let mut known = self.0.known.lock();
        let Some(roster) = known.rosters.get_mut(service) else { return };
        if roster.remove(id) {
            known.show(service, self.0.clock.elapsed());
        }
    }

    /// The service and its terms, if the caller may register instances. Who may not is not told
    /// whether there is such a service.
    fn allowed(
        &self,
        by: &Caller,
        service: &str,
    ) -> Result<(Arc<Service>, RegistrationConfig), Problem> {
        let held = self.0.known.lock().services.get(service).cloned();
        let config = held.as_ref().and_then(|held| held.config().registration.clone());
        match (held, config.filter(|config| config.lets(by))) {
            (Some(held), Some(config)) => Ok((held, config)),
            (Some(_) | None, _) => {
                let detail = "the caller may not register instances of this service";
                Err(Problem::new(Code::Forbidden, detail))
            }
        }
    }

    async fn own(
        &self,
        by: &Caller,
        partition: &Partition,
        key: &Key,
    ) -> Result<(Registered, u64), Problem> {
        let (registered, revision) = self.get(partition, key).await?;
        if registered.is_of(by) {
            return Ok((registered, revision));
        }
        let detail = "only who registered an instance may change it";
        Err(Problem::new(Code::Forbidden, detail))
    }

    async fn get(&self, partition: &Partition, key: &Key) -> Result<(Registered, u64), Problem> {
        match self.0.store.get(partition, key).await.map_err(store_problem)? {
            Some(record) => Ok((Registered::decode(&record.value)?, record.revision)),
            None => Err(Problem::new(Code::NotFound, "no such instance is registered")),
        }
    }

    async fn delete(&self, service: &str, id: &str) -> Result<(), Problem> {
        let _turn = self.0.turn.lock().await;
        let commit = Commit::new(partition(service)?).write(Write::Delete { key: key(id)? });
        self.0.store.commit(commit).await.map_err(store_problem)?;
        self.forget(service, id);
        Ok(())
    }

    async fn scan(
        &self,
        partition: &Partition,
    ) -> Result<(Position, Vec<(Registered, u64)>), Problem> {
        let (position, records) = pages(&self.0.store, partition).await.map_err(store_problem)?;
        let read = records
            .into_iter()
            .map(|(_, record)| Ok((Registered::decode(&record.value)?, record.revision)));
        Ok((position, read.collect::<Result<_, Problem>>()?))
    }
}

async fn pages(
    store: &SharedStore,
    partition: &Partition,
) -> Result<(Position, Vec<(Key, Record)>), Error> {
    let (mut found, mut begun, mut after) = (Vec::new(), None, None);
    loop {
        let page = store.scan(partition, b"", after.as_ref(), PAGE).await?;
        // The first page's: what changes between pages is told again.
        let position = *begun.get_or_insert(page.position);
        after = page.records.last().map(|(key, _)| key.clone());
        found.extend(page.records);
        if !page.more || after.is_none() {
            return Ok((position, found));
        }
    }
}

/// A registration as an instance, if the service's terms of now allow it.
fn admit(service: &Service, registered: &Registered) -> Option<Found> {
    let config = service.config().registration.as_ref()?;
    let target = Target::parse(&registered.url).ok()?;
    let is_allowed = judge(registered.address.ip(), &config.reach()).is_ok()
        && config.tenants.contains(&registered.tenant)
        && (target.scheme == Scheme::Http || service.tls.is_some());
    let host = match target.host {
        Host::Ipv4(ip) => ip.to_string(),
        Host::Ipv6(ip) => ip.to_string(),
        Host::Domain(name) => name,
    };
    is_allowed.then(|| registered.found(target.scheme, host))
}

/// Whether one more may be registered. Two nodes that are asked at the same time may both say
/// yes to the last.
fn has_room(
    by: &Caller,
    config: &RegistrationConfig,
    all: &[(Registered, u64)],
) -> Result<(), Problem> {
    let own = all.iter().filter(|(registered, _)| registered.tenant == by.tenant).count();
    if all.len() >= config.instances_max || own >= config.tenant_instances_max {
        let detail = "as many instances are registered as there may be";
        return Err(Problem::new(Code::Overloaded, detail));
    }
    Ok(())
}

fn put(key: &Key, registered: &Registered) -> Write {
    let value = registered.encode().into();
    Write::Put { key: key.clone(), value, expires: Some(registered.ttl()) }
}

fn busy() -> Problem {
    Problem::new(Code::Conflict, "the instance is changed by others at the same time")
}

/// The instance of this URL: the beginning of its hash.
fn id(url: &str) -> Arc<str> {
    let hash = sha2::Sha256::digest(url.as_bytes());
    hash[..12].iter().fold("ins_".to_owned(), |id, byte| format!("{id}{byte:02x}")).into()
}

fn partition(service: &str) -> Result<Partition, Problem> {
    Partition::new(TenantId::system(), KIND, service).map_err(store_problem)
}

fn key(id: &str) -> Result<Key, Problem> {
    Key::new(id).map_err(store_problem)
}

fn text(key: &Key) -> String {
    String::from_utf8_lossy(key.as_bytes()).into_owned()
}

#[cfg(test)]
mod tests;

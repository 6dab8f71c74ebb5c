//! Sessions: what outlives a connection.
//!
//! A session belongs to a principal of a tenant. All sessions of a principal lie in one
//! partition, so that the limit of them is exact, and a session's id says which partition
//! that is. A session's token, `cst_{tenant}.{session}.{secret}`, is a credential; the store
//! holds its hash only. A durable session also keeps what its connections follow ([`Kept`]).
//! What happened to a session is an [`Event`] of its [`Past`]; what it did is its [`Trail`].

mod config;
mod device;
mod ending;
mod event;
mod handover;
mod kept;
mod past;
mod record;
mod room;
mod routing;
#[cfg(test)]
mod tests;
mod trail;

pub use config::Config;
pub use device::{Addresses, Device, DeviceSessions, NewDevice, devices};
pub use ending::End;
pub use event::{Event, EventKind};
pub use handover::{NewHandover, Offered, Recipient, Redeemer};
pub use kept::{Ground, Keeping, Kept, KeptPosition, KeptSubscription};
pub use past::{Past, ShownEvent, WantedEvents};
pub use record::{NewSession, Route, Session, SessionKind, Status, Update};
pub use room::OnLimit;
pub use routing::{Move, NewRoute};
pub use trail::{Item, Served, TimelineEntry, Trail, WantedTimeline, What};

use crate::{
    identity::{Hold, Revocations, Standing, revocations::Basis},
    secret,
    session::{
        ending::{refuse_suspended, unknown_token},
        past::telling,
        record::{SUSPENDED, SessionRecord},
        room::Room,
    },
    storage,
};
use clock::SharedClock;
use protocol::{Code, Problem};
use std::{net::IpAddr, str::FromStr, sync::Arc, time::Duration};
use store::{Check, Commit, Key, Kind, Partition, SharedStore, Write};
use types::{Caller, CredentialKind, Principal, SessionId, Steering, TenantId, Timestamp};

/// How a session token begins.
pub const TOKEN_PREFIX: &str = "cst_";
const KIND: Kind = Kind::new("session");
/// How often a change is tried again when others change the same principal's sessions.
const ATTEMPTS: usize = 32;
/// Sessions that end for one new one; there are more only where the limit was lowered.
const ENDED_AT_ONCE: usize = 24;
/// What is left of sessions that are over is kept of so many of a principal.
const LEFTOVERS_MAX: usize = 16;

/// The sessions of all tenants.
pub struct Sessions {
    store: SharedStore,
    clock: SharedClock,
    config: Config,
    revocations: Revocations,
    trail: Trail,
}

impl Sessions {
    /// Sessions kept in `store`.
    #[must_use]
    pub fn new(
        store: SharedStore,
        clock: SharedClock,
        config: Config,
        revocations: Revocations,
    ) -> Self {
        let trail = Trail::new(store.clone(), clock.clone(), &config);
        Self { store, clock, config, revocations, trail }
    }

    /// Where it is noted what sessions do.
    #[must_use]
    pub fn trail(&self) -> &Trail {
        &self.trail
    }

    /// What is remembered of an address.
    #[must_use]
    pub fn shown_address(&self, address: IpAddr) -> Option<String> {
        self.config.addresses.shown(address)
    }

    /// Makes a session for `principal` and its token, which is shown this once.
    ///
    /// # Errors
    /// `session_limit` if the principal has as many as it may, `bad_request`, or those of the
    /// store.
    pub async fn create(
        &self,
        tenant: &TenantId,
        principal: &Principal,
        new: NewSession,
    ) -> Result<(Session, String), Problem> {
        let metadata = self.checked_metadata(new.metadata.unwrap_or_default())?;
        let ttl = new.ttl.unwrap_or(self.config.ttl).min(self.config.ttl_max);
        if ttl < Duration::from_secs(1) {
            return Err(Problem::new(Code::BadRequest, "`ttl` must be at least 1s"));
        }
        let shelf = record::shelf(principal);
        let id = SessionId::new(shelf, clock::random(&*self.clock)).marked(new.durable);
        let secret = secret::random(&*self.clock);
        let now = self.clock.now();
        let ttl_max = new.ttl_max.unwrap_or(self.config.ttl_max).min(self.config.ttl_max).max(ttl);
        let record = SessionRecord {
            id,
            principal: principal.id.clone(),
            principal_kind: principal.kind,
            kind: new.kind,
            status: Status::Active,
            created: now,
            last_used: now,
            ttl_ms: millis(ttl),
            sliding: new.sliding,
            durable: new.durable,
            ends: now.plus(ttl_max),
            pillars: new.pillars,
            metadata,
            implicit: new.implicit,
            token_hash: secret::hash(&secret),
            device: self.met(new.device, new.address, now)?,
            priority: Default::default(),
            routes: Default::default(),
            handed: 0,
            holder: None,
            offer: None,
            former: None,
            spent: None,
            keeps: false,
            over: None,
        };
        let room = Room {
            per_user_max: self.config.per_user_max,
            per_device_max: self.config.per_device_max,
            on_limit: self.config.on_limit,
        };
        let device = record.device.as_ref().map(|device| device.id.as_str());
        let by = new.by.as_ref().unwrap_or(principal);
        let created = Event::new(now, EventKind::Created, Some(by))
            .with("session_kind", serde_json::to_value(new.kind).unwrap_or_default())
            .with_some("device", record.device.as_ref().map(|device| device.name.clone()))
            .with_some("address", new.address.and_then(|address| self.shown_address(address)));
        let partition = partition(tenant, shelf)?;
        for _ in 0..ATTEMPTS {
            let Held { position, living, left } = self.of_principal(&partition, principal).await?;
            if new.implicit
                && let Some(known) =
                    living.iter().find(|held| held.implicit && held.kind == new.kind)
            {
                return Ok((known.shown(tenant), String::new()));
            }
            let ending = room.make(&living, device).map_err(|most| {
                let detail = format!("there are {most} sessions already, which is the limit");
                Problem::new(Code::SessionLimit, detail)
            })?;
            let end = End { why: "limit", by: Some(by) };
            let ended = || living.iter().filter(|record| ending.contains(&record.id));
            let commit = Commit::new(partition.clone())
                .check(Check::Position(position))
                .write(self.put(&record, now))
                .write(self.left(&record, None, now));
            let commit = telling(commit, &record, [created.clone()], self.config.events_keep);
            let commit = ended()
                .take(ENDED_AT_ONCE)
                .fold(commit, |commit, record| self.ending(commit, record, end));
            let commit = match ending.is_empty() {
                true => self.clearing(commit, left),
                // One after the other: a commit has bounds.
                false => commit,
            };
            match self.commit(commit).await {
                Ok(_) => {
                    for record in ended().take(ENDED_AT_ONCE) {
                        self.is_ended(tenant, record, end.why).await;
                    }
                    let token = format!("{TOKEN_PREFIX}{tenant}.{id}.{}", secret);
                    return Ok((record.shown(tenant), token));
                }
                Err(store::Error::Conflict { .. }) => {}
                Err(error) => return Err(storage::problem(error)),
            }
        }
        Err(Problem::new(Code::Overloaded, "too many sessions are being made at once"))
    }

    /// A session of `tenant`; `None` if there is none, or none any more.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn get(&self, tenant: &TenantId, id: SessionId) -> Result<Option<Session>, Problem> {
        Ok(self.read(tenant, id).await?.map(|(record, _)| record.shown(tenant)))
    }

    /// The sessions of a principal, oldest first.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn list(
        &self,
        tenant: &TenantId,
        principal: &Principal,
    ) -> Result<Vec<Session>, Problem> {
        let partition = partition(tenant, record::shelf(principal))?;
        let mut held = self.of_principal(&partition, principal).await?.living;
        held.sort_by_key(|record| (record.created, record.id));
        Ok(held.iter().map(|record| record.shown(tenant)).collect())
    }

    /// Changes metadata, status or pillars. Suspended sessions refuse their token and close their
    /// connections until they are made active again. Other pillars hold at once on this node, and
    /// on others as fast as the store tells of them: for the token, and for what connections follow.
    ///
    /// # Errors
    /// `not_found`, `bad_request`, `conflict`, or those of the store.
    pub async fn update(
        &self,
        tenant: &TenantId,
        id: SessionId,
        update: Update,
    ) -> Result<Session, Problem> {
        let metadata =
            update.metadata.map(|metadata| self.checked_metadata(metadata)).transpose()?;
        let by = update.by.as_ref();
        let changed = self
            .change(tenant, id, |record, now| {
                let mut events = Vec::new();
                let told = |kind, name: &str, value: serde_json::Value| {
                    Event::new(now, kind, by).with(name, value)
                };
                if let Some(metadata) = &metadata {
                    record.metadata = metadata.clone();
                    let names = metadata.keys().take(32).cloned().collect::<Vec<_>>();
                    events.push(told(EventKind::Updated, "metadata", names.into()));
                }
                if let Some(status) = update.status
                    && status != record.status
                {
                    record.status = status;
                    let kind = match status {
                        Status::Active => EventKind::Resumed,
                        Status::Suspended => EventKind::Suspended,
                    };
                    events.push(Event::new(now, kind, by));
                }
                if let Some(pillars) = &update.pillars
                    && *pillars != record.pillars
                {
                    record.pillars = pillars.clone();
                    let pillars = serde_json::to_value(pillars).unwrap_or_default();
                    events.push(told(EventKind::Bound, "pillars", pillars));
                }
                if let Some(priority) = update.priority
                    && priority != record.priority
                {
                    record.priority = priority;
                    let priority = serde_json::to_value(priority).unwrap_or_default();
                    events.push(told(EventKind::Prioritised, "priority", priority));
                }
                Ok(events)
            })
            .await?;
        if update.pillars.is_some() || update.priority.is_some() {
            self.look(tenant, id).await;
        }
        if changed.status == Status::Suspended {
            self.revocations.revoke(tenant, Some(id), SUSPENDED);
        }
        Ok(changed)
    }

    /// Counts as a use: a sliding session lives on for its whole `ttl` from now. `address`: from
    /// where, if that is to be remembered with its device.
    ///
    /// # Errors
    /// `not_found`, or those of the store.
    pub async fn refresh(
        &self,
        tenant: &TenantId,
        id: SessionId,
        address: Option<IpAddr>,
    ) -> Result<Session, Problem> {
        self.change(tenant, id, |record, now| {
            // A clock that was set back makes no session older.
            record.last_used = record.last_used.max(now);
            if let (Some(device), Some(address)) = (&mut record.device, address) {
                device.address = self.shown_address(address);
            }
            Ok(Vec::new())
        })
        .await
    }

    /// The caller that a session token proves. Counts as a use.
    pub(crate) async fn identify(&self, token: &str) -> Result<(Caller, Hold), Problem> {
        let unknown = unknown_token;
        let mut parts = token.strip_prefix(TOKEN_PREFIX).ok_or_else(unknown)?.splitn(3, '.');
        let (Some(tenant), Some(id), Some(secret)) = (parts.next(), parts.next(), parts.next())
        else {
            return Err(unknown());
        };
        let tenant = TenantId::new(tenant).map_err(|_| unknown())?;
        let id = SessionId::from_str(id).map_err(|_| unknown())?;
        let hold = self.revocations.hold(basis(&tenant, id)?);
        let (record, _) = self.read(&tenant, id).await?.ok_or_else(unknown)?;
        let now = self.clock.now();
        let former = match secret::matches(secret, &record.token_hash) {
            true => None,
            false => Some(handover::former(&record, secret, now).ok_or_else(unknown)?),
        };
        refuse_suspended(&record)?;
        let mut standing = record.standing();
        self.revocations.note(&hold, standing.clone());
        let (principal, expires) = match former {
            Some((former, whose)) => {
                // Its sockets, too, are those of before.
                let steering =
                    Steering { handed: record.handed - 1, ..(*standing.steering).clone() };
                standing.steering = Arc::new(steering);
                (whose, former.until.min(record.expires()))
            }
            None => {
                let record = self.touched(&tenant, &record, now).await?;
                (record.user(), record.expires())
            }
        };
        let caller = Caller {
            session: Some(id),
            pillars: record.pillars.clone(),
            expires: Some(expires),
            steering: (*standing.steering != Steering::default()).then_some(standing.steering),
            ..Caller::new(tenant, principal, CredentialKind::SessionToken)
        };
        Ok((caller, hold))
    }

    /// The session after a use of it, which is written now and then.
    async fn touched(
        &self,
        tenant: &TenantId,
        record: &SessionRecord,
        now: Timestamp,
    ) -> Result<SessionRecord, Problem> {
        if !record.wants_touch(now) {
            return Ok(record.clone());
        }
        match self.refresh(tenant, record.id, None).await {
            Ok(_) => Ok(SessionRecord { last_used: now, ..record.clone() }),
            // The session stands; that it lives on for longer is what cannot be written.
            Err(problem) if is_about_the_store(problem.code) => Ok(record.clone()),
            Err(problem) => Err(problem),
        }
    }

    /// Looks out for the end of a session by whichever node, and for other pillars, for as long as
    /// this is held: then its connections close, or look at them anew.
    ///
    /// # Errors
    /// None for the id of a session.
    pub fn hold(&self, tenant: &TenantId, id: SessionId) -> Result<Hold, Problem> {
        Ok(self.revocations.hold_and_look(basis(tenant, id)?))
    }

    /// Reads what a session that is held says.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn learn(
        &self,
        tenant: &TenantId,
        id: SessionId,
        hold: &Hold,
    ) -> Result<(), Problem> {
        if let Some((record, _)) = self.read(tenant, id).await? {
            self.revocations.note(hold, record.standing());
        }
        Ok(())
    }

    /// Takes over what a session that is held and was just made says.
    pub fn note(&self, hold: &Hold, session: &Session) {
        let instances = session.routes.iter();
        let instances = instances
            .map(|(service, route)| (service.as_str().into(), route.instance.as_str().into()));
        let (priority, handed) = (session.priority, session.handed);
        let steering = Arc::new(Steering { priority, instances: instances.collect(), handed });
        let (pillars, expires) = (session.pillars.clone(), Some(session.expires));
        self.revocations.note(hold, Standing { pillars, steering, keeps: false, expires });
    }

    fn checked_metadata(
        &self,
        metadata: serde_json::Map<String, serde_json::Value>,
    ) -> Result<serde_json::Map<String, serde_json::Value>, Problem> {
        let actual = serde_json::to_string(&metadata).map_or(usize::MAX, |text| text.len());
        let limit = self.config.metadata_bytes_max;
        if actual > limit {
            let detail = format!("the metadata has {actual} bytes; at most {limit} are allowed");
            return Err(Problem::new(Code::BodyTooLarge, detail));
        }
        Ok(metadata)
    }

    async fn read(
        &self,
        tenant: &TenantId,
        id: SessionId,
    ) -> Result<Option<(SessionRecord, u64)>, Problem> {
        let partition = partition(tenant, id.shelf())?;
        let Some(stored) = self.store.get(&partition, &key(id)).await.map_err(storage::problem)?
        else {
            return Ok(None);
        };
        let record: SessionRecord = storage::decode(&stored.value)?;
        let alive = record.expires() > self.clock.now();
        Ok(alive.then_some((record, stored.revision)))
    }

    async fn change(
        &self,
        tenant: &TenantId,
        id: SessionId,
        change: impl Fn(&mut SessionRecord, Timestamp) -> Result<Vec<Event>, Problem>,
    ) -> Result<Session, Problem> {
        for _ in 0..ATTEMPTS {
            let (mut record, revision) = self.read(tenant, id).await?.ok_or_else(unknown)?;
            let now = self.clock.now();
            let events = change(&mut record, now)?;
            let commit = Commit::new(partition(tenant, id.shelf())?)
                .check(Check::Revision { key: key(id), revision })
                .write(self.put(&record, now))
                .write(self.left(&record, None, now));
            let commit = telling(commit, &record, events, self.config.events_keep);
            match self.commit(commit).await {
                Ok(_) => return Ok(record.shown(tenant)),
                Err(store::Error::Conflict { .. }) => {}
                Err(error) => return Err(storage::problem(error)),
            }
        }
        Err(Problem::new(Code::Conflict, "the session is changed by too many at once"))
    }

    /// Writes a session. It is no more once its time is over by the store's clock as well, which
    /// nobody sets back.
    fn put(&self, record: &SessionRecord, now: Timestamp) -> Write {
        let expires = Some(record.expires().since(now));
        Write::Put { key: key(record.id), value: storage::encode(record), expires }
    }

    /// Writes what is left of a session once it is over, for those who ask what happened to it.
    fn left(&self, record: &SessionRecord, why: Option<&str>, now: Timestamp) -> Write {
        let lives = if why.is_none() { record.expires().since(now) } else { Duration::ZERO };
        let value = storage::encode(&record.leftover(why));
        let expires = Some(lives + self.config.events_keep);
        Write::Put { key: left_key(record.id), value, expires }
    }

    /// The sessions of a principal, and the position at which they were read.
    async fn of_principal(
        &self,
        partition: &Partition,
        principal: &Principal,
    ) -> Result<Held, Problem> {
        let now = self.clock.now();
        let (mut living, mut left) = (Vec::new(), Vec::new());
        let mut position = None;
        let mut after: Option<Key> = None;
        loop {
            let page = self
                .store
                .scan(partition, b"", after.as_ref(), 1_000)
                .await
                .map_err(storage::problem)?;
            // The first page's: what changes between pages then fails the check.
            let position = *position.get_or_insert(page.position);
            for (_, stored) in &page.records {
                let record: SessionRecord = storage::decode(&stored.value)?;
                if !record.is_of(principal) {
                    continue;
                }
                if record.over.is_some() {
                    left.push(record);
                } else if record.expires() > now {
                    living.push(record);
                }
            }
            match page.records.last() {
                Some((last, _)) if page.more => after = Some(last.clone()),
                Some(_) | None => {
                    left.retain(|left: &SessionRecord| living.iter().all(|one| one.id != left.id));
                    return Ok(Held { position, living, left });
                }
            }
        }
    }
}

/// The sessions of a principal.
struct Held {
    position: store::Position,
    living: Vec<SessionRecord>,
    /// What is left of others.
    left: Vec<SessionRecord>,
}

fn is_about_the_store(code: Code) -> bool {
    matches!(code, Code::StoreUnavailable | Code::StoreReadOnly | Code::StoreFull)
}

fn unknown() -> Problem {
    Problem::new(Code::NotFound, "there is no such session")
}

fn partition(tenant: &TenantId, shelf: u64) -> Result<Partition, Problem> {
    Partition::new(tenant.clone(), KIND, &format!("{shelf:016x}")).map_err(storage::problem)
}

fn basis(tenant: &TenantId, id: SessionId) -> Result<Basis, Problem> {
    let partition = partition(tenant, id.shelf())?;
    Ok(Basis {
        partition,
        key: key(id),
        left: Some((left_key(id), record::epitaph)),
        session: Some(id),
        stands: record::stands,
        known: Default::default(),
    })
}

/// Where what is left of a session is.
fn left_key(id: SessionId) -> Key {
    Key::new(format!("{id}~")).expect("an id is short")
}

fn key(id: SessionId) -> Key {
    Key::new(id.to_string()).expect("an id is short")
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

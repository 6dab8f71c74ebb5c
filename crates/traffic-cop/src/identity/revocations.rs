//! What ends before its time: a session that is destroyed or suspended, an API key that is
//! deleted, a principal that is blocked, by this node or another. And what changes: the pillars of
//! a session.

use crate::identity::{Epitaph, Looked, Standing, blocks};
use ahash::RandomState;
use futures_util::{StreamExt, stream::FuturesUnordered};
use parking_lot::{Mutex, RwLock};
use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use store::{Error, Key, Partition, Position, SharedStore, Watcher};
use tokio::sync::Notify;
use types::{Pillars, Principal, SessionId, TenantId, Timestamp};

/// How often what nobody holds any more is forgotten.
const FORGET_EVERY: Duration = Duration::from_secs(60);
/// Partitions that are looked at at the same time: many sessions may end at once.
const LOOKS_MAX: usize = 32;
/// Looks at records that wait for one another, for those of one partition do.
const TURNS: usize = 64;
/// The pause after the store did not answer.
const PAUSE: Duration = Duration::from_millis(200);

/// What the sessions need from whoever holds the sockets.
pub trait Connections: Send + Sync {
    /// Asks every connection of `session` to close, for a reason that its client is told; empty:
    /// for none in particular. None being there is no error.
    fn close(&self, tenant: &TenantId, session: SessionId, why: &str);

    /// The same, since the session's time is over.
    fn close_expired(&self, tenant: &TenantId, session: SessionId, why: &str);

    /// The same for those whose credential is of before the session was handed over so often.
    fn close_former(&self, tenant: &TenantId, session: SessionId, handed: u64);

    /// Has every connection of `session` look at its pillars ([`Hold::pillars`]) anew.
    fn look_at_pillars(&self, tenant: &TenantId, session: SessionId);

    /// Asks every connection of `principal` to close, since it is blocked.
    fn close_all_of(&self, tenant: &TenantId, principal: &Principal);
}

/// Knows of every revocation that concerns somebody here. Cheap to clone.
///
/// What is revoked on this node ends at once. What another node revokes is seen by watching
/// the partitions of what is held ([`Hold`]), as fast as the store's hints are; [`Self::run`]
/// does that.
#[derive(Clone)]
pub struct Revocations(Arc<Inner>);

struct Inner {
    store: SharedStore,
    epoch: AtomicU64,
    connections: RwLock<Option<Arc<dyn Connections>>>,
    held: Mutex<HeldByPartition>,
    fresh: Notify,
    /// Who is blocked, of the tenants whose credentials were checked here.
    blocks: RwLock<HashMap<TenantId, blocks::Known, RandomState>>,
    blocks_turn: tokio::sync::Mutex<()>,
    looks_turns: [tokio::sync::Mutex<()>; TURNS],
    hasher: RandomState,
}

#[derive(Default)]
struct HeldByPartition {
    held: HashMap<Partition, Vec<Weak<Basis>>, RandomState>,
    /// To be followed from now on.
    fresh: Vec<(Partition, Position)>,
}

/// Reads why a record is no more from what is left of it.
pub(crate) type ReadEpitaph = fn(&[u8]) -> Option<Epitaph>;

/// The record that a credential rests on.
#[derive(Debug)]
pub(crate) struct Basis {
    pub(crate) partition: Partition,
    pub(crate) key: Key,
    /// Where it is told why it is no more, and how that is read, if it is.
    pub(crate) left: Option<(Key, ReadEpitaph)>,
    /// Whose connections close with it.
    pub(crate) session: Option<SessionId>,
    /// What the record says.
    pub(crate) stands: fn(&[u8]) -> Looked,
    /// What it said when it was looked at last.
    pub(crate) known: Mutex<Option<Standing>>,
}

impl Basis {
    fn is_of(&self, other: &Self) -> bool {
        self.partition == other.partition && self.key == other.key
    }
}

/// As long as it is held, a revocation of what it stands for is looked out for.
#[derive(Debug, Clone)]
pub struct Hold {
    basis: Arc<Basis>,
}

impl Hold {
    /// The pillars of the session that it stands for, as they are known; `None` until the session
    /// was looked at. Whoever takes them from here is told of every change.
    #[must_use]
    pub fn pillars(&self) -> Option<Pillars> {
        self.basis.known.lock().as_ref().map(|known| known.pillars.clone())
    }

    /// When the session ends that it stands for, unless it is used meanwhile, as it is known.
    #[must_use]
    pub fn expires(&self) -> Option<Timestamp> {
        self.basis.known.lock().as_ref()?.expires
    }

    /// How often the session was handed over, as it is known.
    #[must_use]
    pub fn handed(&self) -> u64 {
        self.basis.known.lock().as_ref().map_or(0, |known| known.steering.handed)
    }
}

impl fmt::Debug for Revocations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Revocations").field("epoch", &self.epoch()).finish_non_exhaustive()
    }
}

impl Revocations {
    /// Revocations of what is kept in `store`.
    #[must_use]
    pub fn new(store: SharedStore) -> Self {
        Self(Arc::new(Inner {
            store,
            epoch: AtomicU64::new(0),
            connections: RwLock::new(None),
            held: Mutex::default(),
            fresh: Notify::new(),
            blocks: RwLock::default(),
            blocks_turn: tokio::sync::Mutex::default(),
            looks_turns: std::array::from_fn(|_| tokio::sync::Mutex::default()),
            hasher: RandomState::new(),
        }))
    }

    /// Tells who holds the sockets, once they are there.
    pub fn set_connections(&self, connections: Arc<dyn Connections>) {
        *self.0.connections.write() = Some(connections);
    }

    /// Changes with each revocation: what was cached before one is asked for again.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.0.epoch.load(Ordering::Acquire)
    }

    /// Something was revoked: `session`, or an API key.
    pub(crate) fn revoke(&self, tenant: &TenantId, session: Option<SessionId>, why: &str) {
        self.0.epoch.fetch_add(1, Ordering::Release);
        if let (Some(session), Some(connections)) = (session, &*self.0.connections.read()) {
            connections.close(tenant, session, why);
        }
    }

    /// The same, as it was found.
    fn ended(&self, tenant: &TenantId, session: Option<SessionId>, why: Option<&Epitaph>) {
        match (session, why) {
            (Some(session), Some(Epitaph { told, is_expiry: true })) => {
                self.0.epoch.fetch_add(1, Ordering::Release);
                if let Some(connections) = &*self.0.connections.read() {
                    connections.close_expired(tenant, session, told);
                }
            }
            (session, why) => self.revoke(tenant, session, why.map_or("", |why| &why.told)),
        }
    }

    /// Nothing that was cached of `principal` holds, and its connections close.
    pub(super) fn revoke_all_of(&self, tenant: &TenantId, principal: &Principal) {
        self.0.epoch.fetch_add(1, Ordering::Release);
        if let Some(connections) = &*self.0.connections.read() {
            connections.close_all_of(tenant, principal);
        }
    }

    /// Who of a tenant is blocked, if that was asked already.
    pub(super) fn known_blocks(&self, tenant: &TenantId) -> Option<blocks::Known> {
        self.0.blocks.read().get(tenant).cloned()
    }

    pub(super) fn know_blocks(&self, tenant: &TenantId, known: blocks::Known) {
        self.0.blocks.write().insert(tenant.clone(), known);
    }

    pub(super) fn blocks_turn(&self) -> &tokio::sync::Mutex<()> {
        &self.0.blocks_turn
    }

    pub(super) fn store(&self) -> &SharedStore {
        &self.0.store
    }

    /// Has changes of `partition` after `since` looked at.
    pub(super) fn follow(&self, partition: Partition, since: Position) {
        self.0.held.lock().fresh.push((partition, since));
        self.0.fresh.notify_one();
    }

    /// Looks out for the end of `basis`. Whoever reads the record afterwards, and keeps the
    /// hold, learns of every revocation that it did not read.
    pub(crate) fn hold(&self, basis: Basis) -> Hold {
        let mut inner = self.0.held.lock();
        let inner = &mut *inner;
        if !inner.held.contains_key(&basis.partition) {
            inner.fresh.push((basis.partition.clone(), Position::ZERO));
            self.0.fresh.notify_one();
        }
        let held = inner.held.entry(basis.partition.clone()).or_default();
        held.retain(|weak| weak.strong_count() > 0);
        let same = held.iter().filter_map(Weak::upgrade).find(|held| held.is_of(&basis));
        let basis = same.unwrap_or_else(|| {
            let basis = Arc::new(basis);
            held.push(Arc::downgrade(&basis));
            basis
        });
        Hold { basis }
    }

    /// Whoever has read the record under `hold` says what it said.
    pub(crate) fn note(&self, hold: &Hold, read: Standing) {
        let mut known = hold.basis.known.lock();
        match &mut *known {
            None => *known = Some(read),
            Some(known) if known.pillars == read.pillars && known.steering == read.steering => {
                known.expires = known.expires.max(read.expires);
            }
            // One of the two is older, and nobody is to remember it.
            Some(_) => drop(self.0.epoch.fetch_add(1, Ordering::Release)),
        }
    }

    /// Looks at what is held of a record that has changed.
    ///
    /// # Errors
    /// Those of the store.
    pub(crate) async fn look_at(&self, partition: &Partition, key: &Key) -> Result<(), Error> {
        let held: Vec<_> = {
            let inner = self.0.held.lock();
            let held = inner.held.get(partition).into_iter().flatten();
            held.filter_map(Weak::upgrade).filter(|basis| basis.key == *key).collect()
        };
        for basis in held {
            self.look_at_one(&basis).await?;
        }
        Ok(())
    }

    async fn look_at_one(&self, basis: &Arc<Basis>) -> Result<(), Error> {
        let partition = &basis.partition;
        // One after the other: what was read first is not to replace what was read later.
        let turn = self.0.hasher.hash_one(partition) as usize % TURNS;
        let turn = self.0.looks_turns[turn].lock().await;
        let record = self.0.store.get(partition, &basis.key).await?;
        let looked = match (record, &basis.left) {
            (Some(record), _) => (basis.stands)(&record.value),
            (None, None) => Looked::Ended(None),
            (None, Some((key, epitaph))) => {
                let left = self.0.store.get(partition, key).await?;
                Looked::Ended(left.and_then(|left| epitaph(&left.value)))
            }
        };
        let read = match looked {
            Looked::Stands(read) => read,
            Looked::Ended(why) => {
                drop(turn);
                if let Some(held) = self.0.held.lock().held.get_mut(partition) {
                    held.retain(|weak| weak.as_ptr() != Arc::as_ptr(basis));
                }
                self.ended(partition.tenant(), basis.session, why.as_ref());
                return Ok(());
            }
        };
        let before = basis.known.lock().replace(read.clone());
        drop(turn);
        let (other_pillars, handed) = match &before {
            None => (!read.pillars.is_empty(), None),
            Some(before) => {
                let steered = before.steering != read.steering;
                if before.pillars != read.pillars || steered {
                    self.0.epoch.fetch_add(1, Ordering::Release);
                }
                let handed = before.steering.handed != read.steering.handed && !read.keeps;
                let handed = handed.then_some(read.steering.handed);
                (before.pillars != read.pillars, handed)
            }
        };
        if let (Some(session), Some(connections)) = (basis.session, &*self.0.connections.read()) {
            if other_pillars {
                connections.look_at_pillars(partition.tenant(), session);
            }
            if let Some(handed) = handed {
                connections.close_former(partition.tenant(), session, handed);
            }
        }
        Ok(())
    }

    /// As [`Self::hold`], for who has read the record before: looks at it once more.
    pub(crate) fn hold_and_look(&self, basis: Basis) -> Hold {
        let partition = basis.partition.clone();
        let hold = self.hold(basis);
        self.follow(partition, Position::ZERO);
        hold
    }

    /// Looks out for what other nodes revoke, until dropped.
    pub async fn run(self) {
        let mut watcher = store::watch(self.0.store.clone());
        let mut forget = tokio::time::interval(FORGET_EVERY);
        let mut looks = FuturesUnordered::new();
        loop {
            tokio::select! {
                () = self.0.fresh.notified() => {
                    for (partition, since) in std::mem::take(&mut self.0.held.lock().fresh) {
                        watcher.follow(partition, since);
                    }
                }
                partition = watcher.touched(), if looks.len() < LOOKS_MAX => {
                    let held = self.of_or_blocks(&mut watcher, &partition);
                    looks.push(self.look(partition, held));
                }
                Some(unseen) = looks.next() => {
                    if let Some(partition) = unseen {
                        watcher.follow(partition, Position::ZERO);
                    }
                }
                _ = forget.tick() => {
                    let partitions: Vec<_> = self.0.held.lock().held.keys().cloned().collect();
                    for partition in partitions {
                        self.of(&mut watcher, &partition);
                    }
                }
            }
        }
    }

    /// What is held of `partition`; if nothing is, it is no longer followed.
    fn of(&self, watcher: &mut Watcher, partition: &Partition) -> Vec<Arc<Basis>> {
        let mut inner = self.0.held.lock();
        let held = inner.held.get(partition);
        let living: Vec<_> = held.into_iter().flatten().filter_map(Weak::upgrade).collect();
        if living.is_empty() {
            inner.held.remove(partition);
            watcher.leave(partition);
        }
        living
    }

    /// What is held of a partition, unless it is of blocks.
    fn of_or_blocks(&self, watcher: &mut Watcher, partition: &Partition) -> Vec<Arc<Basis>> {
        match Self::is_of_blocks(partition) {
            true => Vec::new(),
            false => self.of(watcher, partition),
        }
    }

    /// Looks at what is `held` of a partition that has changed; gives it back after a while if that
    /// cannot be seen now.
    async fn look(&self, partition: Partition, held: Vec<Arc<Basis>>) -> Option<Partition> {
        if Self::is_of_blocks(&partition) {
            if let Err(problem) = self.learn_blocks(&partition).await {
                tracing::warn!(problem.detail, "blocks by other nodes cannot be seen now");
                tokio::time::sleep(PAUSE).await;
                return Some(partition);
            }
            return None;
        }
        for basis in held {
            if let Err(error) = self.look_at_one(&basis).await {
                tracing::warn!(%error, "revocations by other nodes cannot be seen now");
                tokio::time::sleep(PAUSE).await;
                return Some(partition);
            }
        }
        None
    }
}

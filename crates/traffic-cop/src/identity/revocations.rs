//! What ends before its time: a session that is destroyed or suspended, an API key that is
//! deleted, a principal that is blocked, by this node or another. And what changes: the pillars of
//! a session.

use crate::identity::blocks;
use ahash::RandomState;
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
use types::{Pillars, Principal, SessionId, TenantId};

/// How often what nobody holds any more is forgotten.
const FORGET_EVERY: Duration = Duration::from_secs(60);
/// The pause after the store did not answer.
const PAUSE: Duration = Duration::from_millis(200);

/// What the sessions need from whoever holds the sockets.
pub trait Connections: Send + Sync {
    /// Asks every connection of `session` to close. None being there is no error.
    fn close(&self, tenant: &TenantId, session: SessionId);

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
    looks_turn: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct HeldByPartition {
    held: HashMap<Partition, Vec<Weak<Basis>>, RandomState>,
    /// To be followed from now on.
    fresh: Vec<(Partition, Position)>,
}

/// The record that a credential rests on.
#[derive(Debug)]
pub(crate) struct Basis {
    pub(crate) partition: Partition,
    pub(crate) key: Key,
    /// Whose connections close with it.
    pub(crate) session: Option<SessionId>,
    /// Of the record, if it still lets anybody in: in which pillars.
    pub(crate) stands: fn(&[u8]) -> Option<Pillars>,
    /// What it said when it was looked at last.
    pub(crate) pillars: Mutex<Option<Pillars>>,
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
        self.basis.pillars.lock().clone()
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
            looks_turn: tokio::sync::Mutex::default(),
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
    pub(crate) fn revoke(&self, tenant: &TenantId, session: Option<SessionId>) {
        self.0.epoch.fetch_add(1, Ordering::Release);
        if let (Some(session), Some(connections)) = (session, &*self.0.connections.read()) {
            connections.close(tenant, session);
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

    /// Whoever has read the record under `hold` says which pillars it named.
    pub(crate) fn note(&self, hold: &Hold, read: &Pillars) {
        let mut known = hold.basis.pillars.lock();
        match &*known {
            None => *known = Some(read.clone()),
            Some(known) if known == read => {}
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
        let turn = self.0.looks_turn.lock().await;
        let record = self.0.store.get(partition, &basis.key).await?;
        let Some(read) = record.and_then(|record| (basis.stands)(&record.value)) else {
            drop(turn);
            if let Some(held) = self.0.held.lock().held.get_mut(partition) {
                held.retain(|weak| weak.as_ptr() != Arc::as_ptr(basis));
            }
            self.revoke(partition.tenant(), basis.session);
            return Ok(());
        };
        let before = basis.pillars.lock().replace(read.clone());
        drop(turn);
        if before.as_ref() == Some(&read) || (before.is_none() && read.is_empty()) {
            return Ok(());
        }
        if before.is_some() {
            self.0.epoch.fetch_add(1, Ordering::Release);
        }
        if let (Some(session), Some(connections)) = (basis.session, &*self.0.connections.read()) {
            connections.look_at_pillars(partition.tenant(), session);
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
        loop {
            tokio::select! {
                () = self.0.fresh.notified() => {
                    for (partition, since) in std::mem::take(&mut self.0.held.lock().fresh) {
                        watcher.follow(partition, since);
                    }
                }
                partition = watcher.touched() => self.look(&mut watcher, partition).await,
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

    async fn look(&self, watcher: &mut Watcher, partition: Partition) {
        if Self::is_of_blocks(&partition) {
            if let Err(problem) = self.learn_blocks(&partition).await {
                tracing::warn!(problem.detail, "blocks by other nodes cannot be seen now");
                tokio::time::sleep(PAUSE).await;
                watcher.follow(partition, Position::ZERO);
            }
            return;
        }
        for basis in self.of(watcher, &partition) {
            if let Err(error) = self.look_at_one(&basis).await {
                tracing::warn!(%error, "revocations by other nodes cannot be seen now");
                tokio::time::sleep(PAUSE).await;
                return watcher.follow(partition, Position::ZERO);
            }
        }
    }
}

//! The store itself: partitions under one lock, and the faults.

use crate::{Fault, Faults, partition::Slot};
use async_trait::async_trait;
use clock::SharedClock;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use store::{
    Bucket, Capabilities, Changes, Commit, Committed, Entry, Error, Head, Hints, Incarnation, Key,
    Kind, Partition, PartitionPage, Position, Record, ScanPage, Store, StreamName, Survives,
};
use types::{TenantId, Timestamp};

/// The store in memory. Its time is the clock's elapsed time, so that no jump of the wall
/// clock expires or resurrects anything. All of it ends with the process.
pub struct MemoryStore {
    clock: SharedClock,
    hints: Hints,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    partitions: BTreeMap<Partition, Slot>,
    faults: Faults,
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new(clock: SharedClock) -> Self {
        Self { clock, hints: Hints::reliable(), state: Mutex::default() }
    }

    /// Replaces the plan of faults; `make` gets the present one, to add to.
    pub fn plan_faults(&self, make: impl FnOnce(Faults) -> Faults) {
        let mut state = self.state.lock();
        state.faults = make(std::mem::take(&mut state.faults));
    }

    /// Loses what the loss of a process may lose: in each partition the commits of
    /// [`store::Durability::Applied`] that no durable one followed. A partition that lost some
    /// starts a new incarnation; its fence stays.
    pub fn crash(&self) {
        let mut state = self.state.lock();
        let lost: Vec<_> = state
            .partitions
            .iter_mut()
            .filter_map(|(partition, slot)| slot.crash(|| self.fresh()).then(|| partition.clone()))
            .collect();
        state.partitions.retain(|_, slot| slot.state().meta.is_some());
        drop(state);
        lost.iter().for_each(|partition| self.hints.notify(partition));
    }

    fn now(&self) -> Timestamp {
        Timestamp::default().plus(self.clock.elapsed())
    }

    fn fresh(&self) -> Incarnation {
        Incarnation(u64::from_le_bytes(clock::random(&*self.clock)).max(1))
    }

    fn reading<T>(&self, partition: &Partition, read: impl FnOnce(&Slot) -> T) -> Result<T, Error> {
        let mut state = self.state.lock();
        if state.faults.next_read_fails() {
            return Err(Error::unavailable("injected: the read is lost"));
        }
        Ok(match state.partitions.get(partition) {
            Some(slot) => read(slot),
            None => read(&Slot::default()),
        })
    }
}

#[async_trait]
impl Store for MemoryStore {
    fn capabilities(&self) -> Capabilities {
        Capabilities { engine: "memory:".to_owned(), survives: Survives::Nothing }
    }

    async fn commit(&self, commit: Commit) -> Result<Committed, Error> {
        let fault = self.state.lock().faults.next_commit();
        match fault {
            Some(Fault::LoseRequest) => {
                return Err(Error::unavailable("injected: the request is lost"));
            }
            Some(Fault::Full) => return Err(Error::Full { source: "injected".into() }),
            Some(Fault::Delay(delay)) => tokio::time::sleep(delay).await,
            Some(Fault::LoseReply) | None => {}
        }
        let partition = commit.partition.clone();
        let reply = {
            let partitions = &mut self.state.lock().partitions;
            let now = self.now();
            if let Some(slot) = partitions.get_mut(&partition) {
                slot.commit(&commit, now, || self.fresh())
            } else {
                let mut slot = Slot::default();
                let reply = slot.commit(&commit, now, || self.fresh());
                if reply.is_ok() {
                    partitions.insert(partition.clone(), slot);
                }
                reply
            }
        };
        if reply.is_ok() {
            self.hints.notify(&partition);
        }
        match fault {
            Some(Fault::LoseReply) => Err(Error::unavailable("injected: the reply is lost")),
            Some(Fault::LoseRequest | Fault::Full | Fault::Delay(_)) | None => reply,
        }
    }

    async fn head(&self, partition: &Partition) -> Result<Option<Head>, Error> {
        self.reading(partition, |slot| slot.state().meta.as_ref().map(store::rules::Meta::head))
    }

    async fn get(&self, partition: &Partition, key: &Key) -> Result<Option<Record>, Error> {
        let now = self.now();
        self.reading(partition, |slot| slot.state().get(key, now))
    }

    async fn scan(
        &self,
        partition: &Partition,
        prefix: &[u8],
        after: Option<&Key>,
        limit: usize,
    ) -> Result<ScanPage, Error> {
        let now = self.now();
        self.reading(partition, |slot| slot.state().scan(prefix, after, limit, now))
    }

    async fn read(
        &self,
        partition: &Partition,
        stream: &StreamName,
        from: u64,
        limit: usize,
    ) -> Result<Vec<Entry>, Error> {
        self.reading(partition, |slot| slot.state().read(stream, from, limit))?
    }

    async fn changes(&self, partition: &Partition, since: Position) -> Result<Changes, Error> {
        let now = self.now();
        self.reading(partition, |slot| slot.state().changes(since, now))?
    }

    fn hints(&self, _: &Partition) -> &Hints {
        &self.hints
    }

    async fn due(&self, bucket: Bucket, limit: usize) -> Result<Vec<Partition>, Error> {
        let now = self.now();
        let state = self.state.lock();
        let mut due: Vec<_> = state
            .partitions
            .iter()
            .filter(|(partition, _)| partition.bucket() == bucket)
            .filter_map(|(partition, slot)| Some((slot.state().meta.as_ref()?.wake?, partition)))
            .filter(|(wake, _)| *wake <= now)
            .collect();
        due.sort_unstable();
        Ok(due.into_iter().take(limit).map(|(_, partition)| partition.clone()).collect())
    }

    async fn list(
        &self,
        tenant: &TenantId,
        kind: &Kind,
        after: Option<&str>,
        limit: usize,
    ) -> Result<PartitionPage, Error> {
        let state = self.state.lock();
        let mut all = state
            .partitions
            .keys()
            .filter(|one| one.tenant() == tenant && one.kind() == kind)
            .filter(|one| after.is_none_or(|after| one.id() > after));
        let partitions = all.by_ref().take(limit).cloned().collect();
        Ok(PartitionPage { partitions, more: all.next().is_some() })
    }

    async fn sweep(&self, bucket: Bucket) -> Result<usize, Error> {
        let now = self.now();
        let mut count = 0;
        let mut swept = Vec::new();
        for (partition, slot) in &mut self.state.lock().partitions {
            if partition.bucket() != bucket {
                continue;
            }
            loop {
                let gone = slot.sweep(Commit::new(partition.clone()), now)?;
                if gone == 0 {
                    break;
                }
                count += gone;
                swept.push(partition.clone());
            }
        }
        swept.iter().for_each(|partition| self.hints.notify(partition));
        Ok(count)
    }
}

impl std::fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemoryStore").finish_non_exhaustive()
    }
}

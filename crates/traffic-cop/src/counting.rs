//! A store that counts what it is asked, for tests.

use async_trait::async_trait;
use parking_lot::{Mutex, RwLock};
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};
use store::{
    Bucket, Capabilities, Changes, Commit, Committed, Entry, Error, Head, Hints, Key, Kind,
    Partition, PartitionPage, Position, Record, ScanPage, SharedStore, Store, StreamName,
};
use types::TenantId;

/// Counts on the way to another store.
pub(crate) struct Counting {
    first: SharedStore,
    store: RwLock<SharedStore>,
    calls: AtomicUsize,
    before_commit: Mutex<Option<Commit>>,
    before_get: Mutex<Option<Commit>>,
}

impl Counting {
    pub(crate) fn over(store: SharedStore) -> Arc<Self> {
        let (first, store) = (store.clone(), RwLock::new(store));
        Arc::new(Self {
            first,
            store,
            calls: AtomicUsize::new(0),
            before_commit: Mutex::default(),
            before_get: Mutex::default(),
        })
    }

    /// Calls since the last time.
    pub(crate) fn calls(&self) -> usize {
        self.calls.swap(0, Ordering::Relaxed)
    }

    /// Goes on with another store, as a server does that has lost its data.
    pub(crate) fn lose(&self, store: SharedStore) {
        *self.store.write() = store;
    }

    /// Somebody else's commit, that comes just before the next one.
    pub(crate) fn before_next_commit(&self, commit: Commit) {
        *self.before_commit.lock() = Some(commit);
    }

    /// Somebody else's commit, that comes just before the next record is read.
    pub(crate) fn before_next_get(&self, commit: Commit) {
        *self.before_get.lock() = Some(commit);
    }

    fn counted(&self) -> SharedStore {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.store.read().clone()
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Store for Counting {
    fn capabilities(&self) -> Capabilities {
        self.first.capabilities()
    }

    async fn commit(&self, commit: Commit) -> Result<Committed, Error> {
        let other = self.before_commit.lock().take();
        if let Some(other) = other {
            self.counted().commit(other).await?;
        }
        self.counted().commit(commit).await
    }

    async fn head(&self, partition: &Partition) -> Result<Option<Head>, Error> {
        self.counted().head(partition).await
    }

    async fn get(&self, partition: &Partition, key: &Key) -> Result<Option<Record>, Error> {
        let other = self.before_get.lock().take();
        if let Some(other) = other {
            self.counted().commit(other).await?;
        }
        self.counted().get(partition, key).await
    }

    async fn scan(
        &self,
        partition: &Partition,
        prefix: &[u8],
        after: Option<&Key>,
        limit: usize,
    ) -> Result<ScanPage, Error> {
        self.counted().scan(partition, prefix, after, limit).await
    }

    async fn read(
        &self,
        partition: &Partition,
        stream: &StreamName,
        from: u64,
        limit: usize,
    ) -> Result<Vec<Entry>, Error> {
        self.counted().read(partition, stream, from, limit).await
    }

    async fn changes(&self, partition: &Partition, since: Position) -> Result<Changes, Error> {
        self.counted().changes(partition, since).await
    }

    fn hints(&self, partition: &Partition) -> &Hints {
        self.first.hints(partition)
    }

    async fn due(&self, bucket: Bucket, limit: usize) -> Result<Vec<Partition>, Error> {
        self.counted().due(bucket, limit).await
    }

    async fn list(
        &self,
        tenant: &TenantId,
        kind: &Kind,
        after: Option<&str>,
        limit: usize,
    ) -> Result<PartitionPage, Error> {
        self.counted().list(tenant, kind, after, limit).await
    }

    async fn sweep(&self, bucket: Bucket) -> Result<usize, Error> {
        self.counted().sweep(bucket).await
    }
}

//! A store under test, and what can be done to it.

use clock::{Clock, ManualClock};
use std::{any::Any, sync::Arc, time::Duration};
use store::{
    Bucket, Changes, Check, Commit, Committed, Entry, Error, Head, Key, Kind, Partition, Position,
    Record, SharedStore, Store, StreamName, Write,
};
use types::{TenantId, Timestamp};

/// What can be seen of a partition.
pub(crate) type View = (Option<Head>, Vec<(Key, Record)>, Changes);

type Reopen = Box<dyn Fn() -> SharedStore + Send + Sync>;

/// An empty store, and what its engine allows beyond the port.
pub struct Harness {
    store: Option<SharedStore>,
    clock: Option<Arc<ManualClock>>,
    reopen: Option<Reopen>,
    _kept: Option<Box<dyn Any + Send + Sync>>,
}

impl Harness {
    /// A store whose time is real and that is gone once closed.
    #[must_use]
    pub fn new(store: SharedStore) -> Self {
        Self { store: Some(store), clock: None, reopen: None, _kept: None }
    }

    /// The store lives by `clock`. Without it, promises about minutes cannot be checked.
    #[must_use]
    pub fn clock(mut self, clock: Arc<ManualClock>) -> Self {
        self.clock = Some(clock);
        self
    }

    /// The store can be dropped and opened again.
    #[must_use]
    pub fn reopen_with(mut self, open: impl Fn() -> SharedStore + Send + Sync + 'static) -> Self {
        self.reopen = Some(Box::new(open));
        self
    }

    /// With what `wrap` makes of the store.
    pub(crate) fn with(mut self, wrap: impl FnOnce(SharedStore) -> SharedStore) -> Self {
        self.store = self.store.take().map(wrap);
        self
    }

    /// Keeps `thing`, for instance a temporary folder, until the test has ended.
    #[must_use]
    pub fn keep(mut self, thing: impl Any + Send + Sync) -> Self {
        self._kept = Some(Box::new(thing));
        self
    }

    pub(crate) fn shared(&self) -> SharedStore {
        self.store.clone().expect("a store, except within `reopened`")
    }

    pub(crate) fn store(&self) -> &dyn Store {
        &**self.store.as_ref().expect("a store, except within `reopened`")
    }

    /// Lets time pass, or answers that it cannot.
    pub(crate) async fn passed(&self, duration: Duration) -> bool {
        if let Some(clock) = &self.clock {
            clock.advance(duration);
            return true;
        }
        if duration > Duration::from_secs(5) {
            return false;
        }
        tokio::time::sleep(duration).await;
        true
    }

    /// Sets the store's time of day back, or answers that it cannot.
    pub(crate) fn set_back(&self, duration: Duration) -> bool {
        let Some(clock) = &self.clock else { return false };
        let earlier = clock.now().0 - u64::try_from(duration.as_millis()).expect("it is short");
        clock.jump_to(Timestamp(earlier));
        true
    }

    /// Closes the store and opens it again, or answers that it cannot.
    pub(crate) fn reopened(&mut self) -> bool {
        let Some(open) = &self.reopen else { return false };
        let last = self.store.take().expect("a store");
        assert_eq!(Arc::strong_count(&last), 1, "the test still holds the store");
        drop(last);
        self.store = Some(open());
        true
    }

    pub(crate) async fn commit(&self, commit: Commit) -> Committed {
        self.store().commit(commit).await.unwrap()
    }

    pub(crate) async fn refused(&self, commit: Commit) -> Error {
        self.store().commit(commit).await.expect_err("the commit is to be refused")
    }

    pub(crate) async fn head(&self, partition: &Partition) -> Option<Head> {
        self.store().head(partition).await.unwrap()
    }

    pub(crate) async fn position(&self, partition: &Partition) -> Position {
        self.head(partition).await.map_or(Position::ZERO, |head| head.position)
    }

    pub(crate) async fn get(&self, partition: &Partition, name: &str) -> Option<Record> {
        self.store().get(partition, &key(name)).await.unwrap()
    }

    pub(crate) async fn value(&self, partition: &Partition, name: &str) -> Option<String> {
        let record = self.get(partition, name).await?;
        Some(String::from_utf8(record.value.to_vec()).unwrap())
    }

    /// Every record, by pages of `limit`.
    pub(crate) async fn scan(
        &self,
        partition: &Partition,
        prefix: &[u8],
        limit: usize,
    ) -> Vec<(Key, Record)> {
        let mut all: Vec<(Key, Record)> = Vec::new();
        loop {
            let after = all.last().map(|(key, _)| key.clone());
            let page = self.store().scan(partition, prefix, after.as_ref(), limit).await.unwrap();
            assert!(page.records.len() <= limit);
            assert!(!page.more || !page.records.is_empty(), "a page that leads nowhere");
            all.extend(page.records);
            if !page.more {
                return all;
            }
        }
    }

    /// Every entry, by pages of `limit`.
    pub(crate) async fn entries(
        &self,
        partition: &Partition,
        stream: &StreamName,
        from: u64,
        limit: usize,
    ) -> Vec<Entry> {
        let mut all: Vec<Entry> = Vec::new();
        loop {
            let from = all.last().map_or(from, |entry| entry.sequence + 1);
            let page = self.store().read(partition, stream, from, limit).await.unwrap();
            assert!(page.len() <= limit);
            if page.is_empty() {
                return all;
            }
            all.extend(page);
        }
    }

    /// Sweeps until nothing is left.
    pub(crate) async fn sweep(&self, bucket: Bucket) -> usize {
        let mut total = 0;
        loop {
            match self.store().sweep(bucket).await.unwrap() {
                0 => return total,
                count => total += count,
            }
        }
    }

    /// What can be seen of a partition.
    pub(crate) async fn view(&self, partition: &Partition) -> View {
        let changes = self.store().changes(partition, Position::ZERO).await.unwrap();
        (self.head(partition).await, self.scan(partition, b"", 1000).await, changes)
    }
}

pub(crate) const STREAM: StreamName = StreamName::new("stream");
pub(crate) const OTHER: StreamName = StreamName::new("other");
pub(crate) const KIND: Kind = Kind::new("kind");

pub(crate) fn tenant(name: &str) -> TenantId {
    TenantId::new(name).unwrap()
}

pub(crate) fn partition(id: &str) -> Partition {
    Partition::new(tenant("tenant"), KIND, id).unwrap()
}

pub(crate) fn key(name: &str) -> Key {
    Key::new(name).unwrap()
}

pub(crate) fn put(partition: &Partition, name: &str, value: &str) -> Commit {
    Commit::new(partition.clone()).put(key(name), value.to_owned())
}

pub(crate) fn append(partition: &Partition, value: &str) -> Commit {
    Commit::new(partition.clone()).append(STREAM, value.to_owned())
}

pub(crate) fn delete(partition: &Partition, name: &str) -> Commit {
    Commit::new(partition.clone()).write(Write::Delete { key: key(name) })
}

pub(crate) fn trim(partition: &Partition, first: u64) -> Commit {
    Commit::new(partition.clone()).write(Write::Trim { stream: STREAM, first })
}

pub(crate) fn expiring(partition: &Partition, name: &str, after: Duration) -> Commit {
    let value = "expiring".into();
    let write = Write::Put { key: key(name), value, expires: Some(after) };
    Commit::new(partition.clone()).write(write)
}

pub(crate) fn fenced(partition: &Partition, epoch: u64) -> Commit {
    Commit::new(partition.clone()).check(Check::Fence(epoch))
}

pub(crate) fn is_conflict(error: &Error) -> bool {
    matches!(error, Error::Conflict { .. })
}

/// A reproducible sequence: SplitMix64 (Steele, Lea, Flood 2014).
#[derive(Debug)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % bound
    }
}

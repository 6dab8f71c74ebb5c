//! Stores that break one promise on purpose, so that the suite is seen to notice on every
//! engine.

use crate::Harness;
use async_trait::async_trait;
use std::sync::Arc;
use store::{
    Bucket, Capabilities, Changes, Check, Commit, Committed, Entry, Error, Head, Hints, Key, Kind,
    Partition, PartitionPage, Position, Record, ScanPage, SharedStore, Store, StreamName, Write,
};
use types::TenantId;

/// What is not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Promise {
    /// Checks of records and positions are passed over.
    Checks,
    /// Fences are passed over.
    Fences,
    /// The same id applies twice.
    Ids,
    /// Records do not expire.
    Expiry,
    /// A page is in the wrong order.
    Order,
    /// A read from below a trim begins above it without a word.
    Trims,
    /// All tenants share what they have.
    Tenants,
    /// Watchers hear of nothing.
    Hints,
}

struct Broken {
    store: SharedStore,
    promise: Promise,
    silent: Hints,
}

impl Harness {
    /// The same store, which breaks `promise` from now on.
    #[must_use]
    pub fn broken(self, promise: Promise) -> Self {
        self.with(|store| Arc::new(Broken { store, promise, silent: Hints::reliable() }))
    }
}

impl Broken {
    fn breaks(&self, promise: Promise) -> bool {
        self.promise == promise
    }

    fn of(&self, partition: &Partition) -> Partition {
        if !self.breaks(Promise::Tenants) {
            return partition.clone();
        }
        let all = TenantId::new("all").unwrap();
        Partition::new(all, partition.kind().clone(), partition.id()).unwrap()
    }
}

#[async_trait]
impl Store for Broken {
    fn capabilities(&self) -> Capabilities {
        self.store.capabilities()
    }

    async fn commit(&self, mut commit: Commit) -> Result<Committed, Error> {
        commit.partition = self.of(&commit.partition);
        commit.checks.retain(|check| match check {
            Check::Fence(_) => !self.breaks(Promise::Fences),
            Check::Position(_)
            | Check::Incarnation(_)
            | Check::Revision { .. }
            | Check::Absent { .. } => !self.breaks(Promise::Checks),
        });
        if self.breaks(Promise::Ids) {
            commit.id = None;
        }
        if self.breaks(Promise::Expiry) {
            for write in &mut commit.writes {
                if let Write::Put { expires, .. } = write {
                    *expires = None;
                }
            }
        }
        self.store.commit(commit).await
    }

    async fn head(&self, partition: &Partition) -> Result<Option<Head>, Error> {
        self.store.head(&self.of(partition)).await
    }

    async fn get(&self, partition: &Partition, key: &Key) -> Result<Option<Record>, Error> {
        self.store.get(&self.of(partition), key).await
    }

    async fn scan(
        &self,
        partition: &Partition,
        prefix: &[u8],
        after: Option<&Key>,
        limit: usize,
    ) -> Result<ScanPage, Error> {
        let mut page = self.store.scan(&self.of(partition), prefix, after, limit).await?;
        if self.breaks(Promise::Order) {
            page.records.reverse();
        }
        Ok(page)
    }

    async fn read(
        &self,
        partition: &Partition,
        stream: &StreamName,
        from: u64,
        limit: usize,
    ) -> Result<Vec<Entry>, Error> {
        let partition = self.of(partition);
        match self.store.read(&partition, stream, from, limit).await {
            Err(Error::Trimmed { first }) if self.breaks(Promise::Trims) => {
                self.store.read(&partition, stream, first, limit).await
            }
            answer => answer,
        }
    }

    async fn changes(&self, partition: &Partition, since: Position) -> Result<Changes, Error> {
        self.store.changes(&self.of(partition), since).await
    }

    fn hints(&self, partition: &Partition) -> &Hints {
        if self.breaks(Promise::Hints) { &self.silent } else { self.store.hints(partition) }
    }

    async fn due(&self, bucket: Bucket, limit: usize) -> Result<Vec<Partition>, Error> {
        self.store.due(bucket, limit).await
    }

    async fn list(
        &self,
        tenant: &TenantId,
        kind: &Kind,
        after: Option<&str>,
        limit: usize,
    ) -> Result<PartitionPage, Error> {
        self.store.list(tenant, kind, after, limit).await
    }

    async fn sweep(&self, bucket: Bucket) -> Result<usize, Error> {
        self.store.sweep(bucket).await
    }
}

/// The check ends in a panic, or never.
#[doc(hidden)]
pub async fn caught(check: impl Future<Output = ()> + Send + 'static) {
    let checking = tokio::spawn(check);
    // A watcher that hears of nothing waits for ever.
    let ten_seconds = std::time::Duration::from_secs(10);
    match tokio::time::timeout(ten_seconds, checking).await {
        Ok(Ok(())) => panic!("the suite does not notice"),
        Ok(Err(error)) => assert!(error.is_panic()),
        Err(_) => {}
    }
}

/// One `#[tokio::test]` per promise that can be broken: the suite notices. The expression is
/// that of [`crate::store!`].
#[macro_export]
macro_rules! catches {
    ($open:expr) => {
        mod broken_promises_are_caught {
            #[allow(unused_imports, reason = "what the expression needs")]
            use super::*;
            $crate::catches! { @tests $open;
                Checks: checks, failed_checks_change_nothing;
                Fences: checks, a_smaller_fence_is_refused;
                Ids: ids, a_retry_gets_the_first_reply;
                Expiry: expiry, an_expired_record_is_returned_by_nothing;
                Order: scans, records_come_in_key_order;
                Trims: streams, below_a_trim_a_read_says_so;
                Tenants: isolation, tenants_share_nothing;
                Hints: watching, a_watcher_is_woken;
            }
        }
    };
    (@tests $open:expr; $($promise:ident: $module:ident, $check:ident;)+) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $check() {
                let broken = $open.broken($crate::broken::Promise::$promise);
                $crate::broken::caught($crate::$module::$check(broken)).await;
            }
        )+
    };
}

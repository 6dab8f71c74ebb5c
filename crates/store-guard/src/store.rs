//! A store behind its gauge.

use crate::{Condition, Config, Gauge, Report, gauge::Said};
use async_trait::async_trait;
use clock::SharedClock;
use futures_util::{StreamExt, stream::FuturesUnordered};
use std::{fmt, sync::Arc, time::Duration};
use store::{
    Bucket, Capabilities, Changes, Commit, Committed, Entry, Error, Head, Hints, Key, Kind,
    Partition, PartitionPage, Position, Record, ScanPage, SharedStore, Store, StreamName,
};
use types::TenantId;

/// How often the condition is looked at, and an engine that is away is asked.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// A store that nobody asks is asked after so long.
const QUIET_MAX: Duration = Duration::from_secs(1);
/// Probes that may wait for an answer.
const PROBES_MAX: usize = 4;
/// Partitions that are probed in turn, in buckets of their own: one server of a cluster that
/// stays away is not taken for all.
const PROBED: u64 = 16;
const KIND: Kind = Kind::new("probe");

/// A store behind its gauge: while it is away, calls are refused at once.
pub struct GuardedStore {
    store: SharedStore,
    clock: SharedClock,
    gauge: Gauge,
}

impl fmt::Debug for GuardedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GuardedStore").field("gauge", &self.gauge).finish_non_exhaustive()
    }
}

impl GuardedStore {
    /// Guards `store`; one within the process (`is_shared` false) is never away.
    #[must_use]
    pub fn new(
        store: SharedStore,
        is_shared: bool,
        config: &Config,
        clock: SharedClock,
    ) -> Arc<Self> {
        Arc::new(Self { store, clock, gauge: Gauge::new(config, is_shared) })
    }

    /// How the store is.
    #[must_use]
    pub fn report(&self) -> Report {
        self.gauge.report(self.clock.elapsed())
    }

    /// Asks a store that is away, or that nobody else asks, and one that is read-only whether
    /// it takes a write; logs when it turns. To be run once, until dropped. `name` is for the
    /// log.
    pub async fn run(self: Arc<Self>, name: &'static str) {
        let mut look = tokio::time::interval(LOOK_EVERY);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut probes = FuturesUnordered::new();
        let mut number = 0;
        loop {
            // Only the pace begins probes: one that is refused at once would begin the next.
            let may_probe = tokio::select! {
                _ = look.tick() => true,
                Some(()) = probes.next() => false,
            };
            let now = self.clock.elapsed();
            if let Some((was, is)) = self.gauge.turned(now) {
                tell(name, was, is);
                if was == Condition::Away
                    && let Ok(probed) = probed(0)
                {
                    // Watchers need not wait until they ask by themselves.
                    self.store.hints(&probed).notify_all();
                }
            }
            let condition = self.gauge.condition(now);
            let wanted = match condition {
                Condition::Away | Condition::ReadOnly => true,
                Condition::Well | Condition::Slow => self.gauge.is_quiet(now, QUIET_MAX),
            };
            if may_probe && wanted && probes.len() < PROBES_MAX {
                number += 1;
                probes.push(self.probe(number, condition == Condition::ReadOnly));
            }
        }
    }

    async fn probe(&self, number: u64, by_writing: bool) {
        let Ok(partition) = probed(number % PROBED) else { return };
        let now = || self.clock.elapsed();
        let Ok(call) = self.gauge.begin(now(), true) else { return };
        if by_writing {
            let Ok(key) = Key::new("written") else { return };
            let commit = Commit::new(partition).put(key, number.to_be_bytes().to_vec());
            let said = Said::by(&self.store.commit(commit).await, true);
            call.end(now(), said);
        } else {
            let said = Said::by(&self.store.head(&partition).await, false);
            call.end(now(), said);
        }
    }

    async fn guarded<T>(
        &self,
        writes: bool,
        answer: impl Future<Output = Result<T, Error>> + Send,
    ) -> Result<T, Error> {
        let call = self.gauge.begin(self.clock.elapsed(), false)?;
        let answer = answer.await;
        call.end(self.clock.elapsed(), Said::by(&answer, writes));
        answer
    }
}

fn probed(number: u64) -> Result<Partition, Error> {
    Partition::new(TenantId::system(), KIND, &number.to_string())
}

fn tell(name: &str, was: Condition, is: Condition) {
    let (was, is_now) = (was.as_str(), is.as_str());
    match is {
        Condition::Well => tracing::info!(store = name, was, "the store is well again"),
        Condition::Slow | Condition::ReadOnly => {
            tracing::warn!(store = name, was, is_now, "the store is not well");
        }
        Condition::Away => {
            tracing::error!(store = name, was, "the store is away: what needs it is refused");
        }
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Store for GuardedStore {
    fn capabilities(&self) -> Capabilities {
        self.store.capabilities()
    }

    async fn commit(&self, commit: Commit) -> Result<Committed, Error> {
        self.guarded(true, self.store.commit(commit)).await
    }

    async fn head(&self, partition: &Partition) -> Result<Option<Head>, Error> {
        self.guarded(false, self.store.head(partition)).await
    }

    async fn get(&self, partition: &Partition, key: &Key) -> Result<Option<Record>, Error> {
        self.guarded(false, self.store.get(partition, key)).await
    }

    async fn scan(
        &self,
        partition: &Partition,
        prefix: &[u8],
        after: Option<&Key>,
        limit: usize,
    ) -> Result<ScanPage, Error> {
        self.guarded(false, self.store.scan(partition, prefix, after, limit)).await
    }

    async fn read(
        &self,
        partition: &Partition,
        stream: &StreamName,
        from: u64,
        limit: usize,
    ) -> Result<Vec<Entry>, Error> {
        self.guarded(false, self.store.read(partition, stream, from, limit)).await
    }

    async fn changes(&self, partition: &Partition, since: Position) -> Result<Changes, Error> {
        self.guarded(false, self.store.changes(partition, since)).await
    }

    fn hints(&self, partition: &Partition) -> &Hints {
        self.store.hints(partition)
    }

    async fn due(&self, bucket: Bucket, limit: usize) -> Result<Vec<Partition>, Error> {
        self.guarded(false, self.store.due(bucket, limit)).await
    }

    async fn list(
        &self,
        tenant: &TenantId,
        kind: &Kind,
        after: Option<&str>,
        limit: usize,
    ) -> Result<PartitionPage, Error> {
        self.guarded(false, self.store.list(tenant, kind, after, limit)).await
    }

    async fn sweep(&self, bucket: Bucket) -> Result<usize, Error> {
        // It may have found nothing to write, so its success says nothing of writes.
        self.guarded(false, self.store.sweep(bucket)).await
    }
}

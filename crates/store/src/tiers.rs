//! Several engines as one store: each partition lies in the engine of its tier.

use crate::{
    Bucket, Capabilities, Changes, Commit, Committed, Entry, Error, Head, Hints, Key, Kind,
    Partition, PartitionPage, Position, Record, ScanPage, SharedStore, Store, StreamName,
};
use async_trait::async_trait;
use std::{fmt, sync::Arc};
use types::TenantId;

/// How dear a partition is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tier {
    /// Only as long as the node runs: what is changed too often to be kept at each change.
    Live,
    /// Used all the time, and made again by its users if it is lost: sessions, channels, leases.
    Hot,
    /// To be kept: documents, keys, figures.
    Durable,
}

/// A store over several engines. Which of them has a partition follows from its name alone, so
/// that every node agrees. What moves to another engine gets another name there.
pub struct Tiers {
    /// `None`: what is live is in the hot engine.
    live: Option<SharedStore>,
    hot: SharedStore,
    durable: SharedStore,
    tier_of: fn(&Partition) -> Tier,
}

impl Tiers {
    /// `hot` and `durable` as one, by `tier_of`; they may be the same.
    #[must_use]
    pub fn new(hot: SharedStore, durable: SharedStore, tier_of: fn(&Partition) -> Tier) -> Self {
        Self { live: None, hot, durable, tier_of }
    }

    /// With an engine of this node's own for what is live.
    #[must_use]
    pub fn with_live(self, live: SharedStore) -> Self {
        Self { live: Some(live), ..self }
    }

    fn of(&self, partition: &Partition) -> &dyn Store {
        match (self.tier_of)(partition) {
            Tier::Live => self.live.as_deref().unwrap_or(&*self.hot),
            Tier::Hot => &*self.hot,
            Tier::Durable => &*self.durable,
        }
    }

    /// Each engine once.
    fn engines(&self) -> impl Iterator<Item = &dyn Store> {
        let same = Arc::ptr_eq(&self.hot, &self.durable);
        let durable = (!same).then_some(&*self.durable);
        self.live.as_deref().into_iter().chain([&*self.hot]).chain(durable)
    }
}

impl fmt::Debug for Tiers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tiers").finish_non_exhaustive()
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Store for Tiers {
    /// The hot engine and the durable one; what survives is the less of the two. What is live is
    /// known to survive nothing.
    fn capabilities(&self) -> Capabilities {
        let [hot, durable] = [&self.hot, &self.durable].map(|engine| engine.capabilities());
        if Arc::ptr_eq(&self.hot, &self.durable) {
            return hot;
        }
        Capabilities {
            engine: format!("{} and {}", hot.engine, durable.engine),
            survives: hot.survives.min(durable.survives),
        }
    }

    async fn commit(&self, commit: Commit) -> Result<Committed, Error> {
        self.of(&commit.partition).commit(commit).await
    }

    async fn head(&self, partition: &Partition) -> Result<Option<Head>, Error> {
        self.of(partition).head(partition).await
    }

    async fn get(&self, partition: &Partition, key: &Key) -> Result<Option<Record>, Error> {
        self.of(partition).get(partition, key).await
    }

    async fn scan(
        &self,
        partition: &Partition,
        prefix: &[u8],
        after: Option<&Key>,
        limit: usize,
    ) -> Result<ScanPage, Error> {
        self.of(partition).scan(partition, prefix, after, limit).await
    }

    async fn read(
        &self,
        partition: &Partition,
        stream: &StreamName,
        from: u64,
        limit: usize,
    ) -> Result<Vec<Entry>, Error> {
        self.of(partition).read(partition, stream, from, limit).await
    }

    async fn changes(&self, partition: &Partition, since: Position) -> Result<Changes, Error> {
        self.of(partition).changes(partition, since).await
    }

    fn hints(&self, partition: &Partition) -> &Hints {
        self.of(partition).hints(partition)
    }

    async fn due(&self, bucket: Bucket, limit: usize) -> Result<Vec<Partition>, Error> {
        let mut due = Vec::new();
        for engine in self.engines().collect::<Vec<_>>() {
            due.extend(engine.due(bucket, limit - due.len()).await?);
        }
        Ok(due)
    }

    async fn list(
        &self,
        tenant: &TenantId,
        kind: &Kind,
        after: Option<&str>,
        limit: usize,
    ) -> Result<PartitionPage, Error> {
        let (mut partitions, mut more) = (Vec::new(), false);
        // What lies beyond an unfinished page may have others before it.
        let mut known_to: Option<Partition> = None;
        for engine in self.engines().collect::<Vec<_>>() {
            let page = engine.list(tenant, kind, after, limit).await?;
            if page.more {
                more = true;
                known_to = known_to.into_iter().chain(page.partitions.last().cloned()).min();
            }
            partitions.extend(page.partitions);
        }
        partitions.sort_unstable();
        if let Some(last) = known_to {
            partitions.retain(|partition| *partition <= last);
        }
        more |= partitions.len() > limit;
        partitions.truncate(limit);
        Ok(PartitionPage { partitions, more })
    }

    async fn sweep(&self, bucket: Bucket) -> Result<usize, Error> {
        let mut swept = 0;
        for engine in self.engines().collect::<Vec<_>>() {
            swept += engine.sweep(bucket).await?;
        }
        Ok(swept)
    }
}

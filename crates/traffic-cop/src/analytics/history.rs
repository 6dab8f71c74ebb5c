//! Figures of other nodes, and of earlier lives of this one.
//!
//! Each node appends what it counted in a second to a stream that all of them follow. A node
//! that starts reads what is left there, so its reports reach back behind its start; the stream
//! keeps about an hour of one busy node. What a node counted in its last second may be lost
//! with it.

use crate::{
    analytics::{Analytics, Counts, Histogram, Label, ring::Slot},
    storage::{self, Stored},
};
use clock::SharedClock;
use serde::{Deserialize, Serialize};
use std::{sync::Arc, time::Duration};
use store::{Commit, Durability, Entry, Kind, Partition, SharedStore, StreamName, Watcher, Write};
use types::{TenantId, Timestamp};

const KIND: Kind = Kind::new("traffic");
const SECONDS: StreamName = StreamName::new("seconds");
/// Entries that the stream keeps.
const KEPT: u64 = 4096;
/// Lines of one entry; a second with more takes several.
const LINES: usize = 256;
/// Entries that are read at once.
const READ: usize = 256;
/// Figures of a clock that runs so far ahead are left out.
const AHEAD_MAX: Duration = Duration::from_secs(60);

/// What one node counted in one second, or a part of it.
#[derive(Serialize, Deserialize)]
struct Second {
    node: String,
    at: Timestamp,
    lines: Vec<Line>,
}

impl Stored for Second {
    const VERSION: u8 = 1;
}

#[derive(Serialize, Deserialize)]
struct Line {
    route: String,
    service: String,
    tenant: Option<TenantId>,
    by_class: [u64; 6],
    limited: u64,
    bytes_in: u64,
    bytes_out: u64,
    latency: Histogram,
}

/// Tells others what is counted here, and adds what they tell.
pub struct History {
    analytics: Arc<Analytics>,
    store: SharedStore,
    clock: SharedClock,
    partition: Partition,
    /// This life of this node.
    node: String,
    /// The last entry that was read.
    last: u64,
}

impl History {
    /// The history of `analytics`, kept in `store`.
    ///
    /// # Errors
    /// None that depends on the store.
    pub fn new(
        analytics: Arc<Analytics>,
        store: SharedStore,
        clock: SharedClock,
    ) -> Result<Self, store::Error> {
        let partition = Partition::new(TenantId::system(), KIND, "")?;
        let node = storage::random_text::<12>(&*clock);
        analytics.keep_for_others();
        Ok(Self { analytics, store, clock, partition, node, last: 0 })
    }

    /// Tells and listens, until dropped.
    pub async fn run(mut self) {
        let mut watcher = store::watch(self.store.clone());
        watcher.follow(self.partition.clone(), store::Position::ZERO);
        let mut second = tokio::time::interval(Duration::from_secs(1));
        second.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = second.tick() => {
                    if let Err(error) = self.tell().await {
                        tracing::warn!(%error, "traffic figures stay here for now");
                    }
                }
                partition = watcher.touched() => self.listen(&mut watcher, partition).await,
            }
        }
    }

    async fn tell(&mut self) -> Result<(), store::Error> {
        while let Some((at, slot)) = self.analytics.next_for_others() {
            let lines: Vec<Line> = slot.iter().map(|(label, c)| self.line(label, c)).collect();
            let mut commit = Commit::new(self.partition.clone());
            commit.durability = Durability::Applied;
            let mut left = lines.into_iter();
            loop {
                let lines: Vec<Line> = left.by_ref().take(LINES).collect();
                if lines.is_empty() {
                    break;
                }
                let second = Second { node: self.node.clone(), at, lines };
                commit = commit.append(SECONDS, storage::encode(&second));
            }
            if let Some(first) = (self.last + 1).checked_sub(KEPT) {
                commit = commit.write(Write::Trim { stream: SECONDS, first });
            }
            if let Err(error) = self.store.commit(commit).await {
                self.analytics.again_for_others(at, slot);
                return Err(error);
            }
        }
        Ok(())
    }

    fn line(&self, label: &Label, counts: &Counts) -> Line {
        let name = self.analytics.name(label.route);
        Line {
            route: name.route.to_string(),
            service: name.service.to_string(),
            tenant: label.tenant.clone(),
            by_class: counts.by_class,
            limited: counts.limited,
            bytes_in: counts.bytes_in,
            bytes_out: counts.bytes_out,
            latency: counts.latency.clone(),
        }
    }

    async fn listen(&mut self, watcher: &mut Watcher, partition: Partition) {
        loop {
            match self.store.read(&self.partition, &SECONDS, self.last + 1, READ).await {
                Ok(entries) if entries.is_empty() => {
                    return self.begin_again_if_lost().await;
                }
                Ok(entries) => entries.iter().for_each(|entry| self.add(entry)),
                Err(store::Error::Trimmed { first }) => self.last = first - 1,
                Err(error) => {
                    tracing::warn!(%error, "traffic figures of other nodes are not told");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    return watcher.follow(partition, store::Position::ZERO);
                }
            }
        }
    }

    /// A store that lost its end counts its entries anew.
    async fn begin_again_if_lost(&mut self) {
        let head = self.store.head(&self.partition).await;
        let Ok(head) = head else { return };
        let held = head.iter().flat_map(|head| &head.streams).find(|held| held.stream == SECONDS);
        self.last = self.last.min(held.map_or(0, |held| held.last));
    }

    fn add(&mut self, entry: &Entry) {
        self.last = entry.sequence;
        let Ok(second) = storage::decode::<Second>(&entry.value) else { return };
        if second.node == self.node || second.at > self.clock.now().plus(AHEAD_MAX) {
            return;
        }
        let counted = second.lines.into_iter().map(|line| {
            let Line { route, service, tenant, by_class, limited, bytes_in, bytes_out, latency } =
                line;
            let label = Label { route: self.analytics.route(&route, &service), tenant };
            (label, Counts { by_class, limited, bytes_in, bytes_out, latency })
        });
        let counted: Slot = counted.collect();
        self.analytics.add_of_others(second.at, counted);
    }
}

//! What the requests and the sockets of a session do: its trail.
//!
//! It is noted in memory and written about once a second, one record for each session that did
//! something, so that a request costs no call of the store. Records expire by themselves, and of
//! a session the last ones are kept. What finds no room in memory is counted, and the count is
//! written in its place: a **gap** is told, never passed over. The end of a process takes along
//! what was noted since the last writing.

mod buffer;
mod item;
mod reading;

pub use item::{Item, Served, What};
pub use reading::{TimelineEntry, WantedTimeline};

use crate::session::{Config, trail::buffer::Buffer};
use bytes::Bytes;
use clock::SharedClock;
use futures_util::{StreamExt, stream};
use parking_lot::Mutex;
use serde_json::Value as Json;
use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};
use store::{Commit, Error, Key, Kind, Partition, SharedStore, Write};
use types::{SessionId, TenantId};

const KIND: Kind = Kind::new("trail");
/// How often what was noted is written.
const WRITTEN_EVERY: Duration = Duration::from_secs(1);
/// Commits at once.
const AT_ONCE: usize = 16;
/// Records of a commit, and their bytes.
const COMMIT_RECORDS: usize = 64;
const COMMIT_BYTES: usize = 512 * 1024;
/// Items of a record.
const RECORD_ITEMS: usize = 100;
/// Sessions whose records are counted; beyond it, counting begins anew.
const COUNTED_MAX: usize = 65_536;
/// The partition of what concerns all sessions of a tenant.
const ALL: &str = "all";
const VERSION: u8 = 1;

/// What is kept apart, so that neither takes the other's room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Class {
    /// Sockets that open and close, which are events of the session.
    Sockets,
    /// Everything else that it does.
    Timeline,
}

impl Class {
    fn letter(self) -> char {
        match self {
            Self::Sockets => 's',
            Self::Timeline => 't',
        }
    }
}

/// The trails of all sessions. Cheap to clone.
#[derive(Clone)]
pub struct Trail(Arc<Inner>);

struct Inner {
    store: SharedStore,
    clock: SharedClock,
    buffer: Buffer,
    /// Whether more than sockets is noted.
    timeline: bool,
    keep: Duration,
    most: [usize; 2],
    /// Tells this node's records from others' of the same moment.
    node: u32,
    number: AtomicU32,
    /// How many items were written of a session since its records were counted.
    written: Mutex<HashMap<(SessionId, Class), usize>>,
    turn: tokio::sync::Mutex<()>,
}

impl fmt::Debug for Trail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trail").finish_non_exhaustive()
    }
}

/// What is to be written of one session.
struct Batch {
    tenant: TenantId,
    session: SessionId,
    class: Class,
    items: Vec<Item>,
}

impl Trail {
    pub(super) fn new(store: SharedStore, clock: SharedClock, config: &Config) -> Self {
        Self(Arc::new(Inner {
            buffer: Buffer::new(config.timeline_buffer_max),
            timeline: config.timeline,
            keep: config.events_keep,
            most: [config.events_max, config.timeline_events_max],
            node: u32::from_le_bytes(clock::random(&*clock)),
            number: AtomicU32::new(0),
            written: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
            store,
            clock,
        }))
    }

    /// Whether anything but sockets is noted. Whoever asks first need not find out what there is
    /// to note.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.0.timeline
    }

    /// Notes what a session did just now. Never waits.
    pub fn note(&self, tenant: &TenantId, session: SessionId, what: What) {
        let class = what.class();
        if class == Class::Timeline && !self.0.timeline {
            return;
        }
        let item = Item { at: self.0.clock.now(), what };
        self.0.buffer.put(tenant, session, class, item);
    }

    /// How many items found no room.
    #[must_use]
    pub fn missed(&self) -> u64 {
        self.0.buffer.missed()
    }

    /// Writes what was noted, about once a second, until dropped.
    pub async fn run(self) {
        let mut pace = tokio::time::interval(WRITTEN_EVERY);
        pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            pace.tick().await;
            self.write().await;
        }
    }

    /// Writes what was noted. What the store does not take is kept, as far as there is room.
    pub async fn write(&self) {
        let _turn = self.0.turn.lock().await;
        let mut by_partition = HashMap::<(TenantId, u64), Vec<Batch>>::new();
        for batch in self.0.buffer.take(self.0.clock.now()) {
            let place = (batch.tenant.clone(), batch.session.shelf());
            by_partition.entry(place).or_default().push(batch);
        }
        let writing = by_partition.into_iter().map(|((tenant, shelf), batches)| async move {
            match partition(&tenant, shelf) {
                Ok(partition) => self.write_some(&partition, batches).await,
                Err(error) => tracing::error!(%error, "a trail has no place"),
            }
        });
        stream::iter(writing).buffer_unordered(AT_ONCE).collect::<()>().await;
        for (tenant, gap) in self.0.buffer.take_blind() {
            if let Err(error) = self.write_blind(&tenant, &gap).await {
                tracing::debug!(%error, "that something is not known is not written yet");
                self.0.buffer.blind_again(tenant, gap);
            }
        }
    }

    async fn write_some(&self, partition: &Partition, batches: Vec<Batch>) {
        let mut records: Vec<(Key, Bytes, usize)> = Vec::new();
        for batch in &batches {
            for items in batch.items.chunks(RECORD_ITEMS) {
                records.push(self.record(batch.session, batch.class, items));
            }
        }
        let mut left = &records[..];
        while !left.is_empty() {
            let (mut count, mut bytes) = (0, 0);
            for (_, value, _) in left.iter().take(COMMIT_RECORDS) {
                bytes += value.len();
                if count > 0 && bytes > COMMIT_BYTES {
                    break;
                }
                count += 1;
            }
            let (now, later) = left.split_at(count);
            let commit = now.iter().fold(Commit::new(partition.clone()), |commit, record| {
                let (key, value) = (record.0.clone(), record.1.clone());
                commit.write(Write::Put { key, value, expires: Some(self.0.keep) })
            });
            if let Err(error) = self.0.store.commit(commit).await {
                // It comes again. If only the answer was lost, it is there twice then.
                tracing::debug!(%error, "the trail of sessions is written later");
                let written = records.len() - left.len();
                return self.put_back(batches, written);
            }
            left = later;
        }
        for batch in batches {
            self.bound(partition, batch.session, batch.class, batch.items.len()).await;
        }
    }

    /// Keeps what was not written: all but the first `written` records of `batches`.
    fn put_back(&self, batches: Vec<Batch>, mut written: usize) {
        for batch in batches {
            let of_it = batch.items.len().div_ceil(RECORD_ITEMS).min(written);
            written -= of_it;
            for item in batch.items.into_iter().skip(of_it * RECORD_ITEMS) {
                self.0.buffer.put(&batch.tenant, batch.session, batch.class, item);
            }
        }
    }

    async fn write_blind(&self, tenant: &TenantId, gap: &Item) -> Result<(), Error> {
        let partition = Partition::new(tenant.clone(), KIND, ALL)?;
        let key = self.key("all/t", gap.at.0, 1);
        let value = encoded(std::slice::from_ref(gap));
        let write = Write::Put { key, value, expires: Some(self.0.keep) };
        self.0.store.commit(Commit::new(partition).write(write)).await.map(drop)
    }

    fn record(&self, session: SessionId, class: Class, items: &[Item]) -> (Key, Bytes, usize) {
        let at = items.first().map_or(0, |item| item.at.0);
        let key = self.key(&prefix(session, class), at, items.len());
        (key, encoded(items), items.len())
    }

    fn key(&self, prefix: &str, at: u64, count: usize) -> Key {
        let (node, number) = (self.0.node, self.0.number.fetch_add(1, Relaxed));
        let key = format!("{prefix}/{at:013}-{node:08x}{number:08x}-{count}");
        Key::new(key).expect("a session and three numbers are short")
    }

    /// Keeps the last records of a session. They are counted now and then, so that there may be a
    /// quarter more.
    async fn bound(&self, partition: &Partition, session: SessionId, class: Class, new: usize) {
        let most = self.0.most[class as usize];
        {
            let mut written = self.0.written.lock();
            if written.len() >= COUNTED_MAX {
                written.clear();
            }
            let count = written.entry((session, class)).or_default();
            *count += new;
            if *count < (most / 4).max(1) {
                return;
            }
            *count = 0;
        }
        if let Err(error) = self.trim(partition, session, class, most).await {
            tracing::debug!(%error, "the trail of a session is trimmed later");
        }
    }

    async fn trim(
        &self,
        partition: &Partition,
        session: SessionId,
        class: Class,
        most: usize,
    ) -> Result<(), Error> {
        let keys = self.keys(partition, &format!("{}/", prefix(session, class))).await?;
        let mut room = most;
        let kept = keys.iter().rev().take_while(|(_, count)| {
            let fits = room > 0;
            room = room.saturating_sub(*count);
            fits
        });
        let gone = keys.len() - kept.count();
        for some in keys[..gone].chunks(COMMIT_RECORDS) {
            let commit = some.iter().fold(Commit::new(partition.clone()), |commit, (key, _)| {
                commit.write(Write::Delete { key: key.clone() })
            });
            self.0.store.commit(commit.applied()).await?;
        }
        Ok(())
    }

    /// The records under a prefix, in order of time, and how many items each has.
    async fn keys(&self, partition: &Partition, prefix: &str) -> Result<Vec<(Key, usize)>, Error> {
        let mut keys = Vec::new();
        let mut after: Option<Key> = None;
        loop {
            let page = self.0.store.scan(partition, prefix.as_bytes(), after.as_ref(), 1_000);
            let page = page.await?;
            keys.extend(page.records.iter().map(|(key, _)| (key.clone(), count_of(key))));
            after = page.records.into_iter().next_back().map(|(key, _)| key);
            if !page.more || after.is_none() {
                return Ok(keys);
            }
        }
    }
}

fn partition(tenant: &TenantId, shelf: u64) -> Result<Partition, Error> {
    Partition::new(tenant.clone(), KIND, &format!("{shelf:016x}"))
}

fn prefix(session: SessionId, class: Class) -> String {
    format!("{session}/{}", class.letter())
}

/// How many items a record has, as its key says.
fn count_of(key: &Key) -> usize {
    let text = std::str::from_utf8(key.as_bytes()).unwrap_or_default();
    text.rsplit('-').next().and_then(|count| count.parse().ok()).unwrap_or(1)
}

fn encoded(items: &[Item]) -> Bytes {
    let mut bytes = vec![VERSION];
    let items: Vec<Json> = items.iter().map(Item::written).collect();
    serde_json::to_writer(&mut bytes, &items).expect("items have text keys");
    bytes.into()
}

#[cfg(test)]
mod tests;

//! The live tier over an orderly restart: histories are parked in the store when the node stops,
//! and taken out again before it serves.
//!
//! A mark is written last and removed first, each by a commit of its own: what a node that was
//! killed has left without a mark is not whole, and counts as nothing.

use crate::{
    channel::{self, Channel},
    live::{History, Live, OVERHEAD},
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::{collections::VecDeque, time::Duration};
use store::{Commit, Error, Incarnation, Key, Kind, Partition, Store, Write};
use types::TenantId;

const KIND: Kind = Kind::new("parked");
/// Partitions that share the load.
const PARTITIONS: usize = 16;
/// Bytes of one record, and of one commit, at most; below what a store takes.
const RECORD_BYTES: usize = 128 * 1024;
const COMMIT_BYTES: usize = 512 * 1024;
const COMMIT_WRITES: usize = 64;
const SCANNED: usize = 64;

/// Some publications of one history, one after the other.
#[derive(Serialize, Deserialize)]
struct Parked {
    tenant: TenantId,
    channel: String,
    epoch: u64,
    /// The offset of the first one here.
    first: u64,
    /// The last offset of the history.
    last: u64,
    /// How long all are kept from now on, in milliseconds.
    left_ms: Option<u64>,
    publications: Vec<Box<RawValue>>,
}

impl Live {
    /// Writes what is here to `store`. Returns the number of histories.
    ///
    /// # Errors
    /// Those of the store: then nothing is parked.
    pub(crate) async fn park(&self, store: &dyn Store) -> Result<usize, Error> {
        clear(store).await?;
        let (records, histories) = self.records();
        let mut number = 0;
        let mut records = records.into_iter().peekable();
        for at in (0..PARTITIONS).cycle() {
            let mut commit = Commit::new(partition(at)?);
            let mut bytes = 0;
            while let Some(record) = records.next_if(|record| {
                commit.writes.len() < COMMIT_WRITES && bytes + record.len() <= COMMIT_BYTES
            }) {
                bytes += record.len();
                commit = commit.put(Key::new(format!("{number:012}"))?, record);
                number += 1;
            }
            if commit.writes.is_empty() {
                break;
            }
            store.commit(commit).await?;
        }
        store.commit(Commit::new(marked()?).put(mark()?, Vec::new())).await?;
        Ok(histories)
    }

    /// Takes out what was parked in `store`, once. Returns the number of histories.
    ///
    /// # Errors
    /// Those of the store: then nothing is here.
    pub(crate) async fn unpark(&self, store: &dyn Store) -> Result<usize, Error> {
        if store.get(&marked()?, &mark()?).await?.is_none() {
            return Ok(0);
        }
        let mut all = Vec::new();
        for at in 0..PARTITIONS {
            let partition = partition(at)?;
            let mut after: Option<Key> = None;
            loop {
                let page = store.scan(&partition, b"", after.as_ref(), SCANNED).await?;
                after = page.records.last().map(|(key, _)| key.clone());
                all.extend(page.records.into_iter().map(|(key, record)| (key, record.value)));
                if !page.more {
                    break;
                }
            }
        }
        clear(store).await?;
        all.sort_by(|(one, _), (other, _)| one.cmp(other));
        let mut histories = 0;
        for (_, value) in &all {
            match serde_json::from_slice(value) {
                Ok(parked) => histories += usize::from(self.put_back(parked)),
                Err(error) => tracing::error!(%error, "a parked history cannot be read"),
            }
        }
        Ok(histories)
    }

    /// All histories in records, those that were not used for longest first; and how many
    /// histories there are.
    fn records(&self) -> (Vec<Vec<u8>>, usize) {
        let now = self.0.clock.elapsed();
        let (mut records, mut histories) = (Vec::new(), 0);
        for shard in &self.0.shards {
            for (channel, history) in shard.lock().histories.iter().rev() {
                histories += 1;
                records.extend(history.records(channel, now));
            }
        }
        (records, histories)
    }

    /// Whether this began a history, and did not only go on with one.
    fn put_back(&self, parked: Parked) -> bool {
        let Ok(channel) = Channel::new(&parked.tenant, &parked.channel) else { return false };
        let epoch = Incarnation(parked.epoch);
        self.with(&channel, |history, now| {
            let is_new = history.epoch != epoch;
            if is_new {
                let kept = VecDeque::new();
                *history = History { epoch, last: 0, kept, bytes: OVERHEAD, until: None };
            }
            // If one between has not come, those before it do not lead to these.
            if history.kept.back().is_some_and(|last| last.offset + 1 != parked.first) {
                while history.pop() {}
            }
            history.last = parked.last;
            history.until = parked.left_ms.map(|left| now + Duration::from_millis(left));
            for (at, publication) in parked.publications.iter().enumerate() {
                let offset = parked.first + at as u64;
                match channel::from_json(publication.get().as_bytes(), offset) {
                    Ok(publication) => history.push(publication),
                    // Those before it would not lead to those after it.
                    Err(_) => while history.pop() {},
                }
            }
            is_new
        })
    }
}

impl History {
    fn records(&self, channel: &Channel, now: Duration) -> Vec<Vec<u8>> {
        let left = self.until.map(|until| until.saturating_sub(now).as_millis());
        let record = |publications: Vec<Box<RawValue>>, next: u64| {
            let parked = Parked {
                tenant: channel.tenant().clone(),
                channel: channel.name().to_owned(),
                epoch: self.epoch.0,
                first: next - publications.len() as u64,
                last: self.last,
                left_ms: left.map(|left| u64::try_from(left).unwrap_or(u64::MAX)),
                publications,
            };
            serde_json::to_vec(&parked).expect("it has text keys")
        };
        let (mut records, mut some, mut bytes) = (Vec::new(), Vec::new(), 0);
        for publication in &self.kept {
            let json = channel::to_json(publication);
            let length = json.get().len();
            if length > RECORD_BYTES {
                // It has no room, and those before it would not lead to those after it.
                (records, some, bytes) = (Vec::new(), Vec::new(), 0);
                continue;
            }
            if bytes + length > RECORD_BYTES {
                records.push(record(std::mem::take(&mut some), publication.offset));
                bytes = 0;
            }
            bytes += length;
            some.push(json);
        }
        records.push(record(some, self.last + 1));
        records
    }
}

/// Removes what was parked, the mark first.
async fn clear(store: &dyn Store) -> Result<(), Error> {
    store.commit(Commit::new(marked()?).write(Write::Delete { key: mark()? })).await?;
    for at in 0..PARTITIONS {
        let partition = partition(at)?;
        loop {
            let page = store.scan(&partition, b"", None, SCANNED).await?;
            let mut commit = Commit::new(partition.clone());
            for (key, _) in page.records {
                commit = commit.write(Write::Delete { key });
            }
            if commit.writes.is_empty() {
                break;
            }
            store.commit(commit).await?;
        }
    }
    Ok(())
}

fn partition(at: usize) -> Result<Partition, Error> {
    Partition::new(TenantId::system(), KIND, &at.to_string())
}

/// Where the mark is.
fn marked() -> Result<Partition, Error> {
    Partition::new(TenantId::system(), KIND, "mark")
}

fn mark() -> Result<Key, Error> {
    Key::new("whole")
}

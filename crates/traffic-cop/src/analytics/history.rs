//! Spans in the store, where they outlive the node and are seen by others.
//!
//! Each life of a node writes what it has counted of a span, all of it, under a key of its own; when
//! it has counted more it writes that again. So nothing is counted twice, whatever is repeated, comes
//! late or comes twice: what there was in a span is the sum of what each life says. A node that is
//! killed loses what it counted since it last wrote. Old spans expire.

use crate::{
    analytics::{
        Analytics,
        period::{Period, Width},
        ring::Piece,
    },
    storage,
};
use bytes::Bytes;
use clock::SharedClock;
use std::{sync::Arc, time::Duration};
use store::{Commit, Key, Kind, Partition, SharedStore, Write};
use tokio::sync::Mutex;
use types::TenantId;

const KIND: Kind = Kind::new("traffic");
const VERSION: u8 = 2;
/// Bytes of a record's part: a value of the store.
const PART_BYTES: usize = 240 * 1024;
const LIFE_BYTES: usize = 16;
/// Records that are read at once.
const READ: usize = 64;

/// Where spans are kept.
pub(super) struct Kept {
    store: SharedStore,
    /// This life of this node.
    life: String,
}

impl std::fmt::Debug for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kept").field("life", &self.life).finish_non_exhaustive()
    }
}

fn partition(width: &Width, block: u64) -> Result<Partition, store::Error> {
    Partition::new(TenantId::system(), KIND, &format!("{}-{block}", width.name))
}

/// Begins with the time, so that records are read in its order.
fn key(life: &str, piece: &Piece, part: u8) -> Result<Key, store::Error> {
    let mut key = Vec::with_capacity(8 + LIFE_BYTES + 5);
    key.extend(piece.start.to_be_bytes());
    key.extend(life.as_bytes());
    key.extend(piece.count.to_be_bytes());
    key.push(part);
    Key::new(key)
}

/// What a key says: the beginning of the span, life and count, and the part.
fn parsed(key: &Key) -> Option<(u64, &[u8], u8)> {
    let (start, rest) = key.as_bytes().split_first_chunk::<8>()?;
    let (part, whose) = rest.split_last()?;
    (whose.len() == LIFE_BYTES + 4).then_some((u64::from_be_bytes(*start), whose, *part))
}

impl Kept {
    async fn write(&self, piece: &Piece) -> Result<(), store::Error> {
        let mut commit = Commit::new(partition(piece.width, piece.width.block_of(piece.start))?);
        let parts = piece.bytes.len().div_ceil(PART_BYTES).max(1);
        for part in 0..parts {
            let from = part * PART_BYTES;
            let to = (from + PART_BYTES).min(piece.bytes.len());
            // A record has four parts at most.
            let mut value = vec![VERSION, parts as u8];
            value.extend_from_slice(&piece.bytes[from..to]);
            commit = commit.write(Write::Put {
                key: key(&self.life, piece, part as u8)?,
                value: value.into(),
                expires: Some(piece.width.kept()),
            });
        }
        self.store.commit(commit).await.map(drop)
    }

    /// The records of a period in one of its partitions, apart from those of this life that are
    /// `held`: beginning and bytes, in order of time.
    pub(super) async fn read(
        &self,
        period: &Period,
        block: u64,
        held: &[Piece],
    ) -> Result<Vec<(u64, Bytes)>, store::Error> {
        let is_held = |start: u64, whose: &[u8]| {
            let count = whose.strip_prefix(self.life.as_bytes());
            let is_piece = |piece: &Piece| {
                piece.start == start && count == Some(piece.count.to_be_bytes().as_slice())
            };
            count.is_some() && held.iter().any(is_piece)
        };
        let partition = partition(period.width, block)?;
        let mut after = Key::new(period.from.to_be_bytes())?;
        let mut records = Vec::new();
        let mut open: Option<(u64, Vec<u8>, Parts)> = None;
        'pages: loop {
            let page = self.store.scan(&partition, b"", Some(&after), READ).await?;
            let Some(last) = page.records.last() else { break };
            after = last.0.clone();
            for (key, record) in &page.records {
                let Some((start, whose, part)) = parsed(key) else { continue };
                if !period.has(start) {
                    break 'pages;
                }
                if is_held(start, whose) {
                    continue;
                }
                let is_same = open.as_ref().is_some_and(|(at, of, _)| *at == start && of == whose);
                if !is_same {
                    records.extend(open.take().and_then(|(at, _, parts)| parts.whole(at)));
                }
                let (_, _, parts) =
                    open.get_or_insert_with(|| (start, whose.to_vec(), Parts::default()));
                parts.add(part, &record.value);
            }
        }
        records.extend(open.take().and_then(|(at, _, parts)| parts.whole(at)));
        Ok(records)
    }
}

/// The parts of a record as they are read.
#[derive(Default)]
struct Parts {
    bytes: Vec<u8>,
    read: u8,
    of: u8,
}

impl Parts {
    fn add(&mut self, part: u8, value: &[u8]) {
        let Some(([VERSION, of], bytes)) = value.split_first_chunk::<2>() else { return };
        // Of an earlier, longer writing there may be more of them.
        if part == self.read && (part == 0 || part < self.of) {
            if part == 0 {
                self.of = *of;
            }
            self.read += 1;
            self.bytes.extend_from_slice(bytes);
        }
    }

    fn whole(self, start: u64) -> Option<(u64, Bytes)> {
        (self.read > 0 && self.read == self.of).then(|| (start, self.bytes.into()))
    }
}

/// Writes what is counted to the store.
pub struct History {
    analytics: Arc<Analytics>,
    clock: SharedClock,
    interval: Duration,
    /// One at a time.
    writing: Mutex<()>,
}

impl History {
    /// The history of `analytics`, kept in `store`. There is one for each [`Analytics`].
    #[must_use]
    pub fn new(analytics: Arc<Analytics>, store: SharedStore, clock: SharedClock) -> Self {
        let life = storage::random_text::<12>(&*clock);
        analytics.keep_in(Kept { store, life });
        let interval = analytics.flush_interval();
        Self { analytics, clock, interval, writing: Mutex::new(()) }
    }

    /// Writes each interval, until dropped.
    pub async fn run(&self) {
        let mut pace = tokio::time::interval(self.interval);
        pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            pace.tick().await;
            if let Err(error) = self.flush().await {
                tracing::warn!(%error, "traffic figures stay in memory for now");
            }
        }
    }

    /// Writes what has changed since it was last written. What recorders hold has to be handed over
    /// before.
    ///
    /// # Errors
    /// The store's; what could not be written is written the next time.
    pub async fn flush(&self) -> Result<(), store::Error> {
        let _one = self.writing.lock().await;
        let Some(kept) = self.analytics.kept() else { return Ok(()) };
        self.analytics.tick(self.clock.now());
        for piece in self.analytics.unwritten() {
            kept.write(&piece).await?;
            self.analytics.is_written(&piece);
        }
        Ok(())
    }
}

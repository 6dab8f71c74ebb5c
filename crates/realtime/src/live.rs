//! The live tier of channels: the last publications of each, in this node's memory.
//!
//! What is here ends with the process, unless it was stopped in order (`parked`). Whoever comes
//! back to a history that is no more finds another epoch, and is told that it lost some.

mod parked;

use crate::channel::Channel;
use ahash::RandomState;
use clock::SharedClock;
use lru::LruCache;
use parking_lot::Mutex;
use protocol::client::Publication;
use std::{collections::VecDeque, sync::Arc, time::Duration};
use store::{Error, Incarnation, Position};

const SHARDS: usize = 16;
/// What a publication costs beside its data and tags, and a history beside its publications.
const OVERHEAD: usize = 384;

/// How much of a channel is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Keep {
    /// Publications.
    pub(crate) size: u64,
    /// How long after the last one; `None`: as long as there is room.
    pub(crate) ttl: Option<Duration>,
}

/// Where a history stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) epoch: Incarnation,
    /// The offset of the first publication that is kept, if one is.
    pub(crate) first: u64,
    /// The offset of the last one that was published.
    pub(crate) last: u64,
}

/// The histories of the live tier. Cheap to clone. Those that nobody has used for longest make
/// room for others.
#[derive(Clone)]
pub(crate) struct Live(Arc<Inner>);

struct Inner {
    shards: Vec<Mutex<Shard>>,
    hasher: RandomState,
    clock: SharedClock,
    /// Of one shard.
    bytes_max: usize,
}

struct Shard {
    histories: LruCache<Channel, History, RandomState>,
    bytes: usize,
}

struct History {
    epoch: Incarnation,
    last: u64,
    kept: VecDeque<Publication>,
    bytes: usize,
    /// When they are no longer kept.
    until: Option<Duration>,
}

impl Live {
    /// Nothing yet, and never more than `bytes_max`, of which one channel has a sixteenth at most.
    pub(crate) fn new(bytes_max: usize, clock: SharedClock) -> Self {
        let shard = || {
            let histories = LruCache::unbounded_with_hasher(RandomState::default());
            Mutex::new(Shard { histories, bytes: 0 })
        };
        let shards = (0..SHARDS).map(|_| shard()).collect();
        let bytes_max = bytes_max / SHARDS;
        Self(Arc::new(Inner { shards, hasher: RandomState::default(), clock, bytes_max }))
    }

    /// Histories that are kept, and their bytes.
    pub(crate) fn size(&self) -> (u64, u64) {
        self.0.shards.iter().map(|shard| shard.lock()).fold((0, 0), |(count, bytes), shard| {
            (count + shard.histories.len() as u64, bytes + shard.bytes as u64)
        })
    }

    /// Where the channel stands. One that nobody has used begins.
    pub(crate) fn standing(&self, channel: &Channel) -> Standing {
        self.with(channel, |history, _| history.standing())
    }

    /// Keeps a publication; returns it with its offset, and the epoch.
    pub(crate) fn append(
        &self,
        channel: &Channel,
        publication: Publication,
        keep: Keep,
    ) -> (Incarnation, Publication) {
        self.with(channel, |history, now| {
            history.last += 1;
            history.until = keep.ttl.map(|ttl| now + ttl);
            let publication = Publication { offset: history.last, ..publication };
            history.push(publication.clone());
            let most = self.0.bytes_max;
            while history.kept.len() as u64 > keep.size || history.bytes > most.max(OVERHEAD) {
                history.pop();
            }
            (history.epoch, publication)
        })
    }

    /// Up to `limit` publications from the offset `from` on.
    ///
    /// # Errors
    /// `Lagged` if the channel lives another life than `epoch`; `Trimmed` if not all from there
    /// on are kept.
    pub(crate) fn read(
        &self,
        channel: &Channel,
        epoch: Incarnation,
        from: u64,
        limit: usize,
    ) -> Result<Vec<Publication>, Error> {
        self.with(channel, |history, _| {
            let Standing { epoch: now, first, last } = history.standing();
            if now != epoch {
                let position = Position { incarnation: now, revision: last };
                return Err(Error::Lagged { position });
            }
            if from < first {
                return Err(Error::Trimmed { first });
            }
            let behind = usize::try_from(from - first).unwrap_or(usize::MAX);
            Ok(history.kept.iter().skip(behind).take(limit).cloned().collect())
        })
    }

    /// Does something with a history, at this time; makes room if it has grown.
    fn with<T>(&self, channel: &Channel, act: impl FnOnce(&mut History, Duration) -> T) -> T {
        let Inner { shards, hasher, clock, bytes_max } = &*self.0;
        let now = clock.elapsed();
        let at = (hasher.hash_one(channel) as usize) % SHARDS;
        let mut shard = shards[at].lock();
        let shard = &mut *shard;
        let mut is_new = false;
        let history = shard.histories.get_or_insert_mut_ref(channel, || {
            is_new = true;
            let epoch = Incarnation(u64::from_le_bytes(clock::random(&**clock)).max(1));
            History { epoch, last: 0, kept: VecDeque::new(), bytes: OVERHEAD, until: None }
        });
        let before = if is_new { 0 } else { history.bytes };
        if history.until.is_some_and(|until| until <= now) {
            while history.pop() {}
            history.kept.shrink_to_fit();
            history.until = None;
        }
        let outcome = act(history, now);
        let after = history.bytes;
        shard.bytes = shard.bytes + after - before;
        while shard.bytes > *bytes_max && shard.histories.len() > 1 {
            if let Some((_, gone)) = shard.histories.pop_lru() {
                shard.bytes -= gone.bytes;
            }
        }
        outcome
    }
}

impl History {
    fn standing(&self) -> Standing {
        let Self { epoch, last, .. } = *self;
        Standing { epoch, first: last + 1 - self.kept.len() as u64, last }
    }

    fn push(&mut self, publication: Publication) {
        self.bytes += cost(&publication);
        self.kept.push_back(publication);
    }

    fn pop(&mut self) -> bool {
        let gone = self.kept.pop_front();
        self.bytes -= gone.as_ref().map_or(0, cost);
        gone.is_some()
    }
}

fn cost(publication: &Publication) -> usize {
    let tags = publication.tags.iter().map(|(name, value)| name.len() + value.len() + 64);
    OVERHEAD + publication.data.get().len() + tags.sum::<usize>()
}

#[cfg(test)]
mod tests;

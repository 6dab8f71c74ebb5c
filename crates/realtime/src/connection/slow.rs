//! What becomes of publications for a client that reads slowly: by its namespace, once half of
//! the connection's queue is full.

use crate::{
    Slow,
    channel::Channel,
    connection::{Connection, Subscription},
    frame::{Frame, Frames},
};
use ahash::RandomState;
use protocol::client::Disconnect;
use std::{collections::HashMap, sync::Arc};

/// What is to be done with a publication.
pub(super) enum Fate {
    /// It is queued.
    Queue,
    /// It waits, and the one that waited before it is dropped.
    Wait,
    /// Its subscription ends.
    End,
}

/// What waits for a client that is behind: of a value the newest publication, of a map the newest
/// of each key. Told in the order in which they came, so that the client has all up to the last
/// one that it was told.
#[derive(Default)]
pub(super) struct Newest {
    by_key: HashMap<Option<Arc<str>>, (u64, Frames), RandomState>,
    /// How many came.
    count: u64,
    bytes: usize,
}

impl Newest {
    /// Lets `frames` wait in the place of what waits for the same key; `bytes` gives what a
    /// client's frame takes.
    fn put(&mut self, key: Option<Arc<str>>, frames: Frames, bytes: impl Fn(&Frames) -> usize) {
        self.count += 1;
        self.bytes += bytes(&frames);
        if let Some((_, before)) = self.by_key.insert(key, (self.count, frames)) {
            self.bytes -= bytes(&before);
        }
    }

    fn in_order(self) -> Vec<Frames> {
        let mut all: Vec<_> = self.by_key.into_values().collect();
        all.sort_unstable_by_key(|(number, _)| *number);
        all.into_iter().map(|(_, frames)| frames).collect()
    }
}

impl Subscription {
    /// What is to be done with the next publication of a connection that is `behind`, or not.
    pub(super) fn fate(&self, behind: bool) -> Fate {
        match self.slow {
            // What waits for other keys is told first.
            Slow::Conflate if behind || (self.map && self.waiting.is_some()) => Fate::Wait,
            Slow::Resubscribe if behind => Fate::End,
            Slow::Conflate | Slow::Resubscribe | Slow::Disconnect => Fate::Queue,
        }
    }
}

impl Connection {
    /// Queues what waits for the queue to be empty; false if nothing does.
    pub(super) fn release(&self) -> bool {
        let waiting: Vec<_> = {
            let mut subscriptions = self.subscriptions.borrow_mut();
            let waiting = subscriptions.iter_mut().filter_map(|held| {
                let newest = held.waiting.take()?;
                held.based = true;
                let dialect = held.dialect(self.encoding);
                Some((held.channel.clone(), newest.in_order(), dialect))
            });
            waiting.collect()
        };
        for (channel, all, dialect) in &waiting {
            for frames in all {
                self.push_one_of(channel, frames, *dialect, false);
            }
        }
        !waiting.is_empty()
    }

    /// Lets `frames` wait in the place of what waits already, of a map for the same `key`. All
    /// that waits together takes no more room than the queue leaves.
    pub(super) fn let_wait(&self, channel: &Channel, key: Option<&Arc<str>>, frames: &Frames) {
        let mut subscriptions = self.subscriptions.borrow_mut();
        let mut bytes = 0;
        for held in &mut *subscriptions {
            if held.channel == *channel {
                let dialect = held.dialect(self.encoding);
                let key = key.filter(|_| held.map).cloned();
                let newest = held.waiting.get_or_insert_default();
                newest
                    .put(key, frames.clone(), |one| one.get(dialect, false).map_or(0, Frame::len));
                // The next one has nothing to differ from.
                held.based = false;
            }
            bytes += held.waiting.as_ref().map_or(0, |newest| newest.bytes);
        }
        if bytes > self.queue.bytes_max() / 2 {
            self.close(Disconnect::Slow);
        }
    }
}

//! What becomes of publications for a client that reads slowly: by its namespace, once half of
//! the connection's queue is full.

use crate::{
    Slow,
    channel::Channel,
    connection::{Connection, Subscription},
    frame::{Frame, Frames},
};
use protocol::client::Disconnect;

/// What is to be done with a publication.
pub(super) enum Fate {
    /// It is queued.
    Queue,
    /// It waits, and the one that waited before it is dropped.
    Wait,
    /// Its subscription ends.
    End,
}

impl Subscription {
    /// What is to be done with the next publication of a connection that is `behind`, or not.
    pub(super) fn fate(&self, behind: bool) -> Fate {
        match self.slow {
            // One change of a map does not stand for all before it, which a recovery brings.
            Slow::Conflate if behind && self.map => Fate::End,
            Slow::Conflate if behind => Fate::Wait,
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
                let frames = held.waiting.take()?;
                held.based = true;
                Some((frames, held.dialect(self.encoding)))
            });
            waiting.collect()
        };
        for (frames, dialect) in &waiting {
            self.push_one_of(frames, *dialect, false);
        }
        !waiting.is_empty()
    }

    /// Lets `frames` wait in the place of what waits already. All that waits together takes no
    /// more room than the queue leaves.
    pub(super) fn let_wait(&self, channel: &Channel, frames: &Frames) {
        let mut subscriptions = self.subscriptions.borrow_mut();
        let mut bytes = 0;
        for held in &mut *subscriptions {
            if held.channel == *channel {
                held.waiting = Some(frames.clone());
                // The next one has nothing to differ from.
                held.based = false;
            }
            let dialect = held.dialect(self.encoding);
            let waiting = held.waiting.as_ref().and_then(|frames| frames.get(dialect, false));
            bytes += waiting.map_or(0, Frame::len);
        }
        if bytes > self.queue.bytes_max() / 2 {
            self.close(Disconnect::Slow);
        }
    }
}

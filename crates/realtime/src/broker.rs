//! Publications from the store to the cores, in the order of their offsets.
//!
//! The channels are dealt over a few shards. A shard is a task that follows the partitions
//! of those of its channels that somebody is subscribed to, reads what was appended, encodes
//! it once per encoding, and hands it to each core that holds a subscriber. A subscription is answered by
//! the same task through the same inbox, so what follows it is exactly what comes after its
//! offset: no gap and no repeat.

mod census;
mod shard;

pub(crate) use shard::joined_push;

use crate::{
    Config, Parts, Recovery,
    broker::census::Census,
    channel::{Channel, Source, Ways},
    frame::Dialect,
    hub::ToCore,
};
use ahash::RandomState;
use protocol::{Code, Problem, client::Publication};
use store::Incarnation;
use tokio::sync::mpsc;
use traffic_cop::state;

const SHARDS: usize = 4;
/// Tasks that wait for a shard, publications among them.
const SHARD_INBOX: usize = 256;

/// Fans publications out to the cores. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Broker {
    shards: Vec<mpsc::Sender<Task>>,
    hasher: RandomState,
    census: Census,
}

/// What a shard is asked to do.
pub(crate) enum Task {
    Subscribe(Subscribe),
    /// Ends one subscription that was answered with a [`Start`] of this `life`.
    Unsubscribe {
        channel: Channel,
        core: usize,
        dialect: Dialect,
        life: u64,
    },
    AddCore(mpsc::Sender<ToCore>),
    /// A publication that is in no store: of the live tier in this life of its channel, or `None`:
    /// kept nowhere.
    Published {
        channel: Channel,
        epoch: Option<Incarnation>,
        publication: Publication,
    },
}

/// A connection wants to follow a channel.
pub(crate) struct Subscribe {
    pub(crate) channel: Channel,
    pub(crate) source: Source,
    pub(crate) follower: Follower,
    /// Whether it wants to be told who comes and goes.
    pub(crate) joins: bool,
    /// What the channel's namespace recovers.
    pub(crate) recovery: Recovery,
    /// From where to recover, if that is asked for.
    pub(crate) recover: Option<Recover>,
}

/// Which connection, and which of its subscriptions.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Follower {
    pub(crate) core: usize,
    /// The connection's place in its core's hub.
    pub(crate) connection: usize,
    pub(crate) dialect: Dialect,
    /// The number of its subscription.
    pub(crate) ticket: u64,
}

/// The position that a client knows.
#[derive(Debug, Clone)]
pub(crate) struct Recover {
    pub(crate) epoch: String,
    pub(crate) offset: u64,
}

/// What a subscription starts with.
#[derive(Debug, Default)]
pub(crate) struct Start {
    /// Which following of the channel this is: subscriptions are ended by it.
    pub(crate) life: u64,
    /// What stands for the channel in compact pushes, as long as this following lasts.
    pub(crate) number: i64,
    /// Whether the channel keeps history.
    pub(crate) recoverable: bool,
    pub(crate) epoch: String,
    pub(crate) offset: u64,
    /// Of a map of members: all of them.
    pub(crate) members: Vec<Publication>,
    /// All that was missed, or nothing.
    pub(crate) publications: Vec<Publication>,
    pub(crate) recovered: bool,
}

impl Broker {
    pub(crate) fn start(config: &Config, parts: &Parts, ways: &Ways) -> Self {
        let census = Census::default();
        let start = |index| {
            let (sender, inbox) = mpsc::channel(SHARD_INBOX);
            let shard = shard::Shard::new(config, parts, ways, index, census.clone());
            parts.control.spawn(shard.run(inbox));
            sender
        };
        let shards = (0..SHARDS).map(start).collect();
        Self { shards, hasher: RandomState::new(), census }
    }

    /// Which channels are followed, and by how many.
    pub(crate) fn census(&self) -> &Census {
        &self.census
    }

    /// Tells every shard of a core's inbox. Cores are numbered in the order of their calls.
    pub(crate) fn add_core(&self, core: &mpsc::Sender<ToCore>) {
        for shard in &self.shards {
            // The inboxes are empty at start-up, when this is called.
            let _ = shard.try_send(Task::AddCore(core.clone()));
        }
    }

    pub(crate) async fn subscribe(&self, subscribe: Subscribe) -> Result<(), Problem> {
        self.send(subscribe.channel.clone(), Task::Subscribe(subscribe)).await
    }

    pub(crate) async fn unsubscribe(
        &self,
        channel: Channel,
        core: usize,
        dialect: Dialect,
        life: u64,
    ) {
        let end = Task::Unsubscribe { channel: channel.clone(), core, dialect, life };
        let _ = self.send(channel, end).await;
    }

    /// Tells those who are subscribed of a publication that is in no store: of the live tier in
    /// this life of its channel, or `None`: kept nowhere.
    pub(crate) async fn published(
        &self,
        channel: Channel,
        epoch: Option<Incarnation>,
        publication: Publication,
    ) -> Result<(), Problem> {
        let task = Task::Published { channel: channel.clone(), epoch, publication };
        self.send(channel, task).await
    }

    async fn send(&self, channel: Channel, task: Task) -> Result<(), Problem> {
        let shard = (self.hasher.hash_one(&channel) as usize) % SHARDS;
        let gone = |_| Problem::new(Code::Draining, "the node is shutting down");
        self.shards[shard].send(task).await.map_err(gone)
    }
}

/// The store's error as a client sees it.
pub(crate) fn problem(error: store::Error) -> Problem {
    traffic_cop::store_problem(error)
}

/// The channel is no map, and was used as one.
pub(crate) fn no_map() -> Problem {
    Problem::new(Code::BadRequest, "the channel is not a map")
}

/// An epoch as clients know it.
pub(crate) fn epoch(incarnation: Incarnation) -> String {
    state::format_epoch(incarnation)
}

//! Who is subscribed to a channel, on any node.
//!
//! An entry is a record of the channel's presence partition: by connection, with an expiry. The
//! node that holds the connection renews a channel's entries together, after each third of their
//! life; so a node that dies leaves nobody behind for longer than
//! [`crate::Config::presence_ttl`]. That somebody came or went is an entry of a
//! stream in the same partition, appended by the same commit. Of those whose node died the owner
//! of the shard tells that they left.
//!
//! The channels are dealt over a few shards, tasks that write for all connections of the node:
//! what comes while a commit is on its way goes with the next one, together.

mod departures;
mod records;
mod shard;

pub(crate) use departures::Departures;
pub(crate) use records::{JOINS, Joined, KIND, before_present, joined, partition, present};

use crate::{Config, Parts, broker, channel::Channel};
use ahash::RandomState;
use protocol::{
    Code, Problem,
    client::{ClientInfo, PresenceResult, PresenceStatsResult},
};
use std::collections::HashSet;
use store::SharedStore;
use tokio::sync::{mpsc, oneshot};

const SHARDS: usize = 4;
const SHARD_INBOX: usize = 1024;
const PAGE: usize = 1_000;

/// What is made known of the subscribers of a channel.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Announce {
    /// Who is there.
    pub(crate) presence: bool,
    /// Who comes and goes.
    pub(crate) join_leave: bool,
}

impl Announce {
    pub(crate) fn is_nothing(self) -> bool {
        self == Self::default()
    }
}

/// A subscriber that comes or goes.
#[derive(Debug, Clone)]
pub(crate) struct Move {
    pub(crate) channel: Channel,
    pub(crate) announce: Announce,
    pub(crate) info: ClientInfo,
    pub(crate) way: Way,
}

impl Move {
    /// Whether it is about the same subscription.
    fn is_of(&self, other: &Self) -> bool {
        self.channel == other.channel && self.info.client == other.info.client
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    In,
    /// It is there still, and others are to see it as it is now.
    Anew,
    Out,
}

enum Task {
    Move(Move, Option<oneshot::Sender<Result<(), Problem>>>),
    /// Answers once all that came before is written, or given up.
    Settle(oneshot::Sender<()>),
}

/// The presence of this node's connections, and of all others. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Presence {
    store: SharedStore,
    shards: Vec<mpsc::Sender<Task>>,
    hasher: RandomState,
    bytes_max: usize,
}

impl Presence {
    pub(crate) fn start(config: &Config, parts: &Parts) -> Self {
        let start = |_| {
            let (sender, inbox) = mpsc::channel(SHARD_INBOX);
            let shard = shard::Shard::new(config.presence_ttl, parts);
            parts.control.spawn(shard.run(inbox));
            sender
        };
        Self {
            store: parts.store.clone(),
            shards: (0..SHARDS).map(start).collect(),
            hasher: RandomState::new(),
            bytes_max: config.queue_bytes_max / 2,
        }
    }

    /// Writes that somebody came or went; returns once every node can read it.
    ///
    /// # Errors
    /// Those of the store.
    pub(crate) async fn tell(&self, moved: Move) -> Result<(), Problem> {
        let (done, answer) = oneshot::channel();
        self.send(moved, Some(done)).await;
        let gone = |_| Problem::new(Code::Draining, "the node is shutting down");
        answer.await.map_err(gone)?
    }

    /// As [`Self::tell`], waiting for nothing but room.
    pub(crate) async fn mention(&self, moved: Move) {
        self.send(moved, None).await;
    }

    async fn send(&self, moved: Move, done: Option<oneshot::Sender<Result<(), Problem>>>) {
        let shard = (self.hasher.hash_one(&moved.channel) as usize) % SHARDS;
        let _ = self.shards[shard].send(Task::Move(moved, done)).await;
    }

    /// Waits until what was mentioned is written.
    pub(crate) async fn settle(&self) {
        for shard in &self.shards {
            let (done, settled) = oneshot::channel();
            if shard.send(Task::Settle(done)).await.is_ok() {
                let _ = settled.await;
            }
        }
    }

    /// Who is there.
    ///
    /// # Errors
    /// `body_too_large`, if they are more than a reply can hold; or those of the store.
    pub(crate) async fn list(&self, channel: &Channel) -> Result<PresenceResult, Problem> {
        let (mut found, mut bytes) = (PresenceResult::default(), 0);
        self.each(channel, |info| {
            bytes += info.bytes() + info.client.len() + 32;
            if bytes > self.bytes_max {
                let detail = "more are present than a reply can hold; ask for `presence_stats`";
                return Err(Problem::new(Code::BodyTooLarge, detail));
            }
            found.presence.insert(info.client.clone(), info);
            Ok(())
        })
        .await?;
        Ok(found)
    }

    /// How many are there.
    ///
    /// # Errors
    /// Those of the store.
    pub(crate) async fn count(&self, channel: &Channel) -> Result<PresenceStatsResult, Problem> {
        let (mut users, mut found) = (HashSet::new(), PresenceStatsResult::default());
        self.each(channel, |info| {
            found.num_clients += 1;
            found.num_users += u32::from(users.insert(self.hasher.hash_one(&info.user)));
            Ok(())
        })
        .await?;
        Ok(found)
    }

    async fn each(
        &self,
        channel: &Channel,
        mut see: impl FnMut(ClientInfo) -> Result<(), Problem>,
    ) -> Result<(), Problem> {
        let partition = partition(channel)?;
        let mut after = Some(before_present());
        loop {
            let page = self.store.scan(&partition, b"", after.as_ref(), PAGE).await;
            let page = page.map_err(broker::problem)?;
            for (_, record) in &page.records {
                see(records::present(&record.value)?)?;
            }
            after = page.records.into_iter().next_back().map(|(key, _)| key);
            if !page.more || after.is_none() {
                return Ok(());
            }
        }
    }
}

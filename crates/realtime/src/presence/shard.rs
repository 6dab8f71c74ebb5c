//! One shard of the presence: writes what changes, and renews what lasts.

use crate::{
    Parts, broker,
    channel::Channel,
    presence::{Move, Task, Way, records},
};
use ahash::RandomState;
use bytes::Bytes;
use clock::SharedClock;
use futures_util::future::join_all;
use protocol::Problem;
use std::{collections::HashMap, time::Duration};
use store::{Commit, CommitId, SharedStore, Write};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, MissedTickBehavior, interval, sleep},
};

/// Tasks that are taken at once.
const BATCH: usize = 512;
/// Moves, of two writes each, that a commit holds; and one write beside them.
const MOVES: usize = 60;
/// Records that are renewed by one commit.
const RENEWED: usize = 120;
/// Channels that are renewed at the same time, and between two looks at the inbox.
const CHANNELS: usize = 16;
/// How often, and after which pauses, the store is asked again.
const PAUSES: [Duration; 2] = [Duration::from_millis(50), Duration::from_millis(200)];

pub(super) struct Shard {
    store: SharedStore,
    clock: SharedClock,
    ttl: Duration,
    channels: HashMap<Channel, Present, RandomState>,
    /// Who is gone, though the store did not take it.
    ghosts: Vec<Ghost>,
}

/// The connections of this node in a channel.
struct Present {
    /// By connection.
    records: HashMap<String, Bytes, RandomState>,
    /// When the records were written last; `None` if only those who come and go are told of.
    renewed: Option<Instant>,
    /// The last entry that this node appended to the stream.
    last: u64,
}

struct Ghost {
    moved: Move,
    /// When the record has expired by itself.
    until: Instant,
}

type Told = (Move, Option<oneshot::Sender<Result<(), Problem>>>);

impl Shard {
    pub(super) fn new(ttl: Duration, parts: &Parts) -> Self {
        let (store, clock) = (parts.store.clone(), parts.clock.clone());
        Self { store, clock, ttl, channels: HashMap::default(), ghosts: Vec::new() }
    }

    /// Runs until every handle is gone.
    pub(super) async fn run(mut self, mut inbox: mpsc::Receiver<Task>) {
        let pace = (self.ttl / 24).clamp(Duration::from_millis(20), Duration::from_secs(1));
        let mut tick = interval(pace);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut batch = Vec::new();
        loop {
            tokio::select! {
                taken = inbox.recv_many(&mut batch, BATCH) => match taken {
                    0 => return,
                    _ => self.take(batch.drain(..)).await,
                },
                _ = tick.tick() => {
                    self.renew().await;
                    self.lay_ghosts().await;
                }
            }
        }
    }

    async fn take(&mut self, tasks: impl Iterator<Item = Task>) {
        let mut by_channel = HashMap::<Channel, Vec<Told>, RandomState>::default();
        let mut settled = Vec::new();
        for task in tasks {
            match task {
                Task::Move(moved, done) => {
                    by_channel.entry(moved.channel.clone()).or_default().push((moved, done));
                }
                Task::Settle(done) => settled.push(done),
            }
        }
        let commits = by_channel.into_iter().map(|(channel, moves)| {
            let last = self.channels.get(&channel).map_or(0, |present| present.last);
            self.write(channel, moves, last)
        });
        for (channel, moves, outcome) in join_all(commits).await.into_iter().flatten() {
            self.remember(&channel, moves, &outcome);
        }
        for done in settled {
            let _ = done.send(());
        }
    }

    /// Writes the moves of one channel, in order, in as many commits as it takes.
    async fn write(
        &self,
        channel: Channel,
        moves: Vec<Told>,
        mut last: u64,
    ) -> Vec<(Channel, Vec<Told>, Result<u64, Problem>)> {
        let mut done = Vec::new();
        let mut moves = moves.into_iter().peekable();
        while moves.peek().is_some() {
            let some: Vec<Told> = moves.by_ref().take(MOVES).collect();
            let mut writes: Vec<Write> =
                some.iter().flat_map(|(moved, _)| records::writes(moved, self.ttl)).collect();
            if writes.iter().any(|write| matches!(write, Write::Append { .. })) {
                writes.extend(records::trim(last));
            }
            let outcome = self.commit(&channel, writes).await;
            last = outcome.as_ref().map_or(last, |appended| last.max(*appended));
            done.push((channel.clone(), some, outcome.map(|_| last)));
        }
        done
    }

    /// Commits, and tells the last entry that was appended.
    async fn commit(&self, channel: &Channel, writes: Vec<Write>) -> Result<u64, Problem> {
        // Presence lives for a minute: it need not outlive a loss of power.
        let mut commit = Commit::new(records::partition(channel)?).applied();
        if writes.iter().any(|write| matches!(write, Write::Append { .. })) {
            commit = commit.id(CommitId(clock::random(&*self.clock)));
        }
        commit.writes = writes;
        let mut pauses = PAUSES.iter();
        loop {
            match self.store.commit(commit.clone()).await {
                Ok(done) => return Ok(done.sequences.last().copied().unwrap_or_default()),
                Err(error @ store::Error::Unavailable { .. }) => match pauses.next() {
                    Some(pause) => sleep(*pause).await,
                    None => return Err(broker::problem(error)),
                },
                Err(error) => return Err(broker::problem(error)),
            }
        }
    }

    fn remember(&mut self, channel: &Channel, moves: Vec<Told>, outcome: &Result<u64, Problem>) {
        let now = Instant::now();
        for (moved, done) in moves {
            let present = self.channels.entry(channel.clone()).or_insert_with(|| Present {
                records: HashMap::default(),
                renewed: moved.announce.presence.then_some(now),
                last: 0,
            });
            match (outcome, moved.way) {
                (Ok(last), Way::In) => {
                    present.last = *last;
                    self.ghosts.retain(|ghost| !ghost.moved.is_of(&moved));
                    let record = records::record(&moved.info);
                    present.records.insert(moved.info.client.clone(), record);
                }
                (outcome, _) => {
                    present.last = *outcome.as_ref().unwrap_or(&present.last);
                    present.records.remove(&moved.info.client);
                    if outcome.is_err() && moved.announce.presence {
                        // Whether it came or went: it is not there any more.
                        let until = now + self.ttl;
                        self.ghosts.push(Ghost { moved, until });
                    }
                }
            }
            if let Some(done) = done {
                let _ = done.send(outcome.clone().map(|_| ()));
            }
        }
        if self.channels.get(channel).is_some_and(|present| present.records.is_empty()) {
            self.channels.remove(channel);
        }
    }

    /// Renews the records of channels that have lived a third of their time, some at a time.
    async fn renew(&mut self) {
        let third = self.ttl / 3;
        let is_due = |held: &Present| held.renewed.is_some_and(|at| at.elapsed() >= third);
        let due = self.channels.iter().filter(|(_, held)| is_due(held));
        let due: Vec<Channel> = due.map(|(channel, _)| channel.clone()).collect();
        for some in due.chunks(CHANNELS) {
            let renewed = join_all(some.iter().map(|channel| self.renew_one(channel))).await;
            let now = Instant::now();
            for (channel, outcome) in some.iter().zip(renewed) {
                match (outcome, self.channels.get_mut(channel)) {
                    (Ok(()), Some(present)) => present.renewed = Some(now),
                    (Ok(()), None) => {}
                    (Err(problem), _) => {
                        // These are due still, and tried again with the next tick.
                        return tracing::warn!(?channel, problem.detail, "presence is not renewed");
                    }
                }
            }
        }
    }

    async fn renew_one(&self, channel: &Channel) -> Result<(), Problem> {
        let Some(present) = self.channels.get(channel) else { return Ok(()) };
        let records: Vec<_> = present.records.iter().collect();
        for some in records.chunks(RENEWED) {
            let put = |(client, value): &(&String, &Bytes)| {
                records::put(client, (*value).clone(), self.ttl)
            };
            self.commit(channel, some.iter().map(put).collect()).await?;
        }
        Ok(())
    }

    /// Tries again to take out who is gone.
    async fn lay_ghosts(&mut self) {
        let now = Instant::now();
        self.ghosts.retain(|ghost| now < ghost.until);
        while let Some(Ghost { moved, .. }) = self.ghosts.last() {
            let delete = Write::Delete { key: records::key(&moved.info.client) };
            if self.commit(&moved.channel, vec![delete]).await.is_err() {
                return;
            }
            self.ghosts.pop();
        }
    }
}

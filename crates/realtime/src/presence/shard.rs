//! One shard of the presence: writes what changes, and renews what lasts.

use crate::{
    Parts, broker,
    channel::Channel,
    presence::{Announce, Move, Task, Way, records},
};
use ahash::RandomState;
use bytes::Bytes;
use clock::SharedClock;
use futures_util::future::{join_all, try_join_all};
use protocol::{Code, Problem, client::ClientInfo};
use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};
use store::{Check, Commit, CommitId, SharedStore, Write};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, MissedTickBehavior, interval, sleep},
};

/// Tasks that are taken at once.
const BATCH: usize = 512;
/// Moves, of three writes each, that a commit holds; and two writes beside them.
const MOVES: usize = 40;
/// How often a commit is tried again that others came before.
const ATTEMPTS: usize = 8;
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
    announce: Announce,
    /// By connection.
    records: HashMap<String, Bytes, RandomState>,
    /// Since when the records have been written, at the latest.
    renewed: Instant,
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
        let since = Instant::now();
        let commits = by_channel.into_iter().map(|(channel, moves)| {
            let held = self.channels.get(&channel);
            let last = held.map_or(0, |present| present.last);
            let is_first = held.is_none_or(|present| present.renewed.elapsed() >= self.ttl / 2);
            self.write(channel, moves, last, is_first)
        });
        for (channel, moves, outcome) in join_all(commits).await.into_iter().flatten() {
            self.remember(&channel, moves, &outcome, since);
        }
        for done in settled {
            let _ = done.send(());
        }
    }

    /// Writes the moves of one channel, in order, in as many commits as it takes. `is_first`: none
    /// of this node's connections has been there lately.
    async fn write(
        &self,
        channel: Channel,
        moves: Vec<Told>,
        mut last: u64,
        is_first: bool,
    ) -> Vec<(Channel, Vec<Told>, Result<u64, Problem>)> {
        let mut done = Vec::new();
        let mut moves = moves.into_iter().peekable();
        while moves.peek().is_some() {
            let some: Vec<Told> = moves.by_ref().take(MOVES).collect();
            let outcome = self.write_some(&channel, &some, last, is_first).await;
            last = outcome.as_ref().map_or(last, |appended| last.max(*appended));
            done.push((channel.clone(), some, outcome.map(|_| last)));
        }
        done
    }

    /// Writes some moves by one commit, and tells the last entry that was appended.
    async fn write_some(
        &self,
        channel: &Channel,
        some: &[Told],
        last: u64,
        is_first: bool,
    ) -> Result<u64, Problem> {
        let mut outcome = Ok(0);
        for _ in 0..ATTEMPTS {
            let (checks, listed) = self.roster(channel, some).await?;
            let moves = some.iter().zip(&listed);
            let mut writes: Vec<Write> = moves
                .flat_map(|((moved, _), is_listed)| records::writes(moved, self.ttl, *is_listed))
                .collect();
            if writes.iter().any(|write| matches!(write, Write::Append { .. })) {
                writes.extend(records::trim(last));
                // Whoever owns the shard looks after the roster from now on.
                writes.extend(is_first.then_some(Write::Wake(Some(Duration::ZERO))));
            }
            outcome = self.commit(channel, checks, writes).await;
            match &outcome {
                // Somebody was taken out of the roster just now.
                Err(problem) if problem.code == Code::Conflict => {}
                Ok(_) | Err(_) => break,
            }
        }
        outcome
    }

    /// Which of the moves are of somebody in the roster, and the checks of that. Who comes by an
    /// earlier one of them is.
    async fn roster(
        &self,
        channel: &Channel,
        some: &[Told],
    ) -> Result<(Vec<Check>, Vec<bool>), Problem> {
        let partition = records::partition(channel)?;
        let mut came = HashSet::new();
        let mut asked = Vec::with_capacity(some.len());
        for (Move { announce, info, way, .. }, _) in some {
            let known = match way {
                Way::In => {
                    came.insert(&info.client);
                    true
                }
                Way::Anew | Way::Out => came.contains(&info.client),
            };
            let key = (announce.join_leave && !known).then(|| records::listed(&info.client));
            asked.push((known, key));
        }
        let held = asked.iter().map(|(known, key)| async {
            let Some(key) = key else { return Ok((None, *known)) };
            let record = self.store.get(&partition, key).await?;
            let check = record
                .map(|record| Check::Revision { key: key.clone(), revision: record.revision });
            let is_listed = check.is_some();
            Ok((check, is_listed))
        });
        let held = try_join_all(held).await.map_err(broker::problem)?;
        let (checks, listed): (Vec<_>, Vec<_>) = held.into_iter().unzip();
        Ok((checks.into_iter().flatten().collect(), listed))
    }

    /// Commits, and tells the last entry that was appended.
    async fn commit(
        &self,
        channel: &Channel,
        checks: Vec<Check>,
        writes: Vec<Write>,
    ) -> Result<u64, Problem> {
        // Presence lives for a minute: it need not outlive a loss of power.
        let mut commit = Commit::new(records::partition(channel)?).applied();
        commit.checks = checks;
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

    fn remember(
        &mut self,
        channel: &Channel,
        moves: Vec<Told>,
        outcome: &Result<u64, Problem>,
        since: Instant,
    ) {
        let now = Instant::now();
        for (moved, done) in moves {
            let present = self.channels.entry(channel.clone()).or_insert_with(|| Present {
                announce: moved.announce,
                records: HashMap::default(),
                renewed: since,
                last: 0,
            });
            match (outcome, moved.way) {
                (Ok(last), Way::In | Way::Anew) => {
                    present.last = *last;
                    self.ghosts.retain(|ghost| !ghost.moved.is_of(&moved));
                    let record = records::record(&moved.info);
                    present.records.insert(moved.info.client.clone(), record);
                }
                // It is written with the next renewal.
                (Err(_), Way::Anew) => {
                    let record = records::record(&moved.info);
                    present.records.insert(moved.info.client.clone(), record);
                }
                (outcome, Way::In | Way::Out) => {
                    present.last = *outcome.as_ref().unwrap_or(&present.last);
                    present.records.remove(&moved.info.client);
                    if outcome.is_err() {
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
        let is_due = |held: &Present| held.renewed.elapsed() >= third;
        let due = self.channels.iter().filter(|(_, held)| is_due(held));
        let due: Vec<Channel> = due.map(|(channel, _)| channel.clone()).collect();
        for some in due.chunks(CHANNELS) {
            let since = Instant::now();
            let renewed = join_all(some.iter().map(|channel| self.renew_one(channel))).await;
            for (channel, outcome) in some.iter().zip(renewed) {
                match (outcome, self.channels.get_mut(channel)) {
                    (Ok(()), Some(present)) => present.renewed = since,
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
                records::put(records::place(present.announce, client), (*value).clone(), self.ttl)
            };
            self.commit(channel, Vec::new(), some.iter().map(put).collect()).await?;
        }
        // Records may have expired before these came, and then others were told that these left.
        if present.announce.join_leave && present.renewed.elapsed() >= self.ttl {
            for (_, record) in records {
                self.come_back(channel, &records::present(record)?).await?;
            }
        }
        Ok(())
    }

    /// Tells that somebody came, if it was told that he left.
    async fn come_back(&self, channel: &Channel, info: &ClientInfo) -> Result<(), Problem> {
        let absent = Check::Absent { key: records::listed(&info.client) };
        let mut writes = records::joins(info).to_vec();
        writes.push(Write::Wake(Some(Duration::ZERO)));
        match self.commit(channel, vec![absent], writes).await {
            Err(problem) if problem.code == Code::Conflict => Ok(()),
            told => told.map(drop),
        }
    }

    /// Tries again to take out who is gone.
    async fn lay_ghosts(&mut self) {
        let now = Instant::now();
        self.ghosts.retain(|ghost| now < ghost.until);
        while let Some(Ghost { moved, .. }) = self.ghosts.last() {
            let key = records::place(moved.announce, &moved.info.client);
            let delete = vec![Write::Delete { key }];
            if self.commit(&moved.channel, Vec::new(), delete).await.is_err() {
                return;
            }
            self.ghosts.pop();
        }
    }
}

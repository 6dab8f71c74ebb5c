//! One shard of the broker.

mod joins;
mod live;
mod members;
mod recovery;

pub(crate) use joins::push as joined_push;

use crate::{
    Config, Parts, Recovery,
    broker::{Follower, SHARDS, Start, Subscribe, Task, census::Census, epoch, problem},
    channel::{self, Channel, Source, Ways, entry},
    connection::About,
    frame::{Dialect, Forms, Frames, Speakers},
    hub::ToCore,
    live::Standing,
};
use ahash::RandomState;
use clock::SharedClock;
use protocol::{
    Problem,
    client::{Data, Publication, fossil},
};
use std::{collections::HashMap, sync::Arc, time::Duration};
use store::{Head, Partition, Position, SharedStore, Subscription, Told, Topic, Watcher};
use tokio::{
    sync::mpsc,
    time::{MissedTickBehavior, interval},
};
use tokio_util::task::AbortOnDropHandle;
use traffic_cop::genesis::Genesis;

/// Entries that are read at once.
const READ: usize = 256;
/// Publications from the fan-out that wait for a shard.
const PASSED: usize = 1024;

pub(super) struct Shard {
    store: SharedStore,
    clock: SharedClock,
    ways: Ways,
    genesis: Genesis,
    watcher: Watcher,
    cores: Vec<mpsc::Sender<ToCore>>,
    channels: HashMap<Channel, Box<Followed>, RandomState>,
    /// What is made of a partition's changes.
    by_partition: HashMap<Partition, Vec<(Channel, Feed)>, RandomState>,
    /// What came by the fan-out, and where the listeners to it put it.
    passed: mpsc::Receiver<(Channel, Publication)>,
    pass: mpsc::Sender<(Channel, Publication)>,
    recover_max: usize,
    recover_bytes_max: usize,
    /// How often maps of members are compared with the store.
    compare_every: Duration,
    index: usize,
    lives: u64,
    census: Census,
}

/// What of a channel a partition holds.
#[derive(Debug, Clone, Copy)]
enum Feed {
    Publications,
    Joins,
    Members,
}

/// A channel that somebody is subscribed to.
struct Followed {
    source: Source,
    /// Whether only the newest publication counts.
    is_value: bool,
    /// The last publication that was handed to the cores.
    position: Position,
    last: u64,
    /// By core.
    subscribers: Vec<Speakers>,
    /// The last publication that was handed over, while somebody takes differences.
    previous: Option<Data>,
    /// Those who come and go, once somebody wants to be told.
    joins: Option<joins::Joins>,
    /// Those who are subscribed to another channel, if that is the source.
    members: Option<Box<members::Members>>,
    /// Tells this following of the channel from earlier ones.
    life: u64,
    /// Listens to the fan-out, if that is the source.
    _listener: Option<AbortOnDropHandle<()>>,
}

impl Shard {
    pub(super) fn new(
        config: &Config,
        parts: &Parts,
        ways: &Ways,
        index: usize,
        census: Census,
    ) -> Self {
        let (pass, passed) = mpsc::channel(PASSED);
        Self {
            store: parts.store.clone(),
            clock: parts.clock.clone(),
            ways: ways.clone(),
            genesis: parts.genesis.clone(),
            watcher: store::watch(parts.store.clone()),
            cores: Vec::new(),
            channels: HashMap::default(),
            by_partition: HashMap::default(),
            passed,
            pass,
            recover_max: config.recover_max,
            recover_bytes_max: config.queue_bytes_max / 2,
            compare_every: config.presence_ttl / 2,
            index,
            lives: 0,
            census,
        }
    }

    /// Runs until every handle is gone.
    pub(super) async fn run(mut self, mut inbox: mpsc::Receiver<Task>) {
        let mut compare = interval(self.compare_every);
        compare.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                task = inbox.recv() => match task {
                    None => return,
                    Some(Task::AddCore(core)) => self.cores.push(core),
                    Some(Task::Subscribe(subscribe)) => self.subscribe(subscribe).await,
                    Some(Task::Unsubscribe { channel, core, dialect, life }) => {
                        self.unsubscribe(&channel, core, dialect, life);
                    }
                    Some(Task::Published { channel, epoch, publication }) => {
                        self.published(&channel, epoch, publication).await;
                    }
                },
                Some((channel, publication)) = self.passed.recv() => {
                    self.hand_over(&channel, publication, None).await;
                }
                partition = self.watcher.touched() => {
                    let feeds = self.by_partition.get(&partition).cloned().unwrap_or_default();
                    for (channel, feed) in feeds {
                        match feed {
                            Feed::Publications => self.catch_up(&channel).await,
                            Feed::Joins => self.catch_up_joins(&channel).await,
                            Feed::Members => self.catch_up_members(&channel).await,
                        }
                    }
                }
                _ = compare.tick() => self.compare_members().await,
            }
        }
    }

    async fn subscribe(&mut self, wanted: Subscribe) {
        let follower = wanted.follower;
        let Follower { core, dialect, .. } = follower;
        let channel = wanted.channel.clone();
        let outcome = self.start(wanted).await;
        if outcome.is_ok()
            && let Some(followed) = self.channels.get_mut(&channel)
        {
            if followed.subscribers.len() <= core {
                let more = core + 1 - followed.subscribers.len();
                followed.subscribers.reserve_exact(more);
                followed.subscribers.resize(core + 1, [0; Dialect::COUNT]);
            }
            followed.subscribers[core][dialect.index()] += 1;
            self.census.more(self.index, &channel);
        } else {
            self.forget_unless_wanted(&channel);
        }
        // One copy of its name for all subscribers.
        let known = self.channels.get_key_value(&channel).map(|(known, _)| known.clone());
        let channel = known.unwrap_or(channel);
        let answer = ToCore::Subscribed { follower, channel, outcome };
        let _ = self.cores[core].send(answer).await;
    }

    async fn start(&mut self, wanted: Subscribe) -> Result<Start, Problem> {
        if !self.channels.contains_key(&wanted.channel) {
            self.follow(&wanted).await?;
        }
        if wanted.joins {
            self.follow_joins(&wanted.channel).await?;
        }
        if matches!(wanted.source, Source::Members(..)) {
            return self.start_with_members(&wanted.channel);
        }
        let Some(recover) = wanted.recover else { return Ok(self.start_at(&wanted.channel)) };
        // The client may have seen, in its history, what was not handed to the cores yet.
        self.catch_up(&wanted.channel).await;
        let start = self.start_at(&wanted.channel);
        let missed = match wanted.recovery {
            Recovery::Stream => {
                let map = wanted.follower.dialect.map;
                self.missed(&wanted.channel, &start, &recover, map).await?
            }
            Recovery::Cache => self.newest(&wanted.channel, &start, &recover).await?,
        };
        let recovered = missed.is_some();
        Ok(Start { publications: missed.unwrap_or_default(), recovered, ..start })
    }

    async fn follow(&mut self, wanted: &Subscribe) -> Result<(), Problem> {
        let channel = &wanted.channel;
        self.lives += 1;
        let source = wanted.source.clone().by(&self.ways);
        let listener = match (&source, &self.ways) {
            (Source::Passing(partition), Ways::FannedOut(fanout)) => {
                let topics = [Topic::from(partition.clone())];
                let subscription = fanout.subscribe(&topics).await.map_err(problem)?;
                let listening = listen(subscription, channel.clone(), self.pass.clone());
                Some(AbortOnDropHandle::new(tokio::spawn(listening)))
            }
            (_, _) => None,
        };
        let mut followed = Followed {
            source: source.clone(),
            is_value: wanted.recovery == Recovery::Cache,
            position: Position::ZERO,
            last: 0,
            subscribers: Vec::new(),
            previous: None,
            joins: None,
            members: None,
            life: self.lives,
            _listener: listener,
        };
        if let Some((partition, stream)) = source.stream() {
            // Followed before the head is read: what is appended in between is told.
            self.feed(partition, channel, Feed::Publications);
            let begun = self.head_or_beginning(partition).await;
            let (head, position) = begun.map_err(|error| {
                self.starve(partition, channel);
                problem(error)
            })?;
            followed.position = position;
            followed.last = head.map_or(0, |head| head.last(stream));
        }
        if let (Source::Live(..), Ways::Here(live)) = (&source, &self.ways) {
            let Standing { epoch: incarnation, last, .. } = live.standing(channel);
            followed.position = Position { incarnation, revision: 0 };
            followed.last = last;
        }
        if let Source::Members(partition, by) = &source {
            followed.members = Some(self.follow_members(channel, partition, *by).await?);
        }
        self.channels.insert(channel.clone(), Box::new(followed));
        Ok(())
    }

    /// Has `channel` told when `partition` changes, and once at first.
    fn feed(&mut self, partition: &Partition, channel: &Channel, feed: Feed) {
        self.watcher.follow(partition.clone(), Position::ZERO);
        let fed = self.by_partition.entry(partition.clone()).or_default();
        fed.push((channel.clone(), feed));
    }

    /// Has it told no more.
    fn starve(&mut self, partition: &Partition, channel: &Channel) {
        let Some(fed) = self.by_partition.get_mut(partition) else { return };
        fed.retain(|(of, _)| of != channel);
        if fed.is_empty() {
            self.by_partition.remove(partition);
            self.watcher.leave(partition);
        }
    }

    /// The head, and the position; the one that it will begin at if there is nothing yet.
    async fn head_or_beginning(
        &self,
        partition: &Partition,
    ) -> Result<(Option<Head>, Position), store::Error> {
        if let Some(head) = self.store.head(partition).await? {
            let position = head.position;
            return Ok((Some(head), position));
        }
        let incarnation = self.genesis.incarnation(partition).await?;
        Ok((None, Position { incarnation, revision: 0 }))
    }

    fn start_at(&self, channel: &Channel) -> Start {
        let Some(followed) = self.channels.get(channel) else { return Start::default() };
        let number = self.number(followed);
        if !followed.source.is_recoverable() {
            return Start { life: followed.life, number, ..Start::default() };
        }
        Start {
            life: followed.life,
            number,
            recoverable: true,
            epoch: epoch(followed.position.incarnation),
            offset: followed.last,
            ..Start::default()
        }
    }

    /// What stands for the channel in compact pushes: one number for each following on the node.
    fn number(&self, followed: &Followed) -> i64 {
        followed.life.cast_signed() * SHARDS as i64 + self.index as i64
    }

    /// Hands what was appended to a channel to the cores.
    async fn catch_up(&mut self, channel: &Channel) {
        while let Some(followed) = self.channels.get(channel) {
            if let (Source::Live(..), Ways::Here(live)) = (&followed.source, &self.ways) {
                let live = live.clone();
                return Box::pin(self.catch_up_live(channel, &live)).await;
            }
            let Some((partition, stream)) = followed.source.stream() else { return };
            let read = match self.store.head(partition).await {
                Ok(Some(head)) if head.position.incarnation != followed.position.incarnation => {
                    if followed.source.is_recoverable() {
                        return self.lost(channel, head.position).await;
                    }
                    self.skip(channel, Some(head.position), 0);
                    continue;
                }
                Ok(_) => self.store.read(partition, stream, followed.last + 1, READ).await,
                Err(error) => Err(error),
            };
            let entries = match read {
                Ok(entries) if entries.is_empty() => return,
                Ok(entries) => entries,
                Err(store::Error::Trimmed { first })
                    if followed.is_value || !followed.source.is_recoverable() =>
                {
                    // Nobody was promised these.
                    self.skip(channel, None, first - 1);
                    continue;
                }
                Err(store::Error::Trimmed { .. }) => {
                    return self.lost(channel, followed.position).await;
                }
                Err(error) => {
                    tracing::warn!(?channel, %error, "publications wait for the store");
                    let partition = partition.clone();
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                    return self.watcher.follow(partition, Position::ZERO);
                }
            };
            let source = followed.source.clone();
            for entry in &entries {
                let publication = channel::publication(&source, entry);
                let is_document = matches!(source, Source::Document(_));
                let update = is_document.then(|| entry::update(entry)).transpose();
                match (publication, update) {
                    (Ok(told), Ok(update)) => self.hand_over(channel, told, update).await,
                    (_, _) => return self.lost(channel, Position::ZERO).await,
                }
                if let Some(followed) = self.channels.get_mut(channel) {
                    followed.last = entry.sequence;
                }
            }
        }
    }

    /// Goes on after `last`, in a new incarnation if `position` tells of one.
    fn skip(&mut self, channel: &Channel, position: Option<Position>, last: u64) {
        if let Some(followed) = self.channels.get_mut(channel) {
            followed.position = position.unwrap_or(followed.position);
            followed.last = last;
        }
    }

    /// The publications after the last one cannot be told: subscribers have to start again.
    async fn lost(&mut self, channel: &Channel, position: Position) {
        tracing::warn!(?channel, ?position, "a channel's followers are told to start again");
        if let Some(followed) = self.forget(channel) {
            self.to_cores(&followed.subscribers, || ToCore::Lost { channel: channel.clone() })
                .await;
        }
    }

    /// Hands a publication to the cores; `update` is what followers of a map take in its place.
    async fn hand_over(
        &mut self,
        channel: &Channel,
        publication: Publication,
        update: Option<Publication>,
    ) {
        let Some(followed) = self.channels.get_mut(channel) else { return };
        let previous = followed.previous.take();
        let deltas = Dialect::all().any(|dialect| dialect.delta && followed.speak(dialect));
        followed.previous = deltas.then(|| publication.data.clone());
        let delta = previous.filter(|_| deltas).and_then(|previous| {
            fossil::delta(previous.get(), publication.data.get()).map(Arc::from)
        });
        let Some(followed) = self.channels.get(channel) else { return };
        let offset = publication.offset;
        let key = update.as_ref().unwrap_or(&publication).key.as_str();
        let key = (!key.is_empty()).then(|| Arc::from(key));
        let about = About { tags: publication.tags.clone(), key };
        let forms = Forms { told: publication, delta, update };
        let is_wanted = |dialect| followed.speak(dialect);
        let number = self.number(followed);
        let frames = Frames::of_publication(channel.name(), forms, number, is_wanted);
        let subscribers = &followed.subscribers;
        let publish = || {
            let (channel, frames, about) = (channel.clone(), frames.clone(), about.clone());
            ToCore::Publication { channel, frames, offset, about }
        };
        self.to_cores(subscribers, publish).await;
    }

    async fn to_cores(&self, subscribers: &[Speakers], message: impl Fn() -> ToCore) {
        let wanted = self.cores.iter().zip(subscribers).filter(|(_, of)| is_anybody(of));
        for (inbox, _) in wanted {
            // Refused only by a core that has ended, and its sockets with it.
            let _ = inbox.send(message()).await;
        }
    }

    fn unsubscribe(&mut self, channel: &Channel, core: usize, dialect: Dialect, life: u64) {
        let followed = self.channels.get_mut(channel).filter(|followed| followed.life == life);
        let Some(followed) = followed else { return };
        if let Some(of) = followed.subscribers.get_mut(core) {
            let count = &mut of[dialect.index()];
            if *count > 0 {
                *count -= 1;
                self.census.less(self.index, channel);
            }
        }
        self.forget_unless_wanted(channel);
    }

    fn forget_unless_wanted(&mut self, channel: &Channel) {
        let is_unwanted = |followed: &Followed| !followed.subscribers.iter().any(is_anybody);
        if self.channels.get(channel).is_some_and(|followed| is_unwanted(followed)) {
            self.forget(channel);
        }
    }

    fn forget(&mut self, channel: &Channel) -> Option<Box<Followed>> {
        let followed = self.channels.remove(channel)?;
        self.census.nobody(self.index, channel);
        let published = followed.source.stream().map(|(partition, _)| partition);
        let joined = followed.joins.as_ref().map(|joins| &joins.partition);
        let member = followed.members.as_ref().map(|members| &members.partition);
        for partition in published.into_iter().chain(joined).chain(member) {
            self.starve(partition, channel);
        }
        Some(followed)
    }
}

impl Followed {
    /// Whether somebody takes pushes in this dialect.
    fn speak(&self, dialect: Dialect) -> bool {
        self.subscribers.iter().any(|of| of[dialect.index()] > 0)
    }
}

fn is_anybody(speakers: &Speakers) -> bool {
    speakers.iter().any(|count| *count > 0)
}

/// Passes on what is told of a channel, until dropped. What the fan-out missed stays missed:
/// the channel promises no more.
async fn listen(
    mut subscription: Subscription,
    channel: Channel,
    pass: mpsc::Sender<(Channel, Publication)>,
) {
    loop {
        let Told::Message { message, .. } = subscription.next().await else {
            tracing::debug!(?channel, "publications may have been missed");
            continue;
        };
        match channel::kept(&message, 0) {
            Ok(publication) => {
                if pass.send((channel.clone(), publication)).await.is_err() {
                    return;
                }
            }
            Err(problem) => tracing::warn!(?channel, problem.detail, "a publication is dropped"),
        }
    }
}

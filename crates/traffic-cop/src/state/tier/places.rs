//! The store in which each document is wherever it lives.

use crate::{
    genesis::Genesis,
    state::{
        CHANGES, ChangeRecord, EntryRecord, document,
        past::span,
        tier::{
            Tier, copied,
            known::{Activity, Known, Use},
            live::Live,
            place::{self, Place},
        },
    },
    storage,
};
use async_trait::async_trait;
use clock::SharedClock;
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use store::{
    Bucket, Capabilities, Change, Changes, Check, Commit, Committed, Entry, Error, Head, Hints,
    Key, Kind, Partition, PartitionPage, Position, Record, ScanPage, SharedStore, Store,
    StreamHead, StreamName, Survives,
};
use types::TenantId;

const TURNS: usize = 256;
/// How often a read begins again because its document moved.
const ATTEMPTS: usize = 16;
/// How long a writer waits for a document that is on its way.
const WAIT_MAX: Duration = Duration::from_secs(10);
/// Changes that are read at once.
const WINDOW: u64 = 128;

/// Who decides where documents are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Authority {
    /// This node alone has the stores: what it has once looked up stays so until it moves it.
    Here,
    /// Nodes that share the stores, all of them with this setting: it is looked up at each read
    /// and write, which costs one to three more calls of the store.
    Shared,
}

/// What the engines keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Engines {
    /// `None`: what is to be live is hot.
    pub live: Option<Survives>,
    /// What a commit of the hot engine survives.
    pub hot: Survives,
    /// What a commit of the durable engine survives.
    pub durable: Survives,
}

impl Engines {
    /// The tier by which `tier` is served.
    pub(super) fn serving(&self, tier: Tier) -> Tier {
        if tier == Tier::Live && self.live.is_none() { Tier::Hot } else { tier }
    }

    pub(super) fn survives(&self, tier: Tier) -> Survives {
        match tier {
            Tier::Live => self.live.unwrap_or(self.hot),
            Tier::Hot => self.hot,
            Tier::Durable => self.durable,
        }
    }
}

/// A store over the one that holds all tiers (see [`store::Tiers`] and [`super::tier_of`]),
/// in which documents have one name, wherever they live. Everything else passes through it.
///
/// A [`store::CommitId`] is recognised again only as long as the document stays where it is.
pub struct Places {
    pub(super) store: SharedStore,
    pub(super) clock: SharedClock,
    pub(super) genesis: Genesis,
    pub(super) engines: Engines,
    pub(super) authority: Authority,
    pub(super) known: Known,
    /// What is live on this node.
    pub(super) live: Live,
    /// Of those who follow documents.
    pub(super) hints: Arc<Hints>,
    /// One at a time moves a document, or looks up where it is.
    turns: Vec<tokio::sync::Mutex<()>>,
    hasher: ahash::RandomState,
}

impl Places {
    /// Documents in `store`; those that are live have at most `live_bytes_max` bytes together.
    #[must_use]
    pub fn new(
        store: SharedStore,
        clock: SharedClock,
        genesis: Genesis,
        engines: Engines,
        authority: Authority,
        live_bytes_max: u64,
    ) -> Arc<Self> {
        let tiers = [Tier::Live, Tier::Hot, Tier::Durable];
        // A partition in each engine, never written, to find what the engine tells by.
        let sample = |tier| {
            let of = Partition::new(TenantId::system(), document::KIND, "sample").ok()?;
            Place { tier, generation: 1, since: 0, fence: 0 }.of(&of).ok()
        };
        let samples: Vec<Partition> = tiers.into_iter().filter_map(sample).collect();
        let told: Vec<&Hints> = samples.iter().map(|sample| store.hints(sample)).collect();
        let hints = Arc::new(match told.iter().filter_map(|hints| hints.poll_every()).min() {
            Some(every) => Hints::lossy(every),
            None => Hints::reliable(),
        });
        for engine in told {
            engine.relay(&hints, place::document_of);
        }
        Arc::new(Self {
            store,
            clock,
            genesis,
            engines,
            authority,
            known: Known::new(),
            live: Live::new(live_bytes_max),
            hints,
            turns: (0..TURNS).map(|_| tokio::sync::Mutex::default()).collect(),
            hasher: ahash::RandomState::new(),
        })
    }

    /// The turn to move this document; others share it.
    pub(super) async fn turn(&self, document: &Partition) -> tokio::sync::MutexGuard<'_, ()> {
        self.turns[(self.hasher.hash_one(document) as usize) % TURNS].lock().await
    }

    /// How much a document is used, as far as this node knows.
    pub(crate) fn activity(&self, document: &Partition) -> Activity {
        self.known.activity(document, self.clock.elapsed())
    }

    /// Documents that this node has served lately.
    pub(crate) fn served(&self) -> Vec<Partition> {
        self.known.all()
    }

    /// Where a document is.
    async fn resolve(&self, document: &Partition, by: Use) -> Result<Place, Error> {
        let now = self.clock.elapsed();
        if self.authority == Authority::Here {
            if let Some(place) = self.known.place(document, by, now) {
                return Ok(place);
            }
            let _turn = self.turn(document).await;
            if let Some(place) = self.known.place(document, by, now) {
                return Ok(place);
            }
            let place = self.settle(document).await?;
            self.known.put(document, place, by, now);
            return Ok(place);
        }
        let place = self.settle(document).await?;
        self.known.put(document, place, by, now);
        Ok(place)
    }

    /// Whether a document is still where it was: else what was read there may be what a move
    /// has left.
    async fn is_still(&self, document: &Partition, place: Place) -> Result<bool, Error> {
        Ok(self.resolve(document, Use::Look).await?.is_same(&place))
    }

    /// `commit` for where its document is, by the numbers that the engine knows.
    async fn placed(&self, commit: &Commit, place: Place) -> Result<Commit, Error> {
        let mut placed = Commit { partition: place.of(&commit.partition)?, ..commit.clone() };
        for check in &mut placed.checks {
            let Check::Revision { key, revision } = check else { continue };
            if *revision > place.since {
                continue;
            }
            // What was last written before the document came here is a copy, if it is there.
            let record = self.store.get(&placed.partition, key).await?;
            let copy = match record {
                Some(record) => {
                    let (of, _) = copied::unwrap(record.revision, record.value)?;
                    (of == *revision).then_some(record.revision)
                }
                None => None,
            };
            let Some(copy) = copy else {
                let head = self.store.head(&placed.partition).await?;
                let position = head.map_or(Position::ZERO, |head| head.position);
                return Err(Error::Conflict { position, key: Some(key.clone()) });
            };
            *revision = copy;
        }
        placed.checks.push(Check::Fence(place.fence));
        Ok(placed)
    }

    /// What changed after a revision that lies before the document came to its place: the engine
    /// there has seen these changes only as copies, and no deletion. The stream has them.
    async fn changes_before(
        &self,
        at: &Partition,
        head: &Head,
        since: Position,
    ) -> Result<Changes, Error> {
        let lagged = || Error::Lagged { position: head.position };
        if head.position.incarnation != since.incarnation {
            return Err(lagged());
        }
        let (first, last) = span(Some(head));
        let mut latest: BTreeMap<Key, Change> = BTreeMap::new();
        let (mut end, mut arrived) = (last + 1, first == 1);
        'back: while end > first {
            let start = end.saturating_sub(WINDOW).max(first);
            let mut window = Vec::new();
            while start + (window.len() as u64) < end {
                let from = start + window.len() as u64;
                let limit = usize::try_from(end - from).unwrap_or(usize::MAX);
                match self.store.read(at, &CHANGES, from, limit).await {
                    Ok(page) if page.is_empty() => return Err(lagged()),
                    Ok(page) => window.extend(page),
                    Err(Error::Trimmed { .. }) => return Err(lagged()),
                    Err(error) => return Err(error),
                }
            }
            for entry in window.into_iter().rev() {
                let entry = copied::entry(entry)?;
                if entry.revision <= since.revision {
                    arrived = true;
                    break 'back;
                }
                let damaged = |_| Error::corrupt(format!("a change of {at} cannot be read"));
                let change: ChangeRecord = storage::decode(&entry.value).map_err(damaged)?;
                let value = change.value.map(|value| storage::encode(&EntryRecord(value)));
                let key = Key::new(&change.key)?;
                let revision = entry.revision;
                latest.entry(key.clone()).or_insert(Change { key, revision, value });
            }
            end = start;
        }
        if !arrived {
            return Err(lagged());
        }
        let mut keys: Vec<Change> = latest.into_values().collect();
        keys.sort_by_key(|change| change.revision);
        let streams: Vec<StreamHead> = head.streams.clone();
        Ok(Changes { position: head.position, keys, streams })
    }

    async fn changes_at(
        &self,
        place: Place,
        at: &Partition,
        since: Position,
    ) -> Result<Changes, Error> {
        if since != Position::ZERO
            && since.revision < place.since
            && let Some(head) = self.store.head(at).await?
        {
            return self.changes_before(at, &head, since).await;
        }
        let mut told = self.store.changes(at, since).await?;
        for change in &mut told.keys {
            if let Some(value) = change.value.take() {
                let (revision, value) = copied::unwrap(change.revision, value)?;
                (change.revision, change.value) = (revision, Some(value));
            }
        }
        told.keys.sort_by_key(|change| change.revision);
        Ok(told)
    }
}

impl std::fmt::Debug for Places {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Places").finish_non_exhaustive()
    }
}

pub(super) fn on_its_way() -> Error {
    Error::unavailable("the document is on its way to another tier")
}

/// Reads where the document is; again, if it has moved meanwhile.
macro_rules! where_it_is {
    ($self:ident, $document:ident, $by:expr, |$place:ident, $at:ident| $read:expr) => {{
        for _ in 0..ATTEMPTS {
            let $place = $self.resolve($document, $by).await?;
            let $at = &$place.of($document)?;
            let answer = $read;
            if $self.is_still($document, $place).await? {
                return answer;
            }
        }
        Err(on_its_way())
    }};
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Store for Places {
    fn capabilities(&self) -> Capabilities {
        self.store.capabilities()
    }

    async fn commit(&self, commit: Commit) -> Result<Committed, Error> {
        let document = &commit.partition;
        if document::name(document).is_none() {
            return self.store.commit(commit).await;
        }
        let until = self.clock.elapsed() + WAIT_MAX;
        let mut pause = Duration::from_millis(1);
        loop {
            let place = self.resolve(document, Use::Write).await?;
            let outcome = match self.placed(&commit, place).await {
                Ok(placed) => {
                    if place.tier == Tier::Live {
                        self.live.grow(document, &placed);
                    }
                    self.store.commit(placed).await
                }
                // It may have moved from where its record was looked for.
                Err(error) if self.is_still(document, place).await? => Err(error),
                Err(_) => continue,
            };
            match outcome {
                // Nothing has changed: the document moves, or has moved.
                Err(Error::Fenced { .. }) if self.clock.elapsed() < until => {
                    self.wait_for_move(document, place, &mut pause).await;
                }
                Err(Error::Fenced { .. }) => return Err(on_its_way()),
                outcome => return outcome,
            }
        }
    }

    async fn head(&self, document: &Partition) -> Result<Option<Head>, Error> {
        if document::name(document).is_none() {
            return self.store.head(document).await;
        }
        where_it_is!(self, document, Use::Look, |place, at| self.store.head(at).await)
    }

    async fn get(&self, document: &Partition, key: &Key) -> Result<Option<Record>, Error> {
        if document::name(document).is_none() {
            return self.store.get(document, key).await;
        }
        where_it_is!(self, document, Use::Read, |place, at| match self.store.get(at, key).await {
            Ok(record) => record.map(copied::record).transpose(),
            Err(error) => Err(error),
        })
    }

    async fn scan(
        &self,
        document: &Partition,
        prefix: &[u8],
        after: Option<&Key>,
        limit: usize,
    ) -> Result<ScanPage, Error> {
        if document::name(document).is_none() {
            return self.store.scan(document, prefix, after, limit).await;
        }
        let unwrap = |page: ScanPage| {
            let one = |(key, record)| Ok((key, copied::record(record)?));
            let records = page.records.into_iter().map(one).collect::<Result<_, Error>>()?;
            Ok(ScanPage { records, ..page })
        };
        where_it_is!(self, document, Use::Read, |place, at| {
            self.store.scan(at, prefix, after, limit).await.and_then(unwrap)
        })
    }

    async fn read(
        &self,
        document: &Partition,
        stream: &StreamName,
        from: u64,
        limit: usize,
    ) -> Result<Vec<Entry>, Error> {
        if document::name(document).is_none() {
            return self.store.read(document, stream, from, limit).await;
        }
        where_it_is!(self, document, Use::Read, |place, at| {
            let read = self.store.read(at, stream, from, limit).await;
            read.and_then(|entries| entries.into_iter().map(copied::entry).collect())
        })
    }

    async fn changes(&self, document: &Partition, since: Position) -> Result<Changes, Error> {
        if document::name(document).is_none() {
            return self.store.changes(document, since).await;
        }
        where_it_is!(self, document, Use::Read, |place, at| {
            self.changes_at(place, at, since).await
        })
    }

    fn hints(&self, partition: &Partition) -> &Hints {
        match document::name(partition) {
            Some(_) => &self.hints,
            None => self.store.hints(partition),
        }
    }

    async fn due(&self, bucket: Bucket, limit: usize) -> Result<Vec<Partition>, Error> {
        self.store.due(bucket, limit).await
    }

    /// Of documents each once, by its name.
    async fn list(
        &self,
        tenant: &TenantId,
        kind: &Kind,
        after: Option<&str>,
        limit: usize,
    ) -> Result<PartitionPage, Error> {
        let mut after = after.map(str::to_owned);
        loop {
            let mut page = self.store.list(tenant, kind, after.as_deref(), limit).await?;
            if *kind != document::KIND {
                return Ok(page);
            }
            after = page.partitions.last().map(|last| last.id().to_owned());
            // Whatever moved has left its first place behind.
            page.partitions.retain(|partition| !partition.id().contains('/'));
            if !page.partitions.is_empty() || !page.more {
                return Ok(page);
            }
        }
    }

    async fn sweep(&self, bucket: Bucket) -> Result<usize, Error> {
        self.store.sweep(bucket).await
    }
}

impl Places {
    /// After the document was found closed at `place`.
    async fn wait_for_move(&self, document: &Partition, place: Place, pause: &mut Duration) {
        match self.authority {
            Authority::Here => {
                // Whoever moves it has the turn.
                let _turn = self.turn(document).await;
                let now = self.clock.elapsed();
                if self.known.place(document, Use::Look, now) == Some(place) {
                    self.known.forget(document);
                }
            }
            Authority::Shared => {}
        }
        tokio::time::sleep(*pause).await;
        *pause = (*pause * 2).min(Duration::from_millis(100));
    }
}

//! Subscribing to a map: its entries page by page, what changed since the first page, and then
//! what changes. The client has all of it before the first update, and loses nothing between.

use crate::{
    Parts,
    broker::{self, problem},
    channel::{MAILBOX, entry},
    connection::{Bound, reader::Reader, subscribing::Beginning, task::Task},
};
use protocol::{
    Code, Problem,
    client::{
        Body, Error, ErrorCode, Phase, Publication, SubscribeRequest, SubscribeResult, Subscribed,
    },
};
use std::sync::Arc;
use store::{Key, Partition, Position};
use traffic_cop::state::{CHANGES, format_epoch};
use types::Caller;

/// Entries or changes of a page at most.
const PAGE: usize = 1_000;
/// The same, unless the client says otherwise.
const PAGE_USUAL: usize = 500;

/// What a client is told of a map beside what the broker adds.
#[derive(Default)]
pub(super) struct Collected {
    kind: Subscribed,
    state: Vec<Publication>,
    publications: Vec<Publication>,
    /// Whether the client had the map already.
    recovering: bool,
}

impl Collected {
    /// Nothing yet, of a map of those who are subscribed: the broker tells all of it.
    pub(super) fn of(kind: Subscribed) -> Self {
        Self { kind, ..Self::default() }
    }

    /// What it is a map of.
    pub(super) fn kind(&self) -> Subscribed {
        self.kind
    }

    /// Makes the answer to a subscription one to a map.
    pub(super) fn put_into(self, result: &mut SubscribeResult) {
        result.kind = self.kind.number();
        result.state.splice(0..0, self.state);
        result.publications.splice(0..0, self.publications);
        result.recovered = self.recovering;
        result.was_recovering = self.recovering;
    }
}

/// A step of the way to a map.
enum Step {
    /// The client asks again.
    Page(SubscribeResult),
    /// All up to this offset is collected.
    Caught(Collected, String, u64),
}

impl Task {
    /// Leads a client on its way to a map, one command at a time.
    pub(super) async fn lead_on(
        &self,
        bound: &Bound,
        mut beginning: Beginning,
    ) -> Result<(), Error> {
        let Some(partition) = beginning.admitted.source.entries().cloned() else {
            return Err(Error::from(&broker::no_map()));
        };
        if self.connection.is_subscribed(&beginning.channel) {
            return Err(ErrorCode::AlreadySubscribed.to_error());
        }
        let request = std::mem::take(&mut beginning.request);
        let node = &self.sockets.node;
        // What the answer holds, the queue has to hold: entries, changes, and those to come.
        let way = Way {
            parts: node.parts.clone(),
            partition,
            is_mailbox: beginning.channel.name().starts_with(MAILBOX),
            is_ending: beginning.admitted.entry_ttl.is_some(),
            caller: bound.caller.clone(),
            reader: beginning.reader.clone(),
            limit: match usize::try_from(request.limit) {
                Ok(0) | Err(_) => PAGE_USUAL,
                Ok(limit) => limit.min(PAGE),
            },
            bytes_max: node.config.queue_bytes_max / 8,
        };
        let (flag, tf) = (request.flag, request.tf.clone());
        let step = self.control(async move { way.step(&request).await }).await;
        let step = step.map_err(|problem| Error::from(&problem))?;
        match step {
            Step::Page(result) => {
                self.connection.reply(beginning.command, Body::Subscribe(result));
                Ok(())
            }
            Step::Caught(collected, epoch, offset) => {
                beginning.collected = Some(collected);
                beginning.request = SubscribeRequest {
                    recover: true,
                    epoch,
                    offset,
                    flag,
                    tf,
                    ..Default::default()
                };
                self.begin_subscription(beginning).await
            }
        }
    }
}

/// Where a client is on its way.
struct Way {
    parts: Parts,
    partition: Partition,
    is_mailbox: bool,
    /// Whether its entries end by themselves.
    is_ending: bool,
    caller: Arc<Caller>,
    /// What of it he may not read.
    reader: Option<Box<Reader>>,
    limit: usize,
    bytes_max: usize,
}

impl Way {
    async fn step(&self, request: &SubscribeRequest) -> Result<Step, Problem> {
        match Phase::read(request.phase) {
            Some(Phase::State) => self.entries(request).await,
            Some(Phase::Stream | Phase::Live) => {
                let recovering = request.recover;
                let collected = Collected { recovering, ..Collected::of(Subscribed::Map) };
                self.changes(collected, &request.epoch, request.offset).await
            }
            None => Err(Problem::new(Code::BadRequest, "there is no such phase")),
        }
    }

    /// What the client may read of it.
    fn readable(&self, mut entries: Vec<Publication>) -> Vec<Publication> {
        if let Some(reader) = &self.reader {
            reader.retain(&self.caller, &mut entries);
        }
        entries
    }

    async fn entries(&self, request: &SubscribeRequest) -> Result<Step, Problem> {
        let mut after = match request.cursor.as_str() {
            "" => None,
            cursor => Some(Key::new(cursor).map_err(|_| {
                Problem::new(Code::BadRequest, "the cursor is none of this server's")
            })?),
        };
        if self.is_mailbox && after.is_none() {
            self.parts.mailboxes.bury_expired(&self.partition, &self.caller).await?;
        }
        let mut known = after.is_some().then(|| (request.epoch.clone(), request.offset));
        let states = &self.parts.states;
        let (page, state) = loop {
            let (limit, bytes_max) = (self.limit, self.bytes_max);
            let page =
                states.page(&self.partition, after.as_ref(), limit, bytes_max, self.is_ending);
            let mut page = page.await?;
            // What changed since the first page comes after the last one.
            match &known {
                None => known = Some((page.epoch.clone(), page.offset)),
                Some((epoch, _)) if *epoch == page.epoch => {}
                Some(_) => return Err(another_life()),
            }
            let entries = std::mem::take(&mut page.entries);
            let state = entries.into_iter().map(entry::held).collect::<Result<Vec<_>, _>>()?;
            let state = self.readable(state);
            if !state.is_empty() || !page.more {
                break (page, state);
            }
            after = page.last;
        };
        let (epoch, offset) = known.unwrap_or((page.epoch, page.offset));
        // Of an entry that the client may read: it is told no other.
        let cursor = state.last().filter(|_| page.more).map(|last| last.key.clone());
        let cursor = cursor.unwrap_or_default();
        if page.more {
            let phase = Phase::State;
            return Ok(Step::Page(SubscribeResult { cursor, state, ..at(phase, epoch, offset) }));
        }
        let collected = Collected { state, ..Collected::of(Subscribed::Map) };
        match self.changes(collected, &epoch, offset).await? {
            // Too many have come meanwhile: the client asks for them, after these entries.
            Step::Page(SubscribeResult { state, .. }) => {
                Ok(Step::Page(SubscribeResult { state, ..at(Phase::State, epoch, offset) }))
            }
            caught @ Step::Caught(..) => Ok(caught),
        }
    }

    /// The changes after `offset`.
    async fn changes(
        &self,
        mut collected: Collected,
        epoch: &str,
        offset: u64,
    ) -> Result<Step, Problem> {
        let store = &self.parts.store;
        let head = store.head(&self.partition).await.map_err(problem)?;
        let incarnation = match &head {
            Some(head) => head.position.incarnation,
            None => self.parts.genesis.incarnation(&self.partition).await.map_err(problem)?,
        };
        let last = head.map_or(0, |head| head.last(&CHANGES));
        if epoch != format_epoch(incarnation) || offset > last {
            return Err(another_life());
        }
        let read = match store.read(&self.partition, &CHANGES, offset + 1, self.limit).await {
            Ok(entries) => entries,
            Err(store::Error::Trimmed { .. }) => return Err(another_life()),
            Err(error) => return Err(problem(error)),
        };
        let (mut at_offset, mut bytes) = (offset, 0);
        for change in &read {
            if bytes > self.bytes_max {
                break;
            }
            bytes += change.value.len();
            collected.publications.push(entry::update(change)?);
            at_offset = change.sequence;
        }
        collected.publications = self.readable(collected.publications);
        if at_offset >= last {
            return Ok(Step::Caught(collected, epoch.to_owned(), at_offset));
        }
        let Collected { state, publications, .. } = collected;
        let page = at(Phase::Stream, epoch.to_owned(), at_offset);
        Ok(Step::Page(SubscribeResult { state, publications, ..page }))
    }
}

fn at(phase: Phase, epoch: String, offset: u64) -> SubscribeResult {
    let (kind, phase) = (Subscribed::Map.number(), phase.number());
    SubscribeResult { kind, phase, epoch, offset, ..SubscribeResult::default() }
}

/// What the client knows cannot be led on from: it begins anew.
fn another_life() -> Problem {
    problem(store::Error::Lagged { position: Position::ZERO })
}

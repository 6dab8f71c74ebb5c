//! The events of a session: a stream beside the sessions of its principal.
//!
//! An event is appended by the commit that changes the session, so that there is neither one
//! without the other. The sessions of a partition share the stream, which is trimmed by count, and,
//! once none of them is left, by age ([`Forgetting`]). That a session's time was over is not
//! written by anybody: it is told by what is left of the session. What happens without a change
//! of the session, that sockets open and close, comes from its [`super::Trail`].

use crate::{
    session::{
        Event, EventKind, KIND, Sessions, event::EventRecord, event::named, left_key, partition,
        record::SessionRecord,
    },
    storage,
};
use async_trait::async_trait;
use clock::SharedClock;
use ledger::{LeaseError, Owned, Work};
use protocol::{Code, Problem};
use serde::{Deserialize, Serialize};
use std::{collections::HashMap, sync::Arc, time::Duration};
use store::{
    Bucket, Check, Commit, Committed, Error, Key, Kind, Partition, SharedStore, StreamName, Write,
};
use types::{Principal, SessionId, TenantId, Timestamp};

const EVENTS: StreamName = StreamName::new("events");
/// The events of how many sessions a stream keeps, at their most.
const SESSIONS_KEPT: u64 = 16;
/// How many more it holds until it is trimmed.
const TRIM_EVERY: u64 = 64;
const WINDOW: u64 = 256;
/// Between two looks at a partition in which nothing can be forgotten yet, at least.
const PAUSE_MIN: Duration = Duration::from_secs(60);
/// Partitions of a bucket that are looked at in a turn.
const DUE_MAX: usize = 64;

/// Which events are wanted.
#[derive(Debug, Clone, Default, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct WantedEvents {
    /// At most so many; 50 unless given, at most 1000.
    pub limit: Option<usize>,
    /// Those before this one.
    pub before: Option<String>,
    /// Those of this kind.
    pub kind: Option<EventKind>,
}

/// An event, and its place among the others.
#[derive(Debug, Clone, PartialEq, Serialize, schemars::JsonSchema)]
pub struct ShownEvent {
    /// Its place: texts in the order of time.
    pub id: String,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

/// The events of a session, and whose it is or was.
#[derive(Debug)]
pub struct Past {
    /// Whose: `user:ann`.
    pub of: String,
    /// Who uses it, if it was handed over.
    pub holder: Option<String>,
    /// All that are kept, in the order of time.
    pub events: Vec<ShownEvent>,
}

impl WantedEvents {
    /// The last of `events` that are wanted, in the order of time.
    ///
    /// # Errors
    /// `bad_request` for a limit beyond the bounds.
    pub fn of(&self, events: Vec<ShownEvent>) -> Result<Vec<ShownEvent>, Problem> {
        let limit = self.limit.unwrap_or(50);
        if !(1..=1000).contains(&limit) {
            return Err(Problem::new(Code::BadRequest, "`limit` must be 1 to 1000"));
        }
        let mut wanted = events;
        wanted.retain(|shown| {
            self.before.as_ref().is_none_or(|before| shown.id < *before)
                && self.kind.is_none_or(|kind| shown.event.kind == kind)
        });
        Ok(wanted.split_off(wanted.len().saturating_sub(limit)))
    }
}

/// A commit that changes `record`, and says so.
pub(super) fn telling(
    commit: Commit,
    record: &SessionRecord,
    events: impl IntoIterator<Item = Event>,
    keep: Duration,
) -> Commit {
    let (mut commit, mut any) = (commit, false);
    for event in events {
        let value = EventRecord::written(record.id, named(&record.owner()), event);
        commit = commit.append(EVENTS, value);
        any = true;
    }
    if any { commit.write(Write::Wake(Some(keep.max(PAUSE_MIN)))) } else { commit }
}

impl Sessions {
    /// Commits, and has the stream not grow for ever.
    pub(super) async fn commit(&self, commit: Commit) -> Result<Committed, Error> {
        let partition = commit.partition.clone();
        let committed = self.store.commit(commit).await?;
        let most = self.config.events_max as u64 * SESSIONS_KEPT;
        let is_due = |last: &&u64| last.is_multiple_of(TRIM_EVERY) && **last > most;
        if let Some(last) = committed.sequences.iter().find(is_due) {
            let trim = Write::Trim { stream: EVENTS, first: last - most + 1 };
            if let Err(error) = self.store.commit(Commit::new(partition).write(trim)).await {
                // The next turn does it.
                tracing::debug!(%error, "the events of sessions are not trimmed");
            }
        }
        Ok(committed)
    }

    /// What happened to a session that lives, or whose end is not long ago; `None` if nothing is
    /// known of it.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn past(&self, tenant: &TenantId, id: SessionId) -> Result<Option<Past>, Problem> {
        let partition = partition(tenant, id.shelf())?;
        let living = self.read(tenant, id).await?.map(|(record, _)| record);
        let left = self.store.get(&partition, &left_key(id)).await.map_err(storage::problem)?;
        let left = left.map(|stored| storage::decode::<SessionRecord>(&stored.value));
        let left = left.transpose()?;
        let known = living.as_ref().or(left.as_ref());
        let mut of = known.map(|record| named(&record.owner()));
        let holder = known.and_then(|record| record.holder.as_ref());
        let holder = holder.map(|holder| named(&holder.principal()));
        let mut events = Vec::new();
        for (sequence, whose, event) in self.streamed(&partition, id).await? {
            of.get_or_insert(whose);
            events.push(ShownEvent { id: place(event.at, &format!("e{sequence:012}")), event });
        }
        let own_end = if living.is_none() { left.as_ref().and_then(own_end) } else { None };
        events.extend(own_end.map(|event| ShownEvent { id: place(event.at, "x"), event }));
        let Some(of) = of else { return Ok(None) };
        events.extend(self.trail.socket_events(tenant, id).await?);
        events.sort_by(|a, b| a.id.cmp(&b.id));
        let events = events.split_off(events.len().saturating_sub(self.config.events_max));
        Ok(Some(Past { of, holder, events }))
    }

    /// The last events of `id` that the stream has, each with its number and whose session it was.
    async fn streamed(
        &self,
        partition: &Partition,
        id: SessionId,
    ) -> Result<Vec<(u64, String, Event)>, Problem> {
        let head = self.store.head(partition).await.map_err(storage::problem)?;
        let stream = head.and_then(|head| head.streams.into_iter().find(|of| of.stream == EVENTS));
        let Some(stream) = stream else { return Ok(Vec::new()) };
        let mut found = Vec::new();
        let mut to = stream.last + 1;
        while to > stream.first && found.len() < self.config.events_max {
            let from = to.saturating_sub(WINDOW).max(stream.first);
            let mut next = from;
            let mut window = Vec::new();
            while next < to {
                let limit = usize::try_from(to - next).unwrap_or(usize::MAX);
                let entries = match self.store.read(partition, &EVENTS, next, limit).await {
                    Ok(entries) => entries,
                    // What was trimmed meanwhile is what is too old.
                    Err(Error::Trimmed { .. }) => return Ok(found),
                    Err(error) => return Err(storage::problem(error)),
                };
                let Some(last) = entries.last() else { break };
                next = last.sequence + 1;
                window.extend(entries.iter().filter_map(|entry| {
                    let (of, event) = EventRecord::read(&entry.value, id)?;
                    Some((entry.sequence, of, event))
                }));
            }
            window.append(&mut found);
            found = window;
            to = from;
        }
        Ok(found)
    }

    /// Those who let go of events whose sessions are long over, for the owner of a shard.
    #[must_use]
    pub fn works(self: &Arc<Self>) -> HashMap<Kind, Arc<dyn Work>> {
        let forgetting = Forgetting {
            store: self.store.clone(),
            clock: self.clock.clone(),
            keep: self.config.events_keep,
        };
        HashMap::from([(KIND, Arc::new(forgetting) as Arc<dyn Work>)])
    }

    /// The same in a bucket, where no shard has an owner.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn forget_past(&self, bucket: Bucket) -> Result<(), Error> {
        for partition in self.store.due(bucket, DUE_MAX).await? {
            if *partition.kind() == KIND {
                let keep = self.config.events_keep;
                let Some(head) = self.store.head(&partition).await? else { continue };
                let (trim, next) = forgetting(&self.store, &self.clock, keep, &partition).await?;
                // Whoever adds events meanwhile sets another time to look.
                let commit = Commit::new(partition).check(Check::Position(head.position));
                let commit = commit.write(Write::Wake(next));
                match self.store.commit(trim.into_iter().fold(commit, Commit::write)).await {
                    Ok(_) | Err(Error::Conflict { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }
}

/// The place of what happened at `at`; `tail` tells it from the rest of that moment.
pub(super) fn place(at: Timestamp, tail: &str) -> String {
    format!("{:013}-{tail}", at.0)
}

/// The event that a session's time was over, by what is left of it, if it was not ended before.
pub(super) fn own_end(left: &SessionRecord) -> Option<Event> {
    let over = left.over.as_ref().filter(|over| over.why.is_none())?;
    let why = if over.idle { "idle" } else { "absolute" };
    Some(Event::new(over.at, EventKind::Expired, None).with("reason", why))
}

/// Lets go of the events of sessions that are long over.
struct Forgetting {
    store: SharedStore,
    clock: SharedClock,
    keep: Duration,
}

#[async_trait]
impl Work for Forgetting {
    async fn due(&self, owned: &Owned<'_>) -> Result<Option<Duration>, LeaseError> {
        let partition = owned.partition();
        let (trim, next) = forgetting(&self.store, &self.clock, self.keep, partition).await?;
        if let Some(trim) = trim {
            owned.commit(|commit| commit.write(trim)).await?;
        }
        Ok(next)
    }
}

/// What of the events of a partition is to go, and when to look again. Nothing goes while there
/// are sessions, or what is left of some.
async fn forgetting(
    store: &SharedStore,
    clock: &SharedClock,
    keep: Duration,
    partition: &Partition,
) -> Result<(Option<Write>, Option<Duration>), Error> {
    let Some(head) = store.head(partition).await? else { return Ok((None, None)) };
    let Some(stream) = head.streams.iter().find(|of| of.stream == EVENTS) else {
        return Ok((None, None));
    };
    if stream.first > stream.last {
        return Ok((None, None));
    }
    if !store.scan(partition, b"", None::<&Key>, 1).await?.records.is_empty() {
        return Ok((None, Some(keep.max(PAUSE_MIN))));
    }
    let last = store.read(partition, &EVENTS, stream.last, 1).await?;
    let age = last.first().and_then(|entry| {
        let (_, json) = entry.value.split_first()?;
        let record: serde_json::Value = serde_json::from_slice(json).ok()?;
        Some(clock.now().since(Timestamp(record["event"]["at"].as_u64()?)))
    });
    match age.and_then(|age| keep.checked_sub(age)).filter(|left| !left.is_zero()) {
        Some(left) => Ok((None, Some(left.max(PAUSE_MIN)))),
        None => Ok((Some(Write::Trim { stream: EVENTS, first: stream.last + 1 }), None)),
    }
}

/// Who may see what happened to a session: its principal, and who uses it now.
impl Past {
    /// Whether it concerns `principal`.
    #[must_use]
    pub fn is_of(&self, principal: &Principal) -> bool {
        let name = named(principal);
        self.of == name || self.holder.as_ref() == Some(&name)
    }
}

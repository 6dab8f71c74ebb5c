//! Live state: documents that services, users and sessions share, in one order for all.
//!
//! A document belongs to a session, a user, the tenant, a pillar or a service, and holds
//! entries: keys with JSON values. Every change is one commit: the new value and, in the
//! same commit, its entry in the document's stream. Whoever follows the document sees the
//! changes in the order of their revisions; whoever was away resumes from the revision it
//! knows, or is told to take a snapshot.

mod document;
mod memory;
mod merge;
mod operation;
mod page;
mod past;
mod restore;
mod room;
mod rules;
mod schema;
mod sync;
mod transaction;
mod who;

pub use document::{DocumentId, Scope};
pub use json_patch::Patch as JsonPatch;
pub use merge::Merge;
pub use operation::Operation;
pub use page::Page;
pub use past::Moment;
pub use restore::Restoration;
pub use rules::Rule;
pub use schema::Schema;
pub use sync::{SyncConflict, SyncSide, SyncStatus, SyncStrategy, Synced, Transfer};
pub use transaction::{EntryNow, STEPS_MAX, Step, Transacted};
pub use who::{Those, Who};

use crate::{
    genesis::Genesis,
    state::{
        memory::{Known, Memory},
        merge::{Meeting, Outcome, Seen},
        operation::Bounds,
        past::{Present, span},
        rules::Rules,
    },
    storage::{self, Stored},
};
use clock::SharedClock;
use protocol::{Code, Problem};
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, value::RawValue};
use std::{borrow::Cow, collections::HashSet, sync::Arc};
use store::{Check, Commit, Incarnation, Key, Partition, Position, SharedStore, StreamName, Write};
use types::{Caller, PrincipalId, Timestamp};

/// The stream of a document's changes.
pub const CHANGES: StreamName = StreamName::new("changes");
const LOCKS: usize = 256;
const ATTEMPTS: usize = 32;
/// A document's stream is trimmed each time that so many changes have come.
const TRIM_EVERY: u64 = 64;

/// Bounds of documents.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Changes of a document that can be asked for and resumed over, 64 to 100000.
    pub history_max: u64,
    /// Bytes of one entry's value, as JSON; at most 131072.
    pub value_bytes_max: usize,
    /// How deep a value may be nested, at most 64.
    pub depth_max: usize,
    /// What holds for some documents, or some of their entries; at most 64.
    pub rules: Vec<Rule>,
}

impl Default for Config {
    fn default() -> Self {
        let rules = Vec::new();
        Self { history_max: 1_000, value_bytes_max: 64 * 1024, depth_max: 32, rules }
    }
}

impl Config {
    /// Refuses rules that cannot be meant.
    ///
    /// # Errors
    /// What is wrong and how it is put right.
    pub fn check(&self) -> Result<(), String> {
        rules::check(&self.rules)
    }
}

/// The documents of all tenants.
pub struct States {
    store: SharedStore,
    clock: SharedClock,
    config: Config,
    rules: Rules,
    genesis: Genesis,
    /// One writer of an entry at a time merges and commits, and remembers what it wrote; across
    /// nodes the checks decide.
    locks: Vec<tokio::sync::Mutex<Memory>>,
    hasher: ahash::RandomState,
}

/// An entry of a document.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Entry {
    /// Its key.
    pub key: String,
    /// The revision of its latest change.
    pub revision: u64,
    /// Its value.
    pub value: Json,
}

/// A document as a whole.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Snapshot {
    /// The life of the document, for resuming.
    pub epoch: String,
    /// The revision of its latest change.
    pub revision: u64,
    /// Its entries, by key.
    pub entries: Vec<Entry>,
}

/// A change of an entry, as followers see it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Change {
    /// Which entry.
    pub key: String,
    /// The revision that it made.
    pub revision: u64,
    /// The new value; missing if the entry was deleted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<Json>,
    /// Whether the entry was deleted.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub deleted: bool,
}

/// Changes since a revision.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Changes {
    /// The life of the document.
    pub epoch: String,
    /// The revision up to which these changes lead.
    pub revision: u64,
    /// Latest values in the order of their revisions; values in between may be missing.
    pub changes: Vec<Change>,
}

/// A change with its circumstances.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct HistoryEntry {
    /// Its place in the document's stream, without gaps.
    pub offset: u64,
    /// The change.
    #[serde(flatten)]
    pub change: Change,
    /// Who made it.
    pub by: PrincipalId,
    /// When, in milliseconds since 1970 UTC.
    pub at: Timestamp,
}

/// An applied change.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Applied {
    /// The life of the document.
    pub epoch: String,
    /// The revision that it made.
    pub revision: u64,
    /// The value now; missing after a deletion.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<Json>,
}

#[derive(Serialize, Deserialize)]
struct EntryRecord(Json);

impl Stored for EntryRecord {
    const VERSION: u8 = 1;
}

/// A change as the stream keeps it.
#[derive(Serialize, Deserialize)]
struct ChangeRecord {
    key: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    value: Option<Json>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    deleted: bool,
    /// Whether there was no entry before.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    created: bool,
    /// Which values of a set were added, anew or again; if it is missing, all of them were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    added: Option<Vec<Json>>,
    by: PrincipalId,
    at: Timestamp,
}

impl Stored for ChangeRecord {
    const VERSION: u8 = 1;
}

/// A [`ChangeRecord`] to be written.
#[derive(Serialize)]
struct ChangeForm<'a> {
    key: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    deleted: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    created: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    added: Option<&'a [Json]>,
    by: &'a PrincipalId,
    at: Timestamp,
}

impl States {
    /// Documents kept in `store`.
    #[must_use]
    pub fn new(
        store: SharedStore,
        clock: SharedClock,
        mut config: Config,
        genesis: Genesis,
    ) -> Self {
        let rules = Rules::new(std::mem::take(&mut config.rules));
        let locks = (0..LOCKS).map(|_| tokio::sync::Mutex::default()).collect();
        Self { store, clock, config, rules, genesis, locks, hasher: ahash::RandomState::new() }
    }

    /// The whole document, atomically, but for what the caller may not read. One that was never written is empty, at revision 0.
    ///
    /// # Errors
    /// `forbidden`, or those of the store.
    pub async fn snapshot(&self, caller: &Caller, id: &DocumentId) -> Result<Snapshot, Problem> {
        let partition = id.readable_by(caller)?;
        let Present { position, mut entries } = self.whole(&partition).await?;
        entries.retain(|entry| self.may_read(caller, &partition, &entry.key));
        let epoch = self.epoch(&partition, position).await?;
        Ok(Snapshot { epoch, revision: position.revision, entries })
    }

    /// Whether `caller`, who may read the document in `partition`, may read its entry `key`. Every
    /// way to the entries of a document goes by it: those of this crate by themselves, others
    /// by asking for each entry and each change that they hand out.
    #[must_use]
    pub fn may_read(&self, caller: &Caller, partition: &Partition, key: &str) -> bool {
        document::name(partition).is_none_or(|name| self.rules.may_read(caller, name, key))
    }

    /// Whether `caller`, who may read the document in `partition`, may read every entry that it
    /// can have, so that [`Self::may_read`] need not be asked.
    #[must_use]
    pub fn may_read_all(&self, caller: &Caller, partition: &Partition) -> bool {
        document::name(partition).is_none_or(|name| !self.rules.hides(caller, name))
    }

    fn may_write(&self, caller: &Caller, partition: &Partition, key: &str) -> bool {
        document::name(partition).is_none_or(|name| self.rules.may_write(caller, name, key))
    }

    fn check_read(&self, caller: &Caller, partition: &Partition, key: &str) -> Result<(), Problem> {
        match self.may_read(caller, partition, key) {
            true => Ok(()),
            false => Err(forbidden(key)),
        }
    }

    /// One entry.
    ///
    /// # Errors
    /// `forbidden`, `not_found`, or those of the store.
    pub async fn get(&self, caller: &Caller, id: &DocumentId, key: &str) -> Result<Entry, Problem> {
        let partition = id.readable_by(caller)?;
        self.check_read(caller, &partition, key)?;
        self.entry(&partition, key)
            .await?
            .ok_or_else(|| Problem::new(Code::NotFound, "there is no such entry"))
    }

    /// Changes an entry. With `if_revision`, only if that is the revision of its latest
    /// change; 0 demands that there is no such entry. A [`Rule`] may say how else such a write
    /// and others come together.
    ///
    /// # Errors
    /// `conflict` with the members `revision` and `value` of the entry as it is, `forbidden`,
    /// `not_found` (deleting nothing), `bad_request`, `body_too_large`, or those of the store.
    pub async fn apply(
        &self,
        caller: &Caller,
        id: &DocumentId,
        key: &str,
        operation: Operation,
        if_revision: Option<u64>,
    ) -> Result<Applied, Problem> {
        self.apply_in(caller, id.writable_by(caller)?, key, operation, if_revision).await
    }

    /// As [`Self::apply`], in a partition that holds entries as a document does, and that the
    /// caller may write.
    ///
    /// # Errors
    /// As [`Self::apply`].
    pub async fn apply_in(
        &self,
        caller: &Caller,
        partition: Partition,
        key: &str,
        operation: Operation,
        if_revision: Option<u64>,
    ) -> Result<Applied, Problem> {
        entry_key(key)?;
        let asked =
            Asked { caller, partition: &partition, key, operation: &operation, if_revision };
        let lock = &self.locks[(self.hasher.hash_one((&partition, key)) as usize) % LOCKS];
        let mut memory = lock.lock().await;
        let needs_value = operation.needs_value() || self.merge(&asked).0.needs_value();
        // What is remembered may be out of date. So it serves to commit by, which is checked,
        // and never to refuse by. It is forgotten unless the commit is done.
        if let Some(known) = memory.take(&partition, key)
            && let Ok(change) = self.change(&asked, known.current(key, needs_value), None)
        {
            let check = Check::Incarnation(known.incarnation);
            let commit = Commit::new(partition.clone()).check(check);
            let entries = vec![(key, change)];
            if let Ok(commit) = self.within_limits(commit, &entries).await {
                match self.commit(caller, commit, entries).await {
                    Ok(done) => return Ok(done.remembered_in(&mut memory, partition, key)),
                    Err(store::Error::Conflict { .. }) => memory.doubt(&partition, key),
                    Err(error) => return Err(storage::problem(error)),
                }
            }
        }
        for _ in 0..ATTEMPTS {
            let current = self.entry(&partition, key).await?;
            let added = self.added_since(&asked, current.as_ref()).await?;
            let entries = vec![(key, self.change(&asked, current, added.as_ref())?)];
            let commit = self.within_limits(Commit::new(partition.clone()), &entries).await?;
            match self.commit(caller, commit, entries).await {
                Ok(done) => return Ok(done.remembered_in(&mut memory, partition, key)),
                Err(store::Error::Conflict { .. }) => {}
                Err(error) => return Err(storage::problem(error)),
            }
        }
        Err(Problem::new(Code::Overloaded, "the entry is changed by too many at once"))
    }

    /// What a write makes of an entry as it is, or why it is refused. `added_since`: what
    /// [`Self::added_since`] found.
    fn change(
        &self,
        asked: &Asked<'_>,
        current: Option<Entry>,
        added_since: Option<&HashSet<Json>>,
    ) -> Result<NewValue, Problem> {
        if !self.may_write(asked.caller, asked.partition, asked.key) {
            return Err(forbidden(asked.key));
        }
        let document = document::name(asked.partition);
        let held = current.as_ref().map_or(0, |entry| entry.revision);
        let seen = match asked.if_revision {
            None => Seen::Unsaid,
            Some(expected) if expected == held => Seen::Present,
            Some(_) => Seen::Other,
        };
        let (merge, source) = self.merge(asked);
        let by_source = source.is_some_and(|source| source.includes(asked.caller));
        let value = current.as_ref().map(|entry| &entry.value);
        let meeting = Meeting { seen, current: value, by_source, added_since };
        let (operation, added) = match merge.outcome(asked.operation, meeting)? {
            Outcome::Apply(operation) => (operation, None),
            Outcome::Combined(operation, added) => (Cow::Owned(operation), Some(added)),
            Outcome::Conflict if seen == Seen::Unsaid => {
                let detail = "only its source writes the entry without `if_revision`".to_owned();
                return Err(Problem { detail, ..conflict(current) });
            }
            Outcome::Conflict => return Err(conflict(current)),
        };
        let bounds = Bounds { bytes: self.config.value_bytes_max, depth: self.config.depth_max };
        let made = operation.apply_to(value, bounds);
        let made = made.map_err(|problem| match problem.code == Code::Conflict {
            // A test of a patch: as with `if_revision`, what stands there is told.
            true => Problem { detail: problem.detail, ..conflict(current) },
            false => problem,
        });
        let value = match made? {
            None => None,
            Some(value) => {
                let written = self.written(&value)?;
                if let Some(schema) = document.and_then(|name| self.rules.schema(name, asked.key)) {
                    schema.check(&value)?;
                }
                Some((value, written))
            }
        };
        Ok(NewValue { held, value, added })
    }

    /// As [`Self::change`], for a value that is to be written as it is. A rule may take it for a
    /// change of a counter or a set; then it is refused.
    fn change_exactly(
        &self,
        asked: &Asked<'_>,
        current: Option<Entry>,
    ) -> Result<NewValue, Problem> {
        let new = self.change(asked, current, None)?;
        match (asked.operation, &new.value) {
            (Operation::Put(meant), Some((made, _))) if meant != made => {
                let detail = "a rule takes the value for a change of the entry";
                Err(Problem::new(Code::BadRequest, detail))
            }
            _ => Ok(new),
        }
    }

    /// How writes of the entry come together, and who its source is. Rules are for documents.
    fn merge(&self, asked: &Asked<'_>) -> (Merge, Option<&Who>) {
        let document = document::name(asked.partition);
        document.map(|name| self.rules.merge(name, asked.key)).unwrap_or_default()
    }

    /// The values that were added to a set after what a removal has seen. `None` if that does
    /// not matter, or is not known any more.
    async fn added_since(
        &self,
        asked: &Asked<'_>,
        current: Option<&Entry>,
    ) -> Result<Option<HashSet<Json>>, Problem> {
        let (Some(seen), Some(current)) = (asked.if_revision, current) else { return Ok(None) };
        let matters = self.merge(asked).0 == Merge::AddWinsSet && merge::removes(asked.operation);
        if !matters || seen >= current.revision {
            return Ok(None);
        }
        let head = self.store.head(asked.partition).await.map_err(storage::problem)?;
        let (first, last) = span(head.as_ref());
        let mut known = first == 1;
        let mut added = HashSet::new();
        let told = self.backwards(asked.partition, first, last, |revision, change| {
            if revision <= seen {
                known = true;
                return true;
            }
            if change.key == asked.key {
                match (change.added, change.value) {
                    (Some(values), _) | (None, Some(Json::Array(values))) => added.extend(values),
                    (None, Some(_) | None) => {}
                }
            }
            false
        });
        Ok((told.await? && known).then_some(added))
    }

    /// Commits what becomes of some entries, each checked to be as it was.
    async fn commit(
        &self,
        caller: &Caller,
        mut commit: Commit,
        entries: Vec<(&str, NewValue)>,
    ) -> Result<Done, store::Error> {
        let partition = &commit.partition.clone();
        let mut may_begin = true;
        for (key, new) in &entries {
            let key = Key::new(key)?;
            may_begin &= new.held == 0;
            commit = commit.check(match new.held {
                0 => Check::Absent { key },
                revision => Check::Revision { key, revision },
            });
        }
        // What holds an entry has begun; this may have not.
        if may_begin && self.store.head(partition).await?.is_none() {
            commit = commit.write(self.genesis.begin(partition).await?);
        }
        let at = self.clock.now();
        let mut values = Vec::with_capacity(entries.len());
        for (key, new) in entries {
            let (value, written) = new.value.unzip();
            let name = Key::new(key)?;
            commit = match &written {
                Some(written) => commit.put(name, storage::encode_as::<EntryRecord>(written)),
                None => commit.write(Write::Delete { key: name }),
            };
            let change = ChangeForm {
                key,
                value: written.as_deref(),
                deleted: written.is_none(),
                created: new.held == 0,
                added: new.added.as_deref(),
                by: &caller.principal.id,
                at,
            };
            commit = commit.append(CHANGES, storage::encode_as::<ChangeRecord>(&change));
            values.push((value, written));
        }
        let done = self.store.commit(commit).await?;
        if let (Some(first), Some(last)) = (done.sequences.first(), done.sequences.last())
            && (first - 1) / TRIM_EVERY != last / TRIM_EVERY
            && *last > self.config.history_max
        {
            let first = last - self.config.history_max + 1;
            let trim = Write::Trim { stream: CHANGES, first };
            let trim = Commit::new(partition.clone()).write(trim).applied();
            if let Err(error) = self.store.commit(trim).await {
                tracing::warn!(%partition, %error, "a document's history could not be trimmed");
            }
        }
        Ok(Done { position: done.position, values })
    }

    /// What changed after `revision` of the life `epoch`; 0 asks for everything.
    ///
    /// # Errors
    /// `lagged` if that can no longer be told: take a snapshot. `forbidden`, or those of the
    /// store.
    pub async fn changes(
        &self,
        caller: &Caller,
        id: &DocumentId,
        epoch: &str,
        revision: u64,
    ) -> Result<Changes, Problem> {
        let partition = id.readable_by(caller)?;
        let since = match (revision, parse_epoch(epoch)) {
            (0, _) => Position::ZERO,
            (revision, Some(incarnation)) => Position { incarnation, revision },
            (_, None) => {
                return Err(storage::problem(store::Error::Lagged { position: Position::ZERO }));
            }
        };
        let told = self.store.changes(&partition, since).await.map_err(storage::problem)?;
        let change = |change: &store::Change| {
            let value = match &change.value {
                None => None,
                Some(bytes) => Some(storage::decode::<EntryRecord>(bytes)?.0),
            };
            let key = String::from_utf8_lossy(change.key.as_bytes()).into_owned();
            Ok(Change { key, revision: change.revision, deleted: value.is_none(), value })
        };
        let may_read = |change: &&store::Change| {
            let key = String::from_utf8_lossy(change.key.as_bytes());
            self.may_read(caller, &partition, &key)
        };
        let changes = told.keys.iter().filter(may_read).map(change);
        Ok(Changes {
            epoch: self.epoch(&partition, told.position).await?,
            revision: told.position.revision,
            changes: changes.collect::<Result<_, Problem>>()?,
        })
    }

    /// As [`Self::changes`], but waits up to `wait` for the first one.
    ///
    /// # Errors
    /// As [`Self::changes`].
    pub async fn wait_for_changes(
        &self,
        caller: &Caller,
        id: &DocumentId,
        epoch: &str,
        revision: u64,
        wait: std::time::Duration,
    ) -> Result<Changes, Problem> {
        let mut watcher = store::watch(self.store.clone());
        watcher.follow(id.readable_by(caller)?, Position::ZERO);
        let deadline = tokio::time::Instant::now() + wait;
        loop {
            let told = self.changes(caller, id, epoch, revision).await?;
            if !told.changes.is_empty() {
                return Ok(told);
            }
            if tokio::time::timeout_at(deadline, watcher.touched()).await.is_err() {
                return Ok(told);
            }
        }
    }

    /// Changes with who made them and when, from `offset` on (1 is the first), at most `limit`.
    ///
    /// # Errors
    /// `lagged` if `offset` was trimmed, with the member `first`; `forbidden`, or those of the
    /// store.
    pub async fn history(
        &self,
        caller: &Caller,
        id: &DocumentId,
        offset: u64,
        limit: usize,
    ) -> Result<Vec<HistoryEntry>, Problem> {
        let partition = id.readable_by(caller)?;
        let (mut offset, limit) = (offset.max(1), limit.max(1));
        let mut told = Vec::new();
        // A page of which the caller may read nothing is not the last one.
        loop {
            let read = self.store.read(&partition, &CHANGES, offset, limit).await;
            let page = read.map_err(|error| {
                let first =
                    if let store::Error::Trimmed { first } = error { Some(first) } else { None };
                let problem = storage::problem(error);
                first.into_iter().fold(problem, |problem, first| problem.member("first", first))
            })?;
            let Some(last) = page.last() else { break };
            offset = last.sequence + 1;
            for entry in &page {
                let ChangeRecord { key, value, deleted, by, at, .. } =
                    storage::decode(&entry.value)?;
                if self.may_read(caller, &partition, &key) {
                    let change = Change { key, revision: entry.revision, value, deleted };
                    told.push(HistoryEntry { offset: entry.sequence, change, by, at });
                }
            }
            if !told.is_empty() {
                break;
            }
        }
        Ok(told)
    }

    /// All entries, at one position.
    async fn whole(&self, partition: &Partition) -> Result<Present, Problem> {
        'again: for _ in 0..ATTEMPTS {
            let mut entries = Vec::new();
            let mut position = None;
            let mut after: Option<Key> = None;
            loop {
                let page = self
                    .store
                    .scan(partition, b"", after.as_ref(), 1_000)
                    .await
                    .map_err(storage::problem)?;
                if *position.get_or_insert(page.position) != page.position {
                    continue 'again; // It changed between two pages.
                }
                for (key, record) in &page.records {
                    let EntryRecord(value) = storage::decode(&record.value)?;
                    let key = String::from_utf8_lossy(key.as_bytes()).into_owned();
                    entries.push(Entry { key, revision: record.revision, value });
                }
                match page.records.last() {
                    Some((last, _)) if page.more => after = Some(last.clone()),
                    Some(_) | None => break,
                }
            }
            let position = position.unwrap_or(Position::ZERO);
            return Ok(Present { position, entries });
        }
        Err(Problem::new(Code::Overloaded, "the document changes faster than it can be read"))
    }

    async fn entry(&self, partition: &Partition, key: &str) -> Result<Option<Entry>, Problem> {
        let name = entry_key(key)?;
        let record = self.store.get(partition, &name).await.map_err(storage::problem)?;
        record
            .map(|record| {
                let EntryRecord(value) = storage::decode(&record.value)?;
                Ok(Entry { key: key.to_owned(), revision: record.revision, value })
            })
            .transpose()
    }

    /// A value as JSON, if it may be one of an entry.
    fn written(&self, value: &Json) -> Result<Box<RawValue>, Problem> {
        let unwritten = |_| Problem::new(Code::Internal, "the value cannot be written");
        let written = serde_json::value::to_raw_value(value).map_err(unwritten)?;
        let (actual, limit) = (written.get().len(), self.config.value_bytes_max);
        if actual > limit {
            let detail = format!("the value has {actual} bytes; at most {limit} are allowed");
            return Err(Problem::new(Code::BodyTooLarge, detail));
        }
        if operation::depth(value) > self.config.depth_max {
            let detail = format!("the value is nested deeper than {}", self.config.depth_max);
            return Err(Problem::new(Code::BadRequest, detail));
        }
        Ok(written)
    }

    async fn epoch(&self, partition: &Partition, position: Position) -> Result<String, Problem> {
        let begun = position.incarnation != Position::ZERO.incarnation;
        let incarnation = match begun {
            true => position.incarnation,
            false => self.genesis.incarnation(partition).await.map_err(storage::problem)?,
        };
        Ok(format_epoch(incarnation))
    }
}

/// A write of an entry, as it is asked for.
struct Asked<'a> {
    caller: &'a Caller,
    partition: &'a Partition,
    key: &'a str,
    operation: &'a Operation,
    if_revision: Option<u64>,
}

/// What an entry is to become.
struct NewValue {
    /// The revision that it has; 0: it is not there.
    held: u64,
    /// The value, and the same as JSON; missing if it is to be deleted.
    value: Option<(Json, Box<RawValue>)>,
    /// The values that it adds to a set, if it is a change of one.
    added: Option<Vec<Json>>,
}

/// Changes that are committed, with the values that they made, in their order.
struct Done {
    position: Position,
    values: Vec<(Option<Json>, Option<Box<RawValue>>)>,
}

impl Done {
    /// The change of one entry, which is remembered.
    fn remembered_in(self, memory: &mut Memory, partition: Partition, key: &str) -> Applied {
        let Position { incarnation, revision } = self.position;
        let (value, written) = self.values.into_iter().next().unwrap_or_default();
        if let Some(value) = written {
            memory.keep(partition, key, Known { incarnation, revision, value });
        }
        Applied { epoch: format_epoch(incarnation), revision, value }
    }
}

/// An incarnation as clients know it.
#[must_use]
pub fn format_epoch(incarnation: Incarnation) -> String {
    format!("{:x}", incarnation.0)
}

/// Reads what [`format_epoch`] wrote.
#[must_use]
pub fn parse_epoch(epoch: &str) -> Option<Incarnation> {
    u64::from_str_radix(epoch, 16).ok().map(Incarnation)
}

/// A change of the stream as it is published to sockets.
///
/// # Errors
/// `internal` if it cannot be read.
pub fn publication(entry: &store::Entry) -> Result<(Change, PrincipalId), Problem> {
    let ChangeRecord { key, value, deleted, by, .. } = storage::decode(&entry.value)?;
    Ok((Change { key, revision: entry.revision, value, deleted }, by))
}

fn entry_key(key: &str) -> Result<Key, Problem> {
    if key.is_empty() || key.len() > 256 || key.chars().any(char::is_control) {
        let detail = "a key is 1 to 256 bytes without control characters";
        return Err(Problem::new(Code::BadRequest, detail));
    }
    Key::new(key).map_err(storage::problem)
}

fn forbidden(key: &str) -> Problem {
    Problem::new(Code::Forbidden, format!("the entry `{key}` is not open to this caller"))
}

fn conflict(current: Option<Entry>) -> Problem {
    let problem = Problem::new(Code::Conflict, "the entry has another revision");
    match current {
        None => problem.member("revision", 0),
        Some(entry) => problem.member("revision", entry.revision).member("value", entry.value),
    }
}

/// The documents of a node, shared.
pub type SharedStates = Arc<States>;

#[cfg(test)]
mod tests;

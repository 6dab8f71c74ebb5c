//! Live state: documents that services, users and sessions share, in one order for all.
//!
//! A document belongs to a session, a user, the tenant, a pillar or a service, and holds
//! entries: keys with JSON values. Every change is one commit: the new value and, in the
//! same commit, its entry in the document's stream. Whoever follows the document sees the
//! changes in the order of their revisions; whoever was away resumes from the revision it
//! knows, or is told to take a snapshot.

mod change;
mod document;
mod expiry;
mod following;
mod kept;
mod memory;
mod merge;
mod operation;
mod page;
mod past;
mod permission;
mod restore;
mod room;
mod rules;
mod schema;
mod sync;
pub mod tier;
mod transaction;
mod who;

pub use document::{DocumentId, Scope};
pub use expiry::Expiry;
pub use following::publication;
pub use json_patch::Patch as JsonPatch;
pub use kept::{BEFORE_ENTRIES, set, value};
pub use merge::Merge;
pub use operation::{Operation, PatchForm};
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
    session::{Trail, What},
    state::{
        change::{Asked, NewValue},
        expiry::Life,
        memory::{Known, Memory},
        past::Present,
        rules::Rules,
    },
    storage::{self, Stored},
};
use clock::SharedClock;
use protocol::{Code, Problem};
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, value::RawValue};
use std::{sync::Arc, time::Duration};
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
    /// When documents change their tier.
    pub promotion: tier::Promotion,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            history_max: 1_000,
            value_bytes_max: 64 * 1024,
            depth_max: 32,
            rules: Vec::new(),
            promotion: tier::Promotion::default(),
        }
    }
}

impl Config {
    /// Refuses rules that cannot be meant.
    ///
    /// # Errors
    /// What is wrong and how it is put right.
    pub fn check(&self) -> Result<(), String> {
        rules::check(&self.rules)?;
        self.promotion.check()
    }
}

/// The documents of all tenants.
pub struct States {
    store: SharedStore,
    clock: SharedClock,
    config: Config,
    rules: Rules,
    genesis: Genesis,
    /// The store, if documents may move in it.
    places: Option<Arc<tier::Places>>,
    /// One writer of an entry at a time merges and commits, and remembers what it wrote; across
    /// nodes the checks decide.
    locks: Vec<tokio::sync::Mutex<Memory>>,
    hasher: ahash::RandomState,
    /// Where it is noted what sessions change.
    trail: Option<Trail>,
}

/// An entry of a document.
#[derive(Debug, Clone, PartialEq, Serialize, schemars::JsonSchema)]
pub struct Entry {
    /// Its key.
    pub key: String,
    /// The revision of its latest change.
    pub revision: u64,
    /// Its value.
    pub value: Json,
}

/// A document as a whole.
#[derive(Debug, Clone, PartialEq, Serialize, schemars::JsonSchema)]
pub struct Snapshot {
    /// The life of the document, for resuming.
    pub epoch: String,
    /// The revision of its latest change.
    pub revision: u64,
    /// Its entries, by key.
    pub entries: Vec<Entry>,
}

/// A change of an entry, as followers see it.
#[derive(Debug, Clone, PartialEq, Serialize, schemars::JsonSchema)]
pub struct Change {
    /// Which entry.
    pub key: String,
    /// The revision that it made.
    pub revision: u64,
    /// The new value; missing if the entry was deleted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<Json>,
    /// Whether the entry was deleted.
    #[schemars(default)]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub deleted: bool,
}

/// Changes since a revision.
#[derive(Debug, Clone, PartialEq, Serialize, schemars::JsonSchema)]
pub struct Changes {
    /// The life of the document.
    pub epoch: String,
    /// The revision up to which these changes lead.
    pub revision: u64,
    /// Latest values in the order of their revisions; values in between may be missing.
    pub changes: Vec<Change>,
}

/// A change with its circumstances.
#[derive(Debug, Clone, PartialEq, Serialize, schemars::JsonSchema)]
pub struct HistoryEntry {
    /// Its place in the document's stream, without gaps.
    pub offset: u64,
    /// The change.
    #[serde(flatten)]
    pub change: Change,
    /// Who made it; missing if the entry ended by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<PrincipalId>,
    /// When, in milliseconds since 1970 UTC.
    pub at: Timestamp,
}

/// An applied change.
#[derive(Debug, Clone, PartialEq, Serialize, schemars::JsonSchema)]
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
    /// Who made it; missing if the entry ended by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    by: Option<PrincipalId>,
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
    #[serde(skip_serializing_if = "Option::is_none")]
    by: Option<&'a PrincipalId>,
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
        let hasher = ahash::RandomState::new();
        Self { store, clock, config, rules, genesis, places: None, locks, hasher, trail: None }
    }

    /// The same, noting in `trail` what sessions change.
    #[must_use]
    pub fn with_trail(self, trail: Trail) -> Self {
        Self { trail: Some(trail), ..self }
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
        let partition = id.writable_by(caller)?;
        self.apply_in(caller, partition, key, operation, if_revision, None).await
    }

    /// As [`Self::apply`], in a partition that holds entries as a document does, and that the
    /// caller may write. What is written ends after `ttl`, if there is one, as [`Expiry`] has it.
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
        ttl: Option<Duration>,
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
            let change = self.living(change, known.life, ttl);
            let life = change.renewed.life;
            let check = Check::Incarnation(known.incarnation);
            let commit = Commit::new(partition.clone()).check(check);
            let entries = vec![(key, change)];
            if let Ok(commit) = self.within_limits(commit, &entries).await {
                match self.commit(caller, commit, entries).await {
                    Ok(done) => return Ok(done.remembered_in(&mut memory, partition, key, life)),
                    Err(store::Error::Conflict { .. }) => memory.doubt(&partition, key),
                    Err(error) => return Err(storage::problem(error)),
                }
            }
        }
        for _ in 0..ATTEMPTS {
            let (current, held) = self.living_entry(&partition, key).await?.unzip();
            let added = self.added_since(&asked, current.as_ref()).await?;
            let change = self.change(&asked, current, added.as_ref())?;
            let change = self.living(change, held.flatten(), ttl);
            let life = change.renewed.life;
            let entries = vec![(key, change)];
            let commit = self.within_limits(Commit::new(partition.clone()), &entries).await?;
            match self.commit(caller, commit, entries).await {
                Ok(done) => return Ok(done.remembered_in(&mut memory, partition, key, life)),
                Err(store::Error::Conflict { .. }) => {}
                Err(error) => return Err(storage::problem(error)),
            }
        }
        Err(Problem::new(Code::Overloaded, "the entry is changed by too many at once"))
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
        let keys = self.traced(caller).then(|| entries.iter().map(|(key, _)| (*key).to_owned()));
        let keys: Option<Vec<String>> = keys.map(Iterator::collect);
        let alarm = entries.iter().filter_map(|(_, new)| new.renewed.alarm()).min();
        let mut values = Vec::with_capacity(entries.len());
        for (key, new) in entries {
            let (value, written) = new.value.unzip();
            let name = Key::new(key)?;
            commit = match &written {
                Some(value) => commit.put(name, expiry::written(value, new.renewed.life)),
                None => commit.write(Write::Delete { key: name }),
            };
            commit = new.renewed.write(commit, key)?;
            let change = ChangeForm {
                key,
                value: written.as_deref(),
                deleted: written.is_none(),
                created: new.held == 0,
                added: new.added.as_deref(),
                by: Some(&caller.principal.id),
                at,
            };
            commit = commit.append(CHANGES, storage::encode_as::<ChangeRecord>(&change));
            values.push((value, written));
        }
        if let Some(at) = alarm {
            commit = self.waking(commit, at).await?;
        }
        let partition = commit.partition.clone();
        let done = self.store.commit(commit).await?;
        self.trim(&partition, &done.sequences).await;
        if let Some(keys) = keys {
            self.trace(caller, &partition, keys, done.position.revision);
        }
        Ok(Done { position: done.position, values })
    }

    /// Whether it is noted what the caller's session changes.
    fn traced(&self, caller: &Caller) -> bool {
        caller.session.is_some() && self.trail.as_ref().is_some_and(Trail::is_on)
    }

    /// Notes what the caller's session has changed.
    fn trace(&self, caller: &Caller, partition: &Partition, keys: Vec<String>, revision: u64) {
        let (Some(trail), Some(session)) = (&self.trail, caller.session) else { return };
        let document = match document::name(partition) {
            Some(name) => name.to_owned(),
            None => format!("{}:{}", partition.kind().as_str(), partition.id()),
        };
        trail.note(&caller.tenant, session, What::State { document, keys, revision });
    }

    /// Removes changes that are too old, after these have come.
    async fn trim(&self, partition: &Partition, sequences: &[u64]) {
        if let (Some(first), Some(last)) = (sequences.first(), sequences.last())
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
    }

    /// What is to be written, as it is to live.
    fn living(&self, new: NewValue, held: Option<Life>, ttl: Option<Duration>) -> NewValue {
        let ttl = ttl.filter(|_| new.value.is_some());
        NewValue { renewed: expiry::renewed(held, self.clock.now(), ttl), ..new }
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
        Ok(self.living_entry(partition, key).await?.map(|(entry, _)| entry))
    }

    /// An entry, and how long it lives if it ends by itself.
    async fn living_entry(
        &self,
        partition: &Partition,
        key: &str,
    ) -> Result<Option<(Entry, Option<Life>)>, Problem> {
        let name = entry_key(key)?;
        let record = self.store.get(partition, &name).await.map_err(storage::problem)?;
        record
            .map(|record| {
                let (value, life) = expiry::read(&record)?;
                Ok((Entry { key: key.to_owned(), revision: record.revision, value }, life))
            })
            .transpose()
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

/// Changes that are committed, with the values that they made, in their order.
struct Done {
    position: Position,
    values: Vec<(Option<Json>, Option<Box<RawValue>>)>,
}

impl Done {
    /// The change of one entry, which is remembered.
    fn remembered_in(
        self,
        memory: &mut Memory,
        partition: Partition,
        key: &str,
        life: Option<Life>,
    ) -> Applied {
        let Position { incarnation, revision } = self.position;
        let (value, written) = self.values.into_iter().next().unwrap_or_default();
        if let Some(value) = written {
            memory.keep(partition, key, Known { incarnation, revision, value, life });
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

fn entry_key(key: &str) -> Result<Key, Problem> {
    if key.is_empty() || key.len() > 256 || key.chars().any(char::is_control) {
        let detail = "a key is 1 to 256 bytes without control characters";
        return Err(Problem::new(Code::BadRequest, detail));
    }
    Key::new(key).map_err(storage::problem)
}

/// The documents of a node, shared.
pub type SharedStates = Arc<States>;

#[cfg(test)]
mod tests;

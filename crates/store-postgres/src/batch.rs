//! What the commits of a batch do, without IO: each is checked against the state that
//! includes the earlier ones, and one that is refused leaves the others alone.

use bytes::Bytes;
use std::collections::{BTreeSet, HashMap};
use store::{
    Check, Commit, CommitId, Committed, Entry, Error, Incarnation, Key, Partition, StreamName,
    Write,
    bounds::{self, COMMIT_ID_KEPT, COMMIT_WRITES_MAX, VALUE_BYTES_MAX},
    rules::{self, Meta, Records, Stored, TrimmedSpan},
};
use types::Timestamp;

/// What is asked of a writer.
#[derive(Debug)]
pub(crate) enum Work {
    /// Applies a commit.
    Commit(Commit),
    /// Deletes those of the keys that have expired, by one commit.
    Sweep {
        /// Of which partition.
        partition: Partition,
        /// What had expired when it was looked for.
        keys: Vec<Key>,
    },
}

/// What was done: the reply to a commit, or how many records a sweep has deleted.
#[derive(Debug)]
pub(crate) enum Done {
    Committed(Committed),
    Swept(usize),
}

impl Work {
    pub(crate) fn partition(&self) -> &Partition {
        match self {
            Self::Commit(commit) => &commit.partition,
            Self::Sweep { partition, .. } => partition,
        }
    }

    /// The records that have to be known.
    pub(crate) fn keys(&self) -> Vec<&Key> {
        match self {
            Self::Sweep { keys, .. } => keys.iter().collect(),
            Self::Commit(commit) => {
                let checked = commit.checks.iter().filter_map(|check| match check {
                    Check::Revision { key, .. } | Check::Absent { key } => Some(key),
                    Check::Position(_) | Check::Incarnation(_) | Check::Fence(_) => None,
                });
                let written = commit.writes.iter().filter_map(|write| match write {
                    Write::Put { key, .. } | Write::Delete { key } => Some(key),
                    Write::Append { .. }
                    | Write::Trim { .. }
                    | Write::Wake(_)
                    | Write::Begin { .. } => None,
                });
                checked.chain(written).collect()
            }
        }
    }

    /// The name that has to be known.
    pub(crate) fn id(&self) -> Option<CommitId> {
        match self {
            Self::Commit(commit) => commit.id,
            Self::Sweep { .. } => None,
        }
    }
}

/// The reply that a commit's id is remembered by.
#[derive(Debug, Clone)]
pub(crate) struct Remembered {
    pub(crate) digest: u128,
    pub(crate) at: Timestamp,
    pub(crate) reply: Committed,
}

/// The latest change of a key.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    pub(crate) revision: u64,
    pub(crate) stored: Option<Stored>,
}

/// A partition while a batch changes it.
#[derive(Debug)]
pub(crate) struct Working {
    pub(crate) partition: Partition,
    pub(crate) meta: Option<Meta>,
    records: HashMap<Key, Change>,
    ids: HashMap<CommitId, Remembered>,
    changed: bool,
    changed_keys: BTreeSet<Key>,
    changed_ids: Vec<CommitId>,
    pub(crate) appends: Vec<(StreamName, Entry)>,
    pub(crate) trims: Vec<TrimmedSpan>,
}

impl Records for Working {
    fn record(&self, key: &Key) -> Result<Option<Stored>, Error> {
        Ok(self.records.get(key).and_then(|change| change.stored.clone()))
    }
}

/// The rules look at what was there only for its length.
static ZEROS: [u8; VALUE_BYTES_MAX] = [0; VALUE_BYTES_MAX];

impl Working {
    pub(crate) fn new(partition: Partition) -> Self {
        Self {
            partition,
            meta: None,
            records: HashMap::new(),
            ids: HashMap::new(),
            changed: false,
            changed_keys: BTreeSet::new(),
            changed_ids: Vec::new(),
            appends: Vec::new(),
            trims: Vec::new(),
        }
    }

    /// A record that is stored, of which `size` bytes of value.
    pub(crate) fn know_record(
        &mut self,
        key: Key,
        revision: u64,
        size: usize,
        expires: Option<Timestamp>,
    ) -> Result<(), Error> {
        let value = ZEROS.get(..size).map(Bytes::from_static);
        let value = value.ok_or_else(|| Error::corrupt(format!("a value of {size} bytes")))?;
        let stored = Some(Stored { value, revision, expires });
        self.records.insert(key, Change { revision, stored });
        Ok(())
    }

    pub(crate) fn know_id(&mut self, id: CommitId, known: Remembered) {
        self.ids.insert(id, known);
    }

    /// Whether anything has to be written.
    pub(crate) fn is_changed(&self) -> bool {
        self.changed
    }

    pub(crate) fn changed_records(&self) -> impl Iterator<Item = (&Key, &Change)> {
        self.changed_keys.iter().filter_map(|key| self.records.get_key_value(key))
    }

    pub(crate) fn changed_ids(&self) -> impl Iterator<Item = (&CommitId, &Remembered)> {
        self.changed_ids.iter().filter_map(|id| self.ids.get_key_value(id))
    }

    /// Does what is asked at `now`, or refuses it and changes nothing.
    pub(crate) fn apply(
        &mut self,
        work: &Work,
        now: Timestamp,
        fresh: impl FnOnce() -> Incarnation,
    ) -> Result<Done, Error> {
        match work {
            Work::Commit(commit) => self.commit(commit, now, fresh).map(Done::Committed),
            Work::Sweep { partition, keys } => {
                let expired = keys.iter().filter(|key| {
                    let stored = self.records.get(key).and_then(|change| change.stored.as_ref());
                    stored.is_some_and(|stored| !stored.is_live(now))
                });
                let writes = expired.take(COMMIT_WRITES_MAX);
                let commit = writes.fold(Commit::new(partition.clone()), |commit, key| {
                    commit.write(Write::Delete { key: key.clone() })
                });
                let count = commit.writes.len();
                if count > 0 {
                    self.commit(&commit, now, fresh)?;
                }
                Ok(Done::Swept(count))
            }
        }
    }

    fn commit(
        &mut self,
        commit: &Commit,
        now: Timestamp,
        fresh: impl FnOnce() -> Incarnation,
    ) -> Result<Committed, Error> {
        bounds::check(commit)?;
        check_numbers(commit)?;
        if let Some(reply) = self.remembered(commit, now)? {
            return Ok(reply);
        }
        let applied = rules::apply(self.meta.as_ref(), self, commit, now, fresh)?;
        let revision = applied.committed.position.revision;
        self.changed = true;
        self.meta = Some(applied.meta);
        for change in applied.records {
            self.changed_keys.insert(change.key.clone());
            self.records.insert(change.key, Change { revision, stored: change.after });
        }
        self.appends.extend(applied.appends);
        self.trims.extend(applied.trims);
        if let Some(id) = commit.id {
            let (digest, reply) = (rules::digest(commit), applied.committed.clone());
            self.ids.insert(id, Remembered { digest, at: now, reply });
            self.changed_ids.push(id);
        }
        Ok(applied.committed)
    }

    fn remembered(&self, commit: &Commit, now: Timestamp) -> Result<Option<Committed>, Error> {
        let known = commit.id.and_then(|id| self.ids.get(&id));
        match known.filter(|known| rules::is_kept(known.at, COMMIT_ID_KEPT, now)) {
            None => Ok(None),
            Some(known) if known.digest == rules::digest(commit) => Ok(Some(known.reply.clone())),
            Some(_) => Err(Error::IdReused),
        }
    }
}

/// A partition that moves here brings numbers of its own, which have to fit their columns.
fn check_numbers(commit: &Commit) -> Result<(), Error> {
    let Some(Write::Begin { position, heads }) = commit.writes.first() else { return Ok(()) };
    let limit = u64::MAX >> 2;
    let largest = heads.iter().map(|(_, last)| *last).fold(position.revision, u64::max);
    if largest <= limit {
        return Ok(());
    }
    Err(Error::TooLarge { what: "a revision or a sequence", actual: largest, limit })
}

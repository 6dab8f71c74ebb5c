//! Entries that end by themselves.
//!
//! The record of such an entry says when it ends, and the partition has a timetable: records by
//! time, before all entries, one for each entry that ends. Both change in the commit that writes
//! the entry. The owner of the shard takes out what has ended ([`Expiry`]): the entry, its line
//! of the timetable, and a removal for those who follow, in one commit that checks that the entry
//! is the one that was read. So an entry that is renewed meanwhile stays, and none is removed
//! twice, whoever else removes it.

use crate::{
    state::{BEFORE_ENTRIES, CHANGES, ChangeForm, ChangeRecord, EntryRecord, SharedStates, States},
    storage::{self, Stored},
};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::try_join_all;
use ledger::{LeaseError, Owned, Work};
use protocol::Problem;
use serde_json::{Value as Json, value::RawValue};
use std::{collections::HashSet, time::Duration};
use store::{Check, Commit, Error, Key, Partition, Record, Write};
use types::Timestamp;

/// What the keys of a timetable begin with; they lie before [`BEFORE_ENTRIES`].
const TIMETABLE: &str = "\u{1}";
/// The record of the moment that the partition's wake time is set for.
const ALARM: &str = "\u{2}";
/// The version of the form of an entry that ends, which two moments follow.
const VERSION: u8 = 2;
/// Bytes of a moment.
const MOMENT: usize = 8;
/// Entries that one commit takes out.
const BATCH: usize = 16;
/// Commits for one partition before others have their turn.
const COMMITS: usize = 64;

/// How long an entry lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Life {
    /// From when on it is no more.
    pub(super) ends: Timestamp,
    /// Where the timetable has it, no later than that.
    pub(super) due: Timestamp,
}

/// What a write makes of the life of an entry.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Renewed {
    /// Its new life; `None`: it has no end, or is removed.
    pub(super) life: Option<Life>,
    /// The line of the timetable that goes.
    leaves: Option<Timestamp>,
    /// The line that comes.
    comes: Option<Timestamp>,
}

/// What becomes of a life by a write at `now` after which the entry is to live for `ttl`.
///
/// An entry that is renewed often keeps its line while that lies at least half a life ahead:
/// whoever comes upon it then moves it. Else each renewal would leave a deletion behind.
pub(super) fn renewed(held: Option<Life>, now: Timestamp, ttl: Option<Duration>) -> Renewed {
    let Some(ttl) = ttl else {
        return Renewed { leaves: held.map(|held| held.due), ..Renewed::default() };
    };
    let ends = now.plus(ttl);
    match held {
        Some(Life { due, .. }) if due <= ends && due.since(now) >= ttl / 2 => {
            Renewed { life: Some(Life { ends, due }), leaves: None, comes: None }
        }
        held => {
            let leaves = held.map(|held| held.due).filter(|due| *due != ends);
            Renewed { life: Some(Life { ends, due: ends }), leaves, comes: Some(ends) }
        }
    }
}

impl Renewed {
    /// Adds what it makes of the timetable.
    pub(super) fn write(self, commit: Commit, key: &str) -> Result<Commit, Error> {
        let commit = match self.leaves {
            Some(at) => commit.write(Write::Delete { key: line(at, key)? }),
            None => commit,
        };
        Ok(match self.comes {
            Some(at) => commit.put(line(at, key)?, Bytes::new()),
            None => commit,
        })
    }

    /// The moment that the partition has to be woken at, if none is known to come earlier.
    pub(super) fn alarm(self) -> Option<Timestamp> {
        self.comes
    }
}

/// An entry as its record has it.
pub(super) fn written(value: &RawValue, life: Option<Life>) -> Bytes {
    let Some(Life { ends, due }) = life else {
        return storage::encode_as::<EntryRecord>(&value);
    };
    let mut bytes = Vec::with_capacity(1 + 2 * MOMENT + value.get().len());
    bytes.push(VERSION);
    bytes.extend(ends.0.to_be_bytes());
    bytes.extend(due.0.to_be_bytes());
    bytes.extend(value.get().as_bytes());
    bytes.into()
}

/// How long the entry of a record lives, and the rest of the record.
fn life(bytes: &[u8]) -> Option<(Life, &[u8])> {
    let (&VERSION, rest) = bytes.split_first()? else { return None };
    let (ends, rest) = rest.split_first_chunk::<MOMENT>()?;
    let (due, rest) = rest.split_first_chunk::<MOMENT>()?;
    let [ends, due] = [ends, due].map(|moment| Timestamp(u64::from_be_bytes(*moment)));
    Some((Life { ends, due }, rest))
}

/// Reads an entry.
pub(super) fn read(record: &Record) -> Result<(Json, Option<Life>), Problem> {
    const { assert!(EntryRecord::VERSION != VERSION, "the forms are told by their versions") };
    match life(&record.value) {
        Some((life, json)) => Ok((storage::json::<EntryRecord>(json)?.0, Some(life))),
        None => Ok((storage::decode::<EntryRecord>(&record.value)?.0, None)),
    }
}

/// The key of the line of the timetable for the entry `key`.
fn line(at: Timestamp, key: &str) -> Result<Key, Error> {
    Key::new(format!("{TIMETABLE}{:016x}{key}", at.0))
}

/// Reads what [`line()`] wrote.
fn parse(line: &Key) -> Option<(Timestamp, &str)> {
    let text = std::str::from_utf8(line.as_bytes()).ok()?.strip_prefix(TIMETABLE)?;
    let (at, key) = text.split_at_checked(16)?;
    Some((Timestamp(u64::from_str_radix(at, 16).ok()?), key))
}

fn moment(record: &Record) -> Option<Timestamp> {
    record.value.as_ref().try_into().ok().map(|bytes| Timestamp(u64::from_be_bytes(bytes)))
}

impl States {
    /// Adds that the partition is woken at `at`, unless it is before that. Whoever sets a later
    /// moment meanwhile makes the commit fail.
    pub(super) async fn waking(&self, commit: Commit, at: Timestamp) -> Result<Commit, Error> {
        let key = Key::new(ALARM)?;
        let set = self.store.get(&commit.partition, &key).await?;
        let commit = commit.check(unchanged(&key, set.as_ref()));
        if set.as_ref().and_then(moment).is_some_and(|set| set <= at) {
            return Ok(commit);
        }
        let after = at.since(self.clock.now());
        Ok(commit.put(key, at.0.to_be_bytes().to_vec()).write(Write::Wake(Some(after))))
    }
}

fn unchanged(key: &Key, record: Option<&Record>) -> Check {
    let key = key.clone();
    match record {
        None => Check::Absent { key },
        Some(record) => Check::Revision { key, revision: record.revision },
    }
}

/// Takes entries out that have ended, in the partitions of the shards that this node owns.
pub struct Expiry(SharedStates);

/// A line of a timetable whose moment has come, and the entry.
struct Due {
    line: Key,
    key: String,
    record: Option<Record>,
}

impl Expiry {
    /// The expiry of the entries that `states` has written.
    #[must_use]
    pub fn new(states: SharedStates) -> Self {
        Self(states)
    }

    /// At most `limit` entries whose moment has come, each once, though the timetable may have it
    /// twice; if there are none, the next moment.
    async fn look(
        &self,
        partition: &Partition,
        now: Timestamp,
        limit: usize,
    ) -> Result<(Vec<Due>, Option<Timestamp>), Error> {
        let store = &self.0.store;
        let page = store.scan(partition, TIMETABLE.as_bytes(), None, limit).await?;
        let lines = page.records.into_iter().filter_map(|(line, _)| {
            let (at, key) = parse(&line)?;
            let key = key.to_owned();
            Some((line, at, key))
        });
        let lines: Vec<_> = lines.collect();
        let next = lines.first().map(|(_, at, _)| *at);
        let due = lines.into_iter().take_while(|(_, at, _)| *at <= now);
        let mut seen = HashSet::new();
        let due = due.filter(|(_, _, key)| seen.insert(key.clone()));
        let due = due.map(|(line, _, key)| async move {
            let record = store.get(partition, &Key::new(&key)?).await?;
            Ok::<_, Error>(Due { line, key, record })
        });
        Ok((try_join_all(due).await?, next))
    }

    /// Notes the moment that the partition is to be woken at.
    async fn set_alarm(
        &self,
        owned: &Owned<'_>,
        next: Option<Timestamp>,
    ) -> Result<(), LeaseError> {
        let key = Key::new(ALARM)?;
        let set = self.0.store.get(owned.partition(), &key).await?;
        if set.as_ref().and_then(moment) == next {
            return Ok(());
        }
        let check = unchanged(&key, set.as_ref());
        let fill = |commit: Commit| match next {
            Some(next) => commit.check(check).put(key, next.0.to_be_bytes().to_vec()),
            None => commit.check(check).write(Write::Delete { key }),
        };
        owned.commit(fill).await.map(drop)
    }
}

/// Adds what is to be done about a line whose moment has come.
fn settled(commit: Commit, due: Due, now: Timestamp) -> Result<Commit, Error> {
    let Due { line: due_line, key, record } = due;
    let name = Key::new(&key)?;
    let commit = commit.check(unchanged(&name, record.as_ref()));
    let commit = commit.write(Write::Delete { key: due_line });
    let held = record.as_ref().and_then(|record| life(&record.value));
    match held.map(|(life, _)| life) {
        // It was removed, or has no end any more.
        None => Ok(commit),
        Some(Life { ends, .. }) if now < ends => Ok(commit.put(line(ends, &key)?, Bytes::new())),
        Some(_) => {
            let commit = commit.write(Write::Delete { key: name });
            let change = ChangeForm {
                key: &key,
                value: None,
                deleted: true,
                created: false,
                added: None,
                by: None,
                at: now,
            };
            Ok(commit.append(CHANGES, storage::encode_as::<ChangeRecord>(&change)))
        }
    }
}

#[async_trait]
impl Work for Expiry {
    async fn due(&self, owned: &Owned<'_>) -> Result<Option<Duration>, LeaseError> {
        let mut limit = BATCH;
        for _ in 0..COMMITS {
            let now = self.0.clock.now();
            let (due, next) = self.look(owned.partition(), now, limit).await?;
            if due.is_empty() {
                self.set_alarm(owned, next).await?;
                return Ok(next.map(|next| next.since(now)));
            }
            let mut settling = Commit::new(owned.partition().clone());
            for one in due {
                settling = settled(settling, one, now)?;
            }
            let Commit { checks, writes, .. } = settling;
            let done = owned.commit(|mut commit| {
                commit.checks.extend(checks);
                commit.writes.extend(writes);
                commit
            });
            match done.await {
                Ok(done) => {
                    limit = BATCH;
                    self.0.trim(owned.partition(), &done.sequences).await;
                }
                // One of them has changed meanwhile: one at a time, so that it alone waits.
                Err(LeaseError::Store(Error::Conflict { .. })) => limit = 1,
                Err(error) => return Err(error),
            }
        }
        Ok(Some(Duration::ZERO))
    }
}

const _: () = assert!(TIMETABLE.as_bytes()[0] < BEFORE_ENTRIES.as_bytes()[0]);
const _: () = assert!(ALARM.as_bytes()[0] < BEFORE_ENTRIES.as_bytes()[0]);

#[cfg(test)]
mod tests;

//! A group of commits on its way to the disk: checked one after another, each seeing those
//! before it, and written as one batch.

use crate::{
    folder::Folder,
    keys,
    time::StoreTime,
    values::{self, Remembered},
};
use fjall::Slice;
use std::{cell::RefCell, collections::HashMap};
use store::{
    Commit, Committed, Error, Incarnation, Key, Partition, Write,
    bounds::{COMMIT_ID_KEPT, COMMIT_WRITES_MAX, DELETION_KEPT},
    rules::{self, Applied, Meta, RecordChange, Records, Stored},
};
use types::Timestamp;

/// Entries of a stream that a commit removes by itself; more are left to the housekeeping.
const TRIM_AT_ONCE: u64 = 256;
/// Entries of a stream that the housekeeping removes at a time.
const TRIM_LATER: u64 = 1024;
/// What the housekeeping does in one group.
const FORGET_AT_ONCE: usize = 512;

type Raw = Vec<u8>;

pub(crate) struct Group<'a> {
    folder: &'a Folder,
    time: &'a StoreTime,
    /// What the group has written so far; `None`: removed.
    pending: HashMap<Raw, Option<Raw>>,
    /// Metas of the partitions that the group has touched.
    metas: RefCell<HashMap<Partition, Option<Meta>>>,
}

/// A partition's records as the group sees them.
struct View<'a> {
    group: &'a Group<'a>,
    partition: &'a Partition,
}

impl Records for View<'_> {
    fn record(&self, key: &Key) -> Result<Option<Stored>, Error> {
        let place = keys::record(self.partition, key.as_bytes());
        self.group.read(&place, values::read_record)
    }
}

impl<'a> Group<'a> {
    pub(crate) fn new(folder: &'a Folder, time: &'a StoreTime) -> Self {
        Self { folder, time, pending: HashMap::new(), metas: RefCell::default() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    pub(crate) fn into_writes(self) -> impl Iterator<Item = (Raw, Option<Raw>)> {
        self.pending.into_iter()
    }

    fn read<T>(
        &self,
        key: &[u8],
        parse: impl FnOnce(&[u8], &[u8]) -> Result<T, Error>,
    ) -> Result<Option<T>, Error> {
        match self.pending.get(key) {
            Some(None) => Ok(None),
            Some(Some(value)) => parse(key, value).map(Some),
            // The writer is the only one to write, so the latest is what is durable.
            None => match self.folder.data.get(key).map_err(crate::reads::engine_error)? {
                Some(value) => parse(key, &value).map(Some),
                None => Ok(None),
            },
        }
    }

    fn meta(&self, partition: &Partition) -> Result<Option<Meta>, Error> {
        if let Some(meta) = self.metas.borrow().get(partition) {
            return Ok(meta.clone());
        }
        let meta = self.read(&keys::meta(partition), values::read_meta)?;
        self.metas.borrow_mut().insert(partition.clone(), meta.clone());
        Ok(meta)
    }

    pub(crate) fn commit(&mut self, commit: &Commit, now: Timestamp) -> Result<Committed, Error> {
        let partition = &commit.partition;
        if let Some(reply) = self.remembered(commit, now)? {
            return Ok(reply);
        }
        let meta = self.meta(partition)?;
        let fresh = || {
            let random = clock::random(self.time.clock());
            Incarnation(u64::from_le_bytes(random).max(1))
        };
        let view = View { group: self, partition };
        let applied = rules::apply(meta.as_ref(), &view, commit, now, fresh)?;
        let committed = applied.committed.clone();
        // All that can fail comes before the first change.
        let mut writes = Writes::default();
        self.write_records(&mut writes, partition, &applied, now)?;
        write_streams(&mut writes, partition, &applied);
        write_meta(&mut writes, partition, meta.as_ref(), &applied.meta);
        if let Some(id) = commit.id {
            let place = keys::commit_id(partition, id);
            let known =
                Remembered { digest: rules::digest(commit), at: now, reply: committed.clone() };
            writes.put(place.clone(), |key| values::remembered(key, &known));
            writes
                .put(keys::forget(now.plus(COMMIT_ID_KEPT), &place), |key| values::number(key, 0));
        }
        self.pending.extend(writes.0);
        self.metas.borrow_mut().insert(partition.clone(), Some(applied.meta));
        Ok(committed)
    }

    fn remembered(&self, commit: &Commit, now: Timestamp) -> Result<Option<Committed>, Error> {
        let Some(id) = commit.id else { return Ok(None) };
        store::bounds::check(commit)?;
        let place = keys::commit_id(&commit.partition, id);
        let known = self.read(&place, values::read_remembered)?;
        match known.filter(|known| rules::is_kept(known.at, COMMIT_ID_KEPT, now)) {
            None => Ok(None),
            Some(known) if known.digest == rules::digest(commit) => Ok(Some(known.reply)),
            Some(_) => Err(Error::IdReused),
        }
    }

    fn write_records(
        &self,
        writes: &mut Writes,
        partition: &Partition,
        applied: &Applied,
        now: Timestamp,
    ) -> Result<(), Error> {
        let revision = applied.committed.position.revision;
        for RecordChange { key, before, after } in &applied.records {
            let deletion = keys::deletion(partition, key);
            let last_change = match before {
                Some(before) => Some(before.revision),
                None => self.read(&deletion, |key, value| values::open(key, value)?.number())?,
            };
            if let Some(last) = last_change {
                writes.remove(keys::change(partition, last, key.as_bytes()));
            }
            if let Some(at) = before.as_ref().and_then(|before| before.expires) {
                writes.remove(keys::expiry(partition, at, key));
            }
            let place = keys::record(partition, key.as_bytes());
            let change = keys::change(partition, revision, key.as_bytes());
            if let Some(stored) = after {
                if before.is_none() && last_change.is_some() {
                    writes.remove(deletion);
                }
                if let Some(at) = stored.expires {
                    writes.put(keys::expiry(partition, at, key), |key| values::number(key, 0));
                }
                writes.put(place, |key| values::record(key, stored));
                writes.put(change, |key| values::time(key, None));
            } else {
                writes.remove(place);
                writes.put(deletion, |key| values::number(key, revision));
                let forget = keys::forget(now.plus(DELETION_KEPT), &change);
                writes.put(forget, |key| values::number(key, 0));
                writes.put(change, |key| values::time(key, Some(now)));
            }
        }
        Ok(())
    }

    /// Deletes those of `expired` that still are, by one commit, and answers how many.
    pub(crate) fn sweep(
        &mut self,
        partition: &Partition,
        expired: &[Key],
        now: Timestamp,
    ) -> Result<usize, Error> {
        let mut commit = Commit::new(partition.clone());
        for key in expired.iter().take(COMMIT_WRITES_MAX) {
            let view = View { group: self, partition };
            if view.record(key)?.is_some_and(|stored| !stored.is_live(now)) {
                commit = commit.write(Write::Delete { key: key.clone() });
            }
        }
        let count = commit.writes.len();
        if count > 0 {
            self.commit(&commit, now)?;
        }
        Ok(count)
    }

    /// Forgets what is due to be. Answers whether there may be more.
    pub(crate) fn forget(&mut self, now: Timestamp) -> Result<bool, Error> {
        let until = keys::forget(Timestamp(now.0.saturating_add(1)), b"");
        let due = self.folder.data.range(keys::forget(Timestamp(0), b"")..until);
        let due: Result<Vec<(Slice, Slice)>, _> =
            due.take(FORGET_AT_ONCE).map(fjall::Guard::into_inner).collect();
        let due = due.map_err(crate::reads::engine_error)?;
        let mut writes = Writes::default();
        let mut more = due.len() == FORGET_AT_ONCE;
        for (key, value) in &due {
            writes.remove(key.to_vec());
            match self.forget_one(&mut writes, key, value, now) {
                Ok(rest) => more |= rest,
                // The rest must not wait for what is damaged.
                Err(error) => tracing::error!(%error, "cannot be forgotten"),
            }
        }
        self.pending.extend(writes.0);
        Ok(more)
    }

    /// Answers whether there is more of it.
    fn forget_one(
        &mut self,
        writes: &mut Writes,
        key: &[u8],
        value: &[u8],
        now: Timestamp,
    ) -> Result<bool, Error> {
        let what = keys::forgotten(key);
        match what.first() {
            Some(b'I') => {
                let known = self.read(what, values::read_remembered)?;
                // The id may have been used again meanwhile.
                if known.is_some_and(|known| !rules::is_kept(known.at, COMMIT_ID_KEPT, now)) {
                    writes.remove(what.to_vec());
                }
            }
            Some(b'C') => self.forget_deletion(writes, what)?,
            Some(b'S') => {
                let from = values::open(key, value)?.number()?;
                let (stream, end) = what.split_at(what.len().saturating_sub(8));
                let end = end.try_into().map(u64::from_be_bytes).unwrap_or_default();
                let stop = end.min(from.saturating_add(TRIM_LATER));
                (from..stop).for_each(|at| {
                    writes.remove([stream, &at.to_be_bytes()].concat());
                });
                if stop < end {
                    writes.put(key.to_vec(), |key| values::number(key, stop));
                    return Ok(true);
                }
            }
            _ => {}
        }
        Ok(false)
    }

    fn forget_deletion(&mut self, writes: &mut Writes, change: &[u8]) -> Result<(), Error> {
        // Gone if the key was written again.
        let deleted_at = self.read(change, |key, value| values::open(key, value)?.time())?;
        if deleted_at.flatten().is_none() {
            return Ok(());
        }
        let (partition, rest) = keys::parse_place(change)?;
        let Some((revision, key)) = rest.split_first_chunk() else { return Ok(()) };
        let revision = u64::from_be_bytes(*revision);
        writes.remove(change.to_vec());
        writes.remove(keys::deletion(&partition, &Key::new(key)?));
        if let Some(mut meta) = self.meta(&partition)? {
            meta.known_from = meta.known_from.max(revision);
            write_meta(writes, &partition, Some(&meta), &meta);
            self.metas.borrow_mut().insert(partition, Some(meta));
        }
        Ok(())
    }

    /// Remembers the time, so that it does not go back over a restart.
    pub(crate) fn remember_time(&mut self, now: Timestamp) {
        let value = values::time(keys::TIME, Some(now));
        self.pending.insert(keys::TIME.to_vec(), Some(value));
    }
}

/// The writes of one commit.
#[derive(Default)]
struct Writes(HashMap<Raw, Option<Raw>>);

impl Writes {
    fn put(&mut self, key: Raw, value: impl FnOnce(&[u8]) -> Raw) {
        let value = value(&key);
        self.0.insert(key, Some(value));
    }

    fn remove(&mut self, key: Raw) {
        self.0.insert(key, None);
    }
}

fn write_streams(writes: &mut Writes, partition: &Partition, applied: &Applied) {
    for (stream, entry) in &applied.appends {
        let place = keys::entry(partition, stream, entry.sequence);
        writes.put(place, |key| values::entry(key, entry));
    }
    for trim in &applied.trims {
        let stop = trim.to.min(trim.from + TRIM_AT_ONCE);
        (trim.from..stop).for_each(|at| {
            writes.remove(keys::entry(partition, &trim.stream, at));
        });
        if stop < trim.to {
            let place = keys::entry(partition, &trim.stream, trim.to);
            writes.put(keys::forget(Timestamp(0), &place), |key| values::number(key, stop));
        }
    }
}

fn write_meta(writes: &mut Writes, partition: &Partition, before: Option<&Meta>, meta: &Meta) {
    let place = keys::meta(partition);
    writes.put(place, |key| values::meta(key, meta));
    if before.is_none() {
        let listed = keys::listed(partition.tenant(), partition.kind(), partition.id());
        writes.put(listed, |key| values::number(key, 0));
    }
    let wake_before = before.and_then(|before| before.wake);
    if wake_before != meta.wake {
        if let Some(at) = wake_before {
            writes.remove(keys::wake(partition, at));
        }
        if let Some(at) = meta.wake {
            writes.put(keys::wake(partition, at), |key| values::number(key, 0));
        }
    }
}

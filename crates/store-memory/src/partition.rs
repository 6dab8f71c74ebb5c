//! One partition in memory.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    ops::Bound,
};
use store::{
    Change, Changes, Commit, CommitId, Committed, Durability, Entry, Error, Incarnation, Key,
    Position, Record, ScanPage, StreamName, Write,
    bounds::{COMMIT_ID_KEPT, DELETION_KEPT, PAGE_BYTES_MAX},
    rules::{self, Applied, Meta, Records, Stored},
};
use types::Timestamp;

/// A partition, which may not exist yet.
#[derive(Debug, Default)]
pub(crate) struct Slot {
    now: State,
    /// What is left after a crash, if that is not all of it.
    durable: Option<Box<State>>,
}

#[derive(Debug, Default, Clone)]
pub(crate) struct State {
    pub(crate) meta: Option<Meta>,
    records: BTreeMap<Key, Stored>,
    /// The latest change of each key by revision; when, if it was a deletion.
    changes: BTreeMap<(u64, Key), Option<Timestamp>>,
    /// The revision of each known deletion.
    deleted: HashMap<Key, u64>,
    streams: HashMap<StreamName, VecDeque<Entry>>,
    ids: HashMap<CommitId, Remembered>,
}

#[derive(Debug, Clone)]
struct Remembered {
    digest: u128,
    at: Timestamp,
    reply: Committed,
}

impl Records for State {
    fn record(&self, key: &Key) -> Result<Option<Stored>, Error> {
        Ok(self.records.get(key).cloned())
    }
}

impl Slot {
    pub(crate) fn state(&self) -> &State {
        &self.now
    }

    pub(crate) fn commit(
        &mut self,
        commit: &Commit,
        now: Timestamp,
        fresh: impl FnOnce() -> Incarnation,
    ) -> Result<Committed, Error> {
        if let Some(reply) = self.now.remembered(commit, now)? {
            return Ok(reply);
        }
        let applied = rules::apply(self.now.meta.as_ref(), &self.now, commit, now, fresh)?;
        match commit.durability {
            Durability::Durable => self.durable = None,
            Durability::Applied => {
                self.durable.get_or_insert_with(|| Box::new(self.now.clone()));
            }
        }
        Ok(self.now.carry_out(commit, applied, now))
    }

    /// Deletes what has expired, by one commit, and answers how much that was.
    pub(crate) fn sweep(&mut self, commit: Commit, now: Timestamp) -> Result<usize, Error> {
        let expired = self.now.records.iter().filter(|(_, stored)| !stored.is_live(now));
        let commit = expired
            .take(store::bounds::COMMIT_WRITES_MAX)
            .fold(commit, |commit, (key, _)| commit.write(Write::Delete { key: key.clone() }));
        let count = commit.writes.len();
        if count > 0 {
            // What has expired was there, so no incarnation is asked for.
            self.commit(&commit, now, || Incarnation(1))?;
        }
        Ok(count)
    }

    /// Loses the tail that was not durable. Answers whether there was one.
    pub(crate) fn crash(&mut self, fresh: impl FnOnce() -> Incarnation) -> bool {
        let Some(durable) = self.durable.take() else { return false };
        let fence = self.now.meta.as_ref().map_or(0, |meta| meta.fence);
        self.now = *durable;
        let was_there = self.now.meta.is_some();
        if was_there || fence > 0 {
            let made = || Meta::at(Position { incarnation: Incarnation(0), revision: 0 });
            let meta = self.now.meta.get_or_insert_with(made);
            meta.position.incarnation = fresh();
            meta.fence = fence;
        }
        true
    }
}

impl State {
    fn remembered(&self, commit: &Commit, now: Timestamp) -> Result<Option<Committed>, Error> {
        let known = commit.id.and_then(|id| self.ids.get(&id));
        match known.filter(|known| rules::is_kept(known.at, COMMIT_ID_KEPT, now)) {
            None => Ok(None),
            Some(known) if known.digest == rules::digest(commit) => Ok(Some(known.reply.clone())),
            Some(_) => Err(Error::IdReused),
        }
    }

    fn carry_out(&mut self, commit: &Commit, applied: Applied, now: Timestamp) -> Committed {
        let revision = applied.committed.position.revision;
        self.meta = Some(applied.meta);
        for change in applied.records {
            let key = change.key;
            if let Some(before) = change.before {
                self.changes.remove(&(before.revision, key.clone()));
            }
            if let Some(deleted) = self.deleted.remove(&key) {
                self.changes.remove(&(deleted, key.clone()));
            }
            let deleted_at = change.after.is_none().then_some(now);
            self.changes.insert((revision, key.clone()), deleted_at);
            match change.after {
                Some(stored) => drop(self.records.insert(key, stored)),
                None => {
                    self.records.remove(&key);
                    self.deleted.insert(key, revision);
                }
            }
        }
        for (stream, entry) in applied.appends {
            self.streams.entry(stream).or_default().push_back(entry);
        }
        for trim in applied.trims {
            if let Some(entries) = self.streams.get_mut(&trim.stream) {
                while entries.front().is_some_and(|entry| entry.sequence < trim.to) {
                    entries.pop_front();
                }
            }
        }
        self.forget(now);
        if let Some(id) = commit.id {
            let reply = applied.committed.clone();
            self.ids.insert(id, Remembered { digest: rules::digest(commit), at: now, reply });
        }
        applied.committed
    }

    /// Forgets deletions and ids that need no longer be known.
    fn forget(&mut self, now: Timestamp) {
        self.ids.retain(|_, known| rules::is_kept(known.at, COMMIT_ID_KEPT, now));
        let Some(meta) = &mut self.meta else { return };
        let old =
            |at: &Option<Timestamp>| at.is_some_and(|at| !rules::is_kept(at, DELETION_KEPT, now));
        let (deleted, changes) = (&mut self.deleted, &mut self.changes);
        deleted.retain(|key, revision| {
            let place = (*revision, key.clone());
            let forgotten = changes.get(&place).is_some_and(old);
            if forgotten {
                changes.remove(&place);
                meta.known_from = meta.known_from.max(*revision);
            }
            !forgotten
        });
    }

    pub(crate) fn get(&self, key: &Key, now: Timestamp) -> Option<Record> {
        self.records.get(key).filter(|stored| stored.is_live(now)).map(record)
    }

    pub(crate) fn scan(
        &self,
        prefix: &[u8],
        after: Option<&Key>,
        limit: usize,
        now: Timestamp,
    ) -> ScanPage {
        let mut page = ScanPage {
            position: rules::standing(self.meta.as_ref()),
            records: vec![],
            more: false,
        };
        let first = Key::new(prefix).ok();
        let start = match (after, &first) {
            (Some(after), Some(first)) if after < first => Bound::Included(first),
            (Some(after), _) => Bound::Excluded(after),
            (None, Some(first)) => Bound::Included(first),
            // A prefix longer than any key.
            (None, None) => return page,
        };
        let mut bytes = 0;
        for (key, stored) in self.records.range::<Key, _>((start, Bound::Unbounded)) {
            if !key.as_bytes().starts_with(prefix) {
                break;
            }
            if !stored.is_live(now) {
                continue;
            }
            bytes += key.as_bytes().len() + stored.value.len();
            if page.records.len() >= limit || (bytes > PAGE_BYTES_MAX && !page.records.is_empty()) {
                page.more = true;
                break;
            }
            page.records.push((key.clone(), record(stored)));
        }
        page
    }

    pub(crate) fn read(
        &self,
        stream: &StreamName,
        from: u64,
        limit: usize,
    ) -> Result<Vec<Entry>, Error> {
        // Sequences count from 1, so 0 asks for the first as well.
        let span = rules::check_from(self.meta.as_ref(), stream, from.max(1))?;
        let Some(entries) = self.streams.get(stream) else { return Ok(Vec::new()) };
        let skip = usize::try_from(from.max(1) - span.first).unwrap_or(usize::MAX);
        let mut bytes = 0;
        let page = entries.iter().skip(skip).take(limit).enumerate().take_while(|(at, entry)| {
            bytes += entry.value.len();
            *at == 0 || bytes <= PAGE_BYTES_MAX
        });
        Ok(page.map(|(_, entry)| entry.clone()).collect())
    }

    pub(crate) fn changes(&self, since: Position, now: Timestamp) -> Result<Changes, Error> {
        rules::check_since(self.meta.as_ref(), since)?;
        let position = rules::standing(self.meta.as_ref());
        let mut keys = Vec::new();
        let empty = Key::new([]).expect("an empty key is short enough");
        for ((revision, key), deleted_at) in self.changes.range((since.revision + 1, empty)..) {
            let value = match deleted_at {
                Some(at) if !rules::is_kept(*at, DELETION_KEPT, now) => {
                    if since == Position::ZERO {
                        continue;
                    }
                    return Err(Error::Lagged { position });
                }
                Some(_) => None,
                None => self.get(key, now).map(|record| record.value),
            };
            keys.push(Change { key: key.clone(), revision: *revision, value });
        }
        let streams = self.meta.as_ref().map(Meta::stream_heads).unwrap_or_default();
        Ok(Changes { position, keys, streams })
    }
}

fn record(stored: &Stored) -> Record {
    Record { value: stored.value.clone(), revision: stored.revision }
}

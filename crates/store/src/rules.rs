//! The rules of a commit, without IO: what the engines that keep records themselves share.
//!
//! [`apply`] decides from a partition's [`Meta`], its records and the store's time; the engine
//! carries out what it answers. Store time is a [`Timestamp`] that never goes back; only
//! differences matter, so an engine may start it anywhere.

use crate::{
    Check, Commit, Committed, Entry, Error, Head, Incarnation, Key, Position, StreamHead,
    StreamName, Value, Write, bounds,
};
use std::{
    collections::{BTreeMap, btree_map},
    time::Duration,
};
use types::Timestamp;
use xxhash_rust::xxh3::Xxh3;

/// A partition without its contents, as an engine keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meta {
    /// Where it stands.
    pub position: Position,
    /// The largest epoch that fenced it.
    pub fence: u64,
    /// Its streams.
    pub streams: BTreeMap<StreamName, Span>,
    /// When it is due.
    pub wake: Option<Timestamp>,
    /// Bytes of its records, keys and values, expired ones too until they are swept.
    pub bytes: u64,
    /// The last revision that cannot be followed from, because a later deletion is forgotten
    /// or was never known here, plus one; 0: all can be.
    pub known_from: u64,
}

impl Meta {
    /// A partition at `position`, with nothing in it.
    #[must_use]
    pub fn at(position: Position) -> Self {
        let streams = BTreeMap::new();
        Self { position, fence: 0, streams, wake: None, bytes: 0, known_from: 0 }
    }

    /// The streams as [`crate::Head`] and [`crate::Changes`] tell them.
    #[must_use]
    pub fn stream_heads(&self) -> Vec<StreamHead> {
        let head = |(stream, span): (&StreamName, &Span)| StreamHead {
            stream: stream.clone(),
            first: span.first,
            last: span.last,
        };
        self.streams.iter().map(head).collect()
    }

    /// As [`crate::Store::head`] tells it.
    #[must_use]
    pub fn head(&self) -> Head {
        Head { position: self.position, fence: self.fence, streams: self.stream_heads() }
    }
}

/// The entries that a stream holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// The first that is left; `last + 1` if none is.
    pub first: u64,
    /// The last that was appended; 0 if none ever was.
    pub last: u64,
}

impl Span {
    /// Of a stream that was never appended to.
    pub const EMPTY: Self = Self { first: 1, last: 0 };
}

/// A record as an engine keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Its value.
    pub value: Value,
    /// The revision of the commit that wrote it.
    pub revision: u64,
    /// From when on it must not be returned.
    pub expires: Option<Timestamp>,
}

impl Stored {
    /// Whether it may be returned at `now`.
    #[must_use]
    pub fn is_live(&self, now: Timestamp) -> bool {
        self.expires.is_none_or(|at| now < at)
    }
}

/// Reads the records of the partition that a commit is for.
pub trait Records {
    /// The record under `key`, expired or not.
    ///
    /// # Errors
    /// Those of the engine.
    fn record(&self, key: &Key) -> Result<Option<Stored>, Error>;
}

/// What a commit does to one record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordChange {
    /// Which record.
    pub key: Key,
    /// What was there.
    pub before: Option<Stored>,
    /// What is to be there. Never `None` together with `before`.
    pub after: Option<Stored>,
}

/// Entries to remove: `from` to before `to`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrimmedSpan {
    /// Of which stream.
    pub stream: StreamName,
    /// The first entry to remove.
    pub from: u64,
    /// The first entry to stay.
    pub to: u64,
}

/// What an engine has to carry out, as a whole: first `appends`, then `trims`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// The partition after the commit.
    pub meta: Meta,
    /// The reply.
    pub committed: Committed,
    /// The final change of each touched record.
    pub records: Vec<RecordChange>,
    /// Entries to append.
    pub appends: Vec<(StreamName, Entry)>,
    /// Entries to remove.
    pub trims: Vec<TrimmedSpan>,
}

/// Decides what `commit` does at `now` to the partition of `meta`. Same input: same answer.
/// `fresh` gives the incarnation of a partition that is made.
///
/// # Errors
/// [`Error::TooLarge`], [`Error::Fenced`] (told before any other check) and
/// [`Error::Conflict`]; those of `records`.
pub fn apply(
    meta: Option<&Meta>,
    records: &impl Records,
    commit: &Commit,
    now: Timestamp,
    fresh: impl FnOnce() -> Incarnation,
) -> Result<Applied, Error> {
    bounds::check(commit)?;
    let fence = check_fences(meta, commit)?;
    check_others(meta, records, commit, now)?;

    let (mut after, writes) = begin(meta, commit, fresh)?;
    after.fence = fence;
    after.position.revision += 1;
    let revision = after.position.revision;

    let mut sequences = Vec::new();
    let mut appends = Vec::new();
    let mut trims: Vec<TrimmedSpan> = Vec::new();
    let mut changed: BTreeMap<Key, RecordChange> = BTreeMap::new();
    for write in writes {
        match write {
            Write::Put { key, value, expires } => {
                let expires = expires.map(|after| now.plus(after));
                let stored = Stored { value: value.clone(), revision, expires };
                change(&mut changed, records, key)?.after = Some(stored);
            }
            Write::Delete { key } => change(&mut changed, records, key)?.after = None,
            Write::Append { stream, value } => {
                let span = after.streams.entry(stream.clone()).or_insert(Span::EMPTY);
                span.last += 1;
                sequences.push(span.last);
                let entry = Entry { sequence: span.last, revision, value: value.clone() };
                appends.push((stream.clone(), entry));
            }
            Write::Trim { stream, first } => {
                if let Some(span) = after.streams.get_mut(stream) {
                    let to = (*first).min(span.last + 1);
                    if to > span.first {
                        trims.push(TrimmedSpan { stream: stream.clone(), from: span.first, to });
                        span.first = to;
                    }
                }
            }
            Write::Wake(after_time) => after.wake = after_time.map(|after| now.plus(after)),
            Write::Begin { .. } => {
                return Err(Error::Conflict { position: standing(meta), key: None });
            }
        }
    }

    let records: Vec<RecordChange> = changed
        .into_values()
        .filter(|change| change.before.is_some() || change.after.is_some())
        .collect();
    let size = |key: &Key, stored: &Option<Stored>| {
        stored.as_ref().map_or(0, |stored| (key.as_bytes().len() + stored.value.len()) as u64)
    };
    let before = after.bytes;
    let removed: u64 = records.iter().map(|change| size(&change.key, &change.before)).sum();
    let added: u64 = records.iter().map(|change| size(&change.key, &change.after)).sum();
    after.bytes = (before + added).saturating_sub(removed);
    if after.bytes > bounds::PARTITION_BYTES_MAX && after.bytes > before {
        let (actual, limit) = (after.bytes, bounds::PARTITION_BYTES_MAX);
        return Err(Error::TooLarge { what: "the records of a partition", actual, limit });
    }
    let committed = Committed { position: after.position, sequences };
    Ok(Applied { meta: after, committed, records, appends, trims })
}

fn check_fences(meta: Option<&Meta>, commit: &Commit) -> Result<u64, Error> {
    let mut fence = meta.map_or(0, |meta| meta.fence);
    for check in &commit.checks {
        if let Check::Fence(epoch) = check {
            if *epoch < fence {
                return Err(Error::Fenced { stored: fence });
            }
            fence = *epoch;
        }
    }
    Ok(fence)
}

fn check_others(
    meta: Option<&Meta>,
    records: &impl Records,
    commit: &Commit,
    now: Timestamp,
) -> Result<(), Error> {
    let position = standing(meta);
    for check in &commit.checks {
        let (holds, key) = match check {
            Check::Position(wanted) => (*wanted == position, None),
            Check::Incarnation(wanted) => (*wanted == position.incarnation, None),
            Check::Revision { key, revision } => {
                let live = records.record(key)?.filter(|stored| stored.is_live(now));
                (live.is_some_and(|stored| stored.revision == *revision), Some(key))
            }
            Check::Absent { key } => {
                let live = records.record(key)?.filter(|stored| stored.is_live(now));
                (live.is_none(), Some(key))
            }
            Check::Fence(_) => (true, None),
        };
        if !holds {
            return Err(Error::Conflict { position, key: key.cloned() });
        }
    }
    Ok(())
}

/// The partition before the commit, made if need be, and the writes that are left to do.
fn begin<'a>(
    meta: Option<&Meta>,
    commit: &'a Commit,
    fresh: impl FnOnce() -> Incarnation,
) -> Result<(Meta, &'a [Write]), Error> {
    if let Some((Write::Begin { position, heads }, rest)) = commit.writes.split_first() {
        if meta.is_some() {
            return Err(Error::Conflict { position: standing(meta), key: None });
        }
        let mut position = *position;
        if position.incarnation.0 == 0 {
            position.incarnation = fresh();
        }
        let mut meta = Meta::at(position);
        let spans = heads.iter().map(|(stream, last)| {
            (stream.clone(), Span { first: last.saturating_add(1), last: *last })
        });
        meta.streams = spans.collect();
        // What was deleted before it came here is not known here.
        meta.known_from = position.revision;
        return Ok((meta, rest));
    }
    let made = || Meta::at(Position { incarnation: fresh(), revision: 0 });
    Ok((meta.cloned().unwrap_or_else(made), &commit.writes))
}

fn change<'a>(
    changed: &'a mut BTreeMap<Key, RecordChange>,
    records: &impl Records,
    key: &Key,
) -> Result<&'a mut RecordChange, Error> {
    match changed.entry(key.clone()) {
        btree_map::Entry::Occupied(entry) => Ok(entry.into_mut()),
        btree_map::Entry::Vacant(entry) => {
            let before = records.record(key)?;
            let key = key.clone();
            Ok(entry.insert(RecordChange { key, before, after: None }))
        }
    }
}

/// Where a partition stands; [`Position::ZERO`] if it does not exist.
#[must_use]
pub fn standing(meta: Option<&Meta>) -> Position {
    meta.map_or(Position::ZERO, |meta| meta.position)
}

/// Whether changes after `since` can be told. The engine itself has to look for deletions
/// after `since` that are older than [`bounds::DELETION_KEPT`].
///
/// # Errors
/// [`Error::Lagged`].
pub fn check_since(meta: Option<&Meta>, since: Position) -> Result<(), Error> {
    let position = standing(meta);
    let known_from = meta.map_or(0, |meta| meta.known_from);
    let followable = since == Position::ZERO
        || (since.incarnation == position.incarnation
            && (known_from..=position.revision).contains(&since.revision));
    if followable { Ok(()) } else { Err(Error::Lagged { position }) }
}

/// Where to read `stream` from.
///
/// # Errors
/// [`Error::Trimmed`] if `from` lies below the first entry that is left.
pub fn check_from(meta: Option<&Meta>, stream: &StreamName, from: u64) -> Result<Span, Error> {
    let span = meta.and_then(|meta| meta.streams.get(stream)).copied().unwrap_or(Span::EMPTY);
    if from < span.first { Err(Error::Trimmed { first: span.first }) } else { Ok(span) }
}

/// Whether what was done at `then` and is kept for `kept` is still kept at `now`.
#[must_use]
pub fn is_kept(then: Timestamp, kept: Duration, now: Timestamp) -> bool {
    now < then.plus(kept)
}

/// Tells a commit from another under the same id: by its checks and writes.
#[must_use]
pub fn digest(commit: &Commit) -> u128 {
    let mut hash = Xxh3::new();
    for check in &commit.checks {
        match check {
            Check::Position(position) => hash_parts(&mut hash, 1, &[&bytes(*position)]),
            Check::Revision { key, revision } => {
                hash_parts(&mut hash, 2, &[key.as_bytes(), &revision.to_le_bytes()]);
            }
            Check::Absent { key } => hash_parts(&mut hash, 3, &[key.as_bytes()]),
            Check::Fence(epoch) => hash_parts(&mut hash, 4, &[&epoch.to_le_bytes()]),
            Check::Incarnation(life) => hash_parts(&mut hash, 12, &[&life.0.to_le_bytes()]),
        }
    }
    for write in &commit.writes {
        match write {
            Write::Put { key, value, expires } => {
                let expires = expires.map_or(u128::MAX, |after| after.as_nanos()).to_le_bytes();
                hash_parts(&mut hash, 5, &[key.as_bytes(), value, &expires]);
            }
            Write::Delete { key } => hash_parts(&mut hash, 6, &[key.as_bytes()]),
            Write::Append { stream, value } => {
                hash_parts(&mut hash, 7, &[stream.as_str().as_bytes(), value]);
            }
            Write::Trim { stream, first } => {
                hash_parts(&mut hash, 8, &[stream.as_str().as_bytes(), &first.to_le_bytes()]);
            }
            Write::Wake(after) => {
                let after = after.map_or(u128::MAX, |after| after.as_nanos()).to_le_bytes();
                hash_parts(&mut hash, 9, &[&after]);
            }
            Write::Begin { position, heads } => {
                hash_parts(&mut hash, 10, &[&bytes(*position)]);
                for (stream, last) in heads {
                    hash_parts(&mut hash, 11, &[stream.as_str().as_bytes(), &last.to_le_bytes()]);
                }
            }
        }
    }
    hash.digest128()
}

fn bytes(position: Position) -> [u8; 16] {
    let both = u128::from(position.incarnation.0) << 64 | u128::from(position.revision);
    both.to_le_bytes()
}

fn hash_parts(hash: &mut Xxh3, tag: u8, parts: &[&[u8]]) {
    hash.update(&[tag]);
    for part in parts {
        hash.update(&(part.len() as u64).to_le_bytes());
        hash.update(part);
    }
}

//! A document as it is taken from one place to another.

use crate::state::{
    CHANGES,
    past::span,
    tier::{copied, place::Place},
};
use store::{Check, Commit, Error, Key, Partition, Position, SharedStore, Value, Write};

/// Below what a commit may hold, so that many small ones and few large ones both fit.
const COMMIT_WRITES: usize = 100;
const COMMIT_BYTES: usize = 512 * 1024;
/// Records and entries that are asked for at once.
const PAGE: usize = 1_000;

/// All of a document that nobody writes meanwhile.
#[derive(Debug)]
pub(super) struct Contents {
    /// The last of its changes that is no longer there.
    before: u64,
    writes: Vec<Vec<Write>>,
    pub(super) entries: u64,
    /// Of keys and values.
    pub(super) bytes: u64,
    /// Of all that is to be written.
    pub(super) size: u64,
}

impl Contents {
    /// Reads what is at `place`.
    ///
    /// # Errors
    /// Those of the store.
    pub(super) async fn of(
        store: &SharedStore,
        document: &Partition,
        place: &Place,
    ) -> Result<Self, Error> {
        let at = place.of(document)?;
        let head = store.head(&at).await?;
        let (first, last) = span(head.as_ref());
        let mut packed = Packed::default();
        let mut next = first;
        while next <= last {
            let page = store.read(&at, &CHANGES, next, PAGE).await?;
            let Some(end) = page.last().map(|entry| entry.sequence) else {
                return Err(Error::corrupt(format!("the changes of {at} end before {last}")));
            };
            for entry in page {
                let entry = copied::entry(entry)?;
                let value = copied::wrap(entry.revision, &entry.value);
                packed.push(value.len(), Write::Append { stream: CHANGES, value });
            }
            next = end + 1;
        }
        let (mut entries, mut bytes) = (0, 0);
        let mut after: Option<Key> = None;
        loop {
            let page = store.scan(&at, b"", after.as_ref(), PAGE).await?;
            for (key, record) in page.records {
                let record = copied::record(record)?;
                entries += 1;
                bytes += (key.as_bytes().len() + record.value.len()) as u64;
                let value: Value = copied::wrap(record.revision, &record.value);
                let size = key.as_bytes().len() + value.len();
                packed.push(size, Write::Put { key: key.clone(), value, expires: None });
                after = Some(key);
            }
            if !page.more {
                break;
            }
        }
        Ok(Self { before: first - 1, writes: packed.all, entries, bytes, size: packed.size })
    }

    /// Of a document without entries and without a past.
    pub(super) fn none() -> Self {
        Self { before: 0, writes: Vec::new(), entries: 0, bytes: 0, size: 0 }
    }

    /// Revisions that writing it takes.
    pub(super) fn commits(&self) -> u64 {
        self.writes.len().max(1) as u64
    }

    /// Writes it to a place that was never used, which stands at `position` then. Its revision
    /// is at least [`Self::commits`].
    ///
    /// # Errors
    /// Those of the store; then the place is of no use.
    pub(super) async fn write_to(
        self,
        store: &SharedStore,
        at: &Partition,
        position: Position,
    ) -> Result<(), Error> {
        let Position { incarnation, revision } = position;
        let mut stands = Position { incarnation, revision: revision - self.commits() };
        let heads = if self.before > 0 { vec![(CHANGES, self.before)] } else { Vec::new() };
        let mut begin = Some(Write::Begin { position: stands, heads });
        let mut parts = self.writes.into_iter();
        while stands.revision < revision {
            let mut commit = Commit::new(at.clone());
            commit = match begin.take() {
                Some(begin) => commit.write(begin),
                None => commit.check(Check::Position(stands)),
            };
            commit.writes.extend(parts.next().unwrap_or_default());
            stands = store.commit(commit).await?.position;
        }
        Ok(())
    }
}

/// Writes, in as many commits as they take.
#[derive(Default)]
struct Packed {
    all: Vec<Vec<Write>>,
    /// Of the last of them.
    bytes: usize,
    /// Of all.
    size: u64,
}

impl Packed {
    fn push(&mut self, size: usize, write: Write) {
        // With what a stream's name takes.
        self.size += size as u64;
        let size = size + CHANGES.as_str().len();
        match self.all.last_mut() {
            Some(last) if last.len() < COMMIT_WRITES && self.bytes + size <= COMMIT_BYTES => {
                self.bytes += size;
                last.push(write);
            }
            Some(_) | None => {
                self.bytes = size;
                self.all.push(vec![write]);
            }
        }
    }
}

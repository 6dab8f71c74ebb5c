//! What is live on a node, and how much of it there may be.
//!
//! What is written is counted at once, and what is removed when it is measured again: so it is
//! never taken for less than it is, but for what comes between two looks at it.

use crate::state::{
    CHANGES,
    past::span,
    tier::{Cause, Order, Places},
};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use store::{Commit, Error, Partition, Write};

/// What is live would be more than it may be.
#[derive(Debug, thiserror::Error)]
#[error("no more documents can be live on this node: see `state.promotion.live_bytes_max`")]
pub(super) struct NoRoom;

/// The documents in the memory of this node.
pub(super) struct Live {
    /// Bytes that each takes, or more than that.
    bytes: Mutex<BTreeMap<Partition, u64>>,
    bytes_max: u64,
}

impl Live {
    pub(super) fn new(bytes_max: u64) -> Self {
        Self { bytes: Mutex::default(), bytes_max }
    }

    pub(super) fn put(&self, document: &Partition, bytes: u64) {
        self.bytes.lock().insert(document.clone(), bytes);
    }

    /// A document is found to be live.
    pub(super) fn find(&self, document: &Partition) {
        self.bytes.lock().entry(document.clone()).or_insert(0);
    }

    pub(super) fn remove(&self, document: &Partition) {
        self.bytes.lock().remove(document);
    }

    pub(super) fn all(&self) -> Vec<Partition> {
        self.bytes.lock().keys().cloned().collect()
    }

    pub(super) fn grow(&self, document: &Partition, commit: &Commit) {
        let of = |write: &Write| match write {
            Write::Put { key, value, .. } => key.as_bytes().len() + value.len(),
            Write::Append { value, .. } => value.len(),
            Write::Delete { .. } | Write::Trim { .. } | Write::Wake(_) | Write::Begin { .. } => 0,
        };
        let more: usize = commit.writes.iter().map(of).sum();
        if let Some(bytes) = self.bytes.lock().get_mut(document) {
            *bytes += more as u64;
        }
    }

    /// Whether so many bytes more are too many.
    pub(super) fn is_full(&self, more: u64) -> bool {
        self.bytes.lock().values().sum::<u64>() + more > self.bytes_max
    }

    fn size(&self) -> (u64, u64) {
        let bytes = self.bytes.lock();
        (bytes.len() as u64, bytes.values().sum())
    }

    fn largest(&self) -> Option<(Partition, u64)> {
        let bytes = self.bytes.lock();
        let largest = bytes.iter().max_by_key(|(_, bytes)| **bytes)?;
        Some((largest.0.clone(), *largest.1))
    }
}

impl Places {
    /// Documents that are live on this node, and their bytes, or more than that.
    #[must_use]
    pub fn live(&self) -> (u64, u64) {
        self.live.size()
    }

    /// Moves the largest of what is live to where it is kept, as long as there is too much.
    pub(crate) async fn relieve(&self) -> Result<(), Error> {
        while self.live.is_full(0) {
            let Some((document, counted)) = self.live.largest() else { return Ok(()) };
            let measured = self.measure(&document).await?;
            if measured < counted {
                self.live.put(&document, measured);
                continue;
            }
            let reason = "there was more live than the node may hold".to_owned();
            let to = self.kept(&document).await?;
            let order = Order { to, cause: Cause::Policy, reason, by: None, score: None };
            self.relocate(&document, &order).await?;
            self.live.remove(&document);
        }
        Ok(())
    }

    /// Bytes of a document and its history.
    async fn measure(&self, document: &Partition) -> Result<u64, Error> {
        let at = self.placement(document).await?.place.of(document)?;
        let mut bytes = 0;
        let mut after = None;
        loop {
            let page = self.store.scan(&at, b"", after.as_ref(), 1_000).await?;
            for (key, record) in page.records {
                bytes += (key.as_bytes().len() + record.value.len()) as u64;
                after = Some(key);
            }
            if !page.more {
                break;
            }
        }
        let (mut next, last) = span(self.store.head(&at).await?.as_ref());
        while next <= last {
            let page = self.store.read(&at, &CHANGES, next, 1_000).await?;
            let Some(end) = page.last().map(|entry| entry.sequence) else { break };
            bytes += page.iter().map(|entry| entry.value.len() as u64).sum::<u64>();
            next = end + 1;
        }
        Ok(bytes)
    }
}

//! A change to one partition.

use crate::{Incarnation, Key, Partition, Position, StreamName, Value};
use std::time::Duration;

/// What must hold for a commit to be applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Check {
    /// The partition is at exactly this position; [`Position::ZERO`]: it does not exist.
    Position(Position),
    /// The partition lives the life of this incarnation, at whichever revision. Together with
    /// [`Check::Revision`] it says that the record is the one that was read or written then:
    /// another life may have come to the same number.
    Incarnation(Incarnation),
    /// The record exists and was last written by the commit of this revision.
    Revision {
        /// Which record.
        key: Key,
        /// The revision of the commit that wrote it.
        revision: u64,
    },
    /// There is no such record (an expired one is none).
    Absent {
        /// Which record.
        key: Key,
    },
    /// No larger epoch has fenced the partition; raises the fence to this one.
    Fence(u64),
}

/// One change of a commit. They are applied in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// Sets a record.
    Put {
        /// Which record.
        key: Key,
        /// Its new value.
        value: Value,
        /// How long it lives from now, by the store's clock; `None`: until deleted.
        expires: Option<Duration>,
    },
    /// Deletes a record; one that is not there is no error.
    Delete {
        /// Which record.
        key: Key,
    },
    /// Appends to a stream.
    Append {
        /// Which stream.
        stream: StreamName,
        /// The entry.
        value: Value,
    },
    /// Removes the entries of a stream below `first`; beyond the end, all of them.
    Trim {
        /// Which stream.
        stream: StreamName,
        /// The sequence of the first entry to stay.
        first: u64,
    },
    /// Sets the wake time to so long from now, by the store's clock; `None` clears it.
    Wake(Option<Duration>),
    /// Takes over a partition that lived elsewhere: starts it at `position` with the streams'
    /// next sequences after `heads`. Only as the first write, and only if it does not exist
    /// (else [`crate::Error::Conflict`]). The commit itself then counts as one revision more.
    Begin {
        /// Where it was.
        position: Position,
        /// The last sequence of each stream.
        heads: Vec<(StreamName, u64)>,
    },
}

/// A name of a commit, chosen by the caller, under which a retry is recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CommitId(pub [u8; 16]);

/// When a commit is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// Once it survives what [`crate::Capabilities::survives`] says.
    #[default]
    Durable,
    /// Once it is applied. It may be lost with the process, as a whole and from the tail on.
    Applied,
}

/// A change to one partition: all of it or nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// What changes.
    pub partition: Partition,
    /// What must hold.
    pub checks: Vec<Check>,
    /// What changes, in order. None: the commit still counts (a fence, for instance).
    pub writes: Vec<Write>,
    /// The name for a retry.
    pub id: Option<CommitId>,
    /// When to acknowledge.
    pub durability: Durability,
}

impl Commit {
    /// A durable commit with nothing in it yet.
    #[must_use]
    pub fn new(partition: Partition) -> Self {
        let (checks, writes) = (Vec::new(), Vec::new());
        Self { partition, checks, writes, id: None, durability: Durability::Durable }
    }

    /// Adds a check.
    #[must_use]
    pub fn check(mut self, check: Check) -> Self {
        self.checks.push(check);
        self
    }

    /// Sets a record that lives until it is deleted.
    #[must_use]
    pub fn put(self, key: Key, value: impl Into<Value>) -> Self {
        self.write(Write::Put { key, value: value.into(), expires: None })
    }

    /// Appends to a stream.
    #[must_use]
    pub fn append(self, stream: StreamName, value: impl Into<Value>) -> Self {
        self.write(Write::Append { stream, value: value.into() })
    }

    /// Adds a write.
    #[must_use]
    pub fn write(mut self, write: Write) -> Self {
        self.writes.push(write);
        self
    }

    /// Names the commit, so that a retry is recognised.
    #[must_use]
    pub fn id(mut self, id: CommitId) -> Self {
        self.id = Some(id);
        self
    }

    /// Acknowledges once applied.
    #[must_use]
    pub fn applied(mut self) -> Self {
        self.durability = Durability::Applied;
        self
    }
}

/// An applied commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// Where the partition stands after it.
    pub position: Position,
    /// The sequence of each appended entry, in the order of the writes.
    pub sequences: Vec<u64>,
}

//! What reads answer.

use crate::{Key, Partition, Position, StreamName, Value};

/// A record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its value.
    pub value: Value,
    /// The revision of the commit that wrote it.
    pub revision: u64,
}

/// An entry of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its place: dense from 1 in each incarnation.
    pub sequence: u64,
    /// The revision of the commit that appended it.
    pub revision: u64,
    /// Its content.
    pub value: Value,
}

/// What a stream holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamHead {
    /// Which stream.
    pub stream: StreamName,
    /// The first entry that is left; `last + 1` if none is.
    pub first: u64,
    /// The last entry that was appended; 0 if none ever was.
    pub last: u64,
}

/// A partition without its contents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Where it stands.
    pub position: Position,
    /// The largest epoch that fenced it; 0 if none did.
    pub fence: u64,
    /// Its streams, by name.
    pub streams: Vec<StreamHead>,
}

impl Head {
    /// The number of the last entry of a stream; 0 if nothing was appended.
    #[must_use]
    pub fn last(&self, stream: &StreamName) -> u64 {
        let held = self.streams.iter().find(|held| held.stream == *stream);
        held.map_or(0, |held| held.last)
    }
}

/// A page of records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScanPage {
    /// Where the partition stood; [`Position::ZERO`] if it does not exist.
    pub position: Position,
    /// The records, in key order.
    pub records: Vec<(Key, Record)>,
    /// Whether more may follow after the last.
    pub more: bool,
}

/// One changed key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Which record.
    pub key: Key,
    /// The revision of its latest change.
    pub revision: u64,
    /// Its value; `None` if it was deleted.
    pub value: Option<Value>,
}

/// What changed since a position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changes {
    /// Where the partition stands now; [`Position::ZERO`] if it does not exist.
    pub position: Position,
    /// Changed keys, in the order of their revisions.
    pub keys: Vec<Change>,
    /// The streams, by name.
    pub streams: Vec<StreamHead>,
}

/// A page of partitions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionPage {
    /// The partitions, in the order of their ids.
    pub partitions: Vec<Partition>,
    /// Whether more may follow after the last.
    pub more: bool,
}

//! The port of the storage engines.
//!
//! A [`Partition`] (tenant, kind, id) holds ordered records, append-only streams, a
//! [`Position`], a fence and a wake time. It changes only by [`Store::commit`]: all of a
//! commit or nothing of it. There is no order and no commit over two partitions; whoever
//! needs one puts things that belong together into one partition.
//!
//! Start at [`Store`], which carries the promises; the crate `store-conformance` checks each
//! of them on every engine. [`bounds`] holds the sizes that every engine refuses beyond.
//! What follows changes as they happen takes a [`Watcher`]. What may be lost is told by a
//! [`Fanout`].

pub mod bounds;
mod commit;
mod error;
mod fanout;
mod partition;
mod read;
pub mod rules;
mod tiers;
mod watch;

pub use commit::{Check, Commit, CommitId, Committed, Durability, Write};
pub use error::{BoxError, Error};
pub use fanout::{
    Fanout, SUBSCRIPTION_MESSAGES_MAX, SharedFanout, Subscribers, Subscription, Told, Topic,
    check_message,
};
pub use partition::{BUCKETS, Bucket, Incarnation, Key, Kind, Partition, Position, StreamName};
pub use read::{Change, Changes, Entry, Head, PartitionPage, Record, ScanPage, StreamHead};
pub use tiers::{Tier, Tiers};
pub use watch::{Hints, Watcher, watch};

use async_trait::async_trait;
use bytes::Bytes;
use std::sync::Arc;
use types::TenantId;

/// A store shared by the layers of a node.
pub type SharedStore = Arc<dyn Store>;

/// What an engine promises beyond the contract, shown by `/health`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capabilities {
    /// The engine and where it is, without secrets: `embedded:/var/lib/crosstown`.
    pub engine: String,
    /// What an acknowledged [`Durability::Durable`] commit survives.
    pub survives: Survives,
}

/// What an acknowledged durable commit survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Survives {
    /// Nothing: it ends with the process.
    Nothing,
    /// The end of the process, not the loss of power.
    Process,
    /// The loss of power of the machine.
    PowerLoss,
}

/// Records and streams in partitions, changed only by [`Store::commit`].
///
/// Every engine promises, and `store-conformance` checks:
/// - a commit whose checks do not all hold changes nothing; a finished commit is seen whole
///   by every later read, an unfinished one not at all;
/// - each commit raises the partition's revision by one; commits of a partition are
///   linearizable;
/// - the same [`CommitId`] within ten minutes gives the first reply, with other content an
///   error, and never a second change;
/// - reads see only commits that are as durable as was asked of them;
/// - a stream's sequence is dense from 1 in each incarnation: no gap, no repeat; below a trim
///   a read answers [`Error::Trimmed`] with the first entry that is left;
/// - no record is returned at or after its expiry, by the store's own clock; what was gone at
///   the time of a commit stays gone where that is known, though the clock be set back;
/// - a new incarnation starts when the partition is made and wherever the tail may have been
///   lost; then a position of the old one gets [`Error::Lagged`];
/// - fences survive records and incarnations;
/// - what is beyond [`bounds`] is refused with [`Error::TooLarge`] and changes nothing.
///
/// Dropping the future of a commit does not take the commit back.
#[async_trait]
pub trait Store: Send + Sync {
    /// What this engine keeps.
    fn capabilities(&self) -> Capabilities;

    /// Applies `commit`, all of it or nothing.
    ///
    /// # Errors
    /// [`Error::Conflict`] and [`Error::Fenced`]: nothing has changed.
    /// [`Error::Unavailable`]: it may or may not have been applied; retry with the same id.
    async fn commit(&self, commit: Commit) -> Result<Committed, Error>;

    /// A partition's position, fence and stream heads; `None` if nothing was ever written.
    async fn head(&self, partition: &Partition) -> Result<Option<Head>, Error>;

    /// One record.
    async fn get(&self, partition: &Partition, key: &Key) -> Result<Option<Record>, Error>;

    /// Records in key order whose key starts with `prefix` and lies after `after`, at most
    /// `limit` of them and 1 MiB. A page is atomic and tells its position: whoever then
    /// watches from the first page's position misses nothing.
    async fn scan(
        &self,
        partition: &Partition,
        prefix: &[u8],
        after: Option<&Key>,
        limit: usize,
    ) -> Result<ScanPage, Error>;

    /// Entries of a stream from sequence `from` on, at most `limit` of them and 1 MiB.
    ///
    /// # Errors
    /// [`Error::Trimmed`] if `from` lies below the first entry that is left.
    async fn read(
        &self,
        partition: &Partition,
        stream: &StreamName,
        from: u64,
        limit: usize,
    ) -> Result<Vec<Entry>, Error>;

    /// What changed in `partition` after `since`: the latest value or the deletion of each
    /// changed key, in revision order, and the stream heads. Intermediate values may be
    /// missing. [`Position::ZERO`] asks from the beginning.
    ///
    /// # Errors
    /// [`Error::Lagged`] if `since` is of another incarnation, or so old that deletions after
    /// it may have been forgotten (they are kept for ten minutes): scan again.
    async fn changes(&self, partition: &Partition, since: Position) -> Result<Changes, Error>;

    /// Where it is told that `partition` changed. Follow with [`watch()`].
    fn hints(&self, partition: &Partition) -> &Hints;

    /// Partitions of `bucket` whose wake time has passed, at most `limit`.
    async fn due(&self, bucket: Bucket, limit: usize) -> Result<Vec<Partition>, Error>;

    /// Every partition of `tenant` and `kind`, in the order of their ids, after `after`, at
    /// most `limit` a page. Pages are no snapshot.
    async fn list(
        &self,
        tenant: &TenantId,
        kind: &Kind,
        after: Option<&str>,
        limit: usize,
    ) -> Result<PartitionPage, Error>;

    /// Deletes expired records of `bucket`, each partition's by a commit of its own, and
    /// answers how many there were. One node at a time should sweep a bucket.
    async fn sweep(&self, bucket: Bucket) -> Result<usize, Error>;
}

/// A value: bytes that the layers give meaning to.
pub type Value = Bytes;

//! The lease of a shard.
//!
//! Its partition holds two records: `holder`, which expires, and `epoch`, which does not.
//! Whoever finds no holder puts himself there and raises the epoch, in one commit that checks
//! both; so of two that try, one fails. Time on both sides is measured from before the request
//! was sent, by a clock that only has to run at about the right speed: the holder stops three
//! seconds before the store lets another one in.

use crate::{NodeId, Owned, Shard};
use clock::SharedClock;
use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use store::{Check, Commit, CommitId, Error, Key, Kind, Partition, SharedStore, Write};
use types::TenantId;

/// How long the store keeps a holder that does not renew.
pub const HELD_FOR: Duration = Duration::from_secs(10);
/// After its last successful renewal was sent, a holder acts for so long.
pub const STOPS_AFTER: Duration = Duration::from_secs(7);
/// How often a holder renews.
pub const RENEW_EVERY: Duration = Duration::from_secs(2);

const KIND: Kind = Kind::new("lease");

/// Why a lease is not held.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// Another node holds the shard. Try again once its lease may have run out.
    #[error("{holder} holds the shard")]
    Held {
        /// Who.
        holder: String,
    },
    /// The lease has run out, or was taken over. Stop at once; acquire anew.
    #[error("the lease is lost")]
    Lost,
    /// The store did not answer, or refused. For a renewal: the lease goes on until it runs out.
    #[error("the store failed")]
    Store(#[from] Error),
}

/// The right to act for a shard, for as long as [`Lease::is_held`].
pub struct Lease {
    shard: Shard,
    node: NodeId,
    epoch: u64,
    partition: Partition,
    /// The revision that wrote `holder` last.
    revision: AtomicU64,
    /// Until when it may be acted on, in nanoseconds of the clock's elapsed time.
    until: AtomicU64,
    lost: AtomicBool,
    clock: SharedClock,
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease")
            .field("shard", &self.shard)
            .field("node", &self.node)
            .field("epoch", &self.epoch)
            .finish_non_exhaustive()
    }
}

/// Takes the lease of `shard` for `node`, if nobody holds it.
///
/// # Errors
/// [`LeaseError::Held`]; or those of the store, after which nobody may be the holder for up to
/// [`HELD_FOR`].
pub async fn acquire(
    store: &SharedStore,
    clock: &SharedClock,
    shard: Shard,
    node: &NodeId,
) -> Result<Arc<Lease>, LeaseError> {
    let partition = partition(shard)?;
    let (holder, epoch) = (key("holder")?, key("epoch")?);
    if let Some(record) = store.get(&partition, &holder).await? {
        let holder = String::from_utf8_lossy(&record.value).into_owned();
        return Err(LeaseError::Held { holder });
    }
    let last = store.get(&partition, &epoch).await?;
    let next = match &last {
        None => 1,
        Some(record) => number(&record.value)? + 1,
    };
    let unchanged = match last {
        None => Check::Absent { key: epoch.clone() },
        Some(record) => Check::Revision { key: epoch.clone(), revision: record.revision },
    };
    let sent = clock.elapsed();
    let commit = Commit::new(partition.clone())
        .check(Check::Absent { key: holder.clone() })
        .check(unchanged)
        .write(hold(holder, node))
        .put(epoch, next.to_be_bytes().to_vec())
        .id(CommitId(clock::random(&**clock)));
    match commit_twice(store, commit).await {
        Ok(committed) => Ok(Arc::new(Lease {
            shard,
            node: node.clone(),
            epoch: next,
            partition,
            revision: AtomicU64::new(committed.position.revision),
            until: AtomicU64::new(nanos(sent + STOPS_AFTER)),
            lost: AtomicBool::new(false),
            clock: Arc::clone(clock),
        })),
        Err(Error::Conflict { .. }) => Err(LeaseError::Held { holder: "another node".into() }),
        Err(error) => Err(error.into()),
    }
}

impl Lease {
    /// What is held.
    #[must_use]
    pub fn shard(&self) -> Shard {
        self.shard
    }

    /// Larger than that of any earlier lease of the shard.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Whether the owner may still act. It may end between this answer and the act, so what is
    /// written goes through [`Owned`] all the same.
    #[must_use]
    pub fn is_held(&self) -> bool {
        !self.lost.load(Relaxed) && nanos(self.clock.elapsed()) < self.until.load(Relaxed)
    }

    /// Holds on. To be called every [`RENEW_EVERY`].
    ///
    /// # Errors
    /// [`LeaseError::Lost`], for good. Those of the store: try again while it [`Self::is_held`].
    pub async fn renew(&self, store: &SharedStore) -> Result<(), LeaseError> {
        if !self.is_held() {
            self.lost.store(true, Relaxed);
            return Err(LeaseError::Lost);
        }
        let holder = key("holder")?;
        let ours = Check::Revision { key: holder.clone(), revision: self.revision.load(Relaxed) };
        let sent = self.clock.elapsed();
        let commit = Commit::new(self.partition.clone())
            .check(ours)
            .write(hold(holder, &self.node))
            .id(CommitId(clock::random(&*self.clock)));
        match commit_twice(store, commit).await {
            Ok(committed) => {
                self.revision.store(committed.position.revision, Relaxed);
                self.until.store(nanos(sent + STOPS_AFTER), Relaxed);
                Ok(())
            }
            // Ours is gone, or an earlier renewal whose answer was lost has replaced it: then
            // it is not known until when, and it runs out.
            Err(Error::Conflict { .. }) => {
                self.lost.store(true, Relaxed);
                Err(LeaseError::Lost)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Gives the shard up, so that the next owner need not wait.
    ///
    /// # Errors
    /// Those of the store; then the lease runs out by itself.
    pub async fn release(&self, store: &SharedStore) -> Result<(), LeaseError> {
        self.lost.store(true, Relaxed);
        let holder = key("holder")?;
        let revision = self.revision.load(Relaxed);
        let commit = Commit::new(self.partition.clone())
            .check(Check::Revision { key: holder.clone(), revision })
            .write(Write::Delete { key: holder });
        match store.commit(commit).await {
            Ok(_) | Err(Error::Conflict { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Fences a partition of the shard for this epoch. What is read afterwards cannot be
    /// changed by a former owner any more.
    ///
    /// # Errors
    /// [`LeaseError::Lost`] if a later owner was there; those of the store.
    ///
    /// # Panics
    /// If the partition is of another shard.
    pub async fn open<'a>(
        &'a self,
        store: &'a SharedStore,
        partition: &Partition,
    ) -> Result<Owned<'a>, LeaseError> {
        assert_eq!(Shard::of(partition), self.shard, "a lease is for its shard alone");
        let owned = Owned::new(self, store, partition.clone());
        owned.commit(|commit| commit).await?;
        Ok(owned)
    }

    /// A partition that was opened by this lease before. No commit is needed: the fence stands,
    /// and each commit repeats it.
    ///
    /// # Panics
    /// If the partition is of another shard.
    #[must_use]
    pub fn opened<'a>(&'a self, store: &'a SharedStore, partition: &Partition) -> Owned<'a> {
        assert_eq!(Shard::of(partition), self.shard, "a lease is for its shard alone");
        Owned::new(self, store, partition.clone())
    }

    pub(crate) fn lose(&self) {
        self.lost.store(true, Relaxed);
    }
}

/// Once more under the same id if there was no answer: the usual hiccup should not cost a lease.
async fn commit_twice(store: &SharedStore, commit: Commit) -> Result<store::Committed, Error> {
    match store.commit(commit.clone()).await {
        Err(Error::Unavailable { .. }) => store.commit(commit).await,
        answered => answered,
    }
}

fn partition(shard: Shard) -> Result<Partition, Error> {
    Partition::new(TenantId::system(), KIND, &shard.number().to_string())
}

fn hold(key: Key, node: &NodeId) -> Write {
    let value = node.as_str().as_bytes().to_vec().into();
    Write::Put { key, value, expires: Some(HELD_FOR) }
}

pub(crate) fn key(name: &str) -> Result<Key, Error> {
    Key::new(name)
}

pub(crate) fn number(bytes: &[u8]) -> Result<u64, Error> {
    let bytes = bytes.try_into().map_err(|_| Error::corrupt("a number is eight bytes long"))?;
    Ok(u64::from_be_bytes(bytes))
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

//! A partition in the hands of its shard's owner.

use crate::{Lease, LeaseError};
use store::{Check, Commit, Committed, Error, Partition, SharedStore};

/// A partition that is fenced for the owner's epoch. Read what is needed after it was opened:
/// what was read before may have been changed by a former owner since.
#[derive(Debug)]
pub struct Owned<'a> {
    lease: &'a Lease,
    store: Store<'a>,
    partition: Partition,
}

/// Keeps `Debug` off the store.
struct Store<'a>(&'a SharedStore);

impl std::fmt::Debug for Store<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Store")
    }
}

impl<'a> Owned<'a> {
    pub(crate) fn new(lease: &'a Lease, store: &'a SharedStore, partition: Partition) -> Self {
        Self { lease, store: Store(store), partition }
    }

    /// Which partition.
    #[must_use]
    pub fn partition(&self) -> &Partition {
        &self.partition
    }

    /// The epoch that deliveries to the outside carry: whoever receives them can tell those of
    /// a paused owner from those of its successor.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.lease.epoch()
    }

    /// Commits what `fill` adds to a commit that repeats the fence. Nothing is sent once the
    /// lease has run out.
    ///
    /// # Errors
    /// [`LeaseError::Lost`]: nothing has changed and nothing more may be done for the shard.
    /// Those of the store, as of [`store::Store::commit`].
    pub async fn commit(
        &self,
        fill: impl FnOnce(Commit) -> Commit,
    ) -> Result<Committed, LeaseError> {
        if !self.lease.is_held() {
            return Err(LeaseError::Lost);
        }
        let fenced = Commit::new(self.partition.clone()).check(Check::Fence(self.lease.epoch()));
        match self.store.0.commit(fill(fenced)).await {
            Err(Error::Fenced { .. }) => {
                self.lease.lose();
                Err(LeaseError::Lost)
            }
            answered => Ok(answered?),
        }
    }
}

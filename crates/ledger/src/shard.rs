//! What has one owner.

use store::{BUCKETS, Bucket, Partition};

/// Number of shards.
pub const SHARDS: u8 = 64;

/// The buckets that have the same remainder by [`SHARDS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Shard(u8);

impl Shard {
    /// The shard of a partition.
    #[must_use]
    pub fn of(partition: &Partition) -> Self {
        Self((partition.bucket().0 % u16::from(SHARDS)) as u8)
    }

    /// Every shard.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..SHARDS).map(Self)
    }

    /// Its number, below [`SHARDS`].
    #[must_use]
    pub fn number(self) -> u8 {
        self.0
    }

    /// Its buckets.
    pub fn buckets(self) -> impl Iterator<Item = Bucket> {
        (u16::from(self.0)..BUCKETS).step_by(usize::from(SHARDS)).map(Bucket)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn each_bucket_is_in_one_shard() {
        let buckets: Vec<Bucket> = Shard::all().flat_map(Shard::buckets).collect();
        assert_eq!(buckets.len(), usize::from(BUCKETS));
        assert_eq!(buckets.iter().collect::<HashSet<_>>().len(), buckets.len());
    }
}

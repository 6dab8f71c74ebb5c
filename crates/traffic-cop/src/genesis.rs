//! The first life of a partition that does not exist yet.
//!
//! A client may follow a channel or a document before anything was written to it, and must
//! be able to resume from there later. So the incarnation that such a partition will start
//! with is known beforehand: it follows from its name and a number that was drawn once for
//! the whole store.

use crate::storage;
use clock::Clock;
use protocol::Problem;
use store::{Check, Commit, Incarnation, Key, Kind, Partition, Position, SharedStore, Write};
use types::TenantId;

const KIND: Kind = Kind::new("genesis");

/// Knows the first incarnation of every partition of a store.
#[derive(Debug, Clone, Copy)]
pub struct Genesis {
    seed: u64,
}

impl Genesis {
    /// Reads the store's number, or draws it.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn open(store: &SharedStore, clock: &dyn Clock) -> Result<Self, Problem> {
        let partition =
            Partition::new(TenantId::system(), KIND, "seed").map_err(storage::problem)?;
        let key = Key::new("seed").map_err(storage::problem)?;
        loop {
            let record = store.get(&partition, &key).await.map_err(storage::problem)?;
            if let Some(record) = record
                && let Ok(bytes) = <[u8; 8]>::try_from(&*record.value)
            {
                return Ok(Self { seed: u64::from_be_bytes(bytes) });
            }
            let drawn = clock::random::<8>(clock).to_vec();
            let commit = Commit::new(partition.clone())
                .check(Check::Absent { key: key.clone() })
                .put(key.clone(), drawn);
            match store.commit(commit).await {
                Ok(_) | Err(store::Error::Conflict { .. }) => {}
                Err(error) => return Err(storage::problem(error)),
            }
        }
    }

    /// The incarnation with which `partition` starts.
    #[must_use]
    pub fn incarnation(&self, partition: &Partition) -> Incarnation {
        let name = partition.to_string();
        Incarnation(xxhash_rust::xxh3::xxh3_64_with_seed(name.as_bytes(), self.seed).max(1))
    }

    /// The first write of the first commit to `partition`.
    #[must_use]
    pub fn begin(&self, partition: &Partition) -> Write {
        let position = Position { incarnation: self.incarnation(partition), revision: 0 };
        Write::Begin { position, heads: Vec::new() }
    }
}

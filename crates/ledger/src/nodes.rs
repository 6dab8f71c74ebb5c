//! Which nodes there are, and which of them should own a shard.

use crate::{Shard, lease::key};
use clock::SharedClock;
use std::{fmt, time::Duration};
use store::{Commit, CommitId, Error, Kind, Partition, SharedStore, Write};
use types::TenantId;
use xxhash_rust::xxh3::xxh3_64;

/// How long a node counts as there after its last registration.
pub const REGISTERED_FOR: Duration = Duration::from_secs(6);

const KIND: Kind = Kind::new("nodes");

/// The name of a node, drawn at its start: a node that comes back is another one.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(String);

impl NodeId {
    /// A new name.
    #[must_use]
    pub fn draw(clock: &SharedClock) -> Self {
        Self(format!("{:032x}", u128::from_be_bytes(clock::random(&**clock))))
    }

    /// The name as text: 32 hexadecimal digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The nodes of a store.
pub struct Nodes {
    store: SharedStore,
    clock: SharedClock,
}

impl fmt::Debug for Nodes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Nodes").finish_non_exhaustive()
    }
}

impl Nodes {
    /// The nodes that share `store`.
    #[must_use]
    pub fn new(store: SharedStore, clock: SharedClock) -> Self {
        Self { store, clock }
    }

    /// Says that `node` is there, for [`REGISTERED_FOR`]. `address` is where its peers reach it,
    /// if they do.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn register(&self, node: &NodeId, address: &str) -> Result<(), Error> {
        let value = address.as_bytes().to_vec().into();
        let put = Write::Put { key: key(node.as_str())?, value, expires: Some(REGISTERED_FOR) };
        let id = CommitId(clock::random(&*self.clock));
        self.store.commit(Commit::new(partition()?).write(put).id(id)).await.map(drop)
    }

    /// Says that `node` leaves.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn leave(&self, node: &NodeId) -> Result<(), Error> {
        let delete = Write::Delete { key: key(node.as_str())? };
        self.store.commit(Commit::new(partition()?).write(delete)).await.map(drop)
    }

    /// The nodes that are there, by name, and their addresses.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn list(&self) -> Result<Vec<(NodeId, String)>, Error> {
        let partition = partition()?;
        let mut nodes = Vec::new();
        let mut after = None;
        loop {
            let page = self.store.scan(&partition, b"", after.as_ref(), 1000).await?;
            nodes.extend(page.records.iter().map(|(key, record)| {
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                (NodeId(text(key.as_bytes())), text(&record.value))
            }));
            after = page.records.last().map(|(key, _)| key.clone());
            if !page.more {
                return Ok(nodes);
            }
        }
    }
}

fn partition() -> Result<Partition, Error> {
    Partition::new(TenantId::system(), KIND, "")
}

/// Who of `nodes` should own `shard`: by rendezvous hashing (Thaler and Ravishankar 1998), so
/// that a node that comes or goes moves no more shards than its own.
pub(crate) fn owner<'a>(
    shard: Shard,
    nodes: impl IntoIterator<Item = &'a NodeId>,
) -> Option<&'a NodeId> {
    let weight = |node: &NodeId| xxh3_64(&[node.as_str().as_bytes(), &[shard.number()]].concat());
    nodes.into_iter().max_by_key(|node| (weight(node), *node))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    fn named(count: usize) -> Vec<NodeId> {
        (0..count).map(|number| NodeId(format!("{number:032x}"))).collect()
    }

    #[test]
    fn a_node_that_goes_moves_only_its_own_shards() {
        let nodes = named(4);
        let before: HashMap<Shard, &NodeId> =
            Shard::all().map(|shard| (shard, owner(shard, &nodes).unwrap())).collect();
        for node in &nodes {
            let count = before.values().filter(|owner| **owner == node).count();
            assert!((4..=32).contains(&count), "{node} owns {count}");
        }
        for shard in Shard::all() {
            let after = owner(shard, &nodes[1..]).unwrap();
            assert!(before[&shard] == &nodes[0] || before[&shard] == after);
        }
        assert_eq!(owner(Shard::all().next().unwrap(), &[]), None);
    }
}

//! Which server has a bucket.

use crate::node::{Address, Node};
use redis::Value;
use std::{collections::HashMap, sync::Arc};
use store::{BUCKETS, Bucket};

/// Which server has a bucket.
#[derive(Clone)]
pub(crate) struct Map {
    pub(crate) nodes: Vec<Arc<Node>>,
    /// Of each bucket, an index of `nodes`; `None` where nobody serves its slot.
    of: Vec<Option<usize>>,
}

/// Slots that a master serves, as `CLUSTER SLOTS` tells.
pub(crate) struct Range {
    first: u16,
    last: u16,
    /// None: that of the server which was asked.
    host: Option<String>,
    port: u16,
}

impl Range {
    pub(crate) fn parse(range: &Value) -> Option<Self> {
        let Value::Array(parts) = range else { return None };
        let [Value::Int(first), Value::Int(last), Value::Array(master), ..] = parts.as_slice()
        else {
            return None;
        };
        let [host, Value::Int(port), ..] = master.as_slice() else { return None };
        let host = if let Value::BulkString(host) = host
            && !host.is_empty()
        {
            Some(String::from_utf8(host.clone()).ok()?)
        } else {
            None
        };
        let slot = |number: &i64| u16::try_from(*number).ok();
        Some(Self { first: slot(first)?, last: slot(last)?, host, port: slot(port)? })
    }
}

impl Map {
    /// One server has every bucket.
    pub(crate) fn of_one(node: Arc<Node>) -> Self {
        Self { nodes: vec![node], of: vec![Some(0); usize::from(BUCKETS)] }
    }

    /// What the servers at `ranges` have, with those of `self` that are among them; others are
    /// made by `make`. `asked` is the host that told the ranges, `slots` the slot of each bucket.
    pub(crate) fn renewed(
        &self,
        ranges: Vec<Range>,
        slots: &[u16],
        asked: &str,
        make: impl Fn(&Address) -> Arc<Node>,
    ) -> Self {
        let known: HashMap<Address, &Arc<Node>> =
            self.nodes.iter().filter_map(|node| Some((node.address()?, node))).collect();
        let mut map = Self { nodes: Vec::new(), of: vec![None; slots.len()] };
        let mut places: HashMap<Address, usize> = HashMap::new();
        for Range { first, last, host, port } in ranges {
            let address = (host.unwrap_or_else(|| asked.to_owned()), port);
            let place = *places.entry(address.clone()).or_insert_with(|| {
                let node = known.get(&address).map(|node| (*node).clone());
                map.nodes.push(node.unwrap_or_else(|| make(&address)));
                map.nodes.len() - 1
            });
            for (of, slot) in map.of.iter_mut().zip(slots) {
                if (first..=last).contains(slot) {
                    *of = Some(place);
                }
            }
        }
        map
    }

    pub(crate) fn node(&self, bucket: Bucket) -> Option<&Arc<Node>> {
        self.of.get(usize::from(bucket.0)).copied().flatten().and_then(|at| self.nodes.get(at))
    }

    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.of == other.of
            && self.nodes.len() == other.nodes.len()
            && self.nodes.iter().zip(&other.nodes).all(|(one, other)| Arc::ptr_eq(one, other))
    }
}

//! What goes through the connections of a tenant, on each node and over all.

use crate::channels::Distinct;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use types::{TenantId, Timestamp};

/// Whose connections are to be counted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Count {
    /// The tenant.
    pub tenant: TenantId,
}

/// What went through connections.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "PassedThroughConnections")]
pub struct Passed {
    /// Messages of clients: WebSocket messages, or bodies of requests.
    pub messages_in: u64,
    /// Their bytes.
    pub bytes_in: u64,
    /// Replies and pushes to clients.
    pub messages_out: u64,
    /// Their bytes.
    pub bytes_out: u64,
}

impl Passed {
    /// This and `other`.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            messages_in: self.messages_in + other.messages_in,
            bytes_in: self.bytes_in + other.bytes_in,
            messages_out: self.messages_out + other.messages_out,
            bytes_out: self.bytes_out + other.bytes_out,
        }
    }
}

/// What a node tells of the connections that it holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Counted {
    /// The node.
    pub node: String,
    /// Since when what has passed and who has gone is counted: the node's start, in milliseconds
    /// since 1970 UTC.
    pub since: Timestamp,
    /// Connections that are open.
    pub connections: u64,
    /// Their principals.
    pub users: Distinct,
    /// Channels that they follow.
    pub channels: Distinct,
    /// Subscriptions.
    pub subscriptions: u64,
    /// What has passed.
    pub passed: Passed,
    /// Connections that have ended, by close code; 0: closed by the client.
    pub closings: BTreeMap<u16, u64>,
}

/// What is told of one node, or of all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[schemars(rename = "ConnectionFigures")]
pub struct Figures {
    /// Connections that are open.
    pub connections: u64,
    /// Their principals, each once; `null` if nodes hold more than they can tell of.
    pub users: Option<u64>,
    /// Channels that they follow, each once; likewise.
    pub channels: Option<u64>,
    /// Subscriptions.
    pub subscriptions: u64,
    /// What has passed since the start of each node.
    #[serde(flatten)]
    pub passed: Passed,
    /// Connections that have ended since then, by close code.
    pub closings: BTreeMap<u16, u64>,
}

/// What is told of a tenant's connections.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[schemars(rename = "ConnectionTotals")]
pub struct Totals {
    /// Over all nodes.
    #[serde(flatten)]
    pub all: Figures,
    /// Of each.
    pub nodes: Vec<OfNode>,
}

/// What is told of one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[schemars(rename = "ConnectionsOfNode")]
pub struct OfNode {
    /// Its name.
    pub node: String,
    /// When it started.
    pub since: Timestamp,
    /// What it holds.
    #[serde(flatten)]
    pub figures: Figures,
}

impl Figures {
    /// Of what some nodes have told.
    #[must_use]
    pub fn of(counted: &[Counted]) -> Self {
        let mut closings = BTreeMap::new();
        for (code, count) in counted.iter().flat_map(|one| &one.closings) {
            *closings.entry(*code).or_default() += count;
        }
        Self {
            connections: counted.iter().map(|one| one.connections).sum(),
            users: Distinct::count_all(counted.iter().map(|one| &one.users)),
            channels: Distinct::count_all(counted.iter().map(|one| &one.channels)),
            subscriptions: counted.iter().map(|one| one.subscriptions).sum(),
            passed: counted.iter().fold(Passed::default(), |sum, one| sum.and(one.passed)),
            closings,
        }
    }
}

impl Totals {
    /// Of what all nodes have told.
    #[must_use]
    pub fn of(counted: &[Counted]) -> Self {
        let of_node = |one: &Counted| OfNode {
            node: one.node.clone(),
            since: one.since,
            figures: Figures::of(std::slice::from_ref(one)),
        };
        Self { all: Figures::of(counted), nodes: counted.iter().map(of_node).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_added_up_and_what_they_share_counts_once() {
        let counted = |node: &str, users: &[u64], closed: &[(u16, u64)]| Counted {
            node: node.into(),
            connections: 3,
            users: Distinct::of(users.iter().copied().collect()),
            passed: Passed { messages_in: 1, bytes_in: 10, messages_out: 2, bytes_out: 20 },
            closings: closed.iter().copied().collect(),
            ..Counted::default()
        };
        let nodes = [counted("a", &[1, 2], &[(0, 1)]), counted("b", &[2], &[(0, 2), (3503, 1)])];
        let totals = Totals::of(&nodes);
        assert_eq!((totals.all.connections, totals.all.users), (6, Some(2)));
        assert_eq!((totals.all.passed.bytes_out, totals.all.passed.messages_in), (40, 2));
        assert_eq!(totals.all.closings, BTreeMap::from([(0, 3), (3503, 1)]));
        let of: Vec<_> = totals.nodes.iter().map(|one| one.figures.users).collect();
        assert_eq!(of, [Some(2), Some(1)]);
    }
}

//! Channels that somebody follows, as services and operators see them.
//!
//! Each node tells of its own; what they tell is joined here.

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashSet};
use types::{TenantId, pattern};

/// Which channels of a tenant are to be told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    /// Whose.
    pub tenant: TenantId,
    /// Those that this names; `*` stands for any characters.
    pub pattern: Option<String>,
    /// Those after this one.
    pub after: Option<String>,
    /// So many at most.
    pub limit: usize,
}

/// A channel, and how many subscriptions there are to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "ActiveChannel")]
pub struct Active {
    /// Its name.
    pub channel: String,
    /// Subscriptions to it.
    pub subscribers: u64,
}

/// Some channels, in the order of their names.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Page {
    /// The channels.
    pub channels: Vec<Active>,
    /// Up to which name all were looked at; missing if to the end. There may be more after it,
    /// also if none is in this page.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub next: Option<String>,
}

impl Wanted {
    /// What the names of all of them begin with.
    #[must_use]
    pub fn prefix(&self) -> &str {
        let pattern = self.pattern.as_deref().unwrap_or("*");
        pattern.split_once('*').map_or(pattern, |(prefix, _)| prefix)
    }

    /// Whether the channel of this name is one of them.
    #[must_use]
    pub fn is_met_by(&self, channel: &str) -> bool {
        self.after.as_deref().is_none_or(|after| channel > after)
            && self.pattern.as_deref().is_none_or(|pattern| pattern::is_named(pattern, channel))
    }
}

impl Page {
    /// What several told who were asked the same: nothing that one of them has not looked at, and
    /// at most `limit`.
    #[must_use]
    pub fn join(pages: impl IntoIterator<Item = Self>, limit: usize) -> Self {
        let (mut all, mut next) = (BTreeMap::<String, u64>::new(), None::<String>);
        for page in pages {
            for Active { channel, subscribers } in page.channels {
                *all.entry(channel).or_default() += subscribers;
            }
            next = match (next, page.next) {
                (Some(one), Some(other)) => Some(one.min(other)),
                (one, other) => one.or(other),
            };
        }
        if let Some(next) = &next {
            all.retain(|channel, _| channel <= next);
        }
        if all.len() > limit {
            let over = all.keys().nth(limit).cloned();
            drop(over.map(|over| all.split_off(&over)));
            next = all.keys().next_back().cloned();
        }
        let active = |(channel, subscribers)| Active { channel, subscribers };
        Self { channels: all.into_iter().map(active).collect(), next }
    }
}

/// A channel of a tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Followed {
    /// Whose.
    pub tenant: TenantId,
    /// Which.
    pub channel: String,
}

/// Who follows one channel at one node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Followers {
    /// The node.
    pub node: String,
    /// Subscriptions.
    pub subscribers: u64,
    /// Their principals.
    pub users: Distinct,
}

/// Different things that are counted over several nodes: a number stands for each.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Distinct {
    /// How many.
    pub count: u64,
    /// Which; missing if they are more than can be told.
    pub which: Option<HashSet<u64>>,
}

impl Distinct {
    /// Nodes tell at most so many of one kind: about 10 MB.
    pub const TOLD_MAX: usize = 500_000;

    /// These.
    #[must_use]
    pub fn of(which: HashSet<u64>) -> Self {
        let count = which.len() as u64;
        Self { count, which: (which.len() <= Self::TOLD_MAX).then_some(which) }
    }

    /// What stands for a name, on every node alike.
    #[must_use]
    pub fn number(name: &str) -> u64 {
        xxhash_rust::xxh3::xxh3_64(name.as_bytes())
    }

    /// How many there are over all; `None` if that cannot be told.
    #[must_use]
    pub fn count_all<'a>(all: impl IntoIterator<Item = &'a Self>) -> Option<u64> {
        let mut whole: HashSet<u64> = HashSet::new();
        let (mut nodes, mut last) = (0, 0);
        let mut is_told = true;
        for one in all {
            (nodes, last) = (nodes + 1, one.count);
            match &one.which {
                Some(which) => whole.extend(which),
                None => is_told = false,
            }
        }
        match (is_told, nodes) {
            (true, _) => Some(whole.len() as u64),
            // A node alone need not tell which.
            (false, 1) => Some(last),
            (false, _) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(channels: &[(&str, u64)], next: Option<&str>) -> Page {
        let active = |(channel, subscribers): &(&str, u64)| Active {
            channel: (*channel).into(),
            subscribers: *subscribers,
        };
        Page { channels: channels.iter().map(active).collect(), next: next.map(Into::into) }
    }

    #[test]
    fn pages_are_joined_as_far_as_all_have_looked() {
        let all = [page(&[("a", 1), ("c", 2)], None), page(&[("b", 1), ("c", 1)], None)];
        assert_eq!(Page::join(all.clone(), 9), page(&[("a", 1), ("b", 1), ("c", 3)], None));
        assert_eq!(Page::join(all.clone(), 3), page(&[("a", 1), ("b", 1), ("c", 3)], None));
        assert_eq!(Page::join(all, 2), page(&[("a", 1), ("b", 1)], Some("b")));
        // The second has not come to `c`, which it may have as well.
        let part = [page(&[("a", 1), ("c", 2)], None), page(&[], Some("bb"))];
        assert_eq!(Page::join(part, 9), page(&[("a", 1)], Some("bb")));
        let parts = [page(&[("a", 1)], Some("m")), page(&[("b", 1)], Some("k"))];
        assert_eq!(Page::join(parts, 9), page(&[("a", 1), ("b", 1)], Some("k")));
        assert_eq!(Page::join([], 9), page(&[], None));
    }

    #[test]
    fn a_pattern_names_channels_and_their_beginning() {
        let wanted = |pattern: Option<&str>, after: Option<&str>| Wanted {
            tenant: TenantId::new("acme").unwrap(),
            pattern: pattern.map(Into::into),
            after: after.map(Into::into),
            limit: 1,
        };
        assert_eq!(wanted(None, None).prefix(), "");
        assert_eq!(wanted(Some("news:*:1"), None).prefix(), "news:");
        assert_eq!(wanted(Some("room"), None).prefix(), "room");
        assert!(wanted(Some("news:*"), Some("news:1")).is_met_by("news:2"));
        assert!(!wanted(Some("news:*"), Some("news:1")).is_met_by("news:1"));
        assert!(!wanted(Some("news:*"), None).is_met_by("room"));
    }

    #[test]
    fn what_is_on_two_nodes_counts_once() {
        let of = |which: &[u64]| Distinct::of(which.iter().copied().collect());
        assert_eq!(Distinct::count_all(&[of(&[1, 2]), of(&[2, 3])]), Some(3));
        let untold = Distinct { count: 9, which: None };
        assert_eq!(Distinct::count_all([&untold]), Some(9));
        assert_eq!(Distinct::count_all(&[of(&[1]), untold]), None);
        assert_eq!(Distinct::count_all(&[]), Some(0));
    }
}

//! What one node does for all that share its stores: work in the partitions of the shards that
//! it owns.

use crate::{Config, channel::MAP};
use ledger::Work;
use std::{collections::HashMap, sync::Arc};
use store::Kind;
use traffic_cop::state::{Expiry, SharedStates};

/// The work of a shard's owner, by the kind of the partitions that it is in. None, where the
/// configuration asks for nothing that needs an owner: then no shard has to be kept for it.
#[must_use]
pub fn works(config: &Config, states: &SharedStates) -> HashMap<Kind, Arc<dyn Work>> {
    let mut works = HashMap::<Kind, Arc<dyn Work>>::new();
    if config.has_ending_entries() {
        works.insert(MAP, Arc::new(Expiry::new(states.clone())));
    }
    works
}

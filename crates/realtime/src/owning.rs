//! What one node does for all that share its stores: work in the partitions of the shards that
//! it owns.

use crate::{
    Config,
    channel::MAP,
    presence::{self, Departures},
};
use ledger::Work;
use std::{collections::HashMap, sync::Arc};
use store::{Kind, SharedStore};
use traffic_cop::state::{Expiry, SharedStates};

/// The work of a shard's owner, by the kind of the partitions that it is in. None, where the
/// configuration asks for nothing that needs an owner: then no shard has to be kept for it.
#[must_use]
pub fn works(
    config: &Config,
    store: &SharedStore,
    states: &SharedStates,
) -> HashMap<Kind, Arc<dyn Work>> {
    let mut works = HashMap::<Kind, Arc<dyn Work>>::new();
    if config.has_ending_entries() {
        works.insert(MAP, Arc::new(Expiry::new(states.clone())));
    }
    if config.tells_who_leaves() {
        let departures = Departures::new(store.clone(), config.presence_ttl);
        works.insert(presence::KIND, Arc::new(departures));
    }
    works
}

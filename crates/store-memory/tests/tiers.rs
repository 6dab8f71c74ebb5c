//! Several engines as one keep the contract.

use clock::ManualClock;
use std::sync::Arc;
use store::{Partition, SharedStore, Tier, Tiers};
use store_conformance::Harness;
use store_memory::MemoryStore;
use types::Timestamp;

/// By name, so that the tests meet all.
fn tier_of(partition: &Partition) -> Tier {
    match partition.bucket().0 % 3 {
        0 => Tier::Live,
        1 => Tier::Hot,
        _ => Tier::Durable,
    }
}

fn open() -> Harness {
    let clock = ManualClock::new(Timestamp(1_700_000_000_000), 1);
    let engine = || -> SharedStore { Arc::new(MemoryStore::new(clock.clone())) };
    let tiers = Tiers::new(engine(), engine(), tier_of).with_live(engine());
    Harness::new(Arc::new(tiers)).clock(clock.clone())
}

store_conformance::store!(open());

/// One engine for what is hot and what is durable, and none for what is live.
mod one_engine_for_all {
    use super::*;

    fn open() -> Harness {
        let clock = ManualClock::new(Timestamp(1_700_000_000_000), 1);
        let engine: SharedStore = Arc::new(MemoryStore::new(clock.clone()));
        let tiers = Tiers::new(engine.clone(), engine, tier_of);
        Harness::new(Arc::new(tiers)).clock(clock.clone())
    }

    store_conformance::store!(open());
}

//! Two engines as one keep the contract.

use clock::ManualClock;
use std::sync::Arc;
use store::{Partition, SharedStore, Tier, Tiers};
use store_conformance::Harness;
use store_memory::MemoryStore;
use types::Timestamp;

/// By name, so that the tests meet both.
fn tier_of(partition: &Partition) -> Tier {
    if partition.bucket().0.is_multiple_of(2) { Tier::Hot } else { Tier::Durable }
}

fn open() -> Harness {
    let clock = ManualClock::new(Timestamp(1_700_000_000_000), 1);
    let engine = || -> SharedStore { Arc::new(MemoryStore::new(clock.clone())) };
    let tiers = Tiers::new(engine(), engine(), tier_of);
    Harness::new(Arc::new(tiers)).clock(clock.clone())
}

store_conformance::store!(open());

//! A guard changes nothing of what its store promises.

use clock::ManualClock;
use std::sync::Arc;
use store_conformance::Harness;
use store_guard::{Config, GuardedStore};
use store_memory::MemoryStore;
use types::Timestamp;

fn open() -> Harness {
    let clock = ManualClock::new(Timestamp(1_700_000_000_000), 1);
    let store = Arc::new(MemoryStore::new(clock.clone()));
    Harness::new(GuardedStore::new(store, true, &Config::default(), clock.clone())).clock(clock)
}

store_conformance::store!(open());

//! The reference keeps the contract.

use clock::ManualClock;
use std::sync::Arc;
use store_conformance::Harness;
use store_memory::MemoryStore;
use types::Timestamp;

fn open() -> Harness {
    let clock = ManualClock::new(Timestamp(1_700_000_000_000), 1);
    Harness::new(Arc::new(MemoryStore::new(clock.clone()))).clock(clock)
}

store_conformance::store!(open());
store_conformance::catches!(open());

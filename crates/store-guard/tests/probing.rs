//! How often a store that refuses at once is asked.

use clock::ManualClock;
use std::{sync::Arc, time::Duration};
use store_guard::{Config, GuardedStore};
use store_memory::{Faults, MemoryStore};
use types::Timestamp;

#[tokio::test(start_paused = true)]
async fn a_store_that_refuses_at_once_is_asked_four_times_a_second() {
    let clock = ManualClock::new(Timestamp(1_700_000_000_000), 1);
    let store = Arc::new(MemoryStore::new(clock.clone()));
    store.plan_faults(|faults| (1..=10_000).fold(faults, Faults::on_read));
    let guarded = GuardedStore::new(store, true, &Config::default(), clock.clone());
    // Nothing was heard for so long that it is asked.
    clock.advance(Duration::from_secs(10));
    let run = guarded.clone().run("test");
    let _ = tokio::time::timeout(Duration::from_secs(10), run).await;
    let asked = guarded.report().unanswered;
    assert!((35..=45).contains(&asked), "{asked} times in ten seconds");
}

//! The embedded engine keeps the contract.
#![expect(clippy::unwrap_used, reason = "a test")]

use clock::ManualClock;
use std::sync::Arc;
use store_conformance::Harness;
use store_embedded::{EmbeddedStore, Options};
use types::Timestamp;

fn open() -> Harness {
    let clock = ManualClock::new(Timestamp(1_700_000_000_000), 1);
    let dir = tempfile::tempdir().unwrap();
    let (path, kept) = (dir.path().to_owned(), clock.clone());
    let options = Options { free_bytes_min: 0, ..Options::default() };
    let open = move || -> store::SharedStore {
        Arc::new(EmbeddedStore::open(&path, options.clone(), kept.clone()).unwrap())
    };
    Harness::new(open()).clock(clock).reopen_with(open).keep(dir)
}

store_conformance::store!(open());
store_conformance::catches!(open());

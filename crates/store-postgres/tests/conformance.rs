//! PostgreSQL keeps the contract, directly and through a transaction pooler.
#![expect(clippy::unwrap_used, reason = "a test")]

mod servers;

use clock::ManualClock;
use servers::{Servers, schema, shared};
use std::sync::Arc;
use store::SharedStore;
use store_conformance::Harness;
use store_postgres::{Options, PostgresStore};
use types::Timestamp;

/// An empty store at the URL that `url` gives for a schema.
async fn harness(url: fn(&Servers, &str) -> String) -> Harness {
    let servers = tokio::task::spawn_blocking(shared).await.unwrap();
    let clock = ManualClock::new(Timestamp(1_700_000_000_000), 1);
    let url = url(&servers, &format!("schema={}", schema()));
    let options = Options { clock: Some(clock.clone()), ..Options::parse(&url).unwrap() };
    let open = move || -> SharedStore {
        let store = PostgresStore::open(options.clone());
        let runtime = tokio::runtime::Handle::current();
        Arc::new(tokio::task::block_in_place(|| runtime.block_on(store)).unwrap())
    };
    Harness::new(open()).clock(clock).reopen_with(open).keep(servers)
}

mod direct {
    use super::*;
    store_conformance::store!(
        harness(|servers, parameters| servers.postgres.url(parameters)).await
    );
    store_conformance::catches!(
        harness(|servers, parameters| servers.postgres.url(parameters)).await
    );
}

mod through_a_transaction_pooler {
    use super::*;
    store_conformance::store!(harness(|servers, parameters| servers.pooler.url(parameters)).await);
}

//! One server per test binary, and a schema of its own for each test.
#![allow(dead_code, reason = "each binary needs a part of it")]

use parking_lot::Mutex;
use std::sync::{
    Arc, Weak,
    atomic::{AtomicU32, Ordering},
};
use store_postgres::{Options, PostgresStore};
use test_servers::{PgBouncer, Postgres, PostgresOptions};

/// A server with a pooler before it. Stopped in this order.
pub(crate) struct Servers {
    pub(crate) pooler: PgBouncer,
    pub(crate) postgres: Postgres,
}

/// What the tests of this binary share: stopped when the last of them has ended.
pub(crate) fn shared() -> Arc<Servers> {
    static SHARED: Mutex<Weak<Servers>> = Mutex::new(Weak::new());
    let mut shared = SHARED.lock();
    shared.upgrade().unwrap_or_else(|| {
        let postgres = Postgres::start(PostgresOptions::default()).unwrap();
        let pooler = PgBouncer::start(&postgres).unwrap();
        let servers = Arc::new(Servers { pooler, postgres });
        *shared = Arc::downgrade(&servers);
        servers
    })
}

/// A name that no other test has.
pub(crate) fn schema() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    format!("test_{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Opens a store of the URL.
pub(crate) async fn open(url: &str) -> Arc<PostgresStore> {
    Arc::new(PostgresStore::open(Options::parse(url).unwrap()).await.unwrap())
}

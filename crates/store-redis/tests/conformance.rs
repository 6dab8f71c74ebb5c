//! One Redis server, a Redis Cluster and Valkey keep the contract.
#![expect(clippy::unwrap_used, reason = "a test")]

use clock::{ManualClock, SharedClock};
use std::sync::{
    Arc, LazyLock,
    atomic::{AtomicU64, Ordering},
};
use store::SharedStore;
use store_conformance::{Harness, fanout::Pair};
use store_redis::{Options, RedisFanout, RedisStore, StoreTime};
use test_servers::{Redis, RedisCluster, RedisOptions, Shared};
use types::Timestamp;

/// An empty store on a server that others use as well: under a prefix of its own.
fn own(url: &str) -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("{url}?prefix=test{}:", NEXT.fetch_add(1, Ordering::Relaxed))
}

fn store(url: &str) -> Harness {
    let clock = ManualClock::new(Timestamp(1_700_000_000_000), 1);
    let (url, kept) = (own(url), clock.clone());
    let open = move || -> SharedStore {
        let options = Options { time: StoreTime::Clock, ..Options::default() };
        Arc::new(wait(RedisStore::open(&url, options, kept.clone())).unwrap())
    };
    Harness::new(open()).clock(clock).reopen_with(open)
}

fn fanout(url: &str) -> Pair {
    let (url, clock): (_, SharedClock) = (own(url), ManualClock::new(Timestamp(1), 1));
    let open = || {
        let opening = RedisFanout::open(&url, Options::default(), clock.clone());
        Arc::new(wait(opening).unwrap())
    };
    Pair::new(open(), open())
}

fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(future))
}

macro_rules! server {
    ($name:ident, $type:ty, $start:expr) => {
        mod $name {
            use super::*;
            static SERVER: LazyLock<Shared<$type>> =
                LazyLock::new(|| Shared::new($start(RedisOptions::default()).unwrap()).unwrap());
            store_conformance::store!(store(&SERVER.url()));
            store_conformance::catches!(store(&SERVER.url()));
            store_conformance::fanout!(fanout(&SERVER.url()));
        }
    };
}

server!(redis, Redis, Redis::start);
server!(cluster, RedisCluster, RedisCluster::start);
server!(valkey, Redis, Redis::start_valkey);

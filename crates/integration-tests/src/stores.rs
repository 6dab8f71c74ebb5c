//! The stores that nodes of this process run on, by `CROSSTOWN_TEST_STORES`, so that the suites
//! of the layers run over every engine: `embedded` (also if it is not set), `memory`, `redis`,
//! `cluster`, `valkey`, `postgres` or `redis-postgres`.

use std::{
    path::Path,
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering},
    },
};
use test_servers::{
    Appends, Postgres, PostgresOptions, ROLE, Redis, RedisCluster, RedisOptions, Shared,
};

static REDIS: LazyLock<Shared<Redis>> = LazyLock::new(|| {
    let redis = Redis::start(RedisOptions::appending(Appends::Always)).expect("a Redis");
    Shared::new(redis).expect("a leash")
});
static VALKEY: LazyLock<Shared<Redis>> = LazyLock::new(|| {
    let valkey = Redis::start_valkey(RedisOptions::appending(Appends::Always)).expect("a Valkey");
    Shared::new(valkey).expect("a leash")
});
static CLUSTER: LazyLock<Shared<RedisCluster>> = LazyLock::new(|| {
    let cluster = RedisCluster::start(RedisOptions::appending(Appends::Always));
    Shared::new(cluster.expect("a Redis Cluster")).expect("a leash")
});
static POSTGRES: LazyLock<Shared<Postgres>> = LazyLock::new(|| {
    let postgres = Postgres::start(PostgresOptions::default()).expect("a PostgreSQL");
    Shared::new(postgres).expect("a leash")
});

/// The keys of `[stores]` for a node with nothing in its stores yet; `folder` is its own.
pub(crate) fn fresh(folder: &Path) -> String {
    static NODES: AtomicU64 = AtomicU64::new(0);
    let number = NODES.fetch_add(1, Ordering::Relaxed);
    let redis = |url: String| format!("{url}?prefix=node{number}:");
    let stores = std::env::var("CROSSTOWN_TEST_STORES").unwrap_or_else(|_| "embedded".into());
    let durable = match &*stores {
        "embedded" => format!("embedded:{}/data", folder.display()),
        "memory" => "memory:".into(),
        "redis" => redis(REDIS.url()),
        "valkey" => redis(VALKEY.url()),
        "cluster" => redis(CLUSTER.url()),
        "postgres" => postgres(number),
        "redis-postgres" => {
            let (hot, durable) = (redis(REDIS.url()), postgres(number));
            return format!("hot = \"{hot}\"\ndurable = \"{durable}\"");
        }
        other => panic!("CROSSTOWN_TEST_STORES={other} is not known"),
    };
    format!("durable = \"{durable}\"")
}

fn postgres(number: u64) -> String {
    let create = format!("CREATE DATABASE node{number} OWNER {ROLE}");
    POSTGRES.sql("postgres", &create).expect("a database");
    let server = POSTGRES.url("");
    let (server, _) = server.rsplit_once('/').expect("a database in the URL");
    format!("{server}/node{number}")
}

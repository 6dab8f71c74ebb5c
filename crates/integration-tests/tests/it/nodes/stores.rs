//! The stores that two nodes share.

use test_servers::{Appends, Postgres, PostgresOptions, Redis, RedisCluster, RedisOptions};

/// The servers behind two nodes, and the keys of `[stores]` that name them.
pub(super) struct Stores {
    pub(super) keys: String,
    _servers: Box<dyn std::any::Any>,
}

pub(super) fn postgres() -> Stores {
    let postgres = Postgres::start(PostgresOptions::default()).unwrap();
    let keys = format!("durable = \"{}\"", postgres.url(""));
    Stores { keys, _servers: Box::new(postgres) }
}

pub(super) fn redis() -> Stores {
    let redis = Redis::start(RedisOptions::appending(Appends::Always)).unwrap();
    let keys = format!("durable = \"{}\"", redis.url());
    Stores { keys, _servers: Box::new(redis) }
}

pub(super) fn cluster_and_postgres() -> Stores {
    let cluster = RedisCluster::start(RedisOptions::default()).unwrap();
    let postgres = Postgres::start(PostgresOptions::default()).unwrap();
    let keys = format!("hot = \"{}\"\ndurable = \"{}\"", cluster.url(), postgres.url(""));
    Stores { keys, _servers: Box::new((cluster, postgres)) }
}

pub(super) fn valkey_and_postgres() -> Stores {
    let valkey = Redis::start_valkey(RedisOptions::default()).unwrap();
    let postgres = Postgres::start(PostgresOptions::default()).unwrap();
    let keys = format!("hot = \"{}\"\ndurable = \"{}\"", valkey.url(), postgres.url(""));
    Stores { keys, _servers: Box::new((valkey, postgres)) }
}

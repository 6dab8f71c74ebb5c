//! What a server must be set up for, and what is told about it.
#![expect(clippy::unwrap_used, reason = "a test")]

mod support;

use clock::SystemClock;
use std::{error::Error as _, sync::Arc, time::Duration};
use store::{Position, SharedStore, Store, Survives};
use store_redis::{OpenError, Options, RedisStore};
use support::{append, open, options, partition, try_open};
use test_servers::{Appends, Redis, RedisCluster, RedisOptions};

fn chain(error: &OpenError) -> String {
    let mut text = format!("{error} {error:?}");
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error} {error:?}");
        source = error.source();
    }
    text
}

#[tokio::test]
async fn a_server_that_evicts_is_refused() {
    let server = Redis::start(RedisOptions::default()).unwrap();
    for policy in ["allkeys-lru", "volatile-ttl"] {
        server.ask(&["CONFIG", "SET", "maxmemory-policy", policy]).unwrap();
        let error = try_open(&server.url()).await.unwrap_err();
        assert!(matches!(error, OpenError::Evicts { .. }));
        assert!(error.to_string().contains("CONFIG SET maxmemory-policy noeviction"), "{error}");
    }
    server.ask(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]).unwrap();
    let store = try_open(&server.url()).await.unwrap();
    store.commit(append("p", "1")).await.unwrap();
    // One that comes to evict while it is used is noticed, and no longer used.
    server.ask(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]).unwrap();
    for _ in 0..100 {
        if store.commit(append("p", "2")).await.is_err() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("a server that evicts is still used");
}

#[tokio::test]
async fn what_a_server_keeps_is_told_and_demanded() {
    let levels = ["nothing", "process", "power-loss"];
    for (appends, survives, kept) in [
        (Appends::Off, Survives::Nothing, 0),
        (Appends::EverySecond, Survives::Nothing, 0),
        (Appends::Written, Survives::Process, 1),
        (Appends::Always, Survives::PowerLoss, 2),
    ] {
        let server = Redis::start(RedisOptions::appending(appends)).unwrap();
        let store = try_open(&server.url()).await.unwrap();
        assert_eq!(store.capabilities().survives, survives);
        for (at, level) in levels.iter().enumerate() {
            let url = format!("{}?survives={level}", server.url());
            match try_open(&url).await {
                Ok(_) => assert!(at <= kept, "{appends:?} {level}"),
                Err(error) => {
                    assert!(at > kept && error.to_string().contains("set `appendonly yes`"));
                    assert!(matches!(error, OpenError::Durability { .. }), "{error}");
                }
            }
        }
    }
    let rewrites = RedisOptions::appending(Appends::Always);
    let server = Redis::start(rewrites.with(["--no-appendfsync-on-rewrite", "yes"])).unwrap();
    let store = try_open(&server.url()).await.unwrap();
    assert_eq!(store.capabilities().survives, Survives::Process);
}

#[tokio::test]
async fn a_password_is_used_and_never_shown() {
    let server = Redis::start(RedisOptions::default().with(["--requirepass", "geheim"])).unwrap();
    let at = |password: &str| format!("redis://:{password}@127.0.0.1:{}/", server.port());
    let store = try_open(&at("geheim")).await.unwrap();
    store.commit(append("p", "1")).await.unwrap();
    assert!(!format!("{store:?} {:?}", store.capabilities()).contains("geheim"));
    let error = try_open(&at("falsch")).await.unwrap_err();
    assert!(!chain(&error).contains("falsch"), "{}", chain(&error));
    let error = try_open("redis://:geheim@127.0.0.1:1/").await.unwrap_err();
    assert!(!chain(&error).contains("geheim"), "{}", chain(&error));
}

#[tokio::test]
async fn a_replica_is_refused() {
    let master = Redis::start(RedisOptions::default()).unwrap();
    let port = master.port().to_string();
    let of = RedisOptions::default().with(["--replicaof", &format!("127.0.0.1 {port}")]);
    let replica = Redis::start(of).unwrap();
    let error = try_open(&replica.url()).await.unwrap_err();
    assert!(matches!(error, OpenError::Replica { .. }), "{error}");
}

#[tokio::test]
async fn a_cluster_is_recognised_by_any_of_its_nodes() {
    let cluster = RedisCluster::start(RedisOptions::default()).unwrap();
    let store = try_open(&cluster.nodes()[1].url()).await.unwrap();
    for at in 0..50 {
        store.commit(append(&at.to_string(), "1")).await.unwrap();
    }
    let single = Redis::start(RedisOptions::default()).unwrap();
    let url = format!("redis+cluster://127.0.0.1:{}/", single.port());
    assert!(matches!(try_open(&url).await, Err(OpenError::Url(_))));
}

#[tokio::test]
async fn what_is_written_before_hints_come_is_noticed_when_they_do() {
    let server = Redis::start(RedisOptions::default()).unwrap();
    let seldom = Options { poll_every: Duration::from_secs(3600), ..options() };
    let store = RedisStore::open(&server.url(), seldom, SystemClock::shared()).await.unwrap();
    let store: SharedStore = Arc::new(store);
    let mut watcher = store::watch(store.clone());
    watcher.follow(partition("p"), Position::ZERO);
    // It looks, and there is nothing.
    assert_eq!(watcher.touched().await, partition("p"));
    // While this thread waits, nothing of the store's own goes on: nobody has subscribed yet.
    let url = server.url();
    let written = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { open(&url).await.commit(append("p", "1")).await.unwrap() });
    });
    written.join().unwrap();
    let touched = tokio::time::timeout(Duration::from_secs(30), watcher.touched()).await;
    assert_eq!(touched.unwrap(), partition("p"));
}

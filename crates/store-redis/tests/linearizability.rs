//! Records stay linearizable while connections are lost and servers are killed.
#![expect(clippy::unwrap_used, reason = "a test")]

mod support;

use std::time::Duration;
use store_conformance::linearizability::{Disturbed, disturbed, disturbed_length};
use support::open;
use test_servers::{Appends, Proxy, Redis, RedisCluster, RedisOptions};

fn report(what: &str, seen: Disturbed) {
    println!("{what}: {seen:?}");
    assert!(seen.unknown > 0, "nothing was disturbed");
}

async fn pause() {
    tokio::time::sleep(Duration::from_millis(100)).await;
}

/// By turns the connections break, the answers come late, and the server is killed.
async fn one_server(what: &str, mut server: Redis) {
    let proxy = Proxy::start(server.port()).unwrap();
    let url = format!("redis://127.0.0.1:{}/?survives=power-loss", proxy.port());
    let (histories, restarts) = disturbed_length();
    let seen =
        disturbed(open(&url).await, histories, restarts * 3, async |number| match number % 3 {
            0 => proxy.sever(),
            1 => {
                proxy.silence();
                pause().await;
                proxy.sever();
                proxy.heal();
            }
            _ => tokio::task::block_in_place(|| {
                server.kill().unwrap();
                server.start_again().unwrap();
            }),
        });
    report(what, seen.await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis() {
    let options = RedisOptions::appending(Appends::Always);
    one_server("redis", Redis::start(options).unwrap()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn valkey() {
    let options = RedisOptions::appending(Appends::Always);
    one_server("valkey", Redis::start_valkey(options).unwrap()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cluster() {
    let options = RedisOptions::appending(Appends::Always);
    let mut cluster = RedisCluster::start(options).unwrap();
    let (histories, restarts) = disturbed_length();
    let store = open(&cluster.url()).await;
    let seen = disturbed(store, histories, restarts * 2, async |number| {
        let node = &mut cluster.nodes_mut()[number as usize / 2 % 3];
        tokio::task::block_in_place(|| {
            if number % 2 == 0 {
                node.ask(&["CLIENT", "KILL", "TYPE", "normal"]).unwrap();
            } else {
                node.kill().unwrap();
                node.start_again().unwrap();
            }
        });
    });
    report("cluster", seen.await);
}

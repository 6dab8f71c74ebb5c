//! Records stay linearizable while connections are lost and the server is killed.
#![expect(clippy::unwrap_used, reason = "a test")]

mod servers;

use servers::open;
use std::time::Duration;
use store_conformance::linearizability::{disturbed, disturbed_length};
use test_servers::{Postgres, PostgresOptions, Proxy};

/// By turns the connections break, the answers come late, and the server is killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres() {
    let mut server = Postgres::start(PostgresOptions::default()).unwrap();
    let proxy = Proxy::start(server.port()).unwrap();
    let url = server.url("").replace(&server.port().to_string(), &proxy.port().to_string());
    let (histories, restarts) = disturbed_length();
    let store = open(&url).await;
    let seen = disturbed(store, histories, restarts * 3, async |number| match number % 3 {
        0 => proxy.sever(),
        1 => {
            proxy.silence();
            tokio::time::sleep(Duration::from_millis(100)).await;
            proxy.sever();
            proxy.heal();
        }
        _ => tokio::task::block_in_place(|| {
            server.kill().unwrap();
            server.restart().unwrap();
        }),
    });
    let seen = seen.await;
    println!("postgres: {seen:?}");
    assert!(seen.unknown > 0, "nothing was disturbed");
}

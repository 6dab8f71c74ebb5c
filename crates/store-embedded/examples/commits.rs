//! Commits a second with so many writers: `cargo run --release -p store-embedded --example
//! commits -- DIR`. A measurement, to be quoted with its machine and disk.
#![expect(clippy::unwrap_used, reason = "a measurement")]
#![allow(clippy::print_stdout, reason = "its result")]

use clock::SystemClock;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use store::{Commit, Key, Kind, Partition, Store, StreamName};
use store_embedded::{EmbeddedStore, Options};
use types::TenantId;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let dir = std::env::args().nth(1).expect("a folder");
    for round in ["new", "reopened"] {
        let store =
            Arc::new(EmbeddedStore::open(&dir, Options::default(), SystemClock::shared()).unwrap());
        for writers in [1_usize, 64, 512] {
            let started = Instant::now();
            let mut tasks = tokio::task::JoinSet::new();
            for writer in 0..writers {
                let store = store.clone();
                tasks.spawn(async move {
                    let id = format!("{round}/{writer}");
                    let p = Partition::new(TenantId::system(), Kind::new("k"), &id).unwrap();
                    let mut count = 0_u64;
                    while started.elapsed() < Duration::from_secs(3) {
                        let key = Key::new((count % 100).to_be_bytes()).unwrap();
                        let commit = Commit::new(p.clone()).put(key, vec![7; 256]);
                        let commit = commit.append(StreamName::new("s"), vec![7; 256]);
                        store.commit(commit).await.unwrap();
                        count += 1;
                    }
                    count
                });
            }
            let count: u64 = tasks.join_all().await.into_iter().sum();
            println!(
                "{round}: {writers} writers: {:.0} commits/s",
                count as f64 / started.elapsed().as_secs_f64()
            );
        }
        let (p, key) = (
            Partition::new(TenantId::system(), Kind::new("k"), "new/0").unwrap(),
            Key::new(5_u64.to_be_bytes()).unwrap(),
        );
        let started = Instant::now();
        for _ in 0..50_000 {
            store.get(&p, &key).await.unwrap().unwrap();
        }
        println!("{round}: {:.0} gets/s on one thread", 50_000.0 / started.elapsed().as_secs_f64());
    }
}

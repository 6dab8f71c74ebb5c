//! Several nodes on one database.
#![expect(clippy::unwrap_used, reason = "a test")]

mod servers;

use servers::{Servers, open, schema, shared};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use store::{Commit, Key, Kind, Partition, Position, Store, StreamName};
use test_servers::ROLE;
use tokio::task::JoinSet;
use types::TenantId;

fn partition(id: &str) -> Partition {
    Partition::new(TenantId::new("tenant").unwrap(), Kind::new("kind"), id).unwrap()
}

fn put(id: &str, value: &str) -> Commit {
    Commit::new(partition(id)).put(Key::new("a").unwrap(), value.to_owned())
}

/// How long a node takes to be told of another one's commits, one by one.
async fn told_within(url: &str, commits: u64) -> Duration {
    let (ours, theirs) = (open(url).await, open(url).await);
    let p = partition("p");
    let mut watcher = store::watch(ours.clone());
    watcher.follow(p.clone(), Position::ZERO);
    let mut longest = Duration::ZERO;
    for revision in 1..=commits {
        let committed = theirs.commit(put("p", &revision.to_string())).await.unwrap();
        let since = Instant::now();
        let told = tokio::time::timeout(Duration::from_secs(10), watcher.next()).await;
        let (who, changes) = told.expect("a watcher is told");
        assert_eq!((who, changes.unwrap().position), (p.clone(), committed.position));
        longest = longest.max(since.elapsed());
    }
    longest
}

#[tokio::test]
async fn notifications_tell_what_another_node_committed() {
    let servers = shared();
    // By polling alone five of them would take five seconds and more.
    let url = servers.postgres.url(&format!("schema={}&hints=notify", schema()));
    let longest = told_within(&url, 5).await;
    assert!(longest < Duration::from_secs(2), "{longest:?}");
}

#[tokio::test]
async fn polling_tells_what_another_node_committed() {
    let servers = shared();
    let parameters = format!("schema={}&hints=poll", schema());
    assert!(told_within(&servers.postgres.url(&parameters), 5).await < Duration::from_secs(2));
}

#[tokio::test]
async fn behind_a_pooler_it_polls_by_itself() {
    let servers = shared();
    let url = servers.pooler.url(&format!("schema={}", schema()));
    assert!(told_within(&url, 5).await < Duration::from_secs(2));
}

/// A transaction that began before others and ends after them is not passed over by the poll:
/// its id lies below theirs when it becomes visible.
#[tokio::test]
async fn a_poll_does_not_pass_over_a_slow_transaction() {
    let servers = shared();
    let schema = schema();
    let url = servers.postgres.url(&format!("schema={schema}&hints=poll&poll_every_ms=50"));
    let store = open(&url).await;
    let first = store.commit(put("slow", "1")).await.unwrap().position;
    let mut watcher = store::watch(store.clone());
    watcher.follow(partition("slow"), first);
    // What it is told from here on comes from the poll alone.
    let early = tokio::time::timeout(Duration::from_millis(500), watcher.next()).await;
    assert!(early.is_err(), "nothing has changed yet");
    // As another node would change it, but slowly: the id is taken first.
    let text = format!(
        "BEGIN; SELECT pg_current_xact_id(); SELECT pg_sleep(1); \
         UPDATE {schema}.heads SET revision = revision + 1, xid = pg_current_xact_id() \
         WHERE id = 'slow'; COMMIT"
    );
    let others = servers.clone();
    let slow = tokio::task::spawn_blocking(move || others.postgres.sql(ROLE, &text).unwrap());
    // Meanwhile many others end, so that polls come by later ids.
    let theirs = open(&url).await;
    while !slow.is_finished() {
        theirs.commit(put("quick", "1")).await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    slow.await.unwrap();
    let told = tokio::time::timeout(Duration::from_secs(5), watcher.next()).await;
    let (_, changes) = told.expect("the slow transaction is told");
    assert_eq!(changes.unwrap().position.revision, first.revision + 1);
}

async fn many_commits(servers: Arc<Servers>, url: String) {
    const TASKS: u64 = 24;
    const EACH: u64 = 25;
    let nodes = [open(&url).await, open(&url).await, open(&url).await];
    let mut tasks = JoinSet::new();
    for task in 0..TASKS {
        let store = nodes[task as usize % nodes.len()].clone();
        tasks.spawn(async move {
            for at in 0..EACH {
                // Each in another order, so that locks taken as they come would cross.
                let id = (task * 7 + at * (task + 1)) % 10;
                let stream = StreamName::new("stream");
                store.commit(put(&id.to_string(), "1").append(stream, "x")).await.unwrap();
            }
        });
    }
    tasks.join_all().await;
    let mut total = 0;
    for id in 0..10 {
        let head = nodes[0].head(&partition(&id.to_string())).await.unwrap().unwrap();
        assert_eq!(head.streams[0].last, head.position.revision);
        total += head.position.revision;
    }
    assert_eq!(total, TASKS * EACH);
    let deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = 'crosstown'";
    assert_eq!(servers.postgres.sql(ROLE, deadlocks).unwrap(), "0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_on_the_same_partitions_never_deadlock() {
    let servers = shared();
    let url = servers.postgres.url(&format!("schema={}", schema()));
    many_commits(servers, url).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_behind_a_pooler_never_deadlock() {
    let servers = shared();
    let url = servers.pooler.url(&format!("schema={}", schema()));
    many_commits(servers, url).await;
}

//! What happens when connections are cut and servers die.
#![expect(clippy::unwrap_used, reason = "a test")]

mod servers;

use servers::open;
use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};
use store::{Commit, CommitId, Error, Key, Kind, Partition, Position, Store, StreamName};
use store_postgres::PostgresStore;
use test_servers::{PgBouncer, Postgres, PostgresOptions, ROLE};
use tokio::task::JoinSet;
use types::TenantId;

const STREAM: StreamName = StreamName::new("stream");

fn partition(id: &str) -> Partition {
    Partition::new(TenantId::new("tenant").unwrap(), Kind::new("kind"), id).unwrap()
}

fn append(id: &str, value: &str) -> Commit {
    Commit::new(partition(id)).append(STREAM, value.to_owned())
}

fn server() -> Postgres {
    Postgres::start(PostgresOptions::default()).unwrap()
}

/// Ends every connection of the store, as an operator would, and answers how many.
fn terminate(server: &Postgres, which: &str) -> usize {
    let text = format!(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
         WHERE usename = '{ROLE}' AND {which}"
    );
    server.sql(ROLE, &text).unwrap().parse().unwrap()
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    for _ in 0..1_500 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{what} does not happen");
}

/// Cut off before COMMIT was sent, a commit is tried again: it was rolled back for certain.
#[tokio::test]
async fn a_commit_that_was_rolled_back_is_tried_again() {
    let server = Arc::new(server());
    let store = open(&server.url("")).await;
    store.commit(append("p", "first")).await.unwrap();
    let others = server.clone();
    let locked = "BEGIN; SELECT 1 FROM crosstown.heads FOR UPDATE; SELECT pg_sleep(1); COMMIT";
    let lock = tokio::task::spawn_blocking(move || others.sql(ROLE, locked).unwrap());
    tokio::time::sleep(Duration::from_millis(300)).await;
    let (ours, commit) = (store.clone(), append("p", "second"));
    let commit = tokio::spawn(async move { ours.commit(commit).await });
    until("a wait for the lock", async || terminate(&server, "wait_event_type = 'Lock'") > 0).await;
    assert_eq!(commit.await.unwrap().unwrap().sequences, [2]);
    lock.await.unwrap();
    assert_eq!(store.read(&partition("p"), &STREAM, 1, 9).await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_server_that_is_set_to_read_only_is_read_and_takes_no_writes() {
    let server = server();
    let store = open(&server.url("")).await;
    let before = store.commit(append("p", "1")).await.unwrap();
    let set = |value: &str| {
        let text = format!("ALTER SYSTEM SET default_transaction_read_only = {value}");
        server.sql("postgres", &text).unwrap();
        server.sql("postgres", "SELECT pg_reload_conf()").unwrap();
    };
    set("on");
    let mut refused = None;
    // Each connection hears of it in its own time; what was taken before that counts.
    let mut count = 1;
    until("a refusal", async || match store.commit(append("p", "2")).await {
        Ok(_) => {
            count += 1;
            false
        }
        Err(error) => {
            refused = Some(error);
            true
        }
    })
    .await;
    assert!(matches!(refused, Some(Error::ReadOnly { .. })), "{refused:?}");
    let head = store.head(&partition("p")).await.unwrap().unwrap();
    assert_eq!(head.position.incarnation, before.position.incarnation);
    assert_eq!(head.streams[0].last, count);
    set("off");
    until("a commit", async || store.commit(append("p", "3")).await.is_ok()).await;
}

/// Cut off after COMMIT was sent, the outcome is unknown: the caller is told so, and the same
/// id gets the first reply. The server is made to hang between the two by a replica that never
/// answers.
async fn check_unknown(server: &Postgres, url: &str) {
    let store = open(url).await;
    store.commit(append("p", "first")).await.unwrap();
    let replicas = |names: &str| {
        let text = format!("ALTER SYSTEM SET synchronous_standby_names = '{names}'");
        server.sql(ROLE, &text).unwrap();
        server.sql(ROLE, "SELECT pg_reload_conf()").unwrap();
    };
    replicas("nobody");
    tokio::time::sleep(Duration::from_millis(200)).await;
    let commit = append("p", "second").id(CommitId([7; 16]));
    let (ours, sent) = (store.clone(), commit.clone());
    let sent = tokio::spawn(async move { ours.commit(sent).await });
    until("a wait for the replica", async || terminate(server, "wait_event = 'SyncRep'") > 0).await;
    let error = sent.await.unwrap().unwrap_err();
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(matches!(error, Error::Unavailable { .. }), "{error}");
    assert!(source.contains("after COMMIT was sent"), "{source}");
    replicas("");
    let reply = store.commit(commit.clone()).await.unwrap();
    assert_eq!((reply.sequences, reply.position.revision), (vec![2], 2));
    assert_eq!(store.commit(append("p", "third")).await.unwrap().sequences, [3]);
    assert_eq!(store.commit(commit).await.unwrap().sequences, [2]);
}

#[tokio::test]
async fn a_commit_without_an_answer_is_unknown_and_its_id_tells() {
    let server = server();
    check_unknown(&server, &server.url("")).await;
}

#[tokio::test]
async fn a_commit_without_an_answer_through_a_pooler_is_unknown_and_its_id_tells() {
    let server = server();
    let pooler = PgBouncer::start(&server).unwrap();
    check_unknown(&server, &pooler.url("")).await;
}

/// What is wrong with one partition harms no other one of its batch.
#[tokio::test]
async fn a_damaged_partition_is_refused_alone() {
    let server = server();
    let store = open(&format!("{}?writers=1", server.url(""))).await;
    for id in ["bad", "good"] {
        store.commit(append(id, "1")).await.unwrap();
    }
    let damage = "UPDATE crosstown.heads SET streams = '[[1]]' WHERE id = 'bad'";
    server.sql(ROLE, damage).unwrap();
    let mut tasks = JoinSet::new();
    for at in 0..40 {
        let store = store.clone();
        let id = if at % 4 == 0 { "bad" } else { "good" };
        tasks.spawn(async move { (id, store.commit(append(id, "2")).await) });
    }
    for (id, answer) in tasks.join_all().await {
        match (id, answer) {
            ("good", answer) => drop(answer.unwrap()),
            (_, answer) => assert!(matches!(answer, Err(Error::Corrupt { .. })), "{answer:?}"),
        }
    }
    assert_eq!(store.head(&partition("good")).await.unwrap().unwrap().position.revision, 31);
}

/// Reads and commits go on over terminated connections, watchers too.
#[tokio::test]
async fn everything_connects_again() {
    let server = server();
    let store = open(&server.url("hints=notify")).await;
    let other = open(&server.url("")).await;
    let mut watcher = store::watch(store.clone());
    watcher.follow(partition("p"), Position::ZERO);
    for round in 1..=5 {
        assert!(terminate(&server, "true") > 0);
        let sequences = other.commit(append("p", "x")).await.unwrap().sequences;
        assert_eq!(sequences, [round]);
        let head = store.head(&partition("p")).await.unwrap().unwrap();
        assert_eq!(head.position.revision, round);
        let told = tokio::time::timeout(Duration::from_secs(10), watcher.next()).await;
        assert_eq!(told.unwrap().1.unwrap().position, head.position);
    }
}

/// What each task has been told, and what it does not know.
type Told = HashMap<CommitId, (Commit, Option<u64>)>;

/// When the tasks are done, and how far they are.
#[derive(Default)]
struct Course {
    over: AtomicBool,
    acknowledged: AtomicUsize,
}

async fn commit_until(store: Arc<PostgresStore>, task: u8, course: Arc<Course>) -> Told {
    let mut told = Told::new();
    let mut at = 0_u32;
    while !course.over.load(Ordering::Relaxed) {
        at += 1;
        let mut id = [task; 16];
        id[..4].copy_from_slice(&at.to_le_bytes());
        let id = CommitId(id);
        let commit = append(&format!("p{}", task % 3), &format!("{task}/{at}")).id(id);
        let answer = match store.commit(commit.clone()).await {
            Ok(committed) => {
                course.acknowledged.fetch_add(1, Ordering::Relaxed);
                Some(committed.sequences[0])
            }
            Err(Error::Unavailable { .. }) => None,
            Err(error) => panic!("{error}"),
        };
        told.insert(id, (commit, answer));
    }
    told
}

async fn check_kill(mut server: Postgres, url: String, rounds: usize) {
    let store = open(&url).await;
    let start = store.commit(append("p0", "start")).await.unwrap().position;
    let course = Arc::<Course>::default();
    let mut tasks = JoinSet::new();
    for task in 1..=8 {
        tasks.spawn(commit_until(store.clone(), task, course.clone()));
    }
    let acknowledged = || course.acknowledged.load(Ordering::Relaxed);
    until("a hundred commits", async || acknowledged() > 100).await;
    for _ in 0..rounds {
        tokio::time::sleep(Duration::from_millis(400)).await;
        tokio::task::block_in_place(|| {
            server.kill().unwrap();
            server.restart().unwrap();
        });
    }
    tokio::time::sleep(Duration::from_millis(400)).await;
    course.over.store(true, Ordering::Relaxed);
    let told: Vec<Told> = tasks.join_all().await;
    let told: Told = told.into_iter().flatten().collect();
    let unknown = told.values().filter(|(_, answer)| answer.is_none()).count();
    println!("{} commits, {unknown} without an answer, {rounds} kills", told.len());
    assert!(told.len() > 100 + unknown);
    // A pooler that could not log in does not try again for a while, by default 15 s.
    until("a connection", async || store.head(&partition("p0")).await.is_ok()).await;
    // With the same id each is known now, at the sequence that was told if one was.
    let mut wanted: HashMap<(String, u64), String> = HashMap::new();
    wanted.insert(("p0".to_owned(), 1), "start".to_owned());
    for (commit, answer) in told.into_values() {
        let committed = store.commit(commit.clone()).await.unwrap();
        let sequence = committed.sequences[0];
        assert!(answer.is_none_or(|told| told == sequence));
        let store::Write::Append { value, .. } = &commit.writes[0] else { unreachable!() };
        let value = String::from_utf8(value.to_vec()).unwrap();
        let place = (commit.partition.id().to_owned(), sequence);
        assert!(wanted.insert(place, value).is_none(), "two commits of one sequence");
    }
    let mut found = 0;
    for id in ["p0", "p1", "p2"] {
        let mut from = 1;
        loop {
            let page = store.read(&partition(id), &STREAM, from, 1000).await.unwrap();
            let Some(last) = page.last() else { break };
            from = last.sequence + 1;
            for entry in page {
                let value = String::from_utf8(entry.value.to_vec()).unwrap();
                assert_eq!(wanted[&(id.to_owned(), entry.sequence)], value);
                found += 1;
            }
        }
    }
    assert_eq!(found, wanted.len());
    // Nothing was lost, so whoever followed goes on.
    assert!(store.changes(&partition("p0"), start).await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_keeps_everything_acknowledged() {
    let server = server();
    let url = server.url("");
    check_kill(server, url, 4).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_behind_a_pooler_keeps_everything_acknowledged() {
    let server = server();
    let pooler = PgBouncer::start(&server).unwrap();
    check_kill(server, pooler.url(""), 4).await;
}

/// Where a restart may have lost the tail, or the tables were restored elsewhere, old positions
/// get `Lagged`, new ones do not; fences and what is stored stay.
async fn check_new_life(store: &PostgresStore, since: Position) {
    let p = partition("p");
    let Error::Lagged { position } = store.changes(&p, since).await.unwrap_err() else {
        panic!("a position of the old life has lagged")
    };
    assert_ne!(position.incarnation, since.incarnation);
    assert_eq!(store.head(&p).await.unwrap().unwrap().position, position);
    let next = store.commit(append("p", "next")).await.unwrap().position;
    assert_eq!((next.incarnation, next.revision), (position.incarnation, position.revision + 1));
    assert_eq!(store.changes(&p, position).await.unwrap().position, next);
    assert_eq!(store.scan(&p, b"", None, 9).await.unwrap().position, next);
}

#[tokio::test]
async fn a_restart_without_fsync_begins_a_new_life() {
    let options = PostgresOptions::default().set("fsync", "off");
    let mut server = Postgres::start(options).unwrap();
    let store = open(&server.url("")).await;
    let key = Key::new("a").unwrap();
    let since = store.commit(append("p", "one").put(key, "1")).await.unwrap().position;
    server.kill().unwrap();
    server.restart().unwrap();
    // It is found by whoever asks, without being opened again.
    until("an answer", async || store.head(&partition("p")).await.is_ok()).await;
    check_new_life(&store, since).await;
    let store = open(&server.url("")).await;
    assert_eq!(store.commit(append("p", "last")).await.unwrap().sequences, [3]);
}

#[tokio::test]
async fn tables_restored_into_another_database_begin_a_new_life() {
    let server = server();
    let store = open(&server.url("")).await;
    let since = store.commit(append("p", "one")).await.unwrap().position;
    drop(store);
    terminate(&server, "true");
    server.sql("postgres", "CREATE DATABASE restored TEMPLATE crosstown OWNER crosstown").unwrap();
    let database = |name| format!("{}/{name}", server.port());
    let url = server.url("").replace(&database("crosstown"), &database("restored"));
    let store = open(&url).await;
    check_new_life(&store, since).await;
    // The first one is as it was.
    let store = open(&server.url("")).await;
    assert_eq!(store.head(&partition("p")).await.unwrap().unwrap().position, since);
}

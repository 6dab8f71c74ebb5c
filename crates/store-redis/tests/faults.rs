//! Lost connections, lost hints, restarts, full memory: what was acknowledged is there, and
//! what is not known is told as such.
#![expect(clippy::unwrap_used, reason = "a test")]

mod support;

use std::{sync::Arc, time::Duration};
use store::{Check, Commit, Error, Fanout, Position, Store, Told, Topic, Write};
use store_redis::{RedisFanout, RedisStore};
use support::{STREAM, append, commit_at_last, id, key, open, options, partition, try_open};
use test_servers::{Appends, Redis, RedisCluster, RedisOptions};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
};

/// Passes bytes on to a server; from when it is told, it loses the server's answers, and then
/// the connection.
async fn losing_answers(server: u16) -> (u16, watch::Sender<bool>) {
    let (tell, told) = watch::channel(false);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = TcpStream::connect(("127.0.0.1", server)).await.unwrap();
            let (mut from_client, mut to_client) = client.into_split();
            let (mut from_server, mut to_server) = server.into_split();
            tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_server).await });
            let told = told.clone();
            tokio::spawn(async move {
                let mut bytes = [0; 4096];
                while let Ok(len @ 1..) = from_server.read(&mut bytes).await {
                    if *told.borrow() || to_client.write_all(&bytes[..len]).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    (port, tell)
}

#[tokio::test]
async fn a_lost_answer_is_unknown_and_a_retry_gets_the_first_reply() {
    let server = Redis::start(RedisOptions::default()).unwrap();
    let (port, lose) = losing_answers(server.port()).await;
    let near = open(&server.url()).await;
    let far = open(&format!("redis://127.0.0.1:{port}/")).await;
    let first = near.commit(append("p", "0")).await.unwrap();
    assert_eq!(far.head(&partition("p")).await.unwrap().unwrap().position, first.position);
    lose.send(true).unwrap();
    // Without an id it is not sent again by itself.
    let error = far.commit(append("p", "1")).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }), "{error}");
    let entries = near.read(&partition("p"), &STREAM, 1, 9).await.unwrap();
    assert_eq!(entries.len(), 2, "the answer was lost, not the commit");
    // With one, whoever retries gets what the first try got.
    let commit = append("p", "2").id(id(1));
    far.commit(commit.clone()).await.unwrap_err();
    lose.send(false).unwrap();
    let committed = commit_at_last(&*far, commit).await;
    assert_eq!((committed.sequences, committed.position.revision), (vec![3], 3));
    assert_eq!(near.read(&partition("p"), &STREAM, 1, 9).await.unwrap().len(), 3);
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_unknown_in_time() {
    let server = Redis::start(RedisOptions::default()).unwrap();
    let store = open(&server.url()).await;
    store.commit(append("p", "1")).await.unwrap();
    server.process().pause().unwrap();
    let started = std::time::Instant::now();
    let commit = append("p", "2").id(id(2));
    assert!(matches!(store.commit(commit.clone()).await, Err(Error::Unavailable { .. })));
    assert!(started.elapsed() < Duration::from_secs(3));
    server.process().resume().unwrap();
    assert_eq!(commit_at_last(&*store, commit).await.sequences, [2]);
}

#[tokio::test]
async fn scripts_are_given_again_to_a_server_that_forgot_them() {
    let server = Redis::start(RedisOptions::default()).unwrap();
    let store = open(&server.url()).await;
    let first = store.commit(append("p", "1")).await.unwrap();
    server.ask(&["SCRIPT", "FLUSH"]).unwrap();
    let second = store.commit(append("p", "2")).await.unwrap();
    assert_eq!(second.sequences, [2]);
    assert_eq!(second.position.incarnation, first.position.incarnation);
    server.ask(&["SCRIPT", "FLUSH"]).unwrap();
    assert_eq!(store.read(&partition("p"), &STREAM, 1, 9).await.unwrap().len(), 2);
}

/// Commits from several tasks until the server is killed, and answers what was acknowledged.
async fn write_until_killed(server: &mut Redis, store: &Arc<RedisStore>) -> Vec<(u64, String)> {
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..8 {
        let store = store.clone();
        tasks.spawn(async move {
            let mut told = Vec::new();
            for at in 0.. {
                let value = format!("{task}/{at}");
                match store.commit(append("p", &value)).await {
                    Ok(committed) => told.push((committed.sequences[0], value)),
                    Err(_) => return told,
                }
            }
            told
        });
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    server.kill().unwrap();
    tasks.join_all().await.concat()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_keeps_everything_that_was_acknowledged() {
    let mut server = Redis::start(RedisOptions::appending(Appends::Always)).unwrap();
    let url = format!("{}?survives=power-loss", server.url());
    let store = Arc::new(try_open(&url).await.unwrap());
    let first = store.commit(append("p", "first").check(Check::Fence(3))).await.unwrap();
    let told = write_until_killed(&mut server, &store).await;
    assert!(told.len() > 10, "{}", told.len());
    server.start_again().unwrap();
    let after = commit_at_last(&*store, append("p", "after")).await;
    let mut entries = Vec::new();
    loop {
        let from = entries.len() as u64 + 1;
        let page = store.read(&partition("p"), &STREAM, from, 1000).await.unwrap();
        if page.is_empty() {
            break;
        }
        entries.extend(page);
    }
    for (sequence, value) in told {
        assert_eq!(entries[sequence as usize - 1].value, value.as_bytes());
    }
    // Nothing may be missing, so whoever followed goes on.
    assert_eq!(after.position.incarnation, first.position.incarnation);
    store.changes(&partition("p"), first.position).await.unwrap();
    assert_eq!(store.head(&partition("p")).await.unwrap().unwrap().fence, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_that_may_have_lost_something_starts_a_new_incarnation() {
    let mut server = Redis::start(RedisOptions::appending(Appends::Written)).unwrap();
    let store = open(&server.url()).await;
    let p = partition("p");
    let first = store.commit(append("p", "1").check(Check::Fence(3))).await.unwrap().position;
    // What was written is there again after the end of the process; but the machine might as
    // well have lost its power, and nobody could tell.
    server.kill().unwrap();
    server.start_again().unwrap();
    let other = open(&server.url()).await;
    let error = other.changes(&p, first).await.unwrap_err();
    let Error::Lagged { position } = error else { panic!("{error}") };
    assert_ne!(position.incarnation, first.incarnation);
    assert_eq!(position.revision, first.revision);
    // Everybody who asks sees the same one, and a commit keeps it.
    let committed = commit_at_last(&*store, Commit::new(p.clone())).await;
    assert_eq!(committed.position, Position { revision: 2, ..position });
    assert_eq!(other.head(&p).await.unwrap().unwrap().position, committed.position);
    let fenced = other.commit(Commit::new(p.clone()).check(Check::Fence(2))).await;
    assert!(matches!(fenced, Err(Error::Fenced { stored: 3 })));
    // Sequences go on.
    assert_eq!(other.commit(append("p", "2")).await.unwrap().sequences, [2]);
}

#[tokio::test]
async fn a_promoted_replica_starts_a_new_incarnation() {
    let master = Redis::start(RedisOptions::appending(Appends::Always)).unwrap();
    let of = format!("127.0.0.1 {}", master.port());
    let options = RedisOptions::appending(Appends::Always).with(["--replicaof", &of]);
    let replica = Redis::start(options).unwrap();
    for _ in 0..200 {
        if replica.ask(&["INFO", "replication"]).unwrap().contains("master_link_status:up") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let first = open(&master.url()).await.commit(append("p", "1")).await.unwrap().position;
    let size = |server: &Redis| server.ask(&["DBSIZE"]).unwrap();
    for _ in 0..200 {
        if size(&replica) == size(&master) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    replica.ask(&["REPLICAOF", "NO", "ONE"]).unwrap();
    let store = open(&replica.url()).await;
    let error = store.changes(&partition("p"), first).await.unwrap_err();
    assert!(matches!(error, Error::Lagged { position } if position.revision == 1), "{error}");
    // The former master, made a replica, is no longer written to.
    let old = open(&master.url()).await;
    master.ask(&["REPLICAOF", "127.0.0.1", &replica.port().to_string()]).unwrap();
    let error = old.commit(append("p", "2")).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }), "{error}");
}

#[tokio::test]
async fn lost_hints_cost_time_and_no_data() {
    let server = Redis::start(RedisOptions::default()).unwrap();
    // This user may neither publish nor subscribe.
    let rule = ["ACL", "SETUSER", "quiet", "on", ">pw", "~*", "+@all", "resetchannels"];
    server.ask(&rule).unwrap();
    let url = format!("redis://quiet:pw@127.0.0.1:{}/", server.port());
    let (writer, reader) = (open(&url).await, open(&url).await);
    let p = partition("p");
    let mut watcher = store::watch(reader);
    watcher.follow(p.clone(), Position::ZERO);
    for at in 1..=5 {
        writer.commit(Commit::new(p.clone()).put(key("a"), at.to_string())).await.unwrap();
        let told = tokio::time::timeout(Duration::from_secs(5), watcher.next()).await.unwrap();
        assert_eq!(told.1.unwrap().position.revision, at);
    }
}

#[tokio::test]
async fn hints_arrive_at_other_nodes_and_come_back_after_a_lost_connection() {
    let server = Redis::start(RedisOptions::default()).unwrap();
    let slow = store_redis::Options { poll_every: Duration::from_secs(600), ..options() };
    let clock = clock::SystemClock::shared();
    let writer = open(&server.url()).await;
    let reader = Arc::new(RedisStore::open(&server.url(), slow, clock).await.unwrap());
    let p = partition("p");
    let mut watcher = store::watch(reader);
    watcher.follow(p.clone(), Position::ZERO);
    for at in 1..=20 {
        if at % 5 == 0 {
            server.ask(&["CLIENT", "KILL", "TYPE", "pubsub"]).unwrap();
        }
        writer.commit(Commit::new(p.clone()).put(key("a"), at.to_string())).await.unwrap();
        let told = tokio::time::timeout(Duration::from_secs(5), watcher.next()).await.unwrap();
        assert_eq!(told.1.unwrap().position.revision, at);
    }
}

#[tokio::test]
async fn a_lost_connection_is_told_to_subscriptions() {
    let server = Redis::start(RedisOptions::default()).unwrap();
    let url = server.url();
    let open = || RedisFanout::open(&url, options(), clock::SystemClock::shared());
    let (one, other) = (open().await.unwrap(), open().await.unwrap());
    let topic = Topic::from(partition("p"));
    let mut here = one.subscribe(std::slice::from_ref(&topic)).await.unwrap();
    other.publish(&topic, "1".into()).await.unwrap();
    assert!(matches!(here.next().await, Told::Message { message, .. } if message == "1"));
    server.ask(&["CLIENT", "KILL", "TYPE", "pubsub"]).unwrap();
    assert_eq!(here.next().await, Told::MayHaveMissed);
    // Once more, when it listens again.
    assert_eq!(here.next().await, Told::MayHaveMissed);
    other.publish(&topic, "2".into()).await.unwrap();
    assert!(matches!(here.next().await, Told::Message { message, .. } if message == "2"));
}

#[tokio::test]
async fn a_full_server_refuses_what_grows_and_takes_what_frees() {
    let server = Redis::start(RedisOptions::default()).unwrap();
    let store = open(&server.url()).await;
    let p = partition("p");
    let large = || vec![1; 200_000];
    let before = store.commit(Commit::new(p.clone()).put(key("a"), large())).await.unwrap();
    server.ask(&["CONFIG", "SET", "maxmemory", "1mb"]).unwrap();
    let error = store.commit(Commit::new(p.clone()).put(key("b"), large())).await.unwrap_err();
    assert!(matches!(error, Error::Full { .. }), "{error}");
    let error = store.commit(append("new", "1")).await.unwrap_err();
    assert!(matches!(error, Error::Full { .. }), "{error}");
    assert_eq!(store.head(&p).await.unwrap().unwrap().position, before.position);
    let delete = Commit::new(p.clone()).write(Write::Delete { key: key("a") });
    assert_eq!(store.commit(delete).await.unwrap().position.revision, 2);
    server.ask(&["CONFIG", "SET", "maxmemory", "0"]).unwrap();
    store.commit(Commit::new(p).put(key("b"), large())).await.unwrap();
}

#[tokio::test]
async fn a_server_without_its_replicas_is_read_and_takes_no_writes() {
    let server = Redis::start(RedisOptions::default()).unwrap();
    let store = open(&server.url()).await;
    let before = store.commit(append("p", "1")).await.unwrap();
    server.ask(&["CONFIG", "SET", "min-replicas-to-write", "1"]).unwrap();
    let error = store.commit(append("p", "2")).await.unwrap_err();
    assert!(matches!(error, Error::ReadOnly { .. }), "{error}");
    assert_eq!(store.head(&partition("p")).await.unwrap().unwrap().position, before.position);
    server.ask(&["CONFIG", "SET", "min-replicas-to-write", "0"]).unwrap();
    assert_eq!(store.commit(append("p", "2")).await.unwrap().sequences, [2]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_is_followed_while_slots_move() {
    let cluster = RedisCluster::start(RedisOptions::default()).unwrap();
    let store = open(&cluster.url()).await;
    let ids: Vec<String> = (0..200).map(|at| at.to_string()).collect();
    for id in &ids {
        store.commit(append(id, "1")).await.unwrap();
    }
    let ports = cluster.nodes().each_ref().map(Redis::port);
    let names: Vec<String> =
        cluster.nodes().iter().map(|node| node.ask(&["CLUSTER", "MYID"]).unwrap()).collect();
    let (from, to) = (names[0].clone(), names[1].clone());
    let moving = tokio::task::spawn_blocking(move || {
        let to_whom = format!("127.0.0.1:{}", ports[0]);
        let how = ["--cluster-from", &from, "--cluster-to", &to, "--cluster-slots", "2000"];
        let mut command = std::process::Command::new("redis-cli");
        command.args(["--cluster", "reshard", &to_whom]).args(how).arg("--cluster-yes");
        command.output().unwrap()
    });
    let mut round = 1;
    while round < 4 || !moving.is_finished() {
        round += 1;
        for (at, id) in ids.iter().enumerate() {
            let commit = append(id, "more").id(store::CommitId([round as u8 ^ at as u8; 16]));
            let committed = commit_at_last(&*store, commit).await;
            assert_eq!(committed.sequences, [round], "{id}");
        }
    }
    let done = moving.await.unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stdout));
    for id in &ids {
        let entries = store.read(&partition(id), &STREAM, 1, 1000).await.unwrap();
        assert!(entries.iter().map(|entry| entry.sequence).eq(1..=round));
    }
}

//! Many tasks at once.

use crate::{Harness, harness::*};
use std::{
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
};
use store::{Check, Commit, CommitId, Error, Position};
use tokio::task::JoinSet;

/// Commits of a partition are linearizable: 64 tasks that increment a counter by
/// compare-and-set count exactly.
pub async fn compare_and_set_loses_no_increment(h: Harness) {
    const TASKS: u64 = 64;
    const EACH: u64 = 8;
    let p = partition("p");
    let mut tasks = JoinSet::new();
    for task in 0..TASKS {
        let (store, p) = (h.shared(), p.clone());
        tasks.spawn(async move {
            let mut done = 0;
            while done < EACH {
                let record = store.get(&p, &key("sum")).await.unwrap();
                let (sum, check) = match record {
                    None => (0, Check::Absent { key: key("sum") }),
                    Some(record) => {
                        let sum = std::str::from_utf8(&record.value).unwrap().parse().unwrap();
                        let revision = record.revision;
                        (sum, Check::Revision { key: key("sum"), revision })
                    }
                };
                let add: u64 = if task % 2 == 0 { 1 } else { 1000 };
                match store.commit(put(&p, "sum", &(sum + add).to_string()).check(check)).await {
                    Ok(_) => done += 1,
                    Err(Error::Conflict { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        });
    }
    tasks.join_all().await;
    let wanted = TASKS / 2 * EACH * 1001;
    assert_eq!(h.value(&p, "sum").await, Some(wanted.to_string()));
    assert_eq!(h.position(&p).await.revision, TASKS * EACH);
}

/// Appends of many tasks give each sequence once, and the stream holds what each was told.
pub async fn appends_of_many_tasks_are_dense(h: Harness) {
    let p = partition("p");
    let mut tasks = JoinSet::new();
    for task in 0..32 {
        let (store, p) = (h.shared(), p.clone());
        tasks.spawn(async move {
            let mut told = Vec::new();
            for at in 0..20 {
                let value = format!("{task}/{at}");
                let committed = store.commit(append(&p, &value)).await.unwrap();
                told.push((committed.sequences[0], committed.position.revision, value));
            }
            assert!(told.is_sorted(), "a task's own commits are in order");
            told
        });
    }
    let mut told: Vec<_> = tasks.join_all().await.concat();
    told.sort();
    let stored: Vec<_> = h
        .entries(&p, &STREAM, 1, 100)
        .await
        .into_iter()
        .map(|e| (e.sequence, e.revision, String::from_utf8(e.value.to_vec()).unwrap()))
        .collect();
    assert_eq!(stored, told);
    assert!(stored.iter().map(|(sequence, ..)| *sequence).eq(1..=640));
}

/// No read sees a part of a commit.
pub async fn a_commit_is_seen_whole_or_not_at_all(h: Harness) {
    let p = partition("p");
    let names = ["a", "b", "c"];
    let commit_of = |at: u64| {
        let commit = Commit::new(p.clone()).append(STREAM, at.to_string());
        names.iter().fold(commit, |commit, name| commit.put(key(name), at.to_string()))
    };
    h.commit(commit_of(1)).await;
    let done = Arc::new(AtomicBool::new(false));
    let mut readers = JoinSet::new();
    for _ in 0..3 {
        let (store, p, done) = (h.shared(), p.clone(), done.clone());
        readers.spawn(async move {
            let mut last = 0;
            while !done.load(Ordering::Relaxed) {
                let page = store.scan(&p, b"", None, 9).await.unwrap();
                let revision = page.position.revision;
                assert!(revision >= last, "reads went back");
                last = revision;
                assert_eq!(page.records.len(), 3);
                for (_, record) in &page.records {
                    let same = std::str::from_utf8(&record.value).unwrap() == revision.to_string();
                    assert!(same && record.revision == revision, "half a commit at {revision}");
                }
                let changes = store.changes(&p, Position::ZERO).await.unwrap();
                let (head, revision) = (&changes.streams[0], changes.position.revision);
                assert_eq!(head.last, revision);
                assert!(changes.keys.iter().all(|change| change.revision == revision));
                tokio::task::yield_now().await;
            }
        });
    }
    for at in 2..150 {
        h.commit(commit_of(at)).await;
    }
    done.store(true, Ordering::Relaxed);
    readers.join_all().await;
}

/// Dropping the future of a commit does not take it back: it is whole or it never was, and
/// the partition goes on.
pub async fn a_dropped_commit_is_whole_or_nothing(h: Harness) {
    let p = partition("p");
    for at in 0..50 {
        let commit = put(&p, &format!("a{at}"), "1").put(key(&format!("b{at}")), "1");
        let store = h.shared();
        let mut future = store.commit(commit);
        // Polled once and dropped.
        poll_fn(|context| {
            let _ = future.as_mut().poll(context);
            Poll::Ready(())
        })
        .await;
    }
    h.commit(put(&p, "last", "1")).await;
    let records = h.scan(&p, b"", 1000).await;
    let count = |start| records.iter().filter(|(key, _)| key.as_bytes()[0] == start).count();
    assert_eq!(count(b'a'), count(b'b'));
    assert_eq!(h.position(&p).await.revision, count(b'a') as u64 + 1);
}

/// Of many that demand absence, one wins.
pub async fn one_of_many_wins_absence(h: Harness) {
    for round in 0..10 {
        let p = partition(&round.to_string());
        let mut tasks = JoinSet::new();
        for task in 0..32 {
            let (store, p) = (h.shared(), p.clone());
            let check = if round % 2 == 0 {
                Check::Absent { key: key("holder") }
            } else {
                Check::Position(Position::ZERO)
            };
            tasks.spawn(async move {
                store.commit(put(&p, "holder", &task.to_string()).check(check)).await.is_ok()
            });
        }
        let won = tasks.join_all().await.into_iter().filter(|won| *won).count();
        assert_eq!((won, h.position(&p).await.revision), (1, 1));
    }
}

/// The same commit sent many times at once is applied once, and all get its reply.
pub async fn retries_at_once_apply_once(h: Harness) {
    let p = partition("p");
    let commit = append(&p, "once").id(CommitId([9; 16]));
    let mut tasks = JoinSet::new();
    for _ in 0..32 {
        let (store, commit) = (h.shared(), commit.clone());
        tasks.spawn(async move { store.commit(commit).await.unwrap() });
    }
    let replies = tasks.join_all().await;
    assert!(replies.iter().all(|reply| *reply == replies[0]));
    assert_eq!(h.entries(&p, &STREAM, 1, 9).await.len(), 1);
    assert_eq!(h.position(&p).await.revision, 1);
}

/// Once any task was told of a commit, every task's reads see it.
pub async fn a_read_after_a_commit_never_goes_back(h: Harness) {
    let p = partition("p");
    let (told, mut tell) = tokio::sync::watch::channel(0_u64);
    let (store, q) = (h.shared(), p.clone());
    let reader = tokio::spawn(async move {
        while tell.changed().await.is_ok() {
            let floor = *tell.borrow_and_update();
            let head = store.head(&q).await.unwrap().expect("it exists");
            assert!(head.position.revision >= floor, "a finished commit is not seen");
        }
    });
    for _ in 0..200 {
        let committed = h.commit(put(&p, "a", "1")).await;
        told.send(committed.position.revision).unwrap();
    }
    drop(told);
    reader.await.unwrap();
}

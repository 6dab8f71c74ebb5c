//! Changes and watchers.

use crate::{Harness, harness::*};
use std::time::Duration;
use store::{Change, Commit, Error, Incarnation, Partition, Position};

async fn told(h: &Harness, p: &Partition, since: Position) -> Vec<(String, u64, Option<String>)> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let tell = |Change { key, revision, value }| {
        (text(key.as_bytes()), revision, value.map(|value| text(&value)))
    };
    h.store().changes(p, since).await.unwrap().keys.into_iter().map(tell).collect()
}

fn change(name: &str, revision: u64, value: Option<&str>) -> (String, u64, Option<String>) {
    (name.to_owned(), revision, value.map(ToOwned::to_owned))
}

/// Changes come in the order of their revisions, from each position on.
pub async fn changes_come_in_revision_order(h: Harness) {
    let p = partition("p");
    let mut positions = vec![Position::ZERO];
    for name in ["c", "a", "b", "e", "d"] {
        positions.push(h.commit(put(&p, name, "1")).await.position);
    }
    for (at, since) in positions.iter().enumerate() {
        let keys = told(&h, &p, *since).await;
        let names: String = keys.iter().map(|(name, ..)| name.as_str()).collect();
        assert_eq!(names, "cabed"[at..]);
        assert!(keys.is_sorted_by_key(|(_, revision, _)| *revision));
        assert!(keys.iter().all(|(_, revision, _)| *revision > since.revision));
    }
    let answer = h.store().changes(&p, positions[1]).await.unwrap();
    assert_eq!(answer.position, positions[5]);
}

/// Each changed key is told once, with its latest value.
pub async fn a_key_is_told_once_with_its_latest_value(h: Harness) {
    let p = partition("p");
    let start = h.commit(put(&p, "a", "1")).await.position;
    h.commit(put(&p, "b", "2")).await;
    h.commit(put(&p, "a", "3")).await;
    h.commit(delete(&p, "b")).await;
    h.commit(put(&p, "b", "5").put(key("c"), "5")).await;
    let wanted = [change("a", 3, Some("3")), change("b", 5, Some("5")), change("c", 5, Some("5"))];
    assert_eq!(told(&h, &p, start).await, wanted);
    assert_eq!(told(&h, &p, Position { revision: 3, ..start }).await, wanted[1..]);
}

/// A deletion is told, in its place.
pub async fn a_deletion_is_told(h: Harness) {
    let p = partition("p");
    h.commit(put(&p, "a", "1")).await;
    let start = h.commit(put(&p, "b", "2")).await.position;
    h.commit(delete(&p, "a")).await;
    let after = h.commit(put(&p, "b", "4")).await.position;
    let wanted = [change("a", 3, None), change("b", 4, Some("4"))];
    assert_eq!(told(&h, &p, start).await, wanted);
    assert_eq!(told(&h, &p, after).await, []);
    // Put and deleted again by one commit: there is nothing to tell.
    h.commit(put(&p, "x", "1").write(store::Write::Delete { key: key("x") })).await;
    assert_eq!(told(&h, &p, after).await, []);
}

/// [`Position::ZERO`] asks from the beginning, and never lags.
pub async fn changes_from_zero_are_everything(h: Harness) {
    let p = partition("p");
    h.commit(put(&p, "a", "1").put(key("b"), "1")).await;
    h.commit(delete(&p, "a")).await;
    let live = |keys: Vec<(String, u64, Option<String>)>| {
        keys.into_iter().filter(|(.., value)| value.is_some()).collect::<Vec<_>>()
    };
    assert_eq!(live(told(&h, &p, Position::ZERO).await), [change("b", 1, Some("1"))]);
    if h.passed(Duration::from_secs(700)).await {
        h.commit(put(&p, "c", "3")).await;
        let keys = live(told(&h, &p, Position::ZERO).await);
        assert_eq!(keys, [change("b", 1, Some("1")), change("c", 3, Some("3"))]);
    }
}

/// A position of another incarnation, or that never was, has lagged.
pub async fn another_incarnation_has_lagged(h: Harness) {
    let p = partition("p");
    let at = h.commit(put(&p, "a", "1")).await.position;
    let other = Incarnation(at.incarnation.0 ^ 1);
    for since in [
        Position { incarnation: other, ..at },
        Position { incarnation: other, revision: 0 },
        Position { revision: 2, ..at },
    ] {
        let error = h.store().changes(&p, since).await.unwrap_err();
        assert!(matches!(error, Error::Lagged { position } if position == at), "{since:?}");
    }
    let error = h.store().changes(&partition("none"), at).await.unwrap_err();
    assert!(matches!(error, Error::Lagged { position: Position::ZERO }));
    assert_eq!(told(&h, &p, Position { revision: 0, ..at }).await.len(), 1);
}

/// Deletions are known for ten minutes; a position before one that was forgotten has lagged,
/// one after it has not.
pub async fn deletions_are_known_for_ten_minutes(h: Harness) {
    let p = partition("p");
    let start = h.commit(put(&p, "a", "1").put(key("b"), "1")).await.position;
    let after = h.commit(delete(&p, "a")).await.position;
    if !h.passed(Duration::from_secs(599)).await {
        return;
    }
    assert_eq!(told(&h, &p, start).await, [change("a", 2, None)]);
    h.passed(Duration::from_secs(1)).await;
    for round in 0..3 {
        // Now, after another commit, and after a sweep.
        assert!(matches!(h.store().changes(&p, start).await, Err(Error::Lagged { .. })), "{round}");
        assert_eq!(told(&h, &p, after).await.len(), usize::from(round > 0));
        match round {
            0 => drop(h.commit(put(&p, "b", "2")).await),
            _ => drop(h.sweep(p.bucket()).await),
        }
    }
    // A deletion after which the key was put again need not be known.
    let start = h.position(&p).await;
    h.commit(delete(&p, "b")).await;
    h.commit(put(&p, "b", "3")).await;
    h.passed(Duration::from_secs(700)).await;
    assert_eq!(told(&h, &p, start).await, [change("b", 5, Some("3"))]);
}

/// Changes tell the streams' heads.
pub async fn stream_heads_are_told(h: Harness) {
    let p = partition("p");
    let first = h.commit(append(&p, "1").append(OTHER, "1").append(STREAM, "2")).await.position;
    h.commit(trim(&p, 2)).await;
    let changes = h.store().changes(&p, first).await.unwrap();
    assert!(changes.keys.is_empty());
    let heads: Vec<_> = changes.streams.iter().map(|head| (head.first, head.last)).collect();
    assert_eq!(heads, [(1, 1), (2, 2)]);
    assert_eq!(changes.streams, h.head(&p).await.unwrap().streams);
}

/// A watcher is woken by commits, and tells each followed partition's changes.
pub async fn a_watcher_is_woken(h: Harness) {
    let all: Vec<_> = (0..5).map(|id| partition(&id.to_string())).collect();
    let mut watcher = store::watch(h.shared());
    for p in &all {
        watcher.follow(p.clone(), Position::ZERO);
    }
    let (store, writers) = (h.shared(), all.clone());
    let writer = tokio::spawn(async move {
        for at in 0..40 {
            for p in &writers {
                store.commit(put(p, "a", &at.to_string())).await.unwrap();
            }
            tokio::task::yield_now().await;
        }
    });
    let mut left = all.len();
    let mut last = std::collections::HashMap::new();
    while left > 0 {
        let (p, changes) = watcher.next().await;
        let changes = changes.unwrap();
        let before = last.insert(p, changes.position.revision).unwrap_or(0);
        assert!(changes.position.revision > before, "told twice, or backwards");
        assert_eq!(changes.keys.len(), 1);
        left -= usize::from(changes.position.revision == 40);
    }
    writer.await.unwrap();
}

/// A watcher tells only what it follows, and nothing after it has left.
pub async fn a_watcher_tells_only_what_it_follows(h: Harness) {
    let (p, q) = (partition("p"), partition("q"));
    let mut watcher = store::watch(h.shared());
    watcher.follow(p.clone(), Position::ZERO);
    h.commit(put(&q, "a", "1")).await;
    h.commit(put(&p, "a", "1")).await;
    let (who, changes) = watcher.next().await;
    assert_eq!((who, changes.unwrap().position.revision), (p.clone(), 1));
    h.commit(put(&p, "a", "2")).await;
    watcher.leave(&p);
    let at = h.position(&q).await;
    watcher.follow(q.clone(), at);
    h.commit(put(&p, "a", "3")).await;
    h.commit(put(&q, "b", "2")).await;
    let (who, changes) = watcher.next().await;
    assert_eq!(who, q);
    assert_eq!(changes.unwrap().keys.len(), 1);
}

/// Dropping a wait loses nothing.
pub async fn a_dropped_wait_loses_nothing(h: Harness) {
    let p = partition("p");
    let mut watcher = store::watch(h.shared());
    watcher.follow(p.clone(), Position::ZERO);
    let (store, q) = (h.shared(), p.clone());
    let writer = tokio::spawn(async move {
        for at in 0..100 {
            store.commit(put(&q, &at.to_string(), "1")).await.unwrap();
        }
    });
    let mut seen = std::collections::BTreeSet::new();
    let mut tries = 0;
    while seen.len() < 100 {
        // Often too short a time, so that the wait is dropped somewhere within; 50 µs to 0.4 s.
        let patience = Duration::from_micros(50 << (tries % 14));
        tries += 1;
        let wait = tokio::time::timeout(patience, watcher.next());
        if let Ok((_, changes)) = wait.await {
            seen.extend(changes.unwrap().keys.into_iter().map(|change| change.revision));
        }
    }
    assert!(seen.into_iter().eq(1..=100));
    writer.await.unwrap();
}

/// After [`Error::Lagged`] a partition is no longer followed, until it is followed again.
pub async fn a_lagged_watcher_stops_following(h: Harness) {
    let (p, q) = (partition("p"), partition("q"));
    let at = h.commit(put(&p, "a", "1")).await.position;
    let lost = Position { incarnation: Incarnation(at.incarnation.0 ^ 1), ..at };
    let mut watcher = store::watch(h.shared());
    watcher.follow(p.clone(), lost);
    let (who, answer) = watcher.next().await;
    assert!(who == p && matches!(answer, Err(Error::Lagged { position }) if position == at));
    watcher.follow(q.clone(), Position::ZERO);
    h.commit(put(&p, "a", "2")).await;
    h.commit(put(&q, "a", "1")).await;
    assert_eq!(watcher.next().await.0, q);
    watcher.follow(p.clone(), at);
    let (who, answer) = watcher.next().await;
    assert_eq!((who, answer.unwrap().position.revision), (p, 2));
}

/// Of a partition that is not there, the changes are none.
pub async fn changes_of_nothing_are_nothing(h: Harness) {
    let p = partition("p");
    let changes = h.store().changes(&p, Position::ZERO).await.unwrap();
    assert_eq!((changes.position, changes.keys, changes.streams), (Position::ZERO, vec![], vec![]));
    h.commit(Commit::new(p.clone())).await;
    let changes = h.store().changes(&p, Position::ZERO).await.unwrap();
    assert_eq!((changes.position.revision, changes.keys), (1, vec![]));
}

//! Commits: order, revisions, beginnings.

use crate::{Harness, harness::*};
use store::{Commit, Incarnation, Partition, Position, Write};

/// Each commit raises the partition's revision by one, within one incarnation.
pub async fn each_commit_raises_the_revision_by_one(h: Harness) {
    let p = partition("p");
    let first = h.commit(put(&p, "a", "1")).await.position;
    assert_eq!(first.revision, 1);
    for revision in 2..20 {
        let position = h.commit(put(&p, "a", "1")).await.position;
        assert_eq!(position, Position { revision, ..first });
        assert_eq!(h.position(&p).await, position);
    }
    let other = h.commit(put(&partition("q"), "a", "1")).await.position;
    assert_eq!(other.revision, 1, "partitions count apart");
}

/// The writes of a commit are applied in order.
pub async fn writes_apply_in_order(h: Harness) {
    let p = partition("p");
    let drop = |name| Write::Delete { key: key(name) };
    let commit = put(&p, "a", "1").put(key("a"), "2").write(drop("a")).put(key("a"), "3");
    h.commit(commit.put(key("b"), "1").write(drop("b"))).await;
    assert_eq!(h.value(&p, "a").await.as_deref(), Some("3"));
    assert_eq!(h.value(&p, "b").await, None);
    assert_eq!(h.get(&p, "a").await.unwrap().revision, 1);
    let committed = h.commit(put(&p, "a", "4").write(drop("a"))).await;
    assert_eq!(h.value(&p, "a").await, None);
    let commit = Commit::new(p.clone()).append(STREAM, "1").append(OTHER, "1").append(STREAM, "2");
    assert_eq!(h.commit(commit).await.sequences, [1, 1, 2]);
    assert_eq!(committed.position.revision, 2);
}

/// A commit without writes counts.
pub async fn an_empty_commit_counts(h: Harness) {
    let p = partition("p");
    let first = h.commit(Commit::new(p.clone())).await;
    assert_eq!((first.position.revision, first.sequences), (1, vec![]));
    assert_eq!(h.commit(Commit::new(p.clone())).await.position.revision, 2);
    assert_eq!(h.head(&p).await.unwrap().position.revision, 2);
}

/// A partition starts an incarnation of its own, never zero.
pub async fn a_partition_starts_an_incarnation(h: Harness) {
    let mut seen = std::collections::HashSet::new();
    for id in 0..50 {
        let p = partition(&id.to_string());
        assert_eq!(h.head(&p).await, None);
        let position = h.commit(Commit::new(p)).await.position;
        assert_ne!(position.incarnation, Incarnation(0));
        assert!(seen.insert(position.incarnation), "an incarnation came twice");
    }
}

async fn check_seen(h: &Harness, p: &Partition, make: fn(Commit) -> Commit) {
    for at in 1..30_u64 {
        let commit = put(p, "a", &at.to_string()).append(STREAM, at.to_string());
        let position = h.commit(make(commit)).await.position;
        assert_eq!(h.value(p, "a").await, Some(at.to_string()));
        assert_eq!(h.position(p).await, position);
        let page = h.store().scan(p, b"", None, 9).await.unwrap();
        assert_eq!((page.position, page.records[0].1.revision), (position, at));
        assert_eq!(h.store().read(p, &STREAM, at, 9).await.unwrap()[0].revision, at);
        let changes = h.store().changes(p, Position::ZERO).await.unwrap();
        assert_eq!((changes.position, changes.keys[0].revision), (position, at));
    }
}

/// A finished commit is seen by every later read, of every kind.
pub async fn a_finished_commit_is_seen_by_every_read(h: Harness) {
    check_seen(&h, &partition("p"), |commit| commit).await;
}

/// So is one that was acknowledged once applied.
pub async fn an_applied_commit_is_seen_by_every_read(h: Harness) {
    check_seen(&h, &partition("p"), Commit::applied).await;
}

/// [`Write::Begin`] starts a partition where it was elsewhere; the commit counts on top.
pub async fn a_partition_that_moved_begins_where_it_was(h: Harness) {
    let p = partition("p");
    let position = Position { incarnation: Incarnation(77), revision: 41 };
    let begin = Write::Begin { position, heads: vec![(STREAM, 9), (OTHER, 0)] };
    let commit = Commit::new(p.clone()).write(begin).put(key("a"), "1").append(STREAM, "ten");
    let committed = h.commit(commit).await;
    let now = Position { revision: 42, ..position };
    assert_eq!((committed.position, committed.sequences), (now, vec![10]));
    assert_eq!(h.get(&p, "a").await.unwrap().revision, 42);
    assert_eq!(h.commit(append(&p, "eleven")).await.sequences, [11]);
    let entries = h.entries(&p, &STREAM, 10, 9).await;
    assert_eq!(entries.iter().map(|entry| entry.sequence).collect::<Vec<_>>(), [10, 11]);
    let error = h.store().read(&p, &STREAM, 9, 9).await.unwrap_err();
    assert!(matches!(error, store::Error::Trimmed { first: 10 }));
    assert_eq!(h.commit(Commit::new(p.clone()).append(OTHER, "one")).await.sequences, [1]);
    // Who stood there goes on; what came before is not known here.
    assert_eq!(h.store().changes(&p, position).await.unwrap().keys.len(), 1);
    let before = Position { revision: 40, ..position };
    assert!(matches!(h.store().changes(&p, before).await, Err(store::Error::Lagged { .. })));
}

/// [`Write::Begin`] is refused if the partition exists, and anywhere but first.
pub async fn begin_is_refused_where_it_cannot_be(h: Harness) {
    let (p, q) = (partition("p"), partition("q"));
    let position = Position { incarnation: Incarnation(77), revision: 41 };
    let begin = || Write::Begin { position, heads: vec![] };
    h.commit(put(&p, "a", "1")).await;
    let before = h.view(&p).await;
    assert!(is_conflict(&h.refused(Commit::new(p.clone()).write(begin())).await));
    assert_eq!(h.view(&p).await, before);
    assert!(is_conflict(&h.refused(put(&q, "a", "1").write(begin())).await));
    assert_eq!(h.head(&q).await, None);
    h.commit(Commit::new(q.clone()).write(begin())).await;
    assert!(is_conflict(&h.refused(Commit::new(q).write(begin())).await));
}

/// Deleting a record that is not there is no error and no change of it.
pub async fn an_absent_record_can_be_deleted(h: Harness) {
    let p = partition("p");
    let committed = h.commit(delete(&p, "a")).await;
    assert_eq!(committed.position.revision, 1);
    assert!(h.store().changes(&p, Position::ZERO).await.unwrap().keys.is_empty());
}

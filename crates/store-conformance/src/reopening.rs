//! What is there after the store was closed and opened again.

use crate::{Harness, harness::*};
use std::time::Duration;
use store::{Check, Commit, CommitId, Error, Position, Write};

/// Everything acknowledged is there, at the same positions.
pub async fn everything_is_there_after_reopening(mut h: Harness) {
    let mut before = Vec::new();
    for id in 0..30 {
        let p = partition(&id.to_string());
        h.commit(put(&p, "a", "1").put(key("b"), "2").append(STREAM, "one")).await;
        h.commit(delete(&p, "b").write(Write::Wake(Some(Duration::ZERO)))).await;
        before.push((p.clone(), h.view(&p).await, h.entries(&p, &STREAM, 1, 9).await));
    }
    if !h.reopened() {
        return;
    }
    for (p, view, entries) in before {
        assert_eq!(h.view(&p).await, view, "{p}");
        assert_eq!(h.entries(&p, &STREAM, 1, 9).await, entries, "{p}");
        assert!(h.store().due(p.bucket(), 9).await.unwrap().contains(&p));
        // Where a follower stood before, it goes on.
        let since = h.position(&p).await;
        h.commit(put(&p, "c", "3")).await;
        assert_eq!(h.store().changes(&p, since).await.unwrap().keys.len(), 1);
    }
    assert_eq!(
        h.store().list(&tenant("tenant"), &KIND, None, 99).await.unwrap().partitions.len(),
        30
    );
}

/// Sequences and revisions go on where they were, also after a trim of everything.
pub async fn streams_go_on_after_reopening(mut h: Harness) {
    let p = partition("p");
    for round in 0..4_u64 {
        for at in 1..=3 {
            let committed = h.commit(append(&p, "x")).await;
            assert_eq!(committed.sequences, [round * 3 + at]);
        }
        h.commit(trim(&p, if round % 2 == 0 { u64::MAX } else { 0 })).await;
        if !h.reopened() {
            return;
        }
        assert_eq!(h.position(&p).await.revision, (round + 1) * 4);
    }
    // The last trim of everything came after nine entries; the next one, of nothing, after twelve.
    assert!(matches!(h.store().read(&p, &STREAM, 9, 9).await, Err(Error::Trimmed { first: 10 })));
    assert_eq!(h.entries(&p, &STREAM, 10, 9).await.len(), 3);
}

/// Ids and fences are known.
pub async fn ids_and_fences_are_known_after_reopening(mut h: Harness) {
    let p = partition("p");
    let commit = append(&p, "one").check(Check::Fence(6)).id(CommitId([5; 16]));
    let first = h.commit(commit.clone()).await;
    if !h.reopened() {
        return;
    }
    assert_eq!(h.commit(commit).await, first);
    assert!(matches!(h.refused(fenced(&p, 5)).await, Error::Fenced { stored: 6 }));
    let other = Commit::new(p).id(CommitId([5; 16]));
    assert!(matches!(h.refused(other).await, Error::IdReused));
}

/// What was to expire expires; what was to be told as deleted is told.
pub async fn expiry_goes_on_over_reopening(mut h: Harness) {
    let p = partition("p");
    h.commit(expiring(&p, "goes", Duration::from_secs(4))).await;
    h.commit(expiring(&p, "later", Duration::from_secs(400))).await;
    let since = h.position(&p).await;
    assert!(h.passed(Duration::from_secs(2)).await);
    if !h.reopened() {
        return;
    }
    assert!(h.get(&p, "goes").await.is_some());
    assert!(h.passed(Duration::from_secs(2)).await);
    assert!(h.get(&p, "goes").await.is_none());
    assert!(h.get(&p, "later").await.is_some());
    assert_eq!(h.sweep(p.bucket()).await, 1);
    assert!(h.reopened());
    let told = h.store().changes(&p, since).await.unwrap();
    assert_eq!((told.keys.len(), &told.keys[0].value), (1, &None));
    assert_ne!(told.position, Position::ZERO);
}

//! Streams: dense, trimmed, read by pages.

use crate::{Harness, harness::*};
use store::{Commit, Error, StreamHead, Write, bounds};

/// Sequences count from 1 without a gap, and entries come back in order with their commit.
pub async fn sequences_are_dense_from_one(h: Harness) {
    let p = partition("p");
    assert!(h.entries(&p, &STREAM, 1, 9).await.is_empty());
    let mut next = 1;
    for revision in 1..20 {
        let commit = (0..revision % 4).fold(put(&p, "a", "1"), |commit, at| {
            commit.append(STREAM, format!("{revision}/{at}"))
        });
        let committed = h.commit(commit).await;
        let wanted: Vec<u64> = (next..next + revision % 4).collect();
        assert_eq!(committed.sequences, wanted);
        next += revision % 4;
    }
    for limit in [1, 3, 100] {
        let entries = h.entries(&p, &STREAM, 1, limit).await;
        assert!(entries.iter().map(|entry| entry.sequence).eq(1..next));
        for entry in entries {
            let text = String::from_utf8(entry.value.to_vec()).unwrap();
            assert!(text.starts_with(&format!("{}/", entry.revision)));
        }
    }
    assert!(h.store().read(&p, &STREAM, next, 9).await.unwrap().is_empty());
    assert!(h.store().read(&p, &STREAM, next + 50, 9).await.unwrap().is_empty());
    assert_eq!(h.entries(&p, &STREAM, 5, 9).await[0].sequence, 5);
}

/// A read is bounded by its limit and 1 MiB, and holds at least one entry.
pub async fn a_read_is_bounded_by_its_limit_and_one_mib(h: Harness) {
    let p = partition("p");
    for _ in 0..6 {
        let commit = Commit::new(p.clone());
        h.commit(commit.append(STREAM, vec![1; bounds::VALUE_BYTES_MAX])).await;
    }
    let page = h.store().read(&p, &STREAM, 1, 9).await.unwrap();
    let size: usize = page.iter().map(|entry| entry.value.len()).sum();
    assert!(!page.is_empty() && size <= bounds::PAGE_BYTES_MAX, "{size}");
    assert_eq!(h.store().read(&p, &STREAM, 1, 2).await.unwrap().len(), 2);
    assert_eq!(h.entries(&p, &STREAM, 1, 9).await.len(), 6);
}

async fn head_of(h: &Harness, p: &store::Partition) -> (u64, u64) {
    let head = h.head(p).await.unwrap();
    let of = head.streams.into_iter().find(|head| head.stream == STREAM);
    of.map_or((1, 0), |StreamHead { first, last, .. }| (first, last))
}

/// Below a trim a read answers [`Error::Trimmed`] with the first entry that is left.
pub async fn below_a_trim_a_read_says_so(h: Harness) {
    let p = partition("p");
    for at in 1..=10 {
        h.commit(append(&p, &at.to_string())).await;
    }
    h.commit(trim(&p, 4)).await;
    assert_eq!(head_of(&h, &p).await, (4, 10));
    for from in 1..4 {
        let error = h.store().read(&p, &STREAM, from, 9).await.unwrap_err();
        assert!(matches!(error, Error::Trimmed { first: 4 }), "{error}");
    }
    let left = h.entries(&p, &STREAM, 4, 2).await;
    assert!(left.iter().map(|entry| entry.sequence).eq(4..=10));
    assert_eq!(h.commit(append(&p, "next")).await.sequences, [11]);
}

/// A trim beyond the end removes all; the sequence goes on.
pub async fn a_trim_beyond_the_end_removes_all(h: Harness) {
    let p = partition("p");
    h.commit(append(&p, "1").append(STREAM, "2")).await;
    h.commit(trim(&p, 1000)).await;
    assert_eq!(head_of(&h, &p).await, (3, 2));
    assert!(h.store().read(&p, &STREAM, 3, 9).await.unwrap().is_empty());
    assert!(matches!(h.store().read(&p, &STREAM, 2, 9).await, Err(Error::Trimmed { first: 3 })));
    assert_eq!(h.commit(append(&p, "3")).await.sequences, [3]);
    assert_eq!(h.entries(&p, &STREAM, 3, 9).await.len(), 1);
}

/// A trim below the first entry, or of a stream that is not there, removes nothing.
pub async fn a_trim_of_nothing_changes_nothing(h: Harness) {
    let p = partition("p");
    h.commit(trim(&p, 5)).await;
    assert_eq!(head_of(&h, &p).await, (1, 0));
    assert_eq!(h.commit(append(&p, "1").append(STREAM, "2")).await.sequences, [1, 2]);
    for first in [0, 1] {
        h.commit(trim(&p, first)).await;
        assert_eq!(head_of(&h, &p).await, (1, 2));
    }
    h.commit(trim(&p, 2)).await;
    h.commit(trim(&p, 1)).await;
    assert_eq!(head_of(&h, &p).await, (2, 2));
}

/// A trim of thousands of entries is complete at once.
pub async fn a_long_trim_is_complete(h: Harness) {
    let p = partition("p");
    for _ in 0..50 {
        let commit = (0..100).fold(Commit::new(p.clone()), |commit, _| commit.append(STREAM, "x"));
        h.commit(commit.applied()).await;
    }
    h.commit(trim(&p, 4_990)).await;
    assert_eq!(head_of(&h, &p).await, (4_990, 5_000));
    assert_eq!(h.entries(&p, &STREAM, 4_990, 3).await.len(), 11);
    assert!(h.store().read(&p, &STREAM, 4_989, 9).await.is_err());
    assert_eq!(h.commit(append(&p, "next")).await.sequences, [5_001]);
    assert_eq!(h.entries(&p, &STREAM, 4_990, 300).await.len(), 12);
}

/// Streams of a partition count and are trimmed apart.
pub async fn streams_of_a_partition_are_apart(h: Harness) {
    let p = partition("p");
    h.commit(append(&p, "1").append(OTHER, "a").append(STREAM, "2")).await;
    h.commit(trim(&p, 2)).await;
    assert_eq!(h.entries(&p, &OTHER, 1, 9).await.len(), 1);
    assert_eq!(h.entries(&p, &STREAM, 2, 9).await.len(), 1);
    let heads = h.head(&p).await.unwrap().streams;
    assert!(heads.is_sorted_by(|a, b| a.stream < b.stream));
    assert_eq!(heads.len(), 2);
}

/// A trim and appends in one commit are applied in order.
pub async fn a_trim_and_appends_in_one_commit(h: Harness) {
    let p = partition("p");
    let drop = |first| Write::Trim { stream: STREAM, first };
    let commit = append(&p, "1").append(STREAM, "2").write(drop(2)).append(STREAM, "3");
    assert_eq!(h.commit(commit).await.sequences, [1, 2, 3]);
    assert_eq!(head_of(&h, &p).await, (2, 3));
    assert_eq!(h.entries(&p, &STREAM, 2, 9).await.len(), 2);
    let all = Commit::new(p.clone()).write(drop(u64::MAX)).append(STREAM, "4").write(drop(5));
    h.commit(all).await;
    assert_eq!(head_of(&h, &p).await, (5, 4));
}

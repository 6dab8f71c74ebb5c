//! Bounds: what is too large is refused, and changes nothing.

use crate::{Harness, harness::*};
use bytes::Bytes;
use store::{Commit, Error, Key, Partition, bounds};

fn bytes(len: usize) -> Bytes {
    vec![7; len].into()
}

fn many(commit: Commit, writes: usize) -> Commit {
    (0..writes).fold(commit, |commit, at| commit.put(key(&at.to_string()), "x"))
}

/// What is beyond a bound gets [`Error::TooLarge`] and changes nothing.
pub async fn what_is_beyond_a_bound_is_refused_and_changes_nothing(h: Harness) {
    let p = partition("p");
    h.commit(put(&p, "a", "1")).await;
    let before = h.view(&p).await;
    let quarter = || bytes(bounds::VALUE_BYTES_MAX);
    let beyond = [
        Commit::new(p.clone()).put(key("big"), bytes(bounds::VALUE_BYTES_MAX + 1)),
        Commit::new(p.clone()).append(STREAM, bytes(bounds::VALUE_BYTES_MAX + 1)),
        many(Commit::new(p.clone()), bounds::COMMIT_WRITES_MAX + 1),
        // Four times a quarter, and the keys on top.
        (0..4).fold(Commit::new(p.clone()), |c, at| c.put(key(&at.to_string()), quarter())),
        (0..4).fold(Commit::new(p.clone()), |c, _| c.append(STREAM, quarter())),
    ];
    for (at, commit) in beyond.into_iter().enumerate() {
        assert!(matches!(h.refused(commit).await, Error::TooLarge { .. }), "case {at}");
        assert_eq!(h.view(&p).await, before, "case {at}");
    }
    let long = "x".repeat(bounds::ID_BYTES_MAX + 1);
    assert!(matches!(Partition::new(tenant("t"), KIND, &long), Err(Error::TooLarge { .. })));
    let long = vec![0; bounds::KEY_BYTES_MAX + 1];
    assert!(matches!(Key::new(long), Err(Error::TooLarge { .. })));
}

/// What is just within the bounds is taken, and comes back whole.
pub async fn what_is_at_a_bound_is_taken(h: Harness) {
    let p = partition(&"\u{ff}".repeat(bounds::ID_BYTES_MAX / 2));
    let long = Key::new(vec![0xff; bounds::KEY_BYTES_MAX]).unwrap();
    let value = bytes(bounds::VALUE_BYTES_MAX);
    h.commit(Commit::new(p.clone()).put(long.clone(), value.clone())).await;
    assert_eq!(h.store().get(&p, &long).await.unwrap().unwrap().value, value);
    h.commit(many(Commit::new(p.clone()), bounds::COMMIT_WRITES_MAX)).await;
    assert_eq!(h.scan(&p, b"", 50).await.len(), bounds::COMMIT_WRITES_MAX + 1);
    let last = bounds::COMMIT_BYTES_MAX - 3 * bounds::VALUE_BYTES_MAX - 4;
    let full = ["w", "x", "y"].into_iter().fold(Commit::new(p.clone()), |commit, name| {
        commit.put(key(name), bytes(bounds::VALUE_BYTES_MAX))
    });
    h.commit(full.put(key("z"), bytes(last))).await;
    assert_eq!(h.get(&p, "z").await.unwrap().value.len(), last);
    h.commit(Commit::new(p.clone()).put(Key::new([]).unwrap(), Bytes::new())).await;
    let empty = h.store().get(&p, &Key::new([]).unwrap()).await.unwrap().unwrap();
    assert!(empty.value.is_empty());
}

/// The records of a partition are bounded together; less can always be written.
pub async fn a_partition_holds_64_mib_of_records(h: Harness) {
    let p = partition("p");
    let chunk = bounds::VALUE_BYTES_MAX - 8;
    let name = |at: u64| key(&format!("{at:08}"));
    let mut at = 0;
    while (at + 3) * bounds::VALUE_BYTES_MAX as u64 <= bounds::PARTITION_BYTES_MAX {
        let three =
            (at..at + 3).fold(Commit::new(p.clone()), |c, at| c.put(name(at), bytes(chunk)));
        h.commit(three.applied()).await;
        at += 3;
    }
    h.commit(Commit::new(p.clone()).put(name(at), bytes(chunk))).await;
    assert_eq!((at + 1) * bounds::VALUE_BYTES_MAX as u64, bounds::PARTITION_BYTES_MAX);
    let position = h.position(&p).await;
    let error = h.refused(put(&p, "one", "more")).await;
    assert!(matches!(error, Error::TooLarge { limit: bounds::PARTITION_BYTES_MAX, .. }));
    assert_eq!(h.position(&p).await, position);
    // The same size again, less, and what goes into a stream.
    h.commit(Commit::new(p.clone()).put(name(0), bytes(chunk)).append(STREAM, "x")).await;
    h.commit(Commit::new(p.clone()).put(name(0), bytes(10))).await;
    h.commit(put(&p, "one", "more")).await;
    h.commit(put(&partition("q"), "one", "more")).await;
}

//! Finding work: what is due, and what there is.

use crate::{Harness, harness::*};
use std::time::Duration;
use store::{Commit, Kind, Partition, Write};

fn wake(partition: &Partition, after: Option<Duration>) -> Commit {
    Commit::new(partition.clone()).write(Write::Wake(after))
}

const SOON: Duration = Duration::from_secs(2);

async fn is_due(h: &Harness, p: &Partition) -> bool {
    h.store().due(p.bucket(), 99).await.unwrap().contains(p)
}

/// A partition is due from its wake time on, until that is set anew.
pub async fn a_partition_is_due_at_its_wake_time(h: Harness) {
    let p = partition("p");
    h.commit(put(&p, "a", "1")).await;
    assert!(!is_due(&h, &p).await);
    h.commit(wake(&p, Some(SOON))).await;
    assert!(!is_due(&h, &p).await);
    h.commit(put(&p, "a", "2")).await;
    assert!(h.passed(SOON).await);
    assert!(is_due(&h, &p).await);
    h.commit(put(&p, "a", "3")).await;
    assert!(is_due(&h, &p).await, "only a wake clears it");
    h.commit(wake(&p, None)).await;
    assert!(!is_due(&h, &p).await);
    h.commit(wake(&p, Some(Duration::ZERO))).await;
    assert!(is_due(&h, &p).await);
}

/// The latest wake time counts.
pub async fn a_wake_time_is_moved_and_cleared(h: Harness) {
    let (p, q, r) = (partition("p"), partition("q"), partition("r"));
    for each in [&p, &q, &r] {
        h.commit(wake(each, Some(SOON))).await;
    }
    h.commit(wake(&p, Some(SOON * 2))).await;
    h.commit(wake(&q, None)).await;
    h.commit(wake(&r, None).write(Write::Wake(Some(SOON / 2)))).await;
    assert!(h.passed(SOON).await);
    assert_eq!(
        (is_due(&h, &p).await, is_due(&h, &q).await, is_due(&h, &r).await),
        (false, false, true)
    );
    assert!(h.passed(SOON).await);
    assert!(is_due(&h, &p).await);
    assert!(!is_due(&h, &q).await);
}

/// `due` answers at most `limit` partitions, of its bucket alone.
pub async fn due_is_bounded_and_of_its_bucket(h: Harness) {
    let mut all: Vec<_> = (0..3000).map(|id| partition(&format!("w{id}"))).collect();
    let bucket = all[0].bucket();
    let other = all[1].clone();
    all.retain(|p| p.bucket() == bucket);
    assert!(all.len() > 1 && other.bucket() != bucket);
    for p in all.iter().chain([&other]) {
        h.commit(wake(p, Some(Duration::ZERO))).await;
    }
    let mut due = h.store().due(bucket, 99).await.unwrap();
    due.sort();
    all.sort();
    assert_eq!(due, all);
    assert_eq!(h.store().due(bucket, 1).await.unwrap().len(), 1);
    assert_eq!(h.store().due(other.bucket(), 99).await.unwrap(), [other]);
}

/// `list` answers every partition in the order of ids, by pages that join.
pub async fn a_list_is_complete_and_in_order(h: Harness) {
    let mut ids: Vec<String> = (0..250).map(|id| format!("{id}")).collect();
    ids.extend(["", "a\0", "a", "a/", "\u{10ffff}"].map(ToOwned::to_owned));
    for id in &ids {
        h.commit(Commit::new(partition(id)).applied()).await;
    }
    h.commit(put(&partition("7"), "again", "1")).await;
    ids.sort();
    for limit in [1, 7, 254, 255, 256] {
        let mut found: Vec<String> = Vec::new();
        loop {
            let after = found.last().cloned();
            let page =
                h.store().list(&tenant("tenant"), &KIND, after.as_deref(), limit).await.unwrap();
            assert!(page.partitions.len() <= limit);
            found.extend(page.partitions.iter().map(|p| p.id().to_owned()));
            if !page.more {
                break;
            }
        }
        assert_eq!(found, ids, "pages of {limit}");
    }
}

/// `list` answers partitions of its tenant and kind alone.
pub async fn a_list_is_of_its_tenant_and_kind(h: Harness) {
    let (a, ab) = (tenant("a"), tenant("ab"));
    let (b, bc) = (Kind::new("b"), Kind::new("bc"));
    let mut count = 0;
    for t in [&a, &ab] {
        for k in [&b, &bc] {
            count += 1;
            for at in 0..count {
                let p = Partition::new(t.clone(), k.clone(), &format!("c{at}")).unwrap();
                h.commit(Commit::new(p)).await;
            }
        }
    }
    let mut wanted = 0;
    for t in [&a, &ab] {
        for k in [&b, &bc] {
            wanted += 1;
            let page = h.store().list(t, k, None, 99).await.unwrap();
            assert!(page.partitions.iter().all(|p| p.tenant() == t && p.kind() == k));
            assert_eq!(page.partitions.len(), wanted);
        }
    }
    let none = h.store().list(&tenant("b"), &b, None, 99).await.unwrap();
    assert!(none.partitions.is_empty() && !none.more);
}

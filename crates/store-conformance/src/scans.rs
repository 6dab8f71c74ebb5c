//! Scans: pages of records, each atomic and positioned.

use crate::{Harness, harness::*};
use std::collections::BTreeMap;
use store::{Commit, Position, bounds};

/// Records come in the order of their keys' bytes.
pub async fn records_come_in_key_order(h: Harness) {
    let p = partition("p");
    for name in ["b", "a", "ab", "aa", "c", "B"] {
        h.commit(put(&p, name, name)).await;
    }
    for limit in 1..8 {
        let names: Vec<_> = h.scan(&p, b"", limit).await.into_iter().map(|(key, _)| key).collect();
        assert_eq!(names, ["B", "a", "aa", "ab", "b", "c"].map(key));
    }
    let page = h.store().scan(&partition("none"), b"", None, 9).await.unwrap();
    assert_eq!((page.position, page.records.len(), page.more), (Position::ZERO, 0, false));
}

/// A scan answers exactly the keys that start with the prefix, from `after` on.
pub async fn a_prefix_bounds_a_scan(h: Harness) {
    let p = partition("p");
    for name in ["a", "a/1", "a/2", "a/3", "a0", "b/1"] {
        h.commit(put(&p, name, name)).await;
    }
    let names = |after: Option<&'static str>, limit| {
        let (h, p) = (&h, &p);
        async move {
            let after = after.map(key);
            let page = h.store().scan(p, b"a/", after.as_ref(), limit).await.unwrap();
            (page.records.into_iter().map(|(key, _)| key).collect::<Vec<_>>(), page.more)
        }
    };
    assert_eq!(names(None, 9).await, (["a/1", "a/2", "a/3"].map(key).to_vec(), false));
    assert_eq!(names(Some("a/1"), 1).await, (vec![key("a/2")], true));
    assert_eq!(names(Some("a/2"), 1).await.0, [key("a/3")]);
    assert_eq!(names(Some("a/2x"), 9).await, (vec![key("a/3")], false));
    assert_eq!(names(Some("a"), 9).await.0.len(), 3);
    assert_eq!(names(Some(""), 9).await.0.len(), 3);
    assert_eq!(names(Some("a/3"), 9).await, (vec![], false));
    assert_eq!(names(Some("b"), 9).await, (vec![], false));
}

/// Pages of any size join without a gap or a repeat.
pub async fn pages_join_without_a_gap(h: Harness) {
    let p = partition("p");
    for chunk in 0..3 {
        let commit = (0..100).fold(Commit::new(p.clone()), |commit, at| {
            commit.put(key(&format!("{:03}", at * 3 + chunk)), "x")
        });
        h.commit(commit).await;
    }
    for limit in [1, 7, 100, 299, 300, 301] {
        let found = h.scan(&p, b"", limit).await;
        let wanted = (0..300).map(|at| key(&format!("{at:03}")));
        assert!(found.into_iter().map(|(key, _)| key).eq(wanted), "pages of {limit}");
    }
}

/// A page holds at most 1 MiB and at least one record.
pub async fn a_page_holds_one_mib_and_at_least_one_record(h: Harness) {
    let p = partition("p");
    for name in ["a", "b", "c", "d", "e", "f"] {
        let commit = Commit::new(p.clone());
        h.commit(commit.put(key(name), vec![1; bounds::VALUE_BYTES_MAX])).await;
    }
    let page = h.store().scan(&p, b"", None, 9).await.unwrap();
    assert!(page.more && !page.records.is_empty());
    let size: usize =
        page.records.iter().map(|(key, r)| key.as_bytes().len() + r.value.len()).sum();
    assert!(size <= bounds::PAGE_BYTES_MAX, "{size}");
    assert_eq!(h.scan(&p, b"", 9).await.len(), 6);
}

/// A page tells the position at which it was whole.
pub async fn a_page_tells_its_position(h: Harness) {
    let p = partition("p");
    for _ in 0..5 {
        let position = h.commit(put(&p, "a", "1")).await.position;
        let page = h.store().scan(&p, b"", None, 1).await.unwrap();
        assert_eq!((page.position, page.more), (position, false));
    }
}

/// Who scans page by page while others write, and then tells himself what changed since the
/// first page's position, has everything.
pub async fn watching_from_the_first_page_completes_a_scan(h: Harness) {
    let p = partition("p");
    for at in 0..100 {
        h.commit(put(&p, &format!("{at:03}"), "old").applied()).await;
    }
    let (store, q) = (h.shared(), p.clone());
    let writer = tokio::spawn(async move {
        let mut random = Random(4);
        for _ in 0..300 {
            let name = format!("{:03}", random.below(120));
            let commit = match random.below(3) {
                0 => delete(&q, &name),
                _ => put(&q, &name, &random.below(1000).to_string()),
            };
            store.commit(commit).await.unwrap();
        }
    });
    let mut seen = BTreeMap::new();
    let (mut after, mut since) = (None, None);
    loop {
        let page = h.store().scan(&p, b"", after.as_ref(), 10).await.unwrap();
        since.get_or_insert(page.position);
        after = page.records.last().map(|(key, _)| key.clone());
        seen.extend(page.records.into_iter().map(|(key, record)| (key, record.value)));
        if !page.more {
            break;
        }
        tokio::task::yield_now().await;
    }
    writer.await.unwrap();
    let end = h.position(&p).await;
    let mut watcher = store::watch(h.shared());
    watcher.follow(p.clone(), since.unwrap());
    let mut at = since.unwrap();
    while at != end {
        let changes = watcher.next().await.1.unwrap();
        at = changes.position;
        for change in changes.keys {
            match change.value {
                Some(value) => drop(seen.insert(change.key, value)),
                None => drop(seen.remove(&change.key)),
            }
        }
    }
    let truth = h.scan(&p, b"", 1000).await;
    assert!(seen.into_iter().eq(truth.into_iter().map(|(key, record)| (key, record.value))));
}

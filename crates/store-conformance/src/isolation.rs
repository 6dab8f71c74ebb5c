//! Nothing leaks from one partition, tenant or key to another.

use crate::{Harness, harness::*};
use store::{Commit, CommitId, Key, Kind, Partition, Position};

const NASTY: [&str; 16] = [
    "",
    "a",
    "aa",
    "aaa",
    "a/",
    "a/b",
    "a\0",
    "a\0b",
    "\0",
    "\0\0",
    "a:b",
    "a\u{1}",
    "{a}",
    "a}b{",
    "\u{10ffff}",
    "a*",
];

async fn check_apart(h: &Harness, all: &[Partition]) {
    for (at, p) in all.iter().enumerate() {
        let own = at.to_string();
        let commit = put(p, "a", &own).put(key(&own), "own").append(STREAM, own.clone());
        let committed = h.commit(commit.check(store::Check::Fence(at as u64)).id(ID)).await;
        assert_eq!((committed.position.revision, committed.sequences), (1, vec![1]), "{p}");
    }
    for (at, p) in all.iter().enumerate() {
        let own = at.to_string();
        assert_eq!(h.value(p, "a").await, Some(own.clone()), "{p}");
        let keys: Vec<_> = h.scan(p, b"", 1).await.into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, [key(&own), key("a")], "{p}");
        let entries = h.entries(p, &STREAM, 1, 9).await;
        assert_eq!((entries.len(), &entries[0].value[..]), (1, own.as_bytes()), "{p}");
        let changes = h.store().changes(p, Position::ZERO).await.unwrap();
        assert_eq!((changes.keys.len(), changes.position.revision), (2, 1), "{p}");
        assert_eq!(h.head(p).await.unwrap().fence, at as u64, "{p}");
    }
}

const ID: CommitId = CommitId([3; 16]);

/// Ids that are prefixes of one another or hold separators name partitions of their own.
pub async fn partitions_with_nasty_ids_share_nothing(h: Harness) {
    let all: Vec<_> = NASTY.iter().map(|id| partition(id)).collect();
    check_apart(&h, &all).await;
    for id in ["b", "a/b/", "aaaa", "a\0\0"] {
        let p = partition(id);
        assert_eq!(h.head(&p).await, None);
        assert_eq!(h.get(&p, "a").await, None);
        assert!(h.scan(&p, b"", 9).await.is_empty());
        assert!(h.entries(&p, &STREAM, 1, 9).await.is_empty());
    }
    // Deleting all of one leaves the others.
    h.commit(delete(&all[1], "a").write(store::Write::Delete { key: key("1") })).await;
    h.commit(trim(&all[1], u64::MAX)).await;
    assert_eq!(h.scan(&all[1], b"", 9).await.len(), 0);
    for p in [&all[0], &all[2], &all[5], &all[6]] {
        assert_eq!(h.scan(p, b"", 9).await.len(), 2, "{p}");
        assert_eq!(h.entries(p, &STREAM, 1, 9).await.len(), 1, "{p}");
    }
}

/// Tenants and kinds whose names run together name partitions of their own.
pub async fn tenants_share_nothing(h: Harness) {
    let mut all = Vec::new();
    for name in ["a", "ab", "abc", "A", "a-"] {
        for kind in [Kind::new("b"), Kind::new("bc"), Kind::new("c"), Kind::new("b-c")] {
            for id in ["", "c", "b", "bc"] {
                all.push(Partition::new(tenant(name), kind.clone(), id).unwrap());
            }
        }
    }
    check_apart(&h, &all).await;
}

/// Keys of any bytes are keys of their own, in the order of their bytes.
pub async fn keys_with_nasty_bytes_share_nothing(h: Harness) {
    let p = partition("p");
    let mut keys: Vec<Key> = NASTY.iter().map(|name| key(name)).collect();
    keys.extend((0..=255_u8).map(|byte| Key::new([byte]).unwrap()));
    keys.extend([[0xff, 0xff], [0xff, 0], [0, 0xff]].map(|bytes| Key::new(bytes).unwrap()));
    keys.sort();
    keys.dedup();
    for (at, key) in keys.iter().enumerate() {
        h.commit(Commit::new(p.clone()).put(key.clone(), at.to_string())).await;
    }
    for limit in [1, 7, 1000] {
        let found = h.scan(&p, b"", limit).await;
        assert!(found.iter().map(|(key, _)| key).eq(&keys));
        for (at, (_, record)) in found.iter().enumerate() {
            assert_eq!(record.value, at.to_string().as_bytes());
        }
    }
    for prefix in [&[0xff][..], &[0xff, 0xff], &[0], b"a", b"a/"] {
        let found = h.scan(&p, prefix, 3).await;
        let wanted = keys.iter().filter(|key| key.as_bytes().starts_with(prefix));
        assert!(found.iter().map(|(key, _)| key).eq(wanted), "{prefix:?}");
    }
}

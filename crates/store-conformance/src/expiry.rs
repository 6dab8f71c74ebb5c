//! Expiry by the store's clock, and sweeping.

use crate::{Harness, harness::*};
use std::time::Duration;
use store::{Check, Commit, Error, Partition, Position, Write};

const LIFE: Duration = Duration::from_secs(2);

/// At and after its expiry a record is returned by nothing; just before, by everything.
pub async fn an_expired_record_is_returned_by_nothing(h: Harness) {
    let p = partition("p");
    let since = h.commit(put(&p, "stays", "1")).await.position;
    h.commit(expiring(&p, "goes", LIFE)).await;
    assert!(h.passed(LIFE.mul_f32(0.5)).await);
    assert!(h.get(&p, "goes").await.is_some());
    assert_eq!(h.scan(&p, b"", 9).await.len(), 2);
    let told = h.store().changes(&p, since).await.unwrap();
    assert!(told.keys[0].value.is_some());
    assert!(h.passed(LIFE.mul_f32(0.5)).await);
    assert!(h.get(&p, "goes").await.is_none());
    assert_eq!(h.scan(&p, b"", 9).await.len(), 1);
    let told = h.store().changes(&p, since).await.unwrap();
    assert!(told.keys.iter().all(|change| change.value.is_none()), "{told:?}");
}

/// For a check, an expired record is none.
pub async fn an_expired_record_is_absent(h: Harness) {
    let p = partition("p");
    h.commit(expiring(&p, "a", LIFE)).await;
    let by_revision = put(&p, "a", "2").check(Check::Revision { key: key("a"), revision: 1 });
    let by_absence = put(&p, "a", "2").check(Check::Absent { key: key("a") });
    assert!(is_conflict(&h.refused(by_absence.clone()).await));
    assert!(h.passed(LIFE).await);
    assert!(is_conflict(&h.refused(by_revision).await));
    h.commit(by_absence).await;
    assert_eq!(h.value(&p, "a").await.as_deref(), Some("2"));
}

/// A new value brings its own expiry, or none.
pub async fn a_new_value_has_its_own_expiry(h: Harness) {
    let p = partition("p");
    for name in ["forever", "longer", "shorter"] {
        h.commit(expiring(&p, name, LIFE)).await;
    }
    h.commit(put(&p, "forever", "1")).await;
    h.commit(expiring(&p, "longer", LIFE * 2)).await;
    h.commit(expiring(&p, "shorter", LIFE / 2)).await;
    assert!(h.passed(LIFE / 2).await);
    assert!(h.get(&p, "shorter").await.is_none());
    assert!(h.passed(LIFE).await);
    assert!(h.get(&p, "longer").await.is_some());
    assert!(h.passed(LIFE).await);
    assert!(h.get(&p, "longer").await.is_none());
    assert_eq!(h.sweep(p.bucket()).await, 2);
    assert_eq!(h.value(&p, "forever").await.as_deref(), Some("1"));
}

/// What was gone by the time of a commit does not come back when the clock is set back.
pub async fn an_expired_record_stays_away_when_the_clock_goes_back(h: Harness) {
    let p = partition("p");
    h.commit(put(&p, "stays", "1")).await;
    h.commit(expiring(&p, "goes", LIFE)).await;
    assert!(h.passed(LIFE).await);
    // Twice, for the second is the commonest form of a commit, which engines may shorten.
    for value in ["2", "3"] {
        h.commit(put(&p, "stays", value).append(STREAM, value.to_owned())).await;
    }
    if !h.set_back(LIFE / 2) {
        return;
    }
    assert!(h.get(&p, "goes").await.is_none());
    assert_eq!(h.scan(&p, b"", 9).await.len(), 1);
    h.commit(put(&p, "other", "1")).await;
    assert!(h.get(&p, "goes").await.is_none());
}

/// The empty key is a key like others, beside records that expire too.
pub async fn a_record_of_the_empty_key_is_one(h: Harness) {
    let p = partition("p");
    h.commit(expiring(&p, "goes", LIFE)).await;
    assert!(h.get(&p, "").await.is_none());
    assert!(is_conflict(&h.refused(revision_of_nothing(&p)).await));
    h.commit(put(&p, "", "1")).await;
    assert_eq!(h.value(&p, "").await.as_deref(), Some("1"));
    assert!(h.get(&p, "goes").await.is_some());
    assert_eq!(h.scan(&p, b"", 9).await.len(), 2);
    assert!(h.passed(LIFE).await);
    assert!(h.get(&p, "goes").await.is_none());
    assert_eq!(h.value(&p, "").await.as_deref(), Some("1"));
    h.commit(delete(&p, "")).await;
    assert!(h.get(&p, "").await.is_none());
    assert_eq!(h.scan(&p, b"", 9).await.len(), 0);
}

fn revision_of_nothing(p: &Partition) -> Commit {
    put(p, "a", "1").check(Check::Revision { key: key(""), revision: 1 })
}

/// A sweep deletes by a commit that raises the revision and that watchers see.
pub async fn a_sweep_is_a_commit_that_watchers_see(h: Harness) {
    let p = partition("p");
    h.commit(expiring(&p, "goes", LIFE).put(key("stays"), "1")).await;
    let position = h.position(&p).await;
    let mut watcher = store::watch(h.shared());
    watcher.follow(p.clone(), position);
    assert!(h.passed(LIFE).await);
    assert_eq!(h.position(&p).await, position, "expiry alone is no commit");
    assert_eq!(h.sweep(p.bucket()).await, 1);
    let (who, changes) = watcher.next().await;
    let changes = changes.unwrap();
    assert_eq!((who, changes.position.revision), (p.clone(), position.revision + 1));
    assert_eq!(changes.keys.len(), 1);
    assert_eq!((&changes.keys[0].key, &changes.keys[0].value), (&key("goes"), &None));
    assert_eq!(h.position(&p).await, changes.position);
    assert_eq!(h.sweep(p.bucket()).await, 0);
}

/// A sweep leaves what is alive, other buckets, and records written again.
pub async fn a_sweep_leaves_what_is_alive(h: Harness) {
    let (p, q) = (partition("p"), partition("q"));
    assert_ne!(p.bucket(), q.bucket(), "choose other names");
    h.commit(expiring(&p, "goes", LIFE).put(key("stays"), "1")).await;
    h.commit(expiring(&p, "again", LIFE)).await;
    h.commit(expiring(&q, "goes", LIFE)).await;
    h.commit(expiring(&p, "later", LIFE * 10)).await;
    assert_eq!(h.sweep(p.bucket()).await, 0);
    assert!(h.passed(LIFE).await);
    h.commit(put(&p, "again", "1")).await;
    let before = h.position(&q).await;
    assert_eq!(h.sweep(p.bucket()).await, 1);
    assert_eq!(h.position(&q).await, before);
    let left: Vec<_> = h.scan(&p, b"", 9).await.into_iter().map(|(key, _)| key).collect();
    assert_eq!(left, [key("again"), key("later"), key("stays")]);
    assert_eq!(h.sweep(q.bucket()).await, 1);
}

/// A sweep goes on until nothing expired is left, and what it removes makes room.
pub async fn a_sweep_of_many_records_is_complete(h: Harness) {
    let p = partition("p");
    for chunk in 0..3 {
        let commit = (0..100).fold(put(&p, "stays", "1"), |commit, at| {
            let key = key(&format!("{chunk}/{at}"));
            commit.write(Write::Put { key, value: "x".into(), expires: Some(LIFE) })
        });
        h.commit(commit).await;
    }
    let since = h.position(&p).await;
    assert!(h.passed(LIFE).await);
    assert_eq!(h.sweep(p.bucket()).await, 300);
    let changes = match h.store().changes(&p, since).await {
        Ok(changes) => changes,
        Err(error @ Error::Lagged { .. }) => panic!("{error}"),
        Err(error) => panic!("{error}"),
    };
    assert_eq!(changes.keys.len(), 300);
    assert!(changes.position.revision > since.revision);
    let all = h.store().changes(&p, Position::ZERO).await.unwrap();
    assert_eq!(all.keys.iter().filter(|change| change.value.is_some()).count(), 1);
}

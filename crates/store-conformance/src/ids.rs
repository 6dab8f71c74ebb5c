//! Ids of commits, under which a retry is recognised.

use crate::{Harness, harness::*};
use std::time::Duration;
use store::{Check, Commit, CommitId, Durability, Error, Position};

const ID: CommitId = CommitId([1; 16]);

/// The same commit under the same id gets the first reply and changes nothing again, also
/// when its checks no longer hold and however it is to be acknowledged.
pub async fn a_retry_gets_the_first_reply(h: Harness) {
    let p = partition("p");
    let check = Check::Position(Position::ZERO);
    let commit = put(&p, "a", "1").append(STREAM, "one").check(check).id(ID);
    let first = h.commit(commit.clone()).await;
    h.commit(put(&p, "a", "2").append(STREAM, "two")).await;
    let before = h.view(&p).await;
    assert_eq!(h.commit(commit.clone()).await, first);
    assert_eq!(h.commit(Commit { durability: Durability::Applied, ..commit }).await, first);
    assert_eq!(h.view(&p).await, before);
    assert_eq!(h.value(&p, "a").await.as_deref(), Some("2"));
}

/// The same id with other content is an error and changes nothing.
pub async fn an_id_with_other_content_is_an_error(h: Harness) {
    let p = partition("p");
    let expires = Some(Duration::from_secs(9));
    let value = || bytes::Bytes::from("1");
    let commit = || Commit::new(p.clone());
    h.commit(put(&p, "a", "1").id(ID)).await;
    let before = h.view(&p).await;
    for other in [
        commit(),
        put(&p, "a", "2"),
        put(&p, "b", "1"),
        put(&p, "a", "1").put(key("a"), "1"),
        put(&p, "a", "1").check(Check::Fence(0)),
        commit().write(store::Write::Put { key: key("a"), value: value(), expires }),
        append(&p, "1"),
        delete(&p, "a"),
    ] {
        assert!(matches!(h.refused(other.clone().id(ID)).await, Error::IdReused), "{other:?}");
        assert_eq!(h.view(&p).await, before);
    }
}

/// An id is known for ten minutes, and then free again.
pub async fn an_id_is_known_for_ten_minutes(h: Harness) {
    let p = partition("p");
    let commit = append(&p, "again").id(ID);
    let first = h.commit(commit.clone()).await;
    if !h.passed(Duration::from_secs(599)).await {
        return;
    }
    h.commit(put(&p, "a", "1")).await;
    assert_eq!(h.commit(commit.clone()).await, first);
    h.passed(Duration::from_secs(1)).await;
    assert_eq!(h.commit(commit.clone()).await.sequences, [2]);
    assert_eq!(h.commit(commit).await.sequences, [2]);
}

/// A refused commit leaves its id free.
pub async fn a_refused_commit_leaves_its_id_free(h: Harness) {
    let p = partition("p");
    h.commit(put(&p, "a", "1")).await;
    let claim = put(&p, "a", "2").check(Check::Absent { key: key("a") }).id(ID);
    assert!(is_conflict(&h.refused(claim.clone()).await));
    h.commit(delete(&p, "a")).await;
    h.commit(claim).await;
    assert!(matches!(h.refused(put(&p, "a", "9").id(ID)).await, Error::IdReused));
}

/// An id is known within its partition.
pub async fn an_id_belongs_to_its_partition(h: Harness) {
    for id in ["p", "q", "pq"] {
        let committed = h.commit(append(&partition(id), id).id(ID)).await;
        assert_eq!((committed.position.revision, committed.sequences), (1, vec![1]));
    }
}

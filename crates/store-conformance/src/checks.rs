//! Checks: what must hold for a commit to be applied.

use crate::{Harness, harness::*};
use store::{Check, Commit, Error, Incarnation, Position, Write};

/// A commit whose checks do not all hold changes nothing.
pub async fn failed_checks_change_nothing(h: Harness) {
    let p = partition("p");
    let first = h.commit(put(&p, "a", "1").append(STREAM, "one")).await;
    let before = h.view(&p).await;
    let wrong = Position { revision: 7, ..first.position };
    for check in [
        Check::Position(wrong),
        Check::Position(Position::ZERO),
        Check::Revision { key: key("a"), revision: 2 },
        Check::Revision { key: key("missing"), revision: 1 },
        Check::Absent { key: key("a") },
    ] {
        let commit =
            put(&p, "a", "2").put(key("b"), "3").append(STREAM, "two").check(check.clone());
        assert!(is_conflict(&h.refused(commit).await), "{check:?}");
        assert_eq!(h.view(&p).await, before, "{check:?}");
        assert_eq!(h.entries(&p, &STREAM, 1, 9).await.len(), 1, "{check:?}");
    }
    h.commit(fenced(&p, 5)).await;
    let before = h.view(&p).await;
    assert!(matches!(
        h.refused(put(&p, "a", "2").check(Check::Fence(4))).await,
        Error::Fenced { stored: 5 }
    ));
    assert_eq!(h.view(&p).await, before);
}

/// [`Check::Position`] holds at exactly that position, and the conflict tells the present one.
pub async fn a_position_is_checked_exactly(h: Harness) {
    let p = partition("p");
    let first = h.commit(put(&p, "a", "1")).await.position;
    let second = h.commit(put(&p, "a", "2").check(Check::Position(first))).await.position;
    let Error::Conflict { position, key: None } =
        h.refused(put(&p, "a", "3").check(Check::Position(first))).await
    else {
        panic!("a conflict of no key is expected")
    };
    assert_eq!(position, second);
    let other = Position { incarnation: Incarnation(second.incarnation.0 ^ 1), ..second };
    assert!(is_conflict(&h.refused(put(&p, "a", "3").check(Check::Position(other))).await));
    h.commit(put(&p, "a", "3").check(Check::Position(second))).await;
}

/// [`Position::ZERO`] demands that the partition does not exist.
pub async fn position_zero_demands_that_there_is_no_partition(h: Harness) {
    let p = partition("p");
    let missing = Position { incarnation: Incarnation(1), revision: 1 };
    let Error::Conflict { position, .. } =
        h.refused(put(&p, "a", "1").check(Check::Position(missing))).await
    else {
        panic!("a conflict is expected")
    };
    assert_eq!(position, Position::ZERO);
    assert_eq!(h.head(&p).await, None, "a refused commit makes no partition");
    let made = Commit::new(p.clone()).check(Check::Position(Position::ZERO));
    h.commit(made.clone()).await;
    assert!(is_conflict(&h.refused(made).await));
}

/// [`Check::Incarnation`] holds at every revision of that life, and in no other.
pub async fn an_incarnation_is_checked_at_any_revision(h: Harness) {
    let p = partition("p");
    let anywhere = Check::Incarnation(Incarnation(7));
    assert!(is_conflict(&h.refused(put(&p, "a", "1").check(anywhere)).await));
    assert_eq!(h.head(&p).await, None, "a refused commit makes no partition");
    let life = h.commit(put(&p, "a", "1")).await.position.incarnation;
    for value in ["2", "3"] {
        h.commit(put(&p, "a", value).check(Check::Incarnation(life))).await;
    }
    let before = h.view(&p).await;
    let other = Check::Incarnation(Incarnation(life.0 ^ 1));
    let Error::Conflict { position, key: None } = h.refused(put(&p, "a", "4").check(other)).await
    else {
        panic!("a conflict of no key is expected")
    };
    assert_eq!((position.incarnation, position.revision), (life, 3));
    assert_eq!(h.view(&p).await, before);
}

/// A change of one record with its entry of a stream, the commonest commit of all: whatever
/// does not hold, it changes nothing, and whatever it finds, it is done as any other.
pub async fn a_change_of_an_entry_is_checked_whole(h: Harness) {
    let p = partition("p");
    let change = |value: &'static str| put(&p, "a", value).append(STREAM, value);
    let at = |revision| Check::Revision { key: key("a"), revision };
    // The partition, the record and the stream are not there yet.
    assert!(is_conflict(&h.refused(change("0").check(at(1))).await));
    let made = h.commit(change("1")).await;
    let life = Check::Incarnation(made.position.incarnation);
    let second = h.commit(change("2").check(life.clone()).check(at(1))).await;
    assert_eq!((second.position.revision, second.sequences), (2, vec![2]));
    let before = h.view(&p).await;
    for wrong in [at(1), at(3), Check::Incarnation(Incarnation(made.position.incarnation.0 ^ 1))] {
        assert!(is_conflict(&h.refused(change("x").check(wrong)).await));
        assert!(is_conflict(
            &h.refused(change("x").check(at(2)).check(Check::Absent { key: key("a") })).await
        ));
        assert_eq!(h.view(&p).await, before);
        assert_eq!(h.entries(&p, &STREAM, 1, 9).await.len(), 2);
    }
    // A record of another key, one that was deleted, and one that expires.
    h.commit(put(&p, "b", "1").append(STREAM, "3")).await;
    let delete = Commit::new(p.clone()).write(Write::Delete { key: key("a") });
    h.commit(delete.append(STREAM, "4")).await;
    assert!(is_conflict(&h.refused(change("x").check(at(2))).await));
    h.commit(change("5").check(Check::Absent { key: key("a") })).await;
    let expires = Some(std::time::Duration::from_secs(3600));
    let brief = Write::Put { key: key("a"), value: "6".into(), expires };
    h.commit(Commit::new(p.clone()).write(brief).append(STREAM, "6")).await;
    let last = h.commit(change("7").check(at(6)).check(life.clone())).await;
    assert_eq!((last.position.revision, last.sequences), (7, vec![7]));
    // Another stream begins, and a trimmed one goes on.
    h.commit(put(&p, "a", "8").append(OTHER, "1").check(at(7))).await;
    h.commit(Commit::new(p.clone()).write(Write::Trim { stream: STREAM, first: 8 })).await;
    let last = h.commit(change("9").check(life)).await;
    assert_eq!((last.position.revision, last.sequences), (10, vec![8]));
    assert_eq!(h.entries(&p, &STREAM, 8, 9).await.len(), 1);
    let view = h.view(&p).await;
    h.commit(fenced(&p, 5)).await;
    assert!(matches!(
        h.refused(change("x").check(Check::Fence(4))).await,
        Error::Fenced { stored: 5 }
    ));
    assert_ne!(h.view(&p).await, view, "the fence was a commit");
}

/// [`Check::Revision`] holds if the record was last written by that commit.
pub async fn a_revision_is_checked_exactly(h: Harness) {
    let p = partition("p");
    let check = |revision| Check::Revision { key: key("a"), revision };
    h.commit(put(&p, "a", "1")).await;
    h.commit(put(&p, "b", "1")).await;
    for wrong in [0, 2, u64::MAX] {
        let Error::Conflict { key: told, .. } =
            h.refused(put(&p, "a", "2").check(check(wrong))).await
        else {
            panic!("a conflict is expected")
        };
        assert_eq!(told, Some(key("a")));
    }
    h.commit(put(&p, "a", "2").check(check(1))).await;
    assert_eq!(h.get(&p, "a").await.unwrap().revision, 3);
    h.commit(put(&p, "a", "2").check(check(3))).await;
    h.commit(delete(&p, "a")).await;
    assert!(is_conflict(&h.refused(put(&p, "a", "3").check(check(4))).await));
    assert!(is_conflict(&h.refused(put(&p, "a", "3").check(check(5))).await));
}

/// [`Check::Absent`] holds if there is no such record, also after a deletion.
pub async fn absence_is_checked(h: Harness) {
    let p = partition("p");
    let claim = put(&p, "a", "1").check(Check::Absent { key: key("a") });
    h.commit(claim.clone()).await;
    let Error::Conflict { position, key: told } = h.refused(claim.clone()).await else {
        panic!("a conflict is expected")
    };
    assert_eq!((position, told), (h.position(&p).await, Some(key("a"))));
    h.commit(delete(&p, "a")).await;
    h.commit(claim).await;
}

/// All checks must hold, wherever the failing one stands.
pub async fn several_checks_must_all_hold(h: Harness) {
    let p = partition("p");
    h.commit(put(&p, "a", "1")).await;
    let holds = || Check::Revision { key: key("a"), revision: 1 };
    let fails = || Check::Absent { key: key("a") };
    for checks in [[holds(), fails()], [fails(), holds()]] {
        let commit = Commit { checks: checks.to_vec(), ..put(&p, "a", "2") };
        assert!(is_conflict(&h.refused(commit).await));
    }
    // A fence that comes with a check that fails is not raised.
    let commit = fenced(&p, 9).check(fails());
    assert!(is_conflict(&h.refused(commit).await));
    assert_eq!(h.head(&p).await.unwrap().fence, 0);
    assert_eq!(h.value(&p, "a").await.as_deref(), Some("1"));
}

/// [`Check::Fence`] raises the fence; a smaller epoch is refused, the same one is not.
pub async fn a_smaller_fence_is_refused(h: Harness) {
    let p = partition("p");
    h.commit(fenced(&p, 3)).await;
    assert_eq!(h.head(&p).await.unwrap().fence, 3);
    h.commit(fenced(&p, 3)).await;
    h.commit(fenced(&p, 8)).await;
    for epoch in [0, 3, 7] {
        assert!(matches!(h.refused(fenced(&p, epoch)).await, Error::Fenced { stored: 8 }));
    }
    // Who does not ask is not refused.
    h.commit(put(&p, "a", "1")).await;
    assert_eq!(h.head(&p).await.unwrap().fence, 8);
    h.commit(fenced(&p, u64::MAX)).await;
    assert!(matches!(h.refused(fenced(&p, u64::MAX - 1)).await, Error::Fenced { .. }));
}

/// Fences survive the deletion of every record and the trim of every stream.
pub async fn fences_survive_records(h: Harness) {
    let p = partition("p");
    h.commit(put(&p, "a", "1").append(STREAM, "one").check(Check::Fence(4))).await;
    h.commit(delete(&p, "a")).await;
    h.commit(trim(&p, u64::MAX)).await;
    assert!(h.scan(&p, b"", 9).await.is_empty());
    assert!(matches!(h.refused(fenced(&p, 3)).await, Error::Fenced { stored: 4 }));
}

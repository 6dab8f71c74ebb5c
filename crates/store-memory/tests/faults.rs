//! The faults do what they say.
#![expect(clippy::unwrap_used, reason = "a test")]

use clock::ManualClock;
use std::time::Duration;
use store::{Check, Commit, CommitId, Error, Key, Kind, Partition, Position, Store, StreamName};
use store_memory::{Fault, Faults, MemoryStore};
use types::{TenantId, Timestamp};

const STREAM: StreamName = StreamName::new("stream");

fn store() -> MemoryStore {
    MemoryStore::new(ManualClock::new(Timestamp(0), 7))
}

fn partition(id: &str) -> Partition {
    Partition::new(TenantId::system(), Kind::new("kind"), id).unwrap()
}

fn append(id: &str) -> Commit {
    Commit::new(partition(id)).append(STREAM, "x")
}

async fn position(store: &MemoryStore, id: &str) -> Position {
    store.head(&partition(id)).await.unwrap().map_or(Position::ZERO, |head| head.position)
}

#[tokio::test]
async fn each_fault_strikes_its_commit() {
    let store = store();
    store.plan_faults(|plan| {
        plan.on_commit(2, Fault::LoseRequest)
            .on_commit(3, Fault::LoseReply)
            .on_commit(4, Fault::Full)
    });
    store.commit(append("p")).await.unwrap();
    let lost = store.commit(append("p").id(CommitId([1; 16]))).await.unwrap_err();
    assert!(matches!(lost, Error::Unavailable { .. }));
    assert_eq!(position(&store, "p").await.revision, 1);
    let unknown = append("p").id(CommitId([2; 16]));
    let lost = store.commit(unknown.clone()).await.unwrap_err();
    assert!(matches!(lost, Error::Unavailable { .. }));
    assert_eq!(position(&store, "p").await.revision, 2);
    assert!(matches!(store.commit(append("p")).await, Err(Error::Full { .. })));
    // The retry finds out.
    assert_eq!(store.commit(unknown).await.unwrap().sequences, [2]);
    assert_eq!(position(&store, "p").await.revision, 2);
}

#[tokio::test]
async fn a_read_can_fail() {
    let store = store();
    store.commit(append("p")).await.unwrap();
    store.plan_faults(|plan| plan.on_read(1));
    assert!(store.get(&partition("p"), &Key::new("a").unwrap()).await.is_err());
    assert!(store.get(&partition("p"), &Key::new("a").unwrap()).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_delayed_commit_is_applied_late() {
    let store = store();
    store.plan_faults(|plan| plan.on_commit(1, Fault::Delay(Duration::from_secs(9))));
    let started = tokio::time::Instant::now();
    let (late, early) = tokio::join!(store.commit(append("p")), store.commit(append("p")));
    assert_eq!((late.unwrap().sequences, early.unwrap().sequences), (vec![2], vec![1]));
    assert_eq!(started.elapsed(), Duration::from_secs(9));
}

#[tokio::test]
async fn a_seed_gives_the_same_faults_again() {
    let run = async |seed| {
        let store = store();
        store.plan_faults(|_| Faults::seeded(seed, 300, 0, Duration::ZERO));
        let mut seen = Vec::new();
        for _ in 0..100 {
            seen.push(store.commit(append("p")).await.is_ok());
        }
        (seen, position(&store, "p").await.revision)
    };
    assert_eq!(run(4).await, run(4).await);
    assert_ne!(run(4).await, run(5).await);
    let failed = run(4).await.0.iter().filter(|ok| !**ok).count();
    assert!((10..40).contains(&failed), "{failed}");
}

#[tokio::test]
async fn a_crash_loses_the_applied_tail_and_starts_an_incarnation() {
    let store = store();
    let kept = store.commit(append("tail")).await.unwrap().position;
    let fenced = append("tail").check(Check::Fence(5)).applied();
    store.commit(fenced).await.unwrap();
    store.commit(append("tail").applied()).await.unwrap();
    store.commit(append("whole").applied()).await.unwrap();
    let whole = store.commit(append("whole")).await.unwrap().position;
    store.commit(append("gone").applied()).await.unwrap();
    let mut watcher = MemoryWatcher::new(&store, kept).await;
    store.crash();

    assert_eq!(position(&store, "whole").await, whole, "a durable commit keeps those before it");
    assert_eq!(position(&store, "gone").await, Position::ZERO);
    let now = position(&store, "tail").await;
    assert_eq!(now.revision, 1);
    assert_ne!(now.incarnation, kept.incarnation);
    watcher.has_lagged(&store).await;
    let stale = store.commit(append("tail").check(Check::Fence(4))).await;
    assert!(matches!(stale, Err(Error::Fenced { stored: 5 })), "fences survive incarnations");
    assert_eq!(store.commit(append("tail")).await.unwrap().sequences, [2]);
    assert_eq!(store.read(&partition("tail"), &STREAM, 1, 9).await.unwrap().len(), 2);
    // Nothing is left to lose.
    let before = position(&store, "tail").await;
    store.crash();
    assert_eq!(position(&store, "tail").await, before);
}

/// Follows a partition by its changes.
struct MemoryWatcher(Position);

impl MemoryWatcher {
    async fn new(store: &MemoryStore, since: Position) -> Self {
        Self(store.changes(&partition("tail"), since).await.unwrap().position)
    }

    async fn has_lagged(&mut self, store: &MemoryStore) {
        let answer = store.changes(&partition("tail"), self.0).await;
        assert!(matches!(answer, Err(Error::Lagged { .. })));
    }
}

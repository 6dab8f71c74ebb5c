//! The folder: locked, damaged, full, closed, and moved through time.
#![expect(clippy::unwrap_used, reason = "a test")]

use clock::{ManualClock, SystemClock};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use store::{Commit, Error, Key, Kind, Partition, Store, StreamName, Write};
use store_embedded::{EmbeddedStore, OpenError, Options};
use types::{TenantId, Timestamp};

const STREAM: StreamName = StreamName::new("stream");

fn options() -> Options {
    Options { free_bytes_min: 0, ..Options::default() }
}

fn open(dir: &Path) -> EmbeddedStore {
    EmbeddedStore::open(dir, options(), SystemClock::shared()).unwrap()
}

fn partition(id: &str) -> Partition {
    Partition::new(TenantId::system(), Kind::new("kind"), id).unwrap()
}

fn key(name: &str) -> Key {
    Key::new(name).unwrap()
}

fn put(id: &str, name: &str, value: &str) -> Commit {
    Commit::new(partition(id)).put(key(name), value.to_owned())
}

fn journal(dir: &Path) -> PathBuf {
    dir.join("db/0.jnl")
}

#[tokio::test]
async fn a_second_store_on_the_same_folder_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let error = EmbeddedStore::open(dir.path(), options(), SystemClock::shared()).unwrap_err();
    assert!(matches!(error, OpenError::Locked { .. }));
    let told = error.to_string();
    assert!(told.contains(dir.path().to_str().unwrap()) && !told.contains('\n'), "{told}");
    drop(store);
    open(dir.path());
}

#[tokio::test]
async fn a_full_disk_refuses_and_recovers() {
    let dir = tempfile::tempdir().unwrap();
    open(dir.path()).commit(put("p", "a", "1")).await.unwrap();
    let full = Options { free_bytes_min: u64::MAX, ..options() };
    let store = EmbeddedStore::open(dir.path(), full, SystemClock::shared()).unwrap();
    let error = store.commit(put("p", "a", "2")).await.unwrap_err();
    assert!(matches!(error, Error::Full { .. }), "{error}");
    assert!(error.is_retryable());
    assert_eq!(store.get(&partition("p"), &key("a")).await.unwrap().unwrap().value, "1");
    drop(store);
    let store = open(dir.path());
    assert_eq!(store.head(&partition("p")).await.unwrap().unwrap().position.revision, 1);
    store.commit(put("p", "a", "2")).await.unwrap();
}

#[tokio::test]
async fn a_closed_store_reads_and_does_not_write() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    store.commit(put("p", "a", "1")).await.unwrap();
    store.close();
    store.close();
    let error = store.commit(put("p", "a", "2")).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }), "{error}");
    assert_eq!(store.get(&partition("p"), &key("a")).await.unwrap().unwrap().value, "1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closing_writes_what_is_queued() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(open(dir.path()));
    let mut tasks = tokio::task::JoinSet::new();
    for at in 0..200 {
        let store = store.clone();
        tasks.spawn(async move { store.commit(put("p", &at.to_string(), "1")).await.is_ok() });
    }
    tokio::task::yield_now().await;
    store.close();
    let done = tasks.join_all().await.into_iter().filter(|done| *done).count();
    drop(store);
    let head = open(dir.path()).head(&partition("p")).await.unwrap();
    assert_eq!(head.map_or(0, |head| head.position.revision), done as u64);
}

#[tokio::test]
async fn a_jump_of_the_wall_clock_expires_and_resurrects_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let day = Duration::from_secs(86_400);
    let start = Timestamp(1_700_000_000_000);
    let clock = ManualClock::new(start, 1);
    let store = EmbeddedStore::open(dir.path(), options(), clock.clone()).unwrap();
    let expires = Some(Duration::from_secs(60));
    let write = |name| Write::Put { key: key(name), value: "1".into(), expires };
    let there = async |store: &EmbeddedStore| {
        store.get(&partition("p"), &key("a")).await.unwrap().is_some()
    };
    store.commit(Commit::new(partition("p")).write(write("a"))).await.unwrap();
    clock.jump_to(start.plus(day));
    assert!(there(&store).await, "a jump ahead expired it");
    clock.advance(Duration::from_secs(60));
    assert!(!there(&store).await);
    clock.jump_to(start);
    assert!(!there(&store).await, "a jump back resurrected it");
    drop(store);
    // Over a restart with a clock that is behind, time stands where it stood.
    let behind = ManualClock::new(Timestamp(5), 1);
    let store = EmbeddedStore::open(dir.path(), options(), behind.clone()).unwrap();
    assert!(!there(&store).await, "a restart resurrected it");
    store.commit(Commit::new(partition("p")).write(write("a"))).await.unwrap();
    behind.advance(Duration::from_secs(59));
    assert!(there(&store).await);
    behind.advance(Duration::from_secs(1));
    assert!(!there(&store).await);
}

/// Copies a folder as a crash would leave it: without closing.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let (path, to) = (entry.as_ref().unwrap().path(), to.join(entry.unwrap().file_name()));
        if path.is_dir() {
            copy(&path, &to);
        } else {
            std::fs::copy(&path, &to).unwrap();
        }
    }
}

/// Where the journal's content ends.
fn end_of(journal: &[u8]) -> usize {
    journal.iter().rposition(|byte| *byte != 0).unwrap() + 1
}

#[tokio::test]
async fn a_torn_tail_is_cut_and_damage_before_it_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (live, crashed) = (dir.path().join("live"), dir.path().join("crashed"));
    let store = open(&live);
    for at in 0..20 {
        let commit = put("p", &at.to_string(), &"x".repeat(900)).append(STREAM, "y".repeat(900));
        store.commit(commit).await.unwrap();
    }
    copy(&live, &crashed);
    let mut whole = std::fs::read(journal(&crashed)).unwrap();
    let end = end_of(&whole);
    // Not all of what was allocated in advance, for the test's time.
    whole.truncate(end + 10_000);
    let reopened = |content: &[u8]| {
        std::fs::write(journal(&crashed), content).unwrap();
        EmbeddedStore::open(&crashed, options(), SystemClock::shared())
    };
    // The last batch torn, at each of its bytes or within: the others are there.
    for missing in [1, 100, 700, 1500] {
        let mut torn = whole.clone();
        torn[end - missing..end].fill(0);
        let store = reopened(&torn).unwrap();
        let head = store.head(&partition("p")).await.unwrap().unwrap();
        assert_eq!(head.position.revision, 19, "{missing} bytes missing");
    }
    let sector = (end - 1000) / 512 * 512;
    let mut torn = whole.clone();
    torn[sector..sector + 512].fill(0);
    assert_eq!(
        reopened(&torn).unwrap().head(&partition("p")).await.unwrap().unwrap().position.revision,
        19
    );
    // Anything before the last batch: refused, with the place.
    for at in (0..end - 3000).step_by(97) {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x10;
        let Err(error) = reopened(&damaged) else { panic!("byte {at} of {end}") };
        assert!(matches!(error, OpenError::Damaged { .. }), "byte {at}: {error}");
    }
}

#[tokio::test]
async fn a_damaged_table_is_told_and_leaves_the_rest_readable() {
    let dir = tempfile::tempdir().unwrap();
    let small = Options { memtable_bytes: 1 << 20, ..options() };
    let store = EmbeddedStore::open(dir.path(), small.clone(), SystemClock::shared()).unwrap();
    for at in 0..200 {
        // Incompressible, so that each is found in the file.
        let value = format!("needle-{at:03}-{}", "v".repeat(20_000));
        store.commit(put(&format!("p{at}"), "a", &value)).await.unwrap();
    }
    drop(store);
    let mut damaged = 0;
    for file in std::fs::read_dir(dir.path().join("db/keyspaces/1/tables")).unwrap() {
        let path = file.unwrap().path();
        let mut content = std::fs::read(&path).unwrap();
        let needle = b"needle-003-";
        let found = content.windows(needle.len()).position(|at| at == needle);
        if let Some(at) = found {
            content[at + 100] ^= 1;
            damaged += 1;
            std::fs::write(&path, content).unwrap();
        }
    }
    assert_eq!(damaged, 1, "the record is in a table");
    let store = EmbeddedStore::open(dir.path(), small, SystemClock::shared()).unwrap();
    let error = store.get(&partition("p3"), &key("a")).await.unwrap_err();
    assert!(matches!(error, Error::Corrupt { .. }), "{error}");
    for at in (0..200).filter(|at| *at != 3) {
        let record = store.get(&partition(&format!("p{at}")), &key("a")).await.unwrap();
        assert!(record.unwrap().value.starts_with(format!("needle-{at:03}").as_bytes()));
    }
    store.commit(put("p3", "b", "2")).await.unwrap();
}

#[tokio::test]
async fn what_was_half_made_is_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()));
    // As if the power had gone before it was finished.
    std::fs::remove_file(dir.path().join("made")).unwrap();
    std::fs::write(dir.path().join("db/version"), b"").unwrap();
    let store = open(dir.path());
    store.commit(put("p", "a", "1")).await.unwrap();
}

//! After a failed fsync nothing is acknowledged until the folder is opened again.
#![expect(clippy::unwrap_used, reason = "a test")]

use clock::SystemClock;
use std::process::Command;
use store::{Commit, Error, Key, Kind, Partition, Store};
use store_embedded::{EmbeddedStore, Options};
use types::TenantId;

fn partition() -> Partition {
    Partition::new(TenantId::system(), Kind::new("kind"), "p").unwrap()
}

fn open(dir: &str) -> EmbeddedStore {
    let options = Options { free_bytes_min: 0, ..Options::default() };
    EmbeddedStore::open(dir, options, SystemClock::shared()).unwrap()
}

/// Run by the test below in a process of its own; by itself it does nothing. Exits well if
/// commits failed from the third on, and reads went on.
#[tokio::test]
async fn child() {
    let Ok(dir) = std::env::var("FAILED_SYNC_CHILD") else { return };
    let store = open(&dir);
    let mut done = 0;
    for at in 0..6_u8 {
        let commit = Commit::new(partition()).put(Key::new([at]).unwrap(), vec![at]);
        match store.commit(commit).await {
            Ok(_) => {
                assert_eq!(done, at, "acknowledged after a failed sync");
                done += 1;
            }
            Err(error) => assert!(matches!(error, Error::Unavailable { .. }), "{error}"),
        }
    }
    assert_eq!(done, 2);
    let page = store.scan(&partition(), b"", None, 9).await.unwrap();
    assert_eq!((page.records.len(), page.position.revision), (2, 2), "only what is durable");
}

#[tokio::test]
async fn a_failed_sync_stops_the_writer() {
    for (call, error) in [("fdatasync", "EIO"), ("fdatasync", "ENOSPC")] {
        let work = tempfile::tempdir().unwrap();
        let dir = work.path().join("store");
        let output = Command::new("strace")
            .args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={call}"), "-e"])
            .arg(format!("inject={call}:error={error}:when=3"))
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "child", "--nocapture"])
            .env("FAILED_SYNC_CHILD", &dir)
            .output()
            .expect("this test needs strace (apt-get install strace)");
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{call} {error}: {told}");
        // Opened again, it has what was acknowledged, perhaps more, and works.
        let store = open(dir.to_str().unwrap());
        let revision = store.head(&partition()).await.unwrap().unwrap().position.revision;
        assert!((2..=3).contains(&revision), "{revision}");
        store.commit(Commit::new(partition())).await.unwrap();
    }
}

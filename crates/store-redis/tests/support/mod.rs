//! What the tests beside the suite share.
#![allow(dead_code, reason = "each binary needs a part of it")]

use clock::SystemClock;
use std::{sync::Arc, time::Duration};
use store::{Commit, CommitId, Key, Kind, Partition, SharedStore, Store, StreamName};
use store_redis::{OpenError, Options, RedisStore};
use types::TenantId;

pub(crate) const STREAM: StreamName = StreamName::new("stream");

/// Short times, so that what waits for them does not take long.
pub(crate) fn options() -> Options {
    Options {
        response_timeout: Duration::from_secs(1),
        connect_timeout: Duration::from_secs(1),
        backoff_max: Duration::from_millis(100),
        poll_every: Duration::from_millis(300),
        check_every: Duration::from_millis(200),
        ..Options::default()
    }
}

pub(crate) async fn try_open(url: &str) -> Result<RedisStore, OpenError> {
    RedisStore::open(url, options(), SystemClock::shared()).await
}

pub(crate) async fn open(url: &str) -> SharedStore {
    Arc::new(try_open(url).await.unwrap())
}

pub(crate) fn partition(id: &str) -> Partition {
    Partition::new(TenantId::new("tenant").unwrap(), Kind::new("kind"), id).unwrap()
}

pub(crate) fn key(name: &str) -> Key {
    Key::new(name).unwrap()
}

pub(crate) fn append(id: &str, value: &str) -> Commit {
    Commit::new(partition(id)).append(STREAM, value.to_owned())
}

pub(crate) fn id(number: u8) -> CommitId {
    CommitId([number; 16])
}

/// Commits until the store takes it, as a caller with an id may.
pub(crate) async fn commit_at_last(store: &dyn Store, commit: Commit) -> store::Committed {
    for _ in 0..200 {
        match store.commit(commit.clone()).await {
            Ok(committed) => return committed,
            Err(error) if error.is_retryable() => {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Err(error) => panic!("{error}"),
        }
    }
    panic!("the store does not come back");
}

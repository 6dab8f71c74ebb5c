//! What is refused when a store is opened, and what is not told.
#![expect(clippy::unwrap_used, reason = "a test")]

mod servers;

use servers::{open, schema, shared};
use store::{Commit, Key, Kind, Partition, Store, Survives};
use store_postgres::{OpenError, Options, PostgresStore};
use test_servers::{PASSWORD, Postgres, PostgresOptions, ROLE};
use types::TenantId;

fn partition(id: &str) -> Partition {
    Partition::new(TenantId::new("tenant").unwrap(), Kind::new("kind"), id).unwrap()
}

fn put(id: &str, value: &str) -> Commit {
    Commit::new(partition(id)).put(Key::new("a").unwrap(), value.to_owned())
}

async fn refusal(url: &str) -> OpenError {
    PostgresStore::open(Options::parse(url).unwrap()).await.expect_err("it is to be refused")
}

#[tokio::test]
async fn a_declared_level_that_the_server_does_not_keep_is_refused() {
    let safe = shared();
    let store = open(&safe.postgres.url(&format!("schema={}&survives=power-loss", schema()))).await;
    assert_eq!(store.capabilities().survives, Survives::PowerLoss);
    for (setting, value) in [("fsync", "off"), ("full_page_writes", "off")] {
        let unsafe_one = Postgres::start(PostgresOptions::default().set(setting, value)).unwrap();
        let error = refusal(&unsafe_one.url("survives=power-loss")).await;
        let said = error.to_string();
        assert!(matches!(error, OpenError::Survives { kept: Survives::Process, .. }), "{said}");
        assert!(said.contains(setting), "{said}");
        let store = open(&unsafe_one.url("survives=process")).await;
        assert_eq!(store.capabilities().survives, Survives::Process);
    }
}

/// Each commit lies on the disk when it is acknowledged.
async fn check_flushed(server: &Postgres, store: &PostgresStore) {
    for _ in 0..5 {
        let before = server.sql(ROLE, "SELECT pg_current_wal_insert_lsn()").unwrap();
        store.commit(put("p", "1")).await.unwrap();
        let flushed = format!("SELECT pg_current_wal_flush_lsn() > '{before}'");
        assert_eq!(server.sql(ROLE, &flushed).unwrap(), "t");
    }
}

/// The server's default may be not to wait for the disk, from the start or from now on.
#[tokio::test]
async fn a_commit_is_synchronous_whatever_the_default_is() {
    // So that nothing else writes what a commit did not wait for.
    let slow = PostgresOptions::default().set("wal_writer_delay", "10s");
    let server = Postgres::start(slow).unwrap();
    let is_default = |value: &str| {
        server.sql(ROLE, &format!("ALTER SYSTEM SET synchronous_commit = {value}")).unwrap();
        server.sql(ROLE, "SELECT pg_reload_conf()").unwrap();
        std::thread::sleep(std::time::Duration::from_millis(200));
    };
    let store = open(&server.url("survives=power-loss&hints=poll")).await;
    check_flushed(&server, &store).await;
    is_default("off");
    check_flushed(&server, &store).await;
    let store = open(&server.url("survives=power-loss&hints=poll")).await;
    check_flushed(&server, &store).await;
}

#[tokio::test]
async fn a_schema_of_a_newer_version_is_refused_with_advice() {
    let servers = shared();
    let schema = schema();
    let url = servers.postgres.url(&format!("schema={schema}"));
    drop(open(&url).await);
    drop(open(&url).await);
    servers.postgres.sql(ROLE, &format!("INSERT INTO {schema}.migrations VALUES (9)")).unwrap();
    let error = refusal(&url).await;
    assert!(matches!(error, OpenError::Newer { found: 9, known: 1, .. }), "{error}");
    assert!(error.to_string().contains("use the version that migrated it"), "{error}");
}

#[tokio::test]
async fn two_stores_may_open_an_empty_database_at_once() {
    let servers = shared();
    let url = servers.postgres.url(&format!("schema={}", schema()));
    let all = futures_util::future::join_all((0..6).map(|_| open(&url))).await;
    for (at, store) in all.iter().enumerate() {
        let committed = store.commit(put("p", "1")).await.unwrap();
        assert_eq!(committed.position.revision, at as u64 + 1);
    }
}

#[tokio::test]
async fn a_schema_that_the_operator_made_is_enough() {
    let servers = shared();
    let schema = schema();
    let text = format!(
        "CREATE ROLE guest LOGIN PASSWORD '{PASSWORD}'; CREATE SCHEMA {schema} AUTHORIZATION guest"
    );
    servers.postgres.sql(ROLE, &text).unwrap();
    let url = servers.postgres.url(&format!("schema={schema}"));
    let url = url.replace("//crosstown:", "//guest:");
    open(&url).await.commit(put("p", "1")).await.unwrap();
    // A schema of its own it may not make.
    let error = refusal(&url.replace(&schema, "another")).await;
    assert!(matches!(error, OpenError::Server { .. }), "{error}");
}

#[tokio::test]
async fn the_password_is_never_told() {
    let servers = shared();
    let url = servers.postgres.url(&format!("schema={}", schema()));
    let store = open(&url).await;
    let mut told = format!("{store:?} {:?} {:?}", store.capabilities(), Options::parse(&url));
    let port = servers.postgres.port().to_string();
    for wrong in [
        url.replace(&port, "1"),
        url.replace(PASSWORD, &format!("{PASSWORD}-wrong")),
        url.replace("/crosstown?", "/nowhere?"),
        format!("{url}&sslmode=require"),
    ] {
        let error = refusal(&wrong).await;
        told += &format!(" {error} {error:?}");
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            told += &format!(" {cause} {cause:?}");
            source = cause.source();
        }
    }
    told += &format!("{:?}", Options::parse(&format!("{url}&unknown=1")));
    assert!(!told.contains(PASSWORD), "{told}");
    assert!(told.contains("127.0.0.1"));
}

//! Another user of the same database sees nothing.
#![expect(clippy::unwrap_used, reason = "a test")]

mod servers;

use servers::{open, schema, shared};
use store::{Commit, CommitId, Key, Kind, Partition, Store, StreamName, Write};
use test_servers::ROLE;
use types::TenantId;

const TABLES: [&str; 7] =
    ["migrations", "lives", "heads", "records", "entries", "trimmed", "commit_ids"];

#[tokio::test]
async fn another_role_sees_and_changes_nothing() {
    let servers = shared();
    let (schema, server) = (schema(), &servers.postgres);
    let store = open(&server.url(&format!("schema={schema}"))).await;
    let tenant = TenantId::new("tenant").unwrap();
    let p = Partition::new(tenant, Kind::new("kind"), "p").unwrap();
    let stream = StreamName::new("stream");
    let key = Key::new("a").unwrap();
    let commit = Commit::new(p.clone()).put(key.clone(), "1").append(stream.clone(), "one");
    store.commit(commit.id(CommitId([1; 16]))).await.unwrap();
    server.sql(ROLE, "CREATE ROLE stranger").unwrap();
    let as_stranger = |text: &str| server.sql(ROLE, &format!("SET ROLE stranger; {text}"));
    for table in TABLES {
        let error = as_stranger(&format!("SELECT count(*) FROM {schema}.{table}")).unwrap_err();
        assert!(error.to_string().contains("permission denied"), "{error}");
    }
    // A grant by mistake still shows nothing, and changes nothing.
    let grants = format!(
        "GRANT USAGE ON SCHEMA {schema} TO stranger; \
         GRANT ALL ON ALL TABLES IN SCHEMA {schema} TO stranger"
    );
    server.sql(ROLE, &grants).unwrap();
    for table in TABLES {
        let count = format!("SELECT count(*) FROM {schema}.{table}");
        assert_eq!(as_stranger(&count).unwrap(), "0", "{table}");
        assert_ne!(table == "trimmed", server.sql(ROLE, &count).unwrap() != "0", "{table}");
        as_stranger(&format!("DELETE FROM {schema}.{table}")).unwrap();
    }
    let insert = format!("INSERT INTO {schema}.lives VALUES (99, 'mine', 1)");
    let error = as_stranger(&insert).unwrap_err();
    assert!(error.to_string().contains("row-level security"), "{error}");
    // All is as it was.
    assert_eq!(store.get(&p, &key).await.unwrap().unwrap().value, "1");
    assert_eq!(store.read(&p, &stream, 1, 9).await.unwrap().len(), 1);
    let trim = Write::Trim { stream, first: 2 };
    assert_eq!(store.commit(Commit::new(p).write(trim)).await.unwrap().position.revision, 2);
}

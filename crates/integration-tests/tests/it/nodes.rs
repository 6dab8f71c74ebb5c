//! Two nodes on one PostgreSQL.

use client::{Client, Event};
use integration_tests::{Server, Socket};
use serde_json::{Value as Json, json};
use test_servers::{Postgres, PostgresOptions};

const SESSIONS: &str = "/crosstown/v1/sessions";

fn postgres() -> Postgres {
    Postgres::start(PostgresOptions::default()).unwrap()
}

#[tokio::test]
async fn what_one_node_is_told_the_other_knows() {
    let postgres = postgres();
    let [mut here, there] = [(); 2].map(|()| Server::start_on(&postgres.url(""), ""));

    let session: Json = here.client("acme", "ann").post(SESSIONS, &json!({})).await.unwrap();
    let token = session["token"].as_str().unwrap();
    let by_token = Client::new(&there.base(), token).unwrap();
    let who: Json = by_token.get("/crosstown/v1/whoami").await.unwrap();
    assert_eq!((&who["principal"], &who["session"]), (&json!("ann"), &session["id"]));

    let key = here.api_key("acme", "orders").await;
    let service = |node: &Server| Client::new(&node.base(), &key).unwrap();
    let mut follower = service(&there).document("pillar", "sales").follow();
    assert!(matches!(follower.next().await.unwrap(), Event::Snapshot(_)));
    let mut socket = Socket::connect(&there.base(), &there.token("acme", "ann")).await;
    let channel = json!({ "channel": "state:pillar:sales", "recoverable": true });
    socket.ask("subscribe", channel).await.unwrap();

    let (document, same) =
        (service(&here).document("pillar", "sales"), service(&there).document("pillar", "sales"));
    let mut revisions = Vec::new();
    for n in 0..20 {
        // Both nodes write, and neither overwrites what it has not seen.
        let writer = if n % 2 == 0 { &document } else { &same };
        let key = format!("order-{}", n / 2);
        let last = if n % 2 == 0 { 0 } else { revisions[n - 1] };
        revisions.push(writer.put(&key, &json!({ "n": n }), Some(last)).await.unwrap().revision);
    }
    assert!(revisions.is_sorted_by(|a, b| a < b));
    let stale = same.put("order-0", &json!({}), Some(revisions[0])).await.unwrap_err();
    assert_eq!(stale.code(), Some("conflict"));

    let mut seen = 0;
    while seen < *revisions.last().unwrap() {
        if let Event::Change(change) = follower.next().await.unwrap() {
            assert!(change.revision > seen);
            seen = change.revision;
        }
    }
    let mut pushed = Vec::new();
    while pushed.len() < revisions.len() {
        pushed.push(socket.push().await["pub"]["data"]["revision"].as_u64().unwrap());
    }
    assert_eq!(pushed, revisions);

    // A node that ends takes nothing along.
    here.kill();
    let read: Json = by_token.get("/crosstown/v1/whoami").await.unwrap();
    assert_eq!(read["principal"], "ann");
    same.put("order-0", &json!({ "after": true }), None).await.unwrap();
}

#[tokio::test]
async fn a_store_that_is_away_is_an_error_and_comes_back() {
    let mut postgres = postgres();
    let node = Server::start_on(&postgres.url(""), "");
    let document = node.client("acme", "ann").document("user", "ann");
    let first = document.put("a", &json!(1), None).await.unwrap();
    postgres.kill().unwrap();
    let refused = document.put("a", &json!(2), None).await.unwrap_err();
    assert_eq!(refused.code(), Some("store_unavailable"));
    postgres.restart().unwrap();
    let mut tries = 0;
    let again = loop {
        match document.put("a", &json!(3), Some(first.revision)).await {
            Ok(again) => break again,
            Err(error) => assert_eq!(error.code(), Some("store_unavailable")),
        }
        tries += 1;
        assert!(tries < 100, "the store does not come back");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    };
    assert!(again.revision > first.revision);
}

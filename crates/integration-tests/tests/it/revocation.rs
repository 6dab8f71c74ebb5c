//! Sessions that end on every node at once, and a node that cannot hear of it.

use crate::sessions::*;
use futures_util::{StreamExt, stream};
use integration_tests::{Server, Socket};
use serde_json::{Value as Json, json};
use std::time::{Duration, Instant};
use test_servers::{Appends, Postgres, PostgresOptions, Redis, RedisOptions};

const SESSIONS_REVOKED: usize = 1_000;
const AT_ONCE: usize = 32;

/// How long sockets may take to close after the answer: a second, as is promised, if
/// `CROSSTOWN_REVOKED_WITHIN_MS` or an idle machine (`--long`) says so.
fn within() -> Duration {
    let given = std::env::var("CROSSTOWN_REVOKED_WITHIN_MS").ok();
    Duration::from_millis(given.and_then(|text| text.parse().ok()).unwrap_or(10_000))
}

async fn all_end_on_both_nodes(keys: &str) {
    let nodes = [(); 2].map(|()| Server::start_on(keys, ""));
    let crm = service(&nodes[0]).await;
    let making = (0..SESSIONS_REVOKED).map(|number| {
        let crm = crm.clone();
        async move { made(&crm, &format!("user-{number}"), json!({})).await }
    });
    let sessions: Vec<Made> = stream::iter(making).buffered(AT_ONCE).collect().await;
    let opening = sessions.iter().enumerate().map(|(number, session)| {
        let base = nodes[number % 2].base();
        async move { Socket::connect(&base, &session.token).await }
    });
    let sockets: Vec<Socket> = stream::iter(opening).buffered(AT_ONCE).collect().await;
    let closing: Vec<_> = sockets
        .into_iter()
        .map(|mut socket| {
            tokio::spawn(async move {
                socket.close_code().await;
                (Instant::now(), socket.closed)
            })
        })
        .collect();

    let answer = end(&crm, "everyone=true").await;
    let answered = Instant::now();
    assert_eq!(answer, json!({ "ended": SESSIONS_REVOKED }));
    let mut slowest = Duration::ZERO;
    for closing in closing {
        let (at, closed) = closing.await.unwrap();
        slowest = slowest.max(at.saturating_duration_since(answered));
        let (code, why) = closed.expect("a close frame");
        assert_eq!((code, &*why), (3503, "session ended: all ended"));
    }
    println!("the last of {SESSIONS_REVOKED} sockets closed {slowest:?} after the answer");
    assert!(slowest <= within(), "{slowest:?}");
    let asking = sessions.iter().flat_map(|session| {
        nodes.iter().map(|node| async {
            session.client(node).get::<Json>("/crosstown/v1/whoami").await.is_ok()
        })
    });
    let let_in: Vec<bool> = stream::iter(asking).buffered(AT_ONCE).collect().await;
    assert_eq!(let_in.iter().filter(|is| **is).count(), 0);
    let told = events(&crm, &sessions[7], "kind=revoked").await;
    assert_eq!(told[0]["reason"], "all ended");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_sessions_with_sockets_end_on_both_nodes_on_redis() {
    let redis = Redis::start(RedisOptions::appending(Appends::Always)).unwrap();
    all_end_on_both_nodes(&format!("durable = \"{}\"", redis.url())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_sessions_with_sockets_end_on_both_nodes_on_postgres() {
    let postgres = Postgres::start(PostgresOptions::default()).unwrap();
    all_end_on_both_nodes(&format!("durable = \"{}\"", postgres.url(""))).await;
}

#[tokio::test]
async fn a_handover_on_one_node_ends_what_was_before_on_the_other() {
    let redis = Redis::start(RedisOptions::appending(Appends::Always)).unwrap();
    let keys = format!("durable = \"{}\"", redis.url());
    let nodes = [(); 2].map(|()| Server::start_on(&keys, ""));
    let crm = service(&nodes[0]).await;
    let session = made(&crm, "ann", json!({})).await;
    let there = session.client(&nodes[1]);
    there.get::<Json>("/crosstown/v1/whoami").await.unwrap();
    let mut socket = Socket::connect(&nodes[1].base(), &session.token).await;
    let offered: Json = crm.post(&format!("{}/handover", session.path), &json!({})).await.unwrap();
    let taken: Json = crm
        .post(&format!("{SESSIONS}/handover"), &json!({ "code": offered["code"] }))
        .await
        .unwrap();
    assert_eq!(socket.close_code().await, 3503);
    assert_eq!(socket.closed.unwrap().1, "session handed over");
    until(
        "the old token is refused there",
        async || there.get::<Json>("/crosstown/v1/whoami").await.is_err(),
        |refused| *refused,
    )
    .await;
    let now = Made::of(&taken);
    now.client(&nodes[1]).get::<Json>("/crosstown/v1/whoami").await.unwrap();
    let mut socket = Socket::connect(&nodes[1].base(), &now.token).await;
    assert!(socket.rpc("session.get", json!({})).await.is_ok());
}

#[tokio::test]
async fn a_node_that_is_cut_off_serves_sessions_that_it_knows_up_to_a_stated_age() {
    let mut redis = Redis::start(RedisOptions::appending(Appends::Always)).unwrap();
    let keys = format!("durable = \"{}\"", redis.url());
    let config = "[identity]\ntrusted_for = \"100ms\"\ncopies_for = \"4s\"\n";
    let server = Server::start_on(&keys, config);
    let crm = service(&server).await;
    let [known, unknown] = [made(&crm, "ann", json!({})).await, made(&crm, "bob", json!({})).await];
    let [known, unknown] = [&known, &unknown].map(|session| session.client(&server));
    let whoami = "/crosstown/v1/whoami";
    known.get::<Json>(whoami).await.unwrap();
    let checked = Instant::now();
    redis.kill().unwrap();
    assert_eq!(refused(unknown.get(whoami).await).await, "store_unavailable");
    let mut served = 0;
    let code = loop {
        match known.get::<Json>(whoami).await {
            Ok(_) => served += 1,
            Err(error) => break error.code().map(ToOwned::to_owned),
        }
        assert!(checked.elapsed() < Duration::from_secs(30), "it is served for ever");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!(code.as_deref(), Some("store_unavailable"));
    assert!(served > 0 && checked.elapsed() >= Duration::from_secs(3), "{served}");
    redis.start_again().unwrap();
    until("all is as before", async || known.get::<Json>(whoami).await.is_ok(), |is| *is).await;
}

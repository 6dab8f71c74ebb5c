//! Two nodes on the same stores.

mod affinity;
mod realms;
mod registration;
mod sockets;
mod stores;

use affinity::*;
use realms::*;
use registration::*;
use sockets::*;
use stores::{Stores, cluster_and_postgres, postgres, redis, valkey_and_postgres};

use client::{Client, Event};
use integration_tests::{Server, Socket};
use serde_json::{Value as Json, json};
use std::time::Duration;
use test_servers::{Postgres, PostgresOptions, Redis, RedisOptions};

const SESSIONS: &str = "/crosstown/v1/sessions";
/// Channels that keep history, and channels that keep none.
const CONFIG: &str = "[realtime]\npresence_ttl = \"3s\"\nping_interval = \"10m\"\n\
    [[realtime.namespaces]]\nname = \"content\"\nsubscribe = { pillars = [\"content\"] }\n\
    [[realtime.namespaces]]\nname = \"lobby\"\npresence_map = true\njoin_leave = \"all\"\n\
    [[realtime.namespaces]]\nname = \"loud\"\njoin_leave = \"all\"\n\
    [[realtime.namespaces]]\nname = \"news\"\nhistory_size = 100\n\
    [[realtime.namespaces]]\nname = \"now\"\nhistory_size = 0\n\
    [[realtime.namespaces]]\nname = \"brief\"\nmap = true\nentry_ttl = \"2s\"\n";

fn two_nodes(stores: &Stores) -> [Server; 2] {
    [(); 2].map(|()| Server::start_on(&stores.keys, CONFIG))
}

macro_rules! on_each {
    ($($check:ident)*) => { $(
        mod $check {
            #[tokio::test]
            async fn on_postgres() { super::$check(super::postgres()).await }
            #[tokio::test]
            async fn on_redis() { super::$check(super::redis()).await }
            #[tokio::test]
            async fn on_a_cluster_and_postgres() {
                super::$check(super::cluster_and_postgres()).await;
            }
            #[tokio::test]
            async fn on_valkey_and_postgres() {
                super::$check(super::valkey_and_postgres()).await;
            }
        }
    )* };
}

on_each! {
    what_one_node_is_told_the_other_knows
    publications_reach_the_sockets_of_every_node
    who_is_on_one_node_the_other_knows
    who_was_on_a_node_that_died_leaves_once
    entries_end_once_whichever_node_owns_them
    a_stream_is_spoken_to_through_any_node
    what_is_ordered_on_one_node_is_done_on_the_other
    channels_and_connections_are_counted_over_all_nodes
    a_trace_shows_what_passes_through_every_node_and_ends_with_its_owner
    what_one_node_revokes_the_other_refuses
    what_a_session_works_in_every_node_knows
    what_a_session_is_bound_to_leads_both_nodes
    both_nodes_report_the_traffic_of_both
    seconds_of_both_nodes_reach_who_follows_at_one
    who_registers_on_one_node_is_called_by_both
    what_a_realm_publishes_on_one_node_holds_on_both
}

async fn what_one_node_is_told_the_other_knows(stores: Stores) {
    let [mut here, there] = two_nodes(&stores);

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

/// Neither a cached credential nor an open socket outlives what it rests on.
async fn what_one_node_revokes_the_other_refuses(stores: Stores) {
    let [here, there] = two_nodes(&stores);
    let ann = here.client("acme", "ann");
    for suspended in [false, true] {
        let session: Json = ann.post(SESSIONS, &json!({})).await.unwrap();
        let by_token = Client::new(&there.base(), session["token"].as_str().unwrap()).unwrap();
        let mut socket = Socket::connect(&there.base(), session["token"].as_str().unwrap()).await;
        by_token.get::<Json>("/crosstown/v1/whoami").await.unwrap();
        let path = format!("{SESSIONS}/{}", session["id"].as_str().unwrap());
        if suspended {
            let update = json!({ "status": "suspended" });
            ann.patch::<Json>(&path, &update).await.unwrap();
        } else {
            ann.delete(&path).await.unwrap();
        }
        let code = if suspended { "forbidden" } else { "unauthenticated" };
        refused(&by_token, code).await;
        assert_eq!(socket.push().await, Json::Null);
        assert!(socket.closed.is_some());
    }
    let key = here.api_key("acme", "orders").await;
    let service = Client::new(&there.base(), &key).unwrap();
    service.get::<Json>("/crosstown/v1/whoami").await.unwrap();
    let id = key.split('.').nth(1).unwrap();
    here.admin().delete(&format!("/api-keys/acme/{id}")).await.unwrap();
    refused(&service, "unauthenticated").await;
}

/// Neither a cached credential nor a subscription outlives the pillar that it stands on.
async fn what_a_session_works_in_every_node_knows(stores: Stores) {
    let [here, there] = two_nodes(&stores);
    let key = here.api_key("acme", "crm").await;
    let service = Client::new(&here.base(), &key).unwrap();
    let wish = json!({ "pillars": ["content"] });
    let session: Json = service.post(&format!("{SESSIONS}?user=ann"), &wish).await.unwrap();
    let (path, token) =
        (format!("{SESSIONS}/{}", session["id"].as_str().unwrap()), session["token"].as_str());
    let token = token.unwrap();
    let by_token = Client::new(&there.base(), token).unwrap();
    let works_in = async || {
        let who: Json = by_token.get("/crosstown/v1/whoami").await.unwrap();
        who["pillars"].clone()
    };
    assert_eq!(works_in().await, json!(["content"]));
    let mut sockets =
        [Socket::connect(&here.base(), token).await, Socket::connect(&there.base(), token).await];
    let content = json!({ "channel": "content:all" });
    for socket in &mut sockets {
        socket.ask("subscribe", content.clone()).await.unwrap();
    }
    let _: Json = service.patch(&path, &json!({ "pillars": ["insights"] })).await.unwrap();
    for socket in &mut sockets {
        assert_eq!(socket.push().await["unsubscribe"]["code"], 2502);
        assert_eq!(socket.ask("subscribe", content.clone()).await.unwrap_err()["code"], 103);
    }
    // The node whose socket was told knows it for its requests as well.
    assert_eq!(works_in().await, json!(["insights"]));
    let _: Json = service.patch(&path, &wish).await.unwrap();
    let until = tokio::time::Instant::now() + Duration::from_secs(15);
    while sockets[1].ask("subscribe", content.clone()).await.is_err() {
        assert!(tokio::time::Instant::now() < until, "the other node does not see it");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    loop {
        // A node is known to the others within seconds.
        let path = "/crosstown/v1/connections?pillar=content";
        let listed: Json = service.get(path).await.unwrap();
        if listed["count"] == 2 {
            return;
        }
        assert!(tokio::time::Instant::now() < until, "{listed}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// And of a node that has ended, and of earlier lives.
async fn both_nodes_report_the_traffic_of_both(stores: Stores) {
    let [mut here, there] = two_nodes(&stores);
    let mut asked = 0;
    for node in [&here, &there, &here] {
        let ann = node.client("acme", "ann");
        for _ in 0..20 {
            ann.get::<Json>("/crosstown/v1/whoami").await.unwrap();
            asked += 1;
        }
        node.client("umbrella", "eve").get::<Json>("/crosstown/v1/whoami").await.unwrap();
    }
    for node in [&here, &there] {
        reports(node, asked).await;
    }
    here.kill();
    here.start_again();
    for node in [&here, &there] {
        reports(node, asked).await;
    }
}

/// Waits until `node` reports exactly so many requests of ann's.
async fn reports(node: &Server, asked: u64) {
    let until = tokio::time::Instant::now() + Duration::from_secs(20);
    loop {
        let admin = node.admin();
        let all: Json = admin.get("/analytics/traffic?range=1h").await.unwrap();
        let by_tenant =
            ["acme", "umbrella"].map(|tenant| all["tenants"][tenant]["requests"].as_u64());
        if by_tenant == [Some(asked), Some(3)] {
            assert!(all["total"]["latency_ms_p99"].as_f64() > Some(0.0), "{all}");
            return;
        }
        assert!(tokio::time::Instant::now() < until, "{all}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn seconds_of_both_nodes_reach_who_follows_at_one(stores: Stores) {
    let [here, there] = two_nodes(&stores);
    let key = here.api_key("acme", "crm").await;
    let mut socket = Socket::connect(&here.base(), &key).await;
    socket.ask("subscribe", json!({ "channel": "$traffic" })).await.unwrap();
    let ann = there.client("acme", "ann");
    let of_route = |second: &Json, name: &str| {
        let routes = second["routes"].as_array().unwrap().iter();
        let own = routes.filter(|route| route["route"] == name);
        own.map(|route| route["requests"].as_u64().unwrap()).sum::<u64>()
    };
    // Until the other node has heard that somebody follows.
    let (mut first, until) = (None, tokio::time::Instant::now() + Duration::from_secs(60));
    let other = loop {
        let push = socket.push().await;
        assert!(tokio::time::Instant::now() < until, "only one node tells");
        let node = push["pub"]["data"]["node"].clone();
        let first = first.get_or_insert_with(|| node.clone());
        if node != *first {
            break node;
        }
    };
    for _ in 0..20 {
        ann.get::<Json>("/crosstown/v1/whoami").await.unwrap();
    }
    let mut told = 0;
    while told < 20 {
        let push = socket.push().await;
        assert!(tokio::time::Instant::now() < until, "{told} of 20");
        let second = &push["pub"]["data"];
        let count = of_route(second, "_api");
        assert!(count == 0 || second["node"] == other, "{push}");
        told += count;
    }
    assert_eq!(told, 20);
}

/// Well before a cached credential would have been asked for again by itself.
async fn refused(caller: &Client, code: &str) {
    let until = tokio::time::Instant::now() + Duration::from_secs(15);
    loop {
        match caller.get::<Json>("/crosstown/v1/whoami").await {
            Err(error) => return assert_eq!(error.code(), Some(code)),
            Ok(_) => assert!(tokio::time::Instant::now() < until, "it is still let in"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_store_that_is_away_is_an_error_and_comes_back() {
    let mut postgres = Postgres::start(PostgresOptions::default()).unwrap();
    let keys = format!("durable = \"{}\"", postgres.url(""));
    let node = Server::start_on(&keys, "");
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
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    assert!(again.revision > first.revision);
}

/// A Redis that keeps nothing forgets a channel; then nobody may come back to it as if nothing
/// had happened, however many publications come after.
#[tokio::test]
async fn what_a_store_has_lost_is_not_passed_over() {
    let mut redis = Redis::start(RedisOptions::default()).unwrap();
    let postgres = Postgres::start(PostgresOptions::default()).unwrap();
    let keys = format!("hot = \"{}\"\ndurable = \"{}\"", redis.url(), postgres.url(""));
    let node = Server::start_on(&keys, CONFIG);
    let press = Client::new(&node.base(), &node.api_key("acme", "press").await).unwrap();
    let ann = node.token("acme", "ann");
    let subscribe = async |position: Option<&Json>| {
        let mut wish = json!({ "channel": "news:all", "recoverable": true });
        if let Some(position) = position {
            wish["recover"] = true.into();
            wish["epoch"] = position["epoch"].clone();
            wish["offset"] = 3.into();
        }
        let until = tokio::time::Instant::now() + Duration::from_secs(20);
        loop {
            // A session is lost with the store; whoever connects anew gets another one.
            let mut socket = Socket::connect(&node.base(), &ann).await;
            match socket.ask("subscribe", wish.clone()).await {
                Ok(start) => return start,
                Err(error) => assert!(tokio::time::Instant::now() < until, "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let publish = async |count: usize| {
        let until = tokio::time::Instant::now() + Duration::from_secs(20);
        for n in 0..count {
            while let Err(error) = press.post::<Json>(&publications("news:all"), &json!(n)).await {
                assert!(tokio::time::Instant::now() < until, "{error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    };
    let start = subscribe(None).await;
    publish(3).await;
    let whole = subscribe(Some(&start)).await;
    assert_eq!(whole["recovered"], true);
    redis.kill().unwrap();
    redis.start_again().unwrap();
    publish(10).await;
    let after = subscribe(Some(&start)).await;
    assert_ne!(after["recovered"], true, "{after}");
    assert_ne!(after["epoch"], start["epoch"]);
}

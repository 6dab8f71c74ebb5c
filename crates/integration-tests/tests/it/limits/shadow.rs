//! Sessions as subjects, and limits in shadow.

use super::{WHOAMI, callers, ready, settled, two_nodes};
use client::Client;
use http::Method;
use integration_tests::{Server, Socket};
use serde_json::{Value as Json, json};
use std::time::{Duration, Instant};
use test_servers::{Appends, Redis, RedisOptions};

async fn statuses(caller: &Client, count: usize) -> Vec<u16> {
    let mut statuses = Vec::new();
    for _ in 0..count {
        let answer = caller.call(Method::GET, WHOAMI, None).await.unwrap();
        statuses.push(answer.status.as_u16());
    }
    statuses
}

async fn shadow(node: &Server, range: &str) -> Json {
    let report: Json = node.admin().get(&format!("/limits/shadow?range={range}")).await.unwrap();
    report["limits"][0].clone()
}

#[tokio::test]
async fn a_session_is_counted_by_itself_over_requests_and_commands() {
    let server = Server::start(
        "[[limits]]\nname = \"s\"\nper = \"session\"\nrequests = 3\nperiod = \"1h\"\n\
         routes = [\"_api\", \"_commands\"]\n",
    );
    ready(&server).await;
    let bob = server.client("acme", "bob");
    let mut sessions = Vec::new();
    for _ in 0..2 {
        let session: Json = bob.post("/crosstown/v1/sessions", &json!({})).await.unwrap();
        sessions.push(session["token"].as_str().unwrap().to_owned());
    }
    assert_eq!(statuses(&bob, 2).await, [200, 429], "without a session he is one");
    let first = Client::new(&server.base(), &sessions[0]).unwrap();
    assert_eq!(statuses(&first, 2).await, [200, 200]);
    let mut socket = Socket::connect(&server.base(), &sessions[0]).await;
    socket.ask("subscribe", json!({ "channel": "room" })).await.unwrap();
    let refused = socket.ask("publish", json!({ "channel": "room", "data": 1 })).await;
    assert_eq!(refused.unwrap_err()["code"], 111);
    assert_eq!(statuses(&first, 1).await, [429]);
    let second = Client::new(&server.base(), &sessions[1]).unwrap();
    assert_eq!(statuses(&second, 4).await, [200, 200, 200, 429]);
}

#[tokio::test]
async fn a_limit_in_shadow_tells_whom_it_would_refuse() {
    let server = Server::start(
        "[[limits]]\nname = \"next\"\nper = \"user\"\nrequests = 3\nperiod = \"1h\"\n\
         mode = \"shadow\"\n",
    );
    ready(&server).await;
    let ann = server.client("acme", "ann");
    for _ in 0..4 {
        let answer = ann.call(Method::GET, WHOAMI, None).await.unwrap();
        assert_eq!(answer.status, 200);
        for name in ["ratelimit", "ratelimit-policy", "retry-after"] {
            assert!(!answer.headers.contains_key(name), "{name}");
        }
    }
    assert_eq!(statuses(&server.client("acme", "bob"), 3).await, [200; 3]);
    let mut socket = Socket::connect(&server.base(), &server.token("acme", "ann")).await;
    socket.ask("subscribe", json!({ "channel": "room" })).await.unwrap();
    for range in ["1m", "5m", "1h"] {
        let told = shadow(&server, range).await;
        assert_eq!((&told["limit"], &told["refused"]), (&json!("next"), &json!(2)), "{told}");
        let ann = json!({ "tenant": "acme", "kind": "user", "principal": "ann" });
        let subjects = json!([{ "subject": ann, "refused": 2, "over_max": 0 }]);
        assert_eq!(told["subjects"], subjects);
    }
    let count = "crosstown_limit_shadow_refused_total{limit=\"next\"}";
    assert_eq!(server.metric(count).await, 2);
    let wrong = server.admin().get::<Json>("/limits/shadow?range=1y").await.unwrap_err();
    assert_eq!(wrong.code(), Some("bad_request"));
    let key = Client::new(&server.admin_base(), &server.token("acme", "ann")).unwrap();
    let wrong = key.get::<Json>("/limits/shadow").await.unwrap_err();
    assert_eq!(wrong.code(), Some("unauthenticated"));
}

#[tokio::test]
async fn two_nodes_tell_of_a_shadow_what_one_would() {
    let redis = Redis::start(RedisOptions::appending(Appends::Always)).unwrap();
    let limits = "[[limits]]\nname = \"next\"\nper = \"user\"\nrequests = 50\nperiod = \"1h\"\n\
        mode = \"shadow\"\n";
    let nodes = two_nodes(&format!("durable = \"{}\"", redis.url()), limits);
    settled(&nodes).await;
    let users: Vec<String> = (0..6).map(|n| format!("user-{n}")).collect();
    for user in &users {
        for caller in callers(&nodes, user) {
            assert_eq!(statuses(&caller, 40).await, [200; 40]);
        }
    }
    // Of a user's 80, 30 are too many. Who owns no key hears so a little later, and may hold a
    // share that the other could have used.
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        let mut refused = 0;
        for node in &nodes {
            refused += shadow(node, "1m").await["refused"].as_u64().unwrap();
        }
        assert!(refused <= 6 * 40, "{refused}");
        if refused >= 6 * 30 {
            return;
        }
        assert!(Instant::now() < until, "{refused} of 180");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

//! What requests cost, known before and afterwards, and making a limit whole again.

use super::{callers, ready, settled, two_nodes};
use client::Client;
use http::Method;
use integration_tests::{Server, Socket};
use serde_json::{Value as Json, json};
use std::time::{Duration, Instant};
use test_servers::{Appends, Redis, RedisOptions};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

/// A service whose answers say that they cost what the last part of the path says.
async fn service() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut seen, mut buffer) = (Vec::new(), [0; 4096]);
                while let Ok(read @ 1..) = stream.read(&mut buffer).await {
                    seen.extend_from_slice(&buffer[..read]);
                    let text = String::from_utf8_lossy(&seen).into_owned();
                    let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
                    let length = head.lines().find_map(|line| {
                        line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok()
                    });
                    if body.len() < length.unwrap_or(0) {
                        continue;
                    }
                    let path = head.split(' ').nth(1).unwrap();
                    let cost = path.rsplit('/').next().unwrap();
                    let answer = format!(
                        "HTTP/1.1 200 OK\r\nx-tokens-used: {cost}\r\ncontent-length: 100\r\n\r\n{:100}",
                        ""
                    );
                    seen.clear();
                    if stream.write_all(answer.as_bytes()).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    port
}

async fn config(limits: &str) -> String {
    let port = service().await;
    format!(
        "[services.s]\ninstances = [\"http://127.0.0.1:{port}\"]\n\
         [[routes]]\nname = \"ask\"\nservice = \"s\"\nprefix = \"/ask\"\n\
         [[routes]]\nname = \"search\"\nservice = \"s\"\nprefix = \"/search\"\n{limits}"
    )
}

fn limit(name: &str, requests: u64, more: &str) -> String {
    format!(
        "[[limits]]\nname = \"{name}\"\nper = \"user\"\nrequests = {requests}\nperiod = \"1h\"\n\
         {more}\n"
    )
}

/// The status, and how much is left.
async fn ask(caller: &Client, path: &str, body: Option<Vec<u8>>) -> (u16, u64) {
    let method = if body.is_some() { Method::POST } else { Method::GET };
    let answer = caller.call(method, path, body).await.unwrap();
    assert!(!answer.headers.contains_key("x-tokens-used"), "{:?}", answer.headers);
    let left = answer.headers["ratelimit"].to_str().unwrap().to_owned();
    let left = left.split("r=").nth(1).unwrap().split(';').next().unwrap().parse().unwrap();
    (answer.status.as_u16(), left)
}

#[tokio::test]
async fn an_answer_tells_what_it_cost_and_an_operator_forgives() {
    let limits = limit("tokens", 10, "cost = 2\ncost_header = \"x-tokens-used\"");
    let server = Server::start(&config(&limits).await);
    ready(&server).await;
    let ann = server.client("acme", "ann");
    assert_eq!(ask(&ann, "/ask/5", None).await, (200, 5));
    assert_eq!(ask(&ann, "/ask/some", None).await, (200, 3), "the default of 2");
    let malformed = "crosstown_limit_cost_malformed_total{limit=\"tokens\"}";
    assert_eq!(server.metric(malformed).await, 1);
    assert_eq!(ask(&ann, "/ask/13", None).await, (200, 0), "it owes ten");
    let refused = ann.call(Method::GET, "/ask/1", None).await.unwrap();
    assert_eq!(refused.status, 429);
    // A request an hour's tenth: ten are owed, and one more has to fit.
    let wait: u64 = refused.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((3_900..=3_960).contains(&wait), "{wait}");
    assert_eq!(ask(&server.client("acme", "bob"), "/ask/0", None).await, (200, 10));

    let admin = server.admin();
    let reset = async |limit: &str, subject: Json| {
        let body = Some(subject.to_string().into_bytes());
        let path = format!("/limits/{limit}/reset");
        admin.call(Method::POST, &path, body).await.unwrap().status.as_u16()
    };
    let subject = json!({ "tenant": "acme", "principal": "ann" });
    assert_eq!(reset("token", subject.clone()).await, 404);
    assert_eq!(reset("tokens", json!({ "tenant": "acme" })).await, 400);
    assert_eq!(reset("tokens", json!({ "tenant": "acme", "user": "ann" })).await, 400);
    assert_eq!(ask(&ann, "/ask/1", None).await.0, 429);
    assert_eq!(reset("tokens", subject).await, 204);
    assert_eq!(ask(&ann, "/ask/1", None).await, (200, 9));
    let log = server.log();
    let audited = log.lines().find(|line| line.contains("the operator has reset a limit"));
    assert!(audited.is_some_and(|line| line.contains("tokens") && line.contains("ann")), "{log}");
}

#[tokio::test]
async fn bytes_of_requests_answers_and_commands_draw_on_one_limit() {
    let server = Server::start(&config(&limit("bytes", 1_000, "cost = \"bytes\"")).await);
    ready(&server).await;
    let ann = server.client("acme", "ann");
    let left = |caller: Client| async move {
        let answer = caller.call(Method::GET, "/ask/1", None).await.unwrap();
        answer.headers["ratelimit"].to_str().unwrap().to_owned()
    };
    let sent = ann.call(Method::POST, "/ask/1", Some(vec![b' '; 400])).await.unwrap();
    assert_eq!(sent.status, 200);
    assert_eq!(sent.headers["x-tokens-used"], "1", "no limit asks for it");
    // 400 were sent and 100 answered, which counts at the end of the answer: its reader may be
    // ahead, on a connection of its own. Each look is answered with 100 more.
    let mut expected = 500;
    while !left(ann.clone()).await.contains(&format!("r={expected};")) {
        expected -= 100;
        assert!(expected > 100, "the bytes are not counted");
    }
    let mut socket = Socket::connect(&server.base(), &server.token("acme", "ann")).await;
    socket.ask("subscribe", json!({ "channel": "room" })).await.unwrap();
    let data = "x".repeat(500);
    socket.ask("publish", json!({ "channel": "room", "data": data })).await.unwrap();
    let refused = socket.ask("publish", json!({ "channel": "room", "data": 1 })).await;
    assert_eq!(refused.unwrap_err()["code"], 111);
    assert_eq!(ann.call(Method::GET, "/ask/1", None).await.unwrap().status, 429);
}

#[tokio::test]
async fn a_dear_route_costs_more() {
    let limits = limit(
        "fixed",
        10,
        "costs = { search = 4, _commands = 3 }\nroutes = [\"ask\", \"search\", \"_commands\"]",
    );
    let server = Server::start(&config(&limits).await);
    ready(&server).await;
    let ann = server.client("acme", "ann");
    let left = async |path: &str| {
        let answer = ann.call(Method::GET, path, None).await.unwrap();
        (answer.status.as_u16(), answer.headers["ratelimit"].to_str().unwrap().to_owned())
    };
    assert!(left("/search/1").await.1.contains("r=6"));
    assert!(left("/ask/1").await.1.contains("r=5"));
    let mut socket = Socket::connect(&server.base(), &server.token("acme", "ann")).await;
    socket.ask("subscribe", json!({ "channel": "room" })).await.unwrap();
    assert_eq!(left("/search/1").await.0, 429);
    assert_eq!(left("/ask/1").await.0, 200);
    assert_eq!(left("/ask/1").await.0, 200);
    assert_eq!(left("/ask/1").await.0, 429);
}

#[tokio::test]
async fn what_is_owed_holds_on_each_node_and_is_forgiven_on_each() {
    let redis = Redis::start(RedisOptions::appending(Appends::Always)).unwrap();
    let limits = limit("tokens", 100, "cost_header = \"x-tokens-used\"");
    let keys = format!("durable = \"{}\"", redis.url());
    let nodes = two_nodes(&keys, &config(&limits).await);
    settled(&nodes).await;
    // Some keys are owned by the one node, some by the other.
    for user in (0..6).map(|n| format!("user-{n}")) {
        let callers = callers(&nodes, &user);
        let mut spent = 0;
        let until = Instant::now() + Duration::from_secs(10);
        while spent < 150 {
            assert!(Instant::now() < until, "{spent}");
            for caller in &callers {
                let answer = caller.call(Method::GET, "/ask/30", None).await.unwrap();
                spent += if answer.status == 200 { 30 } else { 1_000 };
            }
        }
        // Four of thirty are let in; one less if the last tokens are in the other node's share,
        // and more while a node has not heard of what the other spent.
        let let_in = spent % 1_000 / 30;
        assert!((3..=6).contains(&let_in), "{user}: {let_in}");
        for (from, caller) in callers.iter().enumerate() {
            let until = Instant::now() + Duration::from_secs(10);
            while caller.call(Method::GET, "/ask/30", None).await.unwrap().status == 200 {
                assert!(Instant::now() < until, "{user}: node {from} does not hear of it");
            }
        }
        let subject = json!({ "tenant": "acme", "principal": user }).to_string();
        let body = Some(subject.into_bytes());
        let reset = nodes[0].admin().call(Method::POST, "/limits/tokens/reset", body).await;
        assert_eq!(reset.unwrap().status, 204);
        for (at, caller) in callers.iter().enumerate() {
            let until = Instant::now() + Duration::from_secs(10);
            while caller.call(Method::GET, "/ask/0", None).await.unwrap().status != 200 {
                assert!(Instant::now() < until, "{user}: node {at} is not told");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

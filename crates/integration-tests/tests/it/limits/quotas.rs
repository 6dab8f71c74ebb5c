//! Quotas: what is counted by the calendar outlives the node that counts it.

use super::{WHOAMI, admitted, callers, ready, settled, two_nodes};
use client::Client;
use http::Method;
use integration_tests::{Server, Socket};
use serde_json::{Value as Json, json};
use std::time::Duration;
use test_servers::{Postgres, PostgresOptions};

fn quota(quota: u64, more: &str) -> String {
    format!(
        "[[limits]]\nname = \"month\"\nper = \"user\"\nquota = {quota}\nperiod = \"month\"\n\
         time_zone = \"Europe/Berlin\"\n{more}"
    )
}

/// The status, and how much is left.
async fn ask(caller: &Client) -> (u16, u64) {
    let answer = caller.call(Method::GET, WHOAMI, None).await.unwrap();
    let left = answer.headers["ratelimit"].to_str().unwrap().to_owned();
    let left = left.split("r=").nth(1).unwrap().split(';').next().unwrap().parse().unwrap();
    (answer.status.as_u16(), left)
}

#[tokio::test]
async fn a_stop_loses_nothing_of_a_quota_and_a_crash_gives_nothing_back() {
    let mut server = Server::start(&quota(2_000, ""));
    ready(&server).await;
    for n in 1..=300 {
        assert_eq!(ask(&server.client("acme", "ann")).await, (200, 2_000 - n));
    }
    let commits = server.metric("crosstown_limit_reserves_total").await;
    assert!(commits <= 40, "{commits} commits for 300 requests");
    assert_eq!(ask(&server.client("acme", "bob")).await, (200, 1_999));
    server.stop();
    server.start_again();
    ready(&server).await;
    assert_eq!(ask(&server.client("acme", "ann")).await, (200, 1_699));
    assert_eq!(ask(&server.client("acme", "bob")).await, (200, 1_998));
    for _ in 0..3 {
        let (_, before) = ask(&server.client("acme", "ann")).await;
        server.kill();
        server.start_again();
        ready(&server).await;
        let (_, after) = ask(&server.client("acme", "ann")).await;
        // A hundredth may be reserved, and half of one more.
        assert!(after < before && after + 1 + 30 >= before, "{before}, then {after}");
    }
}

#[tokio::test]
async fn an_operator_forgives_a_quota_and_commands_and_costs_draw_on_it() {
    let limits = quota(10, "costs = { _api = 2 }\n");
    let shadow = "[[limits]]\nname = \"next\"\nper = \"tenant\"\nquota = 3\nperiod = \"week\"\n\
        mode = \"shadow\"\n";
    let server = Server::start(&format!("{limits}{shadow}"));
    ready(&server).await;
    let ann = server.client("acme", "ann");
    assert_eq!(ask(&ann).await, (200, 8));
    let mut socket = Socket::connect(&server.base(), &server.token("acme", "ann")).await;
    for _ in 0..7 {
        socket.ask("ping", json!({})).await.unwrap();
    }
    socket.ask("subscribe", json!({ "channel": "room" })).await.unwrap();
    for n in 0..6 {
        socket.ask("publish", json!({ "channel": "room", "data": n })).await.unwrap();
    }
    assert_eq!(ask(&ann).await, (429, 1), "one is left, and two are needed");
    socket.ask("publish", json!({ "channel": "room", "data": 7 })).await.unwrap();
    let refused = socket.ask("publish", json!({ "channel": "room", "data": 8 })).await;
    assert_eq!(refused.unwrap_err()["code"], 111);
    let told: Json = server.admin().get("/limits/shadow?range=1h").await.unwrap();
    let told = &told["limits"][0];
    assert_eq!((&told["limit"], &told["refused"]), (&json!("next"), &json!(6)), "{told}");
    let subject = json!({ "tenant": "acme", "principal": "ann" }).to_string();
    let (admin, body) = (server.admin(), Some(subject.into_bytes()));
    let reset = admin.call(Method::POST, "/limits/month/reset", body);
    assert_eq!(reset.await.unwrap().status, 204);
    assert_eq!(ask(&ann).await, (200, 8));
    let excess = server.metric("crosstown_limit_excess_max{limit=\"month\"}").await;
    assert_eq!(excess, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_of_which_one_is_killed_never_admit_more_than_a_quota() {
    let postgres = Postgres::start(PostgresOptions::default()).unwrap();
    let limits = quota(600, "when_away = \"refuse\"\n");
    let mut nodes = two_nodes(&format!("durable = \"{}\"", postgres.url("")), &limits);
    settled(&nodes).await;
    let users: Vec<String> = (0..6).map(|n| format!("user-{n}")).collect();
    let mut used = Vec::new();
    for user in &users {
        let both = admitted(&callers(&nodes, user), Duration::from_millis(300)).await;
        assert!(both <= 600, "{user}: {both}");
        used.push(both);
    }
    nodes[0].kill();
    let left = &nodes[1..];
    settled(left).await;
    for (user, used) in users.iter().zip(used) {
        let more = admitted(&callers(left, user), Duration::from_secs(2)).await;
        assert!(used + more <= 600, "{user}: {used}, and {more} more");
        // What was reserved, and what the other node held for the next half second.
        assert!(used + more >= 400, "{user}: {used}, and {more} more");
    }
}

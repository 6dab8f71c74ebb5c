//! Clients that read slowly, by the namespace of what they read.

use integration_tests::{Server, Socket};
use serde_json::{Value as Json, json};
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

const CONFIG: &str = "[realtime]\nmessage_bytes_max = 65536\nqueue_bytes_max = 524288\nwrite_timeout = \"60s\"\n\
    [[realtime.namespaces]]\nname = \"price\"\nslow = \"conflate\"\nhistory_size = 1\n\
    recovery = \"cache\"\ndelta = true\n\
    [[realtime.namespaces]]\nname = \"news\"\nslow = \"resubscribe\"\nhistory_size = 10\n\
    [[realtime.namespaces]]\nname = \"board\"\nslow = \"conflate\"\nmap = true\n";

/// Publishes to `channel` until the kernel's buffers and half of the queue are full of what
/// nobody reads; gives the number of the last one.
async fn flood(publisher: &mut Socket, channel: &str) -> u64 {
    publisher.ask("subscribe", json!({ "channel": channel })).await.unwrap();
    // Two cannot share much, so that none is told by what differs.
    for n in 1..=300 {
        let text = format!("{n} ").repeat(32 * 1024 / format!("{n} ").len());
        let data = json!({ "channel": channel, "data": { "n": n, "text": text } });
        publisher.ask("publish", data).await.unwrap();
        // Who reads is told of each, and so all have been handed on.
        assert_eq!(publisher.push().await["pub"]["data"]["n"], n);
    }
    300
}

#[tokio::test]
async fn a_value_is_told_as_it_is_now() {
    let server = Server::start(CONFIG);
    let base = server.base();
    let mut slow = Socket::connect_slowly(&base, &server.token("acme", "slow")).await;
    let mut ann = Socket::connect(&base, &server.token("acme", "ann")).await;
    let delta = json!({ "channel": "price:1", "delta": "fossil" });
    assert_eq!(slow.ask("subscribe", delta).await.unwrap()["delta"], true);
    let last = flood(&mut ann, "price:1").await;
    let (mut seen, mut count) = (0, 0);
    while seen < last {
        let push = slow.push().await;
        assert!(slow.closed.is_none(), "{:?}", slow.closed);
        assert!(!push.is_null(), "closed: {:?}", slow.closed);
        let told = &push["pub"];
        assert!(told["delta"].is_null(), "it has nothing that this could differ from");
        let data: Json = serde_json::from_str(told["data"].as_str().expect("a text")).unwrap();
        let n = data["n"].as_u64().unwrap();
        assert!(n > seen, "{n} after {seen}");
        (seen, count) = (n, count + 1);
    }
    assert!(count < last, "all {count} were told");
    // From there on it is told each one again.
    ann.ask("publish", json!({ "channel": "price:1", "data": { "n": 0 } })).await.unwrap();
    assert_eq!(slow.push().await["pub"]["offset"], last + 1);
}

#[tokio::test]
async fn a_stream_is_begun_again_without_its_connection() {
    let server = Server::start(CONFIG);
    let base = server.base();
    let mut slow = Socket::connect_slowly(&base, &server.token("acme", "slow")).await;
    let mut ann = Socket::connect(&base, &server.token("acme", "ann")).await;
    let stands = slow.ask("subscribe", json!({ "channel": "news:1" })).await.unwrap();
    slow.ask("subscribe", json!({ "channel": "other" })).await.unwrap();
    let last = flood(&mut ann, "news:1").await;
    ann.ask("publish", json!({ "channel": "other", "data": "still here" })).await.unwrap();
    let mut seen = 0;
    let code = loop {
        let push = slow.push().await;
        assert!(slow.closed.is_none(), "{:?}", slow.closed);
        match push["pub"]["data"]["n"].as_u64() {
            Some(n) => {
                assert_eq!(n, seen + 1);
                seen = n;
            }
            None => break push["unsubscribe"]["code"].clone(),
        }
    };
    assert_eq!(code, 2500);
    assert!(seen < last);
    assert_eq!(slow.push().await["pub"]["data"], "still here");
    // Where it was is known; that not all can be told is said.
    let recover = |offset: u64| json!({ "channel": "news:1", "recover": true, "epoch": stands["epoch"], "offset": offset });
    let again = slow.ask("subscribe", recover(seen)).await.unwrap();
    assert_eq!((&again["was_recovering"], &again["recovered"]), (&json!(true), &json!(null)));
    slow.ask("unsubscribe", json!({ "channel": "news:1" })).await.unwrap();
    let again = slow.ask("subscribe", recover(last - 3)).await.unwrap();
    assert_eq!(again["publications"].as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn a_map_is_told_by_the_newest_of_each_key() {
    let server = Server::start(CONFIG);
    let base = server.base();
    let mut slow = Socket::connect_slowly(&base, &server.token("acme", "slow")).await;
    let mut ann = Socket::connect(&base, &server.token("acme", "ann")).await;
    let follow = json!({ "channel": "board:1", "type": 1, "phase": 2 });
    for socket in [&mut slow, &mut ann] {
        socket.ask("subscribe", follow.clone()).await.unwrap();
    }
    let mut newest = BTreeMap::new();
    for n in 1..=300_u64 {
        // The first key changes once only, and so does one that goes again.
        let (key, removed) = match n {
            1 => ("first".to_owned(), false),
            200 => ("0".to_owned(), true),
            _ => ((n % 5 + u64::from(n > 200)).to_string(), false),
        };
        let data = (!removed).then(|| json!({ "n": n, "text": "x".repeat(32 * 1024) }));
        let entry = json!({ "channel": "board:1", "type": 1, "key": key, "removed": removed, "data": data });
        ann.ask("publish", entry).await.unwrap();
        assert_eq!(ann.push().await["pub"]["key"], key);
        newest.insert(key, if removed { None } else { Some(n) });
    }
    let (mut told, mut offset, mut count) = (BTreeMap::new(), 0, 0);
    while offset < 300 {
        let push = slow.push().await["pub"].take();
        assert!(slow.closed.is_none(), "{:?}", slow.closed);
        let next = push["offset"].as_u64().unwrap();
        assert!(next > offset, "{next} after {offset}");
        (offset, count) = (next, count + 1);
        told.insert(push["key"].as_str().unwrap().to_owned(), push["data"]["n"].as_u64());
    }
    assert_eq!(told, newest);
    assert!(count < 300, "all {count} were told");
}

#[tokio::test]
async fn who_reads_slowly_and_steadily_stays() {
    let server = Server::start("[realtime]\nwrite_timeout = \"1s\"\nqueue_bytes_max = 33554432\n");
    let base = server.base();
    let service = server.token_with("acme", "crm", json!({ "kind": "service" }));
    let service = client::Client::new(&base, &service).unwrap();
    let mut slow = Socket::connect_slowly(&base, &server.token("acme", "slow")).await;
    let mut ann = Socket::connect(&base, &server.token("acme", "ann")).await;
    slow.ask("subscribe", json!({ "channel": "news" })).await.unwrap();
    let publication = json!({ "channel": "news", "data": "x".repeat(32 * 1024) });
    // Until more waits than the kernel takes.
    loop {
        ann.ask("publish", publication.clone()).await.unwrap();
        let path = "/crosstown/v1/connections?user=slow";
        let shown = service.call(http::Method::GET, path, None).await.unwrap();
        let shown: Json = serde_json::from_slice(&shown.body).unwrap();
        if shown["connections"][0]["waiting_bytes"].as_u64().unwrap() > 200_000 {
            break;
        }
    }
    let until = Instant::now() + Duration::from_secs(4);
    while Instant::now() < until {
        assert!(!slow.push().await.is_null() && slow.closed.is_none(), "{:?}", slow.closed);
        ann.ask("publish", publication.clone()).await.unwrap();
    }
}

//! Server-sent events and HTTP streams, with commands by requests of their own.

use integration_tests::{
    Server, Socket, Stream,
    wire::{self, Fields, bytes, delimited, number},
};
use serde_json::{Value as Json, json};
use std::time::{Duration, Instant};

const JSON: &str = "Content-Type: application/json";
const BINARY: &str = "Content-Type: application/octet-stream";

/// A stream in JSON, connected.
struct Client {
    stream: Stream,
    is_events: bool,
    session: Json,
    node: Json,
}

fn escaped(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02x}")).collect()
}

async fn open(base: &str, kind: &str, first: &str) -> Stream {
    match kind {
        "sse" => {
            let line = format!("GET /connection/sse?x=1&cf_connect={}", escaped(first));
            Stream::ask(base, &line, &[], b"").await
        }
        "sse by POST" => Stream::ask(base, "POST /connection/sse", &[JSON], first.as_bytes()).await,
        "lines" => {
            Stream::ask(base, "POST /connection/http_stream", &[JSON], first.as_bytes()).await
        }
        other => panic!("{other}"),
    }
}

impl Client {
    async fn connect(base: &str, kind: &str, token: &str) -> Self {
        let connect = json!({ "id": 1, "connect": { "token": token } }).to_string();
        let stream = open(base, kind, &connect).await;
        assert_eq!(stream.status, 200, "{}", stream.head);
        let is_events = kind != "lines";
        let media = if is_events { "text/event-stream" } else { "application/x-ndjson" };
        assert!(stream.head.contains(media), "{}", stream.head);
        let mut client = Self { stream, is_events, session: Json::Null, node: Json::Null };
        let answer = client.reply().await.unwrap();
        let connect = &answer["connect"];
        assert_eq!((&answer["id"], &connect["pong"]), (&json!(1), &json!(null)));
        (client.session, client.node) = (connect["session"].clone(), connect["node"].clone());
        client
    }

    async fn reply(&mut self) -> Option<Json> {
        if self.is_events { self.stream.event().await } else { self.stream.line().await }
    }

    async fn say(&self, base: &str, commands: &str) -> u16 {
        let body = json!({ "session": self.session, "node": self.node, "data": commands });
        emulate(base, &body.to_string()).await
    }
}

async fn emulate(base: &str, body: &str) -> u16 {
    Stream::ask(base, "POST /emulation", &[JSON], body.as_bytes()).await.status
}

#[tokio::test]
async fn streams_carry_what_sockets_carry() {
    let server = Server::start("");
    let base = server.base();
    let mut ann = Socket::connect(&base, &server.token("acme", "ann")).await;
    ann.ask("subscribe", json!({ "channel": "room" })).await.unwrap();
    for kind in ["sse", "sse by POST", "lines"] {
        let mut bob = Client::connect(&base, kind, &server.token("acme", "bob")).await;
        let two = "{\"id\":2,\"subscribe\":{\"channel\":\"room\"}}\n{\"id\":3,\"ping\":{}}";
        assert_eq!(bob.say(&base, two).await, 204);
        let mut ids =
            [bob.reply().await.unwrap()["id"].clone(), bob.reply().await.unwrap()["id"].clone()];
        ids.sort_by_key(ToString::to_string);
        assert_eq!(ids, [json!(2), json!(3)]);
        for n in 0..50 {
            ann.ask("publish", json!({ "channel": "room", "data": n })).await.unwrap();
            ann.push().await;
        }
        for n in 0..50 {
            assert_eq!(bob.reply().await.unwrap()["push"]["pub"]["data"], n, "{kind}");
        }
        let publish = json!({ "id": 4, "publish": { "channel": "room", "data": { "by": kind } } });
        assert_eq!(bob.say(&base, &publish.to_string()).await, 204);
        assert_eq!(ann.push().await["pub"]["data"]["by"], kind);
    }
}

#[tokio::test]
async fn a_stream_in_protobuf_is_binary_both_ways() {
    let server = Server::start("");
    let base = server.base();
    let mut ann = Socket::connect(&base, &server.token("acme", "ann")).await;
    ann.ask("subscribe", json!({ "channel": "room" })).await.unwrap();
    let connect = [number(1, 1), bytes(4, bytes(1, server.token("acme", "bob")))].concat();
    let line = "POST /connection/http_stream";
    let mut stream = Stream::ask(&base, line, &[BINARY], &delimited(connect)).await;
    assert!(stream.head.contains("application/octet-stream"), "{}", stream.head);
    let mut replies = std::collections::VecDeque::<Fields>::new();
    macro_rules! next {
        () => {{
            while replies.is_empty() {
                assert!(stream.more().await);
                // A chunk holds whole replies.
                replies.extend(wire::messages(&std::mem::take(&mut stream.read)));
            }
            replies.pop_front().unwrap()
        }};
    }
    let answer = next!().message(5);
    let (session, node) = (answer.text(9), answer.text(10));
    let command = [number(1, 2), bytes(5, bytes(1, "room"))].concat();
    let request = [bytes(1, &node), bytes(2, &session), bytes(3, delimited(command))].concat();
    let told = Stream::ask(&base, "POST /emulation", &[BINARY], &request).await;
    assert_eq!((told.status, next!().has(6)), (204, true));
    ann.ask("publish", json!({ "channel": "room", "data": [7] })).await.unwrap();
    assert_eq!(next!().message(4).message(4).text(4), "[7]");
    let request = [bytes(1, node), bytes(2, session), bytes(3, "garbage")].concat();
    let told = Stream::ask(&base, "POST /emulation", &[BINARY], &request).await;
    assert_eq!((told.status, next!().message(4).message(11).number(1)), (204, 3501));
    assert!(!stream.more().await);
}

#[tokio::test]
async fn a_stream_that_breaks_the_rules_is_told_why() {
    let server =
        Server::start("[realtime]\nconnect_timeout = \"300ms\"\nmessage_bytes_max = 2048\n");
    let base = server.base();
    let cases = [
        ("not json", 3501),
        ("\u{fffd}", 3501),
        (r#"{"id":1,"subscribe":{"channel":"room"}}"#, 3501),
        (r#"{"id":1,"connect":{"token":"nonsense"}}"#, 3500),
        ("", 3502),
    ];
    for kind in ["sse", "sse by POST", "lines"] {
        for (first, expected) in cases {
            let mut stream = open(&base, kind, first).await;
            let told = if kind == "lines" { stream.line().await } else { stream.event().await };
            let told = told.unwrap_or_default();
            assert_eq!(told["push"]["disconnect"]["code"], expected, "{kind} {first}");
            assert!(!stream.more().await, "{kind} {first}");
        }
    }
    let long = "x".repeat(4096);
    let refused = [
        ("GET /connection/http_stream", "", 405),
        ("DELETE /connection/sse", "", 405),
        ("GET /connection/sse", "", 400),
        ("POST /connection/http_stream", &long, 413),
        ("GET /emulation", "", 405),
        ("POST /emulation", "{}", 400),
        ("POST /emulation", r#"{"session":"s","node":"n","data":"{}"}"#, 404),
    ];
    for (line, body, expected) in refused {
        let answer = Stream::ask(&base, line, &[JSON], body.as_bytes()).await;
        assert_eq!(answer.status, expected, "{line} {body}");
    }
    let client = Client::connect(&base, "lines", &server.token("acme", "ann")).await;
    let of = |session: &Json, data: &str| {
        json!({ "session": session, "node": client.node, "data": data }).to_string()
    };
    assert_eq!(emulate(&base, &of(&json!("0".repeat(32)), "{}")).await, 404);
    assert_eq!(emulate(&base, &of(&client.session, &long)).await, 413);
    assert_eq!(emulate(&base, &of(&client.session, "{}")).await, 204);
}

#[tokio::test]
async fn a_stream_lasts_without_pongs_and_ends_with_its_node() {
    let mut server =
        Server::start("[realtime]\nping_interval = \"400ms\"\npong_timeout = \"100ms\"\n");
    let base = server.base();
    let mut ann = Client::connect(&base, "lines", &server.token("acme", "ann")).await;
    for _ in 0..5 {
        assert_eq!(ann.stream.until(b"\n").await.unwrap(), b"{}");
    }
    let stopped = tokio::task::spawn_blocking(move || server.stop());
    let told = ann.reply().await.unwrap();
    assert_eq!(told["push"]["disconnect"]["code"], 3001);
    assert_eq!(ann.reply().await, None);
    stopped.await.unwrap();
}

#[tokio::test]
async fn a_client_that_goes_is_not_waited_for() {
    // Long before the next ping would find out.
    let server = Server::start("[[realtime.namespaces]]\nname = \"lobby\"\npresence = true\n");
    let base = server.base();
    let mut ann = Client::connect(&base, "lines", &server.token("acme", "ann")).await;
    let mut bob = Client::connect(&base, "sse", &server.token("acme", "bob")).await;
    let subscribe = r#"{"id":2,"subscribe":{"channel":"lobby:1"}}"#;
    for client in [&ann, &bob] {
        assert_eq!(client.say(&base, subscribe).await, 204);
    }
    for client in [&mut ann, &mut bob] {
        assert_eq!(client.reply().await.unwrap()["id"], 2);
    }
    // Nobody takes Bob's stream any more.
    let (session, node) = (bob.session.clone(), bob.node.clone());
    drop(bob);
    let until = Instant::now() + Duration::from_secs(5);
    loop {
        assert_eq!(ann.say(&base, r#"{"id":3,"presence_stats":{"channel":"lobby:1"}}"#).await, 204);
        if ann.reply().await.unwrap()["presence_stats"]["num_clients"] == 1 {
            break;
        }
        assert!(Instant::now() < until);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let of_bob = json!({ "session": session, "node": node, "data": "{}" });
    assert_eq!(emulate(&base, &of_bob.to_string()).await, 404);
}

#[tokio::test]
async fn there_are_no_more_streams_than_may_be() {
    let server = Server::start("[realtime]\nstreams_max = 2\n");
    let base = server.base();
    let token = server.token("acme", "ann");
    let connect = json!({ "id": 1, "connect": { "token": token } }).to_string();
    let first = Client::connect(&base, "lines", &token).await;
    let _second = Client::connect(&base, "sse", &token).await;
    assert_eq!(open(&base, "lines", &connect).await.status, 503);
    drop(first);
    let until = Instant::now() + Duration::from_secs(5);
    while open(&base, "lines", &connect).await.status != 200 {
        assert!(Instant::now() < until, "there is no room again");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn pages_of_allowed_origins_may_stream() {
    let server = Server::start("[realtime]\norigins = [\"http://here.example\"]\n");
    let base = server.base();
    for path in ["/connection/sse", "/connection/http_stream", "/emulation"] {
        for (origin, status) in [("http://here.example", 204), ("http://there.example", 403)] {
            let fields = [
                &format!("Origin: {origin}")[..],
                "Access-Control-Request-Method: POST",
                "Access-Control-Request-Headers: content-type",
            ];
            let answer = Stream::ask(&base, &format!("OPTIONS {path}"), &fields, b"").await;
            assert_eq!(answer.status, status, "{path} {origin}");
            let allowed = format!("access-control-allow-origin: {origin}\r\n");
            assert_eq!(answer.head.contains(&allowed), status == 204, "{}", answer.head);
        }
    }
}

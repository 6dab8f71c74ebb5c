//! Seeing what passes through some connections.

use client::Client;
use integration_tests::{Server, Socket, Stream};
use serde_json::{Value as Json, json};

const TRACES: &str = "/crosstown/v1/traces";

/// A service that sees what a trace shows.
struct Watcher {
    service: Client,
    socket: Socket,
    trace: Json,
    frames: Vec<Json>,
    dropped: u64,
    ended: Option<Json>,
}

impl Watcher {
    async fn begin(server: &Server, of: Json, duration: &str) -> Self {
        let key = server.api_key("acme", "crm").await;
        let service = Client::new(&server.base(), &key).unwrap();
        let wish = json!({ "of": of, "duration": duration });
        let trace: Json = service.post(TRACES, &wish).await.unwrap();
        let mut socket = Socket::connect(&server.base(), &key).await;
        socket.ask("subscribe", json!({ "channel": trace["channel"] })).await.unwrap();
        Self { service, socket, trace, frames: Vec::new(), dropped: 0, ended: None }
    }

    /// Takes records until what was seen is enough.
    async fn until(&mut self, enough: impl Fn(&Self) -> bool) {
        while !enough(self) {
            let push = self.socket.push().await;
            assert_eq!(push["channel"], self.trace["channel"], "{push} after {:#?}", self.frames);
            let record = &push["pub"]["data"];
            assert_eq!(record["trace"], self.trace["id"]);
            self.frames.extend(record["frames"].as_array().unwrap().clone());
            self.dropped += record["dropped"].as_u64().unwrap();
            if record["ended"].is_string() {
                self.ended = Some(record["ended"].clone());
            }
        }
    }

    fn has(&self, part: &str) -> bool {
        self.frames.iter().any(|frame| frame["frame"].as_str().unwrap().contains(part))
    }

    async fn sees(&mut self, part: &str) {
        self.until(|seen| seen.has(part)).await;
    }

    async fn end(&mut self) {
        let path = format!("{TRACES}/{}", self.trace["id"].as_str().unwrap());
        self.service.delete(&path).await.unwrap();
        self.until(|seen| seen.ended.is_some()).await;
    }

    /// What was seen, in short: `> command`, `< reply`.
    fn kinds(&self) -> Vec<String> {
        let kind = |frame: &Json| {
            let way = if frame["direction"] == "in" { ">" } else { "<" };
            format!("{way} {}", frame["kind"].as_str().unwrap())
        };
        self.frames.iter().map(kind).collect()
    }
}

#[tokio::test]
async fn what_a_user_says_and_is_told_is_shown_until_the_trace_ends() {
    let server = Server::start("");
    let base = server.base();
    let token = server.token("acme", "ann");
    let mut ann = Socket::connect(&base, &token).await;
    let mut bob = Socket::connect(&base, &server.token("acme", "bob")).await;
    let mut eve = Socket::connect(&base, &server.token("other", "ann")).await;
    ann.ask("publish", json!({ "channel": "room", "data": "before" })).await.unwrap();
    let mut watcher = Watcher::begin(&server, json!({ "user": "ann" }), "5m").await;
    let listed: Json = watcher.service.get(TRACES).await.unwrap();
    assert_eq!(listed, json!({ "traces": [watcher.trace] }));
    let lasts = watcher.trace["until"].as_u64().unwrap() - watcher.trace["since"].as_u64().unwrap();
    assert_eq!((lasts, &watcher.trace["by"]), (300_000, &json!("crm")));

    for socket in [&mut ann, &mut bob, &mut eve] {
        socket.ask("subscribe", json!({ "channel": "room" })).await.unwrap();
    }
    bob.ask("publish", json!({ "channel": "room", "data": "from bob" })).await.unwrap();
    eve.ask("publish", json!({ "channel": "room", "data": "from eve" })).await.unwrap();
    assert_eq!(ann.push().await["pub"]["data"], "from bob");
    watcher.sees("from bob").await;
    assert_eq!(watcher.kinds(), ["> command", "< reply", "< push"]);
    let push = &watcher.frames[2];
    assert_eq!((&push["user"], &push["channel"]), (&json!("ann"), &json!("room")));
    assert!(push["connection"].as_str().unwrap().starts_with("con_"), "{push}");
    assert!(push["at"].as_u64() >= watcher.trace["since"].as_u64(), "{push}");

    // A connection that begins now, by whatever transport; its token is nobody's.
    watcher.frames.clear();
    let more = Socket::connect(&base, &token).await;
    watcher.until(|seen| seen.frames.len() >= 2).await;
    assert_eq!(watcher.kinds(), ["> command", "< reply"]);
    assert!(watcher.has(r#"{"connect":{"token":"(redacted)"},"id":1}"#), "{:?}", watcher.frames);
    drop(more);
    watcher.until(|seen| seen.kinds().last().is_some_and(|kind| kind == "> close")).await;
    let connect = json!({ "id": 1, "connect": { "token": token } }).to_string();
    let kind = ["Content-Type: application/json"];
    let mut stream =
        Stream::ask(&base, "POST /connection/http_stream", &kind, connect.as_bytes()).await;
    let secret = stream.line().await.unwrap()["connect"]["session"].as_str().unwrap().to_owned();
    watcher.sees(r#""session":"(redacted)""#).await;
    assert!(!watcher.has(&token) && !watcher.has(&secret));
    // What is long is cut.
    watcher.frames.clear();
    let long = json!({ "channel": "hall", "data": "x".repeat(10_000) });
    ann.ask("publish", long).await.unwrap();
    watcher.sees("xxx").await;
    let cut = &watcher.frames[0];
    assert_eq!((cut["frame"].as_str().unwrap().len(), &cut["is_cut"]), (1_024, &json!(true)));
    assert!(cut["bytes"].as_u64() > Some(10_000), "{cut}");

    watcher.end().await;
    assert_eq!(watcher.ended, Some(json!("order")));
    let listed: Json = watcher.service.get(TRACES).await.unwrap();
    assert_eq!(listed, json!({ "traces": [] }));
    let path = format!("{TRACES}/{}", watcher.trace["id"].as_str().unwrap());
    let again = watcher.service.delete(&path).await.unwrap_err();
    assert_eq!(again.code(), Some("not_found"));
    ann.ask("ping", json!({})).await.unwrap();
    watcher.socket.ask("ping", json!({})).await.unwrap();
    assert_eq!(watcher.socket.push_now(), None);
}

#[tokio::test]
async fn a_channel_is_traced_apart_from_what_else_its_followers_do() {
    let server = Server::start("");
    let base = server.base();
    let mut ann = Socket::connect(&base, &server.token("acme", "ann")).await;
    let mut bob = Socket::connect(&base, &server.token("acme", "bob")).await;
    let mut watcher = Watcher::begin(&server, json!({ "channel": "room" }), "5m").await;
    for socket in [&mut ann, &mut bob] {
        socket.ask("subscribe", json!({ "channel": "hall" })).await.unwrap();
        socket.ask("subscribe", json!({ "channel": "room" })).await.unwrap();
    }
    ann.ask("publish", json!({ "channel": "hall", "data": "unseen" })).await.unwrap();
    ann.ask("publish", json!({ "channel": "room", "data": "seen" })).await.unwrap();
    // It may come after its answer.
    loop {
        let push = bob.push().await;
        assert!(!push.is_null(), "the socket stays open");
        if push["pub"]["data"] == "seen" {
            break;
        }
    }
    bob.ask("unsubscribe", json!({ "channel": "room" })).await.unwrap();
    watcher.until(|seen| seen.frames.len() >= 10).await;
    let mut kinds = watcher.kinds();
    kinds.sort_unstable();
    let expected = [["< push"; 2].as_slice(), &["< reply"; 4], &["> command"; 4]].concat();
    assert_eq!(kinds, expected);
    assert!(watcher.has("seen") && !watcher.has("hall") && !watcher.has("unseen"));
    assert!(watcher.frames.iter().all(|frame| frame["channel"] == "room"));
    watcher.end().await;
    assert_eq!(watcher.frames.len(), 10, "{:#?}", watcher.frames);
}

#[tokio::test]
async fn a_trace_shows_no_more_than_it_may_and_says_how_much_it_did_not() {
    let server = Server::start("");
    let mut ann = Socket::connect(&server.base(), &server.token("acme", "ann")).await;
    let mut watcher = Watcher::begin(&server, json!({ "user": "ann" }), "15m").await;
    let pings: Vec<String> =
        (0..1_000).map(|n| json!({ "id": 1_000 + n, "ping": {} }).to_string()).collect();
    ann.send_raw(&pings.join("\n")).await;
    watcher.until(|seen| seen.frames.len() as u64 + seen.dropped >= 2_000).await;
    assert_eq!(watcher.frames.len() as u64 + watcher.dropped, 2_000);
    assert!(watcher.dropped > 0 && watcher.frames.len() >= 50, "{}", watcher.dropped);
    // Who follows a trace of himself is not told of what he is told by it.
    watcher.end().await;
    let mut own = Watcher::begin(&server, json!({ "user": "crm" }), "1s").await;
    own.until(|seen| seen.ended.is_some()).await;
    assert_eq!(own.ended, Some(json!("time")));
    let told = own.frames.iter().filter(|frame| frame["kind"] == "push").count();
    assert_eq!(told, 0, "{:#?}", own.frames);
}

#[tokio::test]
async fn traces_are_few_and_for_services_and_admins() {
    let server = Server::start("");
    let mut watcher = Watcher::begin(&server, json!({ "user": "ann" }), "5m").await;
    let channel = watcher.trace["channel"].clone();
    let ann = server.client("acme", "ann");
    let path = format!("{TRACES}/{}", watcher.trace["id"].as_str().unwrap());
    let wish = json!({ "of": { "user": "ann" } });
    for refused in [
        ann.post::<Json>(TRACES, &wish).await.map(drop),
        ann.get::<Json>(TRACES).await.map(drop),
        ann.delete(&path).await,
    ] {
        assert_eq!(refused.unwrap_err().code(), Some("forbidden"));
    }
    let foreign = Client::new(&server.base(), &server.api_key("other", "crm").await).unwrap();
    assert_eq!(foreign.delete(&path).await.unwrap_err().code(), Some("not_found"));
    let listed: Json = foreign.get(TRACES).await.unwrap();
    assert_eq!(listed, json!({ "traces": [] }));
    // Neither a token for the channel nor one that names it, nor an order, opens it to a user.
    let subscribe = json!({ "channel": channel });
    let name = channel.as_str().unwrap();
    let mut user = Socket::connect(&server.base(), &server.token("acme", "ann")).await;
    assert_eq!(user.ask("subscribe", subscribe.clone()).await.unwrap_err()["code"], 103);
    let token = server.token_with("acme", "ann", json!({ "channel": name }));
    let with = json!({ "channel": name, "token": token });
    assert_eq!(user.ask("subscribe", with).await.unwrap_err()["code"], 103);
    let caps = json!({ "caps": [{ "channels": ["*"], "match": "wildcard", "allow": ["sub", "pub", "hst"] }] });
    let mut capable =
        Socket::connect(&server.base(), &server.token_with("acme", "ann", caps)).await;
    assert_eq!(capable.ask("subscribe", subscribe.clone()).await.unwrap_err()["code"], 103);
    let order = json!({ "to": { "user": "ann" }, "order": { "do": "subscribe", "channel": name } });
    let _: Json = watcher.service.post("/crosstown/v1/connections/orders", &order).await.unwrap();
    let admin = server.token_with("acme", "root", json!({ "roles": ["admin"] }));
    let mut admin = Socket::connect(&server.base(), &admin).await;
    assert!(admin.ask("subscribe", subscribe.clone()).await.is_ok());
    for command in ["publish", "history", "presence"] {
        let asked = json!({ "channel": name, "data": 1 });
        assert_eq!(admin.ask(command, asked).await.unwrap_err()["code"], 103, "{command}");
    }
    user.ask("ping", json!({})).await.unwrap();
    watcher.sees("ping").await;
    assert!(admin.push().await["pub"]["data"]["frames"].is_array());
    for socket in [&mut user, &mut capable] {
        socket.ask("ping", json!({})).await.unwrap();
        assert_eq!(socket.push_now(), None);
    }

    for bad in [
        json!({ "of": {} }),
        json!({ "of": { "who": "ann" } }),
        json!({ "of": { "user": "ann" }, "duration": "16m" }),
        json!({ "of": { "user": "ann" }, "duration": "0s" }),
    ] {
        let refused = watcher.service.post::<Json>(TRACES, &bad).await.unwrap_err();
        assert_eq!(refused.code(), Some("bad_request"), "{bad}");
    }
    for _ in 0..3 {
        let _: Json = watcher.service.post(TRACES, &wish).await.unwrap();
    }
    let fifth = watcher.service.post::<Json>(TRACES, &wish).await.unwrap_err();
    assert_eq!(fifth.code(), Some("overloaded"));
    let _: Json = foreign.post(TRACES, &wish).await.unwrap();
    watcher.end().await;
    let _: Json = watcher.service.post(TRACES, &wish).await.unwrap();
}

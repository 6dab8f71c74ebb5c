//! Durable sessions: subscriptions, positions and letters outlive the connection, its transport
//! and its node.

use client::Client;
use integration_tests::{Server, Socket, Stream};
use serde_json::{Value as Json, json};
use std::time::Duration;
use test_servers::{Appends, Redis, RedisOptions};
use tokio::time::timeout;

const SESSIONS: &str = "/crosstown/v1/sessions";
/// Pings come often: an answered one confirms what was pushed before it.
const CONFIG: &str = "[realtime]\nping_interval = \"1s\"\npong_timeout = \"400ms\"\n\
    [[realtime.namespaces]]\nname = \"news\"\nhistory_size = 1000\ntier = \"hot\"\n\
    [[realtime.namespaces]]\nname = \"short\"\nhistory_size = 3\ntier = \"hot\"\n\
    [[realtime.namespaces]]\nname = \"now\"\nhistory_size = 0\n\
    [[realtime.namespaces]]\nname = \"ticks\"\ntier = \"hot\"\nfilter = true\ndelta = true\n\
    [[realtime.namespaces]]\nname = \"closed\"\nsubscribe = false\n";

struct Session {
    id: String,
    token: String,
}

async fn durable(server: &Server) -> Session {
    let made: Json =
        server.client("acme", "ann").post(SESSIONS, &json!({ "durable": true })).await.unwrap();
    assert_eq!(made["durable"], true);
    let text = |name: &str| made[name].as_str().unwrap().to_owned();
    Session { id: text("id"), token: text("token") }
}

/// A service, by whichever node there is at the time.
struct Press {
    base: String,
    key: String,
}

impl Press {
    /// Posts by a connection of its own: nodes are killed here.
    async fn post(&self, path: &str, body: &Json) {
        let _: Json = Client::new(&self.base, &self.key).unwrap().post(path, body).await.unwrap();
    }
}

async fn press(server: &Server) -> Press {
    Press { base: server.base(), key: server.api_key("acme", "press").await }
}

async fn publish(press: &Press, channel: &str, data: impl Into<Json>) {
    press.post(&format!("/crosstown/v1/channels/{channel}/publications"), &data.into()).await;
}

/// What the API shows of what a session keeps.
async fn kept(server: &Server, session: &Session) -> Vec<Json> {
    let shown: Json =
        server.client("acme", "ann").get(&format!("{SESSIONS}/{}", session.id)).await.unwrap();
    shown["subscriptions"].as_array().unwrap().clone()
}

async fn offset_kept(server: &Server, session: &Session, channel: &str) -> u64 {
    let all = kept(server, session).await;
    let one = all.iter().find(|one| one["channel"] == channel).expect("it is kept");
    one["position"]["offset"].as_u64().unwrap()
}

/// Reads, and so answers pings, until the session keeps this position.
async fn settled(
    server: &Server,
    session: &Session,
    socket: &mut Socket,
    channel: &str,
    offset: u64,
) {
    for _ in 0..100 {
        if offset_kept(server, session, channel).await == offset {
            return;
        }
        let _ = timeout(Duration::from_millis(50), socket.push()).await;
    }
    panic!("{offset} is not kept: {:?}", kept(server, session).await);
}

async fn resume(base: &str, session: &Session) -> (Socket, Json) {
    let mut socket = Socket::open(base).await;
    let connect = json!({ "token": session.token, "data": { "resume": true } });
    let connected = socket.ask("connect", connect).await.unwrap();
    (socket, connected)
}

fn told(subscribed: &Json) -> Vec<Json> {
    let publications = subscribed["publications"].as_array().into_iter().flatten();
    publications.map(|one| one["data"].clone()).collect()
}

#[tokio::test]
async fn a_session_resumes_after_its_node_has_died_or_restarted() {
    let mut server = Server::start(CONFIG);
    let session = durable(&server).await;
    let press = press(&server).await;
    for stop in [Server::kill, Server::stop] {
        let mut socket = Socket::connect(&server.base(), &session.token).await;
        for channel in ["news:1", "now:1"] {
            socket.ask("subscribe", json!({ "channel": channel })).await.unwrap();
        }
        // It is kept by the time that it is answered.
        let channels = kept(&server, &session).await;
        let names: Vec<_> = channels.iter().map(|one| one["channel"].as_str().unwrap()).collect();
        assert_eq!(names, ["news:1", "now:1"], "{channels:?}");
        let before = offset_kept(&server, &session, "news:1").await;
        for n in 1..=3 {
            publish(&press, "news:1", n).await;
            assert_eq!(socket.push().await["pub"]["data"], n);
        }
        settled(&server, &session, &mut socket, "news:1", before + 3).await;
        stop(&mut server);
        server.start_again();
        for n in 4..=5 {
            publish(&press, "news:1", n).await;
        }
        let (mut socket, connected) = resume(&server.base(), &session).await;
        let news = &connected["subs"]["news:1"];
        assert_eq!((&news["recovered"], told(news)), (&json!(true), vec![json!(4), json!(5)]));
        // What is kept nowhere may have been missed, which is said.
        let now = &connected["subs"]["now:1"];
        assert_eq!((&now["recovered"], &now["was_recovering"]), (&json!(null), &json!(true)));
        assert_eq!(connected["data"]["resumed"], json!({ "maps": [], "dropped": [] }));
        publish(&press, "news:1", 6).await;
        assert_eq!(socket.push().await["pub"]["data"], 6);
        for channel in ["news:1", "now:1"] {
            socket.ask("unsubscribe", json!({ "channel": channel })).await.unwrap();
        }
        assert_eq!(kept(&server, &session).await, [] as [Json; 0]);
        let (_, connected) = resume(&server.base(), &session).await;
        assert_eq!(connected["subs"], json!(null));
    }
}

#[tokio::test]
async fn what_the_client_has_not_confirmed_comes_again() {
    let mut server = Server::start(CONFIG);
    let session = durable(&server).await;
    let press = press(&server).await;
    let mut socket = Socket::connect(&server.base(), &session.token).await;
    socket.ask("subscribe", json!({ "channel": "news:1" })).await.unwrap();
    for n in 1..=3 {
        publish(&press, "news:1", n).await;
    }
    // The node pings, and the client reads neither publications nor the ping, until it is closed.
    let ann = server.client("acme", "ann");
    while ann.get::<Json>("/crosstown/v1/connections").await.unwrap()["count"] != 0 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(offset_kept(&server, &session, "news:1").await, 0);
    server.kill();
    server.start_again();
    let (_, connected) = resume(&server.base(), &session).await;
    let news = &connected["subs"]["news:1"];
    assert_eq!((&news["recovered"], told(news).len()), (&json!(true), 3));
    // A client that knows better where it is says so.
    let mut socket = Socket::open(&server.base()).await;
    let subs = json!({ "news:1": { "recover": true, "epoch": news["epoch"], "offset": 2 } });
    let connect = json!({ "token": session.token, "data": { "resume": true }, "subs": subs });
    let connected = socket.ask("connect", connect).await.unwrap();
    assert_eq!(told(&connected["subs"]["news:1"]), [json!(3)]);
    assert_eq!(offset_kept(&server, &session, "news:1").await, 2);
}

#[tokio::test]
async fn a_session_goes_from_one_transport_to_another() {
    let server = Server::start(CONFIG);
    let session = durable(&server).await;
    let press = press(&server).await;
    let mut socket = Socket::connect(&server.base(), &session.token).await;
    socket.ask("subscribe", json!({ "channel": "news:1" })).await.unwrap();
    publish(&press, "news:1", 1).await;
    assert_eq!(socket.push().await["pub"]["data"], 1);
    settled(&server, &session, &mut socket, "news:1", 1).await;
    publish(&press, "news:1", 2).await;

    // The WebSocket is still open, and its client gone: another transport takes the session over.
    let connect = json!({ "id": 1,
        "connect": { "token": session.token, "data": { "resume": true } } });
    let escaped: String = connect.to_string().bytes().map(|byte| format!("%{byte:02X}")).collect();
    let line = format!("GET /connection/sse?cf_connect={escaped}");
    let mut events = Stream::ask(&server.base(), &line, &[], b"").await;
    let connected = events.event().await.unwrap()["connect"].clone();
    assert_eq!(told(&connected["subs"]["news:1"]), [json!(2)]);
    assert_eq!(connected["pong"], true, "the answer says what the client has");
    assert_eq!(offset_kept(&server, &session, "news:1").await, 1);
    let say = |commands: Json| {
        let body = json!({ "session": connected["session"], "node": connected["node"],
            "data": commands.to_string() });
        let body = body.to_string();
        let base = server.base();
        async move {
            let kind = ["Content-Type: application/json"];
            let said = Stream::ask(&base, "POST /emulation", &kind, body.as_bytes());
            assert_eq!(said.await.status, 204);
        }
    };
    // A ping comes, its answer goes by a request of its own, and the position is kept.
    events.until(b"data: {}\n\n").await.unwrap();
    say(json!({})).await;
    settled(&server, &session, &mut socket, "news:1", 2).await;

    publish(&press, "news:1", 3).await;
    let body = connect.to_string();
    let kind = ["Content-Type: application/json"];
    let mut lines =
        Stream::ask(&server.base(), "POST /connection/http_stream", &kind, body.as_bytes()).await;
    let connected = lines.line().await.unwrap()["connect"].clone();
    assert_eq!(told(&connected["subs"]["news:1"]), [json!(3)]);
    // Back to a WebSocket, from where the kept position is.
    let (_, connected) = resume(&server.base(), &session).await;
    assert_eq!(told(&connected["subs"]["news:1"]), [json!(3)]);
}

#[tokio::test]
async fn a_gap_is_told_until_the_client_knows_of_it() {
    let mut server = Server::start(CONFIG);
    let session = durable(&server).await;
    let press = press(&server).await;
    let mut socket = Socket::connect(&server.base(), &session.token).await;
    socket.ask("subscribe", json!({ "channel": "short:1" })).await.unwrap();
    server.kill();
    server.start_again();
    for n in 1..=5 {
        publish(&press, "short:1", n).await;
    }
    let mut connections = Vec::new();
    for _ in 0..2 {
        let (socket, connected) = resume(&server.base(), &session).await;
        let short = &connected["subs"]["short:1"];
        let said = (&short["recovered"], &short["was_recovering"], told(short).len());
        assert_eq!(said, (&json!(null), &json!(true), 0));
        connections.push(socket);
    }
    let mut socket = connections.pop().unwrap();
    settled(&server, &session, &mut socket, "short:1", 5).await;
    let (_, connected) = resume(&server.base(), &session).await;
    assert_eq!(connected["subs"]["short:1"]["recovered"], true);
}

#[tokio::test]
async fn a_client_takes_over_what_was_resumed_and_misses_nothing() {
    // No ping comes, so nothing is confirmed.
    let server = Server::start(
        "[[realtime.namespaces]]\nname = \"news\"\nhistory_size = 1000\ntier = \"hot\"\n",
    );
    let session = durable(&server).await;
    let press = press(&server).await;
    let mut socket = Socket::connect(&server.base(), &session.token).await;
    socket.ask("subscribe", json!({ "channel": "news:1" })).await.unwrap();
    drop(socket);
    let (mut socket, _) = resume(&server.base(), &session).await;
    let publishing = async {
        for n in 1..=40 {
            publish(&press, "news:1", n).await;
        }
    };
    let taking_over = async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let stands = socket.ask("subscribe", json!({ "channel": "news:1" })).await.unwrap();
        let mut seen = Vec::new();
        while let Some(push) = socket.push_now() {
            seen.push(push["pub"]["data"].clone());
        }
        // Pushes that came after the answer may be among those: in the order of the offsets.
        seen.extend(told(&stands));
        while seen.len() < 40 {
            seen.push(socket.push().await["pub"]["data"].clone());
        }
        seen
    };
    let both = async { tokio::join!(publishing, taking_over) };
    let ((), seen) = timeout(Duration::from_secs(10), both).await.expect("all are told");
    let mut numbers: Vec<u64> = seen.iter().map(|one| one.as_u64().unwrap()).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=40).collect::<Vec<_>>());
    // Its own, it is subscribed to once.
    let again = socket.ask("subscribe", json!({ "channel": "news:1" })).await.unwrap_err();
    assert_eq!(again["code"], 105);
    assert_eq!(kept(&server, &session).await.len(), 1);

    // As SDKs do it: the subscription comes behind `connect`, before that is answered.
    let connect = json!({ "id": 1,
        "connect": { "token": session.token, "data": { "resume": true } } });
    let subscribe = json!({ "id": 2, "subscribe": { "channel": "news:1" } });
    let body = format!("{connect}\n{subscribe}");
    let kind = ["Content-Type: application/json"];
    let mut stream =
        Stream::ask(&server.base(), "POST /connection/http_stream", &kind, body.as_bytes()).await;
    let connected = stream.line().await.unwrap();
    assert_eq!((&connected["id"], &connected["connect"]["subs"]), (&json!(1), &json!(null)));
    let stands = stream.line().await.unwrap();
    let missed = told(&stands["subscribe"]).len();
    assert_eq!((&stands["id"], missed, &stands["error"]), (&json!(2), 40, &json!(null)));
    publish(&press, "news:1", 41).await;
    assert_eq!(stream.line().await.unwrap()["push"]["pub"]["data"], 41);
}

#[tokio::test]
async fn what_is_not_allowed_any_more_is_given_up() {
    let mut server = Server::start(CONFIG);
    let session = durable(&server).await;
    let press = press(&server).await;
    let mut socket = Socket::connect(&server.base(), &session.token).await;
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    // Clocks of issuers may be off by thirty seconds.
    for (channel, exp) in [("closed:soon", now - 28), ("closed:late", now + 600)] {
        let token = server.token_with("acme", "ann", json!({ "channel": channel, "exp": exp }));
        socket.ask("subscribe", json!({ "channel": channel, "token": token })).await.unwrap();
    }
    let tf = json!({ "key": "n", "cmp": "gt", "val": "5" });
    socket.ask("subscribe", json!({ "channel": "ticks:1", "tf": tf })).await.unwrap();
    server.kill();
    tokio::time::sleep(Duration::from_millis(2_100)).await;
    server.start_again();
    for n in [4, 6] {
        let path = format!("/crosstown/v1/channels/ticks:1/publications?tag=n:{n}");
        press.post(&path, &json!(n)).await;
    }
    let (mut socket, connected) = resume(&server.base(), &session).await;
    assert_eq!(told(&connected["subs"]["ticks:1"]), [json!(6)], "the filter is kept");
    assert!(connected["subs"]["closed:late"].is_object(), "{connected}");
    assert!(connected["subs"]["closed:late"]["ttl"].as_u64() > Some(500), "{connected}");
    assert_eq!(connected["subs"]["closed:soon"], json!(null));
    let dropped = &connected["data"]["resumed"]["dropped"];
    assert_eq!(dropped.as_array().unwrap().len(), 1, "{dropped}");
    let one = (&dropped[0]["channel"], &dropped[0]["code"]);
    assert_eq!(one, (&json!("closed:soon"), &json!("token_expired")));
    assert_eq!(kept(&server, &session).await.len(), 2);
    // The permission goes with the subscription, if its client takes it over.
    socket.ask("subscribe", json!({ "channel": "closed:late" })).await.unwrap();
    publish(&press, "closed:late", 1).await;
    assert_eq!(socket.push().await["pub"]["data"], 1);
}

#[tokio::test]
async fn letters_of_a_session_come_until_they_are_acknowledged() {
    let mut server = Server::start(CONFIG);
    let session = durable(&server).await;
    let press = press(&server).await;
    let mailbox = format!("mailbox:session:{}", session.id);
    let letters = format!("/crosstown/v1/mailboxes/session:{}/letters", session.id);
    let mut socket = Socket::connect(&server.base(), &session.token).await;
    let follow = json!({ "channel": mailbox, "type": 1, "phase": 2 });
    socket.ask("subscribe", follow.clone()).await.unwrap();
    for n in 1..=2 {
        press.post(&letters, &json!({ "data": n })).await;
    }
    let first = socket.push().await["pub"]["key"].clone();
    let done = json!({ "channel": mailbox, "type": 1, "key": first, "removed": true });
    socket.ask("publish", done).await.unwrap();
    server.kill();
    server.start_again();
    press.post(&letters, &json!({ "data": 3 })).await;
    let (mut socket, connected) = resume(&server.base(), &session).await;
    assert_eq!(connected["data"]["resumed"]["maps"], json!([mailbox]));
    let stands = socket.ask("subscribe", follow).await.unwrap();
    let waiting: Vec<_> =
        stands["state"].as_array().unwrap().iter().map(|one| &one["data"]["data"]).collect();
    assert_eq!(waiting, [&json!(2), &json!(3)], "{stands}");
}

#[tokio::test]
async fn a_destroyed_session_keeps_nothing_and_an_ordinary_one_never_did() {
    let server = Server::start(CONFIG);
    let session = durable(&server).await;
    let ann = server.client("acme", "ann");
    let path = format!("{SESSIONS}/{}", session.id);
    let mut socket = Socket::connect(&server.base(), &session.token).await;
    socket.ask("subscribe", json!({ "channel": "news:1" })).await.unwrap();
    let listed: Json = ann.get(SESSIONS).await.unwrap();
    assert_eq!(listed["sessions"][0]["subscriptions"][0]["channel"], "news:1", "{listed}");
    ann.delete(&path).await.unwrap();
    assert_eq!(socket.close_code().await, 3503);
    assert_eq!(ann.get::<Json>(&path).await.unwrap_err().code(), Some("not_found"));

    let ordinary: Json = ann.post(SESSIONS, &json!({})).await.unwrap();
    assert_eq!((&ordinary["durable"], ordinary.get("subscriptions")), (&json!(false), None));
    let token = ordinary["token"].as_str().unwrap().to_owned();
    let ordinary = Session { id: ordinary["id"].as_str().unwrap().to_owned(), token };
    let mut socket = Socket::connect(&server.base(), &ordinary.token).await;
    socket.ask("subscribe", json!({ "channel": "news:1" })).await.unwrap();
    let (_, connected) = resume(&server.base(), &ordinary).await;
    assert_eq!((&connected["subs"], &connected["data"]["resumed"]), (&json!(null), &json!(null)));
    assert!(connected["data"].get("resumed").is_some(), "{connected}");
}

#[tokio::test]
async fn a_session_resumes_on_another_node() {
    let redis = Redis::start(RedisOptions::appending(Appends::Always)).unwrap();
    let keys = format!("durable = \"{}\"", redis.url());
    let mut nodes = [(); 2].map(|()| Server::start_on(&keys, CONFIG));
    let session = durable(&nodes[0]).await;
    let press = press(&nodes[1]).await;
    let mut socket = Socket::connect(&nodes[0].base(), &session.token).await;
    socket.ask("subscribe", json!({ "channel": "news:1" })).await.unwrap();
    publish(&press, "news:1", 1).await;
    assert_eq!(socket.push().await["pub"]["data"], 1);
    settled(&nodes[1], &session, &mut socket, "news:1", 1).await;
    nodes[0].kill();
    publish(&press, "news:1", 2).await;
    let (mut socket, connected) = resume(&nodes[1].base(), &session).await;
    assert_eq!(told(&connected["subs"]["news:1"]), [json!(2)]);
    publish(&press, "news:1", 3).await;
    assert_eq!(socket.push().await["pub"]["data"], 3);
}

#[tokio::test]
async fn a_connection_that_is_refused_takes_nothing_over() {
    let config = CONFIG.replacen("[realtime]\n", "[realtime]\nconnections_per_user_max = 1\n", 1);
    let server = Server::start(&config);
    let session = durable(&server).await;
    let press = press(&server).await;
    let mut socket = Socket::connect(&server.base(), &session.token).await;
    let mut refused = Socket::open(&server.base()).await;
    let connect = json!({ "token": session.token, "data": { "resume": true } });
    refused.ask("connect", connect).await.unwrap_err();
    assert_eq!(refused.close_code().await, 3504);
    socket.ask("subscribe", json!({ "channel": "news:1" })).await.unwrap();
    publish(&press, "news:1", 1).await;
    settled(&server, &session, &mut socket, "news:1", 1).await;
}

#[tokio::test]
async fn a_client_names_positions_as_it_likes_and_is_not_locked_out() {
    let server = Server::start(CONFIG);
    let session = durable(&server).await;
    let mut socket = Socket::connect(&server.base(), &session.token).await;
    let tf = json!({ "key": "n", "cmp": "ex" });
    socket.ask("subscribe", json!({ "channel": "ticks:1", "tf": tf })).await.unwrap();
    let mut socket = Socket::open(&server.base()).await;
    // A difference and a filter do not go together: such a subscription would never begin.
    let named = json!({ "ticks:1": { "delta": "fossil", "recover": true, "epoch": "x" } });
    let connect = json!({ "token": session.token, "data": { "resume": true }, "subs": named });
    let connected = socket.ask("connect", connect).await.unwrap();
    let ticks = &connected["subs"]["ticks:1"];
    assert_eq!((&ticks["was_recovering"], &ticks["recovered"]), (&json!(true), &json!(null)));
    // What is taken over and does not begin is no more, and this is told.
    let bad = json!({ "channel": "ticks:1", "type": 9 });
    assert_eq!(socket.ask("subscribe", bad).await.unwrap_err()["code"], 108);
    assert_eq!(socket.push().await["unsubscribe"]["code"], 2000);
}

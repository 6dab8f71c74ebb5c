//! How much there may be of what connections take up.

use client::Client;
use integration_tests::{Server, Socket, Stream};
use serde_json::{Value as Json, json};
use std::time::{Duration, Instant};

#[tokio::test]
async fn those_who_come_all_at_once_wait_or_are_told_to_come_back() {
    let server = Server::start("[realtime]\nopen_rate = 1\n");
    let (base, token) = (server.base(), server.token("acme", "ann"));
    let connect = async || {
        let mut socket = Socket::open(&base).await;
        let answer = socket.ask("connect", json!({ "token": token })).await;
        (socket, answer)
    };
    let herd = futures_util::future::join_all((0..40).map(|_| connect())).await;
    let (opened, refused): (Vec<_>, Vec<_>) =
        herd.into_iter().partition(|(_, answer)| answer.is_ok());
    assert!(opened.len() >= 3 && refused.len() >= 3, "{} {}", opened.len(), refused.len());
    for (_, answer) in &refused {
        let error = answer.as_ref().unwrap_err();
        assert_eq!((&error["code"], &error["temporary"]), (&json!(111), &json!(true)));
    }
    // Whoever comes back is let in, on the same socket.
    let (mut socket, _) = refused.into_iter().next().unwrap();
    let until = Instant::now() + Duration::from_secs(20);
    while socket.ask("connect", json!({ "token": token })).await.is_err() {
        assert!(Instant::now() < until, "it is never let in");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    for (mut socket, _) in opened {
        socket.ask("ping", json!({})).await.unwrap();
    }
}

#[tokio::test]
async fn a_tenant_has_no_more_connections_than_may_be() {
    let server = Server::start("[realtime]\nconnections_per_tenant_max = 2\n");
    let base = server.base();
    let mut ann = Socket::connect(&base, &server.token("acme", "ann")).await;
    let bob = Socket::connect(&base, &server.token("acme", "bob")).await;
    let connect = json!({ "token": server.token("acme", "cat") });
    let mut cat = Socket::open(&base).await;
    let answer = cat.ask("connect", connect.clone()).await;
    assert_eq!((answer, cat.close_code().await), (Err(Json::Null), 3504));
    let mut eve = Socket::connect(&base, &server.token("other", "eve")).await;
    // The place of one that has gone is free.
    drop(bob);
    let until = Instant::now() + Duration::from_secs(20);
    while Socket::open(&base).await.ask("connect", connect.clone()).await.is_err() {
        assert!(Instant::now() < until, "no place becomes free");
    }
    for socket in [&mut ann, &mut eve] {
        socket.ask("ping", json!({})).await.unwrap();
    }
}

#[tokio::test]
async fn a_connection_follows_no_more_channels_than_may_be() {
    let server = Server::start("[realtime]\nsubscriptions_max = 2\n");
    let mut ann = Socket::connect(&server.base(), &server.token("acme", "ann")).await;
    for channel in ["a", "b"] {
        ann.ask("subscribe", json!({ "channel": channel })).await.unwrap();
    }
    for channel in ["c", "state:user:ann"] {
        let refused = ann.ask("subscribe", json!({ "channel": channel })).await.unwrap_err();
        assert_eq!(refused["code"], 106);
    }
    ann.ask("unsubscribe", json!({ "channel": "a" })).await.unwrap();
    ann.ask("subscribe", json!({ "channel": "c" })).await.unwrap();
}

#[tokio::test]
async fn histories_in_memory_make_room_and_nobody_misses_one_unseen() {
    let server = Server::start_alone("[realtime]\nlive_bytes_max = 65536\n");
    let base = server.base();
    let service = Client::new(&base, &server.api_key("acme", "crm").await).unwrap();
    let publish = async |channel: &str| {
        let path = format!("/crosstown/v1/channels/{channel}/publications");
        let _: Json = service.post(&path, &json!("x".repeat(500))).await.unwrap();
    };
    let mut ann = Socket::connect(&base, &server.token("acme", "ann")).await;
    let recover = async |ann: &mut Socket, position: &Json| {
        let request = json!({
            "channel": "old", "recover": true, "epoch": position["epoch"], "offset": 0,
        });
        let stands = ann.ask("subscribe", request).await.unwrap();
        ann.ask("unsubscribe", json!({ "channel": "old" })).await.unwrap();
        stands
    };
    publish("old").await;
    publish("old").await;
    let history = ann.ask("history", json!({ "channel": "old", "limit": 9 })).await.unwrap();
    assert_eq!(history["publications"].as_array().map(Vec::len), Some(2));
    let stands = recover(&mut ann, &history).await;
    assert_eq!((&stands["recovered"], &stands["epoch"]), (&json!(true), &history["epoch"]));

    for number in 0..300 {
        publish(&format!("new{number}")).await;
    }
    let health: Json = server.admin().get("/health").await.unwrap();
    let live = &health["live"]["channels"];
    assert!(live["bytes"].as_u64() <= Some(65_536) && live["count"].as_u64() < Some(300), "{live}");
    let stands = recover(&mut ann, &history).await;
    assert_ne!(stands["recovered"], true, "{stands}");
    assert_ne!(stands["epoch"], history["epoch"]);
}

#[tokio::test]
async fn pages_of_other_origins_open_no_socket() {
    let server = Server::start("[realtime]\norigins = [\"http://here.example\"]\n");
    for (origin, status) in [("here", 101), ("there", 403)] {
        let fields = [
            &format!("Origin: http://{origin}.example")[..],
            "Connection: Upgrade",
            "Upgrade: websocket",
            "Sec-WebSocket-Version: 13",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        ];
        let answer = Stream::ask(&server.base(), "GET /connection/websocket", &fields, b"").await;
        assert_eq!(answer.status, status, "{origin}");
    }
    // A client that is no browser says no origin.
    Socket::connect(&server.base(), &server.token("acme", "ann")).await;
}

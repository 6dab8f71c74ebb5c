//! Who is connected, and what others have done to them.

use client::Client;
use integration_tests::{Server, Socket, Stream};
use serde_json::{Value as Json, json};
use std::time::{Duration, Instant};

const CONNECTIONS: &str = "/crosstown/v1/connections";
const ORDERS: &str = "/crosstown/v1/connections/orders";

async fn listed(client: &Client, query: &str) -> Vec<Json> {
    let answer: Json = client.get(&format!("{CONNECTIONS}{query}")).await.unwrap();
    let listed = answer["connections"].as_array().unwrap().clone();
    assert_eq!(answer["count"], listed.len());
    listed
}

async fn ordered(client: &Client, to: Json, order: Json) -> u64 {
    let body = json!({ "to": to, "order": order });
    let told: Json = client.post(ORDERS, &body).await.unwrap();
    told["connections"].as_u64().unwrap()
}

#[tokio::test]
async fn connections_are_shown_and_take_orders() {
    let server = Server::start("[[realtime.namespaces]]\nname = \"closed\"\nsubscribe = false\n");
    let base = server.base();
    let service = Client::new(&base, &server.api_key("acme", "crm").await).unwrap();
    let mut ann = Socket::connect(&base, &server.token("acme", "ann")).await;
    let mut bob = Socket::connect(&base, &server.token("acme", "bob")).await;
    let mut eve = Socket::connect(&base, &server.token("other", "eve")).await;
    let connect = json!({ "id": 1, "connect": { "token": server.token("acme", "ann") } });
    let line = "POST /connection/http_stream";
    let kind = ["Content-Type: application/json"];
    let mut stream = Stream::ask(&base, line, &kind, connect.to_string().as_bytes()).await;
    stream.line().await.unwrap();
    ann.ask("subscribe", json!({ "channel": "room" })).await.unwrap();

    assert_eq!(listed(&service, "").await.len(), 3);
    let of_ann = listed(&service, "?user=ann").await;
    assert_eq!(of_ann.len(), 2);
    let socket = of_ann.iter().find(|one| one["transport"] == "websocket").unwrap();
    assert!(of_ann.iter().any(|one| one["transport"] == "stream"));
    let told = (&socket["user"], &socket["kind"], &socket["encoding"], &socket["ip"]);
    assert_eq!(told, (&json!("ann"), &json!("user"), &json!("json"), &json!("127.0.0.1")));
    assert_eq!(socket["subscriptions"], json!(["room"]));
    assert!(socket["since"].as_u64() > Some(1_700_000_000_000), "{socket}");
    assert!(socket["expires"].as_u64() > socket["since"].as_u64(), "{socket}");
    let id = socket["connection"].as_str().unwrap();
    let one: Json = service.get(&format!("{CONNECTIONS}/{id}")).await.unwrap();
    assert_eq!(one, *socket);
    assert_eq!(listed(&service, "?channel=room").await, std::slice::from_ref(socket));
    let session = socket["session"].as_str().unwrap();
    assert_eq!(listed(&service, &format!("?session={session}")).await.len(), 2);
    assert_eq!(listed(&service, "?kind=agent").await, [] as [Json; 0]);

    // A message to a user reaches all connections, and nobody else's.
    let to_ann = json!({ "user": "ann" });
    let send = json!({ "do": "send", "data": { "n": 1 } });
    assert_eq!(ordered(&service, to_ann.clone(), send).await, 2);
    assert_eq!(ann.push().await["message"]["data"], json!({ "n": 1 }));
    assert_eq!(stream.line().await.unwrap()["push"]["message"]["data"], json!({ "n": 1 }));

    // The server subscribes, to what the client itself may not.
    let to_one = json!({ "connection": id });
    let follow = json!({ "do": "subscribe", "channel": "closed:1" });
    for _ in 0..2 {
        assert_eq!(ordered(&service, to_one.clone(), follow.clone()).await, 1);
    }
    let begun = ann.push().await;
    assert_eq!(
        (&begun["channel"], &begun["subscribe"]["recoverable"]),
        (&json!("closed:1"), &json!(true))
    );
    let closed = "/crosstown/v1/channels/closed:1/publications";
    let _: Json = service.post(closed, &json!("hello")).await.unwrap();
    assert_eq!(ann.push().await["pub"]["data"], "hello");
    let leave = json!({ "do": "unsubscribe", "channel": "closed:1" });
    assert_eq!(ordered(&service, to_one.clone(), leave).await, 1);
    let ended = ann.push().await;
    assert_eq!(
        (&ended["channel"], &ended["unsubscribe"]["code"]),
        (&json!("closed:1"), &json!(2000))
    );
    let _: Json = service.post(closed, &json!("unheard")).await.unwrap();

    // Everybody closes their own; a stranger nobody's.
    let own = server.client("acme", "ann");
    assert_eq!(listed(&own, "").await.len(), 2);
    let stranger = server.client("other", "eve");
    assert_eq!(listed(&stranger, "").await.len(), 1);
    let path = format!("{CONNECTIONS}/{id}");
    for client in [&server.client("acme", "bob"), &stranger] {
        assert_eq!(client.delete(&path).await.unwrap_err().code(), Some("not_found"));
    }
    ann.ask("ping", json!({})).await.unwrap();
    assert_eq!(ann.push_now(), None);
    own.delete(&format!("{path}?reconnect=true")).await.unwrap();
    assert_eq!(ann.close_code().await, 3011);
    assert_eq!(ordered(&service, json!({ "user": "bob" }), json!({ "do": "disconnect" })).await, 1);
    assert_eq!(bob.close_code().await, 3503);
    eve.ask("ping", json!({})).await.unwrap();
}

#[tokio::test]
async fn orders_that_cannot_be_are_refused() {
    let server = Server::start("");
    let service = Client::new(&server.base(), &server.api_key("acme", "crm").await).unwrap();
    let ann = server.client("acme", "ann");
    let send = json!({ "do": "send", "data": 1 });
    let to = json!({ "user": "ann" });
    for (client, to, order, expected) in [
        (&service, json!({}), send.clone(), "bad_request"),
        (&service, json!({ "usr": "ann" }), send.clone(), "bad_request"),
        (&service, json!({ "session": "nobody" }), send.clone(), "bad_request"),
        (&service, to.clone(), json!({ "do": "dance" }), "bad_request"),
        (&service, to.clone(), json!({ "do": "subscribe", "channel": "a b" }), "bad_request"),
        (&ann, to.clone(), send.clone(), "forbidden"),
        (&ann, json!({ "user": "bob" }), json!({ "do": "disconnect" }), "forbidden"),
    ] {
        let body = json!({ "to": to, "order": order });
        let answer = client.post::<Json>(ORDERS, &body).await;
        assert_eq!(answer.unwrap_err().code(), Some(expected), "{body}");
    }
    for query in ["?limit=0", "?limit=501", "?who=ann", "?kind=cat"] {
        let answer = service.get::<Json>(&format!("{CONNECTIONS}{query}")).await;
        assert_eq!(answer.unwrap_err().code(), Some("bad_request"), "{query}");
    }
    let missing = service.get::<Json>(&format!("{CONNECTIONS}/con_1")).await;
    assert_eq!(missing.unwrap_err().code(), Some("not_found"));
    assert_eq!(ordered(&service, to, send).await, 0);
}

#[tokio::test]
async fn there_are_no_more_connections_than_may_be() {
    for when_full in ["refuse", "close_oldest"] {
        let config =
            format!("[realtime]\nconnections_per_user_max = 2\nwhen_full = \"{when_full}\"\n");
        let server = Server::start(&config);
        let (base, token) = (server.base(), server.token("acme", "ann"));
        let connect = json!({ "token": token });
        let mut first = Socket::connect(&base, &token).await;
        let mut second = Socket::connect(&base, &token).await;
        let mut third = Socket::open(&base).await;
        let answer = third.ask("connect", connect.clone()).await;
        let mut stays = if when_full == "refuse" {
            assert_eq!((answer, third.close_code().await), (Err(Json::Null), 3504));
            first
        } else {
            assert_eq!((answer.is_ok(), first.close_code().await), (true, 3503));
            third
        };
        for socket in [&mut second, &mut stays] {
            socket.ask("ping", json!({})).await.unwrap();
        }
        // The place of one that has gone is free.
        drop(second);
        let until = Instant::now() + Duration::from_secs(20);
        while Socket::open(&base).await.ask("connect", connect.clone()).await.is_err() {
            assert!(Instant::now() < until, "no place becomes free");
        }
        stays.ask("ping", json!({})).await.unwrap();
    }
}

#[tokio::test]
async fn why_a_connection_was_closed_is_logged_and_counted() {
    let server = Server::start("");
    let base = server.base();
    let service = Client::new(&base, &server.api_key("acme", "crm").await).unwrap();
    let mut ann = Socket::connect(&base, &server.token("acme", "ann")).await;
    let to = json!({ "user": "ann" });
    let long = json!({ "do": "disconnect", "reason": "x".repeat(257) });
    let refused = service.post::<Json>(ORDERS, &json!({ "to": to, "order": long })).await;
    assert_eq!(refused.unwrap_err().code(), Some("bad_request"));
    let connect = json!({ "id": 1, "connect": { "token": server.token("acme", "ann") } });
    let (line, kind) = ("POST /connection/http_stream", ["Content-Type: application/json"]);
    let mut stream = Stream::ask(&base, line, &kind, connect.to_string().as_bytes()).await;
    stream.line().await.unwrap();
    let order = json!({ "do": "disconnect", "reason": "moved to another plan" });
    assert_eq!(ordered(&service, to.clone(), order).await, 2);
    assert_eq!(ann.close_code().await, 3503);
    // The client is told as well, as far as its transport can.
    let moved = "moved to another plan";
    assert_eq!(ann.closed, Some((3503, moved.to_owned())));
    let end = stream.line().await.unwrap()["push"]["disconnect"].clone();
    assert_eq!(end, json!({ "code": 3503, "reason": moved }));
    for (user, reason, told) in [
        ("bob", String::new(), "force reconnect".to_owned()),
        ("cat", "ä".repeat(128), "ä".repeat(61)),
    ] {
        let mut socket = Socket::connect(&base, &server.token("acme", user)).await;
        let order = json!({ "do": "disconnect", "reconnect": true, "reason": reason });
        assert_eq!(ordered(&service, json!({ "user": user }), order).await, 1);
        socket.close_code().await;
        assert_eq!(socket.closed, Some((3011, told)));
    }
    assert!(server.log().contains("moved to another plan"), "{}", server.log());
    let name = "crosstown_sockets_closed_total{code=\"3503\",reason=\"force disconnect\"}";
    let until = Instant::now() + Duration::from_secs(5);
    loop {
        let metrics = server.admin().call(http::Method::GET, "/metrics", None).await.unwrap();
        let text = String::from_utf8(metrics.body.to_vec()).unwrap();
        if text.contains(&format!("{name} 2\n")) {
            return;
        }
        assert!(Instant::now() < until, "{text}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

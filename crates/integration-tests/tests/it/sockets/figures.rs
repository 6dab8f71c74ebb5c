//! What is told of channels and of all connections.

use client::Client;
use integration_tests::{Server, Socket};
use serde_json::{Value as Json, json};
use std::time::{Duration, Instant};

const CHANNELS: &str = "/crosstown/v1/channels";
const STATS: &str = "/crosstown/v1/connections/stats";
const CONFIG: &str = "[[realtime.namespaces]]\nname = \"news\"\nhistory_size = 3\n\
    history_ttl = \"1h\"\ntier = \"durable\"\nsubscribe = { roles = [\"editor\"], kinds = [\"user\"] }\n\
    [[realtime.namespaces]]\nname = \"now\"\nhistory_size = 0\n\
    [[realtime.namespaces]]\nname = \"board\"\nmap = true\n";

async fn service(server: &Server, tenant: &str) -> Client {
    Client::new(&server.base(), &server.api_key(tenant, "crm").await).unwrap()
}

async fn follow(socket: &mut Socket, channels: &[&str]) {
    for channel in channels {
        socket.ask("subscribe", json!({ "channel": channel })).await.unwrap();
    }
}

async fn listed(client: &Client, query: &str) -> Json {
    client.get(&format!("{CHANNELS}{query}")).await.unwrap()
}

/// Waits until what is told is what is expected.
async fn until(client: &Client, path: &str, expected: impl Fn(&Json) -> bool) -> Json {
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        let told: Json = client.get(path).await.unwrap();
        if expected(&told) {
            return told;
        }
        assert!(Instant::now() < until, "{told}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn channels_that_are_followed_are_listed_page_by_page() {
    let server = Server::start(CONFIG);
    let (base, service) = (server.base(), service(&server, "acme").await);
    let mut ann = Socket::connect(&base, &server.token("acme", "ann")).await;
    let mut bob = Socket::connect(&base, &server.token("acme", "bob")).await;
    let mut eve = Socket::connect(&base, &server.token("other", "eve")).await;
    assert_eq!(listed(&service, "").await, json!({ "channels": [] }));
    follow(&mut ann, &["news:1", "news:2", "news:3", "room", "state:user:ann"]).await;
    follow(&mut bob, &["news:2", "now:1"]).await;
    follow(&mut eve, &["news:2", "theirs"]).await;
    let active =
        |channel: &str, subscribers: u64| json!({ "channel": channel, "subscribers": subscribers });
    let all = [
        active("news:1", 1),
        active("news:2", 2),
        active("news:3", 1),
        active("now:1", 1),
        active("room", 1),
        active("state:user:ann", 1),
    ];
    assert_eq!(listed(&service, "").await, json!({ "channels": all }));
    assert_eq!(listed(&service, "?limit=6").await, json!({ "channels": all }));
    assert_eq!(listed(&service, "?pattern=news:*").await, json!({ "channels": all[..3] }));
    assert_eq!(listed(&service, "?pattern=*:2").await, json!({ "channels": all[1..2] }));
    assert_eq!(listed(&service, "?pattern=room").await, json!({ "channels": all[4..5] }));
    assert_eq!(listed(&service, "?pattern=roo").await, json!({ "channels": [] }));
    for limit in 1..6 {
        for (pattern, expected) in [("*", &all[..]), ("n*", &all[..4])] {
            let (mut found, mut cursor) = (Vec::new(), None);
            for _ in 0..20 {
                let mut query = format!("?limit={limit}&pattern={pattern}");
                if let Some(cursor) = &cursor {
                    query = format!("{query}&cursor={cursor}");
                }
                let page = listed(&service, &query).await;
                let channels = page["channels"].as_array().unwrap();
                assert!(channels.len() <= limit, "{page}");
                found.extend(channels.clone());
                cursor = page["cursor"].as_str().map(str::to_owned);
                if cursor.is_none() {
                    break;
                }
            }
            assert_eq!(found, expected, "{pattern} by {limit}");
        }
    }
    // What nobody follows any more goes, whether by a command or with the connection.
    ann.ask("unsubscribe", json!({ "channel": "news:2" })).await.unwrap();
    let one_less = active("news:2", 1);
    until(&service, CHANNELS, |told| told["channels"][1] == one_less).await;
    drop(bob);
    let left = [&all[0], &all[2], &all[4], &all[5]];
    until(&service, CHANNELS, |told| *told == json!({ "channels": left })).await;

    for query in ["?limit=0", "?limit=1001", "?what=1", &format!("?pattern={}", "x".repeat(256))] {
        let refused = service.get::<Json>(&format!("{CHANNELS}{query}")).await.unwrap_err();
        assert_eq!(refused.code(), Some("bad_request"), "{query}");
    }
    for path in [CHANNELS, &format!("{CHANNELS}/room"), STATS] {
        let refused = server.client("acme", "ann").get::<Json>(path).await.unwrap_err();
        assert_eq!(refused.code(), Some("forbidden"), "{path}");
    }
    eve.ask("ping", json!({})).await.unwrap();
}

#[tokio::test]
async fn a_channel_is_described() {
    let server = Server::start_alone(CONFIG);
    let (base, service) = (server.base(), service(&server, "acme").await);
    let mut sockets = Vec::new();
    for (tenant, user) in [("acme", "ann"), ("acme", "ann"), ("acme", "bob"), ("other", "eve")] {
        let mut socket = Socket::connect(&base, &server.token(tenant, user)).await;
        follow(&mut socket, &["news:1"]).await;
        sockets.push(socket);
    }
    for n in 0..5 {
        let _: Json =
            service.post(&format!("{CHANNELS}/news:1/publications"), &json!(n)).await.unwrap();
    }
    let told: Json = service.get(&format!("{CHANNELS}/news:1")).await.unwrap();
    assert_eq!((&told["subscribers"], &told["users"]), (&json!(3), &json!(2)));
    assert_eq!(told["nodes"].as_object().unwrap().values().collect::<Vec<_>>(), [&json!(3)]);
    let kind = (&told["channel"], &told["kind"], &told["tier"]);
    assert_eq!(kind, (&json!("news:1"), &json!("publications"), &json!("durable")));
    let history = &told["history"];
    assert_eq!((&history["offset"], &history["size"]), (&json!(5), &json!(3)), "{told}");
    let start = sockets[0].ask("history", json!({ "channel": "news:1" })).await.unwrap();
    assert_eq!(history["epoch"], start["epoch"]);
    let namespace = &told["namespace"];
    assert_eq!(
        (&namespace["history_ttl"], &namespace["slow"]),
        (&json!("1h"), &json!("disconnect"))
    );
    assert_eq!(namespace["subscribe"]["roles"], json!(["editor"]));
    assert_eq!(namespace["publish"], true);

    for (channel, kind, tier, has_history) in [
        ("room", "publications", json!("live"), true),
        ("now:1", "publications", json!(null), false),
        ("board:1", "map", json!(null), true),
        ("state:user:ann", "document", json!(null), true),
    ] {
        let told: Json = service.get(&format!("{CHANNELS}/{channel}")).await.unwrap();
        assert_eq!((&told["kind"], &told["tier"]), (&json!(kind), &tier), "{told}");
        assert_eq!((&told["subscribers"], &told["users"]), (&json!(0), &json!(0)));
        assert_eq!(told["history"].is_object(), has_history, "{told}");
        assert_eq!(told["namespace"].is_object(), !channel.starts_with("state:"), "{told}");
    }
    for (channel, code) in [("unknown:1", "not_found"), ("a%20b", "bad_request")] {
        let refused = service.get::<Json>(&format!("{CHANNELS}/{channel}")).await.unwrap_err();
        assert_eq!(refused.code(), Some(code), "{channel}");
    }
}

#[tokio::test]
async fn what_goes_through_connections_is_counted_by_tenant() {
    let server = Server::start("");
    let (base, service) = (server.base(), service(&server, "acme").await);
    let mut ann = Socket::connect(&base, &server.token("acme", "ann")).await;
    let mut more = Socket::connect(&base, &server.token("acme", "ann")).await;
    let mut eve = Socket::connect(&base, &server.token("other", "eve")).await;
    follow(&mut ann, &["room", "hall"]).await;
    follow(&mut more, &["room"]).await;
    follow(&mut eve, &["room"]).await;
    let before: Json = service.get(STATS).await.unwrap();
    let counted = ["connections", "users", "channels", "subscriptions"];
    assert_eq!(counted.map(|of| before[of].as_u64()), [2, 1, 2, 3].map(Some), "{before}");
    assert_eq!(before["closings"], json!({}));
    let text = json!({ "id": 99, "ping": {} }).to_string();
    let passed = |of: &str, more: usize| json!(before[of].as_u64().unwrap() + more as u64);
    ann.send_raw(&text).await;
    let answer = json!({ "id": 99, "ping": {} }).to_string();
    // A client may have a message before the node has counted it.
    let expected = json!({
        "messages_in": passed("messages_in", 1),
        "bytes_in": passed("bytes_in", text.len()),
        "messages_out": passed("messages_out", 1),
        "bytes_out": passed("bytes_out", answer.len()),
    });
    let expected = expected.as_object().unwrap();
    until(&service, STATS, |told| expected.iter().all(|(of, count)| told[of] == *count)).await;
    // A publication counts for each who is sent it.
    let room = format!("{CHANNELS}/room/publications");
    let _: Json = service.post(&room, &json!(1)).await.unwrap();
    for socket in [&mut ann, &mut more] {
        socket.push().await;
    }
    let expected = passed("messages_out", 3);
    let after = until(&service, STATS, |told| told["messages_out"] == expected).await;
    assert_eq!(eve.push_now(), None);
    let [node] = &after["nodes"].as_array().unwrap()[..] else { panic!("{after}") };
    for of in counted.iter().chain(&["messages_in", "bytes_in", "messages_out", "bytes_out"]) {
        assert_eq!(node[of], after[of], "{of}");
    }
    assert!(node["since"].as_u64() > Some(1_700_000_000_000), "{node}");

    let order = json!({ "to": { "user": "ann" }, "order": { "do": "disconnect" } });
    let _: Json = service.post("/crosstown/v1/connections/orders", &order).await.unwrap();
    let gone = json!([0, 0, 0, 0, { "3503": 2 }]);
    let told = until(&service, STATS, |told| {
        let counts = counted.map(|of| told[of].clone());
        json!(counts.into_iter().chain([told["closings"].clone()]).collect::<Vec<_>>()) == gone
    });
    assert_eq!(told.await["messages_out"], passed("messages_out", 3), "nothing is forgotten");
    // The node's own figures are of all tenants.
    assert_eq!(server.metric("crosstown_channels").await, 1);
    assert_eq!(server.metric("crosstown_subscriptions").await, 1);
    let of_acme: Json = service.get(STATS).await.unwrap();
    let all = server.metric("crosstown_socket_messages_total{direction=\"in\"}").await;
    assert!(Some(all) > of_acme["messages_in"].as_u64(), "{all} {of_acme}");
}

#[tokio::test]
async fn what_is_in_memory_alone_is_told() {
    let server = Server::start_alone("");
    let service = service(&server, "acme").await;
    let live = async || {
        let health: Json = server.admin().get("/health").await.unwrap();
        for (what, of) in [("documents", "count"), ("documents_bytes", "bytes")] {
            let (told, of) = (server.metric(&format!("crosstown_live_{what}")).await, of);
            assert_eq!(health["live"]["documents"][of], told, "{health}");
        }
        health["live"].clone()
    };
    let nothing = json!({ "count": 0, "bytes": 0 });
    assert_eq!(live().await, json!({ "documents": nothing, "channels": nothing }));
    let _: Json =
        service.post(&format!("{CHANNELS}/room/publications"), &json!("x")).await.unwrap();
    let document = "/crosstown/v1/state/user/ann";
    let _: Json =
        service.put(&format!("{document}/entries/a"), &json!("x".repeat(5_000))).await.unwrap();
    let _: Json =
        service.post(&format!("{document}/demote"), &json!({ "tier": "live" })).await.unwrap();
    let told = live().await;
    for what in ["documents", "channels"] {
        assert_eq!(told[what]["count"], 1, "{told}");
    }
    assert!(told["documents"]["bytes"].as_u64() > Some(5_000), "{told}");
    assert!(told["channels"]["bytes"].as_u64() > Some(100), "{told}");
}

#[tokio::test]
async fn a_method_reports_the_tenants_traffic() {
    let server = Server::start("");
    let base = server.base();
    let service = service(&server, "acme").await;
    for n in 0..20 {
        let room = format!("{CHANNELS}/room/publications");
        let _: Json = service.post(&room, &json!(n)).await.unwrap();
    }
    let mut ann = Socket::connect(&base, &server.token("acme", "ann")).await;
    let mut eve = Socket::connect(&base, &server.token("other", "eve")).await;
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        let report = ann.rpc("traffic.report", json!({ "range": "5m" })).await.unwrap();
        if report["total"]["requests"].as_u64() >= Some(20) {
            break;
        }
        assert!(Instant::now() < until, "{report}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let report = eve.rpc("traffic.report", json!({ "range": "5m" })).await.unwrap();
    assert!(report["total"]["requests"].as_u64() < Some(20), "{report}");
    let wrong = ann.rpc("traffic.report", json!({ "range": "1y" })).await.unwrap_err();
    assert_eq!(wrong["code"], 400);
}

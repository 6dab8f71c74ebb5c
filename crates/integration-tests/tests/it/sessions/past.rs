//! What happened to sessions, and what they did.

use super::*;
use crate::affinity::Instances;
use futures_util::{StreamExt, stream};
use test_servers::{Appends, Redis, RedisOptions};

const TIMELINE: &str = "[sessions]\ntimeline = true\n[realtime]\n\
    [[realtime.namespaces]]\nname = \"news\"\nhistory_size = 100\n\
    subscribe = true\npublish = true\n";

#[tokio::test]
async fn what_happened_to_a_session_is_told_while_it_lives_and_afterwards() {
    let mut server = Server::start("");
    let crm = service(&server).await;
    let session = made(&crm, "ann", json!({ "device": { "name": "phone" } })).await;
    let ann = session.client(&server);
    let mut socket = Socket::connect(&server.base(), &session.token).await;
    let change = async |wish: Json| crm.patch::<Json>(&session.path, &wish).await.unwrap();
    change(json!({ "pillars": ["content:room-1"] })).await;
    let wish = json!({ "from": "content:room-1", "to": "content:room-2", "reason": "it is full" });
    let moved: Json = crm.post(&format!("{}/move", session.path), &wish).await.unwrap();
    assert_eq!(moved["pillars"], json!(["content:room-2"]));
    let again = crm.post::<Json>(&format!("{}/move", session.path), &wish).await;
    assert_eq!(refused(again).await, "conflict");
    change(json!({ "status": "suspended" })).await;
    assert_eq!(socket.close_code().await, 3503);
    assert_eq!(socket.closed.unwrap().1, "session suspended");
    change(json!({ "status": "active" })).await;

    let told = until(
        "sockets are events",
        async || events(&ann, &session, "").await,
        |told| kinds(told).contains(&"socket_closed"),
    )
    .await;
    let changes: Vec<_> =
        kinds(&told).into_iter().filter(|kind| !kind.starts_with("socket")).collect();
    assert_eq!(changes, ["created", "bound", "moved", "suspended", "resumed"]);
    assert!(told.is_sorted_by_key(|one| one["id"].to_string()), "{told:?}");
    assert_eq!((&told[0]["by"], &told[0]["device"]), (&json!("service:crm"), &json!("phone")));
    let closed = told.iter().find(|one| one["kind"] == "socket_closed").unwrap();
    assert_eq!((&closed["code"], &closed["reason"]), (&json!(3503), &json!("session suspended")));
    let opened = told.iter().find(|one| one["kind"] == "socket_opened").unwrap();
    assert_eq!(opened["address"], "127.0.0.0/24");
    // In pages, and by kind.
    let last = events(&ann, &session, "limit=2").await;
    assert_eq!(last, told[told.len() - 2..]);
    let before = last[0]["id"].as_str().unwrap();
    let earlier = events(&ann, &session, &format!("limit=3&before={before}")).await;
    assert_eq!(earlier, told[told.len() - 5..told.len() - 2]);
    assert_eq!(kinds(&events(&ann, &session, "kind=moved").await), ["moved"]);
    // Nobody else sees it.
    for stranger in [server.client("acme", "bob"), server.client("other", "ann")] {
        let path = format!("{}/events", session.path);
        assert_eq!(refused(stranger.get(&path).await).await, "not_found");
    }
    let table = cli(&server, &["events", session.id(), "--kind", "moved"]).await;
    assert!(table.contains("service:crm") && table.contains("reason=it is full"), "{table}");

    // The process dies, and nothing of it is lost.
    server.kill();
    server.start_again();
    let ann = session.client(&server);
    assert_eq!(events(&ann, &session, "").await, told);
    crm.delete(&session.path).await.unwrap();
    assert_eq!(refused(ann.get(&session.path).await).await, "unauthenticated");
    let afterwards = events(&server.client("acme", "ann"), &session, "").await;
    assert_eq!(afterwards.len(), told.len() + 1);
    let last = afterwards.last().unwrap();
    assert_eq!((&last["kind"], &last["reason"]), (&json!("revoked"), &json!("destroyed")));
    let path = format!("{}/events", session.path);
    assert_eq!(refused(server.client("acme", "bob").get(&path).await).await, "not_found");
}

async fn timeline(client: &Client, session: &Made, query: &str) -> Vec<Json> {
    let told: Json = client.get(&format!("{}/timeline?{query}", session.path)).await.unwrap();
    told["entries"].as_array().unwrap().clone()
}

#[tokio::test]
async fn a_timeline_joins_requests_sockets_documents_and_messages() {
    let instances = Instances::start();
    let mut server = Server::start(&format!("{TIMELINE}{}", instances.config()));
    let crm = service(&server).await;
    let session = made(&crm, "ann", json!({})).await;
    let ann = session.client(&server);
    let name: String = ann.get("/who?secret=1").await.unwrap();
    let mut socket = Socket::connect(&server.base(), &session.token).await;
    socket.ask("subscribe", json!({ "channel": "news:1" })).await.unwrap();
    socket.ask("publish", json!({ "channel": "news:1", "data": 7 })).await.unwrap();
    let put = json!({ "document": "user:ann", "key": "cart", "value": { "items": 1 } });
    socket.rpc("state.put", put).await.unwrap();
    socket.ask("unsubscribe", json!({ "channel": "news:1" })).await.unwrap();
    let letter = json!({ "id": "l1", "data": "hello" });
    let _: Json = ann.post("/crosstown/v1/mailboxes/user:ann/letters", &letter).await.unwrap();

    let wanted = ["created", "request", "socket_opened", "subscribed", "published", "state"];
    let wanted = [&wanted[..], &["unsubscribed", "letter"]].concat();
    let told = until(
        "all that it did",
        async || timeline(&ann, &session, "").await,
        |told| wanted.iter().all(|kind| kinds(told).contains(kind)),
    )
    .await;
    assert!(told.is_sorted_by_key(|one| one["id"].to_string()), "{told:?}");
    let one = |kind: &str| told.iter().find(|one| one["kind"] == kind).unwrap();
    let request = told.iter().find(|one| one["route"] == "rooms").unwrap();
    assert_eq!((&request["method"], &request["path"]), (&json!("GET"), &json!("/who")));
    assert_eq!((&request["service"], &request["status"]), (&json!("rooms"), &json!(200)));
    assert_eq!(request["instance"], json!(instances.address_of(&name)));
    assert!(request["latency_us"].as_u64() > Some(0), "{request}");
    assert_eq!(request["trace"].as_str().unwrap().len(), 32, "{request}");
    assert!(!json!(told).to_string().contains("secret"), "{told:?}");
    assert_eq!(
        (&one("published")["channel"], &one("published")["offset"]),
        (&json!("news:1"), &json!(1))
    );
    let state = one("state");
    assert_eq!(
        (&state["document"], &state["keys"], &state["revision"]),
        (&json!("user:ann"), &json!(["cart"]), &json!(1))
    );
    assert_eq!(
        (&one("letter")["to"], &one("letter")["letter"]),
        (&json!("user:ann"), &json!("l1"))
    );
    let published = timeline(&ann, &session, "kind=published").await;
    assert_eq!(kinds(&published), ["published"]);
    let last = timeline(&ann, &session, "limit=1").await;
    let before = last[0]["id"].as_str().unwrap();
    assert_eq!(timeline(&ann, &session, &format!("limit=1&before={before}")).await.len(), 1);
    let table = cli(&server, &["timeline", session.id(), "--kind", "state"]).await;
    assert!(table.contains("document=user:ann"), "{table}");

    // What was seen of it outlives the process that noted it.
    server.kill();
    server.start_again();
    let again = timeline(&session.client(&server), &session, "limit=1000").await;
    let ids = |told: &[Json]| told.iter().map(|one| one["id"].to_string()).collect::<Vec<_>>();
    let (again, told) = (ids(&again), ids(&told));
    assert!(told.iter().all(|id| again.contains(id)), "{told:?} {again:?}");
}

#[tokio::test]
async fn a_timeline_is_of_all_nodes_and_tells_what_it_misses() {
    let redis = Redis::start(RedisOptions::appending(Appends::Always)).unwrap();
    let keys = format!("durable = \"{}\"", redis.url());
    let config = "[sessions]\ntimeline = true\ntimeline_buffer_max = 100\n";
    let nodes = [(); 2].map(|()| Server::start_on(&keys, config));
    // Who asks has no session: it is not noted that he does.
    let crm = service(&nodes[0]).await;
    let session = made(&crm, "ann", json!({})).await;
    let [here, there] = [0, 1].map(|at| session.client(&nodes[at]));
    for (client, name) in [(&here, "here"), (&there, "there"), (&here, "here-again")] {
        let answer =
            client.call(Method::GET, &format!("/crosstown/v1/{name}"), None).await.unwrap();
        assert_eq!(answer.status.as_u16(), 404);
        // By the clocks of two processes of one machine.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let paths = |told: &[Json]| {
        let told = told.iter().filter(|one| one["status"] == 404);
        told.map(|one| one["path"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let wanted = ["here", "there", "here-again"].map(|name| format!("/crosstown/v1/{name}"));
    until(
        "what it did on both",
        async || timeline(&crm, &session, "limit=1000").await,
        |told| paths(told) == wanted,
    )
    .await;

    // More than there is room for, between two writings.
    let asking = (0..700).map(|_| here.get::<Json>("/crosstown/v1/whoami"));
    let answered: Vec<_> = stream::iter(asking).buffer_unordered(16).collect().await;
    assert!(answered.iter().all(Result::is_ok));
    let told = until(
        "all are there or missed",
        async || timeline(&crm, &session, "limit=1000").await,
        |told| {
            let missing = told.iter().filter_map(|one| one["missing"].as_u64()).sum::<u64>();
            let there = told.iter().filter(|one| one["path"] == "/crosstown/v1/whoami").count();
            there as u64 + missing == 700
        },
    )
    .await;
    assert!(kinds(&told).contains(&"gap"), "{}", told.len());
}

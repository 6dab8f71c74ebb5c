//! Channels and connections of two nodes.

use super::{Stores, two_nodes};
use client::Client;
use integration_tests::{Server, Socket, Stream};
use serde_json::{Value as Json, json};
use std::time::Duration;

pub(super) async fn who_is_on_one_node_the_other_knows(stores: Stores) {
    let [mut here, there] = two_nodes(&stores);
    let channel = json!({ "channel": "lobby:1" });
    let mut ann = Socket::connect(&here.base(), &here.token("acme", "ann")).await;
    let mut bob = Socket::connect(&there.base(), &there.token("acme", "bob")).await;
    ann.ask("subscribe", channel.clone()).await.unwrap();
    let stats = bob.ask("presence_stats", channel.clone()).await.unwrap();
    assert_eq!(stats, json!({ "num_clients": 1, "num_users": 1 }));
    bob.ask("subscribe", channel.clone()).await.unwrap();
    let users = ["ann", "bob"];
    for user in users {
        assert_eq!(ann.push().await["join"]["info"]["user"], user);
    }
    for socket in [&mut ann, &mut bob] {
        let present = socket.ask("presence", channel.clone()).await.unwrap();
        let mut found: Vec<_> = present["presence"].as_object().unwrap().values().collect();
        found.sort_by_key(|info| info["user"].to_string());
        assert_eq!(found.iter().map(|info| &info["user"]).collect::<Vec<_>>(), users);
    }
    assert_eq!(bob.push().await["join"]["info"]["user"], "bob");
    bob.ask("unsubscribe", channel.clone()).await.unwrap();
    assert_eq!(ann.push().await["leave"]["info"]["user"], "bob");
    bob.ask("subscribe", channel.clone()).await.unwrap();
    let map = json!({ "channel": "$users:lobby:1", "type": 3, "phase": 2 });
    let map = bob.ask("subscribe", map).await.unwrap();
    let mut found: Vec<_> =
        map["state"].as_array().unwrap().iter().map(|one| &one["key"]).collect();
    found.sort_by_key(|key| key.to_string());
    assert_eq!(found, users);

    // A node that dies leaves its connections behind for as long as they live unrenewed; those
    // of others stay.
    here.kill();
    let until = std::time::Instant::now() + Duration::from_secs(30);
    loop {
        let present = bob.ask("presence", channel.clone()).await.unwrap();
        let found = present["presence"].as_object().unwrap();
        assert!(found.values().any(|info| info["user"] == "bob"), "{present}");
        if found.len() == 1 {
            break;
        }
        assert!(std::time::Instant::now() < until, "{present}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // Nobody told the map's followers of it but the records themselves.
    loop {
        let push = bob.push().await;
        if push["channel"] == "$users:lobby:1" {
            assert_eq!(
                (&push["pub"]["key"], &push["pub"]["removed"]),
                (&json!("ann"), &json!(true))
            );
            return;
        }
    }
}

/// With presence and without; and whoever was only away comes again.
pub(super) async fn who_was_on_a_node_that_died_leaves_once(stores: Stores) {
    let [mut here, there] = two_nodes(&stores);
    let channels = ["lobby:1", "lobby:2", "loud:1", "loud:2"];
    let mut bob = Socket::connect(&there.base(), &there.token("acme", "bob")).await;
    let ann = here.token("acme", "ann");
    let mut crowd = Vec::new();
    for channel in channels {
        bob.ask("subscribe", json!({ "channel": channel })).await.unwrap();
        bob.push().await;
    }
    for _ in 0..3 {
        let mut socket = Socket::connect(&here.base(), &ann).await;
        for channel in channels {
            socket.ask("subscribe", json!({ "channel": channel })).await.unwrap();
        }
        crowd.push(socket);
    }
    // What is told of each client in each channel.
    let mut told = std::collections::BTreeMap::<(String, String), Vec<&str>>::new();
    let mut until = async |bob: &mut Socket, what: &'static str, count: usize| {
        let mut left = count;
        while left > 0 {
            let push = bob.push().await;
            let kind = if push["join"].is_null() { "leave" } else { "join" };
            let client = push[kind]["info"]["client"].as_str().unwrap().to_owned();
            told.entry((push["channel"].to_string(), client)).or_default().push(kind);
            left -= usize::from(kind == what);
        }
        told.clone()
    };
    until(&mut bob, "join", 12).await;
    // A node that answers nobody for a while is taken for dead, and is not.
    here.pause();
    let told = until(&mut bob, "leave", 12).await;
    assert!(told.values().all(|moves| *moves == ["join", "leave"]), "{told:?}");
    here.resume();
    let told = until(&mut bob, "join", 12).await;
    assert!(told.values().all(|moves| *moves == ["join", "leave", "join"]), "{told:?}");
    here.kill();
    // She comes back as another client, and leaves when all the others have left.
    let mut back = Socket::connect(&there.base(), &ann).await;
    for channel in channels {
        back.ask("subscribe", json!({ "channel": channel })).await.unwrap();
    }
    until(&mut bob, "leave", 12).await;
    for channel in channels {
        back.ask("unsubscribe", json!({ "channel": channel })).await.unwrap();
    }
    let told = until(&mut bob, "leave", 4).await;
    let (once, twice): (Vec<_>, Vec<_>) = told.values().partition(|moves| moves.len() == 2);
    assert_eq!((once.len(), twice.len()), (4, 12), "{told:?}");
    assert!(once.iter().all(|moves| **moves == ["join", "leave"]), "{told:?}");
    assert!(twice.iter().all(|moves| **moves == ["join", "leave", "join", "leave"]), "{told:?}");
}

/// Maps fall into shards of both nodes; what the one has left when it dies, the other takes out.
pub(super) async fn entries_end_once_whichever_node_owns_them(stores: Stores) {
    const MAPS: usize = 24;
    let [mut here, there] = two_nodes(&stores);
    let mut writers = [
        Socket::connect(&here.base(), &here.token("acme", "ann")).await,
        Socket::connect(&there.base(), &there.token("acme", "ann")).await,
    ];
    let follow = async |node: &Server| {
        let mut socket = Socket::connect(&node.base(), &node.token("acme", "bob")).await;
        for n in 0..MAPS {
            let map = json!({ "channel": format!("brief:{n}"), "type": 1, "phase": 2 });
            socket.ask("subscribe", map).await.unwrap();
        }
        socket
    };
    let mut followers = [follow(&here).await, follow(&there).await];
    // Until each map has lost each of its entries; what was told of each map, in order.
    let told = async |follower: &mut Socket, keys: usize| {
        let mut told = vec![Vec::new(); MAPS];
        let mut left = MAPS * keys * 2;
        while left > 0 {
            let push = follower.push().await;
            let channel = push["channel"].as_str().unwrap();
            let map: usize = channel.strip_prefix("brief:").unwrap().parse().unwrap();
            let change = &push["pub"];
            told[map].push((change["key"].to_string(), change["removed"] == true));
            left -= 1;
        }
        for changes in &told {
            for (key, _) in changes {
                let of = changes.iter().filter(|(other, _)| other == key).map(|(_, gone)| *gone);
                assert_eq!(of.collect::<Vec<_>>(), [false, true], "{changes:?}");
            }
        }
        told
    };
    let write = async |writer: &mut Socket, key: &str| {
        for n in 0..MAPS {
            let entry =
                json!({ "channel": format!("brief:{n}"), "type": 1, "key": key, "data": n });
            writer.ask("publish", entry).await.unwrap();
        }
    };
    for (at, writer) in writers.iter_mut().enumerate() {
        write(writer, &format!("by-{at}")).await;
    }
    let [first, second] = &mut followers;
    assert_eq!(told(first, 2).await, told(second, 2).await);
    write(&mut writers[0], "left").await;
    here.kill();
    told(&mut followers[1], 1).await;
}

pub(super) async fn what_is_ordered_on_one_node_is_done_on_the_other(stores: Stores) {
    let [here, mut there] = two_nodes(&stores);
    let key = here.api_key("acme", "orders").await;
    let service = Client::new(&here.base(), &key).unwrap();
    let mut ann = Socket::connect(&there.base(), &there.token("acme", "ann")).await;
    let mut own = Socket::connect(&here.base(), &here.token("acme", "ann")).await;
    let path = "/crosstown/v1/connections";
    // A node is known to the others within seconds.
    let until = std::time::Instant::now() + Duration::from_secs(30);
    let listed = loop {
        let listed: Json = service.get(&format!("{path}?user=ann")).await.unwrap();
        if listed["count"] == 2 {
            break listed;
        }
        assert!(std::time::Instant::now() < until, "{listed}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    let connections = listed["connections"].as_array().unwrap();
    assert_ne!(connections[0]["node"], connections[1]["node"]);
    let order = |order: Json| json!({ "to": { "user": "ann" }, "order": order });
    let orders = format!("{path}/orders");
    let send = order(json!({ "do": "send", "data": "both" }));
    let told: Json = service.post(&orders, &send).await.unwrap();
    assert_eq!(told, json!({ "connections": 2 }));
    for socket in [&mut ann, &mut own] {
        assert_eq!(socket.push().await["message"]["data"], "both");
    }
    // What cannot be told everywhere is not said to be.
    there.kill();
    let refused = service.post::<Json>(&orders, &send).await.unwrap_err();
    assert_eq!(refused.code(), Some("upstream_unreachable"), "{refused}");
    assert_eq!(own.push().await["message"]["data"], "both");
}

/// And is refused if a node does not answer.
pub(super) async fn a_trace_shows_what_passes_through_every_node_and_ends_with_its_owner(
    stores: Stores,
) {
    let [mut here, there] = two_nodes(&stores);
    let key = here.api_key("acme", "crm").await;
    let [from_here, from_there] =
        [&here, &there].map(|node| Client::new(&node.base(), &key).unwrap());
    let mut ann = Socket::connect(&there.base(), &there.token("acme", "ann")).await;
    let until = std::time::Instant::now() + Duration::from_secs(30);
    let stats = "/crosstown/v1/connections/stats";
    // A node is known to the others within seconds.
    while from_here.get::<Json>(stats).await.unwrap()["nodes"].as_array().unwrap().len() < 2 {
        assert!(std::time::Instant::now() < until, "the nodes do not find each other");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let traces = "/crosstown/v1/traces";
    let wish = json!({ "of": { "user": "ann" }, "duration": "5m" });
    let begin = async || from_here.post::<Json>(traces, &wish).await;
    let trace = begin().await.unwrap();
    let subscribe = json!({ "channel": trace["channel"] });
    let mut watchers =
        [Socket::connect(&here.base(), &key).await, Socket::connect(&there.base(), &key).await];
    for watcher in &mut watchers {
        watcher.ask("subscribe", subscribe.clone()).await.unwrap();
    }
    ann.ask("ping", json!({})).await.unwrap();
    for watcher in &mut watchers {
        let record = watcher.push().await["pub"]["data"].clone();
        assert_eq!((&record["number"], &record["dropped"]), (&json!(1), &json!(0)), "{record}");
        assert_ne!(record["node"], trace["node"]);
        let kinds = record["frames"].as_array().unwrap().iter().map(|frame| &frame["kind"]);
        assert_eq!(kinds.collect::<Vec<_>>(), ["command", "reply"]);
    }
    let listed: Json = from_there.get(traces).await.unwrap();
    assert_eq!(listed["traces"], json!([trace]));
    // Any node ends it on all.
    from_there.delete(&format!("{traces}/{}", trace["id"].as_str().unwrap())).await.unwrap();
    for watcher in &mut watchers {
        for _ in 0..2 {
            assert_eq!(watcher.push().await["pub"]["data"]["ended"], "order");
        }
    }
    let listed: Json = from_here.get(traces).await.unwrap();
    assert_eq!(listed["traces"], json!([]));

    let trace = begin().await.unwrap();
    let [_, watcher] = &mut watchers;
    watcher.ask("subscribe", json!({ "channel": trace["channel"] })).await.unwrap();
    here.kill();
    let refused = from_there.post::<Json>(traces, &wish).await.unwrap_err();
    assert_eq!(refused.code(), Some("upstream_unreachable"));
    // Ann reads no more: that she is pinged, and closed for it, is shown as well.
    let ended = loop {
        let record = watcher.push().await["pub"]["data"].clone();
        if record["ended"].is_string() {
            break record["ended"].clone();
        }
    };
    assert_eq!(ended, "owner_lost");
}

/// What is on both nodes counts once where different things are counted.
pub(super) async fn channels_and_connections_are_counted_over_all_nodes(stores: Stores) {
    let [here, mut there] = two_nodes(&stores);
    let service = Client::new(&here.base(), &here.api_key("acme", "crm").await).unwrap();
    let mut sockets = Vec::new();
    for (node, user, channels) in [
        (&here, "ann", &["news:b", "news:d"][..]),
        (&there, "ann", &["news:a", "news:b", "news:c"]),
        (&there, "bob", &["news:b"]),
    ] {
        let mut socket = Socket::connect(&node.base(), &node.token("acme", user)).await;
        for channel in channels {
            socket.ask("subscribe", json!({ "channel": channel })).await.unwrap();
        }
        sockets.push(socket);
    }
    let get = async |path: &str| {
        let path = format!("/crosstown/v1/{path}");
        service.get::<Json>(&path).await.unwrap()
    };
    let until = std::time::Instant::now() + Duration::from_secs(30);
    // A node is known to the others within seconds.
    let stats = loop {
        let stats = get("connections/stats").await;
        if stats["nodes"].as_array().unwrap().len() == 2 {
            break stats;
        }
        assert!(std::time::Instant::now() < until, "{stats}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    let counted = ["connections", "users", "channels", "subscriptions"];
    assert_eq!(counted.map(|of| stats[of].as_u64()), [3, 2, 4, 6].map(Some), "{stats}");
    let (mut found, mut query) = (Vec::new(), "channels?limit=1".to_owned());
    for _ in 0..4 {
        let page = get(&query).await;
        found.extend(page["channels"].as_array().unwrap().clone());
        query = format!("channels?limit=1&cursor={}", page["cursor"].as_str().unwrap_or("z"));
    }
    let expected = [("a", 1), ("b", 3), ("c", 1), ("d", 1)];
    let active = |(name, count)| json!({ "channel": format!("news:{name}"), "subscribers": count });
    assert_eq!(found, expected.map(active));
    let one = get("channels/news:b").await;
    assert_eq!((&one["subscribers"], &one["users"]), (&json!(3), &json!(2)), "{one}");
    assert_eq!(one["nodes"].as_object().unwrap().len(), 2, "{one}");
    // What cannot be told of all is not said to be.
    there.kill();
    for path in ["connections/stats", "channels", "channels/news:b"] {
        let refused = service.get::<Json>(&format!("/crosstown/v1/{path}")).await.unwrap_err();
        assert_eq!(refused.code(), Some("upstream_unreachable"), "{path}: {refused}");
    }
}

pub(super) async fn a_stream_is_spoken_to_through_any_node(stores: Stores) {
    let [mut here, there] = two_nodes(&stores);
    let connect = json!({ "id": 1, "connect": { "token": here.token("acme", "ann") } });
    let field = ["Content-Type: application/json"];
    let line = "POST /connection/http_stream";
    let connect = connect.to_string();
    let mut stream = Stream::ask(&here.base(), line, &field, connect.as_bytes()).await;
    let connected = stream.line().await.unwrap()["connect"].clone();
    let say = async |node: &Server, session: &Json, command: &str| {
        let body = json!({ "session": session, "node": connected["node"], "data": command });
        let body = body.to_string();
        Stream::ask(&node.base(), "POST /emulation", &field, body.as_bytes()).await.status
    };
    let until = std::time::Instant::now() + Duration::from_secs(30);
    // A node is known to the others within seconds.
    while say(&there, &connected["session"], "{}").await == 404 {
        assert!(std::time::Instant::now() < until, "the nodes do not find each other");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let subscribe = r#"{"id":2,"subscribe":{"channel":"news:1"}}"#;
    assert_eq!(say(&there, &connected["session"], subscribe).await, 204);
    assert_eq!(stream.line().await.unwrap()["id"], 2);
    let publish = r#"{"id":3,"publish":{"channel":"news:1","data":"hello"}}"#;
    assert_eq!(say(&there, &connected["session"], publish).await, 204);
    let said = [stream.line().await.unwrap(), stream.line().await.unwrap()];
    assert!(said.iter().any(|reply| reply["push"]["pub"]["data"] == "hello"), "{said:?}");
    assert_eq!(say(&there, &json!("0".repeat(32)), subscribe).await, 404);
    assert_eq!(say(&there, &json!("../limits"), subscribe).await, 404);
    let long = "x".repeat(65 * 1024);
    assert_eq!(say(&there, &connected["session"], &long).await, 413);
    // Whichever it is, the client starts again.
    here.kill();
    let status = say(&there, &connected["session"], subscribe).await;
    assert!(status == 404 || status == 502, "{status}");
}

pub(super) fn publications(channel: &str) -> String {
    format!("/crosstown/v1/channels/{channel}/publications")
}

/// Channels with and without history; a client that comes back by the other node misses nothing.
pub(super) async fn publications_reach_the_sockets_of_every_node(stores: Stores) {
    let [here, there] = two_nodes(&stores);
    let key = here.api_key("acme", "press").await;
    let [from_here, from_there] =
        [&here, &there].map(|node| Client::new(&node.base(), &key).unwrap());
    let ann = here.token("acme", "ann");
    let mut sockets =
        [Socket::connect(&here.base(), &ann).await, Socket::connect(&there.base(), &ann).await];
    let other = here.token("umbrella", "ann");
    let mut foreign = Socket::connect(&there.base(), &other).await;
    let mut position = Json::Null;
    for socket in sockets.iter_mut().chain([&mut foreign]) {
        socket.ask("subscribe", json!({ "channel": "now:all" })).await.unwrap();
        let news = json!({ "channel": "news:all", "recoverable": true });
        let start = socket.ask("subscribe", news).await.unwrap();
        if position.is_null() {
            position = start;
        }
    }
    let publish = |n: u64, channel: &'static str| {
        let by = if n.is_multiple_of(2) { &from_here } else { &from_there };
        async move { by.post::<Json>(&publications(channel), &json!({ "n": n })).await.unwrap() }
    };
    for n in 0..20 {
        publish(n, "now:all").await;
        publish(n, "news:all").await;
    }
    for socket in &mut sockets {
        let mut seen = [Vec::new(), Vec::new()];
        while seen.iter().any(|seen| seen.len() < 20) {
            let push = socket.push().await;
            let of = usize::from(push["channel"] == "news:all");
            seen[of].push(push["pub"]["data"]["n"].as_u64().unwrap());
        }
        // One publisher waited for each before the next.
        assert_eq!(seen, [(0..20).collect::<Vec<_>>(), (0..20).collect()]);
    }
    // Comes back by the other node, from where it began.
    let mut moved = Socket::connect(&there.base(), &ann).await;
    let again = json!({
        "channel": "news:all", "recover": true, "recoverable": true,
        "epoch": position["epoch"], "offset": position["offset"].as_u64().unwrap_or(0),
    });
    let start = moved.ask("subscribe", again).await.unwrap();
    assert_eq!(start["recovered"], true, "{start}");
    assert_eq!(start["publications"].as_array().unwrap().len(), 20);
    // The other tenant's channel of the same name heard none of it.
    let theirs = Client::new(&here.base(), &here.api_key("umbrella", "press").await).unwrap();
    theirs.post::<Json>(&publications("now:all"), &json!("theirs")).await.unwrap();
    assert_eq!(foreign.push().await["pub"]["data"], "theirs");
}

//! Who is subscribed, and who comes and goes.

use integration_tests::{
    ProtobufSocket, Server, Socket,
    wire::{Fields, bytes, number},
};
use serde_json::{Value as Json, json};
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

const CONFIG: &str = "[[realtime.namespaces]]\nname = \"lobby\"\npresence = true\n\
    join_leave = \"asked\"\n\
    [[realtime.namespaces]]\nname = \"loud\"\njoin_leave = \"all\"\n\
    [[realtime.namespaces]]\nname = \"hall\"\npresence_map = true\n\
    [[realtime.namespaces]]\nname = \"closed\"\nsubscribe = false\npresence_map = true\n";

/// Users by connection.
async fn present(socket: &mut Socket, channel: &str) -> BTreeMap<String, String> {
    let answer = socket.ask("presence", json!({ "channel": channel })).await.unwrap();
    let entry = |(client, info): (&String, &Json)| {
        assert_eq!(info["client"], *client);
        (client.clone(), info["user"].as_str().unwrap().to_owned())
    };
    answer["presence"].as_object().unwrap().iter().map(entry).collect()
}

async fn users(socket: &mut Socket, channel: &str) -> Vec<String> {
    let mut users: Vec<_> = present(socket, channel).await.into_values().collect();
    users.sort();
    users
}

/// Asks until the answer is as expected.
async fn until_users(socket: &mut Socket, channel: &str, expected: &[&str]) {
    let until = Instant::now() + Duration::from_secs(20);
    let stats = json!({ "channel": channel });
    loop {
        let count = socket.ask("presence_stats", stats.clone()).await.unwrap();
        if count["num_clients"].as_u64().unwrap_or(0) as usize > expected.len() {
            assert!(Instant::now() < until, "{count} instead of {expected:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        }
        let users = users(socket, channel).await;
        if users == expected {
            return;
        }
        assert!(Instant::now() < until, "{users:?} instead of {expected:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn who_is_subscribed_is_known_at_once() {
    let server = Server::start(CONFIG);
    let base = server.base();
    let channel = json!({ "channel": "lobby:1" });
    let mut ann = Socket::connect(&base, &server.token("acme", "ann")).await;
    let mut second = Socket::connect(&base, &server.token("acme", "ann")).await;
    let mut bob = ProtobufSocket::connect(&base, &server.token("acme", "bob")).await;
    let mut stranger = Socket::connect(&base, &server.token("other", "eve")).await;
    // Whoever is answered is present.
    ann.ask("subscribe", channel.clone()).await.unwrap();
    assert_eq!(users(&mut second, "lobby:1").await, ["ann"]);
    second.ask("subscribe", channel.clone()).await.unwrap();
    bob.subscribe("lobby:1", &[]).await.unwrap();
    stranger.ask("subscribe", channel.clone()).await.unwrap();
    let all = present(&mut ann, "lobby:1").await;
    assert_eq!(all.values().collect::<Vec<_>>().len(), 3);
    assert_eq!(users(&mut ann, "lobby:1").await, ["ann", "ann", "bob"]);
    assert_eq!(users(&mut ann, "lobby:2").await, [""; 0]);
    assert_eq!(users(&mut stranger, "lobby:1").await, ["eve"]);
    let stats = ann.ask("presence_stats", channel.clone()).await.unwrap();
    assert_eq!(stats, json!({ "num_clients": 3, "num_users": 2 }));
    let same = bob.ask(8, 9, bytes(1, "lobby:1")).await.unwrap();
    let same = same.all(1).map(|entry| {
        let entry = Fields::read(entry);
        assert_eq!(entry.text(1), entry.message(2).text(2));
        (entry.text(1), entry.message(2).text(1))
    });
    assert_eq!(same.collect::<BTreeMap<_, _>>(), all);
    let same = bob.ask(9, 10, bytes(1, "lobby:1")).await.unwrap();
    assert_eq!((same.number(1), same.number(2)), (3, 2));

    // At once means at once, whichever of the two is asked first the next time.
    for n in 0..100 {
        let (channel, name) = (json!({ "channel": format!("lobby:n{n}") }), format!("lobby:n{n}"));
        ann.ask("subscribe", channel.clone()).await.unwrap();
        assert_eq!(users(&mut second, &name).await, ["ann"], "{name}");
        ann.ask("unsubscribe", channel).await.unwrap();
        assert_eq!(users(&mut second, &name).await, [""; 0], "{name}");
    }

    // Whoever is answered is gone, too; and whoever goes without a word is soon.
    second.ask("unsubscribe", channel.clone()).await.unwrap();
    assert_eq!(users(&mut second, "lobby:1").await, ["ann", "bob"]);
    drop(bob);
    until_users(&mut ann, "lobby:1", &["ann"]).await;

    for (asked, expected) in [("room", 108), ("loud:1", 108), ("closed:1", 103), ("else:1", 102)] {
        for command in ["presence", "presence_stats"] {
            let refused = ann.ask(command, json!({ "channel": asked })).await.unwrap_err();
            assert_eq!(refused["code"], expected, "{command} {asked}");
        }
    }
}

#[tokio::test]
async fn those_who_come_and_go_are_told_of() {
    let server = Server::start(CONFIG);
    let base = server.base();
    let asking = json!({ "channel": "lobby:1", "join_leave": true });
    let mut ann = Socket::connect(&base, &server.token("acme", "ann")).await;
    let mut quiet = Socket::connect(&base, &server.token("acme", "quiet")).await;
    quiet.ask("subscribe", json!({ "channel": "lobby:1" })).await.unwrap();
    ann.ask("subscribe", asking.clone()).await.unwrap();
    // Its own, once, after the answer; what came before is the presence's to tell.
    let own = ann.push().await;
    assert_eq!((&own["channel"], &own["join"]["info"]["user"]), (&json!("lobby:1"), &json!("ann")));
    let mut bob = ProtobufSocket::connect(&base, &server.token("acme", "bob")).await;
    bob.subscribe("lobby:1", &[number(11, 1)]).await.unwrap();
    let join = ann.push().await;
    assert_eq!(join["join"]["info"]["user"], "bob");
    let own = bob.push().await;
    let (user, client) = (own.message(5).message(1).text(1), own.message(5).message(1).text(2));
    assert_eq!((user.as_str(), json!(client)), ("bob", join["join"]["info"]["client"].clone()));
    bob.ask(6, 7, bytes(1, "lobby:1")).await.unwrap();
    let leave = ann.push().await;
    assert_eq!(leave["leave"]["info"], join["join"]["info"]);
    // Many at once, each told once.
    let mut crowd = Vec::new();
    for n in 0..30 {
        let token = server.token("acme", &format!("u{n}"));
        let mut socket = Socket::connect(&base, &token).await;
        socket.ask("subscribe", json!({ "channel": "lobby:1" })).await.unwrap();
        crowd.push(socket);
    }
    let mut told = Vec::new();
    for _ in 0..30 {
        told.push(ann.push().await["join"]["info"]["user"].as_str().unwrap().to_owned());
    }
    assert_eq!(told, (0..30).map(|n| format!("u{n}")).collect::<Vec<_>>());
    drop(crowd);
    let mut gone = Vec::new();
    for _ in 0..30 {
        gone.push(ann.push().await["leave"]["info"]["user"].as_str().unwrap().to_owned());
    }
    gone.sort();
    told.sort();
    assert_eq!(gone, told);

    // In a namespace that tells all, nobody has to ask; no presence comes with it.
    for socket in [&mut quiet, &mut ann] {
        socket.ask("subscribe", json!({ "channel": "loud:1" })).await.unwrap();
    }
    for user in ["quiet", "ann"] {
        let push = quiet.push().await;
        assert_eq!(
            (&push["channel"], &push["join"]["info"]["user"]),
            (&json!("loud:1"), &json!(user))
        );
    }
    assert_eq!(quiet.push_now(), None);
    ann.ask("unsubscribe", json!({ "channel": "loud:1" })).await.unwrap();
    assert_eq!(quiet.push().await["leave"]["info"]["user"], "ann");
    // Where it is not configured, asking changes nothing.
    ann.ask("subscribe", json!({ "channel": "room", "join_leave": true })).await.unwrap();
    ann.ask("ping", json!({})).await.unwrap();
    let rest: Vec<_> = std::iter::from_fn(|| ann.push_now()).collect();
    assert!(rest.iter().all(|push| push["channel"] == "loud:1"), "{rest:?}");
}

#[tokio::test]
async fn a_presence_that_fits_no_reply_is_counted_only() {
    let bounds = "[realtime]\nmessage_bytes_max = 2048\nqueue_bytes_max = 2048\n";
    let server = Server::start(&format!("{bounds}{CONFIG}"));
    let base = server.base();
    let channel = json!({ "channel": "lobby:1" });
    let mut crowd = Vec::new();
    for n in 0..24 {
        let token = server.token("acme", &format!("u{n}"));
        let mut socket = Socket::connect(&base, &token).await;
        socket.ask("subscribe", channel.clone()).await.unwrap();
        crowd.push(socket);
    }
    let one = &mut crowd[0];
    let refused = one.ask("presence", channel.clone()).await.unwrap_err();
    assert_eq!(refused["code"], 106, "{refused}");
    let stats = one.ask("presence_stats", channel.clone()).await.unwrap();
    assert_eq!(stats, json!({ "num_clients": 24, "num_users": 24 }));
    crowd.truncate(4);
    until_users(&mut crowd[0], "lobby:1", &["u0", "u1", "u2", "u3"]).await;
}

#[tokio::test]
async fn presence_lasts_as_long_as_the_connection() {
    let server = Server::start(&format!("[realtime]\npresence_ttl = \"1s\"\n{CONFIG}"));
    let base = server.base();
    let mut ann = Socket::connect(&base, &server.token("acme", "ann")).await;
    ann.ask("subscribe", json!({ "channel": "lobby:1" })).await.unwrap();
    let mut bob = Socket::connect(&base, &server.token("acme", "bob")).await;
    let until = Instant::now() + Duration::from_secs(3);
    while Instant::now() < until {
        assert_eq!(users(&mut bob, "lobby:1").await, ["ann"]);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn a_node_that_ends_leaves_nobody_behind() {
    // In order, at once; killed, once it expires.
    for (ttl, in_order) in [("1h", true), ("2s", false)] {
        let config = format!("[realtime]\npresence_ttl = \"{ttl}\"\n{CONFIG}");
        let mut server = Server::start(&config);
        let base = server.base();
        let mut crowd = Vec::new();
        for n in 0..20 {
            let token = server.token("acme", &format!("u{n}"));
            let mut socket = Socket::connect(&base, &token).await;
            let channel = json!({ "channel": format!("lobby:{}", n % 3) });
            socket.ask("subscribe", channel).await.unwrap();
            crowd.push(socket);
        }
        // Clients that answer the close, as clients do.
        let crowd = crowd
            .into_iter()
            .map(|mut socket| tokio::spawn(async move { socket.close_code().await }));
        let crowd: Vec<_> = crowd.collect();
        let server = tokio::task::spawn_blocking(move || {
            if in_order {
                server.stop()
            } else {
                server.kill()
            }
            server.start_again();
            server
        });
        let server = server.await.unwrap();
        for socket in crowd {
            socket.await.unwrap();
        }
        let mut ann = Socket::connect(&base, &server.token("acme", "ann")).await;
        for n in 0..3 {
            let channel = format!("lobby:{n}");
            if in_order {
                assert_eq!(users(&mut ann, &channel).await, [""; 0]);
            } else {
                until_users(&mut ann, &channel, &[]).await;
            }
        }
    }
}

#[tokio::test]
async fn who_is_subscribed_is_a_map_to_follow() {
    let server = Server::start(CONFIG);
    let base = server.base();
    let hall = json!({ "channel": "hall:1" });
    let mut ann = Socket::connect(&base, &server.token("acme", "ann")).await;
    let mut second = Socket::connect(&base, &server.token("acme", "ann")).await;
    let mut bob = Socket::connect(&base, &server.token("acme", "bob")).await;
    let mut eve = Socket::connect(&base, &server.token("other", "eve")).await;
    ann.ask("subscribe", hall.clone()).await.unwrap();
    let follow = |channel: &str, kind: u8| json!({ "channel": channel, "type": kind, "phase": 2 });
    let clients = bob.ask("subscribe", follow("$clients:hall:1", 2)).await.unwrap();
    let users = bob.ask("subscribe", follow("$users:hall:1", 3)).await.unwrap();
    let first = clients["state"][0].clone();
    assert_eq!((&clients["type"], &first["info"]["user"]), (&json!(2), &json!("ann")));
    assert_eq!(first["info"]["client"], first["key"]);
    assert_eq!(users["state"], json!([{ "data": null, "key": "ann" }]));
    let empty = eve.ask("subscribe", follow("$users:hall:1", 3)).await.unwrap();
    assert_eq!(empty["state"], json!(null));

    // Another connection of hers is another client, and no other user.
    second.ask("subscribe", hall.clone()).await.unwrap();
    let came = bob.push().await;
    assert_eq!(
        (&came["channel"], &came["pub"]["info"]["user"]),
        (&json!("$clients:hall:1"), &json!("ann"))
    );
    bob.ask("subscribe", hall.clone()).await.unwrap();
    let mut told: Vec<_> = [bob.push().await, bob.push().await]
        .map(|push| push["channel"].as_str().unwrap().to_owned())
        .into();
    told.sort();
    assert_eq!(told, ["$clients:hall:1", "$users:hall:1"]);
    ann.ask("unsubscribe", hall.clone()).await.unwrap();
    let gone = bob.push().await["pub"].clone();
    assert_eq!((&gone["key"], &gone["removed"]), (&first["key"], &json!(true)));
    drop(second);
    let mut gone = [bob.push().await, bob.push().await].map(|push| push["pub"]["key"].clone());
    gone.sort_by_key(|key| key.as_str().unwrap().starts_with("ann"));
    assert_eq!((&gone[0], &gone[1]), (&came["pub"]["key"], &json!("ann")));
    eve.ask("ping", json!({})).await.unwrap();
    assert_eq!(eve.push_now(), None);

    for (request, code) in [
        (follow("$users:hall:2", 2), 107),
        (follow("$users:hall:2", 1), 107),
        (follow("$users:hall:2", 0), 107),
        (follow("hall:2", 2), 107),
        (follow("$users:lobby:1", 3), 102),
        (follow("$users:closed:1", 3), 103),
        (follow("$users:", 3), 107),
    ] {
        let refused = bob.ask("subscribe", request.clone()).await.unwrap_err();
        assert_eq!(refused["code"], code, "{request}");
    }
    let publish = json!({ "channel": "$users:hall:1", "data": 1 });
    assert_eq!(bob.ask("publish", publish).await.unwrap_err()["code"], 103);
}

#[tokio::test]
async fn what_a_token_says_of_its_holder_is_told() {
    let server = Server::start(&format!("[realtime]\npresence_ttl = \"2s\"\n{CONFIG}"));
    let base = server.base();
    let saying = |info: Json| server.token_with("acme", "ann", json!({ "info": info }));
    let seated = |channel: &str, seat: u32| {
        server.token_with("acme", "ann", json!({ "channel": channel, "info": { "seat": seat } }))
    };
    let infos = |info: &Json| (info["conn_info"].clone(), info["chan_info"].clone());
    let asking = json!({ "channel": "lobby:1", "join_leave": true });
    let mut bob = Socket::connect(&base, &server.token("acme", "bob")).await;
    bob.ask("subscribe", asking.clone()).await.unwrap();
    // Of a credential that says nothing, nothing is told.
    assert_eq!(infos(&bob.push().await["join"]["info"]), (Json::Null, Json::Null));
    let mut eve = ProtobufSocket::connect(&base, &server.token("acme", "eve")).await;
    eve.subscribe("lobby:1", &[number(11, 1)]).await.unwrap();
    assert_eq!(bob.push().await["join"]["info"]["user"], "eve");
    assert_eq!(eve.push().await.message(5).message(1).text(1), "eve");
    let clients = json!({ "channel": "$clients:hall:1", "type": 2, "phase": 2 });
    bob.ask("subscribe", clients).await.unwrap();

    let mut ann = Socket::connect(&base, &saying(json!({ "name": "Ann" }))).await;
    let by_token = |channel: &str, seat: u32| json!({ "channel": channel, "join_leave": true, "token": seated(channel, seat) });
    ann.ask("subscribe", by_token("lobby:1", 1)).await.unwrap();
    let both = (json!({ "name": "Ann" }), json!({ "seat": 1 }));
    for socket in [&mut ann, &mut bob] {
        assert_eq!(infos(&socket.push().await["join"]["info"]), both);
    }
    let join = eve.push().await.message(5).message(1);
    assert_eq!(
        (join.text(3).as_str(), join.text(4).as_str()),
        ("{\"name\":\"Ann\"}", "{\"seat\":1}")
    );
    let asked = async |socket: &mut Socket| {
        let present = socket.ask("presence", json!({ "channel": "lobby:1" })).await.unwrap();
        let mut all = present["presence"].as_object().unwrap().values();
        infos(all.find(|info| info["user"] == "ann").unwrap())
    };
    assert_eq!(asked(&mut bob).await, both);
    ann.ask("publish", json!({ "channel": "lobby:1", "data": 1 })).await.unwrap();
    assert_eq!(infos(&bob.push().await["pub"]["info"]), both);
    let publication = eve.push().await.message(4).message(5);
    assert_eq!(
        (publication.text(1).as_str(), publication.text(4).as_str()),
        ("ann", "{\"seat\":1}")
    );
    ann.push().await;
    // In a channel that it is not subscribed to, its connection says it alone.
    bob.ask("subscribe", json!({ "channel": "room" })).await.unwrap();
    ann.ask("publish", json!({ "channel": "room", "data": 1 })).await.unwrap();
    assert_eq!(infos(&bob.push().await["pub"]["info"]), (both.0.clone(), Json::Null));
    let history = bob.ask("history", json!({ "channel": "room", "limit": 1 })).await.unwrap();
    assert_eq!(infos(&history["publications"][0]["info"]), (both.0.clone(), Json::Null));
    ann.ask("subscribe", json!({ "channel": "hall:1" })).await.unwrap();
    assert_eq!(infos(&bob.push().await["pub"]["info"]), (both.0.clone(), Json::Null));

    // A fresh token that says something says it from now on; one that does not changes nothing.
    ann.ask("refresh", json!({ "token": saying(json!("Anna")) })).await.unwrap();
    ann.ask("refresh", json!({ "token": server.token("acme", "ann") })).await.unwrap();
    let fresh = json!({ "channel": "lobby:1", "token": seated("lobby:1", 2) });
    ann.ask("sub_refresh", fresh).await.unwrap();
    let both = (json!("Anna"), json!({ "seat": 2 }));
    ann.ask("publish", json!({ "channel": "lobby:1", "data": 1 })).await.unwrap();
    let (mut published, mut followed) = (false, false);
    while !published || !followed {
        let push = bob.push().await;
        match push["channel"].as_str().unwrap() {
            // Nobody joins again by that.
            "lobby:1" => {
                assert_eq!(infos(&push["pub"]["info"]), both);
                published = true;
            }
            _ => {
                assert_eq!(infos(&push["pub"]["info"]), (both.0.clone(), Json::Null), "{push}");
                followed = true;
            }
        }
    }
    let until = Instant::now() + Duration::from_secs(20);
    while asked(&mut bob).await != both {
        assert!(Instant::now() < until, "the presence is not renewed");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    ann.ask("unsubscribe", json!({ "channel": "lobby:1" })).await.unwrap();
    assert_eq!(infos(&bob.push().await["leave"]["info"]), both);

    let mut refused = Socket::open(&base).await;
    let long = saying(json!("x".repeat(2_048)));
    refused.send_raw(&json!({ "id": 1, "connect": { "token": long } }).to_string()).await;
    assert_eq!(refused.close_code().await, 3500);
    // Nor does a session's token say anything.
    let client = server.client("acme", "ann");
    let session: Json = client.post("/crosstown/v1/sessions", &json!({})).await.unwrap();
    let mut plain = Socket::connect(&base, session["token"].as_str().unwrap()).await;
    plain.ask("subscribe", asking).await.unwrap();
    assert_eq!(infos(&plain.push().await["join"]["info"]), (Json::Null, Json::Null));
}

#[tokio::test]
async fn those_of_a_node_that_was_killed_leave_when_it_is_back() {
    let mut server = Server::start(&format!("[realtime]\npresence_ttl = \"2s\"\n{CONFIG}"));
    let (ann, bob) = (server.token("acme", "ann"), server.token("acme", "bob"));
    let channels = ["lobby:1", "loud:1"];
    let (mut left, mut crowd) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        let mut socket = Socket::connect(&server.base(), &ann).await;
        for channel in channels {
            let asking = json!({ "channel": channel, "join_leave": true });
            socket.ask("subscribe", asking).await.unwrap();
            let client = loop {
                let join = socket.push().await["join"]["info"]["client"].clone();
                if !left.contains(&(channel.to_owned(), join.clone())) {
                    break join;
                }
            };
            left.push((channel.to_owned(), client));
        }
        crowd.push(socket);
    }
    let server = tokio::task::spawn_blocking(move || {
        server.kill();
        server.start_again();
        server
    });
    let server = server.await.unwrap();
    let mut follower = Socket::connect(&server.base(), &bob).await;
    for channel in channels {
        let asking = json!({ "channel": channel, "join_leave": true });
        follower.ask("subscribe", asking).await.unwrap();
    }
    let mut told = Vec::new();
    while told.len() < left.len() {
        let push = follower.push().await;
        if !push["leave"].is_null() {
            let channel = push["channel"].as_str().unwrap().to_owned();
            told.push((channel, push["leave"]["info"]["client"].clone()));
        }
    }
    let sorted = |mut moves: Vec<(String, Json)>| {
        moves.sort_by_key(|(channel, client)| (channel.clone(), client.to_string()));
        moves
    };
    assert_eq!(sorted(told), sorted(left));
}

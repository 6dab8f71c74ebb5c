//! Subscriptions that stand on a token, and those that the server begins.

use integration_tests::{Server, Socket};
use serde_json::json;

const CLOSED: &str = "[[realtime.namespaces]]\nname = \"closed\"\nsubscribe = false\n\
                      presence = true\n";

fn seconds() -> u64 {
    std::time::UNIX_EPOCH.elapsed().unwrap().as_secs()
}

#[tokio::test]
async fn a_token_opens_one_channel_to_one_principal() {
    let server = Server::start(CLOSED);
    let base = server.base();
    let mut ann = Socket::connect(&base, &server.token("acme", "ann")).await;
    let plain = json!({ "channel": "closed:a" });
    assert_eq!(ann.ask("subscribe", plain.clone()).await.unwrap_err()["code"], 103);
    assert_eq!(ann.ask("history", plain.clone()).await.unwrap_err()["code"], 103);

    let permit = |tenant: &str, user: &str, more| server.token_with(tenant, user, more);
    let for_a = json!({ "channel": "closed:a" });
    let service = json!({ "channel": "closed:a", "kind": "service" });
    let expired = json!({ "channel": "closed:a", "exp": seconds() - 60 });
    let refused = [
        (permit("acme", "bob", for_a.clone()), 103),
        (permit("other", "ann", for_a.clone()), 103),
        (permit("acme", "ann", service), 103),
        (permit("acme", "ann", json!({ "channel": "closed:b" })), 103),
        (permit("acme", "ann", expired), 109),
        (server.token("acme", "ann"), 103),
        ("nonsense".into(), 103),
    ];
    for (token, code) in refused {
        let asked = json!({ "channel": "closed:a", "token": token });
        assert_eq!(ann.ask("subscribe", asked).await.unwrap_err()["code"], code, "{token}");
    }

    let token = permit("acme", "ann", for_a);
    let stands = ann.ask("subscribe", json!({ "channel": "closed:a", "token": token })).await;
    let stands = stands.unwrap();
    assert_eq!(stands["expires"], true);
    assert!((3_500..=3_631).contains(&stands["ttl"].as_u64().unwrap()), "{stands}");
    // What subscribers may, and nothing elsewhere.
    assert!(ann.ask("history", plain.clone()).await.is_ok());
    assert!(ann.ask("presence", plain.clone()).await.is_ok());
    let other = json!({ "channel": "closed:b" });
    assert_eq!(ann.ask("history", other).await.unwrap_err()["code"], 103);
    ann.ask("unsubscribe", plain.clone()).await.unwrap();
    assert_eq!(ann.ask("history", plain).await.unwrap_err()["code"], 103);

    // It opens nothing else.
    let mut with_it = Socket::open(&base).await;
    assert!(with_it.ask("connect", json!({ "token": token })).await.is_err());
    assert_eq!(with_it.close_code().await, 3500);
    let http = client::Client::new(&base, &token).unwrap();
    let answer = http.call(http::Method::GET, "/crosstown/v1/sessions", None).await.unwrap();
    assert_eq!(answer.status, 401);
}

#[tokio::test]
async fn a_subscription_ends_with_its_token_unless_a_fresh_one_comes() {
    let pings = "[realtime]\nping_interval = \"2s\"\npong_timeout = \"1s\"\n";
    let server = Server::start(&format!("{pings}{CLOSED}"));
    let mut ann = Socket::connect(&server.base(), &server.token("acme", "ann")).await;
    // Clocks of issuers may be off by thirty seconds.
    let soon = seconds() - 28;
    for channel in ["closed:stays", "closed:ends"] {
        let token = json!({ "channel": channel, "exp": soon });
        let token = server.token_with("acme", "ann", token);
        let stands = ann.ask("subscribe", json!({ "channel": channel, "token": token })).await;
        assert!(stands.unwrap()["ttl"].as_u64().unwrap() <= 3);
    }
    let fresh = server.token_with("acme", "ann", json!({ "channel": "closed:stays" }));
    let refresh = |channel: &str| json!({ "channel": channel, "token": fresh });
    let fresher = ann.ask("sub_refresh", refresh("closed:stays")).await.unwrap();
    assert_eq!(fresher["expires"], true);
    assert_eq!(ann.ask("sub_refresh", refresh("closed:ends")).await.unwrap_err()["code"], 103);
    assert_eq!(ann.ask("sub_refresh", refresh("room")).await.unwrap_err()["code"], 103);
    let told = ann.push().await;
    assert_eq!(
        (&told["channel"], &told["unsubscribe"]["code"]),
        (&json!("closed:ends"), &json!(2501))
    );
    let asked = json!({ "channel": "closed:ends" });
    assert_eq!(ann.ask("history", asked).await.unwrap_err()["code"], 103);
    assert!(ann.ask("history", json!({ "channel": "closed:stays" })).await.is_ok());
}

#[tokio::test]
async fn a_connection_begins_with_the_channels_of_its_token() {
    let server = Server::start(&format!("[realtime]\npersonal_channels = true\n{CLOSED}"));
    let base = server.base();
    let channels = json!({ "channels": ["closed:a", "closed:b"] });
    let token = server.token_with("acme", "ann", channels);
    let service = server.token_with("acme", "orders", json!({ "kind": "service" }));
    let mut service = Socket::connect(&base, &service).await;

    let mut ann = Socket::open(&base).await;
    let opened = ann.ask("connect", json!({ "token": token })).await.unwrap();
    let names: Vec<&String> = opened["subs"].as_object().unwrap().keys().collect();
    assert_eq!(names, ["#ann", "closed:a", "closed:b"]);
    let (epoch, offset) = (opened["subs"]["closed:a"]["epoch"].clone(), 0);
    for (channel, n) in [("closed:a", 1), ("#ann", 2), ("closed:a", 3)] {
        service.ask("publish", json!({ "channel": channel, "data": n })).await.unwrap();
        let push = ann.push().await;
        assert_eq!((&push["channel"], &push["pub"]["data"]), (&json!(channel), &json!(n)));
    }
    let again = ann.ask("subscribe", json!({ "channel": "closed:a" })).await.unwrap_err();
    assert_eq!(again["code"], 103, "it stands on the token of the connection alone");
    let fresh = server.token_with("acme", "ann", json!({ "channel": "closed:a" }));
    let fresh = json!({ "channel": "closed:a", "token": fresh });
    assert_eq!(ann.ask("sub_refresh", fresh).await.unwrap_err()["code"], 103);
    drop(ann);

    // It comes back with what it knows, and gets what it has missed before anything else.
    let mut ann = Socket::open(&base).await;
    let known = json!({ "closed:a": { "recover": true, "epoch": epoch, "offset": offset } });
    let opened = ann.ask("connect", json!({ "token": token, "subs": known })).await.unwrap();
    let recovered = &opened["subs"]["closed:a"];
    assert_eq!(recovered["recovered"], true);
    let data: Vec<_> =
        recovered["publications"].as_array().unwrap().iter().map(|one| &one["data"]).collect();
    assert_eq!(data, [&json!(1), &json!(3)]);
    assert_eq!(ann.push_now(), None);

    // A name that is none, and too many names, are refused when the token is used.
    for channels in [json!(["nowhere:a"]), json!(["has space"]), json!("closed:a")] {
        let token = server.token_with("acme", "ann", json!({ "channels": channels }));
        let mut refused = Socket::open(&base).await;
        assert!(refused.ask("connect", json!({ "token": token })).await.is_err(), "{channels}");
    }
}

#[tokio::test]
async fn an_agents_own_channel_is_not_a_users() {
    let server = Server::start("[realtime]\npersonal_channels = true\n");
    let base = server.base();
    let agent = server.token_with("acme", "ann", json!({ "kind": "agent" }));
    let mut socket = Socket::open(&base).await;
    let opened = socket.ask("connect", json!({ "token": agent })).await.unwrap();
    assert_eq!(opened["subs"].as_object().unwrap().keys().collect::<Vec<_>>(), ["#agent/ann"]);
    let foreign = json!({ "channel": "#ann" });
    assert_eq!(socket.ask("subscribe", foreign).await.unwrap_err()["code"], 103);
}

#[tokio::test]
async fn rules_and_capabilities_say_who_may_do_what() {
    let server = Server::start(
        "[[realtime.namespaces]]\nname = \"room\"\nsubscribe = { channels = [\"room:{user}:*\"] }\n\
         publish = { roles = [\"editor\"], kinds = [\"agent\"] }\nread_history = false\n",
    );
    let base = server.base();
    let caps = json!([
        { "channels": ["room:bob:*"], "match": "wildcard", "allow": ["sub", "hst"] },
        { "channels": ["room:bob:1"], "allow": ["pub"] },
    ]);
    let tokens = [
        server.token("acme", "ann"),
        server.token_with("acme", "ann", json!({ "roles": ["editor"] })),
        server.token_with("acme", "ann", json!({ "kind": "agent" })),
        server.token_with("acme", "ann", json!({ "caps": caps })),
    ];
    let cases = [
        // Following one's own and another's room; publishing; reading the history of another's.
        [true, false, false, false],
        [true, false, true, false],
        [true, false, true, false],
        [true, true, true, true],
    ];
    for (token, expected) in tokens.iter().zip(cases) {
        let mut socket = Socket::connect(&base, token).await;
        let mut may = Vec::new();
        for (command, body) in [
            ("subscribe", json!({ "channel": "room:ann:1" })),
            ("subscribe", json!({ "channel": "room:bob:1" })),
            ("publish", json!({ "channel": "room:bob:1", "data": 1 })),
            ("history", json!({ "channel": "room:bob:1" })),
        ] {
            let answer = socket.ask(command, body).await;
            if let Err(error) = &answer {
                assert_eq!(error["code"], 103);
            }
            may.push(answer.is_ok());
        }
        assert_eq!(may, expected, "{token}");
    }
    let refused = server.token_with("acme", "ann", json!({ "caps": [{ "channels": "room" }] }));
    let mut socket = Socket::open(&base).await;
    assert!(socket.ask("connect", json!({ "token": refused })).await.is_err());
    assert_eq!(socket.close_code().await, 3500);
}

#[tokio::test]
async fn a_fresh_token_that_allows_less_ends_what_it_does_not_allow() {
    let server = Server::start(
        "[[realtime.namespaces]]\nname = \"desk\"\nsubscribe = { roles = [\"lead\"] }\n\
         [[state.rules]]\ndocument = \"pillar:*\"\nprefix = \"z/\"\nread = { roles = [\"lead\"] }\n",
    );
    let base = server.base();
    let lead = server.token_with("acme", "ann", json!({ "roles": ["lead"] }));
    let mut ann = Socket::connect(&base, &lead).await;
    let map = json!({ "channel": "state:pillar:sales", "type": 1, "phase": 2 });
    for request in [json!({ "channel": "desk:1" }), json!({ "channel": "room" }), map.clone()] {
        ann.ask("subscribe", request).await.unwrap();
    }
    // One that allows the same changes nothing.
    ann.ask("refresh", json!({ "token": lead })).await.unwrap();
    ann.ask("ping", json!({})).await.unwrap();
    assert_eq!(ann.push_now(), None);
    ann.ask("refresh", json!({ "token": server.token("acme", "ann") })).await.unwrap();
    let mut ended = [ann.push().await, ann.push().await]
        .map(|push| (push["channel"].to_string(), push["unsubscribe"]["code"].clone()));
    ended.sort_by(|a, b| a.0.cmp(&b.0));
    let told = ["\"desk:1\"", "\"state:pillar:sales\""];
    assert_eq!(ended, told.map(|channel| (channel.to_owned(), json!(2502))));
    let again = ann.ask("subscribe", json!({ "channel": "desk:1" })).await.unwrap_err();
    assert_eq!(again["code"], 103);
    // What is left of the document is told.
    ann.ask("subscribe", map).await.unwrap();
    let mut other = Socket::connect(&base, &lead).await;
    for key in ["z/1", "a/1"] {
        let publish = json!({ "channel": "state:pillar:sales", "type": 1, "key": key, "data": 1 });
        other.ask("publish", publish).await.unwrap();
    }
    assert_eq!(ann.push().await["pub"]["key"], "a/1");
}

#[tokio::test]
async fn who_has_no_credential_may_what_a_namespace_says() {
    let server = Server::start(
        "[identity.anonymous]\ntenant = \"acme\"\nuser = \"guest\"\n\
         [[realtime.namespaces]]\nname = \"open\"\nanonymous = true\npublish = false\n\
         presence = true\nsee_presence = { roles = [\"host\"] }\n\
         [[realtime.namespaces]]\nname = \"shut\"\n",
    );
    let base = server.base();
    let mut guest = Socket::open(&base).await;
    guest.ask("connect", json!({})).await.unwrap();
    let mut ann = Socket::connect(&base, &server.token("acme", "ann")).await;
    let host = server.token_with("acme", "host", json!({ "roles": ["host"] }));
    let mut host = Socket::connect(&base, &host).await;
    for (command, body, may) in [
        ("subscribe", json!({ "channel": "open:1" }), [true, true, true]),
        ("subscribe", json!({ "channel": "shut:1" }), [false, true, true]),
        ("publish", json!({ "channel": "open:1", "data": 1 }), [false, false, false]),
        ("history", json!({ "channel": "open:1" }), [true, true, true]),
        ("history", json!({ "channel": "shut:1" }), [false, true, true]),
        ("presence", json!({ "channel": "open:1" }), [false, false, true]),
    ] {
        for (socket, may) in [&mut guest, &mut ann, &mut host].into_iter().zip(may) {
            match socket.ask(command, body.clone()).await {
                Ok(_) => assert!(may, "{command} {body}"),
                Err(error) => assert_eq!((may, &error["code"]), (false, &json!(103)), "{body}"),
            }
        }
    }
}

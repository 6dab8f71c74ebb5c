//! Letters that come again until they are acknowledged.

use client::Client;
use integration_tests::{Server, Socket};
use serde_json::{Value as Json, json};
use std::time::{Duration, Instant};

const MAILBOX: &str = "mailbox:user:ann";

async fn follow(socket: &mut Socket) -> Vec<(String, Json)> {
    let request = json!({ "channel": MAILBOX, "type": 1, "phase": 2 });
    let stands = socket.ask("subscribe", request).await.unwrap();
    let state = stands["state"].as_array().cloned().unwrap_or_default();
    let letter =
        |one: &Json| (one["key"].as_str().unwrap().to_owned(), one["data"]["data"].clone());
    state.iter().map(letter).collect()
}

#[tokio::test]
async fn letters_come_until_they_are_acknowledged() {
    let mut server = Server::start("[mailboxes]\nrefusals_max = 2\n");
    let key = server.api_key("acme", "crm").await;
    let letters = "/crosstown/v1/mailboxes/user:ann/letters";
    let send = async |server: &Server, n: u64| {
        let crm = Client::new(&server.base(), &key).unwrap();
        let body = json!({ "id": format!("order-{n}"), "data": n });
        crm.post::<Json>(letters, &body).await.unwrap()
    };
    let token = server.token("acme", "ann");
    let first = send(&server, 1).await;
    let mut ann = Socket::connect(&server.base(), &token).await;
    let waiting = follow(&mut ann).await;
    assert_eq!(waiting, [(first["letter"].as_str().unwrap().to_owned(), json!(1))]);
    // What was answered survives the node; what is sent again is not sent twice.
    let second = send(&server, 2).await;
    let came = ann.push().await["pub"].clone();
    assert_eq!((&came["key"], &came["data"]["data"]), (&second["letter"], &json!(2)));
    assert_eq!((&came["data"]["from"], &came["data"]["id"]), (&json!("crm"), &json!("order-2")));
    server.kill();
    server.start_again();
    assert_eq!(send(&server, 2).await["repeated"], true);
    let mut ann = Socket::connect(&server.base(), &token).await;
    let mut phone = Socket::connect(&server.base(), &token).await;
    let names: Vec<String> = follow(&mut ann).await.into_iter().map(|(name, _)| name).collect();
    assert_eq!(names.len(), 2);
    assert_eq!(follow(&mut phone).await.len(), 2);

    // One way of acknowledging, and the other; every device is told.
    let remove = json!({ "channel": MAILBOX, "type": 1, "key": names[0], "removed": true });
    for _ in 0..2 {
        ann.ask("publish", remove.clone()).await.unwrap();
    }
    ann.rpc("mailbox.ack", json!({ "letter": names[1] })).await.unwrap();
    for name in &names {
        let gone = phone.push().await["pub"].clone();
        assert_eq!((&gone["key"], &gone["removed"]), (&json!(name), &json!(true)));
    }
    // What is given back comes again, until that is too often.
    let third = send(&server, 3).await["letter"].clone();
    let refuse = json!({ "letter": third, "why": "no paper" });
    phone.push().await;
    phone.rpc("mailbox.refuse", refuse.clone()).await.unwrap();
    let again = phone.push().await["pub"].clone();
    assert_eq!(again["data"]["refused"], json!({ "times": 1, "why": "no paper" }));
    phone.rpc("mailbox.refuse", refuse).await.unwrap();
    assert_eq!(phone.push().await["pub"]["removed"], true);
    let own = server.client("acme", "ann");
    let dead: Json = own.get("/crosstown/v1/mailboxes/user:ann/dead").await.unwrap();
    assert_eq!(
        (&dead["letters"][0]["name"], &dead["letters"][0]["why"]),
        (&third, &json!("refused"))
    );
    let grave = format!("/crosstown/v1/mailboxes/user:ann/dead/{}/revive", third.as_str().unwrap());
    let revived: Json = own.post(&grave, &json!({})).await.unwrap();
    assert_eq!(phone.push().await["pub"]["key"], revived["letter"]);
    let path = format!("{letters}/{}", revived["letter"].as_str().unwrap());
    own.delete(&path).await.unwrap();
    assert_eq!(phone.push().await["pub"]["removed"], true);
    let listed: Json = own.get(letters).await.unwrap();
    assert_eq!(listed, json!({ "letters": [] }));
}

/// The epoch of bob's mailbox.
async fn follow_epoch(bob: &mut Socket) -> Json {
    let request = json!({ "channel": "mailbox:user:bob", "type": 1, "phase": 2 });
    let stands = bob.ask("subscribe", request).await.unwrap();
    bob.ask("unsubscribe", json!({ "channel": "mailbox:user:bob" })).await.unwrap();
    stands["epoch"].clone()
}

#[tokio::test]
async fn a_mailbox_is_open_to_its_owner() {
    let server = Server::start("");
    let base = server.base();
    let mut bob = Socket::connect(&base, &server.token("acme", "bob")).await;
    let mut ann = Socket::connect(&base, &server.token("acme", "ann")).await;
    for (command, body, code) in [
        ("subscribe", json!({ "channel": MAILBOX, "type": 1, "phase": 2 }), 103),
        ("subscribe", json!({ "channel": "mailbox:ann", "type": 1, "phase": 2 }), 107),
        ("history", json!({ "channel": MAILBOX, "limit": 1 }), 103),
        (
            "publish",
            json!({ "channel": MAILBOX, "type": 1, "key": "0000000000000001", "removed": true }),
            103,
        ),
        (
            "publish",
            json!({ "channel": "mailbox:user:bob", "type": 1, "key": "k", "data": 1 }),
            103,
        ),
    ] {
        let refused = bob.ask(command, body.clone()).await.unwrap_err();
        assert_eq!(refused["code"], code, "{command} {body}");
    }
    let stream = json!({ "channel": MAILBOX });
    assert_eq!(ann.ask("subscribe", stream).await.unwrap_err()["code"], 107);
    for (method, argument, code) in [
        ("mailbox.send", json!({ "to": "user:ann", "data": 1 }), 403),
        ("mailbox.send", json!({ "to": "user:bob", "date": 1 }), 400),
        ("mailbox.list", json!({ "of": "user:ann" }), 403),
        ("mailbox.ack", json!({ "of": "user:ann", "letter": "0000000000000001" }), 403),
        ("mailbox.refuse", json!({ "letter": "0000000000000001" }), 404),
        ("mailbox.revive", json!({ "letter": "\u{1}" }), 404),
        ("mailbox.list", json!({ "after": "\u{1}" }), 404),
        ("mailbox.dead", json!({ "after": "x" }), 404),
    ] {
        let refused = bob.rpc(method, argument.clone()).await.unwrap_err();
        assert_eq!(refused["code"], code, "{method} {argument}");
    }
    let missing = bob.rpc("mailbox.burn", json!({})).await.unwrap_err();
    assert_eq!(missing["code"], 104);
    let sent = bob.rpc("mailbox.send", json!({ "to": "user:bob", "data": 1 })).await.unwrap();
    let listed = bob.rpc("mailbox.list", json!({})).await.unwrap();
    assert_eq!(listed["letters"][0]["name"], sent["letter"]);
    // What lies beside the letters is not theirs to see, wherever a page is said to begin.
    let page = json!({ "channel": "mailbox:user:bob", "type": 1, "phase": 2, "cursor": "\u{1}",
        "epoch": follow_epoch(&mut bob).await });
    let page = bob.ask("subscribe", page).await.unwrap();
    assert_eq!(page["state"].as_array().map(Vec::len), Some(1), "{page}");
}

#[tokio::test]
async fn a_mailbox_is_bounded_and_what_has_expired_is_dead() {
    let server = Server::start(
        "[mailboxes]\nletters_max = 3\ndead_max = 2\nletter_bytes_max = 100\nrefusals_max = 1\n",
    );
    let crm = Client::new(&server.base(), &server.api_key("acme", "crm").await).unwrap();
    let letters = "/crosstown/v1/mailboxes/user:ann/letters";
    let send = async |letter: Json| crm.post::<Json>(letters, &letter).await;
    let brief = send(json!({ "data": 0, "ttl": "1s" })).await.unwrap();
    let mut waiting = Vec::new();
    for letter in [json!({ "data": 1 }), json!({ "data": 2, "ttl": "1h" })] {
        waiting.push(send(letter).await.unwrap()["letter"].clone());
    }
    let full = send(json!({ "data": 3 })).await.unwrap_err();
    assert_eq!(full.code(), Some("overloaded"));
    let long = send(json!({ "data": "x".repeat(99) })).await.unwrap_err();
    assert_eq!(long.code(), Some("body_too_large"));

    // What has expired is never read, and makes room.
    let own = server.client("acme", "ann");
    let named = async |path: &str| {
        let told: Json = own.get(path).await.unwrap();
        let names = told["letters"].as_array().unwrap().iter();
        names.map(|letter| letter["name"].clone()).collect::<Vec<_>>()
    };
    let until = Instant::now() + Duration::from_secs(20);
    while named(letters).await != waiting {
        assert!(Instant::now() < until, "{:?}", named(letters).await);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let dead = "/crosstown/v1/mailboxes/user:ann/dead";
    let told: Json = own.get(dead).await.unwrap();
    let [expired] = &told["letters"].as_array().unwrap()[..] else { panic!("{told}") };
    assert_eq!((&expired["name"], &expired["why"]), (&brief["letter"], &json!("expired")));
    waiting.push(send(json!({ "data": 3 })).await.unwrap()["letter"].clone());
    // Of the dead, the oldest gives way.
    for letter in &waiting {
        let path = format!("{letters}/{}/refusals", letter.as_str().unwrap());
        own.call(http::Method::POST, &path, Some("{}".into())).await.unwrap();
    }
    assert_eq!(named(letters).await, Vec::<Json>::new());
    assert_eq!(named(dead).await, waiting[1..]);
}

#[tokio::test]
async fn users_agents_services_and_sessions_have_mailboxes() {
    let server = Server::start("[mailboxes]\nusers_send = true\n");
    let base = server.base();
    let crm = server.api_key("acme", "crm").await;
    let made: Json = Client::new(&base, &crm)
        .unwrap()
        .post("/crosstown/v1/sessions?user=bob", &json!({}))
        .await
        .unwrap();
    let session = format!("session:{}", made["id"].as_str().unwrap());
    let scout = server.token_with("acme", "scout", json!({ "kind": "agent" }));
    let bob = made["token"].as_str().unwrap();
    let mut ann = Socket::connect(&base, &server.token("acme", "ann")).await;
    for (to, token) in
        [("user:bob", bob), ("agent:scout", &scout), ("service:crm", &crm), (session.as_str(), bob)]
    {
        let letter = json!({ "to": to, "data": to, "id": "one" });
        let sent = ann.rpc("mailbox.send", letter).await.unwrap();
        let mut reader = Socket::connect(&base, token).await;
        let listed = reader.rpc("mailbox.list", json!({ "of": to })).await.unwrap();
        let [letter] = &listed["letters"].as_array().unwrap()[..] else { panic!("{listed}") };
        assert_eq!((&letter["name"], &letter["data"]), (&sent["letter"], &json!(to)));
        assert_eq!((&letter["from"], &letter["id"]), (&json!("ann"), &json!("one")));
        // Whoever sent it does not read it.
        let refused = ann.rpc("mailbox.list", json!({ "of": to })).await.unwrap_err();
        assert_eq!(refused["code"], 403, "{to}");
    }
    // Another session of the same user has another mailbox, and so has an agent of his name.
    let mut other = Socket::connect(&base, &server.token("acme", "bob")).await;
    let refused = other.rpc("mailbox.list", json!({ "of": session })).await.unwrap_err();
    assert_eq!(refused["code"], 403);
    let agent = server.token_with("acme", "bob", json!({ "kind": "agent" }));
    let mut agent = Socket::connect(&base, &agent).await;
    let listed = agent.rpc("mailbox.list", json!({})).await.unwrap();
    assert_eq!(listed["letters"], json!([]));
}

//! Maps: entries page by page, the changes since, and those to come.

use client::Client;
use integration_tests::{Server, Socket};
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;

const STATE: u8 = 2;
const STREAM: u8 = 1;

/// A subscription to a map, as far as `more` says.
async fn map(socket: &mut Socket, channel: &str, more: Json) -> Result<Json, Json> {
    let mut request = json!({ "channel": channel, "type": 1 });
    for (name, value) in more.as_object().unwrap() {
        request[name] = value.clone();
    }
    socket.ask("subscribe", request).await
}

fn keys(held: &Json) -> Vec<&str> {
    let all = held.as_array().map(Vec::as_slice).unwrap_or_default();
    all.iter().map(|one| one["key"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_document_comes_page_by_page_with_what_changes_meanwhile() {
    let server = Server::start("[state]\nhistory_max = 64\n");
    let base = server.base();
    let document = "user:ann";
    let mut writer = Socket::connect(&base, &server.token("acme", "ann")).await;
    let mut put = async |key: &str, value: Json| {
        let entry = json!({ "document": document, "key": key, "value": value });
        writer.rpc("state.put", entry).await.unwrap();
    };
    for key in ["a", "b", "c", "d", "e"] {
        put(key, json!(key)).await;
    }
    let mut ann = Socket::connect(&base, &server.token("acme", "ann")).await;
    let channel = "state:user:ann";
    let first = map(&mut ann, channel, json!({ "phase": STATE, "limit": 2 })).await.unwrap();
    assert_eq!((keys(&first["state"]), &first["cursor"]), (vec!["a", "b"], &json!("b")));
    assert_eq!(
        (&first["type"], &first["phase"], &first["offset"]),
        (&json!(1), &json!(2), &json!(5))
    );
    put("a", json!("newer")).await;
    let after = |page: &Json, cursor: &str| {
        json!({ "phase": STATE, "limit": 2, "cursor": cursor, "offset": first["offset"],
            "epoch": page["epoch"] })
    };
    let second = map(&mut ann, channel, after(&first, "b")).await.unwrap();
    assert_eq!((keys(&second["state"]), &second["offset"]), (vec!["c", "d"], &json!(5)));
    // The last page leads on to what comes: with the entries, and what changed since the first.
    let last = map(&mut ann, channel, after(&first, "d")).await.unwrap();
    assert_eq!((keys(&last["state"]), keys(&last["publications"])), (vec!["e"], vec!["a"]));
    assert_eq!((&last["phase"], &last["offset"]), (&json!(null), &json!(6)));
    assert_eq!((&last["recoverable"], &last["recovered"]), (&json!(true), &json!(null)));
    put("f", json!({ "x": 1 })).await;
    let push = ann.push().await;
    assert_eq!((&push["pub"]["key"], &push["pub"]["data"]), (&json!("f"), &json!({ "x": 1 })));
    let entry = json!({ "document": document, "key": "a" });
    ann.rpc("state.delete", entry).await.unwrap();
    let push = ann.push().await;
    assert_eq!((&push["pub"]["removed"], &push["pub"]["data"]), (&json!(true), &json!(null)));
    assert_eq!((&push["pub"]["info"]["user"], &push["pub"]["offset"]), (&json!("ann"), &json!(8)));
    let again = map(&mut ann, channel, json!({ "phase": STATE })).await.unwrap_err();
    assert_eq!(again["code"], 105);

    // Whoever comes back takes what it missed, page by page, and is told when that is all.
    let back = |offset: u64, limit: u64| {
        json!({ "phase": STREAM, "recover": true, "offset": offset, "epoch": first["epoch"],
            "limit": limit })
    };
    let mut ann = Socket::connect(&base, &server.token("acme", "ann")).await;
    let page = map(&mut ann, channel, back(5, 2)).await.unwrap();
    assert_eq!((keys(&page["publications"]), &page["phase"]), (vec!["a", "f"], &json!(1)));
    assert_eq!(page["offset"], 7);
    let live = map(&mut ann, channel, back(7, 2)).await.unwrap();
    assert_eq!((keys(&live["publications"]), &live["phase"]), (vec!["a"], &json!(null)));
    assert_eq!((&live["recovered"], &live["was_recovering"]), (&json!(true), &json!(true)));

    // What cannot be told whole is not told: of another life, of the future, of too long ago.
    let mut ann = Socket::connect(&base, &server.token("acme", "ann")).await;
    for n in 0..200 {
        put("n", json!(n)).await;
    }
    let mut other = back(5, 0);
    other["epoch"] = json!("0");
    for request in [back(5, 0), back(10_000, 0), other, after(&json!({ "epoch": "0" }), "b")] {
        let refused = map(&mut ann, channel, request.clone()).await.unwrap_err();
        assert_eq!(refused["code"], 112, "{request}");
    }
}

#[tokio::test]
async fn a_map_is_written_by_those_who_may() {
    let server = Server::start(
        "[[realtime.namespaces]]\nname = \"board\"\nmap = true\n\
         [[realtime.namespaces]]\nname = \"show\"\nmap = true\npublish = false\n",
    );
    let base = server.base();
    let mut ann = Socket::connect(&base, &server.token("acme", "ann")).await;
    let mut bob = Socket::connect(&base, &server.token("acme", "bob")).await;
    let mut eve = Socket::connect(&base, &server.token("other", "eve")).await;
    for socket in [&mut bob, &mut eve] {
        map(socket, "board:1", json!({ "phase": STATE })).await.unwrap();
    }
    let publish = |channel: &str, key: &str, data: Json| json!({ "channel": channel, "type": 1, "key": key, "data": data });
    ann.ask("publish", publish("board:1", "k", json!([1, "\n"]))).await.unwrap();
    let push = bob.push().await;
    assert_eq!((&push["pub"]["key"], &push["pub"]["data"]), (&json!("k"), &json!([1, "\n"])));
    eve.ask("ping", json!({})).await.unwrap();
    assert_eq!(eve.push_now(), None);
    // A document is written by the same rules as elsewhere.
    ann.ask("publish", publish("state:user:ann", "k", json!(1))).await.unwrap();
    let held = ann.rpc("state.get", json!({ "document": "user:ann", "key": "k" })).await.unwrap();
    assert_eq!(held["value"], 1);
    let removed = json!({ "channel": "state:user:ann", "type": 1, "key": "k", "removed": true });
    for _ in 0..2 {
        ann.ask("publish", removed.clone()).await.unwrap();
    }

    let plain = json!({ "channel": "board:1", "data": 1 });
    let missing = json!({ "channel": "board:1", "type": 1, "key": "k" });
    let large = publish("board:1", "k", json!("x".repeat(64 * 1024 - 200)));
    for (body, code) in [
        (publish("show:1", "k", json!(1)), 103),
        (publish("state:user:bob", "k", json!(1)), 103),
        (publish("room", "k", json!(1)), 107),
        (publish("board:1", "", json!(1)), 107),
        (publish("board:1", &"k".repeat(257), json!(1)), 107),
        (missing, 107),
        (plain, 107),
        (json!({ "channel": "board:1", "type": 2, "key": "k", "data": 1 }), 108),
        (json!({ "channel": "board:1", "type": 9, "key": "k", "data": 1 }), 108),
    ] {
        assert_eq!(ann.ask("publish", body.clone()).await.unwrap_err()["code"], code, "{body}");
    }
    ann.ask("publish", large).await.expect("as large as a value may be");
    for (channel, more, code) in [
        ("room", json!({ "phase": STATE }), 107),
        ("state:user:bob", json!({ "phase": STATE }), 103),
        ("board:2", json!({ "phase": 3 }), 107),
        ("board:2", json!({ "phase": STATE, "cursor": "k".repeat(600) }), 107),
        ("board:2", json!({ "phase": STATE, "type": 4 }), 108),
        ("board:2", json!({ "phase": STATE, "tf": { "key": "a", "cmp": "eq", "val": "b" } }), 108),
        ("board:2", json!({ "type": 0 }), 107),
    ] {
        let refused = map(&mut ann, channel, more.clone()).await.unwrap_err();
        assert_eq!(refused["code"], code, "{channel} {more}");
    }
}

#[tokio::test]
async fn followers_are_told_of_what_they_may_read() {
    let server = Server::start(
        "[[state.rules]]\ndocument = \"pillar:*\"\nprefix = \"a/\"\nread = { kinds = [\"service\"] }\n\
         [[state.rules]]\ndocument = \"pillar:*\"\nprefix = \"z/\"\nread = { roles = [\"lead\"] }\n",
    );
    let base = server.base();
    let mut service =
        Socket::connect(&base, &server.token_with("acme", "crm", json!({ "kind": "service" })))
            .await;
    let mut ann = Socket::connect(&base, &server.token("acme", "ann")).await;
    let lead = server.token_with("acme", "bob", json!({ "roles": ["lead"] }));
    let mut lead = Socket::connect(&base, &lead).await;
    let channel = "state:pillar:sales";
    let mut changed = async |key: &str, value: Json| {
        // No rule hides from whoever has the role what another rule hides from everybody else.
        let publish = json!({ "channel": channel, "type": 1, "key": key, "data": value });
        let by = if key.starts_with("z/") { &mut lead } else { &mut service };
        by.ask("publish", publish).await.unwrap();
    };
    for key in ["a/1", "a/2", "a/3", "m/1", "m/2", "z/1", "z/2"] {
        changed(key, json!(1)).await;
    }
    // Pages of which nothing may be told are passed over, and their keys with them.
    let first = map(&mut ann, channel, json!({ "phase": STATE, "limit": 2 })).await.unwrap();
    assert_eq!((keys(&first["state"]), &first["cursor"]), (vec!["m/1"], &json!("m/1")));
    let last = json!({ "phase": STATE, "limit": 2, "cursor": "m/1", "offset": first["offset"],
        "epoch": first["epoch"] });
    changed("a/1", json!(2)).await;
    changed("m/1", json!(2)).await;
    let second = map(&mut ann, channel, last.clone()).await.unwrap();
    assert_eq!((keys(&second["state"]), &second["cursor"]), (vec!["m/2"], &json!("m/2")));
    let last = json!({ "phase": STATE, "limit": 20, "cursor": "m/2", "offset": first["offset"],
        "epoch": first["epoch"] });
    let live = map(&mut ann, channel, last).await.unwrap();
    assert_eq!((keys(&live["state"]), keys(&live["publications"])), (vec![], vec!["m/1"]));
    for key in ["a/1", "z/1", "m/2"] {
        changed(key, json!(3)).await;
    }
    let push = ann.push().await;
    assert_eq!((&push["pub"]["key"], &push["pub"]["offset"]), (&json!("m/2"), &json!(12)));
    // What was missed is told likewise.
    let mut back = Socket::connect(&base, &server.token("acme", "ann")).await;
    let recover = json!({ "phase": STREAM, "recover": true, "offset": 9, "epoch": first["epoch"] });
    let missed = map(&mut back, channel, recover).await.unwrap();
    assert_eq!((keys(&missed["publications"]), &missed["offset"]), (vec!["m/2"], &json!(12)));

    // As a stream there is all of it or nothing.
    let stream = json!({ "channel": channel });
    for command in ["subscribe", "history"] {
        let mut other = Socket::connect(&base, &server.token("acme", "eve")).await;
        assert_eq!(other.ask(command, stream.clone()).await.unwrap_err()["code"], 103, "{command}");
    }
    let by_token = server.token_with("acme", "ann", json!({ "channels": [channel] }));
    let mut refused = Socket::open(&base).await;
    let connect = json!({ "id": 1, "connect": { "token": by_token } });
    refused.send_raw(&connect.to_string()).await;
    assert_eq!(refused.close_code().await, 3507);
    let mut plain = Socket::connect(&base, &server.token("acme", "ann")).await;
    plain.ask("subscribe", json!({ "channel": "state:user:ann" })).await.unwrap();
}

const BRIEF: &str = "[[realtime.namespaces]]\nname = \"brief\"\nmap = true\nentry_ttl = \"1h\"\n\
    [[realtime.namespaces]]\nname = \"board\"\nmap = true\n";

/// What a follower has of a map, by what it was told.
#[derive(Debug, Default, PartialEq)]
struct Followed(BTreeMap<String, Json>);

impl Followed {
    fn told(&mut self, publication: &Json) {
        let key = publication["key"].as_str().unwrap().to_owned();
        match publication["removed"] == true {
            // Nobody removes what is not there: a second removal would.
            true => drop(self.0.remove(&key).unwrap_or_else(|| panic!("{key} is removed twice"))),
            false => drop(self.0.insert(key, publication["data"].clone())),
        }
    }

    fn all_told(&mut self, publications: &Json) {
        publications.as_array().into_iter().flatten().for_each(|one| self.told(one));
    }
}

fn entry(channel: &str, key: &str, query: &str) -> String {
    format!("/crosstown/v1/channels/{channel}/entries/{key}{query}")
}

#[tokio::test]
async fn entries_end_by_themselves_and_every_follower_ends_alike() {
    let server = Server::start(BRIEF);
    let base = server.base();
    let channel = "brief:1";
    let mut live = Socket::connect(&base, &server.token("acme", "bob")).await;
    let mut first = map(&mut live, channel, json!({ "phase": STATE })).await.unwrap();
    let service = Client::new(&base, &server.api_key("acme", "press").await).unwrap();
    let put = async |key: &str, ttl: &str| {
        let path = entry(channel, key, &format!("?ttl={ttl}"));
        service.put::<Json>(&path, &json!({ "from": ttl })).await
    };
    for n in 0..40 {
        put(&format!("short-{n}"), "1s").await.unwrap();
    }
    put("removed", "2s").await.unwrap();
    service.delete(&entry(channel, "removed", "")).await.unwrap();
    put("renewed", "3s").await.unwrap();
    let renew = json!({ "channel": channel, "type": 1, "key": "renewed", "data": 1 });
    let mut ann = Socket::connect(&base, &server.token("acme", "ann")).await;
    ann.ask("publish", renew).await.unwrap();
    // The last to end: after it, whatever ended before has gone.
    put("last", "4s").await.unwrap();
    let mut followed = Followed::default();
    let mut removed = Vec::new();
    while removed.last().is_none_or(|key| key != "last") {
        let push = live.push().await["pub"].clone();
        followed.told(&push);
        if push["removed"] == true {
            let key = push["key"].as_str().unwrap().to_owned();
            // Nobody has done that.
            assert_eq!(push["info"].is_null(), key != "removed", "{push}");
            removed.push(key);
        }
    }
    assert_eq!(removed.len(), 42, "{removed:?}");
    assert_eq!(keys_of(&followed), ["renewed"]);
    // By pages, and from the beginning of all changes, it is the same.
    let mut other = Socket::connect(&base, &server.token("acme", "eve")).await;
    let page = map(&mut other, channel, json!({ "phase": STATE })).await.unwrap();
    assert_eq!(keys(&page["state"]), ["renewed"]);
    let mut recovered = Followed::default();
    loop {
        let mut back = Socket::connect(&base, &server.token("acme", "zoe")).await;
        let offset = first["offset"].as_u64().unwrap_or(0);
        let from = json!({ "phase": STREAM, "recover": true, "offset": offset,
            "epoch": first["epoch"], "limit": 20 });
        let page = map(&mut back, channel, from).await.unwrap();
        recovered.all_told(&page["publications"]);
        first["offset"] = page["offset"].clone();
        if page["phase"].is_null() {
            break;
        }
    }
    assert_eq!(recovered, followed);

    let refused = async |path: String| service.put::<Json>(&path, &json!(1)).await.unwrap_err();
    for path in [
        entry(channel, "k", "?ttl=2h"),
        entry(channel, "k", "?ttl=10ms"),
        entry(channel, "k", "?ttl=soon"),
        entry("board:1", "k", "?ttl=1s"),
        entry("room", "k", ""),
    ] {
        let error = refused(path.clone()).await;
        assert_eq!(error.code(), Some("bad_request"), "{path}: {error}");
    }
    assert_eq!(refused(entry("mailbox:user:ann", "k", "")).await.code(), Some("forbidden"));
    let gone = service.delete(&entry(channel, "last", "")).await.unwrap_err();
    assert_eq!(gone.code(), Some("not_found"));
    service.put::<Json>(&entry("board:1", "k", ""), &json!(1)).await.unwrap();
}

fn keys_of(followed: &Followed) -> Vec<&str> {
    followed.0.keys().map(String::as_str).collect()
}

#[tokio::test]
async fn what_a_node_that_was_killed_has_left_ends_as_well() {
    let mut server = Server::start(BRIEF);
    let channel = "brief:1";
    let service = Client::new(&server.base(), &server.api_key("acme", "press").await).unwrap();
    for (key, ttl) in [("a", "1s"), ("b", "2s"), ("stays", "1h")] {
        let path = entry(channel, key, &format!("?ttl={ttl}"));
        service.put::<Json>(&path, &json!(1)).await.unwrap();
    }
    let mut ann = Socket::connect(&server.base(), &server.token("acme", "ann")).await;
    let mut followed = Followed::default();
    let first = map(&mut ann, channel, json!({ "phase": STATE })).await.unwrap();
    followed.all_told(&first["state"]);
    followed.all_told(&first["publications"]);
    server.kill();
    server.start_again();
    let mut ann = Socket::connect(&server.base(), &server.token("acme", "ann")).await;
    let back = json!({ "phase": STREAM, "recover": true, "offset": first["offset"],
        "epoch": first["epoch"] });
    let missed = map(&mut ann, channel, back).await.unwrap();
    assert_eq!(missed["recovered"], true);
    followed.all_told(&missed["publications"]);
    while keys_of(&followed) != ["stays"] {
        followed.told(&ann.push().await["pub"]);
    }
}

#[tokio::test]
async fn a_map_that_cannot_be_meant_is_refused() {
    let stores = "durable = \"memory:\"";
    for (keys, says) in [
        ("entry_ttl = \"1s\"", "is for maps"),
        ("map = true\nentry_ttl = \"10ms\"", "must be 1s to 365d"),
        ("map = true\nentry_ttl = \"366d\"", "must be 1s to 365d"),
        ("map = true\ntier = \"live\"", "maps are durable"),
        ("map = true\ntier = \"hot\"", "maps are durable"),
    ] {
        let config = format!("[[realtime.namespaces]]\nname = \"n\"\n{keys}\n");
        let log = Server::refused_on(stores, &config);
        assert!(log.contains(says), "{keys}: {log}");
    }
    let config = "[[realtime.namespaces]]\nname = \"n\"\nmap = true\ntier = \"durable\"\n";
    drop(Server::start_on(stores, config));
}

mod tiers;

use client::{Client, Event};
use integration_tests::{Server, Socket};
use serde_json::{Value as Json, json};

#[tokio::test]
async fn every_follower_sees_one_order() {
    let server = Server::start("");
    let service = |key: String| Client::new(&server.base(), &key).unwrap();
    let orders = service(server.api_key("acme", "orders").await);
    let billing = service(server.api_key("acme", "billing").await);
    let mut socket = Socket::connect(&server.base(), &server.token("acme", "ann")).await;
    let channel = json!({ "channel": "state:pillar:sales", "recoverable": true });
    socket.ask("subscribe", channel).await.unwrap();
    let mut follower = billing.document("pillar", "sales").follow();
    assert!(matches!(follower.next().await.unwrap(), Event::Snapshot(_)));

    let document = orders.document("pillar", "sales");
    let writers = (0..8).map(|writer| {
        let document = document.clone();
        tokio::spawn(async move {
            for n in 0..10 {
                let key = format!("order-{writer}-{n}");
                document.put(&key, &json!({ "n": n }), Some(0)).await.unwrap();
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    let mut by_socket = Vec::new();
    for _ in 0..80 {
        let push = socket.push().await;
        let data = &push["pub"]["data"];
        by_socket
            .push((data["revision"].as_u64().unwrap(), data["key"].as_str().unwrap().to_owned()));
    }
    let mut by_service = Vec::new();
    while by_service.len() < 80 {
        if let Event::Change(change) = follower.next().await.unwrap() {
            by_service.push((change.revision, change.key));
        }
    }
    assert!(by_socket.is_sorted());
    assert_eq!(by_socket, by_service);
}

#[tokio::test]
async fn writes_may_be_conditional() {
    let server = Server::start("");
    let ann = server.client("acme", "ann");
    let document = ann.document("user", "ann");
    let first = document.put("cart", &json!({ "a": 1, "b": { "c": 2 } }), Some(0)).await.unwrap();
    let again = document.put("cart", &json!({}), Some(0)).await.unwrap_err();
    assert_eq!(again.code(), Some("conflict"));
    let client::Error::Refused { document: told, status, .. } = again else { panic!() };
    assert_eq!((status, &told["revision"]), (409, &json!(first.revision)));
    assert_eq!(told["value"]["a"], 1);
    let patch = json!({ "a": null, "b": { "d": 3 } });
    let patched = document.patch("cart", &patch, Some(first.revision));
    assert_eq!(patched.await.unwrap().value, Some(json!({ "b": { "c": 2, "d": 3 } })));
    assert_eq!(
        document.delete("cart", Some(first.revision)).await.unwrap_err().code(),
        Some("conflict")
    );
    document.delete("cart", None).await.unwrap();
    assert_eq!(document.delete("cart", None).await.unwrap_err().code(), Some("not_found"));
    let history: Json = ann.get("/crosstown/v1/state/user/ann/history").await.unwrap();
    let entries = history["entries"].as_array().unwrap();
    assert_eq!(entries.len(), 3);
    assert_eq!((&entries[2]["deleted"], &entries[2]["by"]), (&json!(true), &json!("ann")));
}

#[tokio::test]
async fn increments_under_contention_are_all_counted() {
    let server = Server::start("");
    let ann = server.client("acme", "ann");
    let document = ann.document("tenant", "self");
    document.put("count", &json!(0), None).await.unwrap();
    let workers = (0..16).map(|_| {
        let document = document.clone();
        tokio::spawn(async move {
            let mut done = 0;
            while done < 5 {
                let snapshot = document.snapshot().await.unwrap();
                let entry = &snapshot.entries[0];
                let next = json!(entry.value.as_u64().unwrap() + 1);
                done += u64::from(document.put("count", &next, Some(entry.revision)).await.is_ok());
            }
        })
    });
    for worker in workers.collect::<Vec<_>>() {
        worker.await.unwrap();
    }
    assert_eq!(document.snapshot().await.unwrap().entries[0].value, json!(80));
}

#[tokio::test]
async fn documents_are_open_to_whom_they_belong() {
    let server = Server::start("");
    let ann = server.client("acme", "ann");
    let bob = server.client("acme", "bob");
    ann.document("user", "ann").put("k", &json!(1), None).await.unwrap();
    let code = |outcome: Result<client::Snapshot, client::Error>| {
        outcome.map_err(|error| error.code().unwrap_or("?").to_owned())
    };
    assert_eq!(code(bob.document("user", "ann").snapshot().await), Err("forbidden".into()));
    let put = bob.document("service", "orders").put("k", &json!(1), None).await;
    assert_eq!(put.unwrap_err().code(), Some("forbidden"));
    assert!(bob.document("service", "orders").snapshot().await.is_ok());
    let stranger = server.client("other", "ann");
    assert_eq!(stranger.document("user", "ann").snapshot().await.unwrap().entries, vec![]);
    for (scope, id) in [("city", "x"), ("session", "x"), ("tenant", "acme"), ("pillar", "a b")] {
        assert_eq!(code(ann.document(scope, id).snapshot().await), Err("bad_request".into()));
    }
}

#[tokio::test]
async fn who_was_away_too_long_is_told_to_take_a_snapshot() {
    let server = Server::start("");
    let ann = server.client("acme", "ann");
    let document = ann.document("user", "ann");
    let applied = document.put("k", &json!(1), None).await.unwrap();
    let ask = |epoch: &str, revision: u64| {
        let query = format!("epoch={epoch}&revision={revision}");
        let (ann, path) = (ann.clone(), format!("/crosstown/v1/state/user/ann/changes?{query}"));
        async move { ann.get::<Json>(&path).await.map_err(|error| error.code().unwrap().to_owned()) }
    };
    assert_eq!(ask("1234", 1).await, Err("lagged".into()));
    assert_eq!(ask(&applied.epoch, 1_000).await, Err("lagged".into()));
    let none = ask(&applied.epoch, applied.revision).await.unwrap();
    assert_eq!(none["changes"], json!([]));
    document.put("k", &json!(2), None).await.unwrap();
    let one = ask(&applied.epoch, applied.revision).await.unwrap();
    assert_eq!(one["changes"][0]["value"], 2);
}

#[tokio::test]
async fn traffic_counts_the_bodies_of_the_api() {
    let server = Server::start("");
    let ann = server.client("acme", "ann");
    ann.document("user", "ann").put("k", &json!("0123456789"), None).await.unwrap();
    for _ in 0..100 {
        let report: Json = ann.get("/crosstown/v1/analytics/traffic?range=1m").await.unwrap();
        if report["total"]["bytes_in"] == 12 {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    panic!("the twelve bytes were not counted");
}

#[tokio::test]
async fn transactions_are_whole_for_every_follower() {
    let server = Server::start("");
    let ann = server.client("acme", "ann");
    let document = ann.document("user", "ann");
    let mut follower = document.follow();
    assert!(matches!(follower.next().await.unwrap(), Event::Snapshot(_)));
    let mut socket = Socket::connect(&server.base(), &server.token("acme", "ann")).await;
    let channel = json!({ "channel": "state:user:ann", "recoverable": true });
    socket.ask("subscribe", channel).await.unwrap();

    let put = |key: &str| json!({ "op": "put", "key": key, "value": { "n": 1 } });
    let done = document.transact(&[put("a"), put("b")]).await.unwrap();
    let refused = document.transact(&[put("c"), json!({ "op": "delete", "key": "d" })]).await;
    let client::Error::Refused { document: told, status, .. } = refused.unwrap_err() else {
        panic!()
    };
    assert_eq!((status, &told["key"]), (404, &json!("d")));
    // On the socket: one step by a test that holds, and again by one that no longer does.
    let steps = json!([
        { "op": "json_patch", "key": "a", "value": [
            { "op": "test", "path": "/n", "value": 1 },
            { "op": "replace", "path": "/n", "value": 2 },
        ] },
        { "op": "delete", "key": "b", "if_revision": done.revision },
    ]);
    let by_rpc = json!({
        "method": "state.transact", "data": { "document": "user:ann", "steps": steps },
    });
    let answer = socket.ask("rpc", by_rpc.clone()).await.unwrap();
    assert_eq!(answer["data"]["revision"], done.revision + 1, "{answer}");
    assert_eq!(answer["data"]["entries"][0]["value"], json!({ "n": 2 }));
    let refused = socket.ask("rpc", by_rpc).await.unwrap_err();
    assert_eq!(refused["code"], 409, "{refused}");
    let ops = json!({ "document": "user:ann", "key": "a", "ops": [
        { "op": "copy", "from": "/n", "path": "/m" },
    ] });
    let patched = socket.ask("rpc", json!({ "method": "state.patch", "data": ops })).await.unwrap();
    assert_eq!(patched["data"]["value"], json!({ "n": 2, "m": 2 }));

    let expected = [("a", 1), ("b", 1), ("a", 2), ("b", 2), ("a", 3)];
    let (mut by_socket, mut by_http) = (Vec::new(), Vec::new());
    for _ in expected {
        let push = socket.push().await;
        let data = &push["pub"]["data"];
        by_socket.push((data["key"].clone(), data["revision"].as_u64().unwrap()));
    }
    assert_eq!(by_socket, expected.map(|(key, revision)| (json!(key), revision)));
    while by_http.last() != Some(&3) {
        if let Event::Change(change) = follower.next().await.unwrap() {
            by_http.push(change.revision);
        }
    }
    // Values in between may be missing; no revision is told in part.
    assert!(by_http.is_sorted());
}

#[tokio::test]
async fn a_document_can_be_read_as_it_was_and_made_so_again() {
    let server = Server::start("");
    let ann = server.client("acme", "ann");
    let document = ann.document("user", "ann");
    let first = document.put("cart", &json!({ "items": 1 }), None).await.unwrap().revision;
    document.put("note", &json!("x"), None).await.unwrap();
    document.put("cart", &json!({ "items": 2 }), None).await.unwrap();
    let last = document.put("wish", &json!(1), None).await.unwrap();

    let then = document.snapshot_at(first).await.unwrap();
    assert_eq!((then.revision, then.entries.len()), (first, 1));
    assert_eq!(then.entries[0].value, json!({ "items": 1 }));
    assert_eq!(document.get_at("cart", last.revision).await.unwrap().value, json!({ "items": 2 }));
    let none = document.get_at("note", first).await.unwrap_err();
    assert_eq!(none.code(), Some("not_found"));
    let client::Error::Refused { document: told, status, .. } =
        document.snapshot_at(1_000).await.unwrap_err()
    else {
        panic!()
    };
    assert_eq!((status, &told["code"], &told["first"]), (410, &json!("lagged"), &json!(1)));
    for wrong in ["at=x", "epoch=1", "at=1&since=2"] {
        let asked = ann.get::<Json>(&format!("/crosstown/v1/state/user/ann?{wrong}")).await;
        assert_eq!(asked.unwrap_err().code(), Some("bad_request"), "{wrong}");
    }

    let mut socket = Socket::connect(&server.base(), &server.token("acme", "ann")).await;
    let channel = json!({ "channel": "state:user:ann", "recoverable": true });
    socket.ask("subscribe", channel).await.unwrap();
    let done = document.restore(first, Some(&["cart", "note"]), Some(last.revision)).await.unwrap();
    let stale = document.restore(first, None, Some(last.revision)).await.unwrap_err();
    assert_eq!(stale.code(), Some("conflict"));
    // Followers see new changes, of one revision.
    for (key, value) in [("cart", json!({ "items": 1 })), ("note", Json::Null)] {
        let push = socket.push().await;
        let data = &push["pub"]["data"];
        assert_eq!((&data["key"], &data["value"]), (&json!(key), &value), "{push}");
        assert_eq!(data["revision"], done.revision);
    }
    let mut rpc = async |method: &str, data: Json| {
        let answer = socket.ask("rpc", json!({ "method": method, "data": data })).await;
        answer.map(|answer| answer["data"].clone())
    };
    let at = |revision: u64, key: Json| json!({ "document": "user:ann", "key": key, "at_revision": revision, "epoch": last.epoch });
    let then = rpc("state.get", at(last.revision, Json::Null)).await.unwrap();
    assert_eq!(then["entries"].as_array().unwrap().len(), 3, "{then}");
    let one = rpc("state.get", at(last.revision, json!("cart"))).await.unwrap();
    assert_eq!(one["value"], json!({ "items": 2 }), "which is 1 by now");
    let other_life = json!({ "document": "user:ann", "at_revision": 1, "epoch": "1234" });
    assert_eq!(rpc("state.get", other_life).await.unwrap_err()["code"], 410);
    let undo = json!({ "document": "user:ann", "revision": last.revision });
    let undone = rpc("state.restore", undo).await.unwrap();
    assert_eq!(undone["entries"][1], json!({ "key": "note", "value": "x" }), "{undone}");
    assert_eq!(document.snapshot().await.unwrap().entries.len(), 3);

    let bob = server.client("acme", "bob");
    let theirs = bob.document("user", "ann");
    assert_eq!(theirs.snapshot_at(first).await.unwrap_err().code(), Some("forbidden"));
    let service = bob.document("service", "orders");
    assert_eq!(service.restore(0, None, None).await.unwrap_err().code(), Some("forbidden"));
}

const MERGING: &str = r#"
[[state.rules]]
document = "pillar:*"
prefix = "count:"
merge = "counter"

[[state.rules]]
document = "pillar:*"
prefix = "tags:"
merge = "add_wins_set"

[[state.rules]]
document = "pillar:*"
prefix = "stock:"
merge = "source_wins"
source = { kinds = ["service"] }

[[state.rules]]
document = "pillar:*"
prefix = "form:"
merge = "merge_patch"

[[state.rules]]
document = "pillar:*"
prefix = "cursor:"
merge = "last_writer"
"#;

#[tokio::test]
async fn writes_come_together_as_the_rules_say() {
    let server = Server::start(MERGING);
    let shop = Client::new(&server.base(), &server.api_key("acme", "shop").await).unwrap();
    let ann = server.client("acme", "ann");
    let (by_shop, by_ann) = (shop.document("pillar", "sales"), ann.document("pillar", "sales"));
    let code = |outcome: Result<client::Applied, client::Error>| {
        outcome.map(|applied| applied.value.unwrap()).map_err(|error| {
            let client::Error::Refused { code, document, .. } = error else { panic!("{error}") };
            (code, document["value"].clone())
        })
    };

    // By HTTP and by a socket, none of them having seen what is there.
    let mut socket = Socket::connect(&server.base(), &server.token("acme", "bob")).await;
    let adders = (0..8).map(|_| {
        let document = by_ann.clone();
        tokio::spawn(async move {
            for _ in 0..5 {
                document.patch("count:visits", &json!({ "add": 1 }), Some(1)).await.unwrap();
            }
        })
    });
    let adders: Vec<_> = adders.collect();
    for _ in 0..5 {
        let data =
            json!({ "document": "pillar:sales", "key": "count:visits", "value": { "add": 10 } });
        socket.ask("rpc", json!({ "method": "state.patch", "data": data })).await.unwrap();
    }
    for adder in adders {
        adder.await.unwrap();
    }
    let count = by_ann.patch("count:visits", &json!({ "add": 0 }), None).await.unwrap();
    assert_eq!(count.value, Some(json!(90)));
    let wrong = code(by_ann.put("count:visits", &json!("many"), None).await);
    assert_eq!(wrong, Err(("bad_request".into(), Json::Null)));

    let first = by_ann.put("tags:1", &json!(["new", "red"]), None).await.unwrap().revision;
    by_shop.patch("tags:1", &json!({ "add": ["red", "big"] }), None).await.unwrap();
    let removed = by_ann.patch("tags:1", &json!({ "remove": ["new", "red"] }), Some(first)).await;
    assert_eq!(code(removed), Ok(json!(["red", "big"])), "it was added anew");

    let first = by_ann.put("stock:1", &json!(5), None).await.unwrap().revision;
    by_shop.put("stock:1", &json!(3), Some(0)).await.unwrap();
    for seen in [None, Some(first)] {
        let lost = code(by_ann.put("stock:1", &json!(4), seen).await);
        assert_eq!(lost, Err(("conflict".into(), json!(3))));
    }

    let first = by_ann.put("form:1", &json!({ "name": "Ann" }), None).await.unwrap().revision;
    by_shop.put("form:1", &json!({ "name": "Ann", "city": "Bern" }), None).await.unwrap();
    let merged = code(by_ann.put("form:1", &json!({ "name": "Anna" }), Some(first)).await);
    assert_eq!(merged, Ok(json!({ "name": "Anna", "city": "Bern" })));

    by_shop.put("cursor:1", &json!(1), None).await.unwrap();
    assert_eq!(code(by_ann.put("cursor:1", &json!(2), Some(0)).await), Ok(json!(2)));
    // No rule covers it, or none the document.
    by_shop.put("other", &json!(1), None).await.unwrap();
    let stale = code(by_ann.put("other", &json!(2), Some(0)).await);
    assert_eq!(stale, Err(("conflict".into(), json!(1))));
    let own = ann.document("user", "ann");
    let put = code(own.put("count:visits", &json!({ "add": 1 }), None).await);
    assert_eq!(put, Ok(json!({ "add": 1 })));
}

const PROTECTED: &str = r#"
[[state.rules]]
document = "pillar:*"
prefix = "order:"
schema = { type = "object", required = ["items"], properties = { items = { minimum = 1 } } }
keys_max = 2

[[state.rules]]
document = "pillar:*"
prefix = "secret:"
read = { kinds = ["service"], roles = ["auditor"] }

[[state.rules]]
document = "pillar:*"
prefix = "price:"
write = { kinds = ["service"] }
"#;

#[tokio::test]
async fn rules_say_who_writes_what() {
    let server = Server::start(PROTECTED);
    let shop = Client::new(&server.base(), &server.api_key("acme", "shop").await).unwrap();
    let ann = server.client("acme", "ann");
    let (by_shop, by_ann) = (shop.document("pillar", "sales"), ann.document("pillar", "sales"));
    let mut socket = Socket::connect(&server.base(), &server.token("acme", "ann")).await;
    let mut rpc = async |method: &str, data: Json| {
        let answer = socket.ask("rpc", json!({ "method": method, "data": data })).await;
        answer.map(|answer| answer["data"].clone())
    };

    let client::Error::Refused { document: told, status, .. } =
        by_ann.put("order:1", &json!({ "items": 0 }), None).await.unwrap_err()
    else {
        panic!()
    };
    assert_eq!((status, &told["path"]), (400, &json!("/items")), "{told}");
    let wrong = json!({ "document": "pillar:sales", "key": "order:1", "value": {} });
    assert_eq!(rpc("state.put", wrong).await.unwrap_err()["code"], 400);
    for key in ["order:1", "order:2"] {
        by_ann.put(key, &json!({ "items": 1 }), None).await.unwrap();
    }
    let more = by_ann.put("order:3", &json!({ "items": 1 }), None).await.unwrap_err();
    assert_eq!(more.code(), Some("body_too_large"));
    by_ann.put("order:2", &json!({ "items": 2 }), None).await.unwrap();

    by_shop.put("secret:1", &json!("hush"), None).await.unwrap();
    by_shop.put("price:1", &json!(5), None).await.unwrap();
    for key in ["secret:1", "price:1"] {
        let put = by_ann.put(key, &json!(1), Some(0)).await.unwrap_err();
        let client::Error::Refused { code, document, .. } = put else { panic!() };
        assert_eq!((code.as_str(), document.get("value")), ("forbidden", None));
    }
    let keys = |snapshot: client::Snapshot| {
        snapshot.entries.into_iter().map(|entry| entry.key).collect::<Vec<_>>()
    };
    assert_eq!(keys(by_ann.snapshot().await.unwrap()), ["order:1", "order:2", "price:1"]);
    assert_eq!(keys(by_shop.snapshot().await.unwrap()).len(), 4);
    let last = by_shop.snapshot().await.unwrap().revision;
    assert_eq!(keys(by_ann.snapshot_at(last).await.unwrap()).len(), 3);
    let get = json!({ "document": "pillar:sales", "key": "secret:1" });
    assert_eq!(rpc("state.get", get).await.unwrap_err()["code"], 403);
    for (method, member) in
        [("state.get", "entries"), ("state.changes", "changes"), ("state.history", "entries")]
    {
        let told = rpc(method, json!({ "document": "pillar:sales" })).await.unwrap();
        assert!(!told[member].as_array().unwrap().is_empty(), "{told}");
        assert!(!told.to_string().contains("secret"), "{method}: {told}");
    }
}

#[test]
fn a_schema_that_is_wrong_stops_the_start() {
    for (schema, expected) in [
        ("{ type = \"objekt\" }", "the schema is wrong"),
        ("{ \"$ref\" = \"http://127.0.0.1:9/x.json\" }", "the schema is wrong"),
        ("\"/none/such.json\"", "/none/such.json"),
    ] {
        let rule = format!("[[state.rules]]\ndocument = \"pillar:*\"\nschema = {schema}\n");
        let said = Server::refused_on("hot = \"memory:\"", &rule);
        assert!(said.contains(expected), "{said}");
    }
}

#[tokio::test]
async fn entries_are_copied_between_pillars() {
    let server = Server::start("");
    let ann = server.client("acme", "ann");
    let (content, insights) =
        (ann.document("pillar", "content"), ann.document("pillar", "insights"));
    for (key, value) in [("title", json!("Tram")), ("meta", json!({ "a": 1 }))] {
        content.put(key, &value, None).await.unwrap();
    }
    let none = insights.last_sync_from("pillar:content").await.unwrap_err();
    assert_eq!(none.code(), Some("not_found"));
    let mut socket = Socket::connect(&server.base(), &server.token("acme", "ann")).await;
    let channel = json!({ "channel": "state:pillar:insights", "recoverable": true });
    socket.ask("subscribe", channel).await.unwrap();

    let keys = ["title", "meta", "none"];
    let first = insights.sync_from("pillar:content", &keys, "reject").await.unwrap();
    assert_eq!((first.synced, first.unchanged, first.missing.len()), (2, 0, 1));
    // Followers of the target see both, at one revision.
    for key in ["meta", "title"] {
        let push = socket.push().await;
        let data = &push["pub"]["data"];
        assert_eq!((&data["key"], &data["revision"]), (&json!(key), &json!(first.revision)));
    }
    let again = insights.sync_from("pillar:content", &keys, "reject").await.unwrap();
    assert_eq!((again.synced, again.unchanged, again.revision), (0, 2, first.revision));

    content.put("title", &json!("Tram 2"), None).await.unwrap();
    content.put("meta", &json!({ "a": 2 }), None).await.unwrap();
    insights.put("meta", &json!({ "b": 1 }), None).await.unwrap();
    let mut rpc = async |method: &str, data: Json| {
        socket.ask("rpc", json!({ "method": method, "data": data })).await
    };
    let pair = json!({ "from": "pillar:content", "to": "pillar:insights" });
    let mut what = pair.clone();
    what["keys"] = json!(keys);
    let told = rpc("state.sync", what).await.unwrap()["data"].clone();
    assert_eq!((&told["synced"], &told["missing"]), (&json!(1), &json!(["none"])), "{told}");
    let conflict = &told["conflicts"][0];
    assert_eq!(conflict["key"], "meta");
    assert_eq!(
        (&conflict["from"]["value"], &conflict["to"]["value"]),
        (&json!({ "a": 2 }), &json!({ "b": 1 }))
    );
    let status = rpc("state.sync_status", pair).await.unwrap()["data"].clone();
    assert_eq!(
        (&status["conflicts"], &status["by"]),
        (&json!(["meta"]), &json!("ann")),
        "{status}"
    );

    let merged = insights.sync_from("pillar:content", &["meta"], "merge_patch").await.unwrap();
    assert_eq!(merged.synced, 1);
    let won = insights.sync_from("pillar:content", &["meta"], "source_wins").await.unwrap();
    let last = insights.last_sync_from("pillar:content").await.unwrap();
    assert_eq!((won.synced, last.synced, last.revision), (1, 1, won.revision));
    let entries = insights.snapshot().await.unwrap().entries;
    let entries: Vec<Json> = entries.into_iter().map(|entry| entry.value).collect();
    assert_eq!(entries, [json!({ "a": 2 }), json!("Tram 2")]);
    for (source, strategy, expected) in [
        ("pillar:insights", "reject", "bad_request"),
        ("pillar", "reject", "bad_request"),
        ("pillar:content", "both", "bad_request"),
        ("user:bob", "reject", "forbidden"),
    ] {
        let refused = insights.sync_from(source, &["meta"], strategy).await.unwrap_err();
        assert_eq!(refused.code(), Some(expected), "{source} {strategy}");
    }
}

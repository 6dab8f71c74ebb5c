//! Documents that move between tiers under their readers, writers and followers.

use client::{Client, Event};
use integration_tests::{Server, Socket};
use serde_json::{Value as Json, json};
use tempfile::TempDir;
use test_servers::{Appends, Postgres, PostgresOptions, Redis, RedisOptions};

const PATH: &str = "/crosstown/v1/state/pillar/sales";
const NAME: &str = "pillar:sales";
const TIERS: [&str; 3] = ["live", "hot", "durable"];

/// A node that has its stores for itself, two engines beside its memory, in this folder.
fn alone() -> (Server, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let engine = |name: &str| format!("{name} = \"embedded:{}/{name}\"", folder.path().display());
    let stores = format!("{}\n{}", engine("hot"), engine("durable"));
    (Server::start_on(&stores, ""), folder)
}

/// Moves the document by HTTP, whichever way that is.
async fn go(by: &Client, to: &str) -> Json {
    let now: Json = by.get(&format!("{PATH}/tier")).await.unwrap();
    let place = |tier: &str| TIERS.iter().position(|of| *of == tier).unwrap();
    let up = place(to) > place(now["tier"].as_str().unwrap());
    let which = if up { "promote" } else { "demote" };
    let wish = json!({ "tier": to, "reason": "a test" });
    by.post(&format!("{PATH}/{which}"), &wish).await.unwrap()
}

/// Writers and followers of a document of these nodes, which moves `moves` times by way of the
/// first one.
async fn nothing_is_noticed(servers: &[&Server], moves: usize) {
    let [first, last] = [servers[0], servers[servers.len() - 1]];
    let [mover, other] = [first, last].map(|server| server.client("acme", "ann"));
    let document = mover.document("pillar", "sales");
    document.put("count", &json!(0), None).await.unwrap();
    let before = document.put("before", &json!(1), None).await.unwrap();

    let mut plain = Socket::connect(&last.base(), &last.token("acme", "bob")).await;
    let channel = format!("state:{NAME}");
    let plainly = json!({ "channel": channel, "recoverable": true });
    let begun = plain.ask("subscribe", plainly).await.unwrap()["offset"].as_u64().unwrap();
    let mut by_map = Socket::connect(&first.base(), &first.token("acme", "eve")).await;
    let as_map = json!({ "channel": channel, "type": 1, "phase": 2 });
    by_map.ask("subscribe", as_map).await.unwrap();
    let mut moved = Socket::connect(&last.base(), &last.token("acme", "dan")).await;
    let moves_of = json!({ "channel": format!("tiers:{NAME}"), "recoverable": true });
    moved.ask("subscribe", moves_of).await.unwrap();
    let mut follower = other.document("pillar", "sales").follow();
    assert!(matches!(follower.next().await.unwrap(), Event::Snapshot(_)));

    const WRITES: u64 = 60;
    let writers = (0..3).map(|writer| {
        let document = if writer == 0 { &document } else { &other.document("pillar", "sales") };
        let document = document.clone();
        tokio::spawn(async move {
            let (mut held, mut done) = (0, 0);
            let key = format!("own-{writer}");
            for n in 0..WRITES / 2 {
                held = document.put(&key, &json!(n), Some(held)).await.unwrap().revision;
                loop {
                    let snapshot = document.snapshot().await.unwrap();
                    let entry = snapshot.entries.iter().find(|entry| entry.key == "count").unwrap();
                    let next = json!(entry.value.as_u64().unwrap() + 1);
                    match document.put("count", &next, Some(entry.revision)).await {
                        Ok(_) => break done += 1,
                        Err(error) => assert_eq!(error.code(), Some("conflict"), "{error}"),
                    }
                }
            }
            done
        })
    });
    let writers: Vec<_> = writers.collect();
    for number in 0..moves {
        go(&mover, TIERS[number % 3]).await;
    }
    let mut counted = 0;
    for writer in writers {
        counted += writer.await.unwrap();
    }
    // By the revision of before any move.
    let late = document.put("before", &json!(2), Some(before.revision)).await.unwrap();

    let total = 3 * WRITES + 1;
    let mut seen = Vec::new();
    for number in 1..=total {
        let push = plain.push().await;
        assert_eq!(push["pub"]["offset"], begun + number, "{push}");
        let data = &push["pub"]["data"];
        seen.push((data["revision"].as_u64().unwrap(), data["key"].as_str().unwrap().to_owned()));
        let push = by_map.push().await;
        assert_eq!(push["pub"]["offset"], begun + number, "{push}");
        assert_eq!(push["pub"]["key"], seen.last().unwrap().1.as_str(), "{push}");
    }
    assert!(seen.windows(2).all(|two| two[0].0 < two[1].0), "{seen:?}");
    assert_eq!(seen.last(), Some(&(late.revision, "before".to_owned())));
    let mut latest = 0;
    while latest < late.revision {
        match follower.next().await.unwrap() {
            Event::Change(change) => {
                assert!(change.revision > latest, "{change:?} after {latest}");
                latest = change.revision;
            }
            Event::Snapshot(_) => panic!("the follower had to begin again"),
        }
    }
    let snapshot = document.snapshot().await.unwrap();
    let value = |key: &str| snapshot.entries.iter().find(|entry| entry.key == key).unwrap();
    assert_eq!((counted, &value("count").value), (total / 2, &json!(total / 2)));
    let lineage: Json = mover.get(&format!("{PATH}/lineage?limit=1000")).await.unwrap();
    let lineage = lineage["moves"].as_array().unwrap();
    assert!(lineage.len() >= moves / 3, "{lineage:?}");
    for (offset, entry) in (1..).zip(lineage) {
        let push = moved.push().await;
        assert_eq!((&push["pub"]["offset"], &entry["offset"]), (&json!(offset), &json!(offset)));
        assert_eq!(push["pub"]["data"]["to"], entry["to"]);
        assert_eq!((&entry["reason"], &entry["by"]), (&json!("a test"), &json!("ann")));
    }
}

#[tokio::test]
async fn nobody_notices_on_one_node() {
    let (server, _folder) = alone();
    nothing_is_noticed(&[&server], 60).await;
}

#[tokio::test]
async fn nobody_notices_on_nodes_that_share_their_stores() {
    let redis = Redis::start(RedisOptions::appending(Appends::Always)).unwrap();
    let postgres = Postgres::start(PostgresOptions::default()).unwrap();
    let stores = format!("hot = \"{}\"\ndurable = \"{}\"", redis.url(), postgres.url(""));
    let shared = "[state.promotion]\nshared = true\n";
    let [here, there] = [(); 2].map(|()| Server::start_on(&stores, shared));
    nothing_is_noticed(&[&here, &there], 20).await;
    let told = go(&here.client("acme", "ann"), "live").await;
    assert_eq!((&told["wanted"], &told["tier"]), (&json!("live"), &json!("hot")), "{told}");

    let fixed = Server::start_on(&stores.replace("hot", "#hot"), "");
    let refused = fixed.client("acme", "ann").get::<Json>(&format!("{PATH}/tier")).await;
    assert_eq!(refused.unwrap_err().code(), Some("not_implemented"));
}

#[tokio::test]
async fn what_is_live_outlives_a_stop_and_begins_anew_after_a_kill() {
    let (mut server, _folder) = alone();
    let ann = server.client("acme", "ann");
    let document = ann.document("pillar", "sales");
    document.put("kept", &json!(1), None).await.unwrap();
    let told = go(&ann, "live").await;
    assert_eq!((&told["moved"], &told["survives"]), (&json!(true), &json!("nothing")), "{told}");
    let live = document.put("live", &json!(1), None).await.unwrap();
    server.stop();
    server.start_again();
    let snapshot = document.snapshot().await.unwrap();
    assert_eq!((&snapshot.epoch, snapshot.entries.len()), (&live.epoch, 2));
    let again = document.put("live", &json!(2), Some(live.revision)).await.unwrap();
    let path = |epoch: &str, revision| format!("{PATH}/changes?epoch={epoch}&revision={revision}");
    let since: Json = ann.get(&path(&live.epoch, live.revision)).await.unwrap();
    assert_eq!(since["changes"][0]["revision"], again.revision);

    go(&ann, "live").await;
    let lost = document.put("lost", &json!(1), None).await.unwrap();
    server.kill();
    server.start_again();
    let snapshot = document.snapshot().await.unwrap();
    assert_ne!(snapshot.epoch, live.epoch);
    let keys: Vec<&str> = snapshot.entries.iter().map(|entry| entry.key.as_str()).collect();
    assert_eq!(keys, ["kept", "live"]);
    let since = ann.get::<Json>(&path(&live.epoch, lost.revision)).await;
    assert_eq!(since.unwrap_err().code(), Some("lagged"));
    let now: Json = ann.get(&format!("{PATH}/tier")).await.unwrap();
    assert_eq!((&now["cause"], &now["tier"]), (&json!("lost"), &json!("durable")), "{now}");
}

#[tokio::test]
async fn tiers_are_asked_for_on_sockets() {
    let (server, _folder) = alone();
    let mut ann = Socket::connect(&server.base(), &server.token("acme", "ann")).await;
    let of = |tier: Option<&str>| json!({ "document": NAME, "tier": tier });
    let put = json!({ "document": NAME, "key": "k", "value": 1 });
    ann.rpc("state.put", put).await.unwrap();
    let moved = ann.rpc("state.demote", of(None)).await.unwrap();
    assert_eq!((&moved["tier"], &moved["moved"]), (&json!("hot"), &json!(true)), "{moved}");
    let wrong = ann.rpc("state.demote", of(Some("durable"))).await.unwrap_err();
    assert_eq!(wrong["code"], 400, "{wrong}");
    let moved = ann.rpc("state.promote", of(Some("durable"))).await.unwrap();
    assert_eq!(moved["generation"], 2, "{moved}");
    let now = ann.rpc("state.tier", json!({ "document": NAME })).await.unwrap();
    assert_eq!(
        (&now["tier"], &now["explain"]["observed"]["entries"]),
        (&json!("durable"), &json!(1))
    );
    let lineage = ann.rpc("state.lineage", json!({ "document": NAME })).await.unwrap();
    assert_eq!(lineage["moves"].as_array().unwrap().len(), 2, "{lineage}");

    // Who missed some moves recovers them, as in any channel with history.
    let of = json!({ "channel": format!("tiers:{NAME}"), "recover": true, "offset": 1,
        "epoch": ann.ask("history", json!({ "channel": format!("tiers:{NAME}") })).await.unwrap()["epoch"] });
    let recovered = ann.ask("subscribe", of).await.unwrap();
    assert_eq!(recovered["publications"][0]["data"]["from"], "hot", "{recovered}");
    let publish = json!({ "channel": format!("tiers:{NAME}"), "data": 1 });
    assert_eq!(ann.ask("publish", publish).await.unwrap_err()["code"], 103);
    let service = json!({ "document": "service:orders" });
    assert_eq!(ann.rpc("state.demote", service).await.unwrap_err()["code"], 403);
    let user = json!({ "channel": "tiers:user:bob" });
    assert_eq!(ann.ask("subscribe", user).await.unwrap_err()["code"], 103);
}

#[tokio::test]
async fn the_policy_moves_documents_by_itself() {
    let config = "[state.promotion]\nenabled = true\nevery = \"1s\"\n\
        [state.promotion.policy]\nrest = \"1s\"\nidle = \"3s\"\n";
    let folder = tempfile::tempdir().unwrap();
    let stores = format!("durable = \"embedded:{}/data\"", folder.path().display());
    let server = Server::start_on(&stores, config);
    let ann = server.client("acme", "ann");
    let document = ann.document("pillar", "sales");
    let until = std::time::Instant::now() + std::time::Duration::from_secs(30);
    let tier = async |wanted: &str, write: bool| {
        loop {
            if write {
                document.put("cursor", &json!(1), None).await.unwrap();
            }
            let now: Json = ann.get(&format!("{PATH}/tier")).await.unwrap();
            if now["tier"] == wanted {
                return now;
            }
            assert!(std::time::Instant::now() < until, "{now}");
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    let live = tier("live", true).await;
    assert_eq!((&live["cause"], &live["policy"]), (&json!("policy"), &json!(true)), "{live}");
    let durable = tier("durable", false).await;
    assert!(durable["reason"].as_str().unwrap().contains("has not changed"), "{durable}");
}

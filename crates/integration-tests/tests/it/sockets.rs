mod blocks;
mod bounds;
mod durable;
mod figures;
mod filters;
mod limits;
mod mailboxes;
mod maps;
mod orders;
mod permits;
mod pillars;
mod presence;
mod protobuf;
mod restart;
mod slow;
mod streams;
mod traces;

use integration_tests::{Server, Socket};
use serde_json::json;

#[tokio::test]
async fn publications_reach_subscribers_in_order() {
    let server = Server::start("");
    let base = server.base();
    let mut ann = Socket::connect(&base, &server.token("acme", "ann")).await;
    let mut bob = Socket::connect(&base, &server.token("acme", "bob")).await;
    let mut stranger = Socket::connect(&base, &server.token("other", "eve")).await;
    for socket in [&mut ann, &mut bob, &mut stranger] {
        socket.ask("subscribe", json!({ "channel": "room" })).await.unwrap();
    }
    for n in 0..20 {
        ann.ask("publish", json!({ "channel": "room", "data": { "n": n } })).await.unwrap();
    }
    for socket in [&mut ann, &mut bob] {
        for n in 0..20 {
            let push = socket.push().await;
            assert_eq!((&push["channel"], &push["pub"]["data"]["n"]), (&json!("room"), &json!(n)));
            assert_eq!(push["pub"]["offset"], n + 1);
            assert_eq!(push["pub"]["info"]["user"], "ann");
        }
    }
    stranger.ask("ping", json!({})).await.unwrap();
    assert_eq!(stranger.push_now(), None);
    bob.ask("unsubscribe", json!({ "channel": "room" })).await.unwrap();
    ann.ask("publish", json!({ "channel": "room", "data": 1 })).await.unwrap();
    bob.ask("ping", json!({})).await.unwrap();
    assert_eq!(bob.push_now(), None);
}

#[tokio::test]
async fn what_fits_no_queue_is_lost_rather_than_tried_again_and_again() {
    let server = Server::start("[realtime]\nmessage_bytes_max = 65536\nqueue_bytes_max = 65536\n");
    let base = server.base();
    let mut ann = Socket::connect(&base, &server.token("acme", "ann")).await;
    let epoch = ann.ask("subscribe", json!({ "channel": "room" })).await.unwrap()["epoch"].clone();
    for _ in 0..4 {
        let data = "x".repeat(16 * 1024);
        ann.ask("publish", json!({ "channel": "room", "data": data })).await.unwrap();
        ann.push().await;
    }
    for (offset, recovered) in [(3, json!(true)), (0, json!(null))] {
        let mut bob = Socket::connect(&base, &server.token("acme", "bob")).await;
        let recover =
            json!({ "channel": "room", "recover": true, "epoch": epoch, "offset": offset });
        let stands = bob.ask("subscribe", recover).await.unwrap();
        assert_eq!(stands["recovered"], recovered, "from {offset}");
        ann.ask("publish", json!({ "channel": "other", "data": 1 })).await.unwrap();
        assert!(bob.ask("ping", json!({})).await.is_ok());
    }
}

#[tokio::test]
async fn recovery_is_all_or_nothing() {
    let mut server = Server::start(
        "[[realtime.namespaces]]\nname = \"short\"\nhistory_size = 3\ntier = \"hot\"\n",
    );
    let base = server.base();
    let mut ann = Socket::connect(&base, &server.token("acme", "ann")).await;
    let mut bob = Socket::connect(&base, &server.token("acme", "bob")).await;
    // Nothing was ever published: the position is known nevertheless.
    let start =
        bob.ask("subscribe", json!({ "channel": "short:x", "recoverable": true })).await.unwrap();
    assert_eq!((&start["recoverable"], &start["offset"]), (&json!(true), &json!(null)));
    let epoch = start["epoch"].clone();
    drop(bob);
    for n in 1..=3 {
        ann.ask("publish", json!({ "channel": "short:x", "data": n })).await.unwrap();
    }
    let recover = |offset: u64, epoch: &serde_json::Value| json!({ "channel": "short:x", "recover": true, "epoch": epoch, "offset": offset });
    let mut bob = Socket::connect(&base, &server.token("acme", "bob")).await;
    let all = bob.ask("subscribe", recover(0, &epoch)).await.unwrap();
    assert_eq!(
        (&all["recovered"], all["publications"].as_array().unwrap().len()),
        (&json!(true), 3)
    );
    drop(bob);
    ann.ask("publish", json!({ "channel": "short:x", "data": 4 })).await.unwrap();
    let mut bob = Socket::connect(&base, &server.token("acme", "bob")).await;
    let nothing = bob.ask("subscribe", recover(0, &epoch)).await.unwrap();
    assert_eq!((&nothing["recovered"], &nothing["was_recovering"]), (&json!(null), &json!(true)));
    assert_eq!(nothing["publications"], json!(null));
    bob.ask("unsubscribe", json!({ "channel": "short:x" })).await.unwrap();
    let other = bob.ask("subscribe", recover(3, &json!("beef"))).await.unwrap();
    assert_eq!(other["recovered"], json!(null));

    server.kill();
    server.start_again();
    let mut bob = Socket::connect(&base, &server.token("acme", "bob")).await;
    let kept = bob.ask("subscribe", recover(3, &epoch)).await.unwrap();
    assert_eq!((&kept["recovered"], &kept["publications"][0]["data"]), (&json!(true), &json!(4)));
    let history = json!({ "channel": "short:x", "limit": 2, "reverse": true });
    let history = bob.ask("history", history).await.unwrap();
    assert_eq!(history["publications"][0]["data"], 4);
    assert_eq!(
        (history["publications"].as_array().unwrap().len(), &history["offset"]),
        (2, &json!(4))
    );
}

#[tokio::test]
async fn the_live_tier_outlives_an_orderly_restart_and_says_what_a_crash_has_lost() {
    let mut server = Server::start_alone("");
    let base = server.base();
    let history = json!({ "channel": "news", "limit": 9 });
    let recover = |offset: u64, epoch: &serde_json::Value| json!({ "channel": "news", "recover": true, "epoch": epoch, "offset": offset });
    let mut ann = Socket::connect(&base, &server.token("acme", "ann")).await;
    for n in 1..=3 {
        ann.ask("publish", json!({ "channel": "news", "data": n })).await.unwrap();
    }
    let before = ann.ask("history", history.clone()).await.unwrap();
    for (stop, is_kept) in [(Server::stop as fn(&mut Server), true), (Server::kill, false)] {
        stop(&mut server);
        server.start_again();
        let mut bob = Socket::connect(&base, &server.token("acme", "bob")).await;
        let came_back = bob.ask("subscribe", recover(1, &before["epoch"])).await.unwrap();
        let recovered = came_back["recovered"].as_bool().unwrap_or(false);
        let missed = came_back["publications"].as_array().map_or(0, Vec::len);
        assert_eq!((recovered, missed), (is_kept, if is_kept { 2 } else { 0 }));
        assert_eq!(came_back["epoch"] == before["epoch"], is_kept);
        if is_kept {
            assert_eq!(bob.ask("history", history.clone()).await.unwrap(), before);
        }
    }
}

#[tokio::test]
async fn a_history_is_kept_for_so_long_after_its_last_publication() {
    let namespace = |tier| {
        format!(
            "[[realtime.namespaces]]\nname = \"{tier}\"\ntier = \"{tier}\"\nhistory_ttl = \"2s\"\n"
        )
    };
    let server = Server::start(&["live", "hot", "durable"].map(namespace).concat());
    let base = server.base();
    for tier in ["live", "hot", "durable"] {
        let channel = format!("{tier}:x");
        let mut ann = Socket::connect(&base, &server.token("acme", "ann")).await;
        for n in 1..=2 {
            ann.ask("publish", json!({ "channel": channel, "data": n })).await.unwrap();
        }
        let history = json!({ "channel": channel, "limit": 9 });
        let kept = ann.ask("history", history.clone()).await.unwrap();
        assert_eq!(kept["publications"].as_array().unwrap().len(), 2);
        let recover = |offset: u64| json!({ "channel": channel, "recover": true, "epoch": kept["epoch"], "offset": offset });
        let missed = ann.ask("subscribe", recover(1)).await.unwrap();
        assert_eq!(
            (&missed["recovered"], &missed["publications"][0]["data"]),
            (&json!(true), &json!(2))
        );
        ann.ask("unsubscribe", json!({ "channel": channel })).await.unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(2_100)).await;
        let over = ann.ask("history", history).await.unwrap();
        assert_eq!(
            (&over["publications"], &over["epoch"], &over["offset"]),
            (&json!(null), &kept["epoch"], &json!(2))
        );
        // Who has all has all still, and who has not is told so.
        for (offset, recovered) in [(2, json!(true)), (1, json!(null))] {
            let came_back = ann.ask("subscribe", recover(offset)).await.unwrap();
            assert_eq!(came_back["recovered"], recovered, "{tier} from {offset}");
            ann.ask("unsubscribe", json!({ "channel": channel })).await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_channel_that_is_a_value_recovers_its_newest() {
    let config =
        "[[realtime.namespaces]]\nname = \"value\"\nhistory_size = 2\nrecovery = \"cache\"\n";
    let server = Server::start(config);
    let base = server.base();
    let mut ann = Socket::connect(&base, &server.token("acme", "ann")).await;
    let recover = |offset: u64, epoch: &serde_json::Value| json!({ "channel": "value:x", "recover": true, "epoch": epoch, "offset": offset });
    let mut bob = Socket::connect(&base, &server.token("acme", "bob")).await;
    // There is nothing yet.
    let start = bob.ask("subscribe", recover(0, &json!(""))).await.unwrap();
    assert_eq!((&start["recovered"], &start["publications"]), (&json!(null), &json!(null)));
    let epoch = start["epoch"].clone();
    bob.ask("unsubscribe", json!({ "channel": "value:x" })).await.unwrap();
    for n in 1..=9 {
        ann.ask("publish", json!({ "channel": "value:x", "data": n })).await.unwrap();
    }
    // However much was missed, and by whom: the newest, and it alone.
    for (offset, epoch) in [(0, &json!("")), (0, &epoch), (8, &epoch), (9, &json!("beef"))] {
        let start = bob.ask("subscribe", recover(offset, epoch)).await.unwrap();
        assert_eq!((&start["recovered"], &start["offset"]), (&json!(true), &json!(9)));
        let found = start["publications"].as_array().unwrap();
        assert_eq!(
            (found.len(), &found[0]["data"], &found[0]["offset"]),
            (1, &json!(9), &json!(9))
        );
        bob.ask("unsubscribe", json!({ "channel": "value:x" })).await.unwrap();
    }
    // Who has it is not told again; what comes after is live.
    let start = bob.ask("subscribe", recover(9, &epoch)).await.unwrap();
    assert_eq!((&start["recovered"], &start["publications"]), (&json!(true), &json!(null)));
    ann.ask("publish", json!({ "channel": "value:x", "data": 10 })).await.unwrap();
    assert_eq!(bob.push().await["pub"]["data"], 10);
}

#[tokio::test]
async fn errors_have_the_protocols_codes() {
    let server = Server::start("");
    let mut ann = Socket::connect(&server.base(), &server.token("acme", "ann")).await;
    let cases = [
        ("subscribe", json!({ "channel": "nowhere:x" }), 102),
        ("subscribe", json!({ "channel": "#bob" }), 103),
        ("subscribe", json!({ "channel": "" }), 107),
        ("publish", json!({ "channel": "room" }), 107),
        ("publish", json!({ "channel": "state:user:ann", "data": 1 }), 103),
        ("presence", json!({ "channel": "room" }), 108),
        ("rpc", json!({ "method": "no.such" }), 104),
        ("rpc", json!({ "method": "state.get", "data": { "document": "user:bob" } }), 403),
        ("refresh", json!({ "token": server.token("acme", "bob") }), 103),
    ];
    for (command, body, expected) in cases {
        let error = ann.ask(command, body.clone()).await.unwrap_err();
        assert_eq!(error["code"], expected, "{command} {body}: {error}");
    }
    ann.ask("subscribe", json!({ "channel": "room" })).await.unwrap();
    let twice = ann.ask("subscribe", json!({ "channel": "room" })).await.unwrap_err();
    assert_eq!(twice["code"], 105);
}

#[tokio::test]
async fn sockets_that_break_the_rules_are_closed() {
    let server =
        Server::start("[realtime]\nconnect_timeout = \"300ms\"\nmessage_bytes_max = 2048\n");
    let base = server.base();
    let token = server.token("acme", "ann");
    let cases = [
        ("not json".to_owned(), 3501),
        (r#"{"id":1,"subscribe":{"channel":"room"}}"#.to_owned(), 3501),
        (r#"{"id":1,"connect":{"token":"nonsense"}}"#.to_owned(), 3500),
        (r#"{"id":1,"connect":{}}"#.to_owned(), 3500),
        (format!(r#"{{"id":0,"connect":{{"token":"{token}"}}}}"#), 3501),
        (format!(r#"{{"id":1,"connect":{{"token":"{token}"}},"ping":{{}}}}"#), 3501),
        ("x".repeat(4_096), 1009),
    ];
    for (text, expected) in cases {
        let mut socket = Socket::open(&base).await;
        socket.send_raw(&text).await;
        assert_eq!(socket.close_code().await, expected, "{text}");
    }
    let mut silent = Socket::open(&base).await;
    assert_eq!(silent.close_code().await, 3502);
}

#[tokio::test]
async fn a_node_that_shuts_down_asks_clients_to_come_back() {
    let mut server = Server::start("");
    let mut ann = Socket::connect(&server.base(), &server.token("acme", "ann")).await;
    let closed = tokio::spawn(async move { ann.close_code().await });
    tokio::task::spawn_blocking(move || server.stop()).await.unwrap();
    assert_eq!(closed.await.unwrap(), 3001);
}

#[tokio::test]
async fn a_slow_reader_is_closed_and_delays_nobody() {
    let server = Server::start(
        "[realtime]\nmessage_bytes_max = 65536\nqueue_bytes_max = 131072\nwrite_timeout = \"1s\"\n",
    );
    let base = server.base();
    let mut slow = Socket::connect(&base, &server.token("acme", "slow")).await;
    slow.ask("subscribe", json!({ "channel": "room" })).await.unwrap();
    let mut ann = Socket::connect(&base, &server.token("acme", "ann")).await;
    ann.ask("subscribe", json!({ "channel": "room" })).await.unwrap();
    let text = "x".repeat(32 * 1024);
    let mut sent = 0;
    // The kernel's buffers take some megabytes before the node's own queue fills.
    for n in 0..800 {
        ann.ask("publish", json!({ "channel": "room", "data": { "n": n, "t": text } }))
            .await
            .unwrap();
        assert_eq!(ann.push().await["pub"]["data"]["n"], n);
        sent = n;
    }
    let mut got = 0;
    while slow.push().await["pub"]["data"]["n"] == json!(got) {
        got += 1;
    }
    assert!(got < sent, "the slow reader got all {sent}");
}

#[tokio::test]
async fn commands_may_come_together_and_channels_be_called_by_numbers() {
    let server = Server::start("");
    let base = server.base();
    let mut ann = Socket::connect(&base, &server.token("acme", "ann")).await;
    let mut bob = Socket::connect(&base, &server.token("acme", "bob")).await;
    ann.ask("subscribe", json!({ "channel": "room" })).await.unwrap();
    let stands = bob.ask("subscribe", json!({ "channel": "room", "flag": 1 })).await.unwrap();
    assert!(stands["id"].as_u64() > Some(0), "{stands}");
    let publish =
        |id: u32| json!({ "id": id, "publish": { "channel": "room", "data": id } }).to_string();
    let together: Vec<String> = (100..120).map(publish).collect();
    ann.send_raw(&together.join("\n")).await;
    for n in 100..120 {
        let named = ann.push().await;
        assert_eq!((&named["channel"], &named["pub"]["data"]), (&json!("room"), &json!(n)));
        let numbered = bob.push().await;
        assert_eq!((&numbered["id"], &numbered["pub"]["data"]), (&stands["id"], &json!(n)));
        assert_eq!(numbered.get("channel"), None, "{numbered}");
    }
}

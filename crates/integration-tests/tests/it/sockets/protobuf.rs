//! The Protobuf encoding, beside JSON.

use integration_tests::{
    ProtobufSocket, Server, Socket,
    wire::{bytes, number},
};
use serde_json::{Value as Json, json};
use tokio_tungstenite::tungstenite::Message;

const CONNECT: u64 = 4;
const CHANNEL: u64 = 2;
const PUBLICATION: u64 = 4;
const DATA: u64 = 4;
const INFO: u64 = 5;
const OFFSET: u64 = 6;

fn data(text: &str) -> Json {
    serde_json::from_str(text).expect("data is JSON")
}

#[tokio::test]
async fn both_encodings_meet_in_a_channel() {
    let server = Server::start("");
    let base = server.base();
    let mut ann = Socket::connect(&base, &server.token("acme", "ann")).await;
    let mut bob = ProtobufSocket::connect(&base, &server.token("acme", "bob")).await;
    let mut stranger = ProtobufSocket::connect(&base, &server.token("other", "eve")).await;
    ann.ask("subscribe", json!({ "channel": "room" })).await.unwrap();
    let start = bob.subscribe("room", &[number(10, 1)]).await.unwrap();
    let epoch = start.text(6);
    assert_eq!((start.number(3), start.number(10), epoch.is_empty()), (1, 1, false));
    stranger.subscribe("room", &[]).await.unwrap();
    for n in 0..20_u64 {
        if n % 2 == 0 {
            ann.ask("publish", json!({ "channel": "room", "data": { "n": n } })).await.unwrap();
        } else {
            // Line ends would divide a JSON subscriber's message.
            bob.publish("room", format!("{{\r\n\"n\": {n} }}").as_bytes()).await.unwrap();
        }
    }
    for n in 0..20_u64 {
        let user = if n % 2 == 0 { "ann" } else { "bob" };
        let text = ann.push().await;
        assert_eq!((&text["pub"]["data"]["n"], &text["pub"]["offset"]), (&json!(n), &json!(n + 1)));
        assert_eq!(text["pub"]["info"]["user"], user);
        let binary = bob.push().await;
        let publication = binary.message(PUBLICATION);
        assert_eq!(binary.text(CHANNEL), "room");
        assert_eq!(data(&publication.text(DATA)), json!({ "n": n }));
        assert_eq!(publication.number(OFFSET), n + 1);
        assert_eq!(publication.message(INFO).text(1), user);
    }
    stranger.ask(11, 12, vec![]).await.unwrap();
    assert_eq!(stranger.push_now(), None);

    // A document's changes are JSON, too.
    bob.subscribe("state:user:bob", &[]).await.unwrap();
    let put = br#"{"document":"user:bob","key":"k","value":[1]}"#;
    let put = bob.ask(13, 13, [bytes(1, put), bytes(2, "state.put")].concat()).await.unwrap();
    assert_eq!(data(&put.text(1))["value"], json!([1]));
    let change = data(&bob.push().await.message(PUBLICATION).text(DATA));
    assert_eq!((&change["key"], &change["value"]), (&json!("k"), &json!([1])));

    // What came while nobody took Protobuf is recovered in it, whole.
    drop((bob, stranger));
    for n in 20..25 {
        ann.ask("publish", json!({ "channel": "room", "data": n })).await.unwrap();
        assert_eq!(ann.push().await["pub"]["data"], n);
    }
    let mut bob = ProtobufSocket::connect(&base, &server.token("acme", "bob")).await;
    let recover = [number(3, 1), bytes(6, &epoch), number(7, 20)];
    let start = bob.subscribe("room", &recover).await.unwrap();
    assert_eq!((start.number(8), start.number(12), start.number(9)), (1, 1, 25));
    let missed = start.all(7).map(|publication| {
        let publication = integration_tests::wire::Fields::read(publication);
        (publication.text(DATA), publication.number(OFFSET))
    });
    let expected: Vec<_> = (20..25).map(|n| (n.to_string(), n + 1)).collect();
    assert_eq!(missed.collect::<Vec<_>>(), expected);
    ann.ask("publish", json!({ "channel": "room", "data": "live" })).await.unwrap();
    assert_eq!(bob.push().await.message(PUBLICATION).text(DATA), "\"live\"");

    // Newest first, two of them.
    let request = [bytes(1, "room"), number(7, 2), number(9, 1)].concat();
    let history = bob.ask(10, 11, request).await.unwrap();
    assert_eq!((history.all(1).count(), history.text(2), history.number(3)), (2, epoch, 26));
}

#[tokio::test]
async fn data_that_is_not_json_is_refused() {
    let server = Server::start("");
    let base = server.base();
    let mut ann = Socket::connect(&base, &server.token("acme", "ann")).await;
    let mut bob = ProtobufSocket::connect(&base, &server.token("acme", "bob")).await;
    ann.ask("subscribe", json!({ "channel": "room" })).await.unwrap();
    bob.subscribe("room", &[]).await.unwrap();
    for bad in [&b"\xff\x00"[..], b"{", b"not json", b"1 2", b""] {
        assert_eq!(bob.publish("room", bad).await, Err(107), "{bad:?}");
    }
    let rpc = [bytes(1, b"\xff"), bytes(2, "state.get")].concat();
    assert_eq!(bob.ask(13, 13, rpc).await, Err(107));
    // The connection goes on, and only what can be read by all was published.
    bob.publish("room", b"1").await.unwrap();
    assert_eq!(
        ann.push().await["pub"],
        json!({ "data": 1, "offset": 1,
        "info": ann_sees("bob", &mut bob).await })
    );
    assert_eq!(bob.subscribe("nowhere:x", &[]).await, Err(102));
}

/// The publisher's own view of who published.
async fn ann_sees(user: &str, socket: &mut ProtobufSocket) -> Json {
    let info = socket.push().await.message(PUBLICATION).message(INFO);
    assert_eq!(info.text(1), user);
    json!({ "user": user, "client": info.text(2) })
}

#[tokio::test]
async fn a_connections_messages_have_one_encoding() {
    let server = Server::start("[realtime]\nmessage_bytes_max = 2048\n");
    let base = server.base();
    let token = server.token("acme", "ann");
    let connect = |id| {
        let command = [number(1, id), bytes(CONNECT, bytes(1, &token))].concat();
        integration_tests::wire::delimited(command)
    };
    let whole = connect(1);
    let cases = [
        ("garbage", vec![0xff; 32], 3501),
        ("a truncated connect", whole[..whole.len() - 1].to_vec(), 3501),
        ("a length beyond all memory", b"\xff\xff\xff\xff\xff\xff\xff\xff\x7f".to_vec(), 3501),
        ("a subscribe before connect", b"\x07\x08\x01\x2a\x03\x0a\x01c".to_vec(), 3501),
        ("a connect without an id", connect(0), 3501),
        ("a bad publish before connect", b"\x07\x08\x01\x3a\x03\x12\x01{".to_vec(), 3501),
        ("two requests in one", b"\x06\x08\x01\x22\x00\x5a\x00".to_vec(), 3501),
        ("a token that is none", b"\x07\x08\x01\x22\x03\x0a\x01x".to_vec(), 3500),
        ("a message that is too long", vec![0; 4096], 1009),
    ];
    for (what, message, expected) in cases {
        let mut socket = ProtobufSocket::open(&base).await;
        socket.send_raw(Message::binary(message)).await;
        assert_eq!(socket.close_code().await, expected, "{what}");
    }
    let mut socket = ProtobufSocket::open(&base).await;
    socket.send_raw(Message::text(json!({"id":1,"connect":{"token":token}}).to_string())).await;
    assert_eq!(socket.close_code().await, 3501, "text on a binary socket");
    let mut socket = Socket::open(&base).await;
    socket.send_binary(&whole).await;
    assert_eq!(socket.close_code().await, 3501, "binary on a text socket");
    let mut socket = ProtobufSocket::connect(&base, &token).await;
    socket.send_raw(Message::binary(b"\x04\x08\x02Z\x00\xff".to_vec())).await;
    assert_eq!(socket.close_code().await, 3501, "garbage behind a command");
}

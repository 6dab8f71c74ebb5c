//! The Protobuf bytes below were written by Google's own library from Centrifugo's schema.

use super::*;
use crate::client::{
    Body, ClientInfo, ConnectResult, Empty, Error, ErrorCode, HistoryResult, Phase, PresenceResult,
    PresenceStatsResult, Publication, Push, Reason, RefreshResult, RpcResult, SubscribeResult,
    Subscribed, Who,
};
use serde_json::value::RawValue;
use std::collections::BTreeMap;

/// One command of each kind, in Protobuf and as the same in JSON.
const COMMANDS: &[(&[u8], &str)] = &[
    (
        b"\x1b\x08\x01\x22\x17\x0a\x01t\x12\x01\xff\x22\x02js*\x0152\x06\x0a\x01a\x12\x01b8\x07",
        r#"{"id":1,"connect":{"token":"t","name":"js","version":"5"}}"#,
    ),
    (
        b"#\x08\x02*\x1f\x0a\x01c\x12\x01s\x18\x012\x01e8\xac\x02B\x01xH\x01P\x01X\x01b\x06fossil",
        r#"{"id":2,"subscribe":{"channel":"c","token":"s","recover":true,"epoch":"e",
            "offset":300,"positioned":true,"recoverable":true,"join_leave":true,"delta":"fossil"}}"#,
    ),
    (b"\x07\x08\x032\x03\x0a\x01c", r#"{"id":3,"unsubscribe":{"channel":"c"}}"#),
    (
        b"\x11\x08\x04:\x0d\x0a\x01c\x12\x08{\x22n\x22: 1}",
        r#"{"id":4,"publish":{"channel":"c","data":{"n": 1}}}"#,
    ),
    (
        b"\x1b\x08\x05R\x17\x0a\x01c8\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01B\x05\x08\x09\x12\x01eH\x01",
        r#"{"id":5,"history":{"channel":"c","limit":-1,"since":{"offset":9,"epoch":"e"},
            "reverse":true}}"#,
    ),
    (b"\x05b\x03\x0a\x01\xff", r#"{"send":{}}"#),
    (
        b"\x0b\x08\x07j\x07\x0a\x02[]\x12\x01m",
        r#"{"id":7,"rpc":{"method":"m","data":[]}}"#,
    ),
    (b"\x07\x08\x08r\x03\x0a\x01t", r#"{"id":8,"refresh":{"token":"t"}}"#),
    (b"\x04\x08\x09Z\x00", r#"{"id":9,"ping":{}}"#),
    (b"\x07\x08\x0aB\x03\x0a\x01c", r#"{"id":10,"presence":{"channel":"c"}}"#),
    (b"\x07\x08\x0bJ\x03\x0a\x01c", r#"{"id":11,"presence_stats":{"channel":"c"}}"#),
    (b"\x0a\x08\x0cz\x06\x0a\x01c\x12\x01t", r#"{"id":12,"sub_refresh":{"channel":"c","token":"t"}}"#),
    (
        b"\x1a\x08\r*\x16\n\x01c2\x01e8\x07p\x01x\x01\x80\x01\x02\x8a\x01\x01k\x90\x01d",
        r#"{"id":13,"subscribe":{"channel":"c","epoch":"e","offset":7,"flag":1,"type":1,"phase":2,
            "cursor":"k","limit":100}}"#,
    ),
    (
        b"\x0e\x08\x0e:\n\n\x01c\x18\x01\x22\x01k(\x01",
        r#"{"id":14,"publish":{"channel":"c","type":1,"key":"k","removed":true}}"#,
    ),
    (
        b"\x0f\x08\x0f:\x0b\n\x01c\x12\x011\x18\x01\x22\x01k",
        r#"{"id":15,"publish":{"channel":"c","data":1,"type":1,"key":"k"}}"#,
    ),
    (b"\x00", "{}"),
];

fn read(message: &[u8]) -> Vec<Result<Command, Unreadable>> {
    // Each takes a byte at least; one that never ends must not take the machine along.
    Commands::protobuf(message).take(message.len() + 1).collect()
}

#[test]
fn commands_are_the_same_in_both_encodings() {
    for (binary, text) in COMMANDS {
        let [Ok(command)] = &read(binary)[..] else { panic!("{text}") };
        let same: Command = serde_json::from_str(text).unwrap();
        assert_eq!(format!("{command:?}"), format!("{same:?}"));
    }
    let all: Vec<u8> = COMMANDS.iter().flat_map(|(binary, _)| binary.iter().copied()).collect();
    assert_eq!(read(&all).iter().filter(|read| read.is_ok()).count(), COMMANDS.len());
    let lines = "{\"id\":1,\"ping\":{}}\n\n {\"id\":2,\"ping\":{}}\n";
    let ids: Vec<u32> = Commands::json(lines).map(|command| command.unwrap().id).collect();
    assert_eq!(ids, [1, 2]);
}

#[test]
fn what_cannot_be_read_ends_the_message() {
    let message: &[(&str, &[u8])] = &[
        ("a length without its end", b"\x80"),
        ("a length of eleven bytes", b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"),
        ("a length beyond 64 bits", b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02"),
        ("a length of 2^63", b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01\x08\x01"),
        ("a length beyond the message", b"\x05\x08\x01"),
        ("a field without its value", b"\x01\x08"),
        ("a field of number 0", b"\x02\x00\x01"),
        ("an inner length beyond the command", b"\x04\x08\x01Z\x09"),
        ("an id that is a string", b"\x03\x0a\x01x"),
        ("a ping that is a number", b"\x04\x08\x01X\x01"),
        ("a channel that is not UTF-8", b"\x07\x08\x032\x03\x0a\x01\xff"),
        ("a group without its end", b"\x03\x08\x01\xa3"),
        ("text", br#"{"id":1,"ping":{}}"#),
    ];
    for (what, bytes) in message {
        let read = read(bytes);
        assert!(matches!(&read[..], [Err(Unreadable::Message)]), "{what}: {read:?}");
    }
    // Nothing after it counts.
    let read = read(b"\x04\x08\x09Z\x00\x02\x00\x01\x04\x08\x09Z\x00");
    assert!(matches!(&read[..], [Ok(_), Err(Unreadable::Message)]));
    let read: Vec<_> = Commands::json("{\"id\":1,\"ping\":{}}\n!\n{}").collect();
    assert!(matches!(&read[..], [Ok(_), Err(Unreadable::Message)]));
    assert!(Commands::of(Encoding::Json, b"\xff").is_err());
}

#[test]
fn groups_in_groups_do_not_exhaust_the_stack() {
    // 60,000 times the start of the unknown group 100: far deeper than the decoder goes.
    let groups = b"\xa3\x06".repeat(30_000);
    let mut message = b"\xe0\xd4\x03".to_vec();
    message.extend(&groups);
    assert!(matches!(&read(&message)[..], [Err(Unreadable::Message)]));
}

#[test]
fn data_that_is_not_json_is_told_by_the_commands_id() {
    for data in [&b"\xff"[..], b"{", b"nothing", b"1 2"] {
        let length = data.len() as u8;
        let publish = [b"\x08\x04:", &[length + 5][..], b"\x0a\x01c\x12", &[length], data].concat();
        let rpc =
            [b"\x08\x04j", &[length + 5][..], b"\x0a", &[length], data, b"\x12\x01m"].concat();
        for command in [publish, rpc] {
            let message = [&[command.len() as u8][..], &command, b"\x04\x08\x09Z\x00"].concat();
            let read = read(&message);
            let told = matches!(&read[..], [Err(Unreadable::Data { id: 4 }), Ok(_)]);
            assert!(told, "{data:?}: {read:?}");
        }
    }
}

#[test]
fn every_truncation_is_refused_and_no_change_panics() {
    for (binary, _) in COMMANDS {
        for end in 1..binary.len() {
            let read = read(&binary[..end]);
            assert!(matches!(&read[..], [Err(Unreadable::Message)]), "{binary:?} to {end}");
        }
        for at in 0..binary.len() {
            for value in 0..=255 {
                let mut changed = binary.to_vec();
                changed[at] = value;
                // It may be a command or not; what counts is that it ends.
                assert!(read(&changed).len() <= changed.len(), "{changed:?}");
            }
        }
    }
}

#[test]
fn replies_have_the_documented_bytes() {
    let data = |text: &str| RawValue::from_string(text.into()).unwrap();
    let info = || ClientInfo { user: "u".into(), client: "x".into(), ..ClientInfo::default() };
    let one = || vec![Publication { data: data("1"), offset: 1, ..Publication::default() }];
    let sub = SubscribeResult { offset: 1, ..SubscribeResult::default() };
    let push = |publication, unsubscribe| {
        let channel = "c".into();
        Body::Push(Push { channel, publication, unsubscribe, ..Push::default() })
    };
    let check = |id, body, expected: &[u8]| {
        let reply = Reply { id, body };
        let bytes = reply.to_protobuf();
        assert_eq!(bytes.escape_ascii().to_string(), expected.escape_ascii().to_string());
    };
    check(0, Body::Nothing, b"\x00");
    check(3, Body::Ping(Empty {}), b"\x04\x08\x03b\x00");
    let publication = Publication {
        data: data("[1, 2]"),
        info: Some(info()),
        offset: 4,
        ..Publication::default()
    };
    check(
        0,
        push(Some(Box::new(publication)), None),
        b"\x19\x22\x17\x12\x01c\x22\x12\x22\x06[1, 2]*\x06\x0a\x01u\x12\x01x0\x04",
    );
    let why = Reason { code: 2500, reason: "r".into() };
    check(0, push(None, Some(why)), b"\x0d\x22\x0b\x12\x01c:\x06\x10\xc4\x13\x1a\x01r");
    let disconnect = Some(Reason { code: 3501, reason: "r".into() });
    let push = Body::Push(Push { disconnect, ..Push::default() });
    check(0, push, b"\x0a\x22\x08Z\x06\x08\xad\x1b\x12\x01r");
    let who = || Some(Who { info: info() });
    let join = Push { channel: "c".into(), join: who(), ..Push::default() };
    check(0, Body::Push(join), b"\x0f\x22\x0d\x12\x01c*\x08\x0a\x06\x0a\x01u\x12\x01x");
    let leave = Push { channel: "c".into(), leave: who(), ..Push::default() };
    check(0, Body::Push(leave), b"\x0f\x22\x0d\x12\x01c2\x08\x0a\x06\x0a\x01u\x12\x01x");
    let error = Error { temporary: true, ..ErrorCode::UnknownChannel.to_error() };
    check(1, Body::Error(error), b"\x19\x08\x01\x12\x15\x08f\x12\x0funknown channel\x18\x01");
    let connect = ConnectResult {
        client: "x".into(),
        version: "v".into(),
        expires: true,
        ttl: 60,
        data: Some(data("{}")),
        subs: BTreeMap::from([("s".into(), sub)]),
        ping: 25,
        pong: true,
        session: "S".into(),
        node: "N".into(),
    };
    check(
        1,
        Body::Connect(connect),
        b"%\x08\x01*!\x0a\x01x\x12\x01v\x18\x01 <*\x02{}2\x07\x0a\x01s\x12\x02H\x018\x19@\x01J\x01SR\x01N",
    );
    let subs = BTreeMap::from([("s".into(), SubscribeResult::default())]);
    let connect = ConnectResult { subs, ..ConnectResult::default() };
    check(1, Body::Connect(connect), b"\x0b\x08\x01*\x072\x05\x0a\x01s\x12\x00");
    let subscribe = SubscribeResult {
        recoverable: true,
        epoch: "e".into(),
        publications: one(),
        recovered: true,
        offset: 2,
        positioned: true,
        was_recovering: true,
        ..SubscribeResult::default()
    };
    check(
        2,
        Body::Subscribe(subscribe),
        b"\x18\x08\x022\x14\x18\x012\x01e:\x05\x22\x0110\x01@\x01H\x02P\x01`\x01",
    );
    let entry = Publication { data: data("1"), offset: 1, key: "k".into(), ..one().remove(0) };
    let page = SubscribeResult {
        epoch: "e".into(),
        offset: 2,
        kind: Subscribed::Map.number(),
        phase: Phase::State.number(),
        cursor: "k".into(),
        state: vec![entry],
        ..SubscribeResult::default()
    };
    check(
        2,
        Body::Subscribe(page),
        b"\x1d\x08\x022\x192\x01eH\x02x\x01\x80\x01\x02\x8a\x01\x01k\x92\x01\x08\"\x0110\x01Z\x01k",
    );
    let gone = Publication { offset: 3, key: "k".into(), removed: true, ..Publication::default() };
    let gone = Push { channel: "c".into(), publication: Some(Box::new(gone)), ..Push::default() };
    check(0, Body::Push(gone), b"\x0e\"\x0c\x12\x01c\"\x070\x03Z\x01k`\x01");
    let (conn_info, chan_info) = (types::Info::new("{}"), types::Info::new("[2]"));
    let info_of = ClientInfo { conn_info, chan_info, ..info() };
    let join = Push { channel: "c".into(), join: Some(Who { info: info_of }), ..Push::default() };
    check(
        0,
        Body::Push(join),
        b"\x18\x22\x16\x12\x01c*\x11\x0a\x0f\x0a\x01u\x12\x01x\x1a\x02{}\x22\x03[2]",
    );
    let presence = PresenceResult { presence: BTreeMap::from([("x".into(), info())]) };
    check(
        2,
        Body::Presence(presence),
        b"\x11\x08\x02J\x0d\x0a\x0b\x0a\x01x\x12\x06\x0a\x01u\x12\x01x",
    );
    let stats = PresenceStatsResult { num_clients: 2, num_users: 1 };
    check(2, Body::PresenceStats(stats), b"\x08\x08\x02R\x04\x08\x02\x10\x01");
    let history = HistoryResult { publications: one(), epoch: "e".into(), offset: 1 };
    check(2, Body::History(history), b"\x10\x08\x02Z\x0c\x0a\x05\x22\x0110\x01\x12\x01e\x18\x01");
    check(2, Body::Rpc(RpcResult { data: data("{}") }), b"\x08\x08\x02j\x04\x0a\x02{}");
    let (client, version) = ("x".into(), "v".into());
    let refresh = RefreshResult { client, version, expires: true, ttl: 5 };
    check(2, Body::Refresh(refresh), b"\x0e\x08\x02r\x0a\x0a\x01x\x12\x01v\x18\x01 \x05");
    check(2, Body::Publish(Empty {}), b"\x04\x08\x02B\x00");
    check(2, Body::Unsubscribe(Empty {}), b"\x04\x08\x02:\x00");
}

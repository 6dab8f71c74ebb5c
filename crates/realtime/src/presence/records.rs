//! What a presence partition holds, and the writes that change it.

use crate::{
    broker,
    channel::Channel,
    presence::{Announce, Move, Way},
};
use bytes::Bytes;
use protocol::{Code, Problem, client::ClientInfo};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use store::{Key, Kind, Partition, StreamName, Write};
use traffic_cop::state::BEFORE_ENTRIES;

pub(crate) const KIND: Kind = Kind::new("presence");
/// The stream of those who came and went.
pub(crate) const JOINS: StreamName = StreamName::new("joins");
/// Entries of it that wait for other nodes to see them.
const BRIEF: u64 = 64;
const VERSION: u8 = 1;
/// What the keys begin with of those whose leave is to be told.
pub(super) const ROSTER: &str = "\u{1}";
/// What the keys begin with of records that say that somebody is there, where presence is not
/// shown.
pub(super) const BEAT: &str = "\u{2}";

/// Where the presence of `channel` is kept.
pub(crate) fn partition(channel: &Channel) -> Result<Partition, Problem> {
    Partition::new(channel.tenant().clone(), KIND, channel.name()).map_err(broker::problem)
}

/// That somebody came or went.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Joined {
    Join(ClientInfo),
    Leave(ClientInfo),
}

fn damaged() -> Problem {
    Problem::new(Code::Internal, "a stored presence cannot be read")
}

fn write(value: &impl Serialize) -> Bytes {
    let mut bytes = vec![VERSION];
    serde_json::to_writer(&mut bytes, value).expect("a presence is JSON");
    bytes.into()
}

fn read<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, Problem> {
    let Some((&VERSION, json)) = bytes.split_first() else { return Err(damaged()) };
    serde_json::from_slice(json).map_err(|_| damaged())
}

/// Reads a record.
pub(crate) fn present(bytes: &[u8]) -> Result<ClientInfo, Problem> {
    read(bytes)
}

/// Reads an entry of [`JOINS`].
pub(crate) fn joined(bytes: &[u8]) -> Result<Joined, Problem> {
    read(bytes)
}

fn key(prefix: &str, client: &str) -> Key {
    Key::new(format!("{prefix}{client}")).expect("a connection's id is short")
}

/// Before the records of those who are shown to be there, and behind all others.
pub(crate) fn before_present() -> Key {
    Key::new(BEFORE_ENTRIES).expect("it is short")
}

/// Whom a key is about.
pub(super) fn client(key: &Key) -> Option<&str> {
    let text = std::str::from_utf8(key.as_bytes()).ok()?;
    text.strip_prefix(ROSTER).or_else(|| text.strip_prefix(BEAT)).or(Some(text))
}

/// The key of his record in the roster.
pub(super) fn listed(client: &str) -> Key {
    key(ROSTER, client)
}

/// The keys of which one has a record as long as he is there.
pub(super) fn alive(client: &str) -> [Key; 2] {
    [key("", client), key(BEAT, client)]
}

/// That somebody left, for those who follow.
pub(super) fn left(info: ClientInfo) -> Write {
    Write::Append { stream: JOINS, value: write(&Joined::Leave(info)) }
}

/// The key of the record that says that he is there.
pub(super) fn place(announce: Announce, client: &str) -> Key {
    key(if announce.presence { "" } else { BEAT }, client)
}

/// The record of somebody who is there.
pub(super) fn record(info: &ClientInfo) -> Bytes {
    write(info)
}

/// Sets a record for so long.
pub(super) fn put(key: Key, value: Bytes, ttl: Duration) -> Write {
    Write::Put { key, value, expires: Some(ttl) }
}

/// Puts somebody into the roster, and tells that he came.
pub(super) fn joins(info: &ClientInfo) -> [Write; 2] {
    let enlist = Write::Put { key: listed(&info.client), value: write(info), expires: None };
    let value = write(&Joined::Join(info.clone()));
    [enlist, Write::Append { stream: JOINS, value }]
}

/// The writes for `moved`, at most three. `is_listed`: whether it is in the roster; if it is not,
/// somebody has told already that it left.
pub(super) fn writes(moved: &Move, ttl: Duration, is_listed: bool) -> Vec<Write> {
    let Move { announce, info, way, .. } = moved;
    let mut writes = Vec::with_capacity(3);
    let key = place(*announce, &info.client);
    writes.push(match way {
        Way::In | Way::Anew => put(key, record(info), ttl),
        Way::Out => Write::Delete { key },
    });
    if !announce.join_leave {
        return writes;
    }
    match way {
        Way::In => writes.extend(joins(info)),
        Way::Anew if is_listed => writes.extend(joins(info).into_iter().take(1)),
        Way::Out if is_listed => {
            writes.push(Write::Delete { key: listed(&info.client) });
            writes.push(left(info.clone()));
        }
        Way::Anew | Way::Out => {}
    }
    writes
}

/// Trims what every node has seen, once the stream has come to `last`.
pub(super) fn trim(last: u64) -> Option<Write> {
    (last > BRIEF).then(|| Write::Trim { stream: JOINS, first: last - BRIEF + 1 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use types::TenantId;

    #[test]
    fn a_move_writes_what_is_announced() {
        let channel = Channel::new(&TenantId::new("acme").unwrap(), "lobby").unwrap();
        let conn_info = types::Info::new("{\"a\":1}");
        let (user, client) = ("ann".into(), "con_1".into());
        let info = ClientInfo { user, client, conn_info, chan_info: None };
        let ttl = Duration::from_secs(60);
        let check = |presence, join_leave, way, is_listed, expected: &[&str]| {
            let announce = Announce { presence, join_leave };
            let moved = Move { channel: channel.clone(), announce, info: info.clone(), way };
            let kind = |write: &Write| match write {
                Write::Put { key, value, expires: Some(expires) } => {
                    assert_eq!((super::client(key), *expires), (Some("con_1"), ttl));
                    assert_eq!(present(value).unwrap(), info);
                    match *key == place(Announce::default(), "con_1") {
                        true => "beat",
                        false => "put",
                    }
                }
                Write::Put { key, value, expires: None } => {
                    assert_eq!((key, present(value).unwrap()), (&listed("con_1"), info.clone()));
                    "list"
                }
                Write::Delete { key } if *key == listed("con_1") => "unlist",
                Write::Delete { key } => {
                    assert_eq!(super::client(key), Some("con_1"));
                    "delete"
                }
                Write::Append { value, .. } => match joined(value).unwrap() {
                    Joined::Join(who) if who == info => "join",
                    Joined::Leave(who) if who == info => "leave",
                    Joined::Join(_) | Joined::Leave(_) => "somebody else",
                },
                Write::Trim { .. } | Write::Wake(_) | Write::Begin { .. } => "something else",
            };
            let kinds: Vec<_> = writes(&moved, ttl, is_listed).iter().map(kind).collect();
            assert_eq!(kinds, expected);
        };
        check(true, true, Way::In, false, &["put", "list", "join"]);
        check(true, true, Way::Out, true, &["delete", "unlist", "leave"]);
        check(true, true, Way::Anew, true, &["put", "list"]);
        check(true, false, Way::In, false, &["put"]);
        check(true, false, Way::Out, false, &["delete"]);
        check(true, false, Way::Anew, false, &["put"]);
        check(false, true, Way::In, false, &["beat", "list", "join"]);
        check(false, true, Way::Out, true, &["delete", "unlist", "leave"]);
        // Of whom it was told that he left it is not told again.
        check(true, true, Way::Out, false, &["delete"]);
        check(true, true, Way::Anew, false, &["put"]);
    }

    #[test]
    fn what_was_told_long_ago_is_trimmed() {
        assert_eq!(trim(BRIEF), None);
        assert_eq!(trim(BRIEF + 1), Some(Write::Trim { stream: JOINS, first: 2 }));
    }

    #[test]
    fn what_cannot_be_read_is_said() {
        for bytes in [&b""[..], b"\x02{}", b"\x01{", b"\x01[]"] {
            assert!(joined(bytes).is_err(), "{bytes:?}");
        }
        assert!(present(b"\x02{}").is_err());
    }
}

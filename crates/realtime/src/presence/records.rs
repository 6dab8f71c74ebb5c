//! What a presence partition holds, and the writes that change it.

use crate::{
    broker,
    channel::Channel,
    presence::{Move, Way},
};
use bytes::Bytes;
use protocol::{Code, Problem, client::ClientInfo};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use store::{Key, Kind, Partition, StreamName, Write};

const KIND: Kind = Kind::new("presence");
/// The stream of those who came and went.
pub(crate) const JOINS: StreamName = StreamName::new("joins");
/// Entries of it that wait for other nodes to see them.
const BRIEF: u64 = 64;
const VERSION: u8 = 1;

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

/// The record of somebody who is there.
pub(super) fn record(info: &ClientInfo) -> Bytes {
    write(info)
}

pub(super) fn key(client: &str) -> Key {
    Key::new(client).expect("a connection's id is short")
}

/// Sets a record for so long.
pub(super) fn put(client: &str, value: Bytes, ttl: Duration) -> Write {
    Write::Put { key: key(client), value, expires: Some(ttl) }
}

/// The writes for `moved`, at most two.
pub(super) fn writes(moved: &Move, ttl: Duration) -> Vec<Write> {
    let Move { announce, info, way, .. } = moved;
    let mut writes = Vec::with_capacity(2);
    if announce.presence {
        writes.push(match way {
            Way::In => put(&info.client, record(info), ttl),
            Way::Out => Write::Delete { key: key(&info.client) },
        });
    }
    if announce.join_leave {
        let value = write(&match way {
            Way::In => Joined::Join(info.clone()),
            Way::Out => Joined::Leave(info.clone()),
        });
        writes.push(Write::Append { stream: JOINS, value });
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
    use crate::presence::Announce;
    use types::TenantId;

    #[test]
    fn a_move_writes_what_is_announced() {
        let channel = Channel::new(&TenantId::new("acme").unwrap(), "lobby").unwrap();
        let conn_info = types::Info::new("{\"a\":1}");
        let (user, client) = ("ann".into(), "con_1".into());
        let info = ClientInfo { user, client, conn_info, chan_info: None };
        let ttl = Duration::from_secs(60);
        let check = |presence, join_leave, way, expected: &[&str]| {
            let announce = Announce { presence, join_leave };
            let moved = Move { channel: channel.clone(), announce, info: info.clone(), way };
            let kind = |write: &Write| match write {
                Write::Put { value, expires, .. } => {
                    assert_eq!((present(value).unwrap(), *expires), (info.clone(), Some(ttl)));
                    "put"
                }
                Write::Delete { .. } => "delete",
                Write::Append { value, .. } => match joined(value).unwrap() {
                    Joined::Join(who) if who == info => "join",
                    Joined::Leave(who) if who == info => "leave",
                    Joined::Join(_) | Joined::Leave(_) => "somebody else",
                },
                Write::Trim { .. } | Write::Wake(_) | Write::Begin { .. } => "something else",
            };
            let kinds: Vec<_> = writes(&moved, ttl).iter().map(kind).collect();
            assert_eq!(kinds, expected);
        };
        check(true, true, Way::In, &["put", "join"]);
        check(true, true, Way::Out, &["delete", "leave"]);
        check(true, false, Way::In, &["put"]);
        check(false, true, Way::Out, &["leave"]);
        check(false, false, Way::In, &[]);
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

//! Replies in Protobuf.

use crate::client::{self, Data};
use std::collections::BTreeMap;
use types::Info;

#[derive(prost::Message)]
pub(super) struct Reply {
    #[prost(uint32, tag = "1")]
    id: u32,
    #[prost(oneof = "Body", tags = "2, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15")]
    body: Option<Body>,
}

#[derive(prost::Oneof)]
enum Body {
    #[prost(message, tag = "2")]
    Error(Error),
    #[prost(message, tag = "4")]
    Push(Push),
    #[prost(message, tag = "5")]
    Connect(ConnectResult),
    #[prost(message, tag = "6")]
    Subscribe(SubscribeResult),
    #[prost(message, tag = "7")]
    Unsubscribe(Empty),
    #[prost(message, tag = "8")]
    Publish(Empty),
    #[prost(message, tag = "9")]
    Presence(PresenceResult),
    #[prost(message, tag = "10")]
    PresenceStats(PresenceStatsResult),
    #[prost(message, tag = "11")]
    History(HistoryResult),
    #[prost(message, tag = "12")]
    Ping(Empty),
    #[prost(message, tag = "13")]
    Rpc(RpcResult),
    #[prost(message, tag = "14")]
    Refresh(RefreshResult),
    #[prost(message, tag = "15")]
    SubRefresh(SubRefreshResult),
}

#[derive(prost::Message)]
struct Empty {}

#[derive(prost::Message)]
struct Error {
    #[prost(uint32, tag = "1")]
    code: u32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(bool, tag = "3")]
    temporary: bool,
}

#[derive(prost::Message)]
struct Push {
    #[prost(int64, tag = "1")]
    id: i64,
    #[prost(string, tag = "2")]
    channel: String,
    #[prost(message, optional, boxed, tag = "4")]
    publication: Option<Box<Publication>>,
    #[prost(message, optional, tag = "5")]
    join: Option<Who>,
    #[prost(message, optional, tag = "6")]
    leave: Option<Who>,
    #[prost(message, optional, tag = "7")]
    unsubscribe: Option<Reason>,
    #[prost(message, optional, tag = "8")]
    message: Option<Message>,
    #[prost(message, optional, tag = "9")]
    subscribe: Option<Begun>,
    #[prost(message, optional, tag = "11")]
    disconnect: Option<Disconnect>,
}

#[derive(prost::Message)]
struct Disconnect {
    #[prost(uint32, tag = "1")]
    code: u32,
    #[prost(string, tag = "2")]
    reason: String,
}

#[derive(prost::Message)]
struct Message {
    #[prost(bytes = "vec", tag = "1")]
    data: Vec<u8>,
}

#[derive(prost::Message)]
struct Who {
    #[prost(message, optional, tag = "1")]
    info: Option<ClientInfo>,
}

#[derive(prost::Message)]
struct Reason {
    #[prost(uint32, tag = "2")]
    code: u32,
    #[prost(string, tag = "3")]
    reason: String,
}

#[derive(prost::Message)]
struct Begun {
    #[prost(bool, tag = "1")]
    recoverable: bool,
    #[prost(string, tag = "4")]
    epoch: String,
    #[prost(uint64, tag = "5")]
    offset: u64,
    #[prost(bool, tag = "6")]
    positioned: bool,
}

#[derive(prost::Message)]
struct Publication {
    #[prost(bytes = "vec", tag = "4")]
    data: Vec<u8>,
    #[prost(message, optional, tag = "5")]
    info: Option<ClientInfo>,
    #[prost(uint64, tag = "6")]
    offset: u64,
    #[prost(btree_map = "string, string", tag = "7")]
    tags: BTreeMap<String, String>,
    #[prost(bool, tag = "8")]
    delta: bool,
    #[prost(string, tag = "11")]
    key: String,
    #[prost(bool, tag = "12")]
    removed: bool,
}

#[derive(prost::Message)]
struct ClientInfo {
    #[prost(string, tag = "1")]
    user: String,
    #[prost(string, tag = "2")]
    client: String,
    #[prost(bytes = "vec", tag = "3")]
    conn_info: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    chan_info: Vec<u8>,
}

#[derive(prost::Message)]
struct ConnectResult {
    #[prost(string, tag = "1")]
    client: String,
    #[prost(string, tag = "2")]
    version: String,
    #[prost(bool, tag = "3")]
    expires: bool,
    #[prost(uint32, tag = "4")]
    ttl: u32,
    #[prost(bytes = "vec", tag = "5")]
    data: Vec<u8>,
    #[prost(message, repeated, tag = "6")]
    subs: Vec<SubscribeEntry>,
    #[prost(uint32, tag = "7")]
    ping: u32,
    #[prost(bool, tag = "8")]
    pong: bool,
    #[prost(string, tag = "9")]
    session: String,
    #[prost(string, tag = "10")]
    node: String,
}

#[derive(prost::Message)]
struct SubscribeResult {
    #[prost(bool, tag = "1")]
    expires: bool,
    #[prost(uint32, tag = "2")]
    ttl: u32,
    #[prost(bool, tag = "3")]
    recoverable: bool,
    #[prost(string, tag = "6")]
    epoch: String,
    #[prost(message, repeated, tag = "7")]
    publications: Vec<Publication>,
    #[prost(bool, tag = "8")]
    recovered: bool,
    #[prost(uint64, tag = "9")]
    offset: u64,
    #[prost(bool, tag = "10")]
    positioned: bool,
    #[prost(bool, tag = "12")]
    was_recovering: bool,
    #[prost(bool, tag = "13")]
    delta: bool,
    #[prost(int64, tag = "14")]
    id: i64,
    #[prost(int32, tag = "15")]
    kind: i32,
    #[prost(int32, tag = "16")]
    phase: i32,
    #[prost(string, tag = "17")]
    cursor: String,
    #[prost(message, repeated, tag = "18")]
    state: Vec<Publication>,
}

#[derive(prost::Message)]
struct PresenceResult {
    #[prost(message, repeated, tag = "1")]
    presence: Vec<PresenceEntry>,
}

/// An entry of a map, whose value is written even if it is empty: there are decoders that
/// take an absent one for null.
#[derive(prost::Message)]
struct PresenceEntry {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(message, optional, tag = "2")]
    value: Option<ClientInfo>,
}

/// As [`PresenceEntry`].
#[derive(prost::Message)]
struct SubscribeEntry {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(message, optional, tag = "2")]
    value: Option<SubscribeResult>,
}

#[derive(prost::Message)]
struct PresenceStatsResult {
    #[prost(uint32, tag = "1")]
    num_clients: u32,
    #[prost(uint32, tag = "2")]
    num_users: u32,
}

#[derive(prost::Message)]
struct HistoryResult {
    #[prost(message, repeated, tag = "1")]
    publications: Vec<Publication>,
    #[prost(string, tag = "2")]
    epoch: String,
    #[prost(uint64, tag = "3")]
    offset: u64,
}

#[derive(prost::Message)]
struct RpcResult {
    #[prost(bytes = "vec", tag = "1")]
    data: Vec<u8>,
}

#[derive(prost::Message)]
struct RefreshResult {
    #[prost(string, tag = "1")]
    client: String,
    #[prost(string, tag = "2")]
    version: String,
    #[prost(bool, tag = "3")]
    expires: bool,
    #[prost(uint32, tag = "4")]
    ttl: u32,
}

#[derive(prost::Message)]
struct SubRefreshResult {
    #[prost(bool, tag = "1")]
    expires: bool,
    #[prost(uint32, tag = "2")]
    ttl: u32,
}

impl From<&client::Reply> for Reply {
    fn from(reply: &client::Reply) -> Self {
        let body = match &reply.body {
            client::Body::Error(error) => Body::Error(error.into()),
            client::Body::Push(push) => Body::Push(push.into()),
            client::Body::Connect(result) => Body::Connect(result.into()),
            client::Body::Subscribe(result) => Body::Subscribe(result.into()),
            client::Body::Unsubscribe(client::Empty {}) => Body::Unsubscribe(Empty {}),
            client::Body::Publish(client::Empty {}) => Body::Publish(Empty {}),
            client::Body::Presence(result) => Body::Presence(result.into()),
            client::Body::PresenceStats(result) => Body::PresenceStats(PresenceStatsResult {
                num_clients: result.num_clients,
                num_users: result.num_users,
            }),
            client::Body::History(result) => Body::History(result.into()),
            client::Body::Ping(client::Empty {}) => Body::Ping(Empty {}),
            client::Body::Rpc(result) => Body::Rpc(RpcResult { data: bytes(&result.data) }),
            client::Body::Refresh(result) => Body::Refresh(result.into()),
            client::Body::SubRefresh(result) => {
                Body::SubRefresh(SubRefreshResult { expires: result.expires, ttl: result.ttl })
            }
            client::Body::Nothing => return Self { id: reply.id, body: None },
        };
        Self { id: reply.id, body: Some(body) }
    }
}

fn bytes(data: &Data) -> Vec<u8> {
    data.get().as_bytes().to_vec()
}

fn publications(publications: &[client::Publication]) -> Vec<Publication> {
    publications.iter().map(Into::into).collect()
}

impl From<&client::Error> for Error {
    fn from(error: &client::Error) -> Self {
        let (code, temporary) = (error.code, error.temporary);
        Self { code, message: error.message.clone(), temporary }
    }
}

impl From<&client::Push> for Push {
    fn from(push: &client::Push) -> Self {
        Self {
            id: push.id,
            channel: push.channel.clone(),
            publication: push.publication.as_deref().map(|one| Box::new(one.into())),
            join: push.join.as_ref().map(Into::into),
            leave: push.leave.as_ref().map(Into::into),
            unsubscribe: push
                .unsubscribe
                .as_ref()
                .map(|why| Reason { code: why.code, reason: why.reason.clone() }),
            message: push.message.as_ref().map(|one| Message { data: bytes(&one.data) }),
            subscribe: push.subscribe.as_ref().map(|begun| Begun {
                recoverable: begun.recoverable,
                epoch: begun.epoch.clone(),
                offset: begun.offset,
                positioned: begun.positioned,
            }),
            disconnect: push
                .disconnect
                .as_ref()
                .map(|why| Disconnect { code: why.code, reason: why.reason.clone() }),
        }
    }
}

impl From<&client::Who> for Who {
    fn from(who: &client::Who) -> Self {
        Self { info: Some((&who.info).into()) }
    }
}

impl From<&client::Publication> for Publication {
    fn from(publication: &client::Publication) -> Self {
        let (data, delta) = match &publication.told {
            client::Told::Json if publication.removed => (Vec::new(), false),
            client::Told::Json | client::Told::Text => (bytes(&publication.data), false),
            client::Told::Delta(delta) => (delta.as_bytes().to_vec(), true),
        };
        Self {
            data,
            info: publication.info.as_ref().map(Into::into),
            offset: publication.offset,
            tags: publication.tags.clone(),
            delta,
            key: publication.key.clone(),
            removed: publication.removed,
        }
    }
}

impl From<&client::ClientInfo> for ClientInfo {
    fn from(info: &client::ClientInfo) -> Self {
        let bytes = |info: &Option<Info>| {
            info.as_ref().map(|info| info.as_str().as_bytes().to_vec()).unwrap_or_default()
        };
        Self {
            user: info.user.clone(),
            client: info.client.clone(),
            conn_info: bytes(&info.conn_info),
            chan_info: bytes(&info.chan_info),
        }
    }
}

impl From<&client::ConnectResult> for ConnectResult {
    fn from(result: &client::ConnectResult) -> Self {
        let entry = |(channel, held): (&String, &client::SubscribeResult)| SubscribeEntry {
            key: channel.clone(),
            value: Some(held.into()),
        };
        Self {
            client: result.client.clone(),
            version: result.version.clone(),
            expires: result.expires,
            ttl: result.ttl,
            data: result.data.as_ref().map(bytes).unwrap_or_default(),
            subs: result.subs.iter().map(entry).collect(),
            ping: result.ping,
            pong: result.pong,
            session: result.session.clone(),
            node: result.node.clone(),
        }
    }
}

impl From<&client::SubscribeResult> for SubscribeResult {
    fn from(result: &client::SubscribeResult) -> Self {
        Self {
            expires: result.expires,
            ttl: result.ttl,
            recoverable: result.recoverable,
            epoch: result.epoch.clone(),
            publications: publications(&result.publications),
            recovered: result.recovered,
            offset: result.offset,
            positioned: result.positioned,
            was_recovering: result.was_recovering,
            delta: result.delta,
            id: result.id,
            kind: result.kind,
            phase: result.phase,
            cursor: result.cursor.clone(),
            state: publications(&result.state),
        }
    }
}

impl From<&client::PresenceResult> for PresenceResult {
    fn from(result: &client::PresenceResult) -> Self {
        let entry = |(client, info): (&String, &client::ClientInfo)| PresenceEntry {
            key: client.clone(),
            value: Some(info.into()),
        };
        Self { presence: result.presence.iter().map(entry).collect() }
    }
}

impl From<&client::HistoryResult> for HistoryResult {
    fn from(result: &client::HistoryResult) -> Self {
        let (epoch, offset) = (result.epoch.clone(), result.offset);
        Self { publications: publications(&result.publications), epoch, offset }
    }
}

impl From<&client::RefreshResult> for RefreshResult {
    fn from(result: &client::RefreshResult) -> Self {
        let (client, version) = (result.client.clone(), result.version.clone());
        Self { client, version, expires: result.expires, ttl: result.ttl }
    }
}

//! Commands in Protobuf.

use crate::client::{self, Data, Unreadable};
use serde_json::value::RawValue;
use std::collections::HashMap;

#[derive(prost::Message)]
pub(super) struct Command {
    #[prost(uint32, tag = "1")]
    id: u32,
    #[prost(message, optional, tag = "4")]
    connect: Option<ConnectRequest>,
    #[prost(message, optional, tag = "5")]
    subscribe: Option<SubscribeRequest>,
    #[prost(message, optional, tag = "6")]
    unsubscribe: Option<ChannelRequest>,
    #[prost(message, optional, tag = "7")]
    publish: Option<PublishRequest>,
    #[prost(message, optional, tag = "8")]
    presence: Option<ChannelRequest>,
    #[prost(message, optional, tag = "9")]
    presence_stats: Option<ChannelRequest>,
    #[prost(message, optional, tag = "10")]
    history: Option<HistoryRequest>,
    #[prost(message, optional, tag = "11")]
    ping: Option<Empty>,
    #[prost(message, optional, tag = "12")]
    send: Option<Empty>,
    #[prost(message, optional, tag = "13")]
    rpc: Option<RpcRequest>,
    #[prost(message, optional, tag = "14")]
    refresh: Option<RefreshRequest>,
    #[prost(message, optional, tag = "15")]
    sub_refresh: Option<SubRefreshRequest>,
}

/// Nothing that is read. The `data` of `connect`, `subscribe` and `send` is not read either,
/// so it may be anything.
#[derive(prost::Message)]
struct Empty {}

#[derive(prost::Message)]
struct ConnectRequest {
    #[prost(string, tag = "1")]
    token: String,
    #[prost(map = "string, message", tag = "3")]
    subs: HashMap<String, SubscribeRequest>,
    #[prost(string, tag = "4")]
    name: String,
    #[prost(string, tag = "5")]
    version: String,
}

#[derive(PartialEq, prost::Message)]
struct SubscribeRequest {
    #[prost(string, tag = "1")]
    channel: String,
    #[prost(string, tag = "2")]
    token: String,
    #[prost(bool, tag = "3")]
    recover: bool,
    #[prost(string, tag = "6")]
    epoch: String,
    #[prost(uint64, tag = "7")]
    offset: u64,
    #[prost(bool, tag = "9")]
    positioned: bool,
    #[prost(bool, tag = "10")]
    recoverable: bool,
    #[prost(bool, tag = "11")]
    join_leave: bool,
    #[prost(string, tag = "12")]
    delta: String,
    #[prost(message, optional, tag = "13")]
    tf: Option<FilterNode>,
    #[prost(int64, tag = "14")]
    flag: i64,
    #[prost(int32, tag = "15")]
    kind: i32,
    #[prost(int32, tag = "16")]
    phase: i32,
    #[prost(string, tag = "17")]
    cursor: String,
    #[prost(int32, tag = "18")]
    limit: i32,
}

#[derive(PartialEq, prost::Message)]
struct FilterNode {
    #[prost(string, tag = "1")]
    op: String,
    #[prost(string, tag = "2")]
    key: String,
    #[prost(string, tag = "3")]
    cmp: String,
    #[prost(string, tag = "4")]
    val: String,
    #[prost(string, repeated, tag = "5")]
    vals: Vec<String>,
    #[prost(message, repeated, tag = "6")]
    nodes: Vec<FilterNode>,
}

#[derive(prost::Message)]
struct ChannelRequest {
    #[prost(string, tag = "1")]
    channel: String,
}

#[derive(prost::Message)]
struct PublishRequest {
    #[prost(string, tag = "1")]
    channel: String,
    #[prost(bytes = "vec", tag = "2")]
    data: Vec<u8>,
    #[prost(int32, tag = "3")]
    kind: i32,
    #[prost(string, tag = "4")]
    key: String,
    #[prost(bool, tag = "5")]
    removed: bool,
}

#[derive(prost::Message)]
struct HistoryRequest {
    #[prost(string, tag = "1")]
    channel: String,
    #[prost(int32, tag = "7")]
    limit: i32,
    #[prost(message, optional, tag = "8")]
    since: Option<StreamPosition>,
    #[prost(bool, tag = "9")]
    reverse: bool,
}

#[derive(prost::Message)]
struct StreamPosition {
    #[prost(uint64, tag = "1")]
    offset: u64,
    #[prost(string, tag = "2")]
    epoch: String,
}

#[derive(prost::Message)]
struct RpcRequest {
    #[prost(bytes = "vec", tag = "1")]
    data: Vec<u8>,
    #[prost(string, tag = "2")]
    method: String,
}

#[derive(prost::Message)]
struct RefreshRequest {
    #[prost(string, tag = "1")]
    token: String,
}

#[derive(prost::Message)]
struct SubRefreshRequest {
    #[prost(string, tag = "1")]
    channel: String,
    #[prost(string, tag = "2")]
    token: String,
}

impl TryFrom<Command> for client::Command {
    type Error = Unreadable;

    fn try_from(command: Command) -> Result<Self, Unreadable> {
        let id = command.id;
        let publish = command.publish.map(|request| {
            let PublishRequest { channel, data, kind, key, removed } = request;
            json(id, data).map(|data| client::PublishRequest { channel, data, kind, key, removed })
        });
        let rpc = command.rpc.map(|RpcRequest { data, method }| {
            json(id, data).map(|data| client::RpcRequest { data, method })
        });
        Ok(Self {
            id,
            connect: command.connect.map(Into::into),
            subscribe: command.subscribe.map(Into::into),
            unsubscribe: command.unsubscribe.map(Into::into),
            publish: publish.transpose()?,
            presence: command.presence.map(Into::into),
            presence_stats: command.presence_stats.map(Into::into),
            history: command.history.map(Into::into),
            ping: command.ping.map(Into::into),
            send: command.send.map(|Empty {}| client::SendRequest::default()),
            rpc: rpc.transpose()?,
            refresh: command
                .refresh
                .map(|RefreshRequest { token }| client::RefreshRequest { token }),
            sub_refresh: command.sub_refresh.map(|SubRefreshRequest { channel, token }| {
                client::SubRefreshRequest { channel, token }
            }),
        })
    }
}

/// The JSON that `data` has to be; no bytes are no data.
fn json(id: u32, data: Vec<u8>) -> Result<Option<Data>, Unreadable> {
    if data.is_empty() {
        return Ok(None);
    }
    let text = String::from_utf8(data).map_err(|_| Unreadable::Data { id })?;
    RawValue::from_string(text).map(Some).map_err(|_| Unreadable::Data { id })
}

impl From<Empty> for client::Empty {
    fn from(Empty {}: Empty) -> Self {
        Self {}
    }
}

impl From<ConnectRequest> for client::ConnectRequest {
    fn from(ConnectRequest { token, subs, name, version }: ConnectRequest) -> Self {
        let subs = subs.into_iter().map(|(channel, held)| (channel, held.into())).collect();
        Self { token, subs, name, version, ..Self::default() }
    }
}

impl From<FilterNode> for client::filter::FilterNode {
    fn from(FilterNode { op, key, cmp, val, vals, nodes }: FilterNode) -> Self {
        // As deep as the decoder went.
        let nodes = nodes.into_iter().map(Into::into).collect();
        Self { op, key, cmp, val, vals, nodes }
    }
}

impl From<SubscribeRequest> for client::SubscribeRequest {
    fn from(request: SubscribeRequest) -> Self {
        Self {
            channel: request.channel,
            token: request.token,
            recover: request.recover,
            epoch: request.epoch,
            offset: request.offset,
            data: None,
            positioned: request.positioned,
            recoverable: request.recoverable,
            join_leave: request.join_leave,
            delta: request.delta,
            tf: request.tf.map(Into::into),
            flag: request.flag,
            kind: request.kind,
            phase: request.phase,
            cursor: request.cursor,
            limit: request.limit,
        }
    }
}

impl From<ChannelRequest> for client::ChannelRequest {
    fn from(ChannelRequest { channel }: ChannelRequest) -> Self {
        Self { channel }
    }
}

impl From<HistoryRequest> for client::HistoryRequest {
    fn from(HistoryRequest { channel, limit, since, reverse }: HistoryRequest) -> Self {
        let since =
            since.map(|StreamPosition { offset, epoch }| client::StreamPosition { offset, epoch });
        Self { channel, limit, since, reverse }
    }
}

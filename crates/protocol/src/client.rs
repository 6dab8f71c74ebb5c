//! Messages of the client protocol: Centrifugo's, version 2, in JSON and in Protobuf.
//!
//! In JSON, a message holds one or more commands or replies, separated by line ends; in
//! Protobuf, each stands behind its length as a varint. Zero values are left out. `data` is any
//! JSON and passes through as it was written; in Protobuf its bytes are that JSON.
//!
//! Start at [`Encoding`].

mod code;
mod command;
mod emulation;
mod encoding;
pub mod filter;
pub mod fossil;
mod protobuf;
mod reply;

pub use code::{Disconnect, ErrorCode, Unsubscribe};
pub use command::{
    ChannelRequest, Command, ConnectRequest, Empty, HistoryRequest, Phase, PublishRequest,
    RefreshRequest, RpcRequest, SendRequest, StreamPosition, SubRefreshRequest, SubscribeRequest,
    Subscribed,
};
pub use emulation::{Commands as EmulatedCommands, EmulationRequest};
pub use encoding::{Commands, Encoding, Unreadable};
pub use reply::{
    Begun, Body, ClientInfo, ConnectResult, Error, HistoryResult, Message, PresenceResult,
    PresenceStatsResult, Publication, Push, Reason, RefreshResult, Reply, RpcResult,
    SubRefreshResult, SubscribeResult, Told, Who,
};

use serde_json::value::RawValue;

/// Data that passes through.
pub type Data = Box<RawValue>;

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

//! What clients send.

use crate::client::{Data, filter::FilterNode, is_default};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What a client sends: an id and exactly one request; `send` and pongs have no id.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Command {
    /// Chosen by the client, counted from 1.
    pub id: u32,
    /// Opens the connection; always the first command.
    pub connect: Option<ConnectRequest>,
    /// Subscribes to a channel.
    pub subscribe: Option<SubscribeRequest>,
    /// Ends a subscription.
    pub unsubscribe: Option<ChannelRequest>,
    /// Publishes to a channel.
    pub publish: Option<PublishRequest>,
    /// Asks who is subscribed.
    pub presence: Option<ChannelRequest>,
    /// Asks how many are subscribed.
    pub presence_stats: Option<ChannelRequest>,
    /// Reads publications of the past.
    pub history: Option<HistoryRequest>,
    /// Asks for an empty answer.
    pub ping: Option<Empty>,
    /// A message that wants no answer.
    pub send: Option<SendRequest>,
    /// Calls a method.
    pub rpc: Option<RpcRequest>,
    /// Brings a fresh connection token.
    pub refresh: Option<RefreshRequest>,
    /// Brings a fresh subscription token.
    pub sub_refresh: Option<SubRefreshRequest>,
}

impl Command {
    /// Whether it is the answer to a ping: no id and no request.
    #[must_use]
    pub fn is_pong(&self) -> bool {
        self.id == 0 && self.send.is_none() && self.requests() == 0
    }

    /// How many requests it holds; a well-formed command holds one.
    #[must_use]
    pub fn requests(&self) -> usize {
        [
            self.connect.is_some(),
            self.subscribe.is_some(),
            self.unsubscribe.is_some(),
            self.publish.is_some(),
            self.presence.is_some(),
            self.presence_stats.is_some(),
            self.history.is_some(),
            self.ping.is_some(),
            self.send.is_some(),
            self.rpc.is_some(),
            self.refresh.is_some(),
            self.sub_refresh.is_some(),
        ]
        .into_iter()
        .filter(|held| *held)
        .count()
    }
}

/// Nothing of interest.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Empty {}

/// Opens a connection.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ConnectRequest {
    /// A JSON Web Token, an API key or a session token.
    pub token: String,
    /// Custom data.
    pub data: Option<Data>,
    /// Server-side subscriptions to recover, by channel.
    pub subs: BTreeMap<String, SubscribeRequest>,
    /// The client's name for itself.
    pub name: String,
    /// Its version.
    pub version: String,
}

/// Subscribes to a channel.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct SubscribeRequest {
    /// The channel.
    pub channel: String,
    /// A subscription token: a JSON Web Token whose claim `channel` names the channel.
    pub token: String,
    /// Whether to recover from `epoch` and `offset`.
    pub recover: bool,
    /// The life of the channel that the client knows.
    pub epoch: String,
    /// The last publication that the client has.
    pub offset: u64,
    /// Custom data.
    pub data: Option<Data>,
    /// Asks to be told of gaps.
    pub positioned: bool,
    /// Asks to be able to recover.
    pub recoverable: bool,
    /// Asks to be told who comes and goes.
    pub join_leave: bool,
    /// How publications may be told by what differs from the last: `fossil`.
    pub delta: String,
    /// Which publications it wants, by their tags.
    pub tf: Option<FilterNode>,
    /// Bits of what the client can do; see [`Self::COMPACT`], [`Self::REJECT_UNRECOVERED`].
    pub flag: i64,
    /// What it subscribes to; see [`Subscribed`].
    #[serde(rename = "type")]
    pub kind: i32,
    /// Of a map: how far the client has come; see [`Phase`].
    pub phase: i32,
    /// Of a map's entries: after which page.
    pub cursor: String,
    /// Of a map: entries or changes of one page, at most; 0: as the server likes.
    pub limit: i32,
}

/// What a subscription is to: the `type` of requests and answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Subscribed {
    /// Publications.
    #[default]
    Stream,
    /// Entries, and their changes.
    Map,
    /// Those who are subscribed to another channel, as a map by connection.
    Clients,
    /// The same by principal.
    Users,
}

impl Subscribed {
    /// Reads the number of a request; `None` if there is no such type, or not here.
    #[must_use]
    pub fn read(number: i32) -> Option<Self> {
        [Self::Stream, Self::Map, Self::Clients, Self::Users]
            .into_iter()
            .find(|one| one.number() == number)
    }

    /// The protocol's number.
    #[must_use]
    pub fn number(self) -> i32 {
        match self {
            Self::Stream => 0,
            Self::Map => 1,
            Self::Clients => 2,
            Self::Users => 3,
        }
    }
}

/// How far a client has come that subscribes to a map: entries page by page, then the changes
/// since the first page, then those to come. The server may lead on at any time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Phase {
    /// It has all, and takes changes as they come.
    #[default]
    Live,
    /// It takes the changes of the past.
    Stream,
    /// It takes entries.
    State,
}

impl Phase {
    /// Reads the number of a request.
    #[must_use]
    pub fn read(number: i32) -> Option<Self> {
        [Self::Live, Self::Stream, Self::State].into_iter().find(|one| one.number() == number)
    }

    /// The protocol's number.
    #[must_use]
    pub fn number(self) -> i32 {
        match self {
            Self::Live => 0,
            Self::Stream => 1,
            Self::State => 2,
        }
    }
}

impl SubscribeRequest {
    /// Of `flag`: the client knows the channel by a number that the answer tells.
    pub const COMPACT: i64 = 1;
    /// Of `flag`: where not all can be recovered, the client wants an error instead of a
    /// subscription, and will load its state anew.
    pub const REJECT_UNRECOVERED: i64 = 2;

    /// Whether `flag` has this bit.
    #[must_use]
    pub fn has(&self, bit: i64) -> bool {
        self.flag & bit != 0
    }
}

/// Names a channel.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ChannelRequest {
    /// The channel.
    pub channel: String,
}

/// Publishes to a channel.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct PublishRequest {
    /// The channel.
    pub channel: String,
    /// What to publish.
    pub data: Option<Data>,
    /// 1: to an entry of a map.
    #[serde(rename = "type")]
    pub kind: i32,
    /// To which entry.
    pub key: String,
    /// Whether the entry is to be removed.
    pub removed: bool,
}

/// Reads publications of the past.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct HistoryRequest {
    /// The channel.
    pub channel: String,
    /// At most so many; 0: none, only the position; below: no bound but the server's.
    pub limit: i32,
    /// After (or, reversed, before) which.
    pub since: Option<StreamPosition>,
    /// Newest first.
    pub reverse: bool,
}

/// A place in a channel.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StreamPosition {
    /// The number of a publication.
    #[serde(skip_serializing_if = "is_default")]
    pub offset: u64,
    /// The life of the channel.
    #[serde(skip_serializing_if = "is_default")]
    pub epoch: String,
}

/// A message that wants no answer.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct SendRequest {
    /// The message.
    pub data: Option<Data>,
}

/// Calls a method.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RpcRequest {
    /// Its argument.
    pub data: Option<Data>,
    /// Which method.
    pub method: String,
}

/// Brings a fresh connection token.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RefreshRequest {
    /// The token.
    pub token: String,
}

/// Brings a fresh subscription token.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct SubRefreshRequest {
    /// The channel.
    pub channel: String,
    /// The token.
    pub token: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_read() {
        let read = |text: &str| serde_json::from_str::<Command>(text);
        assert!(read("{}").unwrap().is_pong());
        let command = read(r#"{"id":1,"connect":{"token":"t","flag":7},"later":1}"#).unwrap();
        assert_eq!((command.requests(), command.connect.unwrap().token.as_str()), (1, "t"));
        assert_eq!(read(r#"{"id":1,"connect":{},"rpc":{}}"#).unwrap().requests(), 2);
        assert!(read(r#"{"id":-1}"#).is_err());
    }
}

//! Frames of the client protocol: Centrifugo's, version 2, in JSON.
//!
//! A text frame holds one or more commands or replies, separated by line ends. Zero values
//! are left out. `data` is any JSON and passes through as it was written.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::collections::BTreeMap;

mod code;

pub use code::{Disconnect, ErrorCode};

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Data that passes through.
pub type Data = Box<RawValue>;

/// What a client sends: an id and exactly one request; `send` and pongs have no id.
#[derive(Debug, Default, Deserialize)]
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
    pub sub_refresh: Option<Empty>,
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
#[derive(Debug, Default, Deserialize)]
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
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct SubscribeRequest {
    /// The channel.
    pub channel: String,
    /// A subscription token.
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
}

/// Names a channel.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct ChannelRequest {
    /// The channel.
    pub channel: String,
}

/// Publishes to a channel.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct PublishRequest {
    /// The channel.
    pub channel: String,
    /// What to publish.
    pub data: Option<Data>,
}

/// Reads publications of the past.
#[derive(Debug, Default, Deserialize)]
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
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct SendRequest {
    /// The message.
    pub data: Option<Data>,
}

/// Calls a method.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct RpcRequest {
    /// Its argument.
    pub data: Option<Data>,
    /// Which method.
    pub method: String,
}

/// Brings a fresh connection token.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct RefreshRequest {
    /// The token.
    pub token: String,
}

/// What the server sends: the answer to a command, or (id 0) a push, or (nothing) a ping.
#[derive(Debug, Default, Serialize)]
pub struct Reply {
    /// The command's id; 0 for a push.
    #[serde(skip_serializing_if = "is_default")]
    pub id: u32,
    /// What it says.
    #[serde(flatten)]
    pub body: Body,
}

/// The content of a reply.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Body {
    /// The command failed.
    Error(Error),
    /// Something happened.
    Push(Push),
    /// The connection is open.
    Connect(ConnectResult),
    /// The subscription stands.
    Subscribe(SubscribeResult),
    /// The subscription has ended.
    Unsubscribe(Empty),
    /// The publication is accepted: durable, if its channel keeps history.
    Publish(Empty),
    /// Who is subscribed.
    Presence(PresenceResult),
    /// How many are subscribed.
    PresenceStats(PresenceStatsResult),
    /// Publications of the past.
    History(HistoryResult),
    /// The answer to a client's ping.
    Ping(Empty),
    /// What the method answered.
    Rpc(RpcResult),
    /// The fresh token is accepted.
    Refresh(RefreshResult),
    /// A ping of the server.
    #[default]
    #[serde(untagged)]
    Nothing,
}

/// Why a command failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Error {
    /// The protocol's number.
    pub code: u32,
    /// A sentence.
    pub message: String,
    /// Whether the same command may succeed later.
    #[serde(skip_serializing_if = "is_default")]
    pub temporary: bool,
}

/// Something that happened in a channel or to the connection.
#[derive(Debug, Default, Serialize)]
pub struct Push {
    /// In which channel.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub channel: String,
    /// A publication.
    #[serde(rename = "pub", skip_serializing_if = "Option::is_none")]
    pub publication: Option<Publication>,
    /// The server ended the subscription.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unsubscribe: Option<Reason>,
}

/// Why the server ended something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reason {
    /// The protocol's number.
    pub code: u32,
    /// A sentence.
    pub reason: String,
}

/// A publication.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Publication {
    /// What was published.
    pub data: Data,
    /// Who published it, if a client did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub info: Option<ClientInfo>,
    /// Its number in the channel, if the channel keeps history.
    #[serde(default, skip_serializing_if = "is_default")]
    pub offset: u64,
}

/// A client, as others see it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClientInfo {
    /// The principal.
    pub user: String,
    /// The connection.
    pub client: String,
}

/// An open connection.
#[derive(Debug, Default, Serialize)]
pub struct ConnectResult {
    /// The connection's id.
    pub client: String,
    /// The server's version.
    pub version: String,
    /// Whether the credential ends.
    #[serde(skip_serializing_if = "is_default")]
    pub expires: bool,
    /// Seconds until it does.
    #[serde(skip_serializing_if = "is_default")]
    pub ttl: u32,
    /// Custom data: here, the session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<Data>,
    /// Server-side subscriptions, by channel.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub subs: BTreeMap<String, SubscribeResult>,
    /// Seconds between pings.
    #[serde(skip_serializing_if = "is_default")]
    pub ping: u32,
    /// Whether a ping wants an answer.
    #[serde(skip_serializing_if = "is_default")]
    pub pong: bool,
}

/// A subscription.
#[derive(Debug, Default, Serialize)]
pub struct SubscribeResult {
    /// Whether it can be recovered.
    #[serde(skip_serializing_if = "is_default")]
    pub recoverable: bool,
    /// The life of the channel.
    #[serde(skip_serializing_if = "is_default")]
    pub epoch: String,
    /// What the client missed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub publications: Vec<Publication>,
    /// Whether that is all it missed.
    #[serde(skip_serializing_if = "is_default")]
    pub recovered: bool,
    /// The last publication before the live ones.
    #[serde(skip_serializing_if = "is_default")]
    pub offset: u64,
    /// Whether gaps are told.
    #[serde(skip_serializing_if = "is_default")]
    pub positioned: bool,
    /// Whether recovery was asked for.
    #[serde(skip_serializing_if = "is_default")]
    pub was_recovering: bool,
}

/// Who is subscribed.
#[derive(Debug, Default, Serialize)]
pub struct PresenceResult {
    /// By connection.
    pub presence: BTreeMap<String, ClientInfo>,
}

/// How many are subscribed.
#[derive(Debug, Default, Serialize)]
pub struct PresenceStatsResult {
    /// Connections.
    #[serde(skip_serializing_if = "is_default")]
    pub num_clients: u32,
    /// Principals.
    #[serde(skip_serializing_if = "is_default")]
    pub num_users: u32,
}

/// Publications of the past.
#[derive(Debug, Default, Serialize)]
pub struct HistoryResult {
    /// The publications.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub publications: Vec<Publication>,
    /// The life of the channel.
    #[serde(skip_serializing_if = "is_default")]
    pub epoch: String,
    /// The last publication of the channel.
    #[serde(skip_serializing_if = "is_default")]
    pub offset: u64,
}

/// What a method answered.
#[derive(Debug, Serialize)]
pub struct RpcResult {
    /// Its result.
    pub data: Data,
}

/// A fresh token was accepted.
#[derive(Debug, Default, Serialize)]
pub struct RefreshResult {
    /// The connection's id.
    pub client: String,
    /// The server's version.
    pub version: String,
    /// Whether the credential ends.
    #[serde(skip_serializing_if = "is_default")]
    pub expires: bool,
    /// Seconds until it does.
    #[serde(skip_serializing_if = "is_default")]
    pub ttl: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_have_the_documented_form() {
        let check = |reply: Reply, expected: &str| {
            assert_eq!(serde_json::to_string(&reply).unwrap(), expected);
        };
        check(Reply::default(), "{}");
        check(Reply { id: 3, body: Body::Ping(Empty {}) }, r#"{"id":3,"ping":{}}"#);
        let data = RawValue::from_string("[1, 2]".into()).unwrap();
        let publication = Some(Publication { data, info: None, offset: 4 });
        let push = Push { channel: "c".into(), publication, unsubscribe: None };
        check(
            Reply { id: 0, body: Body::Push(push) },
            r#"{"push":{"channel":"c","pub":{"data":[1, 2],"offset":4}}}"#,
        );
        let error = ErrorCode::UnknownChannel.to_error();
        check(
            Reply { id: 1, body: Body::Error(error) },
            r#"{"id":1,"error":{"code":102,"message":"unknown channel"}}"#,
        );
    }

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

//! What the server sends.

use crate::client::{Data, Empty, filter::Tags, is_default};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, sync::Arc};
use types::Info;

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
    /// The fresh subscription token is accepted.
    SubRefresh(SubRefreshResult),
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
#[derive(Debug, Clone, Default, Serialize)]
pub struct Push {
    /// In which channel, by the number that the subscription was told.
    #[serde(skip_serializing_if = "is_default")]
    pub id: i64,
    /// In which channel, unless `id` says so.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub channel: String,
    /// A publication.
    #[serde(rename = "pub", skip_serializing_if = "Option::is_none")]
    pub publication: Option<Box<Publication>>,
    /// Somebody subscribed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub join: Option<Who>,
    /// Somebody is subscribed no more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leave: Option<Who>,
    /// The server ended the subscription.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unsubscribe: Option<Reason>,
    /// A message to the client itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<Message>,
    /// The server began a subscription.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subscribe: Option<Begun>,
    /// The server ends the connection, and the transport cannot say so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disconnect: Option<Reason>,
}

/// A message outside of any channel.
#[derive(Debug, Clone, Serialize)]
pub struct Message {
    /// What it says.
    pub data: Data,
}

/// Who came or went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Who {
    /// The connection.
    pub info: ClientInfo,
}

/// A subscription that the server began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Begun {
    /// Whether it can be recovered.
    #[serde(skip_serializing_if = "is_default")]
    pub recoverable: bool,
    /// The life of the channel.
    #[serde(skip_serializing_if = "is_default")]
    pub epoch: String,
    /// The last publication before the live ones.
    #[serde(skip_serializing_if = "is_default")]
    pub offset: u64,
    /// Whether gaps are told.
    #[serde(skip_serializing_if = "is_default")]
    pub positioned: bool,
}

/// Why the server ended something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reason {
    /// The protocol's number.
    pub code: u32,
    /// A sentence.
    pub reason: String,
}

/// A publication, or an entry of a map.
#[derive(Debug, Clone, Default)]
pub struct Publication {
    /// What was published.
    pub data: Data,
    /// Who published it, if a client did.
    pub info: Option<ClientInfo>,
    /// Its number in the channel, if the channel keeps history.
    pub offset: u64,
    /// What it is tagged with.
    pub tags: Tags,
    /// How `data` is told.
    pub told: Told,
    /// Which entry of a map it is the value of.
    pub key: String,
    /// Whether that entry is there no more.
    pub removed: bool,
}

/// How the data of a publication is told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Told {
    /// As the JSON that it is.
    #[default]
    Json,
    /// For subscribers that take differences: as a text, which is that JSON.
    Text,
    /// By what makes it of the last publication; see [`crate::client::fossil`].
    Delta(Arc<str>),
}

impl Serialize for Publication {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Form<'a, T: ?Sized> {
            data: &'a T,
            #[serde(skip_serializing_if = "Option::is_none")]
            info: &'a Option<ClientInfo>,
            #[serde(skip_serializing_if = "is_default")]
            offset: u64,
            #[serde(skip_serializing_if = "Tags::is_empty")]
            tags: &'a Tags,
            #[serde(skip_serializing_if = "is_default")]
            delta: bool,
            #[serde(skip_serializing_if = "str::is_empty")]
            key: &'a str,
            #[serde(skip_serializing_if = "is_default")]
            removed: bool,
        }
        let Self { data, info, offset, tags, told, key, removed } = self;
        let (offset, removed) = (*offset, *removed);
        match told {
            Told::Json => {
                Form { data, info, offset, tags, delta: false, key, removed }.serialize(serializer)
            }
            Told::Text => Form { data: data.get(), info, offset, tags, delta: false, key, removed }
                .serialize(serializer),
            Told::Delta(delta) => {
                Form { data: &**delta, info, offset, tags, delta: true, key, removed }
                    .serialize(serializer)
            }
        }
    }
}

/// A client, as others see it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClientInfo {
    /// The principal.
    pub user: String,
    /// The connection.
    pub client: String,
    /// What the credential of the connection says of it.
    #[serde(with = "info", skip_serializing_if = "Option::is_none")]
    pub conn_info: Option<Info>,
    /// What the token of the subscription says of it.
    #[serde(with = "info", skip_serializing_if = "Option::is_none")]
    pub chan_info: Option<Info>,
}

impl ClientInfo {
    /// About how many bytes it takes as JSON, generously.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let infos = [&self.conn_info, &self.chan_info].into_iter().flatten();
        let infos: usize = infos.map(|info| info.as_str().len() + 16).sum();
        32 + self.user.len() + self.client.len() + infos
    }
}

/// JSON within JSON.
mod info {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};
    use serde_json::value::RawValue;
    use types::Info;

    pub(super) fn serialize<S: Serializer>(info: &Option<Info>, to: S) -> Result<S::Ok, S::Error> {
        let json = info.as_ref().map(|info| serde_json::from_str::<&RawValue>(info.as_str()));
        json.transpose().map_err(ser::Error::custom)?.serialize(to)
    }

    pub(super) fn deserialize<'a, D: Deserializer<'a>>(from: D) -> Result<Option<Info>, D::Error> {
        let json = Option::<Box<RawValue>>::deserialize(from)?;
        let too_long = || de::Error::custom("the info is too long");
        json.map(|json| Info::new(json.get()).ok_or_else(too_long)).transpose()
    }
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
    /// The name of the connection for [`crate::client::EmulationRequest`]s, if it takes them.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub session: String,
    /// The node that it is at, for the same.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub node: String,
}

/// A subscription.
#[derive(Debug, Default, Serialize)]
pub struct SubscribeResult {
    /// Whether it ends, unless a fresh token comes.
    #[serde(skip_serializing_if = "is_default")]
    pub expires: bool,
    /// Seconds until it does.
    #[serde(skip_serializing_if = "is_default")]
    pub ttl: u32,
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
    /// Whether publications may come as differences.
    #[serde(skip_serializing_if = "is_default")]
    pub delta: bool,
    /// The number that stands for the channel in pushes.
    #[serde(skip_serializing_if = "is_default")]
    pub id: i64,
    /// What the subscription is to; see [`crate::client::Subscribed`].
    #[serde(rename = "type", skip_serializing_if = "is_default")]
    pub kind: i32,
    /// Of a map: how far the client has come with this answer; see [`crate::client::Phase`].
    #[serde(skip_serializing_if = "is_default")]
    pub phase: i32,
    /// Of a map: what to ask the next page of entries by, if there is one.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cursor: String,
    /// Of a map: entries.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub state: Vec<Publication>,
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

/// A fresh subscription token was accepted.
#[derive(Debug, Default, Serialize)]
pub struct SubRefreshResult {
    /// Whether the subscription ends, unless another comes.
    #[serde(skip_serializing_if = "is_default")]
    pub expires: bool,
    /// Seconds until it does.
    #[serde(skip_serializing_if = "is_default")]
    pub ttl: u32,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::ErrorCode;
    use serde_json::value::RawValue;

    #[test]
    fn frames_have_the_documented_form() {
        let check = |reply: Reply, expected: &str| {
            assert_eq!(serde_json::to_string(&reply).unwrap(), expected);
        };
        check(Reply::default(), "{}");
        check(Reply { id: 3, body: Body::Ping(Empty {}) }, r#"{"id":3,"ping":{}}"#);
        let data = RawValue::from_string("[1, 2]".into()).unwrap();
        let publication = Some(Publication { data, offset: 4, ..Publication::default() });
        let push =
            Push { channel: "c".into(), publication: publication.map(Box::new), ..Push::default() };
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
}

//! Connections, as services and operators see them, and what they have done to them.
//!
//! Whoever holds the sockets answers a [`Question`], each node for its own.

use crate::{
    channels::{Followed, Followers, Page, Wanted},
    totals::{Count, Counted},
    traces::{NewTrace, Trace},
};
use async_trait::async_trait;
use protocol::{Code, Problem};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use std::net::IpAddr;
use types::{Caller, Pillar, PrincipalId, PrincipalKind, SessionId, TenantId, Timestamp};

/// Bytes of the reason of an order.
const REASON_BYTES_MAX: usize = 256;

/// The nodes that hold the connections, all of them.
#[async_trait]
pub trait Holders: Send + Sync {
    /// Asks every node. What one that does not answer would have done is not done.
    ///
    /// # Errors
    /// Those of [`Question::check`]; `upstream_unreachable` if a node does not answer, with the
    /// member `connections`: how many the others told.
    async fn ask(&self, question: Question) -> Result<Answered, Problem>;

    /// Channels that connections of any node follow.
    ///
    /// # Errors
    /// `upstream_unreachable` if a node does not answer, with the member `nodes`: how many did.
    async fn channels(&self, wanted: Wanted) -> Result<Page, Problem>;

    /// Who follows a channel, by node.
    ///
    /// # Errors
    /// `bad_request` for a channel that cannot be, and those of [`Self::channels`].
    async fn followers(&self, of: Followed) -> Result<Vec<Followers>, Problem>;

    /// What goes through the connections of a tenant, by node.
    ///
    /// # Errors
    /// Those of [`Self::channels`].
    async fn count(&self, of: Count) -> Result<Vec<Counted>, Problem>;

    /// Begins a trace on every node. If one does not answer, there is none.
    ///
    /// # Errors
    /// Those of [`NewTrace::check`]; `overloaded` if there are as many as may be; those of
    /// [`Self::channels`].
    async fn begin_trace(&self, by: &Caller, new: NewTrace) -> Result<Trace, Problem>;

    /// Ends a trace on every node; false if there is none.
    ///
    /// # Errors
    /// Those of [`Self::channels`].
    async fn end_trace(&self, tenant: &TenantId, id: &str) -> Result<bool, Problem>;

    /// The traces of a tenant.
    ///
    /// # Errors
    /// Those of [`Self::channels`].
    async fn traces(&self, tenant: &TenantId) -> Result<Vec<Trace>, Problem>;
}

/// Which connections of a tenant: those that fit everything that is said.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "ConnectionSelector")]
pub struct Selector {
    /// The one of this id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connection: Option<String>,
    /// Those bound to this session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
    /// Those of the principal of this name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<PrincipalId>,
    /// Those of principals of this kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<PrincipalKind>,
    /// Those that work in this pillar.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pillar: Option<Pillar>,
    /// Those subscribed to this channel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channel: Option<String>,
}

/// What is to be done to connections.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
#[schemars(rename = "ConnectionOrder")]
pub enum Order {
    /// To close.
    Disconnect {
        /// Whether the client is to come back: 3011, and else 3503.
        #[serde(default)]
        reconnect: bool,
        /// Why, in at most 256 bytes: for the nodes' logs and the client.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// To follow a channel, whatever its namespace allows: the server subscribes it.
    Subscribe {
        /// Which one.
        channel: String,
    },
    /// To follow a channel no more.
    Unsubscribe {
        /// Which one.
        channel: String,
    },
    /// To be sent a message, outside of any channel and at most once.
    Send {
        /// The message.
        data: Json,
    },
}

/// What a node is asked about its connections.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// Whose connections.
    pub tenant: TenantId,
    /// Which of them.
    pub of: Selector,
    /// What is to be done; else they are shown.
    pub order: Option<Order>,
    /// How many are shown at most, and how many subscriptions of each.
    pub limit: usize,
}

/// A node's answer.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answered {
    /// How many connections there are, or were told.
    pub count: usize,
    /// Some of them, if they were to be shown.
    pub shown: Vec<Shown>,
}

impl Answered {
    /// This and what another node answered, with no more shown than asked for.
    pub fn add(&mut self, other: Self, limit: usize) {
        self.count += other.count;
        self.shown.extend(other.shown);
        self.shown.truncate(limit);
    }
}

/// A connection, as it is shown.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Connection")]
pub struct Shown {
    /// Its id.
    pub connection: String,
    /// The node that holds it.
    pub node: String,
    /// The session that it is bound to.
    pub session: SessionId,
    /// Whose it is.
    pub user: PrincipalId,
    /// What that is.
    pub kind: PrincipalKind,
    /// In which pillars it works: its session's, and those that its token names.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub pillars: Vec<Pillar>,
    /// `websocket` or `stream`.
    pub transport: Transport,
    /// `json` or `protobuf`.
    pub encoding: String,
    /// Where it comes from.
    pub ip: IpAddr,
    /// Since when, in milliseconds since 1970 UTC.
    pub since: Timestamp,
    /// When its credential ends, if it does.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub expires: Option<Timestamp>,
    /// How many channels it follows.
    pub subscription_count: usize,
    /// Some of them.
    pub subscriptions: Vec<String>,
    /// Bytes that wait for the client to take them.
    pub waiting_bytes: usize,
}

/// How a connection is carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Transport {
    /// By a WebSocket.
    Websocket,
    /// By an answer without an end, and requests beside it.
    Stream,
}

impl Question {
    /// Refuses what is meant for nobody in particular, and reasons that are too long.
    ///
    /// # Errors
    /// `bad_request`.
    pub fn check(&self) -> Result<(), Problem> {
        if self.order.is_some() && self.of == Selector::default() {
            let detail =
                "say which connections: by connection, session, user, kind, pillar or channel";
            return Err(Problem::new(Code::BadRequest, detail));
        }
        if let Some(Order::Disconnect { reason: Some(reason), .. }) = &self.order
            && reason.len() > REASON_BYTES_MAX
        {
            let detail = format!("a reason has at most {REASON_BYTES_MAX} bytes");
            return Err(Problem::new(Code::BadRequest, detail));
        }
        Ok(())
    }
}

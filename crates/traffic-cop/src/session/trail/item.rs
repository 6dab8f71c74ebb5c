//! One thing that a session did.

use crate::session::trail::Class;
use http::Method;
use serde_json::{Map, Value as Json, json};
use std::{sync::Arc, time::Duration};
use types::Timestamp;

/// Bytes that are shown of a path.
const PATH_BYTES_MAX: usize = 256;

/// A request that was answered.
#[derive(Debug, Clone, PartialEq)]
pub struct Served {
    /// Its method.
    pub method: Method,
    /// Its path, without the query.
    pub path: String,
    /// The route that took it.
    pub route: Arc<str>,
    /// The service that it was for; `crosstown`: the platform itself.
    pub service: Arc<str>,
    /// Host and port of the instance that answered, if one did.
    pub instance: Option<Arc<str>>,
    /// The status of the answer; 499: the client went away before it.
    pub status: u16,
    /// From the first byte of the request to the last of the answer.
    pub latency: Duration,
    /// The trace that it was part of.
    pub trace: String,
}

/// What a session did.
#[derive(Debug, Clone, PartialEq)]
pub enum What {
    /// It asked for something by HTTP.
    Request(Box<Served>),
    /// A socket or a stream of it opened: how, and from where as far as that is remembered.
    SocketOpened {
        /// The connection.
        connection: String,
        /// From where.
        address: Option<String>,
    },
    /// One closed.
    SocketClosed {
        /// The connection.
        connection: String,
        /// The close code; 0: by the client.
        code: u16,
        /// And why.
        reason: String,
    },
    /// It began to follow a channel.
    Subscribed {
        /// Which.
        channel: String,
    },
    /// It follows a channel no more.
    Unsubscribed {
        /// Which.
        channel: String,
    },
    /// It changed an entry of a document.
    State {
        /// Which document: `user:ann`.
        document: String,
        /// Which entries.
        keys: Vec<String>,
        /// The revision that this made.
        revision: u64,
    },
    /// It published.
    Published {
        /// Where.
        channel: String,
        /// The place in the channel's history; 0 if that keeps none.
        offset: u64,
    },
    /// It sent a letter.
    Letter {
        /// To whose mailbox.
        to: String,
        /// Which letter.
        id: String,
    },
    /// So many things are not known of, for want of room.
    Gap {
        /// How many.
        missing: u64,
        /// Since when.
        since: Timestamp,
        /// Whether they may be of any session of the tenant, and not of this one.
        of_tenant: bool,
    },
    /// The same, of sockets.
    SocketGap {
        /// How many.
        missing: u64,
        /// Since when.
        since: Timestamp,
    },
}

impl What {
    pub(super) fn class(&self) -> Class {
        match self {
            Self::SocketOpened { .. } | Self::SocketClosed { .. } | Self::SocketGap { .. } => {
                Class::Sockets
            }
            Self::Request(_)
            | Self::Subscribed { .. }
            | Self::Unsubscribed { .. }
            | Self::State { .. }
            | Self::Published { .. }
            | Self::Letter { .. }
            | Self::Gap { .. } => Class::Timeline,
        }
    }
}

/// What a session did, and when.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    /// When, by the clock of its node.
    pub at: Timestamp,
    /// What.
    pub what: What,
}

impl Item {
    /// As it is stored and shown.
    pub(super) fn written(&self) -> Json {
        let (kind, details) = match &self.what {
            What::Request(served) => ("request", request(served)),
            What::SocketOpened { connection, address } => {
                ("socket_opened", json!({ "connection": connection, "address": address }))
            }
            What::SocketClosed { connection, code, reason } => {
                let details = json!({ "connection": connection, "code": code, "reason": reason });
                ("socket_closed", details)
            }
            What::Subscribed { channel } => ("subscribed", json!({ "channel": channel })),
            What::Unsubscribed { channel } => ("unsubscribed", json!({ "channel": channel })),
            What::State { document, keys, revision } => {
                ("state", json!({ "document": document, "keys": keys, "revision": revision }))
            }
            What::Published { channel, offset } => {
                ("published", json!({ "channel": channel, "offset": offset }))
            }
            What::Letter { to, id } => ("letter", json!({ "to": to, "letter": id })),
            What::Gap { missing, since, of_tenant } => {
                let of = if *of_tenant { "tenant" } else { "session" };
                ("gap", json!({ "missing": missing, "since": since, "of": of }))
            }
            What::SocketGap { missing, since } => {
                ("gap", json!({ "missing": missing, "since": since, "of": "session" }))
            }
        };
        let mut all =
            Map::from_iter([("at".to_owned(), self.at.0.into()), ("kind".to_owned(), kind.into())]);
        if let Json::Object(details) = details {
            all.extend(details.into_iter().filter(|(_, value)| !value.is_null()));
        }
        Json::Object(all)
    }
}

fn request(served: &Served) -> Json {
    let Served { method, path, route, service, instance, status, latency, trace } = served;
    let end = path.floor_char_boundary(PATH_BYTES_MAX);
    let latency_us = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
    json!({
        "method": method.as_str(), "path": &path[..end], "route": route, "service": service,
        "instance": instance, "status": status, "latency_us": latency_us, "trace": trace,
    })
}

//! The product's own HTTP API.
//!
//! [`public`] is what callers use, under `/crosstown/v1`: sessions, state documents, channels
//! and their tenant's traffic. [`admin`] is the operator's, on a listener of its own: health,
//! metrics, API keys and the traffic of all tenants.
//!
//! Every error is a problem document with a public code ([`protocol::Problem`]).

/// Lets a handler take one part of all that its router was given.
macro_rules! from_parts {
    ($parts:ty: $($field:ident: $type:ty,)*) => {
        $(impl axum::extract::FromRef<$parts> for $type {
            fn from_ref(parts: &$parts) -> Self {
                parts.$field.clone()
            }
        })*
    };
}

pub mod admin;
mod answer;
mod blocks;
pub mod cache;
mod channels;
pub mod configuration;
mod connections;
pub mod cores;
mod document;
pub mod explain;
mod instances;
mod limits;
mod mailboxes;
mod metrics;
pub mod realms;
mod request;
pub mod services;
mod sessions;
mod state;
mod traces;
mod traffic;

use crate::document::{About, Served, told};
use aide::axum::{ApiRouter, routing::get_with};
use async_trait::async_trait;
use axum::Router;
use clock::SharedClock;
use post_office::Mailboxes;
use protocol::{Problem, client::filter::Tags};
use serde_json::{Map, Value, value::RawValue};
use soa::Registry;
use std::{
    sync::{Arc, LazyLock},
    time::Duration,
};
use traffic_cop::{
    analytics::Analytics,
    connections::Holders,
    identity::Blocks,
    session::Sessions,
    state::{Applied, Operation, SharedStates},
};
use types::Caller;

/// What the API needs from whoever holds the channels.
#[async_trait]
pub trait Channels: Send + Sync {
    /// Publishes `data`, tagged, and returns its offset in the channel; 0 if no history is kept.
    async fn publish(
        &self,
        caller: &Caller,
        channel: &str,
        data: Box<RawValue>,
        tags: Tags,
    ) -> Result<u64, Problem>;

    /// Sets an entry of a map, or removes it, as `operation` says. It lives for `ttl`, or for as
    /// long as the map has it.
    async fn set(
        &self,
        caller: &Caller,
        channel: &str,
        key: &str,
        operation: Operation,
        ttl: Option<Duration>,
    ) -> Result<Applied, Problem>;

    /// What a channel is, for a caller who speaks for its tenant.
    async fn describe(&self, caller: &Caller, channel: &str)
    -> Result<Map<String, Value>, Problem>;
}

/// What the public API calls.
#[derive(Clone)]
pub struct Parts {
    /// Sessions.
    pub sessions: Arc<Sessions>,
    /// Documents.
    pub states: SharedStates,
    /// Channels.
    pub channels: Arc<dyn Channels>,
    /// Mailboxes.
    pub mailboxes: Arc<Mailboxes>,
    /// Who is kept out.
    pub blocks: Blocks,
    /// Instances that register themselves.
    pub registry: Registry,
    /// The realms.
    pub realms: realms::See,
    /// Whoever holds the connections.
    pub holders: Arc<dyn Holders>,
    /// Traffic.
    pub analytics: Arc<Analytics>,
    /// The time.
    pub clock: SharedClock,
}

const ABOUT: About = About {
    title: "Crosstown",
    description: "Sessions, state documents, channels, mailboxes, services, realms and traffic, \
        under one identity. Everything that fails is a problem document (RFC 9457) with a public \
        code. What is wrong with the framing of a request is refused before any operation is: \
        400, 408, 413, 414, 417, 431, 501 and 505, in the same form.",
    security: (
        document::CREDENTIAL,
        "A token of an issuer, an API key, or the token of a session.",
    ),
    prefix: PREFIX,
    tags: &[
        ("whoami", "How the platform sees the caller."),
        ("openapi", "This document."),
        ("sessions", "Sessions, their devices, events and routes."),
        ("state", "Documents that are shared, and where they are kept."),
        ("channels", "Channels that sockets follow."),
        ("connections", "Who is connected, to any node."),
        ("traces", "What passes through some connections."),
        ("blocks", "Who is kept out."),
        ("users", "Keeping a user out."),
        ("services", "Instances that register themselves."),
        ("realms", "What can be called, and what it promises."),
        ("mailboxes", "Letters that wait until they are read."),
        ("analytics", "Traffic of the caller's tenant."),
    ],
};
const PREFIX: &str = "/crosstown/v1";

from_parts! { Parts:
    sessions: Arc<Sessions>,
    states: SharedStates,
    channels: Arc<dyn Channels>,
    mailboxes: Arc<Mailboxes>,
    blocks: Blocks,
    registry: Registry,
    realms: realms::See,
    holders: Arc<dyn Holders>,
}

/// The OpenAPI document of the public API.
#[must_use]
pub fn openapi() -> Value {
    document::of(&ABOUT, v1)
}

/// The routes under `/crosstown/v1`. Each request carries its `Arc<Caller>` as an extension,
/// which the gateway puts there.
pub fn public(parts: Parts) -> Router {
    Router::from(v1())
        .with_state(parts)
        .fallback(answer::no_such_path)
        .method_not_allowed_fallback(answer::no_such_method)
}

fn v1() -> ApiRouter<Parts> {
    let v1 = ApiRouter::new()
        .api_route(
            "/whoami",
            get_with(request::whoami, told("whoAmI", "How the platform sees the caller.", &[])),
        )
        .api_route(
            "/openapi.json",
            get_with(read_openapi, told("readOpenApi", "This document.", &[])),
        )
        .merge(sessions::routes())
        .merge(state::routes())
        .merge(channels::routes())
        .merge(connections::routes())
        .merge(traces::routes())
        .merge(blocks::routes())
        .merge(instances::routes())
        .merge(realms::routes())
        .merge(mailboxes::routes())
        .merge(traffic::routes());
    ApiRouter::new().nest(PREFIX, v1)
}

async fn read_openapi() -> Served {
    static DOCUMENT: LazyLock<Served> = LazyLock::new(|| Served::new(&openapi()));
    DOCUMENT.clone()
}

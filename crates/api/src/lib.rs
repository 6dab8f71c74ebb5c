//! The product's own HTTP API.
//!
//! [`public`] is what callers use, under `/crosstown/v1`: sessions, state documents, channels
//! and their tenant's traffic. [`admin`] is the operator's, on a listener of its own: health,
//! metrics, API keys and the traffic of all tenants.
//!
//! Every error is a problem document with a public code ([`protocol::Problem`]).

pub mod admin;
mod answer;
mod blocks;
pub mod cache;
mod channels;
pub mod configuration;
mod connections;
pub mod cores;
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

use async_trait::async_trait;
use axum::{Router, routing::get};
use clock::SharedClock;
use post_office::Mailboxes;
use protocol::{Problem, client::filter::Tags};
use serde_json::{Map, Value, value::RawValue};
use soa::Registry;
use std::{sync::Arc, time::Duration};
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

/// The routes under `/crosstown/v1`. Each request carries its `Arc<Caller>` as an extension,
/// which the gateway puts there.
pub fn public(parts: &Parts) -> Router {
    let v1 = Router::new()
        .route("/whoami", get(request::whoami))
        .merge(sessions::routes(parts.sessions.clone()))
        .merge(state::routes(parts.states.clone()))
        .merge(channels::routes(parts.channels.clone(), parts.holders.clone()))
        .merge(connections::routes(parts.holders.clone()))
        .merge(traces::routes(parts.holders.clone()))
        .merge(blocks::routes(parts.blocks.clone()))
        .merge(instances::routes(parts.registry.clone()))
        .merge(realms::routes(parts.realms.clone()))
        .merge(mailboxes::routes(parts.mailboxes.clone()))
        .merge(traffic::routes(parts.analytics.clone(), parts.clock.clone()));
    Router::new()
        .nest("/crosstown/v1", v1)
        .fallback(answer::no_such_path)
        .method_not_allowed_fallback(answer::no_such_method)
}

//! The operator's API, on a listener of its own.
//!
//! `/health` and `/ready` are open; everything else needs the admin key as a bearer token.

mod api_keys;
mod health;

use crate::{
    answer::{self, Answer, Refusal, Text, refuse},
    cache,
    configuration::{self, Configuration},
    cores::CoreView,
    document::{self, About, Served, told},
    explain::{self, Explains},
    instances, limits, metrics, realms,
    request::Json,
    services, traffic,
};
use aide::axum::{
    ApiRouter,
    routing::{get_with, post_with},
};
use axum::{
    Router,
    extract::{Request, State},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use clock::SharedClock;
use http::header;
use protocol::{Code, Problem};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;
use std::{
    sync::{Arc, LazyLock},
    time::Duration,
};
use store_guard::{GuardedFanout, GuardedStore};
use traffic_cop::{
    analytics::Analytics,
    identity::{Identity, api_key::ApiKeys},
    limit::Limits,
    secret_matches,
    totals::Passed,
};

/// How the node is at this moment.
#[derive(Debug, Clone)]
pub struct Vitals {
    /// Open client connections.
    pub connections: usize,
    /// Open client-protocol sockets.
    pub sockets: usize,
    /// Client-protocol sockets that have ended since the start: the close code (0: closed by the
    /// client), its reason, and how many.
    pub closings: Vec<(u16, &'static str, u64)>,
    /// Channels that connections follow, and their subscriptions.
    pub followed: (u64, u64),
    /// What is in this node's memory alone.
    pub live: Live,
    /// What has passed through client-protocol sockets since the start.
    pub passed: Passed,
    /// Requests being answered.
    pub in_flight: usize,
    /// Whether the node is shutting down.
    pub draining: bool,
    /// The cores of the edge.
    pub cores: Vec<CoreView>,
    /// TLS of the edge, if it is spoken.
    pub tls: Option<TlsView>,
    /// How often a receiver of telemetry was told, and how often what it should have been told was
    /// given up; if there is one.
    pub exports: Option<(u64, u64)>,
}

/// TLS of the edge, as this node speaks it.
#[derive(Debug, Clone)]
pub struct TlsView {
    /// Why the files as they are now are not taken; those before them are in use.
    pub problem: Option<String>,
    /// How often the files were taken anew.
    pub renewals: u64,
    /// Handshakes that have failed.
    pub failed: u64,
}

/// What is in a node's memory alone: how many, and how many bytes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Live {
    /// Documents.
    pub documents: (u64, u64),
    /// Histories of channels.
    pub channels: (u64, u64),
}

/// What the admin API calls.
#[derive(Clone)]
pub struct Parts {
    /// The hash of the admin key, as [`traffic_cop::secret_hash`] makes it.
    pub key_hash: Arc<str>,
    /// API keys of all tenants.
    pub api_keys: ApiKeys,
    /// Traffic of all tenants.
    pub analytics: Arc<Analytics>,
    /// Rate limits.
    pub limits: Arc<Limits>,
    /// The stores by tier, for health and metrics.
    pub stores: Vec<(&'static str, Arc<GuardedStore>)>,
    /// What passes between nodes, unless it goes through a store.
    pub live: Option<Arc<GuardedFanout>>,
    /// Who was let in by a copy.
    pub identity: Arc<Identity>,
    /// The time.
    pub clock: SharedClock,
    /// How the node is.
    pub vitals: Arc<dyn Fn() -> Vitals + Send + Sync>,
    /// The services.
    pub services: services::See,
    /// Instances that register themselves.
    pub registry: soa::Registry,
    /// The realms.
    pub realms: realms::See,
    /// The answers that are kept.
    pub cache: cache::Cache,
    /// The configuration, with secrets redacted.
    pub config: Arc<str>,
    /// Reads the configuration again and applies it; the answer is a sentence.
    pub reload: Arc<dyn Fn() -> Result<String, String> + Send + Sync>,
    /// Tells what would become of a request.
    pub explains: Arc<dyn Explains>,
    /// Plans, applies, tries and takes back configurations.
    pub configuration: Arc<dyn Configuration>,
}

const ABOUT: About = About {
    title: "Crosstown for operators",
    description: "The admin listener of a node: how it is, what passes through it, its \
        configuration, API keys. It listens on the loopback interface, unless it is configured \
        otherwise.",
    security: (document::ADMIN_KEY, "The admin key, as a bearer token."),
    prefix: "/",
    tags: &[
        ("health", "Whether the node does its work."),
        ("ready", "Whether it takes connections."),
        ("metrics", "Figures for Prometheus."),
        ("openapi", "This document."),
        ("config", "The configuration as a transaction."),
        ("reload", "The configuration, read again."),
        ("api-keys", "Credentials of services."),
        ("analytics", "Traffic of all tenants."),
        ("limits", "Limits in shadow, and full again."),
        ("services", "Services and their instances."),
        ("realms", "Realms and what they promise."),
        ("cache", "Answers that are kept."),
        ("explain", "What would become of a request."),
    ],
};

from_parts! { Parts:
    services: services::See,
    registry: soa::Registry,
    realms: realms::See,
    cache: cache::Cache,
    explains: Arc<dyn Explains>,
    configuration: Arc<dyn Configuration>,
}

/// The OpenAPI document of the admin API.
#[must_use]
pub fn openapi() -> Value {
    document::of(&ABOUT, || health::routes().merge(guarded()))
}

/// The admin API's routes.
pub fn routes(parts: Parts) -> Router {
    let guard = middleware::from_fn_with_state(parts.clone(), guard);
    let guarded: Router<Parts> = guarded().route_layer(guard).into();
    Router::from(health::routes())
        .merge(guarded)
        .with_state(parts)
        .fallback(answer::no_such_path)
        .method_not_allowed_fallback(answer::no_such_method)
}

/// What needs the admin key.
fn guarded() -> ApiRouter<Parts> {
    ApiRouter::new()
        .api_route(
            "/openapi.json",
            get_with(read_openapi, told("readOpenApi", "This document.", &[])),
        )
        .api_route("/metrics", get_with(prometheus, told("readMetrics", "Figures.", &[])))
        .api_route(
            "/config",
            get_with(config, told("readConfig", "What is in force, secrets redacted.", &[])),
        )
        .api_route("/reload", post_with(reload, told("reload", "Read the file again.", &[])))
        .merge(api_keys::routes())
        .merge(traffic::admin_routes())
        .merge(limits::admin_routes())
        .merge(services::admin_routes())
        .merge(instances::admin_routes())
        .merge(realms::admin_routes())
        .merge(cache::admin_routes())
        .merge(configuration::admin_routes())
        .merge(explain::admin_routes())
        .with_path_items(|mut item| {
            for operation in document::operations(item.inner_mut()) {
                document::needs(operation, document::ADMIN_KEY, true);
            }
            item
        })
}

async fn read_openapi() -> Served {
    static DOCUMENT: LazyLock<Served> = LazyLock::new(|| Served::new(&openapi()));
    DOCUMENT.clone()
}

async fn guard(State(parts): State<Parts>, request: Request, next: Next) -> Response {
    let value = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let key = value.and_then(|value| value.strip_prefix("Bearer "));
    if key.is_some_and(|key| secret_matches(key, &parts.key_hash)) {
        return next.run(request).await;
    }
    let detail = "this needs the admin key: `Authorization: Bearer …`";
    Refusal(Problem::new(Code::Unauthenticated, detail)).into_response()
}

async fn prometheus(State(parts): State<Parts>) -> Text {
    Text { format: "text/plain; version=0.0.4", body: metrics::render(&parts) }
}

async fn config(State(parts): State<Parts>) -> Text {
    Text { format: "text/plain; charset=utf-8", body: parts.config.to_string() }
}

/// What became of a reload.
#[derive(Serialize, JsonSchema)]
struct Reloaded {
    /// In a sentence.
    status: String,
}

async fn reload(State(parts): State<Parts>) -> Answer<Json<Reloaded>> {
    match (parts.reload)() {
        Ok(status) => Ok(Json(Reloaded { status })),
        Err(why) => refuse(Code::BadRequest, why),
    }
}

pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

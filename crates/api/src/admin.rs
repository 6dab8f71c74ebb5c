//! The operator's API, on a listener of its own.
//!
//! `/health` and `/ready` are open; everything else needs the admin key as a bearer token.

use crate::{
    answer::{self, Answer, Created, Done, OkOr, Refusal, Text, refuse},
    cache,
    configuration::{self, Configuration},
    cores::{self, CoreTold, CoreView},
    document::{self, About, OfOpenApi, told},
    explain::{self, Explains},
    instances, limits, metrics, realms,
    request::{InPath, Json, Wanted},
    services, traffic,
};
use aide::axum::{
    ApiRouter,
    routing::{delete_with, get_with, post_with},
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
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    sync::{Arc, LazyLock},
    time::Duration,
};
use store::{Capabilities, Store, Survives};
use store_guard::{Condition, GuardedFanout, GuardedStore, Report};
use traffic_cop::{
    analytics::Analytics,
    identity::{
        Identity,
        api_key::{ApiKey, ApiKeys, NewApiKey},
    },
    limit::Limits,
    secret_matches,
    totals::Passed,
};
use types::TenantId;

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

impl Live {
    fn told(self) -> LiveTold {
        let told = |(count, bytes)| Amount { count, bytes };
        LiveTold { documents: told(self.documents), channels: told(self.channels) }
    }
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
    document::of(&ABOUT, || open().merge(guarded()))
}

/// The admin API's routes.
pub fn routes(parts: Parts) -> Router {
    let guard = middleware::from_fn_with_state(parts.clone(), guard);
    let guarded: Router<Parts> = guarded().route_layer(guard).into();
    Router::from(open())
        .merge(guarded)
        .with_state(parts)
        .fallback(answer::no_such_path)
        .method_not_allowed_fallback(answer::no_such_method)
}

/// What anybody may ask who reaches the listener.
fn open() -> ApiRouter<Parts> {
    let draining = &[Code::Draining];
    ApiRouter::new()
        .api_route("/health", get_with(health, told("readHealth", "How the node is.", &[])))
        .api_route("/ready", get_with(ready, told("readReady", "Whether it is ready.", draining)))
}

/// What needs the admin key.
fn guarded() -> ApiRouter<Parts> {
    let keys = post_with(create_key, told("createApiKey", "Make an API key.", &[Code::Conflict]))
        .get_with(list_keys, told("listApiKeys", "The API keys of a tenant.", &[]));
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
        .api_route("/api-keys", keys)
        .api_route(
            "/api-keys/{tenant}/{id}",
            delete_with(delete_key, told("deleteApiKey", "Delete an API key.", &[Code::NotFound])),
        )
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

async fn read_openapi() -> Answer<Json<OfOpenApi>> {
    static DOCUMENT: LazyLock<Value> = LazyLock::new(openapi);
    Ok(Json(OfOpenApi(DOCUMENT.clone())))
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

/// How a node is.
#[derive(Serialize, JsonSchema)]
struct Health {
    /// `ok`, `degraded`: not all that it does is as it should be; `store_unavailable`: not
    /// everything can be done.
    status: &'static str,
    /// The stores, by tier.
    stores: BTreeMap<&'static str, StoreTold>,
    /// Whether it is shutting down.
    draining: bool,
    /// What is in its memory alone.
    live: LiveTold,
    /// The cores of the edge.
    cores: Vec<CoreTold>,
    /// TLS of the edge, if it is spoken.
    #[serde(skip_serializing_if = "Option::is_none")]
    tls: Option<TlsTold>,
    /// What passes between nodes, unless it goes through a store.
    #[serde(skip_serializing_if = "Option::is_none")]
    fanout: Option<EngineTold>,
}

/// How a store is.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "StoreHealth")]
struct StoreTold {
    #[serde(flatten)]
    is: EngineTold,
    /// The engine and where it is, without secrets.
    engine: String,
    /// What an acknowledged write survives: `nothing`, `process`, `power_loss`.
    acknowledged_survives: &'static str,
}

/// How an engine is.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "EngineHealth")]
struct EngineTold {
    /// `well`, `slow`, `read_only` or `away`.
    condition: &'static str,
    /// Since when, in milliseconds.
    for_ms: u64,
    /// How long answers take, smoothed.
    latency_ms: u64,
    /// Calls that wait for one.
    under_way: usize,
}

/// What is in a node's memory alone.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Live")]
struct LiveTold {
    documents: Amount,
    channels: Amount,
}

/// How many, and how many bytes.
#[derive(Serialize, JsonSchema)]
struct Amount {
    count: u64,
    bytes: u64,
}

/// TLS of the edge.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "TlsHealth")]
struct TlsTold {
    /// Why the files as they are now are not taken.
    problem: Option<String>,
    /// How often they were taken anew.
    renewals: u64,
}

/// Whether the node does its work, and each engine its own. It is not shed, and not guarded.
/// 503 while a store is away, since then not everything can be done; else 200.
async fn health(State(parts): State<Parts>) -> Answer<OkOr<503, Health>> {
    let Vitals { draining, live, cores, tls, .. } = (parts.vitals)();
    let reports = parts.stores.iter().map(|(tier, store)| (*tier, store, store.report()));
    let reports: Vec<_> = reports.collect();
    let worst = reports.iter().map(|(_, _, report)| report.condition).max();
    let fanout = parts.live.as_ref().map(|live| live.report());
    // Certificates of before are for now: they will end. Without the fan-out, what needs no
    // history waits or is refused; everything else goes on.
    let is_degraded = matches!(worst, Some(Condition::Slow | Condition::ReadOnly))
        || cores::is_overloaded(&cores)
        || tls.as_ref().is_some_and(|tls| tls.problem.is_some())
        || fanout.as_ref().is_some_and(|fanout| fanout.condition != Condition::Well);
    let is_away = worst == Some(Condition::Away);
    let health = Health {
        status: match (is_away, is_degraded) {
            (true, _) => "store_unavailable",
            (false, true) => "degraded",
            (false, false) => "ok",
        },
        stores: reports
            .iter()
            .map(|(tier, store, report)| (*tier, told_of(store, report)))
            .collect(),
        draining,
        live: live.told(),
        cores: cores::told(&cores),
        tls: tls.map(|tls| TlsTold { problem: tls.problem, renewals: tls.renewals }),
        fanout: fanout.as_ref().map(EngineTold::from),
    };
    Ok(if is_away { OkOr::Else(health) } else { OkOr::Ok(health) })
}

fn told_of(store: &GuardedStore, report: &Report) -> StoreTold {
    let Capabilities { engine, survives } = store.capabilities();
    let acknowledged_survives = match survives {
        Survives::Nothing => "nothing",
        Survives::Process => "process",
        Survives::PowerLoss => "power_loss",
    };
    StoreTold { is: report.into(), engine, acknowledged_survives }
}

impl From<&Report> for EngineTold {
    fn from(report: &Report) -> Self {
        Self {
            condition: report.condition.as_str(),
            for_ms: millis(report.lasts),
            latency_ms: millis(report.latency),
            under_way: report.under_way,
        }
    }
}

pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// That a node takes new connections.
#[derive(Serialize, JsonSchema)]
struct Ready {
    /// `ready`.
    status: &'static str,
}

async fn ready(State(parts): State<Parts>) -> Answer<Json<Ready>> {
    if (parts.vitals)().draining {
        return refuse(Code::Draining, "the node is shutting down");
    }
    Ok(Json(Ready { status: "ready" }))
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

/// An API key and its credential.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "CreatedApiKey")]
struct CreatedKey {
    #[serde(flatten)]
    key: ApiKey,
    /// The credential. It is shown this once.
    text: String,
}

async fn create_key(
    State(parts): State<Parts>,
    Json(new): Json<NewApiKey>,
) -> Answer<Created<CreatedKey>> {
    let (key, text) = parts.api_keys.create(new).await?;
    Ok(Created(CreatedKey { key, text }))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct OfTenant {
    /// Whose.
    tenant: TenantId,
}

/// The API keys of a tenant.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ApiKeys")]
struct Listed {
    api_keys: Vec<ApiKey>,
}

async fn list_keys(
    State(parts): State<Parts>,
    Wanted(of): Wanted<OfTenant>,
) -> Answer<Json<Listed>> {
    Ok(Json(Listed { api_keys: parts.api_keys.list(&of.tenant).await? }))
}

/// Which API key a path names.
#[derive(Deserialize, JsonSchema)]
struct OfKey {
    /// Whose it is.
    #[schemars(with = "TenantId")]
    tenant: String,
    /// Its id.
    id: String,
}

async fn delete_key(
    State(parts): State<Parts>,
    InPath(OfKey { tenant, id }): InPath<OfKey>,
) -> Answer<Done> {
    let Ok(tenant) = TenantId::new(&tenant) else {
        return refuse(Code::NotFound, "there is no such API key");
    };
    parts.api_keys.delete(&tenant, &id).await?;
    Ok(Done)
}

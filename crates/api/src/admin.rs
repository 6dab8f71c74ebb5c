//! The operator's API, on a listener of its own.
//!
//! `/health` and `/ready` are open; everything else needs the admin key as a bearer token.

use crate::{
    answer::{self, Answer, Refusal, json, json_with, no_content, refuse},
    cache,
    configuration::{self, Configuration},
    cores::{self, CoreView},
    explain::{self, Explains},
    instances, limits, metrics, realms,
    request::{Json, Wanted},
    services, traffic,
};
use axum::{
    Router,
    extract::{Path, Request, State},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{delete, get, post},
};
use clock::SharedClock;
use http::{StatusCode, header};
use protocol::{Code, Problem};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json as object};
use std::{sync::Arc, time::Duration};
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
    fn told(self) -> Value {
        let told = |(count, bytes)| object!({ "count": count, "bytes": bytes });
        object!({ "documents": told(self.documents), "channels": told(self.channels) })
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

/// The admin API's routes.
pub fn routes(parts: Parts) -> Router {
    let guarded = Router::new()
        .route("/metrics", get(prometheus))
        .route("/config", get(config))
        .route("/reload", post(reload))
        .route("/api-keys", post(create_key).get(list_keys))
        .route("/api-keys/{tenant}/{id}", delete(delete_key))
        .with_state(parts.clone())
        .merge(traffic::admin_routes(parts.analytics.clone(), parts.clock.clone()))
        .merge(limits::admin_routes(parts.limits.clone(), parts.clock.clone()))
        .merge(services::admin_routes(parts.services.clone()))
        .merge(instances::admin_routes(parts.registry.clone()))
        .merge(realms::admin_routes(parts.realms.clone()))
        .merge(cache::admin_routes(parts.cache.clone()))
        .merge(configuration::admin_routes(parts.configuration.clone()))
        .merge(explain::admin_routes(parts.explains.clone()))
        .route_layer(middleware::from_fn_with_state(parts.clone(), guard));
    Router::new()
        .route("/health", get(health))
        .route("/ready", get(ready))
        .with_state(parts)
        .merge(guarded)
        .fallback(answer::no_such_path)
        .method_not_allowed_fallback(answer::no_such_method)
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

/// Whether the node does its work, and each engine its own. It is not shed, and not guarded.
/// 503 while a store is away, since then not everything can be done; else 200.
async fn health(State(parts): State<Parts>) -> Answer {
    let mut worst = Condition::Well;
    let mut stores = Map::new();
    for (tier, store) in &parts.stores {
        let Capabilities { engine, survives } = store.capabilities();
        let survives = match survives {
            Survives::Nothing => "nothing",
            Survives::Process => "process",
            Survives::PowerLoss => "power_loss",
        };
        let report = store.report();
        worst = worst.max(report.condition);
        let mut store = told(&report);
        store["engine"] = engine.into();
        store["acknowledged_survives"] = survives.into();
        stores.insert((*tier).to_owned(), store);
    }
    let (status, state) = match worst {
        Condition::Well => (StatusCode::OK, "ok"),
        Condition::Slow | Condition::ReadOnly => (StatusCode::OK, "degraded"),
        Condition::Away => (StatusCode::SERVICE_UNAVAILABLE, "store_unavailable"),
    };
    let Vitals { draining, live, cores, tls, .. } = (parts.vitals)();
    let mut health = object!({ "status": state, "stores": stores, "draining": draining });
    health["live"] = live.told();
    if cores::is_overloaded(&cores) && status == StatusCode::OK {
        health["status"] = "degraded".into();
    }
    health["cores"] = cores::told(&cores);
    if let Some(tls) = tls {
        // It is for now: the certificates of before will end.
        if tls.problem.is_some() && status == StatusCode::OK {
            health["status"] = "degraded".into();
        }
        health["tls"] = object!({ "problem": tls.problem, "renewals": tls.renewals });
    }
    if let Some(live) = &parts.live {
        let live = live.report();
        // Without it, what needs no history waits or is refused; everything else goes on.
        if live.condition != Condition::Well && status == StatusCode::OK {
            health["status"] = "degraded".into();
        }
        health["fanout"] = told(&live);
    }
    json_with(status, health)
}

fn told(report: &Report) -> Value {
    object!({
        "condition": report.condition.as_str(),
        "for_ms": millis(report.lasts),
        "latency_ms": millis(report.latency),
        "under_way": report.under_way,
    })
}

pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Whether the node takes new connections.
async fn ready(State(parts): State<Parts>) -> Answer {
    if (parts.vitals)().draining {
        return refuse(Code::Draining, "the node is shutting down");
    }
    json(object!({ "status": "ready" }))
}

async fn prometheus(State(parts): State<Parts>) -> Response {
    let format = [(header::CONTENT_TYPE, "text/plain; version=0.0.4")];
    (format, metrics::render(&parts)).into_response()
}

async fn config(State(parts): State<Parts>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], parts.config.to_string())
        .into_response()
}

async fn reload(State(parts): State<Parts>) -> Answer {
    match (parts.reload)() {
        Ok(done) => json(object!({ "status": done })),
        Err(why) => refuse(Code::BadRequest, why),
    }
}

#[derive(Serialize)]
struct Created {
    #[serde(flatten)]
    key: ApiKey,
    /// The credential. It is shown this once.
    text: String,
}

async fn create_key(State(parts): State<Parts>, Json(new): Json<NewApiKey>) -> Answer {
    let (key, text) = parts.api_keys.create(new).await?;
    json_with(StatusCode::CREATED, Created { key, text })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OfTenant {
    tenant: TenantId,
}

async fn list_keys(State(parts): State<Parts>, Wanted(of): Wanted<OfTenant>) -> Answer {
    json(object!({ "api_keys": parts.api_keys.list(&of.tenant).await? }))
}

async fn delete_key(
    State(parts): State<Parts>,
    Path((tenant, id)): Path<(String, String)>,
) -> Answer {
    let Ok(tenant) = TenantId::new(&tenant) else {
        return refuse(Code::NotFound, "there is no such API key");
    };
    parts.api_keys.delete(&tenant, &id).await?;
    no_content()
}

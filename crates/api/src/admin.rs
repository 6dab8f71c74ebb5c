//! The operator's API, on a listener of its own.
//!
//! `/health` and `/ready` are open; everything else needs the admin key as a bearer token.

use crate::{
    answer::{self, Answer, Refusal, json, json_with, no_content, refuse},
    metrics,
    request::{Json, Wanted},
    traffic,
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
use store::{Capabilities, Kind, Partition, SharedStore, Store, Survives};
use traffic_cop::{
    analytics::Analytics,
    identity::api_key::{ApiKey, ApiKeys, NewApiKey},
    limit::Limits,
    secret_matches,
};
use types::TenantId;

/// How long a store may take to answer when its health is asked for.
const PROBE: Duration = Duration::from_secs(2);

/// How the node is at this moment.
#[derive(Debug, Clone, Copy)]
pub struct Vitals {
    /// Open client connections.
    pub connections: usize,
    /// Open client-protocol sockets.
    pub sockets: usize,
    /// Requests being answered.
    pub in_flight: usize,
    /// Whether the node is shutting down.
    pub draining: bool,
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
    /// The stores by tier, for health.
    pub stores: Vec<(&'static str, SharedStore)>,
    /// The time.
    pub clock: SharedClock,
    /// How the node is.
    pub vitals: Arc<dyn Fn() -> Vitals + Send + Sync>,
    /// The configuration, with secrets redacted.
    pub config: Arc<str>,
    /// Reads the configuration again and applies it; the answer is a sentence.
    pub reload: Arc<dyn Fn() -> Result<String, String> + Send + Sync>,
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

/// Whether the node does its work, and each store its own. It is not shed, and not guarded.
async fn health(State(parts): State<Parts>) -> Answer {
    let asked = parts.stores.iter().map(|(tier, store)| async move {
        let Capabilities { engine, survives } = store.capabilities();
        let survives = match survives {
            Survives::Nothing => "nothing",
            Survives::Process => "process",
            Survives::PowerLoss => "power_loss",
        };
        let answers = answers(&**store).await;
        let told = object!({
            "engine": engine, "acknowledged_survives": survives, "answers": answers,
        });
        (answers, ((*tier).to_owned(), told))
    });
    let stores = futures_util::future::join_all(asked).await;
    let (status, state) = if stores.iter().all(|(answers, ..)| *answers) {
        (StatusCode::OK, "ok")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "store_unavailable")
    };
    let stores: Map<String, Value> = stores.into_iter().map(|(_, told)| told).collect();
    let draining = (parts.vitals)().draining;
    json_with(status, object!({ "status": state, "stores": stores, "draining": draining }))
}

async fn answers(store: &dyn Store) -> bool {
    let Ok(probe) = Partition::new(TenantId::system(), Kind::new("probe"), "health") else {
        return false;
    };
    let read = tokio::time::timeout(PROBE, store.head(&probe)).await;
    matches!(read, Ok(Ok(_)))
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

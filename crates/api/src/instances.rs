//! `/crosstown/v1/services`: instances that register themselves.

use crate::{
    answer::{Answer, json, json_with, no_content},
    request::{By, Json},
};
use axum::{
    Router,
    extract::{Path, State},
    routing::{get, put},
};
use http::StatusCode;
use serde::Serialize;
use soa::{NewInstance, Registered, Registry};

pub(crate) fn routes(registry: Registry) -> Router {
    Router::new()
        .route("/services", get(services))
        .route("/services/{service}/instances", get(list).post(register))
        .route("/services/{service}/instances/{id}", put(renew).delete(deregister))
        .with_state(registry)
}

pub(crate) fn admin_routes(registry: Registry) -> Router {
    Router::new()
        .route("/services/{service}/instances/{id}", axum::routing::delete(remove))
        .with_state(registry)
}

/// A registration, and when the next heartbeat should come: three fit into its time to live.
#[derive(Serialize)]
struct Told {
    #[serde(flatten)]
    registered: Registered,
    renew_after_ms: u64,
}

impl From<Registered> for Told {
    fn from(registered: Registered) -> Self {
        Self { renew_after_ms: registered.ttl_ms / 3, registered }
    }
}

#[derive(Serialize)]
struct Services {
    services: Vec<String>,
}

#[derive(Serialize)]
struct Instances {
    instances: Vec<Registered>,
}

async fn services(State(registry): State<Registry>, by: By) -> Answer {
    json(Services { services: registry.services(&by) })
}

async fn list(State(registry): State<Registry>, by: By, Path(service): Path<String>) -> Answer {
    json(Instances { instances: registry.list(&by, &service).await? })
}

async fn register(
    State(registry): State<Registry>,
    by: By,
    Path(service): Path<String>,
    Json(new): Json<NewInstance>,
) -> Answer {
    let (registered, is_new) = registry.register(&by, &service, new).await?;
    let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    json_with(status, Told::from(registered))
}

async fn renew(
    State(registry): State<Registry>,
    by: By,
    Path((service, id)): Path<(String, String)>,
) -> Answer {
    json(Told::from(registry.renew(&by, &service, &id).await?))
}

async fn deregister(
    State(registry): State<Registry>,
    by: By,
    Path((service, id)): Path<(String, String)>,
) -> Answer {
    registry.deregister(&by, &service, &id).await?;
    no_content()
}

async fn remove(
    State(registry): State<Registry>,
    Path((service, id)): Path<(String, String)>,
) -> Answer {
    registry.remove(&service, &id).await?;
    no_content()
}

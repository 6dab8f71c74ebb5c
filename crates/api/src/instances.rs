//! `/crosstown/v1/services`: instances that register themselves.

use crate::{
    Parts, admin,
    answer::{Answer, Done, OkOr},
    document::told,
    request::{By, InPath, Json},
};
use aide::axum::{
    ApiRouter,
    routing::{delete_with, get_with, put_with},
};
use axum::extract::State;
use protocol::Code::{Conflict, NotFound};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use soa::{NewInstance, Registered, Registry};

pub(crate) fn routes() -> ApiRouter<Parts> {
    let many = get_with(list, told("listInstances", "Instances that are registered.", &[NotFound]))
        .post_with(
            register,
            told("registerInstance", "Register an instance.", &[NotFound, Conflict]),
        );
    let one =
        put_with(renew, told("renewInstance", "Say that it is there.", &[NotFound, Conflict]))
            .delete_with(
                deregister,
                told("deregisterInstance", "Take it away.", &[NotFound, Conflict]),
            );
    ApiRouter::new()
        .api_route(
            "/services",
            get_with(services, told("listServices", "Services to register with.", &[])),
        )
        .api_route("/services/{service}/instances", many)
        .api_route("/services/{service}/instances/{id}", one)
}

pub(crate) fn admin_routes() -> ApiRouter<admin::Parts> {
    ApiRouter::new().api_route(
        "/services/{service}/instances/{id}",
        delete_with(
            remove,
            told("removeInstance", "Take an instance away.", &[NotFound, Conflict]),
        ),
    )
}

/// Which service a path names.
#[derive(Deserialize, JsonSchema)]
struct OfService {
    /// As it is configured.
    service: String,
}

/// Which instance a path names.
#[derive(Deserialize, JsonSchema)]
struct OfInstance {
    /// The service, as it is configured.
    service: String,
    /// The instance's id.
    id: String,
}

/// A registration, and when the next heartbeat should come: three fit into its time to live.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Registration")]
struct Told {
    #[serde(flatten)]
    registered: Registered,
    /// When to renew it.
    renew_after_ms: u64,
}

impl From<Registered> for Told {
    fn from(registered: Registered) -> Self {
        Self { renew_after_ms: registered.ttl_ms / 3, registered }
    }
}

/// Services that an instance may be registered with.
#[derive(Serialize, JsonSchema)]
struct Services {
    services: Vec<String>,
}

/// Instances that are registered.
#[derive(Serialize, JsonSchema)]
struct Instances {
    instances: Vec<Registered>,
}

async fn services(State(registry): State<Registry>, by: By) -> Answer<Json<Services>> {
    Ok(Json(Services { services: registry.services(&by) }))
}

async fn list(
    State(registry): State<Registry>,
    by: By,
    InPath(OfService { service }): InPath<OfService>,
) -> Answer<Json<Instances>> {
    Ok(Json(Instances { instances: registry.list(&by, &service).await? }))
}

async fn register(
    State(registry): State<Registry>,
    by: By,
    InPath(OfService { service }): InPath<OfService>,
    Json(new): Json<NewInstance>,
) -> Answer<OkOr<201, Told>> {
    let (registered, is_new) = registry.register(&by, &service, new).await?;
    let told = Told::from(registered);
    Ok(if is_new { OkOr::Else(told) } else { OkOr::Ok(told) })
}

async fn renew(
    State(registry): State<Registry>,
    by: By,
    InPath(OfInstance { service, id }): InPath<OfInstance>,
) -> Answer<Json<Told>> {
    Ok(Json(Told::from(registry.renew(&by, &service, &id).await?)))
}

async fn deregister(
    State(registry): State<Registry>,
    by: By,
    InPath(OfInstance { service, id }): InPath<OfInstance>,
) -> Answer<Done> {
    registry.deregister(&by, &service, &id).await?;
    Ok(Done)
}

async fn remove(
    State(registry): State<Registry>,
    InPath(OfInstance { service, id }): InPath<OfInstance>,
) -> Answer<Done> {
    registry.remove(&service, &id).await?;
    Ok(Done)
}

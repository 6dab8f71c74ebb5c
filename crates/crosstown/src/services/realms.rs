//! The services of `examples/realms`: plans, of the realm `solution`, and journeys, of the realm
//! `experience`, which calls the first through Crosstown for its users.

use axum::{
    Json, Router,
    extract::{Path, State},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use client::{Answer, Client, Error, Service};
use http::{HeaderMap, Method, StatusCode, header};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

/// Plans by id; each a list of steps.
type Plans = Arc<Mutex<BTreeMap<String, Vec<Value>>>>;

pub(super) fn plans() -> Router {
    let steps = vec![json!({ "title": "look around", "days": 2 })];
    let known: Plans = Arc::new(Mutex::new(BTreeMap::from([("first".to_owned(), steps)])));
    Router::new()
        .route("/plans/{id}", get(plan).delete(drop_plan))
        .route("/plans/{id}/steps", post(add_step))
        .route("/v1/plan", get(old_plan))
        .with_state(known)
}

async fn plan(State(plans): State<Plans>, Path(id): Path<String>, headers: HeaderMap) -> Response {
    let known = plans.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(steps) = known.get(&id) else { return StatusCode::NOT_FOUND.into_response() };
    let told = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let asked = json!({
        "tenant": told("x-crosstown-tenant"),
        "principal": told("x-crosstown-principal"),
        "session": told("x-crosstown-session"),
        "realm": told("x-crosstown-realm"),
        "actor": told("x-crosstown-actor"),
    });
    Json(json!({ "id": id, "steps": steps, "asked": asked })).into_response()
}

/// Nobody changes it any more.
async fn old_plan(plans: State<Plans>, headers: HeaderMap) -> Response {
    let answer = plan(plans, Path("first".into()), headers).await;
    ([(header::CACHE_CONTROL, "max-age=60")], answer).into_response()
}

async fn add_step(
    State(plans): State<Plans>,
    Path(id): Path<String>,
    Json(step): Json<Value>,
) -> Response {
    let mut known = plans.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(steps) = known.get_mut(&id) else { return StatusCode::NOT_FOUND.into_response() };
    steps.push(step.clone());
    (StatusCode::CREATED, Json(step)).into_response()
}

async fn drop_plan(State(plans): State<Plans>, Path(id): Path<String>) -> StatusCode {
    let mut known = plans.lock().unwrap_or_else(PoisonError::into_inner);
    match known.remove(&id) {
        Some(_) => StatusCode::NO_CONTENT,
        None => StatusCode::NOT_FOUND,
    }
}

pub(super) fn journeys(client: &Client) -> Router {
    Router::new()
        .route("/journeys/{id}", get(journey).delete(end_journey))
        .with_state(client.service("solution", "plans"))
}

/// Plans, as the user who asks here may see them.
fn for_user(plans: &Service, headers: &HeaderMap) -> Service {
    let credential = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    match credential.and_then(|value| value.strip_prefix("Bearer ")) {
        Some(credential) => plans.on_behalf_of(credential),
        None => plans.clone(),
    }
}

async fn journey(
    State(plans): State<Service>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Response {
    match for_user(&plans, &headers).call(Method::GET, &format!("/plans/{id}"), None).await {
        Ok(answer) if answer.status == StatusCode::OK => {
            let plan: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
            Json(json!({ "journey": id, "plan": plan })).into_response()
        }
        answer => passed_on(answer),
    }
}

async fn end_journey(
    State(plans): State<Service>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Response {
    let path = format!("/plans/{id}");
    passed_on(for_user(&plans, &headers).call(Method::DELETE, &path, None).await)
}

/// What the other realm, or the bridge to it, answered.
fn passed_on(answer: Result<Answer, Error>) -> Response {
    match answer {
        Ok(answer) => {
            let media = answer.headers.get(header::CONTENT_TYPE).cloned();
            let mut told = (answer.status, answer.body).into_response();
            told.headers_mut().remove(header::CONTENT_TYPE);
            told.headers_mut().extend(media.map(|media| (header::CONTENT_TYPE, media)));
            told
        }
        Err(error) => (StatusCode::BAD_GATEWAY, error.to_string()).into_response(),
    }
}

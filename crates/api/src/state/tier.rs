//! Where a document is kept, why, and moving it.

use crate::{
    answer::{Answer, json, no_content},
    request::{By, Json, JsonOrDefault, Wanted},
    state::{Document, Page},
};
use axum::{
    Router,
    extract::{Path, State},
    routing::{get, post, put},
};
use serde::Serialize;
use traffic_cop::state::{
    DocumentId, SharedStates,
    tier::{Decision, LineageEntry, Simulation, Towards, Wish},
};

pub(super) fn routes() -> Router<SharedStates> {
    Router::new()
        .route("/state/{scope}/{id}/promote", post(promote))
        .route("/state/{scope}/{id}/demote", post(demote))
        .route("/state/{scope}/{id}/pin", put(pin).delete(unpin))
        .route("/state/{scope}/{id}/tier", get(tier))
        .route("/state/{scope}/{id}/lineage", get(lineage))
        .route("/state/{scope}/{id}/simulate", post(simulate))
}

async fn promote(
    State(states): State<SharedStates>,
    by: By,
    Path((scope, id)): Document,
    JsonOrDefault(wish): JsonOrDefault<Wish>,
) -> Answer {
    let document = DocumentId::new(&scope, &id)?;
    json(states.relocate(&by, &document, Towards::Durable, wish).await?)
}

async fn demote(
    State(states): State<SharedStates>,
    by: By,
    Path((scope, id)): Document,
    JsonOrDefault(wish): JsonOrDefault<Wish>,
) -> Answer {
    let document = DocumentId::new(&scope, &id)?;
    json(states.relocate(&by, &document, Towards::Live, wish).await?)
}

async fn pin(State(states): State<SharedStates>, by: By, Path((scope, id)): Document) -> Answer {
    states.pin(&by, &DocumentId::new(&scope, &id)?, true).await?;
    no_content()
}

async fn unpin(State(states): State<SharedStates>, by: By, Path((scope, id)): Document) -> Answer {
    states.pin(&by, &DocumentId::new(&scope, &id)?, false).await?;
    no_content()
}

async fn tier(State(states): State<SharedStates>, by: By, Path((scope, id)): Document) -> Answer {
    json(states.tier(&by, &DocumentId::new(&scope, &id)?).await?)
}

#[derive(Serialize)]
struct Moves {
    moves: Vec<LineageEntry>,
}

async fn lineage(
    State(states): State<SharedStates>,
    by: By,
    Path((scope, id)): Document,
    Wanted(page): Wanted<Page>,
) -> Answer {
    let document = DocumentId::new(&scope, &id)?;
    let limit = page.limit.clamp(1, 1_000);
    json(Moves { moves: states.lineage(&by, &document, page.offset, limit).await? })
}

#[derive(Serialize)]
struct Decisions {
    decisions: Vec<Decision>,
}

async fn simulate(
    State(states): State<SharedStates>,
    by: By,
    Path((scope, id)): Document,
    Json(what): Json<Simulation>,
) -> Answer {
    let document = DocumentId::new(&scope, &id)?;
    json(Decisions { decisions: states.simulate(&by, &document, &what).await? })
}

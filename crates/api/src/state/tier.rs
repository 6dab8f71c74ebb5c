//! Where a document is kept, why, and moving it.

use crate::{
    Parts,
    answer::{Answer, Done},
    document::told,
    request::{By, InPath, Json, JsonOrDefault, Wanted},
    state::{OfDocument, Page},
};
use aide::axum::{
    ApiRouter,
    routing::{get_with, post_with, put_with},
};
use axum::extract::State;
use protocol::Code::{Conflict, StoreFull};
use schemars::JsonSchema;
use serde::Serialize;
use traffic_cop::state::{
    SharedStates,
    tier::{Decision, LineageEntry, Moved, Simulation, TierNow, Towards, Wish},
};

pub(super) fn routes() -> ApiRouter<Parts> {
    let pins = put_with(pin, told("pinDocument", "Leave it where it is.", &[Conflict]))
        .delete_with(unpin, told("unpinDocument", "Let the policy move it.", &[Conflict]));
    ApiRouter::new()
        .api_route(
            "/state/{scope}/{id}/promote",
            post_with(
                promote,
                told("promoteDocument", "Move it to a more durable tier.", &[Conflict, StoreFull]),
            ),
        )
        .api_route(
            "/state/{scope}/{id}/demote",
            post_with(
                demote,
                told("demoteDocument", "Move it to a less durable tier.", &[Conflict, StoreFull]),
            ),
        )
        .api_route("/state/{scope}/{id}/pin", pins)
        .api_route(
            "/state/{scope}/{id}/tier",
            get_with(tier, told("readTier", "Where it is kept, and why.", &[])),
        )
        .api_route(
            "/state/{scope}/{id}/lineage",
            get_with(lineage, told("readLineage", "Where it was kept.", &[])),
        )
        .api_route(
            "/state/{scope}/{id}/simulate",
            post_with(simulate, told("simulateTiers", "What a policy would do.", &[])),
        )
}

async fn promote(
    State(states): State<SharedStates>,
    by: By,
    InPath(of): InPath<OfDocument>,
    JsonOrDefault(wish): JsonOrDefault<Wish>,
) -> Answer<Json<Moved>> {
    let document = of.id()?;
    Ok(Json(states.relocate(&by, &document, Towards::Durable, wish).await?))
}

async fn demote(
    State(states): State<SharedStates>,
    by: By,
    InPath(of): InPath<OfDocument>,
    JsonOrDefault(wish): JsonOrDefault<Wish>,
) -> Answer<Json<Moved>> {
    let document = of.id()?;
    Ok(Json(states.relocate(&by, &document, Towards::Live, wish).await?))
}

async fn pin(
    State(states): State<SharedStates>,
    by: By,
    InPath(of): InPath<OfDocument>,
) -> Answer<Done> {
    states.pin(&by, &of.id()?, true).await?;
    Ok(Done)
}

async fn unpin(
    State(states): State<SharedStates>,
    by: By,
    InPath(of): InPath<OfDocument>,
) -> Answer<Done> {
    states.pin(&by, &of.id()?, false).await?;
    Ok(Done)
}

async fn tier(
    State(states): State<SharedStates>,
    by: By,
    InPath(of): InPath<OfDocument>,
) -> Answer<Json<TierNow>> {
    Ok(Json(states.tier(&by, &of.id()?).await?))
}

/// Where a document was kept.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Lineage")]
struct Moves {
    moves: Vec<LineageEntry>,
}

async fn lineage(
    State(states): State<SharedStates>,
    by: By,
    InPath(of): InPath<OfDocument>,
    Wanted(page): Wanted<Page>,
) -> Answer<Json<Moves>> {
    let document = of.id()?;
    let limit = page.limit.clamp(1, 1_000);
    Ok(Json(Moves { moves: states.lineage(&by, &document, page.offset, limit).await? }))
}

/// What suits a document.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "TierDecisions")]
struct Decisions {
    decisions: Vec<Decision>,
}

async fn simulate(
    State(states): State<SharedStates>,
    by: By,
    InPath(of): InPath<OfDocument>,
    Json(what): Json<Simulation>,
) -> Answer<Json<Decisions>> {
    let document = of.id()?;
    Ok(Json(Decisions { decisions: states.simulate(&by, &document, &what).await? }))
}

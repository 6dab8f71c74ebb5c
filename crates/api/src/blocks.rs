//! `/crosstown/v1/users/{id}/block`: keeping a user out, and who is kept out.

use crate::{
    Parts,
    answer::{Answer, Created, Done, Refusal, refuse},
    document::told,
    request::{By, InPath, Json, JsonOrDefault, Wanted},
};
use aide::axum::{
    ApiRouter,
    routing::{get_with, post_with},
};
use axum::extract::State;
use protocol::{
    Code::{self, Conflict, NotFound},
    Problem,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use traffic_cop::identity::{Block, Blocks, NewBlock};
use types::{Principal, PrincipalId, PrincipalKind};

pub(crate) fn routes() -> ApiRouter<Parts> {
    let one = post_with(block, told("blockUser", "Keep a user out.", &[Conflict]))
        .get_with(read, told("readBlock", "Whether a user is kept out, and why.", &[NotFound]))
        .delete_with(lift, told("liftBlock", "Let a user in again.", &[NotFound, Conflict]));
    ApiRouter::new()
        .api_route("/blocks", get_with(list, told("listBlocks", "Who is kept out.", &[])))
        .api_route("/users/{id}/block", one)
}

/// Which user, agent or service a path names.
#[derive(Deserialize, JsonSchema)]
struct OfPrincipal {
    /// Its name.
    #[schemars(with = "PrincipalId")]
    id: String,
}

/// What it is that has the name: a user, unless it is said.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct What {
    /// A user, unless it is said.
    kind: Option<PrincipalKind>,
}

/// The principal, if the caller may keep anybody out.
fn principal(by: &By, id: &str, what: &What) -> Result<Principal, Refusal> {
    if !by.is_trusted() {
        return refuse(Code::Forbidden, "only services and admins block users");
    }
    let id = PrincipalId::new(id)
        .map_err(|error| Refusal(Problem::new(Code::BadRequest, error.to_string())))?;
    Ok(Principal { kind: what.kind.unwrap_or(PrincipalKind::User), id })
}

async fn block(
    State(blocks): State<Blocks>,
    by: By,
    InPath(OfPrincipal { id }): InPath<OfPrincipal>,
    Wanted(what): Wanted<What>,
    JsonOrDefault(new): JsonOrDefault<NewBlock>,
) -> Answer<Created<Block>> {
    let principal = principal(&by, &id, &what)?;
    if principal == by.principal {
        return refuse(Code::BadRequest, "nobody blocks himself");
    }
    Ok(Created(blocks.block(&by, principal, new).await?))
}

async fn read(
    State(blocks): State<Blocks>,
    by: By,
    InPath(OfPrincipal { id }): InPath<OfPrincipal>,
    Wanted(what): Wanted<What>,
) -> Answer<Json<Block>> {
    Ok(Json(blocks.get(&by.tenant, &principal(&by, &id, &what)?).await?))
}

async fn lift(
    State(blocks): State<Blocks>,
    by: By,
    InPath(OfPrincipal { id }): InPath<OfPrincipal>,
    Wanted(what): Wanted<What>,
) -> Answer<Done> {
    blocks.lift(&by.tenant, &principal(&by, &id, &what)?).await?;
    Ok(Done)
}

/// Who is kept out.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Blocks")]
struct Listed {
    blocks: Vec<Block>,
}

async fn list(State(blocks): State<Blocks>, by: By) -> Answer<Json<Listed>> {
    if !by.is_trusted() {
        return refuse(Code::Forbidden, "only services and admins see who is blocked");
    }
    Ok(Json(Listed { blocks: blocks.list(&by.tenant).await? }))
}

//! `/crosstown/v1/users/{id}/block`: keeping a user out, and who is kept out.

use crate::{
    answer::{Answer, Refusal, json, json_with, no_content, refuse},
    request::{By, JsonOrDefault, Wanted},
};
use axum::{
    Router,
    extract::{Path, State},
    routing::{get, post},
};
use http::StatusCode;
use protocol::{Code, Problem};
use serde::{Deserialize, Serialize};
use traffic_cop::identity::{Block, Blocks, NewBlock};
use types::{Principal, PrincipalId, PrincipalKind};

pub(crate) fn routes(blocks: Blocks) -> Router {
    Router::new()
        .route("/blocks", get(list))
        .route("/users/{id}/block", post(block).get(read).delete(lift))
        .with_state(blocks)
}

/// What it is that has the name: a user, unless it is said.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct What {
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
    Path(id): Path<String>,
    Wanted(what): Wanted<What>,
    JsonOrDefault(new): JsonOrDefault<NewBlock>,
) -> Answer {
    let principal = principal(&by, &id, &what)?;
    if principal == by.principal {
        return refuse(Code::BadRequest, "nobody blocks himself");
    }
    json_with(StatusCode::CREATED, blocks.block(&by, principal, new).await?)
}

async fn read(
    State(blocks): State<Blocks>,
    by: By,
    Path(id): Path<String>,
    Wanted(what): Wanted<What>,
) -> Answer {
    json(blocks.get(&by.tenant, &principal(&by, &id, &what)?).await?)
}

async fn lift(
    State(blocks): State<Blocks>,
    by: By,
    Path(id): Path<String>,
    Wanted(what): Wanted<What>,
) -> Answer {
    blocks.lift(&by.tenant, &principal(&by, &id, &what)?).await?;
    no_content()
}

#[derive(Serialize)]
struct Listed {
    blocks: Vec<Block>,
}

async fn list(State(blocks): State<Blocks>, by: By) -> Answer {
    if !by.is_trusted() {
        return refuse(Code::Forbidden, "only services and admins see who is blocked");
    }
    json(Listed { blocks: blocks.list(&by.tenant).await? })
}

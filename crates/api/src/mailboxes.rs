//! `/crosstown/v1/mailboxes/{address}`: letters that wait until they are acknowledged.

use crate::{
    answer::{Answer, json, json_with, no_content},
    request::{By, Json, JsonOrDefault, Wanted},
};
use axum::{
    Router,
    extract::{Path, State},
    routing::{delete, get, post},
};
use http::StatusCode;
use post_office::{Address, Mailboxes, NewLetter};
use serde::Deserialize;
use serde_json::json as object;
use std::sync::Arc;

type Shared = Arc<Mailboxes>;

pub(crate) fn routes(mailboxes: Shared) -> Router {
    Router::new()
        .route("/mailboxes/{address}/letters", post(send).get(list))
        .route("/mailboxes/{address}/letters/{letter}", delete(acknowledge))
        .route("/mailboxes/{address}/letters/{letter}/refusals", post(give_back))
        .route("/mailboxes/{address}/dead", get(dead))
        .route("/mailboxes/{address}/dead/{letter}/revive", post(revive))
        .with_state(mailboxes)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct After {
    after: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Why {
    #[serde(default)]
    why: String,
}

async fn send(
    State(mailboxes): State<Shared>,
    by: By,
    Path(address): Path<String>,
    Json(new): Json<NewLetter>,
) -> Answer {
    let sent = mailboxes.send(&by, &address.parse()?, new).await?;
    let status = if sent.repeated { StatusCode::OK } else { StatusCode::CREATED };
    json_with(status, sent)
}

async fn list(
    State(mailboxes): State<Shared>,
    by: By,
    Path(address): Path<String>,
    Wanted(After { after }): Wanted<After>,
) -> Answer {
    let of: Address = address.parse()?;
    json(object!({ "letters": mailboxes.list(&by, &of, after.as_deref()).await? }))
}

async fn acknowledge(
    State(mailboxes): State<Shared>,
    by: By,
    Path((address, letter)): Path<(String, String)>,
) -> Answer {
    mailboxes.acknowledge(&by, &address.parse()?, &letter).await?;
    no_content()
}

async fn give_back(
    State(mailboxes): State<Shared>,
    by: By,
    Path((address, letter)): Path<(String, String)>,
    JsonOrDefault(Why { why }): JsonOrDefault<Why>,
) -> Answer {
    mailboxes.give_back(&by, &address.parse()?, &letter, &why).await?;
    no_content()
}

async fn dead(
    State(mailboxes): State<Shared>,
    by: By,
    Path(address): Path<String>,
    Wanted(After { after }): Wanted<After>,
) -> Answer {
    let of: Address = address.parse()?;
    json(object!({ "letters": mailboxes.dead(&by, &of, after.as_deref()).await? }))
}

async fn revive(
    State(mailboxes): State<Shared>,
    by: By,
    Path((address, letter)): Path<(String, String)>,
) -> Answer {
    let name = mailboxes.revive(&by, &address.parse()?, &letter).await?;
    json_with(StatusCode::CREATED, object!({ "letter": name }))
}

//! A session changes hands.

use crate::{
    answer::{Answer, json, json_with},
    request::{Address, By, Json, JsonOrDefault, MayBe},
    sessions::{Created, own},
};
use axum::extract::{Path, State};
use http::StatusCode;
use serde::Deserialize;
use std::sync::Arc;
use traffic_cop::session::{NewDevice, NewHandover, Redeemer, Sessions};

/// `POST /sessions/{id}/handover`: makes a code.
pub(super) async fn offer(
    State(sessions): State<Arc<Sessions>>,
    by: By,
    Path(id): Path<String>,
    JsonOrDefault(new): JsonOrDefault<NewHandover>,
) -> Answer {
    let session = own(&sessions, &by, &id).await?;
    let offered = sessions.offer(&by.tenant, session.id, &new, &by.principal).await?;
    json_with(StatusCode::CREATED, offered)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Redeeming {
    code: String,
    device: Option<NewDevice>,
}

/// `POST /sessions/handover`: redeems a code, which is all that it takes if it names nobody.
pub(super) async fn redeem(
    State(sessions): State<Arc<Sessions>>,
    MayBe(by): MayBe,
    Address(address): Address,
    Json(Redeeming { code, device }): Json<Redeeming>,
) -> Answer {
    let redeemer = Redeemer { caller: by.as_deref(), device, address };
    let (session, token) = sessions.redeem(&code, redeemer).await?;
    json(Created { session, token })
}

//! A session changes hands.

use crate::{
    answer::{Answer, Created},
    request::{Address, By, InPath, Json, JsonOrDefault, MayBe},
    sessions::{NewToken, OfSession, own},
};
use axum::extract::State;
use protocol::Code;
use schemars::JsonSchema;
use serde::Deserialize;
use std::sync::Arc;
use traffic_cop::session::{NewDevice, NewHandover, Offered, Redeemer, Sessions};

/// What the redeeming of a code may be refused with.
pub(super) const REFUSED: &[Code] = &[Code::Forbidden, Code::NotFound, Code::Conflict];

/// `POST /sessions/{id}/handover`: makes a code.
pub(super) async fn offer(
    State(sessions): State<Arc<Sessions>>,
    by: By,
    InPath(OfSession { id }): InPath<OfSession>,
    JsonOrDefault(new): JsonOrDefault<NewHandover>,
) -> Answer<Created<Offered>> {
    let session = own(&sessions, &by, &id).await?;
    let offered = sessions.offer(&by.tenant, session.id, &new, &by.principal).await?;
    Ok(Created(offered))
}

/// A code that is to be redeemed.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "RedeemedHandover")]
pub(super) struct Redeeming {
    /// The code.
    code: String,
    /// On what the session goes on.
    device: Option<NewDevice>,
}

/// `POST /sessions/handover`: redeems a code, which is all that it takes if it names nobody.
pub(super) async fn redeem(
    State(sessions): State<Arc<Sessions>>,
    MayBe(by): MayBe,
    Address(address): Address,
    Json(Redeeming { code, device }): Json<Redeeming>,
) -> Answer<Json<NewToken>> {
    let redeemer = Redeemer { caller: by.as_deref(), device, address };
    let (session, token) = sessions.redeem(&code, redeemer).await?;
    Ok(Json(NewToken { session, token }))
}

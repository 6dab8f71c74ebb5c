//! The devices of a user, and the end of many sessions at once.

use crate::{
    answer::{Answer, refuse},
    request::{By, Json, Wanted},
    sessions::Whose,
};
use axum::extract::State;
use protocol::Code;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use traffic_cop::session::{DeviceSessions, End, Sessions, devices};
use types::{PrincipalId, PrincipalKind};

/// The devices of a user.
#[derive(Serialize, JsonSchema)]
pub(super) struct Devices {
    devices: Vec<DeviceSessions>,
}

/// `GET /sessions/devices`: those that the user has sessions on.
pub(super) async fn list(
    State(sessions): State<Arc<Sessions>>,
    by: By,
    Wanted(whose): Wanted<Whose>,
) -> Answer<Json<Devices>> {
    let principal = whose.principal(&by)?;
    let mut devices = devices(&sessions.list(&by.tenant, &principal).await?);
    devices.retain(|on| whose.device.as_ref().is_none_or(|device| *device == on.device.id));
    Ok(Json(Devices { devices }))
}

/// Which sessions end: those of a user, of a device of one, or with `everyone` all of the tenant.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    /// Those of this user, agent or service; the caller's own, unless it is said.
    user: Option<PrincipalId>,
    /// What that is; a user, unless it is said.
    kind: Option<PrincipalKind>,
    /// Those on this device alone, by its id.
    device: Option<String>,
    /// All of the tenant; it goes with nothing else.
    #[serde(default)]
    everyone: bool,
}

/// How many sessions ended.
#[derive(Serialize, JsonSchema)]
pub(super) struct Ended {
    ended: usize,
}

/// `DELETE /sessions`: ends many of them, and says how many.
pub(super) async fn end(
    State(sessions): State<Arc<Sessions>>,
    by: By,
    Wanted(which): Wanted<Which>,
) -> Answer<Json<Ended>> {
    let Which { user, kind, device, everyone } = which;
    let end = |why| End { why, by: Some(&by.principal) };
    if everyone {
        if user.is_some() || kind.is_some() || device.is_some() {
            return refuse(Code::BadRequest, "`everyone` goes with nothing else");
        }
        by.speaks_for_tenant()?;
        let ended = sessions.end_all(&by.tenant, end("all ended")).await?;
        return Ok(Json(Ended { ended }));
    }
    let principal = Whose { user, kind, device: None }.principal(&by)?;
    let why = if device.is_some() { "device ended" } else { "all of the user ended" };
    let ended = sessions.end_all_of(&by.tenant, &principal, device.as_deref(), end(why)).await?;
    Ok(Json(Ended { ended }))
}

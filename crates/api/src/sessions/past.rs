//! What happened to a session, and what it did.

use crate::{
    answer::{Answer, Refusal, refuse},
    request::{By, InPath, Json, Wanted},
    sessions::OfSession,
};
use axum::extract::State;
use protocol::Code;
use schemars::JsonSchema;
use serde::Serialize;
use std::sync::Arc;
use traffic_cop::session::{
    Past, Sessions, ShownEvent, TimelineEntry, WantedEvents, WantedTimeline,
};
use types::SessionId;

/// Events of a session.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "SessionEvents")]
pub(super) struct Events {
    events: Vec<ShownEvent>,
}

/// A part of the timeline of a session.
#[derive(Serialize, JsonSchema)]
pub(super) struct Timeline {
    entries: Vec<TimelineEntry>,
}

/// `GET /sessions/{id}/events`: the last of them, in the order of time.
pub(super) async fn events(
    State(sessions): State<Arc<Sessions>>,
    by: By,
    InPath(OfSession { id }): InPath<OfSession>,
    Wanted(wanted): Wanted<WantedEvents>,
) -> Answer<Json<Events>> {
    let (_, past) = own_past(&sessions, &by, &id).await?;
    Ok(Json(Events { events: wanted.of(past.events)? }))
}

/// `GET /sessions/{id}/timeline`: the last of it, in the order of time.
pub(super) async fn timeline(
    State(sessions): State<Arc<Sessions>>,
    by: By,
    InPath(OfSession { id }): InPath<OfSession>,
    Wanted(wanted): Wanted<WantedTimeline>,
) -> Answer<Json<Timeline>> {
    let (id, past) = own_past(&sessions, &by, &id).await?;
    let entries = sessions.timeline(&by.tenant, id, past.events, &wanted).await?;
    Ok(Json(Timeline { entries }))
}

/// What is known of a session, if the caller may know it, though the session may be over.
async fn own_past(sessions: &Sessions, by: &By, id: &str) -> Result<(SessionId, Past), Refusal> {
    let found = match id.parse::<SessionId>() {
        Ok(id) => sessions.past(&by.tenant, id).await?.map(|past| (id, past)),
        Err(_) => None,
    };
    match found {
        Some((id, past)) if past.is_of(&by.principal) || by.is_trusted() => Ok((id, past)),
        Some(_) | None => refuse(Code::NotFound, "there is no such session"),
    }
}

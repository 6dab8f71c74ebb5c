//! What happened to a session, and what it did.

use crate::{
    answer::{Answer, Refusal, json, refuse},
    request::{By, Wanted},
};
use axum::extract::{Path, State};
use protocol::Code;
use serde::Serialize;
use std::sync::Arc;
use traffic_cop::session::{
    Past, Sessions, ShownEvent, TimelineEntry, WantedEvents, WantedTimeline,
};
use types::SessionId;

#[derive(Serialize)]
struct Events {
    events: Vec<ShownEvent>,
}

#[derive(Serialize)]
struct Timeline {
    entries: Vec<TimelineEntry>,
}

/// `GET /sessions/{id}/events`: the last of them, in the order of time.
pub(super) async fn events(
    State(sessions): State<Arc<Sessions>>,
    by: By,
    Path(id): Path<String>,
    Wanted(wanted): Wanted<WantedEvents>,
) -> Answer {
    let (_, past) = own_past(&sessions, &by, &id).await?;
    json(Events { events: wanted.of(past.events)? })
}

/// `GET /sessions/{id}/timeline`: the last of it, in the order of time.
pub(super) async fn timeline(
    State(sessions): State<Arc<Sessions>>,
    by: By,
    Path(id): Path<String>,
    Wanted(wanted): Wanted<WantedTimeline>,
) -> Answer {
    let (id, past) = own_past(&sessions, &by, &id).await?;
    json(Timeline { entries: sessions.timeline(&by.tenant, id, past.events, &wanted).await? })
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

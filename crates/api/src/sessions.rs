//! `/crosstown/v1/sessions`.

mod devices;
mod hands;
mod past;
mod routing;

use crate::{
    answer::{Answer, Refusal, json, json_with, no_content, refuse},
    request::{Address, By, Json, JsonOrDefault, Wanted},
};
use axum::{
    Router,
    extract::{Path, State},
    routing::{get, post, put},
};
use http::StatusCode;
use protocol::Code;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use traffic_cop::session::{End, KeptSubscription, NewSession, Session, Sessions, Update};
use types::{Principal, PrincipalId, PrincipalKind, SessionId};

pub(crate) fn routes(sessions: Arc<Sessions>) -> Router {
    Router::new()
        .route("/sessions", post(create).get(list).delete(devices::end))
        .route("/sessions/devices", get(devices::list))
        .route("/sessions/handover", post(hands::redeem))
        .route("/sessions/{id}", get(read).patch(update).delete(destroy))
        .route("/sessions/{id}/refresh", post(refresh))
        .route("/sessions/{id}/events", get(past::events))
        .route("/sessions/{id}/timeline", get(past::timeline))
        .route("/sessions/{id}/handover", post(hands::offer))
        .route("/sessions/{id}/route", put(routing::route))
        .route("/sessions/{id}/move", post(routing::move_to))
        .with_state(sessions)
}

#[derive(Serialize)]
struct Created {
    #[serde(flatten)]
    session: Session,
    /// The credential. It is shown this once.
    token: String,
}

/// Whose sessions: the caller's, or for services and admins those of `user`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Whose {
    user: Option<PrincipalId>,
    kind: Option<PrincipalKind>,
    /// Those on this device alone, by its id.
    device: Option<String>,
}

impl Whose {
    fn principal(&self, by: &By) -> Result<Principal, Refusal> {
        let Some(id) = self.user.clone() else { return Ok(by.principal.clone()) };
        let principal = Principal { kind: self.kind.unwrap_or(PrincipalKind::User), id };
        if principal != by.principal && !by.is_trusted() {
            return refuse(Code::Forbidden, "only services and admins act for another user");
        }
        Ok(principal)
    }
}

async fn create(
    State(sessions): State<Arc<Sessions>>,
    by: By,
    Address(address): Address,
    Wanted(whose): Wanted<Whose>,
    JsonOrDefault(new): JsonOrDefault<NewSession>,
) -> Answer {
    let principal = whose.principal(&by)?;
    may_steer(&by, !new.pillars.is_empty())?;
    // From where a service asks says nothing of the user.
    let address = address.filter(|_| principal == by.principal);
    let new = NewSession { by: Some(by.principal.clone()), address, ..new };
    let (session, token) = sessions.create(&by.tenant, &principal, new).await?;
    json_with(StatusCode::CREATED, Created { session, token })
}

/// Pillars open channels and documents, and whose requests go first others wait for: nobody gives
/// either to himself.
fn may_steer(by: &By, steers: bool) -> Result<(), Refusal> {
    match steers && !by.is_trusted() {
        true => {
            let detail =
                "only services and admins say what a session works in, and how it is served";
            refuse(Code::Forbidden, detail)
        }
        false => Ok(()),
    }
}

/// A session, and what it keeps if it is durable.
#[derive(Serialize)]
struct Shown {
    #[serde(flatten)]
    session: Session,
    #[serde(skip_serializing_if = "Option::is_none")]
    subscriptions: Option<Vec<KeptSubscription>>,
}

impl Shown {
    async fn of(sessions: &Sessions, session: Session) -> Result<Self, Refusal> {
        let subscriptions = match session.durable {
            true => Some(sessions.kept(&session.tenant, session.id).await?),
            false => None,
        };
        Ok(Self { session, subscriptions })
    }
}

#[derive(Serialize)]
struct Listed {
    sessions: Vec<Shown>,
}

async fn list(
    State(sessions): State<Arc<Sessions>>,
    by: By,
    Wanted(whose): Wanted<Whose>,
) -> Answer {
    let principal = whose.principal(&by)?;
    let mut listed = Vec::new();
    for session in sessions.list(&by.tenant, &principal).await? {
        let on = session.device.as_ref().map(|device| &device.id);
        if whose.device.is_some() && on != whose.device.as_ref() {
            continue;
        }
        listed.push(Shown::of(&sessions, session).await?);
    }
    json(Listed { sessions: listed })
}

async fn read(State(sessions): State<Arc<Sessions>>, by: By, Path(id): Path<String>) -> Answer {
    let session = own(&sessions, &by, &id).await?;
    json(Shown::of(&sessions, session).await?)
}

async fn update(
    State(sessions): State<Arc<Sessions>>,
    by: By,
    Path(id): Path<String>,
    Json(update): Json<Update>,
) -> Answer {
    may_steer(&by, update.pillars.is_some() || update.priority.is_some())?;
    let session = own(&sessions, &by, &id).await?;
    let update = Update { by: Some(by.principal.clone()), ..update };
    json(sessions.update(&by.tenant, session.id, update).await?)
}

async fn refresh(
    State(sessions): State<Arc<Sessions>>,
    by: By,
    Address(address): Address,
    Path(id): Path<String>,
) -> Answer {
    let session = own(&sessions, &by, &id).await?;
    let address = address.filter(|_| by.session == Some(session.id));
    json(sessions.refresh(&by.tenant, session.id, address).await?)
}

async fn destroy(State(sessions): State<Arc<Sessions>>, by: By, Path(id): Path<String>) -> Answer {
    let session = own(&sessions, &by, &id).await?;
    let end = End { why: "destroyed", by: Some(&by.principal) };
    sessions.destroy(&by.tenant, session.id, end).await?;
    no_content()
}

/// The session, if the caller may see it. Another's answers as one that does not exist.
async fn own(sessions: &Sessions, by: &By, id: &str) -> Result<Session, Refusal> {
    let found = match id.parse::<SessionId>() {
        Ok(id) => sessions.get(&by.tenant, id).await?,
        Err(_) => None,
    };
    let theirs = |session: &Session| session.is_of(&by.principal);
    match found {
        Some(session) if theirs(&session) || by.is_trusted() => Ok(session),
        Some(_) | None => refuse(Code::NotFound, "there is no such session"),
    }
}

//! `/crosstown/v1/sessions`.

use crate::{
    answer::{Answer, Refusal, json, json_with, no_content, refuse},
    request::{By, Json, JsonOrDefault, Wanted},
};
use axum::{
    Router,
    extract::{Path, State},
    routing::{get, post},
};
use http::StatusCode;
use protocol::Code;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use traffic_cop::session::{KeptSubscription, NewSession, Session, Sessions, Update};
use types::{Principal, PrincipalId, PrincipalKind, SessionId};

pub(crate) fn routes(sessions: Arc<Sessions>) -> Router {
    Router::new()
        .route("/sessions", post(create).get(list))
        .route("/sessions/{id}", get(read).patch(update).delete(destroy))
        .route("/sessions/{id}/refresh", post(refresh))
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
}

impl Whose {
    fn principal(self, by: &By) -> Result<Principal, Refusal> {
        let Some(id) = self.user else { return Ok(by.principal.clone()) };
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
    Wanted(whose): Wanted<Whose>,
    JsonOrDefault(new): JsonOrDefault<NewSession>,
) -> Answer {
    let principal = whose.principal(&by)?;
    may_name_pillars(&by, !new.pillars.is_empty())?;
    let (session, token) = sessions.create(&by.tenant, &principal, new).await?;
    json_with(StatusCode::CREATED, Created { session, token })
}

/// Pillars open channels and documents, so that nobody gives them to himself.
fn may_name_pillars(by: &By, names: bool) -> Result<(), Refusal> {
    match names && !by.is_trusted() {
        true => refuse(Code::Forbidden, "only services and admins say what a session works in"),
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
    may_name_pillars(&by, update.pillars.is_some())?;
    let session = own(&sessions, &by, &id).await?;
    json(sessions.update(&by.tenant, session.id, update).await?)
}

async fn refresh(State(sessions): State<Arc<Sessions>>, by: By, Path(id): Path<String>) -> Answer {
    let session = own(&sessions, &by, &id).await?;
    json(sessions.refresh(&by.tenant, session.id).await?)
}

async fn destroy(State(sessions): State<Arc<Sessions>>, by: By, Path(id): Path<String>) -> Answer {
    let session = own(&sessions, &by, &id).await?;
    sessions.destroy(&by.tenant, session.id).await?;
    no_content()
}

/// The session, if the caller may see it. Another's answers as one that does not exist.
async fn own(sessions: &Sessions, by: &By, id: &str) -> Result<Session, Refusal> {
    let found = match id.parse::<SessionId>() {
        Ok(id) => sessions.get(&by.tenant, id).await?,
        Err(_) => None,
    };
    let theirs = |session: &Session| {
        session.principal == by.principal.id && session.principal_kind == by.principal.kind
    };
    match found {
        Some(session) if theirs(&session) || by.is_trusted() => Ok(session),
        Some(_) | None => refuse(Code::NotFound, "there is no such session"),
    }
}

//! `/crosstown/v1/sessions`.

mod devices;
mod hands;
mod past;
mod routing;

use crate::{
    Parts,
    answer::{Answer, Created, Done, Refusal, refuse},
    document::told,
    request::{Address, By, InPath, Json, JsonOrDefault, Wanted},
};
use aide::axum::{
    ApiRouter,
    routing::{get_with, post_with, put_with},
};
use axum::extract::State;
use protocol::Code::{self, Conflict, NotFound, SessionLimit};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use traffic_cop::session::{End, KeptSubscription, NewSession, Session, Sessions, Update};
use types::{Principal, PrincipalId, PrincipalKind, SessionId};

pub(crate) fn routes() -> ApiRouter<Parts> {
    let many =
        post_with(create, told("createSession", "Make a session.", &[SessionLimit, Conflict]))
            .get_with(list, told("listSessions", "The sessions of a user.", &[]))
            .delete_with(devices::end, told("endSessions", "End many sessions.", &[]));
    let one = get_with(read, told("readSession", "A session.", &[NotFound]))
        .patch_with(update, told("updateSession", "Change a session.", &[NotFound, Conflict]))
        .delete_with(destroy, told("endSession", "End a session.", &[NotFound, Conflict]));
    ApiRouter::new()
        .api_route("/sessions", many)
        .api_route(
            "/sessions/devices",
            get_with(devices::list, told("listDevices", "The devices of a user.", &[])),
        )
        .api_route(
            "/sessions/handover",
            post_with(
                hands::redeem,
                told("redeemHandover", "Take over a session.", hands::REFUSED),
            ),
        )
        .api_route("/sessions/{id}", one)
        .api_route(
            "/sessions/{id}/refresh",
            post_with(refresh, told("refreshSession", "Prolong a session.", &[NotFound, Conflict])),
        )
        .api_route(
            "/sessions/{id}/events",
            get_with(past::events, told("readEvents", "What happened to a session.", &[NotFound])),
        )
        .api_route(
            "/sessions/{id}/timeline",
            get_with(past::timeline, told("readTimeline", "What a session did.", &[NotFound])),
        )
        .api_route(
            "/sessions/{id}/handover",
            post_with(
                hands::offer,
                told(
                    "offerHandover",
                    "A code by which a session is taken over.",
                    &[NotFound, Conflict],
                ),
            ),
        )
        .api_route(
            "/sessions/{id}/route",
            put_with(
                routing::route,
                told("routeSession", "Bind a session to an instance.", &[NotFound, Conflict]),
            ),
        )
        .api_route(
            "/sessions/{id}/move",
            post_with(
                routing::move_to,
                told("moveSession", "Move a session between bindings.", &[NotFound, Conflict]),
            ),
        )
}

/// Which session a path names.
#[derive(Deserialize, JsonSchema)]
struct OfSession {
    /// Its id.
    #[schemars(with = "SessionId")]
    id: String,
}

/// A session and its credential.
#[derive(Serialize, JsonSchema)]
struct NewToken {
    #[serde(flatten)]
    session: Session,
    /// The credential. It is shown this once.
    token: String,
}

/// Whose sessions: the caller's, or for services and admins those of `user`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Whose {
    /// The user, agent or service.
    user: Option<PrincipalId>,
    /// What that is; a user, unless it is said.
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
) -> Answer<Created<NewToken>> {
    let principal = whose.principal(&by)?;
    may_steer(&by, !new.pillars.is_empty())?;
    // From where a service asks says nothing of the user.
    let address = address.filter(|_| principal == by.principal);
    let new = NewSession { by: Some(by.principal.clone()), address, ..new };
    let (session, token) = sessions.create(&by.tenant, &principal, new).await?;
    Ok(Created(NewToken { session, token }))
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
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "SessionShown")]
struct Shown {
    #[serde(flatten)]
    session: Session,
    /// The subscriptions that it keeps, if it is durable.
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

/// The sessions of a user.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Sessions")]
struct Listed {
    sessions: Vec<Shown>,
}

async fn list(
    State(sessions): State<Arc<Sessions>>,
    by: By,
    Wanted(whose): Wanted<Whose>,
) -> Answer<Json<Listed>> {
    let principal = whose.principal(&by)?;
    let mut listed = Vec::new();
    for session in sessions.list(&by.tenant, &principal).await? {
        let on = session.device.as_ref().map(|device| &device.id);
        if whose.device.is_some() && on != whose.device.as_ref() {
            continue;
        }
        listed.push(Shown::of(&sessions, session).await?);
    }
    Ok(Json(Listed { sessions: listed }))
}

async fn read(
    State(sessions): State<Arc<Sessions>>,
    by: By,
    InPath(OfSession { id }): InPath<OfSession>,
) -> Answer<Json<Shown>> {
    let session = own(&sessions, &by, &id).await?;
    Ok(Json(Shown::of(&sessions, session).await?))
}

async fn update(
    State(sessions): State<Arc<Sessions>>,
    by: By,
    InPath(OfSession { id }): InPath<OfSession>,
    Json(update): Json<Update>,
) -> Answer<Json<Session>> {
    may_steer(&by, update.pillars.is_some() || update.priority.is_some())?;
    let session = own(&sessions, &by, &id).await?;
    let update = Update { by: Some(by.principal.clone()), ..update };
    Ok(Json(sessions.update(&by.tenant, session.id, update).await?))
}

async fn refresh(
    State(sessions): State<Arc<Sessions>>,
    by: By,
    Address(address): Address,
    InPath(OfSession { id }): InPath<OfSession>,
) -> Answer<Json<Session>> {
    let session = own(&sessions, &by, &id).await?;
    let address = address.filter(|_| by.session == Some(session.id));
    Ok(Json(sessions.refresh(&by.tenant, session.id, address).await?))
}

async fn destroy(
    State(sessions): State<Arc<Sessions>>,
    by: By,
    InPath(OfSession { id }): InPath<OfSession>,
) -> Answer<Done> {
    let session = own(&sessions, &by, &id).await?;
    let end = End { why: "destroyed", by: Some(&by.principal) };
    sessions.destroy(&by.tenant, session.id, end).await?;
    Ok(Done)
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

//! Where the requests of a session go. Services and admins say so.

use crate::{
    answer::Answer,
    request::{By, InPath, Json},
    sessions::{OfSession, may_steer, own},
};
use axum::extract::State;
use std::sync::Arc;
use traffic_cop::session::{Move, NewRoute, Session, Sessions};

/// `PUT /sessions/{id}/route`: binds it to an instance of a service, or to none.
pub(super) async fn route(
    State(sessions): State<Arc<Sessions>>,
    by: By,
    InPath(OfSession { id }): InPath<OfSession>,
    Json(new): Json<NewRoute>,
) -> Answer<Json<Session>> {
    may_steer(&by, true)?;
    let session = own(&sessions, &by, &id).await?;
    Ok(Json(sessions.route(&by.tenant, session.id, &new, &by.principal).await?))
}

/// `POST /sessions/{id}/move`: from one binding of its pillars to another.
pub(super) async fn move_to(
    State(sessions): State<Arc<Sessions>>,
    by: By,
    InPath(OfSession { id }): InPath<OfSession>,
    Json(wish): Json<Move>,
) -> Answer<Json<Session>> {
    may_steer(&by, true)?;
    let session = own(&sessions, &by, &id).await?;
    Ok(Json(sessions.move_to(&by.tenant, session.id, &wish, &by.principal).await?))
}

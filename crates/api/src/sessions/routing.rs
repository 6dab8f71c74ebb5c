//! Where the requests of a session go. Services and admins say so.

use crate::{
    answer::{Answer, json},
    request::{By, Json},
    sessions::{may_steer, own},
};
use axum::extract::{Path, State};
use std::sync::Arc;
use traffic_cop::session::{Move, NewRoute, Sessions};

/// `PUT /sessions/{id}/route`: binds it to an instance of a service, or to none.
pub(super) async fn route(
    State(sessions): State<Arc<Sessions>>,
    by: By,
    Path(id): Path<String>,
    Json(new): Json<NewRoute>,
) -> Answer {
    may_steer(&by, true)?;
    let session = own(&sessions, &by, &id).await?;
    json(sessions.route(&by.tenant, session.id, &new, &by.principal).await?)
}

/// `POST /sessions/{id}/move`: from one binding of its pillars to another.
pub(super) async fn move_to(
    State(sessions): State<Arc<Sessions>>,
    by: By,
    Path(id): Path<String>,
    Json(wish): Json<Move>,
) -> Answer {
    may_steer(&by, true)?;
    let session = own(&sessions, &by, &id).await?;
    json(sessions.move_to(&by.tenant, session.id, &wish, &by.principal).await?)
}

//! `/crosstown/v1/connections`: who is connected, on any node, and what is to be done to them.

use crate::{
    answer::{Answer, Refusal, json, no_content, refuse},
    request::{By, Json, Wanted},
};
use axum::{
    Router,
    extract::{Path, State},
    routing::{get, post},
};
use protocol::Code;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use traffic_cop::{
    connections::{Answered, Holders, Order, Question, Selector, Shown},
    totals::{Count, Totals},
};
use types::{Pillar, PrincipalId, PrincipalKind, SessionId};

/// Connections that one answer shows, unless the caller says otherwise.
const SHOWN: usize = 100;
const SHOWN_MAX: usize = 500;

type SharedHolders = Arc<dyn Holders>;

pub(crate) fn routes(holders: SharedHolders) -> Router {
    Router::new()
        .route("/connections", get(list))
        .route("/connections/orders", post(order))
        .route("/connections/stats", get(stats))
        .route("/connections/{id}", get(read).delete(disconnect))
        .with_state(holders)
}

/// Which connections, by a query.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Which {
    session: Option<SessionId>,
    user: Option<PrincipalId>,
    kind: Option<PrincipalKind>,
    pillar: Option<Pillar>,
    channel: Option<String>,
    limit: Option<usize>,
}

#[derive(Serialize)]
struct Listed {
    /// How many there are.
    count: usize,
    /// Some of them.
    connections: Vec<Shown>,
}

/// Those that the caller may see: all of its tenant's for services and admins, its own for others.
fn within(by: &By, of: Selector) -> Result<Selector, Refusal> {
    if by.is_trusted() {
        return Ok(of);
    }
    let own = &by.principal;
    if of.user.as_ref().is_some_and(|user| *user != own.id)
        || of.kind.is_some_and(|kind| kind != own.kind)
    {
        return refuse(Code::Forbidden, "only services and admins see the connections of others");
    }
    Ok(Selector { user: Some(own.id.clone()), kind: Some(own.kind), ..of })
}

async fn ask(
    holders: &SharedHolders,
    by: &By,
    of: Selector,
    order: Option<Order>,
    limit: usize,
) -> Result<Answered, Refusal> {
    let of = within(by, of)?;
    Ok(holders.ask(Question { tenant: by.tenant.clone(), of, order, limit }).await?)
}

async fn list(
    State(holders): State<SharedHolders>,
    by: By,
    Wanted(which): Wanted<Which>,
) -> Answer {
    let Which { session, user, kind, pillar, channel, limit } = which;
    let limit = limit.unwrap_or(SHOWN);
    if !(1..=SHOWN_MAX).contains(&limit) {
        return refuse(Code::BadRequest, format!("`limit` is 1 to {SHOWN_MAX}"));
    }
    let of = Selector { connection: None, session, user, kind, pillar, channel };
    let Answered { count, shown } = ask(&holders, &by, of, None, limit).await?;
    json(Listed { count, connections: shown })
}

/// What goes through all connections of the tenant.
async fn stats(State(holders): State<SharedHolders>, by: By) -> Answer {
    by.speaks_for_tenant()?;
    json(Totals::of(&holders.count(Count { tenant: by.tenant.clone() }).await?))
}

fn one(id: String) -> Selector {
    Selector { connection: Some(id), ..Selector::default() }
}

async fn read(State(holders): State<SharedHolders>, by: By, Path(id): Path<String>) -> Answer {
    let answered = ask(&holders, &by, one(id), None, 1).await?;
    match answered.shown.into_iter().next() {
        Some(shown) => json(shown),
        None => unknown(),
    }
}

fn unknown<T>() -> Result<T, Refusal> {
    refuse(Code::NotFound, "there is no such connection")
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Back {
    /// Whether the client is to come back.
    #[serde(default)]
    reconnect: bool,
    /// Why, for the log and the client.
    reason: Option<String>,
}

async fn disconnect(
    State(holders): State<SharedHolders>,
    by: By,
    Path(id): Path<String>,
    Wanted(Back { reconnect, reason }): Wanted<Back>,
) -> Answer {
    let order = Some(Order::Disconnect { reconnect, reason });
    match ask(&holders, &by, one(id), order, 0).await?.count {
        0 => unknown(),
        _ => no_content(),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Ordered {
    /// Which connections.
    to: Selector,
    /// What they are to do.
    order: Order,
}

#[derive(Serialize)]
struct Told {
    /// How many connections were told.
    connections: usize,
}

async fn order(
    State(holders): State<SharedHolders>,
    by: By,
    Json(Ordered { to, order }): Json<Ordered>,
) -> Answer {
    match &order {
        Order::Disconnect { .. } => {}
        // What a namespace does not allow is not to be had by this way.
        Order::Subscribe { .. } | Order::Unsubscribe { .. } | Order::Send { .. } => {
            if !by.is_trusted() {
                return refuse(Code::Forbidden, "only services and admins give such orders");
            }
        }
    }
    let told = ask(&holders, &by, to, Some(order), 0).await?;
    json(Told { connections: told.count })
}

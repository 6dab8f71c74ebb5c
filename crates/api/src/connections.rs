//! `/crosstown/v1/connections`: who is connected, on any node, and what is to be done to them.

use crate::{
    Parts,
    answer::{Answer, Done, Refusal, refuse},
    document::told,
    request::{By, InPath, Json, Wanted},
};
use aide::axum::{
    ApiRouter,
    routing::{get_with, post_with},
};
use axum::extract::State;
use protocol::Code::{self, NotFound};
use schemars::JsonSchema;
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

pub(crate) fn routes() -> ApiRouter<Parts> {
    let one = get_with(read, told("readConnection", "A connection.", &[NotFound]))
        .delete_with(disconnect, told("disconnect", "Close a connection.", &[NotFound]));
    ApiRouter::new()
        .api_route(
            "/connections",
            get_with(list, told("listConnections", "Who is connected, to any node.", &[])),
        )
        .api_route(
            "/connections/orders",
            post_with(order, told("orderConnections", "Tell connections what to do.", &[])),
        )
        .api_route(
            "/connections/stats",
            get_with(stats, told("countConnections", "What goes through all connections.", &[])),
        )
        .api_route("/connections/{id}", one)
}

/// Which connection a path names.
#[derive(Deserialize, JsonSchema)]
struct OfConnection {
    /// Its id.
    id: String,
}

/// Which connections, by a query.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Which {
    /// Those bound to this session.
    session: Option<SessionId>,
    /// Those of this user, agent or service.
    user: Option<PrincipalId>,
    /// Those of users, of agents or of services.
    kind: Option<PrincipalKind>,
    /// Those that work in this pillar.
    pillar: Option<Pillar>,
    /// Those that follow this channel.
    channel: Option<String>,
    /// So many are shown at most; 100, unless it is said.
    #[schemars(range(min = 1, max = 500))]
    limit: Option<usize>,
}

/// Connections.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Connections")]
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
) -> Answer<Json<Listed>> {
    let Which { session, user, kind, pillar, channel, limit } = which;
    let limit = limit.unwrap_or(SHOWN);
    if !(1..=SHOWN_MAX).contains(&limit) {
        return refuse(Code::BadRequest, format!("`limit` is 1 to {SHOWN_MAX}"));
    }
    let of = Selector { connection: None, session, user, kind, pillar, channel };
    let Answered { count, shown } = ask(&holders, &by, of, None, limit).await?;
    Ok(Json(Listed { count, connections: shown }))
}

/// What goes through all connections of the tenant.
async fn stats(State(holders): State<SharedHolders>, by: By) -> Answer<Json<Totals>> {
    by.speaks_for_tenant()?;
    Ok(Json(Totals::of(&holders.count(Count { tenant: by.tenant.clone() }).await?)))
}

fn one(id: String) -> Selector {
    Selector { connection: Some(id), ..Selector::default() }
}

async fn read(
    State(holders): State<SharedHolders>,
    by: By,
    InPath(OfConnection { id }): InPath<OfConnection>,
) -> Answer<Json<Shown>> {
    let answered = ask(&holders, &by, one(id), None, 1).await?;
    match answered.shown.into_iter().next() {
        Some(shown) => Ok(Json(shown)),
        None => unknown(),
    }
}

fn unknown<T>() -> Result<T, Refusal> {
    refuse(Code::NotFound, "there is no such connection")
}

#[derive(Deserialize, JsonSchema)]
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
    InPath(OfConnection { id }): InPath<OfConnection>,
    Wanted(Back { reconnect, reason }): Wanted<Back>,
) -> Answer<Done> {
    let order = Some(Order::Disconnect { reconnect, reason });
    match ask(&holders, &by, one(id), order, 0).await?.count {
        0 => unknown(),
        _ => Ok(Done),
    }
}

/// What connections are to do.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "OrderToConnections")]
struct Ordered {
    /// Which connections.
    to: Selector,
    /// What they are to do.
    order: Order,
}

/// Connections that were told.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "OrderedConnections")]
struct Told {
    /// How many connections were told.
    connections: usize,
}

async fn order(
    State(holders): State<SharedHolders>,
    by: By,
    Json(Ordered { to, order }): Json<Ordered>,
) -> Answer<Json<Told>> {
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
    Ok(Json(Told { connections: told.count }))
}

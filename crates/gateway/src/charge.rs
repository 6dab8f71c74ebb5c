//! Limits, before a request goes on.

use crate::{
    connection::{Conn, KnownCharge},
    ticket::Ticket,
};
use protocol::Problem;
use std::{net::IpAddr, sync::Arc};
use traffic_cop::{
    analytics::RouteId,
    limit::{Decision, Subject},
};
use types::Caller;

/// Charges the limits that apply; none if there are none. Worked out once for each caller and
/// route of a connection.
pub(crate) fn charge(
    conn: &Conn,
    route: RouteId,
    name: &str,
    ip: IpAddr,
    caller: Option<&Arc<Caller>>,
) -> Option<Decision> {
    let limits = &conn.core.node.limits;
    let generation = limits.generation();
    let known = &mut conn.known.borrow_mut().charge;
    let same = known.as_ref().is_some_and(|known| {
        known.generation == generation
            && known.route == route
            && known.ip == ip
            && known.caller.as_ref().map(Arc::as_ptr) == caller.map(Arc::as_ptr)
    });
    if !same {
        *known = None;
    }
    let known = known.get_or_insert_with(|| {
        let subject = Subject {
            tenant: caller.map(|caller| &caller.tenant),
            principal: caller.map(|caller| &caller.principal),
            session: caller.and_then(|caller| caller.session),
            ip,
            route: name,
        };
        let charge = limits.resolve(&subject);
        KnownCharge { generation, caller: caller.cloned(), route, ip, charge }
    });
    if known.charge.is_empty() {
        return None;
    }
    Some(known.charge.take_by(&conn.core.node.clock, 1))
}

/// The decision, once another node that counts the limit has been asked if that is needed.
pub(crate) async fn settled(conn: &Conn, decision: Option<Decision>) -> Option<Decision> {
    match decision {
        Some(open) if open.is_open() => {
            // Kept small for those who need not wait.
            Some(Box::pin(open.settle(&conn.core.node.clock, 1)).await)
        }
        decided => decided,
    }
}

/// Notes what the limits said, and lets the request go on if they do.
///
/// # Errors
/// `rate_limited`, or `store_unavailable` if nobody can say.
pub(crate) fn admit(decision: Option<Decision>, ticket: &mut Ticket) -> Result<(), Problem> {
    let Some(decision) = decision else { return Ok(()) };
    let allowed = if decision.allowed() { Ok(()) } else { Err(decision.problem()) };
    ticket.owing = decision.owing();
    ticket.decision = Some(decision);
    allowed
}

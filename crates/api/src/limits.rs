//! Limits, for the operator: `/limits/shadow?range=1h` tells whom those in shadow would have
//! refused on this node.

use crate::{
    answer::{Answer, json},
    request::Wanted,
    traffic::Asked,
};
use axum::{Router, extract::State, routing::get};
use clock::SharedClock;
use serde_json::json as object;
use std::sync::Arc;
use traffic_cop::limit::Limits;

#[derive(Clone)]
struct Parts {
    limits: Arc<Limits>,
    clock: SharedClock,
}

pub(crate) fn admin_routes(limits: Arc<Limits>, clock: SharedClock) -> Router {
    Router::new().route("/limits/shadow", get(shadow)).with_state(Parts { limits, clock })
}

async fn shadow(State(parts): State<Parts>, Wanted(asked): Wanted<Asked>) -> Answer {
    let range = asked.range()?;
    let limits = parts.limits.shadows(range, parts.clock.elapsed());
    json(object!({ "range": range.as_str(), "limits": limits }))
}

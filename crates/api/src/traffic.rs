//! `/crosstown/v1/analytics/traffic?range=1h`: the caller's tenant's traffic.

use crate::{
    answer::{Answer, Refusal, json},
    request::{By, Wanted},
};
use axum::{Router, extract::State, routing::get};
use clock::SharedClock;
use protocol::{Code, Problem};
use serde::Deserialize;
use std::sync::Arc;
use traffic_cop::analytics::{Analytics, Range};

#[derive(Clone)]
pub(crate) struct Traffic {
    analytics: Arc<Analytics>,
    clock: SharedClock,
}

pub(crate) fn routes(analytics: Arc<Analytics>, clock: SharedClock) -> Router {
    Router::new()
        .route("/analytics/traffic", get(of_tenant))
        .with_state(Traffic { analytics, clock })
}

/// As [`routes`], for the operator: over all tenants.
pub(crate) fn admin_routes(analytics: Arc<Analytics>, clock: SharedClock) -> Router {
    Router::new().route("/analytics/traffic", get(of_all)).with_state(Traffic { analytics, clock })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Asked {
    #[serde(default = "hour")]
    range: String,
}

fn hour() -> String {
    "1h".into()
}

fn range(asked: &Asked) -> Result<Range, Refusal> {
    Range::parse(&asked.range).map_err(|detail| Problem::new(Code::BadRequest, detail).into())
}

async fn of_tenant(State(traffic): State<Traffic>, by: By, Wanted(asked): Wanted<Asked>) -> Answer {
    let now = traffic.clock.now();
    json(traffic.analytics.report(range(&asked)?, now, Some(&by.tenant)))
}

async fn of_all(State(traffic): State<Traffic>, Wanted(asked): Wanted<Asked>) -> Answer {
    json(traffic.analytics.report(range(&asked)?, traffic.clock.now(), None))
}

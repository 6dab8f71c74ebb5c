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

impl Asked {
    pub(crate) fn range(&self) -> Result<Range, Refusal> {
        Range::parse(&self.range).map_err(|detail| Problem::new(Code::BadRequest, detail).into())
    }
}

fn hour() -> String {
    "1h".into()
}

async fn of_tenant(State(traffic): State<Traffic>, by: By, Wanted(asked): Wanted<Asked>) -> Answer {
    let now = traffic.clock.now();
    json(traffic.analytics.report(asked.range()?, now, Some(&by.tenant)))
}

async fn of_all(State(traffic): State<Traffic>, Wanted(asked): Wanted<Asked>) -> Answer {
    json(traffic.analytics.report(asked.range()?, traffic.clock.now(), None))
}

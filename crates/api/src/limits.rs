//! Limits, for the operator.
//!
//! `GET /limits/shadow?range=1h` tells whom those in shadow would have refused on this node;
//! `POST /limits/{limit}/reset` makes a limit full again for the subject in its body.

use crate::{
    answer::{Answer, json, no_content, refuse},
    request::{Json, Wanted},
};
use axum::{
    Router,
    extract::{Path, State},
    routing::{get, post},
};
use clock::SharedClock;
use protocol::Code;
use serde::Deserialize;
use serde_json::json as object;
use std::sync::Arc;
use traffic_cop::{
    analytics::Range,
    limit::{Limits, Named, ResetError},
};

#[derive(Clone)]
struct Parts {
    limits: Arc<Limits>,
    clock: SharedClock,
}

pub(crate) fn admin_routes(limits: Arc<Limits>, clock: SharedClock) -> Router {
    Router::new()
        .route("/limits/shadow", get(shadow))
        .route("/limits/{limit}/reset", post(reset))
        .with_state(Parts { limits, clock })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    #[serde(default = "hour")]
    range: String,
}

fn hour() -> String {
    "1h".into()
}

async fn shadow(State(parts): State<Parts>, Wanted(asked): Wanted<Asked>) -> Answer {
    let range = match Range::parse(&asked.range) {
        Ok(range) => range,
        Err(detail) => return refuse(Code::BadRequest, detail),
    };
    let limits = parts.limits.shadows(range, parts.clock.elapsed());
    json(object!({ "range": range.as_str(), "limits": limits }))
}

async fn reset(
    State(parts): State<Parts>,
    Path(limit): Path<String>,
    Json(subject): Json<Named>,
) -> Answer {
    let code = match parts.limits.reset(&limit, &subject).await {
        Ok(()) => return no_content(),
        Err(error) => match error {
            ResetError::NoLimit => (Code::NotFound, error.to_string()),
            ResetError::Subject(_) => (Code::BadRequest, error.to_string()),
            ResetError::Away => (Code::StoreUnavailable, error.to_string()),
        },
    };
    refuse(code.0, code.1)
}

//! Limits, for the operator.
//!
//! `GET /limits/shadow?range=1h` tells whom those in shadow would have refused on this node;
//! `POST /limits/{limit}/reset` makes a limit full again for the subject in its body.

use crate::{
    admin,
    answer::{Answer, Done, refuse},
    document::told,
    request::{InPath, Json, Wanted},
};
use aide::axum::{
    ApiRouter,
    routing::{get_with, post_with},
};
use axum::extract::{FromRef, State};
use clock::SharedClock;
use protocol::Code::{self, NotFound};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use traffic_cop::{
    analytics::Range,
    limit::{Limits, Named, ResetError, ShadowReport},
};

#[derive(Clone)]
struct Parts {
    limits: Arc<Limits>,
    clock: SharedClock,
}

impl FromRef<admin::Parts> for Parts {
    fn from_ref(parts: &admin::Parts) -> Self {
        Self { limits: parts.limits.clone(), clock: parts.clock.clone() }
    }
}

pub(crate) fn admin_routes() -> ApiRouter<admin::Parts> {
    ApiRouter::new()
        .api_route(
            "/limits/shadow",
            get_with(shadow, told("readShadow", "Whom limits in shadow would refuse.", &[])),
        )
        .api_route(
            "/limits/{limit}/reset",
            post_with(reset, told("resetLimit", "Make a limit full again.", &[NotFound])),
        )
}

/// Which limit a path names.
#[derive(Deserialize, JsonSchema)]
struct OfLimit {
    /// As it is configured.
    limit: String,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Asked {
    /// The last `1m`, `5m` or `1h`.
    #[serde(default = "hour")]
    #[schemars(extend("enum" = ["1m", "5m", "1h"]))]
    range: String,
}

fn hour() -> String {
    "1h".into()
}

/// Whom limits in shadow would have refused.
#[derive(Serialize, JsonSchema)]
struct Shadows {
    range: &'static str,
    limits: Vec<ShadowReport>,
}

async fn shadow(State(parts): State<Parts>, Wanted(asked): Wanted<Asked>) -> Answer<Json<Shadows>> {
    let range = match Range::parse(&asked.range) {
        Ok(range) => range,
        Err(detail) => return refuse(Code::BadRequest, detail),
    };
    let limits = parts.limits.shadows(range, parts.clock.elapsed());
    Ok(Json(Shadows { range: range.as_str(), limits }))
}

async fn reset(
    State(parts): State<Parts>,
    InPath(OfLimit { limit }): InPath<OfLimit>,
    Json(subject): Json<Named>,
) -> Answer<Done> {
    let code = match parts.limits.reset(&limit, &subject).await {
        Ok(()) => return Ok(Done),
        Err(error) => match error {
            ResetError::NoLimit => (Code::NotFound, error.to_string()),
            ResetError::Subject(_) => (Code::BadRequest, error.to_string()),
            ResetError::Away => (Code::StoreUnavailable, error.to_string()),
        },
    };
    refuse(code.0, code.1)
}

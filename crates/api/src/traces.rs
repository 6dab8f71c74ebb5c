//! `/crosstown/v1/traces`: seeing what passes through some connections, for a time.

use crate::{
    answer::{Answer, json, json_with, no_content, refuse},
    request::{By, Json},
};
use axum::{
    Router,
    extract::{Path, State},
    routing::{delete, post},
};
use http::StatusCode;
use protocol::Code;
use serde::Serialize;
use std::sync::Arc;
use traffic_cop::{
    connections::Holders,
    traces::{NewTrace, Trace},
};

type SharedHolders = Arc<dyn Holders>;

pub(crate) fn routes(holders: SharedHolders) -> Router {
    Router::new()
        .route("/traces", post(begin).get(list))
        .route("/traces/{id}", delete(end))
        .with_state(holders)
}

#[derive(Serialize)]
struct Shown {
    #[serde(flatten)]
    trace: Trace,
    /// The channel that shows it.
    channel: String,
}

impl From<Trace> for Shown {
    fn from(trace: Trace) -> Self {
        Self { channel: trace.channel(), trace }
    }
}

#[derive(Serialize)]
struct Listed {
    traces: Vec<Shown>,
}

async fn begin(State(holders): State<SharedHolders>, by: By, Json(new): Json<NewTrace>) -> Answer {
    by.speaks_for_tenant()?;
    json_with(StatusCode::CREATED, Shown::from(holders.begin_trace(&by, new).await?))
}

async fn list(State(holders): State<SharedHolders>, by: By) -> Answer {
    by.speaks_for_tenant()?;
    let traces = holders.traces(&by.tenant).await?;
    json(Listed { traces: traces.into_iter().map(Shown::from).collect() })
}

async fn end(State(holders): State<SharedHolders>, by: By, Path(id): Path<String>) -> Answer {
    by.speaks_for_tenant()?;
    match holders.end_trace(&by.tenant, &id).await? {
        true => no_content(),
        false => refuse(Code::NotFound, "there is no such trace"),
    }
}

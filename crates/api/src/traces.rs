//! `/crosstown/v1/traces`: seeing what passes through some connections, for a time.

use crate::{
    Parts,
    answer::{Answer, Created, Done, refuse},
    document::told,
    request::{By, InPath, Json},
};
use aide::axum::{
    ApiRouter,
    routing::{delete_with, post_with},
};
use axum::extract::State;
use protocol::Code::{self, Conflict, NotFound};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use traffic_cop::{
    connections::Holders,
    traces::{NewTrace, Trace},
};

type SharedHolders = Arc<dyn Holders>;

pub(crate) fn routes() -> ApiRouter<Parts> {
    let many = post_with(begin, told("beginTrace", "See what passes, for a time.", &[Conflict]))
        .get_with(list, told("listTraces", "Traces that go on.", &[]));
    ApiRouter::new()
        .api_route("/traces", many)
        .api_route("/traces/{id}", delete_with(end, told("endTrace", "End a trace.", &[NotFound])))
}

/// Which trace a path names.
#[derive(Deserialize, JsonSchema)]
struct OfTrace {
    /// Its id.
    id: String,
}

/// A trace and where it is seen.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "TraceShown")]
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

/// Traces that go on.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Traces")]
struct Listed {
    traces: Vec<Shown>,
}

async fn begin(
    State(holders): State<SharedHolders>,
    by: By,
    Json(new): Json<NewTrace>,
) -> Answer<Created<Shown>> {
    by.speaks_for_tenant()?;
    Ok(Created(Shown::from(holders.begin_trace(&by, new).await?)))
}

async fn list(State(holders): State<SharedHolders>, by: By) -> Answer<Json<Listed>> {
    by.speaks_for_tenant()?;
    let traces = holders.traces(&by.tenant).await?;
    Ok(Json(Listed { traces: traces.into_iter().map(Shown::from).collect() }))
}

async fn end(
    State(holders): State<SharedHolders>,
    by: By,
    InPath(OfTrace { id }): InPath<OfTrace>,
) -> Answer<Done> {
    by.speaks_for_tenant()?;
    match holders.end_trace(&by.tenant, &id).await? {
        true => Ok(Done),
        false => refuse(Code::NotFound, "there is no such trace"),
    }
}

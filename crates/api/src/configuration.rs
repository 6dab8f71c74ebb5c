//! The configuration as a transaction: planned, applied, tried on a part of the requests, and
//! taken back.

use crate::{
    answer::{Answer, Refusal, json, json_with, no_content},
    request::Json,
};
use async_trait::async_trait;
use axum::{
    Router,
    extract::State,
    routing::{delete, get, post},
};
use http::StatusCode;
use protocol::Problem;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{sync::Arc, time::Duration};

/// Bytes of a configuration that is sent.
const TEXT_BYTES_MAX: usize = 16 * 1024 * 1024;

/// What changes, and what it would meet.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Plan {
    /// The configuration in force, by its digest.
    pub version: String,
    /// The planned one.
    pub planned: String,
    /// What differs.
    pub changes: Vec<Change>,
    /// What of it needs a restart, and so cannot be applied to a running node.
    pub restart: Vec<String>,
    /// Instances of the planned services that would not be called.
    pub unreachable: Vec<Unreachable>,
    /// Services all of whose instances are among them.
    pub lost: Vec<String>,
}

/// One value that differs; `null` where there is none, secrets redacted.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Change {
    /// Where it stands, with elements of lists by their names: `routes.shop.timeout`.
    pub path: String,
    /// What it is.
    pub from: Value,
    /// What it would be.
    pub to: Value,
}

/// An instance that would not be called.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unreachable {
    /// The service.
    pub service: String,
    /// Host and port.
    pub instance: String,
    /// What asking it met.
    pub why: String,
}

/// A configuration that is to be planned or applied.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Proposal {
    /// The whole file.
    pub text: String,
    /// Only if this is the one in force.
    #[serde(default)]
    pub if_version: Option<String>,
    /// Although services would be lost.
    #[serde(default)]
    pub force: bool,
    /// On a part of the requests first.
    #[serde(default)]
    pub trial: Option<TrialTerms>,
}

/// How a configuration is tried.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrialTerms {
    /// Requests of a hundred that get it, 0.1 to 50.
    pub percent: f64,
    /// For how long.
    #[serde(rename = "for", with = "types::duration")]
    pub duration: Duration,
    /// Errors of a hundred that it may have more than the one in force. Default 1.
    #[serde(default = "errors_percent_max")]
    pub errors_percent_max: f64,
    /// The time within which 99 of 100 requests have to be answered, in milliseconds. Default:
    /// any.
    #[serde(default)]
    pub p99_ms_max: Option<f64>,
    /// Requests that it has to have had before anything is concluded, also at the end: without
    /// them it is taken back. Default 100.
    #[serde(default = "requests_min")]
    pub requests_min: u64,
}

fn errors_percent_max() -> f64 {
    1.0
}

fn requests_min() -> u64 {
    100
}

/// What became of a proposal.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Applied {
    /// `applied`, `trying` or `unchanged`.
    pub status: &'static str,
    /// The digest of what is in force, or on trial.
    pub version: String,
    /// What differs from what was in force.
    pub changes: Vec<Change>,
}

/// A configuration that was in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Version {
    /// Its digest.
    pub version: String,
    /// How many came before it.
    pub number: u64,
    /// Whether it is in force now.
    pub in_force: bool,
}

/// The configuration of a node.
#[async_trait]
pub trait Configuration: Send + Sync {
    /// What a proposal would change and meet; nothing is changed.
    async fn plan(&self, text: &str) -> Result<Plan, Problem>;
    /// Applies a proposal, or begins its trial.
    async fn apply(&self, proposal: Proposal) -> Result<Applied, Problem>;
    /// Those that were in force, the newest first.
    async fn versions(&self) -> Result<Vec<Version>, Problem>;
    /// Applies the one before, or the one of this digest.
    async fn roll_back(&self, version: Option<&str>) -> Result<Applied, Problem>;
    /// Ends the trial under way; false if there is none.
    async fn abandon(&self) -> bool;
    /// What is in force, on trial, and what became of the last trial.
    async fn status(&self) -> Result<Value, Problem>;
}

type Shared = Arc<dyn Configuration>;

pub(crate) fn admin_routes(configuration: Shared) -> Router {
    Router::new()
        .route("/config/plan", post(plan))
        .route("/config/apply", post(apply))
        .route("/config/rollback", post(roll_back))
        .route("/config/versions", get(versions))
        .route("/config/status", get(status))
        .route("/config/trial", delete(abandon))
        .layer(axum::extract::DefaultBodyLimit::max(TEXT_BYTES_MAX))
        .with_state(configuration)
}

async fn plan(State(shared): State<Shared>, Json(proposal): Json<Proposal>) -> Answer {
    json(shared.plan(&proposal.text).await.map_err(Refusal)?)
}

async fn apply(State(shared): State<Shared>, Json(proposal): Json<Proposal>) -> Answer {
    let applied = shared.apply(proposal).await.map_err(Refusal)?;
    let status = if applied.status == "trying" { StatusCode::ACCEPTED } else { StatusCode::OK };
    json_with(status, applied)
}

/// Which version to go back to.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Back {
    #[serde(default)]
    version: Option<String>,
}

async fn roll_back(State(shared): State<Shared>, Json(back): Json<Back>) -> Answer {
    json(shared.roll_back(back.version.as_deref()).await.map_err(Refusal)?)
}

async fn versions(State(shared): State<Shared>) -> Answer {
    let versions = shared.versions().await.map_err(Refusal)?;
    json(serde_json::json!({ "versions": versions }))
}

async fn status(State(shared): State<Shared>) -> Answer {
    json(shared.status().await.map_err(Refusal)?)
}

async fn abandon(State(shared): State<Shared>) -> Answer {
    if shared.abandon().await {
        return no_content();
    }
    crate::answer::refuse(protocol::Code::NotFound, "no configuration is on trial")
}

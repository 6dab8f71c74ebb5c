//! The configuration as a transaction: planned, applied, tried on a part of the requests, and
//! taken back.

use crate::{
    admin,
    answer::{Answer, Done, OkOr, Refusal, refuse},
    document::told,
    request::Json,
};
use aide::axum::{
    ApiRouter,
    routing::{delete_with, get_with, post_with},
};
use async_trait::async_trait;
use axum::extract::{DefaultBodyLimit, State};
use protocol::{
    Code::{self, Conflict, NotFound},
    Problem,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{sync::Arc, time::Duration};
use types::Timestamp;

/// Bytes of a configuration that is sent.
const TEXT_BYTES_MAX: usize = 16 * 1024 * 1024;

/// What changes, and what it would meet.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[schemars(rename = "ConfigPlan")]
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
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[schemars(rename = "ConfigChange")]
pub struct Change {
    /// Where it stands, with elements of lists by their names: `routes.shop.timeout`.
    pub path: String,
    /// What it is.
    pub from: Value,
    /// What it would be.
    pub to: Value,
}

/// An instance that would not be called.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "UnreachableInstance")]
pub struct Unreachable {
    /// The service.
    pub service: String,
    /// Host and port.
    pub instance: String,
    /// What asking it met.
    pub why: String,
}

/// A configuration that is to be planned or applied.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "ConfigProposal")]
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
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "ConfigTrialTerms")]
pub struct TrialTerms {
    /// Requests of a hundred that get it, 0.1 to 50.
    pub percent: f64,
    /// For how long.
    #[serde(rename = "for", with = "types::duration")]
    #[schemars(with = "types::duration::Text")]
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
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[schemars(rename = "AppliedConfig")]
pub struct Applied {
    /// `applied`, `trying` or `unchanged`.
    pub status: &'static str,
    /// The digest of what is in force, or on trial.
    pub version: String,
    /// What differs from what was in force.
    pub changes: Vec<Change>,
}

/// A configuration that was in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "ConfigVersion")]
pub struct Version {
    /// Its digest.
    pub version: String,
    /// How many came before it.
    pub number: u64,
    /// Whether it is in force now.
    pub in_force: bool,
}

/// What is in force, and what is or was on trial.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(rename = "ConfigStatus")]
pub struct Status {
    /// What is in force, by its digest.
    pub version: String,
    /// The trial under way.
    pub trial: Option<Trial>,
    /// The one before, since the node started.
    pub last_trial: Option<EndedTrial>,
}

/// A configuration on trial.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(rename = "ConfigTrial")]
pub struct Trial {
    /// Its digest.
    pub version: String,
    /// How it is tried.
    pub terms: TrialTerms,
    /// When that began, in milliseconds since 1970 UTC.
    pub began: Timestamp,
    /// What requests came to, by the one in force and by the one on trial.
    pub figures: Option<TrialFigures>,
}

/// What requests came to during a trial.
#[derive(Debug, Clone, Copy, Serialize, JsonSchema)]
#[schemars(rename = "ConfigTrialFigures")]
pub struct TrialFigures {
    /// By the configuration on trial.
    pub tried: FiguresOfTrial,
    /// By the one in force, in the same time.
    pub in_force: FiguresOfTrial,
}

/// What requests came to by one configuration.
#[derive(Debug, Clone, Copy, Serialize, JsonSchema)]
#[schemars(rename = "FiguresOfConfig")]
pub struct FiguresOfTrial {
    /// Requests answered.
    pub requests: u64,
    /// With a status from 500.
    pub errors: u64,
    /// The time within which 99 of 100 were answered to the end, in milliseconds.
    pub p99_ms: f64,
}

/// What became of a trial.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(rename = "EndedConfigTrial")]
pub struct EndedTrial {
    /// The digest of what was tried.
    pub version: String,
    /// `kept` or `taken back`.
    pub outcome: &'static str,
    /// Why.
    pub why: String,
    /// When, in milliseconds since 1970 UTC.
    pub at: Timestamp,
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
    async fn status(&self) -> Result<Status, Problem>;
}

type Shared = Arc<dyn Configuration>;

pub(crate) fn admin_routes() -> ApiRouter<admin::Parts> {
    ApiRouter::new()
        .api_route(
            "/config/plan",
            post_with(plan, told("planConfig", "What a configuration would change.", &[])),
        )
        .api_route(
            "/config/apply",
            post_with(apply, told("applyConfig", "Apply a configuration, or try it.", &[Conflict])),
        )
        .api_route(
            "/config/rollback",
            post_with(
                roll_back,
                told("rollBackConfig", "Apply one of before.", &[NotFound, Conflict]),
            ),
        )
        .api_route(
            "/config/versions",
            get_with(versions, told("listConfigs", "Those that were in force.", &[])),
        )
        .api_route(
            "/config/status",
            get_with(status, told("readConfigStatus", "What is in force, and on trial.", &[])),
        )
        .api_route(
            "/config/trial",
            delete_with(abandon, told("abandonTrial", "End the trial.", &[NotFound])),
        )
        .layer(DefaultBodyLimit::max(TEXT_BYTES_MAX))
}

async fn plan(State(shared): State<Shared>, Json(proposal): Json<Proposal>) -> Answer<Json<Plan>> {
    Ok(Json(shared.plan(&proposal.text).await.map_err(Refusal)?))
}

async fn apply(
    State(shared): State<Shared>,
    Json(proposal): Json<Proposal>,
) -> Answer<OkOr<202, Applied>> {
    let applied = shared.apply(proposal).await.map_err(Refusal)?;
    Ok(if applied.status == "trying" { OkOr::Else(applied) } else { OkOr::Ok(applied) })
}

/// Which version to go back to.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "ConfigToRollBackTo")]
struct Back {
    /// Its digest; the one before, unless it is given.
    #[serde(default)]
    version: Option<String>,
}

async fn roll_back(State(shared): State<Shared>, Json(back): Json<Back>) -> Answer<Json<Applied>> {
    Ok(Json(shared.roll_back(back.version.as_deref()).await.map_err(Refusal)?))
}

/// Configurations that were in force.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ConfigVersions")]
struct Versions {
    versions: Vec<Version>,
}

async fn versions(State(shared): State<Shared>) -> Answer<Json<Versions>> {
    Ok(Json(Versions { versions: shared.versions().await.map_err(Refusal)? }))
}

async fn status(State(shared): State<Shared>) -> Answer<Json<Status>> {
    Ok(Json(shared.status().await.map_err(Refusal)?))
}

async fn abandon(State(shared): State<Shared>) -> Answer<Done> {
    if shared.abandon().await {
        return Ok(Done);
    }
    refuse(Code::NotFound, "no configuration is on trial")
}

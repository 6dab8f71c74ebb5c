//! What would become of a request, and why.

use crate::{
    admin,
    answer::{Answer, Refusal},
    document::told,
    request::Json,
};
use aide::axum::{ApiRouter, routing::post_with};
use async_trait::async_trait;
use axum::extract::State;
use protocol::{Code, Problem};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::{collections::BTreeMap, net::IpAddr, sync::Arc};
use types::{PrincipalId, PrincipalKind, Role, TenantId};

/// A request, as it is asked about.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "HypotheticalRequest")]
pub struct Hypothetical {
    /// Its method. Default `GET`.
    #[serde(default = "get")]
    pub method: String,
    /// Its URL; the host is what routes compare.
    pub url: String,
    /// Its header fields; a credential among them says whose it is.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// From where it comes. Default `127.0.0.1`.
    #[serde(default = "here")]
    pub ip: IpAddr,
    /// Whose it is, instead of by a credential.
    #[serde(default, rename = "as")]
    pub by: Option<Hypothesis>,
}

/// A caller, as it is asked about.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "HypotheticalCaller")]
pub struct Hypothesis {
    /// Its tenant.
    pub tenant: TenantId,
    /// What it is. Default `user`.
    #[serde(default = "user")]
    pub kind: PrincipalKind,
    /// Its name.
    pub principal: PrincipalId,
    /// Its roles.
    #[serde(default)]
    pub roles: Vec<Role>,
}

fn get() -> String {
    "GET".into()
}

fn here() -> IpAddr {
    std::net::Ipv4Addr::LOCALHOST.into()
}

fn user() -> PrincipalKind {
    PrincipalKind::User
}

/// What would become of a request: what every explanation has, and what else there is to tell.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Explanation {
    /// `forwarded`, `answered_here`, or the code of the error that the client would see.
    pub outcome: String,
    /// Why.
    pub why: String,
    /// The route that takes it.
    pub route: Option<String>,
    /// The caller, the limits, the bridge, the instances and the like.
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

/// Who can tell.
#[async_trait]
pub trait Explains: Send + Sync {
    /// What would become of it. Nothing is charged, and no service is called.
    async fn explain(&self, asked: Hypothetical) -> Result<Explanation, Problem>;
}

type Shared = Arc<dyn Explains>;

pub(crate) fn admin_routes() -> ApiRouter<admin::Parts> {
    let summary = "What would become of a request, and why.";
    let told = told("explainRequest", summary, &[Code::Forbidden, Code::NotFound]);
    ApiRouter::new().api_route("/explain", post_with(explain, told))
}

async fn explain(
    State(explains): State<Shared>,
    Json(asked): Json<Hypothetical>,
) -> Answer<Json<Explanation>> {
    Ok(Json(explains.explain(asked).await.map_err(Refusal)?))
}

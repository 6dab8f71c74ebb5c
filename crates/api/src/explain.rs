//! What would become of a request, and why.

use crate::{
    answer::{Answer, Refusal, json},
    request::Json,
};
use async_trait::async_trait;
use axum::{Router, extract::State, routing::post};
use protocol::Problem;
use serde::Deserialize;
use serde_json::Value;
use std::{collections::BTreeMap, net::IpAddr, sync::Arc};
use types::{PrincipalId, PrincipalKind, Role, TenantId};

/// A request, as it is asked about.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
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
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
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

/// Who can tell.
#[async_trait]
pub trait Explains: Send + Sync {
    /// What would become of it. Nothing is charged, and no service is called.
    async fn explain(&self, asked: Hypothetical) -> Result<Value, Problem>;
}

type Shared = Arc<dyn Explains>;

pub(crate) fn admin_routes(explains: Shared) -> Router {
    Router::new().route("/explain", post(explain)).with_state(explains)
}

async fn explain(State(explains): State<Shared>, Json(asked): Json<Hypothetical>) -> Answer {
    json(explains.explain(asked).await.map_err(Refusal)?)
}

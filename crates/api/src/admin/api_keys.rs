//! `/api-keys`: credentials of services.

use crate::{
    admin::Parts,
    answer::{Answer, Created, Done, refuse},
    document::told,
    request::{InPath, Json, Wanted},
};
use aide::axum::{
    ApiRouter,
    routing::{delete_with, post_with},
};
use axum::extract::State;
use protocol::Code;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use traffic_cop::identity::api_key::{ApiKey, NewApiKey};
use types::TenantId;

pub(super) fn routes() -> ApiRouter<Parts> {
    let keys = post_with(create, told("createApiKey", "Make an API key.", &[Code::Conflict]))
        .get_with(list, told("listApiKeys", "The API keys of a tenant.", &[]));
    ApiRouter::new().api_route("/api-keys", keys).api_route(
        "/api-keys/{tenant}/{id}",
        delete_with(delete, told("deleteApiKey", "Delete an API key.", &[Code::NotFound])),
    )
}

/// An API key and its credential.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "CreatedApiKey")]
struct New {
    #[serde(flatten)]
    key: ApiKey,
    /// The credential. It is shown this once.
    text: String,
}

async fn create(State(parts): State<Parts>, Json(new): Json<NewApiKey>) -> Answer<Created<New>> {
    let (key, text) = parts.api_keys.create(new).await?;
    Ok(Created(New { key, text }))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct OfTenant {
    /// Whose.
    tenant: TenantId,
}

/// The API keys of a tenant.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ApiKeys")]
struct Listed {
    api_keys: Vec<ApiKey>,
}

async fn list(State(parts): State<Parts>, Wanted(of): Wanted<OfTenant>) -> Answer<Json<Listed>> {
    Ok(Json(Listed { api_keys: parts.api_keys.list(&of.tenant).await? }))
}

/// Which API key a path names.
#[derive(Deserialize, JsonSchema)]
struct OfKey {
    /// Whose it is.
    #[schemars(with = "TenantId")]
    tenant: String,
    /// Its id.
    id: String,
}

async fn delete(
    State(parts): State<Parts>,
    InPath(OfKey { tenant, id }): InPath<OfKey>,
) -> Answer<Done> {
    let Ok(tenant) = TenantId::new(&tenant) else {
        return refuse(Code::NotFound, "there is no such API key");
    };
    parts.api_keys.delete(&tenant, &id).await?;
    Ok(Done)
}

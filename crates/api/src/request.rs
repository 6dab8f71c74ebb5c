//! What handlers take out of a request, and what our own OpenAPI document says of it.

use crate::{
    answer::{Answer, Refusal, refuse},
    document,
};
use aide::{
    OperationInput,
    generate::GenContext,
    openapi::{MediaType, Operation, RequestBody},
    operation::{ParamLocation, set_body},
};
use axum::{
    body::Bytes,
    extract::{FromRequest, FromRequestParts, Path, Query, Request},
};
use http::{HeaderMap, header, request::Parts};
use indexmap::IndexMap;
use protocol::{Code, Problem, strict};
use schemars::JsonSchema;
use serde::{Serialize, de::DeserializeOwned};
use std::{convert::Infallible, net::IpAddr, ops::Deref, sync::Arc};
use traffic_cop::state::{Operation as Change, PatchForm};
use types::{
    Caller, CredentialKind, Pillars, PrincipalId, PrincipalKind, Role, SessionId, TenantId,
};

const JSON: &str = "application/json";
const MERGE_PATCH: &str = "application/merge-patch+json";
const YAML: &str = "application/yaml";
const JSON_PATCH: &str = "application/json-patch+json";

/// Who calls, as the gateway found.
pub(crate) struct By(pub(crate) Arc<Caller>);

impl By {
    /// Refuses who may not see what others of the tenant do.
    pub(crate) fn speaks_for_tenant(&self) -> Result<(), Refusal> {
        match self.is_trusted() {
            true => Ok(()),
            false => refuse(Code::Forbidden, "only services and admins see what others do"),
        }
    }
}

impl OperationInput for By {
    fn operation_input(_: &mut GenContext, operation: &mut Operation) {
        document::needs(operation, document::CREDENTIAL, true);
        document::refuses(operation, &[Code::Forbidden]);
    }
}

/// Who calls, where nobody has to say so.
pub(crate) struct MayBe(pub(crate) Option<Arc<Caller>>);

impl<S: Sync> FromRequestParts<S> for MayBe {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self(parts.extensions.get::<Arc<Caller>>().cloned()))
    }
}

impl OperationInput for MayBe {
    fn operation_input(_: &mut GenContext, operation: &mut Operation) {
        document::needs(operation, document::CREDENTIAL, false);
    }
}

/// From where, as the gateway found.
pub(crate) struct Address(pub(crate) Option<IpAddr>);

impl<S: Sync> FromRequestParts<S> for Address {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self(parts.extensions.get::<IpAddr>().copied()))
    }
}

impl OperationInput for Address {}

impl Deref for By {
    type Target = Caller;
    fn deref(&self) -> &Caller {
        &self.0
    }
}

impl<S: Sync> FromRequestParts<S> for By {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        let caller = parts.extensions.get::<Arc<Caller>>().cloned();
        caller
            .map(Self)
            .ok_or_else(|| Refusal(Problem::new(Code::Unauthenticated, "this needs a credential")))
    }
}

/// What the path names, in the form of `T`.
pub(crate) struct InPath<T>(pub(crate) T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for InPath<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        match Path::<T>::from_request_parts(parts, state).await {
            Ok(Path(named)) => Ok(Self(named)),
            Err(rejection) => {
                let detail = format!("the path is wrong: {}", rejection.body_text());
                Err(Refusal(Problem::new(Code::BadRequest, detail)))
            }
        }
    }
}

impl<T: JsonSchema> OperationInput for InPath<T> {
    fn operation_input(context: &mut GenContext, operation: &mut Operation) {
        document::parameters::<T>(context, operation, ParamLocation::Path);
    }
}

/// A JSON body that has the form of `T`, and says that it is JSON. As an answer: 200, and the
/// same.
pub(crate) struct Json<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refusal> {
        let kind = media_type(request.headers());
        if kind != JSON && kind != MERGE_PATCH {
            let detail = "the body must be JSON: send `Content-Type: application/json`";
            return Err(Refusal(Problem::new(Code::UnsupportedMediaType, detail)));
        }
        parsed(request, state).await.map(Self)
    }
}

impl<T: JsonSchema> OperationInput for Json<T> {
    fn operation_input(context: &mut GenContext, operation: &mut Operation) {
        let schema = context.schema.subschema_for::<T>();
        takes(context, operation, true, document::content(JSON, schema));
    }
}

/// Notes the body of an operation.
fn takes(
    context: &mut GenContext,
    operation: &mut Operation,
    required: bool,
    content: IndexMap<String, MediaType>,
) {
    let body = RequestBody { content, required, ..RequestBody::default() };
    set_body(context, operation, body);
    document::refuses(operation, &[Code::BodyTooLarge, Code::UnsupportedMediaType]);
}

/// A body that is any JSON, as it was written.
pub(crate) struct AnyJson<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for AnyJson<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refusal> {
        Json::from_request(request, state).await.map(|Json(value)| Self(value))
    }
}

impl<T> OperationInput for AnyJson<T> {
    fn operation_input(context: &mut GenContext, operation: &mut Operation) {
        takes(context, operation, true, document::content(JSON, any()));
    }
}

fn any() -> schemars::Schema {
    schemars::json_schema!({ "description": "Any JSON." })
}

/// The change of an entry that a body asks for, by its media type.
pub(crate) struct Patched(pub(crate) Change);

impl<S: Send + Sync> FromRequest<S> for Patched {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refusal> {
        if media_type(request.headers()) == JSON_PATCH {
            return parsed(request, state).await.map(|patch| Self(Change::JsonPatch(patch)));
        }
        let Json(value) = Json::from_request(request, state).await?;
        Ok(Self(Change::Patch(value)))
    }
}

impl OperationInput for Patched {
    fn operation_input(context: &mut GenContext, operation: &mut Operation) {
        let steps = context.schema.subschema_for::<PatchForm>();
        let mut content = document::content(MERGE_PATCH, any());
        content.extend(document::content(JSON, any()));
        content.extend(document::content(JSON_PATCH, steps));
        takes(context, operation, true, content);
    }
}

/// A body that is an OpenAPI document, in JSON or YAML, whatever it calls itself.
pub(crate) struct DocumentText(pub(crate) Bytes);

impl<S: Send + Sync> FromRequest<S> for DocumentText {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refusal> {
        body(request, state).await.map(Self)
    }
}

impl OperationInput for DocumentText {
    fn operation_input(context: &mut GenContext, operation: &mut Operation) {
        let schema = context.schema.subschema_for::<document::OfOpenApi>();
        let mut content = document::content(JSON, schema.clone());
        content.extend(document::content(YAML, schema));
        set_body(context, operation, RequestBody { content, required: true, ..Default::default() });
        document::refuses(operation, &[Code::BodyTooLarge]);
    }
}

async fn parsed<T: DeserializeOwned, S: Send + Sync>(
    request: Request,
    state: &S,
) -> Result<T, Refusal> {
    let body = body(request, state).await?;
    strict::from_slice(&body).map_err(|error| {
        Refusal(Problem::new(Code::BadRequest, format!("the body is wrong: {error}")))
    })
}

/// A JSON body that may be missing; then `T`'s default.
pub(crate) struct JsonOrDefault<T>(pub(crate) T);

impl<T: DeserializeOwned + Default, S: Send + Sync> FromRequest<S> for JsonOrDefault<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refusal> {
        if media_type(request.headers()).is_empty() {
            let body = body(request, state).await?;
            return if body.is_empty() {
                Ok(Self(T::default()))
            } else {
                let detail = "the body must be JSON: send `Content-Type: application/json`";
                Err(Refusal(Problem::new(Code::UnsupportedMediaType, detail)))
            };
        }
        Json::from_request(request, state).await.map(|Json(value)| Self(value))
    }
}

impl<T: JsonSchema> OperationInput for JsonOrDefault<T> {
    fn operation_input(context: &mut GenContext, operation: &mut Operation) {
        let schema = context.schema.subschema_for::<T>();
        takes(context, operation, false, document::content(JSON, schema));
    }
}

async fn body<S: Send + Sync>(request: Request, state: &S) -> Result<Bytes, Refusal> {
    Bytes::from_request(request, state).await.map_err(|rejection| {
        let problem = if rejection.status() == http::StatusCode::PAYLOAD_TOO_LARGE {
            Problem::new(Code::BodyTooLarge, "the body is larger than 1 MiB")
        } else {
            Problem::new(Code::BadRequest, "the body ended early or is badly framed")
        };
        Refusal(problem)
    })
}

fn media_type(headers: &HeaderMap) -> String {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let kind = value.unwrap_or_default().split(';').next().unwrap_or_default();
    kind.trim().to_ascii_lowercase()
}

/// The query, in the form of `T`.
pub(crate) struct Wanted<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Wanted<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        match Query::<T>::from_request_parts(parts, state).await {
            Ok(Query(query)) => Ok(Self(query)),
            Err(rejection) => {
                let detail = format!("the query is wrong: {}", rejection.body_text());
                Err(Refusal(Problem::new(Code::BadRequest, detail)))
            }
        }
    }
}

impl<T: JsonSchema> OperationInput for Wanted<T> {
    fn operation_input(context: &mut GenContext, operation: &mut Operation) {
        document::parameters::<T>(context, operation, ParamLocation::Query);
    }
}

/// How the platform sees the caller.
#[derive(Serialize, JsonSchema)]
pub(crate) struct WhoAmI {
    tenant: TenantId,
    principal: PrincipalId,
    kind: PrincipalKind,
    session: Option<SessionId>,
    roles: Arc<[Role]>,
    pillars: Pillars,
    /// What proved it: `jwt`, `api_key`, `session_token`, `certificate`, `vouched`, `anonymous`.
    credential: &'static str,
}

pub(crate) async fn whoami(by: By) -> Answer<Json<WhoAmI>> {
    let credential = match by.credential {
        CredentialKind::Jwt => "jwt",
        CredentialKind::ApiKey => "api_key",
        CredentialKind::SessionToken => "session_token",
        CredentialKind::Certificate => "certificate",
        CredentialKind::Vouched => "vouched",
        CredentialKind::Anonymous => "anonymous",
    };
    Ok(Json(WhoAmI {
        tenant: by.tenant.clone(),
        principal: by.principal.id.clone(),
        kind: by.principal.kind,
        session: by.session,
        roles: by.roles.clone(),
        pillars: by.pillars.clone(),
        credential,
    }))
}

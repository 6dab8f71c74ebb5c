//! What handlers take out of a request.

use crate::answer::{Answer, Refusal, json, refuse};
use axum::{
    body::Bytes,
    extract::{FromRequest, FromRequestParts, Query, Request},
};
use http::{HeaderMap, header, request::Parts};
use protocol::{Code, Problem};
use serde::{Serialize, de::DeserializeOwned};
use std::{convert::Infallible, net::IpAddr, ops::Deref, sync::Arc};
use traffic_cop::state::Operation;
use types::{
    Caller, CredentialKind, Pillars, PrincipalId, PrincipalKind, Role, SessionId, TenantId,
};

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

/// Who calls, where nobody has to say so.
pub(crate) struct MayBe(pub(crate) Option<Arc<Caller>>);

impl<S: Sync> FromRequestParts<S> for MayBe {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self(parts.extensions.get::<Arc<Caller>>().cloned()))
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

/// A JSON body that has the form of `T`, and says that it is JSON.
pub(crate) struct Json<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refusal> {
        let kind = media_type(request.headers());
        if kind != "application/json" && kind != "application/merge-patch+json" {
            let detail = "the body must be JSON: send `Content-Type: application/json`";
            return Err(Refusal(Problem::new(Code::UnsupportedMediaType, detail)));
        }
        parsed(request, state).await.map(Self)
    }
}

/// The change of an entry that a body asks for, by its media type.
pub(crate) struct Patched(pub(crate) Operation);

impl<S: Send + Sync> FromRequest<S> for Patched {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refusal> {
        if media_type(request.headers()) == "application/json-patch+json" {
            return parsed(request, state).await.map(|patch| Self(Operation::JsonPatch(patch)));
        }
        let Json(value) = Json::from_request(request, state).await?;
        Ok(Self(Operation::Patch(value)))
    }
}

async fn parsed<T: DeserializeOwned, S: Send + Sync>(
    request: Request,
    state: &S,
) -> Result<T, Refusal> {
    let body = body(request, state).await?;
    serde_json::from_slice(&body).map_err(|error| {
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

#[derive(Serialize)]
struct Shown<'a> {
    tenant: &'a TenantId,
    principal: &'a PrincipalId,
    kind: PrincipalKind,
    session: Option<SessionId>,
    roles: &'a [Role],
    pillars: &'a Pillars,
    credential: &'static str,
}

/// `GET /whoami`: how the platform sees the caller.
pub(crate) async fn whoami(by: By) -> Answer {
    let credential = match by.credential {
        CredentialKind::Jwt => "jwt",
        CredentialKind::ApiKey => "api_key",
        CredentialKind::SessionToken => "session_token",
        CredentialKind::Certificate => "certificate",
        CredentialKind::Vouched => "vouched",
        CredentialKind::Anonymous => "anonymous",
    };
    json(Shown {
        tenant: &by.tenant,
        principal: &by.principal.id,
        kind: by.principal.kind,
        session: by.session,
        roles: &by.roles,
        pillars: &by.pillars,
        credential,
    })
}

//! A client for services: calls by HTTP, and state documents that can be followed.
//!
//! [`Client`] holds the base address and a credential (an API key, a session token or a JSON
//! Web Token). [`Client::document`] names a state document; [`Follower`] tells its changes in
//! the order of their revisions, resumes by itself after an interruption, and hands out a
//! fresh snapshot where it cannot resume without a gap. [`Client::register`] makes a service an
//! instance that others reach, for as long as its [`Registration`] is held. [`Client::service`]
//! calls services of realms.

mod document;
mod registration;
mod service;

pub use document::{
    Applied, Change, Document, Entry, Event, Follower, Snapshot, Synced, Transacted,
};

pub use registration::{InstanceOptions, Registration};
pub use service::Service;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::{
    client::legacy::{Client as Pool, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde::{Serialize, de::DeserializeOwned};
use std::time::Duration;

/// Bytes of an answer at most.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Time for an answer; changes may be waited for by half of it.
const WITHIN: Duration = Duration::from_secs(60);

/// What a call can fail with.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The base address is not one.
    #[error("`{0}` is not an address of the form `http://host:port`")]
    Address(String),
    /// No answer; a write may or may not have happened.
    #[error("no answer from {address}: {detail}")]
    Unreachable {
        /// Whom.
        address: String,
        /// What happened.
        detail: String,
    },
    /// The platform refused.
    #[error("{detail} ({code}, status {status})")]
    Refused {
        /// The public code, for instance `conflict`.
        code: String,
        /// The HTTP status.
        status: u16,
        /// A sentence.
        detail: String,
        /// The whole problem document; `null` if the answer was not one.
        document: serde_json::Value,
    },
    /// The answer does not have the expected form.
    #[error("the answer cannot be read: {0}")]
    Answer(String),
}

impl Error {
    /// The public code of a refusal.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Refused { code, .. } => Some(code),
            Self::Address(_) | Self::Unreachable { .. } | Self::Answer(_) => None,
        }
    }
}

/// A client. Cheap to clone; clones share their connections.
#[derive(Clone)]
pub struct Client {
    pool: Pool<HttpConnector, Full<Bytes>>,
    base: String,
    authorization: String,
}

/// An answer as it came.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The header fields.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Client {
    /// A client of the node at `base` (`http://host:port`) that shows `credential`.
    ///
    /// # Errors
    /// [`Error::Address`].
    pub fn new(base: &str, credential: &str) -> Result<Self, Error> {
        let refused = || Error::Address(base.to_owned());
        let uri: Uri = base.parse().map_err(|_| refused())?;
        if uri.scheme_str() != Some("http") || uri.authority().is_none() {
            return Err(refused());
        }
        let pool = Pool::builder(TokioExecutor::new()).build_http();
        let authorization = format!("Bearer {credential}");
        Ok(Self { pool, base: base.trim_end_matches('/').to_owned(), authorization })
    }

    /// The same node, with another credential.
    #[must_use]
    pub fn with_credential(&self, credential: &str) -> Self {
        Self { authorization: format!("Bearer {credential}"), ..self.clone() }
    }

    /// Sends a request and returns the answer, whatever its status. A `GET` that got no answer
    /// is sent once more, since a kept connection may have ended unnoticed.
    ///
    /// # Errors
    /// [`Error::Unreachable`].
    pub async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
    ) -> Result<Answer, Error> {
        self.call_with(method, path, &HeaderMap::new(), body).await
    }

    async fn call_with(
        &self,
        method: Method,
        path: &str,
        fields: &HeaderMap,
        body: Option<Vec<u8>>,
    ) -> Result<Answer, Error> {
        let first = self.send(method.clone(), path, fields, body.clone()).await;
        match first {
            Err(Error::Unreachable { .. }) if method == Method::GET => {
                self.send(method, path, fields, body).await
            }
            Ok(_) | Err(_) => first,
        }
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        fields: &HeaderMap,
        body: Option<Vec<u8>>,
    ) -> Result<Answer, Error> {
        let unreachable =
            |detail: String| Error::Unreachable { address: self.base.clone(), detail };
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base))
            .header(header::AUTHORIZATION, &self.authorization);
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        for (name, value) in fields {
            request = request.header(name, value);
        }
        let request = request
            .body(Full::from(body.unwrap_or_default()))
            .map_err(|error| unreachable(error.to_string()))?;
        let exchange = async {
            let response = self.pool.request(request).await.map_err(|e| chain(&e))?;
            let (parts, body) = response.into_parts();
            let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
            let body = body.map_err(|error| error.to_string())?.to_bytes();
            Ok::<_, String>(Answer { status: parts.status, headers: parts.headers, body })
        };
        match tokio::time::timeout(WITHIN, exchange).await {
            Ok(answer) => answer.map_err(unreachable),
            Err(_) => Err(unreachable("it took longer than a minute".into())),
        }
    }

    /// `GET path`.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        read(self.call(Method::GET, path, None).await?)
    }

    /// `POST path` with a JSON body.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, Error> {
        read(self.call(Method::POST, path, Some(json(body)?)).await?)
    }

    /// `PUT path` with a JSON body.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn put<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, Error> {
        read(self.call(Method::PUT, path, Some(json(body)?)).await?)
    }

    /// `PATCH path` with a JSON body.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn patch<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, Error> {
        read(self.call(Method::PATCH, path, Some(json(body)?)).await?)
    }

    /// `DELETE path`.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn delete(&self, path: &str) -> Result<(), Error> {
        accepted(self.call(Method::DELETE, path, None).await?).map(|_| ())
    }

    /// The state document `{scope}:{id}`, for instance `("user", "ann")`.
    #[must_use]
    pub fn document(&self, scope: &str, id: &str) -> Document {
        Document::new(self.clone(), scope, id)
    }
}

fn json(body: &impl Serialize) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(body).map_err(|error| Error::Answer(error.to_string()))
}

fn read<T: DeserializeOwned>(answer: Answer) -> Result<T, Error> {
    let answer = accepted(answer)?;
    serde_json::from_slice(&answer.body).map_err(|error| Error::Answer(error.to_string()))
}

fn accepted(answer: Answer) -> Result<Answer, Error> {
    if answer.status.is_success() {
        return Ok(answer);
    }
    let document: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let text = |name: &str| document[name].as_str().map(str::to_owned);
    Err(Error::Refused {
        code: text("code").unwrap_or_else(|| "unknown".into()),
        status: answer.status.as_u16(),
        detail: text("detail").unwrap_or_else(|| "the request was refused".into()),
        document,
    })
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    text
}

//! The form in which HTTP carries an error: a problem document (RFC 9457).

use crate::Code;
use bytes::Bytes;
use http::{HeaderValue, Response, header};
use std::time::Duration;

/// An error for a client: a code and what it may know about this one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// What kind of error.
    pub code: Code,
    /// A sentence about this one, without internals.
    pub detail: String,
    /// When to try again, where it is known.
    pub retry_after: Option<Duration>,
    /// More members of the document, for instance the current value after a conflict.
    pub members: serde_json::Map<String, serde_json::Value>,
}

impl Problem {
    /// An error with a sentence about it.
    #[must_use]
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        Self { code, detail, retry_after: None, members: serde_json::Map::new() }
    }

    /// Adds when to try again.
    #[must_use]
    pub fn retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }

    /// Adds a member to the document.
    #[must_use]
    pub fn member(mut self, name: &str, value: impl Into<serde_json::Value>) -> Self {
        self.members.insert(name.to_owned(), value.into());
        self
    }

    /// The document: `{"code","status","detail","retry",…}`.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        let mut document = self.members.clone();
        document.insert("code".into(), self.code.as_str().into());
        document.insert("status".into(), self.code.status().as_u16().into());
        document.insert("detail".into(), self.detail.as_str().into());
        document.insert("retry".into(), self.code.retry().as_str().into());
        document.into()
    }

    /// The response: status, `application/problem+json`, and `Retry-After` in whole seconds,
    /// rounded up (RFC 9110, section 10.2.3).
    #[must_use]
    pub fn to_response(&self) -> Response<Bytes> {
        let mut response = Response::new(Bytes::from(self.to_json().to_string()));
        *response.status_mut() = self.code.status();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(after) = self.retry_after {
            let seconds = after.as_millis().div_ceil(1000).max(1);
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds as u64));
        }
        response
    }
}

//! The form in which HTTP carries an error: a problem document (RFC 9457).

use crate::Code;
use bytes::Bytes;
use http::{HeaderValue, Method, Response, header};
use serde_json::Value;
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

    /// That a resource takes the methods of `allow` alone.
    #[must_use]
    pub fn method_not_allowed(detail: impl Into<String>, allow: &[Method]) -> Self {
        let allow: Vec<&str> = allow.iter().map(Method::as_str).collect();
        Self::new(Code::MethodNotAllowed, detail).member("allow", allow)
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

    /// The response: status, `application/problem+json`, `Retry-After` in whole seconds, rounded
    /// up (RFC 9110, section 10.2.3), and `Allow` (section 10.2.1) where methods are told.
    #[must_use]
    pub fn to_response(&self) -> Response<Bytes> {
        let mut response = Response::new(Bytes::from(self.to_json().to_string()));
        *response.status_mut() = self.code.status();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(after) = self.retry_after {
            let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)));
        }
        if let Some(Value::Array(methods)) = self.members.get("allow") {
            let methods: Vec<&str> = methods.iter().filter_map(Value::as_str).collect();
            // Methods are tokens, which every field takes.
            if let Ok(methods) = HeaderValue::try_from(methods.join(", ")) {
                headers.insert(header::ALLOW, methods);
            }
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_that_would_do_are_told() {
        let problem = Problem::method_not_allowed("not this one", &[Method::GET, Method::POST]);
        let response = problem.to_response();
        assert_eq!(response.status(), 405);
        assert_eq!(response.headers()[header::ALLOW], "GET, POST");
        let other = Problem::new(Code::NotFound, "there is no such thing").to_response();
        assert!(!other.headers().contains_key(header::ALLOW));
    }

    #[test]
    fn who_comes_again_when_told_comes_late_enough() {
        for (nanos, seconds) in [(0, "1"), (1_000_000_000, "1"), (1_000_000_001, "2")] {
            let problem = Problem::new(Code::RateLimited, "not yet");
            let response = problem.retry_after(Duration::from_nanos(nanos)).to_response();
            assert_eq!(response.headers()[header::RETRY_AFTER], seconds, "{nanos}");
        }
    }
}

//! Requests of gRPC: how their errors look, and how long their clients wait.

use crate::exchange::refused;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, header, request::Parts};
use http_body::Frame;
use protocol::{Code, Problem};
use soa::{Body, grpc};
use std::{fmt::Write, time::Duration};

/// The code of an error that is ours and not the service's.
const CODE: HeaderName = HeaderName::from_static("x-crosstown-code");

/// The form in which a client understands errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// A status and a problem document.
    Http,
    /// A status of gRPC, in an answer that is only a head.
    Grpc,
}

impl Form {
    /// That of a request which came by HTTP/2.
    pub(crate) fn of(head: &Parts) -> Self {
        let is_grpc = head.method == Method::POST && grpc::is_grpc(&head.headers);
        if is_grpc { Self::Grpc } else { Self::Http }
    }

    /// An answer of ours.
    pub(crate) fn refused(self, problem: &Problem) -> Response<Body> {
        match self {
            Self::Http => refused(problem),
            Self::Grpc => only_head(problem),
        }
    }

    /// How long the client waits for the whole call, if it says so.
    ///
    /// # Errors
    /// `bad_request` if it is malformed.
    pub(crate) fn timeout(self, headers: &HeaderMap) -> Result<Option<Duration>, Problem> {
        let field = if self == Self::Grpc { headers.get(grpc::TIMEOUT) } else { None };
        let Some(field) = field else { return Ok(None) };
        let malformed = || {
            let detail = "`grpc-timeout` is up to eight digits and a unit";
            Problem::new(Code::BadRequest, detail)
        };
        grpc::timeout(field).map(Some).ok_or_else(malformed)
    }

    /// The status to count for an answer: what a call of gRPC came to, as HTTP has it.
    pub(crate) fn counted(self, answer: &Response<Body>) -> u16 {
        let status = answer.status().as_u16();
        match (self, answer.extensions().get::<Code>()) {
            (Self::Http, _) => status,
            (Self::Grpc, Some(ours)) => ours.status().as_u16(),
            (Self::Grpc, None) => grpc::http_status(answer.headers()).unwrap_or(status),
        }
    }
}

/// The end of an answer that broke behind its head.
pub(crate) fn broken(code: Code) -> Frame<bytes::Bytes> {
    let mut trailers = HeaderMap::new();
    say(&mut trailers, code, "the answer ended early");
    Frame::trailers(trailers)
}

fn only_head(problem: &Problem) -> Response<Body> {
    let mut answer = Response::new(Body::Empty);
    let told = refused(problem);
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    if let Some(after) = told.headers().get(header::RETRY_AFTER) {
        headers.insert(header::RETRY_AFTER, after.clone());
    }
    say(headers, problem.code, &problem.detail);
    answer.extensions_mut().insert(problem.code);
    answer
}

fn say(fields: &mut HeaderMap, code: Code, detail: &str) {
    fields.insert(grpc::STATUS, status(code).into());
    let message = HeaderValue::try_from(encoded(detail)).expect("what is encoded is visible");
    fields.insert(grpc::MESSAGE, message);
    fields.insert(CODE, HeaderValue::from_static(code.as_str()));
}

/// Percent-encodes what is not visible ASCII, and `%`.
fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'%' | 0..=0x1f | 0x7f..=0xff => {
                write!(out, "%{byte:02X}").expect("a string takes all");
            }
            plain => out.push(plain.into()),
        }
    }
    out
}

/// The status of gRPC that says the same.
fn status(code: Code) -> u16 {
    match code {
        Code::BadRequest
        | Code::BadFraming
        | Code::UriTooLong
        | Code::UnsupportedMediaType
        | Code::ExpectationFailed => 3,
        Code::RequestTimeout | Code::UpstreamTimeout => 4,
        Code::NotFound => 5,
        Code::Forbidden => 7,
        Code::BodyTooLarge
        | Code::HeadersTooLarge
        | Code::RateLimited
        | Code::SessionLimit
        | Code::StoreFull => 8,
        Code::Conflict => 10,
        Code::Lagged => 11,
        Code::NoRoute
        | Code::MethodNotAllowed
        | Code::UpgradeRequired
        | Code::NotImplemented
        | Code::UnsupportedVersion => 12,
        Code::Internal => 13,
        Code::BadGateway
        | Code::UpstreamUnreachable
        | Code::NoInstance
        | Code::CircuitOpen
        | Code::StoreUnavailable
        | Code::StoreReadOnly
        | Code::Overloaded
        | Code::Draining => 14,
        Code::Unauthenticated | Code::TokenExpired => 16,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_a_head_with_its_status_and_code() {
        let problem = Problem::new(Code::RateLimited, "100 % is „used up“")
            .retry_after(Duration::from_millis(1_200));
        let answer = Form::Grpc.refused(&problem);
        assert_eq!(answer.status(), 200);
        for (name, value) in [
            ("content-type", "application/grpc"),
            ("grpc-status", "8"),
            ("grpc-message", "100 %25 is %E2%80%9Eused up%E2%80%9C"),
            ("x-crosstown-code", "rate_limited"),
            ("retry-after", "2"),
        ] {
            assert_eq!(answer.headers()[name], value);
        }
        assert_eq!(Form::Grpc.counted(&answer), 429);
    }
}

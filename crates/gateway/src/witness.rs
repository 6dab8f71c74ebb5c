//! What others want to know of the requests of sessions.

use http::{HeaderValue, Method, uri::PathAndQuery};
use std::{sync::Arc, time::Duration};
use types::{Caller, SessionId, TenantId};

/// A request of a session that was answered.
#[derive(Debug, Clone)]
pub struct Witnessed {
    /// The caller's tenant.
    pub tenant: TenantId,
    /// The session of its credential.
    pub session: SessionId,
    /// Its method.
    pub method: Method,
    /// What it asked for.
    pub target: PathAndQuery,
    /// The route that took it.
    pub route: Arc<str>,
    /// The service; `crosstown`: the platform itself.
    pub service: Arc<str>,
    /// Host and port of the instance that answered, if one did.
    pub instance: Option<Arc<str>>,
    /// The status of the answer; 499: the client went away before it.
    pub status: u16,
    /// From the head of the request to the end of the answer.
    pub latency: Duration,
    /// Its `traceparent`.
    pub trace: HeaderValue,
}

/// What the gateway needs from whoever wants to know what sessions do. Called on a core's thread:
/// none of it waits.
pub trait Witness: Send + Sync {
    /// Whether anybody wants to know of requests.
    fn wants_requests(&self) -> bool;

    /// A request has ended.
    fn request(&self, request: Witnessed);

    /// A request of a session that is bound to the instance `from` of `service` went to `to`, for
    /// `from` is gone or not fit.
    fn strayed(&self, caller: &Caller, service: &str, from: &str, to: &str);
}

/// Nobody wants to know.
impl Witness for () {
    fn wants_requests(&self) -> bool {
        false
    }

    fn request(&self, _: Witnessed) {}

    fn strayed(&self, _: &Caller, _: &str, _: &str, _: &str) {}
}

//! The public error codes.

use http::StatusCode;
use std::fmt;

/// Whether, and when, the same request may be sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// Not as it is: the request itself has to change.
    Never,
    /// Later, as it is; `Retry-After` says when, where it is known.
    Later,
    /// After reading again, or with another credential.
    AfterRefresh,
}

impl Retry {
    /// The advice as it stands in a problem document.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Never => "never",
            Self::Later => "later",
            Self::AfterRefresh => "after_refresh",
        }
    }
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident $text:literal $status:literal $close:literal $retry:ident;)*) => {
        /// Why something failed, as the public sees it. Each has a page `docs/errors/<code>.md`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Code { $($(#[$doc])* $name,)* }

        impl Code {
            /// Every code.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The code as it stands on the wire; never changes.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text),* }
            }

            /// The HTTP status that goes with it.
            #[must_use]
            pub fn status(self) -> StatusCode {
                let status: u16 = match self { $(Self::$name => $status),* };
                StatusCode::from_u16(status).expect("the table holds valid statuses")
            }

            /// The close code of a socket that ends for this reason. 3000 to 3499 and 4000 to
            /// 4499 mean reconnect; 3500 to 3999 and 4500 to 4999 do not.
            #[must_use]
            pub fn close_code(self) -> u16 {
                match self { $(Self::$name => $close),* }
            }

            /// Whether to try again.
            #[must_use]
            pub fn retry(self) -> Retry {
                match self { $(Self::$name => Retry::$retry),* }
            }
        }
    };
}

codes! {
    /// The request is not one that we understand.
    BadRequest "bad_request" 400 3501 Never;
    /// The bytes are not a strictly framed HTTP message.
    BadFraming "bad_framing" 400 3501 Never;
    /// The credential is missing or does not hold.
    Unauthenticated "unauthenticated" 401 3500 AfterRefresh;
    /// The credential has expired.
    TokenExpired "token_expired" 401 3005 AfterRefresh;
    /// The caller may not do this.
    Forbidden "forbidden" 403 3507 Never;
    /// There is no such thing, or it is not the caller's.
    NotFound "not_found" 404 3501 Never;
    /// No route matches the request.
    NoRoute "no_route" 404 3501 Never;
    /// The resource does not know the method.
    MethodNotAllowed "method_not_allowed" 405 3501 Never;
    /// The client took too long to send its request.
    RequestTimeout "request_timeout" 408 3502 Later;
    /// It changed since it was read.
    Conflict "conflict" 409 3501 AfterRefresh;
    /// The principal has as many sessions as it may have.
    SessionLimit "session_limit" 409 3504 Later;
    /// Changes after the named revision are no longer known: take a snapshot.
    Lagged "lagged" 410 3010 AfterRefresh;
    /// The body is larger than allowed.
    BodyTooLarge "body_too_large" 413 3501 Never;
    /// The request target is longer than allowed.
    UriTooLong "uri_too_long" 414 3501 Never;
    /// The body's media type is not one that the resource takes.
    UnsupportedMediaType "unsupported_media_type" 415 3501 Never;
    /// An expectation other than `100-continue`.
    ExpectationFailed "expectation_failed" 417 3501 Never;
    /// The resource is reached by a WebSocket upgrade only.
    UpgradeRequired "upgrade_required" 426 3501 Never;
    /// A limit is used up.
    RateLimited "rate_limited" 429 3013 Later;
    /// The header fields are more, or larger, than allowed.
    HeadersTooLarge "headers_too_large" 431 3501 Never;
    /// Something failed that should not have.
    Internal "internal" 500 3004 Later;
    /// The method or transfer coding is not implemented.
    NotImplemented "not_implemented" 501 3508 Never;
    /// The upstream's answer was not valid HTTP, or ended early.
    BadGateway "bad_gateway" 502 3004 Later;
    /// No connection to the chosen instance.
    UpstreamUnreachable "upstream_unreachable" 502 3004 Later;
    /// The service has no instance that may take the request.
    NoInstance "no_instance" 503 3004 Later;
    /// The service failed too often lately, and is not called for a while.
    CircuitOpen "circuit_open" 503 3004 Later;
    /// The store does not answer, so the outcome of a write is unknown.
    StoreUnavailable "store_unavailable" 503 3004 Later;
    /// The store takes no writes; nothing was changed.
    StoreReadOnly "store_read_only" 503 3004 Later;
    /// The node is at its bound of connections or of waiting work.
    Overloaded "overloaded" 503 3013 Later;
    /// The node is shutting down.
    Draining "draining" 503 3001 Later;
    /// The upstream did not answer in time.
    UpstreamTimeout "upstream_timeout" 504 3004 Later;
    /// The HTTP version is not supported.
    UnsupportedVersion "unsupported_version" 505 3501 Never;
    /// The store has no room left.
    StoreFull "store_full" 507 3004 Later;
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

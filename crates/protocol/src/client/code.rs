//! The client protocol's error and disconnect codes.

use crate::{Code, Problem, client::Error};

/// Why a command failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorCode {
    /// Something failed that should not have.
    Internal,
    /// The connection is not authenticated.
    Unauthorized,
    /// There is no such channel.
    UnknownChannel,
    /// The caller may not do this.
    PermissionDenied,
    /// There is no such method.
    MethodNotFound,
    /// The connection is subscribed already.
    AlreadySubscribed,
    /// A limit is reached.
    LimitExceeded,
    /// The command is malformed.
    BadRequest,
    /// The channel or method does not do this.
    NotAvailable,
    /// The token has expired.
    TokenExpired,
    /// What the command concerns has expired.
    Expired,
    /// Too many commands.
    TooManyRequests,
    /// The position cannot be recovered.
    UnrecoverablePosition,
}

impl ErrorCode {
    const fn parts(self) -> (u32, &'static str, bool) {
        match self {
            Self::Internal => (100, "internal server error", true),
            Self::Unauthorized => (101, "unauthorized", false),
            Self::UnknownChannel => (102, "unknown channel", false),
            Self::PermissionDenied => (103, "permission denied", false),
            Self::MethodNotFound => (104, "method not found", false),
            Self::AlreadySubscribed => (105, "already subscribed", false),
            Self::LimitExceeded => (106, "limit exceeded", false),
            Self::BadRequest => (107, "bad request", false),
            Self::NotAvailable => (108, "not available", false),
            Self::TokenExpired => (109, "token expired", false),
            Self::Expired => (110, "expired", false),
            Self::TooManyRequests => (111, "too many requests", true),
            Self::UnrecoverablePosition => (112, "unrecoverable position", false),
        }
    }

    /// The error with the protocol's own sentence.
    #[must_use]
    pub fn to_error(self) -> Error {
        let (code, message, temporary) = self.parts();
        Error { code, message: message.into(), temporary }
    }

    /// The error with a sentence of ours.
    #[must_use]
    pub fn with(self, message: impl Into<String>) -> Error {
        Error { message: message.into(), ..self.to_error() }
    }

    /// The number that stands for one of our codes.
    #[must_use]
    pub fn of(code: Code) -> Self {
        match code {
            Code::Unauthenticated => Self::Unauthorized,
            Code::TokenExpired => Self::TokenExpired,
            Code::Forbidden => Self::PermissionDenied,
            Code::NotFound | Code::NoRoute => Self::UnknownChannel,
            Code::MethodNotAllowed | Code::NotImplemented => Self::NotAvailable,
            Code::SessionLimit | Code::BodyTooLarge | Code::UriTooLong | Code::HeadersTooLarge => {
                Self::LimitExceeded
            }
            Code::RateLimited | Code::Overloaded => Self::TooManyRequests,
            Code::Lagged => Self::UnrecoverablePosition,
            Code::BadRequest
            | Code::BadFraming
            | Code::Conflict
            | Code::UnsupportedMediaType
            | Code::ExpectationFailed
            | Code::UpgradeRequired
            | Code::UnsupportedVersion => Self::BadRequest,
            Code::RequestTimeout
            | Code::Internal
            | Code::BadGateway
            | Code::UpstreamUnreachable
            | Code::NoInstance
            | Code::CircuitOpen
            | Code::StoreUnavailable
            | Code::StoreReadOnly
            | Code::Draining
            | Code::UpstreamTimeout
            | Code::StoreFull => Self::Internal,
        }
    }
}

impl From<&Problem> for Error {
    /// Our code stands in front of the sentence, since the numbers are fewer.
    fn from(problem: &Problem) -> Self {
        let text = format!("{}: {}", problem.code, problem.detail);
        let error = ErrorCode::of(problem.code).with(text);
        Self { temporary: problem.code.retry() == crate::Retry::Later, ..error }
    }
}

/// Why the server closes a connection. 3000 to 3499 ask the client to come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disconnect {
    /// The node is shutting down.
    Shutdown,
    /// Something failed that should not have.
    ServerError,
    /// The credential has ended.
    Expired,
    /// The client does not read fast enough.
    Slow,
    /// The channel's position cannot be kept: reconnect and recover.
    InsufficientState,
    /// No answer to a ping.
    NoPong,
    /// Too many commands at once.
    TooManyRequests,
    /// The token does not hold.
    InvalidToken,
    /// The client does not speak the protocol.
    BadRequest,
    /// The client sent no `connect` in time.
    Stale,
    /// An operator or a service wants the client to connect anew.
    ForceReconnect,
    /// The session was ended, or an operator or a service closed the connection.
    ForceNoReconnect,
    /// There are as many connections as may be.
    ConnectionLimit,
    /// The caller may not do this.
    PermissionDenied,
}

impl Disconnect {
    /// The close code and its reason.
    #[must_use]
    pub fn parts(self) -> (u16, &'static str) {
        match self {
            Self::Shutdown => (3001, "shutdown"),
            Self::ServerError => (3004, "internal server error"),
            Self::Expired => (3005, "connection expired"),
            Self::Slow => (3008, "slow"),
            Self::InsufficientState => (3010, "insufficient state"),
            Self::NoPong => (3012, "no pong"),
            Self::TooManyRequests => (3013, "too many requests"),
            Self::InvalidToken => (3500, "invalid token"),
            Self::BadRequest => (3501, "bad request"),
            Self::Stale => (3502, "stale"),
            Self::ForceReconnect => (3011, "force reconnect"),
            Self::ForceNoReconnect => (3503, "force disconnect"),
            Self::ConnectionLimit => (3504, "connection limit"),
            Self::PermissionDenied => (3507, "permission denied"),
        }
    }
}

/// Why the server ends a subscription. From 2500 on the client subscribes again by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unsubscribe {
    /// The server, or an operator, wants it so.
    Server,
    /// The channel's position cannot be kept: subscribe again and recover.
    InsufficientState,
    /// The subscription's token has ended.
    Expired,
    /// What the client has been told does not hold any more, or is not for it: begin anew.
    StateInvalidated,
}

impl Unsubscribe {
    /// The code and its reason.
    #[must_use]
    pub fn parts(self) -> (u32, &'static str) {
        match self {
            Self::Server => (2000, "server unsubscribe"),
            Self::InsufficientState => (2500, "insufficient state"),
            Self::Expired => (2501, "expired"),
            Self::StateInvalidated => (2502, "state invalidated"),
        }
    }
}

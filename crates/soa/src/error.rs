//! Why a call gave no answer.

use crate::BoxError;
use protocol::{Code, Problem};
use std::time::Duration;

/// Why a call gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No instance could be reached; nothing was sent.
    #[error("no instance of `{service}` can be reached")]
    Unreachable {
        /// The service.
        service: String,
        /// What the last attempt met.
        #[source]
        source: BoxError,
    },
    /// Every instance failed its checks, or too many calls; nothing was sent.
    #[error("no instance of `{service}` is fit")]
    Unfit {
        /// The service.
        service: String,
    },
    /// Every instance has as many connections as it may have; nothing was sent.
    #[error("`{service}` has as many connections as it may have")]
    Saturated {
        /// The service.
        service: String,
    },
    /// It has as many calls as it is given at once; nothing was sent.
    #[error("`{service}` has as many calls as it is given at once")]
    Shed {
        /// The service.
        service: String,
        /// When to come again.
        after: Duration,
    },
    /// It failed too many calls lately, and is spared; nothing was sent.
    #[error("the breaker of `{service}` is open")]
    Open {
        /// The service.
        service: String,
        /// When to come again.
        after: Duration,
    },
    /// The body of the request could not be read to its end. The service may have acted on a
    /// part of it.
    #[error("the body of the request for `{service}` broke")]
    Body {
        /// The service.
        service: String,
        /// What it broke with.
        #[source]
        source: BoxError,
    },
    /// No head of an answer in time. The service may have acted on the request.
    #[error("`{service}` did not answer in time")]
    Timeout {
        /// The service.
        service: String,
    },
    /// The answer was not valid HTTP or ended early. The service may have acted on the request.
    #[error("`{service}` gave no valid answer")]
    BadAnswer {
        /// The service.
        service: String,
        /// What was wrong with it.
        #[source]
        source: BoxError,
    },
}

impl Error {
    /// What the client may know.
    #[must_use]
    pub fn problem(&self) -> Problem {
        match self {
            Self::Unreachable { .. } => {
                Problem::new(Code::UpstreamUnreachable, "no instance of the service can be reached")
            }
            Self::Unfit { .. } => {
                let detail = "no instance of the service is fit to answer";
                Problem::new(Code::NoInstance, detail).retry_after(Duration::from_secs(1))
            }
            Self::Saturated { .. } => {
                let detail = "the service has as many requests as it can take";
                Problem::new(Code::Overloaded, detail).retry_after(Duration::from_secs(1))
            }
            Self::Shed { after, .. } => {
                let detail = "the service has as many requests as it can work on";
                Problem::new(Code::Overloaded, detail).retry_after(*after)
            }
            Self::Open { after, .. } => {
                let detail = "the service failed too often lately, and is given time";
                Problem::new(Code::CircuitOpen, detail).retry_after(*after)
            }
            Self::Body { .. } => Problem::new(Code::BadRequest, "the body ended early"),
            Self::Timeout { .. } => {
                Problem::new(Code::UpstreamTimeout, "the service did not answer in time")
            }
            Self::BadAnswer { .. } => {
                Problem::new(Code::BadGateway, "the service gave no valid answer")
            }
        }
    }

    /// Whether the request may be sent again without an idempotency key: nothing was sent.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Unreachable { .. }
            | Self::Unfit { .. }
            | Self::Saturated { .. }
            | Self::Shed { .. }
            | Self::Open { .. } => true,
            Self::Body { .. } | Self::Timeout { .. } | Self::BadAnswer { .. } => false,
        }
    }
}

//! What to do about an error of a server or of the connection to it.

use redis::{ErrorKind, RedisError, ServerErrorKind};
use store::Error;

/// What to do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// The server does not know the script: give it.
    Load,
    /// The server does not have the slot: ask who has.
    Moved,
    /// The slot is just being moved: ask there.
    Ask,
    /// Nothing was done, and it may work soon.
    Wait,
    /// Nothing was done: the server is no longer a master.
    Reconnect,
    /// The connection broke or the answer is late: unknown.
    Lost,
    /// Nothing was done: the server has no memory left.
    Full,
    /// Told to the caller.
    Refuse,
}

impl Next {
    pub(crate) fn after(error: &RedisError) -> Self {
        if error.is_io_error() || error.is_connection_dropped() || error.is_timeout() {
            return Self::Lost;
        }
        if error.code() == Some("OOM") {
            return Self::Full;
        }
        let ErrorKind::Server(kind) = error.kind() else { return Self::Refuse };
        let table = [
            (ServerErrorKind::NoScript, Self::Load),
            (ServerErrorKind::Moved, Self::Moved),
            (ServerErrorKind::Ask, Self::Ask),
            (ServerErrorKind::TryAgain, Self::Wait),
            (ServerErrorKind::ClusterDown, Self::Wait),
            (ServerErrorKind::MasterDown, Self::Wait),
            (ServerErrorKind::BusyLoading, Self::Wait),
            (ServerErrorKind::ReadOnly, Self::Reconnect),
        ];
        table.into_iter().find(|(of, _)| *of == kind).map_or(Self::Refuse, |(_, next)| next)
    }
}

/// An error as callers are told of it.
pub(crate) fn told(error: RedisError) -> Error {
    if Next::after(&error) == Next::Full {
        return Error::Full { source: error.into() };
    }
    match error.code() {
        // Too few replicas, or nowhere to save to: nothing was done, and reads go on.
        Some("NOREPLICAS" | "MISCONF") => Error::ReadOnly { source: error.into() },
        Some(_) | None => Error::unavailable(error),
    }
}

//! What can go wrong with a store, sorted by what the caller does next.

use crate::{Key, Position};

/// The error of an engine's own.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What can go wrong with a store.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A check did not hold and nothing changed. Read again, then decide.
    #[error("the partition is at {position:?}, and a check of the commit did not hold")]
    Conflict {
        /// Where the partition stands.
        position: Position,
        /// The record whose check failed, if it was a record's.
        key: Option<Key>,
    },
    /// A larger epoch has fenced the partition and nothing changed. Stop: someone else owns it.
    #[error("fenced by epoch {stored}")]
    Fenced {
        /// The epoch of the new owner.
        stored: u64,
    },
    /// The commit's id was used for another commit. A defect of the caller.
    #[error("the commit's id was used for another content")]
    IdReused,
    /// The position cannot be followed from. Take a snapshot (scan), then follow.
    #[error("changes after the position are no longer known; the partition is at {position:?}")]
    Lagged {
        /// Where the partition stands.
        position: Position,
    },
    /// The entries asked for were trimmed.
    #[error("the stream begins at {first}")]
    Trimmed {
        /// The first entry that is left.
        first: u64,
    },
    /// Beyond the bounds. The caller has to send less.
    #[error("{what} is {actual} large; at most {limit} is allowed")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// Its size.
        actual: u64,
        /// The bound.
        limit: u64,
    },
    /// The engine has no room left and nothing changed. Free some, then retry.
    #[error("the store is full")]
    Full {
        /// The engine's error.
        #[source]
        source: BoxError,
    },
    /// The engine takes no writes at this time and nothing changed; reads go on. Retry later.
    #[error("the store takes no writes")]
    ReadOnly {
        /// The engine's error.
        #[source]
        source: BoxError,
    },
    /// No answer; a commit may or may not have been applied. Retry with the same commit id.
    #[error("the store is unavailable")]
    Unavailable {
        /// The engine's error.
        #[source]
        source: BoxError,
    },
    /// Stored bytes are not what was written. An operator has to look.
    #[error("the store is damaged: {detail}")]
    Corrupt {
        /// What was found, and where.
        detail: String,
    },
}

impl Error {
    /// Stored bytes are not what was written.
    #[must_use]
    pub fn corrupt(detail: impl Into<String>) -> Self {
        Self::Corrupt { detail: detail.into() }
    }

    /// No answer from the engine.
    #[must_use]
    pub fn unavailable(source: impl Into<BoxError>) -> Self {
        Self::Unavailable { source: source.into() }
    }

    /// Whether the same call may succeed later. A commit also needs its id for that.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Unavailable { .. } | Self::Full { .. } | Self::ReadOnly { .. } => true,
            Self::Conflict { .. }
            | Self::Fenced { .. }
            | Self::IdReused
            | Self::Lagged { .. }
            | Self::Trimmed { .. }
            | Self::TooLarge { .. }
            | Self::Corrupt { .. } => false,
        }
    }
}

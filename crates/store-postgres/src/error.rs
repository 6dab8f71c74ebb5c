//! What can go wrong with the server, sorted by what is known of the commit.

use store::{BoxError, Error, Survives};
use tokio_postgres::error::SqlState;

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The URL cannot be used.
    #[error("the URL of the database is not usable: {detail}")]
    Url {
        /// What is wrong with it, without the URL itself.
        detail: String,
    },
    /// The certificates cannot be used.
    #[error("TLS cannot be set up: {detail}")]
    Tls {
        /// What is wrong.
        detail: String,
    },
    /// The server cannot be reached or refuses.
    #[error("`{engine}` cannot be opened")]
    Server {
        /// The engine, without secrets.
        engine: String,
        /// Its error.
        #[source]
        source: BoxError,
    },
    /// A server that this version was not made for.
    #[error("`{engine}` runs PostgreSQL {found}: version 15 or newer is required")]
    Version {
        /// The engine, without secrets.
        engine: String,
        /// As the server counts.
        found: i32,
    },
    /// A standby, which takes no commits.
    #[error("`{engine}` is a standby: name the primary server")]
    Standby {
        /// The engine, without secrets.
        engine: String,
    },
    /// The schema was changed by a version that this one does not know.
    #[error(
        "the schema of `{engine}` is at migration {found}, this version knows {known}: \
         use the version that migrated it, or a newer one"
    )]
    Newer {
        /// The engine, without secrets.
        engine: String,
        /// The migration that was found.
        found: i32,
        /// The last one that is known.
        known: i32,
    },
    /// The server keeps less than was declared.
    #[error(
        "`survives` demands {declared:?}, and `{engine}` keeps {kept:?} ({why}): \
         change the server's settings, or declare what it keeps"
    )]
    Survives {
        /// The engine, without secrets.
        engine: String,
        /// What the URL demands.
        declared: Survives,
        /// What the server keeps.
        kept: Survives,
        /// Which setting says so.
        why: &'static str,
    },
}

/// What is known of a transaction that did not end well.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Nothing changed; the same may be tried again.
    Again(BoxError),
    /// Nothing changed, and trying again at once is of no use.
    Refused(Error),
    /// The connection was lost after COMMIT was sent.
    Unknown(BoxError),
    /// The server is not the one that was known; nothing changed.
    AnotherServer,
    /// The server's default does not wait for the disk, so the transaction has to ask for it;
    /// nothing changed.
    NotSynchronous,
}

/// Nothing was changed, for certain.
#[derive(Debug, thiserror::Error)]
#[error("the server did not take the commit, and nothing changed")]
struct NotApplied(#[source] BoxError);

/// The commit may have been applied.
#[derive(Debug, thiserror::Error)]
#[error("the connection was lost after COMMIT was sent")]
struct OutcomeUnknown(#[source] BoxError);

impl Failure {
    /// Of an error before COMMIT was sent, or that the server itself reports of a statement.
    pub(crate) fn before_commit(error: tokio_postgres::Error) -> Self {
        let Some(code) = error.code() else { return Self::Again(error.into()) };
        match code.code().get(..2) {
            // Serialization failures and deadlocks; connections; resources; the operator.
            Some("40" | "08" | "53" | "57") if *code == SqlState::DISK_FULL => {
                Self::Refused(Error::Full { source: error.into() })
            }
            Some("57") if *code == SqlState::QUERY_CANCELED => Self::Refused(refused(error)),
            // Set so, or a standby until a pooler has found the new primary.
            Some("25") if *code == SqlState::READ_ONLY_SQL_TRANSACTION => {
                Self::Refused(Error::ReadOnly { source: error.into() })
            }
            Some("40" | "08" | "53" | "57" | "25") => Self::Again(error.into()),
            Some("23" | "XX") => Self::Refused(Error::corrupt(said(&error))),
            Some(_) | None => Self::Refused(refused(error)),
        }
    }

    /// Of an error once COMMIT was sent along. What the server itself says of a statement is
    /// certain. That the connection ended is not: a pooler may say so in its own words, and in
    /// answer to a statement whose COMMIT the server has carried out.
    pub(crate) fn after_commit(error: tokio_postgres::Error) -> Self {
        let Some(code) = error.code() else { return Self::Unknown(error.into()) };
        match code.code().get(..2) {
            Some("57") if *code == SqlState::QUERY_CANCELED => Self::before_commit(error),
            None | Some("57" | "08" | "58") => Self::Unknown(error.into()),
            Some(_) => Self::before_commit(error),
        }
    }

    /// What the callers of the commits are told.
    pub(crate) fn error(&self) -> Error {
        match self {
            Self::Again(source) => Error::unavailable(NotApplied(said_chain(&**source).into())),
            Self::Refused(Error::Full { source }) => {
                Error::Full { source: said_chain(&**source).into() }
            }
            Self::Refused(Error::ReadOnly { source }) => {
                Error::ReadOnly { source: said_chain(&**source).into() }
            }
            Self::Refused(Error::Corrupt { detail }) => Error::corrupt(detail.clone()),
            Self::Refused(error) => Error::unavailable(said_chain(error)),
            Self::Unknown(source) => {
                Error::unavailable(OutcomeUnknown(said_chain(&**source).into()))
            }
            Self::AnotherServer | Self::NotSynchronous => {
                Error::unavailable("the server changed, and nothing else did")
            }
        }
    }
}

fn refused(error: tokio_postgres::Error) -> Error {
    Error::unavailable(NotApplied(error.into()))
}

/// What a read's caller is told.
pub(crate) fn read_error(error: tokio_postgres::Error) -> Error {
    match error.code().and_then(|code| code.code().get(..2)) {
        Some("XX") => Error::corrupt(said(&error)),
        Some(_) | None => Error::unavailable(error),
    }
}

fn said(error: &tokio_postgres::Error) -> String {
    error.as_db_error().map_or_else(|| error.to_string(), |db| db.message().to_owned())
}

/// An error with its causes, for several callers, since an error cannot be copied.
fn said_chain(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

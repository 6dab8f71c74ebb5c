//! How the layers of this crate keep things in a store: JSON behind a version byte, and the
//! store's errors as the public sees them.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use clock::Clock;
use protocol::{Code, Problem};
use serde::{Serialize, de::DeserializeOwned};

/// A stored form. A change of it raises the version, and `decode` keeps reading the older.
pub(crate) trait Stored: Serialize + DeserializeOwned {
    /// The version that is written.
    const VERSION: u8;
}

pub(crate) fn encode<T: Stored>(value: &T) -> Bytes {
    encode_as::<T>(value)
}

/// Writes `value` as what is read as a `T`: the same members, borrowed.
pub(crate) fn encode_as<T: Stored>(value: &impl Serialize) -> Bytes {
    let mut bytes = vec![T::VERSION];
    serde_json::to_writer(&mut bytes, value).expect("stored forms have text keys");
    bytes.into()
}

pub(crate) fn decode<T: Stored>(bytes: &[u8]) -> Result<T, Problem> {
    match bytes.split_first() {
        Some((version, json_bytes)) if *version == T::VERSION => json(json_bytes),
        Some((version, _)) => Err(damaged::<T>(&format!("version {version}"))),
        None => Err(damaged::<T>("empty")),
    }
}

/// Reads the JSON of a stored form, without its version.
pub(crate) fn json<T: Stored>(bytes: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(bytes).map_err(|error| damaged::<T>(&error.to_string()))
}

fn damaged<T>(detail: &str) -> Problem {
    tracing::error!(form = std::any::type_name::<T>(), detail, "a stored record is damaged");
    Problem::new(Code::Internal, "a stored record cannot be read; an operator has to look")
}

/// The store's error as the public sees it. What a conflict was about, the layers add.
pub fn problem(error: store::Error) -> Problem {
    use store::Error as E;
    match error {
        E::Conflict { .. } => Problem::new(Code::Conflict, "it changed at the same time"),
        E::Lagged { .. } | E::Trimmed { .. } => {
            Problem::new(Code::Lagged, "changes after that revision are no longer known")
        }
        E::TooLarge { what, actual, limit } => {
            let detail = format!("{what} is {actual} large; at most {limit} is allowed");
            Problem::new(Code::BodyTooLarge, detail)
        }
        E::Full { source } => {
            tracing::error!(%source, "the store is full");
            Problem::new(Code::StoreFull, "the store has no room left")
        }
        E::ReadOnly { source } => {
            tracing::error!(%source, "the store takes no writes");
            let detail = "the store takes no writes at this time, and nothing was changed";
            Problem::new(Code::StoreReadOnly, detail).retry_after(std::time::Duration::from_secs(1))
        }
        E::Unavailable { source } => {
            tracing::error!(%source, "the store is unavailable");
            let detail = "the store does not answer; a write may or may not have happened";
            Problem::new(Code::StoreUnavailable, detail)
                .retry_after(std::time::Duration::from_secs(1))
        }
        E::Corrupt { detail } => {
            tracing::error!(detail, "the store is damaged");
            Problem::new(Code::Internal, "stored data is damaged; an operator has to look")
        }
        E::Fenced { .. } | E::IdReused => {
            tracing::error!(%error, "a commit was refused that should not have been");
            Problem::new(Code::Internal, "the write was refused")
        }
    }
}

pub(crate) fn random_text<const N: usize>(clock: &dyn Clock) -> String {
    URL_SAFE_NO_PAD.encode(clock::random::<N>(clock))
}

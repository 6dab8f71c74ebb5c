//! Entries of layers that keep theirs as a document does, so that they are followed as maps.

use crate::{
    state::{CHANGES, ChangeForm, ChangeRecord, EntryRecord},
    storage,
};
use protocol::{Code, Problem};
use serde_json::{Value as Json, value::RawValue};
use store::{Commit, Key, Record, Write};
use types::{PrincipalId, Timestamp};

/// What no key of an entry lies before: other records of a partition have keys that do, and are
/// not seen by those who follow it.
pub const BEFORE_ENTRIES: &str = "\u{1f}";

/// Adds to `commit` that the entry `key` becomes `value`, or is there no more, and that its
/// followers are told.
///
/// # Errors
/// `body_too_large` for a key that is too long; `internal` if the value cannot be written.
pub fn set(
    commit: Commit,
    key: &str,
    value: Option<&Json>,
    by: &PrincipalId,
    at: Timestamp,
) -> Result<Commit, Problem> {
    let name = Key::new(key).map_err(storage::problem)?;
    let unwritten = |_| Problem::new(Code::Internal, "the value cannot be written");
    let written: Option<Box<RawValue>> =
        value.map(serde_json::value::to_raw_value).transpose().map_err(unwritten)?;
    let commit = match &written {
        Some(written) => commit.put(name, storage::encode_as::<EntryRecord>(written)),
        None => commit.write(Write::Delete { key: name }),
    };
    let change = ChangeForm {
        key,
        value: written.as_deref(),
        deleted: written.is_none(),
        created: false,
        added: None,
        by: Some(by),
        at,
    };
    Ok(commit.append(CHANGES, storage::encode_as::<ChangeRecord>(&change)))
}

/// The value of an entry.
///
/// # Errors
/// `internal` if it cannot be read.
pub fn value(record: &Record) -> Result<Json, Problem> {
    storage::decode::<EntryRecord>(&record.value).map(|EntryRecord(value)| value)
}

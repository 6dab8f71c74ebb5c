//! Sizes beyond which every engine refuses, so that no layer learns an engine's limits late.

use crate::{Commit, Error, Write};
use std::time::Duration;

/// Bytes of a partition's id.
pub const ID_BYTES_MAX: usize = 256;
/// Bytes of a key or a stream's name.
pub const KEY_BYTES_MAX: usize = 512;
/// Bytes of one value.
pub const VALUE_BYTES_MAX: usize = 256 * 1024;
/// Writes of one commit.
pub const COMMIT_WRITES_MAX: usize = 128;
/// Bytes of one commit: keys and values.
pub const COMMIT_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of all records of a partition: keys and values.
pub const PARTITION_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Bytes of one page of a scan or of a stream; a page always holds at least one item.
pub const PAGE_BYTES_MAX: usize = 1024 * 1024;
/// How long a commit's id is remembered.
pub const COMMIT_ID_KEPT: Duration = Duration::from_secs(600);
/// How long a deletion can be told to those who follow.
pub const DELETION_KEPT: Duration = Duration::from_secs(600);

/// Refuses a commit beyond the bounds. Engines call it first.
///
/// # Errors
/// [`Error::TooLarge`] with what was too large.
pub fn check(commit: &Commit) -> Result<(), Error> {
    let refuse = |what, actual: usize, limit: usize| {
        if actual > limit {
            Err(Error::TooLarge { what, actual: actual as u64, limit: limit as u64 })
        } else {
            Ok(())
        }
    };
    refuse("writes of a commit", commit.writes.len(), COMMIT_WRITES_MAX)?;
    let mut total = 0;
    for write in &commit.writes {
        let value = match write {
            Write::Put { value, .. } | Write::Append { value, .. } => value.len(),
            Write::Delete { .. } | Write::Trim { .. } | Write::Wake(_) | Write::Begin { .. } => 0,
        };
        let name = match write {
            Write::Put { key, .. } | Write::Delete { key } => key.as_bytes().len(),
            Write::Append { stream, .. } | Write::Trim { stream, .. } => stream.as_str().len(),
            Write::Wake(_) | Write::Begin { .. } => 0,
        };
        refuse("a value", value, VALUE_BYTES_MAX)?;
        total += name + value;
    }
    refuse("a commit", total, COMMIT_BYTES_MAX)
}

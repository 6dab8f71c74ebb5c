//! What a node answers, for people.

use serde_json::Value as Json;

/// The elements of a list; none if it is no list.
pub(super) fn list(of: &Json) -> &[Json] {
    of.as_array().map_or(&[], Vec::as_slice)
}

/// A text; a dash if it is none.
pub(super) fn word(of: &Json) -> &str {
    of.as_str().unwrap_or("-")
}

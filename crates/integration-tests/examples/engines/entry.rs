//! The documents that both sides change, and what is written for a change.

use serde::Serialize;
use serde_json::{Value as Json, json};

/// Documents of each task; nobody else changes them, so nobody waits for another.
pub(crate) const DOCUMENTS: u64 = 8;
pub(crate) const KEY: &str = "cursor";
pub(crate) const USER: &str = "ann";

/// A document's name, by its task and the number of the change.
pub(crate) fn document(task: usize, turn: u64) -> String {
    format!("doc-{task}-{}", turn % DOCUMENTS)
}

/// What a document's entry starts with: 230 bytes as JSON.
pub(crate) fn first_value() -> Json {
    json!({ "at": 1_000_000, "by": "somebody", "text": "x".repeat(186) })
}

/// A change of one member, of the same length each time.
pub(crate) fn patch(turn: u64) -> Json {
    json!({ "at": 1_000_000 + turn % 1_000_000 })
}

/// A change as the stream of a document holds it.
#[derive(Serialize)]
struct Change<'a> {
    key: &'a str,
    value: &'a Json,
    by: &'a str,
    at: u64,
}

/// As the layer writes them: a version byte, then JSON.
pub(crate) fn encoded(value: &impl Serialize) -> Vec<u8> {
    let mut bytes = vec![1];
    serde_json::to_writer(&mut bytes, value).expect("it has text keys");
    bytes
}

/// The stream entry that goes with `value`.
pub(crate) fn change(value: &Json, at: u64) -> Vec<u8> {
    encoded(&Change { key: KEY, value, by: USER, at })
}

//! Members of JSON bodies that a route sets, removes and renames.
//!
//! What is not named stays byte for byte what it was, numbers and order included: only the objects
//! on the way to a change are taken apart.

use bytes::Bytes;
use http::{HeaderMap, header};
use http_body::Body as _;
use http_body_util::{BodyExt, Limited};
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use serde_json::{Value, value::RawValue};
use soa::Body;
use std::collections::BTreeMap;

/// What to change in a JSON body; renaming goes first, then removing. Members are named as
/// `/a/b` (RFC 6901); one that is not there is not renamed or removed, and set only if what it
/// would be in is an object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReshapeConfig {
    /// Members that get another name, in the same object.
    #[serde(default)]
    pub rename: BTreeMap<String, String>,
    /// Members that are taken out.
    #[serde(default)]
    pub remove: Vec<String>,
    /// Members that get this value.
    #[serde(default)]
    pub set: BTreeMap<String, Value>,
    /// Bytes of a body that is read for it; a longer one is refused. Default 1 MiB.
    #[serde(default = "bytes_max")]
    pub bytes_max: usize,
}

fn bytes_max() -> usize {
    1024 * 1024
}

/// A [`ReshapeConfig`], ready to be applied.
#[derive(Debug)]
pub(crate) struct Reshape {
    changes: Vec<(Vec<String>, Change)>,
    bytes_max: usize,
}

#[derive(Debug)]
enum Change {
    Rename(String),
    Remove,
    Set(Box<RawValue>),
}

/// Why a body was not changed.
#[derive(Debug)]
pub(crate) enum Unfit {
    /// It is longer than is read for it.
    TooLong,
    /// It is no JSON, or compressed.
    NotJson,
    /// It broke while it came.
    Broken(soa::BoxError),
}

impl Reshape {
    /// # Errors
    /// What to change.
    pub(crate) fn compile(config: &ReshapeConfig) -> Result<Self, String> {
        let mut changes = Vec::new();
        for (path, name) in &config.rename {
            if name.is_empty() {
                return Err(format!("`{path}` needs a name that is not empty"));
            }
            changes.push((members(path)?, Change::Rename(name.clone())));
        }
        for path in &config.remove {
            changes.push((members(path)?, Change::Remove));
        }
        for (path, value) in &config.set {
            let raw = serde_json::value::to_raw_value(value);
            changes.push((members(path)?, Change::Set(raw.map_err(|error| error.to_string())?)));
        }
        if changes.is_empty() {
            return Err("a change of a body names nothing to `rename`, `remove` or `set`".into());
        }
        Ok(Self { changes, bytes_max: config.bytes_max })
    }

    /// Whether it concerns a message with these fields: one of JSON.
    pub(crate) fn concerns(&self, headers: &HeaderMap, body: &Body) -> bool {
        let media = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let media = media.and_then(|media| media.split(';').next()).unwrap_or_default();
        let media = media.trim().to_ascii_lowercase();
        (media == "application/json" || media.ends_with("+json")) && !body.is_end_stream()
    }

    /// The changed body, whose length is set in `headers`.
    ///
    /// # Errors
    /// Why it cannot be changed; it is not to be passed on then.
    pub(crate) async fn apply(&self, headers: &mut HeaderMap, body: Body) -> Result<Body, Unfit> {
        if headers.contains_key(header::CONTENT_ENCODING) {
            return Err(Unfit::NotJson);
        }
        if body.size_hint().lower() > self.bytes_max as u64 {
            return Err(Unfit::TooLong);
        }
        let read = Limited::new(body, self.bytes_max).collect().await.map_err(|error| {
            if error.is::<http_body_util::LengthLimitError>() {
                Unfit::TooLong
            } else {
                Unfit::Broken(error)
            }
        })?;
        let changed = self.change(&read.to_bytes()).ok_or(Unfit::NotJson)?;
        headers.insert(header::CONTENT_LENGTH, changed.len().into());
        // They were those of other bytes.
        headers.remove(header::ETAG);
        headers.remove("digest");
        headers.remove("content-digest");
        headers.remove("content-md5");
        Ok(Body::from(changed))
    }

    /// The text with all changes made; none if it is no JSON.
    fn change(&self, text: &[u8]) -> Option<Bytes> {
        let mut value: Box<RawValue> = serde_json::from_slice(text).ok()?;
        for (path, change) in &self.changes {
            if let Some(changed) = changed(&value, path, change) {
                value = changed;
            }
        }
        let text: Box<str> = value.into();
        Some(String::from(text).into())
    }
}

/// A value with one change made; none if it does not concern it.
fn changed(value: &RawValue, path: &[String], change: &Change) -> Option<Box<RawValue>> {
    let (name, rest) = path.split_first()?;
    let mut object: IndexMap<String, Box<RawValue>> = serde_json::from_str(value.get()).ok()?;
    if !rest.is_empty() {
        let inner = object.get_mut(name)?;
        *inner = changed(inner, rest, change)?;
    } else {
        match change {
            Change::Rename(new) => {
                let place = object.get_index_of(name)?;
                let held = object.shift_remove(name)?;
                // Another member of the new name gives way.
                object.shift_remove(new);
                object.shift_insert(place.min(object.len()), new.clone(), held);
            }
            Change::Remove => {
                object.shift_remove(name)?;
            }
            Change::Set(value) => {
                object.insert(name.clone(), value.clone());
            }
        }
    }
    serde_json::value::to_raw_value(&object).ok()
}

/// The names of a JSON Pointer (RFC 6901).
fn members(pointer: &str) -> Result<Vec<String>, String> {
    let refused = || format!("`{pointer}` does not name a member as `/a/b`");
    let rest = pointer.strip_prefix('/').ok_or_else(refused)?;
    let unescaped = |name: &str| {
        let is_escape = |after: &str| after.starts_with(['0', '1']);
        let sound = name.split('~').skip(1).all(is_escape);
        sound.then(|| name.replace("~1", "/").replace("~0", "~"))
    };
    rest.split('/').map(|name| unescaped(name).ok_or_else(refused)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reshape(text: &str) -> Reshape {
        Reshape::compile(&toml::from_str(text).unwrap()).unwrap()
    }

    #[test]
    fn members_are_renamed_removed_and_set_and_the_rest_stays_as_it_is() {
        let reshape = reshape(
            "rename = { \"/a\" = \"b\", \"/in/old\" = \"new\" }\n\
             remove = [\"/secret\", \"/in/secret\", \"/a~1b\"]\n\
             [set]\n\"/v\" = 2\n\"/in/x\" = { y = [1, 2] }\n\"/no/where\" = 1\n",
        );
        for (from, to) in [
            (
                r#"{"n": 12345678901234567890123.50, "a": 1, "secret":2,"z" : [ 1 ]}"#,
                r#"{"n":12345678901234567890123.50,"b":1,"z":[ 1 ],"v":2}"#,
            ),
            (
                r#"{"in":{"old":1,"k":"\u00e9","secret":{}},"a/b":1,"no":[]}"#,
                r#"{"in":{"new":1,"k":"\u00e9","x":{"y":[1,2]}},"no":[],"v":2}"#,
            ),
            (r#"{"b":1,"a":2}"#, r#"{"b":2,"v":2}"#),
            ("[1, 2]", "[1, 2]"),
            ("null", "null"),
        ] {
            let changed = reshape.change(from.as_bytes());
            assert_eq!(changed.as_deref(), Some(to.as_bytes()), "{from}");
        }
        for bad in ["", "{", "{}{}", "\u{feff}{}"] {
            assert!(reshape.change(bad.as_bytes()).is_none(), "{bad}");
        }
    }

    #[test]
    fn changes_that_name_nothing_are_refused() {
        for bad in ["", "remove = [\"a\"]", "remove = [\"/~2\"]", "rename = { \"/a\" = \"\" }"] {
            assert!(Reshape::compile(&toml::from_str(bad).unwrap()).is_err(), "{bad}");
        }
    }
}

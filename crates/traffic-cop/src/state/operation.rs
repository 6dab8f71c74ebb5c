//! What can be done with an entry.

use json_patch::{Patch, PatchErrorKind};
use protocol::{Code, Problem};
use serde_json::Value as Json;

/// Steps of one JSON Patch.
const STEPS_MAX: usize = 64;
/// A JSON Pointer (RFC 6901, section 3).
const POINTER: &str = "^(/([^/~]|~[01])*)*$";

/// What to do with an entry.
#[derive(Debug, Clone, PartialEq)]
pub enum Operation {
    /// Set its value.
    Put(Json),
    /// Merge into its value (RFC 7396).
    Patch(Json),
    /// Change its value step by step (RFC 6902).
    JsonPatch(Patch),
    /// Delete it.
    Delete,
}

/// What a JSON Patch looks like (RFC 6902, section 4).
#[derive(Debug)]
pub struct PatchForm;

impl schemars::JsonSchema for PatchForm {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "JsonPatch".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let step = |operations: &[&str], needs: &[&str]| {
            let required = [&["op", "path"], needs].concat();
            serde_json::json!({
                "type": "object",
                "properties": {
                    "op": { "enum": operations },
                    "path": { "type": "string", "pattern": POINTER },
                    "from": { "type": "string", "pattern": POINTER },
                },
                "required": required,
            })
        };
        schemars::json_schema!({
            "type": "array",
            "maxItems": STEPS_MAX,
            "items": { "anyOf": [
                step(&["add", "replace", "test"], &["value"]),
                step(&["remove"], &[]),
                step(&["move", "copy"], &["from"]),
            ] },
        })
    }
}

/// Bounds of a value.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) bytes: usize,
    pub(super) depth: usize,
}

impl Operation {
    /// Whether what it makes of an entry depends on its value.
    pub(super) fn needs_value(&self) -> bool {
        match self {
            Self::Patch(_) | Self::JsonPatch(_) => true,
            Self::Put(_) | Self::Delete => false,
        }
    }

    /// The value that it makes of `current`, `None` to delete it. Values within a patch stay
    /// within `bounds`, whatever its steps do; the last one has to be looked at by the caller.
    ///
    /// # Errors
    /// `not_found`: there is nothing to delete or to change step by step. `conflict`: a `test`
    /// of the patch does not hold. `bad_request`, `body_too_large`.
    pub(super) fn apply_to(
        &self,
        current: Option<&Json>,
        bounds: Bounds,
    ) -> Result<Option<Json>, Problem> {
        let missing = || Problem::new(Code::NotFound, "there is no such entry");
        match self {
            Self::Put(value) => Ok(Some(value.clone())),
            Self::Patch(patch) => {
                let mut value = current.cloned().unwrap_or(Json::Null);
                json_patch::merge(&mut value, patch);
                Ok(Some(value))
            }
            Self::JsonPatch(patch) => {
                apply_steps(patch, current.ok_or_else(missing)?.clone(), bounds).map(Some)
            }
            Self::Delete => current.map(|_| None).ok_or_else(missing),
        }
    }
}

fn apply_steps(patch: &Patch, mut value: Json, bounds: Bounds) -> Result<Json, Problem> {
    if patch.0.len() > STEPS_MAX {
        let detail = format!("a patch has at most {STEPS_MAX} steps");
        return Err(Problem::new(Code::BadRequest, detail));
    }
    for (number, step) in patch.0.iter().enumerate() {
        json_patch::patch(&mut value, std::slice::from_ref(step)).map_err(|error| {
            let tested = matches!(error.kind, PatchErrorKind::TestFailed);
            let code = if tested { Code::Conflict } else { Code::BadRequest };
            Problem::new(code, format!("step {number} of the patch: {}", error.kind))
        })?;
        // Steps can copy the value into itself, which doubles it.
        let (bytes, depth) = measure(&value);
        if bytes > bounds.bytes || depth > bounds.depth {
            let detail = format!("the value is too large or too deep after step {number}");
            return Err(Problem::new(Code::BodyTooLarge, detail));
        }
    }
    Ok(value)
}

/// At least so many bytes as JSON, and how deep it is nested.
fn measure(value: &Json) -> (usize, usize) {
    let inner = |(bytes, depth): (usize, usize), (name, value): (usize, &Json)| {
        let (more, below) = measure(value);
        (bytes + name + more + 1, depth.max(below))
    };
    match value {
        Json::Null | Json::Bool(_) | Json::Number(_) => (1, 1),
        Json::String(text) => (text.len() + 2, 1),
        Json::Array(items) => {
            let (bytes, depth) = items.iter().map(|item| (0, item)).fold((2, 0), inner);
            (bytes, depth + 1)
        }
        Json::Object(fields) => {
            let fields = fields.iter().map(|(name, value)| (name.len() + 3, value));
            let (bytes, depth) = fields.fold((2, 0), inner);
            (bytes, depth + 1)
        }
    }
}

/// How deep a value is nested; a text or a number is 1.
pub(super) fn depth(value: &Json) -> usize {
    measure(value).1
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(current: Json, steps: Json, expected: Result<Json, Code>) {
        let shown = steps.to_string();
        let operation = Operation::JsonPatch(serde_json::from_value(steps).unwrap());
        let bounds = Bounds { bytes: 1_000, depth: 8 };
        let current = (!current.is_null()).then_some(current);
        let made = operation.apply_to(current.as_ref(), bounds);
        assert_eq!(made.map_err(|problem| problem.code), expected.map(Some), "{shown}");
    }

    #[test]
    fn a_patch_is_applied_whole_or_refused() {
        let add = json!([{ "op": "add", "path": "/b", "value": 2 }]);
        check(json!({ "a": 1 }), add.clone(), Ok(json!({ "a": 1, "b": 2 })));
        check(Json::Null, add, Err(Code::NotFound));
        let tested = |value| json!([{ "op": "test", "path": "/a", "value": value }, { "op": "remove", "path": "/a" }]);
        check(json!({ "a": 1 }), tested(1), Ok(json!({})));
        check(json!({ "a": 1 }), tested(2), Err(Code::Conflict));
        let nowhere = json!([{ "op": "remove", "path": "/x/y" }]);
        check(json!({ "a": 1 }), nowhere, Err(Code::BadRequest));
    }

    #[test]
    fn a_patch_cannot_grow_without_bounds() {
        let double = |from: &str, to: &str| json!({ "op": "copy", "from": from, "path": to });
        let wider: Vec<Json> = (0..60).map(|_| double("", "/-")).collect();
        check(json!([1]), Json::Array(wider), Err(Code::BodyTooLarge));
        let deeper: Vec<Json> = (0..60)
            .map(|n| json!({ "op": "add", "path": "/a".repeat(n + 1), "value": { "a": {} } }))
            .collect();
        check(json!({}), Json::Array(deeper), Err(Code::BodyTooLarge));
        let many: Vec<Json> = (0..=STEPS_MAX).map(|_| double("/0", "/1")).collect();
        check(json!([1]), Json::Array(many), Err(Code::BadRequest));
    }

    #[test]
    fn depth_counts_levels() {
        assert_eq!((depth(&json!(1)), depth(&json!([])), depth(&json!({ "a": [1] }))), (1, 1, 3));
    }
}

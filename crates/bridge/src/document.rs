//! An OpenAPI document, 3.0 or 3.1, as its operations: what the rest of Crosstown needs of it.
//!
//! A document is read strictly where it decides something, and what cannot be kept as it promises
//! is refused as a whole, with the place: references that lead outside or in a circle, paths with
//! parameters inside a segment, patterns that cannot be matched in linear time.

mod instance;
mod operation;
mod parameter;
mod payload;
mod reference;
mod schema;

pub use operation::{Checked, Operation, Sunset};
pub use payload::BodyRule;
pub(crate) use schema::adapt;

use crate::document::{reference::Root, schema::Schemas};
use serde_json::{Map, Value};
use std::collections::BTreeSet;

/// Bytes of a document.
pub const DOCUMENT_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Operations of a document.
const OPERATIONS_MAX: usize = 2_000;
const METHODS: [&str; 8] = ["get", "put", "post", "delete", "options", "head", "patch", "trace"];

/// A document that can be kept.
#[derive(Debug)]
pub struct Document {
    /// As it was written, as JSON.
    json: Value,
    is_3_0: bool,
    title: String,
    version: String,
    operations: Vec<Operation>,
}

impl Document {
    /// Reads a document, JSON or YAML.
    ///
    /// # Errors
    /// What is wrong with it, and where.
    pub fn parse(text: &[u8]) -> Result<Self, String> {
        if text.len() > DOCUMENT_BYTES_MAX {
            return Err(format!(
                "it has {} bytes; at most {DOCUMENT_BYTES_MAX} are read",
                text.len()
            ));
        }
        Self::of(read(text)?)
    }

    fn of(json: Value) -> Result<Self, String> {
        let members = json.as_object().ok_or("it is no object")?;
        let is_3_0 = match members.get("openapi").and_then(Value::as_str) {
            Some(version) if version.starts_with("3.0.") => true,
            Some(version) if version.starts_with("3.1.") => false,
            Some(other) => return Err(format!("`openapi: {other}` is not 3.0 or 3.1")),
            None => return Err("it has no `openapi: 3.0.x` or `3.1.x`".into()),
        };
        let said = |name: &str| {
            let text = json.pointer(&format!("/info/{name}")).and_then(Value::as_str);
            text.map(str::to_owned).ok_or_else(|| format!("`info.{name}` is missing"))
        };
        let (title, version) = (said("title")?, said("version")?);
        let root = Root(&json);
        let mut schemas = Schemas::new(root, is_3_0)?;
        let mut operations = Vec::new();
        let mut ids = BTreeSet::new();
        let none = Map::new();
        let paths = match members.get("paths") {
            None => &none,
            Some(paths) => paths.as_object().ok_or("`paths` is no object")?,
        };
        for (path, item) in paths {
            let at = |why: String| format!("`{path}`: {why}");
            let item = root.resolved(item).map_err(at)?;
            let item = item.as_object().ok_or_else(|| at("it is no object".into()))?;
            for method in METHODS {
                let Some(operation) = item.get(method) else { continue };
                let at = |why: String| format!("{method} `{path}`: {why}");
                let operation =
                    Operation::read(&mut schemas, path, method, item, operation).map_err(at)?;
                if !ids.insert(operation.id().to_owned()) {
                    return Err(at(format!("another operation has the id `{}`", operation.id())));
                }
                operations.push(operation);
                if operations.len() > OPERATIONS_MAX {
                    return Err(format!("it has more than {OPERATIONS_MAX} operations"));
                }
            }
        }
        Ok(Self { is_3_0, title, version, operations, json })
    }

    /// What the API calls itself.
    #[must_use]
    pub fn title(&self) -> &str {
        &self.title
    }

    /// The version of the document, as it says.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Its operations, in its order.
    #[must_use]
    pub fn operations(&self) -> &[Operation] {
        &self.operations
    }

    /// As it was written.
    #[must_use]
    pub fn json(&self) -> &Value {
        &self.json
    }

    /// What stands at a path and for an operation of it.
    pub(crate) fn given(&self, operation: &Operation) -> (&Value, &Value) {
        let root = Root(&self.json);
        let item = self.json.get("paths").and_then(|paths| paths.get(operation.path()));
        let item = item.and_then(|item| root.resolved(item).ok()).unwrap_or(&Value::Null);
        let method = operation.method().as_str().to_ascii_lowercase();
        (item, item.get(method).unwrap_or(&Value::Null))
    }

    /// What a reference names.
    pub(crate) fn at(&self, reference: &str) -> Result<&Value, String> {
        Root(&self.json).at(reference)
    }

    pub(crate) fn is_3_0(&self) -> bool {
        self.is_3_0
    }
}

fn read(text: &[u8]) -> Result<Value, String> {
    let is_json = text.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{');
    if is_json {
        return serde_json::from_slice(text).map_err(|error| format!("it is no JSON: {error}"));
    }
    let text = std::str::from_utf8(text).map_err(|_| "it is not in UTF-8")?;
    // As YAML 1.2 reads it: a parameter may be called `n`, a state `off`.
    let options = serde_saphyr::options! { strict_booleans: true };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let why = error.to_string();
        format!("it is no YAML: {}", why.lines().next().unwrap_or_default())
    })
}

#[cfg(test)]
mod tests;

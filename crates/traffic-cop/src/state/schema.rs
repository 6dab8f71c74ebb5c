//! What the values of some entries have to look like: JSON Schema, draft 2020-12.
//!
//! A schema is compiled where the configuration is read, and refers to nothing outside itself.
//! What it costs to check a value is bounded by the value's size and depth, and by what the
//! schema asks for: patterns are matched in linear time.

use jsonschema::{PatternOptions, Validator};
use protocol::{Code, Problem};
use serde::Deserialize;
use serde_json::Value as Json;
use std::{fmt, path::PathBuf, sync::Arc};

/// Bytes of a schema, as JSON.
const SCHEMA_BYTES_MAX: usize = 64 * 1024;
/// Bytes of a compiled pattern.
const PATTERN_BYTES_MAX: usize = 1024 * 1024;
/// Characters of a refusal: a schema's own lists may be long.
const DETAIL_MAX: usize = 300;

/// A schema. Read from a table that is one, or from the name of a file that holds one as JSON.
#[derive(Clone, Deserialize)]
#[serde(try_from = "Form")]
pub struct Schema(Arc<Validator>);

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a JSON Schema as a table, or the name of its file")]
enum Form {
    File(PathBuf),
    Table(serde_json::Map<String, Json>),
}

impl TryFrom<Form> for Schema {
    type Error = String;

    fn try_from(form: Form) -> Result<Self, String> {
        match form {
            Form::Table(table) => Self::new(&Json::Object(table)),
            Form::File(path) => {
                let named = |why: &dyn fmt::Display| format!("{}: {why}", path.display());
                let text = std::fs::read(&path).map_err(|error| named(&error))?;
                let schema = serde_json::from_slice(&text).map_err(|error| named(&error))?;
                Self::new(&schema).map_err(|error| named(&error))
            }
        }
    }
}

impl Schema {
    /// Compiles a schema.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn new(schema: &Json) -> Result<Self, String> {
        let bytes = schema.to_string().len();
        if bytes > SCHEMA_BYTES_MAX {
            return Err(format!("a schema has at most {SCHEMA_BYTES_MAX} bytes, not {bytes}"));
        }
        let patterns = PatternOptions::regex().size_limit(PATTERN_BYTES_MAX);
        let options = jsonschema::draft202012::options().offline().with_pattern_options(patterns);
        let validator = options.build(schema);
        let validator = validator.map_err(|error| format!("the schema is wrong: {error}"))?;
        Ok(Self(Arc::new(validator)))
    }

    /// Refuses a value that does not fit.
    ///
    /// # Errors
    /// `bad_request` with the member `path`: where in the value, as a JSON Pointer.
    pub(super) fn check(&self, value: &Json) -> Result<(), Problem> {
        let Err(error) = self.0.validate(value) else { return Ok(()) };
        let path = error.instance_path().as_str();
        let detail = format!("the value does not fit its schema at `{path}`: {}", error.masked());
        let detail: String = detail.chars().take(DETAIL_MAX).collect();
        Err(Problem::new(Code::BadRequest, detail).member("path", path))
    }
}

impl fmt::Debug for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Schema(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(schema: &Json, value: Json, expected: Option<&str>) {
        let outcome = Schema::new(schema).unwrap().check(&value);
        let path = outcome.map_err(|problem| {
            assert_eq!(problem.code, Code::BadRequest);
            assert!(problem.detail.chars().count() <= DETAIL_MAX);
            problem.members["path"].as_str().unwrap().to_owned()
        });
        assert_eq!(path.err().as_deref(), expected, "{value}");
    }

    #[test]
    fn a_refusal_names_the_place() {
        let schema = json!({
            "type": "object",
            "properties": {
                "items": { "type": "array", "items": { "$ref": "#/$defs/item" }, "maxItems": 2 },
            },
            "required": ["items"],
            "additionalProperties": false,
            "$defs": { "item": { "type": "object", "properties": { "n": { "minimum": 1 } } } },
        });
        check(&schema, json!({ "items": [{ "n": 1 }, {}] }), None);
        check(&schema, json!({ "items": [{ "n": 1 }, { "n": 0 }] }), Some("/items/1/n"));
        check(&schema, json!({ "items": [1, 2, 3] }), Some("/items"));
        check(&schema, json!({}), Some(""));
        check(&schema, json!({ "items": [], "more": 1 }), Some(""));
        check(&schema, json!("x"), Some(""));
        // By this draft: the items of a tuple, and references beside other keywords.
        let tuple = json!({ "prefixItems": [{ "type": "string" }], "items": false });
        check(&tuple, json!(["a"]), None);
        check(&tuple, json!(["a", 1]), Some("/1"));
        let long = json!({ "enum": (0..1_000).collect::<Vec<_>>() });
        check(&long, json!("x"), Some(""));
    }

    #[test]
    fn a_schema_refers_to_nothing_outside() {
        for schema in [
            json!({ "$ref": "http://127.0.0.1:9/schema.json" }),
            json!({ "$ref": "https://example.com/schema.json" }),
            json!({ "$ref": "file:///etc/hostname" }),
            json!({ "$ref": "#/$defs/none" }),
            json!({ "type": "objekt" }),
            json!({ "pattern": "(a" }),
            json!({ "pattern": "(?=a)b" }),
            json!({ "pattern": "((a{100}){100}){100}" }),
            json!({ "description": "x".repeat(SCHEMA_BYTES_MAX) }),
        ] {
            assert!(Schema::new(&schema).is_err(), "{schema}");
        }
    }

    #[test]
    fn a_pattern_is_matched_in_linear_time() {
        let schema = json!({ "pattern": "^(a+)+$" });
        check(&schema, json!(format!("{}b", "a".repeat(60_000))), Some(""));
    }

    #[test]
    fn it_is_read_from_a_table_or_a_file() {
        #[derive(Debug, Deserialize)]
        struct Holds {
            schema: Schema,
        }
        let read = |text: &str| toml::from_str::<Holds>(text).map(|holds| holds.schema);
        let schema = read("schema = { type = \"string\" }").unwrap();
        assert!(schema.check(&json!("x")).is_ok() && schema.check(&json!(1)).is_err());
        let none = read("schema = \"/none/such.json\"").unwrap_err().to_string();
        assert!(none.contains("/none/such.json"), "{none}");
        let wrong = read("schema = { type = \"text\" }").unwrap_err().to_string();
        assert!(wrong.contains("the schema is wrong"), "{wrong}");
    }
}

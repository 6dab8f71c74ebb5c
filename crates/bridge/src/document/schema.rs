//! The schemas of a document, each compiled by itself: JSON Schema, draft 2020-12.
//!
//! OpenAPI 3.1 is that draft; what 3.0 says otherwise (`nullable`, boolean exclusive bounds) is
//! written anew. A schema's references become `$defs` of its own, so that nothing is fetched and
//! nothing else of the document is read as a schema.

use crate::document::{
    instance::{Instance, Instances},
    reference::Root,
};
use jsonschema::{Draft, PatternOptions, Validator};
use serde_json::{Map, Value, json};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    sync::Arc,
};

/// Bytes of all schemas of a document, once each has what it refers to.
const SCHEMAS_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Bytes of a compiled pattern.
const PATTERN_BYTES_MAX: usize = 1024 * 1024;
/// Where schemas may be that are referred to.
const COMPONENTS: &str = "#/components/schemas/";
/// Keywords by which a schema would be another one than its place says.
const REFUSED: [&str; 5] = ["$id", "$anchor", "$dynamicRef", "$dynamicAnchor", "$recursiveRef"];
/// Keywords whose schemas concern the same value.
const IN_PLACE: [&str; 8] =
    ["allOf", "anyOf", "oneOf", "not", "if", "then", "else", "dependentSchemas"];
/// Keywords whose members are names, each with a schema.
const BY_NAME: [&str; 4] = ["properties", "patternProperties", "$defs", "dependentSchemas"];
/// Keywords whose values are no schemas, whatever is in them.
const OPAQUE: [&str; 5] = ["enum", "const", "default", "example", "examples"];

/// Who sends what a schema describes: properties that only the other side writes are not asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Direction {
    Request,
    Response,
}

impl Direction {
    /// The keyword that marks properties that this side does not send.
    fn unsent(self) -> &'static str {
        match self {
            Self::Request => "readOnly",
            Self::Response => "writeOnly",
        }
    }
}

/// A schema that is ready.
#[derive(Clone)]
pub(crate) struct Schema(Arc<Validator<Instances>>);

impl fmt::Debug for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Schema(…)")
    }
}

/// A place in a value that does not fit, as a JSON Pointer, and why.
pub(crate) type Misfit = (String, String);

impl Schema {
    /// Places that do not fit, `most` of them at most: the validator finds all of them, so who is
    /// to spend little on a value that is wrong asks for one.
    pub(crate) fn misfits(&self, value: &Instance<'_>, most: usize) -> Vec<Misfit> {
        if self.0.is_valid(value) {
            return Vec::new();
        }
        let misfit = |error: jsonschema::ValidationError<'_>| {
            let why: String = error.masked().to_string().chars().take(200).collect();
            (error.instance_path().to_string(), why)
        };
        if most == 1 {
            return self.0.validate(value).err().map(misfit).into_iter().collect();
        }
        self.0.iter_errors(value).take(most).map(misfit).collect()
    }
}

/// The schemas of a document.
pub(crate) struct Schemas<'a> {
    pub(crate) root: Root<'a>,
    is_3_0: bool,
    /// By text: many operations have the same.
    compiled: HashMap<String, Schema>,
    bytes: usize,
}

impl<'a> Schemas<'a> {
    /// # Errors
    /// That schemas refer to themselves without an end.
    pub(crate) fn new(root: Root<'a>, is_3_0: bool) -> Result<Self, String> {
        refuse_circles(root)?;
        Ok(Self { root, is_3_0, compiled: HashMap::new(), bytes: 0 })
    }

    /// Compiles a schema.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn compile(
        &mut self,
        schema: &Value,
        direction: Direction,
    ) -> Result<Schema, String> {
        let mut needed = BTreeSet::new();
        let mut whole = self.adapted(schema, direction, &mut needed)?;
        let mut defs = BTreeMap::new();
        while let Some(name) = needed.iter().find(|name| !defs.contains_key(*name)).cloned() {
            let component = self.root.at(&format!("{COMPONENTS}{}", escaped(&name)))?;
            let adapted = self.adapted(component, direction, &mut needed)?;
            defs.insert(name, adapted);
        }
        if let Value::Object(members) = &mut whole
            && !defs.is_empty()
        {
            members.insert("$defs".into(), json!(defs));
        }
        let text = whole.to_string();
        if let Some(known) = self.compiled.get(&text) {
            return Ok(known.clone());
        }
        self.bytes += text.len();
        if self.bytes > SCHEMAS_BYTES_MAX {
            return Err(format!("its schemas have more than {SCHEMAS_BYTES_MAX} bytes"));
        }
        let patterns = PatternOptions::regex().size_limit(PATTERN_BYTES_MAX);
        let options = jsonschema::options_for::<Instances>().with_draft(Draft::Draft202012);
        let options = options.offline().with_pattern_options(patterns);
        let validator = options.build(&whole).map_err(|error| format!("a schema: {error}"))?;
        let schema = Schema(Arc::new(validator));
        self.compiled.insert(text, schema.clone());
        Ok(schema)
    }

    fn adapted(
        &self,
        schema: &Value,
        direction: Direction,
        needed: &mut BTreeSet<String>,
    ) -> Result<Value, String> {
        adapt(schema, self.is_3_0, &mut |members| {
            if let Some(keyword) = REFUSED.iter().find(|keyword| members.contains_key(**keyword)) {
                return Err(format!("`{keyword}` in a schema is not supported"));
            }
            leave_out_unsent(self.root, members, direction);
            if let Some(reference) = members.get("$ref") {
                let reference = reference.as_str().ok_or("a `$ref` is no text")?;
                let name = component(reference)?;
                members.insert("$ref".into(), format!("#/$defs/{}", escaped(&name)).into());
                needed.insert(name);
            }
            Ok(())
        })
    }
}

/// The name of the component that a reference leads to.
fn component(reference: &str) -> Result<String, String> {
    let name = reference.strip_prefix(COMPONENTS).filter(|name| !name.contains('/'));
    let name = name.ok_or_else(|| {
        format!("`{reference}`: schemas refer to `{COMPONENTS}NAME` of the same document")
    })?;
    let name = percent_encoding::percent_decode_str(name).decode_utf8_lossy();
    Ok(name.replace("~1", "/").replace("~0", "~"))
}

fn escaped(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

/// Takes properties that this side does not send off those that are required.
fn leave_out_unsent(root: Root<'_>, members: &mut Map<String, Value>, direction: Direction) {
    let properties = members.get("properties").and_then(Value::as_object);
    let Some(properties) = properties else { return };
    let is_unsent = |name: &Value| {
        let property = name.as_str().and_then(|name| properties.get(name));
        let property = property.and_then(|property| root.resolved(property).ok());
        property.is_some_and(|property| property.get(direction.unsent()) == Some(&true.into()))
    };
    let Some(Value::Array(required)) = members.get("required") else { return };
    let sent: Vec<Value> = required.iter().filter(|name| !is_unsent(name)).cloned().collect();
    members.insert("required".into(), sent.into());
}

/// A schema as draft 2020-12 writes it. `with` sees the members of each schema in it, and may change
/// them.
pub(crate) fn adapt(
    schema: &Value,
    is_3_0: bool,
    with: &mut impl FnMut(&mut Map<String, Value>) -> Result<(), String>,
) -> Result<Value, String> {
    let Value::Object(members) = schema else { return Ok(schema.clone()) };
    let mut members = members.clone();
    if is_3_0 {
        from_3_0(&mut members);
    }
    with(&mut members)?;
    for (keyword, value) in &mut members {
        if OPAQUE.contains(&keyword.as_str()) || keyword.starts_with("x-") {
            continue;
        }
        match value {
            Value::Object(inner) if BY_NAME.contains(&keyword.as_str()) => {
                for schema in inner.values_mut() {
                    *schema = adapt(schema, is_3_0, with)?;
                }
            }
            Value::Object(_) => *value = adapt(value, is_3_0, with)?,
            Value::Array(schemas) => {
                for schema in schemas.iter_mut().filter(|schema| schema.is_object()) {
                    *schema = adapt(schema, is_3_0, with)?;
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    Ok(Value::Object(members))
}

/// OpenAPI 3.0.3, section 4.7.24: what it has of its own.
fn from_3_0(members: &mut Map<String, Value>) {
    if let Some(reference) = members.get("$ref").cloned() {
        // What stands beside a reference is ignored there.
        members.clear();
        members.insert("$ref".into(), reference);
        return;
    }
    for (bound, exclusive) in [("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")] {
        match members.get(exclusive) {
            Some(Value::Bool(true)) => match members.remove(bound) {
                Some(value) => members.insert(exclusive.into(), value),
                None => members.remove(exclusive),
            },
            Some(Value::Bool(false)) => members.remove(exclusive),
            Some(_) | None => None,
        };
    }
    if members.remove("nullable") == Some(Value::Bool(true))
        && let Some(Value::String(of)) = members.get("type").cloned()
    {
        members.insert("type".into(), json!([of, "null"]));
    }
}

/// Refuses schemas that refer to themselves for the same value: it would never be checked to the end.
fn refuse_circles(root: Root<'_>) -> Result<(), String> {
    let Some(components) = root.0.pointer("/components/schemas").and_then(Value::as_object) else {
        return Ok(());
    };
    let mut leads = BTreeMap::new();
    for (name, schema) in components {
        let mut to = BTreeSet::new();
        in_place(schema, &mut to);
        leads.insert(name.clone(), to);
    }
    // Whoever leads to nothing that may be in a circle is in none.
    loop {
        let (free, left): (BTreeMap<_, _>, BTreeMap<_, _>) =
            leads.into_iter().partition(|(_, to)| to.is_empty());
        if left.is_empty() {
            return Ok(());
        }
        if free.is_empty() {
            let names: Vec<&str> = left.keys().map(String::as_str).collect();
            return Err(format!("the schemas {} refer to themselves", names.join(", ")));
        }
        leads = left;
        for to in leads.values_mut() {
            to.retain(|name| !free.contains_key(name) && components.contains_key(name));
        }
    }
}

/// The components that a schema refers to for the same value.
fn in_place(schema: &Value, to: &mut BTreeSet<String>) {
    let Value::Object(members) = schema else { return };
    if let Some(name) = members.get("$ref").and_then(Value::as_str).map(component) {
        to.extend(name.ok());
    }
    for keyword in IN_PLACE {
        match members.get(keyword) {
            Some(Value::Array(schemas)) => {
                schemas.iter().for_each(|schema| in_place(schema, to));
            }
            Some(Value::Object(named)) if keyword == "dependentSchemas" => {
                named.values().for_each(|schema| in_place(schema, to));
            }
            Some(schema) => in_place(schema, to),
            None => {}
        }
    }
}

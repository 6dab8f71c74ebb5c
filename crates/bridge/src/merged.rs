//! One OpenAPI document, 3.1, of what an audience can call: the parts of several documents, at the
//! paths where they are reached through Crosstown.

use crate::{
    document::{Document, Operation, adapt},
    realms::Member,
};
use serde_json::{Map, Value, json};

/// References that are unfolded into each other, where they lead to no component.
const DEPTH_MAX: usize = 16;
/// Members whose values are no parts of a document, whatever is in them.
const OPAQUE: [&str; 4] = ["example", "examples", "default", "enum"];
/// Kinds of components that other parts refer to.
const KINDS: [&str; 7] =
    ["schemas", "parameters", "responses", "requestBodies", "headers", "links", "examples"];

/// What of a service belongs in a merged document.
pub struct Part<'a> {
    /// The service.
    pub member: &'a Member,
    /// Where its paths begin.
    pub base: String,
    /// Which of its operations.
    pub includes: Box<dyn Fn(&Operation) -> bool + 'a>,
}

/// The merged document. `title` and `version` are those of the whole.
#[must_use]
pub fn merged(title: &str, version: &str, parts: &[Part<'_>]) -> Value {
    let (mut paths, mut components, mut tags) = (Map::new(), Map::new(), Vec::new());
    for part in parts {
        let Some(document) = &part.member.document else { continue };
        let scope = format!("{}.{}.", part.member.realm, part.member.service);
        let names = Names { document, scope: &scope };
        let included = document.operations().iter().filter(|operation| (part.includes)(operation));
        let mut any = false;
        for operation in included {
            any = true;
            let path = format!("{}{}", part.base, operation.path());
            let item = object(&mut paths, &path);
            let method = operation.method().as_str().to_ascii_lowercase();
            item.insert(method, names.operation(part, operation));
        }
        if !any {
            continue;
        }
        tags.push(json!({
            "name": tag(part.member),
            "description": format!("{} {}", document.title(), part.member.version),
        }));
        let given = document.json().get("components").and_then(Value::as_object);
        for (kind, named) in given.into_iter().flatten() {
            let Some(named) = named.as_object().filter(|_| KINDS.contains(&kind.as_str())) else {
                continue;
            };
            let of_kind = object(&mut components, kind);
            for (name, component) in named {
                let component = match kind.as_str() {
                    "schemas" => names.schema(component),
                    _ => names.rewritten(component, 0),
                };
                of_kind.insert(format!("{scope}{name}"), component);
            }
        }
    }
    let bearer = json!({ "type": "http", "scheme": "bearer" });
    object(&mut components, "securitySchemes").insert("credential".into(), bearer);
    json!({
        "openapi": "3.1.0",
        "info": { "title": title, "version": version },
        "tags": tags,
        "security": [{ "credential": [] }],
        "paths": paths,
        "components": components,
    })
}

fn tag(member: &Member) -> String {
    format!("{}/{}", member.realm, member.name)
}

fn object<'a>(of: &'a mut Map<String, Value>, name: &str) -> &'a mut Map<String, Value> {
    let entry = of.entry(name).or_insert_with(|| Value::Object(Map::new()));
    entry.as_object_mut().expect("only objects are put here")
}

/// A document whose components get names of their own.
struct Names<'a> {
    document: &'a Document,
    scope: &'a str,
}

impl Names<'_> {
    fn operation(&self, part: &Part<'_>, operation: &Operation) -> Value {
        let (item, given) = self.document.given(operation);
        let mut told = match self.rewritten(given, 0) {
            Value::Object(told) => told,
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Array(_) => Map::new(),
        };
        let common = item.get("parameters").map(|parameters| self.rewritten(parameters, 0));
        if let Some(Value::Array(mut parameters)) = common {
            if let Some(Value::Array(own)) = told.remove("parameters") {
                let names = |parameter: &Value| {
                    (parameter.get("name").cloned(), parameter.get("in").cloned())
                };
                parameters.retain(|common| !own.iter().any(|own| names(own) == names(common)));
                parameters.extend(own);
            }
            told.insert("parameters".into(), parameters.into());
        }
        if let Some(security) = operation.scopes() {
            let one = |scopes: Option<Vec<&str>>| match scopes {
                Some(scopes) => json!({ "credential": scopes }),
                None => json!({}),
            };
            told.insert("security".into(), security.map(one).collect());
        }
        told.remove("servers");
        told.remove("callbacks");
        let id = format!("{}{}", self.scope, operation.id());
        told.insert("operationId".into(), id.into());
        told.insert("tags".into(), json!([tag(part.member)]));
        told.into()
    }

    /// A reference to a component, by its name in the merged document.
    fn renamed(&self, reference: &str) -> Option<String> {
        let (kind, name) = reference.strip_prefix("#/components/")?.split_once('/')?;
        let whole = KINDS.contains(&kind) && !name.contains('/');
        whole.then(|| format!("#/components/{kind}/{}{name}", self.scope))
    }

    fn schema(&self, schema: &Value) -> Value {
        let renamed = adapt(schema, self.document.is_3_0(), &mut |members| {
            let reference = members.get("$ref").and_then(Value::as_str);
            if let Some(renamed) = reference.and_then(|reference| self.renamed(reference)) {
                members.insert("$ref".into(), renamed.into());
            }
            Ok(())
        });
        renamed.unwrap_or(Value::Bool(true))
    }

    fn rewritten(&self, value: &Value, depth: usize) -> Value {
        match value {
            Value::Array(values) => {
                values.iter().map(|value| self.rewritten(value, depth)).collect()
            }
            Value::Object(members) => {
                if let Some(reference) = members.get("$ref").and_then(Value::as_str) {
                    return match self.renamed(reference) {
                        Some(renamed) => json!({ "$ref": renamed }),
                        None if depth < DEPTH_MAX => match self.document.at(reference) {
                            Ok(found) => self.rewritten(found, depth + 1),
                            Err(_) => json!({}),
                        },
                        None => json!({}),
                    };
                }
                let rewritten = |(name, value): (&String, &Value)| {
                    let value = match name.as_str() {
                        "schema" => self.schema(value),
                        name if OPAQUE.contains(&name) || name.starts_with("x-") => value.clone(),
                        _ => self.rewritten(value, depth),
                    };
                    (name.clone(), value)
                };
                members.iter().map(rewritten).collect::<Map<_, _>>().into()
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Config, Documents, Realms};
    use std::sync::Arc;

    fn realms() -> Realms {
        let new = "openapi: 3.1.0\ninfo: { title: Plans, version: '2' }\npaths:\n  /plans/{id}:\n    \
            parameters:\n      - { name: id, in: path, required: true, schema: { type: integer } }\n    \
            get:\n      operationId: getPlan\n      security: [{ x: [reads] }, {}]\n      \
            responses: { 200: { $ref: '#/components/responses/One' } }\n    \
            delete: { operationId: dropPlan, responses: { 204: { description: gone } } }\n\
            components:\n  responses:\n    One: { description: one, content: { application/json: \
            { schema: { $ref: '#/components/schemas/Plan' } } } }\n  schemas:\n    \
            Plan: { properties: { parts: { items: { $ref: '#/components/schemas/Plan' } } } }\n";
        let old = "openapi: 3.0.0\ninfo: { title: Bills, version: '1' }\npaths:\n  /bills:\n    post:\n      \
            operationId: addBill\n      requestBody: { content: { application/json: { schema: { \
            $ref: '#/components/schemas/Bill' } } } }\n      responses: { 201: { description: made } }\n\
            components:\n  schemas:\n    Bill: { type: object, nullable: true }\n";
        let config: Config =
            toml::from_str("[solution.services]\nplans = {}\nbills = { version = \"1.2.0\" }\n")
                .unwrap();
        let document = |text: &str| Arc::new(Document::parse(text.as_bytes()).unwrap());
        let documents =
            Documents::from([("plans".into(), document(new)), ("bills".into(), document(old))]);
        Realms::compile(&config, &[], &documents).unwrap()
    }

    #[test]
    fn parts_keep_apart_and_the_whole_is_a_document() {
        let realms = realms();
        let but_drop = |operation: &Operation| operation.id() != "dropPlan";
        let part = |service: &str| Part {
            member: realms.member(service).unwrap(),
            base: format!("/call/{service}"),
            includes: Box::new(but_drop),
        };
        let whole = merged("All", "1.0.0", &[part("bills"), part("plans")]);
        let read = Document::parse(whole.to_string().as_bytes()).unwrap();
        let ids: Vec<&str> = read.operations().iter().map(Operation::id).collect();
        assert_eq!(ids, ["solution.bills.addBill", "solution.plans.getPlan"]);
        assert_eq!(read.operations()[1].path(), "/call/plans/plans/{id}");
        let get = &whole["paths"]["/call/plans/plans/{id}"]["get"];
        assert_eq!(get["security"], json!([{ "credential": ["reads"] }, {}]));
        assert_eq!(get["parameters"][0]["name"], "id");
        assert_eq!(get["tags"], json!(["solution/plans"]));
        let schemas = &whole["components"]["schemas"];
        assert_eq!(schemas["solution.bills.Bill"]["type"], json!(["object", "null"]));
        assert_eq!(
            schemas["solution.plans.Plan"]["properties"]["parts"]["items"]["$ref"],
            "#/components/schemas/solution.plans.Plan"
        );
        assert_eq!(whole["tags"][0]["description"], "Bills 1.2.0");
        assert!(merged("None", "1", &[])["paths"].as_object().unwrap().is_empty());
    }
}

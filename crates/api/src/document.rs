//! The OpenAPI documents of our own API, version 3.1: one of [`crate::public`], one of
//! [`crate::admin`]. Operations, parameters, bodies and answers are those of the routers and of
//! the types that handlers take and give; only names, sentences and refusals are said beside them.

use aide::{
    OperationOutput,
    axum::ApiRouter,
    generate::{self, GenContext},
    openapi::{
        Components, MediaType, OpenApi, Operation, PathItem, ReferenceOr, Response, SchemaObject,
        SecurityScheme, StatusCode, Tag,
    },
    operation::{ParamLocation, add_parameters, parameters_from_schema},
    transform::TransformOperation,
};
use axum::{body::Bytes, response::IntoResponse};
use http::header;
use indexmap::IndexMap;
use protocol::{Code, Retry};
use schemars::{
    JsonSchema, Schema, SchemaGenerator,
    generate::SchemaSettings,
    json_schema,
    transform::{RecursiveTransform, Transform},
};
use serde_json::{Value, json as object};
use std::{borrow::Cow, collections::BTreeSet};

/// What every operation may refuse.
const ALWAYS: &[Code] =
    &[Code::BadRequest, Code::RateLimited, Code::Internal, Code::StoreUnavailable];
/// What a caller of the public API proves itself by, and what the operator does.
pub(crate) const CREDENTIAL: &str = "credential";
pub(crate) const ADMIN_KEY: &str = "adminKey";

/// Answers by their status, as a type tells them.
pub(crate) type Inferred = Vec<(Option<u16>, Response)>;

/// A document before its operations.
pub(crate) struct About {
    pub(crate) title: &'static str,
    pub(crate) description: &'static str,
    /// How callers prove who they are: a name, and a sentence.
    pub(crate) security: (&'static str, &'static str),
    /// What stands before the tag in each path.
    pub(crate) prefix: &'static str,
    /// Sentences about the tags.
    pub(crate) tags: &'static [(&'static str, &'static str)],
}

/// The document of the router that `routes` makes.
pub(crate) fn of<S>(about: &About, routes: fn() -> ApiRouter<S>) -> Value
where
    S: Clone + Send + Sync + 'static,
{
    // Whatever was noted in this thread by a router that was never finished.
    generate::reset_context();
    generate::in_context(|context| context.schema = generator());
    let mut document = OpenApi::default();
    drop(routes().finish_api(&mut document));
    document.info.title = about.title.to_owned();
    document.info.description = Some(about.description.to_owned());
    document.info.version = env!("CARGO_PKG_VERSION").to_owned();
    document.tags = about.tags.iter().map(|(name, says)| tag(name, says)).collect();
    let components = document.components.get_or_insert_default();
    components.schemas.insert("Problem".into(), schema_object(problem()));
    components.schemas.sort_keys();
    security(components, about.security);
    let mut document = serde_json::to_value(document).expect("a document is JSON");
    let refused = finish(&mut document, about.prefix);
    document["components"]["responses"] = refusals(&refused);
    document
}

/// Adds to each operation its tag and what every operation may refuse; the statuses that are
/// refused with.
fn finish(document: &mut Value, prefix: &str) -> BTreeSet<u16> {
    let mut refused = BTreeSet::new();
    for (path, item) in document["paths"].as_object_mut().into_iter().flatten() {
        let mut parts = path.strip_prefix(prefix).unwrap_or(path).split(['/', '.']);
        let tag = parts.find(|part| !part.is_empty()).map(str::to_owned);
        for operation in item.as_object_mut().into_iter().flatten().map(|(_, it)| it) {
            operation["tags"] = tag.iter().cloned().collect();
            for code in ALWAYS {
                let status = code.status().as_u16();
                let responses = &mut operation["responses"];
                responses[status.to_string()] = object!({ "$ref": refusal(status) });
            }
            let responses = operation["responses"].as_object_mut();
            for (status, response) in responses.into_iter().flatten() {
                if response.get("$ref").is_some() {
                    refused.extend(status.parse::<u16>());
                }
            }
            operation["responses"].sort_all_objects();
        }
    }
    refused
}

/// JSON Schema as OpenAPI 3.1 has it, with what is said of a type in one place.
fn generator() -> SchemaGenerator {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = "#/components/schemas/".into();
        settings.meta_schema = None;
    });
    settings.into_generator()
}

fn tag(name: &str, says: &str) -> Tag {
    Tag { name: name.to_owned(), description: Some(says.to_owned()), ..Tag::default() }
}

fn security(components: &mut Components, (name, says): (&str, &str)) {
    let scheme = SecurityScheme::Http {
        scheme: "bearer".into(),
        bearer_format: None,
        description: Some(says.to_owned()),
        extensions: IndexMap::new(),
    };
    components.security_schemes.insert(name.to_owned(), ReferenceOr::Item(scheme));
}

/// What its handler's types do not say of an operation: its name, a sentence, and what it may
/// refuse for reasons of its own.
pub(crate) fn told(
    id: &'static str,
    summary: &'static str,
    codes: &'static [Code],
) -> impl FnOnce(TransformOperation<'_>) -> TransformOperation<'_> {
    move |mut operation| {
        refuses(operation.inner_mut(), codes);
        operation.id(id).summary(summary)
    }
}

/// Notes that an operation may refuse with `codes`.
pub(crate) fn refuses(operation: &mut Operation, codes: &[Code]) {
    let responses = operation.responses.get_or_insert_default();
    for code in codes {
        let status = code.status().as_u16();
        let reference = refusal(status);
        responses.responses.entry(StatusCode::Code(status)).or_insert(ReferenceOr::Reference {
            reference,
            summary: None,
            description: None,
        });
    }
}

/// Where it says what is refused with a status.
fn refusal(status: u16) -> String {
    format!("#/components/responses/Refused{status}")
}

/// A request may, or has to, carry a credential.
pub(crate) fn needs(operation: &mut Operation, scheme: &str, always: bool) {
    let with = [(scheme.to_owned(), Vec::new())].into_iter().collect();
    operation.security.push(with);
    if !always {
        operation.security.push(IndexMap::new());
    }
    refuses(operation, &[Code::Unauthenticated]);
}

/// A problem document (RFC 9457), as [`protocol::Problem`] writes it.
fn problem() -> Schema {
    let codes: Vec<&str> = Code::ALL.iter().map(|code| code.as_str()).collect();
    let retry = [Retry::Never, Retry::Later, Retry::AfterRefresh].map(Retry::as_str);
    json_schema!({
        "type": "object",
        "description": "Why something failed. There may be more members.",
        "properties": {
            "code": { "enum": codes, "description": "What kind of error it is." },
            "status": { "type": "integer", "description": "The HTTP status." },
            "detail": { "type": "string", "description": "A sentence about this one." },
            "retry": { "enum": retry, "description": "Whether the same request may be sent again." },
        },
        "required": ["code", "status", "detail", "retry"],
    })
}

/// What is refused with each status: which codes that may be.
fn refusals(statuses: &BTreeSet<u16>) -> Value {
    let mut refusals = object!({});
    for status in statuses {
        let of_status = Code::ALL.iter().filter(|code| code.status() == *status);
        let codes: Vec<&str> = of_status.map(|code| code.as_str()).collect();
        let schema = object!({
            "$ref": "#/components/schemas/Problem",
            "properties": { "code": { "enum": codes }, "status": { "const": status } },
        });
        refusals[format!("Refused{status}")] = object!({
            "description": format!("Refused: `{}`.", codes.join("`, `")),
            "content": { "application/problem+json": { "schema": schema } },
        });
    }
    refusals
}

fn schema_object(json_schema: Schema) -> SchemaObject {
    SchemaObject { json_schema, external_docs: None, example: None }
}

pub(crate) fn content(media_type: &str, schema: Schema) -> IndexMap<String, MediaType> {
    let form = MediaType { schema: Some(schema_object(schema)), ..MediaType::default() };
    [(media_type.to_owned(), form)].into_iter().collect()
}

/// An answer of a media type in the form of `T`.
pub(crate) fn of_type<T: JsonSchema>(context: &mut GenContext, media_type: &str) -> Response {
    let schema = context.schema.subschema_for::<T>();
    let says = context.resolve_schema(&schema).get("description").and_then(Value::as_str);
    Response {
        description: says.unwrap_or("Done.").to_owned(),
        content: content(media_type, schema),
        ..Response::default()
    }
}

/// An answer in JSON in the form of `T`.
pub(crate) fn json<T: JsonSchema>(context: &mut GenContext) -> Response {
    of_type::<T>(context, "application/json")
}

/// A document as a node serves it, written once: anybody may ask for it, as often as he likes.
#[derive(Clone)]
pub(crate) struct Served(Bytes);

impl Served {
    pub(crate) fn new(document: &Value) -> Self {
        Self(document.to_string().into())
    }
}

impl IntoResponse for Served {
    fn into_response(self) -> axum::response::Response {
        ([(header::CONTENT_TYPE, "application/json")], self.0).into_response()
    }
}

impl OperationOutput for Served {
    type Inner = OfOpenApi;

    fn inferred_responses(context: &mut GenContext, _: &mut Operation) -> Inferred {
        vec![(Some(200), json::<OfOpenApi>(context))]
    }
}

/// What an OpenAPI document looks like.
pub(crate) struct OfOpenApi;

impl JsonSchema for OfOpenApi {
    fn schema_name() -> Cow<'static, str> {
        "OpenApi".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "object",
            "description": "An OpenAPI document, version 3.0 or 3.1.",
            "properties": {
                "openapi": { "type": "string", "pattern": "^3\\.[01]\\." },
                "info": {
                    "type": "object",
                    "properties": { "title": { "type": "string" }, "version": { "type": "string" } },
                    "required": ["title", "version"],
                },
                "paths": { "type": "object" },
            },
            "required": ["openapi", "info", "paths"],
        })
    }
}

/// The operations of a path.
pub(crate) fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    let PathItem { get, put, post, delete, patch, .. } = item;
    [get, put, post, delete, patch].into_iter().flatten()
}

/// An answer without a body.
pub(crate) fn empty() -> Response {
    Response { description: "Done.".into(), ..Response::default() }
}

/// Notes the members of `T` as parameters of an operation. A parameter that is not given is
/// missing: there is no `null` in a path or a query.
pub(crate) fn parameters<T: JsonSchema>(
    context: &mut GenContext,
    operation: &mut Operation,
    location: ParamLocation,
) {
    let mut without_null = RecursiveTransform(|schema: &mut Schema| {
        if let Some(Value::Array(types)) = schema.ensure_object().get_mut("type") {
            types.retain(|name| name != "null");
            if let [one] = &types[..] {
                let one = one.clone();
                schema.insert("type".into(), one);
            }
        }
        if let Some(Value::Array(forms)) = schema.ensure_object().get_mut("anyOf") {
            forms.retain(|form| *form != object!({ "type": "null" }));
            if let [Value::Object(one)] = &forms[..] {
                let one = one.clone();
                schema.remove("anyOf");
                for (name, value) in one {
                    schema.ensure_object().entry(name).or_insert(value);
                }
            }
        }
        if schema.get("default") == Some(&Value::Null) {
            schema.remove("default");
        }
    });
    let mut schema = T::json_schema(&mut context.schema);
    without_null.transform(&mut schema);
    let parameters = parameters_from_schema(context, schema, location);
    add_parameters(context, operation, parameters);
}

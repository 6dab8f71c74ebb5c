use super::*;
use http::{HeaderMap, HeaderValue};
use serde_json::json;
use types::{Caller, CredentialKind, Principal, PrincipalId, PrincipalKind, Role, TenantId};

const PLANS: &str = r##"
openapi: 3.1.0
info: { title: Plans, version: 2.1.0 }
security: [{ token: [plans.read] }]
paths:
  /plans:
    parameters:
      - { name: X-Trace, in: header, schema: { type: string, maxLength: 4 } }
    get:
      operationId: listPlans
      security: []
      parameters:
        - { name: limit, in: query, schema: { type: integer, minimum: 1, maximum: 100 } }
        - { name: state, in: query, schema: { type: array, items: { enum: [open, done] } } }
        - { name: ids, in: query, explode: false, schema: { type: array, items: { type: integer } } }
        - { name: deep, in: query, schema: { type: boolean } }
        - { name: seen, in: cookie, schema: { type: integer } }
        - { $ref: "#/components/parameters/filter" }
      responses: { 200: { content: { application/json: { schema: { type: array } } } } }
    post:
      operationId: addPlan
      parameters:
        - { name: X-Trace, in: header, schema: { type: string, maxLength: 8 } }
      requestBody: { required: true, content: { application/json: { schema: { $ref: "#/components/schemas/Plan" } } } }
      responses:
        "201": { content: { application/json: { schema: { $ref: "#/components/schemas/Plan" } } } }
        4XX: { description: no }
  /plans/{plan-id}/steps/{n}:
    put:
      parameters:
        - { name: plan-id, in: path, required: true, schema: { type: string, pattern: "^p[0-9]+$" } }
        - { name: n, in: path, required: true, schema: { type: integer } }
      requestBody: { content: { "text/*": {}, application/merge-patch+json: { schema: { type: object } } } }
      deprecated: true
      x-crosstown:
        deprecated_since: 2026-01-02
        sunset: 2027-01-01
        migration: https://example.org/plans
        idempotent: true
        limits: [{ per: user, requests: 10, period: 1m }]
components:
  parameters:
    filter: { name: filter, in: query, content: { application/json: { schema: { type: object, required: [by] } } } }
  schemas:
    Plan:
      type: object
      required: [id, name, secret]
      properties:
        id: { type: integer, readOnly: true }
        secret: { type: string, writeOnly: true }
        name: { type: string, minLength: 1 }
        parts: { type: array, items: { $ref: "#/components/schemas/Plan" } }
"##;

fn plans() -> Document {
    Document::parse(PLANS.as_bytes()).unwrap()
}

fn operation<'a>(document: &'a Document, id: &str) -> &'a Operation {
    document.operations().iter().find(|operation| operation.id() == id).unwrap()
}

fn fields(fields: &[(&'static str, &str)]) -> HeaderMap {
    let value = |text: &str| HeaderValue::from_str(text).unwrap();
    fields.iter().map(|(name, text)| (name.parse().unwrap(), value(text))).collect()
}

#[test]
fn a_document_is_read_as_its_operations() {
    let document = plans();
    assert_eq!((document.title(), document.version()), ("Plans", "2.1.0"));
    let told: Vec<String> = document
        .operations()
        .iter()
        .map(|operation| format!("{} {} {}", operation.id(), operation.method(), operation.path()))
        .collect();
    assert_eq!(
        told,
        [
            "listPlans GET /plans",
            "addPlan POST /plans",
            "put-plans-plan-id-steps-n PUT /plans/{plan-id}/steps/{n}",
        ]
    );
    let step = &document.operations()[2];
    let mut told = HeaderMap::new();
    step.sunset().mark(&mut told);
    assert_eq!(told["deprecation"], "@1767312000");
    assert_eq!(told["sunset"], "Fri, 01 Jan 2027 00:00:00 GMT");
    assert_eq!(told["link"], "<https://example.org/plans>; rel=\"deprecation\"");
    assert_eq!((step.idempotent(), step.limits().len()), (Some(true), 1));
    assert_eq!(&*step.limits()[0].name, "put-plans-plan-id-steps-n-1");
    assert!(document.operations()[0].limits().is_empty());
    let as_json = Document::parse(document.json().to_string().as_bytes()).unwrap();
    assert_eq!(as_json.operations().len(), 3);
}

#[test]
fn parameters_are_checked_where_they_stand() {
    let document = plans();
    let list = operation(&document, "listPlans");
    let check = |query: &str, headers: &[(&'static str, &str)]| {
        let checked = list.check_head("/plans", Some(query), &fields(headers), false).unwrap();
        let violations = checked.violations;
        let told = violations.iter().map(|v| format!("{:?} {} {}", v.r#in, v.name, v.at));
        told.collect::<Vec<_>>().join(", ")
    };
    for (query, expected) in [
        ("", ""),
        ("limit=100", ""),
        ("limit=101", "Query limit "),
        ("limit=1x", "Query limit "),
        ("limit=", "Query limit "),
        ("limit=%2B1", "Query limit "),
        ("limit=%201", "Query limit "),
        ("limit=1+", "Query limit "),
        ("limit=1&limit=2", "Query limit "),
        ("limit=1.5", "Query limit "),
        ("state=open&state=done", ""),
        ("state=open&state=lost", "Query state /1"),
        ("ids=1,2,3", ""),
        ("ids=1,x", "Query ids "),
        ("ids=1&ids=2", "Query ids "),
        ("deep=true", ""),
        ("deep=yes", "Query deep "),
        ("filter=%7B%22by%22%3A1%7D", ""),
        ("filter=%7B%7D", "Query filter "),
        ("filter=x", "Query filter "),
        ("other=1", ""),
    ] {
        assert_eq!(check(query, &[]), expected, "{query}");
    }
    assert_eq!(check("", &[("x-trace", "abcde")]), "Header X-Trace ");
    let longer = fields(&[("x-trace", "abcde"), ("content-type", "application/json")]);
    let add = operation(&document, "addPlan");
    let checked = add.check_head("/plans", None, &longer, true).unwrap();
    assert!(checked.violations.is_empty(), "its own is meant");
    assert_eq!(check("", &[("cookie", "a=b; seen=x")]), "Cookie seen ");
    assert_eq!(check("", &[("cookie", "a=b; seen=7")]), "");
    let step = &document.operations()[2];
    for (path, expected) in [
        ("/plans/p12/steps/3", 0),
        ("/plans/x/steps/3", 1),
        ("/plans/p%31/steps/3", 0),
        ("/plans/x/steps/y", 2),
        ("/plans/p1/steps/%ff", 1),
    ] {
        let found = step.check_head(path, None, &HeaderMap::new(), false).unwrap().violations;
        assert_eq!(found.len(), expected, "{path}: {found:?}");
    }
}

/// What a body with these fields is held to.
fn body_rule<'a>(operation: &'a Operation, headers: &HeaderMap) -> Option<&'a BodyRule> {
    operation.check_head("/plans", None, headers, true).unwrap().body
}

#[test]
fn bodies_are_checked_by_their_media_type() {
    let document = plans();
    let add = operation(&document, "addPlan");
    let json_fields = fields(&[("content-type", "application/json; charset=utf-8")]);
    let check = |body: serde_json::Value| {
        let found = body_rule(add, &json_fields).unwrap().violations(body.to_string().as_bytes());
        found.into_iter().map(|violation| violation.at).collect::<Vec<_>>()
    };
    let sound = json!({ "name": "a", "secret": "s" });
    assert!(check(sound.clone()).is_empty(), "what only the service writes is not asked for");
    assert_eq!(check(json!({ "name": "", "secret": "s" })), ["/name"]);
    assert_eq!(check(json!({ "secret": "s" })), [""]);
    assert_eq!(
        check(json!({ "name": "a", "secret": "s", "parts": [sound, { "name": 1, "secret": "" }] })),
        ["/parts/1/name"]
    );
    assert_eq!(body_rule(add, &json_fields).unwrap().violations(b"{").len(), 1);
    let wrong = |bytes: usize| json!({ "name": "", "secret": 1, "more": "x".repeat(bytes) });
    assert_eq!(check(wrong(1)).len(), 2);
    assert_eq!(check(wrong(17_000)).len(), 1, "of a long body the first place is told");
    let twice = body_rule(add, &json_fields).unwrap().violations(br#"{"title": "a", "title": ""}"#);
    assert_eq!(twice.len(), 1);
    assert!(twice[0].why.contains("twice"), "{twice:?}");
    let without = add.check_head("/plans", None, &HeaderMap::new(), false).unwrap();
    assert_eq!((without.violations.len(), without.body.is_some()), (1, false));
    let media = |operation: &Operation, media: &str| {
        operation.check_head("/plans", None, &fields(&[("content-type", media)]), true).is_ok()
    };
    assert!(media(add, "application/json") && !media(add, "text/plain") && !media(add, ""));
    let any = json!({ "*/*": {}, "application/json": { "schema": { "type": "integer" } } });
    let mut json = document.json().clone();
    json["paths"]["/plans"]["post"]["requestBody"]["content"] = any;
    let document = Document::of(json).unwrap();
    let add = operation(&document, "addPlan");
    assert!(body_rule(add, &json_fields).is_some(), "what is more specific is meant");
    assert!(media(add, "text/plain"));
    let step = &document.operations()[2];
    let typed = |media: &str| {
        let headers = fields(&[("content-type", media)]);
        let checked = step.check_head("/plans/p1/steps/1", None, &headers, true);
        checked.map(|checked| checked.body.is_some()).ok()
    };
    assert_eq!(typed("text/plain"), Some(false));
    assert_eq!(typed("application/merge-patch+json"), Some(true));
    assert_eq!(typed("application/json"), None);
}

#[test]
fn answers_are_checked_by_their_status() {
    let document = plans();
    let add = operation(&document, "addPlan");
    let headers = fields(&[("content-type", "application/json")]);
    let check = |status, body: serde_json::Value| {
        let rule = add.answer_rule(status, &headers);
        rule.map_or(0, |rule| rule.violations(body.to_string().as_bytes()).len())
    };
    assert_eq!(check(201, json!({ "id": 1, "name": "a" })), 0);
    assert_eq!(check(201, json!({ "name": "a" })), 1, "what only clients write is not asked for");
    assert_eq!(check(404, json!(1)), 0);
    assert!(add.answer_rule(201, &headers).is_some() && add.answer_rule(404, &headers).is_none());
    assert!(add.knows_status(404) && !add.knows_status(500));
    let by = |statuses: &[&str], status| {
        let schema = |status: &&str| {
            let content = json!({ "application/json": { "schema": { "const": status } } });
            ((*status).to_owned(), json!({ "content": content }))
        };
        let mut json = document.json().clone();
        json["paths"]["/plans"]["post"]["responses"] =
            statuses.iter().map(schema).collect::<serde_json::Map<_, _>>().into();
        let document = Document::of(json).unwrap();
        let rule = operation(&document, "addPlan").answer_rule(status, &headers).cloned();
        let takes = |of: &&&str| {
            rule.as_ref()
                .is_some_and(|rule| rule.violations(json!(of).to_string().as_bytes()).is_empty())
        };
        statuses.iter().find(takes).map(|status| (*status).to_owned())
    };
    for (status, expected) in [(200, "200"), (204, "2XX"), (404, "4xx"), (500, "default")] {
        let found = by(&["default", "4xx", "2XX", "200"], status);
        assert_eq!(found.as_deref(), Some(expected), "what is more specific is meant");
    }
    assert_eq!(by(&["2XX", "x-note"], 404), None);
}

#[test]
fn scopes_are_roles() {
    let document = plans();
    let caller = |roles: &[&str]| {
        let principal = Principal { kind: PrincipalKind::User, id: PrincipalId::new("u").unwrap() };
        let tenant = TenantId::new("acme").unwrap();
        let mut caller = Caller::new(tenant, principal, CredentialKind::ApiKey);
        caller.roles = roles.iter().map(|role| Role::new(role).unwrap()).collect();
        caller
    };
    let permit = |id: &str, caller: Option<&Caller>| {
        let refused = operation(&document, id).permit(caller).err();
        refused.map(|problem| problem.code.status().as_u16())
    };
    assert_eq!(permit("listPlans", None), None);
    assert_eq!(permit("addPlan", None), Some(401));
    assert_eq!(permit("addPlan", Some(&caller(&["other"]))), Some(403));
    assert_eq!(permit("addPlan", Some(&caller(&["other", "plans.read"]))), None);
    let with = |security: serde_json::Value| {
        let mut json = document.json().clone();
        json["paths"]["/plans"]["post"]["security"] = security;
        let document = Document::of(json).unwrap();
        let permit = |caller| operation(&document, "addPlan").permit(caller).is_ok();
        (permit(None), permit(Some(&caller(&[]))), permit(Some(&caller(&["a", "b"]))))
    };
    assert_eq!(with(json!([{}])), (true, true, true));
    assert_eq!(with(json!([{ "token": [] }])), (false, true, true));
    assert_eq!(with(json!([{ "token": ["a", "c"] }, { "key": ["b"] }])), (false, false, true));
}

#[test]
fn a_document_of_3_0_means_what_it_meant() {
    let document = Document::parse(
        json!({
            "openapi": "3.0.3",
            "info": { "title": "t", "version": "1" },
            "paths": { "/x": { "post": { "operationId": "x", "requestBody": { "content": {
                "application/json": { "schema": { "properties": {
                    "n": { "type": "integer", "nullable": true },
                    "m": { "type": "number", "minimum": 1, "exclusiveMinimum": true },
                    "o": { "type": "number", "maximum": 1, "exclusiveMaximum": false },
                    "r": { "$ref": "#/components/schemas/R", "type": "string" },
                } } },
            } } } } },
            "components": { "schemas": { "R": { "type": "integer" } } },
        })
        .to_string()
        .as_bytes(),
    )
    .unwrap();
    let headers = fields(&[("content-type", "application/json")]);
    let fits = |body: serde_json::Value| {
        let rule = body_rule(&document.operations()[0], &headers).unwrap();
        rule.violations(body.to_string().as_bytes()).is_empty()
    };
    assert!(fits(json!({ "n": null, "m": 1.5, "o": 1, "r": 3 })));
    for wrong in [json!({ "n": "" }), json!({ "m": 1 }), json!({ "o": 2 }), json!({ "r": "" })] {
        assert!(!fits(wrong.clone()), "{wrong}");
    }
}

#[test]
fn what_cannot_be_kept_is_refused_with_its_place() {
    let with = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut json = plans().json().clone();
        change(&mut json);
        Document::of(json).map(|_| ()).unwrap_err()
    };
    let schema = "/components/schemas/Plan";
    let set = |pointer: &'static str, value: serde_json::Value| {
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        with(&move |json| {
            let parent = json.pointer_mut(parent).unwrap();
            let index: Option<usize> = name.parse().ok();
            match index.filter(|_| parent.is_array()) {
                Some(index) => parent[index] = value.clone(),
                None => parent[name.replace("~1", "/")] = value.clone(),
            }
        })
    };
    let limit = "/paths/~1plans/get/parameters/0/schema";
    for (why, expected) in [
        (set("/openapi", json!("2.0")), "is not 3.0 or 3.1"),
        (set("/info", json!({})), "`info.title` is missing"),
        (set("/paths", json!([])), "`paths` is no object"),
        (set("/paths/~1plans", json!({ "$ref": "other.yaml" })), "leads outside"),
        (set("/paths/~1plans", json!({ "$ref": "#/paths/~1plans" })), "in a circle"),
        (set("/paths/~1plans/post/operationId", json!("listPlans")), "another operation"),
        (set("/paths/~1plans/post/operationId", json!("a b")), "`operationId` has"),
        (set("/paths/~1plans/post/security", json!([{ "t": "x" }])), "lists of scopes"),
        (set(limit, json!({ "$ref": "#/components/schemas/None" })), "leads to nothing"),
        (set(limit, json!({ "$ref": "http://127.0.0.1/x.json" })), "leads outside"),
        (set(limit, json!({ "$ref": "file:///etc/passwd" })), "leads outside"),
        (set(limit, json!({ "$id": "http://a/b" })), "`$id` in a schema"),
        (set(limit, json!({ "$dynamicRef": "#x" })), "`$dynamicRef` in a schema"),
        (set(limit, json!({ "type": "strng" })), "a schema:"),
        (set(limit, json!({ "pattern": "(?=a)" })), "a schema:"),
        (set(limit, json!({ "pattern": "((a{100}){100}){100}" })), "a schema:"),
        (set(schema, json!({ "$ref": "#/components/schemas/Plan" })), "refer to themselves"),
        (
            set(
                "/components/schemas",
                json!({
                    "Plan": { "anyOf": [{ "$ref": "#/components/schemas/B" }, { "type": "null" }] },
                    "B": { "allOf": [{ "not": { "$ref": "#/components/schemas/Plan" } }] },
                }),
            ),
            "refer to themselves",
        ),
        (with(&|json| json["paths"]["/a{b}"] = json!({ "get": {} })), "a whole segment"),
        (with(&|json| json["paths"]["/{b}/{b}"] = json!({ "get": {} })), "twice"),
        (with(&|json| json["paths"]["b"] = json!({ "get": {} })), "begins with `/`"),
        (
            with(&|json| {
                let wrong = json!({ "limits": [{ "per": "user", "requests": 0, "period": "1m" }] });
                json["paths"]["/plans"]["get"]["x-crosstown"] = wrong;
            }),
            "`x-crosstown.limits`",
        ),
        (
            with(&|json| json["paths"]["/plans"]["get"]["x-crosstown"] = json!({ "limit": [] })),
            "unknown field",
        ),
    ] {
        assert!(why.contains(expected), "{why} / {expected}");
    }
    for (text, expected) in [
        ("{", "no JSON"),
        ("a: [", "no YAML"),
        ("[1]", "no object"),
        ("\u{feff}", "no "),
        (
            "a: &a [x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\n\
          d: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\n\
          f: &f [*e,*e,*e,*e,*e,*e,*e,*e,*e]\ng: &g [*f,*f,*f,*f,*f,*f,*f,*f,*f]\n\
          h: &h [*g,*g,*g,*g,*g,*g,*g,*g,*g]\ni: [*h,*h,*h,*h,*h,*h,*h,*h,*h]\n",
            "no YAML",
        ),
    ] {
        let why = Document::parse(text.as_bytes()).map(|_| ()).unwrap_err();
        assert!(why.contains(expected), "{why}");
    }
    // Many operations, each with a schema of its own that refers to a large one.
    let operation = |number: usize| {
        let schema = json!({ "allOf": [{ "$ref": "#/components/schemas/Large" }], "title": number.to_string() });
        let content = json!({ "application/json": { "schema": schema } });
        (format!("/{number}"), json!({ "get": { "requestBody": { "content": content } } }))
    };
    let large = json!({
        "openapi": "3.1.0",
        "info": { "title": "t", "version": "1" },
        "paths": (0..100).map(operation).collect::<serde_json::Map<_, _>>(),
        "components": { "schemas": { "Large": { "description": "x".repeat(400_000) } } },
    });
    assert!(Document::of(large).unwrap_err().contains("its schemas have more than"));
    let long = vec![b' '; DOCUMENT_BYTES_MAX + 1];
    assert!(Document::parse(&long).unwrap_err().contains("at most"));
}

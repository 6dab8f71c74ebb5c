//! An OpenAPI document as a page that can be read: one file, without scripts.

use serde_json::Value;
use std::fmt::Write as _;

const STYLE: &str = include_str!("page.css");

/// The page of a document.
pub(super) fn of(document: &Value) -> String {
    let title = text(&document["info"]["title"]);
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>{title}</title>\
         <style>{STYLE}</style></head><body><h1>{title}</h1>\n"
    );
    let tags = document["tags"].as_array().map_or(&[][..], Vec::as_slice);
    if tags.is_empty() {
        page.push_str("<p>There is nothing to call.</p>\n");
    }
    for tag in tags {
        let (name, described) = (text(&tag["name"]), text(&tag["description"]));
        let _ = writeln!(page, "<section><h2>{name}</h2><p>{described}</p>");
        for (path, item) in document["paths"].as_object().into_iter().flatten() {
            for (method, operation) in item.as_object().into_iter().flatten() {
                if operation["tags"][0] == tag["name"] {
                    one(&mut page, document, path, method, operation);
                }
            }
        }
        page.push_str("</section>\n");
    }
    page.push_str("</body></html>\n");
    page
}

fn one(page: &mut String, document: &Value, path: &str, method: &str, operation: &Value) {
    let deprecated = operation["deprecated"] == true;
    let (class, mark) = if deprecated { (" class=\"old\"", " (deprecated)") } else { ("", "") };
    let _ = writeln!(
        page,
        "<details id=\"{}\"><summary{class}><b>{}</b> <code>{}</code> {}{mark}</summary>",
        text(&operation["operationId"]),
        escaped(&method.to_uppercase()),
        escaped(path),
        text(&operation["summary"]),
    );
    if operation["description"].is_string() {
        let _ = writeln!(page, "<p>{}</p>", text(&operation["description"]));
    }
    if let Some(security) = operation["security"].as_array() {
        let scopes = security.iter().map(|one| match one["credential"].as_array() {
            Some(scopes) if scopes.is_empty() => "any credential".to_owned(),
            Some(scopes) => scopes.iter().map(text).collect::<Vec<_>>().join(" and "),
            None => "nobody in particular".to_owned(),
        });
        let _ = writeln!(page, "<p>For: {}</p>", scopes.collect::<Vec<_>>().join("; or "));
    }
    parameters(page, document, &operation["parameters"]);
    let body = resolved(document, &operation["requestBody"]);
    for (media, content) in body["content"].as_object().into_iter().flatten() {
        let must = if body["required"] == true { "" } else { ", if there is one" };
        let _ = writeln!(page, "<h3>Body: {}{must}</h3>", escaped(media));
        schema(page, document, &content["schema"]);
    }
    for (status, response) in operation["responses"].as_object().into_iter().flatten() {
        let response = resolved(document, response);
        let described = text(&response["description"]);
        let _ = writeln!(page, "<h3>{}: {described}</h3>", escaped(status));
        for content in response["content"].as_object().into_iter().flat_map(|c| c.values()) {
            schema(page, document, &content["schema"]);
        }
    }
    page.push_str("</details>\n");
}

fn parameters(page: &mut String, document: &Value, parameters: &Value) {
    let parameters = parameters.as_array().map_or(&[][..], Vec::as_slice);
    if parameters.is_empty() {
        return;
    }
    page.push_str("<table><tr><th>Parameter</th><th>In</th><th>Is</th><th></th></tr>\n");
    for parameter in parameters {
        let parameter = resolved(document, parameter);
        let must = if parameter["required"] == true { "required; " } else { "" };
        let _ = writeln!(
            page,
            "<tr><td><code>{}</code></td><td>{}</td><td><code>{}</code></td><td>{must}{}</td></tr>",
            text(&parameter["name"]),
            text(&parameter["in"]),
            escaped(&parameter["schema"].to_string()),
            text(&parameter["description"]),
        );
    }
    page.push_str("</table>\n");
}

/// A schema, and where it is a name, what that stands for.
fn schema(page: &mut String, document: &Value, schema: &Value) {
    if schema.is_null() {
        return;
    }
    let shown = resolved(document, schema);
    let shown = serde_json::to_string_pretty(shown).unwrap_or_default();
    let _ = writeln!(page, "<pre>{}</pre>", escaped(&shown));
}

/// What stands at a reference's place.
fn resolved<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
    let reference = value["$ref"].as_str().and_then(|reference| reference.strip_prefix('#'));
    reference.and_then(|pointer| document.pointer(pointer)).unwrap_or(value)
}

fn text(value: &Value) -> String {
    escaped(value.as_str().unwrap_or_default())
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_a_document_says_is_shown_and_never_run() {
        let evil = "<script>alert(1)</script>\"";
        let page = of(&json!({
            "info": { "title": evil },
            "tags": [{ "name": evil, "description": evil }],
            "paths": { evil: { "get": {
                "operationId": evil, "summary": evil, "description": evil, "tags": [evil],
                "parameters": [{ "name": evil, "in": evil, "schema": { "pattern": evil } }],
                "requestBody": { "content": { evil: { "schema": { "title": evil } } } },
                "responses": { evil: { "description": evil } },
                "security": [{ "credential": [evil] }, {}],
            } } },
        }));
        assert!(page.contains("&lt;script&gt;") && !page.contains("<script"), "{page}");
        assert!(!page.contains("alert(1)</"), "{page}");
        assert!(of(&json!({})).contains("nothing to call"));
    }
}

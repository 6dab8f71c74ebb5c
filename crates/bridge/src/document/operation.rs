//! An operation: a method on a path, with what the document promises of it.

use crate::{
    document::{
        parameter::{Parameter, Said, parameter_of},
        payload::{BodyRule, Known, Payload},
        schema::{Direction, Schemas},
    },
    violation::Violation,
};
use http::{HeaderMap, HeaderValue, Method, header};
use jiff::{Timestamp, civil::Date, tz::TimeZone};
use protocol::{Code, Problem};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::time::{Duration, SystemTime};
use traffic_cop::limit::Rule;
use types::{Caller, Role};

/// Where in an operation Crosstown's own members stand.
const OURS: &str = "x-crosstown";

/// What an operation says in `x-crosstown`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Ours {
    /// Limits, as in `[[limits]]`, that hold for it alone.
    limits: Vec<Map<String, Value>>,
    /// Since when it is deprecated.
    deprecated_since: Option<Date>,
    /// From when on it may be gone.
    sunset: Option<Date>,
    /// Where its users read what to do.
    migration: Option<String>,
    /// Whether it may be sent twice.
    idempotent: Option<bool>,
}

/// What is told of an operation that ends (RFC 9745 and 8594).
#[derive(Debug, Clone, Default)]
pub struct Sunset {
    fields: Vec<(header::HeaderName, HeaderValue)>,
}

impl Sunset {
    /// Adds what is to be told to the fields of an answer.
    pub fn mark(&self, headers: &mut HeaderMap) {
        for (name, value) in &self.fields {
            headers.append(name, value.clone());
        }
    }

    fn of(deprecated: bool, ours: &Ours) -> Result<Self, String> {
        let mut fields = Vec::new();
        let start = |date: Date| -> Result<Timestamp, String> {
            let zoned = date.to_zoned_datetime(TimeZone::UTC).map_err(|error| error.to_string())?;
            Ok(zoned.timestamp())
        };
        let since = ours.deprecated_since.map(start).transpose()?;
        if deprecated || since.is_some() {
            // Without a date it has been so for as long as anybody asks.
            let since = since.map_or(0, Timestamp::as_second);
            let value = HeaderValue::from_str(&format!("@{since}")).map_err(|e| e.to_string())?;
            fields.push((header::HeaderName::from_static("deprecation"), value));
        }
        if let Some(date) = ours.sunset {
            let seconds = u64::try_from(start(date)?.as_second())
                .map_err(|_| "`sunset` is before 1970".to_owned())?;
            let at = httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
            let value = HeaderValue::from_str(&at).map_err(|error| error.to_string())?;
            fields.push((header::HeaderName::from_static("sunset"), value));
        }
        if let Some(link) = &ours.migration {
            let wrong = || format!("`migration: {link}` is no address");
            let url = url::Url::parse(link).map_err(|_| wrong())?;
            let value = HeaderValue::from_str(&format!("<{url}>; rel=\"deprecation\""));
            fields.push((header::LINK, value.map_err(|_| wrong())?));
        }
        Ok(Self { fields })
    }
}

/// One of the ways in which an operation lets callers in.
#[derive(Debug)]
struct Alternative {
    /// Whether it takes who has no credential.
    anybody: bool,
    roles: Vec<Role>,
}

impl Alternative {
    fn scopes(&self) -> Option<Vec<&str>> {
        (!self.anybody).then(|| self.roles.iter().map(Role::as_str).collect())
    }

    fn lets(&self, caller: Option<&Caller>) -> bool {
        let holds = |caller: &Caller| self.roles.iter().all(|role| caller.has_role(role.as_str()));
        caller.map_or(self.anybody, holds)
    }
}

/// What answers a response of the document is for; the more specific come first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Statuses {
    One(u16),
    /// A hundred, by its first digit.
    Class(u16),
    /// Those for which there is no other.
    Default,
}

impl Statuses {
    /// As documents write them: `200`, `2XX`, `default`. None for what no status can be.
    fn read(text: &str) -> Option<Self> {
        let class = text.strip_suffix("XX").or_else(|| text.strip_suffix("xx"));
        match class {
            _ if text.eq_ignore_ascii_case("default") => Some(Self::Default),
            Some(digit) => digit.parse().ok().map(Self::Class),
            None => text.parse().ok().map(Self::One),
        }
    }

    fn has(self, status: u16) -> bool {
        match self {
            Self::One(one) => one == status,
            Self::Class(digit) => digit == status / 100,
            Self::Default => true,
        }
    }
}

/// What the head of a request has shown.
#[derive(Debug)]
pub struct Checked<'a> {
    /// What in it breaks the document.
    pub violations: Vec<Violation>,
    /// What the body is held to, if one follows that has to be read for that.
    pub body: Option<&'a BodyRule>,
}

/// An operation.
#[derive(Debug)]
pub struct Operation {
    id: String,
    method: Method,
    path: String,
    summary: Option<String>,
    deprecated: bool,
    /// Alternatives; none: whoever may use the route.
    security: Vec<Alternative>,
    parameters: Vec<Parameter>,
    body: Payload,
    body_required: bool,
    /// The more specific first.
    responses: Vec<(Statuses, Payload)>,
    sunset: Sunset,
    limits: Vec<Rule>,
    idempotent: Option<bool>,
}

impl Operation {
    /// # Errors
    /// What is wrong with it.
    pub(super) fn read(
        schemas: &mut Schemas<'_>,
        path: &str,
        method: &str,
        item: &Map<String, Value>,
        given: &Value,
    ) -> Result<Self, String> {
        let given = given.as_object().ok_or("it is no object")?;
        let id = match given.get("operationId") {
            Some(id) => id.as_str().unwrap_or_default().to_owned(),
            None => named(method, path),
        };
        if id.is_empty() || id.len() > 100 || !id.bytes().all(is_plain) {
            return Err("`operationId` has up to 100 letters, digits, `.`, `_` and `-`".into());
        }
        check_path(path)?;
        let mut parameters: Vec<Parameter> = Vec::new();
        let of = |members: &Map<String, Value>| match members.get("parameters") {
            None => Ok(Vec::new()),
            Some(given) => given.as_array().cloned().ok_or("`parameters` is no list"),
        };
        for given in of(item)?.iter().chain(&of(given)?) {
            // Those of the operation come after those of the path, and replace them.
            let resolved = match given.get("$ref").and_then(Value::as_str) {
                Some(reference) => schemas.root.at(reference)?.clone(),
                None => given.clone(),
            };
            if let Some(parameter) = Parameter::read(schemas, path, &resolved)? {
                parameters.retain(|known| !parameter.replaces(known));
                parameters.push(parameter);
            }
        }
        let body = given.get("requestBody").map(|body| schemas.root.resolved(body)).transpose()?;
        let mut responses = Vec::new();
        if let Some(of_status) = given.get("responses").and_then(Value::as_object) {
            for (status, response) in of_status {
                let response = schemas.root.resolved(response)?;
                let payload = Payload::read(schemas, response.get("content"), Direction::Response)?;
                responses.extend(Statuses::read(status).map(|of| (of, payload)));
            }
        }
        responses.sort_by_key(|(of, _)| *of);
        let ours = match given.get(OURS) {
            None => Ours::default(),
            Some(ours) => serde_json::from_value(ours.clone())
                .map_err(|error| format!("`{OURS}`: {error}"))?,
        };
        let deprecated = given.get("deprecated") == Some(&Value::Bool(true));
        let security = given.get("security").or_else(|| schemas.root.0.get("security"));
        Ok(Self {
            method: method.to_ascii_uppercase().parse().map_err(|_| "no such method")?,
            path: path.to_owned(),
            summary: given.get("summary").and_then(Value::as_str).map(str::to_owned),
            security: alternatives(security)?,
            parameters,
            body_required: body.is_some_and(|body| body.get("required") == Some(&true.into())),
            body: Payload::read(
                schemas,
                body.and_then(|body| body.get("content")),
                Direction::Request,
            )?,
            responses,
            sunset: Sunset::of(deprecated, &ours)?,
            deprecated,
            limits: limits(&id, ours.limits)?,
            idempotent: ours.idempotent,
            id,
        })
    }

    /// Its name in the document.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its method.
    #[must_use]
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// Its path, with `{name}` where parameters stand.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// What it is for, in a line.
    #[must_use]
    pub fn summary(&self) -> Option<&str> {
        self.summary.as_deref()
    }

    /// Whether it should not be used any more.
    #[must_use]
    pub fn is_deprecated(&self) -> bool {
        self.deprecated
    }

    /// What is told of its end.
    #[must_use]
    pub fn sunset(&self) -> &Sunset {
        &self.sunset
    }

    /// Limits that hold for it alone; their names begin with its id.
    #[must_use]
    pub fn limits(&self) -> &[Rule] {
        &self.limits
    }

    /// Whether it may be sent twice, if the document says.
    #[must_use]
    pub fn idempotent(&self) -> Option<bool> {
        self.idempotent
    }

    /// Refuses callers without what the document asks for. The scopes of a security requirement
    /// are roles here.
    ///
    /// # Errors
    /// `unauthenticated` or `forbidden`.
    pub fn permit(&self, caller: Option<&Caller>) -> Result<(), Problem> {
        let alternatives = &self.security;
        if alternatives.is_empty() || alternatives.iter().any(|one| one.lets(caller)) {
            return Ok(());
        }
        if caller.is_none() {
            return Err(Problem::new(Code::Unauthenticated, "a credential is needed here"));
        }
        let detail = format!("the caller has not the roles that `{}` asks for", self.id);
        Err(Problem::new(Code::Forbidden, detail).member("operation", self.id.as_str()))
    }

    /// The alternatives by which it lets callers in, each as its scopes; none for one that takes
    /// who has no credential. None of them: whoever may use the route.
    pub(crate) fn scopes(&self) -> Option<impl Iterator<Item = Option<Vec<&str>>>> {
        (!self.security.is_empty()).then(|| self.security.iter().map(Alternative::scopes))
    }

    /// Holds the head of a request to the document. `path` is as it came, below where the API
    /// begins; `has_body`: whether a body follows.
    ///
    /// # Errors
    /// `unsupported_media_type`.
    pub fn check_head(
        &self,
        path: &str,
        query: Option<&str>,
        headers: &HeaderMap,
        has_body: bool,
    ) -> Result<Checked<'_>, Problem> {
        let (mut violations, mut body) = (Vec::new(), None);
        let said = Said { path, query, headers };
        self.parameters.iter().for_each(|known| known.check(&said, &mut violations));
        if !has_body && self.body_required {
            violations.push(Violation::of_body("", "it is missing"));
        }
        if has_body && !self.body.is_empty() {
            let media = headers.get(header::CONTENT_TYPE);
            body = match self.body.of(media) {
                Known::Json(rule) => Some(rule),
                Known::Opaque => None,
                Known::None => {
                    let detail = match media.and_then(|media| media.to_str().ok()) {
                        Some(media) => format!("`{}` does not take bodies of {media}", self.id),
                        None => format!("a body for `{}` needs a `Content-Type`", self.id),
                    };
                    return Err(Problem::new(Code::UnsupportedMediaType, detail));
                }
            };
        }
        Ok(Checked { violations, body })
    }

    /// What the body of an answer is held to, if the document says anything of it.
    #[must_use]
    pub fn answer_rule(&self, status: u16, headers: &HeaderMap) -> Option<&BodyRule> {
        self.of_status(status)?.of(headers.get(header::CONTENT_TYPE)).rule()
    }

    /// Whether the document knows answers with this status.
    #[must_use]
    pub fn knows_status(&self, status: u16) -> bool {
        self.responses.is_empty() || self.of_status(status).is_some()
    }

    fn of_status(&self, status: u16) -> Option<&Payload> {
        self.responses.iter().find(|(of, _)| of.has(status)).map(|(_, payload)| payload)
    }
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"._-".contains(&byte)
}

/// The id of an operation that has none.
fn named(method: &str, path: &str) -> String {
    let words = path.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    std::iter::once(method).chain(words).collect::<Vec<_>>().join("-")
}

/// Refuses a path whose parameters could not be told apart.
fn check_path(path: &str) -> Result<(), String> {
    if !path.starts_with('/') || path.contains(['?', '#', ';']) {
        return Err("a path begins with `/` and has no `?`, `#` and `;`".into());
    }
    let mut names = Vec::new();
    for segment in path.split('/').filter(|segment| segment.contains(['{', '}'])) {
        let name =
            parameter_of(segment).filter(|name| !name.is_empty() && !name.contains(['{', '}']));
        let name =
            name.ok_or_else(|| format!("`{segment}`: a parameter is a whole segment of a path"))?;
        if names.contains(&name) {
            return Err(format!("the path has `{{{name}}}` twice"));
        }
        names.push(name);
    }
    Ok(())
}

/// The alternatives of `security`.
fn alternatives(security: Option<&Value>) -> Result<Vec<Alternative>, String> {
    let Some(security) = security else { return Ok(Vec::new()) };
    let wrong = || "`security` is a list of objects, each with lists of scopes".to_owned();
    let mut alternatives = Vec::new();
    for given in security.as_array().ok_or_else(wrong)? {
        let schemes = given.as_object().ok_or_else(wrong)?;
        let mut roles = Vec::new();
        for scopes in schemes.values() {
            for scope in scopes.as_array().ok_or_else(wrong)? {
                let scope = scope.as_str().ok_or_else(wrong)?;
                roles.push(Role::new(scope).map_err(|error| format!("`{scope}`: {error}"))?);
            }
        }
        alternatives.push(Alternative { anybody: schemes.is_empty(), roles });
    }
    Ok(alternatives)
}

/// Limits of an operation; `name` and `routes` are ours to say.
fn limits(id: &str, given: Vec<Map<String, Value>>) -> Result<Vec<Rule>, String> {
    let read = |(at, mut rule): (usize, Map<String, Value>)| {
        if rule.contains_key("routes") || rule.contains_key("costs") {
            return Err(format!("`{OURS}.limits` are for `{id}` alone: no `routes`, no `costs`"));
        }
        let name = rule.get("name").and_then(Value::as_str).map(str::to_owned);
        let name = name.unwrap_or_else(|| (at + 1).to_string());
        rule.insert("name".into(), format!("{id}-{name}").into());
        serde_json::from_value(rule.into()).map_err(|error| format!("`{OURS}.limits`: {error}"))
    };
    given.into_iter().enumerate().map(read).collect()
}

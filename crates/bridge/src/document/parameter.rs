//! Parameters of an operation: read from a request as the document writes them, and checked.

use crate::{
    document::instance::Instance,
    document::schema::{Direction, Schema, Schemas},
    violation::{Place, Violation},
};
use http::HeaderMap;
use percent_encoding::percent_decode_str;
use serde_json::Value;
use smallvec::SmallVec;
use std::borrow::Cow;

/// Violations that one parameter is told.
const MISFITS_MAX: usize = 4;

/// What a text stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Text,
    Integer,
    Number,
    Boolean,
    /// JSON, by `content`.
    Json,
    /// An object in one of the styles that are not read; only whether it is there is checked.
    Unread,
}

impl Form {
    fn of(schema: &Value) -> Self {
        let kind = match schema.get("type") {
            Some(Value::Array(kinds)) => kinds.iter().find(|kind| **kind != "null"),
            kind => kind,
        };
        match kind.and_then(Value::as_str) {
            Some("integer") => Self::Integer,
            Some("number") => Self::Number,
            Some("boolean") => Self::Boolean,
            Some("object") => Self::Unread,
            Some(_) | None => Self::Text,
        }
    }

    fn read<'t>(self, text: &'t str) -> Result<Instance<'t>, &'static str> {
        let number = || {
            // JSON may have spaces around a number, which are none of it.
            let is_bare = !text.bytes().any(|byte| byte.is_ascii_whitespace());
            serde_json::from_str(text).ok().filter(|_| is_bare).map(Instance::Number)
        };
        match self {
            Self::Text | Self::Unread => Ok(Instance::Text(text.into())),
            Self::Integer => number().ok_or("it is no integer"),
            Self::Number => number().ok_or("it is no number"),
            Self::Boolean => match text {
                "true" => Ok(Instance::Boolean(true)),
                "false" => Ok(Instance::Boolean(false)),
                _ => Err("it is neither `true` nor `false`"),
            },
            Self::Json => serde_json::from_str(text).map_err(|_| "it is no JSON"),
        }
    }
}

/// A parameter.
#[derive(Debug)]
pub(super) struct Parameter {
    place: Place,
    name: String,
    /// Which segment of the path it is, if it is in the path.
    segment: usize,
    required: bool,
    form: Form,
    /// The form of its elements, if it is an array, and what stands between them; none: each comes
    /// under the name again.
    array: Option<(Form, Option<char>)>,
    schema: Schema,
}

/// The values of a parameter, of which there is mostly one.
type Texts<'s> = SmallVec<[Cow<'s, str>; 1]>;

/// What a request says, where parameters are looked for.
pub(crate) struct Said<'a> {
    pub(crate) path: &'a str,
    pub(crate) query: Option<&'a str>,
    pub(crate) headers: &'a HeaderMap,
}

impl Parameter {
    /// Reads it; `None` for one that is ours to read (OpenAPI 3.1, section 4.8.12.2). `path`: the
    /// operation's, with `{name}` where parameters stand.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn read(
        schemas: &mut Schemas<'_>,
        path: &str,
        given: &Value,
    ) -> Result<Option<Self>, String> {
        let text = |name: &str| given.get(name).and_then(Value::as_str);
        let name = text("name").ok_or("a parameter has no `name`")?.to_owned();
        let wrong = |why: &str| format!("the parameter `{name}`: {why}");
        let place = match text("in") {
            Some("path") => Place::Path,
            Some("query") => Place::Query,
            Some("header") => Place::Header,
            Some("cookie") => Place::Cookie,
            Some(_) | None => return Err(wrong("`in` is `path`, `query`, `header` or `cookie`")),
        };
        let ours = ["accept", "content-type", "authorization"];
        if place == Place::Header && ours.contains(&name.to_ascii_lowercase().as_str()) {
            return Ok(None);
        }
        let required = given.get("required") == Some(&Value::Bool(true));
        if place == Place::Path && !required {
            return Err(wrong("one in the path says `required: true`"));
        }
        let segment = path.split('/').position(|part| parameter_of(part) == Some(&name));
        if place == Place::Path && segment.is_none() {
            return Err(format!("the parameter `{name}` is not in the path"));
        }
        let segment = segment.unwrap_or_default();
        let any = Value::Bool(true);
        let by_content = given.get("content").and_then(Value::as_object);
        let schema = match by_content.and_then(|content| content.values().next()) {
            Some(media) => media.get("schema").unwrap_or(&any),
            None => given.get("schema").unwrap_or(&any),
        };
        let resolved = schemas.root.resolved(schema).map_err(|why| wrong(&why))?;
        let is_array = Form::kind(resolved) == Some("array");
        let items = resolved.get("items").unwrap_or(&any);
        let items = Form::of(schemas.root.resolved(items).map_err(|why| wrong(&why))?);
        let form = if by_content.is_some() { Form::Json } else { Form::of(resolved) };
        let array = match (place, text("style"), given.get("explode")) {
            _ if !is_array || by_content.is_some() => None,
            (Place::Query, None | Some("form"), None | Some(Value::Bool(true))) => {
                Some((items, None))
            }
            (Place::Query, Some("spaceDelimited"), _) => Some((items, Some(' '))),
            (Place::Query, Some("pipeDelimited"), _) => Some((items, Some('|'))),
            (Place::Cookie, _, None | Some(Value::Bool(true))) => Some((items, None)),
            (_, None | Some("simple" | "form"), _) => Some((items, Some(','))),
            (_, Some(style), _) => return Err(wrong(&format!("the style `{style}` is not read"))),
        };
        let schema = schemas.compile(schema, Direction::Request).map_err(|why| wrong(&why))?;
        Ok(Some(Self { place, segment, required, form, array, schema, name }))
    }

    /// Whether both say the same thing of the same request.
    pub(super) fn replaces(&self, other: &Self) -> bool {
        self.place == other.place && self.name == other.name
    }

    /// Adds what is wrong with it in a request.
    pub(super) fn check(&self, said: &Said<'_>, violations: &mut Vec<Violation>) {
        let texts = match self.texts(said) {
            Ok(texts) => texts,
            Err(why) => return violations.push(self.violation("", why)),
        };
        if texts.is_empty() {
            if self.required {
                violations.push(self.violation("", "it is missing"));
            }
            return;
        }
        if self.form == Form::Unread && self.array.is_none() {
            return;
        }
        let value = match (&self.array, &*texts) {
            (None, [text]) => self.form.read(text),
            (None, _) => Err("it is there more than once"),
            (Some((_, None)), texts) => self.elements(texts.iter().map(|text| &**text)),
            (Some((_, Some(by))), [text]) => self.elements(text.split(*by)),
            (Some((_, Some(_))), _) => Err("it is there more than once"),
        };
        match value {
            Ok(value) => {
                let misfits = self.schema.misfits(&value, MISFITS_MAX);
                violations.extend(misfits.iter().map(|(at, why)| self.violation(at, why)));
            }
            Err(why) => violations.push(self.violation("", why)),
        }
    }

    fn elements<'t>(
        &self,
        texts: impl Iterator<Item = &'t str>,
    ) -> Result<Instance<'t>, &'static str> {
        let form = self.array.map_or(Form::Text, |(form, _)| form);
        texts.map(|text| form.read(text)).collect::<Result<_, _>>().map(Instance::Array)
    }

    fn violation(&self, at: &str, why: &str) -> Violation {
        Violation::new(self.place, &self.name, at, why)
    }

    /// Every value that the request has of it.
    fn texts<'s>(&self, said: &Said<'s>) -> Result<Texts<'s>, &'static str> {
        fn decoded(text: &str) -> Result<Cow<'_, str>, &'static str> {
            if !text.contains('%') {
                return Ok(Cow::Borrowed(text));
            }
            percent_decode_str(text).decode_utf8().map_err(|_| "it is not in UTF-8")
        }
        match self.place {
            Place::Path => {
                let mut segments = said.path.split('/');
                let segment = segments.nth(self.segment).map(decoded).transpose()?;
                Ok(segment.map_or_else(Texts::new, |segment| Texts::from_buf([segment])))
            }
            Place::Query => {
                let pairs = url::form_urlencoded::parse(said.query.unwrap_or_default().as_bytes());
                let found = pairs.filter(|(name, _)| *name == self.name);
                Ok(found.map(|(_, value)| value).collect())
            }
            Place::Header => {
                let found = said.headers.get_all(&self.name).iter();
                found.map(|v| v.to_str().map(Cow::from).map_err(|_| "it is no text")).collect()
            }
            Place::Cookie => {
                let fields = said.headers.get_all(http::header::COOKIE).iter();
                let pairs =
                    fields.filter_map(|field| field.to_str().ok()).flat_map(|f| f.split(';'));
                let pairs = pairs.filter_map(|pair| pair.trim().split_once('='));
                let found = pairs.filter(|(name, _)| *name == self.name);
                found.map(|(_, value)| decoded(value)).collect()
            }
            Place::Body => Ok(Texts::new()),
        }
    }
}

/// The name of the parameter that a segment of a path stands for.
pub(super) fn parameter_of(segment: &str) -> Option<&str> {
    segment.strip_prefix('{')?.strip_suffix('}')
}

impl Form {
    fn kind(schema: &Value) -> Option<&str> {
        match schema.get("type") {
            Some(Value::Array(kinds)) => {
                kinds.iter().find_map(|k| k.as_str().filter(|k| *k != "null"))
            }
            kind => kind.and_then(Value::as_str),
        }
    }
}

//! Bodies of an operation: which media types there are, and the schema of each that is JSON.

use crate::{
    document::instance::Instance,
    document::schema::{Direction, Misfit, Schema, Schemas},
    violation::Violation,
};
use http::HeaderValue;
use serde_json::Value;
use std::borrow::Cow;

/// Violations of a body that are told.
const MISFITS_MAX: usize = 8;
/// Bytes of a body whose violations are all looked for; of a longer one the first is told.
const SEEN_THROUGH_MAX: usize = 16 * 1024;

/// What a body may be.
#[derive(Debug, Default)]
pub(super) struct Payload {
    /// By the range of media types, the more specific first.
    media: Vec<(String, Option<BodyRule>)>,
}

/// What a media type means for a body.
pub(super) enum Known<'a> {
    /// It is checked.
    Json(&'a BodyRule),
    /// It passes unread.
    Opaque,
    /// It is not among those of the operation.
    None,
}

impl<'a> Known<'a> {
    pub(super) fn rule(self) -> Option<&'a BodyRule> {
        match self {
            Self::Json(rule) => Some(rule),
            Self::Opaque | Self::None => None,
        }
    }
}

impl Payload {
    /// # Errors
    /// What is wrong with it.
    pub(super) fn read(
        schemas: &mut Schemas<'_>,
        content: Option<&Value>,
        direction: Direction,
    ) -> Result<Self, String> {
        let Some(content) = content else { return Ok(Self::default()) };
        let content = content.as_object().ok_or("`content` is no object")?;
        let mut media = Vec::with_capacity(content.len());
        for (range, given) in content {
            let range = essence(range).into_owned();
            let schema = given.get("schema").filter(|_| is_json(&range) || range.contains('*'));
            let schema = schema.map(|schema| schemas.compile(schema, direction)).transpose()?;
            media.push((range, schema.map(BodyRule)));
        }
        media.sort_by_key(|(range, _)| range.matches('*').count());
        Ok(Self { media })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.media.is_empty()
    }

    /// What the document says of a `Content-Type`.
    pub(super) fn of(&self, content_type: Option<&HeaderValue>) -> Known<'_> {
        let given = content_type.map_or(&b""[..], HeaderValue::as_bytes);
        // Mostly it is written as the document has it, which nothing is more specific than.
        match self.media.iter().find(|(range, _)| range.as_bytes() == given) {
            Some((range, Some(rule))) if is_json(range) => return Known::Json(rule),
            Some(_) => return Known::Opaque,
            None => {}
        }
        let given = essence(str::from_utf8(given).unwrap_or_default());
        let found = self.media.iter().find(|(range, _)| {
            *range == given
                || range == "*/*"
                || range.strip_suffix('*').is_some_and(|kind| given.starts_with(kind))
        });
        match found {
            None => Known::None,
            Some((_, Some(rule))) if is_json(&given) => Known::Json(rule),
            Some(_) => Known::Opaque,
        }
    }
}

/// What a body of JSON is held to.
#[derive(Debug, Clone)]
pub struct BodyRule(Schema);

impl BodyRule {
    /// What in a body breaks it.
    #[must_use]
    pub fn violations(&self, body: &[u8]) -> Vec<Violation> {
        let instance: Instance<'_> = match serde_json::from_slice(body) {
            Ok(instance) => instance,
            Err(error) if error.is_data() => {
                return vec![Violation::of_body("", "an object has a name twice")];
            }
            Err(_) => return vec![Violation::of_body("", "it is no JSON")],
        };
        let most = if body.len() > SEEN_THROUGH_MAX { 1 } else { MISFITS_MAX };
        let misfits: Vec<Misfit> = self.0.misfits(&instance, most);
        misfits.iter().map(|(at, why)| Violation::of_body(at, why)).collect()
    }
}

/// A media type without its parameters, in lower case.
fn essence(media: &str) -> Cow<'_, str> {
    let end = media.bytes().position(|byte| byte == b';').unwrap_or(media.len());
    let essence = media[..end].trim();
    if essence.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(essence.to_ascii_lowercase())
    } else {
        Cow::Borrowed(essence)
    }
}

fn is_json(media: &str) -> bool {
    media == "application/json" || media.ends_with("+json")
}

//! Bodies of an operation: which media types there are, and the schema of each that is JSON.

use crate::{
    document::instance::Instance,
    document::schema::{Direction, Misfit, Schema, Schemas},
    violation::Violation,
};
use http::HeaderValue;
use serde_json::Value;

/// Violations of a body that are told.
const MISFITS_MAX: usize = 8;
/// Bytes of a body whose violations are all looked for; of a longer one the first is told.
const SEEN_THROUGH_MAX: usize = 16 * 1024;

/// What a body may be.
#[derive(Debug, Default)]
pub(super) struct Payload {
    /// By the range of media types, the more specific first.
    media: Vec<(Vec<u8>, Option<BodyRule>)>,
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
            let range = essence(range.as_bytes()).to_ascii_lowercase();
            let schema = given.get("schema").filter(|_| is_json(&range) || range.contains(&b'*'));
            let schema = schema.map(|schema| schemas.compile(schema, direction)).transpose()?;
            media.push((range, schema.map(BodyRule)));
        }
        media.sort_by_key(|(range, _)| range.iter().filter(|byte| **byte == b'*').count());
        Ok(Self { media })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.media.is_empty()
    }

    /// What the document says of a `Content-Type`.
    pub(super) fn of(&self, content_type: Option<&HeaderValue>) -> Known<'_> {
        let given = essence(content_type.map_or(&b""[..], HeaderValue::as_bytes));
        let found = self.media.iter().find(|(range, _)| match range.strip_suffix(b"*") {
            None => given.eq_ignore_ascii_case(range),
            Some(b"*/") => true,
            Some(kind) => {
                given.get(..kind.len()).is_some_and(|given| given.eq_ignore_ascii_case(kind))
            }
        });
        match found {
            None => Known::None,
            Some((_, Some(rule))) if is_json(given) => Known::Json(rule),
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
        let no_json = || vec![Violation::of_body("", "it is no JSON")];
        // All at once, and not text by text.
        let Ok(text) = str::from_utf8(body) else { return no_json() };
        let instance: Instance<'_> = match serde_json::from_str(text) {
            Ok(instance) => instance,
            Err(error) if error.is_data() => {
                return vec![Violation::of_body("", "an object has a name twice")];
            }
            Err(_) => return no_json(),
        };
        let most = if body.len() > SEEN_THROUGH_MAX { 1 } else { MISFITS_MAX };
        let misfits: Vec<Misfit> = self.0.misfits(&instance, most);
        misfits.iter().map(|(at, why)| Violation::of_body(at, why)).collect()
    }
}

/// A media type without its parameters.
fn essence(media: &[u8]) -> &[u8] {
    media.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii()
}

fn is_json(media: &[u8]) -> bool {
    let suffix =
        media.last_chunk().is_some_and(|last: &[u8; 5]| last.eq_ignore_ascii_case(b"+json"));
    suffix || media.eq_ignore_ascii_case(b"application/json")
}

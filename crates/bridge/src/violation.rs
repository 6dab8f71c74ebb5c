//! What in a request breaks a document.

use protocol::{Code, Problem};
use serde::Serialize;

/// Where a violation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    /// A parameter of the path.
    Path,
    /// A parameter of the query.
    Query,
    /// A header field.
    Header,
    /// A cookie.
    Cookie,
    /// The body.
    Body,
}

/// One violation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// Where it is.
    pub r#in: Place,
    /// The parameter; none for the body.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// The place in the value, as a JSON Pointer.
    pub at: String,
    /// Why it does not fit; no part of the value itself.
    pub why: String,
}

impl Violation {
    pub(crate) fn new(place: Place, name: &str, at: &str, why: &str) -> Self {
        Self { r#in: place, name: name.into(), at: at.into(), why: why.into() }
    }

    pub(crate) fn of_body(at: &str, why: &str) -> Self {
        Self::new(Place::Body, "", at, why)
    }

    fn told(&self) -> String {
        let place = match self.r#in {
            Place::Path => format!("the path's `{}`", self.name),
            Place::Query => format!("the query's `{}`", self.name),
            Place::Header => format!("the header field `{}`", self.name),
            Place::Cookie => format!("the cookie `{}`", self.name),
            Place::Body => "the body".into(),
        };
        let at = if self.at.is_empty() { String::new() } else { format!(" at `{}`", self.at) };
        format!("{place}{at}: {}", self.why)
    }
}

/// What a caller is told whose request breaks the document of an operation: `bad_request` with the
/// members `operation` and `violations`.
#[must_use]
pub fn refusal(operation: &str, violations: &[Violation]) -> Problem {
    let first = violations.first().map(Violation::told).unwrap_or_default();
    let detail = format!("the request breaks the API's document; {first}");
    let told = serde_json::to_value(violations).unwrap_or_default();
    Problem::new(Code::BadRequest, detail).member("operation", operation).member("violations", told)
}

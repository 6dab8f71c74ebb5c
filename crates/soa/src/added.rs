//! Header fields that come on top of those of a request's head.

use http::{HeaderName, HeaderValue};
use smallvec::SmallVec;
use std::rc::Rc;

/// Fields that many requests have alike: kept as HTTP/1.1 writes them, too.
#[derive(Debug, Default)]
pub struct Alike {
    fields: Vec<(HeaderName, HeaderValue)>,
    written: Vec<u8>,
}

impl From<Vec<(HeaderName, HeaderValue)>> for Alike {
    fn from(fields: Vec<(HeaderName, HeaderValue)>) -> Self {
        let mut written = Vec::new();
        for (name, value) in &fields {
            http1::field(&mut written, name.as_str(), value.as_bytes());
        }
        Self { fields, written }
    }
}

/// What a request carries besides the fields of its head, which has none of these names.
#[derive(Debug, Default)]
pub struct Added {
    own: SmallVec<[(HeaderName, HeaderValue); 4]>,
    alike: Rc<Alike>,
}

impl Added {
    /// These, and what is pushed.
    #[must_use]
    pub fn with(alike: Rc<Alike>) -> Self {
        Self { own: SmallVec::new(), alike }
    }

    /// Adds one that this request has for itself.
    pub fn push(&mut self, name: HeaderName, value: HeaderValue) {
        self.own.push((name, value));
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &(HeaderName, HeaderValue)> {
        self.own.iter().chain(&self.alike.fields)
    }

    /// Writes all of them into the head of a request of HTTP/1.1.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        for (name, value) in &self.own {
            http1::field(out, name.as_str(), value.as_bytes());
        }
        out.extend_from_slice(&self.alike.written);
    }
}

//! What a credential says of its holder for others to see.

use std::sync::Arc;

/// JSON in one line, of at most [`Self::BYTES_MAX`] bytes. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Info(Arc<str>);

impl Info {
    /// Bytes of it.
    pub const BYTES_MAX: usize = 2_048;

    /// What is said, as JSON; `None` if that is too long, or not one line. That it is JSON is for
    /// the caller to know.
    #[must_use]
    pub fn new(json: &str) -> Option<Self> {
        let fits = json.len() <= Self::BYTES_MAX && !json.contains(['\n', '\r']);
        fits.then(|| Self(json.into()))
    }

    /// The JSON.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_short_and_one_line() {
        let long = "x".repeat(Info::BYTES_MAX);
        assert_eq!(Info::new(&long).unwrap().as_str(), long);
        for refused in [format!("{long}x"), "[\n]".into(), "[\r]".into()] {
            assert_eq!(Info::new(&refused), None);
        }
    }
}

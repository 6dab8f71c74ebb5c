//! `$ref`: to another place of the same document, and nowhere else.

use serde_json::Value;

/// References that may follow each other.
const HOPS_MAX: usize = 16;

/// A whole document.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Root<'a>(pub(crate) &'a Value);

impl<'a> Root<'a> {
    /// What stands at a reference's place, or what was given if it is none.
    ///
    /// # Errors
    /// Where it does not lead to.
    pub(crate) fn resolved(self, value: &'a Value) -> Result<&'a Value, String> {
        let mut value = value;
        for _ in 0..HOPS_MAX {
            let Some(reference) = value.get("$ref") else { return Ok(value) };
            let reference = reference.as_str().ok_or("a `$ref` is no text")?;
            value = self.at(reference)?;
        }
        Err("references lead in a circle".into())
    }

    /// What a reference names.
    ///
    /// # Errors
    /// That it names nothing here.
    pub(crate) fn at(self, reference: &str) -> Result<&'a Value, String> {
        let Some(pointer) = reference.strip_prefix('#') else {
            return Err(format!("`{reference}` leads outside the document, which is not followed"));
        };
        let pointer = percent_encoding::percent_decode_str(pointer).decode_utf8_lossy();
        let found = self.0.pointer(&pointer);
        found.ok_or_else(|| format!("`{reference}` leads to nothing"))
    }
}

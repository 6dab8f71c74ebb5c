//! Durations in configuration: `250ms`, `30s`, `5m`, `1h`, `7d`.

use serde::{Deserialize, Deserializer, de::Error};
use std::time::Duration;

/// Reads a whole number and its unit.
///
/// # Errors
/// A sentence that says what is accepted.
pub fn parse(text: &str) -> Result<Duration, String> {
    let refused = || {
        format!("`{text}` is not a duration; write for instance `250ms`, `30s`, `5m`, `1h` or `7d`")
    };
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| refused())?;
    let millis = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(refused()),
    };
    number.checked_mul(millis).map(Duration::from_millis).ok_or_else(refused)
}

/// Writes a duration as [`parse`] reads it, in the largest unit that holds it exactly.
#[must_use]
pub fn format(duration: Duration) -> String {
    let millis = duration.as_millis();
    let units = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s")];
    units
        .into_iter()
        .find(|(size, _)| millis >= *size && millis.is_multiple_of(*size))
        .map_or_else(|| format!("{millis}ms"), |(size, unit)| format!("{}{unit}", millis / size))
}

/// For `#[serde(default, deserialize_with = "types::duration::optional")]`: what is missing is
/// `None`.
///
/// # Errors
/// As [`parse`].
pub fn optional<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Duration>, D::Error> {
    deserialize(d).map(Some)
}

/// For `#[serde(with = "types::duration")]`.
///
/// # Errors
/// As [`parse`].
pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Duration, D::Error> {
    parse(&String::deserialize(d)?).map_err(D::Error::custom)
}

/// For `#[serde(with = "types::duration")]`.
///
/// # Errors
/// None of its own.
pub fn serialize<S: serde::Serializer>(duration: &Duration, s: S) -> Result<S::Ok, S::Error> {
    s.serialize_str(&format(*duration))
}

/// For `#[serde(serialize_with = "types::duration::serialize_optional")]`.
///
/// # Errors
/// None of its own.
pub fn serialize_optional<S: serde::Serializer>(
    duration: &Option<Duration>,
    s: S,
) -> Result<S::Ok, S::Error> {
    match duration {
        Some(duration) => s.serialize_some(&format(*duration)),
        None => s.serialize_none(),
    }
}

/// What a duration looks like in JSON, for `#[schemars(with = "types::duration::Text")]`.
#[derive(Debug)]
pub struct Text;

impl schemars::JsonSchema for Text {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "pattern": "^[0-9]{1,11}(ms|s|m|h|d)$",
            "examples": ["30s"],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_unit() {
        assert_eq!(parse("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse("7d"), Ok(Duration::from_secs(7 * 86400)));
        for bad in ["", "5", "s", "-1s", "1.5s", "1 s", "99999999999999999d"] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
        for text in ["0ms", "90s", "2h", "1ms"] {
            assert_eq!(format(parse(text).unwrap()), text);
        }
    }
}

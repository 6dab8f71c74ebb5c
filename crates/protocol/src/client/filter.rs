//! Which publications a subscriber wants, by their tags.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Names and values that a publication is tagged with.
pub type Tags = BTreeMap<String, String>;

/// Nodes of a filter, and values of one node.
const NODES_MAX: usize = 64;
const VALUES_MAX: usize = 256;
/// Bytes of a name or a value.
const TEXT_MAX: usize = 256;
/// How deep nodes lie within nodes.
const DEPTH_MAX: usize = 8;

/// A condition as clients write it: a comparison, or (`op`) several that are joined.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct FilterNode {
    /// `and`, `or`, `not`; empty for a comparison.
    pub op: String,
    /// Which tag.
    pub key: String,
    /// `eq`, `neq`, `in`, `nin`, `ex`, `nex`, `sw`, `ew`, `ct`, `lt`, `lte`, `gt`, `gte`.
    pub cmp: String,
    /// With what.
    pub val: String,
    /// With what, for `in` and `nin`.
    pub vals: Vec<String>,
    /// What is joined.
    pub nodes: Vec<FilterNode>,
}

/// A filter that was checked.
#[derive(Debug, Clone, PartialEq)]
pub enum Filter {
    /// All of them.
    And(Vec<Filter>),
    /// One of them.
    Or(Vec<Filter>),
    /// Not it.
    Not(Box<Filter>),
    /// A comparison of one tag.
    Tag {
        /// Its name.
        key: String,
        /// How.
        test: Test,
    },
}

/// How a tag's value is looked at. A tag that is not there passes only [`Test::Missing`],
/// [`Test::Not`] and [`Test::NotIn`]; one that is no number passes no comparison of numbers.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "they are what they are called")]
pub enum Test {
    Equals(String),
    Not(String),
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    Missing,
    Starts(String),
    Ends(String),
    Contains(String),
    Below(f64),
    AtMost(f64),
    Above(f64),
    AtLeast(f64),
}

/// What is wrong with a filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

impl FilterNode {
    /// The filter, if it is one, and no larger than may be.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn check(self) -> Result<Filter, Malformed> {
        self.checked(DEPTH_MAX, &mut 0)
    }

    fn checked(self, depth: usize, nodes: &mut usize) -> Result<Filter, Malformed> {
        *nodes += 1;
        if *nodes > NODES_MAX || depth == 0 {
            return Err(Malformed("a filter has at most 64 nodes, 8 deep"));
        }
        let long = |text: &String| text.len() > TEXT_MAX;
        if long(&self.key) || long(&self.val) || self.vals.iter().any(long) {
            return Err(Malformed("a name or value in a filter has at most 256 bytes"));
        }
        if self.vals.len() > VALUES_MAX {
            return Err(Malformed("a filter lists at most 256 values"));
        }
        if self.op.is_empty() {
            return Ok(Filter::Tag { test: self.test()?, key: self.key });
        }
        let count = self.nodes.len();
        let mut parts = Vec::with_capacity(count);
        for node in self.nodes {
            parts.push(node.checked(depth - 1, nodes)?);
        }
        match (self.op.as_str(), count) {
            ("and", 1..) => Ok(Filter::And(parts)),
            ("or", 1..) => Ok(Filter::Or(parts)),
            ("not", 1) => Ok(Filter::Not(Box::new(parts.swap_remove(0)))),
            ("and" | "or", 0) => Err(Malformed("`and` and `or` join at least one node")),
            ("not", _) => Err(Malformed("`not` has one node")),
            (_, _) => Err(Malformed("`op` is `and`, `or`, `not` or empty")),
        }
    }

    fn test(&self) -> Result<Test, Malformed> {
        let (value, values) = (|| self.val.clone(), || self.vals.clone());
        let number = || match self.val.parse::<f64>() {
            Ok(number) if number.is_finite() => Ok(number),
            Ok(_) | Err(_) => Err(Malformed("`lt`, `lte`, `gt` and `gte` compare with a number")),
        };
        if self.key.is_empty() {
            return Err(Malformed("a comparison names a tag"));
        }
        Ok(match self.cmp.as_str() {
            "eq" => Test::Equals(value()),
            "neq" => Test::Not(value()),
            "in" => Test::In(values()),
            "nin" => Test::NotIn(values()),
            "ex" => Test::Exists,
            "nex" => Test::Missing,
            "sw" => Test::Starts(value()),
            "ew" => Test::Ends(value()),
            "ct" => Test::Contains(value()),
            "lt" => Test::Below(number()?),
            "lte" => Test::AtMost(number()?),
            "gt" => Test::Above(number()?),
            "gte" => Test::AtLeast(number()?),
            _ => return Err(Malformed("`cmp` is not a comparison")),
        })
    }
}

impl Filter {
    /// Whether a publication with these tags is wanted.
    #[must_use]
    pub fn wants(&self, tags: &Tags) -> bool {
        match self {
            Self::And(parts) => parts.iter().all(|part| part.wants(tags)),
            Self::Or(parts) => parts.iter().any(|part| part.wants(tags)),
            Self::Not(part) => !part.wants(tags),
            Self::Tag { key, test } => test.passes(tags.get(key).map(String::as_str)),
        }
    }
}

impl Test {
    fn passes(&self, value: Option<&str>) -> bool {
        let Some(value) = value else {
            return matches!(self, Self::Missing | Self::Not(_) | Self::NotIn(_));
        };
        let number = || value.parse::<f64>().ok();
        match self {
            Self::Equals(other) => value == other,
            Self::Not(other) => value != other,
            Self::In(others) => others.iter().any(|other| value == other),
            Self::NotIn(others) => !others.iter().any(|other| value == other),
            Self::Exists => true,
            Self::Missing => false,
            Self::Starts(part) => value.starts_with(part.as_str()),
            Self::Ends(part) => value.ends_with(part.as_str()),
            Self::Contains(part) => value.contains(part.as_str()),
            Self::Below(other) => number().is_some_and(|number| number < *other),
            Self::AtMost(other) => number().is_some_and(|number| number <= *other),
            Self::Above(other) => number().is_some_and(|number| number > *other),
            Self::AtLeast(other) => number().is_some_and(|number| number >= *other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Filter, Malformed> {
        serde_json::from_str::<FilterNode>(text).unwrap().check()
    }

    #[test]
    fn filters_look_at_tags() {
        let tags = Tags::from([("ticker".into(), "AAPL".into()), ("price".into(), "10.5".into())]);
        for (text, expected) in [
            (r#"{"key":"ticker","cmp":"eq","val":"AAPL"}"#, true),
            (r#"{"key":"ticker","cmp":"neq","val":"AAPL"}"#, false),
            (r#"{"key":"ticker","cmp":"in","vals":["GOOG","AAPL"]}"#, true),
            (r#"{"key":"ticker","cmp":"nin","vals":["AAPL"]}"#, false),
            (r#"{"key":"none","cmp":"nin","vals":["AAPL"]}"#, true),
            (r#"{"key":"none","cmp":"ex"}"#, false),
            (r#"{"key":"none","cmp":"nex"}"#, true),
            (r#"{"key":"ticker","cmp":"sw","val":"AA"}"#, true),
            (r#"{"key":"ticker","cmp":"ew","val":"AA"}"#, false),
            (r#"{"key":"ticker","cmp":"ct","val":"AP"}"#, true),
            (r#"{"key":"price","cmp":"gt","val":"9"}"#, true),
            (r#"{"key":"price","cmp":"lte","val":"10.5"}"#, true),
            (r#"{"key":"price","cmp":"lt","val":"10.5"}"#, false),
            (r#"{"key":"ticker","cmp":"gte","val":"0"}"#, false),
            (r#"{"op":"not","nodes":[{"key":"price","cmp":"ex"}]}"#, false),
            (
                r#"{"op":"and","nodes":[{"key":"price","cmp":"ex"},
                  {"op":"or","nodes":[{"key":"x","cmp":"ex"},{"key":"ticker","cmp":"ex"}]}]}"#,
                true,
            ),
        ] {
            assert_eq!(read(text).unwrap().wants(&tags), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_filter_is_refused() {
        let deep = (0..9).fold(r#"{"key":"a","cmp":"ex"}"#.to_owned(), |inner, _| {
            format!(r#"{{"op":"not","nodes":[{inner}]}}"#)
        });
        let wide = format!(
            r#"{{"op":"or","nodes":[{}]}}"#,
            vec![r#"{"key":"a","cmp":"ex"}"#; 64].join(",")
        );
        let long = format!(r#"{{"key":"a","cmp":"eq","val":"{}"}}"#, "x".repeat(257));
        for text in [
            "{}",
            r#"{"key":"a","cmp":"like"}"#,
            r#"{"cmp":"ex"}"#,
            r#"{"key":"a","cmp":"lt","val":"b"}"#,
            r#"{"key":"a","cmp":"lt","val":"inf"}"#,
            r#"{"op":"and"}"#,
            r#"{"op":"xor","nodes":[{"key":"a","cmp":"ex"}]}"#,
            r#"{"op":"not","nodes":[{"key":"a","cmp":"ex"},{"key":"a","cmp":"ex"}]}"#,
            &deep,
            &wide,
            &long,
        ] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}

//! Header fields that a route sets, adds and removes.

use http::{HeaderMap, HeaderName, HeaderValue, header};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What to change in the header fields of a message; removing goes first.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EditConfig {
    /// Fields that are not passed on.
    pub remove: Vec<String>,
    /// Fields that replace whatever came by their names.
    pub set: BTreeMap<String, String>,
    /// Fields that come besides.
    pub add: BTreeMap<String, String>,
}

/// An [`EditConfig`], ready to be applied.
#[derive(Debug, Default)]
pub(crate) struct Edit {
    remove: Box<[HeaderName]>,
    set: Box<[(HeaderName, HeaderValue)]>,
    add: Box<[(HeaderName, HeaderValue)]>,
}

impl Edit {
    /// # Errors
    /// Which field may not be changed, or is malformed.
    pub(crate) fn compile(config: &EditConfig) -> Result<Self, String> {
        let fields = |fields: &BTreeMap<String, String>| {
            fields
                .iter()
                .map(|(name, value)| {
                    let value = HeaderValue::from_str(value)
                        .map_err(|_| format!("`{name} = {value}` is not a header field"))?;
                    Ok((editable(name)?, value))
                })
                .collect::<Result<Box<[_]>, String>>()
        };
        Ok(Self {
            remove: config.remove.iter().map(|name| editable(name)).collect::<Result<_, _>>()?,
            set: fields(&config.set)?,
            add: fields(&config.add)?,
        })
    }

    pub(crate) fn apply(&self, headers: &mut HeaderMap) {
        for name in &self.remove {
            headers.remove(name);
        }
        for (name, value) in &self.set {
            headers.insert(name.clone(), value.clone());
        }
        for (name, value) in &self.add {
            headers.append(name.clone(), value.clone());
        }
    }
}

/// The name of a field that a route may change: none that frames or routes a message, belongs to
/// one connection, or says who calls.
pub(crate) fn editable(name: &str) -> Result<HeaderName, String> {
    let parsed = HeaderName::from_bytes(name.as_bytes())
        .map_err(|_| format!("`{name}` is not the name of a header field"))?;
    let ours = [
        header::CONNECTION,
        header::CONTENT_LENGTH,
        header::DATE,
        header::HOST,
        header::TE,
        header::TRAILER,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
        crate::fields::TRACEPARENT,
    ];
    if ours.contains(&parsed)
        || crate::fields::is_ours_to_set(parsed.as_str())
        || parsed.as_str().starts_with("access-control-")
    {
        return Err(format!("`{name}` is not a route's to change"));
    }
    Ok(parsed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compile(text: &str) -> Result<Edit, String> {
        Edit::compile(&toml::from_str(text).unwrap())
    }

    #[test]
    fn fields_are_removed_set_and_added() {
        let edit = compile(
            "remove = [\"server\", \"x-set\"]\nset = { x-set = \"1\" }\nadd = { vary = \"accept\" }",
        );
        let mut headers = HeaderMap::new();
        for (name, value) in [("server", "s"), ("x-set", "0"), ("vary", "origin"), ("etag", "e")] {
            headers.append(name, value.parse().unwrap());
        }
        edit.unwrap().apply(&mut headers);
        let mut left: Vec<_> =
            headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        left.sort_unstable();
        assert_eq!(left, [("etag", "e"), ("vary", "accept"), ("vary", "origin"), ("x-set", "1")]);
    }

    #[test]
    fn what_frames_routes_or_identifies_is_not_a_routes_to_change() {
        for name in ["host", "Content-Length", "x-crosstown-tenant", "x-forwarded-for", "a b"] {
            assert!(compile(&format!("remove = [\"{name}\"]")).is_err(), "{name}");
            assert!(compile(&format!("set = {{ \"{name}\" = \"x\" }}")).is_err(), "{name}");
        }
        assert!(compile("add = { x = \"a\\nb\" }").is_err());
    }
}

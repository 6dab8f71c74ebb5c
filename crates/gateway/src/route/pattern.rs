//! Paths that stand for many: with parameters, or by a regular expression; and what a service is
//! asked for instead.

use regex::Regex;
use std::collections::BTreeSet;

/// Bytes that a compiled regular expression may take. Matching takes time in proportion to the
/// path, whatever the expression (RE2's construction).
const REGEX_BYTES_MAX: usize = 256 * 1024;

/// What a path has to look like, beyond the literal part by which the table finds the route.
#[derive(Debug)]
pub(crate) enum Pattern {
    /// Segments one by one; with `open`, more may follow.
    Segments { segments: Box<[Segment]>, open: bool },
    /// The whole path.
    Regex(Regex),
}

/// One part of a path between slashes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Segment {
    Literal(String),
    /// Any one segment, by its name.
    Parameter(String),
}

impl Pattern {
    /// The pattern of a path with `{parameters}`; none if it has no parameter.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn segments(path: &str, open: bool) -> Result<Option<Self>, String> {
        if !path.contains(['{', '}']) {
            return Ok(None);
        }
        let mut names = BTreeSet::new();
        let segments = path.trim_end_matches('/').split('/').skip(1).map(|segment| {
            let name = segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
            match name {
                Some(name) if is_name(name) && names.insert(name.to_owned()) => {
                    Ok(Segment::Parameter(name.to_owned()))
                }
                None if !segment.contains(['{', '}']) => Ok(Segment::Literal(segment.to_owned())),
                Some(_) | None => Err(format!(
                    "`{segment}`: a parameter is a whole segment, `{{name}}` of small letters, \
                     digits and `_`, and each name stands once"
                )),
            }
        });
        let segments = segments.collect::<Result<_, String>>()?;
        Ok(Some(Self::Segments { segments, open }))
    }

    /// # Errors
    /// What is wrong with it.
    pub(crate) fn regex(text: &str) -> Result<Self, String> {
        // Anchored, so that nobody forgets it.
        regex::RegexBuilder::new(&format!("^(?:{text})$"))
            .size_limit(REGEX_BYTES_MAX)
            .build()
            .map(Self::Regex)
            .map_err(|error| format!("`regex`: {error}"))
    }

    pub(crate) fn matches(&self, path: &str) -> bool {
        match self {
            Self::Segments { segments, open } => {
                let mut parts = path.as_bytes().split(|byte| *byte == b'/').skip(1);
                let all = segments.iter().all(|segment| {
                    parts.next().is_some_and(|part| match segment {
                        Segment::Literal(text) => text.as_bytes() == part,
                        Segment::Parameter(_) => !part.is_empty(),
                    })
                });
                all && (*open || parts.next().is_none())
            }
            Self::Regex(regex) => regex.is_match(path),
        }
    }

    /// What the parameter `name` is in a path that matches.
    fn value<'a>(&self, path: &'a str, name: &str) -> Option<&'a str> {
        match self {
            Self::Segments { segments, .. } => {
                let is_named =
                    |segment: &Segment| matches!(segment, Segment::Parameter(held) if held == name);
                let place = segments.iter().position(is_named)?;
                path.split('/').nth(place + 1)
            }
            Self::Regex(regex) => Some(regex.captures(path)?.name(name)?.as_str()),
        }
    }

    /// What follows the pattern in a path that matches.
    fn rest<'a>(&self, path: &'a str) -> &'a str {
        match self {
            Self::Segments { segments, open: true } => {
                let next = path.match_indices('/').nth(segments.len());
                next.map_or("", |(at, _)| &path[at..])
            }
            Self::Segments { .. } | Self::Regex(_) => "",
        }
    }

    fn names(&self) -> BTreeSet<&str> {
        match self {
            Self::Segments { segments, .. } => segments
                .iter()
                .filter_map(|segment| match segment {
                    Segment::Parameter(name) => Some(name.as_str()),
                    Segment::Literal(_) => None,
                })
                .collect(),
            Self::Regex(regex) => regex.capture_names().flatten().collect(),
        }
    }
}

fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

/// The path that a service is asked for instead of the one that came.
#[derive(Debug)]
pub(crate) struct Rewrite {
    parts: Box<[Part]>,
    /// Bytes of a literal prefix that it stands for; what follows is kept.
    prefix: Option<usize>,
}

#[derive(Debug)]
enum Part {
    Text(String),
    Value(String),
}

impl Rewrite {
    /// `prefix`: the literal prefix of the route, if it has one and no pattern.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn compile(
        text: &str,
        pattern: Option<&Pattern>,
        prefix: Option<&str>,
    ) -> Result<Self, String> {
        if !text.starts_with('/') || text.contains(['?', '#', ';']) {
            return Err(format!("`rewrite = \"{text}\"` is not a path that begins with `/`"));
        }
        let known = pattern.map(Pattern::names).unwrap_or_default();
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            let Some((name, after)) =
                after.split_once('}').filter(|(name, _)| known.contains(name))
            else {
                return Err(format!("`rewrite = \"{text}\"` names what the path does not have"));
            };
            parts.extend([Part::Text(before.to_owned()), Part::Value(name.to_owned())]);
            rest = after;
        }
        parts.push(Part::Text(rest.to_owned()));
        let prefix = prefix.map(|prefix| prefix.trim_end_matches('/').len());
        Ok(Self { parts: parts.into(), prefix })
    }

    /// The path for a `path` that the route took.
    pub(crate) fn apply(&self, path: &str, pattern: Option<&Pattern>) -> String {
        let mut new = String::with_capacity(path.len());
        for part in &self.parts {
            match part {
                Part::Text(text) => new.push_str(text),
                Part::Value(name) => {
                    new.push_str(pattern.and_then(|p| p.value(path, name)).unwrap_or_default());
                }
            }
        }
        let rest = match (pattern, self.prefix) {
            (Some(pattern), _) => pattern.rest(path),
            (None, Some(prefix)) => &path[prefix..],
            (None, None) => "",
        };
        if !rest.is_empty() && new.ends_with('/') {
            new.pop();
        }
        new.push_str(rest);
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_whole_segments() {
        let pattern = |path, open| Pattern::segments(path, open).unwrap().unwrap();
        for (path, open, yes, no) in [
            ("/a/{id}", false, ["/a/1", "/a/b%20c"], ["/a/", "/a/1/"]),
            ("/a/{id}/b/{x}", false, ["/a/1/b/2", "/a/b/b/b"], ["/a/1/b", "/a/1/c/2"]),
            ("/{id}", true, ["/1", "/1/2"], ["/", "/"]),
            ("/{id}/", true, ["/1/", "/1/2"], ["/", "/"]),
        ] {
            let pattern = pattern(path, open);
            assert!(yes.iter().all(|path| pattern.matches(path)), "{path}");
            assert!(!no.iter().any(|path| pattern.matches(path)), "{path}");
        }
        assert!(Pattern::segments("/a/b", false).unwrap().is_none());
        for bad in ["/x{y}", "/{y}x", "/{}", "/{A}", "/{a}/{a}", "/{a", "/a}", "/{a b}"] {
            assert!(Pattern::segments(bad, false).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_regular_expression_takes_whole_paths() {
        let pattern = Pattern::regex("/items/(?<id>[0-9]+)|/old").unwrap();
        for (path, expected) in
            [("/items/7", true), ("/items/7/", false), ("/x/items/7", false), ("/old", true)]
        {
            assert_eq!(pattern.matches(path), expected, "{path}");
        }
        assert!(Pattern::regex("(").is_err());
        assert!(Pattern::regex("(a{1000}){1000}").is_err(), "it would take too much memory");
    }

    #[test]
    fn paths_are_rewritten() {
        let segments = |path, open| Pattern::segments(path, open).unwrap();
        let regex = |text| Some(Pattern::regex(text).unwrap());
        for (pattern, prefix, rewrite, path, expected) in [
            (segments("/a/{id}", false), None, "/b/{id}/x", "/a/7", "/b/7/x"),
            (segments("/{a}/{b}", false), None, "/{b}-{a}", "/1/2", "/2-1"),
            (segments("/t/{t}", true), None, "/u/{t}", "/t/1/x/y", "/u/1/x/y"),
            (segments("/t/{t}", true), None, "/u", "/t/1", "/u"),
            (regex("/v(?<n>[0-9]+)/(?<rest>.*)"), None, "/{rest}/{n}", "/v2/a/b", "/a/b/2"),
            (None, Some("/api"), "/v2", "/api/x", "/v2/x"),
            (None, Some("/api"), "/", "/api/x", "/x"),
            (None, Some("/api"), "/", "/api", "/"),
            (None, Some("/"), "/v2", "/x", "/v2/x"),
            (None, None, "/fixed", "/a", "/fixed"),
        ] {
            let compiled = Rewrite::compile(rewrite, pattern.as_ref(), prefix).unwrap();
            assert_eq!(compiled.apply(path, pattern.as_ref()), expected, "{rewrite} {path}");
        }
        for bad in ["b", "/b?x", "/{id}", "/{"] {
            assert!(Rewrite::compile(bad, None, None).is_err(), "{bad}");
        }
    }
}

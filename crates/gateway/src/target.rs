//! What a request asks for, and what the service is asked for instead.

use crate::{
    path::normalise,
    route::{Rewrite, Route},
};
use http::{HeaderValue, Uri, uri::PathAndQuery};
use memchr::memchr;
use protocol::{Code, Problem};
use std::borrow::Cow;

/// The host that routes compare: lowercase, without a port or a final dot.
pub(crate) fn host_of(host: Option<&HeaderValue>) -> Cow<'_, str> {
    let host = host.and_then(|value| value.to_str().ok()).unwrap_or_default();
    let end = if host.starts_with('[') {
        memchr(b']', host.as_bytes()).map(|end| end + 1)
    } else {
        memchr(b':', host.as_bytes())
    };
    let end = end.unwrap_or(host.len());
    let host = &host[..end];
    let host = host.strip_suffix('.').unwrap_or(host);
    if host.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(host.to_ascii_lowercase())
    } else {
        Cow::Borrowed(host)
    }
}

/// What a service is asked for.
#[derive(Debug)]
pub(crate) enum Target {
    /// What came, from the slash behind so many bytes on.
    Below(usize),
    /// Something else.
    Other(Box<Uri>),
}

impl Target {
    /// What the service of a route is asked for. `path` is that of `uri`, normalised.
    pub(crate) fn of(route: &Route, path: &str, uri: &Uri) -> Result<Self, Problem> {
        match &route.rewrite {
            Some(rewrite) => rewritten(rewrite, route, path, uri),
            None => Self::below(route.stripped, path, uri),
        }
    }

    /// The same without the first `base` bytes of the path.
    pub(crate) fn below(base: usize, path: &str, uri: &Uri) -> Result<Self, Problem> {
        let parts = path.get(..base).zip(path.get(base..));
        let (_, rest) = parts
            .filter(|(_, rest)| rest.is_empty() || rest.starts_with('/'))
            .filter(|(lead, _)| !lead.contains(';'))
            // They would be cut in the middle.
            .ok_or_else(|| refused("path parameters inside the route's prefix"))?;
        match rest {
            "" => other("/", uri),
            _ if path == uri.path() => Ok(Self::Below(base)),
            _ => other(rest, uri),
        }
    }

    /// The path, if `uri` came.
    pub(crate) fn path<'a>(&'a self, uri: &'a Uri) -> &'a str {
        match self {
            Self::Below(base) => &uri.path()[*base..],
            Self::Other(other) => other.path(),
        }
    }

    /// Path and query, if `uri` came.
    pub(crate) fn text<'a>(&'a self, uri: &'a Uri) -> &'a str {
        let of = |uri: &'a Uri| uri.path_and_query().map_or("/", |target| target.as_str());
        match self {
            Self::Below(base) => &of(uri)[*base..],
            Self::Other(other) => of(other),
        }
    }

    /// All of it, if `uri` came.
    pub(crate) fn whole(self, uri: &Uri) -> Result<Uri, Problem> {
        let target = match self {
            Self::Below(0) => uri.path_and_query().cloned(),
            Self::Below(_) => PathAndQuery::try_from(self.text(uri)).ok(),
            Self::Other(other) => return Ok(*other),
        };
        target.map(Uri::from).ok_or_else(malformed)
    }
}

fn rewritten(rewrite: &Rewrite, route: &Route, path: &str, uri: &Uri) -> Result<Target, Problem> {
    if memchr(b';', path.as_bytes()).is_some() {
        return Err(refused("path parameters where the route rewrites the path"));
    }
    let new = rewrite.apply(path, route.pattern.as_ref());
    // What stood in the path may come together to one that could be read in two ways.
    if !matches!(normalise(&new), Ok(normal) if normal == new) {
        return Err(malformed());
    }
    other(&new, uri)
}

/// Another path, with the query of what came.
fn other(path: &str, uri: &Uri) -> Result<Target, Problem> {
    let target = match uri.query() {
        Some(query) => PathAndQuery::from_maybe_shared(format!("{path}?{query}")),
        None => PathAndQuery::try_from(path),
    };
    target.map(|target| Target::Other(Box::new(target.into()))).map_err(|_| malformed())
}

fn malformed() -> Problem {
    refused("the request target is malformed")
}

fn refused(detail: &str) -> Problem {
    Problem::new(Code::BadRequest, detail)
}

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

/// The target to send on, if it is not the one that came.
pub(crate) fn new_target(
    route: &Route,
    path: &str,
    changed: bool,
    uri: &Uri,
) -> Result<Option<Uri>, Problem> {
    if let Some(rewrite) = &route.rewrite {
        return rewritten(rewrite, route, path, uri).map(Some);
    }
    below(route.stripped, path, changed, uri)
}

/// The target to send on, if it is not the one that came, without the first `base` bytes of the
/// path.
pub(crate) fn below(
    base: usize,
    path: &str,
    changed: bool,
    uri: &Uri,
) -> Result<Option<Uri>, Problem> {
    let stripped = if base == 0 {
        path
    } else {
        // Parameters inside the prefix would be cut in the middle.
        let rest = path.get(base..).filter(|rest| rest.is_empty() || rest.starts_with('/'));
        match rest {
            Some("") => "/",
            Some(rest) if !path[..base].contains(';') => rest,
            Some(_) | None => {
                let detail = "path parameters inside the route's prefix";
                return Err(Problem::new(Code::BadRequest, detail));
            }
        }
    };
    let same = !changed && base == 0;
    if same && uri.authority().is_none() {
        return Ok(None);
    }
    let target = match uri.query() {
        _ if same => uri.path_and_query().cloned(),
        Some(query) => PathAndQuery::from_maybe_shared(format!("{stripped}?{query}")).ok(),
        None => PathAndQuery::try_from(stripped).ok(),
    };
    target.map(|target| Some(Uri::from(target))).ok_or_else(malformed)
}

fn rewritten(rewrite: &Rewrite, route: &Route, path: &str, uri: &Uri) -> Result<Uri, Problem> {
    if memchr(b';', path.as_bytes()).is_some() {
        let detail = "path parameters where the route rewrites the path";
        return Err(Problem::new(Code::BadRequest, detail));
    }
    let new = rewrite.apply(path, route.pattern.as_ref());
    // What stood in the path may come together to one that could be read in two ways.
    if !matches!(normalise(&new), Ok(normal) if normal == new) {
        return Err(malformed());
    }
    let target = match uri.query() {
        Some(query) => PathAndQuery::from_maybe_shared(format!("{new}?{query}")),
        None => PathAndQuery::from_maybe_shared(new),
    };
    target.map(Uri::from).map_err(|_| malformed())
}

fn malformed() -> Problem {
    Problem::new(Code::BadRequest, "the request target is malformed")
}

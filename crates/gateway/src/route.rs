//! Which route a request takes: an immutable table, compiled from the configuration.
//!
//! More specific goes first: an exact host before `*.b.c` before `*.c` before any host; then
//! an exact path before a longer prefix before a shorter one; then more header fields and query
//! parameters, then a method over any; then the order of the configuration.

use crate::{
    config::{Auth, Config, ConfigError, RouteConfig},
    cors::Cors,
    edit::Edit,
};
use ahash::AHashMap;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use soa::{Priority, Service, Services, Timeout};
use std::{sync::Arc, time::Duration};
use traffic_cop::analytics::{Analytics, RouteId};
use types::Role;

/// One route, ready to be taken.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) name: String,
    pub(crate) id: RouteId,
    pub(crate) service: Arc<Service>,
    pub(crate) timeout: Timeout,
    pub(crate) idempotent: Option<bool>,
    pub(crate) priority: Priority,
    pub(crate) body_bytes_max: u64,
    pub(crate) auth: Auth,
    pub(crate) roles: Box<[Role]>,
    /// Bytes that the service does not see.
    pub(crate) stripped: usize,
    pub(crate) request_edit: Edit,
    pub(crate) response_edit: Edit,
    pub(crate) cors: Option<Cors>,
    methods: Box<[Method]>,
    headers: Box<[(HeaderName, HeaderValue)]>,
    query: Box<[(String, String)]>,
    /// What decides among the routes that match.
    rank: Rank,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    exact: bool,
    path_bytes: usize,
    /// Header fields and query parameters.
    fields: usize,
    method: bool,
}

/// What the table says.
#[derive(Debug)]
pub(crate) enum Match<'a> {
    Route(&'a Arc<Route>),
    /// The path has routes, but none for the method.
    Method,
    None,
}

/// Every route.
#[derive(Debug, Default)]
pub(crate) struct Table {
    exact: AHashMap<String, Paths>,
    /// By descending length, so the first that matches is the most specific.
    below: Vec<(String, Paths)>,
    any: Paths,
    timeout_min: Option<Duration>,
}

/// The routes of one host: for each path, all that cover it, the most specific first.
#[derive(Debug, Default)]
struct Paths {
    tree: matchit::Router<Vec<Arc<Route>>>,
}

impl Table {
    pub(crate) fn compile(
        config: &Config,
        services: &Services,
        analytics: &Analytics,
    ) -> Result<Self, ConfigError> {
        let mut by_host: std::collections::BTreeMap<&str, Vec<(&RouteConfig, Arc<Route>)>> =
            std::collections::BTreeMap::new();
        let mut names = std::collections::BTreeSet::new();
        let mut table = Self::default();
        for route in &config.routes {
            let refused =
                |reason: String| Err(ConfigError::Route { route: route.name.clone(), reason });
            let visible = route.name.bytes().all(|b| b.is_ascii_graphic());
            if route.name.is_empty() || route.name.starts_with('_') || !visible {
                return refused("`name` is visible ASCII, and `_` is ours to begin with".into());
            }
            if !names.insert(&route.name) {
                return refused("another route has this name".into());
            }
            let Some(service) = services.get(&route.service) else {
                return refused(format!("there is no service `{}`", route.service));
            };
            let compiled = compile(config, route, service, analytics)
                .map_err(|reason| ConfigError::Route { route: route.name.clone(), reason })?;
            let compiled = Arc::new(compiled);
            let shortest = table.timeout_min.get_or_insert(compiled.timeout.left());
            *shortest = compiled.timeout.left().min(*shortest);
            if route.hosts.is_empty() {
                by_host.entry("*").or_default().push((route, Arc::clone(&compiled)));
            }
            for host in &route.hosts {
                let name = host.strip_prefix("*.").unwrap_or(host);
                let lower = name.bytes().all(|b| !b.is_ascii_uppercase());
                if !lower || name.contains('*') || !http1::is_host(name) {
                    return refused(format!(
                        "`{host}` is not a lowercase host or `*.` and one, without a port"
                    ));
                }
                by_host.entry(host).or_default().push((route, Arc::clone(&compiled)));
            }
        }
        for (host, routes) in by_host {
            let paths = Paths::compile(routes)?;
            match (host, host.strip_prefix('*')) {
                ("*", _) => table.any = paths,
                (_, Some(suffix)) => table.below.push((suffix.to_owned(), paths)),
                (host, None) => {
                    table.exact.insert(host.to_owned(), paths);
                }
            }
        }
        table.below.sort_by_key(|(suffix, _)| std::cmp::Reverse(suffix.len()));
        Ok(table)
    }

    /// The shortest time that any service has for its answer.
    pub(crate) fn timeout_min(&self) -> Duration {
        self.timeout_min.unwrap_or(Duration::MAX)
    }

    /// The route for a request. `host` is lowercase and without a port, `path` as
    /// [`crate::path`] gives it for choosing.
    pub(crate) fn find(
        &self,
        host: &str,
        path: &str,
        method: &Method,
        query: Option<&str>,
        headers: &HeaderMap,
    ) -> Match<'_> {
        let mut found = Match::None;
        let exact = if self.exact.is_empty() { None } else { self.exact.get(host) };
        let below = self
            .below
            .iter()
            .filter(|(suffix, _)| host.len() > suffix.len() && host.ends_with(suffix.as_str()))
            .map(|(_, paths)| paths);
        for paths in exact.into_iter().chain(below).chain([&self.any]) {
            let Ok(routes) = paths.tree.at(path) else { continue };
            for route in routes.value {
                let headers_match = route
                    .headers
                    .iter()
                    .all(|(name, value)| headers.get_all(name).iter().any(|held| held == value));
                if !headers_match || !query_matches(&route.query, query) {
                    continue;
                }
                if route.methods.is_empty() || route.methods.contains(method) {
                    return Match::Route(route);
                }
                found = Match::Method;
            }
        }
        found
    }
}

/// Whether each of the parameters is in the query, with its value.
fn query_matches(wanted: &[(String, String)], query: Option<&str>) -> bool {
    wanted.iter().all(|(name, value)| {
        let query = query.unwrap_or_default();
        url::form_urlencoded::parse(query.as_bytes())
            .any(|pair| pair.0 == *name && pair.1 == *value)
    })
}

fn compile(
    config: &Config,
    route: &RouteConfig,
    service: &Arc<Service>,
    analytics: &Analytics,
) -> Result<Route, String> {
    let (path, exact) = match (&route.path, &route.prefix) {
        (Some(_), Some(_)) => return Err("give `path` or `prefix`, not both".into()),
        (Some(path), None) => (path.as_str(), true),
        (None, Some(prefix)) => (prefix.as_str(), false),
        (None, None) => ("/", false),
    };
    match crate::path::normalise(path) {
        Ok(normal) if normal == path && !path.contains([';', '?']) => {}
        Ok(_) | Err(_) => {
            return Err(format!("`{path}` is not a path in its normal form, beginning with `/`"));
        }
    }
    if route.strip_prefix && exact {
        return Err("`strip_prefix` goes with `prefix`".into());
    }
    let methods = route
        .methods
        .iter()
        .map(|method| {
            let known = method.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'-');
            Method::from_bytes(method.as_bytes())
                .ok()
                .filter(|_| known)
                .ok_or_else(|| format!("`{method}` is not a method"))
        })
        .collect::<Result<Box<[_]>, _>>()?;
    let headers = route
        .headers
        .iter()
        .map(|(name, value)| {
            let refused = || format!("`{name} = {value}` is not a header field");
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| refused())?;
            Ok((name, HeaderValue::from_str(value).map_err(|_| refused())?))
        })
        .collect::<Result<Box<[_]>, String>>()?;
    let roles = route
        .roles
        .iter()
        .map(|role| Role::new(role).map_err(|error| error.to_string()))
        .collect::<Result<Box<[_]>, _>>()?;
    if !roles.is_empty() && route.auth == Auth::None {
        return Err("`roles` need `auth`".into());
    }
    let query = route.query.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
    let query: Box<[(String, String)]> = query;
    let cors = route.cors.as_ref().map(|cors| Cors::compile(cors, &methods)).transpose()?;
    let trimmed = path.trim_end_matches('/');
    Ok(Route {
        name: route.name.clone(),
        id: analytics.route(&route.name, &route.service),
        service: Arc::clone(service),
        timeout: Timeout::new(route.timeout.unwrap_or(service.config().response_timeout)),
        idempotent: route.idempotent,
        priority: route.priority,
        body_bytes_max: route.body_bytes_max.unwrap_or(config.body_bytes_max),
        auth: route.auth,
        roles,
        request_edit: Edit::compile(&route.request_headers)?,
        response_edit: Edit::compile(&route.response_headers)?,
        cors,
        stripped: if route.strip_prefix { trimmed.len() } else { 0 },
        rank: Rank {
            exact,
            path_bytes: trimmed.len(),
            fields: headers.len() + query.len(),
            method: !methods.is_empty(),
        },
        methods,
        headers,
        query,
    })
}

impl Paths {
    fn compile(routes: Vec<(&RouteConfig, Arc<Route>)>) -> Result<Self, ConfigError> {
        // Every path that some route names: exactly, or as the root of a subtree.
        let mut patterns = std::collections::BTreeSet::new();
        for (config, _) in &routes {
            match (&config.path, &config.prefix) {
                (Some(path), _) => {
                    patterns.insert((path.as_str(), false));
                }
                (None, prefix) => {
                    let root = prefix.as_deref().unwrap_or("/").trim_end_matches('/');
                    if !root.is_empty() {
                        patterns.insert((root, false));
                    }
                    patterns.insert((root, true));
                }
            }
        }
        let mut tree = matchit::Router::new();
        for (pattern, subtree) in patterns {
            let mut covering: Vec<_> = routes
                .iter()
                .filter(|(config, _)| covers(config, pattern, subtree))
                .map(|(_, route)| Arc::clone(route))
                .collect();
            // Stable: equals keep the order of the configuration.
            covering.sort_by_key(|route| std::cmp::Reverse(route.rank));
            let escaped = pattern.replace('{', "{{").replace('}', "}}");
            let inserts = if subtree {
                vec![format!("{escaped}/"), format!("{escaped}/{{*rest}}")]
            } else {
                vec![escaped]
            };
            for text in inserts {
                // `/a/` may be both an exact path and the root of a subtree: the exact one was
                // inserted first, and covers what the subtree does.
                let _ = tree.insert(text, covering.clone());
            }
        }
        Ok(Self { tree })
    }
}

/// Whether a route covers the path `pattern`, or everything below it.
fn covers(config: &RouteConfig, pattern: &str, subtree: bool) -> bool {
    if let Some(path) = &config.path {
        return !subtree && path == pattern;
    }
    let root = config.prefix.as_deref().unwrap_or("/").trim_end_matches('/');
    pattern.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests;

//! Which route a request takes: an immutable table, compiled from the configuration.
//!
//! More specific goes first: an exact host before `*.b.c` before `*.c` before any host; then
//! an exact path before one with parameters before a regular expression before a prefix, and among
//! them the one with more literal bytes; then one for certain tenants, then more header fields and
//! query parameters, then a method over any; then the order of the configuration.

mod compile;
mod considered;
mod pattern;

use crate::{
    backend::Backends,
    bridged::{Bridged, Expanded, expand},
    config::{Auth, Config, ConfigError, RouteConfig},
    content::Content,
    cors::Cors,
    edit::Edit,
    forward_auth::ForwardAuth,
};
use ahash::AHashMap;
pub use considered::Considered;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use pattern::Pattern;
pub(crate) use pattern::Rewrite;
use soa::{Priority, Services};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use traffic_cop::analytics::{Analytics, PathPattern, RouteId};
use types::{Role, TenantId};

/// One route, ready to be taken.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) name: String,
    /// With the first of its services, for requests that reach none.
    pub(crate) id: RouteId,
    pub(crate) backends: Backends,
    pub(crate) idempotent: Option<bool>,
    pub(crate) priority: Priority,
    pub(crate) body_bytes_max: u64,
    pub(crate) auth: Auth,
    pub(crate) forward_auth: Option<ForwardAuth>,
    pub(crate) roles: Box<[Role]>,
    /// Bytes that the service does not see.
    pub(crate) stripped: usize,
    pub(crate) rewrite: Option<Rewrite>,
    pub(crate) request_edit: Edit,
    pub(crate) response_edit: Edit,
    pub(crate) cors: Option<Cors>,
    pub(crate) content: Option<Box<Content>>,
    pub(crate) bridged: Option<Box<Bridged>>,
    pub(crate) pattern: Option<Pattern>,
    /// What its paths look like, if it says so.
    pub(crate) endpoint: Option<PathPattern>,
    tenants: Box<[TenantId]>,
    methods: Box<[Method]>,
    headers: Box<[(HeaderName, HeaderValue)]>,
    query: Box<[(String, String)]>,
    /// What decides among the routes that match.
    rank: Rank,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    path: PathKind,
    path_bytes: usize,
    tenant: bool,
    /// Header fields and query parameters.
    fields: usize,
    method: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum PathKind {
    Prefix,
    Regex,
    Parameters,
    Exact,
}

/// Whose request it is.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Whose<'a> {
    /// Nobody has looked.
    Unknown,
    /// This tenant's, or nobody's.
    Known(Option<&'a TenantId>),
}

impl Route {
    /// Whether everything but the path, the method and the tenant is as the route wants it.
    fn takes(&self, path: &str, query: Option<&str>, headers: &HeaderMap) -> bool {
        let holds = |(name, value): &(HeaderName, HeaderValue)| {
            headers.get_all(name).iter().any(|held| held == value)
        };
        self.pattern.as_ref().is_none_or(|pattern| pattern.matches(path))
            && self.headers.iter().all(holds)
            && query_matches(&self.query, query)
    }
}

/// What the table says.
#[derive(Debug)]
pub(crate) enum Match<'a> {
    Route(&'a Arc<Route>),
    /// It depends on whose request it is.
    Tenant,
    /// The path has routes, but for these methods alone.
    Method(Vec<Method>),
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
        let mut names = BTreeSet::new();
        let mut routes = Vec::with_capacity(config.routes.len());
        for route in &config.routes {
            let refused = |reason: String| ConfigError::Route { route: route.name.clone(), reason };
            let visible = route.name.bytes().all(|b| b.is_ascii_graphic());
            if route.name.is_empty() || route.name.starts_with('_') || !visible {
                let reason = "`name` is visible ASCII, and `_` is ours to begin with";
                return Err(refused(reason.into()));
            }
            if !names.insert(&route.name) {
                return Err(refused("another route has this name".into()));
            }
            routes.extend(expand(route, &config.realms).map_err(refused)?);
        }
        Self::of(config, &routes, services, analytics)
    }

    /// The table of these routes.
    pub(crate) fn of(
        config: &Config,
        routes: &[Expanded<'_>],
        services: &Services,
        analytics: &Analytics,
    ) -> Result<Self, ConfigError> {
        let mut by_host: BTreeMap<&str, Vec<(&RouteConfig, Arc<Route>)>> = BTreeMap::new();
        let mut table = Self::default();
        for Expanded { config: route, bridged, endpoint } in routes {
            let refused =
                |reason: String| Err(ConfigError::Route { route: route.name.clone(), reason });
            let mut compiled = compile::route(config, route, services, analytics)
                .map_err(|reason| ConfigError::Route { route: route.name.clone(), reason })?;
            compiled.bridged.clone_from(bridged);
            let endpoint = endpoint.as_ref().or(route.path.as_ref());
            compiled.endpoint = endpoint.map(|text| PathPattern::new(text));
            for backend in compiled.backends.iter() {
                let shortest = table.timeout_min.get_or_insert(backend.timeout);
                *shortest = backend.timeout.min(*shortest);
            }
            let compiled = Arc::new(compiled);
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
            let paths = Paths::compile(routes);
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

    /// The routes that may concern a host, the more specific ones first, and what they are of.
    fn paths<'t, 'h>(
        &'t self,
        host: &'h str,
    ) -> impl Iterator<Item = (&'static str, &'t Paths)> + use<'t, 'h> {
        let exact = if self.exact.is_empty() { None } else { self.exact.get(host) };
        let below = self
            .below
            .iter()
            .filter(move |(suffix, _)| host.len() > suffix.len() && host.ends_with(suffix.as_str()))
            .map(|(_, paths)| ("the domain above its host", paths));
        let exact = exact.map(|paths| ("its host", paths));
        exact.into_iter().chain(below).chain([("any host", &self.any)])
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
        whose: Whose<'_>,
    ) -> Match<'_> {
        let mut others: Vec<Method> = Vec::new();
        for (_, paths) in self.paths(host) {
            let Ok(routes) = paths.tree.at(path) else { continue };
            for route in routes.value {
                if !route.takes(path, query, headers) {
                    continue;
                }
                if !route.methods.is_empty() && !route.methods.contains(method) {
                    others.extend_from_slice(&route.methods);
                    continue;
                }
                match whose {
                    _ if route.tenants.is_empty() => return Match::Route(route),
                    Whose::Unknown => return Match::Tenant,
                    Whose::Known(tenant) if tenant.is_some_and(|t| route.tenants.contains(t)) => {
                        return Match::Route(route);
                    }
                    Whose::Known(_) => {}
                }
            }
        }
        if others.is_empty() {
            return Match::None;
        }
        others.sort_by(|a, b| a.as_str().cmp(b.as_str()));
        others.dedup();
        Match::Method(others)
    }
}

/// The routes of a configuration, without anything that serves them.
#[derive(Debug)]
pub struct Routes(Table);

impl Routes {
    /// Compiles them, as a start and a reload do.
    ///
    /// # Errors
    /// [`ConfigError`] says in one line what to change.
    pub fn compile(config: &Config, services: &soa::Config) -> Result<Self, ConfigError> {
        let services = Services::compile(services, None)?;
        Table::compile(config, &services, &Analytics::default()).map(Self)
    }

    /// The name of the route for a request without header fields, a query and a caller. `host` is
    /// lowercase and without a port, `path` in its normal form.
    #[must_use]
    pub fn find(&self, host: &str, path: &str, method: &Method) -> Option<&str> {
        let whose = Whose::Known(None);
        match self.0.find(host, path, method, None, &HeaderMap::new(), whose) {
            Match::Route(route) => Some(&route.name),
            Match::Tenant | Match::Method(_) | Match::None => None,
        }
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

#[cfg(test)]
mod tests;

//! From the configuration's routes to those of the table.

use super::{PathKind, Paths, Pattern, Rank, Rewrite, Route};
use crate::{
    backend::Backends,
    config::{Auth, Config, RouteConfig},
    content::Content,
    cors::Cors,
    edit::Edit,
    forward_auth::ForwardAuth,
};
use http::{HeaderName, HeaderValue, Method};
use soa::Services;
use std::{cmp::Reverse, collections::BTreeMap, sync::Arc};
use traffic_cop::analytics::Analytics;
use types::Role;

/// What the path of a route is.
struct Path<'a> {
    kind: PathKind,
    /// As it is written.
    text: &'a str,
    pattern: Option<Pattern>,
}

impl<'a> Path<'a> {
    fn of(route: &'a RouteConfig) -> Result<Self, String> {
        let (text, kind) = match (&route.path, &route.prefix, &route.regex) {
            (Some(path), None, None) => (path.as_str(), PathKind::Exact),
            (None, prefix, None) => (prefix.as_deref().unwrap_or("/"), PathKind::Prefix),
            (None, None, Some(regex)) => {
                let pattern = Some(Pattern::regex(regex)?);
                return Ok(Self { kind: PathKind::Regex, text: regex, pattern });
            }
            (_, _, _) => return Err("give one of `path`, `prefix` and `regex`".into()),
        };
        // Parameters stand for segments that are in their normal form.
        let plain = text.replace(['{', '}'], "");
        match crate::path::normalise(&plain) {
            Ok(normal) if *normal == plain && !text.contains([';', '?']) => {}
            Ok(_) | Err(_) => {
                return Err(format!(
                    "`{text}` is not a path in its normal form, beginning with `/`"
                ));
            }
        }
        let pattern = Pattern::segments(text, kind == PathKind::Prefix)?;
        let kind = match (&pattern, kind) {
            (Some(_), PathKind::Exact) => PathKind::Parameters,
            (_, kind) => kind,
        };
        Ok(Self { kind, text, pattern })
    }

    /// Bytes that stand for themselves.
    fn literal_bytes(&self) -> usize {
        match self.kind {
            PathKind::Regex => 0,
            PathKind::Prefix | PathKind::Parameters | PathKind::Exact => {
                let text = self.text.trim_end_matches('/');
                let parameters = text.split('/').filter(|segment| segment.starts_with('{'));
                text.len() - parameters.map(str::len).sum::<usize>()
            }
        }
    }
}

pub(super) fn route(
    config: &Config,
    route: &RouteConfig,
    services: &Services,
    analytics: &Analytics,
) -> Result<Route, String> {
    let path = Path::of(route)?;
    let literal = path.kind == PathKind::Prefix && path.pattern.is_none();
    if route.strip_prefix && !(literal && route.rewrite.is_none()) {
        return Err(
            "`strip_prefix` goes with a `prefix` without parameters, and no `rewrite`".into()
        );
    }
    let prefix = literal.then_some(path.text);
    let rewrite = route.rewrite.as_ref();
    let rewrite = rewrite.map(|text| Rewrite::compile(text, path.pattern.as_ref(), prefix));
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
    let forward_auth = route.forward_auth.as_ref();
    let forward_auth = forward_auth.map(|auth| ForwardAuth::compile(auth, services)).transpose()?;
    let vouched = forward_auth.as_ref().is_some_and(|auth| auth.identity);
    if vouched && route.auth != Auth::None {
        return Err("`forward_auth.identity` goes with `auth = \"none\"`".into());
    }
    if !roles.is_empty() && route.auth == Auth::None && !vouched {
        return Err("`roles` need `auth`".into());
    }
    if !route.tenants.is_empty() && route.auth == Auth::None {
        return Err("`tenants` need `auth`".into());
    }
    let query = route.query.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
    let query: Box<[(String, String)]> = query;
    let cors = route.cors.as_ref().map(|cors| Cors::compile(cors, &methods)).transpose()?;
    let backends = Backends::compile(route, services, &config.realms, analytics)?;
    Ok(Route {
        name: route.name.clone(),
        id: backends.first().id,
        backends,
        idempotent: route.idempotent,
        priority: route.priority,
        body_bytes_max: route.body_bytes_max.unwrap_or(config.body_bytes_max),
        auth: route.auth,
        forward_auth,
        roles,
        request_edit: Edit::compile(&route.request_headers)?,
        response_edit: Edit::compile(&route.response_headers)?,
        cors,
        content: Content::compile(route, services)?,
        bridged: None,
        stripped: if route.strip_prefix { path.text.trim_end_matches('/').len() } else { 0 },
        rewrite: rewrite.transpose()?,
        rank: Rank {
            path: path.kind,
            path_bytes: path.literal_bytes(),
            tenant: !route.tenants.is_empty(),
            fields: headers.len() + query.len(),
            method: !methods.is_empty(),
        },
        pattern: path.pattern,
        endpoint: None,
        tenants: route.tenants.clone().into(),
        methods,
        headers,
        query,
    })
}

/// Where a route is in the tree: one path, or a path and all below it.
fn place(config: &RouteConfig) -> (&str, bool) {
    let (text, exact) = match (&config.path, &config.prefix, &config.regex) {
        (Some(path), _, _) => (path.as_str(), true),
        (None, prefix, None) => (prefix.as_deref().unwrap_or("/"), false),
        (None, _, Some(_)) => ("/", false),
    };
    match text.find("/{") {
        // What is below the literal part is looked at one by one.
        Some(at) => (&text[..at], false),
        None if exact => (text, true),
        None => (text.trim_end_matches('/'), false),
    }
}

impl Paths {
    pub(super) fn compile(routes: Vec<(&RouteConfig, Arc<Route>)>) -> Self {
        // Every path that some route names: exactly, or as the root of a subtree.
        let mut exact: BTreeMap<&str, Vec<Placed>> = BTreeMap::new();
        let mut below: BTreeMap<&str, Vec<Placed>> = BTreeMap::new();
        for (index, (config, route)) in routes.into_iter().enumerate() {
            let (path, is_exact) = place(config);
            let held = if is_exact { &mut exact } else { &mut below };
            held.entry(path).or_default().push((index, route));
        }
        let covering = |path: &str, own: Option<&Vec<Placed>>| {
            let roots = std::iter::successors(Some(path), |path| {
                path.rfind('/').map(|slash| &path[..slash])
            });
            let above = roots.filter_map(|root| below.get(root));
            let mut found: Vec<&Placed> = own.into_iter().chain(above).flatten().collect();
            // Equals keep the order of the configuration.
            found.sort_by_key(|(index, route)| (Reverse(route.rank), *index));
            found.into_iter().map(|(_, route)| Arc::clone(route)).collect::<Vec<_>>()
        };
        let mut tree = matchit::Router::new();
        for (path, routes) in &exact {
            let _ = tree.insert(*path, covering(path, Some(routes)));
        }
        for root in below.keys() {
            let covering = covering(root, None);
            // What a route names exactly stands there already, with all that covers it.
            if !root.is_empty() {
                let _ = tree.insert(*root, covering.clone());
            }
            let _ = tree.insert(format!("{root}/"), covering.clone());
            let _ = tree.insert(format!("{root}/{{*rest}}"), covering);
        }
        Self { tree }
    }
}

/// A route, and its place in the configuration.
type Placed = (usize, Arc<Route>);

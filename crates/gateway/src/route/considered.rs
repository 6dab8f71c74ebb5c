//! Which routes were considered for a request, and why each was taken or not.

use super::{Route, Table, Whose, query_matches};
use http::{HeaderMap, Method};
use serde::Serialize;
use std::sync::Arc;

/// A route that covers the path of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Considered {
    /// Its name.
    pub route: String,
    /// Whether it takes the request.
    pub taken: bool,
    /// Why, or why not.
    pub why: String,
}

impl Table {
    /// The routes that were considered, in this order, up to the one that takes the request, and
    /// that one.
    pub(crate) fn considered(
        &self,
        host: &str,
        path: &str,
        method: &Method,
        query: Option<&str>,
        headers: &HeaderMap,
        whose: Whose<'_>,
    ) -> (Vec<Considered>, Option<Arc<Route>>) {
        let mut all = Vec::new();
        for (routes_of, paths) in self.paths(host) {
            let Ok(routes) = paths.tree.at(path) else { continue };
            for route in routes.value {
                let refused = route.refuses(path, method, query, headers, whose);
                let taken = refused.is_none();
                let why = refused
                    .unwrap_or_else(|| format!("it is the first of {routes_of} that takes it"));
                all.push(Considered { route: route.name.clone(), taken, why });
                if taken {
                    return (all, Some(Arc::clone(route)));
                }
            }
        }
        (all, None)
    }
}

impl Route {
    /// Why it does not take a request whose path it may cover; none if it does.
    fn refuses(
        &self,
        path: &str,
        method: &Method,
        query: Option<&str>,
        headers: &HeaderMap,
        whose: Whose<'_>,
    ) -> Option<String> {
        if self.pattern.as_ref().is_some_and(|pattern| !pattern.matches(path)) {
            return Some("the path is not of its pattern".into());
        }
        let missing = self
            .headers
            .iter()
            .find(|(name, value)| !headers.get_all(name).iter().any(|held| held == value));
        if let Some((name, value)) = missing {
            let value = value.to_str().unwrap_or("…");
            return Some(format!("it wants the header field `{name}: {value}`"));
        }
        let missing =
            self.query.iter().find(|pair| !query_matches(std::slice::from_ref(*pair), query));
        if let Some((name, value)) = missing {
            return Some(format!("it wants the query parameter `{name}={value}`"));
        }
        if !self.methods.is_empty() && !self.methods.contains(method) {
            return Some(format!("it does not take {method}"));
        }
        let tenant = match whose {
            _ if self.tenants.is_empty() => return None,
            Whose::Unknown => None,
            Whose::Known(tenant) => tenant,
        };
        match tenant {
            Some(tenant) if self.tenants.contains(tenant) => None,
            Some(tenant) => Some(format!("it is not for the tenant `{tenant}`")),
            None => Some("it is for certain tenants, and the caller has none".into()),
        }
    }
}

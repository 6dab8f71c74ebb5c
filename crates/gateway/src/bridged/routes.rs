//! From the operations of a document to routes.

use crate::{bridged::Bridged, config::RouteConfig};
use bridge::{Member, Operation, Realms, route_name};
use std::{borrow::Cow, sync::Arc};

/// A route as it is compiled: as it was configured, or one of those that stand for it.
pub(crate) struct Expanded<'a> {
    pub(crate) config: Cow<'a, RouteConfig>,
    pub(crate) bridged: Option<Box<Bridged>>,
    /// What its paths look like to clients, if `config` does not say so.
    pub(crate) endpoint: Option<String>,
}

/// A route, or those of the operations that it takes.
///
/// # Errors
/// What to change.
pub(crate) fn expand<'a>(
    route: &'a RouteConfig,
    realms: &Arc<Realms>,
) -> Result<Vec<Expanded<'a>>, String> {
    if !route.openapi {
        // What a document promises holds where its operations are published as such; who may cross
        // to another realm holds everywhere.
        let member = realms.member(&route.service);
        let bridged = member.map(|member| bridged_by(realms, member, None, 0));
        return Ok(vec![Expanded { config: Cow::Borrowed(route), bridged, endpoint: None }]);
    }
    let Some(member) = realms.member(&route.service) else {
        return Err("`openapi` needs a `service` that belongs to a realm".into());
    };
    if member.config.openapi.is_none() {
        return Err(format!("`openapi` needs the document of the service `{}`", route.service));
    }
    if route.path.is_some() || route.regex.is_some() || route.rewrite.is_some() {
        return Err("`openapi` goes with `prefix`, without `path`, `regex` and `rewrite`".into());
    }
    if !route.methods.is_empty() {
        return Err("`openapi` takes the methods of the document; leave `methods` out".into());
    }
    let prefix = route.prefix.as_deref().unwrap_or("/").trim_end_matches('/');
    if prefix.contains('{') {
        return Err("`openapi` goes with a `prefix` without parameters".into());
    }
    Ok(of_member(realms, member, route, prefix, prefix))
}

/// The routes of a service's operations, below `prefix`, which clients ask for below `asked`. What
/// is not of the document is as in `common`.
pub(super) fn of_member<'a>(
    realms: &Arc<Realms>,
    member: &Arc<Member>,
    common: &RouteConfig,
    prefix: &str,
    asked: &str,
) -> Vec<Expanded<'a>> {
    let Some(document) = &member.document else {
        // Whoever comes is told that it is not there yet, or that there is none to be held to.
        let mut bridged = bridged_by(realms, member, None, prefix.len());
        bridged.waits = member.waits_for_document();
        let config = RouteConfig { openapi: false, ..common.clone() };
        return vec![Expanded {
            config: Cow::Owned(config),
            bridged: Some(bridged),
            endpoint: None,
        }];
    };
    let route = |(at, operation): (usize, &Operation)| {
        let below = plain(operation.path());
        let config = RouteConfig {
            name: route_name(&member.service, operation.id()),
            prefix: None,
            path: Some(format!("{prefix}{below}")),
            methods: vec![operation.method().to_string()],
            rewrite: (common.strip_prefix && !prefix.is_empty()).then_some(below),
            strip_prefix: false,
            idempotent: operation.idempotent().or(common.idempotent),
            openapi: false,
            ..common.clone()
        };
        let bridged = bridged_by(realms, member, Some(at), prefix.len());
        let endpoint = Some(format!("{asked}{}", operation.path()));
        Expanded { config: Cow::Owned(config), bridged: Some(bridged), endpoint }
    };
    document.operations().iter().enumerate().map(route).collect()
}

fn bridged_by(
    realms: &Arc<Realms>,
    member: &Arc<Member>,
    operation: Option<usize>,
    base: usize,
) -> Box<Bridged> {
    let (realms, member) = (Arc::clone(realms), Arc::clone(member));
    Box::new(Bridged { realms, member, operation, waits: false, base })
}

/// A path whose parameters have names that routes take.
fn plain(path: &str) -> String {
    let name = |(at, segment): (usize, &str)| match segment.starts_with('{') {
        true => format!("{{p{at}}}"),
        false => segment.to_owned(),
    };
    path.split('/').enumerate().map(name).collect::<Vec<_>>().join("/")
}

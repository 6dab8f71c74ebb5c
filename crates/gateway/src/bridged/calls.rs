//! Calls between services: `/crosstown/v1/call/{realm}/{service}/…`.
//!
//! Whoever speaks for a realm calls a service by its realm and name, and gets there as any other
//! request does: by the same limits, balancing, deadlines, retries and breakers. With a user's
//! credential in `X-Crosstown-On-Behalf-Of` it calls for that user, who is then the caller.

use crate::{
    bridged::{
        Call,
        routes::{Expanded, of_member},
    },
    config::{Auth, Config, ConfigError, RouteConfig},
    connection::Conn,
    core::Snapshot,
    exchange::Asked,
    forward::forward,
    identify::{identify, identify_by},
    path,
    route::{Match, Route, Table, Whose},
    target::below,
    ticket::Ticket,
};
use ahash::AHashMap;
use bridge::{Realms, Wanted};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, Uri, request::Parts};
use protocol::{Code, Problem};
use soa::{Body, LocalBody, Services};
use std::{borrow::Cow, sync::Arc};
use traffic_cop::analytics::Analytics;
use types::Caller;

/// Where calls begin.
const PREFIX: &str = "/crosstown/v1/call/";
/// The credential of the user for whom a service calls, as in `Authorization`.
const ON_BEHALF_OF: &str = "x-crosstown-on-behalf-of";
/// The version that is wanted.
const VERSION: &str = "x-crosstown-version";
/// Words that the service has to have, separated by commas.
const TAGS: &str = "x-crosstown-tags";
/// Tells a service which realm calls.
pub(crate) const REALM: HeaderName = HeaderName::from_static("x-crosstown-realm");
/// Tells a service who speaks for that realm.
pub(crate) const ACTOR: HeaderName = HeaderName::from_static("x-crosstown-actor");

/// Whether a path, which is below a mount, is a call.
pub(crate) fn is_call(path: &str) -> bool {
    path.starts_with(PREFIX)
}

/// What can be called: for each service of a realm, its operations or every path of it.
#[derive(Debug, Default)]
pub(crate) struct Calls(AHashMap<String, Table>);

impl Calls {
    pub(crate) fn compile(
        config: &Config,
        services: &Services,
        analytics: &Analytics,
    ) -> Result<Self, ConfigError> {
        let mut calls = AHashMap::new();
        for member in config.realms.members() {
            let common = RouteConfig {
                name: format!("_call.{}", member.service),
                service: member.service.clone(),
                ..RouteConfig::default()
            };
            let routes: Vec<Expanded<'_>> = of_member(&config.realms, member, &common, "");
            let table = Table::of(config, &routes, services, analytics)?;
            calls.insert(member.service.clone(), table);
        }
        Ok(Self(calls))
    }
}

/// Answers a call.
pub(crate) async fn serve(
    conn: &Conn,
    head: Box<Parts>,
    body: Option<LocalBody>,
    mut asked: Asked,
    ticket: &mut Ticket,
) -> Result<Response<Body>, Problem> {
    let is_direct = asked.client.is_none();
    let actor = identify(conn, Auth::Required, &head.headers, is_direct).await?;
    let actor =
        actor.ok_or_else(|| Problem::new(Code::Unauthenticated, "a credential is needed here"))?;
    ticket.caller = Some(Arc::clone(&actor));
    let subject = match head.headers.get(ON_BEHALF_OF) {
        Some(credential) => identify_by(conn, credential).await?,
        None => Arc::clone(&actor),
    };
    let (route, target, call) = {
        let in_force = conn.core.snapshot();
        let snapshot = ticket.tried().map_or(&*in_force, |tried| tried);
        let realms = &snapshot.config.realms;
        let realm = Arc::clone(speaks_for(realms, &actor)?);
        let (route, target, base) = choose(snapshot, &head.method, &head.uri, &head.headers)?;
        (route, target, Call { realm, actor, subject, base })
    };
    ticket.route = route.id;
    asked.call = Some(Box::new(call));
    forward(conn, &route, target, head, body, asked, ticket).await
}

/// The realm that a caller of services speaks for.
pub(crate) fn speaks_for<'r>(realms: &'r Realms, actor: &Caller) -> Result<&'r Arc<str>, Problem> {
    realms.of_caller(actor).ok_or_else(|| {
        let detail = "whoever calls services speaks for a realm, which this caller does not";
        Problem::new(Code::Forbidden, detail)
    })
}

/// The route of a call, the target to ask for, and the bytes of the path before it.
pub(crate) fn choose(
    snapshot: &Snapshot,
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
) -> Result<(Arc<Route>, Option<Uri>, usize), Problem> {
    let normal = path::normalise(uri.path())
        .map_err(|path::Ambiguous(detail)| Problem::new(Code::BadRequest, detail))?;
    let mut parts = normal[PREFIX.len()..].splitn(3, '/');
    let (realm, name) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let base = PREFIX.len() + realm.len() + 1 + name.len();
    let unknown = |detail: String| Problem::new(Code::NoRoute, detail);
    let member = snapshot
        .config
        .realms
        .find(realm, name, &wanted(headers)?)
        .ok_or_else(|| unknown(format!("the realm `{realm}` has no such service `{name}`")))?;
    let rest = match normal.get(base..) {
        Some("") | None => "/",
        Some(rest) => rest,
    };
    let rest = path::without_parameters(rest);
    let table = snapshot.calls.0.get(&member.service);
    let whose = Whose::Known(None);
    let found = table.map(|t| t.find("", &rest, method, uri.query(), headers, whose));
    match found {
        Some(Match::Route(route)) => {
            let changed = matches!(normal, Cow::Owned(_));
            let target = below(base, &normal, changed, uri)?;
            Ok((Arc::clone(route), target, base))
        }
        Some(Match::Method(others)) => {
            let detail = format!("`{name}` does not take this method on this path");
            Err(Problem::method_not_allowed(detail, &others))
        }
        Some(Match::Tenant | Match::None) | None => {
            Err(unknown(format!("the document of `{name}` has no operation on this path")))
        }
    }
}

fn wanted(headers: &HeaderMap) -> Result<Wanted, Problem> {
    let said = |name: &'static str| {
        let refused = move || Problem::new(Code::BadRequest, format!("`{name}` cannot be read"));
        let text = |value: &HeaderValue| value.to_str().map(str::to_owned).map_err(|_| refused());
        headers.get(name).map(text).transpose()
    };
    let version = said(VERSION)?.map(|text| {
        text.parse().map_err(|_| {
            let detail = format!("`{VERSION}: {text}` is no version, such as `2` or `^2.1`");
            Problem::new(Code::BadRequest, detail)
        })
    });
    let tags = said(TAGS)?.unwrap_or_default();
    let tags = tags.split(',').map(str::trim).filter(|tag| !tag.is_empty());
    Ok(Wanted { version: version.transpose()?, tags: tags.map(str::to_owned).collect() })
}

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
    identify::{identify, identify_by, known},
    path::without_parameters,
    route::{Match, Route, Table, Whose},
    target::Target,
    ticket::Ticket,
};
use ahash::AHashMap;
use bridge::{Member, Realm, Realms, Wanted};
use http::{HeaderMap, HeaderName, Method, Uri, request::Parts};
use memchr::memchr_iter;
use protocol::{Code, Problem};
use soa::Services;
use std::sync::Arc;
use traffic_cop::analytics::Analytics;
use types::Caller;

/// Where calls begin.
const PREFIX: &str = "/crosstown/v1/call/";
/// The credential of the user for whom a service calls, as in `Authorization`.
const ON_BEHALF_OF: HeaderName = HeaderName::from_static("x-crosstown-on-behalf-of");
/// The version that is wanted.
const VERSION: HeaderName = HeaderName::from_static("x-crosstown-version");
/// Words that the service has to have, separated by commas.
const TAGS: HeaderName = HeaderName::from_static("x-crosstown-tags");
/// Tells a service which realm calls.
pub(crate) const REALM: HeaderName = HeaderName::from_static("x-crosstown-realm");
/// Tells a service who speaks for that realm.
pub(crate) const ACTOR: HeaderName = HeaderName::from_static("x-crosstown-actor");

/// Whether a field is one by which a call says what it wants.
pub(crate) fn is_wish(name: &HeaderName) -> bool {
    *name == ON_BEHALF_OF || *name == VERSION || *name == TAGS
}

/// Whether a path, which is below a mount, is a call.
pub(crate) fn is_call(path: &str) -> bool {
    path.starts_with(PREFIX)
}

/// What can be called: the services of each `realm/name`, the newest first.
#[derive(Debug, Default)]
pub(crate) struct Calls(AHashMap<String, Vec<Callable>>);

/// A service of a realm, and its operations or every path of it.
#[derive(Debug)]
struct Callable {
    member: Arc<Member>,
    table: Table,
}

impl Calls {
    pub(crate) fn compile(
        config: &Config,
        services: &Services,
        analytics: &Analytics,
    ) -> Result<Self, ConfigError> {
        let callable = |named: &str, member: &Arc<Member>| {
            let common = RouteConfig {
                name: format!("_call.{}", member.service),
                service: member.service.clone(),
                ..RouteConfig::default()
            };
            let asked = format!("{PREFIX}{named}");
            let routes: Vec<Expanded<'_>> = of_member(&config.realms, member, &common, "", &asked);
            let table = Table::of(config, &routes, services, analytics)?;
            Ok(Callable { member: Arc::clone(member), table })
        };
        let mut calls = AHashMap::new();
        for (realm, name, versions) in config.realms.named() {
            let named = format!("{realm}/{name}");
            let versions = versions.iter().map(|member| callable(&named, member));
            let versions: Vec<Callable> = versions.collect::<Result<_, ConfigError>>()?;
            calls.insert(named, versions);
        }
        Ok(Self(calls))
    }

    fn find(&self, named: &str, wanted: &Wanted) -> Option<&Table> {
        let versions = self.0.get(named)?;
        versions.iter().find(|one| wanted.takes(&one.member)).map(|one| &one.table)
    }
}

/// Who calls, and for whom.
pub(crate) struct Parties {
    actor: Arc<Caller>,
    subject: Arc<Caller>,
}

/// Who calls, if this core has seen the credential of late, and calls for nobody else.
pub(crate) fn known_parties(conn: &Conn, head: &Parts, asked: &Asked) -> Option<Parties> {
    let actor = if asked.noted.wishes { None } else { known(conn, &head.headers) }?;
    Some(Parties { subject: Arc::clone(&actor), actor })
}

/// Who calls, and for whom.
pub(crate) async fn parties(
    conn: &Conn,
    head: &Parts,
    asked: &Asked,
    ticket: &mut Ticket,
) -> Result<Parties, Problem> {
    let is_direct = asked.client.is_none();
    let actor = identify(conn, Auth::Required, &head.headers, is_direct).await?;
    let actor =
        actor.ok_or_else(|| Problem::new(Code::Unauthenticated, "a credential is needed here"))?;
    ticket.caller = Some(Arc::clone(&actor));
    let subject = match head.headers.get(ON_BEHALF_OF) {
        Some(credential) => identify_by(conn, credential).await?,
        None => Arc::clone(&actor),
    };
    Ok(Parties { actor, subject })
}

/// Where a call leads: the route, and what its service is asked for. `path`: that of the request
/// normalised, if it came otherwise.
pub(crate) fn look_up(
    conn: &Conn,
    head: &Parts,
    path: Option<String>,
    asked: &Asked,
    ticket: &mut Ticket,
    Parties { actor, subject }: Parties,
) -> Result<(Arc<Route>, Target, Call), Problem> {
    ticket.caller = Some(Arc::clone(&actor));
    let in_force = conn.core.snapshot();
    let snapshot = ticket.tried().map_or(&*in_force, |tried| tried);
    let realm = Arc::clone(speaks_for(&snapshot.config.realms, &actor)?);
    let path = path.as_deref().unwrap_or(head.uri.path());
    // Most calls have no wishes, which were looked for already.
    let wanted = if asked.noted.wishes { wanted(&head.headers)? } else { Wanted::default() };
    let (route, target) = choose(snapshot, &wanted, &head.method, &head.uri, path, &head.headers)?;
    Ok((route, target, Call { realm, actor, subject }))
}

/// The realm that a caller of services speaks for.
pub(crate) fn speaks_for<'r>(
    realms: &'r Realms,
    actor: &Caller,
) -> Result<&'r Arc<Realm>, Problem> {
    realms.spoken_for(actor).ok_or_else(|| {
        let detail = "whoever calls services speaks for a realm, which this caller does not";
        Problem::new(Code::Forbidden, detail)
    })
}

/// The route of a call, and what its service is asked for. `path` is that of `uri`, normalised.
pub(crate) fn choose(
    snapshot: &Snapshot,
    wanted: &Wanted,
    method: &Method,
    uri: &Uri,
    path: &str,
    headers: &HeaderMap,
) -> Result<(Arc<Route>, Target), Problem> {
    let mut slashes = memchr_iter(b'/', &path.as_bytes()[PREFIX.len()..]);
    let base = slashes.nth(1).map_or(path.len(), |at| PREFIX.len() + at);
    let named = &path[PREFIX.len()..base];
    let (realm, name) = named.split_once('/').unwrap_or((named, ""));
    let unknown = |detail: String| Problem::new(Code::NoRoute, detail);
    let table = snapshot
        .calls
        .find(named, wanted)
        .ok_or_else(|| unknown(format!("the realm `{realm}` has no such service `{name}`")))?;
    let rest = if base == path.len() { "/" } else { &path[base..] };
    let rest = without_parameters(rest);
    match table.find("", &rest, method, uri.query(), headers, Whose::Known(None)) {
        Match::Route(route) => Ok((Arc::clone(route), Target::below(base, path, uri)?)),
        Match::Method(others) => {
            let detail = format!("`{name}` does not take this method on this path");
            Err(Problem::method_not_allowed(detail, &others))
        }
        Match::Tenant | Match::None => {
            Err(unknown(format!("the document of `{name}` has no operation on this path")))
        }
    }
}

/// Which service a call wants.
pub(crate) fn wanted(headers: &HeaderMap) -> Result<Wanted, Problem> {
    let version = text(headers, &VERSION)?.map(|text| {
        text.parse().map_err(|_| {
            let detail = format!("`{VERSION}: {text}` is no version, such as `2` or `^2.1`");
            Problem::new(Code::BadRequest, detail)
        })
    });
    let tags = text(headers, &TAGS)?.map_or_else(Vec::new, |tags| {
        let tags = tags.split(',').map(str::trim).filter(|tag| !tag.is_empty());
        tags.map(str::to_owned).collect()
    });
    Ok(Wanted { version: version.transpose()?, tags })
}

fn text<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Result<Option<&'h str>, Problem> {
    let refused = || Problem::new(Code::BadRequest, format!("`{name}` cannot be read"));
    headers.get(name).map(|value| value.to_str().map_err(|_| refused())).transpose()
}

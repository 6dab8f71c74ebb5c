//! One request and its answer.

use crate::{
    connection::{Conn, KnownCharge},
    core::{Mounted, Snapshot},
    cors::preflight_method,
    fields::{self, CallerFields},
    forwarded::Client,
    h1::Upgrade,
    h2,
    identify::{check_roles, identify},
    path,
    route::{Match, Route},
    sticky,
    target::{host_of, new_target},
    ticket::{Outgoing, Ticket},
    trace::Trace,
};
use http::{
    HeaderMap, HeaderValue, Request, Response, StatusCode, Uri, Version, header, request::Parts,
};
use http1::{Refusal, asks_for_h2c};
use protocol::{Code, Problem};
use soa::{Body, HostHeader, Inbound, Inflow, InflowFailure, LocalBody, Reply};
use std::{
    borrow::Cow,
    net::IpAddr,
    rc::Rc,
    sync::{Arc, atomic::Ordering},
};
use traffic_cop::{
    analytics::RouteId,
    limit::{Decision, Subject},
};
use types::Caller;

/// Answers one request of a connection. `body`: what follows its head, if anything does.
pub(crate) async fn serve(
    conn: Rc<Conn>,
    head: Box<Parts>,
    body: Option<LocalBody>,
) -> Response<Outgoing> {
    let mut ticket = Ticket::new(Rc::clone(&conn));
    let noted = Noted::of(&head.headers);
    let trace = Trace::new(&conn, noted.traceparent.as_ref());
    let id = trace.id.clone();
    let is_h2 = head.version == Version::HTTP_2;
    let switching = head.extensions.get::<Upgrade>().is_some();
    let asked = Asked { trace, noted, switching, client: None };
    let mut answer = match handle(&conn, head, body, asked, &mut ticket).await {
        Ok(answer) => answer,
        Err(problem) => refused(&problem),
    };
    let switches = answer.status() == StatusCode::SWITCHING_PROTOCOLS;
    // No byte after the head was read, so what follows cannot be told apart.
    let unread = switching && !switches;
    let broken = ticket.inflow.as_ref().is_some_and(|inflow| inflow.failure().is_some());
    let leaving = !switches && conn.core.node.leaving.load(Ordering::Relaxed);
    if !is_h2 && (unread || broken || leaving) {
        answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    sealed(answer, id, ticket, is_h2)
}

/// Answers bytes that are no request.
pub(crate) fn refuse(conn: &Rc<Conn>, refusal: Refusal) -> Response<Outgoing> {
    let mut ticket = Ticket::new(Rc::clone(conn));
    ticket.route = conn.core.node.misframed;
    let id = Trace::new(conn, None).id;
    sealed(refused(&refusal.problem()), id, ticket, false)
}

fn sealed(
    mut answer: Response<Body>,
    id: HeaderValue,
    mut ticket: Ticket,
    is_h2: bool,
) -> Response<Outgoing> {
    answer.headers_mut().insert(fields::REQUEST_ID, id);
    ticket.status = answer.status().as_u16();
    answer.map(|body| Outgoing::new(body, ticket, is_h2))
}

fn refused(problem: &Problem) -> Response<Body> {
    problem.to_response().map(Body::from)
}

/// What one look at a request's header fields found.
#[derive(Default)]
struct Noted {
    host: Option<HeaderValue>,
    traceparent: Option<HeaderValue>,
    tracestate: bool,
    /// Zero without `Content-Length`; the largest number there is if it is malformed.
    length: u64,
}

impl Noted {
    fn of(headers: &HeaderMap) -> Self {
        let mut noted = Self::default();
        for (name, value) in headers {
            if *name == header::HOST {
                noted.host.get_or_insert_with(|| value.clone());
            } else if *name == header::CONTENT_LENGTH {
                let length = value.to_str().ok().and_then(|length| length.parse().ok());
                noted.length = length.unwrap_or(u64::MAX);
            } else if *name == fields::TRACEPARENT {
                noted.traceparent.get_or_insert_with(|| value.clone());
            } else if *name == fields::TRACESTATE {
                noted.tracestate = true;
            }
        }
        noted
    }
}

/// What is known of a request besides the request.
struct Asked {
    trace: Trace,
    noted: Noted,
    /// It asks for another protocol.
    switching: bool,
    /// Whom a trusted proxy speaks for.
    client: Option<Box<Client>>,
}

impl Asked {
    /// The address of whoever asks.
    fn ip(&self, conn: &Conn) -> IpAddr {
        self.client.as_ref().map_or(conn.ip, |client| client.ip)
    }

    /// The same, as services are told it.
    fn address<'a>(&'a self, conn: &'a Conn) -> &'a HeaderValue {
        self.client.as_ref().map_or(&conn.forwarded_for, |client| &client.address)
    }
}

/// The protocol that a request asks for which asks for another one.
fn protocol_asked(headers: &HeaderMap) -> Option<HeaderValue> {
    let mut asked = headers.get_all(header::UPGRADE).iter();
    asked.find(|value| !asks_for_h2c(value.as_bytes())).cloned()
}

async fn handle(
    conn: &Conn,
    mut head: Box<Parts>,
    body: Option<LocalBody>,
    mut asked: Asked,
    ticket: &mut Ticket,
) -> Result<Response<Body>, Problem> {
    let core = &conn.core;
    let is_h2 = head.version == Version::HTTP_2;
    let chosen = {
        let snapshot = core.snapshot();
        if is_h2 {
            asked.noted.host = Some(h2::check(&mut head, snapshot.config.target_bytes_max)?);
        }
        asked.client = conn.client(&snapshot.config.trusted_proxies, &head.headers);
        choose(conn, &snapshot, asked.noted.host.as_ref(), &head)?
    };
    let (route, target) = match chosen {
        Chosen::Mount(mounted) => {
            let request = Request::from_parts(*head, inbound(body, u64::MAX, ticket));
            return Box::pin(mount(conn, mounted, request, asked, ticket)).await;
        }
        Chosen::Route(route, target) => (route, target),
    };
    ticket.route = route.id;
    let Some(cors) = &route.cors else {
        return forward(conn, &route, target, head, body, asked, ticket).await;
    };
    if preflight_method(&head.method, &head.headers).is_some() {
        return Ok(cors.preflight(&head.headers));
    }
    let granted = cors.grant(&head.headers);
    let answer = Box::pin(forward(conn, &route, target, head, body, asked, ticket)).await;
    let mut answer = answer.unwrap_or_else(|problem| refused(&problem));
    granted.mark(answer.headers_mut());
    Ok(answer)
}

/// Identifies, charges, and calls the service.
async fn forward(
    conn: &Conn,
    route: &Route,
    target: Option<Uri>,
    mut head: Box<Parts>,
    body: Option<LocalBody>,
    asked: Asked,
    ticket: &mut Ticket,
) -> Result<Response<Body>, Problem> {
    let core = &conn.core;
    let is_h2 = head.version == Version::HTTP_2;
    check_length(asked.noted.length, route.body_bytes_max)?;
    let caller = identify(conn, route.auth, &head.headers, asked.client.is_none()).await?;
    ticket.caller.clone_from(&caller);
    check_roles(caller.as_deref(), &route.roles)?;
    let decision = charge(conn, route.id, &route.name, asked.ip(conn), caller.as_ref());
    let mut decision = settled(conn, decision).await;
    if let Some(decision) = &decision
        && !decision.allowed()
    {
        return Ok(limited(decision));
    }
    ticket.owing = decision.as_ref().and_then(Decision::owing);
    let key = sticky::key(asked.address(conn), &route.service, &head, caller.as_deref());
    let client = if asked.switching { head.extensions.remove::<Upgrade>() } else { None };
    fit(conn, &mut head.headers, asked, caller.as_ref(), route);
    if let Some(target) = target {
        head.uri = target;
    }
    head.version = Version::HTTP_11;
    let body = inbound(body, route.body_bytes_max, ticket);
    let late = conn.late(route.timeout, is_h2);
    let reply = core.pool.call(&route.service, head, body, key, late).await;
    let mut answer = match reply {
        Ok(Reply::Answer(mut answer)) => {
            route.response_edit.apply(answer.headers_mut());
            answer
        }
        Ok(Reply::Switched(head, tunnel)) => switched(conn, head, tunnel, client),
        Err(error) => return Err(failed(conn, ticket, &error)),
    };
    if let Some(decision) = &mut decision {
        if let Some(owing) = &mut ticket.owing {
            owing.answered(&conn.core.node.clock, answer.headers_mut(), decision);
        }
        decision.write_headers(answer.headers_mut());
    }
    Ok(answer)
}

/// Who answers a request.
enum Chosen<'a> {
    Mount(&'a Mounted),
    /// A route, and the target to send on if it is not the one that came.
    Route(Arc<Route>, Option<Uri>),
}

fn choose<'a>(
    conn: &'a Conn,
    snapshot: &Snapshot,
    host: Option<&HeaderValue>,
    head: &Parts,
) -> Result<Chosen<'a>, Problem> {
    let normal = path::normalise(head.uri.path())
        .map_err(|path::Ambiguous(detail)| Problem::new(Code::BadRequest, detail))?;
    let path = path::without_parameters(&normal);
    if let Some(mounted) = conn.core.mounts.iter().find(|mounted| mounted.point.takes(&path)) {
        return Ok(Chosen::Mount(mounted));
    }
    let host = host_of(host);
    let find = |method| snapshot.table.find(&host, &path, method, head.uri.query(), &head.headers);
    let mut found = find(&head.method);
    // A browser that asks before it sends is answered by the route that it asks about.
    if let Some(method) = preflight_method(&head.method, &head.headers)
        && let Match::Route(about) = find(&method)
        && about.cors.is_some()
    {
        found = Match::Route(about);
    }
    match found {
        Match::Route(route) => {
            let changed = matches!(normal, Cow::Owned(_));
            let target = new_target(route, &normal, changed, &head.uri)?;
            Ok(Chosen::Route(Arc::clone(route), target))
        }
        Match::Method => {
            let detail = "no route takes this method on this path";
            Err(Problem::new(Code::MethodNotAllowed, detail))
        }
        Match::None => Err(Problem::new(Code::NoRoute, "no route takes this request")),
    }
}

fn check_length(length: u64, bytes_max: u64) -> Result<(), Problem> {
    if length <= bytes_max { Ok(()) } else { Err(too_large()) }
}

fn too_large() -> Problem {
    Problem::new(Code::BodyTooLarge, "the body is larger than allowed")
}

/// The decision, once another node that counts the limit has been asked if that is needed.
async fn settled(conn: &Conn, decision: Option<Decision>) -> Option<Decision> {
    match decision {
        Some(open) if open.is_open() => {
            // Kept small for those who need not wait.
            Some(Box::pin(open.settle(&conn.core.node.clock, 1)).await)
        }
        decided => decided,
    }
}

/// Charges the limits that apply; none if there are none. Worked out once for each caller and
/// route of a connection.
fn charge(
    conn: &Conn,
    route: RouteId,
    name: &str,
    ip: IpAddr,
    caller: Option<&Arc<Caller>>,
) -> Option<Decision> {
    let limits = &conn.core.node.limits;
    let generation = limits.generation();
    let known = &mut conn.known.borrow_mut().charge;
    let same = known.as_ref().is_some_and(|known| {
        known.generation == generation
            && known.route == route
            && known.ip == ip
            && match (&known.caller, caller) {
                (None, None) => true,
                (Some(known), Some(caller)) => Arc::ptr_eq(known, caller),
                (Some(_), None) | (None, Some(_)) => false,
            }
    });
    if !same {
        *known = None;
    }
    let known = known.get_or_insert_with(|| {
        let subject = Subject {
            tenant: caller.map(|caller| &caller.tenant),
            principal: caller.map(|caller| &caller.principal),
            session: caller.and_then(|caller| caller.session),
            ip,
            route: name,
        };
        let charge = limits.resolve(&subject);
        KnownCharge { generation, caller: caller.cloned(), route, ip, charge }
    });
    if known.charge.is_empty() {
        return None;
    }
    Some(known.charge.take_by(&conn.core.node.clock, 1))
}

fn limited(decision: &Decision) -> Response<Body> {
    let mut answer = refused(&decision.problem());
    decision.write_headers(answer.headers_mut());
    answer
}

/// Makes the header fields fit for a service.
fn fit(
    conn: &Conn,
    headers: &mut HeaderMap,
    asked: Asked,
    caller: Option<&Arc<Caller>>,
    route: &Route,
) {
    let service = route.service.config();
    let address = asked.address(conn).clone();
    let Asked { trace, noted, switching, client } = asked;
    let (proto, host) = client.map_or((None, None), |client| (client.proto, client.host));
    let protocol = if switching { protocol_asked(headers) } else { None };
    soa::strip_hop_by_hop(headers);
    fields::strip_claims(headers, service.forward_credentials);
    if noted.tracestate && !trace.continued {
        headers.remove(fields::TRACESTATE);
    }
    route.request_edit.apply(headers);
    // One growth instead of several.
    headers.reserve(10);
    headers.insert(fields::TRACEPARENT, trace.parent);
    headers.insert(fields::REQUEST_ID, trace.id);
    headers.insert(fields::FORWARDED_FOR, address);
    headers.insert(fields::FORWARDED_PROTO, proto.unwrap_or_else(|| conn.scheme.clone()));
    // Otherwise it is in `Host` already.
    if let Some(host) = host.or(noted.host.filter(|_| service.host == HostHeader::Instance)) {
        headers.insert(fields::FORWARDED_HOST, host);
    }
    if let Some(caller) = caller {
        caller_fields(conn, caller).write(headers);
    }
    if let Some(protocol) = protocol {
        headers.insert(header::UPGRADE, protocol);
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    }
}

fn caller_fields(conn: &Conn, caller: &Arc<Caller>) -> Rc<CallerFields> {
    let known = &mut conn.known.borrow_mut().caller;
    if let Some((known, fields)) = known
        && Arc::ptr_eq(known, caller)
    {
        return Rc::clone(fields);
    }
    let fields = Rc::new(CallerFields::new(caller));
    *known = Some((Arc::clone(caller), Rc::clone(&fields)));
    fields
}

fn inbound(body: Option<LocalBody>, bytes_max: u64, ticket: &mut Ticket) -> Body {
    let Some(body) = body else { return Body::Empty };
    let inflow = Rc::new(Inflow::default());
    ticket.inflow = Some(Rc::clone(&inflow));
    Body::Inbound(Inbound::new(body, bytes_max, inflow))
}

/// What the client is told when a call fails: its own fault before the service's.
fn failed(conn: &Conn, ticket: &Ticket, error: &soa::Error) -> Problem {
    match ticket.inflow.as_ref().and_then(|inflow| inflow.failure()) {
        Some(InflowFailure::TooLarge) => too_large(),
        Some(InflowFailure::Broken) => {
            let refusal = conn.watch.refusal();
            refusal.unwrap_or_else(|| Refusal::framing("the body ended early")).problem()
        }
        None => {
            tracing::debug!(error = error as &dyn std::error::Error, "call");
            error.problem()
        }
    }
}

/// Lets the bytes flow once the client has its `101`.
fn switched(
    conn: &Conn,
    head: Response<()>,
    tunnel: soa::Tunnel,
    client: Option<Upgrade>,
) -> Response<Body> {
    let (mut parts, ()) = head.into_parts();
    let protocol = parts.headers.get(header::UPGRADE).cloned();
    soa::strip_hop_by_hop(&mut parts.headers);
    if let Some(protocol) = protocol {
        parts.headers.insert(header::UPGRADE, protocol);
    }
    parts.headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    let idle_timeout = conn.core.snapshot().config.tunnel_idle_timeout;
    let mut cut = conn.core.cut.clone();
    if let Some(client) = client {
        tokio::task::spawn_local(async move {
            let carried = async {
                let socket = client.socket().await?;
                let _permit = socket.permit;
                soa::splice(socket.stream, &socket.early, tunnel, idle_timeout).await.ok()
            };
            tokio::select! {
                carried = carried => tracing::debug!(?carried, "tunnel ended"),
                _ = cut.wait_for(|cut| *cut) => {}
            }
        });
    }
    Response::from_parts(parts, Body::Empty)
}

async fn mount(
    conn: &Conn,
    mounted: &Mounted,
    mut request: Request<Body>,
    asked: Asked,
    ticket: &mut Ticket,
) -> Result<Response<Body>, Problem> {
    let point = &mounted.point;
    ticket.route = mounted.route;
    check_length(asked.noted.length, point.body_bytes_max)?;
    let caller = identify(conn, point.auth, request.headers(), asked.client.is_none()).await?;
    ticket.caller.clone_from(&caller);
    let ip = asked.ip(conn);
    let decision = charge(conn, mounted.route, point.name, ip, caller.as_ref());
    let mut decision = settled(conn, decision).await;
    if let Some(decision) = &decision
        && !decision.allowed()
    {
        return Ok(limited(decision));
    }
    ticket.owing = decision.as_ref().and_then(Decision::owing);
    fields::strip_claims(request.headers_mut(), true);
    request.headers_mut().insert(fields::TRACEPARENT, asked.trace.parent);
    request.headers_mut().insert(fields::REQUEST_ID, asked.trace.id);
    request.extensions_mut().insert(ip.to_canonical());
    if let Some(caller) = caller {
        request.extensions_mut().insert(caller);
    }
    let mut answer = point.mount.call(request).await;
    if let Some(decision) = &mut decision {
        if let Some(owing) = &mut ticket.owing {
            owing.answered(&conn.core.node.clock, answer.headers_mut(), decision);
        }
        decision.write_headers(answer.headers_mut());
    }
    Ok(answer)
}

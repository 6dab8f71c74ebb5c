//! One request and its answer.

use crate::{
    bridged::{self, Call},
    charge::{self, charge, settled},
    config::Auth,
    connection::Conn,
    core::{Mounted, Snapshot},
    cors::preflight_method,
    fields,
    forward::forward,
    forwarded::Client,
    grpc::Form,
    h1::Upgrade,
    h2,
    identify::identify,
    path,
    route::{Match, Route, Whose},
    target::{Target, host_of},
    ticket::{Outgoing, Ticket},
    trace::Trace,
};
use http::{
    HeaderMap, HeaderValue, Request, Response, StatusCode, Version, header, request::Parts,
};
use http1::Refusal;
use protocol::{Code, Problem};
use soa::{Body, Inbound, Inflow, LocalBody};
use std::{
    borrow::Cow,
    net::IpAddr,
    rc::Rc,
    sync::{Arc, atomic::Ordering},
};

/// Answers one request of a connection. `body`: what follows its head, if anything does.
pub(crate) async fn serve(
    conn: Rc<Conn>,
    head: Box<Parts>,
    body: Option<LocalBody>,
) -> Response<Outgoing> {
    let noted = Noted::of(&head.headers);
    let trace = Trace::new(&conn, noted.traceparent.as_ref());
    let mut ticket = Box::new(Ticket::new(Rc::clone(&conn), trace));
    ticket.asked = head.uri.path_and_query().map(|target| (head.method.clone(), target.clone()));
    let is_h2 = head.version == Version::HTTP_2;
    let switching = head.extensions.get::<Upgrade>().is_some();
    let form = if is_h2 { Form::of(&head) } else { Form::Http };
    let mut asked = Asked { noted, switching, form, client: None, call: None };
    let mut answer = match handle(&conn, head, body, &mut asked, &mut ticket).await {
        Ok(answer) => answer,
        Err(problem) => ticket.refused(&problem, form),
    };
    let switches = answer.status() == StatusCode::SWITCHING_PROTOCOLS;
    // No byte after the head was read, so what follows cannot be told apart.
    let unread = switching && !switches;
    let broken = ticket.inflow.as_ref().is_some_and(|inflow| inflow.failure().is_some());
    let leaving = !switches && conn.core.node.leaving.load(Ordering::Relaxed);
    if !is_h2 && (unread || broken || leaving) {
        answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    sealed(answer, ticket, is_h2, form)
}

/// Answers bytes that are no request.
pub(crate) fn refuse(conn: &Rc<Conn>, refusal: Refusal) -> Response<Outgoing> {
    let trace = Trace::new(conn, None);
    let mut ticket = Box::new(Ticket::new(Rc::clone(conn), trace));
    ticket.route = conn.core.node.misframed;
    let answer = ticket.refused(&refusal.problem(), Form::Http);
    sealed(answer, ticket, false, Form::Http)
}

fn sealed(
    mut answer: Response<Body>,
    mut ticket: Box<Ticket>,
    is_h2: bool,
    form: Form,
) -> Response<Outgoing> {
    ticket.answered(answer.headers_mut());
    if is_h2 {
        // By HTTP/1 they are written beside the others.
        ticket.fields(|name, value| {
            if let Ok(value) = HeaderValue::from_bytes(value) {
                answer.headers_mut().insert(name, value);
            }
        });
    }
    ticket.status = form.counted(&answer);
    answer.map(|body| Outgoing::new(body, ticket, is_h2, form))
}

pub(crate) fn refused(problem: &Problem) -> Response<Body> {
    problem.to_response().map(Body::from)
}

/// What one look at a request's header fields found.
#[derive(Default)]
pub(crate) struct Noted {
    pub(crate) host: Option<HeaderValue>,
    pub(crate) traceparent: Option<HeaderValue>,
    pub(crate) tracestate: bool,
    pub(crate) timeout: Option<HeaderValue>,
    pub(crate) explain: bool,
    /// One of the fields came by which calls between services say what they want.
    pub(crate) wishes: bool,
    /// Zero without `Content-Length`; the largest number there is if it is malformed.
    pub(crate) length: u64,
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
            } else if *name == soa::TIMEOUT {
                noted.timeout.get_or_insert_with(|| value.clone());
            } else if *name == fields::EXPLAIN {
                noted.explain = true;
            } else if bridged::is_wish(name) {
                noted.wishes = true;
            }
        }
        noted
    }
}

/// What is known of a request besides the request.
pub(crate) struct Asked {
    pub(crate) noted: Noted,
    /// It asks for another protocol.
    pub(crate) switching: bool,
    /// How errors are told.
    pub(crate) form: Form,
    /// Whom a trusted proxy speaks for.
    pub(crate) client: Option<Box<Client>>,
    /// Of a call between services: who calls, and for whom.
    pub(crate) call: Option<Call>,
}

impl Asked {
    /// The address of whoever asks.
    pub(crate) fn ip(&self, conn: &Conn) -> IpAddr {
        self.client.as_ref().map_or(conn.ip, |client| client.ip)
    }

    /// The same, as services are told it.
    pub(crate) fn address<'a>(&'a self, conn: &'a Conn) -> &'a HeaderValue {
        self.client.as_ref().map_or(&conn.forwarded_for, |client| &client.address)
    }
}

async fn handle(
    conn: &Conn,
    mut head: Box<Parts>,
    body: Option<LocalBody>,
    asked: &mut Asked,
    ticket: &mut Ticket,
) -> Result<Response<Body>, Problem> {
    let core = &conn.core;
    let is_h2 = head.version == Version::HTTP_2;
    ticket.trial = core.trial();
    let chosen = {
        let in_force = core.snapshot();
        let snapshot = ticket.tried().map_or(&*in_force, |tried| tried);
        if is_h2 {
            asked.noted.host = Some(h2::check(&mut head, snapshot.config.target_bytes_max)?);
        }
        asked.client = conn.client(&snapshot.config.trusted_proxies, &head.headers);
        choose(conn, snapshot, asked.noted.host.as_ref(), &head, Whose::Unknown)?
    };
    let chosen = match chosen {
        Chosen::ByTenant => {
            // Kept small for those whose route does not depend on it.
            let caller =
                Box::pin(identify(conn, Auth::Optional, &head.headers, asked.client.is_none()))
                    .await?;
            let whose = Whose::Known(caller.as_ref().map(|caller| &caller.tenant));
            let in_force = core.snapshot();
            let snapshot = ticket.tried().map_or(&*in_force, |tried| tried);
            choose(conn, snapshot, asked.noted.host.as_ref(), &head, whose)?
        }
        chosen @ (Chosen::Mount(_) | Chosen::Route(..) | Chosen::Call(_)) => chosen,
    };
    let (route, target) = match chosen {
        Chosen::Mount(mounted) => {
            // What the platform answers itself says nothing of routes.
            ticket.trial = None;
            let request = Request::from_parts(*head, inbound(body, u64::MAX, ticket));
            return Box::pin(mount(conn, mounted, request, asked, ticket)).await;
        }
        Chosen::Route(route, target) => (route, target),
        Chosen::Call(path) => {
            let parties = match bridged::known_parties(conn, &head, asked) {
                Some(known) => known,
                // Kept small for those who are known, or call no service.
                None => Box::pin(bridged::parties(conn, &head, asked, ticket)).await?,
            };
            let (route, target, call) =
                bridged::look_up(conn, &head, path, asked, ticket, parties)?;
            asked.call = Some(call);
            (route, target)
        }
        Chosen::ByTenant => return Err(no_route()),
    };
    ticket.route = route.id;
    ticket.endpoint.clone_from(&route.endpoint);
    let Some(cors) = &route.cors else {
        return forward(conn, &route, target, head, body, asked, ticket).await;
    };
    if preflight_method(&head.method, &head.headers).is_some() {
        return Ok(cors.preflight(&head.headers));
    }
    let (granted, form) = (cors.grant(&head.headers), asked.form);
    let answer = Box::pin(forward(conn, &route, target, head, body, asked, ticket)).await;
    let mut answer = answer.unwrap_or_else(|problem| ticket.refused(&problem, form));
    granted.mark(answer.headers_mut());
    Ok(answer)
}

/// Who answers a request.
enum Chosen<'a> {
    Mount(&'a Mounted),
    /// A route, and what its service is asked for.
    Route(Arc<Route>, Target),
    /// A service, which another one calls: by the path normalised, if it came otherwise.
    Call(Option<String>),
    /// It depends on whose request it is.
    ByTenant,
}

fn choose<'a>(
    conn: &'a Conn,
    snapshot: &Snapshot,
    host: Option<&HeaderValue>,
    head: &Parts,
    whose: Whose<'_>,
) -> Result<Chosen<'a>, Problem> {
    let normal = path::normalise(head.uri.path())
        .map_err(|path::Ambiguous(detail)| Problem::new(Code::BadRequest, detail))?;
    let path = path::without_parameters(&normal);
    if let Some(mounted) = conn.core.mounts.iter().find(|mounted| mounted.point.takes(&path)) {
        if !bridged::is_call(&path) {
            return Ok(Chosen::Mount(mounted));
        }
        return Ok(Chosen::Call(match normal {
            Cow::Borrowed(_) => None,
            Cow::Owned(path) => Some(path),
        }));
    }
    let host = host_of(host);
    let (query, headers) = (head.uri.query(), &head.headers);
    let find = |method| snapshot.table.find(&host, &path, method, query, headers, whose);
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
            let target = Target::of(route, &normal, &head.uri)?;
            Ok(Chosen::Route(Arc::clone(route), target))
        }
        Match::Method(others) => {
            let detail = "no route takes this method on this path";
            Err(Problem::method_not_allowed(detail, &others))
        }
        Match::Tenant => Ok(Chosen::ByTenant),
        Match::None => Err(no_route()),
    }
}

fn no_route() -> Problem {
    Problem::new(Code::NoRoute, "no route takes this request")
}

pub(crate) fn check_length(length: u64, bytes_max: u64) -> Result<(), Problem> {
    if length <= bytes_max { Ok(()) } else { Err(too_large()) }
}

pub(crate) fn too_large() -> Problem {
    Problem::new(Code::BodyTooLarge, "the body is larger than allowed")
}

pub(crate) fn inbound(body: Option<LocalBody>, bytes_max: u64, ticket: &mut Ticket) -> Body {
    let Some(body) = body else { return Body::Empty };
    let inflow = Rc::new(Inflow::default());
    ticket.inflow = Some(Rc::clone(&inflow));
    Body::Inbound(Inbound::new(body, bytes_max, inflow))
}

async fn mount(
    conn: &Conn,
    mounted: &Mounted,
    mut request: Request<Body>,
    asked: &Asked,
    ticket: &mut Ticket,
) -> Result<Response<Body>, Problem> {
    let point = &mounted.point;
    ticket.route = mounted.route;
    if let Some(priority) = point.priority {
        conn.core.load.admit(ticket.started, priority, || conn.core.random())?;
    }
    check_length(asked.noted.length, point.body_bytes_max)?;
    let caller = identify(conn, point.auth, request.headers(), asked.client.is_none()).await?;
    ticket.caller.clone_from(&caller);
    let ip = asked.ip(conn);
    let decision = charge(conn, mounted.route, point.name, ip, caller.as_ref());
    charge::admit(settled(conn, decision).await, ticket)?;
    fields::strip_claims(request.headers_mut(), true);
    request.headers_mut().insert(fields::TRACEPARENT, ticket.trace.parent.clone());
    request.headers_mut().insert(fields::REQUEST_ID, ticket.trace.id.clone());
    request.extensions_mut().insert(ip.to_canonical());
    if let Some(caller) = caller {
        request.extensions_mut().insert(caller);
    }
    Ok(point.mount.call(request).await)
}

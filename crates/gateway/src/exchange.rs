//! One request and its answer.

use crate::{
    config::Auth,
    connection::{Conn, KnownCharge},
    core::{Mounted, Snapshot},
    fields::{self, CallerFields},
    h1::Upgrade,
    path,
    route::{Match, Route},
    sticky,
    ticket::{Outgoing, Ticket},
};
use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version, header,
    request::Parts, uri::PathAndQuery,
};
use http1::{FIELDS_MAX, Refusal, asks_for_h2c, is_authority};
use memchr::memchr;
use protocol::{Code, Problem};
use soa::{Body, HostHeader, Inbound, Inflow, InflowFailure, LocalBody, Reply, ServiceConfig};
use std::{
    borrow::Cow,
    rc::Rc,
    sync::{Arc, atomic::Ordering},
};
use traffic_cop::{
    analytics::RouteId,
    identity::Identity,
    limit::{Decision, Subject},
};
use types::{Caller, Role};

/// Credentials of one core that the control plane may be checking at once; beyond it,
/// `503 overloaded`.
const IDENTIFYING_MAX: usize = 256;

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
    let switching = noted.upgrade && asks_to_switch(&head);
    let asked = Asked { trace, noted, switching };
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

/// What identifies the request in logs: our span of the W3C trace.
struct Trace {
    id: HeaderValue,
    parent: HeaderValue,
    /// Whether the client began the trace, so that its `tracestate` goes with it.
    continued: bool,
}

impl Trace {
    fn new(conn: &Conn, traceparent: Option<&HeaderValue>) -> Self {
        let begun =
            traceparent.and_then(|value| value.to_str().ok()).filter(|value| is_traceparent(value));
        let core = &conn.core;
        let mut text = *b"00-................................-................-00";
        match begun {
            Some(begun) => text.copy_from_slice(begun.as_bytes()),
            None => {
                text[3..19].copy_from_slice(&hex(core.random() | 1));
                text[19..35].copy_from_slice(&hex(core.random()));
            }
        }
        // Nonzero, as the trace context wants ids to be.
        text[36..52].copy_from_slice(&hex(core.random() | 1));
        let value = |bytes| HeaderValue::from_bytes(bytes).expect("it is visible ASCII");
        Self { id: value(&text[36..52]), parent: value(&text), continued: begun.is_some() }
    }
}

/// Sixteen lowercase digits: each nibble in a byte of its own, then all turned into letters at
/// once.
fn hex(number: u64) -> [u8; 16] {
    let mut spread = u128::from(number);
    for (shift, mask) in [
        (32, 0x0000_0000_ffff_ffff_0000_0000_ffff_ffff),
        (16, 0x0000_ffff_0000_ffff_0000_ffff_0000_ffff),
        (8, 0x00ff_00ff_00ff_00ff_00ff_00ff_00ff_00ff),
        (4, 0x0f0f_0f0f_0f0f_0f0f_0f0f_0f0f_0f0f_0f0f_u128),
    ] {
        spread = (spread | (spread << shift)) & mask;
    }
    const ONES: u128 = 0x0101_0101_0101_0101_0101_0101_0101_0101;
    // A nibble above nine carries into the bit of sixteen when six is added.
    let letters = ((spread + 6 * ONES) >> 4) & ONES;
    (spread + u128::from(b'0') * ONES + letters * u128::from(b'a' - b'0' - 10)).to_be_bytes()
}

/// Version 00 of the trace context, in lowercase and without a zero id.
fn is_traceparent(text: &str) -> bool {
    let bytes = text.as_bytes();
    let hex = |range: std::ops::Range<usize>| {
        bytes[range].iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    };
    let zero = |range: std::ops::Range<usize>| bytes[range].iter().all(|byte| *byte == b'0');
    bytes.len() == 55
        && bytes.starts_with(b"00-")
        && hex(3..35)
        && !zero(3..35)
        && bytes[35] == b'-'
        && hex(36..52)
        && !zero(36..52)
        && bytes[52] == b'-'
        && hex(53..55)
}

/// What one look at a request's header fields found.
#[derive(Default)]
struct Noted {
    host: Option<HeaderValue>,
    traceparent: Option<HeaderValue>,
    tracestate: bool,
    upgrade: bool,
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
            } else if *name == header::UPGRADE {
                noted.upgrade = true;
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
}

/// Whether nothing behind the request's head may be read.
fn asks_to_switch(head: &Parts) -> bool {
    head.version == Version::HTTP_11 && protocol_asked(&head.headers).is_some()
}

fn protocol_asked(headers: &HeaderMap) -> Option<HeaderValue> {
    let listed = headers.get_all(header::CONNECTION).iter().any(|value| {
        value
            .as_bytes()
            .split(|byte| *byte == b',')
            .any(|item| item.trim_ascii().eq_ignore_ascii_case(b"upgrade"))
    });
    let mut asked = headers.get_all(header::UPGRADE).iter();
    asked.find(|value| listed && !asks_for_h2c(value.as_bytes())).cloned()
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
            asked.noted.host = Some(check_h2(&mut head, snapshot.config.target_bytes_max)?);
        }
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
    check_length(asked.noted.length, route.body_bytes_max)?;
    let caller = identify(conn, route.auth, &head.headers).await?;
    ticket.caller.clone_from(&caller);
    check_roles(caller.as_deref(), &route.roles)?;
    let decision = charge(conn, route.id, &route.name, caller.as_ref());
    let mut decision = settled(conn, decision).await;
    if let Some(decision) = &decision
        && !decision.allowed()
    {
        return Ok(limited(decision));
    }
    ticket.owing = decision.as_ref().and_then(Decision::owing);
    let key = sticky::key(conn, &route.service, &head, caller.as_deref());
    let client = if asked.switching { head.extensions.remove::<Upgrade>() } else { None };
    fit(conn, &mut head.headers, asked, caller.as_ref(), route.service.config());
    if let Some(target) = target {
        head.uri = target;
    }
    head.version = Version::HTTP_11;
    let body = inbound(body, route.body_bytes_max, ticket);
    let late = conn.late(route.timeout, is_h2);
    let reply = core.pool.call(&route.service, head, body, key, late).await;
    let mut answer = match reply {
        Ok(Reply::Answer(answer)) => answer,
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
    match snapshot.table.find(&host, &path, &head.method, &head.headers) {
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

/// What HTTP/2 allows and we, or HTTP/1.1, do not. Gives the host, which is also set.
fn check_h2(head: &mut Parts, target_bytes_max: usize) -> Result<HeaderValue, Problem> {
    let refuse = |code, detail| Err(Refusal::new(code, detail).problem());
    if matches!(head.method, Method::CONNECT | Method::TRACE) {
        return refuse(Code::MethodNotAllowed, "the method is not answered here");
    }
    let uri = &head.uri;
    if uri.path_and_query().is_some_and(|target| target.as_str().len() > target_bytes_max) {
        return refuse(Code::UriTooLong, "the request target is longer than allowed");
    }
    if head.headers.len() > FIELDS_MAX {
        return refuse(Code::HeadersTooLarge, "there are more header fields than allowed");
    }
    let expects = head.headers.get(header::EXPECT);
    if expects.is_some_and(|value| !value.as_bytes().eq_ignore_ascii_case(b"100-continue")) {
        let detail = "the only expectation understood is `100-continue`";
        return refuse(Code::ExpectationFailed, detail);
    }
    let authority = uri.authority().map(|authority| authority.as_str().to_owned());
    let mut hosts = head.headers.get_all(header::HOST).iter();
    let (host, more) = (hosts.next().cloned(), hosts.next().is_some());
    let host = match (authority, host, more) {
        (_, _, true) | (None, None, _) => {
            return refuse(Code::BadFraming, "a request has one host");
        }
        (Some(authority), Some(host), _)
            if !authority.as_bytes().eq_ignore_ascii_case(host.as_bytes()) =>
        {
            return refuse(Code::BadFraming, "`:authority` and `host` name two hosts");
        }
        (Some(authority), _, _) => HeaderValue::from_str(&authority).ok(),
        (None, host, _) => host,
    };
    let Some(host) = host.filter(|host| is_authority(host.as_bytes())) else {
        return refuse(Code::BadFraming, "the host is malformed");
    };
    head.headers.insert(header::HOST, host.clone());
    join_cookies(&mut head.headers);
    Ok(host)
}

/// HTTP/2 may split `Cookie`; HTTP/1.1 may not (RFC 9113, section 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    if headers.get_all(header::COOKIE).iter().nth(1).is_none() {
        return;
    }
    let crumbs: Vec<&[u8]> =
        headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if let Ok(cookie) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..])) {
        headers.insert(header::COOKIE, cookie);
    }
}

/// The host that routes compare: lowercase, without a port or a final dot.
fn host_of(host: Option<&HeaderValue>) -> Cow<'_, str> {
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
fn new_target(route: &Route, path: &str, changed: bool, uri: &Uri) -> Result<Option<Uri>, Problem> {
    let stripped = if route.stripped == 0 {
        path
    } else {
        // Parameters inside the prefix would be cut in the middle.
        let rest =
            path.get(route.stripped..).filter(|rest| rest.is_empty() || rest.starts_with('/'));
        match rest {
            Some("") => "/",
            Some(rest) if !path[..route.stripped].contains(';') => rest,
            Some(_) | None => {
                let detail = "path parameters inside the route's prefix";
                return Err(Problem::new(Code::BadRequest, detail));
            }
        }
    };
    let same = !changed && route.stripped == 0;
    if same && uri.authority().is_none() {
        return Ok(None);
    }
    let target = match uri.query() {
        _ if same => uri.path_and_query().cloned(),
        Some(query) => PathAndQuery::from_maybe_shared(format!("{stripped}?{query}")).ok(),
        None => PathAndQuery::try_from(stripped).ok(),
    };
    let malformed = || Problem::new(Code::BadRequest, "the request target is malformed");
    target.map(|target| Some(Uri::from(target))).ok_or_else(malformed)
}

fn check_length(length: u64, bytes_max: u64) -> Result<(), Problem> {
    if length <= bytes_max { Ok(()) } else { Err(too_large()) }
}

fn too_large() -> Problem {
    Problem::new(Code::BodyTooLarge, "the body is larger than allowed")
}

async fn identify(
    conn: &Conn,
    auth: Auth,
    headers: &HeaderMap,
) -> Result<Option<Arc<Caller>>, Problem> {
    let core = &conn.core;
    let identity = &core.node.identity;
    match auth {
        Auth::None => return Ok(None),
        Auth::Required | Auth::Optional => {}
    }
    let Some(token) = Identity::credential(headers)? else {
        return match auth {
            Auth::Required => {
                Err(Problem::new(Code::Unauthenticated, "a credential is needed here"))
            }
            Auth::Optional | Auth::None => Ok(identity.anonymous()),
        };
    };
    let epoch = identity.epoch();
    let cached = core.callers.borrow_mut().get(token, epoch, core.node.clock.now());
    if let Some(caller) = cached {
        return Ok(Some(caller));
    }
    let _place = Place::take(&core.identifying)?;
    let token = token.to_owned();
    let asked = core.node.control.spawn(Arc::clone(identity).identify(token.clone()));
    let identified = asked.await.map_err(|error| {
        tracing::error!(%error, "a credential could not be checked");
        Problem::new(Code::Internal, "the credential could not be checked")
    })??;
    core.callers.borrow_mut().insert(token, &identified);
    Ok(Some(identified.caller))
}

/// One of the credentials being checked, for as long as it is held.
struct Place<'a>(&'a std::cell::Cell<usize>);

impl<'a> Place<'a> {
    fn take(count: &'a std::cell::Cell<usize>) -> Result<Self, Problem> {
        if count.get() >= IDENTIFYING_MAX {
            let detail = "too many credentials are being checked";
            return Err(Problem::new(Code::Overloaded, detail)
                .retry_after(std::time::Duration::from_secs(1)));
        }
        count.set(count.get() + 1);
        Ok(Self(count))
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

fn check_roles(caller: Option<&Caller>, roles: &[Role]) -> Result<(), Problem> {
    if roles.is_empty() {
        return Ok(());
    }
    match caller {
        Some(caller) if roles.iter().any(|role| caller.has_role(role.as_str())) => Ok(()),
        Some(_) => Err(Problem::new(Code::Forbidden, "the caller has none of the roles needed")),
        None => Err(Problem::new(Code::Unauthenticated, "a credential is needed here")),
    }
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
    caller: Option<&Arc<Caller>>,
) -> Option<Decision> {
    let limits = &conn.core.node.limits;
    let generation = limits.generation();
    let known = &mut conn.known.borrow_mut().charge;
    let same = known.as_ref().is_some_and(|known| {
        known.generation == generation
            && known.route == route
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
            ip: crate::admission::limited_as(conn.ip),
            route: name,
        };
        let charge = limits.resolve(&subject);
        KnownCharge { generation, caller: caller.cloned(), route, charge }
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
    service: &ServiceConfig,
) {
    let Asked { trace, noted, switching } = asked;
    let protocol = if switching { protocol_asked(headers) } else { None };
    soa::strip_hop_by_hop(headers);
    fields::strip_claims(headers, service.forward_credentials);
    if noted.tracestate && !trace.continued {
        headers.remove(fields::TRACESTATE);
    }
    // One growth instead of several.
    headers.reserve(10);
    headers.insert(fields::TRACEPARENT, trace.parent);
    headers.insert(fields::REQUEST_ID, trace.id);
    headers.insert(fields::FORWARDED_FOR, conn.forwarded_for.clone());
    headers.insert(fields::FORWARDED_PROTO, HeaderValue::from_static("http"));
    // Otherwise it is in `Host` already.
    if let (Some(host), HostHeader::Instance) = (noted.host, service.host) {
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
    let trace = asked.trace;
    let point = &mounted.point;
    ticket.route = mounted.route;
    check_length(asked.noted.length, point.body_bytes_max)?;
    let caller = identify(conn, point.auth, request.headers()).await?;
    ticket.caller.clone_from(&caller);
    let decision = charge(conn, mounted.route, point.name, caller.as_ref());
    let mut decision = settled(conn, decision).await;
    if let Some(decision) = &decision
        && !decision.allowed()
    {
        return Ok(limited(decision));
    }
    ticket.owing = decision.as_ref().and_then(Decision::owing);
    ticket.declared = http_body::Body::size_hint(request.body()).exact().unwrap_or(0);
    fields::strip_claims(request.headers_mut(), true);
    request.headers_mut().insert(fields::TRACEPARENT, trace.parent);
    request.headers_mut().insert(fields::REQUEST_ID, trace.id);
    request.extensions_mut().insert(conn.ip.to_canonical());
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

#[cfg(test)]
mod tests {
    use super::hex;

    #[test]
    fn numbers_are_written_in_sixteen_digits() {
        for number in [0, 1, 9, 10, 0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210, u64::MAX] {
            assert_eq!(hex(number), *format!("{number:016x}").as_bytes());
        }
    }
}

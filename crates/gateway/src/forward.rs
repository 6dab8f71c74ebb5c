//! The way of a request to a service, and of the answer back.

use crate::{
    bridged::{self, Call},
    cache::Scope,
    charge::{self, charge, settled},
    connection::{Conn, KnownAlike},
    content::{Stop, Turn},
    deadline,
    exchange::{Asked, check_length, inbound, too_large},
    explain::{Explanation, Question, explain},
    fields,
    forward_auth::Verdict,
    grpc::Form,
    h1::Upgrade,
    identify::{check_roles, identify, known},
    route::Route,
    sticky::{self, bound_instance},
    target::Target,
    ticket::Ticket,
    trace::Trace,
};
use http::{HeaderMap, HeaderValue, Response, Version, header, request::Parts};
use http_body::Body as _;
use http1::{Refusal, asks_for_h2c};
use protocol::{Code, Problem};
use soa::{
    Added, Alike, Answered, Body, HostHeader, InflowFailure, LocalBody, Reply, Service, Terms, grpc,
};
use std::{rc::Rc, sync::Arc};
use types::Caller;

/// Identifies, charges, and calls the service.
pub(crate) async fn forward(
    conn: &Conn,
    route: &Route,
    target: Target,
    mut head: Box<Parts>,
    body: Option<LocalBody>,
    asked: &mut Asked,
    ticket: &mut Ticket,
) -> Result<Response<Body>, Problem> {
    let core = &conn.core;
    let is_h2 = head.version == Version::HTTP_2;
    let priority = |caller: Option<&Arc<Caller>>| {
        let steering = caller.and_then(|caller| caller.steering.as_ref());
        steering.map_or(route.priority, |steering| route.priority.in_session(steering.priority))
    };
    // Who is not known yet is not asked for then: that would be work, too.
    let known = if core.load.refuses_some() { known(conn, &head.headers) } else { None };
    if let Err(problem) =
        core.load.admit(ticket.started, priority(known.as_ref()), || core.random())
    {
        // It says nothing of a configuration.
        ticket.trial = None;
        return Err(problem);
    }
    check_length(asked.noted.length, route.body_bytes_max)?;
    let form = asked.form;
    let call_timeout = form.timeout(&head.headers)?;
    let patience = deadline::asked(asked.noted.timeout.as_ref())?;
    let patience = patience.into_iter().chain(call_timeout).min();
    let mut caller = match &asked.call {
        Some(call) => Some(Arc::clone(&call.subject)),
        None => identify(conn, route.auth, &head.headers, asked.client.is_none()).await?,
    };
    let mut granted = None;
    if let Some(auth) = route.forward_auth.as_ref().filter(|auth| auth.identity) {
        match Box::pin(auth.ask(conn, &head, asked, &ticket.trace, None)).await? {
            Verdict::Granted(by, fields) => (caller, granted) = (by, Some(fields)),
            Verdict::Refused(answer) => return Ok(answer),
        }
    }
    ticket.caller.clone_from(&caller);
    check_roles(caller.as_deref(), &route.roles)?;
    let decision = charge(conn, route.id, &route.name, asked.ip(conn), caller.as_ref());
    charge::admit(settled(conn, decision).await, ticket)?;
    if let Some(auth) = route.forward_auth.as_ref().filter(|auth| !auth.identity) {
        match Box::pin(auth.ask(conn, &head, asked, &ticket.trace, caller.as_deref())).await? {
            Verdict::Granted(_, fields) => granted = Some(fields),
            Verdict::Refused(answer) => return Ok(answer),
        }
    }
    let mut body_rule = None;
    if let Some(bridged) = &route.bridged {
        let call = asked.call.as_ref();
        let (caller, has_body) = (caller.as_deref(), body.is_some());
        body_rule = bridged.admit(core, call, caller, &head, &target, has_body)?;
    }
    let (backend, mut key) = {
        let address = asked.address(conn);
        let asked = sticky::Asked { address, head: &head, caller: caller.as_deref() };
        let backend = route.backends.choose(&asked, || core.random());
        (backend, sticky::key_of(&asked, &backend.service).map(|key| key.hash()))
    };
    ticket.route = backend.id;
    let bound = caller.as_deref().and_then(|caller| bound_instance(caller, backend.service.name()));
    if let (Some(_), Some(own)) = (bound, sticky::bound_key(caller.as_deref())) {
        key = Some(own.hash());
    }
    let explained = match asked.noted.explain {
        true => explained(conn, ticket, asked, &head, caller.as_ref()),
        false => None,
    };
    if form == Form::Grpc && !backend.service.is_h2() {
        let detail = "the service is not called by HTTP/2, which gRPC needs";
        return Err(Problem::new(Code::NotImplemented, detail));
    }
    let client = if asked.switching { head.extensions.remove::<Upgrade>() } else { None };
    let way = (route, &*backend.service);
    let mut added = fit(conn, &mut head.headers, asked, &ticket.trace, caller.as_ref(), way);
    if route.content.is_some() {
        // Copies and kept answers are told apart by these, too.
        head.headers.extend(std::mem::take(&mut added).iter().cloned());
    }
    if let (Some(auth), Some(said)) = (&route.forward_auth, &granted) {
        auth.tell(&mut head.headers, said);
    }
    let base = match target {
        // Copies and kept answers are told apart by all of it.
        Target::Below(base) if route.content.is_none() => base,
        target @ (Target::Below(_) | Target::Other(_)) => {
            head.uri = target.whole(&head.uri)?;
            0
        }
    };
    head.version = Version::HTTP_11;
    let mut body = inbound(body, route.body_bytes_max, ticket);
    let stopped = |stop, ticket: &Ticket| match stop {
        Stop::Refused(problem) => problem,
        Stop::Body(source) => {
            let service = backend.service.name().to_owned();
            failed(conn, ticket, &soa::Error::Body { service, source })
        }
    };
    if let (Some(bridged), Some(rule)) = (&route.bridged, body_rule)
        && !body.is_end_stream()
    {
        let whole = body.whole().await;
        let bytes = whole.map_err(|source| stopped(Stop::Body(source), ticket))?;
        bridged.hold(core, rule, &bytes)?;
        body = Body::from(bytes);
    }
    if form == Form::Grpc {
        head.headers.insert(header::TE, HeaderValue::from_static("trailers"));
        if let Body::Inbound(inbound) = &mut body {
            inbound.pass_trailers(|name| !fields::is_forbidden_trailer(name));
        }
    }
    let spent = || core.node.clock.elapsed().saturating_sub(ticket.started);
    let terms = Terms {
        key,
        bound: bound.map(Into::into),
        base,
        repeatable: route.idempotent,
        priority: priority(caller.as_ref()),
        answered: Answered::default(),
        timeout: deadline::left(backend.timeout, patience, spent)?,
        added,
    };
    if let Some(call) = call_timeout {
        let left = grpc::timeout_field(call.saturating_sub(spent()));
        head.headers.insert(grpc::TIMEOUT, left);
    }
    let mut pending = None;
    if let Some(content) = &route.content {
        let (service, caller) = (backend.service.name(), caller.as_deref());
        let scope = Scope { route: &route.name, service, caller };
        // Kept small for those who do nothing with bodies.
        let before = Box::pin(content.before(core, &scope, &mut head, body)).await;
        let (turn, known) = before.map_err(|stop| stopped(stop, ticket))?;
        body = match turn {
            Turn::Send(body) => body,
            Turn::Answer(answer) => {
                let patience = backend.timeout;
                let edit = &route.response_edit;
                let after = content.after(core, known, answer, edit, patience);
                let mut answer = Box::pin(after).await?;
                if let Some(bridged) = &route.bridged {
                    answer = bridged.answered(core, answer);
                }
                return Ok(answer);
            }
        };
        pending = Some((content, known));
    }
    // The sweeper looks often enough for the routes' own timeouts only.
    let late = conn.late(terms.timeout, is_h2 || patience.is_some());
    let reply = core.pool.call(&backend.service, head, body, &terms, late).await;
    ticket.instance = terms.answered.take();
    note_stray(conn, ticket, backend.service.name());
    let mut answer = match (reply, pending) {
        (Ok(Reply::Answer(answer)), Some((content, known))) => {
            let patience = backend.timeout;
            let after = content.after(core, known, answer, &route.response_edit, patience);
            Box::pin(after).await?
        }
        (Ok(Reply::Answer(mut answer)), None) => {
            route.response_edit.apply(answer.headers_mut());
            answer
        }
        (Ok(Reply::Switched(head, tunnel)), _) => switched(conn, head, tunnel, client),
        (Err(error), _) => return Err(failed(conn, ticket, &error)),
    };
    if let Some(bridged) = &route.bridged {
        answer = bridged.answered(core, answer);
    }
    if let Some(explained) = explained {
        let answered = ticket.instance.as_ref().map(|instance| instance.authority());
        if let Some(field) = explained.field(backend.service.name(), answered) {
            answer.headers_mut().insert(fields::EXPLAIN, field);
        }
    }
    Ok(answer)
}

/// Tells that another instance answered than the one that the session is bound to.
fn note_stray(conn: &Conn, ticket: &Ticket, service: &str) {
    if let (Some(caller), Some(instance)) = (&ticket.caller, &ticket.instance)
        && let Some(bound) = bound_instance(caller, service)
        && *bound != *instance.authority()
    {
        conn.core.node.witness.strayed(caller, service, bound, instance.authority());
    }
}

/// Which way a request goes, if its caller may know.
fn explained(
    conn: &Conn,
    ticket: &Ticket,
    asked: &Asked,
    head: &Parts,
    caller: Option<&Arc<Caller>>,
) -> Option<Box<Explanation>> {
    let core = &conn.core;
    let caller = caller?;
    let in_force = core.snapshot();
    let snapshot = ticket.tried().map_or(&*in_force, |tried| tried);
    let may = snapshot.config.explain_roles.iter().any(|role| caller.has_role(role.as_str()));
    let question = || Question {
        method: head.method.clone(),
        target: head.uri.clone(),
        headers: head.headers.clone(),
        ip: asked.ip(conn),
        caller: Some(Arc::clone(caller)),
    };
    may.then(|| Box::new(explain(&core.node, snapshot, &question(), core.random())))
}

/// Makes the header fields fit for a service; gives those that come on top, whose names no client
/// and no route may use.
fn fit(
    conn: &Conn,
    headers: &mut HeaderMap,
    asked: &mut Asked,
    trace: &Trace,
    caller: Option<&Arc<Caller>>,
    (route, service): (&Route, &Service),
) -> Added {
    // HTTP/2 has no upgrade: who asks for one is answered as if it had not (RFC 9110, section 7.8).
    let upgrades = !service.is_h2();
    let service = service.config();
    let Asked { noted, switching, client, call, form: _ } = asked;
    let protocol = if *switching && upgrades { protocol_asked(headers) } else { None };
    soa::strip_hop_by_hop(headers);
    fields::strip_claims(headers, service.forward_credentials);
    if noted.traceparent.is_some() {
        headers.remove(fields::TRACEPARENT);
    }
    if noted.tracestate && !trace.continued {
        headers.remove(fields::TRACESTATE);
    }
    route.request_edit.apply(headers);
    let mut added = Added::with(alike(conn, caller, call.as_ref(), client.is_none()));
    added.push(fields::TRACEPARENT, trace.parent.clone());
    added.push(fields::REQUEST_ID, trace.id.clone());
    let mut host = None;
    if let Some(client) = client.take() {
        added.push(fields::FORWARDED_FOR, client.address);
        added.push(fields::FORWARDED_PROTO, client.proto.unwrap_or_else(|| conn.scheme.clone()));
        host = client.host;
    }
    // Otherwise it is in `Host` already.
    let asked_for = || noted.host.take().filter(|_| service.host == HostHeader::Instance);
    if let Some(host) = host.or_else(asked_for) {
        added.push(fields::FORWARDED_HOST, host);
    }
    if let Some(protocol) = protocol {
        headers.insert(header::UPGRADE, protocol);
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    }
    added
}

/// What the requests of one caller have alike: who calls, and from where if the connection is the
/// client's own.
fn alike(
    conn: &Conn,
    caller: Option<&Arc<Caller>>,
    call: Option<&Call>,
    is_direct: bool,
) -> Rc<Alike> {
    let known = &mut conn.known.borrow_mut().alike;
    if let Some(known) = known
        && known.is_direct == is_direct
        && known.caller.as_ref().map(Arc::as_ptr) == caller.map(Arc::as_ptr)
        && known.call.as_ref().map(Call::parties) == call.map(Call::parties)
    {
        return Rc::clone(&known.fields);
    }
    let mut fields = Vec::new();
    if is_direct {
        fields.push((fields::FORWARDED_FOR, conn.forwarded_for.clone()));
        fields.push((fields::FORWARDED_PROTO, conn.scheme.clone()));
    }
    fields.extend(caller.into_iter().flat_map(|caller| fields::of_caller(caller)));
    if let Some(call) = call {
        fields.push((bridged::REALM, call.realm.field().clone()));
        fields.push((bridged::ACTOR, fields::principal(&call.actor)));
    }
    let fields = Rc::new(Alike::from(fields));
    let (caller, call) = (caller.cloned(), call.cloned());
    *known = Some(KnownAlike { caller, call, is_direct, fields: Rc::clone(&fields) });
    fields
}

/// The protocol that a request asks for which asks for another one.
fn protocol_asked(headers: &HeaderMap) -> Option<HeaderValue> {
    let mut asked = headers.get_all(header::UPGRADE).iter();
    asked.find(|value| !asks_for_h2c(value.as_bytes())).cloned()
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

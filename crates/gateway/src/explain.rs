//! What would become of a request, and why: which route, whose it is, what is left of its limits,
//! which instance. Nothing is charged, and nobody is called.

use crate::{
    bridged::{self, BridgeTold},
    config::Auth,
    core::{Node, Snapshot},
    identify::check_roles,
    mount, path,
    route::{Considered, Route, Whose},
    sticky,
    target::{Target, host_of},
};
use http::{HeaderMap, HeaderValue, Method, Request, Uri, header, request::Parts};
use protocol::{Code, Problem};
use serde::Serialize;
use soa::Service;
use std::{net::IpAddr, sync::Arc, time::Duration};
use traffic_cop::limit::Subject;
use types::Caller;

/// A request, real or not.
#[derive(Debug, Clone)]
pub struct Question {
    /// Its method.
    pub method: Method,
    /// Its path and query.
    pub target: Uri,
    /// Its header fields, `Host` among them.
    pub headers: HeaderMap,
    /// From where it comes.
    pub ip: IpAddr,
    /// Whose it is, if it has a credential that holds.
    pub caller: Option<Arc<Caller>>,
}

/// What would become of a request.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Explanation {
    /// `forwarded`, `answered_here`, or the code of the error that the client would see.
    pub outcome: String,
    /// Why.
    pub why: String,
    /// The routes that cover its path, in the order in which they were considered.
    pub considered: Vec<Considered>,
    /// The one that takes it.
    pub route: Option<String>,
    /// Whose it is.
    pub caller: Option<CallerTold>,
    /// The service that decides over it first, if one is asked.
    pub forward_auth: Option<String>,
    /// What is left of the limits that it is charged to.
    pub limits: Vec<LimitTold>,
    /// The bridge between realms that it has to pass, if the service belongs to one and its caller
    /// speaks for one.
    pub bridge: Option<BridgeTold>,
    /// The services of the route, with their shares.
    pub split: Vec<ShareTold>,
    /// What the service would be asked for.
    pub target: Option<String>,
    /// Milliseconds that it has for the head of its answer.
    pub timeout_ms: Option<u64>,
    /// The service's breaker: `closed`, `open` or `probing`.
    pub breaker: Option<&'static str>,
    /// What leads equal requests to one instance, where the service has such a key.
    pub key: Option<String>,
    /// The instance that the caller's session is bound to, if it is to one of the service.
    pub bound: Option<BoundTold>,
    /// The instances of the service, and what speaks for each.
    pub instances: Vec<InstanceTold>,
}

/// A caller.
#[derive(Debug, Clone, Serialize)]
pub struct CallerTold {
    /// Its tenant.
    pub tenant: String,
    /// `user`, `agent` or `service`.
    pub kind: String,
    /// Its name.
    pub principal: String,
    /// Its session, if it has one.
    pub session: Option<String>,
    /// Its roles.
    pub roles: Vec<String>,
}

/// A limit.
#[derive(Debug, Clone, Serialize)]
pub struct LimitTold {
    /// Its name.
    pub limit: String,
    /// What it allows in its window.
    pub of: u64,
    /// The window, in seconds.
    pub window_s: u64,
    /// What the request would cost.
    pub cost: u32,
    /// What is left; `null` if another node has to be asked.
    pub remaining: Option<u64>,
    /// Seconds until it is whole again.
    pub reset_s: Option<u64>,
    /// Whether it would let the request pass; `null` if another node has to be asked.
    pub allows: Option<bool>,
    /// It refuses nobody, and tells whom it would.
    pub shadow: bool,
}

/// A service of a route.
#[derive(Debug, Clone, Serialize)]
pub struct ShareTold {
    /// Its name.
    pub service: String,
    /// Its share.
    pub weight: u32,
    /// Whether it would take the request; by chance, unless the route has `split_by`.
    pub chosen: bool,
}

/// What a session is bound to.
#[derive(Debug, Clone, Serialize)]
pub struct BoundTold {
    /// Host and port.
    pub instance: String,
    /// Whether the request would go there.
    pub holds: bool,
    /// Why it would, or would not.
    pub why: String,
}

/// An instance.
#[derive(Debug, Clone, Serialize)]
pub struct InstanceTold {
    /// Host and port.
    pub instance: String,
    /// `fit`, `ejected` or `unfit`.
    pub condition: &'static str,
    /// Its share.
    pub weight: u32,
    /// Requests and tunnels in flight.
    pub in_flight: usize,
    /// What it took to answer at its worst lately, in milliseconds.
    pub latency_ms: f64,
    /// What one more call costs there, in units of the service's rule; less is better.
    pub cost: f64,
    /// Whether it would be taken; where chance has a say, this time.
    pub chosen: bool,
}

/// What would become of `question` on this configuration; `random`: where chance has a say.
pub(crate) fn explain(
    node: &Node,
    snapshot: &Snapshot,
    question: &Question,
    random: u64,
) -> Explanation {
    let mut told =
        Explanation { caller: question.caller.as_deref().map(told_of), ..Default::default() };
    match decided(node, snapshot, question, random, &mut told) {
        Ok((outcome, why)) => (told.outcome, told.why) = (outcome.into(), why),
        Err(problem) => {
            (told.outcome, told.why) = (problem.code.to_string(), problem.detail);
        }
    }
    told
}

/// Follows a request as far as it comes, and notes what is found on the way.
fn decided(
    node: &Node,
    snapshot: &Snapshot,
    question: &Question,
    random: u64,
    told: &mut Explanation,
) -> Result<(&'static str, String), Problem> {
    let Question { method, target, headers, caller, .. } = question;
    let normal = path::normalise(target.path())
        .map_err(|path::Ambiguous(detail)| Problem::new(Code::BadRequest, detail))?;
    let path = path::without_parameters(&normal);
    if bridged::is_call(&path) {
        return called(node, snapshot, question, &normal, random, told);
    }
    let mounts = node.mounts.get().map_or(&[][..], Vec::as_slice);
    let mounted = mounts.iter().find(|(prefix, _)| mount::takes(prefix, &path));
    if let Some((prefix, name)) = mounted {
        limits(node, question, name, told)?;
        return Ok(("answered_here", format!("`{prefix}` is the platform's own: {name}")));
    }
    let host = host_of(headers.get(header::HOST));
    let whose = Whose::Known(caller.as_ref().map(|caller| &caller.tenant));
    let (considered, route) =
        snapshot.table.considered(&host, &path, method, target.query(), headers, whose);
    told.considered = considered;
    let Some(route) = route else {
        let refuses = format!("it does not take {method}");
        if told.considered.iter().any(|considered| considered.why == refuses) {
            let detail = "no route takes this method on this path";
            return Err(Problem::new(Code::MethodNotAllowed, detail));
        }
        return Err(Problem::new(Code::NoRoute, "no route takes this request"));
    };
    told.route = Some(route.name.clone());
    told.forward_auth = route.forward_auth.as_ref().map(|auth| auth.service().to_owned());
    if caller.is_none() && route.auth == Auth::Required {
        return Err(Problem::new(Code::Unauthenticated, "a credential is needed here"));
    }
    let caller = caller.as_deref().filter(|_| route.auth != Auth::None);
    check_roles(caller, &route.roles)?;
    limits(node, question, &route.name, told)?;
    crosses(&route, caller, told)?;
    let asked = Target::of(&route, &normal, target)?;
    forwarded(node, question, (&route, &asked), random, told)
}

/// Follows a call between services, whose path is `path` normalised.
fn called(
    node: &Node,
    snapshot: &Snapshot,
    question: &Question,
    path: &str,
    random: u64,
    told: &mut Explanation,
) -> Result<(&'static str, String), Problem> {
    let Question { method, target, headers, caller, .. } = question;
    let Some(caller) = caller.as_deref() else {
        return Err(Problem::new(Code::Unauthenticated, "a credential is needed here"));
    };
    bridged::speaks_for(&snapshot.config.realms, caller)?;
    let wanted = bridged::wanted(headers)?;
    let (route, asked) = bridged::choose(snapshot, &wanted, method, target, path, headers)?;
    told.route = Some(route.name.clone());
    limits(node, question, &route.name, told)?;
    crosses(&route, Some(caller), told)?;
    forwarded(node, question, (&route, &asked), random, told)
}

/// Notes which bridge a request has to pass; refuses it as that would, or as its operation's
/// document.
fn crosses(route: &Route, caller: Option<&Caller>, told: &mut Explanation) -> Result<(), Problem> {
    let Some(bridged) = &route.bridged else { return Ok(()) };
    told.bridge = bridged.told(caller);
    bridged.may_pass(None, caller)
}

/// Notes what is left of the limits of a request; refuses it as they would.
fn limits(
    node: &Node,
    question: &Question,
    route: &str,
    told: &mut Explanation,
) -> Result<(), Problem> {
    let caller = question.caller.as_deref();
    let charge = node.limits.resolve(&Subject {
        tenant: caller.map(|caller| &caller.tenant),
        principal: caller.map(|caller| &caller.principal),
        session: caller.and_then(|caller| caller.session),
        ip: question.ip,
        route,
    });
    let left = charge.look(node.clock.elapsed());
    told.limits = left
        .iter()
        .map(|left| LimitTold {
            limit: left.limit.to_string(),
            of: left.of,
            window_s: left.window.as_secs(),
            cost: left.cost,
            remaining: left.remaining,
            reset_s: left.reset.map(|reset| reset.as_secs_f64().ceil() as u64),
            allows: left.allows(),
            shadow: left.is_shadow,
        })
        .collect();
    match left.iter().find(|left| left.allows() == Some(false)) {
        Some(left) => {
            let detail = format!("the limit `{}` is used up", left.limit);
            Err(Problem::new(Code::RateLimited, detail))
        }
        None => Ok(()),
    }
}

/// Which service and which instance a route leads to.
fn forwarded(
    node: &Node,
    question: &Question,
    (route, target): (&Route, &Target),
    random: u64,
    told: &mut Explanation,
) -> Result<(&'static str, String), Problem> {
    let (mut head, ()): (Parts, ()) = Request::new(()).into_parts();
    (head.method, head.uri) = (question.method.clone(), question.target.clone());
    head.headers = question.headers.clone();
    let address = crate::forwarded::address(question.ip);
    let asked =
        sticky::Asked { address: &address, head: &head, caller: question.caller.as_deref() };
    let backend = route.backends.choose(&asked, || random);
    told.split = route
        .backends
        .shares()
        .map(|(service, weight)| ShareTold {
            service: service.to_owned(),
            weight,
            chosen: service == backend.service.name(),
        })
        .collect();
    told.timeout_ms = u64::try_from(backend.timeout.as_millis()).ok();
    told.target = Some(target.text(&question.target).to_owned());
    let elapsed = node.clock.elapsed();
    told.breaker = backend.service.guarded(elapsed).and_then(|report| report.breaker);
    if told.breaker == Some("open") {
        let detail = "the service failed too often lately, and is given time";
        return Err(Problem::new(Code::CircuitOpen, detail));
    }
    let caller = question.caller.as_deref();
    let bound = caller.and_then(|caller| sticky::bound_instance(caller, backend.service.name()));
    told.bound = bound.map(|bound| bound_told(&backend.service, bound, elapsed));
    let own = bound.and_then(|_| sticky::bound_key(caller));
    let key = own.or_else(|| sticky::key_of(&asked, &backend.service));
    told.key = key.as_ref().map(ToString::to_string);
    let key = key.map(|key| key.hash());
    told.instances = instances(&backend.service, (bound, key), random, elapsed);
    let Some(chosen) = told.instances.iter().find(|instance| instance.chosen) else {
        let detail = "no instance of the service is fit to answer";
        return Err(Problem::new(Code::NoInstance, detail));
    };
    let (route, service, instance) = (&route.name, backend.service.name(), &chosen.instance);
    let bound = match &told.bound {
        Some(bound) if bound.holds => ", to which its session is bound".to_owned(),
        Some(bound) => {
            format!(", since its session is bound to {}, and {}", bound.instance, bound.why)
        }
        None => String::new(),
    };
    Ok(("forwarded", format!("the route `{route}` leads to {instance} of `{service}`{bound}")))
}

fn bound_told(service: &Service, bound: &str, elapsed: Duration) -> BoundTold {
    let holds = service.holds(bound, elapsed);
    let why = holds.err().unwrap_or("the session is bound to it, and it is fit");
    BoundTold { instance: bound.to_owned(), holds: holds.is_ok(), why: why.to_owned() }
}

fn instances(
    service: &Service,
    (bound, key): (Option<&str>, Option<u64>),
    random: u64,
    elapsed: Duration,
) -> Vec<InstanceTold> {
    let scores = service.scores(bound, key, random, elapsed).into_iter();
    let rounded = |number: f64| (number * 1e6).round() / 1e6;
    scores
        .map(|score| InstanceTold {
            instance: score.instance.authority().to_owned(),
            condition: score.instance.condition(elapsed).as_str(),
            weight: score.weight,
            in_flight: score.instance.in_flight(),
            latency_ms: rounded(score.instance.latency().as_secs_f64() * 1e3),
            cost: rounded(score.cost),
            chosen: score.chosen,
        })
        .collect()
}

fn told_of(caller: &Caller) -> CallerTold {
    CallerTold {
        tenant: caller.tenant.to_string(),
        kind: caller.principal.kind.to_string(),
        principal: caller.principal.id.to_string(),
        session: caller.session.map(|session| session.to_string()),
        roles: caller.roles.iter().map(|role| role.as_str().to_owned()).collect(),
    }
}

impl Explanation {
    /// The same in one line, for a header field: the route and why, what is left of the limits,
    /// the service that was called, and the instance that answered if that is known.
    pub(crate) fn field(&self, service: &str, answered: Option<&str>) -> Option<HeaderValue> {
        let limits: serde_json::Map<_, _> =
            self.limits.iter().map(|left| (left.limit.clone(), left.remaining.into())).collect();
        let considered = self.considered.iter().filter(|considered| considered.taken);
        let line = serde_json::json!({
            "route": self.route,
            "why": considered.map(|considered| &considered.why).next(),
            "tenant": self.caller.as_ref().map(|caller| &caller.tenant),
            "principal": self.caller.as_ref().map(|caller| &caller.principal),
            "remaining": limits,
            "bridge": self.bridge.as_ref().and_then(|bridge| bridge.rule.as_deref()),
            "service": service,
            "instance": answered,
        });
        HeaderValue::from_str(&line.to_string()).ok()
    }
}

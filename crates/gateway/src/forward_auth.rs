//! Asks a service of the operator's whether a request may go on, and possibly whose it is.

use crate::{
    backend::named, connection::Conn, edit::editable, exchange::Asked, fields,
    identify::unless_blocked, trace::Trace,
};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri, Version, header,
    request::Parts, uri::PathAndQuery,
};
use protocol::{Code, Problem};
use serde::{Deserialize, Serialize};
use soa::{Added, Answered, Body, Priority, Reply, Service, Services, Terms};
use std::{sync::Arc, time::Duration};
use types::{Caller, CredentialKind, Principal, PrincipalId, PrincipalKind, Role, TenantId};

const FORWARDED_METHOD: HeaderName = HeaderName::from_static("x-forwarded-method");
const FORWARDED_URI: HeaderName = HeaderName::from_static("x-forwarded-uri");

/// A service that decides over the requests of a route. It is asked with `GET`, without the body;
/// a status from 200 to 299 lets the request go on, and any other answer below 500 is the client's.
/// If it does not answer, or fails, the request is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForwardAuthConfig {
    /// The service.
    pub service: String,
    /// The path that it is asked for.
    pub path: String,
    /// Header fields of the request that it is told, besides `X-Forwarded-Method`,
    /// `X-Forwarded-Uri`, `-Host`, `-Proto` and `-For`, and who calls if that is known. Default
    /// `authorization` and `cookie`.
    #[serde(default = "told")]
    pub request_fields: Vec<String>,
    /// Header fields of its answer that the route's service is told. Default: none.
    #[serde(default)]
    pub answer_fields: Vec<String>,
    /// Whether it says who calls, in `X-Crosstown-Tenant`, `X-Crosstown-Principal`, and possibly
    /// `X-Crosstown-Kind` (`user` without it) and `X-Crosstown-Roles`. Default false. The route
    /// then has `auth = "none"`: nobody else is asked.
    #[serde(default)]
    pub identity: bool,
    /// How long it may take. Default `5s`.
    #[serde(default = "timeout", with = "types::duration")]
    pub timeout: Duration,
}

fn told() -> Vec<String> {
    vec!["authorization".into(), "cookie".into()]
}

fn timeout() -> Duration {
    Duration::from_secs(5)
}

/// A [`ForwardAuthConfig`], ready to be used.
#[derive(Debug)]
pub(crate) struct ForwardAuth {
    service: Arc<Service>,
    target: Uri,
    request_fields: Box<[HeaderName]>,
    answer_fields: Box<[HeaderName]>,
    pub(crate) identity: bool,
    timeout: Duration,
}

/// What a service said of a request.
pub(crate) enum Verdict {
    /// It may go on: whose it is, if that was asked, and the fields of the answer.
    Granted(Option<Arc<Caller>>, HeaderMap),
    /// The client gets this.
    Refused(Response<Body>),
}

impl ForwardAuth {
    /// # Errors
    /// What to change.
    pub(crate) fn compile(config: &ForwardAuthConfig, services: &Services) -> Result<Self, String> {
        let path = PathAndQuery::try_from(config.path.as_str());
        let Some(path) = path.ok().filter(|_| config.path.starts_with('/')) else {
            return Err("`forward_auth.path` is not a path that begins with `/`".into());
        };
        if config.timeout.is_zero() {
            return Err("`forward_auth.timeout` must be more than zero".into());
        }
        let names = |names: &[String]| {
            let parsed = names.iter().map(|name| {
                HeaderName::from_bytes(name.as_bytes())
                    .map_err(|_| format!("`{name}` is not the name of a header field"))
            });
            parsed.collect::<Result<Box<[_]>, String>>()
        };
        let answer_fields = config.answer_fields.iter().map(|name| editable(name));
        Ok(Self {
            service: Arc::clone(named(services, &config.service)?),
            target: Uri::from(path),
            request_fields: names(&config.request_fields)?,
            answer_fields: answer_fields.collect::<Result<_, String>>()?,
            identity: config.identity,
            timeout: config.timeout,
        })
    }

    /// Asks, on behalf of `caller` if it is known.
    ///
    /// # Errors
    /// Why nobody could say.
    pub(crate) async fn ask(
        &self,
        conn: &Conn,
        head: &Parts,
        asked: &Asked,
        trace: &Trace,
        caller: Option<&Caller>,
    ) -> Result<Verdict, Problem> {
        let request = self.request(conn, head, asked, trace);
        let mut added = Added::default();
        for (name, value) in caller.into_iter().flat_map(fields::of_caller) {
            added.push(name, value);
        }
        let terms = Terms {
            key: None,
            bound: None,
            base: 0,
            repeatable: None,
            // Nothing of the route goes on without it.
            priority: Priority::High,
            answered: Answered::default(),
            timeout: self.timeout,
            added,
        };
        let late = tokio::time::sleep(self.timeout);
        let reply = conn.core.pool.call(&self.service, request, Body::Empty, &terms, late).await;
        let answer = match reply {
            Ok(Reply::Answer(answer)) => answer,
            Ok(Reply::Switched(..)) => return Err(unsound("it switched protocols")),
            Err(error) => return Err(error.problem()),
        };
        let status = answer.status();
        if status.is_server_error() {
            return Err(unsound("it failed"));
        }
        if !status.is_success() {
            return Ok(Verdict::Refused(answer));
        }
        let caller = match self.identity {
            true => Some(unless_blocked(conn, vouched(answer.headers())?).await?),
            false => None,
        };
        let (parts, _) = answer.into_parts();
        Ok(Verdict::Granted(caller, parts.headers))
    }

    /// The name of the service.
    pub(crate) fn service(&self) -> &str {
        self.service.name()
    }

    /// Tells the route's service what this one said; what a client says there does not count.
    pub(crate) fn tell(&self, headers: &mut HeaderMap, said: &HeaderMap) {
        for name in &self.answer_fields {
            headers.remove(name);
            for value in said.get_all(name) {
                headers.append(name.clone(), value.clone());
            }
        }
    }

    fn request(&self, conn: &Conn, head: &Parts, asked: &Asked, trace: &Trace) -> Box<Parts> {
        let (mut request, ()) = Request::new(()).into_parts();
        (request.method, request.version) = (Method::GET, Version::HTTP_11);
        request.uri = self.target.clone();
        let headers = &mut request.headers;
        for name in &self.request_fields {
            for value in head.headers.get_all(name) {
                headers.append(name.clone(), value.clone());
            }
        }
        // Those that say who calls are ours; the credential is what it is asked about.
        soa::strip_hop_by_hop(headers);
        fields::strip_claims(headers, true);
        for (name, text) in [
            (FORWARDED_METHOD, head.method.as_str()),
            (FORWARDED_URI, head.uri.path_and_query().map_or("/", PathAndQuery::as_str)),
        ] {
            if let Ok(value) = HeaderValue::from_str(text) {
                headers.insert(name, value);
            }
        }
        headers.insert(fields::FORWARDED_FOR, asked.address(conn).clone());
        let client = asked.client.as_ref();
        let proto = client.and_then(|client| client.proto.clone());
        headers.insert(fields::FORWARDED_PROTO, proto.unwrap_or_else(|| conn.scheme.clone()));
        let host = client.and_then(|client| client.host.clone());
        if let Some(host) = host.or_else(|| asked.noted.host.clone()) {
            headers.insert(fields::FORWARDED_HOST, host.clone());
            headers.insert(header::HOST, host);
        }
        headers.insert(fields::TRACEPARENT, trace.parent.clone());
        headers.insert(fields::REQUEST_ID, trace.id.clone());
        Box::new(request)
    }
}

/// Whom a service vouches for.
fn vouched(headers: &HeaderMap) -> Result<Arc<Caller>, Problem> {
    let field = |name: &HeaderName| {
        let mut values = headers.get_all(name).iter();
        match (values.next(), values.next()) {
            (Some(value), None) => value.to_str().ok(),
            (_, _) => None,
        }
    };
    let known = || {
        let tenant = TenantId::new(field(&fields::TENANT)?).ok()?;
        let id = PrincipalId::new(field(&fields::PRINCIPAL)?).ok()?;
        let kind = match headers.contains_key(&fields::KIND) {
            true => match field(&fields::KIND)? {
                "user" => PrincipalKind::User,
                "agent" => PrincipalKind::Agent,
                "service" => PrincipalKind::Service,
                _ => return None,
            },
            false => PrincipalKind::User,
        };
        let roles = match headers.contains_key(&fields::ROLES) {
            true => field(&fields::ROLES)?,
            false => "",
        };
        let roles = roles.split(',').map(str::trim).filter(|role| !role.is_empty());
        let roles = roles.map(|role| Role::new(role).ok()).collect::<Option<Vec<_>>>()?;
        let mut caller = Caller::new(tenant, Principal { kind, id }, CredentialKind::Vouched);
        caller.roles = roles.into();
        Some(Arc::new(caller))
    };
    known().ok_or_else(|| unsound("it did not say who calls"))
}

fn unsound(why: &str) -> Problem {
    let detail = format!("the service that decides over this request gave no verdict: {why}");
    Problem::new(Code::BadGateway, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_is_vouched_for_whole_or_not_at_all() {
        let headers = |fields: &[(&'static str, &'static str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in fields {
                headers.append(*name, HeaderValue::from_static(value));
            }
            headers
        };
        let tenant = ("x-crosstown-tenant", "acme");
        let ann = ("x-crosstown-principal", "ann");
        let caller = vouched(&headers(&[tenant, ann, ("x-crosstown-roles", "a, b")])).unwrap();
        assert_eq!((caller.tenant.as_str(), caller.principal.kind), ("acme", PrincipalKind::User));
        assert!(caller.has_role("b") && !caller.has_role("c"));
        for bad in [
            &[tenant][..],
            &[ann],
            &[tenant, ann, ann],
            &[("x-crosstown-tenant", "a b"), ann],
            &[tenant, ann, ("x-crosstown-kind", "god")],
            &[tenant, ann, ("x-crosstown-roles", "a b")],
        ] {
            assert!(vouched(&headers(bad)).is_err(), "{bad:?}");
        }
    }
}

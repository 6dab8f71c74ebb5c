//! Header fields that the edge sets, and that no client may.

use http::{HeaderMap, HeaderName, HeaderValue, header};
use smallvec::SmallVec;
use traffic_cop::identity::CallerCache;
use types::Caller;

/// The tenant of the verified caller.
pub(crate) const TENANT: HeaderName = HeaderName::from_static("x-crosstown-tenant");
/// The name of the verified caller inside the tenant.
pub(crate) const PRINCIPAL: HeaderName = HeaderName::from_static("x-crosstown-principal");
/// `user`, `agent` or `service`.
pub(crate) const KIND: HeaderName = HeaderName::from_static("x-crosstown-kind");
/// The session, if the credential names one.
pub(crate) const SESSION: HeaderName = HeaderName::from_static("x-crosstown-session");
/// The roles that the credential grants, separated by commas.
pub(crate) const ROLES: HeaderName = HeaderName::from_static("x-crosstown-roles");
/// The id of this request, ours.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The W3C trace context.
pub(crate) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// What vendors add to the trace context.
pub(crate) const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
/// Asks which way a request went, and tells it.
pub(crate) const EXPLAIN: HeaderName = HeaderName::from_static("x-crosstown-explain");
pub(crate) const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
pub(crate) const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
pub(crate) const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

const PREFIXES: [&str; 6] =
    ["x-crosstown-", "x-user-", "x-tenant-", "x-session-", "x-auth-", "x-forwarded-"];

/// Whether a field says who calls or from where: believed from us only. `_` counts as `-`,
/// since many servers turn both into the same variable.
pub(crate) fn is_ours_to_set(name: &str) -> bool {
    let same = |a: u8, b: u8| a == b || (a == b'_' && b == b'-');
    let begins = |prefix: &str| {
        name.len() >= prefix.len() && name.bytes().zip(prefix.bytes()).all(|(a, b)| same(a, b))
    };
    match name.as_bytes().first() {
        Some(b'x') => {
            PREFIXES.into_iter().any(begins)
                || (name.len() == 9 && begins("x-real-ip"))
                || (name.len() == 12 && begins("x-request-id"))
        }
        Some(b'f') => name == "forwarded",
        Some(_) | None => false,
    }
}

/// Fields that frame, route, authenticate or control, and so may not come behind a body (RFC
/// 9110, section 6.5.1).
pub(crate) fn is_forbidden_trailer(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let exact = [
        "transfer-encoding",
        "content-length",
        "host",
        "connection",
        "upgrade",
        "te",
        "trailer",
        "expect",
        "authorization",
        "proxy-authorization",
        "cookie",
        "set-cookie",
        "content-encoding",
        "content-type",
        "content-range",
        "range",
        "cache-control",
        "max-forwards",
        "forwarded",
        "traceparent",
        "x-api-key",
        "x-session-token",
        "x-request-id",
        "x-real-ip",
    ];
    exact.contains(&name.as_str()) || is_ours_to_set(&name)
}

/// Whether a server might read `name`, which is not one of the fields that frame or route a
/// message, as if it were.
fn is_disguised(name: &str) -> bool {
    name.contains('_')
        && matches!(
            name.replace('_', "-").as_str(),
            "content-length"
                | "transfer-encoding"
                | "host"
                | "authorization"
                | "x-api-key"
                | "cookie"
                | "traceparent"
                | "proxy-authorization"
        )
}

/// Removes what a client may not say, and its credential unless `keep_credential`.
pub(crate) fn strip_claims(headers: &mut HeaderMap, keep_credential: bool) {
    let mut gone: SmallVec<[HeaderName; 8]> = SmallVec::new();
    for name in headers.keys() {
        let text = name.as_str();
        let credential = *name == header::AUTHORIZATION || is_credential(text);
        let claim = if credential {
            !keep_credential
        } else {
            is_ours_to_set(text) || *name == header::EXPECT || is_disguised(text)
        };
        if claim {
            gone.push(name.clone());
        }
    }
    for name in &gone {
        headers.remove(name);
    }
}

pub(crate) fn is_credential(name: &str) -> bool {
    matches!(name, "x-api-key" | "x-session-token")
}

/// The fields that tell a service who calls.
pub(crate) fn of_caller(caller: &Caller) -> Vec<(HeaderName, HeaderValue)> {
    let mut fields = vec![
        (TENANT, of_id(caller.tenant.as_str())),
        (PRINCIPAL, principal(caller)),
        (KIND, of_id(&caller.principal.kind.to_string())),
    ];
    fields.extend(caller.session.map(|session| (SESSION, of_id(&session.to_string()))));
    if !caller.roles.is_empty() {
        let roles: Vec<&str> = caller.roles.iter().map(types::Role::as_str).collect();
        fields.push((ROLES, of_id(&roles.join(","))));
    }
    fields
}

/// The name of a caller inside its tenant.
pub(crate) fn principal(caller: &Caller) -> HeaderValue {
    of_id(caller.principal.id.as_str())
}

fn of_id(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).expect("ids are visible ASCII characters only")
}

/// Verified callers that a core remembers.
pub(crate) fn caller_cache() -> CallerCache {
    CallerCache::new(16 * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_client_claims_is_removed_in_every_spelling() {
        let mut headers = HeaderMap::new();
        let claims = [
            "x-crosstown-tenant",
            "x_crosstown_tenant",
            "x-crosstown_principal",
            "x-user-id",
            "x_user_id",
            "x-tenant-id",
            "x-session-token",
            "x-auth-request-user",
            "x-forwarded-for",
            "x_forwarded_for",
            "x-real-ip",
            "x-request-id",
            "forwarded",
            "authorization",
            "x-api-key",
            "content_length",
            "transfer_encoding",
            "expect",
        ];
        for name in claims {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static("evil"));
        }
        for name in ["accept", "x-username", "x-real-ipx", "cookie", "user-agent", "x-my_own"] {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static("fine"));
        }
        strip_claims(&mut headers, false);
        assert!(headers.values().all(|value| value == "fine"), "{headers:?}");
        assert_eq!(headers.len(), 6);
    }

    #[test]
    fn a_service_may_be_given_the_credential() {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, HeaderValue::from_static("Bearer x"));
        headers.insert("x-session-token", HeaderValue::from_static("x"));
        headers.insert("x-session-user", HeaderValue::from_static("x"));
        strip_claims(&mut headers, true);
        assert_eq!(headers.len(), 2);
    }
}

//! What has to come to the same instance each time.

use http::{HeaderMap, HeaderName, HeaderValue, header, request::Parts};
use soa::{Balance, HashKey, Service, key_hash};
use std::fmt;
use types::{Binding, Caller, Pillar, SessionId, TenantId};

/// What a key may be taken from.
#[derive(Clone, Copy)]
pub(crate) struct Asked<'a> {
    /// The client's.
    pub(crate) address: &'a HeaderValue,
    pub(crate) head: &'a Parts,
    pub(crate) caller: Option<&'a Caller>,
}

/// What equal requests have in common. Equal names of two tenants are two keys.
pub(crate) enum Key<'a> {
    Address(&'a HeaderValue),
    Principal(&'a Caller),
    Session(SessionId),
    Pillar(&'a TenantId, &'a Pillar, &'a Binding),
    Path(&'a str),
    Header(&'a HeaderName, &'a HeaderValue),
    Cookie(&'a str, &'a [u8]),
}

/// The key by which the instances of a service are chosen, if they are.
pub(crate) fn key_of<'a>(asked: &Asked<'a>, service: &'a Service) -> Option<Key<'a>> {
    let config = service.config();
    (config.balance == Balance::ConsistentHash).then(|| key(asked, &config.hash))
}

/// The same for what has to come to the same place.
pub(crate) fn key<'a>(asked: &Asked<'a>, hash: &'a HashKey) -> Key<'a> {
    let Asked { address, head, caller } = *asked;
    let named = match hash {
        HashKey::Ip => None,
        HashKey::User => caller.map(Key::Principal),
        HashKey::Session => caller.map(session),
        HashKey::Pillar(pillar) => caller.map(|caller| match caller.pillars.binding(pillar) {
            Some(to) => Key::Pillar(&caller.tenant, pillar, to),
            None => session(caller),
        }),
        HashKey::Path => Some(Key::Path(head.uri.path())),
        HashKey::Header(name) => head.headers.get(name).map(|value| Key::Header(name, value)),
        HashKey::Cookie(name) => cookie(&head.headers, name).map(|value| Key::Cookie(name, value)),
    };
    named.unwrap_or(Key::Address(address))
}

fn session(caller: &Caller) -> Key<'_> {
    caller.session.map_or(Key::Principal(caller), Key::Session)
}

/// The instance of a service that the caller's session is bound to.
pub(crate) fn bound_instance<'a>(caller: &'a Caller, service: &str) -> Option<&'a str> {
    caller.steering.as_ref()?.instances.get(service).map(|instance| &**instance)
}

/// By what the requests of a caller whose session is bound to an instance come to one other
/// instance when that is gone.
pub(crate) fn bound_key(caller: Option<&Caller>) -> Option<Key<'_>> {
    caller?.session.map(Key::Session)
}

impl Key<'_> {
    pub(crate) fn hash(&self) -> u64 {
        match self {
            Self::Address(address) => key_hash(address.as_bytes()),
            Self::Principal(Caller { tenant, principal, .. }) => {
                key_hash(format!("{tenant} {} {}", principal.kind, principal.id).as_bytes())
            }
            Self::Session(session) => key_hash(session.to_string().as_bytes()),
            Self::Pillar(tenant, pillar, to) => {
                key_hash(format!("{tenant} pillar {pillar} {to}").as_bytes())
            }
            Self::Path(path) => key_hash(path.as_bytes()),
            Self::Header(_, value) => key_hash(value.as_bytes()),
            Self::Cookie(_, value) => key_hash(value),
        }
    }
}

/// For whom it may concern; not what fields hold, which may be secrets.
impl fmt::Display for Key<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => write!(f, "address {}", address.to_str().unwrap_or("?")),
            Self::Principal(Caller { tenant, principal, .. }) => {
                write!(f, "{} {} of {tenant}", principal.kind, principal.id)
            }
            Self::Session(session) => write!(f, "session {session}"),
            Self::Pillar(tenant, pillar, to) => write!(f, "pillar {pillar}:{to} of {tenant}"),
            Self::Path(path) => write!(f, "path {path}"),
            Self::Header(name, _) => write!(f, "header {name}"),
            Self::Cookie(name, _) => write!(f, "cookie {name}"),
        }
    }
}

/// The value of the first cookie of this name (RFC 6265, section 5.4).
fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a [u8]> {
    let crumbs = headers.get_all(header::COOKIE).iter();
    let mut crumbs = crumbs.flat_map(|value| value.as_bytes().split(|byte| *byte == b';'));
    crumbs.find_map(|crumb| crumb.trim_ascii().strip_prefix(name.as_bytes())?.strip_prefix(b"="))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;
    use types::{CredentialKind, Pillars, Principal, PrincipalKind};

    #[test]
    fn a_cookie_is_found_by_its_whole_name() {
        let mut headers = HeaderMap::new();
        headers.append(header::COOKIE, "xcart=1; cart2=2; cart=three=3".parse().unwrap());
        assert_eq!(cookie(&headers, "cart"), Some(&b"three=3"[..]));
        assert_eq!(cookie(&headers, "car"), None);
    }

    #[test]
    fn who_is_bound_to_the_same_in_a_pillar_has_the_same_key() {
        let (head, ()) = Request::new(()).into_parts();
        let address = HeaderValue::from_static("10.0.0.1");
        let hash = HashKey::try_from("pillar:content".to_owned()).unwrap();
        let told = |caller: Option<&Caller>| {
            let asked = Asked { address: &address, head: &head, caller };
            let key = key(&asked, &hash);
            (key.to_string(), key.hash())
        };
        let caller = |tenant: &str, name: &str, pillars: &[&str]| {
            let id = name.parse().unwrap();
            let principal = Principal { kind: PrincipalKind::User, id };
            let tenant = tenant.parse().unwrap();
            let pillars = pillars.iter().map(|text| text.parse::<types::Bound>().unwrap());
            let pillars = Pillars::new(pillars).unwrap();
            Caller { pillars, ..Caller::new(tenant, principal, CredentialKind::SessionToken) }
        };
        let ann = told(Some(&caller("acme", "ann", &["content:seven", "insights:one"])));
        assert_eq!(ann.0, "pillar content:seven of acme");
        assert_eq!(told(Some(&caller("acme", "bob", &["content:seven"]))), ann);
        for other in [
            caller("acme", "ann", &["content:eight"]),
            caller("acme", "ann", &["insights:seven"]),
            caller("acme", "ann", &["content"]),
            caller("other", "ann", &["content:seven"]),
        ] {
            assert_ne!(told(Some(&other)).1, ann.1, "{other:?}");
        }
        let session = SessionId::new(1, [7; 16]);
        let alone = Caller { session: Some(session), ..caller("acme", "ann", &["content"]) };
        assert_eq!(told(Some(&alone)).0, format!("session {session}"));
        assert_eq!(told(Some(&caller("acme", "ann", &[]))).0, "user ann of acme");
        assert_eq!(told(None).0, "address 10.0.0.1");
    }
}

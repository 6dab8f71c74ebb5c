//! What has to come to the same instance each time.

use http::{HeaderMap, HeaderValue, header, request::Parts};
use soa::{Balance, HashKey, Service, key_hash};
use types::Caller;

/// The key of a request from `address`, if its service chooses instances by it.
pub(crate) fn key(
    address: &HeaderValue,
    service: &Service,
    head: &Parts,
    caller: Option<&Caller>,
) -> Option<u64> {
    let config = service.config();
    if config.balance != Balance::ConsistentHash {
        return None;
    }
    let named = match &config.hash {
        HashKey::Ip => None,
        HashKey::User => caller.map(by_name),
        HashKey::Session => caller.map(|caller| match caller.session {
            Some(session) => key_hash(session.to_string().as_bytes()),
            None => by_name(caller),
        }),
        HashKey::Path => Some(key_hash(head.uri.path().as_bytes())),
        HashKey::Header(name) => head.headers.get(name).map(|value| key_hash(value.as_bytes())),
        HashKey::Cookie(name) => cookie(&head.headers, name).map(key_hash),
    };
    Some(named.unwrap_or_else(|| key_hash(address.as_bytes())))
}

/// Equal names of two tenants are two keys.
fn by_name(caller: &Caller) -> u64 {
    let Caller { tenant, principal, .. } = caller;
    key_hash(format!("{tenant} {} {}", principal.kind, principal.id).as_bytes())
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

    #[test]
    fn a_cookie_is_found_by_its_whole_name() {
        let mut headers = HeaderMap::new();
        headers.append(header::COOKIE, "xcart=1; cart2=2; cart=three=3".parse().unwrap());
        assert_eq!(cookie(&headers, "cart"), Some(&b"three=3"[..]));
        assert_eq!(cookie(&headers, "car"), None);
    }
}

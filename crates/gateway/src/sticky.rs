//! What has to come to the same instance each time.

use http::{HeaderMap, HeaderValue, header, request::Parts};
use soa::{Balance, HashKey, Service, key_hash};
use types::Caller;

/// What a key may be taken from.
#[derive(Clone, Copy)]
pub(crate) struct Asked<'a> {
    /// The client's.
    pub(crate) address: &'a HeaderValue,
    pub(crate) head: &'a Parts,
    pub(crate) caller: Option<&'a Caller>,
}

/// The key by which the instances of a service are chosen, if they are.
pub(crate) fn key_of(asked: &Asked<'_>, service: &Service) -> Option<u64> {
    let config = service.config();
    (config.balance == Balance::ConsistentHash).then(|| key(asked, &config.hash))
}

/// The same for what has to come to the same place.
pub(crate) fn key(asked: &Asked<'_>, hash: &HashKey) -> u64 {
    let Asked { address, head, caller } = *asked;
    let named = match hash {
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
    named.unwrap_or_else(|| key_hash(address.as_bytes()))
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

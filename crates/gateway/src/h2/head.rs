//! The head of an HTTP/2 request, where it allows what HTTP/1.1 does not.

use http::{HeaderMap, HeaderValue, Method, header, request::Parts};
use http1::{FIELDS_MAX, Refusal, is_authority};
use protocol::{Code, Problem};

/// What HTTP/2 allows and we, or HTTP/1.1, do not. Gives the host, which is also set.
pub(crate) fn check(head: &mut Parts, target_bytes_max: usize) -> Result<HeaderValue, Problem> {
    let refuse = |code, detail| Err(Refusal::new(code, detail).problem());
    if matches!(head.method, Method::CONNECT | Method::TRACE) {
        return refuse(Code::NotImplemented, "the method is not answered here");
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

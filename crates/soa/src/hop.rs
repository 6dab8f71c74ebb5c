//! Header fields that concern one connection only (RFC 9110, section 7.6.1).

use http::{HeaderMap, HeaderName, header};
use smallvec::SmallVec;

/// Removes what belongs to the connection the message came on: `Connection` and every field it
/// lists, and the fields that are hop-by-hop without being listed. `Host` and `Content-Length`
/// stay even when listed: the message is framed anew, and nobody may remove them from afar.
pub fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let mut gone: SmallVec<[HeaderName; 4]> = SmallVec::new();
    let mut connection = false;
    for (name, value) in headers.iter() {
        if *name == header::CONNECTION {
            connection = true;
            if is_option(value.as_bytes()) {
                continue;
            }
            let listed = value.as_bytes().split(|byte| *byte == b',');
            gone.extend(
                listed
                    .filter_map(|item| HeaderName::from_bytes(item.trim_ascii()).ok())
                    .filter(|name| *name != header::HOST && *name != header::CONTENT_LENGTH),
            );
        } else if is_hop_by_hop(name) {
            gone.push(name.clone());
        }
    }
    if connection {
        headers.remove(header::CONNECTION);
    }
    for name in &gone {
        headers.remove(name);
    }
}

/// Whether a `Connection` says something by itself and names no field that is not known anyway;
/// nearly every one of a service does.
fn is_option(value: &[u8]) -> bool {
    value.eq_ignore_ascii_case(b"keep-alive") || value.eq_ignore_ascii_case(b"close")
}

fn is_hop_by_hop(name: &HeaderName) -> bool {
    let name = name.as_str();
    // Most fields end here.
    matches!(name.as_bytes().first(), Some(b'h' | b'k' | b'p' | b't' | b'u'))
        && matches!(
            name,
            "keep-alive"
                | "proxy-connection"
                | "proxy-authenticate"
                | "proxy-authorization"
                | "te"
                | "trailer"
                | "transfer-encoding"
                | "upgrade"
                | "http2-settings"
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_concerns_one_connection_is_removed() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "keep-alive, X-Mine , host, content-length, bad name"),
            ("connection", "x-other"),
            ("connection", "Keep-Alive"),
            ("keep-alive", "timeout=5"),
            ("x-mine", "1"),
            ("x-other", "1"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("host", "a"),
            ("content-length", "1"),
            ("accept", "*/*"),
        ] {
            headers.append(HeaderName::from_static(name), value.parse().unwrap());
        }
        strip_hop_by_hop(&mut headers);
        let mut left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["accept", "content-length", "host"]);
    }
}

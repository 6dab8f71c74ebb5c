//! Paths without what stands for one thing of many: `/orders/17` and `/orders/18` are one endpoint.

use std::hash::Hasher;

/// What stands for a name or number.
const ID: &[u8] = b"{id}";
/// Segments that are told apart; the rest is one.
const SEGMENTS_MAX: usize = 8;
/// Bytes of a segment that is no id.
const SEGMENT_MAX: usize = 32;
const REST: &[u8] = b"{rest}";

/// The segments of a path, ids replaced.
fn segments(path: &str) -> impl Iterator<Item = &[u8]> {
    let path = path.as_bytes();
    let all = path.strip_prefix(b"/").unwrap_or(path).split(|byte| *byte == b'/').enumerate();
    all.take(SEGMENTS_MAX + 1).map(|(at, segment)| match segment {
        _ if at == SEGMENTS_MAX => REST,
        segment if is_id(segment) => ID,
        segment => segment,
    })
}

/// Whether it looks like one of many: a number, three digits or more, long, hexadecimal, or not of
/// the characters that people name paths with.
fn is_id(segment: &[u8]) -> bool {
    if segment.len() > SEGMENT_MAX {
        return true;
    }
    let (mut digits, mut letters_of_hex) = (0, 0);
    for byte in segment {
        match byte {
            b'0'..=b'9' => digits += 1,
            b'a'..=b'f' | b'A'..=b'F' => letters_of_hex += 1,
            b'g'..=b'z' | b'G'..=b'Z' | b'-' | b'_' | b'.' | b'~' => {}
            _ => return true,
        }
    }
    digits >= 3
        || (digits > 0 && digits == segment.len())
        || (segment.len() >= 16 && digits + letters_of_hex == segment.len())
}

/// The pattern of a path.
pub(super) fn pattern(path: &str) -> String {
    let mut pattern = Vec::with_capacity(path.len());
    for segment in segments(path) {
        pattern.push(b'/');
        pattern.extend_from_slice(segment);
    }
    String::from_utf8(pattern).expect("what is not ASCII is an id")
}

/// Tells a hasher the pattern of a path, without writing it down.
pub(super) fn hash(path: &str, hasher: &mut impl Hasher) {
    for segment in segments(path) {
        hasher.write(segment);
        hasher.write_u8(b'/');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_told_from_names() {
        for (path, expected) in [
            ("/", "/"),
            ("/orders/17", "/orders/{id}"),
            ("/v1/orders/17/lines/", "/v1/orders/{id}/lines/"),
            ("/oauth2/callback.json", "/oauth2/callback.json"),
            ("/users/3f2b8c1e-0d4a-4c55-9f5e-aabbccddeeff", "/users/{id}"),
            ("/users/deadbeefdeadbeef", "/users/{id}"),
            ("/users/ann@example.org", "/users/{id}"),
            ("/files/item-000123", "/files/{id}"),
            ("/a/%2e/b", "/a/{id}/b"),
            ("/a/grüße/b", "/a/{id}/b"),
            ("/users/ABCDEFabcdef12AB", "/users/{id}"),
            ("/users/abcdefabcdef12g", "/users/abcdefabcdef12g"),
            ("/v12/x", "/v12/x"),
            ("/1/2/3/4/5/6/7/8/9/10", "/{id}/{id}/{id}/{id}/{id}/{id}/{id}/{id}/{rest}"),
            ("*", "/{id}"),
        ] {
            assert_eq!(pattern(path), expected, "{path}");
        }
        assert_eq!(pattern(&format!("/{}", "x".repeat(40))), "/{id}");
    }

    #[test]
    fn paths_of_one_pattern_have_one_hash() {
        let of = |path: &str| {
            let mut hasher = std::collections::hash_map::DefaultHasher::new();
            hash(path, &mut hasher);
            hasher.finish()
        };
        assert_eq!(of("/orders/17"), of("/orders/18"));
        assert_ne!(of("/orders/17"), of("/orders/list"));
        assert_ne!(of("/a/b"), of("/ab"));
    }
}

//! Paths without what stands for one thing of many: `/orders/17` and `/orders/18` are one endpoint.

use std::{hash::Hasher, sync::Arc};
use xxhash_rust::xxh3::xxh3_64;

/// What the paths of a route look like where it says so, with names where parameters stand.
#[derive(Debug, Clone)]
pub struct PathPattern {
    pub(super) text: Arc<str>,
    pub(super) hash: u64,
}

impl PathPattern {
    /// As it is written, for instance `/orders/{order}`.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self { text: text.into(), hash: xxh3_64(text.as_bytes()) }
    }
}

/// What stands for a name or number.
const ID: &[u8] = b"{id}";
/// Segments that are told apart; the rest is one.
const SEGMENTS_MAX: usize = 8;
/// Bytes of a segment that is no id.
const SEGMENT_MAX: usize = 32;
const REST: &[u8] = b"{rest}";

/// Kinds of characters, each counted in a byte of its own, so that one sum counts all of them. What
/// people do not name paths with is unusual.
const DIGIT: u32 = 1;
const LETTER_OF_HEX: u32 = 1 << 8;
const UNUSUAL: u32 = 1 << 16;
const KINDS: [u32; 256] = kinds();

const fn kinds() -> [u32; 256] {
    let mut kinds = [UNUSUAL; 256];
    let mut byte = 0_u8;
    while byte < 128 {
        kinds[byte as usize] = match byte {
            b'0'..=b'9' => DIGIT,
            b'a'..=b'f' | b'A'..=b'F' => LETTER_OF_HEX,
            b'g'..=b'z' | b'G'..=b'Z' | b'-' | b'_' | b'.' | b'~' => 0,
            _ => UNUSUAL,
        };
        byte += 1;
    }
    kinds
}

/// The length of the segment that a path begins with, and its characters, counted by kind.
fn segment(path: &[u8]) -> (usize, u32) {
    let mut sum = 0_u32;
    for (at, byte) in path.iter().enumerate() {
        if *byte == b'/' {
            return (at, sum);
        }
        sum = sum.wrapping_add(KINDS[usize::from(*byte)]);
    }
    (path.len(), sum)
}

/// Whether a segment looks like one of many: a number, three digits or more, long, hexadecimal, or
/// not of the characters that people name paths with.
fn is_id(len: usize, sum: u32) -> bool {
    if len > SEGMENT_MAX {
        return true;
    }
    let digits = (sum & 0xff) as usize;
    let letters_of_hex = (sum >> 8 & 0xff) as usize;
    sum >= UNUSUAL
        || digits >= 3
        || (digits > 0 && digits == len)
        || (len >= 16 && digits + letters_of_hex == len)
}

/// The pattern of a path in pieces: what stands as it is, with its slashes, and what stands for
/// the rest, in turn.
fn pieces<'p>(path: &'p str, mut piece: impl FnMut(&'p [u8])) {
    let path = path.as_bytes();
    let path = path.strip_prefix(b"/").unwrap_or(path);
    let (mut told, mut start) = (0, 0);
    for at in 0..=SEGMENTS_MAX {
        let is_rest = at == SEGMENTS_MAX;
        let (len, sum) = if is_rest { (path.len() - start, 0) } else { segment(&path[start..]) };
        let end = start + len;
        if is_rest || is_id(len, sum) {
            piece(&path[told..start]);
            piece(if is_rest { REST } else { ID });
            told = end;
        }
        if end == path.len() {
            break;
        }
        start = end + 1;
    }
    piece(&path[told..]);
}

/// The pattern of a path.
pub(super) fn pattern(path: &str) -> String {
    let mut pattern = Vec::with_capacity(path.len() + 1);
    pattern.push(b'/');
    pieces(path, |piece| pattern.extend_from_slice(piece));
    String::from_utf8(pattern).expect("what is not ASCII is an id")
}

/// Tells a hasher the pattern of a path, without writing it down.
pub(super) fn hash(path: &str, hasher: &mut impl Hasher) {
    pieces(path, |piece| hasher.write(piece));
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
        assert_ne!(of("/a/17/b"), of("/a/b/17"));
        let of_many = |last: &str| of(&format!("/a/b/c/d/e/f/g/h/{last}"));
        assert_eq!(of_many("i"), of_many("j/k"));
        assert_ne!(of_many("i"), of("/a/b/c/d/e/f/g/h"));
    }
}

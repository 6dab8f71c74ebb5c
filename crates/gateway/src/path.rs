//! One spelling for each path.
//!
//! A path that a service might read as another one would pass by the rules of its route, so:
//! - dot segments (`.`, `..`), also escaped (`%2e`) or with parameters (`..;x`), empty segments
//!   (`//`), and escaped slashes, backslashes and control characters are refused;
//! - escapes of characters that need none (`%61`) are undone, and the others are written in
//!   capitals (RFC 3986, section 6.2.2); this is what the service is sent;
//! - path parameters (`;x=1`) are left out when a route is chosen, and sent on.
//!
//! Letters are not folded: `/A` and `/a` are two paths.

use memchr::memchr;
use std::borrow::Cow;

/// Why a path was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ambiguous(pub(crate) &'static str);

/// The path to send on. Borrowed, and free of cost, for a path without escapes.
pub(crate) fn normalise(path: &str) -> Result<Cow<'_, str>, Ambiguous> {
    let normal = if memchr(b'%', path.as_bytes()).is_some() {
        Cow::Owned(unescape(path)?)
    } else {
        Cow::Borrowed(path)
    };
    let bytes = normal.as_bytes();
    if bytes.first() != Some(&b'/') {
        return Err(Ambiguous("the path does not begin with a slash"));
    }
    // Without a branch, so that the compiler looks at many bytes at once.
    let (mut empty, mut dot) = (0_u8, 0_u8);
    for (byte, next) in bytes.iter().zip(&bytes[1..]) {
        let begins = u8::from(*byte == b'/');
        empty |= begins & u8::from(*next == b'/');
        dot |= begins & u8::from(*next == b'.');
    }
    if empty != 0 {
        return Err(Ambiguous("the path has an empty segment"));
    }
    if dot != 0 {
        for segment in normal.split('/') {
            let name = segment.split(';').next().unwrap_or_default();
            if matches!(name, "." | "..") {
                return Err(Ambiguous("the path has a dot segment"));
            }
        }
    }
    Ok(normal)
}

/// The path by which a route is chosen.
pub(crate) fn without_parameters(path: &str) -> Cow<'_, str> {
    if memchr(b';', path.as_bytes()).is_none() {
        return Cow::Borrowed(path);
    }
    let segments: Vec<&str> =
        path.split('/').map(|segment| segment.split(';').next().unwrap_or_default()).collect();
    Cow::Owned(segments.join("/"))
}

fn unescape(path: &str) -> Result<String, Ambiguous> {
    let mut normal = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(at) = rest.find('%') {
        normal.push_str(&rest[..at]);
        let digits = rest.get(at + 1..at + 3).ok_or(Ambiguous("the path has half an escape"))?;
        let byte = u8::from_str_radix(digits, 16)
            .ok()
            .filter(|_| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
            .ok_or(Ambiguous("the path has half an escape"))?;
        match byte {
            b'/' | b'\\' => return Err(Ambiguous("the path has an escaped slash")),
            0..=0x1f | 0x7f => return Err(Ambiguous("the path has an escaped control character")),
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                normal.push(char::from(byte));
            }
            // `%3b` becomes `;` in many servers, and parameters with it.
            b';' => normal.push(';'),
            _ => {
                normal.push('%');
                normal.extend(digits.chars().map(|digit| digit.to_ascii_uppercase()));
            }
        }
        rest = &rest[at + 3..];
    }
    normal.push_str(rest);
    Ok(normal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_path_has_one_spelling() {
        let good = [
            ("/", "/"),
            ("/a/b/", "/a/b/"),
            ("/%61%64min", "/admin"),
            ("/a%c3%a9", "/a%C3%A9"),
            ("/a%20b", "/a%20b"),
            ("/.well-known/x", "/.well-known/x"),
            ("/..a/b..", "/..a/b.."),
            ("/a;x=1/b", "/a;x=1/b"),
            ("/a%3Bx", "/a;x"),
            ("/a%25b", "/a%25b"),
            ("/%252e%252e/", "/%252e%252e/"),
        ];
        for (path, expected) in good {
            assert_eq!(normalise(path).as_deref(), Ok(expected), "{path}");
        }
        let bad = [
            "",
            "a",
            "//",
            "/a//b",
            "/.",
            "/..",
            "/a/../b",
            "/a/./b",
            "/%2e%2e/a",
            "/.%2E/a",
            "/..;x/a",
            "/.;/a",
            "/..%3b/a",
            "/a%2fb",
            "/a%2Fb",
            "/a%5cb",
            "/a%00",
            "/a%0d%0a",
            "/%7f",
            "/%",
            "/%4",
            "/%zz",
            "/%+1",
            "/a/..",
        ];
        for path in bad {
            assert!(normalise(path).is_err(), "{path}");
        }
    }

    #[test]
    fn parameters_do_not_choose_the_route() {
        assert_eq!(without_parameters("/admin;x=1/b;y"), "/admin/b");
        assert_eq!(without_parameters("/admin"), "/admin");
    }
}

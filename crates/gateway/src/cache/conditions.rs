//! Under which conditions a client wants the whole answer (RFC 9110, section 13).

use http::{HeaderMap, HeaderValue, header};

/// The conditions of a request. They are the cache's to judge, who asks the service under its
/// own.
#[derive(Debug, Default)]
pub(super) struct Conditions {
    none_match: Vec<HeaderValue>,
    modified_since: Option<HeaderValue>,
}

impl Conditions {
    /// Takes them out of a request.
    pub(super) fn take(headers: &mut HeaderMap) -> Self {
        let none_match = headers.get_all(header::IF_NONE_MATCH).iter().cloned().collect();
        headers.remove(header::IF_NONE_MATCH);
        Self { none_match, modified_since: headers.remove(header::IF_MODIFIED_SINCE) }
    }

    /// Whether the client has what these fields describe (sections 13.1.2 and 13.1.3).
    pub(super) fn are_known(&self, headers: &HeaderMap) -> bool {
        let text = |value: &HeaderValue| value.to_str().ok().map(str::to_owned);
        if !self.none_match.is_empty() {
            let Some(tag) = headers.get(header::ETAG).and_then(text) else { return false };
            let tags = self.none_match.iter().filter_map(text).collect::<Vec<_>>().join(",");
            let weak = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
            return tags.trim() == "*" || split_tags(&tags).any(|held| weak(held) == weak(&tag));
        }
        let date = |value: &HeaderValue| httpdate::parse_http_date(value.to_str().ok()?).ok();
        let since = self.modified_since.as_ref().and_then(date);
        let modified = headers.get(header::LAST_MODIFIED).and_then(date);
        matches!((since, modified), (Some(since), Some(modified)) if modified <= since)
    }
}

/// The tags of a list; a comma may stand inside their quotes.
fn split_tags(list: &str) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    list.split(move |letter| {
        quoted ^= letter == '"';
        letter == ',' && !quoted
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_has_it_is_recognised() {
        let old = "Sun, 06 Nov 1994 08:49:37 GMT";
        let new = "Sun, 06 Nov 1994 08:49:38 GMT";
        for (asked, held, known) in [
            (("if-none-match", "\"a\""), ("etag", "\"a\""), true),
            (("if-none-match", "W/\"a\""), ("etag", "\"a\""), true),
            (("if-none-match", "\"b\", \"a,b\""), ("etag", "W/\"a,b\""), true),
            (("if-none-match", "\"a,b\""), ("etag", "\"b\""), false),
            (("if-none-match", "*"), ("etag", "\"a\""), true),
            (("if-none-match", "\"b\""), ("etag", "\"a\""), false),
            (("if-none-match", "\"a\""), ("x", "y"), false),
            (("if-modified-since", new), ("last-modified", old), true),
            (("if-modified-since", old), ("last-modified", new), false),
            (("if-modified-since", "soon"), ("last-modified", old), false),
            (("x", "y"), ("etag", "\"a\""), false),
        ] {
            let headers = |(name, value): (&'static str, &'static str)| {
                HeaderMap::from_iter([(name.parse().unwrap(), HeaderValue::from_static(value))])
            };
            let conditions = Conditions::take(&mut headers(asked));
            assert_eq!(conditions.are_known(&headers(held)), known, "{asked:?} {held:?}");
        }
    }
}

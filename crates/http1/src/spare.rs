//! Maps of header fields that were used and serve again: what they hold room for is kept.

use http::HeaderMap;
use std::cell::RefCell;

/// Maps that a thread keeps.
const KEPT: usize = 64;

/// A map that grew beyond this many fields is not kept.
const FIELDS_MAX: usize = 64;

thread_local! {
    static SPARE: RefCell<Vec<HeaderMap>> = const { RefCell::new(Vec::new()) };
}

/// An empty map with room for `fields`.
pub(crate) fn headers(fields: usize) -> HeaderMap {
    let mut headers = SPARE.with_borrow_mut(Vec::pop).unwrap_or_default();
    headers.reserve(fields);
    headers
}

/// Gives a map back that nobody looks at any more.
pub fn give_back(mut headers: HeaderMap) {
    if headers.capacity() > FIELDS_MAX {
        return;
    }
    headers.clear();
    SPARE.with_borrow_mut(|spare| {
        if spare.len() < KEPT {
            spare.push(headers);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::{FIELDS_MAX, KEPT, SPARE, give_back, headers};
    use http::{HeaderMap, HeaderValue, header};

    #[test]
    fn a_map_serves_again_and_remembers_nothing() {
        let mut map = headers(3);
        map.append(header::VARY, HeaderValue::from_static("a"));
        map.append(header::VARY, HeaderValue::from_static("b"));
        let room = map.capacity();
        give_back(map);
        let map = headers(1);
        assert_eq!((map.capacity(), map.len(), map.get(header::VARY)), (room, 0, None));
    }

    #[test]
    fn few_and_small_ones_are_kept() {
        for fields in (0..2 * KEPT).chain([FIELDS_MAX * 2]) {
            give_back(HeaderMap::with_capacity(fields % 8));
            give_back(HeaderMap::with_capacity(FIELDS_MAX * 2));
        }
        SPARE.with_borrow(|spare| {
            assert_eq!(spare.len(), KEPT);
            assert!(spare.iter().all(|map| map.capacity() <= FIELDS_MAX));
        });
    }
}

//! Names of header fields: the same few come again and again, spelled the same.

use http::HeaderName;
use std::cell::RefCell;

/// Names that a thread remembers.
const SLOTS: usize = 128;

/// Longer ones are read anew each time.
const BYTES_MAX: usize = 32;

/// A name, and how it was spelled.
struct Known {
    spelled: Box<[u8]>,
    name: HeaderName,
}

thread_local! {
    static KNOWN: RefCell<[Option<Known>; SLOTS]> = const { RefCell::new([const { None }; SLOTS]) };
}

/// The name that is spelled so, in whichever case; nothing if it is none.
pub(crate) fn name(spelled: &[u8]) -> Option<HeaderName> {
    KNOWN.with_borrow_mut(|known| {
        let slot = &mut known[slot_of(spelled)];
        if let Some(known) = slot
            && *known.spelled == *spelled
        {
            return Some(known.name.clone());
        }
        let name = HeaderName::from_bytes(spelled).ok()?;
        if spelled.len() <= BYTES_MAX {
            *slot = Some(Known { spelled: spelled.into(), name: name.clone() });
        }
        Some(name)
    })
}

/// Where it is remembered: by its length, its ends and its middle.
fn slot_of(spelled: &[u8]) -> usize {
    let (Some(first), Some(last)) = (spelled.first(), spelled.last()) else { return 0 };
    let middle = spelled[spelled.len() / 2];
    let mixed = [(*first, 1), (*last, 7), (middle, 31)];
    let mixed = mixed.iter().map(|(byte, times)| usize::from(*byte) * times).sum::<usize>();
    (mixed + spelled.len() * 5) % SLOTS
}

#[cfg(test)]
mod tests {
    use super::name;

    #[test]
    fn a_name_is_the_same_whatever_came_before() {
        let long = "x".repeat(100);
        // More than there are places for, each more than once.
        let many: Vec<String> = (0..1_000).map(|n| format!("X-Field-{n}")).collect();
        let others = ["Host", "host", "HOST", "hosT", "Content-Length", "content-length", &long];
        for spelled in many.iter().map(String::as_str).chain(others).chain(others) {
            for _ in 0..2 {
                let name = name(spelled.as_bytes()).unwrap();
                assert_eq!(name.as_str(), spelled.to_ascii_lowercase());
            }
        }
        for spelled in ["", "a b", "a:", "\u{e4}", "Host\0"] {
            assert!(name(spelled.as_bytes()).is_none(), "{spelled}");
        }
    }
}

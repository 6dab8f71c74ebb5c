//! Fossil's delta format: which parts of an old text to copy, and what is new between them.
//!
//! Source: "The Delta Format" and "The Delta Encoding Algorithm" of the Fossil manual. Beyond
//! it, a delta of ours cuts no character of UTF-8 in two, so that it is a text itself.

use std::collections::HashMap;

/// Bytes by which equal parts are looked for.
const BLOCK: usize = 16;
/// Longer texts are sent whole: to compare them would cost more than to send them.
const TEXT_MAX: usize = 256 * 1024;
const DIGITS: &[u8; 64] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz~";

/// What makes `new` of `old`; `None` if it would be no shorter than `new`.
#[must_use]
pub fn delta(old: &str, new: &str) -> Option<String> {
    if old.len().max(new.len()) > TEXT_MAX {
        return None;
    }
    let mut delta = Delta { text: String::new(), old, new, told: 0 };
    delta.number(new.len());
    delta.text.push('\n');
    let begin = common(old.as_bytes().iter().zip(new.as_bytes()));
    delta.copy(0, 0, begin);
    let end = common(
        old.as_bytes()[delta.told..].iter().rev().zip(new.as_bytes()[delta.told..].iter().rev()),
    );
    delta.middle(new.len() - end);
    delta.copy(old.len() - end, new.len() - end, end);
    delta.literal(new.len());
    delta.number(checksum(new.as_bytes()) as usize);
    delta.text.push(';');
    (delta.text.len() < new.len()).then_some(delta.text)
}

fn common<'a>(pairs: impl Iterator<Item = (&'a u8, &'a u8)>) -> usize {
    pairs.take_while(|(a, b)| a == b).count()
}

struct Delta<'a> {
    text: String,
    old: &'a str,
    new: &'a str,
    /// So much of `new` is told.
    told: usize,
}

impl Delta<'_> {
    /// Tells of `new` up to `until`, as far as it is worth while by copies.
    fn middle(&mut self, until: usize) {
        let (old, new) = (self.old.as_bytes(), self.new.as_bytes());
        if until < self.told + BLOCK || old.len() < BLOCK {
            return;
        }
        let blocks: HashMap<&[u8], usize, ahash::RandomState> =
            old.chunks_exact(BLOCK).enumerate().map(|(at, block)| (block, at * BLOCK)).collect();
        let mut at = self.told;
        while at + BLOCK <= until {
            let Some(&found) = blocks.get(&new[at..at + BLOCK]) else {
                at += 1;
                continue;
            };
            let before = common(old[..found].iter().rev().zip(new[self.told..at].iter().rev()));
            let after = common(old[found..].iter().zip(&new[at..until]));
            self.copy(found - before, at - before, before + after);
            at = (at + after).max(self.told);
        }
    }

    /// Tells of the `len` bytes from `at` on, which stand at `from` in `old`, if that is shorter
    /// than to spell them.
    fn copy(&mut self, from: usize, at: usize, len: usize) {
        let (mut begin, mut end) = (at.max(self.told), at + len);
        while begin < end && !self.new.is_char_boundary(begin) {
            begin += 1;
        }
        while end > begin && !self.new.is_char_boundary(end) {
            end -= 1;
        }
        let (from, len) = (from + (begin - at), end - begin);
        if len <= digits(len) + digits(from) + 2 {
            return;
        }
        self.literal(begin);
        self.number(len);
        self.text.push('@');
        self.number(from);
        self.text.push(',');
        self.told = end;
    }

    /// Spells what is not told up to `until`.
    fn literal(&mut self, until: usize) {
        if self.told < until {
            self.number(until - self.told);
            self.text.push(':');
            self.text.push_str(&self.new[self.told..until]);
            self.told = until;
        }
    }

    fn number(&mut self, number: usize) {
        for place in (0..digits(number)).rev() {
            self.text.push(char::from(DIGITS[(number >> (6 * place)) & 63]));
        }
    }
}

/// How many digits a number has in base 64.
fn digits(number: usize) -> usize {
    let bits = (usize::BITS - number.leading_zeros()) as usize;
    bits.div_ceil(6).max(1)
}

/// The sum of the text as numbers of four bytes, the last one filled with zeros.
fn checksum(text: &[u8]) -> u32 {
    text.chunks(4).fold(0, |sum: u32, chunk| {
        let mut word = [0; 4];
        word[..chunk.len()].copy_from_slice(chunk);
        sum.wrapping_add(u32::from_be_bytes(word))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(old: &str, new: &str) -> Option<usize> {
        let delta = delta(old, new)?;
        let made = fossil_delta::apply(old, &delta).expect("a delta that holds");
        assert_eq!(made, new.as_bytes(), "{old:?} {delta:?}");
        Some(delta.len())
    }

    #[test]
    fn what_changes_little_is_told_shortly() {
        let old = r#"{"price":101.25,"volume":1000,"name":"a name that is rather long"}"#;
        let new = old.replace("101.25", "101.5").replace("1000", "1001");
        assert!(check(old, &new).unwrap() < 40);
        assert!(check(old, old).unwrap() < 20);
        assert_eq!(check("", "short"), None);
        assert_eq!(check(old, "something else altogether"), None);
        let long = "x".repeat(TEXT_MAX + 1);
        assert_eq!(delta(&long, &long), None);
    }

    #[test]
    fn the_format_is_the_documented_one() {
        let old = "0123456789abcdefghij";
        let same = delta(old, old).unwrap();
        assert!(same.starts_with("K\nK@0,") && same.ends_with(';'), "{same}");
        let longer = delta(old, "0123456789abcdefghij, and more").unwrap();
        assert!(longer.starts_with("U\nK@0,A:, and more"), "{longer}");
        assert_eq!(checksum(b"\x00\x00\x00\x01\x01"), 0x0100_0001);
        assert_eq!(
            (digits(0), digits(63), digits(64), digits(4095), digits(4096)),
            (1, 1, 2, 2, 3)
        );
    }

    #[test]
    fn any_texts_make_deltas_that_hold() {
        // SplitMix64 (Steele, Lea, Flood 2014).
        let mut seed = 7_u64;
        let mut below = |bound: usize| {
            seed = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let z = (seed ^ (seed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            ((z ^ (z >> 27)) >> 8) as usize % bound
        };
        let letters: Vec<char> = "abcé✓🦀 \"0".chars().collect();
        let mut deltas = 0;
        for _ in 0..3_000 {
            let letters = &letters[..1 + below(letters.len())];
            let length = below(200);
            let old: String = (0..length).map(|_| letters[below(letters.len())]).collect();
            let mut new: Vec<char> = old.chars().collect();
            for _ in 0..below(6) {
                let at = below(new.len() + 1);
                let to = (at + below(20)).min(new.len());
                let with: Vec<char> =
                    (0..below(20)).map(|_| letters[below(letters.len())]).collect();
                match below(3) {
                    0 => drop(new.splice(at..at, with)),
                    1 => drop(new.splice(at..to, with)),
                    _ => {
                        let moved: Vec<char> = new.drain(at..to).collect();
                        let to = below(new.len() + 1);
                        drop(new.splice(to..to, moved));
                    }
                }
            }
            let new: String = new.into_iter().collect();
            deltas += usize::from(check(&old, &new).is_some());
        }
        assert!(deltas > 1_000, "{deltas}");
    }
}

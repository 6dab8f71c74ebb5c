//! What identifies a request in logs: our span of the W3C trace context.

use crate::connection::Conn;
use bytes::Bytes;
use http::HeaderValue;
use std::ops::Range;

/// Bytes of a `traceparent`, and those of them that are the span.
const LENGTH: usize = 55;
const SPAN: Range<usize> = 36..52;

/// What identifies the request in logs: our span of the W3C trace.
pub(crate) struct Trace {
    /// The span alone, as `X-Request-Id` has it.
    pub(crate) id: HeaderValue,
    /// All of it, as `traceparent` has it.
    pub(crate) parent: HeaderValue,
    /// Whether the client began the trace, so that its `tracestate` goes with it.
    pub(crate) continued: bool,
}

impl Trace {
    pub(crate) fn new(conn: &Conn, traceparent: Option<&HeaderValue>) -> Self {
        let begun =
            traceparent.and_then(|value| value.to_str().ok()).filter(|value| is_traceparent(value));
        let core = &conn.core;
        let mut text = Vec::with_capacity(LENGTH);
        match begun {
            Some(begun) => text.extend_from_slice(&begun.as_bytes()[..SPAN.start]),
            None => {
                text.extend_from_slice(b"00-");
                text.extend_from_slice(&hex(core.random() | 1));
                text.extend_from_slice(&hex(core.random()));
                text.push(b'-');
            }
        }
        // Nonzero, as the trace context wants ids to be.
        text.extend_from_slice(&hex(core.random() | 1));
        text.extend_from_slice(begun.map_or(b"-00", |begun| &begun.as_bytes()[SPAN.end..]));
        let text = Bytes::from(text);
        let value = |text| HeaderValue::from_maybe_shared(text).expect("it is visible ASCII");
        Self { id: value(text.slice(SPAN)), parent: value(text), continued: begun.is_some() }
    }
}

/// Sixteen lowercase digits: each nibble in a byte of its own, then all turned into letters at
/// once.
fn hex(number: u64) -> [u8; 16] {
    let mut spread = u128::from(number);
    for (shift, mask) in [
        (32, 0x0000_0000_ffff_ffff_0000_0000_ffff_ffff),
        (16, 0x0000_ffff_0000_ffff_0000_ffff_0000_ffff),
        (8, 0x00ff_00ff_00ff_00ff_00ff_00ff_00ff_00ff),
        (4, 0x0f0f_0f0f_0f0f_0f0f_0f0f_0f0f_0f0f_0f0f_u128),
    ] {
        spread = (spread | (spread << shift)) & mask;
    }
    const ONES: u128 = 0x0101_0101_0101_0101_0101_0101_0101_0101;
    // A nibble above nine carries into the bit of sixteen when six is added.
    let letters = ((spread + 6 * ONES) >> 4) & ONES;
    (spread + u128::from(b'0') * ONES + letters * u128::from(b'a' - b'0' - 10)).to_be_bytes()
}

/// Version 00 of the trace context, in lowercase and without a zero id.
fn is_traceparent(text: &str) -> bool {
    let bytes = text.as_bytes();
    let hex = |range: std::ops::Range<usize>| {
        bytes[range].iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    };
    let zero = |range: std::ops::Range<usize>| bytes[range].iter().all(|byte| *byte == b'0');
    bytes.len() == LENGTH
        && bytes.starts_with(b"00-")
        && hex(3..35)
        && !zero(3..35)
        && bytes[35] == b'-'
        && hex(SPAN)
        && !zero(SPAN)
        && bytes[52] == b'-'
        && hex(53..55)
}

#[cfg(test)]
mod tests {
    use super::hex;

    #[test]
    fn numbers_are_written_in_sixteen_digits() {
        for number in [0, 1, 9, 10, 0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210, u64::MAX] {
            assert_eq!(hex(number), *format!("{number:016x}").as_bytes());
        }
    }
}

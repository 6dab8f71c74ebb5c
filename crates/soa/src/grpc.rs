//! What of gRPC a proxy has to understand: the protocol over HTTP/2, as
//! <https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md> has it.

use http::{HeaderMap, HeaderName, HeaderValue, header};
use std::time::Duration;

/// How long the client waits for the whole call.
pub const TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
/// How the call ended.
pub const STATUS: HeaderName = HeaderName::from_static("grpc-status");
/// A sentence about it, percent-encoded.
pub const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// Whether a message is one of gRPC, by its `Content-Type`. gRPC-Web is another protocol.
#[must_use]
pub fn is_grpc(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    kind.and_then(|kind| kind.strip_prefix(b"application/grpc"))
        .is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

/// The time of a [`TIMEOUT`]: at most eight digits, and a unit; none if it is malformed.
#[must_use]
pub fn timeout(field: &HeaderValue) -> Option<Duration> {
    let (unit, digits) = field.as_bytes().split_last()?;
    if !(1..=8).contains(&digits.len()) || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let count: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    Some(match unit {
        b'H' => Duration::from_secs(count * 3600),
        b'M' => Duration::from_secs(count * 60),
        b'S' => Duration::from_secs(count),
        b'm' => Duration::from_millis(count),
        b'u' => Duration::from_micros(count),
        b'n' => Duration::from_nanos(count),
        _ => return None,
    })
}

/// A [`TIMEOUT`] of this time, rounded down to what eight digits can say.
#[must_use]
pub fn timeout_field(left: Duration) -> HeaderValue {
    let digits = 100_000_000;
    let units = [(left.as_micros(), 'u'), (left.as_millis(), 'm'), (left.as_secs().into(), 'S')];
    let fits = units.into_iter().find(|(count, _)| *count < digits);
    let (count, unit) = fits.unwrap_or((u128::from(left.as_secs() / 3600).min(digits - 1), 'H'));
    HeaderValue::try_from(format!("{count}{unit}")).expect("digits and a letter are visible")
}

/// The HTTP status that says the same as a [`STATUS`], in the head of an answer or behind it.
/// None if there is no such field, or if the call went well.
///
/// What only a service can be the cause of is one from 500: `UNKNOWN`, `DEADLINE_EXCEEDED`,
/// `RESOURCE_EXHAUSTED`, `INTERNAL`, `UNAVAILABLE` and `DATA_LOSS`.
#[must_use]
pub fn http_status(fields: &HeaderMap) -> Option<u16> {
    Some(match fields.get(STATUS)?.as_bytes() {
        b"0" => return None,
        b"1" => 499,
        // Who calls what there is not, asks for nothing that is the service's fault.
        b"5" | b"12" => 404,
        b"6" | b"10" => 409,
        b"3" | b"9" | b"11" => 400,
        b"7" => 403,
        b"16" => 401,
        b"4" => 504,
        b"8" | b"14" => 503,
        _ => 500,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_told_by_their_content_type() {
        for (kind, is) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/grpc;charset=utf-8", true),
            ("application/grpc-web", false),
            ("application/grpc-web+proto", false),
            ("application/json", false),
        ] {
            let headers = [(header::CONTENT_TYPE, HeaderValue::from_static(kind))];
            assert_eq!(is_grpc(&headers.into_iter().collect()), is, "{kind}");
        }
    }

    #[test]
    fn times_have_eight_digits_and_a_unit() {
        for (field, nanos) in [
            ("1H", Some(3_600_000_000_000)),
            ("2M", Some(120_000_000_000)),
            ("3S", Some(3_000_000_000)),
            ("99999999m", Some(99_999_999_000_000)),
            ("5u", Some(5_000)),
            ("0n", Some(0)),
            ("", None),
            ("S", None),
            ("1", None),
            ("1s", None),
            ("+1S", None),
            ("-1S", None),
            ("1.5S", None),
            ("123456789m", None),
        ] {
            let read = timeout(&HeaderValue::from_static(field));
            assert_eq!(read.map(|time| time.as_nanos()), nanos, "{field}");
        }
        for (left, field) in [
            (Duration::from_millis(1_500), "1500000u"),
            (Duration::from_secs(100), "100000m"),
            (Duration::from_secs(100_000), "100000S"),
            (Duration::from_secs(100_000_000), "27777H"),
            (Duration::MAX, "99999999H"),
        ] {
            assert_eq!(timeout_field(left), field);
            assert!(timeout(&timeout_field(left)).unwrap() <= left);
        }
    }

    #[test]
    fn a_status_is_a_failure_of_the_service_or_of_the_client() {
        let of = |status: &'static str| {
            http_status(&[(STATUS, HeaderValue::from_static(status))].into_iter().collect())
        };
        assert_eq!(http_status(&HeaderMap::new()), None);
        assert_eq!(of("0"), None);
        for status in ["2", "4", "8", "13", "14", "15", "99", "x"] {
            assert!(of(status).unwrap() >= 500, "{status}");
        }
        for status in ["1", "3", "5", "6", "7", "9", "10", "11", "12", "16"] {
            assert!((400..500).contains(&of(status).unwrap()), "{status}");
        }
    }
}

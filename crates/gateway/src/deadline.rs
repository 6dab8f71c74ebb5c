//! How long a client waits for an answer: as long as its route allows, or less if it says so.

use http::HeaderValue;
use protocol::{Code, Problem};
use std::time::Duration;

/// The time that a client asked for, in milliseconds.
///
/// # Errors
/// `bad_request` if it is no number.
pub(crate) fn asked(field: Option<&HeaderValue>) -> Result<Option<Duration>, Problem> {
    let Some(field) = field else { return Ok(None) };
    let digits = field.to_str().ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    let millis = digits.and_then(|digits| digits.parse().ok());
    let malformed = || {
        let detail = format!("`{}` is a number of milliseconds", soa::TIMEOUT);
        Problem::new(Code::BadRequest, detail)
    };
    millis.map(Duration::from_millis).map(Some).ok_or_else(malformed)
}

/// What is left once `spent` has passed.
///
/// # Errors
/// `upstream_timeout` if nothing is: the service is not called in vain.
pub(crate) fn left(
    route: Duration,
    asked: Option<Duration>,
    spent: impl FnOnce() -> Duration,
) -> Result<Duration, Problem> {
    let Some(asked) = asked else { return Ok(route) };
    let left = asked.saturating_sub(spent());
    if left.is_zero() {
        let detail = "the time that the client gave was used up before the service was called";
        return Err(Problem::new(Code::UpstreamTimeout, detail));
    }
    Ok(left.min(route))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_may_wait_for_less_and_not_for_more() {
        let route = Duration::from_secs(1);
        for (field, spent, expected) in [
            (None, 9_000, Some(1_000)),
            (Some("400"), 100, Some(300)),
            (Some("400"), 400, None),
            (Some("0"), 0, None),
            (Some("5000"), 100, Some(1_000)),
            (Some("99999999999999999"), 0, Some(1_000)),
        ] {
            let field = field.map(HeaderValue::from_static);
            let asked = asked(field.as_ref()).unwrap();
            let left = left(route, asked, || Duration::from_millis(spent)).ok();
            let left = left.map(|left| left.as_millis());
            assert_eq!(left, expected, "{field:?}");
        }
        for field in ["", "-1", "1.5", "1s", " 1", "+1", "999999999999999999999"] {
            assert!(asked(Some(&HeaderValue::from_static(field))).is_err(), "{field}");
        }
    }
}

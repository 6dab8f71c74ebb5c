//! What a service is spared, and what its callers are, on bad days.

use super::{ConfigError, ServiceConfig};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Sending a request again that failed, to another instance if there is one. Only what may be
/// sent twice is: see [`crate::Terms::repeatable`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RetryConfig {
    /// Attempts after the first, at most. Default 2.
    pub attempts: u32,
    /// Answers that are asked for again, unless they carry `Retry-After`. Default 502, 503 and
    /// 504.
    pub statuses: Vec<u16>,
    /// An attempt after the first waits up to this long, at random; twice as long each time.
    /// Default `25ms`.
    #[serde(with = "types::duration")]
    pub backoff: Duration,
    /// Time from the start of one attempt to the head of its answer. Default: what the call has.
    #[serde(
        deserialize_with = "types::duration::optional",
        serialize_with = "types::duration::serialize_optional"
    )]
    pub attempt_timeout: Option<Duration>,
    /// Bytes of a body that are kept to be sent again; a request with more, or of unknown
    /// length, is sent once. Default 64 KiB, at most 1 MiB.
    pub body_bytes_max: u64,
    /// Whether the service sends the same answer to a request with the same
    /// `Idempotency-Key`, so that one may be sent twice. Default false.
    pub idempotency_key: bool,
}

impl Default for RetryConfig {
    fn default() -> Self {
        Self {
            attempts: 2,
            statuses: vec![502, 503, 504],
            backoff: Duration::from_millis(25),
            attempt_timeout: None,
            body_bytes_max: 64 * 1024,
            idempotency_key: false,
        }
    }
}

/// How many attempts there may be beside the first ones, over the last ten to twenty seconds
/// (Finagle's retry budget): retries do not make an overload worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BudgetConfig {
    /// Of a hundred calls. Default 20.
    pub percent: u32,
    /// And in each second, however few calls there are. Default 10.
    pub per_second: u32,
}

impl Default for BudgetConfig {
    fn default() -> Self {
        Self { percent: 20, per_second: 10 }
    }
}

/// Asking a second instance when the first is slow; the first answer is taken (Dean and
/// Barroso 2013). Only for requests that may be sent twice, and within the budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HedgeConfig {
    /// When: `p50` to `p99` of the latencies so far, or a time.
    pub after: HedgeAfter,
}

/// When a second instance is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum HedgeAfter {
    /// `p95`: when this percentage of the calls would have been answered.
    Percentile(u8),
    /// After this time.
    Time(Duration),
}

impl TryFrom<String> for HedgeAfter {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if let Some(digits) = text.strip_prefix('p') {
            let percentile =
                digits.parse().ok().filter(|percentile| (50..=99).contains(percentile));
            return percentile
                .map(Self::Percentile)
                .ok_or_else(|| format!("`{text}` is not `p50` to `p99`, or a time"));
        }
        types::duration::parse(&text).map(Self::Time)
    }
}

impl From<HedgeAfter> for String {
    fn from(after: HedgeAfter) -> Self {
        match after {
            HedgeAfter::Percentile(percentile) => format!("p{percentile}"),
            HedgeAfter::Time(time) => types::duration::format(time),
        }
    }
}

/// When calls of a service that fails are refused at once, so that neither side waits in vain
/// (Nygard 2007).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BreakerConfig {
    /// Failures of a hundred calls that open it: no answer, or a status from 500. Default 50.
    pub failures_percent: u32,
    /// Calls in the window before anything is concluded. Default 20.
    pub calls_min: u32,
    /// How far back calls count. Default `10s`.
    #[serde(with = "types::duration")]
    pub window: Duration,
    /// How long it stays open; then one call at a time tries. Default `5s`.
    #[serde(with = "types::duration")]
    pub open: Duration,
    /// Tries in a row that have to succeed before it closes. Default 3.
    pub probes: u32,
}

impl Default for BreakerConfig {
    fn default() -> Self {
        Self {
            failures_percent: 50,
            calls_min: 20,
            window: Duration::from_secs(10),
            open: Duration::from_secs(5),
            probes: 3,
        }
    }
}

/// How many calls of this node a service is given at once. More are refused, those of low
/// priority first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ConcurrencyConfig {
    /// At most. Default 1,000.
    pub max: usize,
    /// At least, however slow it is. Default 4.
    pub min: usize,
    /// Whether the bound follows the latency, or is `max` always. Default true.
    pub adaptive: bool,
}

impl Default for ConcurrencyConfig {
    fn default() -> Self {
        Self { max: 1_000, min: 4, adaptive: true }
    }
}

impl ServiceConfig {
    /// Checks what guards the service.
    pub(crate) fn check_guard(&self, name: &str) -> Result<(), ConfigError> {
        let positive = "more than zero";
        let percent = "1 to 100";
        let mut ranges = Vec::new();
        if let Some(retry) = &self.retry {
            let failures = retry.statuses.iter().all(|status| (400..600).contains(status));
            let timeout = retry.attempt_timeout.is_none_or(|timeout| !timeout.is_zero());
            ranges.extend([
                ("retry.attempts", (1..=10).contains(&retry.attempts), "1 to 10"),
                ("retry.statuses", failures, "statuses from 400 to 599"),
                ("retry.attempt_timeout", timeout, positive),
                ("retry.body_bytes_max", retry.body_bytes_max <= 1024 * 1024, "1 MiB at most"),
            ]);
        }
        if let Some(HedgeConfig { after: HedgeAfter::Time(after) }) = &self.hedge {
            ranges.push(("hedge.after", !after.is_zero(), positive));
        }
        if let Some(breaker) = &self.breaker {
            let failures = (1..=100).contains(&breaker.failures_percent);
            ranges.extend([
                ("breaker.failures_percent", failures, percent),
                ("breaker.calls_min", breaker.calls_min > 0, positive),
                ("breaker.window", !breaker.window.is_zero(), positive),
                ("breaker.open", !breaker.open.is_zero(), positive),
                ("breaker.probes", breaker.probes > 0, positive),
            ]);
        }
        if let Some(concurrency) = &self.concurrency {
            let ordered = (1..=concurrency.max).contains(&concurrency.min);
            ranges.push(("concurrency.min", ordered, "1 to `concurrency.max`"));
        }
        ranges.push(("budget.percent", self.budget.percent <= 100, "0 to 100"));
        match ranges.into_iter().find(|(_, holds, _)| !holds) {
            Some((field, _, range)) => {
                Err(ConfigError::Range { service: name.to_owned(), field, range })
            }
            None => Ok(()),
        }
    }
}

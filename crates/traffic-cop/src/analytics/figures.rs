//! What is counted, and what is told of it.

use crate::analytics::Histogram;
use serde::Serialize;
use std::time::Duration;

/// What somebody used, or what a route took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[schemars(rename = "TrafficUsage")]
pub struct Usage {
    /// Requests answered.
    pub requests: u64,
    /// Of them with a status of 400 to 499, refusals by a limit included.
    pub client_errors: u64,
    /// Of them with a status of 500 and above.
    pub server_errors: u64,
    /// Of them refused by a limit (429).
    pub limited: u64,
    /// Bytes of request bodies.
    pub bytes_in: u64,
    /// Bytes of answers' bodies.
    pub bytes_out: u64,
}

impl Usage {
    /// One request.
    pub(super) fn one(status: u16, bytes_in: u64, bytes_out: u64) -> Self {
        Self {
            requests: 1,
            client_errors: u64::from((400..500).contains(&status)),
            server_errors: u64::from(status >= 500),
            limited: u64::from(status == 429),
            bytes_in,
            bytes_out,
        }
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.client_errors += other.client_errors;
        self.server_errors += other.server_errors;
        self.limited += other.limited;
        self.bytes_in = self.bytes_in.saturating_add(other.bytes_in);
        self.bytes_out = self.bytes_out.saturating_add(other.bytes_out);
    }

    /// In the order in which they are stored.
    pub(super) fn numbers(&self) -> [u64; 6] {
        let Self { requests, client_errors, server_errors, limited, bytes_in, bytes_out } = *self;
        [requests, client_errors, server_errors, limited, bytes_in, bytes_out]
    }

    pub(super) fn of_numbers(numbers: &[u64]) -> Self {
        let at = |at: usize| numbers.get(at).copied().unwrap_or_default();
        Self {
            requests: at(0),
            client_errors: at(1),
            server_errors: at(2),
            limited: at(3),
            bytes_in: at(4),
            bytes_out: at(5),
        }
    }
}

/// What was counted for one label.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Counts {
    pub(super) usage: Usage,
    pub(super) latency: Histogram,
}

impl Counts {
    pub(super) fn add_one(&mut self, usage: &Usage, latency: Duration) {
        self.usage.add(usage);
        self.latency.record(latency);
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.usage.add(&other.usage);
        self.latency.add(&other.latency);
    }
}

/// What was counted over a time. Latencies in milliseconds, each off by at most one in 32.
#[derive(Debug, Clone, PartialEq, Serialize, schemars::JsonSchema)]
#[schemars(rename = "TrafficFigures")]
pub struct Figures {
    /// The counts.
    #[serde(flatten)]
    pub usage: Usage,
    /// Requests a second.
    pub rate: f64,
    /// Half were at most this slow; none if there were no requests.
    pub latency_ms_p50: Option<f64>,
    /// 90 of 100 were at most this slow.
    pub latency_ms_p90: Option<f64>,
    /// 95 of 100 were at most this slow.
    pub latency_ms_p95: Option<f64>,
    /// 99 of 100 were at most this slow.
    pub latency_ms_p99: Option<f64>,
    /// 999 of 1,000 were at most this slow.
    #[serde(rename = "latency_ms_p99.9")]
    pub latency_ms_p999: Option<f64>,
}

impl Figures {
    pub(super) fn of(counts: &Counts, over: Duration) -> Self {
        let ms = |quantile| counts.latency.quantile(quantile).map(|d| d.as_secs_f64() * 1000.0);
        Self {
            usage: counts.usage,
            rate: rate(counts.usage.requests, over),
            latency_ms_p50: ms(0.5),
            latency_ms_p90: ms(0.9),
            latency_ms_p95: ms(0.95),
            latency_ms_p99: ms(0.99),
            latency_ms_p999: ms(0.999),
        }
    }
}

/// So many a second, in thousandths.
pub(super) fn rate(count: u64, over: Duration) -> f64 {
    if over.is_zero() {
        return 0.0;
    }
    (count as f64 / over.as_secs_f64() * 1000.0).round() / 1000.0
}

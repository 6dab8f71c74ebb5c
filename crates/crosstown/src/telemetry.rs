//! Figures for a receiver of OpenTelemetry, over HTTP, in Protocol Buffers.
//!
//! Everything since the start is told each time, so that nothing is missing after a time in which
//! the receiver was away. What was to be told in that time waits, in little room; beyond that the
//! oldest is given up, and counted.

mod otlp;

use crate::http_client::{HttpClient, http_client};
use bytes::Bytes;
use clock::SharedClock;
use http::{Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use serde::Deserialize;
use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use traffic_cop::analytics::Analytics;
use types::Timestamp;

/// What waits for a receiver that is away.
const WAITING_MAX: usize = 30;
const WAITING_BYTES_MAX: usize = 8 * 1024 * 1024;
/// How long the receiver may take.
const WITHIN: Duration = Duration::from_secs(5);
/// Bytes of an answer that are read.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Whom figures are told.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// Where the receiver takes metrics: `http://HOST:4318/v1/metrics`. Nobody is told, unless
    /// given.
    pub(crate) otlp: Option<String>,
    /// How often it is told; 1s to 5m.
    #[serde(with = "types::duration")]
    pub(crate) interval: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self { otlp: None, interval: Duration::from_secs(10) }
    }
}

impl Config {
    /// # Errors
    /// What to change.
    pub(crate) fn check(&self) -> Result<(), String> {
        if !(Duration::from_secs(1)..=Duration::from_secs(300)).contains(&self.interval) {
            return Err("`telemetry.interval` must be 1s to 5m".into());
        }
        match &self.otlp {
            Some(url) => uri(url).map(drop),
            None => Ok(()),
        }
    }
}

fn uri(url: &str) -> Result<Uri, String> {
    let uri = url.parse::<Uri>().ok();
    let fits = |uri: &Uri| matches!(uri.scheme_str(), Some("http" | "https"));
    uri.filter(fits).ok_or_else(|| {
        format!("`telemetry.otlp = \"{url}\"` is no address; use `http://HOST:4318/v1/metrics`")
    })
}

/// What was told, and what was given up.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    told: AtomicU64,
    lost: AtomicU64,
}

impl Counts {
    /// How often the receiver was told, and how often what it should have been told was given up.
    pub(crate) fn both(&self) -> (u64, u64) {
        (self.told.load(Relaxed), self.lost.load(Relaxed))
    }
}

/// What waits to be told, in little room.
#[derive(Debug, Default)]
struct Waiting(VecDeque<Bytes>);

impl Waiting {
    /// Adds one, and answers how many were given up for it.
    fn add(&mut self, export: Bytes) -> u64 {
        self.0.push_back(export);
        let mut lost = 0;
        while self.0.len() > WAITING_MAX
            || (self.0.len() > 1
                && self.0.iter().map(Bytes::len).sum::<usize>() > WAITING_BYTES_MAX)
        {
            self.0.pop_front();
            lost += 1;
        }
        lost
    }
}

/// Tells a receiver.
pub(crate) struct Exporter {
    client: HttpClient<Full<Bytes>>,
    uri: Uri,
    interval: Duration,
    analytics: Arc<Analytics>,
    clock: SharedClock,
    node: String,
    counts: Arc<Counts>,
}

impl Exporter {
    /// An exporter, if one is configured.
    ///
    /// # Errors
    /// What to change.
    pub(crate) fn new(
        config: &Config,
        analytics: Arc<Analytics>,
        clock: SharedClock,
        node: String,
    ) -> Result<Option<Self>, String> {
        let Some(url) = &config.otlp else { return Ok(None) };
        let client = http_client()?;
        let (uri, interval, counts) = (uri(url)?, config.interval, Arc::default());
        Ok(Some(Self { client, uri, interval, analytics, clock, node, counts }))
    }

    pub(crate) fn counts(&self) -> Arc<Counts> {
        self.counts.clone()
    }

    /// Tells each interval, until dropped.
    pub(crate) async fn run(self) {
        let since = self.clock.now();
        let mut waiting = Waiting::default();
        let mut pace = tokio::time::interval(self.interval);
        pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut is_away = false;
        loop {
            pace.tick().await;
            let lost = waiting.add(self.export(since));
            self.counts.lost.fetch_add(lost, Relaxed);
            while let Some(export) = waiting.0.front() {
                match self.send(export.clone()).await {
                    Ok(()) => {
                        self.counts.told.fetch_add(1, Relaxed);
                        is_away = false;
                    }
                    Err(Failure::Refused(status)) => {
                        tracing::warn!(%status, "the receiver of telemetry refuses what it is told");
                        self.counts.lost.fetch_add(1, Relaxed);
                    }
                    Err(Failure::Away(why)) => {
                        if !is_away {
                            tracing::warn!(why, "the receiver of telemetry is away");
                        }
                        is_away = true;
                        break;
                    }
                }
                waiting.0.pop_front();
            }
        }
    }

    fn export(&self, since: Timestamp) -> Bytes {
        let routes = self.analytics.since_start();
        let instances = self.analytics.instances_since_start();
        otlp::export(&self.node, &routes, &instances, since, self.clock.now())
    }

    async fn send(&self, export: Bytes) -> Result<(), Failure> {
        let away = |why: String| Failure::Away(why);
        let request = Request::post(self.uri.clone())
            .header(header::CONTENT_TYPE, "application/x-protobuf")
            .body(Full::new(export))
            .map_err(|error| away(error.to_string()))?;
        let answer = async {
            let answer = self.client.request(request).await?;
            let status = answer.status();
            // Read, so that the connection can be used again.
            let _ = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
            Ok::<_, hyper_util::client::legacy::Error>(status)
        };
        match tokio::time::timeout(WITHIN, answer).await {
            Err(_) => Err(away("it does not answer".into())),
            Ok(Err(error)) => Err(away(error.to_string())),
            Ok(Ok(status)) if status.is_success() => Ok(()),
            // As the specification of OTLP over HTTP says of what is worth another attempt.
            Ok(Ok(
                status @ (StatusCode::TOO_MANY_REQUESTS
                | StatusCode::BAD_GATEWAY
                | StatusCode::SERVICE_UNAVAILABLE
                | StatusCode::GATEWAY_TIMEOUT),
            )) => Err(away(format!("it answers {status}"))),
            Ok(Ok(status)) => Err(Failure::Refused(status)),
        }
    }
}

/// Why something is not told.
enum Failure {
    /// It can be told later.
    Away(String),
    /// It cannot be told at all.
    Refused(StatusCode),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_bounded_in_number_and_bytes() {
        let mut waiting = Waiting::default();
        let small = (0..100).map(|n| waiting.add(Bytes::from(vec![n; 100]))).sum::<u64>();
        assert_eq!((small, waiting.0.len()), (70, WAITING_MAX));
        assert_eq!(waiting.0[0][0], 70, "the oldest go first");
        let large = (0..5).map(|_| waiting.add(Bytes::from(vec![0; 3 << 20]))).sum::<u64>();
        assert_eq!((large, waiting.0.len()), (33, 2));
        waiting.add(Bytes::from(vec![0; 9 << 20]));
        assert_eq!(waiting.0.len(), 1, "there is always something to tell");
    }

    #[test]
    fn an_address_is_one_of_http() {
        let check = |otlp: &str| Config { otlp: Some(otlp.into()), ..Config::default() }.check();
        assert!(check("http://127.0.0.1:4318/v1/metrics").is_ok());
        for wrong in ["", "127.0.0.1:4318", "ftp://a/b", "http://a b"] {
            assert!(check(wrong).unwrap_err().contains("is no address"), "{wrong}");
        }
        assert!(Config::default().check().is_ok());
    }
}

//! From when on an engine counts as not well.

use serde::Deserialize;
use std::time::Duration;

/// From when on an engine counts as not well, and what may wait for it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// A shared engine that has answered nothing for so long, though it was asked, is away.
    /// Long enough for a failover that a driver rides out, short enough for a caller to wait.
    #[serde(with = "types::duration")]
    pub patience: Duration,
    /// An engine whose answers take so long, smoothed over the last few dozen, is slow; it is
    /// well again below half of that.
    #[serde(with = "types::duration")]
    pub slow_after: Duration,
    /// Calls that may be under way in one engine, 1 to 1000000; more are refused at once.
    pub calls_max: usize,
    /// How long a publication of a channel without history waits for a fan-out that is away.
    #[serde(with = "types::duration")]
    pub publications_wait: Duration,
    /// How many may wait so, up to 100000; more are refused at once.
    pub publications_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            patience: Duration::from_secs(2),
            slow_after: Duration::from_millis(250),
            calls_max: 16_384,
            publications_wait: Duration::from_secs(2),
            publications_max: 1_024,
        }
    }
}

impl Config {
    /// Refuses what cannot work.
    ///
    /// # Errors
    /// One line that says what is wrong.
    pub fn check(&self) -> Result<(), String> {
        if !(1..=1_000_000).contains(&self.calls_max) {
            return Err("`calls_max` must be 1 to 1000000".into());
        }
        if self.publications_max > 100_000 {
            return Err("`publications_max` must be at most 100000".into());
        }
        for (name, value) in [("patience", self.patience), ("slow_after", self.slow_after)] {
            if !(Duration::from_millis(10)..=Duration::from_secs(60)).contains(&value) {
                return Err(format!("`{name}` must be 10ms to 60s"));
            }
        }
        if self.publications_wait > Duration::from_secs(60) {
            return Err("`publications_wait` must be at most 60s".into());
        }
        Ok(())
    }
}

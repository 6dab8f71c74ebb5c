//! Bounds of sessions, as they are configured.

use crate::session::{device::Addresses, room::OnLimit};
use serde::Deserialize;
use std::time::Duration;

/// Bounds of sessions.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// How long a session lives without use, unless its creator says otherwise.
    #[serde(with = "types::duration")]
    pub ttl: Duration,
    /// How long a session lives at most, however much it is used.
    #[serde(with = "types::duration")]
    pub ttl_max: Duration,
    /// Sessions that one principal may have at a time, 1 to 1000.
    pub per_user_max: usize,
    /// Bytes of a session's metadata, as JSON; at most 65536.
    pub metadata_bytes_max: usize,
    /// What happens when a principal, or a device, has as many as it may.
    pub on_limit: OnLimit,
    /// Sessions on one device at a time, at most 1000; 0, the default: as many as the user may
    /// have. Sessions that name no device do not count.
    pub per_device_max: usize,
    /// What is remembered of the addresses that devices and sockets come from.
    pub addresses: Addresses,
    /// Events that are kept of a session, 10 to 1000.
    pub events_max: usize,
    /// How long events can still be read once the session is over, and how long anything of a
    /// timeline is kept; 1m to 30d.
    #[serde(with = "types::duration")]
    pub events_keep: Duration,
    /// Whether the requests of sessions are noted, and what else they do.
    pub timeline: bool,
    /// What is kept of a session's timeline, 10 to 10000 entries.
    pub timeline_events_max: usize,
    /// What may wait in memory to be written to timelines, 100 to 1000000 entries. What is beyond
    /// is counted, and told as a gap.
    pub timeline_buffer_max: usize,
}

impl Config {
    /// Refuses what cannot work.
    ///
    /// # Errors
    /// One line that says what is wrong.
    pub fn check(&self) -> Result<(), String> {
        let counts = [
            ("events_max", self.events_max, 10..=1_000),
            ("timeline_events_max", self.timeline_events_max, 10..=10_000),
            ("timeline_buffer_max", self.timeline_buffer_max, 100..=1_000_000),
            ("per_device_max", self.per_device_max, 0..=1_000),
        ];
        if let Some((name, _, bounds)) = counts.iter().find(|(_, n, bounds)| !bounds.contains(n)) {
            let (least, most) = (bounds.start(), bounds.end());
            return Err(format!("`sessions.{name}` must be {least} to {most}"));
        }
        let (least, most) = (Duration::from_secs(60), Duration::from_secs(30 * 24 * 3600));
        if !(least..=most).contains(&self.events_keep) {
            return Err("`sessions.events_keep` must be 1m to 30d".into());
        }
        Ok(())
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            ttl: Duration::from_secs(24 * 3600),
            ttl_max: Duration::from_secs(30 * 24 * 3600),
            per_user_max: 16,
            metadata_bytes_max: 16 * 1024,
            on_limit: OnLimit::default(),
            per_device_max: 0,
            addresses: Addresses::default(),
            events_max: 200,
            events_keep: Duration::from_secs(24 * 3600),
            timeline: false,
            timeline_events_max: 1_000,
            timeline_buffer_max: 16_384,
        }
    }
}

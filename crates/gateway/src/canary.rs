//! A configuration that is tried on a part of the requests.

use crate::core::Snapshot;
use parking_lot::Mutex;
use serde::Serialize;
use std::{sync::Arc, time::Duration};
use traffic_cop::analytics::Histogram;

/// A configuration on trial, beside the one in force.
#[derive(Debug)]
pub(crate) struct Canary {
    pub(crate) snapshot: Arc<Snapshot>,
    /// Requests of a thousand that it gets.
    per_mille: u32,
    tried: Mutex<Tally>,
    in_force: Mutex<Tally>,
}

/// Which of the two a request got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Tried,
    InForce,
}

#[derive(Debug, Default)]
struct Tally {
    errors: u64,
    latency: Histogram,
}

/// How requests went on one side, since the trial began.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct TrialFigures {
    /// Requests answered.
    pub requests: u64,
    /// With a status from 500.
    pub errors: u64,
    /// The time within which 99 of 100 were answered to the end, in milliseconds.
    pub p99_ms: f64,
}

/// How a trial goes.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct TrialReport {
    /// With the configuration on trial.
    pub tried: TrialFigures,
    /// With the one in force, in the same time.
    pub in_force: TrialFigures,
}

impl Canary {
    pub(crate) fn new(snapshot: Snapshot, per_mille: u32) -> Self {
        Self {
            snapshot: Arc::new(snapshot),
            per_mille,
            tried: Mutex::default(),
            in_force: Mutex::default(),
        }
    }

    /// Which side a request gets, by a random number.
    pub(crate) fn side(&self, random: u64) -> Side {
        // The upper bits are the better ones.
        if (random >> 32) % 1000 < u64::from(self.per_mille) { Side::Tried } else { Side::InForce }
    }

    /// A request has been answered to the end.
    pub(crate) fn note(&self, side: Side, status: u16, latency: Duration) {
        let tally = match side {
            Side::Tried => &self.tried,
            Side::InForce => &self.in_force,
        };
        let mut tally = tally.lock();
        tally.errors += u64::from(status >= 500);
        tally.latency.record(latency);
    }

    pub(crate) fn report(&self) -> TrialReport {
        let figures = |tally: &Mutex<Tally>| {
            let tally = tally.lock();
            let p99 = tally.latency.quantile(0.99).unwrap_or_default();
            TrialFigures {
                requests: tally.latency.count(),
                errors: tally.errors,
                p99_ms: (p99.as_secs_f64() * 1e6).round() / 1e3,
            }
        };
        TrialReport { tried: figures(&self.tried), in_force: figures(&self.in_force) }
    }
}

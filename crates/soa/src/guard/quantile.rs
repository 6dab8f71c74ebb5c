//! When most calls would have been answered.

use std::time::Duration;

/// Latencies before the estimate is one.
const WARM: u32 = 100;
/// Each latency moves the estimate by at most this part of it.
const STEP: f64 = 0.05;

/// A percentile of the latencies, estimated in one number: above it moves up by `q`, below it
/// down by `1 - q`, so that it rests where the two are in balance (Robbins and Monro 1951;
/// frugal streaming, Ma, Muthukrishnan and Sandler 2013).
#[derive(Debug, Default)]
pub(crate) struct Quantile {
    seconds: f64,
    seen: u32,
}

impl Quantile {
    pub(crate) fn note(&mut self, percentile: u8, latency: Duration) {
        let latency = latency.as_secs_f64();
        if self.seen == 0 {
            self.seconds = latency.max(1e-6);
        }
        self.seen = self.seen.saturating_add(1);
        let q = f64::from(percentile) / 100.0;
        let step = if latency > self.seconds { q } else { q - 1.0 };
        self.seconds *= 1.0 + STEP * step;
    }

    /// The estimate, once there were enough latencies.
    pub(crate) fn get(&self) -> Option<Duration> {
        (self.seen >= WARM).then(|| Duration::from_secs_f64(self.seconds))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_estimate_comes_near_and_follows() {
        let mut quantile = Quantile::default();
        let spread = |quantile: &mut Quantile, unit: u64| {
            // 1 to 100 units, in an order without a trend.
            for turn in 0..3_000_u64 {
                quantile.note(95, Duration::from_millis(unit * (turn * 37 % 100 + 1)));
            }
        };
        quantile.note(95, Duration::from_millis(5));
        assert_eq!(quantile.get(), None);
        for unit in [1, 10, 1] {
            spread(&mut quantile, unit);
            let found = quantile.get().unwrap().as_secs_f64() * 1000.0 / unit as f64;
            assert!((80.0..115.0).contains(&found), "{found}");
        }
    }
}

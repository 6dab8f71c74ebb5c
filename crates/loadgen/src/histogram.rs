//! How long things took, in buckets that are a sixty-fourth of their value wide.

/// Bits of a value that are kept below its highest one.
const BITS: u32 = 6;

/// Counts of microseconds.
#[derive(Debug, Default)]
pub(crate) struct Histogram {
    counts: Vec<u64>,
    total: u64,
}

impl Histogram {
    pub(crate) fn record(&mut self, micros: u64) {
        let bucket = bucket(micros);
        if bucket >= self.counts.len() {
            self.counts.resize(bucket + 1, 0);
        }
        self.counts[bucket] += 1;
        self.total += 1;
    }

    /// What `share` of all took at most, 0 to 1; as the lower end of its bucket.
    pub(crate) fn quantile(&self, share: f64) -> u64 {
        let rank = (self.total as f64 * share).ceil().max(1.0) as u64;
        let mut seen = 0;
        let found = self.counts.iter().position(|count| {
            seen += count;
            seen >= rank
        });
        found.map_or(0, lower)
    }
}

fn bucket(micros: u64) -> usize {
    let shift = (u64::BITS - micros.leading_zeros()).saturating_sub(BITS + 1);
    // Values up to twice the sub-buckets have a bucket each; beyond, each power of two has as many.
    (u64::from(shift) << BITS) as usize + (micros >> shift) as usize
}

fn lower(bucket: usize) -> u64 {
    let (bucket, half) = (bucket as u64, 1 << BITS);
    let shift = (bucket / half).saturating_sub(1);
    (bucket - shift * half) << shift
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_is_near_its_values() {
        for micros in (0..2_000).chain([4_095, 4_096, 1_000_000, 77_777_777]) {
            let lower = lower(bucket(micros));
            assert!(lower <= micros && micros - lower <= micros / 64, "{micros}: {lower}");
        }
    }

    #[test]
    fn quantiles() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.quantile(0.99), 0);
        for micros in 1..=100 {
            histogram.record(micros);
        }
        assert_eq!(histogram.quantile(0.5), 50);
        assert_eq!(histogram.quantile(0.99), 99);
        assert_eq!(histogram.quantile(1.0), 100);
    }
}

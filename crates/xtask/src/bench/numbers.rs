//! What several measurements of one thing come to.

/// The middle one; of two in the middle the larger. NaN of nothing.
pub(super) fn median(numbers: impl Iterator<Item = f64>) -> f64 {
    let mut numbers: Vec<f64> = numbers.collect();
    numbers.sort_by(f64::total_cmp);
    numbers.get(numbers.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Where the true mean is, in 95 of 100 cases.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Interval {
    pub(super) low: f64,
    pub(super) high: f64,
}

impl Interval {
    /// The interval of the mean by Student's t (Gosset 1908); a single sample stands for itself.
    pub(super) fn of_mean(samples: &[f64]) -> Self {
        let count = samples.len() as f64;
        let mean = samples.iter().sum::<f64>() / count;
        if samples.len() < 2 {
            return Self { low: mean, high: mean };
        }
        let squares: f64 = samples.iter().map(|sample| (sample - mean).powi(2)).sum();
        let half = t_975(samples.len() - 1) * (squares / (count - 1.0) / count).sqrt();
        Self { low: mean - half, high: mean + half }
    }
}

/// The quantile of 0.975 of Student's distribution: by the table up to 30 degrees of freedom, then
/// by the first term beyond the normal distribution's (Abramowitz and Stegun, 26.7.5).
fn t_975(freedom: usize) -> f64 {
    const TABLE: [f64; 30] = [
        12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160,
        2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056,
        2.052, 2.048, 2.045, 2.042,
    ];
    let normal = 1.959_964_f64;
    let beyond = || normal + (normal.powi(3) + normal) / (4.0 * freedom as f64);
    freedom.checked_sub(1).and_then(|at| TABLE.get(at)).copied().unwrap_or_else(beyond)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), 2.0);
        assert_eq!(median([4.0, 1.0].into_iter()), 4.0);
        assert!(median([].into_iter()).is_nan());
    }

    #[test]
    fn an_interval_is_students() {
        let near = |interval: Interval, low: f64, high: f64| {
            assert!((interval.low - low).abs() < 5e-4, "{interval:?}");
            assert!((interval.high - high).abs() < 5e-4, "{interval:?}");
        };
        // The mean is 3, its standard error 0.7071, and t of 4 degrees 2.776.
        near(Interval::of_mean(&[1.0, 2.0, 3.0, 4.0, 5.0]), 1.0370, 4.9630);
        near(Interval::of_mean(&[2.0; 11]), 2.0, 2.0);
        near(Interval::of_mean(&[7.0]), 7.0, 7.0);
        // Of 40 degrees: 2.021 by the tables.
        assert!((t_975(40) - 2.021).abs() < 2e-3);
        assert!(t_975(30) > t_975(31), "the table goes on where the formula begins");
    }
}

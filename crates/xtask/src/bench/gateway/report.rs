//! What a run comes to: figures by name, and bars that they are held against.

use crate::bench::numbers::Interval;
use serde_json::{Map, Value as Json};

/// What holding a figure against a bar comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Met,
    /// The figure is too uncertain to tell.
    NotShown,
    Failed,
}

impl Verdict {
    /// Whether what lies in `interval` is at most `bar`.
    fn of(interval: Interval, bar: f64) -> Self {
        if interval.high <= bar {
            Self::Met
        } else if interval.low > bar {
            Self::Failed
        } else {
            Self::NotShown
        }
    }
}

#[derive(Default)]
pub(in crate::bench) struct Report {
    figures: Map<String, Json>,
    failed: Vec<String>,
}

impl Report {
    pub(super) fn add(&mut self, name: &str, value: f64) {
        self.figures.insert(name.to_owned(), Json::from((value * 1_000.0).round() / 1_000.0));
    }

    /// Holds a figure that lies in `interval` against the `bar`, and says what came of it.
    pub(super) fn hold(&mut self, name: &str, interval: Interval, bar: f64) -> String {
        let verdict = Verdict::of(interval, bar);
        let said = match verdict {
            Verdict::Met => "met",
            Verdict::NotShown => "not shown",
            Verdict::Failed => "failed",
        };
        if verdict == Verdict::Failed {
            self.failed.push(name.to_owned());
        }
        format!("bar {bar}: {said}")
    }

    /// Prints the figures.
    ///
    /// # Errors
    /// The bars that were failed.
    pub(in crate::bench) fn end(self) -> Result<(), String> {
        println!("{}", Json::Object(self.figures));
        match self.failed.as_slice() {
            [] => Ok(()),
            failed => Err(format!("above the bar: {}", failed.join(", "))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_failed_by_the_whole_interval() {
        let verdict = |low, high| Verdict::of(Interval { low, high }, 1.0);
        assert_eq!(verdict(0.8, 1.0), Verdict::Met);
        assert_eq!(verdict(0.9, 1.1), Verdict::NotShown);
        assert_eq!(verdict(1.0, 1.1), Verdict::NotShown);
        assert_eq!(verdict(1.01, 1.1), Verdict::Failed);
    }

    #[test]
    fn a_run_fails_by_its_failed_bars() {
        let mut report = Report::default();
        let at = |value| Interval { low: value, high: value };
        assert_eq!(report.hold("light", at(59.0), 60.0), "bar 60: met");
        assert_eq!(report.hold("heavy", at(61.0), 60.0), "bar 60: failed");
        assert_eq!(report.end(), Err("above the bar: heavy".into()));
    }
}

//! What a trial comes to.

use api::configuration::TrialTerms;
use gateway::{TrialFigures, TrialReport};

/// What is to be done with what is on trial.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Verdict {
    /// It is too early to say.
    Wait,
    Keep,
    TakeBack(String),
}

/// Whether what is on trial is good enough; `over`: its time has passed.
pub(super) fn judge(terms: &TrialTerms, report: &TrialReport, over: bool) -> Verdict {
    let TrialReport { tried, in_force } = report;
    if tried.requests < terms.requests_min {
        let few = format!(
            "it had {} requests, which is less than the {} that it takes to tell",
            tried.requests, terms.requests_min
        );
        return if over { Verdict::TakeBack(few) } else { Verdict::Wait };
    }
    let bound = errors_percent(in_force) + terms.errors_percent_max;
    if errors_percent(tried) > bound {
        return Verdict::TakeBack(format!(
            "{:.2} of 100 requests failed, and {bound:.2} may",
            errors_percent(tried)
        ));
    }
    match terms.p99_ms_max {
        Some(most) if tried.p99_ms > most => Verdict::TakeBack(format!(
            "99 of 100 requests took up to {} ms, and {most} ms is the bound",
            tried.p99_ms
        )),
        Some(_) | None if over => Verdict::Keep,
        Some(_) | None => Verdict::Wait,
    }
}

fn errors_percent(figures: &TrialFigures) -> f64 {
    if figures.requests == 0 {
        return 0.0;
    }
    figures.errors as f64 * 100.0 / figures.requests as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_trial_ends_early_where_it_goes_wrong_and_at_its_end_where_it_goes_well() {
        let terms = TrialTerms {
            percent: 10.0,
            duration: Duration::from_secs(60),
            errors_percent_max: 1.0,
            p99_ms_max: Some(50.0),
            requests_min: 100,
        };
        let figures = |requests, errors, p99_ms| TrialFigures { requests, errors, p99_ms };
        let judged =
            |tried, in_force, over| match judge(&terms, &TrialReport { tried, in_force }, over) {
                Verdict::Wait => "wait",
                Verdict::Keep => "keep",
                Verdict::TakeBack(_) => "back",
            };
        let well = figures(1000, 0, 20.0);
        for (tried, in_force, over, expected) in [
            (figures(99, 99, 900.0), well, false, "wait"),
            (figures(99, 0, 1.0), well, true, "back"),
            (figures(100, 0, 50.0), well, false, "wait"),
            (figures(100, 0, 50.0), well, true, "keep"),
            (figures(100, 1, 20.0), well, true, "keep"),
            (figures(100, 2, 20.0), well, false, "back"),
            (figures(100, 0, 50.1), well, false, "back"),
            // A fault of all is no fault of what is tried.
            (figures(100, 31, 20.0), figures(1000, 300, 20.0), true, "keep"),
            (figures(100, 32, 20.0), figures(1000, 300, 20.0), true, "back"),
            (figures(100, 2, 20.0), TrialFigures::default(), true, "back"),
        ] {
            assert_eq!(judged(tried, in_force, over), expected, "{tried:?}");
        }
    }
}

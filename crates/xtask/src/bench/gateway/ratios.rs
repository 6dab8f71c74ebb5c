//! What one costs by what another does, from rounds in which they stood beside each other.

use super::{
    report::Report,
    rounds::{Round, Subject},
};
use crate::bench::numbers::Interval;

/// Two that are compared.
pub(in crate::bench) struct Comparison {
    /// Of the headline.
    pub(in crate::bench) name: &'static str,
    /// Of the other readings.
    pub(in crate::bench) short: &'static str,
    pub(in crate::bench) ours: &'static str,
    pub(in crate::bench) theirs: &'static str,
    pub(in crate::bench) bar: Option<f64>,
}

pub(super) const COMPARISONS: &[Comparison] = &[
    Comparison {
        name: "cpu_per_request_vs_nginx_plain",
        short: "plain",
        ours: "plain",
        theirs: "nginx_plain",
        bar: Some(1.0),
    },
    Comparison {
        name: "cpu_per_request_vs_haproxy_plain",
        short: "haproxy",
        ours: "plain",
        theirs: "haproxy_plain",
        bar: Some(0.9),
    },
    Comparison {
        name: "cpu_per_request_vs_envoy_plain",
        short: "envoy",
        ours: "plain",
        theirs: "envoy_plain",
        bar: Some(0.3),
    },
    Comparison {
        name: "cpu_per_request_vs_traefik_plain",
        short: "traefik",
        ours: "plain",
        theirs: "traefik_plain",
        bar: Some(0.3),
    },
    Comparison {
        name: "cpu_per_request_vs_nginx_loaded",
        short: "loaded",
        ours: "loaded",
        theirs: "nginx_loaded",
        bar: None,
    },
    Comparison {
        name: "loaded_vs_own_plain",
        short: "own_loaded",
        ours: "token",
        theirs: "plain",
        bar: Some(1.1),
    },
    Comparison {
        name: "p2c64_vs_own_plain",
        short: "p2c64",
        ours: "p2c64",
        theirs: "plain",
        bar: Some(1.05),
    },
    Comparison {
        name: "routes_10000_vs_10",
        short: "routes",
        ours: "routes_10000",
        theirs: "routes_10",
        bar: Some(1.05),
    },
];

/// One by another, read in several ways.
#[derive(Debug)]
struct Ratio {
    /// The geometric mean of the ratios within a round: the arithmetic mean of ratios is too high
    /// where they scatter (Fleming and Wallace 1986).
    of_pairs: f64,
    of_medians: f64,
    of_totals: f64,
    /// Of the first.
    interval: Interval,
}

impl Ratio {
    fn of(ours: &Subject, theirs: &Subject) -> Self {
        let pairs = ours.rounds.iter().zip(&theirs.rounds);
        let ratio = |(ours, theirs): (&Round, &Round)| ours.micros() / theirs.micros();
        let logarithms: Vec<f64> = pairs.map(ratio).map(f64::ln).collect();
        let Interval { low, high } = Interval::of_mean(&logarithms);
        Self {
            of_pairs: f64::midpoint(low, high).exp(),
            of_medians: ours.median_micros() / theirs.median_micros(),
            of_totals: ours.total_micros() / theirs.total_micros(),
            interval: Interval { low: low.exp(), high: high.exp() },
        }
    }
}

/// Prints what each costs and how they compare.
///
/// # Errors
/// That a subject of a comparison is missing.
pub(in crate::bench) fn tell(
    subjects: &[Subject],
    comparisons: &[Comparison],
    report: &mut Report,
) -> Result<(), String> {
    println!(
        "\n{:<14} {:>10} {:>9} {:>9} {:>7}   µs/request, median (range)",
        "", "requests", "user", "system", "errors"
    );
    for subject in subjects {
        let (cpu, micros) = (subject.cpu(), || subject.rounds.iter().map(Round::micros));
        let median = subject.median_micros();
        println!(
            "{:<14} {:>10} {:>8.2}s {:>8.2}s {:>7}   {median:.1} ({:.1} to {:.1})",
            subject.name,
            subject.requests(),
            cpu.user.as_secs_f64(),
            cpu.system.as_secs_f64(),
            subject.errors(),
            micros().fold(f64::INFINITY, f64::min),
            micros().fold(0.0, f64::max),
        );
        report.add(&format!("cpu_us_per_request_{}", subject.name), median);
    }
    println!(
        "\n{:<33} {:>8} {:>10} {:>9}   95 % interval",
        "ratio", "of pairs", "of medians", "of totals"
    );
    for Comparison { name, short, ours, theirs, bar } in comparisons {
        let named = |name: &str| {
            let found = subjects.iter().find(|subject| subject.name == name);
            found.ok_or_else(|| format!("nobody measured `{name}`"))
        };
        let ratio = Ratio::of(named(ours)?, named(theirs)?);
        let Ratio { of_pairs, of_medians, of_totals, interval } = ratio;
        let held = bar.map(|bar| report.hold(name, interval, bar)).unwrap_or_default();
        println!(
            "{name:<33} {of_pairs:>8.3} {of_medians:>10.3} {of_totals:>9.3}   \
             {:.3} to {:.3}   {held}",
            interval.low, interval.high
        );
        report.add(name, of_pairs);
        report.add(&format!("ratio_of_medians_{short}"), of_medians);
        report.add(&format!("ratio_of_totals_{short}"), of_totals);
        report.add(&format!("interval_low_{short}"), interval.low);
        report.add(&format!("interval_high_{short}"), interval.high);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::Cpu;
    use std::time::Duration;

    fn subject(name: &'static str, millis: &[u64]) -> Subject {
        let round = |millis: &u64| Round {
            cpu: Cpu { user: Duration::from_millis(*millis), system: Duration::ZERO },
            requests: 1_000,
            errors: 0,
        };
        Subject::that_had(name, millis.iter().map(round).collect())
    }

    #[test]
    fn a_ratio_is_read_in_several_ways() {
        let (ours, theirs) = (subject("a", &[10, 20, 90]), subject("b", &[10, 10, 40]));
        let ratio = Ratio::of(&ours, &theirs);
        assert_eq!((ratio.of_medians, ratio.of_totals), (2.0, 2.0));
        // The third root of 1, 2 and 2.25 multiplied.
        assert!((ratio.of_pairs - 4.5_f64.cbrt()).abs() < 1e-9, "{ratio:?}");
        assert!(ratio.interval.low < ratio.of_pairs && ratio.of_pairs < ratio.interval.high);
    }

    #[test]
    fn whoever_is_compared_has_to_be_measured() {
        let all = COMPARISONS.iter().flat_map(|comparison| [comparison.ours, comparison.theirs]);
        let subjects: Vec<Subject> = all.map(|name| subject(name, &[10, 11])).collect();
        let mut report = Report::default();
        assert_eq!(tell(&subjects, COMPARISONS, &mut report), Ok(()));
        // Everybody cost the same: above the bars below 1, for certain.
        assert!(report.end().unwrap_err().ends_with(
            "haproxy_plain, cpu_per_request_vs_envoy_plain, cpu_per_request_vs_traefik_plain"
        ));
        assert!(tell(&subjects[..1], COMPARISONS, &mut Report::default()).is_err());
    }
}

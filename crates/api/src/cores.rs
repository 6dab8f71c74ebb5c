//! How the cores of the node cope with their work.

use crate::admin::millis;
use schemars::JsonSchema;
use serde::Serialize;
use std::{fmt::Write, time::Duration};

/// One core of the edge.
#[derive(Debug, Clone, Copy)]
pub struct CoreView {
    /// How long what is ready waits for it.
    pub lag: Duration,
    /// What it refuses: 0 nothing, 1.5 every request of low priority and half of those of normal
    /// priority.
    pub level: f64,
    /// Requests refused since the start, by priority from low to urgent.
    pub refused: [u64; 4],
}

/// How a core copes with its work.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "CoreHealth")]
pub(crate) struct CoreTold {
    /// How long what is ready waits for it.
    lag_ms: u64,
    /// What it refuses; see [`CoreView::level`].
    refuses: f64,
}

pub(crate) fn told(cores: &[CoreView]) -> Vec<CoreTold> {
    let told = |core: &CoreView| CoreTold { lag_ms: millis(core.lag), refuses: core.level };
    cores.iter().map(told).collect()
}

pub(crate) fn is_overloaded(cores: &[CoreView]) -> bool {
    cores.iter().any(|core| core.level > 0.0)
}

/// Writes the cores' figures for Prometheus.
pub(crate) fn metrics(text: &mut String, cores: &[CoreView]) {
    type Read = fn(&CoreView) -> f64;
    let gauges: [(&str, &str, Read); 2] = [
        ("lag_seconds", "How long what is ready waits for the core.", |core| {
            core.lag.as_secs_f64()
        }),
        ("refuses", "Priorities that the core refuses, from low on.", |core| core.level),
    ];
    for (what, help, read) in gauges {
        let name = format!("crosstown_core_{what}");
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge");
        for (core, view) in cores.iter().enumerate() {
            let _ = writeln!(text, "{name}{{core=\"{core}\"}} {}", read(view));
        }
    }
    let name = "crosstown_overload_refused_total";
    let help = "Requests refused since the node had more work than it can do.";
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} counter");
    for (place, priority) in ["low", "normal", "high", "urgent"].into_iter().enumerate() {
        let count: u64 = cores.iter().map(|core| core.refused[place]).sum();
        let _ = writeln!(text, "{name}{{priority=\"{priority}\"}} {count}");
    }
}

//! The realtime layer beside Socket.IO and Sockudo; see `bench/sockets/README.md`.

mod delivery;
mod idle;
mod load;
mod server;
mod stalled;
mod storm;

use crate::{
    bench::{folder, print_circumstances, release},
    command::output,
    install,
};
use serde_json::{Map, Value as Json};
use server::Programs;

/// Takes a figure by its name.
type Add<'a> = dyn FnMut(&str, f64) + 'a;

/// A part: what is run, and what comes to light.
type Part = fn(&Programs, &mut Add<'_>) -> Result<u64, String>;

const PARTS: &[(&str, Part)] = &[
    ("idle", idle::run),
    ("fanout", delivery::fanout),
    ("rooms", delivery::rooms),
    ("storm", storm::run),
    ("stalled", stalled::run),
];

/// Runs all parts, or the one that `only` names.
///
/// # Errors
/// What failed, after the figures.
pub(super) fn run(only: Option<&str>) -> Result<(), String> {
    let parts: Vec<_> = PARTS.iter().filter(|(name, _)| only.is_none_or(|o| o == *name)).collect();
    if parts.is_empty() {
        let names: Vec<_> = PARTS.iter().map(|(name, _)| *name).collect();
        return Err(format!("`bench sockets` has the parts {}", names.join(", ")));
    }
    install::debian(&["util-linux"])?;
    let (socket_io, sockudo) = (install::socket_io()?, install::sockudo()?);
    let (crosstown, loadgen) = (release("crosstown")?, release("loadgen")?);
    print_circumstances();
    println!("node {}", output("node", &["--version"])?.trim());
    let folder = folder("sockets")?;
    let programs = Programs::new(crosstown, loadgen, socket_io, sockudo, folder)?;
    let mut figures = Map::new();
    let mut add = |name: &str, value: f64| {
        figures.insert(name.to_owned(), Json::from((value * 1_000.0).round() / 1_000.0));
    };
    let mut failed = 0;
    for (name, part) in &parts {
        println!("\n{name}");
        failed += part(&programs, &mut add)?;
    }
    // What is held against a bound is the worse of the two ways of delivering.
    for whose in ["socketio", "sockudo"] {
        for what in ["user_cpu_per_message", "cpu_per_message"] {
            let of = |part: &str| figures.get(&format!("{what}_vs_{whose}_{part}"))?.as_f64();
            let worse = of("fanout").into_iter().chain(of("rooms")).reduce(f64::max);
            if let Some(worse) = worse {
                figures.insert(format!("{what}_vs_{whose}"), worse.into());
            }
        }
    }
    println!("{}", Json::Object(figures));
    if failed == 0 { Ok(()) } else { Err(format!("{failed} errors were counted")) }
}

/// The middle of some numbers.
fn median(numbers: impl Iterator<Item = f64>) -> f64 {
    let mut numbers: Vec<f64> = numbers.collect();
    numbers.sort_by(f64::total_cmp);
    numbers.get(numbers.len() / 2).copied().unwrap_or(f64::NAN)
}

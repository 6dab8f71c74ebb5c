//! The realtime layer beside Socket.IO and Sockudo; see `bench/sockets/README.md`.

mod delivery;
mod idle;
mod load;
mod server;
mod stalled;
mod storm;

use crate::{
    bench::{folder, numbers::median, print_circumstances, release},
    command::output,
    install,
};
use serde_json::{Map, Value as Json};
use server::{Peers, Programs};

/// Takes a figure by its name.
type Add<'a> = dyn FnMut(&str, f64) + 'a;

/// A part of the benchmark.
struct Part {
    name: &'static str,
    /// Whether Socket.IO and Sockudo are beside it.
    has_peers: bool,
    /// Runs it, and returns how many errors were counted.
    run: fn(&Programs, &mut Add<'_>) -> Result<u64, String>,
}

const PARTS: &[Part] = &[
    Part { name: "idle", has_peers: true, run: idle::run },
    Part { name: "fanout", has_peers: true, run: delivery::fanout },
    Part { name: "rooms", has_peers: true, run: delivery::rooms },
    Part { name: "storm", has_peers: false, run: storm::run },
    Part { name: "stalled", has_peers: false, run: stalled::run },
];

/// Runs all parts, or the one that `only` names.
///
/// # Errors
/// What failed, after the figures.
pub(super) fn run(only: Option<&str>) -> Result<(), String> {
    let is_asked = |part: &&Part| only.is_none_or(|name| name == part.name);
    let parts: Vec<_> = PARTS.iter().filter(is_asked).collect();
    if parts.is_empty() {
        let names: Vec<_> = PARTS.iter().map(|part| part.name).collect();
        return Err(format!("`bench sockets` has the parts {}", names.join(", ")));
    }
    install::debian(&["util-linux"])?;
    let has_peers = parts.iter().any(|part| part.has_peers);
    let peers = has_peers.then(Peers::install).transpose()?;
    let (crosstown, loadgen) = (release("crosstown")?, release("loadgen")?);
    print_circumstances();
    if has_peers {
        println!("node {}", output("node", &["--version"])?.trim());
    }
    let folder = folder("sockets")?;
    let programs = Programs::new(crosstown, loadgen, peers, folder)?;
    let mut figures = Map::new();
    let mut add = |name: &str, value: f64| {
        figures.insert(name.to_owned(), Json::from((value * 1_000.0).round() / 1_000.0));
    };
    let mut failed = 0;
    for part in &parts {
        println!("\n{}", part.name);
        failed += (part.run)(&programs, &mut add)?;
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

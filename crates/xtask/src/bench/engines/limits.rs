//! Limits that two nodes share: what they ask of the stores, and what they let in.

use crate::bench::engines::nodes::{BURST, Ground, RATE};
use std::path::Path;

const SECONDS: u64 = 10;
const WINDOWS: usize = 3;
const CONNECTIONS: usize = 64;
/// Milliseconds between the requests of a connection: some 1,500 requests a second in all.
const PACE: u64 = 40;
/// A window with fewer requests a second shows nothing.
const RATE_MIN: f64 = 1_000.0;

/// Answers the number of requests that failed.
///
/// # Errors
/// If a node or store cannot be started, or the load was too small.
pub(super) fn run(crosstown: &Path, add: &mut super::Add<'_>) -> Result<u64, String> {
    let ground = Ground::prepare()?;
    let nodes = ground.nodes(crosstown, "limits", 2)?;
    ground.load(&nodes, "/wide", CONNECTIONS, PACE, 1)?;
    println!(
        "\ntwo nodes, hot on Redis, durable on PostgreSQL; windows of {SECONDS} s\n\
         {:<7} {:>9} {:>10} {:>8} {:>9} {:>9} {:>8} {:>12} {:>10}",
        "route",
        "answers",
        "answers/s",
        "let in",
        "at most",
        "refused",
        "Redis",
        "PostgreSQL",
        "calls each"
    );
    let (mut answers, mut calls, mut failed, mut over) = (0, 0, 0, 0.0_f64);
    for path in ["/wide", "/tight"] {
        for _ in 0..WINDOWS {
            // The limit is full again.
            std::thread::sleep(std::time::Duration::from_secs(2));
            let before = ground.calls(&nodes)?;
            let load = ground.load(&nodes, path, CONNECTIONS, PACE, SECONDS)?;
            let (redis, postgres) = ground.calls(&nodes)?.since(&before);
            let most = RATE as f64 * load.seconds + BURST as f64;
            let most = (path == "/tight").then_some(most);
            println!(
                "{path:<7} {:>9} {:>10.0} {:>8} {:>9} {:>9} {redis:>8} {postgres:>12} {:>10.4}",
                load.answers,
                load.answers as f64 / load.seconds,
                load.served,
                most.map_or(String::new(), |most| format!("{most:.0}")),
                load.refused,
                (redis + postgres) as f64 / load.answers as f64
            );
            failed += load.broken + if most.is_none() { load.refused } else { 0 };
            if (load.answers as f64) < RATE_MIN * load.seconds {
                return Err(format!("fewer than {RATE_MIN} requests a second: {load:?}"));
            }
            answers += load.answers;
            calls += redis + postgres;
            if let Some(most) = most {
                over = over.max((load.served as f64 - most).max(0.0) / most);
            }
        }
    }
    add("limit_store_calls_per_request", calls as f64 / answers as f64);
    add("limit_overadmission", over);
    Ok(failed)
}

//! The same load on one node, on two, and on two that know nothing of each other: what a request
//! costs the nodes, and how much of that is for acting as one.

use crate::{
    bench::engines::{
        nodes::Ground,
        rounds::{Ratio, Round, Rounds},
    },
    process::Cpu,
};
use std::path::Path;

const ROUNDS: usize = 9;
/// How a load begins weighs little.
const SECONDS: u64 = 6;
const CONNECTIONS: usize = 64;
/// Milliseconds between the requests of a connection: some 3,000 requests a second in all.
const PACE: u64 = 16;

/// Answers the number of requests that failed.
///
/// # Errors
/// If a node or store cannot be started.
pub(super) fn run(crosstown: &Path, add: &mut super::Add<'_>) -> Result<u64, String> {
    let ground = Ground::prepare()?;
    let sides = [
        ground.nodes(crosstown, "one", 1)?,
        ground.nodes(crosstown, "two", 2)?,
        ground.strangers(crosstown, ["alone", "apart"])?,
    ];
    let names = ["one", "two", "strangers"];
    let mut rounds = names.map(|_| Rounds::default());
    let mut stores = names.map(|_| Cpu::default());
    let mut failed = names.map(|_| 0);
    for nodes in &sides {
        ground.load(nodes, "/wide", CONNECTIONS, PACE, 1)?;
    }
    for round in 0..ROUNDS {
        for step in 0..sides.len() {
            let at = (step + round) % sides.len();
            let (near, far) = (sides[at].cpu(), ground.cpu());
            let load = ground.load(&sides[at], "/wide", CONNECTIONS, PACE, SECONDS)?;
            failed[at] += load.broken + load.refused;
            stores[at] = stores[at].plus(ground.cpu().since(far));
            rounds[at].0.push(Round {
                near: sides[at].cpu().since(near),
                // The stores serve the other nodes as well; they stand beside, not in the ratio.
                far: Cpu::default(),
                operations: load.served,
                seconds: load.seconds,
            });
        }
    }
    println!(
        "\n{:<10} {:>9} {:>11} {:>7} {:>10} {:>9} {:>9}   CPU of the nodes; of the stores beside it",
        "nodes", "requests", "requests/s", "failed", "µs each", "user", "system"
    );
    for (((name, rounds), stores), failed) in names.iter().zip(&rounds).zip(&stores).zip(failed) {
        let cpu = rounds.0.iter().map(|round| round.near).fold(Cpu::default(), Cpu::plus);
        println!(
            "{:<10} {:>9} {:>11.0} {failed:>7} {:>10.2} {:>8.2}s {:>8.2}s   {:.2}s",
            name,
            rounds.operations(),
            rounds.per_second(),
            rounds.median_micros(),
            cpu.user.as_secs_f64(),
            cpu.system.as_secs_f64(),
            stores.total().as_secs_f64()
        );
    }
    let [one, two, strangers] = &rounds;
    for (name, what, by) in [
        ("cpu_per_request_2_nodes_vs_1", "two by one", one),
        ("cpu_per_request_2_nodes_vs_2_strangers", "two by strangers", strangers),
    ] {
        let ratio = Ratio::of(two, by);
        println!(
            "{what}: {:.3} (totals {:.3}, median of pairs {:.3})",
            ratio.of_medians, ratio.of_totals, ratio.median_of_pairs
        );
        add(name, ratio.of_medians);
        add(&format!("{name}_of_totals"), ratio.of_totals);
        add(&format!("{name}_median_of_pairs"), ratio.median_of_pairs);
    }
    Ok(failed.iter().sum())
}

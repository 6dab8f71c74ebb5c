//! The same load on one node and on two: what a request costs the nodes.

use crate::{
    bench::engines::{
        nodes::Ground,
        rounds::{Ratio, Round, Rounds},
    },
    process::Cpu,
};
use std::path::Path;

const ROUNDS: usize = 9;
/// As long as the windows of limits: how a load begins weighs little.
const SECONDS: u64 = 10;
const CONNECTIONS: usize = 64;
/// Milliseconds between the requests of a connection: some 3,000 requests a second in all.
const PACE: u64 = 16;

/// Answers the number of requests that failed.
///
/// # Errors
/// If a node or store cannot be started.
pub(super) fn run(crosstown: &Path, add: &mut super::Add<'_>) -> Result<u64, String> {
    let ground = Ground::prepare()?;
    let sides = [ground.nodes(crosstown, "one", 1)?, ground.nodes(crosstown, "two", 2)?];
    let mut rounds = [Rounds::default(), Rounds::default()];
    let mut stores = [Cpu::default(), Cpu::default()];
    let mut failed = [0, 0];
    for nodes in &sides {
        ground.load(nodes, "/wide", CONNECTIONS, PACE, 1)?;
    }
    for round in 0..ROUNDS {
        for step in 0..2 {
            let at = (step + round) % 2;
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
    for (((nodes, rounds), stores), failed) in sides.iter().zip(&rounds).zip(&stores).zip(failed) {
        let cpu = rounds.0.iter().map(|round| round.near).fold(Cpu::default(), Cpu::plus);
        println!(
            "{:<10} {:>9} {:>11.0} {failed:>7} {:>10.2} {:>8.2}s {:>8.2}s   {:.2}s",
            nodes.name,
            rounds.operations(),
            rounds.per_second(),
            rounds.median_micros(),
            cpu.user.as_secs_f64(),
            cpu.system.as_secs_f64(),
            stores.total().as_secs_f64()
        );
    }
    let [one, two] = &rounds;
    let ratio = Ratio::of(two, one);
    println!(
        "two by one: {:.3} (totals {:.3}, median of pairs {:.3})",
        ratio.of_medians, ratio.of_totals, ratio.median_of_pairs
    );
    add("cpu_per_request_2_nodes_vs_1", ratio.of_medians);
    add("cpu_per_request_2_nodes_vs_1_of_totals", ratio.of_totals);
    add("cpu_per_request_2_nodes_vs_1_median_of_pairs", ratio.median_of_pairs);
    Ok(failed.iter().sum())
}

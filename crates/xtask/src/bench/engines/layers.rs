//! Each layer's operation on each engine, beside the engine's own client.

use crate::{
    bench::{
        engines::{
            driver::Driver,
            far::{Calls, Servers, between, requests},
            rounds::{Ratio, Round, Rounds},
        },
        folder,
    },
    process::Cpu,
};
use std::{
    path::Path,
    time::{Duration, Instant},
};
use test_servers::{Appends, Postgres, PostgresOptions, Redis, RedisCluster, RedisOptions};

/// Tasks that each wait for one answer at a time.
const TASKS: usize = 32;
const ROUNDS: usize = 7;
const TURN: Duration = Duration::from_millis(600);
/// For what is held against a bound.
const ROUNDS_HELD: usize = 9;
const TURN_HELD: Duration = Duration::from_millis(1_500);
const WARM_UP: Duration = Duration::from_millis(500);

const OPERATIONS: [&str; 8] = [
    "session-create",
    "session-read",
    "session-read-cached",
    "state-put",
    "state-patch",
    "state-read",
    "publish",
    "limit-charge",
];
const REDIS: [&str; 5] = ["session-read", "state-put", "state-patch", "state-read", "publish"];
const POSTGRES: [&str; 3] = ["session-read", "state-put", "state-patch"];
/// The figures that are held against a bound, by engine and operation.
const HELD: [(&str, &str, &str); 3] = [
    ("redis", "session-read", "session_read_vs_raw_redis"),
    ("redis", "state-patch", "state_patch_vs_raw_redis_script"),
    ("postgres", "state-patch", "state_patch_vs_raw_pg_transaction"),
];

struct Engine {
    name: &'static str,
    servers: Servers,
    raw: &'static [&'static str],
}

/// One side of a row.
#[derive(Debug, Default)]
struct Side {
    rounds: Rounds,
    calls: Calls,
}

impl Side {
    fn requests(&self) -> f64 {
        requests(&self.calls) as f64 / self.rounds.operations().max(1) as f64
    }
}

/// Runs every row whose `engine/operation` holds `only`, prints it, and adds its figures.
///
/// # Errors
/// If a server cannot be started or an operation fails.
pub(super) fn run(driver: &Path, only: &str, add: &mut super::Add<'_>) -> Result<(), String> {
    println!(
        "\n{:<9} {:<20} {:<5} {:>8} {:>8} {:>8} {:>9} {:>9} {:>8} {:>22}",
        "engine",
        "operation",
        "by",
        "µs CPU",
        "asking",
        "serving",
        "ops",
        "ops/s",
        "calls/op",
        "ours/raw (other ways)"
    );
    for name in ["memory", "embedded", "redis", "valkey", "cluster", "postgres"] {
        let wanted = |operation: &&str| format!("{name}/{operation}").contains(only);
        let operations: Vec<&str> = OPERATIONS.into_iter().filter(wanted).collect();
        if operations.is_empty() {
            continue;
        }
        let engine = start(name).map_err(|error| format!("{name}: {error}"))?;
        for operation in operations {
            row(driver, &engine, operation, add)
                .map_err(|error| format!("{name}, {operation}: {error}"))?;
        }
    }
    Ok(())
}

/// Whatever is acknowledged is written and synchronised, on each.
fn start(name: &'static str) -> std::io::Result<Engine> {
    let options = RedisOptions::appending(Appends::Always);
    let (servers, raw): (_, &[&str]) = match name {
        "redis" => (Servers::Redis(Redis::start(options)?), &REDIS),
        "valkey" => (Servers::Redis(Redis::start_valkey(options)?), &REDIS),
        "cluster" => (Servers::Cluster(Box::new(RedisCluster::start(options)?)), &REDIS),
        "postgres" => (Servers::Postgres(Postgres::start(PostgresOptions::default())?), &POSTGRES),
        _ => (Servers::None, &[]),
    };
    Ok(Engine { name, servers, raw })
}

fn row(
    program: &Path,
    engine: &Engine,
    operation: &str,
    add: &mut super::Add<'_>,
) -> Result<(), String> {
    let held = HELD.iter().find(|(name, of, _)| (*name, *of) == (engine.name, operation));
    let (count, turn) = match held {
        Some(_) => (ROUNDS_HELD, TURN_HELD),
        None => (ROUNDS, TURN),
    };
    let url = |side: &str| match engine.name {
        "memory" => Ok("memory:".to_owned()),
        "embedded" => Ok(format!("embedded:{}", folder("engines-data")?.display())),
        _ => engine.servers.url(side),
    };
    let mut drivers =
        vec![("ours", Driver::start(program, &url("ours")?, operation, "ours", TASKS)?)];
    if engine.raw.contains(&operation) {
        drivers.push(("raw", Driver::start(program, &url("raw")?, operation, "raw", TASKS)?));
    }
    let mut sides: Vec<Side> = drivers.iter().map(|_| Side::default()).collect();
    let mut before = Vec::new();
    for (name, driver) in &mut drivers {
        driver.turn(WARM_UP)?;
        before.push(engine.servers.calls(name)?);
    }
    let is_postgres = matches!(engine.servers, Servers::Postgres(_));
    for round in 0..count {
        for step in 0..drivers.len() {
            // Each goes first as often as the other.
            let at = (step + round) % drivers.len();
            let (name, driver) = &mut drivers[at];
            let (calls, cpu) = (engine.servers.calls(name)?, engine.servers.cpu());
            let begun = Instant::now();
            let done = driver.turn(turn)?;
            let seconds = begun.elapsed().as_secs_f64();
            let far = engine.servers.cpu().since(cpu);
            let (near, operations) = (done.cpu, done.operations);
            sides[at].rounds.0.push(Round { near, far, operations, seconds });
            if !is_postgres {
                for (command, calls) in between(&calls, &engine.servers.calls(name)?) {
                    *sides[at].calls.entry(command).or_default() += calls;
                }
            }
        }
    }
    let names: Vec<&str> = drivers.iter().map(|(name, _)| *name).collect();
    drop(drivers);
    if is_postgres {
        for (side, (name, before)) in sides.iter_mut().zip(names.iter().zip(&before)) {
            side.calls = between(before, &engine.servers.calls(name)?);
        }
    }
    engine.servers.empty()?;
    print(engine.name, operation, &sides);
    if operation == "session-read-cached" && engine.name == "redis" {
        add("store_calls_per_cached_session_read", sides[0].requests());
    }
    if let (Some((_, _, figure)), [ours, raw]) = (held, sides.as_slice()) {
        let ratio = Ratio::of(&ours.rounds, &raw.rounds);
        add(figure, ratio.of_medians);
        add(&format!("{figure}_of_totals"), ratio.of_totals);
        add(&format!("{figure}_median_of_pairs"), ratio.median_of_pairs);
    }
    Ok(())
}

fn print(engine: &str, operation: &str, sides: &[Side]) {
    for (side, by) in sides.iter().zip(["ours", "raw"]) {
        let ratio = match (by, sides) {
            ("ours", [ours, raw]) => {
                let ratio = Ratio::of(&ours.rounds, &raw.rounds);
                let Ratio { of_medians, of_totals, median_of_pairs } = ratio;
                format!("{of_medians:.3} ({of_totals:.3}, {median_of_pairs:.3})")
            }
            (_, _) => String::new(),
        };
        println!(
            "{engine:<9} {operation:<20} {by:<5} {:>8.2} {:>8.2} {:>8.2} {:>9} {:>9.0} {:>8.3} {ratio:>22}",
            side.rounds.median_micros(),
            side.rounds.median_near(),
            side.rounds.median_far(),
            side.rounds.operations(),
            side.rounds.per_second(),
            side.requests(),
        );
        let cpu = |of: fn(&Round) -> Cpu| {
            let sum = side.rounds.0.iter().map(of).fold(Cpu::default(), Cpu::plus);
            format!("{:.2}/{:.2}", sum.user.as_secs_f64(), sum.system.as_secs_f64())
        };
        println!(
            "{:36} user/system: asking {} s, serving {} s{}",
            "",
            cpu(|round| round.near),
            cpu(|round| round.far),
            calls(side)
        );
    }
}

/// Commands per operation, of those that are not rare.
fn calls(side: &Side) -> String {
    let operations = side.rounds.operations().max(1) as f64;
    let often = side.calls.iter().map(|(name, calls)| (name, *calls as f64 / operations));
    let told: Vec<String> = often
        .filter(|(_, calls)| *calls >= 0.01)
        .map(|(name, calls)| format!("{name} {calls:.2}"))
        .collect();
    if told.is_empty() { String::new() } else { format!("; per operation: {}", told.join(", ")) }
}

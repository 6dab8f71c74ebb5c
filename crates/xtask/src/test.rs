//! Everything that has to pass, counted.

mod outcome;

use crate::{
    capabilities, check,
    command::{command, run},
    install,
};
use outcome::Outcome;
use std::{
    io::{BufRead, BufReader},
    process::Stdio,
    time::Instant,
};

/// Runs the checks and every test. `--long` runs the slow suites at their full length.
///
/// # Errors
/// If anything failed.
pub(crate) fn run_all(args: &[&str]) -> Result<(), String> {
    let long = match args {
        [] => false,
        ["--long"] => true,
        other => {
            return Err(format!("`{}` is not understood; use --long or nothing", other.join(" ")));
        }
    };
    let started = Instant::now();
    install::all()?;
    let mut outcome = Outcome::on("embedded");
    for (name, check) in check::ALL {
        outcome.check(name, check());
    }
    // The binary that the integration tests start; the echo endpoint is for them only.
    run("cargo", &["build", "--locked", "--package", "crosstown", "--features", "crosstown/echo"])?;
    let length = if long { LONG } else { &[] };
    cargo_test(&[], &[], &[&[(THREADS, "3")], length].concat(), &mut outcome)?;
    outcome.check("capabilities' tests", capabilities::check_ran(&outcome.ran));
    for stores in SHARED_STORES {
        println!("the layers' suites on {stores}");
        outcome.stores = stores;
        let length = if long { &[] } else { SHORTER };
        let settings = [&[(STORES, *stores), (THREADS, "4")], length].concat();
        cargo_test(&["--test", "it"], LAYERS, &settings, &mut outcome)?;
    }
    for failure in &outcome.failures {
        println!("failed: {failure}\n");
    }
    println!("took {} s", started.elapsed().as_secs());
    println!("{} passed, {} failed", outcome.passed, outcome.failed);
    if outcome.failed == 0 { Ok(()) } else { Err("not everything passed".into()) }
}

/// Runs tests of the workspace: of the `targets` only, and those whose names `filter` has, if
/// any are given.
fn cargo_test(
    targets: &[&str],
    filter: &[&str],
    settings: &[(&str, &str)],
    outcome: &mut Outcome,
) -> Result<(), String> {
    let build =
        ["test", "--workspace", "--locked", "--no-fail-fast", "--features", "crosstown/echo"];
    // What passing tests print are their counts and seeds.
    let args = [&build[..], targets, &["--", "--show-output"], filter].concat();
    let mut cargo = command("cargo", &args);
    cargo.envs(settings.iter().copied());
    let mut child = cargo
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("cargo cannot be started: {error}"))?;
    let failed = outcome.failed;
    let out = child.stdout.take().ok_or("cargo has no output")?;
    for line in BufReader::new(out).lines() {
        let line = line.map_err(|error| format!("cargo's output cannot be read: {error}"))?;
        println!("{line}");
        outcome.line(&line);
    }
    let status = child.wait().map_err(|error| format!("cargo is lost: {error}"))?;
    if !status.success() && outcome.failed == failed {
        return Err(format!("cargo test ended with {status} before it counted"));
    }
    Ok(())
}

/// Where the integration tests read on which stores their nodes are to run.
const STORES: &str = "CROSSTOWN_TEST_STORES";
/// The stores that the layers' own suites run on beside the embedded one.
const SHARED_STORES: &[&str] = &["redis", "cluster", "valkey", "postgres", "redis-postgres"];
const LAYERS: &[&str] = &["sessions::", "state::", "sockets::", "tenants::", "durability::"];
/// How long they are there, unless `--long`: they have run in full on the embedded store.
const SHORTER: &[(&str, &str)] =
    &[("CROSSTOWN_TENANT_OPERATIONS", "10000"), ("CROSSTOWN_KILL_ROUNDS", "5")];
/// How many tests run at once: more than there are cores, as they wait for clocks and servers much
/// of the time.
const THREADS: &str = "RUST_TEST_THREADS";

/// The slow suites' full length.
const LONG: &[(&str, &str)] = &[
    ("CRASH_IMAGES", "10000"),
    ("CROSSTOWN_KILL_ROUNDS", "200"),
    ("CROSSTOWN_TENANT_OPERATIONS", "1000000"),
    ("CROSSTOWN_DISTURBED", "2500,100"),
    ("CROSSTOWN_FAULT_SECONDS", "1800"),
    ("CROSSTOWN_REVOKED_WITHIN_MS", "1000"),
    ("CROSSTOWN_FLOOD_SECONDS", "10"),
    ("CROSSTOWN_FUZZ_SECONDS", "60"),
    ("CROSSTOWN_HISTORIES", "10000"),
    ("CROSSTOWN_CLIENTS", "all"),
    ("CROSSTOWN_ANALYTICS_REQUESTS", "1000000"),
    ("CROSSTOWN_OPENAPI_EXAMPLES", "200"),
];

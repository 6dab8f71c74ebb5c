//! Everything that has to pass, counted.

use crate::{
    capabilities, check,
    command::{command, run},
    install,
};
use std::{
    collections::BTreeSet,
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
    let (mut passed, mut failed) = (0, 0);
    for (name, check) in check::ALL {
        match check() {
            Ok(()) => {
                println!("check {name} ... ok");
                passed += 1;
            }
            Err(why) => {
                println!("check {name} ... FAILED\n{why}");
                failed += 1;
            }
        }
    }
    // The binary that the integration tests start; the echo endpoint is for them only.
    run("cargo", &["build", "--locked", "--package", "crosstown", "--features", "crosstown/echo"])?;
    let settings = if long { LONG } else { &[] };
    let mut ran = BTreeSet::new();
    let (more_passed, more_failed) = cargo_test(&[], &[], settings, &mut ran)?;
    passed += more_passed;
    failed += more_failed;
    match capabilities::check_ran(&ran) {
        Ok(()) => {
            println!("check capabilities' tests ... ok");
            passed += 1;
        }
        Err(why) => {
            println!("check capabilities' tests ... FAILED\n{why}");
            failed += 1;
        }
    }
    for stores in SHARED_STORES {
        println!("the layers' suites on {stores}");
        let length = if long { &[] } else { SHORTER };
        let settings = [&[(STORES, *stores)], length].concat();
        let (more_passed, more_failed) =
            cargo_test(&["--test", "it"], LAYERS, &settings, &mut ran)?;
        passed += more_passed;
        failed += more_failed;
    }
    println!("took {} s", started.elapsed().as_secs());
    println!("{passed} passed, {failed} failed");
    if failed == 0 { Ok(()) } else { Err("not everything passed".into()) }
}

/// Runs tests of the workspace: of the `targets` only, and those whose names `filter` has, if
/// any are given; adds the names of those that passed to `ran`.
fn cargo_test(
    targets: &[&str],
    filter: &[&str],
    settings: &[(&str, &str)],
    ran: &mut BTreeSet<String>,
) -> Result<(u64, u64), String> {
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
    let (mut passed, mut failed) = (0, 0);
    let out = child.stdout.take().ok_or("cargo has no output")?;
    for line in BufReader::new(out).lines() {
        let line = line.map_err(|error| format!("cargo's output cannot be read: {error}"))?;
        println!("{line}");
        if let Some(name) = line.strip_prefix("test ").and_then(|rest| rest.strip_suffix(" ... ok"))
        {
            ran.insert(name.to_owned());
        }
        if let Some((more_passed, more_failed)) = counted(&line) {
            passed += more_passed;
            failed += more_failed;
        }
    }
    let status = child.wait().map_err(|error| format!("cargo is lost: {error}"))?;
    if !status.success() && failed == 0 {
        return Err(format!("cargo test ended with {status} before it counted"));
    }
    Ok((passed, failed))
}

/// Where the integration tests read on which stores their nodes are to run.
const STORES: &str = "CROSSTOWN_TEST_STORES";
/// The stores that the layers' own suites run on beside the embedded one.
const SHARED_STORES: &[&str] = &["redis", "cluster", "valkey", "postgres", "redis-postgres"];
const LAYERS: &[&str] = &["sessions::", "state::", "sockets::", "tenants::", "durability::"];
/// How long they are there, unless `--long`: they have run in full on the embedded store.
const SHORTER: &[(&str, &str)] =
    &[("CROSSTOWN_TENANT_OPERATIONS", "10000"), ("CROSSTOWN_KILL_ROUNDS", "10")];

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

/// `test result: ok. 3 passed; 0 failed; …`
fn counted(line: &str) -> Option<(u64, u64)> {
    let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let mut numbers = counts.split("; ").map(|part| part.split_once(' '));
    let passed = numbers.next()??.0.parse().ok()?;
    let failed = numbers.next()??.0.parse().ok()?;
    Some((passed, failed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_counted() {
        let line = "test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out";
        assert_eq!(counted(line), Some((3, 2)));
        assert_eq!(counted("test x ... ok"), None);
    }
}

//! How long other clients wait while some attack; see `bench/floods/README.md`.

use crate::{
    bench::{folder, print_circumstances, release},
    command::command,
    install,
};
use serde::Deserialize;
use serde_json::json;
use std::fs;

/// How long each attack lasts, in seconds.
const SECONDS: &str = "10";
/// What others may have to wait, compared with what they wait beside clients that are busy.
const RATIO_MAX: f64 = 1.5;
const MIB_MAX: f64 = 16.0;

/// A line of the report that the tests write.
#[derive(Deserialize)]
struct Line {
    attack: String,
    asked: u64,
    busy_p99_us: f64,
    p99_us: f64,
    mib_per_attacker: f64,
}

pub(super) fn run() -> Result<(), String> {
    install::debian(&["nginx-light", "slowhttptest"])?;
    let crosstown = release("crosstown")?;
    print_circumstances();
    let report = folder("floods")?.join("report");
    // As `./test` builds them.
    let args =
        ["test", "--locked", "--workspace", "--features", "crosstown/echo", "--test", "it", "--"];
    let status = command("cargo", &args)
        .args(["floods::", "--test-threads", "1"])
        .env("CROSSTOWN_BIN", crosstown)
        .env("CROSSTOWN_FLOOD_SECONDS", SECONDS)
        .env("CROSSTOWN_FLOOD_REPORT", &report)
        .status()
        .map_err(|error| format!("cargo: {error}"))?;
    if !status.success() {
        return Err("an attack did more than make others wait".into());
    }
    let text = fs::read_to_string(&report).map_err(|error| format!("the report: {error}"))?;
    let lines: Result<Vec<Line>, _> = text.lines().map(serde_json::from_str).collect();
    let lines = lines.map_err(|error| format!("the report: {error}"))?;
    println!(
        "\n{:<26} {:>8} {:>12} {:>12} {:>7} {:>14}",
        "attack", "asked", "p99 before", "p99 under", "ratio", "MiB/attacker"
    );
    let (mut slowest, mut largest) = (0.0_f64, 0.0_f64);
    for line in &lines {
        let ratio = line.p99_us / line.busy_p99_us;
        println!(
            "{:<26} {:>8} {:>9} us {:>9} us {ratio:>7.2} {:>14.2}",
            line.attack, line.asked, line.busy_p99_us, line.p99_us, line.mib_per_attacker
        );
        slowest = slowest.max(ratio);
        largest = largest.max(line.mib_per_attacker);
    }
    let round = |number: f64| (number * 1000.0).round() / 1000.0;
    println!(
        "{}",
        json!({
            "attacks": lines.len(),
            "p99_of_others_worst_ratio": round(slowest),
            "mib_per_attacking_connection_worst": round(largest),
        })
    );
    if lines.is_empty() || slowest > RATIO_MAX || largest > MIB_MAX {
        return Err(format!("the bars are {RATIO_MAX} and {MIB_MAX} MiB"));
    }
    Ok(())
}

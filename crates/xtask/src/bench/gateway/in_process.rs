//! What is too small to be seen beside a socket: nanoseconds in one process.

use super::{Ground, report::Report, routes};
use crate::{
    bench::write,
    command::{output, run as run_command, target},
};
use serde_json::{Map, Value as Json};

/// Lengths of the tables in which a route is looked up.
const ROUTES: [usize; 4] = [10, 100, 1_000, 10_000];

/// Runs the example `nanoseconds` of the gateway.
pub(super) fn run(ground: &Ground, report: &mut Report) -> Result<(), String> {
    let args = ["build", "--release", "--locked", "--package", "gateway"];
    run_command("cargo", &[&args[..], &["--example", "nanoseconds"]].concat())?;
    let mut tables = Vec::new();
    for count in ROUTES {
        let file = ground.folder.join(format!("table-{count}.toml"));
        write(&file, &routes::table(count))?;
        tables.push(file.display().to_string());
    }
    let program = target().join("release/examples/nanoseconds").display().to_string();
    let core = super::PROXIES.to_string();
    let mut args = vec!["-c", &core, &program];
    args.extend(tables.iter().map(String::as_str));
    let said = output("taskset", &args)?;
    let figures: Map<String, Json> =
        serde_json::from_str(&said).map_err(|error| format!("{program}: {error}: {said}"))?;
    println!("\nin one process, at best:");
    for (name, figure) in figures {
        println!("{name:<33} {figure:>10}");
        report.add(&name, figure.as_f64().unwrap_or(f64::NAN));
    }
    Ok(())
}

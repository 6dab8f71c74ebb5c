//! Benchmarks: each prints a table and, as its last line, one flat JSON object of numbers.

mod engines;
mod floods;
mod gateway;
mod numbers;
mod origin;
mod soa;
mod sockets;

use crate::command::{output, root, run as run_command, target};
use std::{fs, path::PathBuf};

/// Runs one, or a part of one.
///
/// # Errors
/// What failed.
pub(crate) fn run(name: &str, only: Option<&str>) -> Result<(), String> {
    match name {
        "engines" => engines::run(only),
        "floods" => floods::run(),
        "gateway" => gateway::run(),
        "soa" => soa::run(),
        "sockets" => sockets::run(only),
        other => Err(format!(
            "there is no benchmark `{other}`; use engines, floods, gateway, soa or sockets"
        )),
    }
}

/// A fresh folder for a benchmark, in the build folder.
fn folder(name: &str) -> Result<PathBuf, String> {
    let folder = target().join("bench").join(name);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    Ok(folder)
}

/// The release build of a program of ours.
fn release(package: &str) -> Result<PathBuf, String> {
    run_command("cargo", &["build", "--release", "--locked", "--package", package])?;
    Ok(target().join("release").join(package))
}

/// A file of `bench/` with its `{NAME}`s filled in.
fn filled(file: &str, values: &[(&str, String)]) -> Result<String, String> {
    let path = root().join("bench").join(file);
    let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(values.iter().fold(text, |text, (name, value)| text.replace(&format!("{{{name}}}"), value)))
}

fn write(path: &std::path::Path, text: &str) -> Result<(), String> {
    fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}

/// The machine and the commit, for the report.
fn print_circumstances() {
    let commit = output("git", &["rev-parse", "--short", "HEAD"]).unwrap_or_default();
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name\t: ")).unwrap_or("?");
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    println!("commit {}, {cores} cores of {model}", commit.trim());
}

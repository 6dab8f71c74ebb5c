//! The project's own chores.
//!
//! ```text
//! cargo xtask install        what the tests need: Debian, npm and PyPI packages
//! cargo xtask check          format, lints, docs, layers, error pages
//! cargo xtask test [--long]  everything; the last line counts
//! cargo xtask bench NAME     engines, floods, gateway, soa or sockets, against a named peer
//! cargo xtask bench engines PART   rows of its table by `engine/operation`, or limits or nodes
//! cargo xtask bench sockets PART   idle, fanout, rooms, storm or stalled
//! ```

mod bench;
mod capabilities;
mod check;
mod command;
mod install;
mod layers;
mod pages;
mod process;
mod test;

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match args.as_slice() {
        ["install"] => install::all(),
        ["check"] => check::run_all(),
        ["test", rest @ ..] => test::run_all(rest),
        ["bench", name] => bench::run(name, None),
        ["bench", name @ ("engines" | "sockets"), only] => bench::run(name, Some(only)),
        _ => Err("usage: cargo xtask install | check | test [--long] | \
             bench engines [PART]|floods|gateway|soa|sockets [PART]"
            .into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("xtask: {why}");
            ExitCode::FAILURE
        }
    }
}

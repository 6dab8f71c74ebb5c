//! The binary: configuration, wiring, shutdown, the command line.

mod cli;
mod config;
mod conformance;
mod demo;
mod http_client;
mod key_server;
mod node;
mod services;
mod socket;
mod stores;
mod telemetry;

use clap::Parser;
use std::process::ExitCode;

/// A request makes a few dozen small allocations (docs/adr/0003).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match cli::run(cli::Cli::parse()) {
        Ok(code) => code,
        Err(message) => {
            eprintln!("crosstown: {message}");
            ExitCode::FAILURE
        }
    }
}

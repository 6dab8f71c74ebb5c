//! The binary: configuration, wiring, shutdown, the command line.

mod cli;
mod config;
mod conformance;
mod demo;
mod key_server;
mod node;
mod services;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    match cli::run(cli::Cli::parse()) {
        Ok(code) => code,
        Err(message) => {
            eprintln!("crosstown: {message}");
            ExitCode::FAILURE
        }
    }
}

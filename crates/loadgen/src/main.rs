//! Bounded load for benchmarks, from a process of its own.
//!
//! `loadgen sockets` opens one connection for each token on standard input, subscribes it to
//! its user's personal channel and to a shared one, answers pings for as long as told, and
//! prints two lines of JSON: when all are open, and at the end.

mod sockets;

use clap::{Args, Parser};
use std::{process::ExitCode, time::Duration};

#[derive(Parser)]
#[command(name = "loadgen", about = "Bounded load for benchmarks")]
enum Cli {
    /// Many idle sockets. Tokens come on standard input, one a line, for the users NAME-1 on.
    Sockets(SocketsArgs),
}

#[derive(Args)]
struct SocketsArgs {
    /// The node, `http://127.0.0.1:PORT`.
    #[arg(long)]
    url: String,
    /// The users' name: the token of line N is NAME-N's.
    #[arg(long)]
    user: String,
    /// Seconds to hold the connections once all are open, at most 600.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(0..=600))]
    hold: u64,
}

fn main() -> ExitCode {
    let Cli::Sockets(args) = Cli::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("loadgen: cannot start a runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let tokens = std::io::stdin().lines().map_while(Result::ok).collect();
    let hold = Duration::from_secs(args.hold);
    match runtime.block_on(sockets::hold(&args.url, &args.user, tokens, hold)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("loadgen: {why}");
            ExitCode::FAILURE
        }
    }
}

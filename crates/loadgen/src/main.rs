//! Bounded load for benchmarks, from a process of its own.
//!
//! `loadgen sockets` opens connections, each for a token on standard input where the wire has
//! tokens, and then does what it is told there, a line each, until the input ends:
//!
//! ```text
//! hold SECONDS                  nothing but to answer pings
//! window RATE SECONDS BYTES     publications by schedule, RATE a second to all rooms in turn
//! stall COUNT                   so many connections read no more
//! restore                       and are opened anew
//! ```
//!
//! `loadgen storm` opens connections that recover, cuts them all, lets them come back, and so on.
//! Both print a line of JSON when all are open, and one for each thing done.

mod crowd;
mod follow;
mod histogram;
mod place;
mod publishers;
mod sockets;
mod storm;
mod wire;

use clap::{Args, Parser};
use std::{io::BufRead, net::SocketAddr, process::ExitCode, time::Duration};
use wire::Wire;

#[derive(Parser)]
#[command(name = "loadgen", about = "Bounded load for benchmarks")]
enum Cli {
    /// Many sockets, that do as they are told.
    Sockets(SocketsArgs),
    /// Many sockets that are cut, and come back at once.
    Storm(StormArgs),
}

#[derive(Args)]
struct SocketsArgs {
    /// What the server speaks.
    #[arg(long)]
    wire: Wire,
    #[command(flatten)]
    who: Who,
    /// The kernel's buffer for what a connection has not read, in bytes, with segments as on a
    /// network, so that the other side's kernel keeps little too; 0 leaves both to the kernel.
    #[arg(long, default_value_t = 0)]
    receive_buffer: u32,
}

#[derive(Args)]
struct StormArgs {
    #[command(flatten)]
    who: Who,
    /// Publications a second, to all rooms together.
    #[arg(long)]
    rate: u64,
    /// Seconds that all are away.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(0..=60))]
    away: u64,
    /// How often.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=100))]
    rounds: u64,
}

/// Who connects to what.
#[derive(Args)]
struct Who {
    /// Where the server listens.
    #[arg(long)]
    address: SocketAddr,
    /// Connections that listen.
    #[arg(long)]
    connections: usize,
    /// Rooms that they are spread over, each in one; 0: each is in its user's own channel and in
    /// one that all are in.
    #[arg(long, default_value_t = 0)]
    rooms: usize,
    /// What the rooms' names begin with.
    #[arg(long, default_value = "")]
    prefix: String,
    /// Lines of tokens on standard input: the token of line N is the user `load-N`'s. The last
    /// ones are the publishers'.
    #[arg(long, default_value_t = 0)]
    tokens: usize,
}

fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("loadgen: cannot start a runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let done = match Cli::parse() {
        Cli::Sockets(args) => runtime.block_on(sockets::run(&args, tokens(&args.who))),
        Cli::Storm(args) => runtime.block_on(weather(&args, tokens(&args.who))),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("loadgen: {why}");
            ExitCode::FAILURE
        }
    }
}

/// The tokens at the beginning of standard input.
fn tokens(who: &Who) -> Vec<String> {
    std::io::stdin().lock().lines().map_while(Result::ok).take(who.tokens).collect()
}

async fn weather(args: &StormArgs, tokens: Vec<String>) -> Result<(), String> {
    let place =
        place::Place { wire: Wire::Centrifugo, address: args.who.address, receive_buffer: 0 };
    let (seats, publishers) = sockets::seats(place, &args.who, tokens).await?;
    let connections = seats.len();
    let publishers = publishers.ok_or("a storm is over rooms")?;
    let mut storm = storm::Storm::open(place, seats, publishers, args.rate).await?;
    println!("{}", serde_json::json!({ "open": connections }));
    for _ in 0..args.rounds {
        println!("{}", storm.round(Duration::from_secs(args.away)).await?);
    }
    Ok(())
}

//! The driver of `cargo xtask bench engines`: one operation of one layer on one engine, or the
//! same work by the engine's own client alone, in a process of its own.
//!
//! `engines URL OPERATION ours|raw TASKS` prepares and then takes lines from its input, each a
//! number of milliseconds. For so long `TASKS` tasks work, each waiting for one answer at a
//! time, and a line of JSON tells how many operations were done.

#![expect(clippy::wildcard_enum_match_arm, reason = "each side does some of the operations")]

mod engine;
mod entry;
mod limits;
mod ours;
mod raw_postgres;
mod raw_redis;
mod session;

use async_trait::async_trait;
use serde_json::json;
use std::{
    io::{BufRead, Write},
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

/// As the node has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    SessionCreate,
    SessionRead,
    SessionReadCached,
    StatePut,
    StatePatch,
    StateRead,
    Publish,
    LimitCharge,
}

impl Operation {
    fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "session-create" => Self::SessionCreate,
            "session-read" => Self::SessionRead,
            "session-read-cached" => Self::SessionReadCached,
            "state-put" => Self::StatePut,
            "state-patch" => Self::StatePatch,
            "state-read" => Self::StateRead,
            "publish" => Self::Publish,
            "limit-charge" => Self::LimitCharge,
            _ => return None,
        })
    }
}

/// An operation that is ready to be done again and again.
#[async_trait]
trait Work: Send + Sync {
    /// Does it once: the `turn`th time of this task.
    async fn once(&self, task: usize, turn: u64) -> Result<(), String>;
}

/// Any error as text.
fn told(error: impl std::fmt::Debug) -> String {
    format!("{error:?}")
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("engines: {why}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), String> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [url, operation, by, tasks] = args.as_slice() else {
        return Err("usage: engines URL OPERATION ours|raw TASKS".into());
    };
    let operation = Operation::parse(operation).ok_or("there is no such operation")?;
    let tasks: usize = tasks.parse().map_err(told)?;
    // As the node's control runtime, where whatever waits for a store runs.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(told)?;
    let work = runtime.block_on(async {
        match (by.as_str(), url.split(':').next().unwrap_or_default()) {
            ("ours", _) => ours::prepare(url, operation, tasks).await,
            ("raw", "postgres") => raw_postgres::prepare(url, operation, tasks).await,
            ("raw", "redis" | "redis+cluster") => raw_redis::prepare(url, operation, tasks).await,
            (_, _) => Err(format!("{by} is not known on {url}")),
        }
    })?;
    say(&json!({ "ready": true }))?;
    for (round, line) in std::io::stdin().lock().lines().enumerate() {
        let within = Duration::from_millis(line.map_err(told)?.trim().parse().map_err(told)?);
        let (operations, error) = runtime.block_on(load(&work, tasks, round as u64, within));
        say(&json!({ "operations": operations, "error": error }))?;
    }
    Ok(())
}

fn say(line: &serde_json::Value) -> Result<(), String> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).map_err(told)
}

/// The operations done, and the first error, which ends its task.
async fn load(
    work: &Arc<dyn Work>,
    tasks: usize,
    round: u64,
    within: Duration,
) -> (u64, Option<String>) {
    let until = Instant::now() + within;
    let mut running = tokio::task::JoinSet::new();
    for task in 0..tasks {
        let work = work.clone();
        running.spawn(async move {
            let (mut done, mut turn) = (0, round << 32);
            while Instant::now() < until {
                if let Err(error) = work.once(task, turn).await {
                    return (done, Some(error));
                }
                (done, turn) = (done + 1, turn + 1);
                // What needs no store never waits, and must let the others go on.
                if done % 64 == 0 {
                    tokio::task::yield_now().await;
                }
            }
            (done, None)
        });
    }
    let mut all = (0, None);
    for (done, error) in running.join_all().await {
        all = (all.0 + done, all.1.or(error));
    }
    all
}

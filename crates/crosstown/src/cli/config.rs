//! `crosstown config`.

use crate::cli::{
    operator::{NodeArgs, said},
    runtime,
    shown::{list, word},
};
use clap::{Args, Subcommand};
use client::Client;
use serde_json::{Value as Json, json};
use std::{
    io::{IsTerminal, Write},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

/// How often the progress of a trial is asked for.
const LOOK: Duration = Duration::from_millis(500);

#[derive(Subcommand)]
pub(crate) enum ConfigCommand {
    /// Show what a configuration would change, and which services it would not reach.
    Plan(FileArgs),
    /// Put a configuration in force, and into the node's file.
    Apply(ApplyArgs),
    /// Put the configuration before this one, or another one that was in force, in force again.
    Rollback(RollbackArgs),
    /// List the configurations that were in force.
    Versions(ShowArgs),
    /// Show what is in force, what is on trial, and what became of the last trial.
    Status(ShowArgs),
    /// End the trial under way; what is in force stays so.
    Abandon(NodeArgs),
}

#[derive(Args)]
pub(crate) struct FileArgs {
    #[command(flatten)]
    node: NodeArgs,
    /// The new configuration.
    file: PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub(crate) struct ApplyArgs {
    #[command(flatten)]
    file: FileArgs,
    /// Only if this is in force; `plan` tells it.
    #[arg(long, value_name = "VERSION")]
    if_version: Option<String>,
    /// Although no instance of some service can be reached.
    #[arg(long)]
    force: bool,
    /// Try it on this many of a hundred requests first, and wait for what comes of it.
    #[arg(long, value_name = "PERCENT", requires = "duration")]
    canary: Option<f64>,
    /// For how long it is tried.
    #[arg(long = "for", id = "duration", value_name = "TIME", requires = "canary")]
    duration: Option<String>,
    /// Errors of a hundred that it may have more than the one in force. Default 1.
    #[arg(long, value_name = "PERCENT", requires = "canary")]
    errors_max: Option<f64>,
    /// Milliseconds within which 99 of 100 requests have to be answered. Default: any.
    #[arg(long, value_name = "MS", requires = "canary")]
    p99_max: Option<f64>,
    /// Requests that it has to have had before anything is concluded. Default 100.
    #[arg(long, value_name = "COUNT", requires = "canary")]
    requests_min: Option<u64>,
}

#[derive(Args)]
pub(crate) struct RollbackArgs {
    #[command(flatten)]
    show: ShowArgs,
    /// Which one; the one before without it.
    version: Option<String>,
}

#[derive(Args)]
pub(crate) struct ShowArgs {
    #[command(flatten)]
    node: NodeArgs,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(command: ConfigCommand) -> Result<ExitCode, String> {
    runtime()?.block_on(async {
        match command {
            ConfigCommand::Plan(args) => plan(&args).await,
            ConfigCommand::Apply(args) => apply(&args).await,
            ConfigCommand::Rollback(args) => {
                let client = args.show.node.client()?;
                let body = json!({ "version": args.version });
                let applied: Json = client.post("/config/rollback", &body).await.map_err(said)?;
                show_applied(&applied, args.show.json);
                Ok(ExitCode::SUCCESS)
            }
            ConfigCommand::Versions(args) => versions(&args).await,
            ConfigCommand::Status(args) => {
                let status: Json = args.node.client()?.get("/config/status").await.map_err(said)?;
                if args.json {
                    println!("{status}")
                } else {
                    show_status(&status)
                }
                Ok(ExitCode::SUCCESS)
            }
            ConfigCommand::Abandon(args) => {
                args.client()?.delete("/config/trial").await.map_err(said)?;
                println!("The trial has ended.");
                Ok(ExitCode::SUCCESS)
            }
        }
    })
}

impl FileArgs {
    fn text(&self) -> Result<String, String> {
        let file = &self.file;
        std::fs::read_to_string(file)
            .map_err(|error| format!("cannot read {}: {error}", file.display()))
    }
}

async fn plan(args: &FileArgs) -> Result<ExitCode, String> {
    let body = json!({ "text": args.text()? });
    let plan: Json = args.node.client()?.post("/config/plan", &body).await.map_err(said)?;
    if args.json {
        println!("{plan}");
        return Ok(ExitCode::SUCCESS);
    }
    println!("in force: {}, planned: {}", word(&plan["version"]), word(&plan["planned"]));
    show_changes(&plan);
    for path in list(&plan["restart"]) {
        println!("needs a restart: {}", word(path));
    }
    for one in list(&plan["unreachable"]) {
        let (service, instance) = (word(&one["service"]), word(&one["instance"]));
        println!("not reached: {instance} of {service}: {}", word(&one["why"]));
    }
    for service in list(&plan["lost"]) {
        println!("no instance is reached of: {}", word(service));
    }
    Ok(ExitCode::SUCCESS)
}

async fn apply(args: &ApplyArgs) -> Result<ExitCode, String> {
    let trial = args.canary.zip(args.duration.as_ref()).map(|(percent, duration)| {
        let mut trial = json!({ "percent": percent, "for": duration });
        if let Some(most) = args.errors_max {
            trial["errors_percent_max"] = most.into();
        }
        if let Some(most) = args.p99_max {
            trial["p99_ms_max"] = most.into();
        }
        if let Some(least) = args.requests_min {
            trial["requests_min"] = least.into();
        }
        trial
    });
    let body = json!({
        "text": args.file.text()?,
        "if_version": args.if_version,
        "force": args.force,
        "trial": trial,
    });
    let client = args.file.node.client()?;
    let applied: Json = client.post("/config/apply", &body).await.map_err(said)?;
    if applied["status"] != "trying" {
        show_applied(&applied, args.file.json);
        return Ok(ExitCode::SUCCESS);
    }
    let last = watched(&client).await?;
    if args.file.json {
        println!("{last}");
    } else {
        println!("{}: {}", word(&last["outcome"]), word(&last["why"]));
    }
    let kept = last["outcome"] == "kept" && last["version"] == applied["version"];
    Ok(if kept { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Waits for the end of a trial, and shows how it goes where somebody looks.
async fn watched(client: &Client) -> Result<Json, String> {
    let mut error = std::io::stderr();
    loop {
        let status: Json = client.get("/config/status").await.map_err(said)?;
        let figures = &status["trial"]["figures"];
        if status["trial"].is_null() {
            if error.is_terminal() {
                eprintln!();
            }
            return Ok(status["last_trial"].clone());
        }
        if error.is_terminal() {
            let _ = write!(error, "\r{}", trial_line(figures));
            let _ = error.flush();
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn versions(args: &ShowArgs) -> Result<ExitCode, String> {
    let answer: Json = args.node.client()?.get("/config/versions").await.map_err(said)?;
    let versions = list(&answer["versions"]);
    if args.json {
        println!("{}", answer["versions"]);
    } else if versions.is_empty() {
        println!("None was put in force by `crosstown config apply` yet.");
    } else {
        for one in versions {
            let mark = if one["in_force"] == true { "  in force" } else { "" };
            println!("{:>6}  {}{mark}", one["number"], word(&one["version"]));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn show_applied(applied: &Json, as_json: bool) {
    if as_json {
        println!("{applied}");
        return;
    }
    println!("{}: {}", word(&applied["status"]), word(&applied["version"]));
    show_changes(applied);
}

fn show_changes(of: &Json) {
    for change in list(&of["changes"]) {
        let path = word(&change["path"]);
        match (change["from"].is_null(), change["to"].is_null()) {
            (true, _) => println!("+ {path} = {}", change["to"]),
            (_, true) => println!("- {path} = {}", change["from"]),
            (_, _) => println!("~ {path} = {} (was {})", change["to"], change["from"]),
        }
    }
}

fn show_status(status: &Json) {
    println!("in force: {}", word(&status["version"]));
    let trial = &status["trial"];
    if !trial.is_null() {
        println!("on trial: {}: {}", word(&trial["version"]), trial_line(&trial["figures"]));
    }
    let last = &status["last_trial"];
    if !last.is_null() {
        let (version, outcome) = (word(&last["version"]), word(&last["outcome"]));
        println!("last trial: {version} was {outcome}: {}", word(&last["why"]));
    }
}

fn trial_line(figures: &Json) -> String {
    let side = |name: &str| {
        let side = &figures[name];
        let (requests, errors, p99) = (&side["requests"], &side["errors"], &side["p99_ms"]);
        format!("{requests} requests, {errors} failed, p99 {p99} ms")
    };
    format!("on trial {}; in force {}", side("tried"), side("in_force"))
}

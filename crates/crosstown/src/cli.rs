//! The command line.

mod api_key;
mod cache;
mod config;
mod explain;
mod limits;
mod openapi;
mod operator;
mod realms;
mod services;
mod sessions;
mod shown;
mod token;
mod trace;
mod traffic;

use crate::{config::Config, conformance, demo, node, services as examples};
use clap::{Args, Parser, Subcommand};
use std::{path::PathBuf, process::ExitCode};

/// The communication layer of a multi-service, multi-agent platform, in one binary.
#[derive(Parser)]
#[command(name = "crosstown", version, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Args, Clone)]
pub(crate) struct ConfigArgs {
    /// The configuration. Without it `crosstown.toml` is read, if there is one; every key has
    /// a default.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl ConfigArgs {
    fn load(&self) -> Result<Config, String> {
        Config::load(self.config.as_deref())
    }
}

#[derive(Subcommand)]
enum Command {
    /// Run a node.
    Serve(ConfigArgs),
    /// Check a configuration and print what it comes to, secrets redacted.
    Check(ConfigArgs),
    /// Make a token that a configured issuer with a shared secret would sign.
    Token(token::TokenArgs),
    /// Make, list and delete API keys, through a running node's admin listener.
    #[command(subcommand)]
    ApiKey(api_key::ApiKeyCommand),
    /// Plan, apply, try and take back configurations of a running node.
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// Tell what would become of a request, and why: route, caller, limits, instance.
    Explain(explain::ExplainArgs),
    /// Show the services' instances, and how each is, as a running node sees them.
    Services(services::ServicesArgs),
    /// Realms: their services, what they promise, and the documents of that.
    #[command(subcommand)]
    Realms(realms::RealmsCommand),
    /// Print the OpenAPI document of our own API, or of the admin API. No node has to run.
    Openapi(openapi::OpenapiArgs),
    /// Show what a running node keeps of answers, or make it forget them.
    Cache(cache::CacheArgs),
    /// See what passes through some connections, on all nodes, as it happens.
    Trace(trace::TraceArgs),
    /// See, route, hand over and end sessions.
    #[command(subcommand)]
    Sessions(sessions::SessionsCommand),
    /// Show the traffic of all nodes: what is asked, by whom, how fast, and what went wrong.
    Traffic(Box<traffic::TrafficArgs>),
    /// What limits would do.
    #[command(subcommand)]
    Limits(limits::LimitsCommand),
    /// See it work: a server, small services and a page in your browser.
    Demo(demo::DemoArgs),
    /// Hold a part of Crosstown against published test vectors.
    #[command(subcommand)]
    Conformance(conformance::Suite),
    /// The demo's services.
    #[command(subcommand, hide = true)]
    Example(examples::Example),
}

/// Does what the command line says.
///
/// # Errors
/// One line that says what is wrong and what to do.
pub(crate) fn run(cli: Cli) -> Result<ExitCode, String> {
    match cli.command {
        Command::Serve(args) => node::serve(args.config.as_deref(), args.load()?),
        Command::Check(args) => {
            let mut config = args.load()?;
            let printed = config.printed();
            node::check(&mut config)?;
            print!("{printed}");
            Ok(ExitCode::SUCCESS)
        }
        Command::Token(args) => token::run(&args),
        Command::ApiKey(command) => api_key::run(command),
        Command::Config(command) => config::run(command),
        Command::Explain(args) => explain::run(&args),
        Command::Services(args) => services::run(&args),
        Command::Realms(command) => realms::run(&command),
        Command::Openapi(args) => openapi::run(&args),
        Command::Cache(args) => cache::run(&args),
        Command::Trace(args) => trace::run(&args),
        Command::Sessions(command) => sessions::run(command),
        Command::Traffic(args) => traffic::run(&args),
        Command::Limits(command) => limits::run(command),
        Command::Demo(args) => demo::run(args),
        Command::Conformance(suite) => conformance::run(&suite),
        Command::Example(example) => examples::run(example),
    }
}

/// A runtime for a command that only waits for answers.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime, String> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start a runtime: {error}"))
}

//! `crosstown services`.

use crate::cli::{
    operator::{NodeArgs, said},
    runtime,
};
use clap::Args;
use serde_json::Value as Json;
use std::process::ExitCode;

#[derive(Args)]
pub(crate) struct ServicesArgs {
    #[command(flatten)]
    node: NodeArgs,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Shows the services' instances as the running node sees them.
pub(crate) fn run(args: &ServicesArgs) -> Result<ExitCode, String> {
    let answer: Json =
        runtime()?.block_on(async { args.node.client()?.get("/services").await.map_err(said) })?;
    let instances = answer["instances"].as_array().cloned().unwrap_or_default();
    if args.json {
        println!("{}", Json::Array(instances));
    } else if instances.is_empty() {
        println!("There are no services. Add `[services.NAME]` to the configuration.");
    } else {
        println!(
            "{:<16} {:<28} {:<8} {:>6} {:>9} {:>11} {:>10}",
            "service", "instance", "is", "weight", "in flight", "connections", "latency"
        );
        for one in instances {
            let text = |name: &str| one[name].as_str().unwrap_or("-").to_owned();
            println!(
                "{:<16} {:<28} {:<8} {:>6} {:>9} {:>11} {:>8}ms",
                text("service"),
                text("instance"),
                text("condition"),
                one["weight"],
                one["in_flight"],
                one["connections"],
                one["latency_ms"],
            );
        }
    }
    Ok(ExitCode::SUCCESS)
}

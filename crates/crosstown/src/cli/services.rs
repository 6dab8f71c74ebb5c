//! `crosstown services`.

use crate::cli::{
    operator::{NodeArgs, said},
    runtime,
    shown::{list, word},
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

/// Shows the services as the running node sees them: their instances, and what guards them.
pub(crate) fn run(args: &ServicesArgs) -> Result<ExitCode, String> {
    let answer: Json =
        runtime()?.block_on(async { args.node.client()?.get("/services").await.map_err(said) })?;
    let (instances, guards) = (list(&answer["instances"]), list(&answer["guards"]));
    let troubles = list(&answer["troubles"]);
    if args.json {
        println!("{answer}");
    } else if instances.is_empty() && troubles.is_empty() {
        println!("There is no instance of a service. Add `[services.NAME]` to the configuration.");
    } else {
        show_instances(instances);
        for one in instances.iter().filter(|one| one["by"].is_string()) {
            let (instance, by, id) = (word(&one["instance"]), word(&one["by"]), word(&one["id"]));
            println!("{instance} is registered by {by} as {id}");
        }
        for one in troubles {
            println!("\n{}: DNS: {}", word(&one["service"]), word(&one["why"]));
        }
        if !guards.is_empty() {
            println!();
            show_guards(guards);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn show_instances(instances: &[Json]) {
    println!(
        "{:<16} {:<28} {:<8} {:<8} {:>6} {:>9} {:>11} {:>10}",
        "service", "instance", "from", "is", "weight", "in flight", "connections", "latency"
    );
    for one in instances {
        println!(
            "{:<16} {:<28} {:<8} {:<8} {:>6} {:>9} {:>11} {:>8}ms",
            word(&one["service"]),
            word(&one["instance"]),
            word(&one["origin"]),
            word(&one["condition"]),
            one["weight"],
            one["in_flight"],
            one["connections"],
            one["latency_ms"],
        );
    }
}

fn show_guards(guards: &[Json]) {
    println!(
        "{:<16} {:<8} {:>12} {:>8} {:>7} {:>6} {:>7}",
        "service", "breaker", "in flight", "retries", "hedges", "shed", "broken"
    );
    for one in guards {
        let bound = match one["limit"].as_u64() {
            Some(limit) => format!("{} of {limit}", one["in_flight"]),
            None => "-".to_owned(),
        };
        println!(
            "{:<16} {:<8} {:>12} {:>8} {:>7} {:>6} {:>7}",
            word(&one["service"]),
            word(&one["breaker"]),
            bound,
            one["retries"],
            one["hedges"],
            one["shed"],
            one["broken"],
        );
    }
}

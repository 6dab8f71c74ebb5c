//! `crosstown cache`.

use crate::cli::{
    operator::{NodeArgs, said},
    runtime,
};
use clap::Args;
use serde_json::Value as Json;
use std::process::ExitCode;

#[derive(Args)]
pub(crate) struct CacheArgs {
    #[command(flatten)]
    node: NodeArgs,
    /// Forget every kept answer.
    #[arg(long)]
    forget: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Shows what the running node keeps of answers, once it has forgotten them if it is told to.
pub(crate) fn run(args: &CacheArgs) -> Result<ExitCode, String> {
    let cache: Json = runtime()?.block_on(async {
        let client = args.node.client()?;
        if args.forget {
            client.delete("/cache").await.map_err(said)?;
        }
        client.get("/cache").await.map_err(said)
    })?;
    if args.json {
        println!("{cache}");
        return Ok(ExitCode::SUCCESS);
    }
    let (targets, bytes) = (&cache["targets"], &cache["bytes"]);
    println!("kept: answers of {targets} targets, about {bytes} bytes");
    let (hits, misses, revalidated) = (&cache["hits"], &cache["misses"], &cache["revalidated"]);
    println!("answered: {hits} from it, {revalidated} after asking, {misses} by services");
    Ok(ExitCode::SUCCESS)
}

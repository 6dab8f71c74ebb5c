//! `crosstown demo`: a server, small services and a page, all as processes of their own; with
//! `--once`, the same story told by clients that this process runs over loopback.

mod processes;
mod server;
mod story;

use crate::demo::processes::Town;
use clap::Args;
use std::{path::PathBuf, process::ExitCode};

#[derive(Args)]
pub(crate) struct DemoArgs {
    /// Walk the story once, tell each step, and exit.
    #[arg(long)]
    once: bool,
    /// The port of the page; any free one, unless told.
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// A file whose `[stores]` two servers are to share, for instance
    /// examples/redis-postgres.toml. Without it there is one, on a fresh embedded store.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

pub(crate) fn run(args: DemoArgs) -> Result<ExitCode, String> {
    let runtime = crate::cli::runtime()?;
    runtime.block_on(async {
        let mut town = Town::start(args.port, args.config.as_deref()).await?;
        if args.once {
            let told = story::tell(&mut town).await;
            town.stop().await;
            return match told {
                Ok(steps) => {
                    println!("\nThe story is told: {steps} steps, all as promised.");
                    Ok(ExitCode::SUCCESS)
                }
                Err(why) => Err(format!("the story stopped: {why}")),
            };
        }
        println!("\n  Open  {}  in your browser.", town.base());
        println!("  Then open the link that the page shows in a second tab.\n");
        if town.is_shared() {
            println!(
                "  Open the link at {} to see the same by the other server.",
                town.other_base()
            );
        }
        println!("  Press Ctrl-C to stop. {} then.", town.remains());
        town.watch().await?;
        town.stop().await;
        Ok(ExitCode::SUCCESS)
    })
}

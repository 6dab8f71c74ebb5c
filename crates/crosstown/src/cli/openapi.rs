//! `crosstown openapi`.

use clap::Args;
use serde_json::Value as Json;
use std::{
    io::{self, ErrorKind, Write},
    process::ExitCode,
};

#[derive(Args)]
pub(crate) struct OpenapiArgs {
    /// That of the admin API, which operators use.
    #[arg(long)]
    admin: bool,
    /// Tell the operations in a line each instead.
    #[arg(long)]
    list: bool,
}

/// Prints the document that a node of this version serves.
pub(crate) fn run(args: &OpenapiArgs) -> Result<ExitCode, String> {
    let document = if args.admin { api::admin::openapi() } else { api::openapi() };
    let text = if args.list { listed(&document) } else { format!("{document:#}") };
    // Whoever reads may have seen enough of it.
    match writeln!(io::stdout(), "{text}") {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error.to_string()),
        Ok(()) | Err(_) => Ok(ExitCode::SUCCESS),
    }
}

fn listed(document: &Json) -> String {
    let mut lines = Vec::new();
    for (path, item) in document["paths"].as_object().into_iter().flatten() {
        for (method, operation) in item.as_object().into_iter().flatten() {
            let summary = operation["summary"].as_str().unwrap_or_default();
            lines.push(format!("{:<6} {path:<55} {summary}", method.to_uppercase()));
        }
    }
    lines.join("\n")
}

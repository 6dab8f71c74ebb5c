//! `crosstown realms`.

use crate::cli::{
    operator::{NodeArgs, said},
    runtime,
    shown::{list, word},
};
use bridge::Document;
use clap::{Args, Subcommand};
use http::Method;
use serde_json::Value as Json;
use std::{path::PathBuf, process::ExitCode};

#[derive(Subcommand)]
pub(crate) enum RealmsCommand {
    /// Show the realms, their services, and how their documents were broken.
    List(ListArgs),
    /// Print the OpenAPI document of what an audience can call, or a page of it.
    Openapi(OpenapiArgs),
    /// Check an OpenAPI document, without a node.
    Check(CheckArgs),
}

#[derive(Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    node: NodeArgs,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub(crate) struct OpenapiArgs {
    #[command(flatten)]
    node: NodeArgs,
    /// The realm that calls. Without it: whoever comes from outside.
    #[arg(long, value_name = "REALM")]
    audience: Option<String>,
    /// Print a page for a browser instead: one file.
    #[arg(long)]
    html: bool,
}

#[derive(Args)]
pub(crate) struct CheckArgs {
    /// The document, JSON or YAML.
    file: PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Does what the command line says.
pub(crate) fn run(command: &RealmsCommand) -> Result<ExitCode, String> {
    match command {
        RealmsCommand::List(args) => show(args)?,
        RealmsCommand::Openapi(args) => print(args)?,
        RealmsCommand::Check(args) => check(args)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn show(args: &ListArgs) -> Result<(), String> {
    let told: Json =
        runtime()?.block_on(async { args.node.client()?.get("/realms").await.map_err(said) })?;
    if args.json {
        println!("{told}");
        return Ok(());
    }
    let realms = told["realms"].as_object();
    if realms.is_none_or(serde_json::Map::is_empty) {
        println!("There is no realm. Add `[realms.NAME]` to the configuration.");
        return Ok(());
    }
    println!(
        "{:<16} {:<20} {:<10} {:<10} {:>9} title",
        "realm", "service", "version", "operations", "instances"
    );
    for (realm, services) in realms.into_iter().flatten() {
        for one in list(services) {
            let operations = match one["operations"].as_array() {
                Some(operations) => operations.len().to_string(),
                None if one["waits_for_document"] == true => "awaited".to_owned(),
                None => "any path".to_owned(),
            };
            let (name, version) = (word(&one["name"]), word(&one["version"]));
            let instances = format!("{} of {}", one["instances_fit"], one["instances"]);
            let title = word(&one["title"]);
            println!(
                "{realm:<16} {name:<20} {version:<10} {operations:<10} {instances:>9} {title}"
            );
        }
    }
    for one in list(&told["broken"]) {
        println!(
            "{}.{}: {} broken by a {}, lately {}",
            word(&one["service"]),
            word(&one["operation"]),
            one["count"],
            word(&one["by"]),
            word(&one["last"]),
        );
    }
    Ok(())
}

fn print(args: &OpenapiArgs) -> Result<(), String> {
    let format = if args.html { "html" } else { "json" };
    let mut path = format!("/realms/openapi?format={format}");
    if let Some(realm) = &args.audience {
        let realm: String = url::form_urlencoded::byte_serialize(realm.as_bytes()).collect();
        path = format!("{path}&audience={realm}");
    }
    let answer = runtime()?.block_on(async {
        args.node.client()?.call(Method::GET, &path, None).await.map_err(said)
    })?;
    let text = String::from_utf8_lossy(&answer.body);
    if !answer.status.is_success() {
        let document: Json = serde_json::from_str(&text).unwrap_or_default();
        return Err(word(&document["detail"]).to_owned());
    }
    println!("{}", text.trim_end());
    Ok(())
}

fn check(args: &CheckArgs) -> Result<(), String> {
    let name = args.file.display();
    let text = std::fs::read(&args.file).map_err(|error| format!("cannot read {name}: {error}"))?;
    let document = Document::parse(&text).map_err(|why| format!("{name}: {why}"))?;
    let operations = document.operations();
    if args.json {
        let ids: Vec<&str> = operations.iter().map(|operation| operation.id()).collect();
        let (title, version) = (document.title(), document.version());
        println!(
            "{}",
            serde_json::json!({ "title": title, "version": version, "operations": ids })
        );
        return Ok(());
    }
    println!("{} {}: it can be kept", document.title(), document.version());
    for operation in operations {
        let summary = operation.summary().unwrap_or_default();
        let (method, path) = (operation.method().as_str(), operation.path());
        println!("{:<24} {method:<7} {path:<32} {summary}", operation.id());
    }
    Ok(())
}

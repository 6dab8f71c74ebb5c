//! `crosstown explain`.

use crate::cli::{
    operator::{NodeArgs, said},
    runtime,
    shown::{list, word},
};
use clap::Args;
use serde_json::{Map, Value as Json, json};
use std::{net::IpAddr, process::ExitCode};

#[derive(Args)]
pub(crate) struct ExplainArgs {
    #[command(flatten)]
    node: NodeArgs,
    /// The request's method.
    method: String,
    /// Its URL; the host is what routes compare.
    url: String,
    /// A header field of the request, `name: value`; a credential says whose it is.
    #[arg(short = 'H', long = "header", value_name = "FIELD")]
    headers: Vec<String>,
    /// From where it comes.
    #[arg(long, default_value = "127.0.0.1")]
    ip: IpAddr,
    /// Whose it is, instead of by a credential.
    #[arg(long, requires = "principal")]
    tenant: Option<String>,
    /// The caller's name in the tenant.
    #[arg(long, requires = "tenant")]
    principal: Option<String>,
    /// What the caller is.
    #[arg(long, default_value = "user", requires = "principal")]
    kind: String,
    /// A role of the caller.
    #[arg(long = "role", requires = "principal")]
    roles: Vec<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Tells what would become of a request. Exits with 0 if it would be answered or forwarded.
pub(crate) fn run(args: &ExplainArgs) -> Result<ExitCode, String> {
    let mut headers = Map::new();
    for field in &args.headers {
        let (name, value) =
            field.split_once(':').ok_or_else(|| format!("`{field}` is not `name: value`"))?;
        headers.insert(name.trim().to_owned(), value.trim().into());
    }
    let by = args.tenant.as_ref().zip(args.principal.as_ref()).map(|(tenant, principal)| {
        json!({ "tenant": tenant, "principal": principal, "kind": args.kind, "roles": args.roles })
    });
    let asked = json!({
        "method": args.method,
        "url": args.url,
        "headers": headers,
        "ip": args.ip,
        "as": by,
    });
    let told: Json = runtime()?
        .block_on(async { args.node.client()?.post("/explain", &asked).await.map_err(said) })?;
    if args.json {
        println!("{told}");
    } else {
        show(&told);
    }
    let goes_on = told["outcome"] == "forwarded" || told["outcome"] == "answered_here";
    Ok(if goes_on { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn show(told: &Json) {
    println!("{}: {}", word(&told["outcome"]), word(&told["why"]));
    for one in list(&told["considered"]) {
        let mark = if one["taken"] == true { "*" } else { " " };
        println!("route    {mark} {}: {}", word(&one["route"]), word(&one["why"]));
    }
    let caller = &told["caller"];
    if caller.is_null() {
        println!("caller     nobody in particular");
    } else {
        let (kind, name) = (word(&caller["kind"]), word(&caller["principal"]));
        let roles: Vec<&str> = list(&caller["roles"]).iter().map(word).collect();
        println!(
            "caller     {kind} {name} of {}, roles: {}",
            word(&caller["tenant"]),
            roles.join(" ")
        );
    }
    if let Some(service) = told["forward_auth"].as_str() {
        println!("asked      {service}, which may refuse it");
    }
    let bridge = &told["bridge"];
    if !bridge.is_null() {
        let passes = if bridge["allows"] == true { "passes" } else { "does not pass" };
        let rule = bridge["rule"].as_str().map_or("within the realm".into(), |r| format!("by {r}"));
        let (from, to) = (word(&bridge["from"]), word(&bridge["to"]));
        println!("bridge     {from} to {to}, {rule}: {passes}");
    }
    for one in list(&told["limits"]) {
        let name = word(&one["limit"]);
        if one["shadow"] == true {
            println!("limit      {name}: in shadow, refuses nobody");
        } else if one["remaining"].is_null() {
            println!("limit      {name}: counted by another node");
        } else {
            let (left, of, window) = (&one["remaining"], &one["of"], &one["window_s"]);
            println!("limit      {name}: {left} left of {of} in {window} s, costs {}", one["cost"]);
        }
    }
    for one in list(&told["split"]) {
        let mark = if one["chosen"] == true { "*" } else { " " };
        println!("service  {mark} {}, share {}", word(&one["service"]), one["weight"]);
    }
    if let Some(target) = told["target"].as_str() {
        println!("asks for   {target}, within {} ms", told["timeout_ms"]);
    }
    if let Some(breaker) = told["breaker"].as_str() {
        println!("breaker    {breaker}");
    }
    if let Some(key) = told["key"].as_str() {
        println!("key        {key}");
    }
    let bound = &told["bound"];
    if !bound.is_null() {
        println!("bound      to {}: {}", word(&bound["instance"]), word(&bound["why"]));
    }
    for one in list(&told["instances"]) {
        let mark = if one["chosen"] == true { "*" } else { " " };
        println!(
            "instance {mark} {}: {}, cost {}, in flight {}, latency {} ms",
            word(&one["instance"]),
            word(&one["condition"]),
            one["cost"],
            one["in_flight"],
            one["latency_ms"],
        );
    }
}

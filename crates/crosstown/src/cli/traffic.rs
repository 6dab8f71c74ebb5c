//! `crosstown traffic`.

use crate::cli::{
    operator::{NodeArgs, said},
    runtime,
    shown::{list, word},
};
use clap::{Args, Subcommand, ValueEnum};
use serde_json::Value as Json;
use std::{fmt::Write, process::ExitCode, time::Duration};
use url::form_urlencoded::Serializer;

/// How often what is watched is asked for.
const WATCHED_EVERY: Duration = Duration::from_secs(2);
/// Clears the screen and goes to its beginning (ECMA-48).
const CLEAR: &str = "\x1b[H\x1b[2J";

#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct TrafficArgs {
    #[command(subcommand)]
    command: Option<TrafficCommand>,
    #[command(flatten)]
    report: ReportArgs,
}

#[derive(Subcommand)]
enum TrafficCommand {
    /// Show requests of this node's log, the latest first.
    Log(LogArgs),
    /// Show what was out of the ordinary.
    Notes(NotesArgs),
}

/// By what figures are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum By {
    Route,
    Service,
    Instance,
    Realm,
    Tenant,
    Pillar,
    Consumer,
    Session,
    Endpoint,
}

#[derive(Args)]
struct ReportArgs {
    #[command(flatten)]
    node: NodeArgs,
    /// The last `1m`, `5m`, `1h`, `6h`, `24h` or `7d`; an hour, unless given.
    #[arg(long, value_name = "RANGE", conflicts_with_all = ["from", "to"])]
    range: Option<String>,
    /// From this moment on: of RFC 3339, or in milliseconds since 1970.
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
    /// Up to this one; until now, unless given.
    #[arg(long, value_name = "TIME", requires = "from")]
    to: Option<String>,
    /// What is told apart.
    #[arg(long, value_enum, default_value = "route")]
    by: By,
    /// Of one tenant.
    #[arg(long, value_name = "NAME")]
    tenant: Option<String>,
    /// Of one user, agent or service, as far as consumers go.
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// Of one session, likewise.
    #[arg(long, value_name = "ID")]
    session: Option<String>,
    /// What consumers, sessions and endpoints are ordered by.
    #[arg(long, value_parser = ["requests", "errors", "bytes", "limited"], default_value = "requests")]
    order: String,
    /// How many consumers, sessions and endpoints.
    #[arg(long, value_name = "COUNT", default_value_t = 20)]
    top: usize,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// Show it again every two seconds.
    #[arg(long)]
    watch: bool,
}

#[derive(Args)]
struct LogArgs {
    #[command(flatten)]
    node: NodeArgs,
    /// Of one tenant.
    #[arg(long, value_name = "NAME")]
    tenant: Option<String>,
    /// By one route.
    #[arg(long, value_name = "NAME")]
    route: Option<String>,
    /// To one service.
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
    /// With at least this status.
    #[arg(long, value_name = "STATUS")]
    status: Option<u16>,
    /// That took at least so long, for instance 250ms.
    #[arg(long, value_name = "DURATION")]
    slower: Option<String>,
    /// Of one user, agent or service.
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// Of one session.
    #[arg(long, value_name = "ID")]
    session: Option<String>,
    /// With this in the id of the request.
    #[arg(long, value_name = "ID")]
    trace: Option<String>,
    /// How many.
    #[arg(long, value_name = "COUNT", default_value_t = 50)]
    limit: usize,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct NotesArgs {
    #[command(flatten)]
    node: NodeArgs,
    /// Of one tenant's traffic.
    #[arg(long, value_name = "NAME")]
    tenant: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &TrafficArgs) -> Result<ExitCode, String> {
    match &args.command {
        None => report(&args.report),
        Some(TrafficCommand::Log(args)) => log(args),
        Some(TrafficCommand::Notes(args)) => notes(args),
    }
}

/// A path with what is said of its query.
fn path(path: &str, query: &[(&str, Option<String>)]) -> String {
    let mut text = Serializer::new(format!("{path}?"));
    for (name, value) in query {
        if let Some(value) = value {
            text.append_pair(name, value);
        }
    }
    text.finish()
}

fn ask(node: &NodeArgs, path: &str) -> Result<Json, String> {
    runtime()?.block_on(async { node.client()?.get(path).await.map_err(said) })
}

fn report(args: &ReportArgs) -> Result<ExitCode, String> {
    let path = path(
        "/analytics/traffic",
        &[
            ("range", args.range.clone()),
            ("from", args.from.clone()),
            ("to", args.to.clone()),
            ("tenant", args.tenant.clone()),
            ("user", args.user.clone()),
            ("session", args.session.clone()),
            ("by", Some(args.order.clone())),
            ("top", Some(args.top.to_string())),
        ],
    );
    loop {
        let answer = ask(&args.node, &path)?;
        let text = if args.json { format!("{answer}\n") } else { shown(&answer, args.by) };
        match args.watch && !args.json {
            true => print!("{CLEAR}{text}"),
            false => print!("{text}"),
        }
        if !args.watch {
            return Ok(ExitCode::SUCCESS);
        }
        std::thread::sleep(WATCHED_EVERY);
    }
}

/// A report as people read it.
fn shown(report: &Json, by: By) -> String {
    let mut text = String::new();
    let (range, total) = (word(&report["range"]), &report["total"]);
    let _ = writeln!(
        text,
        "{range}: {} requests, {}/s, {} users, {} of clients' errors, {} of servers'",
        count(&total["requests"]),
        rate(&total["rate"]),
        count(&report["users"]),
        count(&total["client_errors"]),
        count(&total["server_errors"]),
    );
    if report["complete"] == false {
        text.push_str("The store is away: this is what the node remembers.\n");
    }
    let rows = rows(report, by);
    if rows.is_empty() {
        text.push_str("\nThere is nothing to show.\n");
    } else {
        text.push('\n');
        text.push_str(&table(by, &rows));
    }
    let notes = list(&report["notes"]);
    if !notes.is_empty() {
        text.push('\n');
        notes.iter().for_each(|note| text.push_str(&note_line(note)));
    }
    text
}

fn busiest(mut rows: Vec<(String, &Json)>) -> Vec<(String, &Json)> {
    rows.sort_by_key(|(_, figures)| std::cmp::Reverse(figures["requests"].as_u64()));
    rows
}

/// What there is to a name, in the order in which it is shown.
fn rows(report: &Json, by: By) -> Vec<(String, &Json)> {
    let named = |name: &str| -> Vec<(String, &Json)> {
        let members = report[name].as_object().into_iter().flatten();
        busiest(members.map(|(name, figures)| (name.clone(), figures)).collect())
    };
    let listed = |name: &str, parts: &[&str]| -> Vec<(String, &Json)> {
        let label = |one: &Json| {
            let parts = parts.iter().map(|part| word(&one[*part]).to_owned());
            parts.collect::<Vec<_>>().join(" ")
        };
        list(&report[name]).iter().map(|one| (label(one), one)).collect()
    };
    match by {
        By::Route => busiest(listed("routes", &["route", "service"])),
        By::Service => named("services"),
        By::Instance => busiest(listed("instances", &["service", "instance"])),
        By::Realm => named("realms"),
        By::Tenant => named("tenants"),
        By::Pillar => named("pillars"),
        By::Consumer => listed("consumers", &["tenant", "kind", "user"]),
        By::Session => listed("sessions", &["tenant", "session"]),
        By::Endpoint => listed("endpoints", &["route", "method", "pattern"]),
    }
}

fn table(by: By, rows: &[(String, &Json)]) -> String {
    let title = by.to_possible_value().map(|value| value.get_name().to_owned());
    let title = title.unwrap_or_default();
    let width = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    let width = width.clamp(title.len(), 60);
    let mut text = String::new();
    let _ = writeln!(
        text,
        "{title:<width$} {:>10} {:>9} {:>8} {:>8} {:>8} {:>9} {:>9} {:>8} {:>8} {:>8}",
        "requests", "per s", "4xx", "5xx", "429", "in", "out", "p50", "p95", "p99",
    );
    for (name, of) in rows {
        let _ = writeln!(
            text,
            "{name:<width$} {:>10} {:>9} {:>8} {:>8} {:>8} {:>9} {:>9} {:>8} {:>8} {:>8}",
            count(&of["requests"]),
            rate(&of["rate"]),
            count(&of["client_errors"]),
            count(&of["server_errors"]),
            count(&of["limited"]),
            bytes(&of["bytes_in"]),
            bytes(&of["bytes_out"]),
            latency(&of["latency_ms_p50"]),
            latency(&of["latency_ms_p95"]),
            latency(&of["latency_ms_p99"]),
        );
    }
    text
}

fn log(args: &LogArgs) -> Result<ExitCode, String> {
    let path = path(
        "/analytics/log",
        &[
            ("tenant", args.tenant.clone()),
            ("route", args.route.clone()),
            ("service", args.service.clone()),
            ("status", args.status.map(|status| status.to_string())),
            ("slower", args.slower.clone()),
            ("user", args.user.clone()),
            ("session", args.session.clone()),
            ("trace", args.trace.clone()),
            ("limit", Some(args.limit.to_string())),
        ],
    );
    let answer = ask(&args.node, &path)?;
    if args.json {
        println!("{answer}");
        return Ok(ExitCode::SUCCESS);
    }
    let requests = list(&answer["requests"]);
    if requests.is_empty() {
        println!("No such request is in the log.");
    }
    requests.iter().for_each(|entry| println!("{}", log_line(entry)));
    if let Some(dropped @ 1..) = answer["dropped"].as_u64() {
        println!("… {dropped} more were too many to be kept");
    }
    Ok(ExitCode::SUCCESS)
}

/// A request on a line.
fn log_line(entry: &Json) -> String {
    let who = match (entry["tenant"].as_str(), entry["principal"].as_str()) {
        (Some(tenant), Some(principal)) => format!("{tenant}/{principal}"),
        _ => "-".into(),
    };
    let code = entry["code"].as_str().map(|code| format!(" {code}")).unwrap_or_default();
    format!(
        "{} {} {:>8} {} {} {} {} {who} {}{code}",
        moment(&entry["at"]),
        entry["status"],
        latency(&entry["latency_ms"]),
        word(&entry["method"]),
        word(&entry["path"]),
        word(&entry["route"]),
        word(&entry["instance"]),
        word(&entry["trace"]),
    )
}

fn notes(args: &NotesArgs) -> Result<ExitCode, String> {
    let path = path("/analytics/notes", &[("tenant", args.tenant.clone())]);
    let answer = ask(&args.node, &path)?;
    let notes = list(&answer["notes"]);
    if args.json {
        println!("{answer}");
    } else if notes.is_empty() {
        println!("Nothing was out of the ordinary in the last two hours.");
    } else {
        notes.iter().for_each(|note| print!("{}", note_line(note)));
    }
    Ok(ExitCode::SUCCESS)
}

/// A note on a line.
fn note_line(note: &Json) -> String {
    let until = match note["end"].is_null() {
        true => "and goes on".into(),
        false => format!("until {}", moment(&note["end"])),
    };
    let value = |name: &str| match word(&note["what"]) {
        "errors" => format!("{:.1} %", note[name].as_f64().unwrap_or_default() * 100.0),
        _ => latency(&note[name]),
    };
    format!(
        "{} of {} since {} {until}: up to {}, where {} is usual\n",
        word(&note["what"]),
        word(&note["route"]),
        moment(&note["begin"]),
        value("worst"),
        value("usual"),
    )
}

fn count(number: &Json) -> String {
    number.as_u64().map_or_else(|| "-".into(), |number| number.to_string())
}

fn rate(number: &Json) -> String {
    match number.as_f64() {
        Some(rate) if rate < 100.0 => format!("{rate:.2}"),
        Some(rate) => format!("{rate:.0}"),
        None => "-".into(),
    }
}

fn latency(millis: &Json) -> String {
    match millis.as_f64() {
        Some(millis) if millis < 10.0 => format!("{millis:.2}ms"),
        Some(millis) if millis < 10_000.0 => format!("{millis:.0}ms"),
        Some(millis) => format!("{:.1}s", millis / 1000.0),
        None => "-".into(),
    }
}

fn bytes(number: &Json) -> String {
    let Some(bytes) = number.as_u64() else { return "-".into() };
    let mut shown = bytes as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if shown < 1024.0 {
            return if unit == "B" { format!("{bytes}B") } else { format!("{shown:.1}{unit}") };
        }
        shown /= 1024.0;
    }
    format!("{shown:.1}TiB")
}

/// A moment of this clock's day, in UTC.
fn moment(millis: &Json) -> String {
    let millis = millis.as_u64().unwrap_or_default();
    let second = millis / 1000;
    let (hour, minute, second) = (second / 3600 % 24, second / 60 % 60, second % 60);
    format!("{hour:02}:{minute:02}:{second:02}.{:03}Z", millis % 1000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_report_is_a_table() {
        let figures = json!({
            "requests": 12_000, "rate": 3.333, "client_errors": 3, "server_errors": 0, "limited": 2,
            "bytes_in": 10, "bytes_out": 5_000_000, "latency_ms_p50": 1.234,
            "latency_ms_p95": 20.5, "latency_ms_p99": 12_345.0,
        });
        let mut route = figures.clone();
        route["route"] = "shop".into();
        route["service"] = "s".into();
        let report = json!({
            "range": "1h", "total": figures, "users": 7, "complete": false, "routes": [route],
            "notes": [{
                "route": "shop", "what": "errors", "begin": 3_600_000, "end": null, "usual": 0.01,
                "worst": 0.25,
            }],
        });
        let text = shown(&report, By::Route);
        for part in [
            "1h: 12000 requests, 3.33/s, 7 users",
            "The store is away",
            "shop s      12000      3.33        3        0        2       10B    4.8MiB   1.23ms",
            "errors of shop since 01:00:00.000Z and goes on: up to 25.0 %, where 1.0 % is usual",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert!(shown(&report, By::Realm).contains("There is nothing to show."));
    }

    #[test]
    fn a_request_is_a_line() {
        let entry = json!({
            "at": 1_700_000_000_007_u64, "status": 503, "latency_ms": 250.4, "method": "GET",
            "path": "/a?b=…", "route": "shop", "instance": null, "tenant": "acme",
            "principal": "ann", "trace": "00f067aa0ba902b7", "code": "overloaded",
        });
        let expected = "22:13:20.007Z 503    250ms GET /a?b=… shop - acme/ann 00f067aa0ba902b7 \
                        overloaded";
        assert_eq!(log_line(&entry), expected);
    }
}

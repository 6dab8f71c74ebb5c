//! `crosstown limits simulate`.

use crate::{cli::ConfigArgs, config::Config};
use clap::{Args, Subcommand};
use serde_json::json;
use std::{
    fs::File,
    io::{BufRead, BufReader, Read, stdin},
    path::{Path, PathBuf},
    process::ExitCode,
};
use traffic_cop::limit::{
    Named,
    simulate::{Comparison, Difference, MinuteReport, Recorded, Report, Simulation, SubjectReport},
};

/// Bytes of a line.
const LINE_MAX: u64 = 64 * 1024;

#[derive(Subcommand)]
pub(crate) enum LimitsCommand {
    /// Run recorded requests through the configured limits, in virtual time.
    Simulate(SimulateArgs),
}

#[derive(Args)]
pub(crate) struct SimulateArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Another configuration, whose limits are compared.
    #[arg(long, value_name = "FILE")]
    against: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// The requests, in order of time, one JSON object a line; `-` reads the standard input.
    #[arg(value_name = "TRAFFIC.jsonl")]
    traffic: PathBuf,
}

pub(crate) fn run(command: LimitsCommand) -> Result<ExitCode, String> {
    let LimitsCommand::Simulate(args) = command;
    let mut simulation = Simulation::new(args.config.load()?.limits);
    let mut against = match &args.against {
        Some(file) => {
            Some((Simulation::new(Config::load(Some(file))?.limits), Comparison::default()))
        }
        None => None,
    };
    each_line(&args.traffic, |line| {
        let recorded = Recorded::read(line)?;
        let admitted = simulation.take(&recorded)?;
        if let Some((others, comparison)) = &mut against {
            comparison.note(&recorded, admitted, others.take(&recorded)?);
        }
        Ok(())
    })?;
    let report = simulation.report();
    let against = against.map(|(others, comparison)| (others.report(), comparison.report()));
    if args.json {
        let mut whole = json!({ "report": report });
        if let Some((others, difference)) = &against {
            whole["against"] = json!(others);
            whole["difference"] = json!(difference);
        }
        println!("{whole}");
    } else {
        print(&report);
        if let (Some((others, difference)), Some(file)) = (&against, &args.against) {
            println!("\n--- by {} ---", file.display());
            print(others);
            print_difference(difference);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Reads a file line by line.
fn each_line(file: &Path, mut take: impl FnMut(&str) -> Result<(), String>) -> Result<(), String> {
    let name = file.display();
    let mut reader: Box<dyn BufRead> = match file.to_str() {
        Some("-") => Box::new(stdin().lock()),
        Some(_) | None => Box::new(BufReader::new(
            File::open(file).map_err(|error| format!("cannot read {name}: {error}"))?,
        )),
    };
    let mut line = String::new();
    for number in 1_u64.. {
        line.clear();
        let read = reader.by_ref().take(LINE_MAX + 1).read_line(&mut line);
        if read.map_err(|error| format!("{name}:{number}: {error}"))? == 0 {
            break;
        }
        let text = line.trim_end_matches(['\r', '\n']);
        let taken = match text.len() as u64 > LINE_MAX {
            true => Err(format!("a line is {LINE_MAX} bytes at most")),
            false => take(text),
        };
        taken.map_err(|why| format!("{name}:{number}: {why}"))?;
    }
    Ok(())
}

fn print(report: &Report) {
    let (Some(first), Some(last)) = (&report.first, &report.last) else {
        println!("There are no requests.");
        return;
    };
    println!("{first} to {last}: {} let in, {} refused", report.admitted, report.refused);
    println!("{:<20} {:<8} {:>10} {:>10} {:>10}", "limit", "mode", "requests", "let in", "refused");
    for limit in &report.limits {
        let mode = json!(limit.mode);
        println!(
            "{:<20} {:<8} {:>10} {:>10} {:>10}",
            limit.limit,
            mode.as_str().unwrap_or_default(),
            limit.requests,
            limit.admitted,
            limit.refused
        );
        let minute = |what: &str, minute: &Option<MinuteReport>| {
            if let Some(MinuteReport { minute, requests, refused }) = minute {
                println!("  {what} {minute}: {requests} requests, {refused} refused");
            }
        };
        minute("busiest minute", &limit.busiest);
        minute("most refused in", &limit.worst.clone().filter(|worst| worst.refused > 0));
        print_subjects("were refused", limit.subjects_refused, &limit.subjects);
    }
}

fn print_subjects(what: &str, all: u64, subjects: &[SubjectReport]) {
    if all == 0 {
        return;
    }
    println!("  {all} {what}, most of all:");
    for SubjectReport { subject, requests, refused } in subjects {
        println!("    {:<48} {refused} of {requests}", named(subject));
    }
}

fn print_difference(difference: &Difference) {
    let Difference { newly_refused, newly_admitted, callers_newly_refused, callers } = difference;
    println!(
        "\nRefused then and not now: {newly_refused}; let in then and not now: {newly_admitted}"
    );
    print_subjects("would be refused more", *callers_newly_refused, callers);
}

/// A subject in one line.
fn named(subject: &Named) -> String {
    let Some(members) = json!(subject).as_object().cloned() else { return String::new() };
    if members.is_empty() {
        return "everybody".into();
    }
    let one = |(name, value): (String, serde_json::Value)| match value.as_str() {
        Some(text) => format!("{name} {text}"),
        None => format!("{name} {value}"),
    };
    members.into_iter().map(one).collect::<Vec<_>>().join(", ")
}

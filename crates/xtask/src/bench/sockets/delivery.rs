//! What a delivered message costs.

use super::{
    Add,
    load::{Load, Shape},
    median,
    server::{Kind, Programs, Running},
};
use crate::process::{Cpu, cpu_of_tree};
use std::{array, time::Duration};

const CONNECTIONS: usize = 10_000;
const ROUNDS: usize = 7;
const SECONDS: u64 = 6;
/// Filling of a publication, in bytes.
const BYTES: usize = 64;
/// What share of its core the generator may be busy, if latencies shall be the server's.
const LOAD_BUSY_MAX: f64 = 0.8;
/// And what share of its core a server.
const BUSY_MAX: f64 = 0.95;

/// The namespace of `crosstown.toml` that writes to the disk.
const HOT: &str = "hot:";

/// One publication for 10,000 connections, twice a second.
pub(super) fn fanout(programs: &Programs, add: &mut Add<'_>) -> Result<u64, String> {
    let as_shipped = Kind::ALL.map(|kind| (kind, ""));
    compare(programs, add, "fanout", &as_shipped, 1, 2)
}

/// 1,000 rooms of 10, a publication a second in each.
pub(super) fn rooms(programs: &Programs, add: &mut Add<'_>) -> Result<u64, String> {
    let [ours, others @ ..] = Kind::ALL.map(|kind| (kind, ""));
    let subjects: Vec<_> = [ours, (Kind::Crosstown, HOT)].into_iter().chain(others).collect();
    compare(programs, add, "rooms", &subjects, 1_000, 1_000)
}

/// One server with its load.
struct Subject {
    name: String,
    load: Load,
    running: Running,
    rounds: Vec<Round>,
}

/// One window.
pub(super) struct Round {
    pub(super) cpu: Cpu,
    pub(super) load: Cpu,
    pub(super) published: u64,
    pub(super) delivered: u64,
    pub(super) errors: u64,
    pub(super) seconds: f64,
    pub(super) p50_us: f64,
    pub(super) p99_us: f64,
}

impl Round {
    fn user(&self) -> f64 {
        micros(self.cpu.user, self.delivered)
    }

    fn total(&self) -> f64 {
        micros(self.cpu.total(), self.delivered)
    }

    pub(super) fn busy(&self, cpu: Cpu) -> f64 {
        cpu.total().as_secs_f64() / self.seconds
    }
}

/// A figure of a window.
type Reading = fn(&Round) -> f64;
/// The CPU time that a figure is about.
type PartOf = fn(Cpu) -> Duration;

fn micros(time: Duration, of: u64) -> f64 {
    time.as_secs_f64() * 1e6 / of.max(1) as f64
}

/// Publishes `rate` times a second for a window.
///
/// # Errors
/// If the generator does not say what came of it.
pub(super) fn window(
    load: &mut Load,
    running: &Running,
    rate: u64,
    seconds: u64,
    bytes: usize,
) -> Result<Round, String> {
    let (server, driver) = (running.server.pid(), load.pid());
    let (cpu, load_cpu) = (cpu_of_tree(server), cpu_of_tree(driver));
    let said = load.ask(&format!("window {rate} {seconds} {bytes}"))?;
    let (cpu, load_cpu) = (cpu_of_tree(server).since(cpu), cpu_of_tree(driver).since(load_cpu));
    let count = |name: &str| said[name].as_u64().ok_or_else(|| format!("no `{name}`: {said}"));
    let (expected, delivered) = (count("expected")?, count("delivered")?);
    Ok(Round {
        cpu,
        load: load_cpu,
        published: count("published")?,
        delivered,
        errors: expected.abs_diff(delivered) + count("refused")? + count("lost")?,
        seconds: said["seconds"].as_f64().unwrap_or(f64::NAN),
        p50_us: count("p50_us")? as f64,
        p99_us: count("p99_us")? as f64,
    })
}

/// A [`window`] that counts: one in which neither side was too busy.
///
/// # Errors
/// If latencies would be those of a queue before the generator, or before the server.
pub(super) fn counted(
    load: &mut Load,
    running: &Running,
    rate: u64,
    seconds: u64,
    bytes: usize,
) -> Result<Round, String> {
    let round = window(load, running, rate, seconds, bytes)?;
    let name = running.kind.name();
    let sides = [("the generator", round.load, LOAD_BUSY_MAX), (name, round.cpu, BUSY_MAX)];
    for (who, cpu, most) in sides {
        if round.busy(cpu) > most {
            let (busy, most) = (round.busy(cpu) * 100.0, most * 100.0);
            return Err(format!(
                "{who} was busy for {busy:.0} % of a window with {name}; it may be {most:.0} %"
            ));
        }
    }
    Ok(round)
}

fn compare(
    programs: &Programs,
    add: &mut Add<'_>,
    part: &str,
    kinds: &[(Kind, &'static str)],
    rooms: usize,
    rate: u64,
) -> Result<u64, String> {
    let mut subjects = Vec::new();
    for &(kind, prefix) in kinds {
        let running = programs.start(kind)?;
        let shape = Shape { connections: CONNECTIONS, rooms, prefix, receive_buffer: 0 };
        let load = Load::sockets(programs, &running, shape)?;
        let name = format!("{}{}", kind.name(), if prefix == HOT { "-hot" } else { "" });
        subjects.push(Subject { name, load, running, rounds: Vec::new() });
    }
    for subject in &mut subjects {
        // Not counted: whatever is only done once.
        window(&mut subject.load, &subject.running, rate, 2, BYTES)?;
    }
    for _ in 0..ROUNDS {
        for subject in &mut subjects {
            let round = counted(&mut subject.load, &subject.running, rate, SECONDS, BYTES)?;
            subject.rounds.push(round);
        }
    }
    report(&subjects);
    let (ours, others): (Vec<_>, Vec<_>) =
        subjects.iter().partition(|subject| subject.running.kind == Kind::Crosstown);
    for ours in ours {
        let row = format!("{part}{}", ours.name.trim_start_matches(Kind::Crosstown.name()));
        let row = row.replace('-', "_");
        for theirs in &others {
            ratios(ours, theirs, &row, add);
        }
        add(&format!("user_cpu_us_per_message_{row}"), ours.median(Round::user));
        add(&format!("cpu_us_per_message_{row}"), ours.median(Round::total));
    }
    Ok(subjects.iter().flat_map(|subject| &subject.rounds).map(|round| round.errors).sum())
}

impl Subject {
    fn median(&self, of: Reading) -> f64 {
        median(self.rounds.iter().map(of))
    }

    fn sum(&self) -> (Cpu, Cpu, u64) {
        self.rounds.iter().fold(Default::default(), |(cpu, load, delivered), round| {
            (cpu.plus(round.cpu), load.plus(round.load), delivered + round.delivered)
        })
    }
}

fn report(subjects: &[Subject]) {
    println!(
        "{:<14} {:>9} {:>9} {:>6} {:>8} {:>8} {:>5} {:>9} {:>9} {:>5} {:>8} {:>8}   µs/message, \
         median of {ROUNDS} (range): user; in all",
        "",
        "published",
        "delivered",
        "errors",
        "user",
        "system",
        "busy",
        "load user",
        "system",
        "busy",
        "p50 ms",
        "p99 ms"
    );
    for subject in subjects {
        let (cpu, load, delivered) = subject.sum();
        let total = |of: fn(&Round) -> u64| subject.rounds.iter().map(of).sum::<u64>();
        let seconds: f64 = subject.rounds.iter().map(|round| round.seconds).sum();
        let busy = |cpu: Cpu| 100.0 * cpu.total().as_secs_f64() / seconds;
        let range = |of: Reading| {
            let all: [f64; ROUNDS] = array::from_fn(|at| of(&subject.rounds[at]));
            let (least, most) = (
                all.iter().copied().fold(f64::MAX, f64::min),
                all.iter().copied().fold(0.0, f64::max),
            );
            format!("{:.2} ({least:.2} to {most:.2})", subject.median(of))
        };
        println!(
            "{:<14} {:>9} {delivered:>9} {:>6} {:>7.2}s {:>7.2}s {:>4.0}% {:>8.2}s {:>8.2}s {:>4.0}% \
             {:>8.1} {:>8.1}   {}; {}",
            subject.name,
            total(|round| round.published),
            total(|round| round.errors),
            cpu.user.as_secs_f64(),
            cpu.system.as_secs_f64(),
            busy(cpu),
            load.user.as_secs_f64(),
            load.system.as_secs_f64(),
            busy(load),
            subject.median(|round| round.p50_us) / 1_000.0,
            subject.median(|round| round.p99_us) / 1_000.0,
            range(Round::user),
            range(Round::total),
        );
    }
}

/// The ratio of the medians, which is held against the bound, and two more readings.
fn ratios(ours: &Subject, theirs: &Subject, part: &str, add: &mut Add<'_>) {
    let whose = &theirs.name;
    let readings: [(&str, Reading, PartOf); 2] = [
        ("user_cpu_per_message", Round::user, |cpu| cpu.user),
        ("cpu_per_message", Round::total, Cpu::total),
    ];
    for (what, each, time) in readings {
        let of_medians = ours.median(each) / theirs.median(each);
        let of_all = |subject: &Subject| {
            let (cpu, _, delivered) = subject.sum();
            micros(time(cpu), delivered)
        };
        let of_totals = of_all(ours) / of_all(theirs);
        let pairs = ours.rounds.iter().zip(&theirs.rounds);
        let of_pairs = median(pairs.map(|(ours, theirs)| each(ours) / each(theirs)));
        println!(
            "{} {what} vs {whose}: {of_medians:.3}; ratio of totals {of_totals:.3}, median of ratios \
             {of_pairs:.3}",
            ours.name
        );
        add(&format!("{what}_vs_{whose}_{part}"), of_medians);
    }
}

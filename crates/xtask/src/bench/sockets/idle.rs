//! What an idle connection costs in memory: its socket, its session and two subscriptions.

use super::{
    Add,
    load::{Load, Shape},
    server::{Kind, Programs},
};
use crate::process::{cpu_of_tree, resident};
use std::{thread::sleep, time::Duration};

/// Longer than the time between two pings.
const HOLD_SECONDS: u64 = 30;
/// From the start of a server to its first connections, and from their end until its memory is
/// read for the first time.
const SETTLE: Duration = Duration::from_secs(2);
/// Connections that come and go before that: the first ones also bring in the code that serves
/// them, and the first pages of the allocator, once.
const FIRST: usize = 200;

/// Whose connections, how many, and the figure's name.
const ROWS: [(Kind, usize, &str); 5] = [
    (Kind::Crosstown, 1_000, "kib_per_idle_connection_1000"),
    (Kind::Crosstown, 10_000, "kib_per_idle_connection_10000"),
    (Kind::Crosstown, 19_000, "kib_per_idle_connection_19000"),
    (Kind::SocketIo, 10_000, "kib_per_idle_connection_socketio"),
    (Kind::Sockudo, 10_000, "kib_per_idle_connection_sockudo"),
];

/// One server's connections.
struct Row {
    kib: f64,
    lost: u64,
}

pub(super) fn run(programs: &Programs, add: &mut Add<'_>) -> Result<u64, String> {
    println!(
        "{:<10} {:>11} {:>11} {:>11} {:>11} {:>9} {:>9} {:>9} {:>6} {:>5}",
        "",
        "connections",
        "MiB before",
        "MiB open",
        "MiB at end",
        "KiB each",
        "user µs",
        "system",
        "pings",
        "lost"
    );
    let mut rows = Vec::new();
    for (kind, connections, name) in ROWS {
        let row = row(programs, kind, connections)?;
        add(name, row.kib);
        rows.push((kind, connections, row));
    }
    let of = |kind: Kind| {
        rows.iter().filter(move |(whose, ..)| *whose == kind).map(|(_, count, row)| (count, row))
    };
    let worst = of(Kind::Crosstown).map(|(_, row)| row.kib).fold(0.0, f64::max);
    add("kib_per_idle_connection", worst);
    let ten = |kind| of(kind).find(|(count, _)| **count == 10_000).map_or(f64::NAN, |(_, r)| r.kib);
    add("memory_vs_socketio", ten(Kind::Crosstown) / ten(Kind::SocketIo));
    add("memory_vs_sockudo", ten(Kind::Crosstown) / ten(Kind::Sockudo));
    Ok(rows.iter().map(|(_, _, row)| row.lost).sum())
}

fn row(programs: &Programs, kind: Kind, connections: usize) -> Result<Row, String> {
    let running = programs.start(kind)?;
    let pid = running.server.pid();
    let shape = |connections| Shape { connections, rooms: 0, prefix: "", receive_buffer: 0 };
    sleep(SETTLE);
    drop(Load::sockets(programs, &running, shape(FIRST))?);
    sleep(SETTLE);
    let before = resident(pid)?;
    let mut load = Load::sockets(programs, &running, shape(connections))?;
    let (open, cpu_open) = (resident(pid)?, cpu_of_tree(pid));
    let said = load.ask(&format!("hold {HOLD_SECONDS}"))?;
    let (end, cpu) = (resident(pid)?, cpu_of_tree(pid).since(cpu_open));
    let mib = |bytes: u64| bytes as f64 / 1_048_576.0;
    let kib = end.saturating_sub(before) as f64 / 1024.0 / connections as f64;
    let lost = said["lost"].as_u64().unwrap_or(connections as u64);
    // Of CPU, while idle, for each connection and second.
    let each = |time: Duration| time.as_secs_f64() * 1e6 / connections as f64 / HOLD_SECONDS as f64;
    println!(
        "{:<10} {connections:>11} {:>11.1} {:>11.1} {:>11.1} {kib:>9.2} {:>9.2} {:>9.2} {:>6} {lost:>5}",
        kind.name(),
        mib(before),
        mib(open),
        mib(end),
        each(cpu.user),
        each(cpu.system),
        said["pings"],
    );
    Ok(Row { kib, lost })
}

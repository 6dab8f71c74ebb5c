//! What a node takes with many routes and many live buckets of a limit.

use super::{Ground, ask::Client, ours::Node, report::Report, routes};
use crate::{bench::numbers::Interval, process::resident};
use std::{
    ops::Range,
    time::{Duration, Instant},
};

const ROUTES: usize = 1_000;
const BUCKETS: usize = 100_000;
const CLIENTS: usize = 16;
/// Until what cores have counted is added up.
const SETTLING: Duration = Duration::from_secs(3);
const BAR_MB: f64 = 60.0;

/// Asks once from each of many addresses, by all of the routes in turn.
pub(super) fn run(ground: &Ground, report: &mut Report) -> Result<(), String> {
    let table = [("ROUTES", routes::table(ROUTES))];
    let node = Node::start(ground, None, "memory", "gateway/memory.toml", &table)?;
    let megabytes = || resident(node.server.pid()).map(|bytes| bytes as f64 / 1e6);
    let (idle, began) = (megabytes()?, Instant::now());
    let each = BUCKETS / CLIENTS;
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| scope.spawn(move || drive(node.port, client * each..(client + 1) * each)))
            .collect();
        let ended = clients.into_iter().map(|client| client.join().map_err(|_| "a client")?);
        ended.collect::<Result<Vec<()>, String>>()
    })?;
    let took = began.elapsed();
    std::thread::sleep(SETTLING);
    let (full, live) = (megabytes()?, buckets(&node)?);
    if live < BUCKETS {
        return Err(format!("there are {live} buckets, not {BUCKETS}"));
    }
    let name = "memory_mb_1000_routes_100k_buckets";
    let held = report.hold(name, Interval { low: full, high: full }, BAR_MB);
    println!(
        "\n{ROUTES} routes and {live} live buckets: {full:.1} MB resident ({idle:.1} MB before \
         them, which came in {:.0} s)   {held}",
        took.as_secs_f64()
    );
    report.add(name, full);
    report.add("memory_mb_1000_routes_idle", idle);
    Ok(())
}

/// One request from each of these addresses, on one connection.
fn drive(port: u16, addresses: Range<usize>) -> Result<(), String> {
    let mut client = Client::open(port)?;
    for address in addresses {
        let [_, a, b, c] = (address as u32).to_be_bytes();
        let path = routes::path(address % ROUTES);
        let (status, body) =
            client.ask("GET", &path, &format!("X-Forwarded-For: 10.{a}.{b}.{c}"))?;
        if status != 200 {
            return Err(format!("{path}: {status} {body}"));
        }
    }
    Ok(())
}

/// How many the node says it has.
fn buckets(node: &Node) -> Result<usize, String> {
    let (_, metrics) = Client::open(node.admin)?.ask("GET", "/metrics", &node.operator()?)?;
    let mut lines = metrics.lines();
    let count = lines.find_map(|line| line.strip_prefix("crosstown_limit_buckets "));
    count.and_then(|count| count.parse().ok()).ok_or_else(|| "no count of buckets".into())
}

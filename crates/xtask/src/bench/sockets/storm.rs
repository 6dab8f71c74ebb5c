//! All connections are cut and come back at once, while publications go on.

use super::{
    Add,
    load::{Load, Shape},
    median,
    server::{Kind, Programs},
};
use crate::process::cpu_of_tree;

const ROUNDS: usize = 5;
/// Publications a second, to all rooms together.
const RATE: &str = "500";
const AWAY_SECONDS: &str = "3";

pub(super) fn run(programs: &Programs, add: &mut Add<'_>) -> Result<u64, String> {
    let running = programs.start(Kind::Crosstown)?;
    let shape = Shape { connections: 10_000, rooms: 1_000, prefix: "", receive_buffer: 0 };
    let rounds = ROUNDS.to_string();
    let args = ["--rate", RATE, "--away", AWAY_SECONDS, "--rounds", &rounds];
    let mut load = Load::storm(programs, &running, shape, &args)?;
    println!(
        "{:>11} {:>12} {:>12} {:>9} {:>9} {:>5} {:>8} {:>11} {:>7} {:>7} {:>8} {:>8} {:>9} {:>8}",
        "connections",
        "half whole",
        "all whole",
        "published",
        "caught up",
        "lost",
        "repeated",
        "unrecovered",
        "retries",
        "refused",
        "user",
        "system",
        "load user",
        "system"
    );
    let (mut last, mut lost, mut failed) = (Vec::new(), 0, 0);
    for _ in 0..ROUNDS {
        let (cpu, load_cpu) = (cpu_of_tree(running.server.pid()), cpu_of_tree(load.pid()));
        let said = load.said()?;
        let cpu = cpu_of_tree(running.server.pid()).since(cpu);
        let load_cpu = cpu_of_tree(load.pid()).since(load_cpu);
        let count = |name: &str| said[name].as_u64().ok_or_else(|| format!("no `{name}`: {said}"));
        println!(
            "{:>11} {:>9} ms {:>9} ms {:>9} {:>9} {:>5} {:>8} {:>11} {:>7} {:>7} {:>7.2}s {:>7.2}s \
             {:>8.2}s {:>7.2}s",
            count("connections")?,
            count("whole_ms_p50")?,
            count("whole_ms_last")?,
            count("published")?,
            count("caught_up")?,
            count("lost")?,
            count("repeated")?,
            count("unrecovered")?,
            count("retries")?,
            count("refused")?,
            cpu.user.as_secs_f64(),
            cpu.system.as_secs_f64(),
            load_cpu.user.as_secs_f64(),
            load_cpu.system.as_secs_f64(),
        );
        last.push(count("whole_ms_last")? as f64);
        lost += count("lost")? + count("unrecovered")?;
        failed += count("repeated")? + count("refused")?;
    }
    add("reconnect_storm_whole_ms", median(last.into_iter()));
    add("reconnect_storm_lost", lost as f64);
    Ok(lost + failed)
}

//! Whether a hundredth of the readers, that read no more, make the others wait.

use super::{
    Add,
    delivery::{Round, counted, window},
    load::{Load, Shape},
    median,
    server::{Kind, Programs},
};

const ROUNDS: usize = 7;
const SECONDS: u64 = 8;
/// Publications a second, to all.
const RATE: u64 = 40;
/// Filling of a publication: enough that in a window the kernel's buffers are filled for whoever
/// reads no more, and then the server's queue, so that it closes the connection.
const BYTES: usize = 8 * 1024;
const CONNECTIONS: usize = 500;
const STALLED: usize = CONNECTIONS / 100;

pub(super) fn run(programs: &Programs, add: &mut Add<'_>) -> Result<u64, String> {
    let running = programs.start(Kind::Crosstown)?;
    let shape = Shape { connections: CONNECTIONS, rooms: 1, prefix: "", receive_buffer: 32 * 1024 };
    let mut load = Load::sockets(programs, &running, shape)?;
    window(&mut load, &running, RATE, 2, BYTES)?;
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        without.push(counted(&mut load, &running, RATE, SECONDS, BYTES)?);
        load.ask(&format!("stall {STALLED}"))?;
        with.push(counted(&mut load, &running, RATE, SECONDS, BYTES)?);
        load.ask("restore")?;
    }
    println!(
        "{:<10} {:>9} {:>6} {:>8} {:>8} {:>9} {:>9}   p99 of the others, ms, each window",
        "", "delivered", "errors", "user", "system", "p50 ms", "p99 ms"
    );
    report("all read", &without);
    report(&format!("{STALLED} stalled"), &with);
    let p99 = |rounds: &[Round]| median(rounds.iter().map(|round| round.p99_us));
    let of_medians = p99(&with) / p99(&without);
    let pairs = with.iter().zip(&without);
    let of_pairs = median(pairs.map(|(with, without)| with.p99_us / without.p99_us));
    println!("p99 with by p99 without: {of_medians:.3}; median of ratios {of_pairs:.3}");
    add("stalled_readers_p99_ratio", of_medians);
    add("stalled_readers_p99_median_of_ratios", of_pairs);
    Ok(without.iter().chain(&with).map(|round| round.errors).sum())
}

fn report(name: &str, rounds: &[Round]) {
    let total = |of: fn(&Round) -> u64| rounds.iter().map(of).sum::<u64>();
    let seconds = |of: fn(&Round) -> f64| rounds.iter().map(of).sum::<f64>();
    let all: Vec<_> = rounds.iter().map(|round| format!("{:.1}", round.p99_us / 1e3)).collect();
    println!(
        "{name:<10} {:>9} {:>6} {:>7.2}s {:>7.2}s {:>9.1} {:>9.1}   {}",
        total(|round| round.delivered),
        total(|round| round.errors),
        seconds(|round| round.cpu.user.as_secs_f64()),
        seconds(|round| round.cpu.system.as_secs_f64()),
        median(rounds.iter().map(|round| round.p50_us)) / 1e3,
        median(rounds.iter().map(|round| round.p99_us)) / 1e3,
        all.join(" "),
    );
}

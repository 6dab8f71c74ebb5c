//! CPU per request, against nginx in the same run; see `bench/gateway/README.md`.

use crate::{
    bench::{filled, folder, print_circumstances, release, write},
    command::output,
    install,
    process::{Cpu, Server, cpu_of_tree, free_ports},
};
use serde_json::json;
use std::{path::Path, process::Command, time::Duration};

const ROUNDS: usize = 9;
const SECONDS: u64 = 4;
const CONNECTIONS: u64 = 64;

/// One of the four that are compared.
struct Subject<'a> {
    name: &'static str,
    server: &'a Server,
    url: String,
    key: Option<&'a str>,
    rounds: Vec<Round>,
}

struct Round {
    cpu: Cpu,
    requests: u64,
    /// Answers other than 2xx and broken connections, as wrk counted them.
    errors: u64,
}

impl Round {
    fn micros(&self) -> f64 {
        self.cpu.total().as_micros() as f64 / self.requests as f64
    }
}

pub(super) fn run() -> Result<(), String> {
    install::debian(&["nginx-light", "wrk", "util-linux", "curl"])?;
    let crosstown = release("crosstown")?;
    print_circumstances();
    println!("{}", output("sh", &["-c", "nginx -v 2>&1; wrk -v 2>&1 | head -1"])?.trim());
    let folder = folder("gateway")?;
    let [backend, plain, loaded, edge, admin] = free_ports()?;

    let config = folder.join("crosstown.toml");
    let mut values = vec![
        ("DIR", folder.display().to_string()),
        ("BACKEND", backend.to_string()),
        ("ADMIN", admin.to_string()),
        ("BODY", "x".repeat(1024)),
        ("PORT", edge.to_string()),
    ];
    write(&config, &filled("gateway/crosstown.toml", &values)?)?;
    let pinned = |core: &str, program: &Path, args: &[&str], port: u16, log: &str| {
        let log = std::fs::File::create(folder.join(log)).map_err(|error| error.to_string())?;
        let mut command = Command::new("taskset");
        command.arg("-c").arg(core).arg(program).args(args).stderr(log);
        Server::start(&mut command, port)
    };
    let serve = ["serve", "--config", &config.to_string_lossy()];
    let ours = pinned("0", &crosstown, &serve, edge, "crosstown.log")?;
    let key = make_key(&crosstown, &config)?;
    values.push(("KEY", key.clone()));

    let mut nginx = |name: &str, core: &str, port: u16| {
        if let Some(value) = values.iter_mut().find(|(name, _)| *name == "PORT") {
            value.1 = port.to_string();
        }
        let file = folder.join(format!("{name}.conf"));
        write(&file, &filled(&format!("gateway/{name}.conf"), &values)?)?;
        let file = file.to_string_lossy().into_owned();
        pinned(core, Path::new("nginx"), &["-c", &file], port, &format!("{name}.log"))
    };
    let _backend = nginx("backend", "1", backend)?;
    let (nginx_plain, nginx_loaded) = (nginx("plain", "0", plain)?, nginx("loaded", "0", loaded)?);

    let subject = |name, server, port: u16, path: &str, key| Subject {
        name,
        server,
        url: format!("http://127.0.0.1:{port}{path}"),
        key,
        rounds: Vec::new(),
    };
    let mut subjects = [
        subject("nginx plain", &nginx_plain, plain, "/plain", None),
        subject("crosstown plain", &ours, edge, "/plain", None),
        subject("nginx loaded", &nginx_loaded, loaded, "/loaded", Some(key.as_str())),
        subject("crosstown loaded", &ours, edge, "/loaded", Some(key.as_str())),
    ];
    for subject in &mut subjects {
        load(subject, backend, 1)?;
        subject.rounds.clear();
    }
    for _ in 0..ROUNDS {
        for subject in &mut subjects {
            load(subject, backend, SECONDS)?;
        }
    }
    report(&subjects)
}

pub(super) fn make_key(crosstown: &Path, config: &Path) -> Result<String, String> {
    let made = Command::new(crosstown)
        .args(["api-key", "create", "--tenant", "acme", "--principal", "bench", "--config"])
        .arg(config)
        .output()
        .map_err(|error| format!("api-key: {error}"))?;
    let key = String::from_utf8_lossy(&made.stdout).trim().to_owned();
    if key.is_empty() { Err(String::from_utf8_lossy(&made.stderr).into_owned()) } else { Ok(key) }
}

fn load(subject: &mut Subject<'_>, backend: u16, seconds: u64) -> Result<(), String> {
    let (counted, cpu) = (counted(backend)?, cpu_of_tree(subject.server.pid()));
    let (threads, duration) = (CONNECTIONS.to_string(), format!("{seconds}s"));
    let mut args = vec!["-c", "1", "wrk", "-t1", "-c", &threads, "-d", &duration];
    let header = subject.key.map(|key| format!("X-API-Key: {key}"));
    if let Some(header) = &header {
        args.extend(["-H", header]);
    }
    args.push(&subject.url);
    let said = output("taskset", &args)?;
    // What was in flight when wrk stopped is answered within this time.
    std::thread::sleep(Duration::from_millis(50));
    let cpu = cpu_of_tree(subject.server.pid()).since(cpu);
    // The question for the count is a request itself.
    let requests = self::counted(backend)? - counted - 1;
    subject.rounds.push(Round { cpu, requests, errors: errors(&said) });
    Ok(())
}

/// `Non-2xx or 3xx responses: 5` and `Socket errors: connect 0, read 1, write 0, timeout 2`.
fn errors(said: &str) -> u64 {
    let lines = said.lines().map(str::trim);
    let told = lines.filter_map(|line| {
        line.strip_prefix("Non-2xx or 3xx responses:").or(line.strip_prefix("Socket errors:"))
    });
    told.flat_map(str::split_whitespace)
        .filter_map(|word| word.trim_end_matches(',').parse::<u64>().ok())
        .sum()
}

/// How many requests the backend has answered, this question included.
pub(super) fn counted(backend: u16) -> Result<u64, String> {
    let status = output("curl", &["-fs", &format!("http://127.0.0.1:{backend}/count")])?;
    let line = status.lines().nth(2).unwrap_or_default();
    let count = line.split_whitespace().nth(2).and_then(|count| count.parse().ok());
    count.ok_or_else(|| format!("the backend does not count: {status}"))
}

fn report(subjects: &[Subject<'_>]) -> Result<(), String> {
    println!(
        "\n{:<18} {:>10} {:>9} {:>9} {:>8}   µs/request, median (range)",
        "", "requests", "user", "system", "errors"
    );
    let mut medians = Vec::new();
    for subject in subjects {
        let mut micros: Vec<f64> = subject.rounds.iter().map(Round::micros).collect();
        micros.sort_by(f64::total_cmp);
        let requests: u64 = subject.rounds.iter().map(|round| round.requests).sum();
        let errors: u64 = subject.rounds.iter().map(|round| round.errors).sum();
        let user: Duration = subject.rounds.iter().map(|round| round.cpu.user).sum();
        let system: Duration = subject.rounds.iter().map(|round| round.cpu.system).sum();
        let median = micros[micros.len() / 2];
        println!(
            "{:<18} {requests:>10} {:>8.2}s {:>8.2}s {:>8}   {median:.1} ({:.1} to {:.1})",
            subject.name,
            user.as_secs_f64(),
            system.as_secs_f64(),
            errors,
            micros[0],
            micros[micros.len() - 1]
        );
        medians.push(median);
    }
    let round = |number: f64| (number * 1000.0).round() / 1000.0;
    let [nginx_plain, plain, nginx_loaded, loaded] = subjects else {
        return Err("four are compared".into());
    };
    println!(
        "{}",
        json!({
            "cpu_per_request_vs_nginx_plain": round(medians[1] / medians[0]),
            "cpu_per_request_vs_nginx_loaded": round(medians[3] / medians[2]),
            "ratio_of_totals_plain": round(of_totals(plain, nginx_plain)),
            "ratio_of_totals_loaded": round(of_totals(loaded, nginx_loaded)),
            "median_of_ratios_plain": round(of_pairs(plain, nginx_plain)),
            "median_of_ratios_loaded": round(of_pairs(loaded, nginx_loaded)),
            "cpu_us_per_request_nginx_plain": round(medians[0]),
            "cpu_us_per_request_plain": round(medians[1]),
            "cpu_us_per_request_nginx_loaded": round(medians[2]),
            "cpu_us_per_request_loaded": round(medians[3]),
        })
    );
    let failed: u64 = subjects.iter().flat_map(|s| &s.rounds).map(|round| round.errors).sum();
    if failed == 0 { Ok(()) } else { Err(format!("{failed} requests failed")) }
}

/// All CPU over all requests, ours by theirs.
fn of_totals(ours: &Subject<'_>, theirs: &Subject<'_>) -> f64 {
    let each = |subject: &Subject<'_>| {
        let cpu: Duration = subject.rounds.iter().map(|round| round.cpu.total()).sum();
        let requests: u64 = subject.rounds.iter().map(|round| round.requests).sum();
        cpu.as_secs_f64() / requests as f64
    };
    each(ours) / each(theirs)
}

/// The median of the rounds' ratios: each compares two runs that stood beside each other.
fn of_pairs(ours: &Subject<'_>, theirs: &Subject<'_>) -> f64 {
    let pairs = ours.rounds.iter().zip(&theirs.rounds);
    let mut ratios: Vec<f64> = pairs.map(|(a, b)| a.micros() / b.micros()).collect();
    ratios.sort_by(f64::total_cmp);
    ratios[ratios.len() / 2]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_counted() {
        let clean = "  100 requests in 1.00s, 1MB read\nRequests/sec: 100.00\n";
        assert_eq!(errors(clean), 0);
        let broken = "  Socket errors: connect 0, read 1, write 0, timeout 2\n\
            \x20 Non-2xx or 3xx responses: 5\n";
        assert_eq!(errors(broken), 8);
    }
}

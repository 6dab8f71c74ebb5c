//! What an idle connection costs in memory: its socket, its session and two subscriptions.

use crate::{
    bench::{filled, folder, print_circumstances, release, write},
    process::{Server, cpu_of_tree, free_ports, resident},
};
use serde_json::{Value as Json, json};
use std::{
    io::{BufRead, BufReader, Write},
    process::{Command, Stdio},
};

const CONNECTIONS: u64 = 10_000;
const HOLD_SECONDS: u64 = 60;

pub(super) fn run() -> Result<(), String> {
    let (crosstown, loadgen) = (release("crosstown")?, release("loadgen")?);
    print_circumstances();
    let folder = folder("sockets")?;
    let [edge, admin] = free_ports()?;
    let values = [
        ("EDGE", edge.to_string()),
        ("ADMIN", admin.to_string()),
        ("DATA", folder.join("data").display().to_string()),
    ];
    let config = folder.join("crosstown.toml");
    write(&config, &filled("sockets/crosstown.toml", &values)?)?;
    let serve = ["serve".as_ref(), "--config".as_ref(), config.as_os_str()];
    let log = std::fs::File::create(folder.join("log")).map_err(|error| error.to_string())?;
    let server = Server::start(Command::new(&crosstown).args(serve).stderr(log), edge)?;

    let tokens = Command::new(&crosstown)
        .args(["token", "--user", "load", "--tenant", "bench", "--ttl", "1h"])
        .args(["--count", &CONNECTIONS.to_string(), "--config"])
        .arg(&config)
        .output()
        .map_err(|error| format!("tokens: {error}"))?;
    if !tokens.status.success() {
        return Err(String::from_utf8_lossy(&tokens.stderr).into_owned());
    }
    let (before, cpu_before) = (resident(server.pid())?, cpu_of_tree(server.pid()));
    let mut load = Command::new(loadgen)
        .args(["sockets", "--user", "load", "--url", &format!("http://127.0.0.1:{edge}")])
        .args(["--hold", &HOLD_SECONDS.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("loadgen: {error}"))?;
    let mut input = load.stdin.take().ok_or("loadgen takes no input")?;
    input.write_all(&tokens.stdout).map_err(|error| format!("loadgen: {error}"))?;
    drop(input);
    let mut lines = BufReader::new(load.stdout.take().ok_or("loadgen says nothing")?).lines();
    let mut said = || -> Result<Json, String> {
        let line = lines.next().ok_or("loadgen ended early")?.map_err(|error| error.to_string())?;
        serde_json::from_str(&line).map_err(|error| format!("{line}: {error}"))
    };
    let open = said()?["open"].as_u64().unwrap_or(0);
    let (at_open, cpu_open) = (resident(server.pid())?, cpu_of_tree(server.pid()));
    let end = said()?;
    let (after, cpu_after) = (resident(server.pid())?, cpu_of_tree(server.pid()));
    let lost = end["lost"].as_u64().unwrap_or(CONNECTIONS);
    load.wait().map_err(|error| error.to_string())?;

    let kib = |bytes: u64| (bytes.saturating_sub(before)) as f64 / 1024.0 / open.max(1) as f64;
    let idle = cpu_after.since(cpu_open);
    let opening = cpu_open.since(cpu_before);
    let idle_micros = idle.total().as_micros() as f64 / open.max(1) as f64 / HOLD_SECONDS as f64;
    println!("connections            {open}, each with its token, session and two subscriptions");
    println!("memory before          {:.1} MiB", before as f64 / 1_048_576.0);
    println!(
        "memory, all open       {:.1} MiB ({:.2} KiB each)",
        at_open as f64 / 1_048_576.0,
        kib(at_open)
    );
    println!(
        "memory after {HOLD_SECONDS} s      {:.1} MiB ({:.2} KiB each)",
        after as f64 / 1_048_576.0,
        kib(after)
    );
    println!("CPU to open            {:?} user, {:?} system", opening.user, opening.system);
    println!(
        "CPU while idle         {:?} user, {:?} system ({idle_micros:.2} µs a connection and second)",
        idle.user, idle.system
    );
    println!("pings answered         {}, connections lost {lost}", end["pings"]);
    println!(
        "{}",
        json!({
            "connections": open,
            "lost": lost,
            "kib_per_idle_connection": (kib(after) * 100.0).round() / 100.0,
            "idle_cpu_us_per_connection_second": (idle_micros * 100.0).round() / 100.0,
        })
    );
    if lost == 0 && open == CONNECTIONS {
        Ok(())
    } else {
        Err(format!("{lost} connections were lost"))
    }
}

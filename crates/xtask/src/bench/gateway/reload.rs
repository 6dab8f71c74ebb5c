//! How long a reload takes with many routes, and whether an open socket notices.

use super::{ask::Client, ours::Node, report::Report};
use crate::bench::{
    numbers::{Interval, median},
    write,
};
use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

const RELOADS: usize = 11;
const BAR_MS: f64 = 100.0;
/// How long an echo may take before the socket counts as broken.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two echoes.
const PACE: Duration = Duration::from_millis(1);
/// A path that is a route's in every other configuration.
const COMING_AND_GOING: &str = "/coming-and-going";

/// What an open socket saw.
struct Socket {
    echoes: usize,
    longest: Duration,
}

/// Reloads `node` again and again, each time with another table of `routes` routes.
pub(super) fn run(node: &Node, routes: usize, report: &mut Report) -> Result<(), String> {
    let without = std::fs::read_to_string(&node.config).map_err(|error| error.to_string())?;
    let with = format!(
        "{without}\n[[routes]]\nname = \"more\"\nservice = \"origin\"\nauth = \"none\"\n\
         path = \"{COMING_AND_GOING}\"\n"
    );
    let over = AtomicBool::new(false);
    let (taken, socket) = std::thread::scope(|scope| {
        let socket = scope.spawn(|| echo(node.port, &over));
        let taken = reloads(node, &with, &without);
        over.store(true, Ordering::Relaxed);
        let socket = socket.join().map_err(|_| "the socket's thread".to_owned())?;
        Ok::<_, String>((taken?, socket.map_err(|error| format!("the open socket: {error}"))?))
    })?;
    let name = format!("reload_ms_{routes}_routes");
    let interval = Interval::of_mean(&taken);
    let held = report.hold(&name, interval, BAR_MS);
    let (middle, most) = (median(taken.iter().copied()), taken.iter().copied().fold(0.0, f64::max));
    println!(
        "\na reload of {routes} routes: {middle:.1} ms (median of {RELOADS}; at most {most:.1}), \
         95 % interval {:.1} to {:.1} ms   {held}\nan open socket meanwhile: {} echoes, none \
         lost, the longest took {:.1} ms",
        interval.low,
        interval.high,
        socket.echoes,
        socket.longest.as_secs_f64() * 1e3
    );
    report.add(&name, middle);
    report.add(&format!("reload_echo_ms_max_{routes}_routes"), socket.longest.as_secs_f64() * 1e3);
    Ok(())
}

/// What each reload took, in milliseconds, until the node said that it was done.
fn reloads(node: &Node, with: &str, without: &str) -> Result<Vec<f64>, String> {
    let (mut admin, operator) = (Client::open(node.admin)?, node.operator()?);
    let mut edge = Client::open(node.port)?;
    let mut taken = Vec::new();
    for turn in 0..RELOADS {
        let is_there = turn % 2 == 0;
        write(&node.config, if is_there { with } else { without })?;
        let began = Instant::now();
        let (status, said) = admin.ask("POST", "/reload", &operator)?;
        taken.push(began.elapsed().as_secs_f64() * 1e3);
        if status != 200 {
            return Err(format!("the reload was answered {status}: {said}"));
        }
        let (status, _) = edge.ask("GET", COMING_AND_GOING, "Accept: */*")?;
        if (status == 200) != is_there {
            return Err(format!("after the reload {COMING_AND_GOING} is answered {status}"));
        }
    }
    Ok(taken)
}

/// Sends numbers over a socket through the node, and awaits each of them back.
fn echo(port: u16, over: &AtomicBool) -> io::Result<Socket> {
    let mut stream = BufReader::new(TcpStream::connect(("127.0.0.1", port))?);
    stream.get_ref().set_nodelay(true)?;
    stream.get_ref().set_read_timeout(Some(PATIENCE))?;
    let opening = "GET /socket HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    stream.get_mut().write_all(opening.as_bytes())?;
    let status = head(&mut stream)?;
    if !status.contains(" 101 ") {
        return Err(io::Error::other(format!("not opened: {status}")));
    }
    let mut socket = Socket { echoes: 0, longest: Duration::ZERO };
    while !over.load(Ordering::Relaxed) {
        let (sent, began) = ((socket.echoes as u64).to_be_bytes(), Instant::now());
        stream.get_mut().write_all(&sent)?;
        let mut back = [0; 8];
        stream.read_exact(&mut back)?;
        if back != sent {
            return Err(io::Error::other("another number came back"));
        }
        socket.longest = socket.longest.max(began.elapsed());
        socket.echoes += 1;
        std::thread::sleep(PACE);
    }
    Ok(socket)
}

/// A service that takes one socket, and sends back what comes.
pub(super) fn service() -> io::Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    std::thread::spawn(move || -> io::Result<u64> {
        let mut stream = BufReader::new(listener.accept()?.0);
        stream.get_ref().set_nodelay(true)?;
        head(&mut stream)?;
        let answer = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\
            Upgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
        stream.get_mut().write_all(answer.as_bytes())?;
        let mut back = stream.get_ref().try_clone()?;
        io::copy(&mut stream, &mut back)
    });
    Ok(port)
}

/// Reads to the end of a head, and answers its first line.
fn head(stream: &mut BufReader<TcpStream>) -> io::Result<String> {
    let (mut first, mut line) = (String::new(), String::new());
    stream.read_line(&mut first)?;
    while line != "\r\n" {
        line.clear();
        if stream.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(first)
}

//! Clients that mean harm: slow ones, and floods of HTTP/2 frames. Others are served, and the node
//! stays small.
//!
//! With `CROSSTOWN_FLOOD_REPORT` naming a file, each attack adds a line about how long others had
//! to wait; `cargo xtask bench floods` reads it.

use integration_tests::Server;
use std::{
    fs,
    io::Write,
    path::PathBuf,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};
use test_servers::{Nginx, Process, free_ports};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, sleep},
};

/// What an attacking connection may cost the node.
const BYTES_PER_ATTACKER: u64 = 16 * 1024 * 1024;
const ATTACKERS: usize = 4;

/// How long each attack lasts: `CROSSTOWN_FLOOD_SECONDS`, or 3.
fn length() -> Duration {
    let seconds = std::env::var("CROSSTOWN_FLOOD_SECONDS").ok();
    Duration::from_secs(seconds.map_or(3, |seconds| seconds.parse().unwrap()))
}

struct Target {
    server: Server,
    /// One that is attacked, and one that others ask.
    _services: (Process, Nginx),
    _folder: tempfile::TempDir,
}

/// What others met with for a while.
struct Met {
    /// How long each had to wait.
    waits: Vec<Duration>,
    /// The most that the node held, in bytes.
    most: u64,
}

impl Met {
    /// The 99th percentile of the waits, in microseconds.
    fn p99(&self) -> u128 {
        let mut waits = self.waits.clone();
        waits.sort_unstable();
        waits[(waits.len() * 99).div_ceil(100) - 1].as_micros()
    }
}

impl Target {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("large"), vec![b'x'; 4 * 1024 * 1024]).unwrap();
        let [attacked, asked] = free_ports().unwrap();
        let mut command = Command::new("python3");
        command.args(["-m", "http.server", &attacked.to_string(), "--bind", "127.0.0.1"]);
        command.current_dir(folder.path());
        let log = folder.path().join("attacked");
        let attacked = Process::start(&mut command, attacked, &log).unwrap();
        let answers = format!("server {{ listen 127.0.0.1:{asked}; return 200 small; }}");
        let nginx = Nginx::start(asked, |_| answers).unwrap();
        let (at, asked) = (attacked.address(), nginx.process().address());
        let server = Server::start_with(
            "header_timeout = \"2s\"\nbody_timeout = \"2s\"\nwrite_timeout = \"2s\"\n\
             idle_timeout = \"5s\"\nbody_rate_min = 1000000\n",
            &format!(
                "[services.attacked]\ninstances = [\"http://{at}\"]\n\
                 [services.asked]\ninstances = [\"http://{asked}\"]\n\
                 [[routes]]\nname = \"r\"\nservice = \"attacked\"\nauth = \"none\"\n\
                 [[routes]]\nname = \"o\"\nservice = \"asked\"\nauth = \"none\"\npath = \"/small\"\n"
            ),
        );
        Self { server, _services: (attacked, nginx), _folder: folder }
    }

    /// Bytes of the node's memory.
    fn resident(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.server.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }

    /// One request as others make it.
    async fn others_are_served(&self) {
        let asked = async {
            let mut stream = TcpStream::connect(self.server.edge()).await.unwrap();
            let request = b"GET /small HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
            stream.write_all(request).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("small"), "{answer}");
        };
        tokio::time::timeout(Duration::from_secs(20), asked)
            .await
            .expect("others are kept waiting");
    }

    /// What others meet with until then.
    async fn others(&self, until: Instant) -> Met {
        let mut met = Met { waits: Vec::new(), most: 0 };
        while Instant::now() < until {
            let began = Instant::now();
            self.others_are_served().await;
            met.waits.push(began.elapsed());
            met.most = met.most.max(self.resident());
            sleep(Duration::from_millis(2)).await;
        }
        met
    }

    /// What others meet with while `doing` is done on some connections, each again when it has
    /// ended, and how many have ended.
    async fn beside<F, Fut>(&self, doing: F) -> (Met, usize)
    where
        F: Fn(TcpStream) -> Fut + Clone + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let (stop, ended) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let tasks: Vec<_> = (0..ATTACKERS)
            .map(|_| {
                let (doing, stop, ended) = (doing.clone(), stop.clone(), ended.clone());
                let edge = self.server.edge();
                tokio::spawn(async move {
                    while !stop.load(SeqCst) {
                        let Ok(stream) = TcpStream::connect(edge).await else { break };
                        doing(stream).await;
                        ended.fetch_add(1, SeqCst);
                    }
                })
            })
            .collect();
        let met = self.others(Instant::now() + length()).await;
        stop.store(true, SeqCst);
        for task in tasks {
            task.abort();
        }
        assert!(!met.waits.is_empty());
        (met, ended.load(SeqCst))
    }

    /// Attacks with `attack`; others are served all the while, and the node stays small. Says how
    /// many attacks the node has ended.
    async fn under<F, Fut>(&self, name: &str, attack: F) -> usize
    where
        F: Fn(TcpStream) -> Fut + Clone + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        for _ in 0..20 {
            self.others_are_served().await;
        }
        let busy = match report() {
            Some(_) => Some(self.beside(busy).await.0),
            None => None,
        };
        let before = self.resident();
        let (met, ended) = self.beside(attack).await;
        let bound = before + BYTES_PER_ATTACKER * ATTACKERS as u64;
        assert!(met.most < bound, "{} MiB more", (met.most - before) / 1024 / 1024);
        if let Some(busy) = busy {
            tell(name, &busy, &met, met.most.saturating_sub(before));
        }
        ended
    }
}

/// A client that means well and is as fast as the node is.
async fn busy(mut stream: TcpStream) {
    let request = b"GET /crosstown/v1/sessions HTTP/1.1\r\nhost: a\r\n\r\n";
    let mut buffer = vec![0; 4096];
    while stream.write_all(request).await.is_ok()
        && matches!(stream.read(&mut buffer).await, Ok(1..))
    {}
}

fn report() -> Option<PathBuf> {
    std::env::var_os("CROSSTOWN_FLOOD_REPORT").map(PathBuf::from)
}

/// Adds a line to the report, if there is to be one.
fn tell(attack: &str, busy: &Met, under: &Met, grown: u64) {
    let Some(path) = report() else { return };
    let line = serde_json::json!({
        "attack": attack,
        "asked": under.waits.len(),
        "busy_p99_us": busy.p99() as u64,
        "p99_us": under.p99() as u64,
        "mib_per_attacker": grown as f64 / (ATTACKERS as f64 * 1024.0 * 1024.0),
    });
    let mut file = fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
    writeln!(file, "{line}").unwrap();
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// `GET http://a/`, as HPACK has it.
const GET: &[u8] = &[0x82, 0x86, 0x84, 0x41, 1, b'a'];
/// `POST http://a/`.
const POST: &[u8] = &[0x83, 0x86, 0x84, 0x41, 1, b'a'];
/// `GET http://a/large`.
const LARGE: &[u8] = &[0x82, 0x86, 0x04, 6, b'/', b'l', b'a', b'r', b'g', b'e', 0x41, 1, b'a'];

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

fn preface(settings: &[u8]) -> Vec<u8> {
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(SETTINGS, 0, 0, settings));
    bytes
}

/// Sends the preface, and then what `next` makes of the numbers from 0, as fast as the node takes
/// it, until it ends the connection. What it says is read, or not.
async fn flood(stream: TcpStream, reads: bool, mut next: impl FnMut(u32) -> Vec<u8>) {
    let (mut read, mut write) = stream.into_split();
    let said = tokio::spawn(async move {
        let mut buffer = vec![0; 64 * 1024];
        while reads && matches!(read.read(&mut buffer).await, Ok(1..)) {}
        if !reads {
            std::future::pending::<()>().await;
        }
    });
    let mut sent = write.write_all(&preface(&[])).await.is_ok();
    for number in 0.. {
        sent = sent && !said.is_finished() && write.write_all(&next(number)).await.is_ok();
        if !sent {
            break;
        }
    }
    said.abort();
}

/// Streams have odd numbers.
fn stream(number: u32) -> u32 {
    (2 * number + 1) & 0x7fff_ffff
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_reset_by_the_client() {
    let ended = Target::start()
        .under("rapid reset", |socket| {
            flood(socket, true, |number| {
                let stream = stream(number);
                let mut frames = frame(HEADERS, END_HEADERS | END_STREAM, stream, GET);
                frames.extend(frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes()));
                frames
            })
        })
        .await;
    assert!(ended >= ATTACKERS, "they are ended: {ended}");
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_that_the_node_is_made_to_reset() {
    let ended = Target::start()
        .under("made to reset", |socket| {
            flood(socket, true, |number| {
                let stream = stream(number);
                let mut frames = frame(HEADERS, END_HEADERS, stream, POST);
                // A window that grows by nothing is an error of the stream.
                frames.extend(frame(WINDOW_UPDATE, 0, stream, &0_u32.to_be_bytes()));
                frames
            })
        })
        .await;
    assert!(ended >= ATTACKERS, "they are ended: {ended}");
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_without_an_end() {
    let ended = Target::start()
        .under("CONTINUATION", |socket| {
            // `x: x…`, over and over, not indexed.
            let mut field = vec![0x00, 1, b'x', 100];
            field.extend([b'x'; 100]);
            let block = field.repeat(100);
            flood(socket, true, move |number| match number {
                0 => frame(HEADERS, 0, 1, GET),
                _ => frame(CONTINUATION, 0, 1, &block),
            })
        })
        .await;
    assert!(ended >= ATTACKERS, "they are ended: {ended}");
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_that_are_small_on_the_way_and_large_here() {
    let ended = Target::start()
        .under("HPACK bomb", |socket| {
            // A field of 3,000 bytes goes into the table, and each later byte means it again.
            let mut first = GET.to_vec();
            first.extend([0x40, 1, b'x', 0x7f, 0xb9, 0x16]);
            first.extend([b'x'; 3000]);
            let mut bomb = GET.to_vec();
            bomb.extend([0xbe; 12_000]);
            flood(socket, true, move |number| {
                let block = if number == 0 { &first } else { &bomb };
                frame(HEADERS, END_HEADERS | END_STREAM, stream(number), block)
            })
        })
        .await;
    assert!(ended >= ATTACKERS, "they are ended: {ended}");
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_and_pings_whose_answers_nobody_reads() {
    let target = Target::start();
    target
        .under("SETTINGS", |socket| {
            flood(socket, false, |_| frame(SETTINGS, 0, 0, &[]).repeat(100))
        })
        .await;
    target
        .under("PING", |socket| flood(socket, false, |_| frame(PING, 0, 0, &[0; 8]).repeat(100)))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn data_without_a_byte() {
    Target::start()
        .under("empty DATA", |socket| {
            flood(socket, true, |number| match number {
                0 => frame(HEADERS, END_HEADERS, 1, POST),
                _ => frame(DATA, 0, 1, &[]).repeat(100),
            })
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_nobody_takes() {
    let ended = Target::start()
        .under("zero window", |mut socket| async move {
            // No stream has room for a byte, and there are as many as there may be.
            let window = [0, 4, 0, 0, 0, 0];
            let mut bytes = preface(&window);
            for number in 0..100 {
                bytes.extend(frame(HEADERS, END_HEADERS | END_STREAM, stream(number), LARGE));
            }
            if socket.write_all(&bytes).await.is_ok() {
                let mut buffer = vec![0; 64 * 1024];
                while matches!(socket.read(&mut buffer).await, Ok(1..)) {}
            }
        })
        .await;
    // Whoever takes nothing for two seconds is cut off.
    assert!(ended >= ATTACKERS || length() < Duration::from_secs(5), "they are ended: {ended}");
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_clients() {
    let target = Target::start();
    // Slow clients keep nobody busy, so they are compared with nobody.
    let quiet = match report() {
        Some(_) => Some(target.others(Instant::now() + length()).await),
        None => None,
    };
    let url = format!("{}/large", target.server.base());
    let lasts = (length().as_secs() + 60).to_string();
    let attacks: Vec<_> = [
        // Heads that never end, bodies that never come, answers that are not taken.
        vec!["-H", "-i", "1"],
        vec!["-B", "-i", "1", "-s", "100000", "-t", "POST"],
        vec!["-X", "-w", "1", "-y", "8", "-n", "1", "-z", "8", "-k", "1"],
    ]
    .into_iter()
    .map(|mode| {
        let mut command = Command::new("slowhttptest");
        command.args(["-c", "100", "-r", "100", "-p", "5", "-l", &lasts, "-u", &url]).args(mode);
        let folder = tempfile::tempdir().unwrap();
        let out = fs::File::create(folder.path().join("out")).unwrap();
        let child = command.current_dir(folder.path()).stdout(out).spawn().unwrap();
        (child, folder)
    })
    .collect();
    let before = target.resident();
    let met = target.others(Instant::now() + length()).await;
    assert!(
        met.most < before + BYTES_PER_ATTACKER * ATTACKERS as u64,
        "{} MiB more",
        (met.most - before) / 1024 / 1024
    );
    if let Some(quiet) = quiet {
        tell("slow clients, all modes", &quiet, &met, met.most.saturating_sub(before));
    }
    // The node has ended them, whether they have noticed or not.
    let until = Instant::now() + Duration::from_secs(15);
    while target.server.metric("crosstown_connections").await > 5 {
        assert!(Instant::now() < until, "slow clients are not ended");
        sleep(Duration::from_millis(100)).await;
    }
    for (mut child, _folder) in attacks {
        // It may have noticed that all of them have ended.
        let _ = child.kill();
        child.wait().unwrap();
    }
    target.others_are_served().await;
}

//! A node that is asked for more than it can do.

use crate::sessions::{made, service};
use integration_tests::{Server, Socket};
use serde_json::{Value as Json, json};
use std::{
    fs,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering::SeqCst},
    },
    time::Duration,
};
use test_servers::{Process, free_ports};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, sleep, timeout},
};

/// A service that gives files to as many as come at once.
const SERVICE: &str = "\
import http.server, sys
server = http.server.ThreadingHTTPServer
server.request_queue_size = 1024
server(('127.0.0.1', int(sys.argv[1])), http.server.SimpleHTTPRequestHandler).serve_forever()
";

const UNDER_WAY_MAX: usize = 400;

/// What became of requests to one route.
#[derive(Debug, Default)]
struct Tally {
    served: AtomicU32,
    refused: AtomicU32,
}

impl Tally {
    fn served(&self) -> u32 {
        self.served.load(SeqCst)
    }

    fn refused(&self) -> u32 {
        self.refused.load(SeqCst)
    }
}

/// What is asked for: by which route, and in which session.
#[derive(Clone)]
struct Kind {
    route: &'static str,
    token: Option<String>,
}

impl Kind {
    fn of(route: &'static str) -> Self {
        Self { route, token: None }
    }
}

/// A node with one core, and answers that cost it much: it compresses them.
struct Node {
    server: Server,
    _service: Process,
    _folder: tempfile::TempDir,
}

impl Node {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let words: String = (0..4_000_u32).map(|n| format!("{} ", n.wrapping_mul(n))).collect();
        fs::write(folder.path().join("text.txt"), words).unwrap();
        let [port] = free_ports().unwrap();
        let mut command = Command::new("python3");
        command.args(["-c", SERVICE, &port.to_string()]);
        command.current_dir(folder.path());
        let service = Process::start(&mut command, port, &folder.path().join("log")).unwrap();
        let routes: String = [
            ("low", "auth = \"none\"\npriority = \"low\""),
            ("high", "auth = \"none\"\npriority = \"high\""),
            ("session", "auth = \"required\""),
        ]
        .map(|(name, more)| {
            format!(
                "[[routes]]\nname = \"{name}\"\nservice = \"text\"\nprefix = \"/{name}\"\n\
                 strip_prefix = true\ncompress = {{}}\n{more}\n"
            )
        })
        .concat();
        let server = Server::start_with(
            "workers = 1\nlag_max = \"100ms\"\nheader_timeout = \"60s\"\n",
            &format!(
                "[realtime]\nping_interval = \"10m\"\n\
                 [services.text]\ninstances = [\"http://{}\"]\n\
                 response_timeout = \"60s\"\n{routes}",
                service.address()
            ),
        );
        Self { server, _service: service, _folder: folder }
    }

    /// A request of this kind, by a client of its own.
    async fn ask(edge: (&'static str, u16), kind: &Kind, tally: &Tally) {
        let mut stream = TcpStream::connect(edge).await.unwrap();
        let Kind { route, token } = kind;
        let token = token.iter().map(|token| format!("x-session-token: {token}\r\n"));
        let token: String = token.collect();
        let request = format!(
            "GET /{route}/text.txt HTTP/1.1\r\nhost: a\r\naccept-encoding: br\r\n{token}\
             connection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        let answer = String::from_utf8_lossy(&answer);
        if answer.starts_with("HTTP/1.1 200 ") {
            assert!(answer.contains("content-encoding: br\r\n"), "{answer}");
            tally.served.fetch_add(1, SeqCst);
        } else {
            assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
            assert!(answer.contains("\"code\":\"overloaded\""), "{answer}");
            let after = answer.lines().find_map(|line| line.strip_prefix("retry-after: "));
            assert!((1..=3).contains(&after.unwrap().parse::<u32>().unwrap()), "{answer}");
            tally.refused.fetch_add(1, SeqCst);
        }
    }

    /// Requests of this kind that it serves in a second, when it has always one more.
    async fn capacity(&self, kind: &Kind) -> f64 {
        let (edge, tally, began) = (self.server.edge(), Tally::default(), Instant::now());
        let client = async || {
            while began.elapsed() < Duration::from_millis(1_500) {
                Self::ask(edge, kind, &tally).await;
            }
        };
        tokio::join!(client(), client());
        assert_eq!(tally.refused(), 0);
        f64::from(tally.served()) / began.elapsed().as_secs_f64()
    }

    /// Sends requests of a kind at a rate, whatever becomes of them, and waits for them. If very
    /// many are under way, some are not sent: nobody has endless clients.
    async fn send(&self, kind: &Kind, rate: f64, tally: &Arc<Tally>, over: &AtomicBool) {
        let mut requests = JoinSet::new();
        let mut tick = interval(Duration::from_secs_f64(1.0 / rate));
        tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
        while !over.load(SeqCst) {
            tick.tick().await;
            while let Some(ended) = requests.try_join_next() {
                ended.unwrap();
            }
            if requests.len() >= UNDER_WAY_MAX {
                continue;
            }
            let (edge, kind, tally) = (self.server.edge(), kind.clone(), tally.clone());
            requests.spawn(async move { Self::ask(edge, &kind, &tally).await });
        }
        while let Some(ended) = requests.join_next().await {
            ended.unwrap();
        }
    }

    /// The operator is answered, and an open socket is served.
    async fn others_are_served(&self, socket: &mut Socket) -> Json {
        let answered = async {
            let admin = self.server.admin();
            let _: Json = admin.get("/ready").await.unwrap();
            let said = json!({ "channel": "room", "data": 1 });
            socket.ask("publish", said).await.unwrap();
            admin.get("/health").await.unwrap()
        };
        timeout(Duration::from_secs(20), answered).await.unwrap()
    }

    /// Asks for twice what it can do, mostly in the less urgent of two ways, until it was seen
    /// that it does most of what it can, and the urgent first. The socket is served meanwhile.
    async fn overload(
        &self,
        [less, more]: [&Kind; 2],
        [low, high]: [&Arc<Tally>; 2],
        capacity: f64,
        socket: &mut Socket,
    ) {
        let over_yet = AtomicBool::new(false);
        let watched = async {
            while low.refused() == 0 {
                sleep(Duration::from_millis(100)).await;
            }
            // Others use the machine, too: what it can do is not the same at all times.
            let mut seen = Vec::new();
            let kept = loop {
                let health = self.others_are_served(socket).await;
                let [low, high] = over(Duration::from_secs(5), [low, high]).await;
                let part =
                    |[served, refused]: [u32; 2]| f64::from(served) / f64::from(served + refused);
                let good = f64::from(low[0] + high[0]) / 5.0 / capacity;
                seen.push((health["cores"].clone(), low, high, good));
                let urgent_first = part(high) > 0.5 && part(low) < part(high);
                if good >= 0.5 && urgent_first && health["status"] == "degraded" {
                    break true;
                }
                if seen.len() == 6 {
                    break false;
                }
            };
            over_yet.store(true, SeqCst);
            assert!(kept, "of {capacity} a second: {seen:?}");
        };
        timeout(Duration::from_secs(120), async {
            tokio::join!(
                self.send(less, capacity * 1.4, low, &over_yet),
                self.send(more, capacity * 0.6, high, &over_yet),
                watched
            )
        })
        .await
        .unwrap();
    }
}

/// What was served and refused between two moments, of each route.
async fn over(time: Duration, tallies: [&Tally; 2]) -> [[u32; 2]; 2] {
    let now = || tallies.map(|tally| [tally.served(), tally.refused()]);
    let before = now();
    sleep(time).await;
    let mut passed = now();
    for (passed, before) in passed.iter_mut().flatten().zip(before.as_flattened()) {
        *passed -= before;
    }
    passed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_less_urgent_is_refused_and_the_rest_goes_on() {
    let node = Node::start();
    let mut ann = Socket::connect(&node.server.base(), &node.server.token("acme", "ann")).await;
    ann.ask("subscribe", json!({ "channel": "room" })).await.unwrap();
    let capacity = node.capacity(&Kind::of("high")).await;
    let [low, high] = [(); 2].map(|()| Arc::new(Tally::default()));
    node.overload([&Kind::of("low"), &Kind::of("high")], [&low, &high], capacity, &mut ann).await;

    // It is told, and counted.
    let refused = "crosstown_overload_refused_total{priority=\"low\"}";
    assert_eq!(node.server.metric(refused).await, u64::from(low.refused()));
    let errors = "crosstown_server_errors_total{route=\"low\",service=\"text\"}";
    let counted = async {
        while node.server.metric(errors).await < u64::from(low.refused()) {
            sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(Duration::from_secs(20), counted).await.unwrap();
    // All is as before once the load is gone.
    timeout(Duration::from_secs(60), async {
        let mut in_a_row = 0;
        loop {
            let tally = Tally::default();
            Node::ask(node.server.edge(), &Kind::of("low"), &tally).await;
            in_a_row = if tally.served() == 1 { in_a_row + 1 } else { 0 };
            let health = node.others_are_served(&mut ann).await;
            let refuses = &health["cores"][0]["refuses"];
            if in_a_row >= 20 && health["status"] == "ok" && refuses == 0.0 {
                return;
            }
        }
    })
    .await
    .unwrap();
}

/// By one route, what a session asks for goes before what another does, as services say. Whoever
/// has a socket keeps it, and is served on it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_less_urgent_sessions_ask_for_is_refused_first() {
    let node = Node::start();
    let crm = service(&node.server).await;
    let [low, urgent] = [made(&crm, "low", json!({})).await, made(&crm, "urgent", json!({})).await];
    for (session, priority) in [(&low, "low"), (&urgent, "urgent")] {
        let _: Json = crm.patch(&session.path, &json!({ "priority": priority })).await.unwrap();
    }
    let mut socket = Socket::connect(&node.server.base(), &low.token).await;
    socket.ask("subscribe", json!({ "channel": "room" })).await.unwrap();
    let in_session = |token: &str| Kind { route: "session", token: Some(token.to_owned()) };
    let kinds = [&low, &urgent].map(|session| in_session(&session.token));
    let capacity = node.capacity(&kinds[1]).await;
    let tallies = [(); 2].map(|()| Arc::new(Tally::default()));
    let [of_low, of_urgent] = &tallies;
    node.overload([&kinds[0], &kinds[1]], [of_low, of_urgent], capacity, &mut socket).await;
    assert!(of_low.refused() > of_urgent.refused(), "{of_low:?} {of_urgent:?}");
    // Each was refused as what it is, though both asked by one route.
    let refused = async |priority: &str| {
        let name = format!("crosstown_overload_refused_total{{priority=\"{priority}\"}}");
        node.server.metric(&name).await
    };
    assert!(refused("low").await > 0 && refused("low").await <= of_low.refused().into());
    assert!(refused("urgent").await <= of_urgent.refused().into());
}

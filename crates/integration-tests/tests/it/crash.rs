//! kill -9 at seeded moments, with many writes in flight: nothing acknowledged is missing.

use client::Client;
use http::Method;
use integration_tests::{Server, Socket};
use serde_json::{Value as Json, json};
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

const WRITERS: usize = 96;
const IN_FLIGHT_MIN: usize = 64;
const ACKNOWLEDGED_MIN: usize = 200;

/// By which road a writer writes, and what.
#[derive(Clone, Copy, PartialEq)]
enum Road {
    StateByHttp,
    StateBySocket,
    ChannelByHttp,
    ChannelBySocket,
    Session,
}

/// Writes 1, 2, 3, … one after another, into a place of its own.
struct Writer {
    road: Road,
    name: String,
    /// The last number that was acknowledged.
    acknowledged: u64,
    /// Whether the next one was sent and never answered.
    unanswered: bool,
    /// The revision or offset of the last acknowledged number, and the epoch.
    place: u64,
    epoch: Option<Json>,
    session: Option<String>,
}

#[derive(Default)]
struct Counts {
    acknowledged: AtomicUsize,
    in_flight: AtomicUsize,
}

impl Writer {
    fn new(at: usize) -> Self {
        let road = match at % 6 {
            0 | 1 => Road::StateByHttp,
            2 => Road::StateBySocket,
            3 => Road::ChannelByHttp,
            4 => Road::ChannelBySocket,
            _ => Road::Session,
        };
        let name = format!("writer-{at}");
        let (acknowledged, unanswered, place) = (0, false, 0);
        Self { road, name, acknowledged, unanswered, place, epoch: None, session: None }
    }

    /// Writes until the node is gone.
    async fn write(mut self, client: Client, mut socket: Socket, counts: Arc<Counts>) -> Self {
        loop {
            let number = self.acknowledged + 1;
            counts.in_flight.fetch_add(1, Ordering::Relaxed);
            self.unanswered = true;
            let answer = self.write_one(&client, &mut socket, number).await;
            counts.in_flight.fetch_sub(1, Ordering::Relaxed);
            let Some(answer) = answer else { return self };
            self.unanswered = false;
            self.acknowledged = number;
            self.place = answer["revision"].as_u64().or(answer["offset"].as_u64()).unwrap_or(0);
            if let Some(epoch) = answer.get("epoch") {
                assert_eq!(self.epoch.get_or_insert(epoch.clone()), epoch, "another life");
            }
            counts.acknowledged.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Writes one number; `None` if no answer came.
    async fn write_one(&mut self, client: &Client, socket: &mut Socket, n: u64) -> Option<Json> {
        let name = &self.name;
        let (method, path, body) = match self.road {
            Road::StateBySocket => {
                let data = json!({ "document": format!("user:{name}"), "key": "k", "value": n });
                return answered(socket.rpc("state.put", data).await);
            }
            Road::ChannelBySocket => {
                let body = json!({ "channel": name, "data": n });
                return answered(socket.ask("publish", body).await);
            }
            Road::StateByHttp => (Method::PUT, format!("/state/user/{name}/entries/k"), json!(n)),
            Road::ChannelByHttp => {
                (Method::POST, format!("/channels/{name}/publications"), json!(n))
            }
            Road::Session => {
                let body = json!({ "metadata": { "n": n } });
                match &self.session {
                    None => (Method::POST, "/sessions".to_owned(), body),
                    Some(id) => (Method::PATCH, format!("/sessions/{id}"), body),
                }
            }
        };
        let path = format!("/crosstown/v1{path}");
        let answer = client.call(method, &path, Some(body.to_string().into_bytes())).await.ok()?;
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        assert!(answer.status.is_success(), "{path}: {} {text}", answer.status);
        let told: Json = serde_json::from_str(&text).expect("answers are JSON");
        if self.road == Road::Session {
            self.session = Some(told["id"].as_str().expect("an id").to_owned());
        }
        Some(told)
    }

    /// Checks what is there after the crash, and goes on from it.
    async fn check(&mut self, client: &Client, socket: &mut Socket) {
        let at_most = self.acknowledged + u64::from(self.unanswered);
        let name = &self.name;
        let found = match self.road {
            Road::StateByHttp | Road::StateBySocket => {
                let data = json!({ "document": format!("user:{name}") });
                let told = socket.rpc("state.get", data).await.expect("a document");
                if let Some(epoch) = &self.epoch {
                    assert_eq!(&told["epoch"], epoch, "{name}: another life");
                }
                assert!(told["revision"].as_u64() >= Some(self.place), "{name}: {told}");
                let numbers = history(client, name).await;
                assert!(
                    numbers.windows(2).all(|pair| pair[1] == pair[0] + 1),
                    "{name}: {numbers:?}"
                );
                let value = told["entries"][0]["value"].as_u64().unwrap_or(0);
                assert_eq!(numbers.last().copied().unwrap_or(0), value, "{name}: half a commit");
                value
            }
            Road::ChannelByHttp | Road::ChannelBySocket => {
                let body = json!({ "channel": name, "limit": 100 });
                let told = socket.ask("history", body).await.expect("a history");
                let publications = told["publications"].as_array().cloned().unwrap_or_default();
                for publication in &publications {
                    assert_eq!(publication["data"], publication["offset"], "{name}: {told}");
                }
                assert!(publications.len() as u64 >= self.acknowledged.min(99), "{name}: {told}");
                told["offset"].as_u64().unwrap_or(0)
            }
            Road::Session => {
                let listed: Json = client.get("/crosstown/v1/sessions").await.expect("a list");
                let own = |session: &&Json| session["metadata"].get("n").is_some();
                let session = listed["sessions"].as_array().unwrap().iter().find(own);
                self.session = session.map(|session| session["id"].as_str().unwrap().to_owned());
                session.and_then(|session| session["metadata"]["n"].as_u64()).unwrap_or(0)
            }
        };
        assert!(
            (self.acknowledged..=at_most).contains(&found),
            "{name}: {} was acknowledged, {found} is there",
            self.acknowledged
        );
        self.acknowledged = found;
    }
}

/// The numbers of a document's history, the last thousand of them.
async fn history(client: &Client, name: &str) -> Vec<u64> {
    let mut numbers = Vec::new();
    let mut offset = 1;
    loop {
        let path = format!("/crosstown/v1/state/user/{name}/history?limit=1000&offset={offset}");
        let told: Result<Json, client::Error> = client.get(&path).await;
        match told {
            Ok(told) => {
                let entries = told["entries"].as_array().unwrap();
                if entries.is_empty() {
                    return numbers;
                }
                for entry in entries {
                    assert_eq!(entry["offset"].as_u64(), Some(offset), "{name}: a gap");
                    numbers.push(entry["value"].as_u64().unwrap());
                    offset += 1;
                }
            }
            Err(client::Error::Refused { document, .. }) => {
                offset = document["first"].as_u64().expect("where the history begins");
            }
            Err(error) => panic!("{error}"),
        }
    }
}

fn answered(answer: Result<Json, Json>) -> Option<Json> {
    match answer {
        Ok(answer) => Some(answer),
        Err(Json::Null) => None,
        Err(error) => panic!("{error}"),
    }
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_missing_after_kill_9() {
    let rounds = number("CROSSTOWN_KILL_ROUNDS", 50);
    let seed = number("CROSSTOWN_SEED", 20_261_123);
    println!("seed {seed}");
    let mut server = Server::start("");
    let mut writers: Vec<Writer> = (0..WRITERS).map(Writer::new).collect();
    let (mut total, mut least_in_flight) = (0, usize::MAX);
    let mut dice = seed | 1;
    for round in 0..rounds {
        let counts = Arc::new(Counts::default());
        let mut ready = Vec::new();
        for writer in writers.drain(..) {
            let token = server.token("acme", &writer.name);
            let client = Client::new(&server.base(), &token).unwrap();
            ready.push((writer, client, Socket::connect(&server.base(), &token).await));
        }
        let start = |(writer, client, socket): (Writer, _, _)| {
            tokio::spawn(writer.write(client, socket, counts.clone()))
        };
        let tasks: Vec<_> = ready.into_iter().map(start).collect();
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let enough = ACKNOWLEDGED_MIN + (dice >> 33) as usize % 400;
        let in_flight = loop {
            tokio::time::sleep(Duration::from_micros(dice >> 50)).await;
            let in_flight = counts.in_flight.load(Ordering::Relaxed);
            if counts.acknowledged.load(Ordering::Relaxed) >= enough && in_flight >= IN_FLIGHT_MIN {
                break in_flight;
            }
            let failed = tasks.iter().any(tokio::task::JoinHandle::is_finished);
            assert!(!failed, "a writer ended before the kill, in round {round}");
        };
        server.kill();
        for task in tasks {
            writers.push(task.await.unwrap());
        }
        let acknowledged = counts.acknowledged.load(Ordering::Relaxed);
        total += acknowledged;
        least_in_flight = least_in_flight.min(in_flight);
        println!("round {round}: {acknowledged} acknowledged, {in_flight} in flight at the kill");
        server.start_again();
        for writer in &mut writers {
            let token = server.token("acme", &writer.name);
            let client = Client::new(&server.base(), &token).unwrap();
            let mut socket = Socket::connect(&server.base(), &token).await;
            writer.check(&client, &mut socket).await;
        }
    }
    println!(
        "{rounds} kills, {total} acknowledged, at least {least_in_flight} in flight, 0 missing, \
         seed {seed}"
    );
}

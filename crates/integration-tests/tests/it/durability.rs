//! The node is killed (`kill -9`) while many write, again and again on one folder. Whatever
//! was acknowledged, or shown to a subscriber, is there afterwards; a write whose answer never
//! came has happened wholly or not at all.
//!
//! `CROSSTOWN_SEED` repeats the choices of a run, though not the order in which the node meets
//! them; `CROSSTOWN_KILL_ROUNDS` says how many kills count.

mod topic;
mod worker;

use client::Client;
use integration_tests::{Random, Server, Socket};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use topic::Topic;
use worker::{Done, Worker, Write};

const WORKERS: usize = 192;
const CHANNELS: usize = 6;
const DOCUMENTS: usize = 6;
/// What must be in flight, and acknowledged in the round, for a kill to count.
const IN_FLIGHT_MIN: usize = 64;
const ACKNOWLEDGED_MIN: usize = 200;

const CONFIG: &str = "
[sessions]
per_user_max = 1000
[state]
history_max = 100000
[realtime]
recover_max = 1000000
queue_bytes_max = 67108864
[[realtime.namespaces]]
name = \"\"
history_size = 1000000
tier = \"hot\"
";

/// What the workers of a round share.
#[derive(Default)]
struct Round {
    in_flight: AtomicUsize,
    acknowledged: AtomicUsize,
    over: AtomicBool,
}

/// What a run comes to.
#[derive(Default)]
struct Totals {
    rounds: usize,
    acknowledged: usize,
    in_flight: usize,
    unanswered: usize,
    happened: usize,
    least_unanswered: Option<usize>,
}

fn rounds_wanted() -> usize {
    let wanted = std::env::var("CROSSTOWN_KILL_ROUNDS");
    wanted.map_or(50, |text| text.parse().expect("`CROSSTOWN_KILL_ROUNDS` is a number"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_kill_9() {
    let (seed, wanted, begun) = (Random::seed(), rounds_wanted(), Instant::now());
    println!("seed {seed}");
    let random = Random::new(seed);
    let mut server = Server::start(CONFIG);
    let service = Client::new(&server.base(), &server.api_key("acme", "writer").await).unwrap();
    let mut workers: Vec<Worker> = (0..WORKERS).map(Worker::new).collect();
    let mut topics: Vec<Topic> =
        (0..CHANNELS).map(Topic::channel).chain((0..DOCUMENTS).map(Topic::document)).collect();
    let mut totals = Totals::default();
    let mut tries = 0;
    while totals.rounds < wanted {
        tries += 1;
        assert!(tries <= 2 * wanted + 10, "too few writes are in flight when the node is killed");
        let random = random.branch(tries as u64);
        let (acknowledged, in_flight) =
            round(&mut server, &service, random, &mut workers, &mut topics).await;
        tokio::task::block_in_place(|| server.start_again());
        let unanswered = workers.iter().filter(|worker| worker.unanswered.is_some()).count();
        let (wrong, happened) = audit(&server, &service, &mut workers, &mut topics).await;
        assert!(
            wrong.is_empty(),
            "round {tries}, seed {seed}: {acknowledged} acknowledged, {in_flight} in flight at \
             the kill, missing or wrong {}:\n{}",
            wrong.len(),
            wrong.iter().take(20).cloned().collect::<Vec<_>>().join("\n")
        );
        totals.acknowledged += acknowledged;
        totals.in_flight += in_flight;
        totals.unanswered += unanswered;
        totals.happened += happened;
        if unanswered >= IN_FLIGHT_MIN && acknowledged >= ACKNOWLEDGED_MIN {
            totals.rounds += 1;
            let least = totals.least_unanswered.get_or_insert(unanswered);
            *least = unanswered.min(*least);
        }
    }
    let mut wrong = Vec::new();
    for topic in &mut topics {
        wrong.extend(topic.read_all_again(&server, &service).await);
    }
    assert!(wrong.is_empty(), "seed {seed}: after all rounds:\n{}", wrong.join("\n"));
    println!(
        "rounds {} (and {} with fewer in flight), acknowledged {}, in flight at the kill {} \
         (never answered {}, at least {} in a round; {} of them happened), missing 0, \
         seed {seed}, {:.0?}",
        totals.rounds,
        tries - totals.rounds,
        totals.acknowledged,
        totals.in_flight,
        totals.unanswered,
        totals.least_unanswered.unwrap_or(0),
        totals.happened,
        begun.elapsed()
    );
}

/// Lets the workers write and kills the node in the midst of it: how many writes were
/// acknowledged, and how many in flight at that moment.
async fn round(
    server: &mut Server,
    service: &Client,
    mut random: Random,
    workers: &mut Vec<Worker>,
    topics: &mut [Topic],
) -> (usize, usize) {
    let round = Arc::new(Round::default());
    let mut observers = Vec::new();
    for topic in topics.iter_mut() {
        observers.push(tokio::spawn(topic::observe(topic.subscribe_first(server).await)));
    }
    let token = server.token("acme", "pen");
    let mut ready = Vec::new();
    for worker in workers.drain(..) {
        let socket = match worker.by_socket {
            true => Some(Socket::connect(&server.base(), &token).await),
            false => None,
        };
        ready.push((worker, socket));
    }
    let tasks: Vec<_> = ready
        .into_iter()
        .map(|(worker, socket)| {
            let (random, round) = (random.branch(worker.number as u64), round.clone());
            tokio::spawn(worker.work(random, service.clone(), socket, round))
        })
        .collect();
    let enough = ACKNOWLEDGED_MIN + random.below(600);
    let pause = Duration::from_micros(random.below(5_000) as u64);
    let until = Instant::now() + Duration::from_secs(60);
    let mut reached = None;
    let in_flight = loop {
        assert!(Instant::now() < until, "the writers are stuck: {}", server.log());
        let acknowledged = round.acknowledged.load(Ordering::SeqCst);
        let in_flight = round.in_flight.load(Ordering::SeqCst);
        if acknowledged >= enough {
            let reached = *reached.get_or_insert_with(Instant::now);
            if reached.elapsed() >= pause && in_flight >= IN_FLIGHT_MIN {
                round.over.store(true, Ordering::SeqCst);
                break in_flight;
            }
        }
        tokio::time::sleep(Duration::from_micros(100)).await;
    };
    tokio::task::block_in_place(|| server.kill());
    for task in tasks {
        workers.push(task.await.unwrap());
    }
    for (topic, observer) in topics.iter_mut().zip(observers) {
        topic.seen = observer.await.unwrap();
    }
    (round.acknowledged.load(Ordering::SeqCst), in_flight)
}

/// Compares what the node holds with what was acknowledged: what is wrong, and how many
/// writes have happened that were never answered.
async fn audit(
    server: &Server,
    service: &Client,
    workers: &mut Vec<Worker>,
    topics: &mut [Topic],
) -> (Vec<String>, usize) {
    let mut wrong = Vec::new();
    let mut happened = 0;
    for topic in topics.iter_mut() {
        let of_topic = |done: &&Done| done.topic() == Some(topic.name.as_str());
        let done: Vec<Done> =
            workers.iter().flat_map(|w| w.done.iter().filter(of_topic)).cloned().collect();
        let maybe: Vec<(usize, Write)> = workers
            .iter()
            .filter_map(|w| w.unanswered.clone().map(|write| (w.number, write)))
            .filter(|(_, write)| write.topic() == Some(topic.name.as_str()))
            .collect();
        let found = topic.audit(server, service, &done, &maybe).await;
        wrong.extend(found.wrong);
        for (number, revision) in found.happened {
            happened += 1;
            workers[number].has_happened(revision);
        }
        if topic.is_document() {
            let model = workers.iter().flat_map(|worker| worker.entries_of(&topic.name)).collect();
            wrong.extend(topic.compare(service, model).await);
        }
    }
    let tasks: Vec<_> = workers
        .drain(..)
        .map(|worker| tokio::spawn(worker.audit_sessions(service.clone())))
        .collect();
    for task in tasks {
        let (worker, strange, done) = task.await.unwrap();
        wrong.extend(strange);
        happened += usize::from(done);
        workers.push(worker);
    }
    (wrong, happened)
}

//! A node that restarts under a thousand clients, while others publish.

use integration_tests::{Server, Socket};
use serde_json::{Value as Json, json};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};
use tokio::{sync::watch, task::JoinSet};

const CLIENTS: usize = 1_000;
const ROOMS: usize = 50;
const BACKOFF_MS: u64 = 500;

/// A client that comes back, and recovers.
struct Follower {
    base: String,
    token: String,
    room: String,
    /// What it was told, in the order in which it was.
    told: Vec<u64>,
    position: Json,
    /// When it was whole again, for each time that it was connected.
    whole: Vec<Instant>,
    seed: u64,
}

impl Follower {
    /// Follows its room until the publication `0` comes.
    async fn run(mut self, ready: Arc<watch::Sender<usize>>) -> Self {
        loop {
            if let Some(mut socket) = self.connected().await {
                ready.send_modify(|count| *count += 1);
                loop {
                    let push = socket.push().await;
                    if push.is_null() {
                        break;
                    }
                    if !self.take(&push["pub"]) {
                        return self;
                    }
                }
            }
            // SplitMix64 (Steele, Lea, Flood 2014).
            self.seed = self.seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mixed = (self.seed ^ (self.seed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            tokio::time::sleep(Duration::from_millis((mixed >> 33) % BACKOFF_MS)).await;
        }
    }

    async fn connected(&mut self) -> Option<Socket> {
        let mut socket = Socket::try_open(&self.base).await.ok()?;
        socket.ask("connect", json!({ "token": self.token })).await.ok()?;
        let recover = !self.position.is_null();
        let subscribe = json!({ "channel": self.room, "recover": recover,
            "epoch": self.position["epoch"], "offset": self.position["offset"] });
        let stands = if recover {
            socket.ask("subscribe", subscribe).await.ok()?
        } else {
            socket.ask("subscribe", json!({ "channel": self.room })).await.ok()?
        };
        assert_eq!(stands["recovered"] == true, recover, "{}: {stands}", self.room);
        if self.position.is_null() {
            let offset = stands["offset"].as_u64().unwrap_or_default();
            self.position = json!({ "epoch": stands["epoch"], "offset": offset });
        }
        for missed in stands["publications"].as_array().into_iter().flatten() {
            assert!(self.take(missed), "the end comes live");
        }
        self.whole.push(Instant::now());
        Some(socket)
    }

    /// False if it was the last.
    fn take(&mut self, publication: &Json) -> bool {
        let offset = publication["offset"].as_u64().expect("an offset");
        assert_eq!(offset, self.position["offset"].as_u64().unwrap() + 1, "{}", self.room);
        self.position["offset"] = json!(offset);
        let number = publication["data"].as_u64().expect("a number");
        self.told.push(number);
        number != 0
    }
}

#[tokio::test]
async fn a_thousand_clients_resume_when_their_node_restarts_in_order() {
    resume("live", Server::stop).await;
}

#[tokio::test]
async fn a_thousand_clients_resume_when_their_node_is_killed() {
    resume("hot", Server::kill).await;
}

async fn resume(tier: &str, stop: fn(&mut Server)) {
    let config = format!(
        "[realtime]\nclose_rate = 1000\n\
         [[realtime.namespaces]]\nname = \"room\"\nhistory_size = 10000\ntier = \"{tier}\"\n\
         [shutdown]\nannounce = \"0s\"\n"
    );
    let mut server = Server::start(&config);
    let (sender, mut ready) = watch::channel(0);
    let sender = Arc::new(sender);
    let mut followers = JoinSet::new();
    for number in 0..CLIENTS {
        let follower = Follower {
            base: server.base(),
            token: server.token("acme", &format!("user-{number}")),
            room: format!("room:{}", number % ROOMS),
            told: Vec::new(),
            position: Json::Null,
            whole: Vec::new(),
            seed: number as u64,
        };
        followers.spawn(follower.run(sender.clone()));
    }
    ready.wait_for(|count| *count >= CLIENTS).await.unwrap();

    // Publishes to each room in turn, and knows what was acknowledged.
    let ended = Arc::new(AtomicBool::new(false));
    let service = server.token_with("acme", "orders", json!({ "kind": "service" }));
    let publisher = tokio::spawn({
        let (base, ended) = (server.base(), ended.clone());
        async move {
            let client = client::Client::new(&base, &service).unwrap();
            let mut acknowledged = vec![Vec::new(); ROOMS];
            let mut number = 0;
            while !ended.load(Relaxed) {
                number += 1;
                let room = number as usize % ROOMS;
                let path = format!("/crosstown/v1/channels/room:{room}/publications");
                let body = Some(number.to_string().into_bytes());
                match client.call(http::Method::POST, &path, body).await {
                    Ok(answer) if answer.status == 201 => acknowledged[room].push(number),
                    Ok(_) | Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            }
            (client, acknowledged)
        }
    });
    for times in 1..=2 {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let before = *ready.borrow();
        stop(&mut server);
        server.start_again();
        let serving = Instant::now();
        ready.wait_for(|count| *count >= before + CLIENTS).await.unwrap();
        println!("restart {times}: all are whole again after {:?}", serving.elapsed());
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    ended.store(true, Relaxed);
    let (client, acknowledged) = publisher.await.unwrap();
    for room in 0..ROOMS {
        let path = format!("/crosstown/v1/channels/room:{room}/publications");
        let last = client.call(http::Method::POST, &path, Some(b"0".to_vec())).await.unwrap();
        assert_eq!(last.status, 201);
    }
    let mut count = 0;
    while let Some(follower) = followers.join_next().await {
        let follower = follower.unwrap();
        assert_eq!(follower.whole.len(), 3, "{}: connected so often", follower.room);
        let room: usize = follower.room.rsplit(':').next().unwrap().parse().unwrap();
        let mut expected = acknowledged[room].iter();
        let mut next = expected.next();
        for number in &follower.told {
            // What was not acknowledged may have been published.
            if next == Some(number) {
                next = expected.next();
            }
        }
        assert_eq!(next, None, "{}: it was acknowledged, and not told", follower.room);
        let mut told = follower.told.clone();
        told.sort_unstable();
        told.dedup();
        assert_eq!(told.len(), follower.told.len(), "{}: told twice", follower.room);
        count += follower.told.len();
    }
    assert!(count > CLIENTS, "{count} publications were told");
}

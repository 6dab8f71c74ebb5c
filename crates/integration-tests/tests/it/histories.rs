//! Random histories of clients that come, go, publish, write and follow, over a document that
//! moves between tiers, a node that is killed or stopped, and stores that lose requests and
//! answers: whatever was acknowledged is there, once and in order, and every follower ends with
//! the same. What was live is lost by a kill, as it is promised: then the document goes on in
//! another life from what it was when it became live.
//!
//! `CROSSTOWN_HISTORIES` says how many, 300 unless told otherwise; `CROSSTOWN_SEED` repeats a
//! run. The clients keep positions as SDKs do, and talk to the sockets of a node that lives in
//! this process, on the store in memory.

mod follower;
mod model;
mod node;

use follower::{CHANNEL, DOCUMENT, Follower};
use integration_tests::Random;
use model::{Lost, Model, Outcome, Written};
use node::{Engines, Node};
use serde_json::{Value as Json, json};
use std::time::Duration;
use store_memory::{Fault, Faults};

const CLIENTS: usize = 3;
const KEYS: [&str; 4] = ["a", "b", "c", "d"];

/// What one history consists of.
struct World {
    random: Random,
    engines: Engines,
    node: Node,
    /// Whether nodes are stopped, and never killed.
    gently: bool,
    kills: usize,
    history_size: u64,
    clients: Vec<Follower>,
    model: Model,
    next: u64,
}

impl World {
    fn new(random: Random) -> Self {
        let mut random = random;
        let engines = Engines::new();
        let gently = random.below(2) == 0;
        // Some channels forget, so that recovery has to be refused.
        let history_size = *random.pick(&[4, 1_000]);
        let node = Node::start(engines.clone(), history_size);
        let clients = (0..CLIENTS).map(Follower::new).collect();
        Self {
            random,
            engines,
            node,
            gently,
            kills: 0,
            history_size,
            clients,
            model: Model::default(),
            next: 0,
        }
    }

    async fn step(&mut self) {
        let at = self.random.below(CLIENTS);
        if !self.clients[at].is_connected() {
            self.clients[at].connect(&self.node, self.history_size).await;
            return;
        }
        match self.random.below(100) {
            0..6 => self.clients[at].drop_connection(),
            6..10 => {
                if self.gently {
                    self.nothing_fails();
                    self.node.stop();
                } else {
                    // Nothing is told to anybody.
                    self.node.kill();
                    self.kills += 1;
                }
                self.node = Node::start(self.engines.clone(), self.history_size);
            }
            10..16 => {
                let fault = *self.random.pick(&[
                    Fault::LoseRequest,
                    Fault::LoseReply,
                    Fault::Full,
                    Fault::Delay(Duration::from_millis(2)),
                ]);
                // The second and third of the commits of a move are to the places themselves.
                let nth = 1 + self.random.below(4) as u64;
                let engine = *self.random.pick(&[&self.engines.durable, &self.engines.hot]);
                engine.plan_faults(|faults| faults.on_commit(nth, fault));
            }
            16..20 => self.publish_and_drop(at).await,
            20..55 => self.publish(at).await,
            55..88 => self.write(at).await,
            88..96 => self.relocate(at).await,
            _ => tokio::time::sleep(Duration::from_millis(1)).await,
        }
        for client in &mut self.clients {
            client.take_what_came().await;
        }
    }

    fn nothing_fails(&self) {
        for engine in [&self.engines.hot, &self.engines.durable] {
            engine.plan_faults(|_| Faults::none());
        }
    }

    /// Moves the document up or down; what is refused, it has not moved.
    async fn relocate(&mut self, at: usize) {
        let method = *self.random.pick(&["state.promote", "state.demote", "state.demote"]);
        let tier = *self.random.pick(&[Some("live"), Some("hot"), Some("durable"), None]);
        let argument = json!({ "document": DOCUMENT, "tier": tier });
        if self.random.below(2) == 0 {
            // While others go on, between two of its steps.
            for engine in [&self.engines.durable, &self.engines.hot] {
                let nth = 1 + self.random.below(4) as u64;
                let slow = Fault::Delay(Duration::from_millis(2));
                engine.plan_faults(|faults| faults.on_commit(nth, slow));
            }
            let command = json!({ "method": method, "data": argument });
            self.clients[at].send("rpc", command).await;
            return;
        }
        let answer = self.clients[at].rpc(method, argument).await;
        self.clients[at].told.moves += u64::from(answer.is_ok_and(|told| told["moved"] == true));
    }

    fn unique(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    async fn publish(&mut self, at: usize) {
        let data = json!({ "by": at, "n": self.unique() });
        let command = json!({ "channel": CHANNEL, "data": data });
        let outcome = self.clients[at].ask("publish", command).await;
        self.model.published(at, data, outcome.is_ok());
    }

    /// Whether it was published, nobody knows.
    async fn publish_and_drop(&mut self, at: usize) {
        let data = json!({ "by": at, "n": self.unique() });
        self.clients[at].send("publish", json!({ "channel": CHANNEL, "data": data })).await;
        self.clients[at].drop_connection();
        self.model.published(at, data, false);
    }

    async fn write(&mut self, at: usize) {
        let key = *self.random.pick(&KEYS);
        let number = self.unique();
        let if_revision = match self.random.below(3) {
            0 => Some(self.clients[at].revision(key)),
            _ => None,
        };
        let method = *self.random.pick(&["state.put", "state.put", "state.patch", "state.delete"]);
        let mut argument = json!({ "document": DOCUMENT, "key": key });
        let value = json!({ "n": number, *self.random.pick(&["x", "y"]): number });
        if method != "state.delete" {
            argument["value"] = value.clone();
        }
        if let Some(revision) = if_revision {
            argument["if_revision"] = json!(revision);
        }
        let answer = self.clients[at].rpc(method, argument).await;
        let outcome = match answer {
            Ok(applied) => Outcome::Done {
                epoch: applied["epoch"].as_str().unwrap().to_owned(),
                revision: applied["revision"].as_u64().unwrap(),
                value: applied.get("value").cloned(),
            },
            Err(Some(404 | 409)) => Outcome::Refused,
            Err(_) => Outcome::Unknown,
        };
        if let Outcome::Done { revision, .. } = outcome {
            self.clients[at].wrote(key, revision);
        }
        self.model.wrote(Written { key, method, value, if_revision, outcome });
    }

    /// Brings everybody together, and compares.
    async fn end(&mut self) {
        self.nothing_fails();
        for client in &mut self.clients {
            client.connect_at_last(&self.node, self.history_size).await;
        }
        let mut witness = Follower::new(CLIENTS);
        witness.connect_at_last(&self.node, self.history_size).await;
        let history = json!({ "channel": CHANNEL, "limit": -1 });
        let history = witness.ask("history", history).await.unwrap();
        let changes = json!({ "document": DOCUMENT, "limit": 1000 });
        let changes = witness.rpc("state.history", changes).await.unwrap();
        let snapshot = witness.rpc("state.get", json!({ "document": DOCUMENT })).await.unwrap();
        let all = |of: &Json, name: &str| of[name].as_array().cloned().unwrap_or_default();
        let (published, entries) = (all(&history, "publications"), all(&snapshot, "entries"));
        self.model.check_publications(&published, self.history_size >= 1_000);
        let lineage = json!({ "document": DOCUMENT, "limit": 1000 });
        let lineage = witness.rpc("state.lineage", lineage).await.unwrap();
        let lost = Lost::of(&all(&lineage, "moves"));
        assert!(lost.count() <= self.kills, "{lineage}");
        self.clients[0].told.lives += lost.count() as u64;
        self.model.check_writes(&all(&changes, "entries"), &entries, &lost);
        let offset = history["offset"].as_u64().unwrap_or(0);
        for client in &mut self.clients {
            client.catch_up(offset, &entries).await;
            client.check_log(&published);
        }
    }
}

#[test]
fn whatever_happens_nothing_acknowledged_is_lost() {
    let count: u64 =
        std::env::var("CROSSTOWN_HISTORIES").map_or(300, |text| text.parse().expect("a number"));
    let seed = Random::seed();
    println!("CROSSTOWN_SEED={seed}");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut told = follower::Told::default();
    for number in 0..count {
        let mut random = Random::new(seed).branch(number);
        let steps = 8 + random.below(40);
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            runtime.block_on(async {
                let mut world = World::new(random);
                for _ in 0..steps {
                    world.step().await;
                }
                world.end().await;
                world.node.kill();
                world.clients.iter().fold(follower::Told::default(), |all, one| all + one.told)
            })
        }));
        match outcome {
            Ok(of_one) => told = told + of_one,
            Err(_) => panic!("history {number} of seed {seed}, of {steps} steps"),
        }
    }
    println!("{count} histories: {told:?}");
    // A run in which nothing went wrong shows nothing.
    assert!(told.recovered > 0 && told.synced > 0 && told.connections > count, "{told:?}");
    assert!(count < 100 || (told.moves > count / 8 && told.lives > 0), "{told:?}");
}

//! A caller who asks both nodes for more than a shared limit lets in.

use super::ground::World;
use http::Method;
use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

const RATE: u64 = 50;
const BURST: u64 = 20;
/// What one fault may let in beyond the limit: an owner that is lost takes two seconds of its
/// count along, and a node without an owner begins with a share of its own.
const EXCESS_OF_A_FAULT: u64 = 2 * RATE + BURST;

/// There is no such service: 502 is what was let in.
pub(super) const CONFIG: &str = "
[[limits]]
name = \"probe\"
per = \"user\"
requests = 50
period = \"1s\"
burst = 20
routes = [\"probe\"]
[[routes]]
name = \"probe\"
service = \"nobody\"
prefix = \"/probe\"
[services.nobody]
instances = [\"http://127.0.0.1:9\"]
";

pub(super) struct Prober {
    world: Arc<World>,
    begun: Instant,
    let_in: u64,
    refused: u64,
    unanswered: u64,
}

impl Prober {
    pub(super) fn new(world: Arc<World>) -> Self {
        Self { world, begun: Instant::now(), let_in: 0, refused: 0, unanswered: 0 }
    }

    pub(super) async fn work(mut self) -> String {
        let user = self.world.client(super::TENANTS[0], super::USERS[1]);
        while !self.world.is_quiet() {
            for client in &user.by_token {
                let asked = client.call(Method::POST, "/probe", None);
                let answer = tokio::time::timeout(Duration::from_millis(500), asked).await;
                match answer.ok().and_then(Result::ok).map(|answer| answer.status.as_u16()) {
                    Some(502) => self.let_in += 1,
                    Some(429) => self.refused += 1,
                    // It may have been let in, which counts against nobody but this caller.
                    None => self.unanswered += 1,
                    Some(status) => self.world.wrong(format!("the probe got {status}")),
                }
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let limit = BURST + (RATE as f64 * self.begun.elapsed().as_secs_f64()).ceil() as u64;
        let most = limit + self.world.faults.load(Ordering::SeqCst) as u64 * EXCESS_OF_A_FAULT;
        let Self { let_in, refused, unanswered, .. } = self;
        let said = format!(
            "limit: {let_in} let in of {limit} (at most {most} with these faults), {refused} \
             refused, {unanswered} without an answer"
        );
        if let_in > most || refused == 0 {
            self.world.wrong(said.clone());
        }
        said
    }
}

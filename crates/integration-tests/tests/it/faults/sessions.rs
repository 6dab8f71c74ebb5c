//! Sessions made on one node, used on the other, and ended.

use super::{
    ground::World,
    writer::{answered, excused},
};
use client::{Client, Error};
use integration_tests::Random;
use serde_json::{Value as Json, json};
use std::{sync::Arc, time::Duration};

const PATH: &str = "/crosstown/v1/sessions";
const WHOAMI: &str = "/crosstown/v1/whoami";
const LIVE_MAX: usize = 50;

/// A session that was acknowledged.
pub(super) struct Session {
    id: String,
    token: String,
}

pub(super) struct Sessions {
    world: Arc<World>,
    random: Random,
    tenant: &'static str,
    live: Vec<Session>,
    ended: Vec<Session>,
    count: u64,
}

impl Sessions {
    pub(super) fn new(world: Arc<World>, tenant: &'static str, random: Random) -> Self {
        Self { world, random, tenant, live: Vec::new(), ended: Vec::new(), count: 0 }
    }

    pub(super) async fn work(mut self) -> Self {
        let user = self.world.client(self.tenant, super::USERS[0]);
        while !self.world.is_quiet() {
            let at = self.random.below(2);
            if self.live.len() < LIVE_MAX && self.random.percent(60) {
                // Each of its own user: those without an answer may exist, and stay.
                self.count += 1;
                let (path, nothing) = (format!("{PATH}?user=s{}", self.count), json!({}));
                let made = user.service[at].post::<Json>(&path, &nothing);
                if let Some(made) = self.told(answered(made).await) {
                    let text = |name: &str| made[name].as_str().unwrap().to_owned();
                    let session = Session { id: text("id"), token: text("token") };
                    // What one node has acknowledged is true on the other.
                    let who = whoami(&self.world.bases[1 - at], &session).await;
                    self.told(who);
                    self.live.push(session);
                }
            } else if !self.live.is_empty() {
                let session = self.live.swap_remove(self.random.below(self.live.len()));
                let path = format!("{PATH}/{}", session.id);
                match answered(user.service[at].delete(&path)).await {
                    Ok(()) => self.ended.push(session),
                    // It may have ended or not, and is asked for no more.
                    Err(error) => drop(self.told::<()>(Err(error))),
                }
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        self
    }

    fn told<T>(&self, answer: Result<T, Error>) -> Option<T> {
        match answer {
            Ok(told) => Some(told),
            Err(error) => {
                if !excused(&error) {
                    self.world.wrong(format!("sessions of {}: {error}", self.tenant));
                }
                None
            }
        }
    }

    /// Every node knows each session that is live, and none that was ended.
    pub(super) async fn audit(&self) -> (usize, usize) {
        for base in &self.world.bases {
            for session in &self.live {
                match whoami(base, session).await {
                    Ok(who) if who["session"] == session.id && who["tenant"] == self.tenant => {}
                    other => self.world.wrong(format!("session {}: {other:?}", session.id)),
                }
            }
            for session in &self.ended {
                match whoami(base, session).await {
                    Err(Error::Refused { status: 401, .. }) => {}
                    other => self.world.wrong(format!("ended {}: {other:?}", session.id)),
                }
            }
        }
        (self.live.len(), self.ended.len())
    }
}

async fn whoami(base: &str, session: &Session) -> Result<Json, Error> {
    let client = Client::new(base, &session.token)?;
    answered(client.get::<Json>(WHOAMI)).await
}

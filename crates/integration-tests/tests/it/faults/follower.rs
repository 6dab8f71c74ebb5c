//! A client on a socket, which comes back by any node and takes up where it was.

use super::ground::{Reach, User, World};
use integration_tests::{Random, Socket};
use serde_json::{Value as Json, json};
use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

const BACKOFF_MAX: Duration = Duration::from_secs(1);
const CONNECT_WITHIN: Duration = Duration::from_secs(3);
/// A client that hears nothing for so long, not even a ping, comes anew.
const SILENCE_MAX: Duration = Duration::from_secs(15);
const STAYS_MIN: Duration = Duration::from_secs(2);

/// A channel as it was seen.
pub(super) struct Track {
    channel: String,
    epoch: Option<Json>,
    /// The first has offset 1.
    pub(super) items: Vec<Json>,
}

/// What a follower saw.
pub(super) struct Seen {
    pub(super) user: Arc<User>,
    pub(super) news: Track,
    pub(super) state: Track,
    pub(super) connections: usize,
    pub(super) recovered: usize,
}

pub(super) struct Follower {
    world: Arc<World>,
    random: Random,
    seen: Seen,
}

impl Follower {
    pub(super) fn new(world: Arc<World>, user: Arc<User>, random: Random) -> Self {
        let track = |channel| Track { channel, epoch: None, items: Vec::new() };
        let news = track(format!("news:{}", user.name));
        let state = track(format!("state:user:{}", user.name));
        let seen = Seen { user, news, state, connections: 0, recovered: 0 };
        Self { world, random, seen }
    }

    pub(super) async fn work(mut self) -> Seen {
        let mut backoff = Duration::from_millis(50);
        while !self.world.is_over() {
            let base = self.world.bases[self.random.below(2)].clone();
            let before = self.seen.connections;
            self.follow(&base).await;
            self.seen.user.connected.store(false, Ordering::SeqCst);
            let came = self.seen.connections > before;
            backoff = if came { Duration::from_millis(50) } else { backoff * 2 }.min(BACKOFF_MAX);
            let part = Duration::from_millis(self.random.next() % 50);
            tokio::time::sleep(backoff + part).await;
        }
        self.seen
    }

    /// Until the connection ends.
    async fn follow(&mut self, base: &str) {
        let user = self.seen.user.clone();
        let connected = async {
            let mut socket = Socket::try_open(base).await.ok()?;
            socket.ask("connect", json!({ "token": user.token })).await.ok()?;
            let news = socket.ask("subscribe", self.seen.news.wish()).await.ok()?;
            let state = socket.ask("subscribe", self.seen.state.wish()).await.ok()?;
            Some((socket, news, state))
        };
        let Ok(Some((mut socket, news, state))) =
            tokio::time::timeout(CONNECT_WITHIN, connected).await
        else {
            return;
        };
        self.seen.connections += 1;
        self.start(news, false);
        self.start(state, true);
        user.connected.store(true, Ordering::SeqCst);
        // Now and then it goes for no reason, and comes back like a client that moves.
        let leaves = Instant::now() + STAYS_MIN + Duration::from_millis(self.random.next() % 8_000);
        while !self.world.is_over() && Instant::now() < leaves {
            let Ok(push) = tokio::time::timeout(SILENCE_MAX, socket.push()).await else { return };
            // Without a publication it is the end of the connection, or of a subscription.
            if push["pub"].is_null() {
                return;
            }
            let is_state = push["channel"] == self.seen.state.channel;
            self.take(&push["pub"], is_state);
        }
    }

    fn start(&mut self, start: Json, is_state: bool) {
        let track = if is_state { &mut self.seen.state } else { &mut self.seen.news };
        if let Some(epoch) = &track.epoch {
            if start["recovered"] != true || start["epoch"] != *epoch {
                let (channel, known) = (&track.channel, track.items.len());
                self.world.wrong(format!("{channel} after {known} of {epoch}: {start}"));
            }
            self.seen.recovered += 1;
        } else {
            assert_eq!(start["offset"].as_u64().unwrap_or(0), 0, "followed from the first on");
        }
        track.epoch = Some(start["epoch"].clone());
        for publication in start["publications"].as_array().into_iter().flatten() {
            self.take(publication, is_state);
        }
    }

    fn take(&mut self, publication: &Json, is_state: bool) {
        let user = self.seen.user.clone();
        let track = if is_state { &mut self.seen.state } else { &mut self.seen.news };
        let (offset, data) = (publication["offset"].as_u64(), &publication["data"]);
        if offset != Some(track.items.len() as u64 + 1) {
            let known = track.items.len();
            self.world.wrong(format!("{}: {offset:?} came after {known}", track.channel));
        }
        let mark = if is_state { &data["value"] } else { data };
        if mark["tenant"] != user.tenant {
            self.world.wrong(format!("{} of {}: {data}", track.channel, user.tenant));
        }
        track.items.push(data.clone());
        let told = |reach: &Reach, to: Option<u64>| {
            reach.seen.fetch_max(to.unwrap_or(0), Ordering::SeqCst);
        };
        if is_state {
            told(&user.state, data["revision"].as_u64());
        } else {
            told(&user.news, offset);
        }
    }
}

impl Track {
    fn wish(&self) -> Json {
        let mut wish = json!({ "channel": self.channel, "recoverable": true });
        if let Some(epoch) = &self.epoch {
            wish["recover"] = true.into();
            wish["epoch"] = epoch.clone();
            wish["offset"] = self.items.len().into();
        }
        wish
    }
}

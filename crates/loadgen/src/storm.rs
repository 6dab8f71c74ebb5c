//! Many connections that are cut and come back at once, and recover what was published while they
//! were away.

use crate::{
    follow::Follow,
    histogram::Histogram,
    place::Place,
    publishers::{Publishers, Schedule},
    wire::Seat,
};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value as Json, json};
use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};
use tokio_tungstenite::tungstenite::Message;

/// How long all may take to be whole.
const WITHIN: Duration = Duration::from_secs(60);
/// Connections that begin at the very first at a time; later, all do.
const BEGINNING: usize = 500;
/// Publications, more than a round can last.
const ENDLESS: u64 = 1 << 40;
/// How long somebody waits who was sent away, as `centrifuge-js` does: half a second, doubled each
/// time, less a random part, at most 20 s.
const BACK_OFF: Duration = Duration::from_millis(500);
const BACK_OFF_MAX: Duration = Duration::from_secs(20);

/// One subscriber, and what it knows.
#[derive(Debug)]
struct Client {
    seat: Seat,
    follow: Mutex<Follow>,
}

/// How a return goes.
#[derive(Debug)]
struct Progress {
    began: Instant,
    whole: AtomicU64,
    /// Attempts that failed.
    retries: AtomicU64,
    times: Mutex<Histogram>,
}

/// Subscribers of rooms, with those who publish to them.
#[derive(Debug)]
pub(crate) struct Storm {
    place: Place,
    clients: Vec<Arc<Client>>,
    tasks: Vec<JoinHandle<()>>,
    publishers: Arc<Publishers>,
    rate: u64,
}

impl Storm {
    /// Opens all connections for the first time.
    ///
    /// # Errors
    /// That they did not open within a minute.
    pub(crate) async fn open(
        place: Place,
        seats: Vec<Seat>,
        publishers: Publishers,
        rate: u64,
    ) -> Result<Self, String> {
        let client = |seat| Arc::new(Client { seat, follow: Mutex::default() });
        let clients = seats.into_iter().map(client).collect();
        let publishers = Arc::new(publishers);
        let mut storm = Self { place, clients, tasks: Vec::new(), publishers, rate };
        let progress = Arc::new(Progress::new());
        for at in 0..storm.clients.len() {
            storm.come(at, &progress);
            while storm.tasks.len() >= progress.whole.load(Relaxed) as usize + BEGINNING {
                sleep(Duration::from_millis(1)).await;
                if progress.began.elapsed() > WITHIN {
                    return Err("not all connections opened within a minute".into());
                }
            }
        }
        storm.all_whole(&progress).await?;
        Ok(storm)
    }

    /// Cuts all connections while publications go on, lets all come back at once after `away`, and
    /// tells how that went once nothing is on its way any more.
    ///
    /// # Errors
    /// That not all were whole within a minute.
    pub(crate) async fn round(&mut self, away: Duration) -> Result<Json, String> {
        let before = self.sum();
        let refused = self.publishers.refused();
        let count = |publishers: &Publishers| -> u64 {
            (0..publishers.channels().len()).map(|channel| publishers.published(channel)).sum()
        };
        let published = count(&self.publishers);
        let without_end = Schedule { rate: self.rate, count: ENDLESS, bytes: 64 };
        let publishers = self.publishers.clone();
        let progress = tokio::select! {
            () = publishers.run(without_end, Instant::now(), 0) => Err("it has no end".into()),
            progress = self.cut_and_return(away) => progress,
        }?;
        self.settle().await;
        let after = self.sum();
        let missing: u64 = self
            .clients
            .iter()
            .enumerate()
            .map(|(at, client)| {
                let published = self.publishers.published(at % self.publishers.channels().len());
                published.saturating_sub(client.follow().offset)
            })
            .sum();
        let times = std::mem::take(&mut *progress.times.lock().expect("nobody panics with it"));
        Ok(json!({
            "connections": self.clients.len(),
            "whole_ms_p50": times.quantile(0.5) / 1_000,
            "whole_ms_last": times.quantile(1.0) / 1_000,
            "published": count(&self.publishers) - published,
            "caught_up": after.caught_up - before.caught_up,
            "lost": after.lost - before.lost + missing,
            "repeated": after.repeated - before.repeated,
            "unrecovered": after.unrecovered - before.unrecovered,
            "retries": progress.retries.load(Relaxed),
            "refused": self.publishers.refused() - refused,
        }))
    }

    async fn cut_and_return(&mut self, away: Duration) -> Result<Arc<Progress>, String> {
        sleep(Duration::from_secs(1)).await;
        for task in self.tasks.drain(..) {
            task.abort();
        }
        sleep(away).await;
        let progress = Arc::new(Progress::new());
        for at in 0..self.clients.len() {
            self.come(at, &progress);
        }
        self.all_whole(&progress).await?;
        sleep(Duration::from_secs(1)).await;
        Ok(progress)
    }

    fn come(&mut self, at: usize, progress: &Arc<Progress>) {
        let staying = stay(self.place, self.clients[at].clone(), at as u64, progress.clone());
        self.tasks.push(tokio::spawn(staying));
    }

    async fn all_whole(&self, progress: &Progress) -> Result<(), String> {
        let all = self.clients.len() as u64;
        let waiting = async {
            while progress.whole.load(Relaxed) < all {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(WITHIN, waiting).await.map_err(|_| {
            let (whole, retries) = (progress.whole.load(Relaxed), progress.retries.load(Relaxed));
            format!("{whole} of {all} were whole after a minute, with {retries} attempts repeated")
        })
    }

    /// Waits until each has what was published, at most 5 s.
    async fn settle(&self) {
        for _ in 0..50 {
            sleep(Duration::from_millis(100)).await;
            let rooms = self.publishers.channels().len();
            let has_all = |(at, client): (usize, &Arc<Client>)| {
                client.follow().offset >= self.publishers.published(at % rooms)
            };
            if self.clients.iter().enumerate().all(has_all) {
                return;
            }
        }
    }

    fn sum(&self) -> Follow {
        let mut sum = Follow::default();
        for client in &self.clients {
            let follow = client.follow();
            sum.lost += follow.lost;
            sum.repeated += follow.repeated;
            sum.caught_up += follow.caught_up;
            sum.unrecovered += follow.unrecovered;
        }
        sum
    }
}

impl Progress {
    fn new() -> Self {
        Self {
            began: Instant::now(),
            whole: AtomicU64::new(0),
            retries: AtomicU64::new(0),
            times: Mutex::default(),
        }
    }
}

impl Client {
    fn follow(&self) -> std::sync::MutexGuard<'_, Follow> {
        self.follow.lock().expect("nobody panics with it")
    }

    /// `connect` and `subscribe`, in one frame.
    fn commands(&self) -> String {
        let follow = self.follow();
        let mut subscribe = json!({ "channel": self.seat.channels[0], "recoverable": true });
        if !follow.epoch.is_empty() {
            subscribe["recover"] = true.into();
            subscribe["epoch"] = follow.epoch.clone().into();
            subscribe["offset"] = follow.offset.into();
        }
        let connect = json!({ "id": 1, "connect": { "token": self.seat.token } });
        format!("{connect}\n{}", json!({ "id": 2, "subscribe": subscribe }))
    }
}

/// Comes until it is let in, and then again whenever the connection ends.
async fn stay(place: Place, client: Arc<Client>, number: u64, progress: Arc<Progress>) {
    for attempt in 0.. {
        let _ = once(place, &client, &progress).await;
        progress.retries.fetch_add(1, Relaxed);
        sleep(back_off(number, attempt)).await;
    }
}

async fn once(place: Place, client: &Client, progress: &Progress) -> Result<(), String> {
    let mut socket = place.connect().await?;
    let wrong = |error| format!("{error}");
    socket.send(Message::text(client.commands())).await.map_err(wrong)?;
    while let Some(message) = socket.next().await {
        let Message::Text(text) = message.map_err(wrong)? else { continue };
        for line in text.split('\n') {
            if line == "{}" {
                socket.send(Message::text("{}")).await.map_err(wrong)?;
                continue;
            }
            let reply: Json = serde_json::from_str(line).map_err(|error| error.to_string())?;
            if let Some(error) = reply.get("error") {
                return Err(error.to_string());
            }
            if let Some(offset) = reply["push"]["pub"]["offset"].as_u64() {
                client.follow().published(offset);
            } else if reply["id"] == 2 {
                client.follow().subscribed(&reply["subscribe"]);
                let took = progress.began.elapsed().as_micros() as u64;
                progress.times.lock().expect("nobody panics with it").record(took);
                progress.whole.fetch_add(1, Relaxed);
            }
        }
    }
    Err("it ended".into())
}

/// How long client `number` waits after its attempt `attempt`.
fn back_off(number: u64, attempt: u32) -> Duration {
    let most = BACK_OFF.saturating_mul(1 << attempt.min(10)).min(BACK_OFF_MAX);
    // SplitMix64, so that runs are alike.
    let mut mixed = (number << 8 | u64::from(attempt)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    most.mul_f64((mixed >> 11) as f64 / (1_u64 << 53) as f64).max(BACK_OFF / 5)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_sent_away_waits_longer_each_time_and_not_as_long_as_others() {
        let mean = |attempt| {
            let all: Duration = (0..1_000).map(|number| back_off(number, attempt)).sum();
            all / 1_000
        };
        assert!(mean(0) > Duration::from_millis(200) && mean(0) < Duration::from_millis(320));
        assert!(mean(3) > mean(0) * 6);
        assert!(back_off(7, 100) <= BACK_OFF_MAX);
    }
}

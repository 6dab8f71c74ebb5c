//! Many connections that listen, and what they hear.

use crate::{
    histogram::Histogram,
    place::{Place, Socket},
    wire::{Seat, sent},
};
use futures_util::{SinkExt, StreamExt};
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};
use tokio::{
    sync::Semaphore,
    task::{AbortHandle, JoinHandle},
};
use tokio_tungstenite::tungstenite::Message;

/// Connections that are being opened at a time.
const OPENING: usize = 64;

/// What all connections heard.
#[derive(Debug)]
pub(crate) struct Tally {
    /// Publications are due in microseconds since then.
    pub(crate) began: Instant,
    pub(crate) delivered: AtomicU64,
    pub(crate) pings: AtomicU64,
    /// Connections that ended by themselves.
    pub(crate) lost: AtomicU64,
    latencies: Mutex<Histogram>,
}

impl Tally {
    pub(crate) fn new() -> Self {
        Self {
            began: Instant::now(),
            delivered: AtomicU64::new(0),
            pings: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            latencies: Mutex::new(Histogram::default()),
        }
    }

    pub(crate) fn now(&self) -> u64 {
        self.began.elapsed().as_micros() as u64
    }

    /// Begins anew with latencies, and returns those until now.
    pub(crate) fn take_latencies(&self) -> Histogram {
        std::mem::take(&mut *self.latencies.lock().expect("nobody panics with it"))
    }

    fn hear(&self, text: &str) {
        let now = self.now();
        let mut delivered = 0;
        for due in sent(text) {
            let mut latencies = self.latencies.lock().expect("nobody panics with it");
            latencies.record(now.saturating_sub(due));
            delivered += 1;
        }
        self.delivered.fetch_add(delivered, Relaxed);
    }
}

/// One connection.
#[derive(Debug)]
struct Member {
    task: AbortHandle,
    stalled: Arc<AtomicBool>,
}

/// Connections that listen.
#[derive(Debug)]
pub(crate) struct Crowd {
    place: Place,
    seats: Vec<Seat>,
    members: Vec<Member>,
    pub(crate) tally: Arc<Tally>,
}

impl Crowd {
    /// Opens a connection for each seat.
    ///
    /// # Errors
    /// The first that could not be opened.
    pub(crate) async fn open(place: Place, seats: Vec<Seat>) -> Result<Self, String> {
        let tally = Arc::new(Tally::new());
        let members = open(place, &seats, &tally).await?;
        Ok(Self { place, seats, members, tally })
    }

    /// How many that read are in each channel.
    pub(crate) fn readers(&self) -> HashMap<&str, u64> {
        let mut readers = HashMap::new();
        for (seat, member) in self.seats.iter().zip(&self.members) {
            for channel in &seat.channels {
                *readers.entry(channel.as_str()).or_default() +=
                    u64::from(!member.stalled.load(Relaxed));
            }
        }
        readers
    }

    /// Lets `count` connections, evenly spread, read no more.
    pub(crate) fn stall(&self, count: usize) {
        let apart = (self.members.len() / count.max(1)).max(1);
        for member in self.members.iter().step_by(apart).take(count) {
            member.stalled.store(true, Relaxed);
        }
    }

    /// Opens those anew that read no more.
    ///
    /// # Errors
    /// The first that could not be opened.
    pub(crate) async fn restore(&mut self) -> Result<(), String> {
        for (seat, member) in self.seats.iter().zip(&mut self.members) {
            if member.stalled.load(Relaxed) {
                member.task.abort();
                let opened = open(self.place, std::slice::from_ref(seat), &self.tally).await?;
                *member = opened.into_iter().next().ok_or("no connection was opened")?;
            }
        }
        Ok(())
    }
}

async fn open(place: Place, seats: &[Seat], tally: &Arc<Tally>) -> Result<Vec<Member>, String> {
    let room = Arc::new(Semaphore::new(OPENING));
    let mut opening: Vec<JoinHandle<Result<Member, String>>> = Vec::with_capacity(seats.len());
    for seat in seats {
        let permit = room.clone().acquire_owned().await.map_err(|error| error.to_string())?;
        let (seat, tally) = (seat.clone(), tally.clone());
        opening.push(tokio::spawn(async move {
            let opened = place.open(&seat).await;
            drop(permit);
            let (socket, stalled) = (opened?, Arc::new(AtomicBool::new(false)));
            let listening = listen(socket, place, tally, stalled.clone());
            Ok(Member { task: tokio::spawn(listening).abort_handle(), stalled })
        }));
    }
    let mut members = Vec::with_capacity(seats.len());
    for opened in opening {
        members.push(opened.await.map_err(|error| error.to_string())??);
    }
    Ok(members)
}

async fn listen(mut socket: Socket, place: Place, tally: Arc<Tally>, stalled: Arc<AtomicBool>) {
    while let Some(Ok(message)) = socket.next().await {
        if stalled.load(Relaxed) {
            // Holds the socket and takes nothing more from it.
            std::future::pending::<()>().await;
        }
        let Message::Text(text) = message else { continue };
        tally.hear(&text);
        if let Some(pong) = place.wire.pong(&text) {
            tally.pings.fetch_add(1, Relaxed);
            if socket.send(Message::text(pong)).await.is_err() {
                break;
            }
        }
    }
    tally.lost.fetch_add(1, Relaxed);
}

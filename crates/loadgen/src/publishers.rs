//! Connections that publish: open loop, each publication at its time, whatever became of the
//! last one.

use crate::{
    place::{Place, Socket},
    wire::Seat,
};
use futures_util::{SinkExt, StreamExt};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};
use tokio_tungstenite::tungstenite::Message;

/// Publishers, or as many as there are channels.
pub(crate) const MOST: usize = 128;
/// Publications that may wait for a publisher to write them; beyond it they count as refused.
const WAITING: usize = 4096;

/// Who publishes to which channels: publisher N to the channels N, N + publishers and so on.
#[derive(Debug)]
pub(crate) struct Publishers {
    place: Place,
    channels: Vec<String>,
    publishers: Vec<mpsc::Sender<String>>,
    /// Publications of each channel.
    published: Vec<AtomicU64>,
    refused: Arc<AtomicU64>,
}

/// Publications that are due at even distances.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Schedule {
    /// Publications a second.
    pub(crate) rate: u64,
    pub(crate) count: u64,
    /// Filling of each.
    pub(crate) bytes: usize,
}

impl Schedule {
    /// When publication `number` is due, after the first.
    pub(crate) fn due(&self, number: u64) -> Duration {
        Duration::from_micros(number * 1_000_000 / self.rate)
    }
}

impl Publishers {
    /// Opens a publisher for each token, at most as many as there are channels.
    ///
    /// # Errors
    /// The first that could not be opened.
    pub(crate) async fn open(
        place: Place,
        tokens: &[String],
        channels: Vec<String>,
    ) -> Result<Self, String> {
        let refused = Arc::new(AtomicU64::new(0));
        let mut publishers = Vec::new();
        let count = tokens.len().min(channels.len());
        for (at, token) in tokens.iter().take(count).enumerate() {
            let mine = channels.iter().skip(at).step_by(count).cloned();
            let channels =
                if place.wire.publishers_subscribe() { mine.collect() } else { Vec::new() };
            let socket = place.open(&Seat { token: token.clone(), channels }).await?;
            let (say, to_say) = mpsc::channel(WAITING);
            tokio::spawn(publish(socket, place, to_say, refused.clone()));
            publishers.push(say);
        }
        let published = channels.iter().map(|_| AtomicU64::new(0)).collect();
        Ok(Self { place, channels, publishers, published, refused })
    }

    /// The channel of publication `number`.
    pub(crate) fn channel(&self, number: u64) -> usize {
        number as usize % self.channels.len()
    }

    /// Publications of a channel until now.
    pub(crate) fn published(&self, channel: usize) -> u64 {
        self.published[channel].load(Relaxed)
    }

    /// The channels' names.
    pub(crate) fn channels(&self) -> &[String] {
        &self.channels
    }

    /// Publications that were refused, and publishers that ended, until now.
    pub(crate) fn refused(&self) -> u64 {
        self.refused.load(Relaxed)
    }

    /// Publishes by schedule, or until dropped. The first is due at `first`, which is `sent` on the tally's clock.
    pub(crate) async fn run(&self, schedule: Schedule, first: Instant, sent: u64) {
        for number in 0..schedule.count {
            let due = schedule.due(number);
            if first + due > Instant::now() {
                sleep_until(first + due).await;
            }
            let at = self.channel(number);
            let sent = sent + due.as_micros() as u64;
            let text = self.place.wire.publication(&self.channels[at], sent, schedule.bytes);
            match self.publishers[at % self.publishers.len()].try_send(text) {
                Ok(()) => self.published[at].fetch_add(1, Relaxed),
                Err(_) => self.refused.fetch_add(1, Relaxed),
            };
        }
    }
}

/// Says what comes, answers pings, counts refusals; ends with `to_say`.
async fn publish(
    mut socket: Socket,
    place: Place,
    mut to_say: mpsc::Receiver<String>,
    refused: Arc<AtomicU64>,
) {
    loop {
        let say = tokio::select! {
            say = to_say.recv() => match say {
                Some(say) => say,
                None => return,
            },
            heard = socket.next() => match heard {
                Some(Ok(Message::Text(text))) => {
                    if place.wire.is_refusal(&text) {
                        refused.fetch_add(1, Relaxed);
                    }
                    let Some(pong) = place.wire.pong(&text) else { continue };
                    pong.to_owned()
                }
                Some(Ok(_)) => continue,
                Some(Err(_)) | None => break,
            },
        };
        if socket.send(Message::text(say)).await.is_err() {
            break;
        }
    }
    refused.fetch_add(1, Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn publications_are_due_at_even_distances() {
        let schedule = Schedule { rate: 2_000, count: 3, bytes: 0 };
        let due: Vec<_> = (0..3).map(|number| schedule.due(number).as_micros()).collect();
        assert_eq!(due, [0, 500, 1_000]);
    }
}

//! Sockets for clients that have none: an HTTP answer without an end for what the node says,
//! and a request of its own for what the client says ("emulation").
//!
//! The answer to `connect` names the node and, by a secret, the connection. So that second
//! request may reach any node, which passes it on: no load balancer has to know.

use bytes::Bytes;
use clock::Clock;
use parking_lot::Mutex;
use protocol::{Code, Problem, client::Encoding};
use std::{collections::HashMap, sync::Arc, time::Duration};
use tokio::sync::mpsc;

/// Requests of a client that wait for its connection.
const WAITING: usize = 16;
/// How long one more may wait for room.
const PATIENCE: Duration = Duration::from_secs(5);

/// How a stream is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Server-sent events, JSON.
    Events,
    /// JSON, one reply a line.
    Lines,
    /// Protobuf, each reply behind its length.
    Binary,
}

impl Form {
    /// The encoding of what is said.
    #[must_use]
    pub fn encoding(self) -> Encoding {
        match self {
            Self::Events | Self::Lines => Encoding::Json,
            Self::Binary => Encoding::Protobuf,
        }
    }

    /// The media type of the answer.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Events => "text/event-stream",
            Self::Lines => "application/x-ndjson",
            Self::Binary => "application/octet-stream",
        }
    }
}

/// The streams of this node, by their names. Taken once per request of a client, by any core.
#[derive(Debug, Clone, Default)]
pub(crate) struct Emulated(Arc<Mutex<HashMap<Arc<str>, mpsc::Sender<Bytes>>>>);

/// A stream's name, until dropped.
pub(crate) struct Entered {
    pub(crate) name: Arc<str>,
    all: Emulated,
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.all.0.lock().remove(&self.name);
    }
}

impl Emulated {
    /// A name that nobody guesses, and what is sent to it; `None` if there are `most` already.
    pub(crate) fn enter(
        &self,
        clock: &dyn Clock,
        most: usize,
    ) -> Option<(Entered, mpsc::Receiver<Bytes>)> {
        let secret = u128::from_be_bytes(clock::random(clock));
        let name: Arc<str> = format!("{secret:032x}").into();
        let (sender, inbox) = mpsc::channel(WAITING);
        let mut all = self.0.lock();
        if all.len() >= most {
            return None;
        }
        all.insert(name.clone(), sender);
        drop(all);
        Some((Entered { name, all: self.clone() }, inbox))
    }

    /// Hands the commands of a client to its connection.
    ///
    /// # Errors
    /// `not_found` if it has ended; `rate_limited` if it has too many already.
    pub(crate) async fn hand_on(&self, name: &str, commands: Bytes) -> Result<(), Problem> {
        let gone = || Problem::new(Code::NotFound, "there is no such stream here");
        let sender = self.0.lock().get(name).cloned().ok_or_else(gone)?;
        sender.send_timeout(commands, PATIENCE).await.map_err(|error| match error {
            mpsc::error::SendTimeoutError::Closed(_) => gone(),
            mpsc::error::SendTimeoutError::Timeout(_) => {
                Problem::new(Code::RateLimited, "the stream has too many commands to do")
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn commands_find_their_stream_as_long_as_it_is() {
        let (all, clock) = (Emulated::default(), clock::SystemClock::shared());
        let (entered, mut inbox) = all.enter(&*clock, 2).unwrap();
        let (other, _kept) = all.enter(&*clock, 2).unwrap();
        assert_ne!(entered.name, other.name);
        assert!(all.enter(&*clock, 2).is_none(), "there are two already");
        let code = |told: Result<(), Problem>| told.map_err(|problem| problem.code);
        for _ in 0..WAITING {
            assert_eq!(code(all.hand_on(&entered.name, Bytes::new()).await), Ok(()));
        }
        let full = all.hand_on(&entered.name, Bytes::new()).await;
        assert_eq!(code(full), Err(Code::RateLimited));
        assert!(inbox.recv().await.is_some());
        assert_eq!(code(all.hand_on(&entered.name, Bytes::new()).await), Ok(()));
        let name = entered.name.clone();
        drop(entered);
        assert!(all.enter(&*clock, 2).is_some(), "there is room again");
        assert_eq!(code(all.hand_on(&name, Bytes::new()).await), Err(Code::NotFound));
        assert_eq!(code(all.hand_on("", Bytes::new()).await), Err(Code::NotFound));
    }
}

//! What is held back while the server's own subscriptions begin: `connect` is answered with all
//! of them, and before anything else.

use crate::{channel::Channel, connection::Connection, frame::Frame, queue::Full};
use protocol::client::{Begun, Body, ConnectResult, Push, Reply, SubscribeResult};

/// What a publication takes in an answer beside its data, about.
const PUBLICATION_BYTES: usize = 64;

/// An answer to `connect` that waits for subscriptions.
pub(super) struct Opening {
    id: u32,
    result: ConnectResult,
    /// How many have not begun yet.
    left: usize,
    /// What comes after the answer.
    held: Vec<Frame>,
    bytes: usize,
    /// Bytes of the publications in the answer.
    recovered: usize,
}

impl Opening {
    pub(super) fn hold(&mut self, frame: Frame, bytes_max: usize) -> Result<(), Full> {
        self.bytes += frame.len();
        if self.bytes > bytes_max {
            return Err(Full);
        }
        self.held.push(frame);
        Ok(())
    }
}

/// Tells a client of a subscription that it did not ask for.
fn begun(channel: &Channel, result: &SubscribeResult) -> Reply {
    let subscribe = Some(Begun {
        recoverable: result.recoverable,
        epoch: result.epoch.clone(),
        offset: result.offset,
        positioned: result.positioned,
    });
    let push = Push { channel: channel.name().to_owned(), subscribe, ..Push::default() };
    Reply { id: 0, body: Body::Push(push) }
}

impl Connection {
    /// Answers `connect` once `subscriptions` have begun.
    pub(super) fn open(&self, id: u32, result: ConnectResult, subscriptions: usize) {
        if subscriptions == 0 {
            return self.reply(id, Body::Connect(result));
        }
        let opening =
            Opening { id, result, left: subscriptions, held: Vec::new(), bytes: 0, recovered: 0 };
        *self.opening.borrow_mut() = Some(Box::new(opening));
    }

    /// Whether `connect` is not answered yet.
    pub(super) fn is_opening(&self) -> bool {
        self.opening.borrow().is_some()
    }

    /// One of the server's own subscriptions has begun.
    pub(super) fn began(&self, channel: &Channel, mut result: SubscribeResult) {
        {
            let mut opening = self.opening.borrow_mut();
            let Some(waiting) = opening.as_mut() else {
                drop(opening);
                return self.say(&begun(channel, &result));
            };
            let told = result.publications.iter();
            let bytes: usize = told.map(|one| one.data.get().len() + PUBLICATION_BYTES).sum();
            if waiting.recovered + bytes > self.queue.bytes_max() / 2 {
                // An answer that fits no queue would close the connection, again and again.
                result.publications.clear();
                result.recovered = false;
            } else {
                waiting.recovered += bytes;
            }
            waiting.result.subs.insert(channel.name().to_owned(), result);
        }
        self.one_less();
    }

    /// The client begins one of the server's own subscriptions by itself.
    pub(super) fn begins_by_itself(&self) {
        if self.is_opening() {
            self.one_less();
        }
    }

    /// Answers `connect` if this was the last that it waited for.
    fn one_less(&self) {
        let opened = {
            let mut opening = self.opening.borrow_mut();
            let Some(waiting) = opening.as_mut() else { return };
            waiting.left -= 1;
            if waiting.left == 0 { opening.take() } else { None }
        };
        if let Some(opened) = opened {
            let Opening { id, result, held, .. } = *opened;
            self.reply(id, Body::Connect(result));
            held.into_iter().for_each(|frame| self.push(frame));
        }
    }
}

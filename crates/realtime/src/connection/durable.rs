//! What the session of a connection keeps of its subscriptions, if it is durable.
//!
//! A position is kept once the client has it for certain: what was queued before a ping is with
//! the client once it has answered the ping. So a kept position may be older than what the client
//! has, and never newer: a client may be told something twice, and misses nothing.

use crate::{
    channel::Channel,
    connection::{Connection, State},
};
use protocol::{Code, Problem, client::SubscribeRequest};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
    sync::Arc,
};
use tokio::{runtime::Handle, sync::Mutex};
use traffic_cop::session::{Keeping, Kept, KeptPosition, Sessions};
use types::Timestamp;

/// An epoch that no channel has, so that nothing is recovered from it.
pub(super) const NO_EPOCH: &str = "-";

/// What a durable session keeps, as its newest connection knows and changes it.
pub(super) struct Durable {
    sessions: Arc<Sessions>,
    control: Handle,
    keeping: Keeping,
    /// Subscriptions that are kept at most.
    most: usize,
    entries: RefCell<BTreeMap<String, Entry>>,
    /// Of which the store does not know yet.
    changed: RefCell<BTreeSet<String>>,
    /// What was queued before the last ping.
    queued: RefCell<Vec<Queued>>,
    /// Writes come one after the other.
    turn: Mutex<()>,
    /// Another connection writes now, or the session has ended.
    is_over: Cell<bool>,
}

struct Entry {
    kept: Kept,
    /// The broker's following of the channel, and the channel's epoch there.
    live: Option<(u64, String)>,
    /// The subscription has not begun, and there was none before.
    is_new: bool,
    /// The next subscription goes on from what was queued: the position stays where it is.
    goes_on: bool,
}

/// Up to where publications of a channel were queued.
struct Queued {
    channel: String,
    life: u64,
    offset: u64,
}

/// Whether the client wants its session's subscriptions back: `{"resume": true}` in the `data` of
/// `connect`, which is the application's otherwise.
pub(super) fn wants_to_resume(data: Option<&RawValue>) -> bool {
    #[derive(Deserialize)]
    struct Wish {
        resume: bool,
    }
    let wish = data.and_then(|data| serde_json::from_str::<Wish>(data.get()).ok());
    wish.is_some_and(|wish| wish.resume)
}

impl Durable {
    pub(super) fn new(
        sessions: Arc<Sessions>,
        control: Handle,
        (keeping, kept): (Keeping, BTreeMap<String, Kept>),
        most: usize,
    ) -> Self {
        let entry =
            |(name, kept)| (name, Entry { kept, live: None, is_new: false, goes_on: false });
        Self {
            sessions,
            control,
            keeping,
            most,
            entries: RefCell::new(kept.into_iter().map(entry).collect()),
            changed: RefCell::default(),
            queued: RefCell::default(),
            turn: Mutex::default(),
            is_over: Cell::new(false),
        }
    }

    /// What is kept, by channel.
    pub(super) fn kept(&self) -> Vec<(String, Kept)> {
        let entries = self.entries.borrow();
        entries.iter().map(|(name, entry)| (name.clone(), entry.kept.clone())).collect()
    }

    /// A subscription begins, and from then on is kept. If there are too many, the oldest of which
    /// `is_followed` says no gives way.
    pub(super) fn begins(&self, name: &str, kept: Kept, is_followed: impl Fn(&str) -> bool) {
        let mut entries = self.entries.borrow_mut();
        let mut changed = self.changed.borrow_mut();
        self.queued.borrow_mut().retain(|queued| queued.channel != name);
        if let Some(entry) = entries.get_mut(name) {
            let mut kept = Kept { since: entry.kept.since, ..kept };
            if std::mem::take(&mut entry.goes_on) {
                kept.position = entry.kept.position.clone();
            }
            entry.live = None;
            if entry.kept != kept {
                entry.kept = kept;
                changed.insert(name.to_owned());
            }
            return;
        }
        if entries.len() >= self.most {
            let idle = entries.iter().filter(|(name, _)| !is_followed(name));
            let oldest = idle.min_by_key(|(_, entry)| entry.kept.since);
            if let Some(oldest) = oldest.map(|(name, _)| name.clone()) {
                entries.remove(&oldest);
                changed.insert(oldest);
            }
        }
        entries.insert(name.to_owned(), Entry { kept, live: None, is_new: true, goes_on: false });
        changed.insert(name.to_owned());
    }

    /// The broker has answered: publications come from now on.
    pub(super) fn began(&self, channel: &Channel, life: u64, epoch: &str) {
        if let Some(entry) = self.entries.borrow_mut().get_mut(channel.name()) {
            entry.live = Some((life, epoch.to_owned()));
            entry.is_new = false;
        }
    }

    /// The subscription did not begin. What was kept before stays.
    pub(super) fn failed(&self, channel: &Channel) {
        let is_new = self.entries.borrow().get(channel.name()).is_some_and(|entry| entry.is_new);
        if is_new {
            self.ends(channel.name());
        }
    }

    /// The permission of a subscription ends at another time.
    pub(super) fn renewed(&self, channel: &Channel, until: Option<Timestamp>) {
        if let Some(entry) = self.entries.borrow_mut().get_mut(channel.name()) {
            entry.kept.until = until;
            self.changed.borrow_mut().insert(channel.name().to_owned());
        }
    }

    /// The subscription is not the session's any more.
    pub(super) fn ends(&self, name: &str) {
        if self.entries.borrow_mut().remove(name).is_some() {
            self.changed.borrow_mut().insert(name.to_owned());
        }
    }

    /// A subscription is taken over by one that begins with what was not queued yet. Whether the
    /// client has what was is not known: the position stays.
    pub(super) fn goes_on(&self, name: &str) {
        if let Some(entry) = self.entries.borrow_mut().get_mut(name) {
            entry.goes_on = true;
        }
    }

    /// Where the client is in a channel, as far as is known for certain.
    pub(super) fn position(&self, name: &str) -> Option<KeptPosition> {
        self.entries.borrow().get(name)?.kept.position.clone()
    }

    /// The epoch of the channel in the broker's following `life`.
    pub(super) fn epoch(&self, name: &str, life: u64) -> Option<String> {
        let entries = self.entries.borrow();
        let (known, epoch) = entries.get(name)?.live.as_ref()?;
        (*known == life && !epoch.is_empty()).then(|| epoch.clone())
    }

    /// A ping is queued: notes what was queued before it.
    pub(super) fn pinged(&self, connection: &Connection) {
        let subscriptions = connection.subscriptions.borrow();
        let queued = subscriptions.iter().filter_map(|held| match held.state {
            // What waits for the queue to be empty comes after the ping.
            State::Live { life, offset } if held.waiting.is_none() => {
                Some(Queued { channel: held.channel.name().to_owned(), life, offset })
            }
            State::Live { .. } | State::Waiting(_) => None,
        });
        *self.queued.borrow_mut() = queued.collect();
    }

    /// The ping is answered: the client has what was queued before it.
    pub(super) fn ponged(&self) {
        let mut entries = self.entries.borrow_mut();
        for Queued { channel, life, offset } in self.queued.take() {
            let Some(entry) = entries.get_mut(&channel) else { continue };
            let Some((known, epoch)) = &entry.live else { continue };
            if *known != life || epoch.is_empty() {
                continue;
            }
            let position = Some(KeptPosition { epoch: epoch.clone(), offset });
            if entry.kept.position != position {
                entry.kept.position = position;
                self.changed.borrow_mut().insert(channel);
            }
        }
    }

    pub(super) fn has_changed(&self) -> bool {
        !self.changed.borrow().is_empty()
    }

    /// Has the store know what has changed.
    ///
    /// # Errors
    /// Those of the store; then it is tried again by the next call.
    pub(super) async fn write(&self) -> Result<(), Problem> {
        let _turn = self.turn.lock().await;
        let names = self.changed.take();
        if names.is_empty() || self.is_over.get() {
            return Ok(());
        }
        let changes: Vec<(String, Option<Kept>)> = {
            let entries = self.entries.borrow();
            let kept = |name: &String| entries.get(name).map(|entry| entry.kept.clone());
            names.iter().map(|name| (name.clone(), kept(name))).collect()
        };
        let (sessions, keeping) = (self.sessions.clone(), self.keeping.clone());
        let written = self.control.spawn(async move { sessions.keep(&keeping, changes).await });
        match written.await {
            Ok(Ok(is_mine)) => {
                self.is_over.set(!is_mine);
                Ok(())
            }
            Ok(Err(problem)) => {
                self.changed.borrow_mut().extend(names);
                Err(problem)
            }
            Err(error) => {
                tracing::error!(%error, "what a session keeps could not be written");
                self.changed.borrow_mut().extend(names);
                Err(Problem::new(Code::Internal, "the subscription could not be kept"))
            }
        }
    }

    /// Writes in the connection's own time: a client does not wait for its positions to be kept.
    pub(super) fn write_later(self: Rc<Self>) {
        tokio::task::spawn_local(async move {
            if let Err(problem) = self.write().await {
                tracing::debug!(problem.detail, "positions wait for the store");
            }
        });
    }
}

/// From where a subscription that is resumed recovers, unless the client says so itself.
pub(super) fn resume_from(kept: &Kept, request: &mut SubscribeRequest) {
    if !request.recover {
        let position = kept.position.clone();
        request.recover = true;
        (request.epoch, request.offset) = match position {
            Some(KeptPosition { epoch, offset }) => (epoch, offset),
            // The client is told that it may have missed something.
            None => (NO_EPOCH.to_owned(), 0),
        };
    }
}

//! Telling others now: publish and subscribe between nodes, at most once.
//!
//! What is told here may be lost; a reader that must have everything keeps it in a store, and
//! is told when it has to look there: [`Told::MayHaveMissed`].

use crate::{Bucket, Error, Kind, Partition, bounds};
use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use std::{
    collections::{HashMap, VecDeque},
    fmt,
    sync::{Arc, Weak},
};
use tokio::sync::Notify;
use types::TenantId;

/// Messages that wait in one subscription; beyond, all that wait are dropped, and it is told
/// that it may have missed something.
pub const SUBSCRIPTION_MESSAGES_MAX: usize = 1024;

/// A fan-out shared by the layers of a node.
pub type SharedFanout = Arc<dyn Fanout>;

/// What messages are about. Its tenant is part of it, as of everything.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Topic(Partition);

impl Topic {
    /// The topic `name` of `kind` in `tenant`.
    ///
    /// # Errors
    /// [`Error::TooLarge`] if the name is longer than [`bounds::ID_BYTES_MAX`].
    pub fn new(tenant: TenantId, kind: Kind, name: &str) -> Result<Self, Error> {
        Partition::new(tenant, kind, name).map(Self)
    }

    /// Who owns it.
    #[must_use]
    pub fn tenant(&self) -> &TenantId {
        self.0.tenant()
    }

    /// What it is for.
    #[must_use]
    pub fn kind(&self) -> &Kind {
        self.0.kind()
    }

    /// Its name within tenant and kind.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.id()
    }

    /// Where it falls.
    #[must_use]
    pub fn bucket(&self) -> Bucket {
        self.0.bucket()
    }
}

impl From<Partition> for Topic {
    /// What is told about a partition.
    fn from(partition: Partition) -> Self {
        Self(partition)
    }
}

impl AsRef<Partition> for Topic {
    fn as_ref(&self) -> &Partition {
        &self.0
    }
}

impl fmt::Debug for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// What a subscription tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// A message.
    Message {
        /// What it is about.
        topic: Topic,
        /// What it says.
        message: Bytes,
    },
    /// Something may be missing before whatever comes next: look into the store.
    MayHaveMissed,
}

/// Publishes messages to whoever is subscribed, on any node.
///
/// Every fan-out promises, and `store-conformance` checks:
/// - a message reaches a subscription at most once, and only those of its topic;
/// - once [`Fanout::subscribe`] has answered, a message that is published later comes, or
///   [`Told::MayHaveMissed`] does, before any message that was published after it;
/// - messages that one caller publishes about one topic, each after the last was answered,
///   come in that order;
/// - a slow reader holds up nobody and takes bounded memory: it misses, and is told so.
///
/// [`Told::MayHaveMissed`] may also come when nothing was missed.
#[async_trait]
pub trait Fanout: Send + Sync {
    /// Tells whoever is subscribed to `topic` now. An answer does not say that anybody is.
    ///
    /// # Errors
    /// [`Error::TooLarge`] beyond [`bounds::VALUE_BYTES_MAX`]; [`Error::Unavailable`] if it
    /// may have reached nobody, or only some.
    async fn publish(&self, topic: &Topic, message: Bytes) -> Result<(), Error>;

    /// Listens to `topics` until dropped.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if that cannot be arranged now.
    async fn subscribe(&self, topics: &[Topic]) -> Result<Subscription, Error>;
}

/// Refuses a message beyond the bounds. Every fan-out calls it first.
///
/// # Errors
/// [`Error::TooLarge`].
pub fn check_message(message: &Bytes) -> Result<(), Error> {
    let (actual, limit) = (message.len() as u64, bounds::VALUE_BYTES_MAX as u64);
    if actual > limit {
        return Err(Error::TooLarge { what: "a message", actual, limit });
    }
    Ok(())
}

/// Messages of some topics, as they come.
pub struct Subscription {
    inbox: Arc<Inbox>,
    when_dropped: Option<Box<dyn FnOnce() + Send + Sync>>,
}

impl Subscription {
    /// Waits for what is told next. Cancellation safe.
    pub async fn next(&mut self) -> Told {
        loop {
            let woken = self.inbox.wake.notified();
            if let Some(told) = self.inbox.waiting.lock().pop_front() {
                return told;
            }
            woken.await;
        }
    }

    /// For a fan-out that has to know when nobody listens any more.
    #[must_use]
    pub fn when_dropped(mut self, act: impl FnOnce() + Send + Sync + 'static) -> Self {
        self.when_dropped = Some(Box::new(act));
        self
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.inbox = Arc::default();
        if let Some(act) = self.when_dropped.take() {
            act();
        }
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription").finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
struct Inbox {
    waiting: Mutex<VecDeque<Told>>,
    wake: Notify,
}

impl Inbox {
    fn push(&self, topic: &Topic, message: &Bytes) {
        let mut waiting = self.waiting.lock();
        if waiting.len() >= SUBSCRIPTION_MESSAGES_MAX {
            // Who has to look into the store for one finds the others there as well.
            waiting.clear();
            waiting.push_back(Told::MayHaveMissed);
        }
        waiting.push_back(Told::Message { topic: topic.clone(), message: message.clone() });
        drop(waiting);
        self.wake.notify_one();
    }

    fn missed(&self) {
        let mut waiting = self.waiting.lock();
        if waiting.back() != Some(&Told::MayHaveMissed) {
            waiting.push_back(Told::MayHaveMissed);
        }
        drop(waiting);
        self.wake.notify_one();
    }
}

/// The subscriptions of one process, for a fan-out to deliver to.
#[derive(Debug, Default)]
pub struct Subscribers {
    by_topic: Mutex<HashMap<Topic, Vec<Weak<Inbox>>>>,
}

impl Subscribers {
    /// A subscription to `topics`, from now on.
    #[must_use]
    pub fn subscribe(&self, topics: &[Topic]) -> Subscription {
        let inbox = Arc::<Inbox>::default();
        let mut by_topic = self.by_topic.lock();
        let mut unlike = topics.to_vec();
        unlike.sort_unstable();
        unlike.dedup();
        for topic in unlike {
            let list = by_topic.entry(topic).or_default();
            list.retain(|weak| weak.strong_count() > 0);
            list.push(Arc::downgrade(&inbox));
        }
        Subscription { inbox, when_dropped: None }
    }

    /// Gives `message` to every subscription to `topic`.
    pub fn deliver(&self, topic: &Topic, message: &Bytes) {
        let mut by_topic = self.by_topic.lock();
        let Some(list) = by_topic.get_mut(topic) else { return };
        list.retain(|weak| weak.upgrade().inspect(|inbox| inbox.push(topic, message)).is_some());
        if list.is_empty() {
            by_topic.remove(topic);
        }
    }

    /// Tells every subscription that it may have missed something.
    pub fn missed(&self) {
        self.by_topic.lock().retain(|_, list| {
            list.retain(|weak| weak.upgrade().inspect(|inbox| inbox.missed()).is_some());
            !list.is_empty()
        });
    }

    /// Whether anybody is subscribed to `topic`.
    #[must_use]
    pub fn any(&self, topic: &Topic) -> bool {
        let mut by_topic = self.by_topic.lock();
        let Some(list) = by_topic.get_mut(topic) else { return false };
        list.retain(|weak| weak.strong_count() > 0);
        let any = !list.is_empty();
        if !any {
            by_topic.remove(topic);
        }
        any
    }
}

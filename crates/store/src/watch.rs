//! Following partitions as they change.
//!
//! An engine tells its [`Hints`] which partition changed; a [`Watcher`] then asks the engine
//! what did. A hint that is lost costs time and never data: a watcher asks again by itself
//! after [`Hints::poll_every`], if the engine may lose hints at all.

use crate::{Changes, Error, Partition, Position, SharedStore};
use parking_lot::{Mutex, RwLock};
use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{Arc, Weak},
    time::Duration,
};
use tokio::sync::Notify;

/// Who wants to know about which partition, within one process.
#[derive(Debug, Default)]
pub struct Hints {
    watchers: Mutex<HashMap<Partition, Vec<Weak<Inbox>>>>,
    poll_every: Option<Duration>,
    relays: RwLock<Vec<Relay>>,
}

/// Who is told as well, and by which name.
#[derive(Debug)]
struct Relay {
    to: Weak<Hints>,
    name: fn(&Partition) -> Option<Partition>,
}

#[derive(Debug, Default)]
struct Inbox {
    dirty: Mutex<Dirty>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct Dirty {
    order: VecDeque<Partition>,
    member: HashSet<Partition>,
}

impl Inbox {
    fn push(&self, partition: &Partition) {
        let mut dirty = self.dirty.lock();
        if dirty.member.insert(partition.clone()) {
            dirty.order.push_back(partition.clone());
        }
        drop(dirty);
        self.wake.notify_one();
    }

    fn pop(&self) -> Option<Partition> {
        let mut dirty = self.dirty.lock();
        let partition = dirty.order.pop_front()?;
        dirty.member.remove(&partition);
        Some(partition)
    }
}

impl Hints {
    /// For an engine whose hints cannot be lost.
    #[must_use]
    pub fn reliable() -> Self {
        Self::default()
    }

    /// For an engine that may lose hints: watchers ask again after `poll_every`.
    #[must_use]
    pub fn lossy(poll_every: Duration) -> Self {
        Self { poll_every: Some(poll_every), ..Self::default() }
    }

    /// Tells that `partition` changed. Engines call it once the commit can be read.
    pub fn notify(&self, partition: &Partition) {
        let mut watchers = self.watchers.lock();
        if let Some(list) = watchers.get_mut(partition) {
            list.retain(|weak| weak.upgrade().inspect(|inbox| inbox.push(partition)).is_some());
            if list.is_empty() {
                watchers.remove(partition);
            }
        }
        drop(watchers);
        for relay in self.relays.read().iter() {
            if let (Some(to), Some(name)) = (relay.to.upgrade(), (relay.name)(partition)) {
                to.notify(&name);
            }
        }
    }

    /// Hints for what lies over stores that tell these: `to` is told whatever is told here, by
    /// the name that `name` gives a partition; those without one are left out.
    pub fn relay(&self, to: &Arc<Self>, name: fn(&Partition) -> Option<Partition>) {
        let mut relays = self.relays.write();
        relays.retain(|relay| relay.to.strong_count() > 0);
        if !relays.iter().any(|relay| relay.to.as_ptr() == Arc::as_ptr(to)) {
            relays.push(Relay { to: Arc::downgrade(to), name });
        }
    }

    /// How often watchers ask by themselves, if hints may be lost.
    #[must_use]
    pub fn poll_every(&self) -> Option<Duration> {
        self.poll_every
    }

    /// Tells that any partition may have changed. Engines call it after hints may have been
    /// lost, so that nobody has to wait until watchers ask by themselves.
    pub fn notify_all(&self) {
        self.watchers.lock().retain(|partition, list| {
            list.retain(|weak| weak.upgrade().inspect(|inbox| inbox.push(partition)).is_some());
            !list.is_empty()
        });
        for to in self.relays.read().iter().filter_map(|relay| relay.to.upgrade()) {
            to.notify_all();
        }
    }

    fn add(&self, partition: &Partition, inbox: &Arc<Inbox>) {
        self.watchers.lock().entry(partition.clone()).or_default().push(Arc::downgrade(inbox));
    }

    fn remove(&self, partition: &Partition, inbox: &Arc<Inbox>) {
        let mut watchers = self.watchers.lock();
        if let Some(list) = watchers.get_mut(partition) {
            list.retain(|weak| weak.strong_count() > 0 && weak.as_ptr() != Arc::as_ptr(inbox));
            if list.is_empty() {
                watchers.remove(partition);
            }
        }
    }
}

/// Follows partitions of `store`, none at first.
#[must_use]
pub fn watch(store: SharedStore) -> Watcher {
    Watcher {
        store,
        inbox: Arc::default(),
        positions: HashMap::new(),
        unfinished: None,
        poll_every: None,
    }
}

/// Follows any number of partitions; see [`watch()`].
pub struct Watcher {
    store: SharedStore,
    inbox: Arc<Inbox>,
    positions: HashMap<Partition, Position>,
    /// Taken from the inbox, but not answered yet: `next` may be dropped while it waits.
    unfinished: Option<Partition>,
    /// The shortest that any followed partition's engine asks for.
    poll_every: Option<Duration>,
}

impl Watcher {
    /// Follows `partition` from `since`; what already lies after it is told next.
    pub fn follow(&mut self, partition: Partition, since: Position) {
        if self.positions.insert(partition.clone(), since).is_none() {
            let hints = self.store.hints(&partition);
            hints.add(&partition, &self.inbox);
            self.poll_every = self.poll_every.into_iter().chain(hints.poll_every).min();
        }
        self.inbox.push(&partition);
    }

    /// No longer follows `partition`.
    pub fn leave(&mut self, partition: &Partition) {
        if self.positions.remove(partition).is_some() {
            self.store.hints(partition).remove(partition, &self.inbox);
        }
    }

    /// Waits until a followed partition may have changed and names it, for callers that read
    /// what they need themselves. Cancellation safe.
    pub async fn touched(&mut self) -> Partition {
        loop {
            while let Some(partition) = self.unfinished.take().or_else(|| self.inbox.pop()) {
                if self.positions.contains_key(&partition) {
                    return partition;
                }
            }
            let woken = self.inbox.wake.notified();
            match self.poll_every {
                None => woken.await,
                Some(every) => {
                    if tokio::time::timeout(every, woken).await.is_err() {
                        self.positions.keys().for_each(|partition| self.inbox.push(partition));
                    }
                }
            }
        }
    }

    /// Waits for a change of a followed partition and tells what changed since it was last
    /// told. After [`Error::Lagged`] the partition is no longer followed: scan, then follow
    /// again. After another error it stays followed. Cancellation safe.
    pub async fn next(&mut self) -> (Partition, Result<Changes, Error>) {
        loop {
            let partition = self.touched().await;
            let Some(&since) = self.positions.get(&partition) else { continue };
            self.unfinished = Some(partition.clone());
            let answer = self.store.changes(&partition, since).await;
            self.unfinished = None;
            match answer {
                Ok(changes) if changes.position == since => {}
                Ok(changes) => {
                    self.positions.insert(partition.clone(), changes.position);
                    return (partition, Ok(changes));
                }
                Err(Error::Lagged { position }) => {
                    self.leave(&partition);
                    return (partition, Err(Error::Lagged { position }));
                }
                Err(error) => return (partition, Err(error)),
            }
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        for partition in self.positions.keys() {
            self.store.hints(partition).remove(partition, &self.inbox);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;
    use types::TenantId;

    fn partition(id: &str) -> Partition {
        Partition::new(TenantId::system(), Kind::new("k"), id).unwrap()
    }

    /// All that begin alike, by that beginning.
    fn beginning(of: &Partition) -> Option<Partition> {
        of.id().split_once('/').map(|(begins, _)| partition(begins))
    }

    #[test]
    fn hints_are_told_on_by_another_name() {
        let (engine, over) = (Hints::reliable(), Arc::new(Hints::reliable()));
        engine.relay(&over, beginning);
        engine.relay(&over, beginning);
        let inbox = Arc::default();
        over.add(&partition("a"), &inbox);
        engine.notify(&partition("b/1"));
        engine.notify(&partition("a"));
        assert_eq!(inbox.pop(), None);
        engine.notify(&partition("a/1"));
        assert_eq!((inbox.pop(), inbox.pop()), (Some(partition("a")), None));
        engine.notify_all();
        assert_eq!(inbox.pop(), Some(partition("a")));
        drop(over);
        engine.notify(&partition("a/1"));
        engine.relay(&Arc::new(Hints::reliable()), beginning);
        assert_eq!(engine.relays.read().len(), 1, "who is gone is forgotten");
    }
}

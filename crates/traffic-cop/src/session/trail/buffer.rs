//! What was noted of sessions and is not written yet, in bounded room.

use crate::session::trail::{Batch, Class, Item, What};
use ahash::RandomState;
use parking_lot::Mutex;
use std::{
    collections::HashMap,
    sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
};
use types::{SessionId, TenantId, Timestamp};

/// Cores that note at once seldom wait for one another.
const PARTS: usize = 16;
/// For each item that has room, sessions of which it can be told that there was none.
const SESSIONS_PER_ITEM: usize = 2;

/// Items by session. What finds no room is counted: by session, as long as there is room for that,
/// and else by tenant.
pub(super) struct Buffer {
    parts: [Mutex<Part>; PARTS],
    hasher: RandomState,
    items_max: usize,
    items: AtomicUsize,
    sessions: AtomicUsize,
    missed: AtomicU64,
    blind: Mutex<HashMap<TenantId, Missed>>,
}

#[derive(Default)]
struct Part(HashMap<(TenantId, SessionId, Class), Held, RandomState>);

#[derive(Default)]
struct Held {
    items: Vec<Item>,
    missed: Option<Missed>,
}

/// What found no room.
#[derive(Debug, Clone, Copy)]
struct Missed {
    count: u64,
    since: Timestamp,
    until: Timestamp,
}

impl Missed {
    fn more(held: &mut Option<Self>, count: u64, since: Timestamp, until: Timestamp) {
        let held = held.get_or_insert(Self { count: 0, since, until });
        held.count += count;
        held.since = held.since.min(since);
        held.until = held.until.max(until);
    }
}

impl Buffer {
    pub(super) fn new(items_max: usize) -> Self {
        Self {
            parts: Default::default(),
            hasher: RandomState::new(),
            items_max,
            items: AtomicUsize::new(0),
            sessions: AtomicUsize::new(0),
            missed: AtomicU64::new(0),
            blind: Mutex::default(),
        }
    }

    pub(super) fn missed(&self) -> u64 {
        self.missed.load(Relaxed)
    }

    pub(super) fn put(&self, tenant: &TenantId, session: SessionId, class: Class, item: Item) {
        let part = self.hasher.hash_one(session) as usize % PARTS;
        let (count, since, until) = match &item.what {
            What::Gap { missing, since, .. } | What::SocketGap { missing, since } => {
                (Some(*missing), *since, item.at)
            }
            What::Request(_)
            | What::SocketOpened { .. }
            | What::SocketClosed { .. }
            | What::Subscribed { .. }
            | What::Unsubscribed { .. }
            | What::State { .. }
            | What::Published { .. }
            | What::Letter { .. } => (None, item.at, item.at),
        };
        let has_room = count.is_none() && self.items.load(Relaxed) < self.items_max;
        let mut part = self.parts[part].lock();
        let key = (tenant.clone(), session, class);
        let is_known = part.0.contains_key(&key);
        let knowable = self.items_max.saturating_mul(SESSIONS_PER_ITEM);
        if !is_known && !has_room && self.sessions.load(Relaxed) >= knowable {
            drop(part);
            self.missed.fetch_add(count.unwrap_or(1), Relaxed);
            return self.blinded(tenant.clone(), count.unwrap_or(1), since, until);
        }
        self.sessions.fetch_add(usize::from(!is_known), Relaxed);
        let held = part.0.entry(key).or_default();
        if has_room {
            self.items.fetch_add(1, Relaxed);
            held.items.push(item);
        } else {
            // A gap that comes back was counted when it began.
            self.missed.fetch_add(u64::from(count.is_none()), Relaxed);
            Missed::more(&mut held.missed, count.unwrap_or(1), since, until);
        }
    }

    fn blinded(&self, tenant: TenantId, count: u64, since: Timestamp, until: Timestamp) {
        let mut blind = self.blind.lock();
        let mut held = blind.remove(&tenant);
        Missed::more(&mut held, count, since, until);
        blind.extend(held.map(|held| (tenant, held)));
    }

    /// All that was noted; what found no room is an item, the last of its session.
    pub(super) fn take(&self, now: Timestamp) -> Vec<Batch> {
        let mut batches = Vec::new();
        for part in &self.parts {
            let taken = std::mem::take(&mut part.lock().0);
            self.sessions.fetch_sub(taken.len(), Relaxed);
            for ((tenant, session, class), held) in taken {
                let Held { mut items, missed } = held;
                self.items.fetch_sub(items.len(), Relaxed);
                if let Some(Missed { count: missing, since, until }) = missed {
                    let what = match class {
                        Class::Sockets => What::SocketGap { missing, since },
                        Class::Timeline => What::Gap { missing, since, of_tenant: false },
                    };
                    items.push(Item { at: until.min(now), what });
                }
                batches.push(Batch { tenant, session, class, items });
            }
        }
        batches
    }

    /// What was missed of sessions that nobody can name, by tenant.
    pub(super) fn take_blind(&self) -> Vec<(TenantId, Item)> {
        let blind = std::mem::take(&mut *self.blind.lock());
        let item = |missed: Missed| {
            let Missed { count: missing, since, until } = missed;
            Item { at: until, what: What::Gap { missing, since, of_tenant: true } }
        };
        blind.into_iter().map(|(tenant, missed)| (tenant, item(missed))).collect()
    }

    /// Keeps what [`Self::take_blind`] gave and was not written.
    pub(super) fn blind_again(&self, tenant: TenantId, gap: Item) {
        if let What::Gap { missing, since, .. } = gap.what {
            self.blinded(tenant, missing, since, gap.at);
        }
    }
}

//! The connections of one core.

use crate::{h2::Lines, instance::Instance, link::Link};
use ahash::AHashMap;
use clock::SharedClock;
use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    rc::Rc,
    time::Duration,
};

/// The connections of one core to the instances of all services; last used, first taken.
/// Cheap to clone; never leaves its core.
#[derive(Clone)]
pub struct Pool(Rc<Inner>);

pub(crate) struct Inner {
    pub(crate) clock: SharedClock,
    idle: RefCell<AHashMap<u64, VecDeque<Idle>>>,
    /// Those of HTTP/2, used or not.
    lines: Lines,
    random: Cell<u64>,
    /// The time of the last sweep: near enough for what takes seconds.
    now: Cell<Duration>,
}

struct Idle {
    link: Box<Link>,
    until: Duration,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("idle", &self.idle()).finish()
    }
}

impl Pool {
    /// An empty pool.
    #[must_use]
    pub fn new(clock: SharedClock) -> Self {
        let seed = u64::from_le_bytes(clock::random(&*clock)) | 1;
        let now = Cell::new(clock.elapsed());
        let (idle, lines) = (RefCell::default(), Lines::default());
        let inner = Inner { clock, idle, lines, random: Cell::new(seed), now };
        Self(Rc::new(inner))
    }

    /// Closes connections that waited too long or that the service has closed. To be called
    /// about once a second.
    pub fn sweep(&self) {
        let now = self.0.clock.elapsed();
        self.0.now.set(now);
        self.0.idle.borrow_mut().retain(|_, links| {
            links.retain_mut(|idle| idle.until > now && !idle.link.is_over());
            !links.is_empty()
        });
        self.0.lines.sweep(now);
    }

    /// Closes every unused connection.
    pub fn clear(&self) {
        self.0.idle.borrow_mut().clear();
        self.0.lines.clear();
    }

    /// How many connections of HTTP/1 wait unused.
    #[must_use]
    pub fn idle(&self) -> usize {
        self.0.idle.borrow().values().map(VecDeque::len).sum()
    }

    pub(crate) fn inner(&self) -> &Inner {
        &self.0
    }

    /// An unused connection to `instance` that its service has not closed, as far as is known.
    pub(crate) fn take(&self, instance: &Instance) -> Option<Box<Link>> {
        let mut idle = self.0.idle.borrow_mut();
        let links = idle.get_mut(&instance.id)?;
        while let Some(Idle { mut link, .. }) = links.pop_back() {
            if !link.is_over() {
                return Some(link);
            }
        }
        None
    }

    pub(crate) fn put(&self, link: Box<Link>) {
        let until = self.0.now.get() + link.idle_timeout;
        let mut idle = self.0.idle.borrow_mut();
        let links = idle.entry(link.instance().id).or_default();
        if links.len() >= link.idle_max {
            links.pop_front();
        }
        links.push_back(Idle { link, until });
    }
}

impl Inner {
    pub(crate) fn lines(&self) -> &Lines {
        &self.lines
    }

    /// About the time; never ahead of it.
    pub(crate) fn now(&self) -> Duration {
        self.now.get()
    }

    /// xorshift64* (Marsaglia 2003; Vigna 2016): to spread load, not to keep secrets.
    pub(crate) fn random(&self) -> u64 {
        let mut x = self.random.get();
        x ^= x >> 12;
        x ^= x << 25;
        x ^= x >> 27;
        self.random.set(x);
        x.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }
}

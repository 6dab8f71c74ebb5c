//! The load of a core: measured by a timer of its own, told to the node, and what is refused for it.

use crate::{
    core::Core,
    overload::{Overload, Passed, refuses},
};
use protocol::{Code, Problem};
use soa::Priority;
use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

/// How a core of the node copes with its work.
#[derive(Debug, Clone, Copy, Default)]
pub struct CoreLoad {
    /// How late its timer was served the last time; as late as whatever else was ready then.
    pub lag: Duration,
    /// What it refuses: 0 nothing, 1.5 every request of low priority and half of those of normal
    /// priority.
    pub level: f64,
    /// Requests refused since the start, by priority from low to urgent.
    pub refused: [u64; 4],
}

/// The same, for the whole node to read. Written by its core alone.
#[derive(Debug, Default)]
pub(crate) struct Told {
    lag_us: AtomicU64,
    per_mille: AtomicU32,
    refused: [AtomicU64; 4],
}

impl Told {
    pub(crate) fn read(&self) -> CoreLoad {
        CoreLoad {
            lag: Duration::from_micros(self.lag_us.load(Relaxed)),
            level: f64::from(self.per_mille.load(Relaxed)) / 1e3,
            refused: [0, 1, 2, 3].map(|place: usize| self.refused[place].load(Relaxed)),
        }
    }
}

/// What a core knows of its load.
#[derive(Debug)]
pub(crate) struct Load {
    overload: RefCell<Overload>,
    per_mille: Cell<u32>,
    /// When the timer is due, and when it is so late that a request looks at it.
    due: Cell<Duration>,
    look_at: Cell<Duration>,
    /// Since the last look.
    passed: Cell<Passed>,
    told: Arc<Told>,
}

impl Load {
    pub(crate) fn new(told: Arc<Told>) -> Self {
        Self {
            overload: RefCell::default(),
            per_mille: Cell::new(0),
            due: Cell::new(Duration::ZERO),
            look_at: Cell::new(Duration::MAX),
            passed: Cell::default(),
            told,
        }
    }

    /// Lets a request pass that is looked at `now`, or refuses it.
    ///
    /// # Errors
    /// `overloaded`, with a time to come again.
    pub(crate) fn admit(
        &self,
        now: Duration,
        priority: Priority,
        random: impl FnOnce() -> u64,
    ) -> Result<(), Problem> {
        if now >= self.look_at.get() {
            self.look(now);
        }
        let level = self.per_mille.get();
        let drawn = if level > 0 { Some(random()) } else { None };
        let refused = drawn.filter(|random| refuses(level, priority, *random));
        let Passed { served, refused: before } = self.passed.get();
        match refused {
            None => {
                self.passed.set(Passed { served: served.saturating_add(1), refused: before });
                Ok(())
            }
            Some(random) => {
                self.passed.set(Passed { served, refused: before.saturating_add(1) });
                Err(self.refused(priority, random))
            }
        }
    }

    /// Whether anything is refused at this time.
    pub(crate) fn refuses_some(&self) -> bool {
        self.per_mille.get() > 0
    }

    #[cold]
    fn look(&self, now: Duration) {
        let (lag, passed) = (now.saturating_sub(self.due.get()), self.passed.take());
        self.look_at.set(self.overload.borrow_mut().waits(now, lag, passed));
        self.tell();
    }

    /// Counts a refusal, and words it.
    #[cold]
    fn refused(&self, priority: Priority, random: u64) -> Problem {
        let count = match priority {
            Priority::Low => &self.told.refused[0],
            Priority::Normal => &self.told.refused[1],
            Priority::High => &self.told.refused[2],
            Priority::Urgent => &self.told.refused[3],
        };
        count.store(count.load(Relaxed) + 1, Relaxed);
        // Not everybody at once.
        let after = Duration::from_secs(1 + random / 1_000 % 3);
        let detail = "the node has more work than it can do at this time";
        Problem::new(Code::Overloaded, detail).retry_after(after)
    }

    fn begin(&self, due: Duration, lag_max: Duration) {
        self.due.set(due);
        self.look_at.set(due.saturating_add(self.overload.borrow().bound(lag_max)));
    }

    /// The timer is served. Says how long the next one takes.
    fn served(&self, now: Duration, lag_max: Duration) -> Duration {
        let lag = now.saturating_sub(self.due.get());
        let passed = self.passed.take();
        let pause = self.overload.borrow_mut().served(now, lag, passed, lag_max);
        self.told.lag_us.store(u64::try_from(lag.as_micros()).unwrap_or(u64::MAX), Relaxed);
        self.tell();
        pause
    }

    fn tell(&self) {
        let now = self.overload.borrow().per_mille();
        let before = self.per_mille.replace(now);
        self.told.per_mille.store(now, Relaxed);
        let lag = Duration::from_micros(self.told.lag_us.load(Relaxed));
        match (before, now) {
            (0, 1..) => tracing::warn!(?lag, "there is too much to do, and requests are refused"),
            (1.., 0) => tracing::info!("requests are refused no more"),
            (0, 0) | (1.., 1..) => {}
        }
    }
}

/// Measures the lag of a core for as long as it runs.
pub(crate) async fn measure(core: Rc<Core>) {
    let (clock, load) = (&core.node.clock, &core.load);
    let mut pause = Duration::ZERO;
    loop {
        load.begin(clock.elapsed() + pause, core.snapshot().config.lag_max);
        tokio::time::sleep(pause).await;
        pause = load.served(clock.elapsed(), core.snapshot().config.lag_max);
    }
}

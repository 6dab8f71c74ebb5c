//! One core: a thread, its runtime, and what its connections share.

use crate::{
    admission::{Admission, Permit},
    bridged::{Calls, Violations},
    cache::Cache,
    canary::{Canary, Side},
    config::Config,
    connection, fields,
    load::{self, Load},
    mount::{CoreId, MountPoint},
    route::Table,
    tls::EdgeTls,
    watch::{CoarseClock, Watch, millis},
    witness::Witness,
};
use arc_swap::{ArcSwap, ArcSwapOption};
use clock::SharedClock;
use slab::Slab;
use soa::{Pool, Services};
use std::{
    cell::{Cell, Ref, RefCell},
    net::{IpAddr, TcpStream},
    rc::Rc,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, SystemTime},
};
use tokio::{
    runtime::{Builder, Handle, LocalOptions},
    sync::{mpsc, watch},
};
use traffic_cop::{
    analytics::{Analytics, Recorder, RouteId},
    identity::{CallerCache, Identity},
    limit::Limits,
};

/// What the cores of a node share.
pub(crate) struct Node {
    pub(crate) clock: SharedClock,
    pub(crate) identity: Arc<Identity>,
    pub(crate) limits: Arc<Limits>,
    pub(crate) analytics: Arc<Analytics>,
    pub(crate) control: Handle,
    pub(crate) witness: Arc<dyn Witness>,
    pub(crate) snapshot: ArcSwap<Snapshot>,
    pub(crate) canary: ArcSwapOption<Canary>,
    pub(crate) generation: AtomicU64,
    /// Clients are sent elsewhere, and served until they have gone.
    pub(crate) leaving: AtomicBool,
    /// Each connection ends after the request that it is serving.
    pub(crate) draining: AtomicBool,
    pub(crate) admission: Arc<Admission>,
    pub(crate) cache: Arc<Cache>,
    /// How documents of realms were broken.
    pub(crate) violations: Violations,
    /// Where the platform's own handlers are, and their names; the same on each core.
    pub(crate) mounts: OnceLock<Vec<(String, &'static str)>>,
    pub(crate) in_flight: Box<[AtomicUsize]>,
    pub(crate) loads: Box<[Arc<load::Told>]>,
    /// For requests that no route takes, and for bytes that are no request.
    pub(crate) unmatched: RouteId,
    pub(crate) misframed: RouteId,
}

/// One state of the configuration. Never changes.
#[derive(Debug)]
pub(crate) struct Snapshot {
    pub(crate) config: Config,
    pub(crate) services: Services,
    pub(crate) table: Table,
    pub(crate) calls: Calls,
    pub(crate) tls: Option<Arc<EdgeTls>>,
}

/// What the node tells a core.
pub(crate) enum Order {
    Serve(TcpStream, IpAddr, Permit),
    /// Connections have to look whether the node leaves or drains.
    Look,
}

/// A mount and what it is recorded as.
pub(crate) struct Mounted {
    pub(crate) point: MountPoint,
    pub(crate) route: RouteId,
}

/// What the connections of one core share.
pub(crate) struct Core {
    id: usize,
    pub(crate) node: Arc<Node>,
    pub(crate) pool: Pool,
    pub(crate) recorder: Recorder,
    pub(crate) callers: RefCell<CallerCache>,
    /// Credentials being checked by the control plane.
    pub(crate) identifying: Cell<usize>,
    /// Copies of requests under way.
    pub(crate) mirrored: Cell<usize>,
    /// Handshakes of TLS under way.
    pub(crate) handshakes: Cell<usize>,
    pub(crate) mounts: Vec<Mounted>,
    pub(crate) clock: CoarseClock,
    pub(crate) load: Load,
    pub(crate) watches: RefCell<Slab<Rc<Watch>>>,
    /// Becomes true when everything has to end.
    pub(crate) cut: watch::Receiver<bool>,
    seen: RefCell<Seen>,
    random: Cell<u64>,
}

/// What a core has seen of the configuration.
struct Seen {
    generation: u64,
    snapshot: Arc<Snapshot>,
    canary: Option<Arc<Canary>>,
}

impl Seen {
    fn of(node: &Node, generation: u64) -> Self {
        let (snapshot, canary) = (node.snapshot.load_full(), node.canary.load_full());
        Self { generation, snapshot, canary }
    }
}

impl Core {
    /// The configuration as it is now: one relaxed load, unless it has changed. Not to be held
    /// over an await.
    pub(crate) fn snapshot(&self) -> Ref<'_, Snapshot> {
        self.look();
        Ref::map(self.seen.borrow(), |seen| &*seen.snapshot)
    }

    /// The trial under way, and its side that a request gets.
    pub(crate) fn trial(&self) -> Option<(Arc<Canary>, Side)> {
        self.look();
        let seen = self.seen.borrow();
        let canary = seen.canary.as_ref()?;
        Some((Arc::clone(canary), canary.side(self.random())))
    }

    fn look(&self) {
        let generation = self.node.generation.load(Relaxed);
        if self.seen.borrow().generation != generation {
            *self.seen.borrow_mut() = Seen::of(&self.node, generation);
        }
    }

    /// The time of day.
    pub(crate) fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(self.node.clock.now().0)
    }

    /// This core alone writes the number, so it need not be locked.
    pub(crate) fn request_began(&self) {
        let in_flight = &self.node.in_flight[self.id];
        in_flight.store(in_flight.load(Relaxed) + 1, Relaxed);
    }

    pub(crate) fn request_ended(&self) {
        let in_flight = &self.node.in_flight[self.id];
        in_flight.store(in_flight.load(Relaxed) - 1, Relaxed);
    }

    /// For ids of requests and traces, which are no secrets (xorshift64*, Vigna 2016).
    pub(crate) fn random(&self) -> u64 {
        let mut x = self.random.get();
        x ^= x >> 12;
        x ^= x << 25;
        x ^= x >> 27;
        self.random.set(x);
        x.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn sweep(&self) {
        self.clock.set(self.node.clock.elapsed());
        let now = self.clock.now_ms();
        for (_, watch) in self.watches.borrow().iter() {
            watch.sweep(now);
        }
    }

    fn wake_all(&self) {
        for (_, watch) in self.watches.borrow().iter() {
            watch.wake();
        }
    }
}

/// Runs a core until its orders end or everything is cut; blocks the thread.
pub(crate) fn run(
    id: CoreId,
    node: Arc<Node>,
    make_mounts: &crate::mount::MakeMounts,
    mut orders: mpsc::Receiver<Order>,
    cut: watch::Receiver<bool>,
) -> std::io::Result<()> {
    let options = LocalOptions::default();
    let runtime = Builder::new_current_thread().enable_all().build_local(options)?;
    runtime.block_on(async move {
        let mounts = make_mounts(id);
        node.mounts.get_or_init(|| {
            mounts.iter().map(|point| (point.prefix.clone(), point.name)).collect()
        });
        let mounts = mounts
            .into_iter()
            .map(|point| Mounted { route: node.analytics.route(point.name, "crosstown"), point })
            .collect();
        let generation = node.generation.load(Relaxed);
        let core = Rc::new(Core {
            id: id.0,
            pool: Pool::new(Arc::clone(&node.clock)),
            recorder: node.analytics.recorder(),
            callers: RefCell::new(fields::caller_cache()),
            identifying: Cell::new(0),
            mirrored: Cell::new(0),
            handshakes: Cell::new(0),
            mounts,
            clock: CoarseClock::default(),
            load: Load::new(Arc::clone(&node.loads[id.0])),
            watches: RefCell::default(),
            cut: cut.clone(),
            seen: RefCell::new(Seen::of(&node, generation)),
            random: Cell::new(u64::from_le_bytes(clock::random(&*node.clock)) | 1),
            node,
        });
        core.sweep();
        let sweeper = tokio::task::spawn_local(sweep(Rc::clone(&core)));
        let measurer = tokio::task::spawn_local(load::measure(Rc::clone(&core)));
        let mut ended = cut;
        loop {
            let order = tokio::select! {
                order = orders.recv() => order,
                _ = ended.wait_for(|cut| *cut) => None,
            };
            match order {
                Some(Order::Serve(stream, ip, permit)) => {
                    tokio::task::spawn_local(connection::serve(
                        Rc::clone(&core),
                        stream,
                        ip,
                        permit,
                    ));
                }
                Some(Order::Look) => core.wake_all(),
                None => break,
            }
        }
        // Tasks that hold connections see the cut, and end; what does not is dropped with the
        // runtime.
        let _ = ended.wait_for(|cut| *cut).await;
        for (_, watch) in core.watches.borrow().iter() {
            watch.cut();
        }
        for _ in 0..8 {
            tokio::task::yield_now().await;
        }
        sweeper.abort();
        measurer.abort();
        core.pool.clear();
        core.recorder.flush();
    });
    Ok(())
}

/// Checks deadlines often enough for the shortest, and does once a second what is due.
async fn sweep(core: Rc<Core>) {
    let mut next = Duration::ZERO;
    loop {
        let shortest = {
            let snapshot = core.snapshot();
            let config = &snapshot.config;
            [
                config.header_timeout,
                config.body_timeout,
                config.idle_timeout,
                config.write_timeout,
                snapshot.table.timeout_min(),
            ]
        };
        let shortest = shortest.into_iter().map(millis).min().unwrap_or(1000);
        tokio::time::sleep(Duration::from_millis((shortest / 8).clamp(5, 250))).await;
        core.sweep();
        let now = core.node.clock.elapsed();
        if now >= next {
            next = now + Duration::from_secs(1);
            core.pool.sweep();
            core.recorder.flush();
        }
    }
}

//! The gateway as its owner sees it.

use crate::{
    acceptor,
    admission::Admission,
    bridged::{Broken, Calls, Violations},
    cache::{Cache, CacheReport},
    canary::{Canary, TrialReport},
    config::{Config, ConfigError, RouteConfig},
    core::{self, Node, Order, Snapshot},
    explain::{Explanation, Question, explain},
    load::CoreLoad,
    mount::{CoreId, MakeMounts},
    route::Table,
    tls::{EdgeTls, TlsStatus},
    witness::Witness,
};
use arc_swap::{ArcSwap, ArcSwapOption};
use bridge::Realms;
use clock::SharedClock;
use parking_lot::Mutex;
use soa::{Checks, GuardReport, Instance, Lookups, Origin, Registry, Services};
use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};
use tokio::{
    runtime::Handle,
    sync::{mpsc, watch},
};
use traffic_cop::{analytics::Analytics, identity::Identity, limit::Limits};

/// Connections that were accepted and wait for a core; more are refused.
const WAITING_MAX: usize = 1024;
/// By when every core has taken over a new configuration: it looks several times a second.
const TAKEN_OVER: Duration = Duration::from_secs(1);
/// How long it takes to notice, after a reload, that there are files of TLS to look at.
const IDLE: Duration = Duration::from_secs(10);

/// What the gateway needs from the rest of the node.
#[derive(Clone)]
pub struct Parts {
    /// Checks credentials.
    pub identity: Arc<Identity>,
    /// The rate limits.
    pub limits: Arc<Limits>,
    /// Where requests are recorded.
    pub analytics: Arc<Analytics>,
    /// Whose instances register themselves.
    pub registry: Registry,
    /// The time.
    pub clock: SharedClock,
    /// The control plane's runtime: accepts connections, checks credentials.
    pub control: Handle,
    /// Makes the handlers of each core.
    pub make_mounts: MakeMounts,
    /// Who wants to know what sessions do.
    pub witness: Arc<dyn Witness>,
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parts").finish_non_exhaustive()
    }
}

/// Why the gateway did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration cannot be served.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The address is taken.
    #[error("{0} is in use; stop the program that listens there, or set another `listen`")]
    InUse(SocketAddr),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// A thread could not be started.
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
}

/// The running edge. Dropped, it ends at once; [`Gateway::drain`] lets requests finish.
pub struct Gateway {
    node: Arc<Node>,
    address: SocketAddr,
    orders: Arc<[mpsc::Sender<Order>]>,
    stop: watch::Sender<bool>,
    cut: watch::Sender<bool>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    registry: Registry,
    /// The checks and lookups of the services as configured now. Held while a reload is under way.
    checks: Mutex<Option<(Checks, Lookups)>>,
}

impl std::fmt::Debug for Gateway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gateway").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Gateway {
    /// Checks what [`Gateway::start`] would, without listening.
    ///
    /// # Errors
    /// [`ConfigError`] says in one line what to change.
    pub fn check(config: &Config, services: &soa::Config) -> Result<(), ConfigError> {
        config.check()?;
        let services = Services::compile(services, None)?;
        compile(config, &services, &Analytics::default())?;
        open_tls(config, None).map(|_| ())
    }

    /// Listens and serves.
    ///
    /// # Errors
    /// [`StartError`] says in one line what to change.
    pub fn start(config: Config, services: &soa::Config, parts: Parts) -> Result<Self, StartError> {
        config.check()?;
        let services = Services::compile(services, None).map_err(ConfigError::from)?;
        let (table, calls) = compile(&config, &services, &parts.analytics)?;
        let tls = open_tls(&config, None)?;
        parts.registry.attach(&services);
        let listener = listen(config.listen)?;
        let failed = |source| StartError::Listen { address: config.listen, source };
        let address = listener.local_addr().map_err(failed)?;
        let cores = match config.workers {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            workers => workers,
        };
        let node = Arc::new(Node {
            clock: parts.clock,
            identity: parts.identity,
            limits: parts.limits,
            unmatched: parts.analytics.route("_unmatched", "crosstown"),
            misframed: parts.analytics.route("_framing", "crosstown"),
            analytics: parts.analytics,
            control: parts.control,
            witness: parts.witness,
            cache: Cache::new(config.cache_bytes_max),
            violations: Violations::default(),
            mounts: OnceLock::new(),
            snapshot: ArcSwap::from_pointee(Snapshot { config, services, table, calls, tls }),
            canary: ArcSwapOption::empty(),
            generation: AtomicU64::new(1),
            leaving: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            admission: Admission::new(cores),
            in_flight: (0..cores).map(|_| AtomicUsize::new(0)).collect(),
            loads: (0..cores).map(|_| Arc::default()).collect(),
        });
        let (stop, stopped) = watch::channel(false);
        let (cut, is_cut) = watch::channel(false);
        let mut orders = Vec::with_capacity(cores);
        let mut threads = Vec::with_capacity(cores);
        for id in (0..cores).map(CoreId) {
            let (sender, receiver) = mpsc::channel(WAITING_MAX);
            let (node, cut) = (Arc::clone(&node), is_cut.clone());
            let make_mounts = Arc::clone(&parts.make_mounts);
            let thread = std::thread::Builder::new()
                .name(format!("core-{}", id.0))
                .spawn(move || {
                    if let Err(error) = core::run(id, node, &make_mounts, receiver, cut) {
                        tracing::error!(%error, core = id.0, "a core could not start");
                    }
                })
                .map_err(StartError::Thread)?;
            orders.push(sender);
            threads.push(thread);
        }
        let orders: Arc<[_]> = orders.into();
        {
            let _inside = node.control.enter();
            let listener = tokio::net::TcpListener::from_std(listener)
                .map_err(|source| StartError::Listen { address, source })?;
            let run = acceptor::run(Arc::clone(&node), listener, Arc::clone(&orders), stopped);
            node.control.spawn(run);
            node.control.spawn(watch_tls(Arc::downgrade(&node)));
        }
        let checks = start_checks(&node);
        tracing::info!(%address, cores, "listening");
        Ok(Self {
            node,
            address,
            orders,
            stop,
            cut,
            threads: Mutex::new(threads),
            registry: parts.registry,
            checks: Mutex::new(Some(checks)),
        })
    }

    /// Where it listens; with the port that the system chose for port 0.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// What would become of a request, and why. Nothing is charged, and nobody is called.
    #[must_use]
    pub fn explain(&self, question: &Question) -> Explanation {
        let random = u64::from_le_bytes(clock::random(&*self.node.clock));
        explain(&self.node, &self.node.snapshot.load(), question, random)
    }

    /// What the cache did, and what is in it.
    #[must_use]
    pub fn cached(&self) -> CacheReport {
        self.node.cache.report()
    }

    /// Forgets every answer that was kept.
    pub fn forget_cached(&self) {
        self.node.cache.clear();
    }

    /// Calls `with` for each service that has a guard, with the service's name.
    pub fn guards(&self, mut with: impl FnMut(&str, GuardReport)) {
        let elapsed = self.node.clock.elapsed();
        for service in self.node.snapshot.load().services.iter() {
            if let Some(report) = service.guarded(elapsed) {
                with(service.name(), report);
            }
        }
    }

    /// The realms in force.
    #[must_use]
    pub fn realms(&self) -> Arc<Realms> {
        Arc::clone(&self.node.snapshot.load().config.realms)
    }

    /// The routes that take operations: the service, and the path that they begin with.
    #[must_use]
    pub fn doors(&self) -> Vec<(String, String)> {
        let snapshot = self.node.snapshot.load();
        let taking = snapshot.config.routes.iter().filter(|route| route.openapi);
        let prefix = |route: &RouteConfig| route.prefix.clone().unwrap_or_else(|| "/".into());
        taking.map(|route| (route.service.clone(), prefix(route))).collect()
    }

    /// Checks what [`Gateway::renew_realms`] would.
    ///
    /// # Errors
    /// [`ConfigError`] says in one line what to change.
    pub fn check_realms(&self, realms: &Arc<Realms>) -> Result<(), ConfigError> {
        let snapshot = self.node.snapshot.load();
        let config = Config { realms: Arc::clone(realms), ..snapshot.config.clone() };
        compile(&config, &snapshot.services, &Analytics::default()).map(|_| ())
    }

    /// Serves by these realms from the next request on, and by everything else as before. What is
    /// being tried keeps the ones that it has.
    ///
    /// # Errors
    /// [`ConfigError`]; then nothing has changed.
    pub fn renew_realms(&self, realms: Arc<Realms>) -> Result<(), ConfigError> {
        let _checks = self.checks.lock();
        let now = self.node.snapshot.load();
        let config = Config { realms, ..now.config.clone() };
        let services = now.services.clone();
        let (table, calls) = compile(&config, &services, &self.node.analytics)?;
        let tls = now.tls.clone();
        self.node.snapshot.store(Arc::new(Snapshot { config, services, table, calls, tls }));
        self.node.generation.fetch_add(1, Ordering::Release);
        Ok(())
    }

    /// How requests and answers broke the documents of realms.
    #[must_use]
    pub fn broken(&self) -> Vec<Broken> {
        self.node.violations.all()
    }

    /// How TLS is, if it is spoken.
    #[must_use]
    pub fn tls(&self) -> Option<TlsStatus> {
        self.node.snapshot.load().tls.as_ref().map(|tls| tls.status())
    }

    /// Calls `with` for each instance of each service, with the service's name, the instance's
    /// weight, where it is known from, and the time by which its condition is to be read.
    pub fn instances(&self, mut with: impl FnMut(&str, &Instance, u32, &Origin, Duration)) {
        let elapsed = self.node.clock.elapsed();
        for service in self.node.snapshot.load().services.iter() {
            service.instances(|instance, weight, origin| {
                with(service.name(), instance, weight, origin, elapsed);
            });
        }
    }

    /// Calls `with` for each service whose name the DNS does not know or does not tell of, with
    /// the reason.
    pub fn lookup_troubles(&self, mut with: impl FnMut(&str, String)) {
        for service in self.node.snapshot.load().services.iter() {
            if let Some(trouble) = service.trouble() {
                with(service.name(), trouble);
            }
        }
    }

    /// Open connections, sockets and tunnels included.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.node.admission.connections()
    }

    /// Requests that were not answered to the end.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.node.in_flight.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }

    /// How each core copes with its work.
    #[must_use]
    pub fn loads(&self) -> Vec<CoreLoad> {
        self.node.loads.iter().map(|load| load.read()).collect()
    }

    /// Whether [`Gateway::leave`] or [`Gateway::drain`] was called.
    #[must_use]
    pub fn is_leaving(&self) -> bool {
        let node = &self.node;
        node.leaving.load(Ordering::Relaxed) || node.draining.load(Ordering::Relaxed)
    }

    /// Sends clients elsewhere while everything is still served: each answer of HTTP/1.1 says
    /// `Connection: close` (RFC 9112, section 9.6), and HTTP/2 connections get a GOAWAY
    /// (RFC 9113, section 6.8), so that no client sends what nobody will read.
    pub async fn leave(&self) {
        self.node.leaving.store(true, Ordering::SeqCst);
        self.look().await;
    }

    async fn look(&self) {
        for core in &*self.orders {
            let _ = core.send(Order::Look).await;
        }
    }

    /// Serves by another configuration from the next request on; connections and requests in
    /// flight go on. `listen` and `workers` stay as they were at the start; timeouts and TLS
    /// hold for new connections. Files of TLS that cannot be used leave those of before in
    /// use, as [`Gateway::tls`] tells.
    ///
    /// # Errors
    /// [`ConfigError`]; then nothing has changed.
    pub fn reload(&self, config: Config, services: &soa::Config) -> Result<(), ConfigError> {
        let mut checks = self.checks.lock();
        let snapshot = self.compile(config, services)?;
        self.registry.attach(&snapshot.services);
        self.node.canary.store(None);
        let before = self.node.snapshot.swap(Arc::new(snapshot));
        self.node.generation.fetch_add(1, Ordering::Release);
        // Those of before decide no more when those of now begin.
        drop(checks.take());
        *checks = Some(start_checks(&self.node));
        // To take thousands of routes apart is no work for a core, which the last one to let go
        // of them would have.
        self.node.control.spawn(async move {
            tokio::time::sleep(TAKEN_OVER).await;
            drop(before);
        });
        Ok(())
    }

    /// Tries a configuration on `per_mille` of a thousand requests, instead of any that is being
    /// tried. Open sockets keep what they have. Of instances that come and go, it knows those that
    /// are there now.
    ///
    /// # Errors
    /// As [`Gateway::reload`].
    pub fn try_out(
        &self,
        config: Config,
        services: &soa::Config,
        per_mille: u32,
    ) -> Result<(), ConfigError> {
        let _checks = self.checks.lock();
        let snapshot = self.compile(config, services)?;
        self.node.canary.store(Some(Arc::new(Canary::new(snapshot, per_mille))));
        self.node.generation.fetch_add(1, Ordering::Release);
        Ok(())
    }

    /// Gives up what is being tried.
    pub fn abandon(&self) {
        self.node.canary.store(None);
        self.node.generation.fetch_add(1, Ordering::Release);
    }

    /// How the trial under way goes.
    #[must_use]
    pub fn trial(&self) -> Option<TrialReport> {
        self.node.canary.load().as_ref().map(|canary| canary.report())
    }

    fn compile(&self, config: Config, services: &soa::Config) -> Result<Snapshot, ConfigError> {
        config.check()?;
        let now = self.node.snapshot.load();
        let services = Services::compile(services, Some(&now.services))?;
        let (table, calls) = compile(&config, &services, &self.node.analytics)?;
        let tls = open_tls(&config, now.tls.as_ref())?;
        Ok(Snapshot { config, services, table, calls, tls })
    }

    /// Stops accepting, lets each connection finish its request, and ends when all have or
    /// after `deadline`; what is left then is cut, tunnels and sockets included. Says how many
    /// connections were cut.
    ///
    /// Not cancel safe: dropped, connections go on draining without a deadline.
    pub async fn drain(&self, deadline: Duration) -> usize {
        self.node.draining.store(true, Ordering::SeqCst);
        self.stop.send_replace(true);
        self.look().await;
        let empty = self.node.admission.until_empty();
        let _ = tokio::time::timeout(deadline, empty).await;
        let left = self.connections();
        self.cut.send_replace(true);
        let threads = std::mem::take(&mut *self.threads.lock());
        let joined = tokio::task::spawn_blocking(move || {
            for thread in threads {
                if thread.join().is_err() {
                    tracing::error!("a core panicked");
                }
            }
        });
        let _ = joined.await;
        left
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        self.cut.send_replace(true);
    }
}

/// The routes from outside, and those between services.
fn compile(
    config: &Config,
    services: &Services,
    analytics: &Analytics,
) -> Result<(Table, Calls), ConfigError> {
    let table = Table::compile(config, services, analytics)?;
    Ok((table, Calls::compile(config, services, analytics)?))
}

/// TLS as configured; as it is `now`, with its files as they are, if that is the same.
fn open_tls(
    config: &Config,
    now: Option<&Arc<EdgeTls>>,
) -> Result<Option<Arc<EdgeTls>>, ConfigError> {
    match (&config.tls, now) {
        (None, _) => Ok(None),
        (Some(config), Some(now)) if now.config() == config => {
            now.renew();
            Ok(Some(Arc::clone(now)))
        }
        (Some(config), _) => EdgeTls::open(config).map(Arc::new).map(Some),
    }
}

/// Looks at the files of TLS for as long as there is a node.
async fn watch_tls(node: Weak<Node>) {
    loop {
        let Some(tls) = node.upgrade().map(|node| node.snapshot.load().tls.clone()) else { return };
        let interval = tls.as_ref().map_or(IDLE, |tls| tls.config().watch_interval);
        tokio::time::sleep(interval).await;
        if let Some(tls) = tls
            && let Err(error) = tokio::task::spawn_blocking(move || tls.renew()).await
        {
            tracing::error!(%error, "the certificates could not be looked at");
        }
    }
}

fn start_checks(node: &Node) -> (Checks, Lookups) {
    let _inside = node.control.enter();
    let services = &node.snapshot.load().services;
    (Checks::start(services, &node.clock), Lookups::start(services, &node.clock))
}

fn listen(address: SocketAddr) -> Result<std::net::TcpListener, StartError> {
    let open = || {
        let domain = socket2::Domain::for_address(address);
        let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(1024)?;
        Ok(socket.into())
    };
    open().map_err(|source: io::Error| {
        if source.kind() == io::ErrorKind::AddrInUse {
            StartError::InUse(address)
        } else {
            StartError::Listen { address, source }
        }
    })
}

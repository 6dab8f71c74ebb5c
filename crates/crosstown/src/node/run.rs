//! Starting, reloading and stopping a node.

use crate::{
    config::{Config, ShutdownConfig},
    key_server::KeyServer,
    node::{
        admin,
        changes::{ByHttp, Changes},
        channels::Channels,
        cluster::Cluster,
        explains::ByGateway,
        holders::AllNodes,
        keeping::Keeping,
        members, mounts,
        realms::{self, Library},
        stores::{Stores, chain},
        views,
        witness::ToSessions,
    },
    telemetry::Exporter,
};
use bridge::{Documents, Realms};
use clock::{SharedClock, SystemClock};
use gateway::{Gateway, Parts};
use post_office::Mailboxes;
use realtime::{CoreSockets, Realtime};
use soa::Registry;
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use store::{BUCKETS, Bucket, SharedStore};
use store_embedded::EmbeddedStore;
use tokio::{net::TcpListener, runtime::Handle};
use traffic_cop::{
    analytics::{Analytics, History},
    genesis::Genesis,
    identity::{Blocks, Identity, Revocations, api_key::ApiKeys, issuer::Issuers},
    limit::{Limits, Rule, Shared},
    session::Sessions,
    state::{
        SharedStates, States,
        tier::{Authority, Places},
    },
};

/// How long, at the end, the store may take to be told who is gone.
const SETTLE: Duration = Duration::from_secs(5);
/// How long, at the end, documents that are live may take to move to where they are kept.
const SETTLE_DOWN: Duration = Duration::from_secs(20);

/// A running node.
pub(crate) struct Node {
    gateway: Arc<Gateway>,
    realtime: Arc<Realtime>,
    limits: Arc<Limits>,
    library: Arc<Library>,
    admin: SocketAddr,
    config_file: Option<PathBuf>,
    shutdown: ShutdownConfig,
    states: SharedStates,
    sessions: Arc<Sessions>,
    history: Arc<History>,
    /// If the stores are shared.
    cluster: Option<Cluster>,
    /// What this node owns, if they are not and there is work for an owner.
    alone: Option<Keeping>,
    /// Closed last, when nothing writes any more.
    embedded: Vec<Arc<EmbeddedStore>>,
}

impl Node {
    /// Starts a node on the control runtime `control`.
    ///
    /// # Errors
    /// One line that says what is wrong and what to do.
    pub(crate) fn start(
        control: &Handle,
        mut config: Config,
        config_file: Option<&Path>,
    ) -> Result<Arc<Self>, String> {
        let printed = config.printed();
        let clock = SystemClock::shared();
        let engines = config.stores.engines()?;
        let are_shared = engines.are_shared();
        let stores = control.block_on(Stores::open(engines, &config.stores.guard, &clock))?;
        let genesis = Genesis::new(stores.all.clone(), clock.clone());
        let authority = match are_shared {
            false => Some(Authority::Here),
            true => config.state.promotion.shared.then_some(Authority::Shared),
        };
        let places = authority.map(|authority| {
            let (all, clock) = (stores.all.clone(), clock.clone());
            let live_bytes_max = config.state.promotion.live_bytes_max;
            Places::new(all, clock, genesis.clone(), stores.kept, authority, live_bytes_max)
        });
        let store: SharedStore = match &places {
            Some(places) => places.clone(),
            None => stores.all.clone(),
        };

        let library = Library::new(store.clone(), clock.clone());
        control.block_on(library.learn(&config));
        let rules = realms::prepare(&mut config, &library.documents())?;

        let revocations = Revocations::new(store.clone());
        let sessions = Arc::new(Sessions::new(
            store.clone(),
            clock.clone(),
            config.sessions.clone(),
            revocations.clone(),
        ));
        let members = control.block_on(members::open(&config))?;
        let fetch = Arc::new(KeyServer::new()?);
        let issuers = Issuers::open(&config.identity.issuers, fetch, &members, &clock)?;
        let api_keys = ApiKeys::new(store.clone(), clock.clone(), revocations.clone());
        let identity = Arc::new(Identity::new(
            &config.identity,
            issuers,
            api_keys.clone(),
            sessions.clone(),
            revocations.clone(),
            clock.clone(),
        ));
        let states =
            States::new(store.clone(), clock.clone(), config.state.clone(), genesis.clone())
                .with_trail(sessions.trail().clone());
        let states = Arc::new(match places {
            Some(places) => states.with_places(places),
            None => states,
        });
        let mailboxes =
            Mailboxes::new(store.clone(), clock.clone(), genesis.clone(), config.mailboxes.clone());
        let mailboxes = Arc::new(mailboxes.with_trail(sessions.trail().clone()));
        let mut works = realtime::works(&config.realtime, &store, &states);
        // Alone it is no reason to keep shards: whoever sweeps does it then.
        let forgetful = works.is_empty().then(|| sessions.clone());
        if forgetful.is_none() {
            works.extend(sessions.works());
        }
        let (cluster, alone) = if are_shared {
            let joined = Cluster::join(&config.peers, store.clone(), clock.clone(), works);
            (Some(control.block_on(joined)?), None)
        } else {
            let _control = control.enter();
            (None, Keeping::alone(store.clone(), clock.clone(), works))
        };
        let shared_limits = match &cluster {
            Some(cluster) => cluster.limits.clone(),
            None => Shared::alone(store.clone(), clock.clone()).map_err(|error| chain(&error))?,
        };
        control.spawn(shared_limits.clone().run());
        let limits = Arc::new(Limits::new(rules, shared_limits.clone()));
        let analytics = Arc::new(Analytics::new(&config.analytics));
        let history = History::new(analytics.clone(), store.clone(), clock.clone());
        let history = Arc::new(history);

        let realtime = Realtime::new(
            config.realtime.clone(),
            realtime::Parts {
                identity: identity.clone(),
                sessions: sessions.clone(),
                states: states.clone(),
                mailboxes: mailboxes.clone(),
                limits: limits.clone(),
                analytics: analytics.clone(),
                store: store.clone(),
                reach: stores.reach(),
                node: match &cluster {
                    Some(cluster) => cluster.node(),
                    None => ledger::NodeId::draw(&clock).to_string(),
                },
                genesis,
                clock: clock.clone(),
                control: control.clone(),
            },
        );
        control.block_on(realtime.unpark()).map_err(|error| chain(&error))?;
        revocations.set_connections(realtime.clone());
        control.spawn(Realtime::tell_seconds(Arc::downgrade(&realtime)));
        let peers = cluster.as_ref().map(|cluster| {
            cluster.serve_streams(realtime.clone());
            cluster.peers.clone()
        });
        let registry = Registry::new(store.clone(), clock.clone());
        let learn = async { tokio::time::timeout(SETTLE, registry.learn(&config.services)).await };
        if !matches!(control.block_on(learn), Ok(Ok(()))) {
            tracing::warn!("it cannot be seen yet which instances are registered");
        }
        let realms_view = Arc::new(realms::ByHttp(library.clone()));
        let public = api::public(api::Parts {
            realms: realms_view.clone(),
            sessions: sessions.clone(),
            states: states.clone(),
            channels: Arc::new(Channels {
                publications: realtime.publications(),
                realtime: realtime.clone(),
            }),
            mailboxes,
            blocks: Blocks::new(store.clone(), clock.clone(), revocations.clone()),
            registry: registry.clone(),
            holders: Arc::new(AllNodes { realtime: realtime.clone(), peers: peers.clone() }),
            analytics: analytics.clone(),
            clock: clock.clone(),
        });
        let make_mounts: gateway::MakeMounts = {
            let (realtime, control) = (realtime.clone(), control.clone());
            Arc::new(move |_| {
                let sockets = CoreSockets::start(realtime.clone());
                mounts::all(public.clone(), control.clone(), sockets, peers.clone())
            })
        };

        let key = admin::key(&config.admin.key_file(&config.stores), &*clock)?;
        let listener = control.block_on(TcpListener::bind(config.admin.listen));
        let listener = listener.map_err(|error| {
            format!(
                "cannot listen on {}: {error}; set `admin.listen` to a free port",
                config.admin.listen
            )
        })?;
        let admin = listener.local_addr().map_err(|error| error.to_string())?;

        let gateway = Gateway::start(
            config.edge.clone(),
            &config.services,
            Parts {
                identity: identity.clone(),
                limits: limits.clone(),
                analytics: analytics.clone(),
                registry: registry.clone(),
                clock: clock.clone(),
                control: control.clone(),
                make_mounts,
                witness: Arc::new(ToSessions {
                    sessions: sessions.clone(),
                    control: control.clone(),
                }),
            },
        )
        .map_err(|error| error.to_string())?;

        let exporter = Exporter::new(
            &config.telemetry,
            analytics.clone(),
            clock.clone(),
            realtime.node().to_owned(),
        )?;
        let node = Arc::new(Self {
            gateway: Arc::new(gateway),
            realtime,
            limits: limits.clone(),
            library: library.clone(),
            admin,
            config_file: config_file.map(Path::to_owned),
            shutdown: config.shutdown.clone(),
            states: states.clone(),
            sessions: sessions.clone(),
            history: history.clone(),
            cluster,
            alone,
            embedded: stores.embedded(),
        });
        library.serve(&node);
        stores.tell();
        control.spawn(stores.tend());
        let admin_parts = api::admin::Parts {
            key_hash: traffic_cop::secret_hash(&key).into(),
            api_keys,
            analytics: analytics.clone(),
            limits: limits.clone(),
            stores: stores.tiers,
            live: stores.live,
            identity: identity.clone(),
            clock: clock.clone(),
            vitals: views::vitals(
                node.gateway.clone(),
                node.realtime.clone(),
                states.clone(),
                exporter.as_ref().map(Exporter::counts),
            ),
            services: views::services(node.gateway.clone(), registry.clone()),
            registry: registry.clone(),
            realms: realms_view,
            cache: views::cache(&node.gateway),
            config: printed.into(),
            reload: node.reloader(),
            explains: Arc::new(ByGateway {
                gateway: node.gateway.clone(),
                identity: identity.clone(),
            }),
            configuration: Arc::new(ByHttp(Changes::new(&node, config_file, clock.clone()))),
        };
        let routes = api::admin::routes(admin_parts);
        control.spawn(admin::serve(listener, routes, admin::CONNECTIONS_MAX));
        control.spawn(async move { history.run().await });
        if let Some(exporter) = exporter {
            control.spawn(exporter.run());
        }
        control.spawn(keep_time(analytics, limits, clock.clone()));
        control.spawn(revocations.run());
        control.spawn(sessions.trail().clone().run());
        control.spawn(registry.run());
        control.spawn(library.run());
        control.spawn(async move { states.promote_by_policy().await });
        control.spawn(sweep(store, clock, shared_limits, forgetful));
        Ok(node)
    }

    /// Where clients connect.
    pub(crate) fn edge(&self) -> SocketAddr {
        self.gateway.local_addr()
    }

    pub(super) fn gateway(&self) -> &Gateway {
        &self.gateway
    }

    /// Where operators connect.
    pub(crate) fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// Reads the configuration again and applies what can change while running: routes,
    /// services, limits and TLS. Files of TLS that cannot be used leave those of before in use,
    /// and hold up nothing else.
    ///
    /// # Errors
    /// One line; then nothing has changed.
    pub(crate) fn reload(&self) -> Result<String, String> {
        self.take_over(Config::load(self.config_file.as_deref())?)
    }

    /// Applies what of a configuration can change while running.
    ///
    /// # Errors
    /// One line; then nothing has changed.
    pub(super) fn take_over(&self, mut config: Config) -> Result<String, String> {
        let rules = realms::prepare(&mut config, &self.library.documents())?;
        let edge = std::mem::take(&mut config.edge);
        self.gateway.reload(edge, &config.services).map_err(|error| error.to_string())?;
        self.library.attach(&config);
        self.limits.replace(rules);
        let done = "routes, services, realms, limits and TLS are as configured now; the rest needs a \
             restart";
        Ok(match self.gateway.tls().and_then(|tls| tls.problem) {
            Some(problem) => format!("{done}; the certificates of before stay in use: {problem}"),
            None => done.into(),
        })
    }

    /// Serves by other realms, and these limits.
    pub(super) fn renew_realms(&self, realms: Arc<Realms>, limits: Vec<Rule>) {
        match self.gateway.renew_realms(realms) {
            Ok(()) => self.limits.replace(limits),
            Err(error) => tracing::error!(%error, "the realms stay as they were"),
        }
    }

    /// What a start would check of a configuration, with the documents that have come.
    ///
    /// # Errors
    /// One line that says what is wrong and what to do.
    pub(super) fn check(&self, config: &mut Config) -> Result<(), String> {
        check_with(config, &self.library.documents())
    }

    /// Sends clients elsewhere for the time that is configured, while everything is served.
    pub(crate) async fn announce(&self) {
        self.gateway.leave().await;
        tokio::time::sleep(self.shutdown.announce).await;
    }

    /// Lets what is in flight finish, then closes the store.
    pub(crate) async fn shut_down(&self) {
        self.realtime.drain(self.shutdown.drain / 2);
        let cut = self.gateway.drain(self.shutdown.drain).await;
        if cut > 0 {
            tracing::warn!(cut, "connections were cut off at the end of the drain time");
        }
        if tokio::time::timeout(SETTLE, self.realtime.settle()).await.is_err() {
            tracing::warn!("who was present here stays so until that expires");
        }
        if tokio::time::timeout(SETTLE, self.sessions.trail().write()).await.is_err() {
            tracing::warn!("what sessions did last is not in their timelines");
        }
        if tokio::time::timeout(SETTLE_DOWN, self.states.settle_down()).await.is_err() {
            tracing::error!("what is still live is lost with this node");
        }
        if let Err(error) = self.realtime.park().await {
            tracing::warn!(%error, "channels of the live tier begin another life");
        }
        if tokio::time::timeout(SETTLE, self.limits.settle()).await.is_err() {
            tracing::warn!("what was reserved of quotas counts as used");
        }
        if !matches!(tokio::time::timeout(SETTLE, self.history.flush()).await, Ok(Ok(()))) {
            tracing::warn!("the last figures of traffic are lost with this node");
        }
        if let Some(cluster) = &self.cluster {
            cluster.leave().await;
        }
        if let Some(alone) = &self.alone {
            alone.end().await;
        }
        for store in self.embedded.clone() {
            let closed = tokio::task::spawn_blocking(move || store.close()).await;
            if let Err(error) = closed {
                tracing::error!(%error, "the store did not close in order");
            }
        }
    }

    fn reloader(self: &Arc<Self>) -> Arc<dyn Fn() -> Result<String, String> + Send + Sync> {
        let node = Arc::downgrade(self);
        Arc::new(move || match node.upgrade() {
            Some(node) => node.reload(),
            None => Err("the node is shutting down".into()),
        })
    }
}

/// Checks what a start would check, without starting.
///
/// # Errors
/// One line that says what is wrong and what to do.
pub(crate) fn check(config: &mut Config) -> Result<(), String> {
    check_with(config, &Documents::new())
}

fn check_with(config: &mut Config, documents: &Documents) -> Result<(), String> {
    Issuers::check(&config.identity.issuers)?;
    realms::prepare(config, documents)?;
    Gateway::check(&config.edge, &config.services).map_err(|error| error.to_string())
}

/// Moves the analytics on each second, and forgets limits that nobody draws on.
async fn keep_time(analytics: Arc<Analytics>, limits: Arc<Limits>, clock: SharedClock) {
    let mut second = tokio::time::interval(Duration::from_secs(1));
    let mut count = 0_u64;
    loop {
        second.tick().await;
        analytics.tick(clock.now());
        count += 1;
        if count.is_multiple_of(10) {
            limits.expire(clock.elapsed());
        }
    }
}

/// Deletes what has expired, which nobody is shown any more, a bucket at a time, all of them
/// within about five minutes. Nodes that share the store share the work: each begins somewhere
/// else, and goes the slower the more there are.
async fn sweep(
    store: SharedStore,
    clock: SharedClock,
    shared: Arc<Shared>,
    sessions: Option<Arc<Sessions>>,
) {
    let mut buckets: Vec<Bucket> = Bucket::all().collect();
    buckets.rotate_left(usize::from(u16::from_le_bytes(clock::random(&*clock)) % BUCKETS));
    let mut pace = tokio::time::interval(Duration::from_millis(250));
    loop {
        for bucket in &buckets {
            for _ in 0..shared.nodes() {
                pace.tick().await;
            }
            if let Err(error) = store.sweep(*bucket).await {
                tracing::warn!(%error, "what has expired could not be swept");
                tokio::time::sleep(Duration::from_secs(10)).await;
            }
            if let Some(sessions) = &sessions
                && let Err(error) = sessions.forget_past(*bucket).await
            {
                tracing::warn!(%error, "events of sessions that are long over stay for now");
            }
        }
    }
}

//! A node's sockets in this process, in a thread that can be ended at any moment.

use bytes::Bytes;
use clock::SystemClock;
use post_office::Mailboxes;
use protocol::client::Encoding;
use realtime::{Config, CoreSockets, Namespace, Realtime};
use std::{
    net::{IpAddr, Ipv4Addr, TcpListener, TcpStream},
    sync::Arc,
    thread::JoinHandle,
};
use store::{Partition, SharedStore, Survives, Tiers};
use store_memory::MemoryStore;
use tokio::{
    sync::{mpsc, oneshot},
    task::LocalSet,
};
use traffic_cop::{
    analytics::Analytics,
    genesis::Genesis,
    identity::{Identity, Revocations, api_key::ApiKeys, issuer::Issuers},
    limit::{Limits, Shared},
    session::Sessions,
    state::{
        States,
        tier::{self, Authority, Places, Tier},
    },
};
use types::{Caller, CredentialKind, Principal, PrincipalId, PrincipalKind, TenantId};

type Accepted = (TcpStream, Arc<Caller>);

/// A running node.
pub(crate) struct Node {
    listener: TcpListener,
    accepted: mpsc::UnboundedSender<Accepted>,
    running: Option<(oneshot::Sender<End>, JoinHandle<()>)>,
}

/// How a node ends.
#[derive(Clone, Copy, PartialEq)]
enum End {
    /// At once, as by a kill.
    Killed,
    /// What is live is kept first.
    InOrder,
}

/// The engines that outlive nodes.
#[derive(Clone)]
pub(crate) struct Engines {
    pub(crate) hot: Arc<MemoryStore>,
    pub(crate) durable: Arc<MemoryStore>,
}

impl Engines {
    pub(crate) fn new() -> Self {
        let [hot, durable] =
            [(); 2].map(|()| Arc::new(MemoryStore::new(clock::SystemClock::shared())));
        Self { hot, durable }
    }

    /// With a memory that ends with the node.
    fn with_live(self) -> SharedStore {
        let tier_of = |partition: &Partition| {
            tier::tier_of(partition).map_or(store::Tier::Durable, Tier::engine)
        };
        let live = Arc::new(MemoryStore::new(SystemClock::shared()));
        Arc::new(Tiers::new(self.hot, self.durable, tier_of).with_live(live))
    }
}

impl Node {
    pub(crate) fn start(engines: Engines, history_size: u64) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let (accepted, inbox) = mpsc::unbounded_channel();
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            LocalSet::new().block_on(&runtime, async {
                let parts = parts(engines.with_live());
                let states = parts.states.clone();
                let end = tokio::select! {
                    () = serve(parts, history_size, inbox) => End::Killed,
                    end = stopped => end.unwrap_or(End::Killed),
                };
                if end == End::InOrder {
                    states.settle_down().await;
                }
            });
            // Whatever was under way is dropped where it stands.
            runtime.shutdown_background();
        });
        Self { listener, accepted, running: Some((stop, thread)) }
    }

    /// A connection for this user, behind its upgrade.
    pub(crate) fn connect(&self, user: &str) -> tokio::net::TcpStream {
        let ours = TcpStream::connect(self.listener.local_addr().unwrap()).unwrap();
        let (theirs, _) = self.listener.accept().unwrap();
        for stream in [&ours, &theirs] {
            stream.set_nonblocking(true).unwrap();
            stream.set_nodelay(true).unwrap();
        }
        let caller = Caller::new(
            TenantId::new("acme").unwrap(),
            Principal { kind: PrincipalKind::User, id: PrincipalId::new(user).unwrap() },
            CredentialKind::Jwt,
        );
        let _ = self.accepted.send((theirs, Arc::new(caller)));
        tokio::net::TcpStream::from_std(ours).unwrap()
    }

    /// Ends it at once.
    pub(crate) fn kill(&mut self) {
        self.end(End::Killed);
    }

    /// Ends it in order.
    pub(crate) fn stop(&mut self) {
        self.end(End::InOrder);
    }

    fn end(&mut self, how: End) {
        if let Some((stop, thread)) = self.running.take() {
            let _ = stop.send(how);
            thread.join().unwrap();
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

fn parts(engines: SharedStore) -> realtime::Parts {
    let clock = SystemClock::shared();
    let genesis = Genesis::new(engines.clone(), clock.clone());
    let kept = tier::Engines {
        live: Some(Survives::Nothing),
        hot: Survives::Process,
        durable: Survives::PowerLoss,
    };
    let places =
        Places::new(engines, clock.clone(), genesis.clone(), kept, Authority::Here, 1 << 20);
    let store: SharedStore = places.clone();
    let revocations = Revocations::new(store.clone());
    let sessions = Arc::new(Sessions::new(
        store.clone(),
        clock.clone(),
        traffic_cop::session::Config::default(),
        revocations.clone(),
    ));
    let state = traffic_cop::state::Config::default();
    let states = States::new(store.clone(), clock.clone(), state, genesis.clone());
    let states = states.with_places(places);
    let identity = Identity::new(
        &traffic_cop::identity::Config::default(),
        Issuers::default(),
        ApiKeys::new(store.clone(), clock.clone(), revocations.clone()),
        sessions.clone(),
        revocations,
        clock.clone(),
    );
    let mailboxes = Mailboxes::new(
        store.clone(),
        clock.clone(),
        genesis.clone(),
        post_office::Config::default(),
    );
    realtime::Parts {
        mailboxes: Arc::new(mailboxes),
        identity: Arc::new(identity),
        sessions,
        states: Arc::new(states),
        limits: Arc::new(Limits::new(Vec::new(), Shared::in_memory(clock.clone()))),
        analytics: Arc::new(Analytics::default()),
        store,
        reach: realtime::Reach::Stored,
        node: "here".into(),
        genesis,
        clock,
        control: tokio::runtime::Handle::current(),
    }
}

async fn serve(
    parts: realtime::Parts,
    history_size: u64,
    mut inbox: mpsc::UnboundedReceiver<Accepted>,
) {
    let config = Config {
        namespaces: vec![Namespace { history_size, ..Namespace::default() }],
        ..Config::default()
    };
    let sockets = CoreSockets::start(Realtime::new(config, parts));
    while let Some((stream, caller)) = inbox.recv().await {
        let Ok(stream) = tokio::net::TcpStream::from_std(stream) else { continue };
        let stream = stream.into();
        let ip = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let serving =
            sockets.clone().serve(stream, &Bytes::new(), Encoding::Json, Some(caller), ip);
        tokio::task::spawn_local(serving);
    }
}

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
use store_memory::MemoryStore;
use tokio::{
    sync::{mpsc, oneshot},
    task::LocalSet,
};
use traffic_cop::{
    analytics::Analytics,
    genesis::Genesis,
    identity::{Identity, Revocations, api_key::ApiKeys, issuer::Issuers},
    limit::Limits,
    session::Sessions,
    state::States,
};
use types::{Caller, CredentialKind, Principal, PrincipalId, PrincipalKind, TenantId};

type Accepted = (TcpStream, Arc<Caller>);

/// A running node.
pub(crate) struct Node {
    listener: TcpListener,
    accepted: mpsc::UnboundedSender<Accepted>,
    running: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

impl Node {
    pub(crate) fn start(store: Arc<MemoryStore>, history_size: u64) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let (accepted, inbox) = mpsc::unbounded_channel();
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            LocalSet::new().block_on(&runtime, async {
                tokio::select! {
                    () = serve(store, history_size, inbox) => {}
                    _ = stopped => {}
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
        let caller = Caller {
            tenant: TenantId::new("acme").unwrap(),
            principal: Principal { kind: PrincipalKind::User, id: PrincipalId::new(user).unwrap() },
            session: None,
            roles: Arc::new([]),
            expires: None,
            credential: CredentialKind::Jwt,
            channels: Arc::default(),
            capabilities: Arc::default(),
        };
        let _ = self.accepted.send((theirs, Arc::new(caller)));
        tokio::net::TcpStream::from_std(ours).unwrap()
    }

    /// Ends it at once.
    pub(crate) fn kill(&mut self) {
        if let Some((stop, thread)) = self.running.take() {
            let _ = stop.send(());
            thread.join().unwrap();
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

async fn serve(
    store: Arc<MemoryStore>,
    history_size: u64,
    mut inbox: mpsc::UnboundedReceiver<Accepted>,
) {
    let clock = SystemClock::shared();
    let genesis = Genesis::new(store.clone(), clock.clone());
    let revocations = Revocations::new(store.clone());
    let sessions = Arc::new(Sessions::new(
        store.clone(),
        clock.clone(),
        traffic_cop::session::Config::default(),
        revocations.clone(),
    ));
    let state = traffic_cop::state::Config::default();
    let states = States::new(store.clone(), clock.clone(), state, genesis.clone());
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
    let parts = realtime::Parts {
        mailboxes: Arc::new(mailboxes),
        identity: Arc::new(identity),
        sessions,
        states: Arc::new(states),
        limits: Arc::new(Limits::new(Vec::new(), None)),
        analytics: Arc::new(Analytics::default()),
        store,
        reach: realtime::Reach::Stored,
        node: "here".into(),
        genesis,
        clock,
        control: tokio::runtime::Handle::current(),
    };
    let config = Config {
        namespaces: vec![Namespace { history_size, ..Namespace::default() }],
        ..Config::default()
    };
    let sockets = CoreSockets::start(Realtime::new(config, parts));
    while let Some((stream, caller)) = inbox.recv().await {
        let Ok(stream) = tokio::net::TcpStream::from_std(stream) else { continue };
        let ip = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let serving =
            sockets.clone().serve(stream, &Bytes::new(), Encoding::Json, Some(caller), ip);
        tokio::task::spawn_local(serving);
    }
}

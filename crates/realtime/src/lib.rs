//! The socket edge.
//!
//! Clients speak Centrifugo's client protocol, version 2, in JSON or Protobuf. Each connection belongs to
//! a core, is carried by a WebSocket or by a stream (`streams`), is bound to a session, and has one bounded queue (`queue`). A core's sockets
//! share a `hub`: who is subscribed to what. Behind the hubs stands the `broker`: it
//! follows the store, so that publications of a channel leave in the order of their offsets,
//! and it crosses to each core once, not once per connection.
//!
//! Channels are the tenant's own by construction (`channel`). A channel named
//! `state:{scope}:{id}` carries the changes of that document. Who is subscribed to a channel,
//! on any node, is known by its `presence`.
//!
//! Start at [`Realtime`] (one per node) and [`CoreSockets`] (one per core).

mod admission;
mod broker;
mod channel;
mod closings;
mod config;
mod connection;
mod control;
mod figures;
mod frame;
mod handshake;
mod hub;
mod live;
mod meters;
mod owning;
mod permission;
mod places;
mod presence;
mod queue;
mod rpc;
mod seconds;
mod streams;
mod traces;

pub use channel::Publications;
pub use config::{Config, JoinLeave, Namespace, Recovery, Slow, Tier, WhenFull};
pub use figures::{Description, History, Kind};
pub use handshake::{Accepted, accept};
pub use hub::CoreSockets;
pub use owning::works;
pub use permission::{Allow, Those};
pub use streams::Form;

use crate::{
    admission::Admission, broker::Broker, channel::Ways, closings::Closings, live::Live,
    meters::Meters, places::Places, presence::Presence, streams::Emulated, traces::Traces,
};
use bytes::Bytes;
use clock::SharedClock;
use parking_lot::Mutex;
use post_office::Mailboxes;
use protocol::{Code, Problem, client::Disconnect};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};
use store::{SharedFanout, SharedStore};
use tokio::{runtime::Handle, sync::mpsc};
use traffic_cop::{
    analytics::Analytics,
    genesis::Genesis,
    identity::{Connections, Identity},
    limit::Limits,
    session::Sessions,
    state::SharedStates,
};
use types::{ConnectionId, Principal, SessionId, TenantId, Timestamp};

/// What the sockets need from the rest of the node.
#[derive(Clone)]
pub struct Parts {
    /// Checks credentials.
    pub identity: Arc<Identity>,
    /// Sessions that connections are bound to.
    pub sessions: Arc<Sessions>,
    /// Documents, for RPC and for their channels.
    pub states: SharedStates,
    /// Mailboxes, likewise.
    pub mailboxes: Arc<Mailboxes>,
    /// What commands are charged to.
    pub limits: Arc<Limits>,
    /// Traffic figures, for RPC.
    pub analytics: Arc<Analytics>,
    /// Where channels keep their history.
    pub store: SharedStore,
    /// How publications that no store keeps reach those who are subscribed.
    pub reach: Reach,
    /// The first incarnation of channels.
    pub genesis: Genesis,
    /// This node's name among those that share its stores.
    pub node: String,
    /// The time.
    pub clock: SharedClock,
    /// Where work runs that may wait for a store.
    pub control: Handle,
}

/// How publications that no store keeps reach those who are subscribed.
#[derive(Clone)]
pub enum Reach {
    /// This is the only node: it hands them on, and keeps the histories of the live tier.
    Here,
    /// To all nodes by a fan-out.
    FannedOut(SharedFanout),
    /// To all nodes through the store.
    Stored,
}

/// The sockets of a node.
pub struct Realtime {
    parts: Parts,
    config: Config,
    broker: Broker,
    ways: Ways,
    publications: Publications,
    presence: Presence,
    emulated: Emulated,
    admission: Admission,
    places: Places,
    closings: Closings,
    meters: Meters,
    traces: Traces,
    since: Timestamp,
    cores: Mutex<Vec<mpsc::Sender<hub::ToCore>>>,
    next_connection: AtomicU64,
    open: AtomicUsize,
}

impl Realtime {
    /// Sockets by `config`. Starts the broker on the control runtime.
    #[must_use]
    pub fn new(config: Config, parts: Parts) -> Arc<Self> {
        let ways = match &parts.reach {
            Reach::Here => Ways::Here(Live::new(config.live_bytes_max, parts.clock.clone())),
            Reach::FannedOut(fanout) => Ways::FannedOut(fanout.clone()),
            Reach::Stored => Ways::Stored,
        };
        let broker = Broker::start(&config, &parts, &ways);
        let presence = Presence::start(&config, &parts);
        // Nodes share channels, so that their connections must not share names.
        let first = u64::from_be_bytes(clock::random(&*parts.clock));
        Arc::new(Self {
            presence,
            emulated: Emulated::default(),
            admission: Admission::new(config.open_rate),
            places: Places::default(),
            publications: Publications::new(&config, &parts, ways.clone(), broker.clone()),
            closings: Closings::default(),
            meters: Meters::default(),
            traces: Traces::default(),
            since: parts.clock.now(),
            parts,
            config,
            broker,
            ways,
            cores: Mutex::default(),
            next_connection: AtomicU64::new(first),
            open: AtomicUsize::new(0),
        })
    }

    /// Channels, for publishing by HTTP.
    #[must_use]
    pub fn publications(&self) -> Publications {
        self.publications.clone()
    }

    /// The number of open connections.
    #[must_use]
    pub fn connection_count(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Connections that have ended since the start: the close code (0: closed by its client), its
    /// reason, and how many.
    #[must_use]
    pub fn closings(&self) -> Vec<(u16, &'static str, u64)> {
        self.closings.all()
    }

    /// Closes every connection with 3001, which asks clients to come back: each at a moment of
    /// its own, `close_rate` of them in a second, or all within `within` if that is sooner.
    pub fn drain(&self, within: Duration) {
        let open = u32::try_from(self.connection_count()).unwrap_or(u32::MAX);
        let over = (Duration::from_secs(1) * open / self.config.close_rate).min(within);
        for core in &*self.cores.lock() {
            let _ = core.try_send(hub::ToCore::CloseAll { why: Disconnect::Shutdown, over });
        }
    }

    /// This node's name, as streams are told of it.
    #[must_use]
    pub fn node(&self) -> &str {
        &self.parts.node
    }

    /// How the sockets are configured.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Hands the commands of a client to its stream, named `session`, on this node.
    ///
    /// # Errors
    /// `not_found` if it has ended; `rate_limited` if it has too many already;
    /// `body_too_large` if they are longer than a message may be.
    pub async fn emulate(&self, session: &str, commands: Bytes) -> Result<(), Problem> {
        if commands.len() > self.config.message_bytes_max {
            let detail = "the commands are longer than `realtime.message_bytes_max`";
            return Err(Problem::new(Code::BodyTooLarge, detail));
        }
        self.emulated.hand_on(session, commands).await
    }

    /// Takes the histories of the live tier out of the store, where [`Self::park`] has put them.
    /// To be done before anybody connects.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn unpark(&self) -> Result<(), store::Error> {
        if let Ways::Here(live) = &self.ways {
            let histories = live.unpark(&*self.parts.store).await?;
            tracing::debug!(histories, "the live tier is back");
        }
        Ok(())
    }

    /// Puts the histories of the live tier into the store, once nobody publishes any more.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn park(&self) -> Result<(), store::Error> {
        if let Ways::Here(live) = &self.ways {
            let histories = live.park(&*self.parts.store).await?;
            tracing::debug!(histories, "the live tier is parked");
        }
        Ok(())
    }

    /// Waits until it is written who is gone, once the connections have ended.
    pub async fn settle(&self) {
        self.presence.settle().await;
    }

    /// Tells the broker of a subscription that is no more.
    async fn broker_forgets(&self, ended: &connection::Ended, core: usize) {
        if let Some(life) = ended.life {
            self.broker.unsubscribe(ended.channel.clone(), core, ended.dialect, life).await;
        }
    }

    /// Tells every core. The inboxes are bounded; what is told waits for room rather than being lost.
    fn tell_cores(&self, message: impl Fn() -> hub::ToCore + Send + Sync + 'static) {
        let cores = self.cores.lock().clone();
        self.parts.control.spawn(async move {
            for core in cores {
                let _ = core.send(message()).await;
            }
        });
    }

    fn close_session(&self, of: &TenantId, session: SessionId, why: Disconnect, reason: &str) {
        let (tenant, reason) = (of.clone(), Arc::<str>::from(reason));
        self.tell_cores(move || {
            let (tenant, reason) = (tenant.clone(), reason.clone());
            hub::ToCore::CloseSession { tenant, session, why, reason }
        });
    }

    fn connection_id(&self) -> ConnectionId {
        ConnectionId(self.next_connection.fetch_add(1, Ordering::Relaxed))
    }
}

impl Connections for Realtime {
    fn close(&self, tenant: &TenantId, session: SessionId, why: &str) {
        self.close_session(tenant, session, Disconnect::ForceNoReconnect, why);
    }

    fn close_expired(&self, tenant: &TenantId, session: SessionId, why: &str) {
        self.close_session(tenant, session, Disconnect::Expired, why);
    }

    fn close_former(&self, tenant: &TenantId, session: SessionId, handed: u64) {
        let tenant = tenant.clone();
        self.tell_cores(move || {
            let tenant = tenant.clone();
            hub::ToCore::CloseFormer { tenant, session, handed }
        });
    }

    fn look_at_pillars(&self, tenant: &TenantId, session: SessionId) {
        let tenant = tenant.clone();
        self.tell_cores(move || hub::ToCore::LookAtPillars { tenant: tenant.clone(), session });
    }

    fn close_all_of(&self, tenant: &TenantId, principal: &Principal) {
        let (tenant, principal) = (tenant.clone(), principal.clone());
        self.tell_cores(move || {
            let (tenant, principal) = (tenant.clone(), principal.clone());
            hub::ToCore::CloseAllOf { tenant, principal }
        });
    }
}

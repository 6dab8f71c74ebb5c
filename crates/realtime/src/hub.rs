//! The sockets of one core: which connections there are, and who is subscribed to what.

use crate::{
    Config, Form, Realtime,
    broker::{Follower, Start},
    channel::Channel,
    connection::{self, About, Connection, Ended, Streaming},
    frame::Frames,
    handshake::Accepted,
    traces::Tracer,
};
use ahash::RandomState;
use bytes::Bytes;
use http::{HeaderMap, Method};
use protocol::{
    Code, Problem,
    client::{Disconnect, Encoding},
};
use slab::Slab;
use std::{
    cell::{Cell, RefCell},
    collections::{HashMap, HashSet},
    net::IpAddr,
    rc::Rc,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};
use traffic_cop::connections::{Answered, Question};
use transport::Stream;
use types::{Caller, ConnectionId, Principal, SessionId, TenantId, Timestamp};

const INBOX: usize = 4096;
/// Subscribers that a publication is written to before others go on.
const AT_ONCE: usize = 64;
/// Subscribers that are counted before others go on.
const ASKED_AT_ONCE: usize = 1_000;
/// Subscriptions that are shown of a connection.
const SUBSCRIPTIONS_SHOWN: usize = 64;

/// What reaches a core from the rest of the node.
pub(crate) enum ToCore {
    /// The answer to a subscription of a connection.
    Subscribed { follower: Follower, channel: Channel, outcome: Result<Start, Problem> },
    /// A publication for whoever is subscribed.
    Publication { channel: Channel, frames: Frames, offset: u64, about: About },
    /// For subscribers that want to be told: `client` came or went.
    Joined { channel: Channel, frames: Frames, client: Option<ConnectionId> },
    /// Publications were lost: subscribers have to start again.
    Lost { channel: Channel },
    /// A session has ended.
    CloseSession { tenant: TenantId, session: SessionId, why: Disconnect, reason: Arc<str> },
    /// A session has changed hands: this is the how-manieth time.
    CloseFormer { tenant: TenantId, session: SessionId, handed: u64 },
    /// A session works in other pillars.
    LookAtPillars { tenant: TenantId, session: SessionId },
    /// A principal is blocked.
    CloseAllOf { tenant: TenantId, principal: Principal },
    /// Somebody asks about connections, or has something done to them.
    Asked { question: Arc<Question>, answers: mpsc::Sender<Answered> },
    /// Somebody asks who follows a channel: how many, and which principals.
    WhoFollows { channel: Channel, answers: mpsc::Sender<(u64, HashSet<u64>)> },
    /// Traces have begun or ended. Whoever waits for it is told by the end of `done`.
    LookAtTraces { done: mpsc::Sender<()> },
    /// The node closes all sockets, each at a random moment of so long a time.
    CloseAll { why: Disconnect, over: Duration },
}

/// The sockets of one core. Lives on the core's thread.
#[derive(Clone)]
pub struct CoreSockets {
    pub(crate) node: Arc<Realtime>,
    pub(crate) hub: Rc<Hub>,
}

/// Who is here, and subscribed to what.
pub(crate) struct Hub {
    pub(crate) core: usize,
    connections: RefCell<Slab<Rc<Connection>>>,
    /// The places of the subscribers of each channel.
    channels: RefCell<HashMap<Channel, Vec<usize>, RandomState>>,
    /// What of them is to be shown to others.
    pub(crate) tracer: Rc<Tracer>,
    /// Changes whenever the hub has nothing to do.
    turn: Cell<u32>,
}

impl CoreSockets {
    /// The sockets of the core that calls this, inside its runtime.
    #[must_use]
    pub fn start(node: Arc<Realtime>) -> Self {
        let (sender, inbox) = mpsc::channel(INBOX);
        let core = {
            let mut cores = node.cores.lock();
            cores.push(sender.clone());
            // Under the lock, so that every shard numbers the cores alike.
            node.broker.add_core(&sender);
            cores.len() - 1
        };
        let (connections, channels) = Default::default();
        let tracer = Rc::new(Tracer::new(node.parts.clock.clone()));
        let hub = Rc::new(Hub { core, connections, channels, tracer, turn: Cell::new(1) });
        let sockets = Self { node, hub };
        tokio::task::spawn_local(run(sockets.clone(), inbox));
        sockets
    }

    /// Tells whoever has to know that a subscription of a connection is no more.
    pub(crate) async fn forget(&self, ended: Ended) {
        self.node.broker_forgets(&ended, self.hub.core).await;
        if let Some(moved) = ended.moved {
            self.node.presence.mention(moved).await;
        }
    }

    /// The answer to a request that asks for a socket; see [`crate::accept`].
    ///
    /// # Errors
    /// Those of [`crate::accept`].
    pub fn accept(&self, method: &Method, headers: &HeaderMap) -> Result<Accepted, Problem> {
        crate::accept(&self.node.config, method, headers)
    }

    /// Serves one accepted WebSocket until it closes. `received` are bytes that were read
    /// already; `caller` is whom the upgrade request proved, if anybody.
    pub fn serve(
        self,
        stream: Stream,
        received: &Bytes,
        encoding: Encoding,
        caller: Option<Arc<Caller>>,
        ip: IpAddr,
    ) -> impl Future<Output = ()> + use<> {
        connection::serve(self, stream, received, encoding, caller, ip)
    }

    /// Serves a stream until nobody takes its body any more, or it ends. `first` are the
    /// commands that came with the request for it; `caller` is whom that proved, if anybody.
    ///
    /// # Errors
    /// `overloaded` if there are as many as may be.
    pub fn stream(
        self,
        form: Form,
        first: Bytes,
        caller: Option<Arc<Caller>>,
        ip: IpAddr,
    ) -> Result<mpsc::Receiver<Bytes>, Problem> {
        let place = self.node.emulated.enter(&*self.node.parts.clock, self.config().streams_max);
        let place = place.ok_or_else(|| {
            Problem::new(Code::Overloaded, "the node holds as many streams as it may")
        })?;
        // What waits for the client waits in the connection's queue, where it is counted.
        let (out, body) = mpsc::channel(1);
        tokio::task::spawn_local(async move {
            self.node.open.fetch_add(1, Ordering::Relaxed);
            let streaming = Streaming { form, first, caller, ip, out, place };
            connection::serve_stream(&self, streaming).await;
            self.node.open.fetch_sub(1, Ordering::Relaxed);
        });
        Ok(body)
    }

    /// Hands the commands of a client to its stream on this node; see [`Realtime::emulate`].
    ///
    /// # Errors
    /// Those of [`Realtime::emulate`].
    pub async fn emulate(&self, session: &str, commands: Bytes) -> Result<(), Problem> {
        self.node.emulate(session, commands).await
    }

    /// This node's name, as streams are told of it.
    #[must_use]
    pub fn node(&self) -> &str {
        self.node.node()
    }

    /// How the sockets are configured.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.node.config
    }

    /// Answers every message with itself, for tests of the WebSocket protocol.
    #[cfg(feature = "echo")]
    pub async fn echo(self, stream: Stream, received: Bytes) {
        connection::echo(stream, received).await;
    }
}

async fn run(sockets: CoreSockets, mut inbox: mpsc::Receiver<ToCore>) {
    let hub = sockets.hub.clone();
    let now = || sockets.node.parts.clock.now();
    while let Some(message) = hub.next(&mut inbox).await {
        match message {
            ToCore::Subscribed { follower, channel, outcome } => {
                if let Some(ended) = hub.subscribed(&follower, channel, outcome, now()) {
                    sockets.forget(ended).await;
                }
            }
            ToCore::Publication { channel, frames, offset, about } => {
                for ended in hub.publish(&channel, &frames, offset, &about).await {
                    sockets.forget(ended).await;
                }
            }
            ToCore::Joined { channel, frames, client } => {
                hub.joined(&channel, &frames, client);
            }
            ToCore::Lost { channel } => {
                for ended in hub.lost(&channel) {
                    sockets.forget(ended).await;
                }
            }
            ToCore::CloseSession { tenant, session, why, reason } => {
                hub.close(why, &reason, |connection| connection.is_bound_to(&tenant, session));
            }
            ToCore::CloseFormer { tenant, session, handed } => {
                hub.close(Disconnect::ForceNoReconnect, "session handed over", |connection| {
                    connection.is_bound_to(&tenant, session) && connection.is_former(handed)
                });
            }
            ToCore::LookAtPillars { tenant, session } => hub.look_at_pillars(&tenant, session),
            ToCore::CloseAllOf { tenant, principal } => {
                hub.close(Disconnect::ForceNoReconnect, "", |connection| {
                    connection.is_of(&tenant, &principal)
                });
            }
            ToCore::Asked { question, answers } => {
                // There is room for the answer of each core.
                let _ = answers.try_send(hub.answer(&question, sockets.node()));
            }
            ToCore::WhoFollows { channel, answers } => {
                let _ = answers.try_send(hub.followers(&channel).await);
            }
            ToCore::LookAtTraces { done } => {
                hub.tracer.look(&sockets.node.traces);
                drop(done);
            }
            ToCore::CloseAll { why, over } => {
                tokio::task::spawn_local(close_all(sockets.clone(), why, over));
            }
        }
    }
}

/// Closes the connections that there are, one after the other.
async fn close_all(sockets: CoreSockets, why: Disconnect, over: Duration) {
    let begun = Instant::now();
    let mut moments: Vec<(Duration, Rc<Connection>)> = {
        let connections = sockets.hub.connections.borrow();
        let clock = &*sockets.node.parts.clock;
        let share = || f64::from(u16::from_le_bytes(clock::random(clock))) / f64::from(u16::MAX);
        connections.iter().map(|(_, one)| (over.mul_f64(share()), one.clone())).collect()
    };
    moments.sort_by_key(|(moment, _)| *moment);
    for (moment, connection) in moments {
        sleep_until(begun + moment).await;
        connection.close(why);
    }
}

impl Hub {
    pub(crate) fn enter(&self, connection: Rc<Connection>) -> usize {
        self.connections.borrow_mut().insert(connection)
    }

    /// Takes a connection out and tells which subscriptions are no more.
    pub(crate) fn leave(&self, place: usize) -> Vec<Ended> {
        let connection = self.connections.borrow_mut().remove(place);
        let ended = connection.take_subscriptions();
        for held in &ended {
            self.unsubscribed(&held.channel, place);
        }
        ended
    }

    /// The connection at `place` no longer takes publications of `channel`.
    pub(crate) fn unsubscribed(&self, channel: &Channel, place: usize) {
        self.take_out(channel, vec![place]);
    }

    /// Answers a subscription, and tells what is no more if it does not stand.
    fn subscribed(
        &self,
        follower: &Follower,
        channel: Channel,
        outcome: Result<Start, Problem>,
        now: Timestamp,
    ) -> Option<Ended> {
        let (place, ticket) = (follower.connection, follower.ticket);
        let connection = self.connections.borrow().get(place).cloned();
        let waiting = connection.filter(|connection| connection.is_waiting(&channel, ticket));
        let Some(connection) = waiting else {
            let life = outcome.ok().map(|start| start.life);
            return Some(Ended { channel, life, dialect: follower.dialect, moved: None });
        };
        if outcome.is_ok() {
            self.channels.borrow_mut().entry(channel.clone()).or_default().push(place);
        }
        let ended = connection.answer_subscription(&channel, outcome, now);
        if ended.is_some() {
            self.unsubscribed(&channel, place);
        }
        ended
    }

    /// What is to be done next.
    async fn next(&self, inbox: &mut mpsc::Receiver<ToCore>) -> Option<ToCore> {
        if let Ok(message) = inbox.try_recv() {
            return Some(message);
        }
        self.turn.set(self.turn.get().wrapping_add(1));
        inbox.recv().await
    }

    /// Tells which subscriptions are no more.
    async fn publish(
        &self,
        channel: &Channel,
        frames: &Frames,
        offset: u64,
        about: &About,
    ) -> Vec<Ended> {
        let turn = self.turn.get();
        let deliver = |one: &Connection| one.deliver(channel, frames, offset, about, turn);
        // Who comes while the hub lets others go on, is told of later publications only: the hub
        // itself enters it. Who goes is not found any more, or not subscribed.
        let places = self.channels.borrow().get(channel).cloned().unwrap_or_default();
        let (mut all, mut gone) = (Vec::new(), Vec::new());
        for places in places.chunks(AT_ONCE) {
            self.act_on(places, deliver, &mut all, &mut gone);
            if places.len() == AT_ONCE {
                tokio::task::yield_now().await;
            }
        }
        self.take_out(channel, gone);
        all
    }

    /// Does something with the subscribers of a channel at `places`; adds the subscriptions that
    /// it ended to `all`, and their places to `gone`.
    fn act_on(
        &self,
        places: &[usize],
        act: impl Fn(&Connection) -> Option<Ended>,
        all: &mut Vec<Ended>,
        gone: &mut Vec<usize>,
    ) {
        for place in places {
            let connection = self.connections.borrow().get(*place).cloned();
            if let Some(ended) = connection.and_then(|connection| act(&connection)) {
                all.push(ended);
                gone.push(*place);
            }
        }
    }

    /// Takes subscribers out of a channel, all of them at once: there may be many.
    fn take_out(&self, channel: &Channel, mut gone: Vec<usize>) {
        gone.sort_unstable();
        let mut channels = self.channels.borrow_mut();
        let Some(places) = channels.get_mut(channel).filter(|_| !gone.is_empty()) else { return };
        places.retain(|place| gone.binary_search(place).is_err());
        if places.is_empty() {
            channels.remove(channel);
        }
    }

    fn joined(&self, channel: &Channel, frames: &Frames, client: Option<ConnectionId>) {
        let channels = self.channels.borrow();
        let Some(places) = channels.get(channel) else { return };
        let connections = self.connections.borrow();
        for connection in places.iter().filter_map(|place| connections.get(*place)) {
            connection.deliver_joined(channel, frames, client);
        }
    }

    fn lost(&self, channel: &Channel) -> Vec<Ended> {
        let places = self.channels.borrow().get(channel).cloned().unwrap_or_default();
        let (mut all, mut gone) = (Vec::new(), Vec::new());
        self.act_on(&places, |connection| connection.lost(channel), &mut all, &mut gone);
        self.take_out(channel, gone);
        all
    }

    async fn followers(&self, channel: &Channel) -> (u64, HashSet<u64>) {
        let places = self.channels.borrow().get(channel).cloned().unwrap_or_default();
        let mut users = HashSet::new();
        for places in places.chunks(ASKED_AT_ONCE) {
            {
                let connections = self.connections.borrow();
                let here = places.iter().filter_map(|place| connections.get(*place));
                users.extend(here.filter_map(|connection| connection.principal_number()));
            }
            tokio::task::yield_now().await;
        }
        (places.len() as u64, users)
    }

    fn answer(&self, question: &Question, node: &str) -> Answered {
        let connections = self.connections.borrow();
        let meant = connections.iter().map(|(_, connection)| connection);
        let meant = meant.filter(|one| one.is_one_of(&question.tenant, &question.of));
        let mut answered = Answered::default();
        for connection in meant {
            answered.count += 1;
            match &question.order {
                Some(order) => connection.take_order(question, order),
                None if answered.shown.len() < question.limit => {
                    answered.shown.extend(connection.shown(node, SUBSCRIPTIONS_SHOWN));
                }
                None => {}
            }
        }
        answered
    }

    fn look_at_pillars(&self, tenant: &TenantId, session: SessionId) {
        for (_, connection) in &*self.connections.borrow() {
            if connection.is_bound_to(tenant, session) {
                connection.look_at_pillars();
            }
        }
    }

    fn close(&self, why: Disconnect, reason: &str, which: impl Fn(&Connection) -> bool) {
        for (_, connection) in &*self.connections.borrow() {
            if which(connection) {
                connection.close_for(why, reason);
            }
        }
    }
}

//! One connection: its state, and the task that reads, writes and keeps its time.

mod command;

use crate::{
    CoreSockets,
    broker::{Start, joined_push},
    channel::Channel,
    connection::command::Flow,
    frame::{Frame, Frames},
    presence::{Announce, Joined, Move, Way},
    queue::{Full, Queue},
};
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use protocol::{
    Problem,
    client::{Body, ClientInfo, Commands, Disconnect, Encoding, Error, Reply, SubscribeResult},
};
use std::{
    cell::{Cell, RefCell},
    net::IpAddr,
    rc::Rc,
    sync::Arc,
    time::Duration,
};
use tokio::{
    net::TcpStream,
    time::{Instant, sleep_until, timeout},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        self, Message,
        error::{CapacityError, ProtocolError},
        protocol::{CloseFrame, Role, WebSocketConfig, frame::coding::CloseCode},
    },
};
use types::{Caller, ConnectionId, SessionId, TenantId};

/// Replies and publications are joined into messages of about this size.
const MESSAGE_BYTES: usize = 16 * 1024;
/// How often a connection counts as a use of its session.
const TOUCH: Duration = Duration::from_secs(600);

/// A connection as its core's hub sees it.
pub(crate) struct Connection {
    id: ConnectionId,
    pub(crate) encoding: Encoding,
    queue: Queue,
    closing: Cell<Option<Disconnect>>,
    bound: RefCell<Option<Bound>>,
    subscriptions: RefCell<Vec<Subscription>>,
}

/// A subscription that is no more, for those who have to be told.
pub(crate) struct Ended {
    pub(crate) channel: Channel,
    /// The broker's number for it, if the broker has answered.
    pub(crate) life: Option<u64>,
    pub(crate) moved: Option<Move>,
}

/// Who the connection is, from its `connect` on.
#[derive(Clone)]
pub(crate) struct Bound {
    pub(crate) caller: Arc<Caller>,
    pub(crate) session: SessionId,
    /// Looks out for the end of the session.
    _hold: traffic_cop::identity::Hold,
}

struct Subscription {
    channel: Channel,
    state: State,
    /// What others were told of it.
    announced: Announce,
    /// Whether it wants to be told who comes and goes.
    joins: bool,
}

enum State {
    /// The broker was asked.
    Waiting { ticket: u64, command: u32, recovering: bool },
    /// Publications after `offset` are still to come.
    Live { life: u64, offset: u64 },
}

impl Connection {
    fn new(id: ConnectionId, encoding: Encoding, queue_bytes_max: usize) -> Self {
        Self {
            id,
            encoding,
            queue: Queue::new(queue_bytes_max),
            closing: Cell::new(None),
            bound: RefCell::default(),
            subscriptions: RefCell::default(),
        }
    }

    /// Asks the connection's task to close it. The first reason stands.
    pub(crate) fn close(&self, why: Disconnect) {
        if self.closing.get().is_none() {
            self.closing.set(Some(why));
            self.queue.wake();
        }
    }

    pub(crate) fn is_bound_to(&self, tenant: &TenantId, session: SessionId) -> bool {
        let bound = self.bound.borrow();
        bound.as_ref().is_some_and(|b| b.session == session && b.caller.tenant == *tenant)
    }

    pub(crate) fn is_waiting(&self, channel: &Channel, ticket: u64) -> bool {
        let subscriptions = self.subscriptions.borrow();
        subscriptions.iter().any(|held| {
            held.channel == *channel
                && matches!(held.state, State::Waiting { ticket: t, .. } if t == ticket)
        })
    }

    /// Answers the `subscribe` that was waiting for the broker, and tells what is no more if
    /// that has failed.
    pub(crate) fn answer_subscription(
        &self,
        channel: &Channel,
        outcome: Result<Start, Problem>,
    ) -> Option<Ended> {
        let mut subscriptions = self.subscriptions.borrow_mut();
        let at = subscriptions.iter().position(|held| held.channel == *channel)?;
        let State::Waiting { command, recovering, .. } = subscriptions[at].state else {
            return None;
        };
        match outcome {
            Ok(start) => {
                let offset = start.offset;
                subscriptions[at].state = State::Live { life: start.life, offset };
                // It is told of itself here, so that this comes once, and after the answer.
                let own_join = subscriptions[at].joins.then(|| self.info()).flatten();
                let result = SubscribeResult {
                    recoverable: start.recoverable,
                    positioned: start.recoverable,
                    epoch: start.epoch,
                    offset,
                    publications: start.publications,
                    recovered: start.recovered,
                    was_recovering: recovering,
                };
                drop(subscriptions);
                self.reply(command, Body::Subscribe(result));
                if let Some(info) = own_join {
                    let push = joined_push(channel, &Joined::Join(info));
                    self.push(Frame::of(&push, self.encoding));
                }
                None
            }
            Err(problem) => {
                let held = subscriptions.swap_remove(at);
                drop(subscriptions);
                self.reply(command, Body::Error(Error::from(&problem)));
                Some(self.ended(held))
            }
        }
    }

    /// How others see the connection, once it is bound.
    fn info(&self) -> Option<ClientInfo> {
        let bound = self.bound.borrow();
        let user = bound.as_ref()?.caller.principal.id.as_str().to_owned();
        Some(ClientInfo { user, client: self.id.to_string() })
    }

    /// Others are told that somebody came or went.
    fn moved(&self, channel: &Channel, announce: Announce, way: Way) -> Option<Move> {
        let info = self.info().filter(|_| !announce.is_nothing())?;
        Some(Move { channel: channel.clone(), announce, info, way })
    }

    fn ended(&self, held: Subscription) -> Ended {
        let moved = self.moved(&held.channel, held.announced, Way::Out);
        let life = match held.state {
            State::Live { life, .. } => Some(life),
            // When the broker's answer comes, the hub finds that nobody waits for it.
            State::Waiting { .. } => None,
        };
        Ended { channel: held.channel, life, moved }
    }

    /// Queues a publication, unless the connection has it already.
    pub(crate) fn deliver(&self, channel: &Channel, frames: &Frames, offset: u64) {
        if self.closing.get().is_some() {
            return;
        }
        let mut subscriptions = self.subscriptions.borrow_mut();
        let held = subscriptions.iter_mut().find(|held| held.channel == *channel);
        let Some(Subscription { state: State::Live { offset: last, .. }, .. }) = held else {
            return;
        };
        if offset != 0 {
            if offset <= *last {
                return;
            }
            *last = offset;
        }
        drop(subscriptions);
        self.push_one_of(frames);
    }

    /// Queues that `client` came or went, if the connection wants to be told.
    pub(crate) fn deliver_joined(
        &self,
        channel: &Channel,
        frames: &Frames,
        client: Option<ConnectionId>,
    ) {
        if self.closing.get().is_some() || client == Some(self.id) {
            return;
        }
        let wants = |held: &Subscription| {
            held.channel == *channel && held.joins && matches!(held.state, State::Live { .. })
        };
        if self.subscriptions.borrow().iter().any(wants) {
            self.push_one_of(frames);
        }
    }

    fn push_one_of(&self, frames: &Frames) {
        match frames.get(self.encoding) {
            Some(frame) => self.push(frame.clone()),
            // The broker writes for all that it has answered; who is forgotten starts again.
            None => self.close(Disconnect::InsufficientState),
        }
    }

    /// Ends a subscription, if there is one.
    fn take_subscription(&self, channel: &Channel) -> Option<Ended> {
        let mut subscriptions = self.subscriptions.borrow_mut();
        let at = subscriptions.iter().position(|held| held.channel == *channel)?;
        let held = subscriptions.swap_remove(at);
        drop(subscriptions);
        Some(self.ended(held))
    }

    /// Ends every subscription.
    pub(crate) fn take_subscriptions(&self) -> Vec<Ended> {
        let subscriptions = std::mem::take(&mut *self.subscriptions.borrow_mut());
        subscriptions.into_iter().map(|held| self.ended(held)).collect()
    }

    fn reply(&self, id: u32, body: Body) {
        self.push(Frame::of(&Reply { id, body }, self.encoding));
    }

    fn push(&self, frame: Frame) {
        if self.queue.push(frame) == Err(Full) {
            self.close(Disconnect::Slow);
        }
    }
}

fn socket_config(sockets: &CoreSockets) -> WebSocketConfig {
    let config = &sockets.node.config;
    // Small buffers: an idle connection has to cost little.
    WebSocketConfig::default()
        .read_buffer_size(1024)
        .write_buffer_size(0)
        .max_write_buffer_size(config.queue_bytes_max.max(MESSAGE_BYTES) * 2)
        .max_message_size(Some(config.message_bytes_max))
        .max_frame_size(Some(config.message_bytes_max))
}

type Socket = WebSocketStream<TcpStream>;

/// Serves a connection until it ends.
pub(crate) async fn serve(
    sockets: &CoreSockets,
    stream: TcpStream,
    received: Bytes,
    encoding: Encoding,
    caller: Option<Arc<Caller>>,
    ip: IpAddr,
) {
    let config = Some(socket_config(sockets));
    let received = received.to_vec();
    let socket = Socket::from_partially_read(stream, received, Role::Server, config).await;
    let id = sockets.node.connection_id();
    let queue_bytes_max = sockets.node.config.queue_bytes_max;
    let connection = Rc::new(Connection::new(id, encoding, queue_bytes_max));
    let place = sockets.hub.enter(connection.clone());
    let mut task = Task {
        sockets,
        connection,
        place,
        socket,
        offered: caller,
        timer: Timer::new(sockets),
        ip,
    };
    let why = task.run().await;
    for ended in sockets.hub.leave(place) {
        sockets.node.broker_forgets(&ended, sockets.hub.core, encoding).await;
        if let Some(moved) = ended.moved {
            sockets.node.presence.mention(moved).await;
        }
    }
    let why = match why {
        Closed::ByClient => "closed by the client",
        Closed::ByUs(why) => why.parts().1,
        Closed::Broken => "broken framing",
    };
    tracing::debug!(connection = %id, why, "a connection has ended");
}

/// How a connection ended.
enum Closed {
    /// The client closed it, or went away.
    ByClient,
    /// We closed it.
    ByUs(Disconnect),
    /// The client broke the WebSocket protocol.
    Broken,
}

/// The connection's one task.
struct Task<'a> {
    sockets: &'a CoreSockets,
    connection: Rc<Connection>,
    place: usize,
    socket: Socket,
    /// Whom the upgrade request proved; used if `connect` brings no token.
    offered: Option<Arc<Caller>>,
    timer: Timer,
    ip: IpAddr,
}

/// The one thing that a connection waits for next.
#[derive(Debug, Clone, Copy)]
struct Timer {
    at: Instant,
    what: Due,
    touched: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Due {
    /// No `connect` came.
    Connect,
    /// The next ping.
    Ping,
    /// No answer to the last ping.
    Pong,
}

impl Timer {
    fn new(sockets: &CoreSockets) -> Self {
        let now = Instant::now();
        Self { at: now + sockets.node.config.connect_timeout, what: Due::Connect, touched: now }
    }

    fn next(&mut self, what: Due, after: Duration) {
        self.at = Instant::now() + after;
        self.what = what;
    }
}

enum Event {
    Queue,
    Message(Option<Result<Message, tungstenite::Error>>),
    Timer,
}

impl Task<'_> {
    async fn run(&mut self) -> Closed {
        loop {
            let event = tokio::select! {
                biased;
                () = self.connection.queue.woken() => Event::Queue,
                message = self.socket.next() => Event::Message(message),
                () = sleep_until(self.timer.at) => Event::Timer,
            };
            match event {
                Event::Queue => {}
                Event::Message(Some(Ok(Message::Text(text)))) => {
                    self.take(Encoding::Json, Commands::json(&text)).await;
                }
                Event::Message(Some(Ok(Message::Binary(bytes)))) => {
                    self.take(Encoding::Protobuf, Commands::protobuf(&bytes)).await;
                }
                Event::Message(Some(Ok(
                    Message::Ping(_) | Message::Pong(_) | Message::Frame(_),
                ))) => {}
                Event::Message(Some(Ok(Message::Close(_))) | None) => return Closed::ByClient,
                Event::Message(Some(Err(error))) => return self.broken(error).await,
                Event::Timer => self.timer_due(),
            }
            if let Some(ended) = self.flush().await {
                return ended;
            }
        }
    }

    async fn take(&mut self, encoding: Encoding, commands: Commands<'_>) {
        if encoding != self.connection.encoding {
            return self.connection.close(Disconnect::BadRequest);
        }
        // Commands may wait for a store: their state is kept off the connection.
        match Box::pin(self.receive(commands)).await {
            Flow::GoOn => {}
            Flow::Close(why) => self.connection.close(why),
        }
    }

    /// Writes what waits, then closes if that was asked for.
    async fn flush(&mut self) -> Option<Closed> {
        let within = self.sockets.node.config.write_timeout;
        while let Some(frame) = self.connection.queue.take(MESSAGE_BYTES) {
            let message = match frame {
                Frame::Text(text) => Message::Text(text),
                Frame::Binary(bytes) => Message::Binary(bytes),
            };
            match timeout(within, self.socket.send(message)).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Some(Closed::ByClient),
                Err(_) => return Some(self.close(Disconnect::Slow).await),
            }
        }
        match self.connection.closing.get() {
            Some(why) => Some(self.close(why).await),
            None => None,
        }
    }

    async fn close(&mut self, why: Disconnect) -> Closed {
        let (code, reason) = why.parts();
        let code = CloseCode::from(code);
        let frame = CloseFrame { code, reason: reason.into() };
        // A client that does not read gets no close frame, only the end of the connection.
        let _ = timeout(Duration::from_secs(1), self.socket.close(Some(frame))).await;
        // The client's own close frame ends the TCP connection in order (RFC 6455, 7.1.1).
        let drained = async { while let Some(Ok(_)) = self.socket.next().await {} };
        let _ = timeout(Duration::from_secs(1), drained).await;
        Closed::ByUs(why)
    }

    async fn broken(&mut self, error: tungstenite::Error) -> Closed {
        let code = match error {
            tungstenite::Error::Capacity(CapacityError::MessageTooLong { .. }) => CloseCode::Size,
            tungstenite::Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => {
                return Closed::ByClient;
            }
            tungstenite::Error::Protocol(_) => CloseCode::Protocol,
            tungstenite::Error::Utf8(_) => CloseCode::Invalid,
            tungstenite::Error::ConnectionClosed
            | tungstenite::Error::AlreadyClosed
            | tungstenite::Error::Io(_)
            | tungstenite::Error::Tls(_)
            | tungstenite::Error::Capacity(_)
            | tungstenite::Error::WriteBufferFull(_)
            | tungstenite::Error::AttackAttempt
            | tungstenite::Error::Url(_)
            | tungstenite::Error::Http(_)
            | tungstenite::Error::HttpFormat(_) => return Closed::ByClient,
        };
        let frame = CloseFrame { code, reason: "".into() };
        let _ = timeout(Duration::from_secs(1), self.socket.close(Some(frame))).await;
        Closed::Broken
    }

    fn timer_due(&mut self) {
        let config = &self.sockets.node.config;
        match self.timer.what {
            Due::Connect => self.connection.close(Disconnect::Stale),
            Due::Pong => self.connection.close(Disconnect::NoPong),
            Due::Ping => {
                self.connection.reply(0, Body::Nothing);
                self.timer.next(Due::Pong, config.pong_timeout);
                self.check_credential();
            }
        }
    }

    /// Closes when the credential has ended; counts, now and then, as a use of the session.
    fn check_credential(&mut self) {
        let Some(bound) = self.connection.bound.borrow().clone() else { return };
        let parts = &self.sockets.node.parts;
        let from_token = bound.caller.credential == types::CredentialKind::SessionToken;
        // A session token lives as long as its session, which is asked for below.
        if !from_token && bound.caller.expires.is_some_and(|at| at <= parts.clock.now()) {
            return self.connection.close(Disconnect::Expired);
        }
        if self.timer.touched.elapsed() < TOUCH {
            return;
        }
        self.timer.touched = Instant::now();
        let (sessions, connection) = (parts.sessions.clone(), Rc::downgrade(&self.connection));
        let control = parts.control.clone();
        tokio::task::spawn_local(async move {
            let refresh =
                async move { sessions.refresh(&bound.caller.tenant, bound.session).await };
            if let Ok(Err(problem)) = control.spawn(refresh).await
                && problem.code == protocol::Code::NotFound
                && let Some(connection) = connection.upgrade()
            {
                connection.close(Disconnect::Expired);
            }
        });
    }
}

/// Answers every message with itself.
#[cfg(feature = "echo")]
pub(crate) async fn echo(sockets: &CoreSockets, stream: TcpStream, received: Bytes) {
    let config = Some(socket_config(sockets));
    let mut socket =
        Socket::from_partially_read(stream, received.to_vec(), Role::Server, config).await;
    while let Some(Ok(message)) = socket.next().await {
        let answered = match message {
            Message::Text(_) | Message::Binary(_) => socket.send(message).await,
            Message::Ping(_) | Message::Pong(_) | Message::Close(_) | Message::Frame(_) => {
                socket.flush().await
            }
        };
        if answered.is_err() {
            break;
        }
    }
}

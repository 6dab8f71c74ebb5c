//! What is the same for every transport: a connection's beginning and end, its time, and the
//! commands it is handed.

use crate::{
    CoreSockets,
    connection::{
        Closed, Connection, Origin, charging::KnownCharge, command::Flow, outlet::Outlet,
    },
    frame::Frame,
};
use protocol::client::{Body, Commands, Disconnect, Encoding};
use std::{net::IpAddr, rc::Rc, sync::Arc, time::Duration};
use tokio::time::Instant;
use traffic_cop::session::What;
use types::Caller;

/// Replies and publications are joined into messages of about this size.
pub(super) const MESSAGE_BYTES: usize = 16 * 1024;
/// How often a connection counts as a use of its session.
const TOUCH: Duration = Duration::from_secs(600);

/// The connection's one task, its transport apart.
pub(super) struct Task {
    pub(super) sockets: CoreSockets,
    pub(super) connection: Rc<Connection>,
    pub(super) place: usize,
    /// Whom the first request proved; used if `connect` brings no token.
    pub(super) offered: Option<Arc<Caller>>,
    pub(super) timer: Timer,
    pub(super) ip: IpAddr,
    /// The limits of its commands, once it has had one.
    pub(super) known: Option<Box<KnownCharge>>,
    /// By which name requests of their own reach it, if its transport goes one way only.
    pub(super) emulated: Option<Arc<str>>,
}

/// The one thing that a connection waits for next.
#[derive(Debug, Clone, Copy)]
pub(super) struct Timer {
    pub(super) at: Instant,
    pub(super) what: Due,
    touched: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
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

    pub(super) fn next(&mut self, what: Due, after: Duration) {
        self.at = Instant::now() + after;
        self.what = what;
    }
}

impl Task {
    /// Enters a connection among those of its core.
    pub(super) fn begin(
        sockets: CoreSockets,
        encoding: Encoding,
        offered: Option<Arc<Caller>>,
        ip: IpAddr,
        emulated: Option<Arc<str>>,
        out: Option<Rc<Outlet>>,
    ) -> Self {
        let queue_bytes_max = sockets.node.config.queue_bytes_max;
        let since = sockets.node.parts.clock.now();
        let origin = Origin { ip, since, emulated: emulated.is_some() };
        let id = sockets.node.connection_id();
        let tracer = sockets.hub.tracer.clone();
        let connection = Connection::new(id, encoding, origin, queue_bytes_max, tracer, out);
        let connection = Rc::new(connection);
        let place = sockets.hub.enter(connection.clone());
        let timer = Timer::new(&sockets);
        Self { sockets, connection, place, offered, timer, ip, known: None, emulated }
    }

    /// Takes it out, and tells whoever has to know.
    pub(super) async fn end(self, why: Closed) {
        let Self { sockets, connection, place, .. } = self;
        let (code, reason) = match why {
            Closed::ByClient => (0, "closed by the client"),
            Closed::ByUs(why) => why.parts(),
            Closed::Broken => (1002, "broken framing"),
        };
        connection.trace_close(code, connection.reason.get().map_or(reason, |reason| reason));
        if let Some(bound) = &*connection.bound.borrow() {
            sockets.node.places.leave(&bound.caller, connection.id);
        }
        if let Some(durable) = connection.durable().filter(|durable| durable.has_changed()) {
            // Rare, and kept off the connection.
            if let Err(problem) = Box::pin(durable.write()).await {
                tracing::warn!(problem.detail, "what a session keeps is not up to date");
            }
        }
        for ended in sockets.hub.leave(place) {
            sockets.forget(ended).await;
        }
        if let Some(bound) = &*connection.bound.borrow() {
            let told = connection.reason.get().map_or(reason, |reason| reason).to_owned();
            let connection = connection.id.to_string();
            let what = What::SocketClosed { connection, code, reason: told };
            let trail = sockets.node.parts.sessions.trail();
            trail.note(&bound.caller.tenant, bound.session, what);
        }
        sockets.node.closings.count(code, reason);
        if let Some(bound) = &*connection.bound.borrow() {
            bound.meter.closed(code, reason);
        }
        tracing::debug!(connection = %connection.id, reason, "a connection has ended");
    }

    /// What is to be written next.
    pub(super) fn next_frame(&self) -> Option<Frame> {
        let connection = &self.connection;
        connection.queue.take(MESSAGE_BYTES).or_else(|| {
            connection.release().then(|| connection.queue.take(MESSAGE_BYTES)).flatten()
        })
    }

    /// Obeys what a message holds.
    pub(super) async fn take(&mut self, encoding: Encoding, commands: Commands<'_>) {
        if encoding != self.connection.encoding {
            return self.connection.close(Disconnect::BadRequest);
        }
        // Commands may wait for a store: their state is kept off the connection.
        match Box::pin(self.receive(commands)).await {
            Flow::GoOn => {}
            Flow::Close(why) => self.connection.close(why),
        }
    }

    pub(super) async fn timer_due(&mut self) {
        let config = &self.sockets.node.config;
        match self.timer.what {
            Due::Connect => self.connection.close(Disconnect::Stale),
            Due::Pong => self.connection.close(Disconnect::NoPong),
            Due::Ping => {
                self.connection.reply(0, Body::Nothing);
                let durable = self.connection.durable();
                match self.emulated {
                    // Whether the client is there shows in what it takes.
                    Some(_) if durable.is_none() => {
                        let after = config.ping_interval;
                        self.ping_after(after);
                    }
                    None | Some(_) => self.timer.next(Due::Pong, config.pong_timeout),
                }
                if let Some(durable) = durable {
                    durable.pinged(&self.connection);
                }
                self.check_credential();
                let now = self.sockets.node.parts.clock.now();
                if self.connection.has_overdue(now) {
                    // Rare, and kept off the connection.
                    Box::pin(self.check_subscriptions(now)).await;
                }
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
        if bound.hold.expires().is_some_and(|at| at <= parts.clock.now()) {
            self.close_if_over(&bound);
        }
        if self.timer.touched.elapsed() < TOUCH {
            return;
        }
        self.timer.touched = Instant::now();
        let (sessions, connection) = (parts.sessions.clone(), Rc::downgrade(&self.connection));
        let control = parts.control.clone();
        tokio::task::spawn_local(async move {
            let refresh =
                async move { sessions.refresh(&bound.caller.tenant, bound.session, None).await };
            if let Ok(Err(problem)) = control.spawn(refresh).await
                && problem.code == protocol::Code::NotFound
                && let Some(connection) = connection.upgrade()
            {
                connection.close(Disconnect::Expired);
            }
        });
    }
}

//! One connection to an instance, shared by the requests of a core.

use super::{
    counted::{Counted, Seen},
    loan::Lent,
};
use crate::{instance::Slot, service::Service, tls};
use hyper::client::conn::http2::{Builder, Connection, SendRequest};
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::{SockRef, TcpKeepalive};
use std::{
    cell::Cell,
    future::{Future, poll_fn},
    io,
    pin::pin,
    rc::Rc,
    time::Duration,
};
use tokio::sync::oneshot;
use transport::Stream;

/// What a stream may hold of an answer that its client does not read.
const STREAM_WINDOW: u32 = 64 * 1024;
/// What a request may have in the codec and not on its way.
const SEND_BYTES_MAX: usize = 64 * 1024;
/// Bytes of the head of an answer, as with HTTP/1.
const HEADER_BYTES_MAX: u32 = 64 * 1024;
/// How long a sign of life may take.
const PONG_TIMEOUT: Duration = Duration::from_secs(10);
/// The kernel asks a silent peer after this long, and again as often.
const PROBE_AFTER: Duration = Duration::from_secs(15);
const PROBE_INTERVAL: Duration = Duration::from_secs(5);
/// It gives up a peer that confirms nothing for this long.
const UNCONFIRMED_MAX: Duration = Duration::from_secs(20);

/// A connection. Dropped, it ends once its requests have.
pub(crate) struct Line {
    pub(crate) sender: SendRequest<Lent>,
    pub(crate) seen: Rc<Seen>,
    streams: Cell<usize>,
    /// What it takes at once, from our side.
    streams_max: Cell<usize>,
    /// The same, from the other side.
    peer_max: Rc<Cell<usize>>,
    /// It is told, or known, to take no more.
    over: Cell<bool>,
    idle_until: Cell<Duration>,
    idle_timeout: Duration,
}

impl Line {
    /// Opens a connection, driven by a task of this core.
    ///
    /// Cancel safe: the attempt is given up.
    pub(crate) async fn open(slot: Slot, service: &Service) -> io::Result<Self> {
        let opened = Self::connect(slot, service);
        let opened = tokio::time::timeout(service.config.connect_timeout, opened).await;
        opened.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
    }

    async fn connect(slot: Slot, service: &Service) -> io::Result<Self> {
        let config = &service.config;
        let stream = tls::connect(slot.instance(), service.tls.as_ref()).await?;
        watch(&stream)?;
        let seen = Rc::new(Seen::default());
        let io = TokioIo::new(Counted::new(stream, Rc::clone(&seen)));
        // A client that reads slowly leaves the others their part of the connection's window.
        let window = STREAM_WINDOW.saturating_mul(config.streams_max.saturating_add(1));
        let (sender, connection) = Builder::new(OnThisCore)
            .timer(TokioTimer::new())
            .initial_max_send_streams(0)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(window.min(i32::MAX as u32))
            .max_send_buf_size(SEND_BYTES_MAX)
            .max_header_list_size(HEADER_BYTES_MAX)
            .keep_alive_interval(config.ping_interval)
            .keep_alive_timeout(PONG_TIMEOUT)
            .handshake(io)
            .await
            .map_err(io::Error::other)?;
        let peer_max = Rc::new(Cell::new(0));
        let (settled, settings) = oneshot::channel();
        tokio::task::spawn_local(drive(
            slot,
            connection,
            Rc::clone(&seen),
            Rc::clone(&peer_max),
            settled,
        ));
        // Only its settings say that it speaks HTTP/2, and how many requests it takes.
        let unsettled = |_| io::Error::other("the instance does not speak HTTP/2");
        settings.await.map_err(unsettled)?;
        Ok(Self {
            sender,
            seen,
            streams: Cell::new(0),
            streams_max: Cell::new(config.streams_max as usize),
            peer_max,
            over: Cell::new(false),
            idle_until: Cell::new(Duration::MAX),
            idle_timeout: config.idle_timeout,
        })
    }

    /// Whether another request may come.
    pub(crate) fn is_open(&self) -> bool {
        !self.over.get() && !self.sender.is_closed()
    }

    /// No request is to come any more.
    pub(crate) fn retire(&self) {
        self.over.set(true);
    }

    /// It refused a request: it has as many as it takes.
    pub(crate) fn refused(&self) {
        self.streams_max.set(self.streams.get().saturating_sub(1).max(1));
    }

    fn has_room(&self) -> bool {
        let max = self.streams_max.get().min(self.peer_max.get());
        self.streams.get() < max
    }

    /// Whether it is to be kept, at this time of the node.
    pub(crate) fn is_kept(&self, now: Duration) -> bool {
        if self.streams.get() > 0 || self.idle_until.get() == Duration::MAX {
            self.idle_until.set(now + self.idle_timeout);
        }
        self.is_open() && self.idle_until.get() > now
    }
}

/// A request's place on a connection, for as long as it is held.
pub(crate) struct Place(Rc<Line>);

impl Place {
    /// A place, if there is one.
    pub(crate) fn take(line: &Rc<Line>) -> Option<Self> {
        if !line.is_open() || !line.has_room() {
            return None;
        }
        line.streams.set(line.streams.get() + 1);
        // The next sweep counts anew.
        line.idle_until.set(Duration::MAX);
        Some(Self(Rc::clone(line)))
    }

    pub(crate) fn line(&self) -> &Line {
        &self.0
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.streams.set(self.0.streams.get() - 1);
    }
}

/// Drives a connection to its end; tells how many requests it takes, and when that is known.
async fn drive(
    slot: Slot,
    connection: Connection<TokioIo<Counted>, Lent, OnThisCore>,
    seen: Rc<Seen>,
    peer_max: Rc<Cell<usize>>,
    settled: oneshot::Sender<()>,
) {
    let (mut connection, mut settled) = (pin!(connection), Some(settled));
    let ended = poll_fn(|cx| {
        let polled = connection.as_mut().poll(cx);
        peer_max.set(connection.current_max_send_streams());
        if peer_max.get() == 0 {
            // Nobody else says when the settings have come.
            seen.wake_at_read(cx);
        } else if let Some(settled) = settled.take() {
            // Who opened it may have given up.
            let _ = settled.send(());
        }
        polled
    });
    if let Err(error) = ended.await {
        let instance = slot.instance().authority();
        tracing::debug!(error = &error as &dyn std::error::Error, instance, "connection");
    }
}

/// Lets the kernel notice that a peer is gone without a word.
fn watch(stream: &Stream) -> io::Result<()> {
    let socket = SockRef::from(stream.socket());
    socket.set_tcp_keepalive(
        &TcpKeepalive::new().with_time(PROBE_AFTER).with_interval(PROBE_INTERVAL),
    )?;
    socket.set_tcp_user_timeout(Some(UNCONFIRMED_MAX))
}

/// Runs what a connection needs on its core.
#[derive(Debug, Clone, Copy)]
struct OnThisCore;

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for OnThisCore {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}

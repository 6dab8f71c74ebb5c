//! The connections of one core.

use crate::{
    body::Body,
    service::{Instance, Slot},
};
use ahash::AHashMap;
use clock::SharedClock;
use hyper::client::conn::http1::{self, Connection, SendRequest};
use hyper_util::rt::TokioIo;
use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    io,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};
use tokio::net::TcpStream;

/// The connections of one core to the instances of all services; last used, first taken.
/// Cheap to clone; never leaves its core.
#[derive(Clone)]
pub struct Pool(Rc<Inner>);

pub(crate) struct Inner {
    pub(crate) clock: SharedClock,
    idle: RefCell<AHashMap<u64, VecDeque<Idle>>>,
    random: Cell<u64>,
    /// The time of the last sweep: near enough for what takes seconds.
    now: Cell<Duration>,
}

struct Idle {
    link: Box<Link>,
    until: Duration,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("idle", &self.idle()).finish()
    }
}

impl Pool {
    /// An empty pool.
    #[must_use]
    pub fn new(clock: SharedClock) -> Self {
        let seed = u64::from_le_bytes(clock::random(&*clock)) | 1;
        let now = Cell::new(clock.elapsed());
        let inner = Inner { clock, idle: RefCell::default(), random: Cell::new(seed), now };
        Self(Rc::new(inner))
    }

    /// Closes connections that waited too long or that the service has closed. To be called
    /// about once a second.
    pub fn sweep(&self) {
        let now = self.0.clock.elapsed();
        self.0.now.set(now);
        self.0.idle.borrow_mut().retain(|_, links| {
            links.retain_mut(|idle| idle.until > now && idle.link.is_idle());
            !links.is_empty()
        });
    }

    /// Closes every unused connection.
    pub fn clear(&self) {
        self.0.idle.borrow_mut().clear();
    }

    /// How many connections wait unused.
    #[must_use]
    pub fn idle(&self) -> usize {
        self.0.idle.borrow().values().map(VecDeque::len).sum()
    }

    pub(crate) fn inner(&self) -> &Inner {
        &self.0
    }

    /// An unused connection to `instance`. Its service may have closed it since it was last
    /// driven; then the request comes back unsent.
    pub(crate) fn take(&self, instance: &Instance) -> Option<Box<Link>> {
        let mut idle = self.0.idle.borrow_mut();
        let links = idle.get_mut(&instance.id)?;
        std::iter::from_fn(|| links.pop_back()).map(|idle| idle.link).find(|link| link.is_ready())
    }

    pub(crate) fn put(&self, link: Box<Link>) {
        let until = self.0.now.get() + link.idle_timeout;
        let mut idle = self.0.idle.borrow_mut();
        let links = idle.entry(link.slot.instance().id).or_default();
        if links.len() >= link.idle_max {
            links.pop_front();
        }
        links.push_back(Idle { link, until });
    }
}

impl Inner {
    /// About the time; never ahead of it.
    pub(crate) fn now(&self) -> Duration {
        self.now.get()
    }

    /// xorshift64* (Marsaglia 2003; Vigna 2016): to spread load, not to keep secrets.
    pub(crate) fn random(&self) -> u64 {
        let mut x = self.random.get();
        x ^= x >> 12;
        x ^= x << 25;
        x ^= x >> 27;
        self.random.set(x);
        x.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }
}

/// A connection to an instance, driven by whoever uses it.
pub(crate) struct Link {
    pub(crate) sender: SendRequest<Body>,
    connection: Option<Connection<TokioIo<TcpStream>, Body>>,
    ended: bool,
    slot: Slot,
    idle_timeout: Duration,
    idle_max: usize,
}

impl Link {
    /// Opens a connection.
    ///
    /// Cancel safe: the attempt is given up.
    pub(crate) async fn open(
        slot: Slot,
        config: &crate::ServiceConfig,
    ) -> Result<Box<Self>, io::Error> {
        let instance = Arc::clone(slot.instance());
        let connect = async {
            match instance.address {
                Some(address) => TcpStream::connect(address).await,
                None => TcpStream::connect(instance.authority.as_str()).await,
            }
        };
        let stream = tokio::time::timeout(config.connect_timeout, connect)
            .await
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        stream.set_nodelay(true)?;
        let (sender, connection) = http1::Builder::new()
            // At most 100 fields: the codec's default, cheaper than saying so.
            .max_header_size(32 * 1024)
            .max_buf_size(64 * 1024)
            // Most requests are a head alone, which a plain write sends for less.
            .writev(false)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(io::Error::other)?;
        Ok(Box::new(Self {
            sender,
            connection: Some(connection),
            ended: false,
            slot,
            idle_timeout: config.idle_timeout,
            idle_max: config.idle_max,
        }))
    }

    /// Lets the connection read and write. True once it has ended; polled no more then.
    pub(crate) fn drive(&mut self, cx: &mut Context<'_>) -> bool {
        if !self.ended
            && let Some(connection) = &mut self.connection
            && let Poll::Ready(end) = Pin::new(connection).poll(cx)
        {
            if let Err(error) = end {
                tracing::debug!(%error, instance = self.slot.instance().authority(), "connection");
            }
            self.ended = true;
        }
        self.ended
    }

    /// Drops the connection.
    pub(crate) fn close(&mut self) {
        self.connection = None;
        self.ended = true;
    }

    /// Whether it waits for a request, as far as was seen when it was last driven.
    pub(crate) fn is_ready(&self) -> bool {
        self.sender.is_ready()
    }

    /// Whether it is alive and waits for a request, after a look at its socket.
    pub(crate) fn is_idle(&mut self) -> bool {
        !self.drive_unheard() && self.is_ready()
    }

    /// As [`Link::drive`], for when nobody has to be woken: whoever drives it next does so for
    /// a reason of his own. What hyper's halves tell one another then wakes no task, which is
    /// running anyway.
    pub(crate) fn drive_unheard(&mut self) -> bool {
        self.drive(&mut Context::from_waker(Waker::noop()))
    }

    /// The socket and the bytes already read from it, after an upgrade.
    pub(crate) fn into_socket(mut self: Box<Self>) -> Option<(TcpStream, bytes::Bytes, Slot)> {
        let parts = self.connection.take()?.into_parts();
        Some((parts.io.into_inner(), parts.read_buf, self.slot))
    }
}

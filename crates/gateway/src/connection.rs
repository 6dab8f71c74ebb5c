//! One connection, from its first byte to its last.

use crate::{
    admission::Permit,
    bridged::Call,
    certificate::ClientCertificate,
    core::Core,
    fields,
    forwarded::{self, Client},
    h1, h2,
    opening::{self, Opened},
    watch::{Watch, millis},
};
use http::{HeaderMap, HeaderValue};
use http1::Bounds;
use soa::{Alike, BoxError};
use std::{
    cell::RefCell,
    future::{Future, poll_fn},
    net::{IpAddr, TcpStream},
    pin::Pin,
    rc::Rc,
    sync::{Arc, atomic::Ordering::Relaxed},
    task::{Context, Poll},
    time::Duration,
};
use traffic_cop::limit::{Charge, network};
use types::{Caller, Cidr};

/// How long a client may keep us waiting.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    pub(crate) header: Duration,
    pub(crate) body: Duration,
    pub(crate) body_rate_min: u64,
    pub(crate) idle: Duration,
    pub(crate) write: Duration,
    pub(crate) write_rate_min: u64,
}

/// What the requests of one connection share.
pub(crate) struct Conn {
    pub(crate) core: Rc<Core>,
    pub(crate) watch: Rc<Watch>,
    pub(crate) ip: IpAddr,
    /// Whether `ip` is known to be where it comes from, and may be a trusted proxy's.
    is_known: bool,
    pub(crate) forwarded_for: HeaderValue,
    /// By which the client has proved who it is, if it has.
    pub(crate) certificate: Option<Box<ClientCertificate>>,
    /// `http` or `https`.
    pub(crate) scheme: HeaderValue,
    pub(crate) known: RefCell<Known>,
}

impl Conn {
    /// The client that a trusted proxy speaks for; none if the connection is the client's own.
    pub(crate) fn client(&self, trusted: &[Cidr], headers: &HeaderMap) -> Option<Box<Client>> {
        let is_proxy = self.is_known && trusted.iter().any(|cidr| cidr.contains(self.ip));
        is_proxy.then(|| Box::new(Client::of(headers, self.ip, trusted)))
    }

    /// Whether the connection ends after the request that it is serving.
    pub(crate) fn is_draining(&self) -> bool {
        self.core.node.draining.load(Relaxed)
    }

    /// Ends once `timeout` has passed.
    ///
    /// HTTP/1 has one request at a time, so its connection's watch keeps the time; the streams
    /// of HTTP/2 take a timer each.
    pub(crate) fn late(&self, timeout: Duration, is_h2: bool) -> Late<'_> {
        if is_h2 {
            return Late::Timer(Box::pin(tokio::time::sleep(timeout)));
        }
        let watch = &*self.watch;
        watch.answer().set(watch.clock.now_ms().saturating_add(millis(timeout)));
        Late::Watch(watch)
    }
}

/// The time that a service has for its answer.
pub(crate) enum Late<'a> {
    Watch(&'a Watch),
    Timer(Pin<Box<tokio::time::Sleep>>),
}

impl Future for Late<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        match &mut *self {
            // The sweeper wakes the connection's task.
            Self::Watch(watch) if watch.answer().take_passed() => Poll::Ready(()),
            Self::Watch(_) => Poll::Pending,
            Self::Timer(timer) => timer.as_mut().poll(cx),
        }
    }
}

impl Drop for Late<'_> {
    fn drop(&mut self) {
        if let Self::Watch(watch) = self {
            watch.answer().clear();
            watch.answer().take_passed();
        }
    }
}

/// What need not be worked out again for the next request of the same caller and route.
#[derive(Default)]
pub(crate) struct Known {
    pub(crate) alike: Option<KnownAlike>,
    pub(crate) charge: Option<KnownCharge>,
}

/// Header fields that the requests of one caller to services have alike.
pub(crate) struct KnownAlike {
    pub(crate) caller: Option<Arc<Caller>>,
    pub(crate) call: Option<Call>,
    /// Whether the connection is the client's own.
    pub(crate) is_direct: bool,
    pub(crate) fields: Rc<Alike>,
}

pub(crate) struct KnownCharge {
    pub(crate) generation: u64,
    pub(crate) caller: Option<Arc<Caller>>,
    pub(crate) route: traffic_cop::analytics::RouteId,
    pub(crate) ip: IpAddr,
    pub(crate) charge: Charge,
}

/// Keeps a connection's watch among those that are swept.
struct Watched {
    core: Rc<Core>,
    key: usize,
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.core.watches.borrow_mut().remove(self.key);
    }
}

/// Serves a connection until it ends.
pub(crate) async fn serve(core: Rc<Core>, stream: TcpStream, ip: IpAddr, mut permit: Permit) {
    let socket = match tokio::net::TcpStream::from_std(stream) {
        Ok(stream) => stream,
        Err(error) => {
            tracing::warn!(%error, "a connection could not be registered");
            return;
        }
    };
    let (patience, bounds) = {
        let config = &core.snapshot().config;
        let patience = Patience {
            header: config.header_timeout,
            body: config.body_timeout,
            body_rate_min: config.body_rate_min,
            idle: config.idle_timeout,
            write: config.write_timeout,
            write_rate_min: config.write_rate_min,
        };
        let bounds = Bounds {
            target_bytes_max: config.target_bytes_max,
            header_bytes_max: config.header_bytes_max,
            is_forbidden_trailer: fields::is_forbidden_trailer,
        };
        (patience, bounds)
    };
    let watch = Watch::new(core.clock.clone(), patience.write);
    let key = core.watches.borrow_mut().insert(Rc::clone(&watch));
    let _watched = Watched { core: Rc::clone(&core), key };
    let mut cut = core.cut.clone();
    // In a box, for a handshake is large and most of a connection's life comes after it.
    let opening = Box::pin(opening::open(&core, socket, ip, &mut permit));
    let opened = tokio::select! {
        opened = tokio::time::timeout(patience.header, opening) => opened,
        _ = cut.wait_for(|cut| *cut) => return,
        () = until_draining(&core, &watch) => return,
    };
    let Opened { stream, first, ip, is_known, certificate } = match opened {
        Ok(Ok(opened)) => opened,
        Ok(Err(error)) => {
            tracing::debug!(%error, ip = %network(ip), "a connection did not open");
            return;
        }
        Err(_) => return,
    };
    let is_h2 = first.starts_with(h2::PREFACE);
    let scheme = if stream.tls().is_some() { "https" } else { "http" };
    let conn = Rc::new(Conn {
        core: Rc::clone(&core),
        watch: Rc::clone(&watch),
        ip,
        is_known,
        forwarded_for: forwarded::address(ip),
        certificate,
        scheme: HeaderValue::from_static(scheme),
        known: RefCell::default(),
    });
    let ended: Result<(), BoxError> = if is_h2 {
        let _permit = permit;
        let header_bytes_max = bounds.header_bytes_max + bounds.target_bytes_max.min(8 * 1024);
        h2::serve(conn, stream, first, patience, header_bytes_max).await.map_err(Into::into)
    } else {
        h1::serve(&conn, stream, first, patience, bounds, permit).await.map_err(Into::into)
    };
    if let Err(error) = ended {
        tracing::debug!(%error, ip = %network(ip), "connection");
    }
}

async fn until_draining(core: &Core, watch: &Watch) {
    poll_fn(|cx| {
        watch.register(cx.waker());
        if core.node.draining.load(Relaxed) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

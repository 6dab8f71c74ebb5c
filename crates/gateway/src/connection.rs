//! One connection, from its first byte to its last.

use crate::{
    admission::{Permit, limited_as},
    core::Core,
    exchange,
    fields::CallerFields,
    framing::Bounds,
    guard::{GuardedIo, Patience},
    watch::{Watch, millis},
};
use http::HeaderValue;
use hyper::service::service_fn;
use hyper_util::rt::TokioTimer;
use std::{
    cell::{Cell, RefCell},
    future::{Future, poll_fn},
    net::{IpAddr, TcpStream},
    pin::{Pin, pin},
    rc::Rc,
    sync::{Arc, atomic::Ordering::Relaxed},
    task::{Context, Poll},
    time::Duration,
};
use tokio::io::AsyncReadExt;
use traffic_cop::limit::Charge;
use types::Caller;

/// What HTTP/2 begins with, as far as no HTTP/1 request does.
const PREFACE: &[u8] = b"PRI ";

/// Streams that one HTTP/2 connection may have open.
const STREAMS_MAX: u32 = 100;

/// What the requests of one connection share.
pub(crate) struct Conn {
    pub(crate) core: Rc<Core>,
    pub(crate) watch: Arc<Watch>,
    pub(crate) ip: IpAddr,
    pub(crate) forwarded_for: HeaderValue,
    /// Requests that the codec gave us so far.
    pub(crate) requests: Cell<u64>,
    pub(crate) known: RefCell<Known>,
}

impl Conn {
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
    pub(crate) caller: Option<(Arc<Caller>, Rc<CallerFields>)>,
    pub(crate) charge: Option<KnownCharge>,
}

pub(crate) struct KnownCharge {
    pub(crate) generation: u64,
    pub(crate) caller: Option<Arc<Caller>>,
    pub(crate) route: traffic_cop::analytics::RouteId,
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
pub(crate) async fn serve(core: Rc<Core>, stream: TcpStream, ip: IpAddr, permit: Permit) {
    let stream = match tokio::net::TcpStream::from_std(stream) {
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
        };
        let bounds = Bounds {
            target_bytes_max: config.target_bytes_max,
            header_bytes_max: config.header_bytes_max,
        };
        (patience, bounds)
    };
    let watch = Watch::new(core.clock.clone(), patience.write);
    let key = core.watches.borrow_mut().insert(Arc::clone(&watch));
    let _watched = Watched { core: Rc::clone(&core), key };
    let mut stream = stream;
    let mut cut = core.cut.clone();
    let first = tokio::select! {
        first = tokio::time::timeout(patience.header, first_bytes(&mut stream)) => first,
        _ = cut.wait_for(|cut| *cut) => return,
        () = until_draining(&core, &watch) => return,
    };
    let Ok(Ok(first)) = first else { return };
    let is_h2 = first.starts_with(PREFACE);
    let framed = (!is_h2).then_some(bounds);
    let guard = GuardedIo::new(stream, &first, framed, Arc::clone(&watch), patience, permit);
    drop(first);
    let forwarded_for =
        HeaderValue::from_str(&ip.to_canonical().to_string()).expect("an address is visible ASCII");
    let conn = Rc::new(Conn {
        core: Rc::clone(&core),
        watch: Arc::clone(&watch),
        ip,
        forwarded_for,
        requests: Cell::new(0),
        known: RefCell::default(),
    });
    let ended = if is_h2 {
        serve_h2(&core, &watch, guard, conn, bounds).await
    } else {
        serve_h1(&core, &watch, guard, conn).await
    };
    if let Err(error) = ended {
        tracing::debug!(%error, ip = %limited_as(ip), "connection");
    }
}

async fn until_draining(core: &Core, watch: &Watch) {
    poll_fn(|cx| {
        watch.register(cx.waker());
        if core.node.draining.load(Relaxed) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

/// As many bytes as it takes to tell HTTP/2 from HTTP/1.
async fn first_bytes(stream: &mut tokio::net::TcpStream) -> std::io::Result<Vec<u8>> {
    let mut first = Vec::with_capacity(2048);
    loop {
        if stream.read_buf(&mut first).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        if first.len() >= PREFACE.len() || !PREFACE.starts_with(&first) {
            return Ok(first);
        }
    }
}

async fn serve_h1(
    core: &Rc<Core>,
    watch: &Arc<Watch>,
    guard: GuardedIo,
    conn: Rc<Conn>,
) -> hyper::Result<()> {
    let service = service_fn(move |request| exchange::serve(Rc::clone(&conn), request));
    let connection = hyper::server::conn::http1::Builder::new()
        // The guard keeps the time.
        .header_read_timeout(None)
        // The codec takes 100 fields at most, as the guard does; setting it again costs an
        // allocation a request.
        .max_buf_size(128 * 1024)
        .serve_connection(guard, service)
        .with_upgrades();
    let mut connection = pin!(connection);
    let mut told = false;
    poll_fn(|cx| {
        watch.register(cx.waker());
        if watch.is_cut() {
            return Poll::Ready(Ok(()));
        }
        if !told && core.node.draining.load(Relaxed) {
            told = true;
            connection.as_mut().graceful_shutdown();
        }
        connection.as_mut().poll(cx)
    })
    .await
}

async fn serve_h2(
    core: &Rc<Core>,
    watch: &Arc<Watch>,
    guard: GuardedIo,
    conn: Rc<Conn>,
    bounds: Bounds,
) -> hyper::Result<()> {
    let service = service_fn(move |request| exchange::serve(Rc::clone(&conn), request));
    let header_bytes_max = bounds.header_bytes_max + bounds.target_bytes_max.min(8 * 1024);
    let connection = hyper::server::conn::http2::Builder::new(OnThisCore)
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(u32::try_from(header_bytes_max).unwrap_or(16 * 1024))
        .initial_stream_window_size(64 * 1024)
        .initial_connection_window_size(256 * 1024)
        .max_frame_size(16 * 1024)
        .max_send_buf_size(64 * 1024)
        .max_pending_accept_reset_streams(20)
        .max_local_error_reset_streams(64)
        .keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(10))
        .serve_connection(guard, service);
    let mut connection = pin!(connection);
    let mut told = false;
    poll_fn(|cx| {
        watch.register(cx.waker());
        if watch.is_cut() {
            return Poll::Ready(Ok(()));
        }
        if !told && (core.node.leaving.load(Relaxed) || core.node.draining.load(Relaxed)) {
            told = true;
            connection.as_mut().graceful_shutdown();
        }
        connection.as_mut().poll(cx)
    })
    .await
}

/// Runs the streams of an HTTP/2 connection on its core.
#[derive(Debug, Clone, Copy)]
struct OnThisCore;

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for OnThisCore {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}

//! The HTTP/2 side of a connection.

mod head;
mod turn;

pub(crate) use head::check;

use crate::{
    connection::{Conn, Patience},
    exchange,
    watch::{Watch, millis},
};
use http_body_util::BodyExt;
use hyper::{
    body::Body as _,
    rt::{Read, ReadBufCursor, Write},
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::{
    future::{Future, poll_fn},
    io::{self, IoSlice},
    pin::{Pin, pin},
    rc::Rc,
    sync::atomic::Ordering::Relaxed,
    task::{Context, Poll},
    time::Duration,
};
use transport::{Stream, Tls};
use turn::{Turn, later};

/// What HTTP/2 begins with, as far as no HTTP/1 request does.
pub(crate) const PREFACE: &[u8] = b"PRI ";

/// Streams that one connection may have open.
const STREAMS_MAX: u32 = 100;

/// Serves a connection until it ends; `first` was already read from it.
pub(crate) async fn serve(
    conn: Rc<Conn>,
    stream: Stream,
    first: Vec<u8>,
    patience: Patience,
    header_bytes_max: usize,
) -> hyper::Result<()> {
    let (core, watch) = (Rc::clone(&conn.core), Rc::clone(&conn.watch));
    let turn = Rc::new(Turn::new(core.node.clock.clone()));
    let io = Io {
        stream: TokioIo::new(stream),
        first,
        at: 0,
        watch: Rc::clone(&watch),
        turn: Rc::clone(&turn),
        patience,
    };
    let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
        let (head, body) = request.into_parts();
        let body = (!body.is_end_stream())
            .then(|| -> soa::LocalBody { Box::pin(body.map_err(|error| error.into())) });
        // In a box, for it is large and every future on the way would move it.
        let served = exchange::serve(Rc::clone(&conn), Box::new(head), body);
        async move { Ok::<_, std::convert::Infallible>(served.await) }
    });
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
        .serve_connection(io, service);
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
        turn.take(cx, |cx| connection.as_mut().poll(cx))
    })
    .await
}

/// Runs the streams of a connection on its core.
#[derive(Debug, Clone, Copy)]
struct OnThisCore;

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for OnThisCore {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}

/// A socket with deadlines; what is read is the codec's to judge.
struct Io {
    stream: TokioIo<Stream>,
    first: Vec<u8>,
    at: usize,
    watch: Rc<Watch>,
    turn: Rc<Turn>,
    patience: Patience,
}

impl Io {
    /// Writes, and notes how the client takes it. The wait for it ends with a flush, before which
    /// there may be more to write.
    fn written<T>(
        &mut self,
        flushes: bool,
        write: impl FnOnce(Pin<&mut TokioIo<Stream>>) -> Poll<io::Result<T>>,
        taken: impl FnOnce(&T) -> usize,
    ) -> Poll<io::Result<T>> {
        if self.watch.write().take_passed() {
            self.stream.inner().reset();
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let before = self.sent();
        let written = write(Pin::new(&mut self.stream));
        let taken = match (&written, self.stream.inner().tls()) {
            // Of TLS, what counts is what has left.
            (_, Some(tls)) => tls.sent() - before,
            (Poll::Ready(Ok(written)), None) => taken(written) as u64,
            (Poll::Ready(Err(_)) | Poll::Pending, None) => 0,
        };
        let waits = written.is_pending() || (!flushes && self.watch.write().at().is_some());
        self.watch.wrote(taken, waits, &self.patience);
        written
    }

    /// Bytes of TLS that the client took.
    fn sent(&self) -> u64 {
        self.stream.inner().tls().map_or(0, Tls::sent)
    }
}

impl Read for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut cursor: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let rest = &this.first[this.at..];
        if !rest.is_empty() {
            let room = cursor.remaining().min(rest.len());
            cursor.put_slice(&rest[..room]);
            this.at += room;
            if this.at == this.first.len() {
                (this.first, this.at) = (Vec::new(), 0);
            }
            return Poll::Ready(Ok(()));
        }
        if this.watch.read().take_passed() {
            // As if the client had left.
            return Poll::Ready(Ok(()));
        }
        if this.turn.is_over() {
            return later(cx);
        }
        let read = Pin::new(&mut this.stream).poll_read(cx, cursor);
        if read.is_pending() && !this.watch.is_busy() {
            this.watch.read().set(this.watch.clock.now_ms() + millis(this.patience.idle));
        } else {
            this.watch.read().clear();
        }
        read
    }
}

impl Write for Io {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.written(false, |stream| stream.poll_write(cx, bytes), |count| *count)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.written(false, |stream| stream.poll_write_vectored(cx, slices), |count| *count)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.written(true, |stream| stream.poll_flush(cx), |()| 0)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.written(true, |stream| stream.poll_shutdown(cx), |()| 0)
    }
}

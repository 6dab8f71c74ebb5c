//! A WebSocket: the codec over the two halves of its connection.

use crate::connection::outlet::Outlet;
use bytes::Bytes;
use std::{
    cell::RefCell,
    future::poll_fn,
    io::{self, ErrorKind, Read, Write},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
};
use tokio::io::{AsyncRead, ReadBuf};
use tokio_tungstenite::tungstenite::{
    Error, Message,
    protocol::{CloseFrame, Role, WebSocketConfig, WebSocketContext},
};
use transport::{Reading, Stream};

/// Bytes that are read from the kernel at once.
const AT_ONCE: usize = 16 * 1024;

/// The server's side of a WebSocket. Reads messages; what the protocol itself answers (a pong,
/// a close) it writes by itself, and all other frames go by its [`Outlet`].
pub(super) struct Socket {
    codec: WebSocketContext,
    wire: Wire,
}

impl Socket {
    /// The socket on a stream of which `received` was read already, and its way out.
    pub(super) fn new(
        stream: Stream,
        received: &Bytes,
        config: WebSocketConfig,
    ) -> (Self, Rc<Outlet>) {
        let (read, write) = stream.into_halves();
        let out = Rc::new(Outlet::new(write));
        let part = received.to_vec();
        let codec = WebSocketContext::from_partially_read(part, Role::Server, Some(config));
        let (early, waker) = (Bytes::new(), Waker::noop().clone());
        (Self { codec, wire: Wire { read, early, out: out.clone(), waker } }, out)
    }

    /// The next message; `None` once the socket is closed in order. May be dropped and called
    /// again: nothing is lost.
    pub(super) async fn next(&mut self) -> Option<Result<Message, Error>> {
        poll_fn(|cx| self.poll(cx, |codec, wire| codec.read(wire).map(Some))).await.transpose()
    }

    /// Writes what the codec has begun.
    pub(super) async fn flush(&mut self) -> Result<(), Error> {
        poll_fn(|cx| self.poll(cx, |codec, wire| codec.flush(wire))).await
    }

    /// Writes a close frame, after what was begun.
    pub(super) async fn close(&mut self, frame: CloseFrame) -> Result<(), Error> {
        let mut frame = Some(frame);
        poll_fn(|cx| {
            self.poll(cx, |codec, wire| match frame.take() {
                Some(frame) => codec.close(wire, Some(frame)),
                None => codec.flush(wire),
            })
        })
        .await
    }

    /// Has the codec do something, as far as it goes without waiting.
    fn poll<T: Default>(
        &mut self,
        cx: &Context<'_>,
        act: impl FnOnce(&mut WebSocketContext, &mut Wire) -> Result<T, Error>,
    ) -> Poll<Result<T, Error>> {
        self.wire.waker.clone_from(cx.waker());
        match act(&mut self.codec, &mut self.wire) {
            Err(Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => Poll::Pending,
            Err(Error::ConnectionClosed | Error::AlreadyClosed) => Poll::Ready(Ok(T::default())),
            done => Poll::Ready(done),
        }
    }
}

/// The stream as the codec sees it: it reads and writes without waiting, and who is to be woken
/// when that is possible again is known.
struct Wire {
    read: Reading,
    /// What was read and the codec has not asked for yet.
    early: Bytes,
    out: Rc<Outlet>,
    waker: Waker,
}

thread_local! {
    /// What the sockets of a core read into: the codec asks for little at a time, so that an
    /// idle socket keeps little.
    static READ: RefCell<Box<[u8]>> = RefCell::new(vec![0; AT_ONCE].into());
}

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.early.is_empty() {
            let mut cx = Context::from_waker(&self.waker);
            let read = READ.with_borrow_mut(|all| {
                let mut all = ReadBuf::new(all);
                let read = Pin::new(&mut self.read).poll_read(&mut cx, &mut all);
                let (now, early) = all.filled().split_at(all.filled().len().min(buffer.len()));
                buffer[..now.len()].copy_from_slice(now);
                if !early.is_empty() {
                    self.early = Bytes::copy_from_slice(early);
                }
                read.map_ok(|()| now.len())
            });
            return match read {
                Poll::Ready(read) => read,
                Poll::Pending => Err(ErrorKind::WouldBlock.into()),
            };
        }
        let some = self.early.split_to(self.early.len().min(buffer.len()));
        if self.early.is_empty() {
            self.early = Bytes::new();
        }
        buffer[..some.len()].copy_from_slice(&some);
        Ok(some.len())
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.out.poll_write(&mut Context::from_waker(&self.waker), bytes) {
            Poll::Ready(written) => written,
            Poll::Pending => Err(ErrorKind::WouldBlock.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self.out.poll_flush(&mut Context::from_waker(&self.waker)) {
            Poll::Ready(flushed) => flushed,
            Poll::Pending => Err(ErrorKind::WouldBlock.into()),
        }
    }
}

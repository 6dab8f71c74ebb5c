//! A WebSocket: the codec over the two halves of its TCP stream.

use crate::connection::outlet::Outlet;
use bytes::Bytes;
use std::{
    future::poll_fn,
    io::{self, ErrorKind, Read, Write},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
};
use tokio::{
    io::{AsyncRead, ReadBuf},
    net::{TcpStream, tcp::OwnedReadHalf},
};
use tokio_tungstenite::tungstenite::{
    Error, Message,
    protocol::{CloseFrame, Role, WebSocketConfig, WebSocketContext},
};

/// The server's side of a WebSocket. Reads messages; what the protocol itself answers (a pong,
/// a close) it writes by itself, and all other frames go by its [`Outlet`].
pub(super) struct Socket {
    codec: WebSocketContext,
    wire: Wire,
}

impl Socket {
    /// The socket on a stream of which `received` was read already, and its way out.
    pub(super) fn new(
        stream: TcpStream,
        received: &Bytes,
        config: WebSocketConfig,
    ) -> (Self, Rc<Outlet>) {
        let (read, write) = stream.into_split();
        let out = Rc::new(Outlet::new(write));
        let part = received.to_vec();
        let codec = WebSocketContext::from_partially_read(part, Role::Server, Some(config));
        (Self { codec, wire: Wire { read, out: out.clone(), waker: Waker::noop().clone() } }, out)
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
    read: OwnedReadHalf,
    out: Rc<Outlet>,
    waker: Waker,
}

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut buffer = ReadBuf::new(buffer);
        let mut cx = Context::from_waker(&self.waker);
        match Pin::new(&mut self.read).poll_read(&mut cx, &mut buffer) {
            Poll::Ready(read) => read.map(|()| buffer.filled().len()),
            Poll::Pending => Err(ErrorKind::WouldBlock.into()),
        }
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
        Ok(())
    }
}

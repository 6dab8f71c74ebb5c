//! A connection, plain or by TLS.

use crate::{Reading, Tls, Writing};
use std::{
    io::{self, ErrorKind::WouldBlock, IoSlice},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

/// A connection. Plain ones are as cheap as their socket.
#[derive(Debug)]
pub enum Stream {
    /// A socket.
    Plain(TcpStream),
    /// A session of TLS on one.
    Tls(Box<Tls>),
}

impl From<TcpStream> for Stream {
    fn from(socket: TcpStream) -> Self {
        Self::Plain(socket)
    }
}

impl Stream {
    /// The session, if it has one.
    #[must_use]
    pub fn tls(&self) -> Option<&Tls> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(tls) => Some(tls),
        }
    }

    /// The socket below.
    #[must_use]
    pub fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(tls) => tls.socket(),
        }
    }

    /// Whether nothing was said on it that nobody has read: neither bytes, nor the end, nor an
    /// error. What TLS says of itself does not count.
    pub fn is_quiet(&mut self) -> bool {
        match self {
            Self::Plain(socket) => {
                matches!(socket.try_read(&mut [0]), Err(error) if error.kind() == WouldBlock)
            }
            Self::Tls(tls) => {
                let mut cx = Context::from_waker(Waker::noop());
                tls.poll_read(&mut cx, &mut ReadBuf::new(&mut [0])).is_pending()
            }
        }
    }

    /// Lets the connection end at once when it is dropped: what the other side has not taken is
    /// thrown away, and it is told.
    pub fn reset(&self) {
        let socket = match self {
            Self::Plain(socket) => socket,
            Self::Tls(tls) => tls.socket(),
        };
        // It is gone already if this fails.
        let _ = socket.set_zero_linger();
    }

    /// Parts it into what reads and what writes. Neither leaves the thread.
    #[must_use]
    pub fn into_halves(self) -> (Reading, Writing) {
        match self {
            Self::Plain(socket) => {
                let (read, write) = socket.into_split();
                (Reading::Plain(read), Writing::Plain(write))
            }
            Self::Tls(tls) => {
                let tls: Rc<Tls> = Rc::from(tls);
                (Reading::Tls(Rc::clone(&tls)), Writing::Tls(tls))
            }
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(socket) => Pin::new(socket).poll_read(cx, buffer),
            Self::Tls(tls) => tls.poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut *self {
            Self::Plain(socket) => Pin::new(socket).poll_write(cx, bytes),
            Self::Tls(tls) => tls.poll_write(cx, &[IoSlice::new(bytes)]),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut *self {
            Self::Plain(socket) => Pin::new(socket).poll_write_vectored(cx, slices),
            Self::Tls(tls) => tls.poll_write(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(_) => Poll::Ready(Ok(())),
            Self::Tls(tls) => tls.poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(socket) => Pin::new(socket).poll_shutdown(cx),
            Self::Tls(tls) => tls.poll_shutdown(cx),
        }
    }
}

//! The two halves of a connection, for those whose reader and writer are not one.

use crate::Tls;
use std::{
    io::{self, IoSlice},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};
use tokio::{
    io::{AsyncRead, ReadBuf},
    net::tcp::{OwnedReadHalf, OwnedWriteHalf},
};

/// What reads.
#[derive(Debug)]
pub enum Reading {
    /// Of a socket.
    Plain(OwnedReadHalf),
    /// Of a session.
    Tls(Rc<Tls>),
}

impl AsyncRead for Reading {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(half) => Pin::new(half).poll_read(cx, buffer),
            Self::Tls(tls) => tls.poll_read(cx, buffer),
        }
    }
}

/// What writes. Dropped, it says that nothing more comes.
#[derive(Debug)]
pub enum Writing {
    /// Of a socket.
    Plain(OwnedWriteHalf),
    /// Of a session.
    Tls(Rc<Tls>),
}

impl Writing {
    /// Writes a part of `bytes`, after what was written before has left.
    ///
    /// # Errors
    /// The socket's; `WouldBlock` if nothing was written.
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(half) => half.try_write(bytes),
            Self::Tls(tls) => tls.try_write(&[IoSlice::new(bytes)]),
        }
    }

    /// Whether all that was written has left.
    #[must_use]
    pub fn is_flushed(&self) -> bool {
        match self {
            Self::Plain(_) => true,
            Self::Tls(tls) => tls.is_flushed(),
        }
    }

    /// Waits until the socket takes bytes.
    ///
    /// # Errors
    /// The socket's.
    pub fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(half) => half.as_ref().poll_write_ready(cx),
            Self::Tls(tls) => tls.poll_write_ready(cx),
        }
    }

    /// Waits until all that was written has left.
    ///
    /// # Errors
    /// The socket's.
    pub fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(_) => Poll::Ready(Ok(())),
            Self::Tls(tls) => tls.poll_flush(cx),
        }
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        match self {
            // The half does so itself.
            Self::Plain(_) => {}
            Self::Tls(tls) => tls.part(),
        }
    }
}

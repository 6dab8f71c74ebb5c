//! A socket that tells what it does: whether a request has left, and whether something came.

use std::{
    cell::{Cell, RefCell},
    io::{self, IoSlice},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker, ready},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use transport::Stream;

/// What is known of a socket.
#[derive(Default)]
pub(crate) struct Seen {
    written: Cell<u64>,
    waker: RefCell<Option<Waker>>,
}

impl Seen {
    /// Bytes that it took.
    pub(crate) fn written(&self) -> u64 {
        self.written.get()
    }

    /// Wakes whoever asks when it has read something next.
    pub(crate) fn wake_at_read(&self, cx: &Context<'_>) {
        *self.waker.borrow_mut() = Some(cx.waker().clone());
    }
}

pub(crate) struct Counted {
    stream: Stream,
    seen: Rc<Seen>,
}

impl Counted {
    pub(crate) fn new(stream: Stream, seen: Rc<Seen>) -> Self {
        Self { stream, seen }
    }

    fn count(&self, bytes: usize) -> usize {
        self.seen.written.set(self.seen.written.get() + bytes as u64);
        bytes
    }
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if read.is_ready()
            && let Some(waker) = self.seen.waker.take()
        {
            waker.wake();
        }
        read
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let taken = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes));
        Poll::Ready(taken.map(|taken| self.count(taken)))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let taken = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, slices));
        Poll::Ready(taken.map(|taken| self.count(taken)))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

//! Bytes in both directions, after both sides agreed to leave HTTP.

use crate::instance::{Lease, Slot};
use bytes::Bytes;
use std::{
    cell::Cell,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use transport::Stream;

/// Each direction's buffer: two per tunnel, so small.
const BUFFER_BYTES: usize = 8 * 1024;

/// A connection to a service that left HTTP. It counts as load while it is held.
#[derive(Debug)]
pub struct Tunnel {
    stream: Stream,
    early: Bytes,
    _lease: Lease,
    _slot: Slot,
}

impl Tunnel {
    pub(crate) fn new(stream: Stream, early: Bytes, lease: Lease, slot: Slot) -> Self {
        Self { stream, early, _lease: lease, _slot: slot }
    }
}

/// Carries bytes between `client`, from which `early` was already read, and the service, until
/// both ended or nothing moved for `idle_timeout`. Gives the bytes carried to the service and
/// to the client.
///
/// # Errors
/// What either socket met; `TimedOut` after `idle_timeout`.
pub async fn splice(
    mut client: Stream,
    early: &[u8],
    mut tunnel: Tunnel,
    idle_timeout: Duration,
) -> io::Result<(u64, u64)> {
    tunnel.stream.write_all(early).await?;
    tunnel.stream.flush().await?;
    client.write_all(&tunnel.early).await?;
    client.flush().await?;
    let answered = tunnel.early.len() as u64;
    tunnel.early = Bytes::new();
    let moved = Rc::new(Cell::new(false));
    let mut client = Watched { stream: client, moved: Rc::clone(&moved) };
    let mut service = Watched { stream: tunnel.stream, moved: Rc::clone(&moved) };
    let copy = tokio::io::copy_bidirectional_with_sizes(
        &mut client,
        &mut service,
        BUFFER_BYTES,
        BUFFER_BYTES,
    );
    tokio::select! {
        copied = copy => copied.map(|(up, down)| (up + early.len() as u64, down + answered)),
        () = stillness(&moved, idle_timeout) => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// Waits until nothing moved for `timeout`, or up to a quarter of it longer.
async fn stillness(moved: &Cell<bool>, timeout: Duration) {
    let mut still = 0;
    while still < 5 {
        tokio::time::sleep(timeout / 4).await;
        still = if moved.replace(false) { 0 } else { still + 1 };
    }
}

struct Watched {
    stream: Stream,
    moved: Rc<Cell<bool>>,
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if read.is_ready() {
            self.moved.set(true);
        }
        read
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        if written.is_ready() {
            self.moved.set(true);
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

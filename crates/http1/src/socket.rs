//! One read and one write of a connection.

use crate::SendError;
use std::{
    cell::RefCell,
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// One for all connections of a thread, so that those which wait hold none.
const BYTES: usize = 64 * 1024;

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; BYTES].into());
}

/// Reads once, and gives `take` what came; nothing came at the end. `take` must not read.
///
/// # Errors
/// The socket's.
pub fn read<R>(
    stream: &mut (impl AsyncRead + Unpin),
    cx: &mut Context<'_>,
    take: impl FnOnce(&[u8]) -> R,
) -> Poll<io::Result<R>> {
    SCRATCH.with_borrow_mut(|scratch| {
        let mut buffer = ReadBuf::new(scratch);
        ready!(Pin::new(stream).poll_read(cx, &mut buffer))?;
        Poll::Ready(Ok(take(buffer.filled())))
    })
}

/// Writes a part of `slices`.
///
/// # Errors
/// The socket's.
pub fn write(
    stream: &mut (impl AsyncWrite + Unpin),
    cx: &mut Context<'_>,
    slices: &[IoSlice<'_>],
) -> Poll<io::Result<usize>> {
    match slices {
        [slice] => Pin::new(stream).poll_write(cx, slice),
        slices => Pin::new(stream).poll_write_vectored(cx, slices),
    }
}

/// Whether a message has left: all of it is written, and what was written is flushed.
///
/// # Errors
/// Those of the writing, then those of the flush.
pub fn sent(
    written: Poll<Result<(), SendError>>,
    flushed: Poll<io::Result<()>>,
) -> Poll<Result<(), SendError>> {
    ready!(written)?;
    flushed.map_err(SendError::Io)
}

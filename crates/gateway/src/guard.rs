//! The guard between a socket and the HTTP codec: strict framing and deadlines.
//!
//! The codec sees only bytes that [`Framing`] approved. A message that is refused whole is
//! replaced by a plain request, which the codec parses and the core answers with the refusal,
//! so that requests before it are answered first. One that is refused in its body ends with an
//! error.

use crate::{
    admission::Permit,
    framing::{Approved, Bounds, Framing, Refusal, Scope},
    watch::{Watch, millis},
};
use bytes::Bytes;
use hyper::{
    rt::{Read, ReadBufCursor, Write},
    upgrade::Upgraded,
};
use protocol::Code;
use std::{
    cell::RefCell,
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

/// What the codec is given in place of a refused message. Its answer closes the connection.
const STAND_IN: &[u8] = b"GET / HTTP/1.1\r\nhost: refused\r\n\r\n";
/// After the last answer, so much of what a client still sends is taken, and so long, before
/// the connection is closed: an early reset would destroy the answer.
const LINGER_BYTES_MAX: usize = 256 * 1024;
const LINGER_MS: u64 = 1_000;
/// The buffer that all connections of a core read into.
const SCRATCH_BYTES: usize = 64 * 1024;
/// An answer up to this size is copied together and written as one: a vectored write costs the
/// kernel more than the copy costs us.
const JOINED_BYTES_MAX: usize = 8 * 1024;

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH_BYTES].into());
}

/// How long a client may keep us waiting.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    pub(crate) header: Duration,
    pub(crate) body: Duration,
    pub(crate) body_rate_min: u64,
    pub(crate) idle: Duration,
    pub(crate) write: Duration,
}

#[derive(Debug)]
enum Mode {
    /// HTTP/1: framed by us.
    Framed(Framing),
    /// HTTP/2: framed by its codec.
    Raw,
}

/// A socket whose inbound bytes are checked before anyone sees them.
#[derive(Debug)]
pub(crate) struct GuardedIo {
    stream: TcpStream,
    mode: Mode,
    watch: Arc<Watch>,
    patience: Patience,
    permit: Permit,
    /// Approved bytes that the codec had no room for.
    ready: Vec<u8>,
    ready_at: usize,
    /// Request heads handed on.
    heads: u64,
    /// The body being read has ended in error.
    failed: Option<io::ErrorKind>,
    head_since_ms: Option<u64>,
    body: BodyWait,
    saw_end: bool,
    lingered: Option<usize>,
}

/// How long the current body has kept us waiting.
#[derive(Debug, Default)]
struct BodyWait {
    since_ms: Option<u64>,
    waited_ms: u64,
    bytes: u64,
}

impl GuardedIo {
    /// Guards `stream`, from which `first` was already read, for HTTP/1 if `bounds` are given,
    /// else for HTTP/2.
    pub(crate) fn new(
        stream: TcpStream,
        first: &[u8],
        bounds: Option<Bounds>,
        watch: Arc<Watch>,
        patience: Patience,
        permit: Permit,
    ) -> Self {
        let mode = bounds.map_or(Mode::Raw, |bounds| Mode::Framed(Framing::new(bounds)));
        let now = watch.clock.now_ms();
        let mut this = Self {
            stream,
            mode,
            watch,
            patience,
            permit,
            ready: Vec::new(),
            ready_at: 0,
            heads: 0,
            failed: None,
            head_since_ms: Some(now),
            body: BodyWait::default(),
            saw_end: false,
            lingered: None,
        };
        match &mut this.mode {
            Mode::Raw => this.ready.extend_from_slice(first),
            Mode::Framed(framing) => {
                let approved = framing.advance(first);
                this.hand_on(first, approved, None);
            }
        }
        this
    }

    /// Gives approved bytes to the codec, as far as it has room, and keeps the rest.
    fn hand_on(
        &mut self,
        input: &[u8],
        approved: Approved,
        mut cursor: Option<&mut ReadBufCursor<'_>>,
    ) {
        if approved.heads > 0 {
            self.heads += approved.heads;
            self.head_since_ms = None;
            self.body = BodyWait::default();
        }
        let refused_whole = match approved.refusal {
            Some((refusal, Scope::Whole)) => {
                self.watch.refuse(self.heads, refusal);
                true
            }
            Some((refusal, Scope::Rest)) => {
                self.watch.refuse_body(refusal);
                self.failed = Some(io::ErrorKind::InvalidData);
                false
            }
            None => false,
        };
        // Nearly always: one stretch of the input, for which there is room.
        if let ([range], Some(cursor), true) =
            (&*approved.ranges, &mut cursor, approved.held.is_empty())
            && !refused_whole
            && self.ready.is_empty()
            && range.len() <= cursor.remaining()
        {
            return cursor.put_slice(&input[range.clone()]);
        }
        let ranges = approved.ranges.iter().map(|range| &input[range.clone()]);
        let stand_in = if refused_whole { STAND_IN } else { &[] };
        let parts = [approved.held.as_slice()].into_iter().chain(ranges).chain([stand_in]);
        let mut cursor = cursor.filter(|_| self.ready.is_empty());
        for part in parts {
            let room = match &cursor {
                Some(cursor) if self.ready.is_empty() => cursor.remaining().min(part.len()),
                Some(_) | None => 0,
            };
            if let Some(cursor) = &mut cursor {
                cursor.put_slice(&part[..room]);
            }
            if room < part.len() {
                self.ready.extend_from_slice(&part[room..]);
            }
        }
    }

    fn refuse(&mut self, refusal: Refusal, scope: Scope) {
        if let Mode::Framed(framing) = &mut self.mode {
            framing.refuse();
        }
        self.hand_on(
            &[],
            Approved { refusal: Some((refusal, scope)), ..Approved::default() },
            None,
        );
    }

    /// A deadline for reading has passed. True if the connection is to end without a word.
    fn read_too_late(&mut self) -> bool {
        let (in_head, in_body) = match &self.mode {
            Mode::Framed(framing) => (framing.is_in_head(), framing.is_in_body()),
            Mode::Raw => (false, false),
        };
        if in_body {
            let detail = "the body came too slowly";
            self.refuse(Refusal::new(Code::RequestTimeout, detail), Scope::Rest);
        } else if in_head {
            let detail = "the request took too long";
            self.refuse(Refusal::new(Code::RequestTimeout, detail), Scope::Whole);
        }
        !in_head && !in_body
    }

    /// The codec wants bytes and there are none: sets until when.
    fn set_read_deadline(&mut self) {
        let now = self.watch.clock.now_ms();
        let deadline = match &self.mode {
            Mode::Framed(framing) if framing.is_in_body() => {
                self.body.since_ms.get_or_insert(now);
                let earned = self.body.bytes.saturating_mul(1000) / self.patience.body_rate_min;
                let granted = millis(self.patience.body) + earned;
                now + granted.saturating_sub(self.body.waited_ms).min(millis(self.patience.body))
            }
            Mode::Framed(framing) if framing.is_in_head() || self.heads == 0 => {
                let since = *self.head_since_ms.get_or_insert(now);
                if self.watch.is_busy() { 0 } else { since + millis(self.patience.header) }
            }
            Mode::Framed(_) | Mode::Raw if self.watch.is_busy() => 0,
            Mode::Framed(_) | Mode::Raw => now + millis(self.patience.idle),
        };
        self.watch.read().set(deadline);
    }

    fn bytes_came(&mut self, bytes: usize) {
        self.watch.read().clear();
        if let Some(since) = self.body.since_ms.take() {
            self.body.waited_ms += self.watch.clock.now_ms().saturating_sub(since);
        }
        self.body.bytes += bytes as u64;
    }

    fn track_write(&self, written: &Poll<io::Result<usize>>) {
        let deadline = self.watch.write();
        if written.is_ready() {
            deadline.clear();
        } else if !deadline.is_set() {
            deadline.set(self.watch.clock.now_ms() + millis(self.patience.write));
        }
    }

    fn write_too_late(&self) -> Option<io::Error> {
        let late = self.watch.write().take_passed();
        late.then(|| io::Error::new(io::ErrorKind::TimedOut, "the client takes no bytes"))
    }

    /// Whether something may still be on its way that nobody will read.
    fn has_to_linger(&self) -> bool {
        match &self.mode {
            Mode::Framed(framing) => !self.saw_end && !framing.is_between(),
            Mode::Raw => false,
        }
    }
}

impl Read for GuardedIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut cursor: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            if this.ready_at < this.ready.len() {
                let rest = &this.ready[this.ready_at..];
                let room = cursor.remaining().min(rest.len());
                cursor.put_slice(&rest[..room]);
                this.ready_at += room;
                if this.ready_at == this.ready.len() {
                    this.ready = Vec::new();
                    this.ready_at = 0;
                }
                return Poll::Ready(Ok(()));
            }
            if let Some(kind) = this.failed.take() {
                return Poll::Ready(Err(kind.into()));
            }
            if let Mode::Framed(framing) = &this.mode
                && framing.is_closed()
            {
                // The answer ends the connection, or hands it over.
                this.watch.read().clear();
                return Poll::Pending;
            }
            if this.watch.read().take_passed() {
                if this.read_too_late() {
                    this.saw_end = true;
                    return Poll::Ready(Ok(()));
                }
                continue;
            }
            let room = cursor.remaining();
            let read = SCRATCH.with_borrow_mut(|scratch| {
                let limit = match this.mode {
                    Mode::Raw => room.min(scratch.len()),
                    Mode::Framed(_) => room.clamp(2048, scratch.len()),
                };
                let mut buffer = ReadBuf::new(&mut scratch[..limit]);
                match Pin::new(&mut this.stream).poll_read(cx, &mut buffer) {
                    Poll::Pending => {
                        this.set_read_deadline();
                        return Poll::Pending;
                    }
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Ready(Ok(())) => {}
                }
                let bytes = buffer.filled();
                this.bytes_came(bytes.len());
                if bytes.is_empty() {
                    this.saw_end = true;
                    return Poll::Ready(Ok(true));
                }
                match &mut this.mode {
                    Mode::Raw => {
                        cursor.put_slice(bytes);
                        Poll::Ready(Ok(true))
                    }
                    Mode::Framed(framing) => {
                        let approved = framing.advance(bytes);
                        this.hand_on(bytes, approved, Some(&mut cursor));
                        Poll::Ready(Ok(cursor.remaining() < room))
                    }
                }
            });
            if ready!(read)? {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl Write for GuardedIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if let Some(error) = self.write_too_late() {
            return Poll::Ready(Err(error));
        }
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.track_write(&written);
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let Some(error) = self.write_too_late() {
            return Poll::Ready(Err(error));
        }
        let stream = Pin::new(&mut self.stream);
        let bytes: usize = slices.iter().map(|slice| slice.len()).sum();
        let written = if bytes <= JOINED_BYTES_MAX {
            SCRATCH.with_borrow_mut(|scratch| {
                let mut end = 0;
                for slice in slices {
                    scratch[end..end + slice.len()].copy_from_slice(slice);
                    end += slice.len();
                }
                stream.poll_write(cx, &scratch[..end])
            })
        } else {
            stream.poll_write_vectored(cx, slices)
        };
        self.track_write(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A socket has no buffer of ours.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let mut lingered = match this.lingered {
            Some(lingered) => lingered,
            None => {
                ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
                if !this.has_to_linger() {
                    return Poll::Ready(Ok(()));
                }
                this.watch.read().take_passed();
                this.watch.read().set(this.watch.clock.now_ms() + LINGER_MS);
                0
            }
        };
        SCRATCH.with_borrow_mut(|scratch| {
            while lingered < LINGER_BYTES_MAX && !this.watch.read().take_passed() {
                let mut buffer = ReadBuf::new(scratch);
                match Pin::new(&mut this.stream).poll_read(cx, &mut buffer) {
                    Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                        lingered += buffer.filled().len();
                    }
                    Poll::Ready(_) => break,
                    Poll::Pending => {
                        this.lingered = Some(lingered);
                        return Poll::Pending;
                    }
                }
            }
            this.watch.read().clear();
            Poll::Ready(Ok(()))
        })
    }
}

/// A connection that has left HTTP: the socket, without any buffer or state of ours.
#[derive(Debug)]
pub struct Socket {
    /// The socket. It belongs to the runtime of the core that it came from.
    pub stream: TcpStream,
    /// Bytes that the client sent before it was answered.
    pub early: Bytes,
    /// Counts as a connection of the node for as long as it is held.
    pub permit: Permit,
}

/// Takes the socket out of a connection that a mount has answered with
/// `101 Switching Protocols`.
///
/// # Errors
/// Gives `upgraded` back if it is not a connection of this crate.
pub fn into_tcp(upgraded: Upgraded) -> Result<Socket, Upgraded> {
    let parts = upgraded.downcast::<GuardedIo>()?;
    let early = match parts.io.mode {
        Mode::Framed(framing) => framing.into_early(),
        Mode::Raw => Vec::new(),
    };
    // The codec was given nothing beyond the head, so its own buffer is empty.
    Ok(Socket { stream: parts.io.stream, early: early.into(), permit: parts.io.permit })
}

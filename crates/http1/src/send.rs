//! A message on its way out.

use crate::BoxError;
use bytes::{Buf, Bytes};
use http::{HeaderMap, HeaderName, Method, StatusCode, header};
use http_body::Body;
use std::{
    cell::Cell,
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

/// A piece up to this size is copied behind what comes before it: a vectored write costs the
/// kernel more than the copy costs us.
const JOINED_BYTES_MAX: usize = 8 * 1024;

/// A buffer of at most so many bytes is kept for the next message of its thread.
const SPARE_BYTES_MAX: usize = 2 * JOINED_BYTES_MAX;

thread_local! {
    /// What the last message was written into.
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// How the receiver knows where the body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framed {
    /// There is none, and what the fields say of its length stands.
    Bodiless,
    /// There is none, and no field may speak of it (RFC 9110, section 8.6).
    Nothing,
    /// After so many bytes.
    Length(u64),
    /// After the last chunk.
    Chunked,
    /// With the connection.
    Close,
}

/// Writes the head of a request; `more` writes fields that come on top, none of which frames.
pub fn request_head(
    out: &mut Vec<u8>,
    method: &Method,
    target: &str,
    headers: &HeaderMap,
    framed: Framed,
    more: impl FnOnce(&mut Vec<u8>),
) {
    out.extend_from_slice(method.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(target.as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    fields(out, headers, framed, |_| false);
    more(out);
    out.extend_from_slice(b"\r\n");
}

/// Writes the head of a response; `more` writes fields that come instead of those whose names
/// `is_replaced` has, none of which frames.
pub fn response_head(
    out: &mut Vec<u8>,
    status: StatusCode,
    headers: &HeaderMap,
    framed: Framed,
    is_replaced: impl Fn(&HeaderName) -> bool,
    more: impl FnOnce(&mut Vec<u8>),
) {
    if status == StatusCode::OK {
        out.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
    } else {
        out.extend_from_slice(b"HTTP/1.1 ");
        out.extend_from_slice(status.as_str().as_bytes());
        out.push(b' ');
        out.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    fields(out, headers, framed, is_replaced);
    more(out);
    out.extend_from_slice(b"\r\n");
}

/// Every field but those that frame or are left out, and then the former, once.
fn fields(
    out: &mut Vec<u8>,
    headers: &HeaderMap,
    framed: Framed,
    is_left_out: impl Fn(&HeaderName) -> bool,
) {
    let frames = |name: &HeaderName| match framed {
        Framed::Bodiless => *name == header::TRANSFER_ENCODING,
        Framed::Nothing | Framed::Length(_) | Framed::Chunked | Framed::Close => {
            *name == header::CONTENT_LENGTH || *name == header::TRANSFER_ENCODING
        }
    };
    for (name, value) in headers {
        if !frames(name) && !is_left_out(name) {
            field(out, name.as_str(), value.as_bytes());
        }
    }
    match framed {
        Framed::Bodiless | Framed::Nothing | Framed::Close => {}
        Framed::Length(length) => {
            field(out, "content-length", itoa::Buffer::new().format(length).as_bytes());
        }
        Framed::Chunked => field(out, "transfer-encoding", b"chunked"),
    }
}

/// Writes a header field.
pub fn field(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.reserve(name.len() + value.len() + 4);
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Why a message was not sent whole. Its connection cannot be used any more.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The socket's.
    #[error("the connection broke")]
    Io(#[source] io::Error),
    /// The body's.
    #[error("the body broke")]
    Body(#[source] BoxError),
    /// The body is longer or shorter than its head says.
    #[error("the body is not as long as its head says")]
    Length,
}

/// A message that is written as its body comes.
#[derive(Debug)]
pub struct Sending<B> {
    body: B,
    framed: Framed,
    /// Whether all of the body is here.
    ended: bool,
    /// Bytes to write, from `at` on.
    out: Vec<u8>,
    at: usize,
    /// What comes behind them without being copied, and the end of its chunk.
    data: Bytes,
    tail: &'static [u8],
    written: u64,
}

impl<B: Body<Data = Bytes, Error = BoxError> + Unpin> Sending<B> {
    /// The message of this body and the head that `write_head` writes before it.
    #[must_use]
    pub fn new(framed: Framed, body: B, write_head: impl FnOnce(&mut Vec<u8>, &B)) -> Self {
        let mut head = SPARE.take();
        write_head(&mut head, &body);
        let ended = matches!(framed, Framed::Bodiless | Framed::Nothing | Framed::Length(0));
        Self { body, framed, ended, out: head, at: 0, data: Bytes::new(), tail: b"", written: 0 }
    }

    /// Bytes that left so far.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Whether the socket is what it waits for, and not the body.
    #[must_use]
    pub fn is_blocked(&self) -> bool {
        self.at < self.out.len() || !self.data.is_empty() || !self.tail.is_empty()
    }

    /// Takes from the body what is there, and gives it to `write`, which writes a part of some
    /// slices to the socket. Ready once all is written.
    ///
    /// # Errors
    /// [`SendError`]. Polled no more then.
    pub fn poll(
        &mut self,
        cx: &mut Context<'_>,
        mut write: impl FnMut(&mut Context<'_>, &[IoSlice<'_>]) -> Poll<io::Result<usize>>,
    ) -> Poll<Result<(), SendError>> {
        loop {
            let waits = !self.ended && self.fill(cx)?;
            ready!(self.poll_flush(cx, &mut write)).map_err(SendError::Io)?;
            if self.ended {
                give_back(&mut self.out);
                return Poll::Ready(Ok(()));
            }
            if waits {
                return Poll::Pending;
            }
        }
    }

    /// Takes from the body until it has no more or a write is worth it. True if it has no more
    /// for now.
    fn fill(&mut self, cx: &mut Context<'_>) -> Result<bool, SendError> {
        while self.data.is_empty() && self.out.len() - self.at < JOINED_BYTES_MAX {
            let frame = match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Pending => return Ok(true),
                Poll::Ready(frame) => frame,
            };
            match frame {
                Some(Ok(frame)) => {
                    // Trailers are for nobody.
                    if let Ok(data) = frame.into_data() {
                        self.push(data)?;
                    }
                }
                Some(Err(error)) => return Err(SendError::Body(error)),
                None => self.end()?,
            }
            if self.ended {
                break;
            }
        }
        Ok(false)
    }

    fn push(&mut self, data: Bytes) -> Result<(), SendError> {
        if data.is_empty() {
            return Ok(());
        }
        match &mut self.framed {
            Framed::Length(left) => {
                *left = left.checked_sub(data.len() as u64).ok_or(SendError::Length)?;
                self.ended = *left == 0;
            }
            Framed::Chunked => {
                let mut size = [0; 18];
                let digits = hex(data.len() as u64, &mut size);
                self.out.extend_from_slice(digits);
                self.out.extend_from_slice(b"\r\n");
                self.tail = b"\r\n";
            }
            Framed::Close => {}
            Framed::Bodiless | Framed::Nothing => return Err(SendError::Length),
        }
        if data.len() <= JOINED_BYTES_MAX {
            self.out.extend_from_slice(&data);
            self.out.extend_from_slice(std::mem::take(&mut self.tail));
        } else {
            self.data = data;
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), SendError> {
        self.ended = true;
        match self.framed {
            Framed::Length(left) if left > 0 => return Err(SendError::Length),
            Framed::Chunked => self.out.extend_from_slice(LAST_CHUNK),
            Framed::Length(_) | Framed::Close | Framed::Bodiless | Framed::Nothing => {}
        }
        Ok(())
    }

    fn poll_flush(
        &mut self,
        cx: &mut Context<'_>,
        write: &mut impl FnMut(&mut Context<'_>, &[IoSlice<'_>]) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<()>> {
        while self.is_blocked() {
            let slices = [
                IoSlice::new(&self.out[self.at..]),
                IoSlice::new(&self.data),
                IoSlice::new(self.tail),
            ];
            let count = if self.data.is_empty() && self.tail.is_empty() { 1 } else { 3 };
            let written = ready!(write(cx, &slices[..count]))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += written as u64;
            self.pass(written);
        }
        Poll::Ready(Ok(()))
    }

    fn pass(&mut self, mut written: usize) {
        let of_out = written.min(self.out.len() - self.at);
        self.at += of_out;
        written -= of_out;
        if self.at == self.out.len() {
            self.out.clear();
            self.at = 0;
        }
        let of_data = written.min(self.data.len());
        self.data.advance(of_data);
        self.tail = &self.tail[written - of_data..];
    }
}

impl<B> Drop for Sending<B> {
    fn drop(&mut self) {
        give_back(&mut self.out);
    }
}

/// Keeps a buffer for the next message of the thread, if it is one to be kept.
fn give_back(out: &mut Vec<u8>) {
    let mut out = std::mem::take(out);
    if (1..=SPARE_BYTES_MAX).contains(&out.capacity()) {
        out.clear();
        // At the end of its thread there is no next one.
        let _ = SPARE.try_with(|spare| spare.set(out));
    }
}

/// The digits of `number`, without leading zeros.
fn hex(mut number: u64, digits: &mut [u8; 18]) -> &[u8] {
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b"0123456789abcdef"[(number & 15) as usize];
        number >>= 4;
        if number == 0 {
            return &digits[at..];
        }
    }
}

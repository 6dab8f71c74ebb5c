//! What comes in on an HTTP/1 connection, and how long it may take.

use crate::{
    connection::{Conn, Patience},
    watch::{Watch, millis},
};
use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use http1::{Bounds, Decoder, Refusal, RequestHead, Requests, SendError, Sending};
use protocol::Code;
use soa::{BoxError, LocalBody};
use std::{
    cell::RefCell,
    future::poll_fn,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};
use tokio::io::AsyncWrite;
use transport::{Stream, Tls};

/// After the last answer, so much of what a client still sends is taken, and so long, before
/// the connection is closed: an early reset would destroy the answer.
const LINGER_BYTES_MAX: usize = 256 * 1024;
const LINGER_MS: u64 = 1_000;
/// So much may come ahead of its turn.
const AHEAD_BYTES_MAX: usize = 16 * 1024;
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// What comes behind the last request.
pub(super) enum Next {
    Request(RequestHead),
    /// No request. It is answered, and nothing more is read.
    Refused(Refusal),
    /// Nothing: the client left, or said nothing for too long.
    End,
}

/// The socket and what came from it. Shared by the connection and the body being read.
pub(super) struct Inbound {
    stream: RefCell<Stream>,
    watch: Rc<Watch>,
    patience: Patience,
    state: RefCell<State>,
}

struct State {
    requests: Requests,
    /// Bytes that came and were not looked at.
    ahead: Bytes,
    /// The body behind the last head.
    body: Decoder,
    body_wait: BodyWait,
    /// Nobody reads the rest of the body.
    abandoned: bool,
    /// The client waits for `100 Continue`.
    continue_due: bool,
    head_since_ms: Option<u64>,
    /// Requests that came so far.
    number: u64,
    saw_end: bool,
}

/// How long the current body has kept us waiting.
#[derive(Debug, Default)]
struct BodyWait {
    since_ms: Option<u64>,
    waited_ms: u64,
    bytes: u64,
}

impl Inbound {
    pub(super) fn new(
        stream: Stream,
        first: Vec<u8>,
        conn: &Conn,
        patience: Patience,
        bounds: Bounds,
    ) -> Self {
        let watch = Rc::clone(&conn.watch);
        let state = State {
            requests: Requests::new(bounds),
            ahead: first.into(),
            body: Decoder::EMPTY,
            body_wait: BodyWait::default(),
            abandoned: false,
            continue_due: false,
            head_since_ms: Some(watch.clock.now_ms()),
            number: 0,
            saw_end: false,
        };
        Self { stream: RefCell::new(stream), watch, patience, state: RefCell::new(state) }
    }

    /// Whether the last message ended and no other has begun.
    pub(super) fn is_between(&self) -> bool {
        let state = self.state.borrow();
        state.body.is_end() && state.ahead.is_empty() && !state.requests.is_in_head()
    }

    /// The next request.
    pub(super) fn poll_next(&self, cx: &mut Context<'_>) -> Poll<Next> {
        let state = &mut *self.state.borrow_mut();
        loop {
            let found = if state.ahead.is_empty() {
                if self.watch.read().take_passed() {
                    return Poll::Ready(if state.requests.is_in_head() {
                        Next::Refused(timed_out("the request took too long"))
                    } else {
                        Next::End
                    });
                }
                let requests = &mut state.requests;
                let read = http1::read(&mut *self.stream.borrow_mut(), cx, |bytes| {
                    (!bytes.is_empty()).then(|| requests.next(bytes))
                });
                match read {
                    Poll::Pending => {
                        self.set_head_deadline(state);
                        return Poll::Pending;
                    }
                    Poll::Ready(Ok(Some(found))) => found,
                    Poll::Ready(Ok(None) | Err(_)) => {
                        state.saw_end = true;
                        return Poll::Ready(Next::End);
                    }
                }
            } else {
                state.requests.next(&std::mem::take(&mut state.ahead))
            };
            match found {
                Ok(None) => {}
                Ok(Some((head, rest))) => {
                    self.watch.read().clear();
                    state.ahead = rest;
                    state.head_since_ms = None;
                    state.number += 1;
                    return Poll::Ready(Next::Request(head));
                }
                Err(refusal) => {
                    // What follows is nobody's.
                    state.body = Decoder::Close;
                    return Poll::Ready(Next::Refused(refusal));
                }
            }
        }
    }

    fn set_head_deadline(&self, state: &mut State) {
        let now = self.watch.clock.now_ms();
        let deadline = if state.requests.is_in_head() || state.number == 0 {
            *state.head_since_ms.get_or_insert(now) + millis(self.patience.header)
        } else {
            now + millis(self.patience.idle)
        };
        self.watch.read().set(deadline);
    }

    /// Ready once the client has left, as far as can be seen without a look at a body that is
    /// still to be read. What it sends ahead of its turn is kept.
    pub(super) fn poll_gone(&self, cx: &mut Context<'_>) -> Poll<()> {
        let state = &mut *self.state.borrow_mut();
        if !state.body.is_end() {
            return Poll::Pending;
        }
        while state.ahead.len() < AHEAD_BYTES_MAX {
            let ahead = &mut state.ahead;
            let came = http1::read(&mut *self.stream.borrow_mut(), cx, |bytes| {
                if ahead.is_empty() {
                    *ahead = Bytes::copy_from_slice(bytes);
                } else {
                    let mut joined = BytesMut::from(&ahead[..]);
                    joined.extend_from_slice(bytes);
                    *ahead = joined.freeze();
                }
                !bytes.is_empty()
            });
            if !matches!(ready!(came), Ok(true)) {
                state.saw_end = true;
                return Poll::Ready(());
            }
        }
        Poll::Pending
    }

    /// Writes as much of an answer as there is and the client takes.
    pub(super) fn poll_send<B: Body<Data = Bytes, Error = BoxError> + Unpin>(
        &self,
        sending: &mut Sending<B>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), SendError>> {
        if self.watch.write().take_passed() {
            self.stream.borrow().reset();
            let error = io::Error::new(io::ErrorKind::TimedOut, "the client takes no bytes");
            return Poll::Ready(Err(SendError::Io(error)));
        }
        let before = (sending.written(), self.sent());
        // Not held meanwhile: the body may have to read from it.
        let written =
            sending.poll(cx, |cx, slices| http1::write(&mut *self.stream.borrow_mut(), cx, slices));
        let flushed = Pin::new(&mut *self.stream.borrow_mut()).poll_flush(cx);
        // Of TLS, what counts is what has left.
        let taken = match self.stream.borrow().tls() {
            Some(tls) => tls.sent() - before.1,
            None => sending.written() - before.0,
        };
        let waits = sending.is_blocked() || flushed.is_pending();
        self.watch.wrote(taken, waits, &self.patience);
        http1::sent(written, flushed)
    }

    /// Passes over what is here of a body that nobody reads. Whether the next request can be
    /// found.
    pub(super) fn drain(&self) -> bool {
        let state = &mut *self.state.borrow_mut();
        if !state.abandoned {
            return true;
        }
        while let Ok(Some(_)) = state.body.next(&mut state.ahead) {}
        state.body.is_end()
    }

    /// Whether the body of the last request was read to its end.
    pub(super) fn is_body_over(&self) -> bool {
        self.drain() && self.state.borrow().body.is_end()
    }

    /// Bytes of TLS that the client took.
    fn sent(&self) -> u64 {
        self.stream.borrow().tls().map_or(0, Tls::sent)
    }

    /// Tells a client of TLS that the connection ends here, if nothing was left to say.
    pub(super) fn part(&self) {
        if let Some(tls) = self.stream.borrow().tls() {
            tls.part();
        }
    }

    /// Ends the connection so that the client sees the last answer.
    pub(super) async fn close(&self) -> io::Result<()> {
        // Nobody else writes any more.
        poll_fn(|cx| {
            self.watch.register(cx.waker());
            if self.watch.is_cut() || self.watch.write().take_passed() {
                self.stream.borrow().reset();
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            let shut = Pin::new(&mut *self.stream.borrow_mut()).poll_shutdown(cx);
            self.watch.wrote(0, shut.is_pending(), &self.patience);
            shut
        })
        .await?;
        if self.state.borrow().saw_end || self.is_between() {
            return Ok(());
        }
        self.watch.read().take_passed();
        self.watch.read().set(self.watch.clock.now_ms() + LINGER_MS);
        let mut lingered = 0;
        poll_fn(|cx| {
            self.watch.register(cx.waker());
            while lingered < LINGER_BYTES_MAX
                && !self.watch.read().take_passed()
                && !self.watch.is_cut()
            {
                match ready!(http1::read(&mut *self.stream.borrow_mut(), cx, <[u8]>::len)) {
                    Ok(0) | Err(_) => break,
                    Ok(bytes) => lingered += bytes,
                }
            }
            Poll::Ready(Ok(()))
        })
        .await
    }

    /// The socket, and the bytes that followed a request for another protocol.
    pub(super) fn into_socket(self) -> (Stream, Bytes) {
        (self.stream.into_inner(), self.state.into_inner().ahead)
    }

    fn poll_data(
        &self,
        number: u64,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, BoxError>>> {
        let state = &mut *self.state.borrow_mut();
        if state.number != number {
            return Poll::Ready(Some(Err("the request has ended".into())));
        }
        loop {
            match state.body.next(&mut state.ahead) {
                Ok(Some(data)) => return Poll::Ready(Some(Ok(data))),
                Ok(None) if state.body.is_end() => return Poll::Ready(None),
                Ok(None) => {}
                Err(refusal) => return Poll::Ready(Some(Err(self.refuse(state, refusal)))),
            }
            if self.watch.read().take_passed() {
                let refusal = timed_out("the body came too slowly");
                return Poll::Ready(Some(Err(self.refuse(state, refusal))));
            }
            if state.continue_due {
                ready!(self.poll_continue(state, cx))?;
            }
            let read = http1::read(&mut *self.stream.borrow_mut(), cx, Bytes::copy_from_slice);
            let bytes = match read {
                Poll::Ready(Ok(bytes)) => bytes,
                Poll::Ready(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
                Poll::Pending => {
                    self.set_body_deadline(state);
                    return Poll::Pending;
                }
            };
            self.watch.read().clear();
            if bytes.is_empty() {
                state.saw_end = true;
                return Poll::Ready(Some(
                    Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                ));
            }
            if let Some(since) = state.body_wait.since_ms.take() {
                state.body_wait.waited_ms += self.watch.clock.now_ms().saturating_sub(since);
            }
            state.body_wait.bytes += bytes.len() as u64;
            state.ahead = bytes;
        }
    }

    fn refuse(&self, state: &mut State, refusal: Refusal) -> BoxError {
        self.watch.refuse_body(refusal);
        // Never at its end.
        state.body = Decoder::Close;
        refusal.into()
    }

    fn poll_continue(&self, state: &mut State, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let stream = &mut *self.stream.borrow_mut();
        let written = ready!(Pin::new(stream).poll_write(cx, CONTINUE))?;
        state.continue_due = false;
        // It is the first thing in an empty buffer.
        if written < CONTINUE.len() {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        Poll::Ready(Ok(()))
    }

    fn set_body_deadline(&self, state: &mut State) {
        let now = self.watch.clock.now_ms();
        let wait = &mut state.body_wait;
        wait.since_ms.get_or_insert(now);
        let earned = wait.bytes.saturating_mul(1000) / self.patience.body_rate_min;
        let granted = millis(self.patience.body) + earned;
        let left = granted.saturating_sub(wait.waited_ms).min(millis(self.patience.body));
        self.watch.read().set(now + left);
    }
}

fn timed_out(detail: &'static str) -> Refusal {
    Refusal::new(Code::RequestTimeout, detail)
}

/// The body of a request, as it comes from the socket.
pub(super) struct RequestBody {
    inbound: Rc<Inbound>,
    number: u64,
}

impl RequestBody {
    /// The body behind the head that just came; nothing if there is none.
    pub(super) fn begin(
        inbound: &Rc<Inbound>,
        body: Decoder,
        expects_continue: bool,
    ) -> Option<LocalBody> {
        let state = &mut *inbound.state.borrow_mut();
        state.abandoned = false;
        if body.is_end() {
            return None;
        }
        state.body = body;
        state.body_wait = BodyWait::default();
        state.continue_due = expects_continue;
        Some(Box::pin(Self { inbound: Rc::clone(inbound), number: state.number }))
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        let state = &mut *self.inbound.state.borrow_mut();
        if state.number == self.number {
            state.abandoned = true;
            self.inbound.watch.read().clear();
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let data = ready!(self.inbound.poll_data(self.number, cx));
        Poll::Ready(data.map(|data| data.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        let state = self.inbound.state.borrow();
        state.number == self.number && state.body.is_end()
    }

    fn size_hint(&self) -> SizeHint {
        match self.inbound.state.borrow().body.left() {
            Some(left) => SizeHint::with_exact(left),
            None => SizeHint::default(),
        }
    }
}

//! The body of a request while the codec has it: it can be called back, and be given again.

use crate::body::{Body, BoxError};
use bytes::Bytes;
use h2::Reason;
use http_body::{Frame, SizeHint};
use std::{
    cell::RefCell,
    collections::VecDeque,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker, ready},
};

/// Bytes of a body that are kept until its request was taken on: a message of gRPC, mostly.
const KEPT_BYTES_MAX: usize = 64 * 1024;

/// What the codec has in place of a body.
pub(crate) struct Lent(Rc<RefCell<State>>);

/// The other end of it.
pub(crate) struct Loan(Rc<RefCell<State>>);

struct State {
    body: Body,
    /// What was taken, as long as it is known whole.
    taken: Option<VecDeque<Bytes>>,
    taken_bytes: usize,
    broke: bool,
    cancelled: bool,
    waker: Option<Waker>,
}

/// Lends a body.
pub(crate) fn lend(body: Body) -> (Lent, Loan) {
    let state = State {
        body,
        taken: Some(VecDeque::new()),
        taken_bytes: 0,
        broke: false,
        cancelled: false,
        waker: None,
    };
    let state = Rc::new(RefCell::new(state));
    (Lent(Rc::clone(&state)), Loan(state))
}

impl Loan {
    /// Whether the body broke, which is no fault of the service.
    pub(crate) fn broke(&self) -> bool {
        self.0.borrow().broke
    }

    /// The service has taken the request on: it will not be given again.
    pub(crate) fn settle(&self) {
        self.0.borrow_mut().taken = None;
    }

    /// The whole body again, if all that was taken of it is known.
    pub(crate) fn back(&self) -> Option<Body> {
        let mut state = self.0.borrow_mut();
        let taken = state.taken.take()?;
        let rest = std::mem::replace(&mut state.body, Body::Empty);
        if taken.is_empty() {
            return Some(rest);
        }
        let again: crate::LocalBody = Box::pin(Again { taken, rest });
        Some(again.into())
    }
}

impl Drop for Loan {
    /// Whoever asked has left or has the whole answer: the rest is not sent.
    fn drop(&mut self) {
        let mut state = self.0.borrow_mut();
        state.cancelled = true;
        if let Some(waker) = state.waker.take() {
            waker.wake();
        }
    }
}

impl State {
    fn keep(&mut self, frame: &Frame<Bytes>) {
        self.taken_bytes += frame.data_ref().map_or(0, Bytes::len);
        match (frame.data_ref(), &mut self.taken) {
            (Some(data), Some(taken)) if self.taken_bytes <= KEPT_BYTES_MAX => {
                taken.push_back(data.clone());
            }
            _ => self.taken = None,
        }
    }
}

impl http_body::Body for Lent {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let state = &mut *self.0.borrow_mut();
        // The reason is what the stream is reset with.
        let cancelled = || Poll::Ready(Some(Err(h2::Error::from(Reason::CANCEL).into())));
        if state.cancelled {
            return cancelled();
        }
        let polled = Pin::new(&mut state.body).poll_frame(cx);
        if polled.is_pending() {
            state.waker = Some(cx.waker().clone());
        }
        match ready!(polled) {
            Some(Ok(frame)) => {
                state.keep(&frame);
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(_)) => {
                state.broke = true;
                cancelled()
            }
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        let state = self.0.borrow();
        !state.cancelled && state.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.borrow().body.size_hint()
    }
}

/// What was taken, and then the rest.
struct Again {
    taken: VecDeque<Bytes>,
    rest: Body,
}

impl http_body::Body for Again {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.taken.pop_front() {
            Some(data) => Poll::Ready(Some(Ok(Frame::data(data)))),
            None => Pin::new(&mut self.rest).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.taken.is_empty() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let taken: usize = self.taken.iter().map(Bytes::len).sum();
        match self.rest.size_hint().exact() {
            Some(rest) => SizeHint::with_exact(rest + taken as u64),
            None => SizeHint::default(),
        }
    }
}

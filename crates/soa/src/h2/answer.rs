//! The body of an answer, for as long as it streams.

use super::{line::Place, loan::Loan};
use crate::{BoxError, instance::Lease};
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

/// What a service is answering. Dropped before its end, the request is reset; the connection
/// and its other requests go on.
pub(crate) struct Answer {
    incoming: Incoming,
    /// Until the end: held for what letting go of them does.
    held: Option<(Place, Lease, Loan)>,
}

impl Answer {
    pub(crate) fn new(incoming: Incoming, place: Place, lease: Lease, loan: Loan) -> Self {
        Self { incoming, held: Some((place, lease, loan)) }
    }
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = ready!(Pin::new(&mut self.incoming).poll_frame(cx));
        if !matches!(frame, Some(Ok(_))) {
            self.held = None;
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

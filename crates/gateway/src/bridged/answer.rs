//! An answer's body that is looked at once it has passed, if it is short enough.

use bytes::{Bytes, BytesMut};
use http_body::{Frame, SizeHint};
use soa::{Body, BoxError, LocalBody};
use std::{
    pin::Pin,
    task::{Context, Poll},
};

/// Bytes of an answer that are kept for a look; longer ones pass unseen.
const SEEN_MAX: usize = 256 * 1024;

pub(super) struct Watched<F> {
    body: Body,
    /// None once it was looked at, or is too long.
    seen: Option<BytesMut>,
    look: F,
}

impl<F: Fn(&Bytes) + Unpin + 'static> Watched<F> {
    /// The same body; `look` sees it when its end has passed.
    pub(super) fn over(body: Body, look: F) -> Body {
        let watched: LocalBody = Box::pin(Self { body, seen: Some(BytesMut::new()), look });
        Body::from(watched)
    }
}

impl<F: Fn(&Bytes) + Unpin> http_body::Body for Watched<F> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        let polled = Pin::new(&mut this.body).poll_frame(cx);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                let data = frame.data_ref().map_or(&[][..], |data| data);
                if let Some(seen) = &mut this.seen {
                    seen.extend_from_slice(data);
                }
                if this.seen.as_ref().is_some_and(|seen| seen.len() > SEEN_MAX) {
                    this.seen = None;
                }
            }
            Poll::Ready(Some(Err(_))) => this.seen = None,
            Poll::Ready(None) | Poll::Pending => {}
        }
        // Who reads it may not ask again once the length that was told has come.
        let is_over = matches!(polled, Poll::Ready(None)) || this.body.is_end_stream();
        if is_over && let Some(seen) = this.seen.take() {
            (this.look)(&seen.freeze());
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

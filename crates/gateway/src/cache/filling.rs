//! Keeps an answer while it passes by.

use super::{Cache, entry::Entry};
use bytes::{Bytes, BytesMut};
use http_body::{Body as _, Frame, SizeHint};
use soa::{Body, BoxError};
use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

/// An answer's body on its way to the client, of which a copy is kept once it is whole.
pub(super) struct Filling {
    body: Body,
    bytes_max: usize,
    copy: Option<Copy>,
}

struct Copy {
    cache: Arc<Cache>,
    key: Box<str>,
    entry: Entry,
    bytes: BytesMut,
}

impl Filling {
    pub(super) fn pass(
        body: Body,
        bytes_max: usize,
        cache: Arc<Cache>,
        key: Box<str>,
        entry: Entry,
    ) -> Body {
        if body.size_hint().lower() > bytes_max as u64 {
            return body;
        }
        let copy = Some(Copy { cache, key, entry, bytes: BytesMut::new() });
        let mut filling = Self { body, bytes_max, copy };
        if filling.body.is_end_stream() {
            filling.keep();
        }
        let boxed: soa::LocalBody = Box::pin(filling);
        Body::from(boxed)
    }

    fn keep(&mut self) {
        if let Some(Copy { cache, key, mut entry, bytes }) = self.copy.take() {
            entry.body = bytes.freeze();
            cache.keep(key, entry);
        }
    }
}

impl http_body::Body for Filling {
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
                if let (Some(copy), Some(data)) = (&mut this.copy, frame.data_ref()) {
                    copy.bytes.extend_from_slice(data);
                    if copy.bytes.len() > this.bytes_max {
                        this.copy = None;
                    }
                }
                // Nobody may ask again after the last byte.
                if this.body.is_end_stream() {
                    this.keep();
                }
            }
            Poll::Ready(Some(Err(_))) => this.copy = None,
            Poll::Ready(None) => this.keep(),
            Poll::Pending => {}
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

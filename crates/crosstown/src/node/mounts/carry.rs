//! A request's body, on its way from its core to another runtime.

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use soa::{Body, BoxError};
use std::{
    pin::Pin,
    task::{Context, Poll},
};
use tokio::sync::mpsc;

/// A body that comes from another runtime.
pub(super) struct Carried {
    /// `None`: there is no body.
    pieces: Option<mpsc::Receiver<Result<Bytes, BoxError>>>,
    hint: SizeHint,
}

/// The body for the other runtime, and what has to be polled on this one meanwhile: it ends
/// once the body has ended or nobody reads it any more. One piece is on its way at a time.
pub(super) fn carry(body: Body) -> (Carried, impl Future<Output = ()>) {
    let hint = http_body::Body::size_hint(&body);
    let (sender, pieces) = if http_body::Body::is_end_stream(&body) {
        (None, None)
    } else {
        let (sender, pieces) = mpsc::channel(1);
        (Some(sender), Some(pieces))
    };
    let carried = async move {
        let Some(sender) = sender else { return };
        let mut body = body;
        loop {
            let piece = tokio::select! {
                frame = body.frame() => frame,
                () = sender.closed() => None,
            };
            let piece = match piece {
                Some(Ok(frame)) => frame.into_data().map(Ok),
                Some(Err(error)) => Ok(Err(error)),
                None => return,
            };
            if let Ok(piece) = piece
                && sender.send(piece).await.is_err()
            {
                return;
            }
        }
    };
    (Carried { pieces, hint }, carried)
}

impl http_body::Body for Carried {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Some(pieces) = &mut self.pieces else { return Poll::Ready(None) };
        pieces.poll_recv(cx).map(|piece| piece.map(|piece| piece.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.pieces.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        self.hint
    }
}

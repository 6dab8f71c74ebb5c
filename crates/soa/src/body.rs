//! Bodies of requests and answers, without a box where the path is hot.

use crate::{instance::Lease, link::Link, pool::Pool};
use bytes::Bytes;
use http::{HeaderMap, HeaderName};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::{BodyExt, combinators::UnsyncBoxBody};
use http1::Decoder;
use std::{
    cell::Cell,
    fmt,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

pub use http1::BoxError;

/// A body that stays on its core.
pub type LocalBody = Pin<Box<dyn http_body::Body<Data = Bytes, Error = BoxError>>>;

/// A body, of a request or an answer.
#[derive(Debug)]
pub enum Body {
    /// Nothing.
    Empty,
    /// Bytes that are all here.
    Full(Bytes),
    /// What a client is sending.
    Inbound(Inbound),
    /// What a service is answering.
    Answer(Answer),
    /// Anything else.
    Boxed(UnsyncBoxBody<Bytes, BoxError>),
    /// A body of another kind that stays on its core.
    Local(Local),
}

/// A body that stays on its core, behind a pointer.
pub struct Local(LocalBody);

impl fmt::Debug for Local {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Local").finish_non_exhaustive()
    }
}

impl From<LocalBody> for Body {
    fn from(body: LocalBody) -> Self {
        Self::Local(Local(body))
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        if bytes.is_empty() { Self::Empty } else { Self::Full(bytes) }
    }
}

impl From<UnsyncBoxBody<Bytes, BoxError>> for Body {
    fn from(body: UnsyncBoxBody<Bytes, BoxError>) -> Self {
        Self::Boxed(body)
    }
}

impl Body {
    /// All of it. What comes in one piece is not copied.
    ///
    /// # Errors
    /// What it broke with.
    pub async fn whole(mut self) -> Result<Bytes, BoxError> {
        let first = match self.frame().await.transpose()? {
            Some(frame) => frame.into_data().unwrap_or_default(),
            None => return Ok(Bytes::new()),
        };
        if self.is_end_stream() {
            return Ok(first);
        }
        // Kept small for the many that end here.
        let rest = Box::pin(self.collect()).await?.to_bytes();
        Ok(if rest.is_empty() { first } else { [first, rest].concat().into() })
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut *self {
            Self::Empty => Poll::Ready(None),
            Self::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                *self = Self::Empty;
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Self::Inbound(body) => Pin::new(body).poll_frame(cx),
            Self::Answer(body) => Pin::new(body).poll_frame(cx),
            Self::Boxed(body) => Pin::new(body).poll_frame(cx),
            Self::Local(body) => body.0.as_mut().poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Full(_) => false,
            Self::Inbound(body) => body.is_end_stream(),
            Self::Answer(body) => body.is_end_stream(),
            Self::Boxed(body) => body.is_end_stream(),
            Self::Local(body) => body.0.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Inbound(body) => body.size_hint(),
            Self::Answer(body) => body.size_hint(),
            Self::Boxed(body) => body.size_hint(),
            Self::Local(body) => body.0.size_hint(),
        }
    }
}

/// Why a client's body ended early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InflowFailure {
    /// It is larger than the route allows.
    TooLarge,
    /// Its framing is wrong, or the client went away.
    Broken,
}

/// What is known of a client's body, for whoever answers the client.
#[derive(Debug, Default)]
pub struct Inflow {
    bytes: Cell<u64>,
    failure: Cell<Option<InflowFailure>>,
}

impl Inflow {
    /// Bytes taken so far, framing left out.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes.get()
    }

    /// Why it ended early, if it did.
    #[must_use]
    pub fn failure(&self) -> Option<InflowFailure> {
        self.failure.get()
    }
}

/// A client's body, counted and bounded on the fly. Trailers are dropped: no service of ours
/// may be told something after the checks were made; except by [`Self::pass_trailers`].
pub struct Inbound {
    incoming: LocalBody,
    bytes_max: u64,
    /// Which trailers go on, if any do.
    passes: Option<fn(&str) -> bool>,
    inflow: Rc<Inflow>,
}

impl Inbound {
    /// Takes at most `bytes_max` bytes of `incoming`, and tells `inflow` how that goes.
    #[must_use]
    pub fn new(incoming: LocalBody, bytes_max: u64, inflow: Rc<Inflow>) -> Self {
        Self { incoming, bytes_max, passes: None, inflow }
    }

    /// Lets the trailers through whose name `passes`.
    pub fn pass_trailers(&mut self, passes: fn(&str) -> bool) {
        self.passes = Some(passes);
    }
}

fn passing(mut trailers: HeaderMap, passes: fn(&str) -> bool) -> HeaderMap {
    let names = trailers.keys().filter(|name| !passes(name.as_str()));
    let gone: Vec<HeaderName> = names.cloned().collect();
    for name in &gone {
        trailers.remove(name);
    }
    trailers
}

impl fmt::Debug for Inbound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbound").field("inflow", &self.inflow).finish_non_exhaustive()
    }
}

impl http_body::Body for Inbound {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        loop {
            let Some(frame) = ready!(self.incoming.as_mut().poll_frame(cx)) else {
                return Poll::Ready(None);
            };
            let frame = match frame {
                Ok(frame) => frame,
                Err(error) => {
                    self.inflow.failure.set(Some(InflowFailure::Broken));
                    return Poll::Ready(Some(Err(error)));
                }
            };
            let Some(data) = frame.data_ref() else {
                let (Some(passes), Ok(trailers)) = (self.passes, frame.into_trailers()) else {
                    continue;
                };
                return Poll::Ready(Some(Ok(Frame::trailers(passing(trailers, passes)))));
            };
            let bytes = self.inflow.bytes.get() + data.len() as u64;
            self.inflow.bytes.set(bytes);
            if bytes > self.bytes_max {
                self.inflow.failure.set(Some(InflowFailure::TooLarge));
                return Poll::Ready(Some(Err("the body is larger than allowed".into())));
            }
            return Poll::Ready(Some(Ok(frame)));
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

/// What a service is answering. Read to its end, the connection goes back to the pool; dropped
/// before, the connection is closed.
pub struct Answer {
    decoder: Decoder,
    link: Option<Box<Link>>,
    lease: Option<Lease>,
    pool: Pool,
}

impl Answer {
    pub(crate) fn new(decoder: Decoder, link: Box<Link>, lease: Lease, pool: Pool) -> Self {
        Self { decoder, link: Some(link), lease: Some(lease), pool }
    }

    fn finish(&mut self) {
        self.lease = None;
        if let Some(mut link) = self.link.take()
            && link.finish()
        {
            self.pool.put(link);
        }
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer").field("decoder", &self.decoder).finish_non_exhaustive()
    }
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        let Some(link) = &mut this.link else { return Poll::Ready(None) };
        let data = ready!(link.poll_data(&mut this.decoder, cx));
        match &data {
            Some(Ok(_)) if this.decoder.is_end() => this.finish(),
            Some(Ok(_)) => {}
            Some(Err(_)) => this.link = None,
            None => this.finish(),
        }
        Poll::Ready(data.map(|data| data.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.link.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        match self.decoder.left() {
            Some(left) => SizeHint::with_exact(left),
            None => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::stream;
    use http_body_util::StreamBody;

    fn body(frames: impl IntoIterator<Item = Result<Frame<Bytes>, BoxError>>) -> Body {
        let frames: Vec<_> = frames.into_iter().collect();
        Body::Boxed(StreamBody::new(stream::iter(frames)).boxed_unsync())
    }

    #[tokio::test]
    async fn a_body_is_whole_however_it_comes() {
        let piece = |text: &'static str| Ok(Frame::data(Bytes::from_static(text.as_bytes())));
        let trailers = || Ok(Frame::trailers(HeaderMap::new()));
        for (frames, expected) in [
            (vec![], ""),
            (vec![trailers()], ""),
            (vec![piece("abc")], "abc"),
            (vec![piece("abc"), trailers()], "abc"),
            (vec![piece(""), piece("ab"), piece("c"), trailers()], "abc"),
        ] {
            assert_eq!(body(frames).whole().await.unwrap(), expected);
        }
        let broken = body([piece("abc"), Err("it broke".into())]);
        assert_eq!(broken.whole().await.unwrap_err().to_string(), "it broke");
        let all = Bytes::from_static(b"abc");
        assert_eq!(Body::from(all.clone()).whole().await.unwrap().as_ptr(), all.as_ptr());
    }
}

//! A connection to an instance, driven by whoever uses it.

use crate::{
    body::{Body, BoxError},
    instance::{Instance, Slot},
    service::Service,
    tls,
};
use bytes::Bytes;
use http::{Method, StatusCode, request::Parts, response};
use http_body::Body as _;
use http1::{Decoder, Framed, Responses, SendError, Sending};
use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::io::AsyncWrite;
use transport::Stream;

/// Interim responses before the final one, at most.
const INTERIM_MAX: u8 = 16;

/// A connection to an instance. It has no task of its own.
pub(crate) struct Link {
    stream: Stream,
    slot: Slot,
    responses: Responses,
    /// Bytes that came and were not looked at.
    ahead: Bytes,
    /// The request that it carries.
    exchange: Option<Exchange>,
    pub(crate) idle_timeout: Duration,
    pub(crate) idle_max: usize,
}

/// A request on its way to the service, and what is known of its response.
struct Exchange {
    sending: Sending<Body>,
    method: Method,
    bodiless: bool,
    interim: u8,
    keeps_alive: bool,
    /// The request has left, or what its leaving met.
    sent: Option<Result<(), SendError>>,
}

/// Why there is no response.
pub(crate) enum Broken {
    /// The service has surely not processed it: no byte of the request left the node, or an
    /// instance of HTTP/2 said so. Its body, if it has one, is whole again or known to be gone.
    Unsent(BoxError),
    /// Something may have reached the service.
    Sent(BoxError),
    /// The body of the request broke, which is no fault of the service.
    Body,
    /// The attempt has used up its time.
    Late,
}

impl Link {
    /// Opens a connection.
    ///
    /// Cancel safe: the attempt is given up.
    pub(crate) async fn open(slot: Slot, service: &Service) -> Result<Box<Self>, io::Error> {
        let config = &service.config;
        let connect = tls::connect(slot.instance(), service.tls.as_ref());
        let stream = tokio::time::timeout(config.connect_timeout, connect)
            .await
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        Ok(Box::new(Self {
            stream,
            slot,
            responses: Responses::default(),
            ahead: Bytes::new(),
            exchange: None,
            idle_timeout: config.idle_timeout,
            idle_max: config.idle_max,
        }))
    }

    pub(crate) fn instance(&self) -> &Instance {
        self.slot.instance()
    }

    /// Whether an unused connection has ended, as far as is known without a system call. A
    /// service that speaks unasked has ended it, too.
    pub(crate) fn is_over(&mut self) -> bool {
        // Bytes, the end, or an error: none of them is expected.
        !self.stream.is_quiet()
    }

    /// Begins a request for `target`, whose head is fit for the service, as are the fields that
    /// `more` writes; its body is framed anew.
    pub(crate) fn begin(
        &mut self,
        head: &Parts,
        target: &str,
        body: Body,
        more: impl FnOnce(&mut Vec<u8>),
    ) {
        self.exchange = Some(Exchange::new(head, target, body, more));
    }

    /// Writes what is to be written, and reads as far as the head of the final response.
    pub(crate) fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(response::Parts, Decoder), Broken>> {
        let sent = |error: BoxError| Poll::Ready(Err(Broken::Sent(error)));
        let Self { stream, responses, ahead, exchange, .. } = self;
        let Some(exchange) = exchange else { return sent("no request was begun".into()) };
        exchange.poll_sent(stream, cx);
        match &exchange.sent {
            Some(Err(SendError::Io(error)))
                if exchange.bodiless && exchange.sending.written() == 0 =>
            {
                let error = io::Error::from(error.kind());
                return Poll::Ready(Err(Broken::Unsent(error.into())));
            }
            // The service waits for the rest in vain.
            Some(Err(SendError::Body(_) | SendError::Length)) => {
                return Poll::Ready(Err(Broken::Body));
            }
            // A service may answer and close before it has taken the request.
            Some(Ok(()) | Err(SendError::Io(_))) | None => {}
        }
        loop {
            let mut next = |bytes: &[u8]| responses.next(bytes, &exchange.method);
            let next = if ahead.is_empty() {
                let read =
                    http1::read(stream, cx, |bytes| (!bytes.is_empty()).then(|| next(bytes)));
                match ready!(read) {
                    Ok(Some(next)) => next,
                    Ok(None) => return sent("the connection ended without a response".into()),
                    Err(error) => return sent(error.into()),
                }
            } else {
                next(&std::mem::take(ahead))
            };
            let (head, rest) = match next {
                Ok(Some(found)) => found,
                Ok(None) => continue,
                Err(malformed) => return sent(malformed.into()),
            };
            *ahead = rest;
            let status = head.parts.status;
            if !status.is_informational() || status == StatusCode::SWITCHING_PROTOCOLS {
                exchange.keeps_alive = head.keeps_alive;
                return Poll::Ready(Ok((head.parts, head.body)));
            }
            exchange.interim += 1;
            if exchange.interim > INTERIM_MAX {
                return sent("more interim responses than a request can have".into());
            }
        }
    }

    /// The next bytes of a response's body; nothing at its end.
    pub(crate) fn poll_data(
        &mut self,
        decoder: &mut Decoder,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, BoxError>>> {
        if let Some(exchange) = &mut self.exchange {
            // A service may answer while the request is still on its way.
            exchange.poll_sent(&mut self.stream, cx);
        }
        loop {
            match decoder.next(&mut self.ahead) {
                Ok(Some(data)) => return Poll::Ready(Some(Ok(data))),
                Ok(None) if decoder.is_end() => return Poll::Ready(None),
                Ok(None) => {}
                Err(refusal) => return Poll::Ready(Some(Err(refusal.into()))),
            }
            match ready!(http1::read(&mut self.stream, cx, Bytes::copy_from_slice)) {
                Ok(bytes) if !bytes.is_empty() => self.ahead = bytes,
                Ok(_) if matches!(decoder, Decoder::Close) => {
                    *decoder = Decoder::EMPTY;
                    return Poll::Ready(None);
                }
                Ok(_) => return Poll::Ready(Some(Err("the response ended early".into()))),
                Err(error) => return Poll::Ready(Some(Err(error.into()))),
            }
        }
    }

    /// The response was read to its end. Whether the connection may carry another request.
    pub(crate) fn finish(&mut self) -> bool {
        let Some(exchange) = self.exchange.take() else { return false };
        exchange.keeps_alive && self.ahead.is_empty() && matches!(exchange.sent, Some(Ok(())))
    }

    /// The socket and the bytes already read from it, after an upgrade.
    pub(crate) fn into_socket(self) -> (Stream, Bytes, Slot) {
        (self.stream, self.ahead, self.slot)
    }
}

impl Exchange {
    fn new(head: &Parts, target: &str, body: Body, more: impl FnOnce(&mut Vec<u8>)) -> Self {
        let framed = match body.size_hint().exact() {
            Some(0) if !declares_length(head) => Framed::Bodiless,
            Some(length) => Framed::Length(length),
            None => Framed::Chunked,
        };
        let sending = Sending::new(framed, body, |out, _| {
            http1::request_head(out, &head.method, target, &head.headers, framed, more);
        });
        Self {
            sending,
            method: head.method.clone(),
            bodiless: matches!(framed, Framed::Bodiless | Framed::Length(0)),
            interim: 0,
            keeps_alive: false,
            sent: None,
        }
    }

    fn poll_sent(&mut self, stream: &mut Stream, cx: &mut Context<'_>) {
        if self.sent.is_some() {
            return;
        }
        let written = self.sending.poll(cx, |cx, slices| http1::write(stream, cx, slices));
        let flushed = Pin::new(stream).poll_flush(cx);
        if let Poll::Ready(sent) = http1::sent(written, flushed) {
            self.sent = Some(sent);
        }
    }
}

/// Whether the service is to be told that the body is empty: it is told if the client said so,
/// or if the method makes one expect a body (RFC 9110, section 8.6).
pub(crate) fn declares_length(head: &Parts) -> bool {
    matches!(head.method, Method::POST | Method::PUT | Method::PATCH)
        || head.headers.contains_key(http::header::CONTENT_LENGTH)
}

//! One request on a connection that it shares.

use super::{
    answer::Answer,
    line::Place,
    loan::{Lent, lend},
};
use crate::{
    LocalBody,
    attempts::Payload,
    body::{Body, BoxError},
    call::{Reply, Terms},
    hop::strip_hop_by_hop,
    instance::{Instance, Lease},
    link::{Broken, declares_length},
};
use h2::Reason;
use http::{
    Request, Response, Uri, Version, header,
    request::Parts,
    uri::{Authority, PathAndQuery, Scheme},
};
use http_body::Body as _;
use std::error::Error;

impl Place {
    /// Sends a request and waits for the head of its answer. What was surely not processed is
    /// [`Broken::Unsent`], and `payload` is whole again, or gone.
    ///
    /// Cancel safe: dropped, the request is reset; the connection goes on.
    pub(crate) async fn send(
        self,
        lease: Lease,
        head: &Parts,
        terms: &Terms,
        payload: &mut Payload,
    ) -> Result<Reply, Broken> {
        let (lent, loan) = lend(payload.take());
        let request = request(lease.instance(), head, terms, lent).map_err(Broken::Sent)?;
        let line = self.line();
        let written = line.seen.written();
        let sent = line.sender.clone().try_send_request(request).await;
        let response = match sent {
            Ok(response) => response,
            Err(mut failed) => {
                // Given back by a connection that has ended.
                let returned = failed.take_message().is_some();
                let error = failed.into_error();
                let refusal = Refusal::of(&error);
                match refusal {
                    Refusal::Busy => line.refused(),
                    Refusal::Leaving => line.retire(),
                    Refusal::None if returned || line.seen.written() == written => line.retire(),
                    Refusal::None if loan.broke() => return Err(Broken::Body),
                    Refusal::None => return Err(Broken::Sent(error.into())),
                }
                payload.restore(loan.back());
                return Err(Broken::Unsent(error.into()));
            }
        };
        loan.settle();
        let (mut parts, incoming) = response.into_parts();
        if parts.status.is_informational() {
            return Err(Broken::Sent("its answer is an interim one".into()));
        }
        parts.version = Version::HTTP_11;
        strip_hop_by_hop(&mut parts.headers);
        tracing::trace!(instance = lease.instance().authority(), "answered");
        let body = if incoming.is_end_stream() {
            Body::Empty
        } else {
            let answer: LocalBody = Box::pin(Answer::new(incoming, self, lease, loan));
            answer.into()
        };
        Ok(Reply::Answer(Response::from_parts(parts, body)))
    }
}

/// Whether a request that failed was surely not processed, by the word of the other side.
enum Refusal {
    /// It has too many at once (RFC 9113, section 8.7).
    Busy,
    /// It ends the connection, and named the last request that it takes (section 6.8).
    Leaving,
    /// It did not say so.
    None,
}

impl Refusal {
    fn of(error: &hyper::Error) -> Self {
        let mut source = error.source();
        while let Some(error) = source {
            if let Some(error) = error.downcast_ref::<h2::Error>() {
                return if !error.is_remote() {
                    Self::None
                } else if error.is_go_away() {
                    Self::Leaving
                } else if error.reason() == Some(Reason::REFUSED_STREAM) {
                    Self::Busy
                } else {
                    Self::None
                };
            }
            source = error.source();
        }
        Self::None
    }
}

/// The request as HTTP/2 has it: the host is a part of its target (RFC 9113, section 8.3.1),
/// and its length is what its body knows.
fn request(
    instance: &Instance,
    head: &Parts,
    terms: &Terms,
    body: Lent,
) -> Result<Request<Lent>, BoxError> {
    let mut target = http::uri::Parts::default();
    target.scheme = Some(if instance.tls_name.is_some() { Scheme::HTTPS } else { Scheme::HTTP });
    let host = head.headers.get(header::HOST).unwrap_or(&instance.host);
    target.authority = Some(Authority::try_from(host.as_bytes())?);
    target.path_and_query = Some(match head.uri.path_and_query() {
        Some(whole) if terms.base == 0 => whole.clone(),
        Some(_) | None => PathAndQuery::try_from(terms.target(head))?,
    });
    let length = body.size_hint().exact().filter(|length| *length > 0 || declares_length(head));
    let mut request = Request::new(body);
    *request.method_mut() = head.method.clone();
    *request.uri_mut() = Uri::from_parts(target)?;
    *request.version_mut() = Version::HTTP_2;
    let mut headers = head.headers.clone();
    headers.remove(header::HOST);
    headers.remove(header::CONTENT_LENGTH);
    if let Some(length) = length {
        headers.insert(header::CONTENT_LENGTH, length.into());
    }
    *request.headers_mut() = headers;
    Ok(request)
}

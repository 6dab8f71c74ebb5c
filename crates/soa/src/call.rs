//! One call: choose an instance, send, wait for the head of the answer.

use crate::{
    body::{Answer, Body, BoxError},
    error::Error,
    hop::strip_hop_by_hop,
    pool::{Link, Pool},
    service::{Lease, Service, Slot},
    tunnel::Tunnel,
};
use http::{Request, Response, StatusCode, header, request::Parts};
use http_body::Body as _;
use hyper::body::Incoming;
use smallvec::SmallVec;
use std::{
    future::{Future, poll_fn},
    pin::pin,
    task::{Context, Poll, Waker},
};

/// What a service replied.
#[derive(Debug)]
pub enum Reply {
    /// An answer, whose body streams.
    Answer(Response<Body>),
    /// It agreed to speak another protocol: its head, and the connection.
    Switched(Response<()>, Tunnel),
}

impl Pool {
    /// Forwards a request, whose header fields are already fit for the service, and waits until
    /// `late` for the head of the answer; its hop-by-hop fields are removed.
    /// A request that carries `Upgrade` may be answered by [`Reply::Switched`].
    ///
    /// Another instance is tried when one cannot be connected to, and another connection when
    /// a pooled one turns out to be closed before anything was sent. Nothing else is repeated.
    ///
    /// Cancel safe: dropped, the request is abandoned and its connection closed.
    ///
    /// # Errors
    /// [`Error`]; the service is never called for an error that says it was not.
    pub async fn call(
        &self,
        service: &Service,
        // In a box, for it is large and changes hands often.
        head: Box<Parts>,
        body: Body,
        late: impl Future<Output = ()>,
    ) -> Result<Reply, Error> {
        let mut attempts = pin!(self.attempts(service, head, body));
        let mut late = pin!(late);
        poll_fn(|cx| {
            if let Poll::Ready(reply) = attempts.as_mut().poll(cx) {
                return Poll::Ready(reply);
            }
            let timeout = || Err(Error::Timeout { service: service.name.clone() });
            late.as_mut().poll(cx).map(|()| timeout())
        })
        .await
    }

    async fn attempts(
        &self,
        service: &Service,
        mut head: Box<Parts>,
        mut body: Body,
    ) -> Result<Reply, Error> {
        let mut tried: SmallVec<[u64; 4]> = SmallVec::new();
        let mut last: Option<BoxError> = None;
        let mut fresh = false;
        while let Some(instance) = service.choose(&tried, self.inner().now(), self.inner().random())
        {
            let lease = Lease::new(instance);
            let pooled = if fresh { None } else { self.take(instance) };
            let reused = pooled.is_some();
            let link = match pooled {
                Some(link) => link,
                None => {
                    let Some(slot) = Slot::take(instance, service.config.connections_max) else {
                        tried.push(instance.id);
                        continue;
                    };
                    // Boxed, for a rare turn shall not make every call larger.
                    match Box::pin(Link::open(slot, &service.config)).await {
                        Ok(link) => link,
                        Err(error) => {
                            tracing::debug!(%error, instance = instance.authority(), "connect");
                            instance.avoid(self.inner().clock.elapsed());
                            tried.push(instance.id);
                            last = Some(error.into());
                            continue;
                        }
                    }
                }
            };
            if let Some(host) = service.host(instance, &head.headers) {
                head.headers.insert(header::HOST, host.clone());
            }
            match self.send(link, lease, head, body).await {
                Ok(reply) => return Ok(reply),
                Err(Failed::Unsent(request, _)) if reused && !fresh => {
                    (head, body) = *request;
                    fresh = true;
                }
                Err(Failed::Unsent(_, source)) => {
                    return Err(Error::Unreachable { service: service.name.clone(), source });
                }
                Err(Failed::Sent(source)) => {
                    return Err(Error::BadAnswer { service: service.name.clone(), source });
                }
            }
        }
        let service = service.name.clone();
        Err(match last {
            Some(source) => Error::Unreachable { service, source },
            None => Error::Saturated { service },
        })
    }

    async fn send(
        &self,
        mut link: Box<Link>,
        lease: Lease,
        head: Box<Parts>,
        body: Body,
    ) -> Result<Reply, Failed> {
        let switching = head.headers.contains_key(header::UPGRADE);
        let mut head = pin!(link.sender.try_send_request(Request::from_parts(*head, body)));
        let response = poll_fn(|cx| {
            let ended = link.drive(cx);
            // Only the connection completes it, and only when driven.
            let mut unheard = Context::from_waker(Waker::noop());
            let polled = head.as_mut().poll(&mut unheard);
            if ended && polled.is_pending() {
                // It ended before it took the request, and gives it back when dropped.
                link.close();
                return head.as_mut().poll(&mut unheard);
            }
            polled
        })
        .await
        .map_err(|mut failed| match failed.take_message() {
            Some(request) => {
                let (head, body) = request.into_parts();
                Failed::Unsent(Box::new((Box::new(head), body)), failed.into_error().into())
            }
            None => Failed::Sent(failed.into_error().into()),
        })?;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            if !switching {
                return Err(Failed::Sent("it switched protocols without being asked".into()));
            }
            return Box::pin(switched(response, link, lease)).await.map_err(Failed::Sent);
        }
        let (mut parts, incoming) = response.into_parts();
        let headers = &mut parts.headers;
        if headers.contains_key(header::TRANSFER_ENCODING)
            && headers.contains_key(header::CONTENT_LENGTH)
        {
            return Err(Failed::Sent("its answer has two lengths".into()));
        }
        strip_hop_by_hop(headers);
        tracing::trace!(instance = lease.instance().authority(), "answered");
        let body = if incoming.is_end_stream() {
            if link.is_idle() {
                self.put(link);
            }
            Body::Empty
        } else {
            if !link.is_ready() {
                // Before the body is asked for, which would wake this task for nothing.
                link.drive_unheard();
            }
            Body::Answer(Answer::new(incoming, link, lease, self.clone()))
        };
        Ok(Reply::Answer(Response::from_parts(parts, body)))
    }
}

enum Failed {
    /// No byte left the node.
    Unsent(Box<(Box<Parts>, Body)>, BoxError),
    /// Something may have reached the service.
    Sent(BoxError),
}

async fn switched(
    response: Response<Incoming>,
    mut link: Box<Link>,
    lease: Lease,
) -> Result<Reply, BoxError> {
    // The connection ends its HTTP life on its next turn, without a wait.
    let ended = poll_fn(|cx| Poll::Ready(link.drive(cx) || link.drive(cx))).await;
    if !ended {
        return Err("its connection did not switch".into());
    }
    let (stream, early, slot) = link.into_socket().ok_or("its connection is gone")?;
    let (parts, _) = response.into_parts();
    let tunnel = Tunnel::new(stream, early, lease, slot);
    Ok(Reply::Switched(Response::from_parts(parts, ()), tunnel))
}

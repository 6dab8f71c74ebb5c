//! One call: choose an instance, send, wait for the head of the answer.

use crate::{
    body::{Answer, Body, BoxError},
    error::Error,
    hop::strip_hop_by_hop,
    link::{Broken, Link},
    pool::Pool,
    service::{Lease, Service, Slot},
    tunnel::Tunnel,
};
use http::{Response, StatusCode, header, request::Parts};
use smallvec::SmallVec;
use std::{
    future::{Future, poll_fn},
    pin::pin,
    task::Poll,
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
            let body = std::mem::replace(&mut body, Body::Empty);
            match self.send(link, lease, &head, body).await {
                Ok(reply) => return Ok(reply),
                Err(Broken::Unsent(_)) if reused && !fresh => fresh = true,
                Err(Broken::Unsent(source)) => {
                    return Err(Error::Unreachable { service: service.name.clone(), source });
                }
                Err(Broken::Sent(source)) => {
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
        head: &Parts,
        body: Body,
    ) -> Result<Reply, Broken> {
        link.begin(head, body);
        let (mut parts, decoder) = poll_fn(|cx| link.poll_head(cx)).await?;
        if parts.status == StatusCode::SWITCHING_PROTOCOLS {
            if !head.headers.contains_key(header::UPGRADE) {
                return Err(Broken::Sent("it switched protocols without being asked".into()));
            }
            let (stream, early, slot) = link.into_socket();
            let tunnel = Tunnel::new(stream, early, lease, slot);
            return Ok(Reply::Switched(Response::from_parts(parts, ()), tunnel));
        }
        strip_hop_by_hop(&mut parts.headers);
        tracing::trace!(instance = lease.instance().authority(), "answered");
        let body = if decoder.is_end() {
            if link.finish() {
                self.put(link);
            }
            Body::Empty
        } else {
            Body::Answer(Answer::new(decoder, link, lease, self.clone()))
        };
        Ok(Reply::Answer(Response::from_parts(parts, body)))
    }
}

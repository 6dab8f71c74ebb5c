//! One call: choose an instance, send, wait for the head of the answer.

use crate::{
    balance::Turn,
    body::{Answer, Body, BoxError},
    error::Error,
    hop::strip_hop_by_hop,
    instance::{Instance, Lease, Slot},
    link::{Broken, Link},
    pool::Pool,
    service::{Outcome, Service},
    tunnel::Tunnel,
};
use http::{Response, StatusCode, header, request::Parts};
use smallvec::SmallVec;
use std::{
    cell::RefCell,
    future::{Future, poll_fn},
    pin::pin,
    sync::Arc,
    task::Poll,
    time::Duration,
};

/// What a service replied.
#[derive(Debug)]
pub enum Reply {
    /// An answer, whose body streams.
    Answer(Response<Body>),
    /// It agreed to speak another protocol: its head, and the connection.
    Switched(Response<()>, Tunnel),
}

impl Reply {
    fn status(&self) -> u16 {
        match self {
            Self::Answer(answer) => answer.status().as_u16(),
            Self::Switched(head, _) => head.status().as_u16(),
        }
    }
}

impl Pool {
    /// Forwards a request, whose header fields are already fit for the service, and waits until
    /// `late` for the head of the answer; its hop-by-hop fields are removed.
    /// A request that carries `Upgrade` may be answered by [`Reply::Switched`].
    ///
    /// `key`: what has to lead to the same instance each time, for services that care; see
    /// [`crate::key_hash`].
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
        key: Option<u64>,
        late: impl Future<Output = ()>,
    ) -> Result<Reply, Error> {
        let called = RefCell::new(None);
        let mut attempts = pin!(self.attempts(service, head, body, key, &called));
        let mut late = pin!(late);
        poll_fn(|cx| {
            if let Poll::Ready(reply) = attempts.as_mut().poll(cx) {
                return Poll::Ready(reply);
            }
            late.as_mut().poll(cx).map(|()| {
                if let Some(instance) = &*called.borrow() {
                    service.note(instance, Outcome::Failed, self.inner().clock.elapsed());
                }
                Err(Error::Timeout { service: service.name.clone() })
            })
        })
        .await
    }

    async fn attempts(
        &self,
        service: &Service,
        mut head: Box<Parts>,
        mut body: Body,
        key: Option<u64>,
        called: &RefCell<Option<Arc<Instance>>>,
    ) -> Result<Reply, Error> {
        let mut tried: SmallVec<[u64; 4]> = SmallVec::new();
        let mut last: Option<BoxError> = None;
        let mut fresh = false;
        let inner = self.inner();
        // Otherwise the client's pace would count as the service's.
        let bodiless = matches!(body, Body::Empty);
        loop {
            let turn = Turn { elapsed: inner.now(), random: inner.random(), key, count: 0 };
            let Some(instance) = service.choose(&tried, turn) else { break };
            // Somebody has to know whom a late answer was expected of.
            let watched = !service.is_single();
            if watched {
                *called.borrow_mut() = Some(Arc::clone(instance));
            }
            let began = if watched { inner.clock.elapsed() } else { Duration::ZERO };
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
                    match Box::pin(Link::open(slot, service)).await {
                        Ok(link) => link,
                        Err(error) => {
                            tracing::debug!(%error, instance = instance.authority(), "connect");
                            let now = inner.clock.elapsed();
                            instance.avoid(now);
                            service.note(instance, Outcome::Failed, now);
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
            let sent = self.send(link, lease, &head, body).await;
            if watched {
                let now = inner.clock.elapsed();
                let outcome = match &sent {
                    Ok(reply) => Some(Outcome::Answered {
                        status: reply.status(),
                        latency: bodiless.then(|| now.saturating_sub(began)),
                    }),
                    Err(Broken::Unsent(_) | Broken::Body) => None,
                    Err(Broken::Sent(_)) => Some(Outcome::Failed),
                };
                if let Some(outcome) = outcome {
                    service.note(instance, outcome, now);
                }
            }
            match sent {
                Ok(reply) => return Ok(reply),
                Err(Broken::Unsent(_)) if reused && !fresh => fresh = true,
                Err(Broken::Unsent(source)) => {
                    return Err(Error::Unreachable { service: service.name.clone(), source });
                }
                Err(Broken::Body) => {
                    let source = "the request's body broke".into();
                    return Err(Error::BadAnswer { service: service.name.clone(), source });
                }
                Err(Broken::Sent(source)) => {
                    return Err(Error::BadAnswer { service: service.name.clone(), source });
                }
            }
        }
        let service = service.name.clone();
        Err(match last {
            Some(source) => Error::Unreachable { service, source },
            None if tried.is_empty() => Error::Unfit { service },
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

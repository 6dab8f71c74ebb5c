//! The attempts of one call: choose an instance, connect, send, wait for the head of the
//! answer; and again, as long as that is safe and allowed.

use crate::{
    balance::Turn,
    body::{Answer, Body, BoxError},
    call::{Called, Reply, TIMEOUT, Terms},
    config::RetryConfig,
    error::Error,
    grpc,
    guard::Guard,
    h2::Place,
    hop::strip_hop_by_hop,
    instance::{Instance, Lease, Slot},
    link::{Broken, Link},
    pool::Pool,
    service::{Outcome, Service},
    tunnel::Tunnel,
};
use bytes::Bytes;
use http::{Response, StatusCode, header, request::Parts};
use http_body::Body as _;
use smallvec::SmallVec;
use std::{future::poll_fn, io, sync::Arc, time::Duration};

/// Waits between attempts grow no longer than this many times the first.
const BACKOFF_TIMES_MAX: u32 = 16;

/// The body of a request, as often as it is needed.
pub(crate) enum Payload {
    Once(Body),
    Kept(Bytes),
    /// Used up by an attempt.
    Gone,
}

impl Payload {
    pub(crate) fn once(body: Body) -> Self {
        if matches!(body, Body::Empty) { Self::Kept(Bytes::new()) } else { Self::Once(body) }
    }

    /// Reads a body that has at most `max` bytes, to send it more than once.
    ///
    /// # Errors
    /// What the body broke with.
    pub(crate) async fn kept(body: Body, max: u64) -> Result<Self, BoxError> {
        if body.size_hint().exact().is_some_and(|length| length <= max) {
            Ok(Self::Kept(body.whole().await?))
        } else {
            Ok(Self::Once(body))
        }
    }

    /// Whether all of it is here.
    pub(crate) fn is_whole(&self) -> bool {
        matches!(self, Self::Kept(_))
    }

    /// The same once more, if it is here.
    pub(crate) fn again(&self) -> Option<Self> {
        match self {
            Self::Kept(bytes) => Some(Self::Kept(bytes.clone())),
            Self::Once(_) | Self::Gone => None,
        }
    }

    pub(crate) fn take(&mut self) -> Body {
        match self {
            Self::Kept(bytes) => Body::from(bytes.clone()),
            Self::Once(body) => std::mem::replace(body, Body::Empty),
            Self::Gone => Body::Empty,
        }
    }

    /// After an attempt that came to nothing: the body that was taken, if it is whole.
    pub(crate) fn restore(&mut self, body: Option<Body>) {
        if matches!(self, Self::Once(_)) {
            *self = body.map_or(Self::Gone, Self::Once);
        }
    }
}

/// What carries an attempt.
enum Way {
    /// A connection of HTTP/1.
    Own { link: Box<Link>, is_new: bool },
    /// A place on one of HTTP/2.
    Shared(Place),
}

/// How the attempts of one call are made.
#[derive(Clone, Copy)]
pub(crate) struct Attempts<'a> {
    pub(crate) pool: &'a Pool,
    pub(crate) service: &'a Service,
    /// Who counts further attempts, and whether the request may be sent twice.
    pub(crate) guard: Option<(&'a Guard, bool)>,
    pub(crate) terms: &'a Terms,
    pub(crate) called: &'a Called,
    /// Which of those that are called at once this is.
    pub(crate) lane: usize,
}

impl Attempts<'_> {
    /// `spared`: an instance that is not to be called.
    pub(crate) async fn run(
        self,
        mut head: Box<Parts>,
        mut payload: Payload,
        spared: Option<u64>,
    ) -> Result<Reply, Error> {
        let Self { pool, service, terms, .. } = self;
        let inner = pool.inner();
        let mut tried: SmallVec<[u64; 4]> = spared.into_iter().collect();
        let mut last: Option<BoxError> = None;
        let mut fresh = false;
        let (mut repeats, mut repeating) = (0, false);
        let bodiless = payload.is_whole();
        // Somebody has to know whom a late answer was expected of.
        let watched = self.guard.is_some() || !service.is_single();
        let start = if watched { inner.clock.elapsed() } else { Duration::ZERO };
        if service.is_h2() {
            head.headers.extend(terms.added.iter().cloned());
        }
        let mut left = terms.timeout;
        let given = if service.is_h2() { head.headers.get(grpc::TIMEOUT) } else { None };
        let given = given.and_then(grpc::timeout);
        loop {
            let turn =
                Turn { elapsed: inner.now(), random: inner.random(), key: terms.key, count: 0 };
            let members = service.members();
            let bound = terms.bound.as_deref();
            let mut chosen = service.choose_for(bound, &members, &tried, turn);
            if chosen.is_none() && repeating {
                // Whoever failed may do better this time.
                tried.clear();
                chosen = service.choose_for(bound, &members, &tried, turn);
            }
            repeating = false;
            let Some(instance) = chosen else { break };
            if watched {
                *self.called.instances[self.lane].borrow_mut() = Some(Arc::clone(instance));
            }
            let began = if watched { inner.clock.elapsed() } else { Duration::ZERO };
            let lease = Lease::new(instance);
            let opened = if service.is_h2() {
                // Boxed, as what follows: the way of the others shall not become larger.
                let place = Box::pin(inner.lines().place(instance, service)).await;
                place.map(|place| place.map(Way::Shared))
            } else {
                self.link(instance, fresh).await
            };
            let way = match opened {
                Ok(Some(way)) => way,
                Ok(None) => {
                    tried.push(instance.id);
                    continue;
                }
                Err(error) => {
                    tracing::debug!(%error, instance = instance.authority(), "connect");
                    let now = inner.clock.elapsed();
                    instance.avoid(now);
                    service.note(instance, Outcome::Failed, now);
                    tried.push(instance.id);
                    last = Some(error.into());
                    continue;
                }
            };
            let reused = !matches!(way, Way::Own { is_new: true, .. });
            if let Some(host) = service.host(instance, &head.headers) {
                head.headers.insert(header::HOST, host.clone());
            }
            if service.is_h2() {
                head.headers.insert(TIMEOUT, millis(left).into());
            }
            let sent = self.send(way, lease, &head, left, &mut payload).await;
            if watched {
                self.note(instance, &sent, bodiless.then_some(began));
            }
            let failed = match sent {
                Ok(reply) if !self.is_failure(&reply) => {
                    http1::give_back(std::mem::take(&mut head.headers));
                    self.terms.answered.set(Some(Arc::clone(instance)));
                    return Ok(reply);
                }
                Err(Broken::Unsent(_)) if reused && !fresh && !matches!(payload, Payload::Gone) => {
                    fresh = true;
                    continue;
                }
                failed => failed,
            };
            let was_called = !matches!(failed, Err(Broken::Body));
            if !was_called || !self.may_repeat(repeats) {
                return failed.map_err(|broken| self.error(broken));
            }
            // A connection with an answer that nobody reads is closed.
            drop(failed);
            repeats += 1;
            self.called.repeats.set(self.called.repeats.get() + 1);
            (repeating, fresh, last) = (true, false, None);
            tried.push(instance.id);
            tokio::time::sleep(self.backoff(repeats)).await;
            let spent = inner.clock.elapsed().saturating_sub(start);
            left = terms.timeout.saturating_sub(spent);
            if let Some(call) = given {
                let left = grpc::timeout_field(call.saturating_sub(spent));
                head.headers.insert(grpc::TIMEOUT, left);
            }
        }
        let service = service.name.clone();
        Err(match last {
            Some(source) => Error::Unreachable { service, source },
            None if tried.is_empty() => Error::Unfit { service },
            None => Error::Saturated { service },
        })
    }

    /// A connection of its own; none if the instance has as many as it may have.
    async fn link(&self, instance: &Arc<Instance>, fresh: bool) -> io::Result<Option<Way>> {
        let pooled = if fresh { None } else { self.pool.take(instance) };
        if let Some(link) = pooled {
            return Ok(Some(Way::Own { link, is_new: false }));
        }
        let Some(slot) = Slot::take(instance, self.service.config.connections_max) else {
            return Ok(None);
        };
        // Boxed, for a rare turn shall not make every call larger.
        let link = Box::pin(Link::open(slot, self.service)).await?;
        Ok(Some(Way::Own { link, is_new: true }))
    }

    fn retry(&self) -> Option<&RetryConfig> {
        self.service.config.retry.as_ref()
    }

    /// Whether an answer says that another attempt may do better.
    fn is_failure(&self, reply: &Reply) -> bool {
        let Reply::Answer(answer) = reply else { return false };
        self.retry().is_some_and(|retry| retry.statuses.contains(&answer.status().as_u16()))
            && !answer.headers().contains_key(header::RETRY_AFTER)
    }

    /// Whether, after so many repeats, there may be one more.
    fn may_repeat(&self, repeats: u32) -> bool {
        let (Some((guard, true)), Some(retry)) = (self.guard, self.retry()) else { return false };
        repeats < retry.attempts && guard.take_retry(self.pool.inner().clock.elapsed())
    }

    /// Full jitter (Brooker 2015).
    fn backoff(&self, repeats: u32) -> Duration {
        let first = self.retry().map_or(Duration::ZERO, |retry| retry.backoff);
        let times = 1_u32.checked_shl(repeats - 1).unwrap_or(u32::MAX).min(BACKOFF_TIMES_MAX);
        let part = self.pool.inner().random() as f64 / u64::MAX as f64;
        (first * times).mul_f64(part)
    }

    /// Notes how an attempt went that began then, if its time says something.
    fn note(&self, instance: &Instance, sent: &Result<Reply, Broken>, began: Option<Duration>) {
        let now = self.pool.inner().clock.elapsed();
        let outcome = match sent {
            Ok(reply) => Outcome::Answered {
                status: reply.status(self.service),
                latency: began.map(|began| now.saturating_sub(began)),
            },
            Err(Broken::Unsent(_) | Broken::Body) => return,
            Err(Broken::Sent(_) | Broken::Late) => Outcome::Failed,
        };
        self.service.note(instance, outcome, now);
    }

    fn error(&self, broken: Broken) -> Error {
        let service = self.service.name.clone();
        match broken {
            Broken::Unsent(source) => Error::Unreachable { service, source },
            Broken::Body => Error::Body { service, source: "it ended early".into() },
            Broken::Sent(source) => Error::BadAnswer { service, source },
            Broken::Late => Error::Timeout { service },
        }
    }

    async fn send(
        &self,
        way: Way,
        lease: Lease,
        head: &Parts,
        left: Duration,
        payload: &mut Payload,
    ) -> Result<Reply, Broken> {
        let sent = self.send_for_long(way, lease, head, left, payload);
        match self.retry().and_then(|retry| retry.attempt_timeout) {
            None => sent.await,
            Some(timeout) => {
                let sent = Box::pin(tokio::time::timeout(timeout, sent)).await;
                sent.unwrap_or(Err(Broken::Late))
            }
        }
    }

    async fn send_for_long(
        &self,
        way: Way,
        lease: Lease,
        head: &Parts,
        left: Duration,
        payload: &mut Payload,
    ) -> Result<Reply, Broken> {
        let mut link = match way {
            Way::Own { link, .. } => link,
            Way::Shared(place) => {
                return Box::pin(place.send(lease, head, self.terms, payload)).await;
            }
        };
        link.begin(head, self.terms.target(head), payload.take(), |out| {
            self.terms.added.write(out);
            let mut digits = itoa::Buffer::new();
            http1::field(out, TIMEOUT.as_str(), digits.format(millis(left)).as_bytes());
        });
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
                self.pool.put(link);
            }
            Body::Empty
        } else {
            Body::Answer(Answer::new(decoder, link, lease, self.pool.clone()))
        };
        Ok(Reply::Answer(Response::from_parts(parts, body)))
    }
}

/// Whole milliseconds, as services are told them.
fn millis(left: Duration) -> u64 {
    u64::try_from(left.as_millis()).unwrap_or(u64::MAX)
}

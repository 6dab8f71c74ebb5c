//! One call: whether it is made, within which time, and which of its answers is taken.

use crate::{
    added::Added,
    attempts::{Attempts, Payload},
    body::Body,
    config::Priority,
    error::Error,
    grpc,
    guard::{Closed, Guard},
    instance::Instance,
    pool::Pool,
    service::{Outcome, Service},
    tunnel::Tunnel,
};
use http::{HeaderName, Method, Response, header, request::Parts};
use std::{
    cell::{Cell, RefCell},
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::Arc,
    task::Poll,
    time::Duration,
};

/// How many milliseconds are left for the head of the answer. Told to services; a client may
/// ask for less time than it would have.
pub const TIMEOUT: HeaderName = HeaderName::from_static("x-crosstown-timeout");
/// A name that a client gives to what it wants done once.
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// A call that finds no room may come again after this long.
const SHED_RETRY: Duration = Duration::from_secs(1);

/// What a service replied.
#[derive(Debug)]
pub enum Reply {
    /// An answer, whose body streams.
    Answer(Response<Body>),
    /// It agreed to speak another protocol: its head, and the connection.
    Switched(Response<()>, Tunnel),
}

impl Reply {
    /// Its status, as far as its head says; of an answer of gRPC that is only a head, the one
    /// that says the same.
    pub(crate) fn status(&self, service: &Service) -> u16 {
        match self {
            Self::Answer(answer) => {
                let call = if service.is_h2() { grpc::http_status(answer.headers()) } else { None };
                call.unwrap_or(answer.status().as_u16())
            }
            Self::Switched(head, _) => head.status().as_u16(),
        }
    }
}

/// How a call is to be made.
#[derive(Debug)]
pub struct Terms {
    /// What has to lead to the same instance each time, for services that care; see
    /// [`crate::key_hash`].
    pub key: Option<u64>,
    /// The instance that the caller is bound to, host and port: as long as it is fit, the request
    /// goes there. If it is not, those with the same key go to the same other one.
    pub bound: Option<Box<str>>,
    /// Bytes of the path that lead to the service and are not told to it; a slash follows them.
    pub base: usize,
    /// Whether the request may be sent twice, if the service has retries or hedging. `None`: if
    /// its method is idempotent (RFC 9110, section 9.2.2), or it has an `Idempotency-Key` that
    /// the service is configured to understand.
    pub repeatable: Option<bool>,
    /// Whether it goes before others when the service cannot take all.
    pub priority: Priority,
    /// Is told which instance answered.
    pub answered: Answered,
    /// How long the caller waits for the head of the answer. The service is told.
    pub timeout: Duration,
    /// What the request carries besides the fields of its head.
    pub added: Added,
}

impl Terms {
    /// What the service is asked for.
    pub(crate) fn target<'h>(&self, head: &'h Parts) -> &'h str {
        let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
        &target[self.base..]
    }
}

/// Which instance answered a call, once one has.
#[derive(Default)]
pub struct Answered(Cell<Option<Arc<Instance>>>);

impl Answered {
    pub(crate) fn set(&self, instance: Option<Arc<Instance>>) {
        self.0.set(instance);
    }

    /// The instance, if there was an answer; after that it is not known any more.
    #[must_use]
    pub fn take(&self) -> Option<Arc<Instance>> {
        self.0.take()
    }
}

impl std::fmt::Debug for Answered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Answered").finish_non_exhaustive()
    }
}

/// What was called so far, for whoever gives up waiting: by the call, and by its hedge.
#[derive(Debug, Default)]
pub(crate) struct Called {
    pub(crate) instances: [RefCell<Option<Arc<Instance>>>; 2],
    /// Attempts after the first.
    pub(crate) repeats: Cell<u32>,
}

impl Pool {
    /// Forwards a request, whose header fields are already fit for the service, and waits until
    /// `late` for the head of the answer; its hop-by-hop fields are removed.
    /// A request that carries `Upgrade` may be answered by [`Reply::Switched`].
    ///
    /// Another instance is tried when one cannot be connected to, and another connection when
    /// a pooled one turns out to be closed before anything was sent. A request that reached a
    /// service is repeated only if the service is configured for it and `terms` allow it.
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
        terms: &Terms,
        late: impl Future<Output = ()>,
    ) -> Result<Reply, Error> {
        if let Some(guard) = service.guard() {
            return Box::pin(self.guarded(service, guard, head, body, terms, late)).await;
        }
        let called = Called::default();
        let attempts =
            Attempts { pool: self, service, guard: None, terms, called: &called, lane: 0 };
        let reply = pin!(attempts.run(head, Payload::once(body), None));
        self.in_time(service, &called, reply, late).await
    }

    async fn guarded(
        &self,
        service: &Service,
        guard: &Guard,
        head: Box<Parts>,
        body: Body,
        terms: &Terms,
        late: impl Future<Output = ()>,
    ) -> Result<Reply, Error> {
        let refused = || service.name.clone();
        let repeatable = is_repeatable(service, &head, terms);
        let payload = match &service.config.retry {
            Some(retry) if repeatable => Payload::kept(body, retry.body_bytes_max).await,
            _ => Ok(Payload::once(body)),
        };
        let payload = payload.map_err(|source| Error::Body { service: refused(), source })?;
        // Otherwise the client's pace would count as the service's.
        let whole = payload.is_whole();
        let may_repeat = repeatable && whole;
        let began = self.inner().clock.elapsed();
        let pass = guard.enter(terms.priority, began).map_err(|closed| match closed {
            Closed::Full => Error::Shed { service: refused(), after: SHED_RETRY },
            Closed::Open(after) => Error::Open { service: refused(), after },
        })?;
        let called = Called::default();
        let attempts = |lane| Attempts {
            pool: self,
            service,
            guard: Some((guard, may_repeat)),
            terms,
            called: &called,
            lane,
        };
        let hedge = guard.hedge_after().filter(|_| may_repeat && !service.is_single());
        let reply = match hedge {
            None => {
                let reply = pin!(attempts(0).run(head, payload, None));
                self.in_time(service, &called, reply, late).await
            }
            Some(after) => {
                let both = self.hedged(guard, [attempts(0), attempts(1)], head, payload, after);
                self.in_time(service, &called, pin!(both), late).await
            }
        };
        let now = self.inner().clock.elapsed();
        let (good, answered) = match &reply {
            Ok(reply) => {
                let good = reply.status(service) < 500;
                (Some(good), good)
            }
            Err(Error::Timeout { .. }) => (Some(false), true),
            Err(Error::Unreachable { .. } | Error::BadAnswer { .. }) => (Some(false), false),
            Err(_) => (None, false),
        };
        let waited =
            (answered && whole && called.repeats.get() == 0).then(|| now.saturating_sub(began));
        pass.ended(good, waited, now);
        reply
    }

    /// Waits for a reply, until it is too late.
    async fn in_time(
        &self,
        service: &Service,
        called: &Called,
        mut reply: Pin<&mut impl Future<Output = Result<Reply, Error>>>,
        late: impl Future<Output = ()>,
    ) -> Result<Reply, Error> {
        let mut late = pin!(late);
        poll_fn(|cx| {
            if let Poll::Ready(reply) = reply.as_mut().poll(cx) {
                return Poll::Ready(reply);
            }
            late.as_mut().poll(cx).map(|()| {
                for instance in &called.instances {
                    if let Some(instance) = &*instance.borrow() {
                        service.note(instance, Outcome::Failed, self.inner().clock.elapsed());
                    }
                }
                Err(Error::Timeout { service: service.name.clone() })
            })
        })
        .await
    }

    /// Asks a second instance if the first takes longer than `after`. The first good answer is
    /// taken; the other is given up, and its connection closed.
    async fn hedged(
        &self,
        guard: &Guard,
        [first, second]: [Attempts<'_>; 2],
        head: Box<Parts>,
        payload: Payload,
        after: Duration,
    ) -> Result<Reply, Error> {
        let spare = (head.clone(), payload.again());
        let (called, service, answered) = (first.called, first.service, &first.terms.answered);
        let clock = &self.inner().clock;
        let began = clock.elapsed();
        let mut first = pin!(first.run(head, payload, None));
        tokio::select! {
            biased;
            reply = &mut first => return reply,
            () = tokio::time::sleep(after) => {}
        }
        let slow = called.instances[0].borrow().clone();
        let (Some(slow), true) = (slow, guard.take_hedge(clock.elapsed())) else {
            return first.await;
        };
        let (head, Some(payload)) = spare else { return first.await };
        let mut second = pin!(second.run(head, payload, Some(slow.id)));
        let is_good = |reply: &Result<Reply, Error>| matches!(reply, Ok(reply) if reply.status(service) < 500);
        tokio::select! {
            biased;
            reply = &mut first => {
                if is_good(&reply) {
                    return reply;
                }
                let by = answered.take();
                let other = second.await;
                if is_good(&other) {
                    return other;
                }
                answered.set(by);
                reply
            }
            reply = &mut second => {
                if is_good(&reply) {
                    // It took at least this long.
                    let now = clock.elapsed();
                    slow.answered(now.saturating_sub(began), now);
                    return reply;
                }
                first.await
            }
        }
    }
}

/// Whether a request may be sent twice.
fn is_repeatable(service: &Service, head: &Parts, terms: &Terms) -> bool {
    if head.headers.contains_key(header::UPGRADE) || head.method == Method::CONNECT {
        return false;
    }
    let keyed = || {
        let understood = service.config.retry.as_ref().is_some_and(|retry| retry.idempotency_key);
        understood && head.headers.contains_key(IDEMPOTENCY_KEY)
    };
    terms.repeatable.unwrap_or_else(|| head.method.is_idempotent() || keyed())
}

//! The record of one request, and the body that carries it to the end of the answer.

use crate::{
    canary::{Canary, Side},
    connection::Conn,
    core::Snapshot,
    fields,
    grpc::{self, Form},
    trace::Trace,
    watch::Owed,
    witness::Witnessed,
};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, Method, Response, uri::PathAndQuery};
use http_body::{Frame, SizeHint};
use protocol::{Code, Problem};
use soa::{Body, BoxError, Inflow, InflowFailure, Instance};
use std::{
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use traffic_cop::{
    analytics::{self, PathPattern, RouteId, RouteName, Sample},
    limit::{Decision, Owing},
};
use types::Caller;

/// The status of a request whose client went away before the answer, as nginx counts it.
const CLIENT_LEFT: u16 = 499;

/// A request in flight; recorded when dropped.
pub(crate) struct Ticket {
    conn: Rc<Conn>,
    pub(crate) started: Duration,
    pub(crate) route: RouteId,
    pub(crate) caller: Option<Arc<Caller>>,
    pub(crate) status: u16,
    pub(crate) inflow: Option<Rc<Inflow>>,
    pub(crate) bytes_out: u64,
    /// The trial that the request is part of, and its side.
    pub(crate) trial: Option<(Arc<Canary>, Side)>,
    /// What the limits said.
    pub(crate) decision: Option<Decision>,
    /// What limits are to be told of the answer and of the end.
    pub(crate) owing: Option<Owing>,
    /// What was asked for.
    pub(crate) asked: Option<(Method, PathAndQuery)>,
    /// What paths of the route look like, if it says so.
    pub(crate) endpoint: Option<PathPattern>,
    pub(crate) trace: Trace,
    /// Which instance answered.
    pub(crate) instance: Option<Arc<Instance>>,
    /// Why the request was refused here.
    pub(crate) code: Option<Code>,
}

impl Ticket {
    pub(crate) fn new(conn: Rc<Conn>, trace: Trace) -> Self {
        conn.watch.request_began();
        conn.core.request_began();
        Self {
            started: conn.core.node.clock.elapsed(),
            route: conn.core.node.unmatched,
            caller: None,
            status: CLIENT_LEFT,
            inflow: None,
            bytes_out: 0,
            trial: None,
            decision: None,
            owing: None,
            asked: None,
            endpoint: None,
            trace,
            instance: None,
            code: None,
            conn,
        }
    }
}

impl Ticket {
    /// The answer to a request that is refused here, for a reason that is recorded.
    pub(crate) fn refused(&mut self, problem: &Problem, form: Form) -> Response<Body> {
        self.code = Some(problem.code);
        form.refused(problem)
    }

    /// Tells the limits what the head of an answer says that it cost.
    pub(crate) fn answered(&mut self, head: &mut HeaderMap) {
        if let (Some(owing), Some(decision)) = (&mut self.owing, &mut self.decision) {
            owing.answered(&self.conn.core.node.clock, head, decision);
        }
    }

    /// Gives `field` the name and value of each field of the answer that is ours to set.
    pub(crate) fn fields(&self, mut field: impl FnMut(&HeaderName, &[u8])) {
        field(&fields::REQUEST_ID, self.trace.id.as_bytes());
        if let Some(decision) = &self.decision {
            decision.tell(field);
        }
    }

    /// Whether [`Self::fields`] has a field of that name, which no service may set then.
    pub(crate) fn sets(&self, name: &HeaderName) -> bool {
        let of_limits = self.decision.as_ref().is_some_and(|decision| decision.tells(name));
        of_limits || *name == fields::REQUEST_ID
    }

    /// Tells whoever wants to know what became of a request of a session.
    fn tell(&self, latency: Duration) {
        let node = &self.conn.core.node;
        let (Some(caller), Some((method, target))) = (&self.caller, &self.asked) else { return };
        let Some(session) = caller.session.filter(|_| node.witness.wants_requests()) else {
            return;
        };
        let RouteName { route, service, .. } = node.analytics.name(self.route);
        node.witness.request(Witnessed {
            tenant: caller.tenant.clone(),
            session,
            method: method.clone(),
            target: target.clone(),
            route,
            service,
            instance: self.instance.as_ref().map(|instance| instance.authority().into()),
            status: self.status,
            latency,
            trace: self.trace.parent.clone(),
        });
    }

    /// What the request is served by, if that is on trial.
    pub(crate) fn tried(&self) -> Option<&Arc<Snapshot>> {
        match &self.trial {
            Some((canary, Side::Tried)) => Some(&canary.snapshot),
            Some((_, Side::InForce)) | None => None,
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let core = &self.conn.core;
        self.conn.watch.request_ended();
        core.request_ended();
        let bytes_in = self.inflow.as_ref().map_or(0, |inflow| inflow.bytes());
        if let Some(owing) = self.owing.take() {
            owing.ended(&core.node.clock, bytes_in.saturating_add(self.bytes_out));
        }
        let latency = core.node.clock.elapsed().saturating_sub(self.started);
        if let Some((canary, side)) = &self.trial
            && self.status != CLIENT_LEFT
        {
            canary.note(*side, self.status, latency);
        }
        self.tell(latency);
        let asked = self.asked.as_ref().map(|(method, target)| analytics::Asked {
            method: method.as_str(),
            path: target.path(),
            pattern: self.endpoint.as_ref(),
            query: target.query(),
        });
        let instance = self.instance.as_ref().map(|by| (by.number(), by.authority()));
        let sample = Sample {
            route: self.route,
            caller: self.caller.as_ref(),
            instance,
            asked,
            status: self.status,
            latency,
            bytes_in,
            bytes_out: self.bytes_out,
            trace: self.trace.id.to_str().unwrap_or_default(),
            code: self.code.map(Code::as_str),
        };
        core.recorder.record(&sample, core.random());
    }
}

/// An answer's body on its way to the client.
pub(crate) struct Outgoing {
    body: Body,
    /// Behind a pointer, since answers are moved about.
    ticket: Box<Ticket>,
    owed: Option<Owed>,
    form: Form,
    /// It broke, and its client was told so.
    over: bool,
}

impl Outgoing {
    /// `is_h2`: whether the stream has flow control of its own.
    pub(crate) fn new(body: Body, ticket: Box<Ticket>, is_h2: bool, form: Form) -> Self {
        let owed = is_h2.then(|| ticket.conn.watch.owe());
        Self { body, ticket, owed, form, over: false }
    }

    /// The record of the request.
    pub(crate) fn ticket(&self) -> &Ticket {
        &self.ticket
    }

    /// Says how a call of gRPC ended, and counts it.
    fn told(&mut self, frame: Result<Frame<Bytes>, BoxError>) -> Frame<Bytes> {
        let frame = frame.unwrap_or_else(|_| {
            self.over = true;
            let inflow = self.ticket.inflow.as_ref().and_then(|inflow| inflow.failure());
            grpc::broken(match inflow {
                Some(InflowFailure::TooLarge) => Code::BodyTooLarge,
                Some(InflowFailure::Broken) => Code::BadRequest,
                None => Code::BadGateway,
            })
        });
        if let Some(status) = frame.trailers_ref().and_then(soa::grpc::http_status) {
            self.ticket.status = status;
        }
        frame
    }
}

impl http_body::Body for Outgoing {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        if this.over {
            return Poll::Ready(None);
        }
        let mut polled = Pin::new(&mut this.body).poll_frame(cx);
        if this.form == Form::Grpc {
            polled = polled.map(|frame| frame.map(|frame| Ok(this.told(frame))));
        }
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(data) = frame.data_ref()
        {
            this.ticket.bytes_out += data.len() as u64;
        }
        if let Some(owed) = &this.owed {
            owed.set(polled.is_ready());
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.over || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

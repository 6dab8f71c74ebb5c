//! One connection: what it is, and who subscribes by it. Below: the commands that it obeys, and
//! the transports that carry it.

mod bound;
mod charging;
mod command;
mod durable;
mod history;
mod map;
mod opening;
mod orders;
mod outlet;
mod reader;
mod resuming;
mod session;
mod slow;
mod socket;
mod stream;
mod subscribing;
mod subscription;
mod task;
mod traced;
mod websocket;

pub(crate) use bound::Bound;
pub(crate) use history::standing;
pub(crate) use stream::{Streaming, serve as serve_stream};
#[cfg(feature = "echo")]
pub(crate) use websocket::echo;
pub(crate) use websocket::serve;

use crate::{
    broker::{Start, joined_push},
    channel::Channel,
    connection::{
        durable::Durable,
        opening::Opening,
        orders::Errand,
        outlet::Outlet,
        slow::Fate,
        subscription::{By, Granted, State, Subscription, Waiting},
    },
    frame::{Dialect, Frame, Frames},
    places,
    presence::{Joined, Move, Way},
    queue::{Full, Queue},
    traces::Tracer,
};
use protocol::{
    Problem,
    client::{
        Body, ClientInfo, Disconnect, Encoding, Error, ErrorCode, Reply, SubscribeResult, Told,
        filter::Tags,
    },
};
use std::{
    cell::{Cell, OnceCell, RefCell},
    net::IpAddr,
    rc::Rc,
    sync::Arc,
    time::Duration,
};
use types::{ConnectionId, Info, Principal, SessionId, TenantId, Timestamp};

/// A connection as its core's hub sees it.
pub(crate) struct Connection {
    id: ConnectionId,
    pub(crate) encoding: Encoding,
    origin: Origin,
    queue: Queue,
    /// Shows to others what passes, if somebody wants to see it.
    tracer: Rc<Tracer>,
    /// By which the hub writes, when nothing waits; missing if a stream carries the connection.
    out: Option<Rc<Outlet>>,
    /// The hub's turn in which it did so last.
    turn: Cell<u32>,
    closing: Cell<Option<Disconnect>>,
    /// Why that is, if whoever has ordered it says.
    reason: OnceCell<Box<str>>,
    /// While the server's own subscriptions begin: the answer to `connect`.
    opening: RefCell<Option<Box<Opening>>>,
    bound: RefCell<Option<Bound>>,
    subscriptions: RefCell<Vec<Subscription>>,
    #[expect(clippy::box_collection, reason = "there hardly ever are any, in many connections")]
    errands: RefCell<Option<Box<Vec<Errand>>>>,
}

/// How a connection came.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Origin {
    ip: IpAddr,
    since: Timestamp,
    /// Whether it is carried by a stream.
    emulated: bool,
}

/// What a publication is about, for those who do not want or may not have all.
#[derive(Debug, Clone, Default)]
pub(crate) struct About {
    pub(crate) tags: Tags,
    /// The entry of a document that has changed.
    pub(crate) key: Option<Arc<str>>,
}

/// A subscription that is no more, for those who have to be told.
pub(crate) struct Ended {
    pub(crate) channel: Channel,
    /// The broker's number for it, if the broker has answered.
    pub(crate) life: Option<u64>,
    pub(crate) dialect: Dialect,
    pub(crate) moved: Option<Move>,
}

impl Connection {
    fn new(
        id: ConnectionId,
        encoding: Encoding,
        origin: Origin,
        queue_bytes_max: usize,
        tracer: Rc<Tracer>,
        out: Option<Rc<Outlet>>,
    ) -> Self {
        Self {
            id,
            encoding,
            origin,
            queue: Queue::new(queue_bytes_max),
            tracer,
            out,
            turn: Cell::new(0),
            closing: Cell::new(None),
            reason: OnceCell::new(),
            opening: RefCell::default(),
            bound: RefCell::default(),
            subscriptions: RefCell::default(),
            errands: RefCell::default(),
        }
    }

    /// Asks the connection's task to close it. The first reason stands.
    pub(crate) fn close(&self, why: Disconnect) {
        if self.closing.get().is_none() {
            self.closing.set(Some(why));
            self.queue.wake();
        }
    }

    /// As [`Self::close`], for a reason that the client is told in place of the protocol's own.
    pub(crate) fn close_for(&self, why: Disconnect, reason: &str) {
        if self.closing.get().is_none() && !reason.is_empty() {
            let _ = self.reason.set(reason.into());
        }
        self.close(why);
    }

    /// The close code, and the reason that the client is told.
    fn parting(&self, why: Disconnect) -> (u16, &str) {
        let (code, reason) = why.parts();
        (code, self.reason.get().map_or(reason, |reason| reason))
    }

    pub(crate) fn is_bound_to(&self, tenant: &TenantId, session: SessionId) -> bool {
        let bound = self.bound.borrow();
        bound.as_ref().is_some_and(|b| b.session == session && b.caller.tenant == *tenant)
    }

    /// Whether its credential is of before its session was handed over for the last time.
    pub(crate) fn is_former(&self, handed: u64) -> bool {
        let bound = self.bound.borrow();
        let steering = bound.as_ref().and_then(|bound| bound.caller.steering.as_ref());
        steering.map_or(0, |steering| steering.handed) < handed
    }

    pub(crate) fn is_of(&self, tenant: &TenantId, principal: &Principal) -> bool {
        let bound = self.bound.borrow();
        let caller = bound.as_ref().map(|bound| &bound.caller);
        caller.is_some_and(|by| by.tenant == *tenant && by.principal == *principal)
    }

    /// What stands for its principal where different ones are counted.
    pub(crate) fn principal_number(&self) -> Option<u64> {
        let bound = self.bound.borrow();
        bound.as_ref().map(|bound| places::number(&bound.caller.principal))
    }

    pub(crate) fn is_waiting(&self, channel: &Channel, ticket: u64) -> bool {
        let subscriptions = self.subscriptions.borrow();
        subscriptions.iter().any(|held| {
            held.channel == *channel
                && matches!(&held.state, State::Waiting(waiting) if waiting.ticket == ticket)
        })
    }

    /// Answers the `subscribe` that was waiting for the broker, and tells what is no more if
    /// that has failed.
    pub(crate) fn answer_subscription(
        &self,
        channel: &Channel,
        outcome: Result<Start, Problem>,
        now: Timestamp,
    ) -> Option<Ended> {
        let mut subscriptions = self.subscriptions.borrow_mut();
        let at = subscriptions.iter().position(|held| held.channel == *channel)?;
        let State::Waiting(waiting) = &mut subscriptions[at].state else { return None };
        let Waiting { command, recovering, strict, .. } = **waiting;
        let collected = waiting.collected.take();
        // Whoever publishes names it by the same copy.
        subscriptions[at].channel = channel.clone();
        if let Some(durable) = self.durable() {
            match &outcome {
                Ok(start) => durable.began(channel, start.life, &start.epoch),
                Err(_) => durable.failed(channel),
            }
        }
        match outcome {
            Ok(start) if strict && !start.recovered => {
                subscriptions[at].state = State::Live { life: start.life, offset: start.offset };
                let held = subscriptions.swap_remove(at);
                drop(subscriptions);
                self.reply(command, Body::Error(ErrorCode::UnrecoverablePosition.to_error()));
                Some(self.ended(held))
            }
            Ok(start) => {
                let offset = start.offset;
                let mut publications = start.publications;
                let held = &mut subscriptions[at];
                if let Some(filter) = &held.filter {
                    publications.retain(|one| filter.wants(&one.tags));
                }
                if let Some(reader) = &held.reader {
                    self.retain_readable(reader, &mut publications);
                }
                held.state = State::Live { life: start.life, offset };
                held.based = !publications.is_empty();
                if held.delta {
                    publications.iter_mut().for_each(|one| one.told = Told::Text);
                }
                // It is told of itself here, so that this comes once, and after the answer.
                let own_join = held.joins.then(|| self.info(held.info())).flatten();
                let by_server = held.is_by_server();
                let (dialect, number) = (held.dialect(self.encoding), start.number);
                let until = held.granted.as_ref().and_then(|granted| granted.until);
                let mut result = SubscribeResult {
                    expires: until.is_some(),
                    ttl: until.map_or(0, |until| seconds(until.since(now)).max(1)),
                    recoverable: start.recoverable,
                    positioned: start.recoverable,
                    epoch: start.epoch,
                    offset,
                    publications,
                    recovered: start.recovered,
                    was_recovering: recovering,
                    delta: held.delta,
                    id: if held.compact { start.number } else { 0 },
                    state: start.members,
                    ..SubscribeResult::default()
                };
                if let Some(collected) = collected {
                    collected.put_into(&mut result);
                }
                drop(subscriptions);
                if by_server {
                    self.began(channel, result);
                } else {
                    self.reply(command, Body::Subscribe(result));
                }
                if let Some(info) = own_join {
                    let push = joined_push(channel, &Joined::Join(info));
                    let frames = Frames::of(push, number, |wanted| wanted == dialect);
                    self.push_one_of(channel, &frames, dialect, false);
                }
                None
            }
            Err(problem) => {
                let held = subscriptions.swap_remove(at);
                drop(subscriptions);
                if held.is_by_server() {
                    // The client comes back, and is then subscribed to all, or told why not.
                    self.close(Disconnect::ServerError);
                } else {
                    self.reply(command, Body::Error(Error::from(&problem)));
                }
                Some(self.ended(held))
            }
        }
    }

    /// What its session keeps, if that is durable.
    fn durable(&self) -> Option<Rc<Durable>> {
        self.bound.borrow().as_ref()?.durable.clone()
    }

    /// How others see the connection, once it is bound, in a channel of which its token says
    /// `chan_info`.
    fn info(&self, chan_info: Option<Info>) -> Option<ClientInfo> {
        let bound = self.bound.borrow();
        let caller = &bound.as_ref()?.caller;
        let user = caller.principal.id.as_str().to_owned();
        let conn_info = caller.info.clone();
        Some(ClientInfo { user, client: self.id.to_string(), conn_info, chan_info })
    }

    /// How others see it in the channel named `channel`.
    fn info_in(&self, channel: &str) -> Option<ClientInfo> {
        let subscriptions = self.subscriptions.borrow();
        let held = subscriptions.iter().find(|held| held.channel.name() == channel);
        self.info(held.and_then(Subscription::info))
    }

    /// Others are told that the subscriber came or went.
    fn moved(&self, held: &Subscription, way: Way) -> Option<Move> {
        let announce = held.announced;
        let info = self.info(held.info()).filter(|_| !announce.is_nothing())?;
        Some(Move { channel: held.channel.clone(), announce, info, way })
    }

    fn ended(&self, held: Subscription) -> Ended {
        let moved = self.moved(&held, Way::Out);
        let life = match held.state {
            State::Live { life, .. } => Some(life),
            // When the broker's answer comes, the hub finds that nobody waits for it.
            State::Waiting(_) => None,
        };
        let dialect = held.dialect(self.encoding);
        Ended { channel: held.channel, life, dialect, moved }
    }

    /// Sends a publication in the hub's `turn`, unless the connection has it already. Tells what
    /// is no more if its subscription ends instead.
    pub(crate) fn deliver(
        &self,
        channel: &Channel,
        frames: &Frames,
        offset: u64,
        about: &About,
        turn: u32,
    ) -> Option<Ended> {
        if self.closing.get().is_some() {
            return None;
        }
        let mut subscriptions = self.subscriptions.borrow_mut();
        let held = subscriptions.iter_mut().find(|held| held.channel == *channel);
        let held = held?;
        let dialect = held.dialect(self.encoding);
        let State::Live { offset: last, .. } = &mut held.state else { return None };
        if offset != 0 {
            if offset <= *last {
                return None;
            }
            *last = offset;
        }
        if held.filter.as_ref().is_some_and(|filter| !filter.wants(&about.tags)) {
            return None;
        }
        if held.reader.as_ref().is_some_and(|reader| !self.reads(reader, about.key.as_ref())) {
            return None;
        }
        match held.fate(self.queue.is_half_full()) {
            Fate::Queue => {
                held.waiting = None;
                let based = std::mem::replace(&mut held.based, true);
                drop(subscriptions);
                match frames.get(dialect, based) {
                    Some(frame) => self.send(channel, frame, turn),
                    None => self.close(Disconnect::InsufficientState),
                }
                None
            }
            Fate::Wait => {
                drop(subscriptions);
                self.let_wait(channel, about.key.as_ref(), frames);
                None
            }
            Fate::End => {
                drop(subscriptions);
                self.lost(channel)
            }
        }
    }

    /// Queues that `client` came or went, if the connection wants to be told.
    pub(crate) fn deliver_joined(
        &self,
        channel: &Channel,
        frames: &Frames,
        client: Option<ConnectionId>,
    ) {
        if self.closing.get().is_some() || client == Some(self.id) {
            return;
        }
        let wants = |held: &Subscription| {
            held.channel == *channel && held.joins && matches!(held.state, State::Live { .. })
        };
        let subscriptions = self.subscriptions.borrow();
        let dialect = subscriptions.iter().find(|held| wants(held));
        let dialect = dialect.map(|held| held.dialect(self.encoding));
        drop(subscriptions);
        if let Some(dialect) = dialect {
            self.push_one_of(channel, frames, dialect, false);
        }
    }

    fn push_one_of(&self, channel: &Channel, frames: &Frames, dialect: Dialect, based: bool) {
        match frames.get(dialect, based) {
            Some(frame) => {
                self.trace_push(channel, frame);
                self.push(frame.clone());
            }
            // The broker writes for all that it has answered; who is forgotten starts again.
            None => self.close(Disconnect::InsufficientState),
        }
    }

    /// Ends a subscription, if there is one.
    fn take_subscription(&self, channel: &Channel) -> Option<Ended> {
        let mut subscriptions = self.subscriptions.borrow_mut();
        let at = subscriptions.iter().position(|held| held.channel == *channel)?;
        let held = subscriptions.swap_remove(at);
        drop(subscriptions);
        Some(self.ended(held))
    }

    /// Ends every subscription.
    pub(crate) fn take_subscriptions(&self) -> Vec<Ended> {
        let subscriptions = std::mem::take(&mut *self.subscriptions.borrow_mut());
        subscriptions.into_iter().map(|held| self.ended(held)).collect()
    }

    fn reply(&self, id: u32, body: Body) {
        self.say(&Reply { id, body });
    }

    /// Queues a reply or push that is for this connection alone.
    fn say(&self, reply: &Reply) {
        self.trace_reply(reply);
        self.push(Frame::of(reply, self.encoding));
    }

    /// Writes a frame at once if it can be; else queues it. Only the first of a hub's turn is
    /// written so: if more come, the connection's task joins them.
    fn send(&self, channel: &Channel, frame: &Frame, turn: u32) {
        self.trace_push(channel, frame);
        if let Some(out) = &self.out
            && self.turn.replace(turn) != turn
            && self.queue.is_empty()
            && !self.is_opening()
        {
            match out.try_begin(frame.framed()) {
                Some(true) => return self.count_sent(frame),
                Some(false) => {
                    self.count_sent(frame);
                    return self.queue.wake();
                }
                None => {}
            }
        }
        self.push(frame.clone());
    }

    fn push(&self, frame: Frame) {
        let queued = match &mut *self.opening.borrow_mut() {
            Some(opening) => opening.hold(frame, self.queue.bytes_max()),
            None => {
                self.count_sent(&frame);
                self.queue.push(frame)
            }
        };
        if queued == Err(Full) {
            self.close(Disconnect::Slow);
        }
    }
}

impl Connection {
    fn count_sent(&self, frame: &Frame) {
        if let Some(bound) = &*self.bound.borrow() {
            bound.meter.sent(frame.len());
        }
    }

    /// A message of the client came, of so many bytes.
    fn count_received(&self, bytes: usize) {
        if let Some(bound) = &*self.bound.borrow() {
            bound.meter.received(bytes);
        }
    }
}

fn seconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_secs()).unwrap_or(u32::MAX)
}

/// How a connection ended.
enum Closed {
    /// The client closed it, or went away.
    ByClient,
    /// We closed it.
    ByUs(Disconnect),
    /// The client broke the WebSocket protocol.
    Broken,
}

#[cfg(test)]
mod tests;

//! Beginning and ending subscriptions: by the client, by the server, and by time.

use crate::{
    JoinLeave,
    broker::{Follower, Recover, Subscribe},
    channel::{self, Admitted, Channel, Source, Wish},
    connection::{
        Bound, Connection, Ended, Granted, State, Subscription, Waiting, map::Collected,
        reader::Reader, resuming::as_kept, seconds, task::Task,
    },
    frame::Dialect,
    presence::Way,
};
use protocol::{
    Code, Problem,
    client::{
        Body, ChannelRequest, Empty, Encoding, Error, ErrorCode, Push, Reason, Reply,
        SubRefreshRequest, SubRefreshResult, SubscribeRequest, Subscribed, Unsubscribe,
        filter::Malformed,
    },
};
use std::{cell::Cell, collections::BTreeMap};
use traffic_cop::session::{Ground, What};
use types::{Caller, CredentialKind, Timestamp};

thread_local! {
    /// Numbers the subscriptions of this core.
    static TICKETS: Cell<u64> = const { Cell::new(1) };
}

const PARTLY: &str =
    "the caller may not read every entry of the document; subscribe to it as a map";

/// The stream of a document tells of all its entries.
pub(super) fn partly() -> Error {
    Error::from(&Problem::new(Code::Forbidden, PARTLY))
}

/// A subscription that may begin.
pub(super) struct Beginning {
    /// The command to be answered; 0 if the server itself subscribes the connection.
    pub(super) command: u32,
    pub(super) channel: Channel,
    pub(super) admitted: Admitted,
    pub(super) request: SubscribeRequest,
    pub(super) granted: Option<Box<Granted>>,
    /// Of a document that the caller may not read all of.
    pub(super) reader: Option<Box<Reader>>,
    /// Of a map: what was collected of it already.
    pub(super) collected: Option<Collected>,
}

impl Task {
    /// Begins a subscription that the client asks for. The broker answers.
    pub(super) async fn subscribe(
        &self,
        id: u32,
        bound: &Bound,
        mut request: SubscribeRequest,
    ) -> Result<(), Error> {
        let refused = |problem: Problem| Error::from(&problem);
        let channel = Channel::new(&bound.caller.tenant, &request.channel).map_err(refused)?;
        let granted = if request.token.is_empty() {
            // What the session was allowed it goes on being allowed.
            self.connection.resumed_grant(&channel)
        } else {
            let permit = self.permitted(bound, &request.channel, request.token.clone()).await?;
            Some(Box::new(Granted::by_token(permit.expires, permit.info)))
        };
        let permitted = granted.as_ref().is_some_and(|granted| granted.permits());
        let admitted = self.admitted(bound, &channel, Wish::Subscribe, permitted);
        let admitted = admitted.map_err(refused)?;
        let kind = Subscribed::read(request.kind);
        let taken = self.take_over(&channel, &mut request).await.then(|| channel.clone());
        let (command, collected) = (id, None);
        let reader = self.reader(bound, &admitted.source);
        let beginning =
            Beginning { command, channel, admitted, request, granted, reader, collected };
        let begun = match (kind, &beginning.admitted.source) {
            (Some(kind), Source::Members(_, by)) if kind == by.kind() => {
                let collected = Some(Collected::of(kind));
                self.begin_subscription(Beginning { collected, ..beginning }).await
            }
            (Some(Subscribed::Stream), Source::Map(_) | Source::Members(..)) => {
                Err(ErrorCode::BadRequest.with("the channel is a map: subscribe to it as one"))
            }
            (Some(Subscribed::Stream), _) if beginning.reader.is_some() => Err(partly()),
            (Some(Subscribed::Stream), _) => self.begin_subscription(beginning).await,
            (Some(Subscribed::Map), _) => Box::pin(self.lead_on(bound, beginning)).await,
            (Some(Subscribed::Clients | Subscribed::Users), _) => {
                Err(ErrorCode::BadRequest.with("the channel is another kind of map, or none"))
            }
            (None, _) => Err(ErrorCode::NotAvailable.to_error()),
        };
        if let Some(channel) = taken.filter(|_| begun.is_err()) {
            // What was resumed is no more, and nothing stands in its place.
            self.connection.unsubscribed(&channel, Unsubscribe::Server);
        }
        begun
    }

    /// What of a document is to be left out for the caller.
    pub(super) fn reader(&self, bound: &Bound, source: &Source) -> Option<Box<Reader>> {
        let states = &self.sockets.node.parts.states;
        Reader::of(states, &bound.caller, source.entries()?)
    }

    /// The caller that a subscription token allows to follow `channel`, who is the bound one.
    async fn permitted(
        &self,
        bound: &Bound,
        channel: &str,
        token: String,
    ) -> Result<Caller, Error> {
        let identity = self.sockets.node.parts.identity.clone();
        let permit = self.control(identity.subscription(token)).await;
        let permit = permit.map_err(|problem| {
            if problem.code == Code::Unauthenticated {
                // That the connection is authenticated is not in doubt.
                return ErrorCode::PermissionDenied.with(problem.detail);
            }
            Error::from(&problem)
        })?;
        let same = permit.caller.tenant == bound.caller.tenant
            && permit.caller.principal == bound.caller.principal;
        if !same || permit.channel != channel {
            let detail = "the token is another principal's, or for another channel";
            return Err(ErrorCode::PermissionDenied.with(detail));
        }
        Ok(permit.caller)
    }

    /// The subscriptions that a connection begins with: those that its credential names, and
    /// its principal's own channel if that is configured. `known` is what the client has of
    /// them from before.
    pub(super) fn by_server(
        &self,
        bound: &Bound,
        known: &mut BTreeMap<String, SubscribeRequest>,
    ) -> Result<Vec<Beginning>, Problem> {
        let caller = &bound.caller;
        let anonymous = caller.credential == CredentialKind::Anonymous;
        let personal = self.sockets.node.config.personal_channels && !anonymous;
        let personal = personal.then(|| channel::personal(&caller.principal));
        let mut names: Vec<&str> = caller.channels.iter().map(|name| &**name).collect();
        names.extend(personal.as_deref().filter(|personal| !names.contains(personal)));
        let beginning = |name: &str| {
            let channel = Channel::new(&caller.tenant, name)?;
            let admitted = self.admitted(bound, &channel, Wish::Subscribe, true)?;
            let request = known.remove(name).unwrap_or_default();
            let granted = Some(Box::new(Granted::by_server(Ground::Credential)));
            if self.reader(bound, &admitted.source).is_some() {
                return Err(Problem::new(Code::Forbidden, PARTLY));
            }
            let (command, reader, collected) = (0, None, None);
            Ok(Beginning { command, channel, admitted, request, granted, reader, collected })
        };
        names.into_iter().map(beginning).collect()
    }

    /// Begins a subscription that somebody else wants the connection to have.
    pub(super) async fn subscribe_by_order(&self, channel: Channel) {
        let bound = self.connection.bound.borrow().clone();
        let Some(bound) = bound.filter(|_| !self.connection.is_subscribed(&channel)) else {
            return;
        };
        let begun = match self.admitted(&bound, &channel, Wish::Subscribe, true) {
            Ok(admitted) if self.reader(&bound, &admitted.source).is_some() => Err(partly()),
            Ok(admitted) => {
                let granted = Some(Box::new(Granted::by_server(Ground::Order)));
                let (command, request) = (0, SubscribeRequest::default());
                let (reader, collected) = (None, None);
                let beginning =
                    Beginning { command, channel, admitted, request, granted, reader, collected };
                self.begin_subscription(beginning).await
            }
            Err(problem) => Err(Error::from(&problem)),
        };
        if let Err(error) = begun {
            tracing::info!(connection = %self.connection.id, error.message, "not subscribed");
        }
    }

    /// Ends a subscription that somebody else wants the connection not to have.
    pub(super) async fn unsubscribe_by_order(&self, channel: &Channel) {
        if self.connection.is_subscribed(channel) {
            self.end_subscription(channel).await;
            self.connection.unsubscribed(channel, Unsubscribe::Server);
            self.keep_no_more(channel).await;
        }
    }

    /// Asks the broker for a subscription.
    pub(super) async fn begin_subscription(&self, beginning: Beginning) -> Result<(), Error> {
        let Beginning { command, channel, admitted, mut request, granted, reader, collected } =
            beginning;
        let map = collected.is_some();
        let announced = admitted.announce();
        let joins = match admitted.join_leave {
            JoinLeave::Off => false,
            JoinLeave::Asked => request.join_leave,
            JoinLeave::All => true,
        };
        // Not in Protobuf: npm `centrifuge` 5.8.0 reads the number as an object there, and does
        // not find the subscription by it.
        let compact =
            self.connection.encoding == Encoding::Json && request.has(SubscribeRequest::COMPACT);
        let delta = admitted.delta && request.delta == "fossil" && !map;
        let kept = self.connection.durable().map(|durable| {
            let kept = as_kept(&request, collected.as_ref(), granted.as_deref());
            (durable, kept)
        });
        let filter = match request.tf.take() {
            None => None,
            Some(_) if !admitted.filter || map => return Err(ErrorCode::NotAvailable.to_error()),
            // What is left out, later ones may not differ from.
            Some(_) if delta => {
                return Err(ErrorCode::BadRequest.with("a filter and `delta` do not go together"));
            }
            Some(filter) => match filter.check() {
                Ok(filter) => Some(Box::new(filter)),
                Err(Malformed(detail)) => return Err(ErrorCode::BadRequest.with(detail)),
            },
        };
        let ticket = TICKETS.replace(TICKETS.get() + 1);
        {
            let mut subscriptions = self.connection.subscriptions.borrow_mut();
            if subscriptions.iter().any(|held| held.channel == channel) {
                return Err(ErrorCode::AlreadySubscribed.to_error());
            }
            if subscriptions.len() >= self.sockets.node.config.subscriptions_max {
                return Err(ErrorCode::LimitExceeded.to_error());
            }
            let recovering = request.recover;
            // The server's own have no command that an error could answer.
            let strict = command != 0
                && recovering
                && (map || request.has(SubscribeRequest::REJECT_UNRECOVERED));
            let waiting = Waiting { ticket, command, recovering, strict, collected };
            let state = State::Waiting(Box::new(waiting));
            let channel = channel.clone();
            subscriptions.reserve_exact(1);
            let based = false;
            subscriptions.push(Subscription {
                channel,
                state,
                announced,
                joins,
                compact,
                delta,
                based,
                map,
                slow: admitted.slow,
                filter,
                reader,
                waiting: None,
                granted,
            });
        }
        // Whoever is answered is kept, and present: every node can tell.
        if let Some((durable, kept)) = kept
            && let Err(problem) = self.keep(&durable, &channel, &admitted.source, kept).await
        {
            self.connection.take_subscription(&channel);
            return Err(Error::from(&problem));
        }
        let moved = self.connection.find_mut(&channel);
        let moved = moved.and_then(|held| self.connection.moved(&held, Way::In));
        if let Some(moved) = moved
            && let Err(problem) = self.sockets.node.presence.tell(moved).await
        {
            self.connection.take_subscription(&channel);
            return Err(Error::from(&problem));
        }
        let recover =
            request.recover.then_some(Recover { epoch: request.epoch, offset: request.offset });
        let follower = Follower {
            core: self.sockets.hub.core,
            connection: self.place,
            dialect: Dialect { encoding: self.connection.encoding, compact, delta, map },
            ticket,
        };
        let (source, recovery) = (admitted.source, admitted.recovery);
        let name = channel.name().to_owned();
        let subscribe = Subscribe { channel, source, follower, joins, recovery, recover };
        let asked = self.sockets.node.broker.subscribe(subscribe).await;
        asked.map_err(|problem| Error::from(&problem))?;
        self.note(|| What::Subscribed { channel: name });
        Ok(())
    }

    pub(super) async fn unsubscribe(
        &self,
        bound: &Bound,
        request: &ChannelRequest,
    ) -> Result<Body, Error> {
        let refused = |problem: Problem| Error::from(&problem);
        let channel = Channel::new(&bound.caller.tenant, &request.channel).map_err(refused)?;
        if self.connection.is_opening() {
            // The answer to `connect` waits for the server's own subscriptions.
            return Err(ErrorCode::BadRequest.with("`connect` is not answered yet"));
        }
        self.end_subscription(&channel).await;
        self.keep_no_more(&channel).await;
        Ok(Body::Unsubscribe(Empty {}))
    }

    pub(super) async fn end_subscription(&self, channel: &Channel) {
        let ended = self.connection.take_subscription(channel);
        self.sockets.hub.unsubscribed(channel, self.place);
        let Some(ended) = ended else { return };
        self.note(|| What::Unsubscribed { channel: channel.name().to_owned() });
        self.sockets.node.broker_forgets(&ended, self.sockets.hub.core).await;
        if let Some(moved) = ended.moved {
            // If the store does not take it now, the presence goes on trying.
            let _ = self.sockets.node.presence.tell(moved).await;
        }
    }

    /// Takes a fresh token for a subscription that stands on one.
    pub(super) async fn sub_refresh(
        &self,
        bound: &Bound,
        request: SubRefreshRequest,
    ) -> Result<Body, Error> {
        let refused = |problem: Problem| Error::from(&problem);
        let channel = Channel::new(&bound.caller.tenant, &request.channel).map_err(refused)?;
        let held = self.connection.find_mut(&channel);
        let by_token = held.is_some_and(|held| held.is_permitted() && !held.is_by_server());
        if !by_token {
            let detail = "no subscription to the channel stands on a token";
            return Err(ErrorCode::PermissionDenied.with(detail));
        }
        let Caller { expires: until, info, .. } =
            self.permitted(bound, &request.channel, request.token).await?;
        let mut moved = None;
        if let Some(held) = self.connection.find_mut(&channel).as_deref_mut()
            && let Some(granted) = &mut held.granted
        {
            granted.until = until;
            if info.is_some() && info != granted.info {
                granted.info = info;
                moved = self.connection.moved(held, Way::Anew);
            }
        }
        if let Some(moved) = moved {
            self.sockets.node.presence.mention(moved).await;
        }
        if let Some(durable) = self.connection.durable() {
            durable.renewed(&channel, until);
            durable.write_later();
        }
        let now = self.sockets.node.parts.clock.now();
        let ttl = until.map_or(0, |until| seconds(until.since(now)).max(1));
        Ok(Body::SubRefresh(SubRefreshResult { expires: until.is_some(), ttl }))
    }

    /// Tells those who ask who is present what is said of the connection now.
    pub(super) async fn renew_presence(&self) {
        let moved: Vec<_> = {
            let subscriptions = self.connection.subscriptions.borrow();
            let moved = |held| self.connection.moved(held, Way::Anew);
            subscriptions.iter().filter_map(moved).collect()
        };
        for moved in moved {
            self.sockets.node.presence.mention(moved).await;
        }
    }

    /// Ends what the caller, as he is known now, may not follow as he does. The client begins it
    /// anew, or is told why not.
    pub(super) async fn recheck_subscriptions(&self, bound: &Bound) {
        let stands = |held: &Subscription| {
            let permitted = held.is_permitted();
            let admitted = self.admitted(bound, &held.channel, Wish::Subscribe, permitted);
            admitted.is_ok_and(|admitted| {
                self.reader(bound, &admitted.source).is_some() == held.reader.is_some()
            })
        };
        let fallen: Vec<Channel> = {
            let subscriptions = self.connection.subscriptions.borrow();
            let fallen = subscriptions.iter().filter(|held| !stands(held));
            fallen.map(|held| held.channel.clone()).collect()
        };
        for channel in fallen {
            let waits = self.connection.find_mut(&channel).and_then(|held| held.waits_for());
            self.end_subscription(&channel).await;
            match waits {
                // It has not begun: who waits for it is answered that.
                Some(0) => self.connection.begins_by_itself(),
                Some(command) => {
                    let error = ErrorCode::PermissionDenied.to_error();
                    self.connection.reply(command, Body::Error(error));
                }
                None => self.connection.unsubscribed(&channel, Unsubscribe::StateInvalidated),
            }
            self.keep_no_more(&channel).await;
        }
    }

    /// Ends subscriptions whose token has ended.
    pub(super) async fn check_subscriptions(&self, now: Timestamp) {
        for channel in self.connection.overdue(now) {
            self.end_subscription(&channel).await;
            self.connection.unsubscribed(&channel, Unsubscribe::Expired);
            self.keep_no_more(&channel).await;
        }
    }
}

impl Connection {
    /// Whether a subscription to `channel` stands on more than the namespace.
    pub(super) fn is_permitted(&self, channel: &Channel) -> bool {
        let subscriptions = self.subscriptions.borrow();
        subscriptions.iter().any(|held| held.channel == *channel && held.is_permitted())
    }

    pub(super) fn is_subscribed(&self, channel: &Channel) -> bool {
        self.subscriptions.borrow().iter().any(|held| held.channel == *channel)
    }

    pub(super) fn find_mut(
        &self,
        channel: &Channel,
    ) -> Option<std::cell::RefMut<'_, Subscription>> {
        let subscriptions = self.subscriptions.borrow_mut();
        std::cell::RefMut::filter_map(subscriptions, |subscriptions| {
            subscriptions.iter_mut().find(|held| held.channel == *channel)
        })
        .ok()
    }

    /// Whether the token of a subscription has ended.
    pub(super) fn has_overdue(&self, now: Timestamp) -> bool {
        self.subscriptions.borrow().iter().any(|held| held.is_overdue(now))
    }

    fn overdue(&self, now: Timestamp) -> Vec<Channel> {
        let subscriptions = self.subscriptions.borrow();
        let overdue = subscriptions.iter().filter(|held| held.is_overdue(now));
        overdue.map(|held| held.channel.clone()).collect()
    }

    /// Tells the client that a subscription has ended.
    fn unsubscribed(&self, channel: &Channel, why: Unsubscribe) {
        let (code, reason) = why.parts();
        let unsubscribe = Some(Reason { code, reason: reason.into() });
        let push = Push { channel: channel.name().into(), unsubscribe, ..Push::default() };
        self.say(&Reply { id: 0, body: Body::Push(push) });
    }

    /// Publications of `channel` were lost, or are more than the client takes. A subscription of the client ends, with the advice
    /// to begin it again; one of the server begins again with the connection.
    pub(crate) fn lost(&self, channel: &Channel) -> Option<Ended> {
        let by_server = self.find_mut(channel)?.is_by_server();
        if by_server {
            self.close(protocol::client::Disconnect::InsufficientState);
            return None;
        }
        let ended = self.take_subscription(channel);
        self.unsubscribed(channel, Unsubscribe::InsufficientState);
        ended
    }
}

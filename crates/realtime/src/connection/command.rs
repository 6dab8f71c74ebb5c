//! What a client's commands do.

use crate::{
    channel::{self, Admitted, Channel, Wish},
    connection::{
        Bound,
        durable::wants_to_resume,
        history::history,
        seconds,
        subscribing::partly,
        task::{Due, Task},
    },
    places::NoPlace,
    rpc,
};
use post_office::Address;
use protocol::{
    Code, Problem,
    client::{
        Body, ChannelRequest, Command, Commands, ConnectRequest, ConnectResult, Disconnect, Empty,
        Error, ErrorCode, HistoryRequest, PublishRequest, RefreshRequest, RefreshResult,
        RpcRequest, RpcResult, Subscribed, Unreadable, filter::Tags,
    },
};
use serde_json::value::RawValue;
use std::{future::Future, sync::Arc, time::Duration};
use traffic_cop::{
    identity::{CREDENTIAL_BYTES_MAX, Hold, Identified},
    session::{NewSession, SessionKind},
    state::Operation,
};
use types::{Caller, CredentialKind, PrincipalKind, SessionId};

/// Whether the connection goes on after a command.
pub(super) enum Flow {
    GoOn,
    Close(Disconnect),
}

impl Task {
    /// Obeys the commands of one message, in order.
    pub(super) async fn receive(&mut self, mut commands: Commands<'_>) -> Flow {
        loop {
            let before = commands.bytes_left();
            let Some(command) = commands.next() else { break };
            let bytes = before - commands.bytes_left();
            let flow = match command {
                Ok(command) => self.obey(command, bytes).await,
                Err(Unreadable::Data { id }) if id != 0 && self.is_bound() => {
                    let error = ErrorCode::BadRequest.with("`data` is not JSON");
                    self.connection.reply(id, Body::Error(error));
                    Flow::GoOn
                }
                Err(Unreadable::Data { .. } | Unreadable::Message) => {
                    return Flow::Close(Disconnect::BadRequest);
                }
            };
            match flow {
                Flow::GoOn if self.connection.closing.get().is_none() => {}
                Flow::GoOn => return Flow::GoOn,
                close @ Flow::Close(_) => return close,
            }
        }
        Flow::GoOn
    }

    fn is_bound(&self) -> bool {
        self.connection.bound.borrow().is_some()
    }

    /// Obeys a command of so many bytes.
    async fn obey(&mut self, command: Command, bytes: usize) -> Flow {
        self.connection.trace_command(&command);
        if command.is_pong() {
            return self.pong();
        }
        let id = command.id;
        if command.requests() != 1 || (id == 0 && command.send.is_none()) {
            return Flow::Close(Disconnect::BadRequest);
        }
        // No command is obeyed by pillars that were taken back before it.
        self.connection.look_at_pillars();
        let bound = self.connection.bound.borrow().clone();
        let Some(bound) = bound else {
            return match command.connect {
                Some(connect) => match self.turn().await {
                    Ok(()) => Box::pin(self.connect(id, connect)).await,
                    Err(problem) => self.refused(id, &problem),
                },
                None => Flow::Close(Disconnect::BadRequest),
            };
        };
        if let Some(refused) = self.charged(&bound, &command, bytes).await {
            if id != 0 {
                self.connection.reply(id, Body::Error(refused));
            }
            return Flow::GoOn;
        }
        // What a command has to remember while it waits, it keeps off those who wait for others.
        let answer = if let Some(request) = command.subscribe {
            match Box::pin(self.subscribe(id, &bound, request)).await {
                Ok(()) => return Flow::GoOn, // The broker answers.
                Err(error) => Err(error),
            }
        } else if let Some(request) = command.unsubscribe {
            Box::pin(self.unsubscribe(&bound, &request)).await
        } else if let Some(request) = command.sub_refresh {
            Box::pin(self.sub_refresh(&bound, request)).await
        } else if let Some(request) = command.publish {
            Box::pin(self.publish(&bound, request)).await
        } else if let Some(request) = command.history {
            Box::pin(self.history(&bound, request)).await
        } else if let Some(request) = command.presence {
            Box::pin(self.presence(&bound, &request)).await
        } else if let Some(request) = command.presence_stats {
            Box::pin(self.presence_stats(&bound, &request)).await
        } else if let Some(request) = command.rpc {
            Box::pin(self.rpc(&bound, request)).await
        } else if let Some(request) = command.refresh {
            Box::pin(self.refresh(&bound, request)).await
        } else if command.ping.is_some() {
            Ok(Body::Ping(Empty {}))
        } else if command.send.is_some() {
            return Flow::GoOn; // Nobody takes such messages yet, and no answer is due.
        } else if command.connect.is_some() {
            return Flow::Close(Disconnect::BadRequest);
        } else {
            Err(ErrorCode::NotAvailable.to_error())
        };
        self.connection.reply(id, answer.unwrap_or_else(Body::Error));
        Flow::GoOn
    }

    fn pong(&mut self) -> Flow {
        if self.timer.what == Due::Pong {
            let config = &self.sockets.node.config;
            let after = config.ping_interval - config.pong_timeout / 2;
            self.ping_after(after);
            if let Some(durable) = self.connection.durable() {
                durable.ponged();
                if durable.has_changed() {
                    durable.write_later();
                }
            }
        }
        Flow::GoOn
    }

    /// Runs what may wait for a store on the control runtime.
    pub(super) async fn control<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, Problem>> + Send + 'static,
    ) -> Result<T, Problem> {
        match self.sockets.node.parts.control.spawn(work).await {
            Ok(done) => done,
            Err(error) => {
                tracing::error!(%error, "the work of a command has failed");
                Err(Problem::new(Code::Internal, "the command failed"))
            }
        }
    }

    async fn identify(&self, token: String) -> Result<Identified, Problem> {
        if token.len() > CREDENTIAL_BYTES_MAX {
            return Err(Problem::new(Code::Unauthenticated, "the token is longer than 8 KiB"));
        }
        self.control(self.sockets.node.parts.identity.clone().identify(token)).await
    }

    /// Waits until one more connection may open.
    async fn turn(&self) -> Result<(), Problem> {
        let node = &self.sockets.node;
        match node.admission.turn(node.parts.clock.elapsed()) {
            Some(Duration::ZERO) => Ok(()),
            Some(wait) => {
                tokio::time::sleep(wait).await;
                Ok(())
            }
            None => Err(Problem::new(Code::Overloaded, "too many connections open at once")),
        }
    }

    async fn connect(&mut self, id: u32, request: ConnectRequest) -> Flow {
        let node = &self.sockets.node;
        let caller = if request.token.is_empty() {
            self.offered.take().or_else(|| node.parts.identity.anonymous())
        } else {
            match self.identify(request.token).await {
                Ok(identified) => Some(identified.caller),
                Err(problem) => return self.refused(id, &problem),
            }
        };
        let Some(caller) = caller else {
            let problem = Problem::new(Code::Unauthenticated, "`connect` brings no token");
            return self.refused(id, &problem);
        };
        let mut made = None;
        let session = match caller.session {
            Some(session) => session,
            None => {
                let kind = match caller.principal.kind {
                    PrincipalKind::User => SessionKind::Web,
                    PrincipalKind::Agent => SessionKind::Agent,
                    PrincipalKind::Service => SessionKind::Service,
                };
                let new = NewSession { kind, implicit: true, ..NewSession::default() };
                let (sessions, owner) = (node.parts.sessions.clone(), caller.clone());
                let created = self
                    .control(
                        async move { sessions.create(&owner.tenant, &owner.principal, new).await },
                    )
                    .await;
                match created {
                    Ok((session, _)) => made.insert(session).id,
                    Err(problem) => return self.refused(id, &problem),
                }
            }
        };
        let durable = match self.durable(&caller, session).await {
            Ok(durable) => durable,
            Err(problem) => return self.refused(id, &problem),
        };
        let (expires, ttl) = self.lifetime(&caller);
        let mut result = ConnectResult {
            client: self.connection.id.to_string(),
            version: concat!("crosstown ", env!("CARGO_PKG_VERSION")).into(),
            expires,
            ttl,
            ping: seconds(node.config.ping_interval),
            // What a durable session's client has shows in its answer.
            pong: self.emulated.is_none() || durable.is_some(),
            session: self.emulated.as_deref().unwrap_or_default().to_owned(),
            node: self.emulated.as_ref().map_or("", |_| &node.parts.node).to_owned(),
            ..ConnectResult::default()
        };
        tracing::debug!(connection = %self.connection.id, %session, ip = %self.ip, "connected");
        let hold = match node.parts.sessions.hold(&caller.tenant, session) {
            Ok(hold) => hold,
            Err(problem) => return self.refused(id, &problem),
        };
        if let Some(made) = &made {
            node.parts.sessions.note(&hold, made);
        } else if hold.pillars().is_none() {
            self.learn_pillars(&caller, session, &hold).await;
        }
        if caller.credential == CredentialKind::SessionToken
            && caller.steering.as_ref().map_or(0, |steering| steering.handed) < hold.handed()
        {
            let detail = "the session was handed over";
            return self.refused(id, &Problem::new(Code::Unauthenticated, detail));
        }
        let meter = node.meters.of(&caller.tenant, self.sockets.hub.core);
        let bound = Bound::new(caller, session, durable, hold, meter);
        let begun = if wants_to_resume(request.data.as_deref()) {
            // Rare, and kept off the connection.
            Box::pin(self.resume(&bound, request.subs)).await
        } else {
            self.by_server(&bound, &mut { request.subs }).map(|begun| (begun, None))
        };
        let (beginnings, resumed) = match begun {
            Ok(begun) => begun,
            Err(problem) => return self.refused(id, &problem),
        };
        let resumed = resumed.map_or_else(String::new, |resumed| format!(",\"resumed\":{resumed}"));
        let data = RawValue::from_string(format!("{{\"session\":\"{session}\"{resumed}}}"));
        result.data = data.ok();
        match node.places.enter(&bound.caller, self.connection.id, &node.config) {
            Ok(None) => {}
            Ok(Some(oldest)) => {
                let (node, tenant) = (node.clone(), bound.caller.tenant.clone());
                let control = node.parts.control.clone();
                control.spawn(async move { node.make_room(tenant, oldest).await });
            }
            Err(NoPlace) => return Flow::Close(Disconnect::ConnectionLimit),
        }
        let caller = bound.caller.clone();
        *self.connection.bound.borrow_mut() = Some(bound);
        self.connection.trace_opening();
        self.opened(&caller, session);
        // Likewise other pillars of the session find it, and those that came before are seen now.
        self.connection.look_at_pillars();
        // From here on a block finds the connection. One that came before is seen now.
        if let Err(problem) = node.parts.identity.refuse_blocked(&caller) {
            return self.refused(id, &problem);
        }
        // The first ping comes at a moment of its own, so that connections that came together
        // do not ping together ever after.
        let half = node.config.ping_interval / 2;
        let share = u32::from(clock::random::<1>(&*node.parts.clock)[0]);
        self.ping_after(half + half * share / 255);
        self.connection.open(id, result, beginnings.len());
        for beginning in beginnings {
            if let Err(error) = self.begin_subscription(beginning).await {
                tracing::debug!(connection = %self.connection.id, ?error, "not subscribed");
                return Flow::Close(Disconnect::ServerError);
            }
        }
        Flow::GoOn
    }

    /// Reads the pillars of a session that only a token has named. While the store is away the
    /// connection works in none of them; once they are seen it is told.
    async fn learn_pillars(&self, caller: &Caller, session: SessionId, hold: &Hold) {
        let (sessions, tenant) = (self.sockets.node.parts.sessions.clone(), caller.tenant.clone());
        let hold = hold.clone();
        let learned = async move { sessions.learn(&tenant, session, &hold).await };
        if let Err(problem) = self.control(learned).await {
            tracing::warn!(problem.detail, "the pillars of a session are not known yet");
        }
    }

    /// A credential that does not hold ends the connection, as the protocol has it; what may
    /// pass is an error, after which the client tries again.
    fn refused(&self, id: u32, problem: &Problem) -> Flow {
        let closing = [
            (Code::Unauthenticated, Disconnect::InvalidToken),
            (Code::Forbidden, Disconnect::PermissionDenied),
            (Code::SessionLimit, Disconnect::ConnectionLimit),
        ];
        if let Some((_, why)) = closing.iter().find(|(code, _)| *code == problem.code) {
            return Flow::Close(*why);
        }
        self.connection.reply(id, Body::Error(Error::from(problem)));
        Flow::GoOn
    }

    /// Whether clients have to bring a fresh token, and in how many seconds.
    fn lifetime(&self, caller: &Caller) -> (bool, u32) {
        let now = self.sockets.node.parts.clock.now();
        match (caller.credential, caller.expires) {
            (CredentialKind::Jwt | CredentialKind::ApiKey, Some(at)) => {
                (true, seconds(at.since(now)).max(1))
            }
            // What these hold ends with something else than a token that could be fresh.
            (
                CredentialKind::SessionToken
                | CredentialKind::Certificate
                | CredentialKind::Vouched
                | CredentialKind::Anonymous,
                _,
            )
            | (_, None) => (false, 0),
        }
    }

    async fn refresh(&mut self, bound: &Bound, request: RefreshRequest) -> Result<Body, Error> {
        let fresh = self.identify(request.token).await.map_err(|problem| Error::from(&problem))?;
        let same = fresh.caller.tenant == bound.caller.tenant
            && fresh.caller.principal == bound.caller.principal;
        if !same {
            return Err(ErrorCode::PermissionDenied.with("the token is another principal's"));
        }
        let (expires, ttl) = self.lifetime(&fresh.caller);
        // A token that says nothing of its holder leaves what an earlier one has said.
        let (said, says) = (&bound.caller.info, &fresh.caller.info);
        let (differs, keeps) = (says.is_some() && says != said, says.is_none() && said.is_some());
        let caller = match keeps {
            true => Arc::new(Caller { info: said.clone(), ..(*fresh.caller).clone() }),
            false => fresh.caller,
        };
        let bound = bound.renewed(caller);
        *self.connection.bound.borrow_mut() = Some(bound.clone());
        self.recheck_subscriptions(&bound).await;
        if differs {
            // Rare, and kept off the connection.
            Box::pin(self.renew_presence()).await;
        }
        let version = concat!("crosstown ", env!("CARGO_PKG_VERSION")).into();
        let client = self.connection.id.to_string();
        Ok(Body::Refresh(RefreshResult { client, version, expires, ttl }))
    }

    /// The channel of the caller's tenant, and what the caller may use there.
    fn admit(&self, bound: &Bound, name: &str, wish: Wish) -> Result<(Channel, Admitted), Error> {
        let refused = |problem: Problem| Error::from(&problem);
        let channel = Channel::new(&bound.caller.tenant, name).map_err(refused)?;
        let permitted = self.connection.is_permitted(&channel);
        let admitted = self.admitted(bound, &channel, wish, permitted).map_err(refused)?;
        Ok((channel, admitted))
    }

    pub(super) fn admitted(
        &self,
        bound: &Bound,
        channel: &Channel,
        wish: Wish,
        permitted: bool,
    ) -> Result<Admitted, Problem> {
        // On this socket the caller acts within the session that the connection is bound to.
        let caller = Caller { session: Some(bound.session), ..(*bound.caller).clone() };
        channel::admit(&self.sockets.node.config, &caller, channel, wish, permitted)
    }

    async fn publish(&self, bound: &Bound, request: PublishRequest) -> Result<Body, Error> {
        match Subscribed::read(request.kind) {
            Some(Subscribed::Stream) => {}
            Some(Subscribed::Map) => return self.publish_entry(bound, request).await,
            Some(Subscribed::Clients | Subscribed::Users) | None => {
                return Err(ErrorCode::NotAvailable.to_error());
            }
        }
        let Some(data) = request.data else {
            return Err(ErrorCode::BadRequest.with("`data` is missing"));
        };
        let publications = &self.sockets.node.publications;
        let by = self.connection.info_in(&request.channel).unwrap_or_default();
        let prepared = publications.prepare(&bound.caller, &request.channel, data, Tags::new(), by);
        let refused = |problem: Problem| Error::from(&problem);
        let publishing = prepared.map_err(refused)?.by(bound.session);
        let done = match publishing.is_here() {
            true => publishing.carry_out().await,
            false => self.control(publishing.carry_out()).await,
        };
        done.map_err(refused)?;
        Ok(Body::Publish(Empty {}))
    }

    /// Sets or removes an entry of a map.
    async fn publish_entry(&self, bound: &Bound, request: PublishRequest) -> Result<Body, Error> {
        let refused = |problem: Problem| Error::from(&problem);
        let operation = match (request.data, request.removed) {
            (_, true) => Operation::Delete,
            (Some(data), false) => match serde_json::from_str(data.get()) {
                Ok(value) => Operation::Put(value),
                Err(_) => return Err(ErrorCode::BadRequest.with("`data` cannot be a value")),
            },
            (None, false) => return Err(ErrorCode::BadRequest.with("`data` is missing")),
        };
        let node = &self.sockets.node;
        let caller = Caller { session: Some(bound.session), ..(*bound.caller).clone() };
        if let Some(address) = request.channel.strip_prefix(channel::MAILBOX)
            && request.removed
        {
            // What is taken out of a mailbox is acknowledged.
            let of: Address = address.parse().map_err(refused)?;
            let (mailboxes, key) = (node.parts.mailboxes.clone(), request.key);
            let taken = async move { mailboxes.acknowledge(&caller, &of, &key).await };
            self.control(taken).await.map_err(refused)?;
            return Ok(Body::Publish(Empty {}));
        }
        let publications = node.publications.clone();
        let write = async move {
            let (channel, key) = (&request.channel, &request.key);
            match publications.set(&caller, channel, key, operation, None).await {
                // What is to be removed may be gone already.
                Err(problem) if request.removed && problem.code == Code::NotFound => Ok(()),
                written => written.map(|_| ()),
            }
        };
        self.control(write).await.map_err(refused)?;
        Ok(Body::Publish(Empty {}))
    }

    async fn history(&self, bound: &Bound, request: HistoryRequest) -> Result<Body, Error> {
        let (channel, Admitted { source, .. }) =
            self.admit(bound, &request.channel, Wish::History)?;
        if self.reader(bound, &source).is_some() {
            return Err(partly());
        }
        let node = self.sockets.node.clone();
        let read = async move { history(&node, &channel, source, &request).await };
        match self.control(read).await {
            Ok(result) => Ok(Body::History(result)),
            Err(problem) => Err(Error::from(&problem)),
        }
    }

    /// The channel, if it may be asked who is there.
    fn asked(&self, bound: &Bound, request: &ChannelRequest) -> Result<Channel, Error> {
        match self.admit(bound, &request.channel, Wish::Presence)? {
            (channel, Admitted { presence: true, .. }) => Ok(channel),
            (_, Admitted { presence: false, .. }) => Err(ErrorCode::NotAvailable.to_error()),
        }
    }

    async fn presence(&self, bound: &Bound, request: &ChannelRequest) -> Result<Body, Error> {
        let channel = self.asked(bound, request)?;
        let presence = self.sockets.node.presence.clone();
        let found = self.control(async move { presence.list(&channel).await }).await;
        found.map(Body::Presence).map_err(|problem| Error::from(&problem))
    }

    async fn presence_stats(&self, bound: &Bound, request: &ChannelRequest) -> Result<Body, Error> {
        let channel = self.asked(bound, request)?;
        let presence = self.sockets.node.presence.clone();
        let found = self.control(async move { presence.count(&channel).await }).await;
        found.map(Body::PresenceStats).map_err(|problem| Error::from(&problem))
    }

    async fn rpc(&self, bound: &Bound, request: RpcRequest) -> Result<Body, Error> {
        let parts = self.sockets.node.parts.clone();
        let data = request.data.map(|data| data.get().to_owned());
        let call = rpc::call(parts, bound.caller.clone(), bound.session, request.method, data);
        let failed = |problem: Problem| {
            if problem.code == Code::NotImplemented {
                return ErrorCode::MethodNotFound.to_error();
            }
            Error {
                code: u32::from(problem.code.status().as_u16()),
                message: problem.to_json().to_string(),
                temporary: problem.code.retry() == protocol::Retry::Later,
            }
        };
        let answer = self.control(call).await.map_err(failed)?;
        match serde_json::value::to_raw_value(&answer) {
            Ok(data) => Ok(Body::Rpc(RpcResult { data })),
            Err(_) => Err(ErrorCode::Internal.to_error()),
        }
    }
}

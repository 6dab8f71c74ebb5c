//! Resuming what a durable session keeps, and having it keep what its connection follows.

use crate::{
    channel::{Channel, Source, Wish},
    connection::{
        Bound, By, Connection, Granted, State,
        durable::{Durable, NO_EPOCH, resume_from},
        history::standing,
        map::Collected,
        subscribing::Beginning,
        task::Task,
    },
    live::Standing,
};
use protocol::{
    Code, Problem,
    client::{SubscribeRequest, Subscribed},
};
use serde::Serialize;
use serde_json::Value as Json;
use std::{collections::BTreeMap, rc::Rc};
use traffic_cop::{
    session::{Ground, Kept, KeptPosition},
    state::format_epoch,
};
use types::{Caller, SessionId, Timestamp};

/// What the client is told of its session's subscriptions beside those that begin.
#[derive(Debug, Default, Serialize)]
struct Resumed {
    /// Maps: their entries come page by page, so that the client subscribes to them.
    maps: Vec<String>,
    /// What the session may not follow any more, and has given up.
    dropped: Vec<Dropped>,
}

#[derive(Debug, Serialize)]
struct Dropped {
    channel: String,
    code: &'static str,
    detail: String,
}

/// A subscription as the session is to keep it. Without a position that the client knows.
pub(super) fn as_kept(
    request: &SubscribeRequest,
    collected: Option<&Collected>,
    granted: Option<&Granted>,
) -> Kept {
    let (epoch, offset) = (request.epoch.clone(), request.offset);
    let known = request.recover && epoch != NO_EPOCH;
    Kept {
        ground: granted.map_or(Ground::Namespace, |granted| granted.ground),
        until: granted.and_then(|granted| granted.until),
        position: known.then_some(KeptPosition { epoch, offset }),
        kind: collected.map_or(Subscribed::Stream, Collected::kind).number(),
        join_leave: request.join_leave,
        filter: request.tf.as_ref().and_then(|filter| serde_json::to_value(filter).ok()),
        since: Timestamp(0),
    }
}

impl Task {
    /// What the session keeps, from now on by this connection; `None` unless it is durable.
    pub(super) async fn durable(
        &self,
        caller: &Caller,
        session: SessionId,
    ) -> Result<Option<Rc<Durable>>, Problem> {
        if !session.may_be_durable() || caller.session != Some(session) {
            return Ok(None);
        }
        let node = &self.sockets.node;
        if node.places.refuse(caller, &node.config) {
            // Who is refused takes nothing over.
            return Err(Problem::new(Code::SessionLimit, "there are too many connections"));
        }
        let (sessions, control) = (node.parts.sessions.clone(), node.parts.control.clone());
        let (tenant, principal) = (caller.tenant.clone(), caller.principal.clone());
        let (asked, connection) = (sessions.clone(), self.connection.id.to_string());
        let taken = self
            .control(
                async move { asked.take_kept(&tenant, &principal, session, &connection).await },
            )
            .await?;
        let most = node.config.subscriptions_max;
        Ok(taken.map(|taken| Rc::new(Durable::new(sessions, control, taken, most))))
    }

    /// The subscriptions that a connection begins with if its client resumes: the server's own, and
    /// what the session keeps. `known` is what the client has of them. And what it is told in `data`.
    pub(super) async fn resume(
        &self,
        bound: &Bound,
        mut known: BTreeMap<String, SubscribeRequest>,
    ) -> Result<(Vec<Beginning>, Option<Json>), Problem> {
        let Some(durable) = &bound.durable else {
            return Ok((self.by_server(bound, &mut known)?, Some(Json::Null)));
        };
        let kept = durable.kept();
        for (name, kept) in &kept {
            resume_from(kept, known.entry(name.clone()).or_default());
        }
        let mut beginnings = self.by_server(bound, &mut known)?;
        let mut resumed = Resumed::default();
        for (name, kept) in kept {
            // What the server subscribes it to by itself has been taken out.
            let Some(request) = known.remove(&name) else { continue };
            match self.resumable(bound, &name, &kept, request) {
                Ok(Some(_)) if beginnings.len() >= self.sockets.node.config.subscriptions_max => {
                    let detail = "more than `realtime.subscriptions_max`";
                    resumed.dropped(durable, name, &Problem::new(Code::Overloaded, detail));
                }
                Ok(Some(beginning)) => beginnings.push(beginning),
                Ok(None) => resumed.maps.push(name),
                Err(problem) => resumed.dropped(durable, name, &problem),
            }
        }
        for Beginning { channel, request, granted, .. } in &beginnings {
            if request.recover && durable.position(channel.name()).is_some() {
                // The client may know better where it is.
                durable
                    .begins(channel.name(), as_kept(request, None, granted.as_deref()), |_| true);
            }
        }
        if let Err(problem) = durable.write().await {
            tracing::debug!(problem.detail, "what a session has given up waits for the store");
        }
        Ok((beginnings, serde_json::to_value(resumed).ok()))
    }

    /// A kept subscription, if the caller may still have it; `None` for a map.
    fn resumable(
        &self,
        bound: &Bound,
        name: &str,
        kept: &Kept,
        request: SubscribeRequest,
    ) -> Result<Option<Beginning>, Problem> {
        let refuse = |code, detail: &str| Err(Problem::new(code, detail));
        let now = self.sockets.node.parts.clock.now();
        if kept.until.is_some_and(|until| until <= now) {
            return refuse(Code::TokenExpired, "the token for the channel has ended");
        }
        if kept.ground == Ground::Credential {
            return refuse(Code::Forbidden, "the credential names the channel no more");
        }
        let channel = Channel::new(&bound.caller.tenant, name)?;
        let permitted = kept.ground != Ground::Namespace;
        let admitted = self.admitted(bound, &channel, Wish::Subscribe, permitted)?;
        if kept.kind != Subscribed::Stream.number() {
            return Ok(None);
        }
        let is_a_map = matches!(admitted.source, Source::Map(_) | Source::Members(..));
        if is_a_map || self.reader(bound, &admitted.source).is_some() {
            return refuse(Code::Forbidden, "the channel is to be followed as a map");
        }
        let tf = kept.filter.clone().map(serde_json::from_value).transpose().ok().flatten();
        if kept.filter.is_some() && (tf.is_none() || !admitted.filter) {
            return refuse(Code::NotImplemented, "the namespace takes no filters any more");
        }
        // What the client says of it is where it is, and no more.
        let SubscribeRequest { recover, epoch, offset, .. } = request;
        let join_leave = kept.join_leave;
        let request =
            SubscribeRequest { recover, epoch, offset, tf, join_leave, ..Default::default() };
        let granted =
            Granted { by: By::Session, ground: kept.ground, until: kept.until, info: None };
        let granted = Some(Box::new(granted));
        let (command, reader, collected) = (0, None, None);
        Ok(Some(Beginning { command, channel, admitted, request, granted, reader, collected }))
    }

    /// Has the session keep a subscription before it begins.
    pub(super) async fn keep(
        &self,
        durable: &Durable,
        channel: &Channel,
        source: &Source,
        mut kept: Kept,
    ) -> Result<(), Problem> {
        kept.since = self.sockets.node.parts.clock.now();
        if !source.is_recoverable() {
            kept.position = None;
        } else if kept.position.is_none() {
            kept.position = self.head(channel, source.clone()).await?;
        }
        let followed: Vec<String> = {
            let subscriptions = self.connection.subscriptions.borrow();
            subscriptions.iter().map(|held| held.channel.name().to_owned()).collect()
        };
        durable.begins(channel.name(), kept, |name| followed.iter().any(|held| held == name));
        if let Err(problem) = durable.write().await {
            durable.failed(channel);
            return Err(problem);
        }
        Ok(())
    }

    /// Where a channel is: no later than where a subscription that begins now does.
    async fn head(
        &self,
        channel: &Channel,
        source: Source,
    ) -> Result<Option<KeptPosition>, Problem> {
        let (node, channel) = (self.sockets.node.clone(), channel.clone());
        let standing = self.control(async move { standing(&node, &channel, source).await }).await?;
        let kept = |Standing { epoch, last: offset, .. }| KeptPosition {
            epoch: format_epoch(epoch),
            offset,
        };
        Ok(standing.map(kept))
    }

    /// The session gives a subscription up. What the store does not take now it takes later.
    pub(super) async fn keep_no_more(&self, channel: &Channel) {
        let Some(durable) = self.connection.durable() else { return };
        durable.ends(channel.name());
        if let Err(problem) = durable.write().await {
            tracing::debug!(problem.detail, "what a session has given up waits for the store");
        }
    }

    /// Lets the client begin by itself what its session has resumed. Unless it says from where, it
    /// goes on from where the session is, so that nothing is missed between the two. False if there
    /// is nothing to take over.
    pub(super) async fn take_over(
        &self,
        channel: &Channel,
        request: &mut SubscribeRequest,
    ) -> bool {
        let Some(durable) = self.connection.durable() else { return false };
        let at = match self.connection.find_mut(channel).as_deref() {
            Some(held) if held.is_resumed() => match held.state {
                State::Live { life, offset } => {
                    let epoch = durable.epoch(channel.name(), life);
                    epoch.map(|epoch| KeptPosition { epoch, offset })
                }
                State::Waiting(_) => {
                    self.connection.begins_by_itself();
                    durable.position(channel.name())
                }
            },
            Some(_) | None => return false,
        };
        let is_stream = request.kind == Subscribed::Stream.number();
        if let Some(KeptPosition { epoch, offset }) = at.filter(|_| is_stream && !request.recover) {
            (request.recover, request.epoch, request.offset) = (true, epoch, offset);
            durable.goes_on(channel.name());
        }
        self.end_subscription(channel).await;
        true
    }
}

impl Resumed {
    fn dropped(&mut self, durable: &Durable, channel: String, problem: &Problem) {
        durable.ends(&channel);
        let (code, detail) = (problem.code.as_str(), problem.detail.to_string());
        self.dropped.push(Dropped { channel, code, detail });
    }
}

impl super::Subscription {
    fn is_resumed(&self) -> bool {
        self.granted.as_ref().is_some_and(|granted| granted.by == By::Session)
    }
}

impl Connection {
    /// What a subscription that the session resumed stands on, for the client that takes it over.
    pub(super) fn resumed_grant(&self, channel: &Channel) -> Option<Box<Granted>> {
        let held = self.find_mut(channel)?;
        let granted = held.granted.as_ref().filter(|_| held.is_resumed())?;
        let Granted { ground, until, .. } = **granted;
        let info = granted.info.clone();
        (ground != Ground::Namespace)
            .then(|| Box::new(Granted { by: By::Client, ground, until, info }))
    }
}

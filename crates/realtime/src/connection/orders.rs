//! What others have a connection do.

use crate::{
    channel::Channel,
    connection::{Bound, Connection, task::Task},
};
use protocol::client::{Body, Data, Disconnect, Encoding, Message, Push, Reply};
use traffic_cop::connections::{Order, Question, Selector, Shown, Transport};
use types::TenantId;

/// What only the connection's own task can do.
pub(super) enum Errand {
    Subscribe(Channel),
    Unsubscribe(Channel),
    /// What it follows is looked at anew, since its pillars have changed.
    Recheck,
}

impl Connection {
    /// Whether it is one of those that are meant.
    pub(crate) fn is_one_of(&self, tenant: &TenantId, selector: &Selector) -> bool {
        let bound = self.bound.borrow();
        let Some(bound) = bound.as_ref().filter(|bound| bound.caller.tenant == *tenant) else {
            return false;
        };
        let Selector { connection, session, user, kind, pillar, channel } = selector;
        let principal = &bound.caller.principal;
        connection.as_ref().is_none_or(|id| *id == self.id.to_string())
            && session.is_none_or(|session| session == bound.session)
            && user.as_ref().is_none_or(|user| *user == principal.id)
            && kind.is_none_or(|kind| kind == principal.kind)
            && pillar.as_ref().is_none_or(|pillar| bound.caller.pillars.contains(pillar))
            && channel.as_ref().is_none_or(|channel| self.follows(channel))
    }

    fn follows(&self, channel: &str) -> bool {
        self.subscriptions.borrow().iter().any(|held| held.channel.name() == channel)
    }

    pub(crate) fn shown(&self, node: &str, subscriptions_max: usize) -> Option<Shown> {
        let bound = self.bound.borrow();
        let bound = bound.as_ref()?;
        let subscriptions = self.subscriptions.borrow();
        let names = subscriptions.iter().take(subscriptions_max);
        Some(Shown {
            connection: self.id.to_string(),
            node: node.to_owned(),
            session: bound.session,
            user: bound.caller.principal.id.clone(),
            kind: bound.caller.principal.kind,
            pillars: bound.caller.pillars.iter().cloned().collect(),
            transport: match self.origin.emulated {
                true => Transport::Stream,
                false => Transport::Websocket,
            },
            encoding: match self.encoding {
                Encoding::Json => "json".into(),
                Encoding::Protobuf => "protobuf".into(),
            },
            ip: self.origin.ip,
            since: self.origin.since,
            expires: bound.caller.expires,
            subscription_count: subscriptions.len(),
            subscriptions: names.map(|held| held.channel.name().to_owned()).collect(),
            waiting_bytes: self.queue.bytes(),
        })
    }

    /// Does what is ordered, or leaves it to the connection's task.
    pub(crate) fn take_order(&self, question: &Question, order: &Order) {
        let errand = |channel: &String, errand: fn(Channel) -> Errand| {
            if let Ok(channel) = Channel::new(&question.tenant, channel) {
                self.leave_to_task(errand(channel));
            }
        };
        match order {
            Order::Disconnect { reconnect, reason } => {
                if let Some(reason) = reason {
                    tracing::info!(connection = %self.id, tenant = %question.tenant, reason,
                        "a connection is closed by order");
                }
                let why = match reconnect {
                    true => Disconnect::ForceReconnect,
                    false => Disconnect::ForceNoReconnect,
                };
                self.close_for(why, reason.as_deref().unwrap_or_default());
            }
            Order::Subscribe { channel } => errand(channel, Errand::Subscribe),
            Order::Unsubscribe { channel } => errand(channel, Errand::Unsubscribe),
            Order::Send { data } => {
                if let Ok(data) = serde_json::value::to_raw_value(data) {
                    self.say(&message(data));
                }
            }
        }
    }

    /// Takes over the pillars of its session as they are known now, if they are others.
    pub(crate) fn look_at_pillars(&self) {
        let changed = self.bound.borrow_mut().as_mut().is_some_and(Bound::look_at_pillars);
        if changed {
            self.leave_to_task(Errand::Recheck);
        }
    }

    fn leave_to_task(&self, errand: Errand) {
        self.errands.borrow_mut().get_or_insert_default().push(errand);
        self.queue.wake();
    }
}

fn message(data: Data) -> Reply {
    let push = Push { message: Some(Message { data }), ..Push::default() };
    Reply { id: 0, body: Body::Push(push) }
}

impl Task {
    /// Does what was left to this task.
    pub(super) async fn run_errands(&self) {
        let errands = self.connection.errands.borrow_mut().take();
        if let Some(errands) = errands {
            // Rare, and kept off the connection.
            Box::pin(self.run(*errands)).await;
        }
    }

    async fn run(&self, errands: Vec<Errand>) {
        for errand in errands {
            match errand {
                Errand::Subscribe(channel) => self.subscribe_by_order(channel).await,
                Errand::Unsubscribe(channel) => self.unsubscribe_by_order(&channel).await,
                Errand::Recheck => {
                    let bound = self.connection.bound.borrow().clone();
                    if let Some(bound) = bound {
                        self.recheck_subscriptions(&bound).await;
                    }
                }
            }
        }
    }
}

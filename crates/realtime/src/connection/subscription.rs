//! A connection's subscription to a channel, and what it stands on.

use crate::{
    Slow,
    channel::Channel,
    connection::{map::Collected, reader::Reader, slow::Newest},
    frame::Dialect,
    presence::Announce,
};
use protocol::client::{Encoding, filter::Filter};
use traffic_cop::session::Ground;
use types::{Info, Timestamp};

/// A subscription, from the moment that the broker was asked for it.
pub(super) struct Subscription {
    pub(super) channel: Channel,
    pub(super) state: State,
    /// What others were told of it.
    pub(super) announced: Announce,
    /// Whether it wants to be told who comes and goes.
    pub(super) joins: bool,
    /// Its pushes name the channel by a number.
    pub(super) compact: bool,
    /// It is told what differs from the last publication, once it has one.
    pub(super) delta: bool,
    pub(super) based: bool,
    /// It takes entries and their changes.
    pub(super) map: bool,
    pub(super) slow: Slow,
    /// Which publications it wants.
    pub(super) filter: Option<Box<Filter>>,
    /// Which entries of a document it is not told of, if there are any.
    pub(super) reader: Option<Box<Reader>>,
    /// The newest publications, if the client is behind and wants no others.
    pub(super) waiting: Option<Box<Newest>>,
    /// What it stands on beside what the namespace allows everybody.
    pub(super) granted: Option<Box<Granted>>,
}

/// Why a connection may be subscribed to a channel.
pub(super) struct Granted {
    /// Who subscribed it.
    pub(super) by: By,
    pub(super) ground: Ground,
    /// When the token that allows it ends.
    pub(super) until: Option<Timestamp>,
    /// What the token says of the subscriber for others to see.
    pub(super) info: Option<Info>,
}

/// Who has subscribed a connection to a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum By {
    Client,
    /// The server, by itself.
    Server,
    /// Likewise, since the session kept it: the client may take it over.
    Session,
}

impl Granted {
    /// By a token.
    pub(super) fn by_token(until: Option<Timestamp>, info: Option<Info>) -> Self {
        Self { by: By::Client, ground: Ground::Token, until, info }
    }

    /// By the server, on other grounds than the namespace.
    pub(super) fn by_server(ground: Ground) -> Self {
        Self { by: By::Server, ground, until: None, info: None }
    }

    /// Whether it is more than the namespace allows by itself.
    pub(super) fn permits(&self) -> bool {
        self.ground != Ground::Namespace
    }
}

impl Subscription {
    pub(super) fn dialect(&self, encoding: Encoding) -> Dialect {
        Dialect { encoding, compact: self.compact, delta: self.delta, map: self.map }
    }

    pub(super) fn is_by_server(&self) -> bool {
        self.granted.as_ref().is_some_and(|granted| granted.by != By::Client)
    }

    /// What its token says of the subscriber for others to see.
    pub(super) fn info(&self) -> Option<Info> {
        self.granted.as_ref()?.info.clone()
    }

    /// Whether it stands on more than the namespace.
    pub(super) fn is_permitted(&self) -> bool {
        self.granted.as_ref().is_some_and(|granted| granted.permits())
    }

    /// The command that waits for it to begin; 0 if the server itself does.
    pub(super) fn waits_for(&self) -> Option<u32> {
        match &self.state {
            State::Waiting(waiting) => Some(waiting.command),
            State::Live { .. } => None,
        }
    }

    pub(super) fn is_overdue(&self, now: Timestamp) -> bool {
        let until = self.granted.as_ref().and_then(|granted| granted.until);
        until.is_some_and(|until| until <= now)
    }
}

pub(super) enum State {
    /// The broker was asked.
    Waiting(Box<Waiting>),
    /// Publications after `offset` are still to come.
    Live { life: u64, offset: u64 },
}

/// What the broker's answer is needed for.
pub(super) struct Waiting {
    pub(super) ticket: u64,
    /// The command to be answered.
    pub(super) command: u32,
    pub(super) recovering: bool,
    /// Whether a subscription that could not recover all is none.
    pub(super) strict: bool,
    /// Of a map: what the client is told beside the answer.
    pub(super) collected: Option<Collected>,
}

//! Channels: their names, who may do what in them, and publishing.

pub(crate) mod entry;
mod kept;
mod publishing;

use kept::damaged;
pub(crate) use kept::{from_json, is_over, kept, to_json};
pub use publishing::Publications;

use crate::{
    Config, JoinLeave, Namespace, Recovery, Slow, Tier, broker,
    config::PERSONAL,
    live::{Keep, Live},
    presence::{self, Announce},
};
use post_office::Address;
use protocol::{
    Code, Problem,
    client::{Publication, Subscribed},
};
use std::{fmt, sync::Arc, time::Duration};
use store::{Kind, Partition, SharedFanout, StreamName};
use traffic_cop::{
    analytics,
    state::{self, DocumentId, tier},
    traces,
};
use types::{Caller, ChannelAction, CredentialKind, Principal, PrincipalKind, TenantId, pattern};

/// Histories of the hot tier.
const KIND: Kind = Kind::new("channel");
/// Histories of the durable tier.
const DURABLE: Kind = Kind::new("channel-durable");
/// How the channels of mailboxes begin.
pub(crate) const MAILBOX: &str = "mailbox:";
/// How the channels begin that tell where documents move.
const TIERS: &str = "tiers:";
/// The entries of channels that are maps.
pub(crate) const MAP: Kind = Kind::new("map");
/// What passes through channels that keep no history.
const PASSING: Kind = Kind::new("passing");
/// The stream of a channel's publications.
pub(crate) const PUBLICATIONS: StreamName = StreamName::new("publications");

/// A channel of a tenant. In order, those of a tenant stand together.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Channel(Arc<Name>);

#[derive(PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Name {
    tenant: TenantId,
    name: Box<str>,
}

impl Channel {
    /// The channel `name` of `tenant`.
    ///
    /// # Errors
    /// `bad_request` unless it is 1 to 255 visible ASCII characters.
    pub(crate) fn new(tenant: &TenantId, name: &str) -> Result<Self, Problem> {
        if name.is_empty() || name.len() > 255 || !name.bytes().all(|b| b.is_ascii_graphic()) {
            let detail = "a channel is 1 to 255 visible ASCII characters";
            return Err(Problem::new(Code::BadRequest, detail));
        }
        Ok(Self::named(tenant, name))
    }

    /// What stands where a channel of this name would, whether or not there can be one.
    pub(crate) fn named(tenant: &TenantId, name: &str) -> Self {
        Self(Arc::new(Name { tenant: tenant.clone(), name: name.into() }))
    }

    pub(crate) fn tenant(&self) -> &TenantId {
        &self.0.tenant
    }

    pub(crate) fn name(&self) -> &str {
        &self.0.name
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.0.tenant, self.0.name)
    }
}

/// Where the publications of a channel come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    /// The fan-out: they pass, and are gone.
    Passing(Partition),
    /// The same where there is no fan-out between nodes: a stream of the last few in this
    /// partition, which nobody recovers from.
    Brief(Partition),
    /// The memory of this node; a stream of this partition where channels are several nodes'.
    Live(Partition, Keep),
    /// A stream of this partition.
    History(Partition, Keep),
    /// The changes of the document in this partition.
    Document(Partition),
    /// The moves of a document between tiers, kept in this partition.
    Lineage(Partition),
    /// The changes of the entries in this partition: a map that is no document.
    Map(Partition),
    /// Those who are subscribed to the channel whose presence this partition holds, as a map.
    Members(Partition, By),
}

/// What the keys of a map of members are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    /// A connection; the channel is named `$clients:` and the one that it is about.
    Client,
    /// A principal, as long as one of its connections is there; `$users:`.
    User,
}

impl By {
    /// What subscriptions to such a map are to.
    pub(crate) fn kind(self) -> Subscribed {
        match self {
            Self::Client => Subscribed::Clients,
            Self::User => Subscribed::Users,
        }
    }
}

impl Source {
    pub(crate) fn stream(&self) -> Option<(&Partition, &'static StreamName)> {
        static PUBLISHED: StreamName = PUBLICATIONS;
        static CHANGED: StreamName = state::CHANGES;
        static MOVED: StreamName = tier::LINEAGE;
        match self {
            Self::Passing(_) | Self::Live(..) | Self::Members(..) => None,
            Self::Brief(partition) | Self::History(partition, _) => Some((partition, &PUBLISHED)),
            Self::Document(partition) | Self::Map(partition) => Some((partition, &CHANGED)),
            Self::Lineage(partition) => Some((partition, &MOVED)),
        }
    }

    /// What its history outlives, as a node has it; `None` if it is no history.
    pub(crate) fn tier(&self) -> Option<Tier> {
        match self {
            Self::Live(..) => Some(Tier::Live),
            Self::History(partition, _) if *partition.kind() == DURABLE => Some(Tier::Durable),
            Self::History(..) => Some(Tier::Hot),
            Self::Passing(_)
            | Self::Brief(_)
            | Self::Document(_)
            | Self::Lineage(_)
            | Self::Map(_)
            | Self::Members(..) => None,
        }
    }

    /// How long after the last publication of its stream all are kept, if not forever.
    pub(crate) fn ttl(&self) -> Option<Duration> {
        match self {
            Self::History(_, keep) => keep.ttl,
            Self::Passing(_)
            | Self::Brief(_)
            | Self::Live(..)
            | Self::Document(_)
            | Self::Lineage(_)
            | Self::Map(_)
            | Self::Members(..) => None,
        }
    }

    /// Whether a client may come back to where it was.
    pub(crate) fn is_recoverable(&self) -> bool {
        match self {
            Self::Passing(_) | Self::Brief(_) | Self::Members(..) => false,
            Self::Live(..)
            | Self::History(..)
            | Self::Document(_)
            | Self::Lineage(_)
            | Self::Map(_) => true,
        }
    }

    /// Where its entries are, if it can be followed as a map.
    pub(crate) fn entries(&self) -> Option<&Partition> {
        match self {
            Self::Document(partition) | Self::Map(partition) => Some(partition),
            Self::Passing(_)
            | Self::Brief(_)
            | Self::Live(..)
            | Self::History(..)
            | Self::Lineage(_)
            | Self::Members(..) => None,
        }
    }

    /// This source as a node has it.
    pub(crate) fn by(self, ways: &Ways) -> Self {
        match (self, ways) {
            (Self::Passing(partition), Ways::Stored) => Self::Brief(partition),
            (Self::Live(partition, keep), Ways::Stored | Ways::FannedOut(_)) => {
                Self::History(partition, keep)
            }
            (source, _) => source,
        }
    }
}

/// How publications that are in no store get to those who are subscribed.
#[derive(Clone)]
pub(crate) enum Ways {
    /// All are at this node, which keeps the histories of the live tier.
    Here(Live),
    /// By a fan-out between nodes.
    FannedOut(SharedFanout),
    /// There is none: by a store after all.
    Stored,
}

/// What a caller wants with a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wish {
    Subscribe,
    Publish,
    History,
    Presence,
}

/// What a caller may use.
#[derive(Debug)]
pub(crate) struct Admitted {
    /// Where publications come from.
    pub(crate) source: Source,
    pub(crate) recovery: Recovery,
    pub(crate) presence: bool,
    /// Whether there is a map of who is subscribed.
    pub(crate) presence_map: bool,
    pub(crate) join_leave: JoinLeave,
    /// Whether publications may be told by what differs from the last.
    pub(crate) delta: bool,
    pub(crate) slow: Slow,
    /// Whether subscribers may choose by tags.
    pub(crate) filter: bool,
    /// Of a map: how long its entries live at most, unless until they are removed.
    pub(crate) entry_ttl: Option<Duration>,
}

impl Admitted {
    /// Nothing beside this source.
    fn to(source: Source) -> Self {
        Self {
            source,
            recovery: Recovery::Stream,
            presence: false,
            presence_map: false,
            join_leave: JoinLeave::Off,
            delta: false,
            slow: Slow::Disconnect,
            filter: false,
            entry_ttl: None,
        }
    }

    /// What is made known of subscribers.
    pub(crate) fn announce(&self) -> Announce {
        let join_leave = self.join_leave != JoinLeave::Off || self.presence_map;
        Announce { presence: self.presence, join_leave }
    }
}

/// Whether the caller's credential allows this in the channel.
fn is_capable(caller: &Caller, channel: &str, wish: Wish) -> bool {
    let action = match wish {
        Wish::Subscribe => ChannelAction::Subscribe,
        Wish::Publish => ChannelAction::Publish,
        Wish::History => ChannelAction::History,
        Wish::Presence => ChannelAction::Presence,
    };
    caller.capabilities.iter().any(|capability| {
        let named = |name: &String| match capability.wildcard {
            true => pattern::is_named(name, channel),
            false => name == channel,
        };
        capability.allow.contains(&action) && capability.channels.iter().any(named)
    })
}

/// The name of a principal's own channel. No id holds a `/`, so that no user's is an agent's.
pub(crate) fn personal(principal: &Principal) -> String {
    match principal.kind {
        PrincipalKind::User => format!("{PERSONAL}{}", principal.id.as_str()),
        kind @ (PrincipalKind::Agent | PrincipalKind::Service) => {
            format!("{PERSONAL}{kind}/{}", principal.id.as_str())
        }
    }
}

/// Whether what holds for the channel of this name is said by a namespace.
pub(crate) fn is_of_namespace(name: &str) -> bool {
    let apart = ["state:", TIERS, MAILBOX, "$clients:", "$users:", traces::CHANNEL];
    name != analytics::CHANNEL && !apart.iter().any(|prefix| name.starts_with(prefix))
}

/// Whether `caller` may do this in `channel`, and what that comes with. `permitted`: whoever
/// speaks for the tenant, by a token, has permitted him what subscribers may.
pub(crate) fn admit(
    config: &Config,
    caller: &Caller,
    channel: &Channel,
    wish: Wish,
    permitted: bool,
) -> Result<Admitted, Problem> {
    let forbidden = |detail: &str| Err(Problem::new(Code::Forbidden, detail));
    let name = channel.name();
    if *channel.tenant() != caller.tenant {
        return forbidden("the channel is another tenant's");
    }
    if let Some(document) = name.strip_prefix("state:") {
        let document: DocumentId = document.parse()?;
        if wish == Wish::Publish {
            return forbidden(
                "a document changes by `state.put`, `state.patch` and `state.delete`",
            );
        }
        let source = document.readable_by(caller).map(Source::Document)?;
        return Ok(Admitted::to(source));
    }
    if let Some(document) = name.strip_prefix(TIERS) {
        let document: DocumentId = document.parse()?;
        if wish == Wish::Publish {
            return forbidden("a document moves by `state.promote` and `state.demote`");
        }
        let partition = tier::lineage_of(&document.readable_by(caller)?);
        return Ok(Admitted::to(Source::Lineage(partition.map_err(broker::problem)?)));
    }
    if let Some(address) = name.strip_prefix(MAILBOX) {
        let partition = match wish {
            Wish::Subscribe | Wish::History => address.parse::<Address>()?.open_to(caller)?,
            Wish::Publish => return forbidden("letters are sent by `mailbox.send`"),
            Wish::Presence => return forbidden("a mailbox tells nobody who reads it"),
        };
        return Ok(Admitted::to(Source::Map(partition)));
    }
    for (prefix, by) in [("$clients:", By::Client), ("$users:", By::User)] {
        let Some(about) = name.strip_prefix(prefix) else { continue };
        if wish != Wish::Subscribe {
            return forbidden("it is made of who is subscribed, and keeps no history");
        }
        let about = Channel::new(channel.tenant(), about)?;
        if !admit(config, caller, &about, Wish::Presence, permitted)?.presence_map {
            let detail = "the namespace keeps no map of who is subscribed";
            return Err(Problem::new(Code::NotFound, detail));
        }
        return Ok(Admitted::to(Source::Members(presence::partition(&about)?, by)));
    }
    if name.starts_with(traces::CHANNEL) {
        // Whatever else permits it: this shows what others say.
        if !caller.is_trusted() || wish != Wish::Subscribe {
            return forbidden("a trace is followed by services and admins");
        }
        return passing(channel).map(Admitted::to);
    }
    if name == analytics::CHANNEL {
        if !caller.is_trusted() || wish != Wish::Subscribe {
            return forbidden("traffic is followed by services and admins");
        }
        return passing(channel).map(Admitted::to);
    }
    let service = caller.principal.kind == PrincipalKind::Service;
    let has_capability = is_capable(caller, name, wish);
    if name.starts_with(PERSONAL)
        && name != personal(&caller.principal)
        && !service
        && !permitted
        && !has_capability
    {
        return forbidden("the channel is somebody else's");
    }
    let Some(namespace) = config.namespace(name) else {
        return Err(Problem::new(Code::NotFound, "the channel's namespace is not configured"));
    };
    let rule = match wish {
        Wish::Subscribe => &namespace.subscribe,
        Wish::History => namespace.read_history.as_ref().unwrap_or(&namespace.subscribe),
        Wish::Presence => namespace.see_presence.as_ref().unwrap_or(&namespace.subscribe),
        Wish::Publish => &namespace.publish,
    };
    let permitted = (permitted && wish != Wish::Publish) || has_capability;
    if !service && !permitted && !rule.allows(caller, name) {
        return forbidden("the namespace does not allow this");
    }
    let nobody = caller.credential == CredentialKind::Anonymous;
    if nobody && !namespace.anonymous && !permitted {
        return forbidden("the namespace is not open to callers without a credential");
    }
    source(&namespace, channel)
}

/// The source of a channel that keeps nothing.
fn passing(channel: &Channel) -> Result<Source, Problem> {
    let partition = Partition::new(channel.tenant().clone(), PASSING, channel.name());
    partition.map(Source::Passing).map_err(broker::problem)
}

fn source(namespace: &Namespace, channel: &Channel) -> Result<Admitted, Problem> {
    let partition = |kind| Partition::new(channel.tenant().clone(), kind, channel.name());
    let keep = Keep { size: namespace.history_size, ttl: namespace.history_ttl };
    let source = match (keep.size, namespace.tier.unwrap_or_default()) {
        _ if namespace.map => partition(MAP).map(Source::Map),
        (0, _) => partition(PASSING).map(Source::Passing),
        (_, Tier::Live) => partition(KIND).map(|partition| Source::Live(partition, keep)),
        (_, Tier::Hot) => partition(KIND).map(|partition| Source::History(partition, keep)),
        (_, Tier::Durable) => partition(DURABLE).map(|partition| Source::History(partition, keep)),
    };
    Ok(Admitted {
        source: source.map_err(broker::problem)?,
        recovery: namespace.recovery,
        presence: namespace.presence || namespace.presence_map,
        presence_map: namespace.presence_map,
        join_leave: namespace.join_leave,
        delta: namespace.delta,
        slow: namespace.slow,
        filter: namespace.filter,
        entry_ttl: namespace.entry_ttl,
    })
}

/// Reads an entry of a channel's source, as its stream tells it.
pub(crate) fn publication(source: &Source, entry: &store::Entry) -> Result<Publication, Problem> {
    match source {
        Source::Document(_) => entry::change(entry),
        Source::Lineage(_) => entry::moved(entry),
        Source::Map(_) => entry::update(entry),
        Source::History(..) => kept(&entry.value, entry.sequence),
        Source::Passing(_) | Source::Brief(_) => kept(&entry.value, 0),
        Source::Live(..) | Source::Members(..) => Err(damaged()),
    }
}

#[cfg(test)]
mod tests;

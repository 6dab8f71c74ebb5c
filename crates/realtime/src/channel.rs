//! Channels: their names, who may do what in them, and publishing.

pub(crate) mod entry;

use crate::{
    Config, JoinLeave, Namespace, Parts, Recovery, Slow, broker,
    config::PERSONAL,
    presence::{self, Announce},
};
use post_office::Address;
use protocol::{
    Code, Problem,
    client::{ClientInfo, Data, Publication, Subscribed, filter::Tags},
};
use serde::{Deserialize, Serialize};
use std::{fmt, sync::Arc};
use store::{Commit, Kind, Partition, SharedFanout, StreamName, Write};
use traffic_cop::{
    genesis::Genesis,
    state::{self, DocumentId, tier},
};
use types::{Caller, ChannelAction, CredentialKind, Principal, PrincipalKind, TenantId, pattern};

const KIND: Kind = Kind::new("channel");
/// How the channels of mailboxes begin.
pub(crate) const MAILBOX: &str = "mailbox:";
/// How the channels begin that tell where documents move.
const TIERS: &str = "tiers:";
/// The entries of channels that are maps.
const MAP: Kind = Kind::new("map");
/// What passes through channels that keep no history.
const PASSING: Kind = Kind::new("passing");
/// Publications that wait in a brief stream for other nodes to see them.
const BRIEF: u64 = 64;
/// The stream of a channel's publications.
pub(crate) const PUBLICATIONS: StreamName = StreamName::new("publications");
const ATTEMPTS: usize = 8;

/// A channel of a tenant.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Channel(Arc<Name>);

#[derive(PartialEq, Eq, Hash)]
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
        Ok(Self(Arc::new(Name { tenant: tenant.clone(), name: name.into() })))
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
    /// A stream of this partition.
    History(Partition),
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
            Self::Passing(_) | Self::Members(..) => None,
            Self::Brief(partition) | Self::History(partition) => Some((partition, &PUBLISHED)),
            Self::Document(partition) | Self::Map(partition) => Some((partition, &CHANGED)),
            Self::Lineage(partition) => Some((partition, &MOVED)),
        }
    }

    /// Whether a client may come back to where it was.
    pub(crate) fn is_recoverable(&self) -> bool {
        match self {
            Self::Passing(_) | Self::Brief(_) | Self::Members(..) => false,
            Self::History(_) | Self::Document(_) | Self::Lineage(_) | Self::Map(_) => true,
        }
    }

    /// Where its entries are, if it can be followed as a map.
    pub(crate) fn entries(&self) -> Option<&Partition> {
        match self {
            Self::Document(partition) | Self::Map(partition) => Some(partition),
            Self::Passing(_)
            | Self::Brief(_)
            | Self::History(_)
            | Self::Lineage(_)
            | Self::Members(..) => None,
        }
    }

    /// This source for a node with or without a fan-out.
    pub(crate) fn by(self, live: Option<&SharedFanout>) -> Self {
        match self {
            Self::Passing(partition) if live.is_none() => Self::Brief(partition),
            Self::Passing(_)
            | Self::Brief(_)
            | Self::History(_)
            | Self::Document(_)
            | Self::Lineage(_)
            | Self::Map(_)
            | Self::Members(..) => self,
        }
    }
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

fn source(namespace: &Namespace, channel: &Channel) -> Result<Admitted, Problem> {
    let partition = |kind| Partition::new(channel.tenant().clone(), kind, channel.name());
    let source = match namespace.history_size {
        _ if namespace.map => partition(MAP).map(Source::Map),
        0 => partition(PASSING).map(Source::Passing),
        _ => partition(KIND).map(Source::History),
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
    })
}

/// A publication as the stream keeps it, behind a version byte.
#[derive(Serialize, Deserialize)]
struct Kept {
    data: Data,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    info: Option<ClientInfo>,
    #[serde(default, skip_serializing_if = "Tags::is_empty")]
    tags: Tags,
}

const VERSION: u8 = 1;

fn damaged() -> Problem {
    Problem::new(Code::Internal, "a stored publication cannot be read")
}

/// Reads a publication as a stream or the fan-out carries it.
pub(crate) fn kept(bytes: &[u8], offset: u64) -> Result<Publication, Problem> {
    let Some((&VERSION, json)) = bytes.split_first() else { return Err(damaged()) };
    let Kept { data, info, tags } = serde_json::from_slice(json).map_err(|_| damaged())?;
    Ok(Publication { data, info, offset, tags, ..Publication::default() })
}

/// Reads an entry of a channel's source, as its stream tells it.
pub(crate) fn publication(source: &Source, entry: &store::Entry) -> Result<Publication, Problem> {
    match source {
        Source::Document(_) => entry::change(entry),
        Source::Lineage(_) => entry::moved(entry),
        Source::Map(_) => entry::update(entry),
        Source::History(_) => kept(&entry.value, entry.sequence),
        Source::Passing(_) | Source::Brief(_) => kept(&entry.value, 0),
        Source::Members(..) => Err(damaged()),
    }
}

/// Publishes to channels, for sockets and for HTTP.
#[derive(Clone)]
pub struct Publications {
    config: Arc<Config>,
    store: store::SharedStore,
    live: Option<SharedFanout>,
    genesis: Genesis,
}

impl Publications {
    pub(crate) fn new(config: &Config, parts: &Parts) -> Self {
        let (store, live, genesis) =
            (parts.store.clone(), parts.live.clone(), parts.genesis.clone());
        Self { config: Arc::new(config.clone()), store, live, genesis }
    }

    /// Publishes `data`, with `tags`, to a channel of the caller's tenant. Returns once it is
    /// durable, if the channel keeps history, and its offset there; 0 if it keeps none, once
    /// every node that can be reached was told.
    ///
    /// # Errors
    /// `forbidden`, `not_found`, `bad_request`, `body_too_large`, or those of the store.
    pub async fn publish(
        &self,
        caller: &Caller,
        channel: &str,
        data: Data,
        tags: Tags,
        client: &str,
    ) -> Result<u64, Problem> {
        check_tags(&tags)?;
        let channel = Channel::new(&caller.tenant, channel)?;
        let source = admit(&self.config, caller, &channel, Wish::Publish, false)?.source;
        let info =
            ClientInfo { user: caller.principal.id.as_str().to_owned(), client: client.to_owned() };
        let kept = Kept { data: one_line(data)?, info: Some(info), tags };
        let mut value = vec![VERSION];
        serde_json::to_writer(&mut value, &kept).expect("a publication is JSON");
        match (source, &self.live) {
            (Source::Passing(topic), Some(live)) => {
                live.publish(&topic.into(), value.into()).await.map_err(broker::problem)?;
                Ok(0)
            }
            (Source::Passing(partition) | Source::Brief(partition), _) => {
                self.append(&partition, value, BRIEF).await?;
                Ok(0)
            }
            (Source::Lineage(_), _) => Err(damaged()),
            (Source::Document(_) | Source::Map(_) | Source::Members(..), _) => {
                let detail = "the channel is a map: publish to one of its keys";
                Err(Problem::new(Code::BadRequest, detail))
            }
            (Source::History(partition), _) => {
                let namespace = self.config.namespace(channel.name()).unwrap_or_default();
                let size = namespace.history_size;
                self.append(&partition, value, size).await
            }
        }
    }

    async fn append(
        &self,
        partition: &Partition,
        value: Vec<u8>,
        history_size: u64,
    ) -> Result<u64, Problem> {
        let stream = &PUBLICATIONS;
        for _ in 0..ATTEMPTS {
            let mut commit = Commit::new(partition.clone());
            match self.store.head(partition).await.map_err(broker::problem)? {
                None => {
                    let begin = self.genesis.begin(partition).await.map_err(broker::problem)?;
                    commit = commit.write(begin);
                }
                Some(head) => {
                    // Trims what has just become too old; the stream may hold a few more than
                    // its size while many publish at once.
                    let last = head.last(stream);
                    if last >= history_size {
                        let first = last + 2 - history_size;
                        commit = commit.write(Write::Trim { stream: stream.clone(), first });
                    }
                }
            }
            match self.store.commit(commit.append(stream.clone(), value.clone())).await {
                Ok(done) => return Ok(done.sequences.first().copied().unwrap_or_default()),
                Err(store::Error::Conflict { .. }) => {} // Somebody else began it.
                Err(error) => return Err(broker::problem(error)),
            }
        }
        Err(Problem::new(Code::Overloaded, "too many publish to the channel at once"))
    }
}

/// Tags of one publication.
const TAGS_MAX: usize = 16;
/// Bytes of a tag's name or value.
const TAG_BYTES_MAX: usize = 256;

fn check_tags(tags: &Tags) -> Result<(), Problem> {
    let long = |text: &String| text.len() > TAG_BYTES_MAX;
    if tags.len() > TAGS_MAX
        || tags.iter().any(|(name, value)| name.is_empty() || long(name) || long(value))
    {
        let detail = "a publication has at most 16 tags, of names and values of up to 256 bytes";
        return Err(Problem::new(Code::BadRequest, detail));
    }
    Ok(())
}

/// JSON without line ends: they separate replies.
fn one_line(data: Data) -> Result<Data, Problem> {
    if !data.get().contains(['\n', '\r']) {
        return Ok(data);
    }
    let value: serde_json::Value = serde_json::from_str(data.get())
        .map_err(|_| Problem::new(Code::BadRequest, "`data` is not JSON"))?;
    serde_json::value::to_raw_value(&value)
        .map_err(|_| Problem::new(Code::Internal, "`data` cannot be written"))
}

#[cfg(test)]
mod tests;

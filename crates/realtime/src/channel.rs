//! Channels: their names, who may do what in them, and publishing.

use crate::{
    Config, Namespace, Parts,
    broker::{self, Broker},
};
use protocol::{
    Code, Problem,
    client::{ClientInfo, Data, Publication},
};
use serde::{Deserialize, Serialize};
use std::{fmt, sync::Arc};
use store::{Commit, Kind, Partition, StreamName, Write};
use traffic_cop::{
    genesis::Genesis,
    state::{self, DocumentId},
};
use types::{Caller, CredentialKind, PrincipalKind, TenantId};

const KIND: Kind = Kind::new("channel");
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
    /// Nowhere: they pass, and are gone.
    Passing,
    /// A stream of this partition.
    History(Partition),
    /// The changes of the document in this partition.
    Document(Partition),
}

impl Source {
    pub(crate) fn stream(&self) -> Option<(&Partition, &'static StreamName)> {
        static PUBLISHED: StreamName = PUBLICATIONS;
        static CHANGED: StreamName = state::CHANGES;
        match self {
            Self::Passing => None,
            Self::History(partition) => Some((partition, &PUBLISHED)),
            Self::Document(partition) => Some((partition, &CHANGED)),
        }
    }
}

/// What a caller wants with a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wish {
    Subscribe,
    Publish,
    History,
}

/// Whether `caller` may do this in `channel`, and where its publications come from.
pub(crate) fn admit(
    config: &Config,
    caller: &Caller,
    channel: &Channel,
    wish: Wish,
) -> Result<Source, Problem> {
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
        return document.readable_by(caller).map(Source::Document);
    }
    let service = caller.principal.kind == PrincipalKind::Service;
    if let Some(user) = name.strip_prefix('#') {
        if wish == Wish::Publish && !service {
            return forbidden("only services publish to a personal channel");
        }
        if user != caller.principal.id.as_str() && !service {
            return forbidden("the channel is another user's");
        }
        return source(&Namespace::default(), channel);
    }
    let Some(namespace) = config.namespace(name) else {
        return Err(Problem::new(Code::NotFound, "the channel's namespace is not configured"));
    };
    let open = match wish {
        Wish::Subscribe | Wish::History => namespace.subscribe,
        Wish::Publish => namespace.publish,
    };
    if !open && !service {
        return forbidden("the namespace does not allow this");
    }
    if caller.credential == CredentialKind::Anonymous && !namespace.anonymous {
        return forbidden("the namespace is not open to callers without a credential");
    }
    source(&namespace, channel)
}

fn source(namespace: &Namespace, channel: &Channel) -> Result<Source, Problem> {
    if namespace.history_size == 0 {
        return Ok(Source::Passing);
    }
    let partition = Partition::new(channel.tenant().clone(), KIND, channel.name());
    partition.map(Source::History).map_err(broker::problem)
}

/// A publication as the stream keeps it, behind a version byte.
#[derive(Serialize, Deserialize)]
struct Kept {
    data: Data,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    info: Option<ClientInfo>,
}

const VERSION: u8 = 1;

/// Reads an entry of a channel's source.
pub(crate) fn publication(source: &Source, entry: &store::Entry) -> Result<Publication, Problem> {
    let damaged = || Problem::new(Code::Internal, "a stored publication cannot be read");
    match source {
        Source::Document(_) => {
            let (change, by) = state::publication(entry)?;
            let data = serde_json::value::to_raw_value(&change).map_err(|_| damaged())?;
            let info = ClientInfo { user: by.as_str().to_owned(), client: String::new() };
            Ok(Publication { data, info: Some(info), offset: entry.sequence })
        }
        Source::History(_) | Source::Passing => {
            let (_, json) = entry.value.split_first().ok_or_else(damaged)?;
            let kept: Kept = serde_json::from_slice(json).map_err(|_| damaged())?;
            Ok(Publication { data: kept.data, info: kept.info, offset: entry.sequence })
        }
    }
}

/// Publishes to channels, for sockets and for HTTP.
#[derive(Clone)]
pub struct Publications {
    config: Arc<Config>,
    store: store::SharedStore,
    genesis: Genesis,
    broker: Broker,
}

impl Publications {
    pub(crate) fn new(config: &Config, parts: &Parts, broker: &Broker) -> Self {
        let (store, genesis) = (parts.store.clone(), parts.genesis);
        Self { config: Arc::new(config.clone()), store, genesis, broker: broker.clone() }
    }

    /// Publishes `data` to a channel of the caller's tenant. Returns once it is durable, if
    /// the channel keeps history, and its offset there; 0 if it keeps none.
    ///
    /// # Errors
    /// `forbidden`, `not_found`, `bad_request`, `body_too_large`, or those of the store.
    pub async fn publish(
        &self,
        caller: &Caller,
        channel: &str,
        data: Data,
        client: &str,
    ) -> Result<u64, Problem> {
        let channel = Channel::new(&caller.tenant, channel)?;
        let source = admit(&self.config, caller, &channel, Wish::Publish)?;
        let info =
            ClientInfo { user: caller.principal.id.as_str().to_owned(), client: client.to_owned() };
        let data = one_line(data)?;
        match source.stream() {
            None => {
                let publication = Publication { data, info: Some(info), offset: 0 };
                self.broker.pass(channel, publication).await?;
                Ok(0)
            }
            Some((partition, stream)) => {
                let kept = Kept { data, info: Some(info) };
                let mut value = vec![VERSION];
                serde_json::to_writer(&mut value, &kept).expect("a publication is JSON");
                let size = self.config.namespace(channel.name()).unwrap_or_default().history_size;
                self.append(partition, stream, value, size).await
            }
        }
    }

    async fn append(
        &self,
        partition: &Partition,
        stream: &StreamName,
        value: Vec<u8>,
        history_size: u64,
    ) -> Result<u64, Problem> {
        for _ in 0..ATTEMPTS {
            let mut commit = Commit::new(partition.clone());
            match self.store.head(partition).await.map_err(broker::problem)? {
                None => commit = commit.write(self.genesis.begin(partition)),
                Some(head) => {
                    // Trims what has just become too old; the stream may hold a few more than
                    // its size while many publish at once.
                    let held = head.streams.iter().find(|held| held.stream == *stream);
                    let last = held.map_or(0, |held| held.last);
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

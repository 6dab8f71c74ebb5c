//! Publishing to channels.

use crate::{
    Config, Parts,
    broker::{self, Broker},
    channel::{
        Channel, PUBLICATIONS, Source, Ways, Wish, admit, damaged, entry, kept::written, passing,
    },
    live::Keep,
};
use clock::SharedClock;
use protocol::{
    Code, Problem,
    client::{ClientInfo, Data, Publication, filter::Tags},
};
use std::{sync::Arc, time::Duration};
use store::{Commit, Partition, Write};
use traffic_cop::{
    genesis::Genesis,
    session::{Trail, What},
    state::{Applied, Operation, SharedStates},
};
use types::{Caller, SessionId};

/// Publications that wait in a brief stream for other nodes to see them.
const BRIEF: Keep = Keep { size: 64, ttl: None };
const ATTEMPTS: usize = 8;

/// Publishes to channels, for sockets and for HTTP. Cheap to clone.
#[derive(Clone)]
pub struct Publications(Arc<Inner>);

struct Inner {
    config: Config,
    store: store::SharedStore,
    ways: Ways,
    genesis: Genesis,
    clock: SharedClock,
    broker: Broker,
    states: SharedStates,
    trail: Trail,
}

/// A publication that its publisher may make.
pub(crate) struct Publishing {
    publications: Publications,
    channel: Channel,
    source: Source,
    publication: Publication,
    /// The session that publishes, if one does.
    session: Option<SessionId>,
}

impl Publications {
    pub(crate) fn new(config: &Config, parts: &Parts, ways: Ways, broker: Broker) -> Self {
        let (config, clock) = (config.clone(), parts.clock.clone());
        let (store, genesis) = (parts.store.clone(), parts.genesis.clone());
        let states = parts.states.clone();
        let trail = parts.sessions.trail().clone();
        Self(Arc::new(Inner { config, store, ways, genesis, clock, broker, states, trail }))
    }

    /// Sets the entry `key` of a map of the caller's tenant, or removes it: what `operation`
    /// says. It lives for `ttl`, if the channel's entries end by themselves, or for as long as
    /// they do.
    ///
    /// # Errors
    /// `forbidden`, `not_found` (also for an entry to be removed that is not there),
    /// `bad_request`, `body_too_large`, or those of the store.
    pub async fn set(
        &self,
        caller: &Caller,
        channel: &str,
        key: &str,
        operation: Operation,
        ttl: Option<Duration>,
    ) -> Result<Applied, Problem> {
        let channel = Channel::new(&caller.tenant, channel)?;
        let map = entry::writable(&self.0.config, caller, &channel)?;
        let ttl = map.ttl(ttl)?;
        self.0.states.apply_in(caller, map.partition, key, operation, None, ttl).await
    }

    /// Publishes `data`, with `tags`, to a channel of the caller's tenant. Returns once it is
    /// kept as the channel's tier has it, and its offset; 0 if the channel keeps no history,
    /// once every node that can be reached was told.
    ///
    /// # Errors
    /// `forbidden`, `not_found`, `bad_request`, `body_too_large`, or those of the store.
    pub async fn publish(
        &self,
        caller: &Caller,
        channel: &str,
        data: Data,
        tags: Tags,
    ) -> Result<u64, Problem> {
        let user = caller.principal.id.as_str().to_owned();
        let by = ClientInfo { user, ..ClientInfo::default() };
        self.prepare(caller, channel, data, tags, by)?.carry_out().await
    }

    /// Passes what the node itself says on to those who are subscribed. It is kept nowhere.
    ///
    /// # Errors
    /// Those of the store or the fan-out.
    pub(crate) async fn pass_on(&self, channel: Channel, data: Data) -> Result<(), Problem> {
        let source = passing(&channel)?.by(&self.0.ways);
        let publication = Publication { data, ..Publication::default() };
        let publications = self.clone();
        let session = None;
        let publishing = Publishing { publications, channel, source, publication, session };
        publishing.carry_out().await.map(drop)
    }

    /// Gives the room of what has passed back, where it passes through a store.
    ///
    /// # Errors
    /// Those of the store.
    pub(crate) async fn clear_passed(&self, channel: &Channel) -> Result<(), Problem> {
        let Source::Brief(partition) = passing(channel)?.by(&self.0.ways) else { return Ok(()) };
        let head = self.0.store.head(&partition).await.map_err(broker::problem)?;
        let Some(head) = head else { return Ok(()) };
        let (stream, first) = (PUBLICATIONS, head.last(&PUBLICATIONS) + 1);
        let commit = Commit::new(partition).write(Write::Trim { stream, first });
        self.0.store.commit(commit).await.map(drop).map_err(broker::problem)
    }

    /// A publication of the caller, `by` whom others see, which is still to be carried out.
    pub(crate) fn prepare(
        &self,
        caller: &Caller,
        channel: &str,
        data: Data,
        tags: Tags,
        by: ClientInfo,
    ) -> Result<Publishing, Problem> {
        check_tags(&tags)?;
        let channel = Channel::new(&caller.tenant, channel)?;
        let source = admit(&self.0.config, caller, &channel, Wish::Publish, false)?.source;
        let info = Some(by);
        let data = one_line(data)?;
        let publication = Publication { data, info, tags, ..Publication::default() };
        let source = source.by(&self.0.ways);
        let session = caller.session;
        Ok(Publishing { publications: self.clone(), channel, source, publication, session })
    }
}

impl Publishing {
    /// Whether it waits for no store.
    pub(crate) fn is_here(&self) -> bool {
        let passes = matches!(self.source, Source::Live(..) | Source::Passing(_));
        passes && matches!(self.publications.0.ways, Ways::Here(_))
    }

    /// The same, by the session that a socket is bound to.
    pub(crate) fn by(self, session: SessionId) -> Self {
        Self { session: Some(session), ..self }
    }

    /// Publishes, and returns the offset; see [`Publications::publish`].
    pub(crate) async fn carry_out(self) -> Result<u64, Problem> {
        let trail = self.publications.0.trail.clone();
        let of = self.session.filter(|_| trail.is_on()).map(|session| {
            (self.channel.tenant().clone(), session, self.channel.name().to_owned())
        });
        let offset = self.carry().await?;
        if let Some((tenant, session, channel)) = of {
            trail.note(&tenant, session, What::Published { channel, offset });
        }
        Ok(offset)
    }

    async fn carry(self) -> Result<u64, Problem> {
        let Self { publications: Publications(inner), channel, source, publication, .. } = self;
        match (source, &inner.ways) {
            (Source::Passing(_), Ways::Here(_)) => {
                inner.broker.published(channel, None, publication).await?;
                Ok(0)
            }
            (Source::Live(_, keep), Ways::Here(live)) => {
                let (epoch, publication) = live.append(&channel, publication, keep);
                let offset = publication.offset;
                inner.broker.published(channel, Some(epoch), publication).await?;
                Ok(offset)
            }
            (Source::Passing(topic), Ways::FannedOut(fanout)) => {
                let message = written(&publication, None).into();
                fanout.publish(&topic.into(), message).await.map_err(broker::problem)?;
                Ok(0)
            }
            (Source::Passing(partition) | Source::Brief(partition), _) => {
                inner.append(&partition, &publication, BRIEF).await?;
                Ok(0)
            }
            // Nobody is admitted to publish there.
            (Source::Lineage(_), _) => Err(damaged()),
            (Source::Document(_) | Source::Map(_) | Source::Members(..), _) => {
                let detail = "the channel is a map: publish to one of its keys";
                Err(Problem::new(Code::BadRequest, detail))
            }
            (Source::Live(partition, keep) | Source::History(partition, keep), _) => {
                inner.append(&partition, &publication, keep).await
            }
        }
    }
}

impl Inner {
    async fn append(
        &self,
        partition: &Partition,
        publication: &Publication,
        keep: Keep,
    ) -> Result<u64, Problem> {
        let stream = &PUBLICATIONS;
        let value = written(publication, keep.ttl.map(|_| self.clock.now()));
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
                    if last >= keep.size {
                        let first = last + 2 - keep.size;
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
mod tests {
    use super::*;

    #[test]
    fn data_is_one_line() {
        let data =
            |text: &str| Data::from(serde_json::value::RawValue::from_string(text.into()).unwrap());
        assert_eq!(one_line(data("{\n\"a\":\r\n 1}")).unwrap().get(), r#"{"a":1}"#);
        assert_eq!(one_line(data(r#"{ "a": "\n" }"#)).unwrap().get(), r#"{ "a": "\n" }"#);
    }
}

//! What a client missed that comes back to a channel: all of it, or nothing.

use super::{Followed, READ, Shard};
use crate::{
    broker::{Recover, Start, problem},
    channel::{self, Channel, Source, Ways, entry},
};
use protocol::{Problem, client::Publication};

impl Shard {
    /// All that the client missed; `None` if that cannot be told.
    pub(super) async fn missed(
        &self,
        channel: &Channel,
        start: &Start,
        known: &Recover,
        map: bool,
    ) -> Result<Option<Vec<Publication>>, Problem> {
        let Some(followed) = self.channels.get(channel) else { return Ok(None) };
        if !followed.source.is_recoverable() {
            return Ok(None);
        }
        let from_start = known.epoch.is_empty() && known.offset == 0;
        let too_far = start.offset.saturating_sub(known.offset) > self.recover_max as u64;
        if (known.epoch != start.epoch && !from_start) || known.offset > start.offset || too_far {
            return Ok(None);
        }
        let (mut missed, mut bytes) = (Vec::new(), 0);
        let mut next = known.offset + 1;
        while next <= start.offset {
            let some = self.entries(channel, followed, next, READ, map).await?;
            // An answer that fits no queue would close the connection, and so again and again.
            let Some(some) = some.filter(|_| bytes <= self.recover_bytes_max) else {
                return Ok(None);
            };
            if some.is_empty() {
                return Ok(None);
            }
            for publication in some.into_iter().take_while(|one| one.offset <= start.offset) {
                if publication.offset != next {
                    return Ok(None);
                }
                bytes += publication.data.get().len();
                missed.push(publication);
                next += 1;
            }
        }
        Ok((bytes <= self.recover_bytes_max).then_some(missed))
    }

    /// The newest publication, unless the client has it; `None` if there is none.
    pub(super) async fn newest(
        &self,
        channel: &Channel,
        start: &Start,
        known: &Recover,
    ) -> Result<Option<Vec<Publication>>, Problem> {
        if known.epoch == start.epoch && known.offset == start.offset {
            return Ok(Some(Vec::new()));
        }
        let Some(followed) = self.channels.get(channel) else { return Ok(None) };
        if !followed.source.is_recoverable() || start.offset == 0 {
            return Ok(None);
        }
        // Where newer ones have taken its place meanwhile, they are on their way as live ones.
        let found = self.entries(channel, followed, start.offset, 1, false).await?;
        let newest = found.into_iter().flatten().find(|one| one.offset == start.offset);
        Ok(newest.map(|publication| vec![publication]))
    }

    /// What a channel that is followed keeps from the offset `from` on, at most so many; `None`
    /// if not all from there on is kept.
    async fn entries(
        &self,
        channel: &Channel,
        followed: &Followed,
        from: u64,
        limit: usize,
        map: bool,
    ) -> Result<Option<Vec<Publication>>, Problem> {
        let source = &followed.source;
        let read = match (source, &self.ways) {
            (Source::Live(..), Ways::Here(live)) => {
                live.read(channel, followed.position.incarnation, from, limit).map(Ok)
            }
            (_, _) => {
                let Some((partition, stream)) = source.stream() else { return Ok(None) };
                if let Some(ttl) = source.ttl() {
                    let (place, now) = ((partition, stream), self.clock.now());
                    let over = channel::is_over(&*self.store, place, followed.last, ttl, now);
                    if over.await.map_err(problem)? {
                        return Ok(None);
                    }
                }
                let read = self.store.read(partition, stream, from, limit).await;
                let told = |entry: &store::Entry| match map {
                    true => entry::update(entry),
                    false => channel::publication(source, entry),
                };
                read.map(|entries| entries.iter().map(told).collect())
            }
        };
        match read {
            Ok(publications) => publications.map(Some),
            Err(store::Error::Trimmed { .. } | store::Error::Lagged { .. }) => Ok(None),
            Err(error) => Err(problem(error)),
        }
    }
}

//! Reading the history of a channel.

use crate::{
    Realtime,
    channel::{self, Channel, Source, Ways},
    live::{Live, Standing},
};
use protocol::{
    Code, Problem,
    client::{HistoryRequest, HistoryResult, Publication},
};
use std::time::Duration;
use store::{Incarnation, Partition, StreamName};

/// Publications that one `history` answers at most.
const HISTORY_MAX: usize = 1_000;

/// Where a history is.
enum Place<'a> {
    Here(&'a Live, &'a Channel),
    /// And how long after the last publication they are kept.
    Stored(&'a Partition, &'static StreamName, Option<Duration>),
}

impl<'a> Place<'a> {
    /// Of a channel with this source, as the node has it; `None` if it keeps none.
    fn of(node: &'a Realtime, channel: &'a Channel, source: &'a Source) -> Option<Self> {
        match (source, &node.ways) {
            (Source::Live(..), Ways::Here(live)) => Some(Self::Here(live, channel)),
            (_, _) => source
                .stream()
                .map(|(partition, stream)| Self::Stored(partition, stream, source.ttl())),
        }
    }
}

/// Where a channel stands; `None` if it keeps no history.
///
/// # Errors
/// Those of the store.
pub(crate) async fn standing(
    node: &Realtime,
    channel: &Channel,
    source: Source,
) -> Result<Option<Standing>, Problem> {
    let source = source.by(&node.ways);
    match Place::of(node, channel, &source) {
        Some(place) => standing_at(node, &place).await.map(Some),
        None => Ok(None),
    }
}

/// Answers a `history`.
///
/// # Errors
/// `not_implemented` if the channel keeps none; `lagged` if it has begun another life than the
/// one that the request knows; those of the store.
pub(super) async fn history(
    node: &Realtime,
    channel: &Channel,
    source: Source,
    request: &HistoryRequest,
) -> Result<HistoryResult, Problem> {
    let source = source.by(&node.ways);
    let none = || Problem::new(Code::NotImplemented, "the channel keeps no history");
    let place = Place::of(node, channel, &source).ok_or_else(none)?;
    let Standing { epoch, first, last } = standing_at(node, &place).await?;
    let told = traffic_cop::state::format_epoch(epoch);
    if let Some(since) = &request.since
        && !since.epoch.is_empty()
        && since.epoch != told
    {
        return Err(another_life());
    }
    let mut publications = Vec::new();
    let limit = usize::try_from(request.limit).unwrap_or(HISTORY_MAX).min(HISTORY_MAX) as u64;
    let since = request.since.as_ref().map(|since| since.offset);
    // The range of offsets, inclusive.
    let (mut next, to) = if request.reverse {
        let to = since.map_or(last, |offset| offset.saturating_sub(1).min(last));
        ((to + 1).saturating_sub(limit).max(first), to)
    } else {
        let from = since.map_or(first, |offset| (offset + 1).max(first));
        (from, last.min(from.saturating_add(limit).saturating_sub(1)))
    };
    while limit > 0 && next <= to {
        let most = usize::try_from(to - next + 1).unwrap_or(HISTORY_MAX);
        let some = read(node, &place, &source, epoch, next, most).await?;
        if some.is_empty() {
            break;
        }
        next += some.len() as u64;
        publications.extend(some);
    }
    if request.reverse {
        publications.reverse();
    }
    Ok(HistoryResult { publications, epoch: told, offset: last })
}

async fn standing_at(node: &Realtime, place: &Place<'_>) -> Result<Standing, Problem> {
    let (partition, stream, ttl) = match place {
        Place::Here(live, channel) => return Ok(live.standing(channel)),
        Place::Stored(partition, stream, ttl) => (partition, stream, ttl),
    };
    let parts = &node.parts;
    let head = parts.store.head(partition).await.map_err(traffic_cop::store_problem)?;
    let epoch = match &head {
        Some(head) => head.position.incarnation,
        None => {
            let beginning = parts.genesis.incarnation(partition).await;
            beginning.map_err(traffic_cop::store_problem)?
        }
    };
    let held = head.iter().flat_map(|head| &head.streams).find(|held| held.stream == **stream);
    let (mut first, last) = held.map_or((1, 0), |held| (held.first, held.last));
    if let Some(ttl) = ttl
        && first <= last
    {
        let (at, now) = ((*partition, *stream), parts.clock.now());
        let over = channel::is_over(&*parts.store, at, last, *ttl, now).await;
        if over.map_err(traffic_cop::store_problem)? {
            first = last + 1;
        }
    }
    Ok(Standing { epoch, first, last })
}

async fn read(
    node: &Realtime,
    place: &Place<'_>,
    source: &Source,
    epoch: Incarnation,
    from: u64,
    limit: usize,
) -> Result<Vec<Publication>, Problem> {
    match place {
        Place::Here(live, channel) => {
            live.read(channel, epoch, from, limit).map_err(|_| another_life())
        }
        Place::Stored(partition, stream, _) => {
            let read = node.parts.store.read(partition, stream, from, limit).await;
            let entries = read.map_err(traffic_cop::store_problem)?;
            entries.iter().map(|entry| channel::publication(source, entry)).collect()
        }
    }
}

fn another_life() -> Problem {
    Problem::new(Code::Lagged, "the channel has begun another life, or goes on too fast")
}

//! Entries of documents and of channels that are maps: as clients see them, and who writes them.

use crate::{
    Config, broker,
    channel::{Channel, Source, Wish, admit, damaged},
};
use protocol::{
    Problem,
    client::{ClientInfo, Data, Publication},
};
use serde::Serialize;
use store::Partition;
use traffic_cop::state::{self, DocumentId, Entry};
use types::{Caller, PrincipalId};

fn data(value: &impl Serialize) -> Result<Data, Problem> {
    serde_json::value::to_raw_value(value).map_err(|_| damaged())
}

fn info(by: &PrincipalId) -> Option<ClientInfo> {
    Some(ClientInfo { user: by.as_str().to_owned(), client: String::new() })
}

/// A change as the stream of a document tells it: with its key and its revision.
pub(super) fn change(entry: &store::Entry) -> Result<Publication, Problem> {
    let (change, by) = state::publication(entry)?;
    let (data, info) = (data(&change)?, info(&by));
    Ok(Publication { data, info, offset: entry.sequence, ..Publication::default() })
}

/// A move of a document to another tier.
pub(super) fn moved(entry: &store::Entry) -> Result<Publication, Problem> {
    let moved = state::tier::lineage(entry)?;
    let (data, info) = (data(&moved)?, moved.by.as_ref().and_then(info));
    Ok(Publication { data, info, offset: entry.sequence, ..Publication::default() })
}

/// The same change as an update of a map: the value is the data.
pub(crate) fn update(entry: &store::Entry) -> Result<Publication, Problem> {
    let (change, by) = state::publication(entry)?;
    Ok(Publication {
        data: data(&change.value)?,
        info: info(&by),
        offset: entry.sequence,
        key: change.key,
        removed: change.deleted,
        ..Publication::default()
    })
}

/// An entry of a page of a map.
pub(crate) fn held(entry: Entry) -> Result<Publication, Problem> {
    Ok(Publication { data: data(&entry.value)?, key: entry.key, ..Publication::default() })
}

/// Where the entries of `channel` are, if `caller` may write them.
pub(crate) fn writable(
    config: &Config,
    caller: &Caller,
    channel: &Channel,
) -> Result<Partition, Problem> {
    if let Some(document) = channel.name().strip_prefix("state:") {
        return document.parse::<DocumentId>()?.writable_by(caller);
    }
    match admit(config, caller, channel, Wish::Publish, false)?.source {
        Source::Map(partition) => Ok(partition),
        Source::Passing(_)
        | Source::Brief(_)
        | Source::Live(..)
        | Source::History(..)
        | Source::Document(_)
        | Source::Lineage(_)
        | Source::Members(..) => Err(broker::no_map()),
    }
}

//! Entries of documents and of channels that are maps: as clients see them, and who writes them.

use crate::{
    Config, broker,
    channel::{Admitted, Channel, Source, Wish, admit, damaged},
};
use protocol::{
    Code, Problem,
    client::{ClientInfo, Data, Publication},
};
use serde::Serialize;
use std::time::Duration;
use store::Partition;
use traffic_cop::state::{self, DocumentId, Entry};
use types::{Caller, PrincipalId};

fn data(value: &impl Serialize) -> Result<Data, Problem> {
    serde_json::value::to_raw_value(value).map_err(|_| damaged())
}

fn info(by: Option<&PrincipalId>) -> Option<ClientInfo> {
    by.map(|by| ClientInfo { user: by.as_str().to_owned(), ..ClientInfo::default() })
}

/// A change as the stream of a document tells it: with its key and its revision.
pub(super) fn change(entry: &store::Entry) -> Result<Publication, Problem> {
    let (change, by) = state::publication(entry)?;
    let (data, info) = (data(&change)?, info(by.as_ref()));
    Ok(Publication { data, info, offset: entry.sequence, ..Publication::default() })
}

/// A move of a document to another tier.
pub(super) fn moved(entry: &store::Entry) -> Result<Publication, Problem> {
    let moved = state::tier::lineage(entry)?;
    let (data, info) = (data(&moved)?, info(moved.by.as_ref()));
    Ok(Publication { data, info, offset: entry.sequence, ..Publication::default() })
}

/// The same change as an update of a map: the value is the data.
pub(crate) fn update(entry: &store::Entry) -> Result<Publication, Problem> {
    let (change, by) = state::publication(entry)?;
    Ok(Publication {
        data: data(&change.value)?,
        info: info(by.as_ref()),
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

/// A map that the caller may write.
pub(crate) struct Writable {
    /// Where its entries are.
    pub(crate) partition: Partition,
    /// How long they live at most, unless until they are removed.
    entry_ttl: Option<Duration>,
}

impl Writable {
    /// How long an entry is to live of which its writer says `wanted`.
    ///
    /// # Errors
    /// `bad_request`, unless the map's entries end, and it is from a second to as long as they live.
    pub(crate) fn ttl(&self, wanted: Option<Duration>) -> Result<Option<Duration>, Problem> {
        let refuse = |detail: String| Err(Problem::new(Code::BadRequest, detail));
        match (wanted, self.entry_ttl) {
            (None, most) => Ok(most),
            (Some(_), None) => refuse("entries of the channel live until they are removed".into()),
            (Some(wanted), Some(most)) if !(Duration::from_secs(1)..=most).contains(&wanted) => {
                refuse(format!("`ttl` is 1s to {}", types::duration::format(most)))
            }
            (Some(_), Some(_)) => Ok(wanted),
        }
    }
}

/// The map `channel`, if `caller` may write its entries.
pub(crate) fn writable(
    config: &Config,
    caller: &Caller,
    channel: &Channel,
) -> Result<Writable, Problem> {
    if let Some(document) = channel.name().strip_prefix("state:") {
        let partition = document.parse::<DocumentId>()?.writable_by(caller)?;
        return Ok(Writable { partition, entry_ttl: None });
    }
    let Admitted { source, entry_ttl, .. } = admit(config, caller, channel, Wish::Publish, false)?;
    match source {
        Source::Map(partition) => Ok(Writable { partition, entry_ttl }),
        Source::Passing(_)
        | Source::Brief(_)
        | Source::Live(..)
        | Source::History(..)
        | Source::Document(_)
        | Source::Lineage(_)
        | Source::Members(..) => Err(broker::no_map()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use store::Kind;
    use types::TenantId;

    #[test]
    fn whoever_writes_an_entry_may_say_less_and_not_more() {
        let seconds = Duration::from_secs;
        let check = |most: Option<u64>, wanted: Option<u64>, expected: Option<Option<u64>>| {
            let tenant = TenantId::new("acme").unwrap();
            let partition = Partition::new(tenant, Kind::new("map"), "board:1").unwrap();
            let map = Writable { partition, entry_ttl: most.map(seconds) };
            let ttl = map.ttl(wanted.map(seconds)).ok();
            assert_eq!(ttl, expected.map(|ttl| ttl.map(seconds)), "{wanted:?} of {most:?}");
        };
        check(None, None, Some(None));
        check(None, Some(5), None);
        check(Some(10), None, Some(Some(10)));
        check(Some(10), Some(10), Some(Some(10)));
        check(Some(10), Some(1), Some(Some(1)));
        check(Some(10), Some(11), None);
        check(Some(10), Some(0), None);
    }
}

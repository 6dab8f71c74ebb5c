//! Publications as streams, the fan-out and the parked histories carry them.

use protocol::{
    Code, Problem,
    client::{ClientInfo, Data, Publication, filter::Tags},
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::{borrow::Cow, time::Duration};
use store::{Error, Partition, Store, StreamName};
use types::Timestamp;

/// What is kept of a publication: all but its offset.
#[derive(Serialize, Deserialize)]
struct Kept<'a> {
    data: Cow<'a, RawValue>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    info: Option<Cow<'a, ClientInfo>>,
    #[serde(default, skip_serializing_if = "no_tags")]
    tags: Cow<'a, Tags>,
    /// When it was published, in streams that are kept for a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    at: Option<Timestamp>,
}

fn no_tags(tags: &Tags) -> bool {
    tags.is_empty()
}

/// The version of the form, which streams and the fan-out put before it.
const VERSION: u8 = 1;

pub(super) fn damaged() -> Problem {
    Problem::new(Code::Internal, "a stored publication cannot be read")
}

impl<'a> Kept<'a> {
    fn of(publication: &'a Publication) -> Self {
        Self {
            data: Cow::Borrowed(&publication.data),
            info: publication.info.as_ref().map(Cow::Borrowed),
            tags: Cow::Borrowed(&publication.tags),
            at: None,
        }
    }
}

/// A publication as a stream or the fan-out carries it; `at` if it is kept for a time.
pub(super) fn written(publication: &Publication, at: Option<Timestamp>) -> Vec<u8> {
    let mut bytes = vec![VERSION];
    let kept = Kept { at, ..Kept::of(publication) };
    serde_json::to_writer(&mut bytes, &kept).expect("a publication is JSON");
    bytes
}

/// Reads a publication as a stream or the fan-out carries it.
pub(crate) fn kept(bytes: &[u8], offset: u64) -> Result<Publication, Problem> {
    let Some((&VERSION, json)) = bytes.split_first() else { return Err(damaged()) };
    from_json(json, offset)
}

/// A publication as JSON.
pub(crate) fn to_json(publication: &Publication) -> Box<RawValue> {
    serde_json::value::to_raw_value(&Kept::of(publication)).expect("a publication is JSON")
}

/// Reads a publication.
pub(crate) fn from_json(json: &[u8], offset: u64) -> Result<Publication, Problem> {
    let Kept { data, info, tags, .. } = serde_json::from_slice(json).map_err(|_| damaged())?;
    let data: Data = data.into_owned();
    let (info, tags) = (info.map(Cow::into_owned), tags.into_owned());
    Ok(Publication { data, info, offset, tags, ..Publication::default() })
}

/// Whether the last publication of a stream, `last`, is so old that none of it is kept any more.
///
/// # Errors
/// Those of the store.
pub(crate) async fn is_over(
    store: &dyn Store,
    (partition, stream): (&Partition, &StreamName),
    last: u64,
    ttl: Duration,
    now: Timestamp,
) -> Result<bool, Error> {
    #[derive(Deserialize)]
    struct Dated {
        at: Option<Timestamp>,
    }
    let entries = store.read(partition, stream, last, 1).await?;
    let dated = entries.first().and_then(|entry| {
        let (_, json) = entry.value.split_first()?;
        serde_json::from_slice::<Dated>(json).ok()
    });
    Ok(dated.and_then(|dated| dated.at).is_some_and(|at| at.plus(ttl) <= now))
}

//! What rows mean.

use crate::{batch::Remembered, error::read_error, number, server::Life};
use bytes::Bytes;
use store::{
    CommitId, Committed, Error, Incarnation, Key, Kind, Partition, Position, StreamName,
    rules::{Meta, Span},
};
use tokio_postgres::{Row, types::FromSql};
use types::{TenantId, Timestamp};

/// A column's value.
pub(crate) fn get<'a, T: FromSql<'a>>(row: &'a Row, name: &str) -> Result<T, Error> {
    row.try_get(name).map_err(read_error)
}

/// A column that counts.
pub(crate) fn count(row: &Row, name: &str) -> Result<u64, Error> {
    get(row, name).map(number::unsigned)
}

/// A column that tells a time, if any.
pub(crate) fn time(row: &Row, name: &str) -> Result<Option<Timestamp>, Error> {
    Ok(get::<Option<i64>>(row, name)?.map(|at| Timestamp(number::unsigned(at))))
}

/// Where the row belongs, of a list that counts from `base`.
pub(crate) fn place(row: &Row, base: i64) -> Result<usize, Error> {
    let place: i64 = get(row, "place")?;
    usize::try_from(place - base).map_err(|_| Error::corrupt("a place below the first"))
}

/// A partition without its contents; `None` if it does not exist.
pub(crate) fn meta(row: &Row, life: &Life) -> Result<Option<Meta>, Error> {
    let Some(revision) = get::<Option<i64>>(row, "revision")?.filter(|revision| *revision > 0)
    else {
        return Ok(None);
    };
    let incarnation = life.incarnation(get(row, "life")?, get(row, "incarnation")?);
    let mut meta = Meta::at(Position { incarnation, revision: number::unsigned(revision) });
    meta.fence = number::from_bits(get(row, "fence")?);
    meta.wake = time(row, "wake")?;
    meta.bytes = count(row, "bytes")?;
    meta.known_from = count(row, "known_from")?;
    let streams: &str = get(row, "streams")?;
    let streams: Vec<(String, u64, u64)> = serde_json::from_str(streams)
        .map_err(|error| Error::corrupt(format!("the streams of a partition: {error}")))?;
    for (name, first, last) in streams {
        meta.streams.insert(StreamName::parse(&name)?, Span { first, last });
    }
    Ok(Some(meta))
}

/// A key.
pub(crate) fn key(row: &Row) -> Result<Key, Error> {
    Key::new(get::<&[u8]>(row, "key")?)
}

/// The length of a record's value; `None` for a deletion.
pub(crate) fn size(row: &Row) -> Result<Option<usize>, Error> {
    Ok(get::<Option<i32>>(row, "size")?.and_then(|size| usize::try_from(size).ok()))
}

/// A value.
pub(crate) fn value(row: &Row) -> Result<Option<Bytes>, Error> {
    Ok(get::<Option<&[u8]>>(row, "value")?.map(Bytes::copy_from_slice))
}

/// A commit's id and the reply it is remembered by.
pub(crate) fn remembered(row: &Row) -> Result<(CommitId, Remembered), Error> {
    let damaged = || Error::corrupt("a commit's id");
    let id = get::<&[u8]>(row, "commit_id")?.try_into().map_err(|_| damaged())?;
    let digest = get::<&[u8]>(row, "digest")?.try_into().map_err(|_| damaged())?;
    let incarnation = Incarnation(number::from_bits(get(row, "incarnation")?));
    let position = Position { incarnation, revision: count(row, "revision")? };
    let sequences = get::<Vec<i64>>(row, "sequences")?.into_iter().map(number::unsigned).collect();
    let known = Remembered {
        digest: u128::from_be_bytes(digest),
        at: Timestamp(count(row, "at")?),
        reply: Committed { position, sequences },
    };
    Ok((CommitId(id), known))
}

/// The text of a partition's id.
pub(crate) fn id(row: &Row) -> Result<&str, Error> {
    std::str::from_utf8(get(row, "id")?).map_err(|_| Error::corrupt("a partition's id"))
}

/// A partition's name.
pub(crate) fn partition(row: &Row) -> Result<Partition, Error> {
    let tenant: &str = get(row, "tenant")?;
    let tenant = match TenantId::new(tenant) {
        Ok(tenant) => tenant,
        Err(_) if tenant == TenantId::system().as_str() => TenantId::system(),
        Err(error) => return Err(Error::corrupt(error.to_string())),
    };
    Partition::new(tenant, Kind::parse(get(row, "kind")?)?, id(row)?)
}

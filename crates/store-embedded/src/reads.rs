//! Reads, each on one snapshot, on the thread of the caller.

use crate::{folder::Folder, keys, values};
use bytes::Bytes;
use fjall::{Readable, Snapshot};
use store::{
    Bucket, Change, Changes, Entry, Error, Key, Kind, Partition, PartitionPage, Position, Record,
    ScanPage, StreamName,
    bounds::{DELETION_KEPT, PAGE_BYTES_MAX},
    rules::{self, Meta, Stored},
};
use types::{TenantId, Timestamp};

/// What the engine's error means to a caller.
pub(crate) fn engine_error(error: fjall::Error) -> Error {
    if let fjall::Error::Storage(inner) = &error
        && !matches!(inner, fjall::LsmError::Io(_))
    {
        return Error::corrupt(format!("a table: {inner}"));
    }
    Error::unavailable(error)
}

/// The folder at one moment.
pub(crate) struct Reads<'a> {
    folder: &'a Folder,
    snapshot: Snapshot,
    now: Timestamp,
}

impl<'a> Reads<'a> {
    pub(crate) fn new(folder: &'a Folder, now: Timestamp) -> Self {
        Self { folder, snapshot: folder.db.snapshot(), now }
    }

    fn value<T>(
        &self,
        key: &[u8],
        parse: impl FnOnce(&[u8], &[u8]) -> Result<T, Error>,
    ) -> Result<Option<T>, Error> {
        let value = self.snapshot.get(&self.folder.data, key).map_err(engine_error)?;
        value.map(|value| parse(key, &value)).transpose()
    }

    fn range(
        &self,
        from: Vec<u8>,
        until: Vec<u8>,
    ) -> impl Iterator<Item = Result<(fjall::UserKey, fjall::UserValue), Error>> + use<> {
        let found = (from < until).then(|| self.snapshot.range(&self.folder.data, from..until));
        found.into_iter().flatten().map(|guard| guard.into_inner().map_err(engine_error))
    }

    pub(crate) fn last_time(&self) -> Result<Timestamp, Error> {
        let time = self.value(keys::TIME, |key, value| values::open(key, value)?.time())?;
        Ok(time.flatten().unwrap_or_default())
    }

    pub(crate) fn meta(&self, partition: &Partition) -> Result<Option<Meta>, Error> {
        self.value(&keys::meta(partition), values::read_meta)
    }

    pub(crate) fn get(&self, partition: &Partition, key: &Key) -> Result<Option<Record>, Error> {
        self.record(partition, key.as_bytes())
    }

    fn record(&self, partition: &Partition, key: &[u8]) -> Result<Option<Record>, Error> {
        let stored = self.value(&keys::record(partition, key), values::read_record)?;
        Ok(stored.filter(|stored| stored.is_live(self.now)).map(told))
    }

    pub(crate) fn scan(
        &self,
        partition: &Partition,
        prefix: &[u8],
        after: Option<&Key>,
        limit: usize,
    ) -> Result<ScanPage, Error> {
        let position = rules::standing(self.meta(partition)?.as_ref());
        let mut page = ScanPage { position, records: Vec::new(), more: false };
        let whole = keys::record(partition, b"");
        let first = keys::record(partition, prefix);
        let from =
            match after.map(|after| keys::record(partition, &[after.as_bytes(), &[0]].concat())) {
                Some(after) if after > first => after,
                Some(_) | None => first.clone(),
            };
        let mut bytes = 0;
        for found in self.range(from, keys::after(first)) {
            let (place, value) = found?;
            let stored = values::read_record(&place, &value)?;
            if !stored.is_live(self.now) {
                continue;
            }
            let key = place.get(whole.len()..).unwrap_or_default();
            bytes += key.len() + stored.value.len();
            if page.records.len() >= limit || (bytes > PAGE_BYTES_MAX && !page.records.is_empty()) {
                page.more = true;
                break;
            }
            page.records.push((Key::new(key)?, told(stored)));
        }
        Ok(page)
    }

    pub(crate) fn read(
        &self,
        partition: &Partition,
        stream: &StreamName,
        from: u64,
        limit: usize,
    ) -> Result<Vec<Entry>, Error> {
        // Sequences count from 1, so 0 asks for the first as well.
        let from = from.max(1);
        let span = rules::check_from(self.meta(partition)?.as_ref(), stream, from)?;
        let mut page: Vec<Entry> = Vec::new();
        let mut bytes = 0;
        let until = keys::after(keys::stream(partition, stream));
        let found = self.range(keys::entry(partition, stream, from), until);
        for (found, sequence) in found.zip(from..=span.last).take(limit) {
            let (place, value) = found?;
            if place != keys::entry(partition, stream, sequence) {
                let stream = stream.as_str();
                return Err(Error::corrupt(format!(
                    "no entry {sequence} of {stream} of {partition}"
                )));
            }
            let entry = values::read_entry(&place, &value, sequence)?;
            bytes += entry.value.len();
            if bytes > PAGE_BYTES_MAX && !page.is_empty() {
                break;
            }
            page.push(entry);
        }
        if page.is_empty() && limit > 0 && from <= span.last {
            let stream = stream.as_str();
            return Err(Error::corrupt(format!("no entry {from} of {stream} of {partition}")));
        }
        Ok(page)
    }

    pub(crate) fn changes(&self, partition: &Partition, since: Position) -> Result<Changes, Error> {
        let meta = self.meta(partition)?;
        rules::check_since(meta.as_ref(), since)?;
        let position = rules::standing(meta.as_ref());
        let streams = meta.as_ref().map(Meta::stream_heads).unwrap_or_default();
        let mut keys_told = Vec::new();
        let whole = keys::changes(partition);
        let from = keys::change(partition, since.revision + 1, b"");
        for found in self.range(from, keys::after(whole.clone())) {
            let (place, value) = found?;
            let deleted_at = values::open(&place, &value)?.time()?;
            let rest = place.get(whole.len()..).unwrap_or_default();
            let (revision, key) = rest
                .split_first_chunk()
                .ok_or_else(|| Error::corrupt(format!("a change of {partition}")))?;
            let value = match deleted_at {
                Some(at) if !rules::is_kept(at, DELETION_KEPT, self.now) => {
                    if since == Position::ZERO {
                        continue;
                    }
                    return Err(Error::Lagged { position });
                }
                Some(_) => None,
                None => self.record(partition, key)?.map(|record| record.value),
            };
            let revision = u64::from_be_bytes(*revision);
            keys_told.push(Change { key: Key::new(key)?, revision, value });
        }
        Ok(Changes { position, keys: keys_told, streams })
    }

    /// Index entries of `what` in `bucket` whose time has come.
    fn timed(
        &self,
        what: u8,
        bucket: Bucket,
    ) -> impl Iterator<Item = Result<(Partition, Bytes), Error>> + use<> {
        let first = keys::timed(what, bucket);
        let until = [&first[..], &self.now.0.saturating_add(1).to_be_bytes()].concat();
        self.range(first, until).map(|found| {
            let (place, _) = found?;
            let (_, partition, rest) = keys::parse_timed(&place)?;
            Ok((partition, Bytes::copy_from_slice(rest)))
        })
    }

    pub(crate) fn due(&self, bucket: Bucket, limit: usize) -> Result<Vec<Partition>, Error> {
        self.timed(b'W', bucket).take(limit).map(|found| Ok(found?.0)).collect()
    }

    pub(crate) fn expired(
        &self,
        bucket: Bucket,
        limit: usize,
    ) -> Result<Vec<(Partition, Key)>, Error> {
        let found = self.timed(b'E', bucket).take(limit);
        found
            .map(|found| found.and_then(|(partition, key)| Ok((partition, Key::new(key)?))))
            .collect()
    }

    pub(crate) fn list(
        &self,
        tenant: &TenantId,
        kind: &Kind,
        after: Option<&str>,
        limit: usize,
    ) -> Result<PartitionPage, Error> {
        let whole = keys::listed(tenant, kind, "");
        let from = match after {
            Some(after) => [&keys::listed(tenant, kind, after)[..], &[0]].concat(),
            None => whole.clone(),
        };
        let mut page = PartitionPage { partitions: Vec::new(), more: false };
        for found in self.range(from, keys::after(whole.clone())) {
            let (place, _) = found?;
            if page.partitions.len() >= limit {
                page.more = true;
                break;
            }
            let id = place.get(whole.len()..).and_then(|id| std::str::from_utf8(id).ok());
            let id = id.ok_or_else(|| Error::corrupt("the list of partitions"))?;
            page.partitions.push(Partition::new(tenant.clone(), kind.clone(), id)?);
        }
        Ok(page)
    }
}

fn told(stored: Stored) -> Record {
    Record { value: stored.value, revision: stored.revision }
}

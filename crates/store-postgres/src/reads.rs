//! Reads: one statement each, so one snapshot.

use crate::{engine::Engine, number, pool::Param, rows, server::Life};
use std::sync::Arc;
use store::{
    Bucket, Change, Changes, Entry, Error, Key, Kind, Partition, PartitionPage, Position, Record,
    ScanPage, StreamName,
    bounds::{DELETION_KEPT, PAGE_BYTES_MAX},
    rules::{self, Meta},
};
use tokio_postgres::{Row, types::Type};
use types::{TenantId, Timestamp};

/// Rows of one page at most, so that tiny records do not make a huge answer.
const PAGE_ROWS_MAX: usize = 65_536;
/// How often a server may turn out to be another one while it is asked.
const SERVERS_MAX: usize = 3;

/// A partition at one moment, and the rows that came with it.
struct Found {
    meta: Option<Meta>,
    now: Timestamp,
    rows: Vec<Row>,
}

impl Engine {
    /// Asks for a partition's head and what else the statement adds to it: rows that have a
    /// value in the column `tag`.
    async fn find(
        &self,
        sql: &str,
        tag: Option<&str>,
        partition: &Partition,
        more: &[Param<'_>],
    ) -> Result<Found, Error> {
        let (tenant, kind) = (partition.tenant().as_str(), partition.kind().as_str());
        let id = partition.id().as_bytes();
        for _ in 0..SERVERS_MAX {
            let time = self.time.param();
            let mut params: Vec<Param<'_>> = vec![
                (&time, Type::INT8),
                (&tenant, Type::TEXT),
                (&kind, Type::TEXT),
                (&id, Type::BYTEA),
            ];
            params.extend_from_slice(more);
            let life: Arc<Life> = self.lives.known();
            let mut rows = self.pool.read(sql, &params).await?;
            let is_head = |row: &Row| match tag {
                None => true,
                Some(_) => matches!(row.try_get::<_, Option<i64>>("now"), Ok(Some(_))),
            };
            let head = rows.iter().position(is_head);
            let head = rows.remove(head.ok_or_else(|| Error::corrupt("an answer without a head"))?);
            if life.is_of(rows::get(&head, "fingerprint")?) {
                let now = self.time.seen(rows::get(&head, "now")?);
                return Ok(Found { meta: rows::meta(&head, &life)?, now, rows });
            }
            self.lives.renew_after(&life, &self.connector).await.map_err(Error::unavailable)?;
        }
        Err(Error::unavailable("the server changes again and again"))
    }

    pub(crate) async fn meta(&self, partition: &Partition) -> Result<Option<Meta>, Error> {
        Ok(self.find(&self.sql.head, None, partition, &[]).await?.meta)
    }

    pub(crate) async fn get(
        &self,
        partition: &Partition,
        key: &Key,
    ) -> Result<Option<Record>, Error> {
        let (tenant, kind) = (partition.tenant().as_str(), partition.kind().as_str());
        let (id, key, time) = (partition.id().as_bytes(), key.as_bytes(), self.time.param());
        let params: [Param<'_>; 5] = [
            (&time, Type::INT8),
            (&tenant, Type::TEXT),
            (&kind, Type::TEXT),
            (&id, Type::BYTEA),
            (&key, Type::BYTEA),
        ];
        let rows = self.pool.read(&self.sql.get, &params).await?;
        rows.first().map(|row| record(row, "revision")).transpose()
    }

    pub(crate) async fn scan(
        &self,
        partition: &Partition,
        prefix: &[u8],
        after: Option<&Key>,
        limit: usize,
    ) -> Result<ScanPage, Error> {
        let next = after.map(|after| [after.as_bytes(), &[0]].concat()).unwrap_or_default();
        let from = prefix.max(next.as_slice());
        let until = successor(prefix);
        let limit = limit.min(PAGE_ROWS_MAX);
        // One more tells whether there is more.
        let (rows_max, bytes_max) = (signed(limit) + 1, signed(PAGE_BYTES_MAX));
        let more: [Param<'_>; 4] = [
            (&from, Type::BYTEA),
            (&until, Type::BYTEA),
            (&rows_max, Type::INT8),
            (&bytes_max, Type::INT8),
        ];
        let found = self.find(&self.sql.scan, Some("key"), partition, &more).await?;
        let position = rules::standing(found.meta.as_ref());
        let mut records = Vec::with_capacity(found.rows.len());
        for row in &found.rows {
            records.push((rows::key(row)?, record(row, "written")?));
        }
        records.sort_by(|(a, _), (b, _)| a.cmp(b));
        let mut bytes = 0;
        let fits = records.iter().take(limit).enumerate().take_while(|(at, (key, record))| {
            bytes += key.as_bytes().len() + record.value.len();
            *at == 0 || bytes <= PAGE_BYTES_MAX
        });
        let fitting = fits.count();
        let more = fitting < records.len();
        records.truncate(fitting);
        Ok(ScanPage { position, records, more })
    }

    pub(crate) async fn read(
        &self,
        partition: &Partition,
        stream: &StreamName,
        from: u64,
        limit: usize,
    ) -> Result<Vec<Entry>, Error> {
        // Sequences count from 1, so 0 asks for the first as well.
        let from = from.max(1);
        let (name, first) = (stream.as_str(), number::signed(from));
        let limit = limit.min(PAGE_ROWS_MAX);
        let (rows_max, bytes_max) = (signed(limit), signed(PAGE_BYTES_MAX));
        let more: [Param<'_>; 4] = [
            (&name, Type::TEXT),
            (&first, Type::INT8),
            (&rows_max, Type::INT8),
            (&bytes_max, Type::INT8),
        ];
        let found = self.find(&self.sql.read, Some("sequence"), partition, &more).await?;
        let span = rules::check_from(found.meta.as_ref(), stream, from)?;
        let mut page: Vec<Entry> = Vec::with_capacity(found.rows.len());
        for row in &found.rows {
            let sequence = rows::count(row, "sequence")?;
            let value = rows::value(row)?.unwrap_or_default();
            page.push(Entry { sequence, revision: rows::count(row, "written")?, value });
        }
        page.sort_by_key(|entry| entry.sequence);
        let is_dense = page.iter().map(|entry| entry.sequence).eq((from..).take(page.len()));
        if !is_dense || (page.is_empty() && limit > 0 && from <= span.last) {
            let stream = stream.as_str();
            let detail = format!("entries from {from} of {stream} of {partition} are missing");
            return Err(Error::corrupt(detail));
        }
        let mut bytes = 0;
        let fits = page.iter().enumerate().take_while(|(at, entry)| {
            bytes += entry.value.len();
            *at == 0 || bytes <= PAGE_BYTES_MAX
        });
        let fitting = fits.count();
        page.truncate(fitting);
        Ok(page)
    }

    pub(crate) async fn changes(
        &self,
        partition: &Partition,
        since: Position,
    ) -> Result<Changes, Error> {
        let revision = number::signed(since.revision);
        let more: [Param<'_>; 1] = [(&revision, Type::INT8)];
        let found = self.find(&self.sql.changes, Some("key"), partition, &more).await?;
        let Found { meta, now, rows } = found;
        rules::check_since(meta.as_ref(), since)?;
        let position = rules::standing(meta.as_ref());
        let mut keys = Vec::with_capacity(rows.len());
        for row in &rows {
            let deleted_at = rows::time(row, "deleted_at")?;
            if deleted_at.is_some_and(|at| !rules::is_kept(at, DELETION_KEPT, now)) {
                if since == Position::ZERO {
                    continue;
                }
                return Err(Error::Lagged { position });
            }
            let (key, revision) = (rows::key(row)?, rows::count(row, "written")?);
            keys.push(Change { key, revision, value: rows::value(row)? });
        }
        keys.sort_by(|a, b| (a.revision, &a.key).cmp(&(b.revision, &b.key)));
        let streams = meta.as_ref().map(Meta::stream_heads).unwrap_or_default();
        Ok(Changes { position, keys, streams })
    }

    pub(crate) async fn due(&self, bucket: Bucket, limit: usize) -> Result<Vec<Partition>, Error> {
        let rows = self.of_bucket(&self.sql.due, bucket, limit).await?;
        rows.iter().map(rows::partition).collect()
    }

    /// Records that have expired.
    pub(crate) async fn expired(
        &self,
        bucket: Bucket,
        limit: usize,
    ) -> Result<Vec<(Partition, Key)>, Error> {
        let rows = self.of_bucket(&self.sql.expired, bucket, limit).await?;
        rows.iter().map(|row| Ok((rows::partition(row)?, rows::key(row)?))).collect()
    }

    async fn of_bucket(&self, sql: &str, bucket: Bucket, limit: usize) -> Result<Vec<Row>, Error> {
        let (time, limit) = (self.time.param(), signed(limit));
        let bucket = i16::try_from(bucket.0).unwrap_or(i16::MAX);
        let params: [Param<'_>; 3] =
            [(&time, Type::INT8), (&bucket, Type::INT2), (&limit, Type::INT8)];
        self.pool.read(sql, &params).await
    }

    pub(crate) async fn list(
        &self,
        tenant: &TenantId,
        kind: &Kind,
        after: Option<&str>,
        limit: usize,
    ) -> Result<PartitionPage, Error> {
        let limit = limit.min(PAGE_ROWS_MAX);
        let (name, kind_name, after) = (tenant.as_str(), kind.as_str(), after.map(str::as_bytes));
        let rows_max = signed(limit) + 1;
        let params: [Param<'_>; 4] = [
            (&name, Type::TEXT),
            (&kind_name, Type::TEXT),
            (&after, Type::BYTEA),
            (&rows_max, Type::INT8),
        ];
        let rows = self.pool.read(&self.sql.list, &params).await?;
        let found = rows.iter().take(limit);
        let partitions =
            found.map(|row| Partition::new(tenant.clone(), kind.clone(), rows::id(row)?));
        Ok(PartitionPage {
            partitions: partitions.collect::<Result<_, Error>>()?,
            more: rows.len() > limit,
        })
    }
}

fn record(row: &Row, revision: &str) -> Result<Record, Error> {
    let value = rows::value(row)?.unwrap_or_default();
    Ok(Record { value, revision: rows::count(row, revision)? })
}

fn signed(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The first key after all that start with `prefix`; `None` if there is none.
fn successor(prefix: &[u8]) -> Option<Vec<u8>> {
    let end = prefix.iter().rposition(|byte| *byte != 0xff)?;
    let mut next = prefix.get(..=end)?.to_vec();
    *next.last_mut()? += 1;
    Some(next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_successor_follows_all_that_start_alike() {
        let of = |prefix: &[u8]| successor(prefix);
        assert_eq!(of(b"a/"), Some(b"a0".to_vec()));
        assert_eq!(of(&[1, 0xff]), Some(vec![2]));
        assert_eq!(of(&[0xff, 0xff]), None);
        assert_eq!(of(b""), None);
    }
}

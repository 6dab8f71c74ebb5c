//! One batch as one transaction, in two round trips: lock and load; write and COMMIT.

use crate::{
    batch::{Change, Done, Work, Working},
    columns::{Columns, Entries, Heads, Ids, Later, Records, Trims},
    connection::Connection,
    error::Failure,
    pool::Param,
    rows,
    server::Life,
    sql::Sql,
    time::StoreTime,
};
use clock::Clock;
use futures_util::future::join_all;
use std::{
    collections::{BTreeMap, HashSet},
    time::Duration,
};
use store::{CommitId, Error, Incarnation, Key, Partition};
use tokio_postgres::{Client, Row, types::Type};
use types::Timestamp;

/// Entries of one trim that are deleted with its commit; the rest follows later.
const TRIM_AT_ONCE: u64 = 10_000;

/// What a batch is done with.
pub(crate) struct Transaction<'a> {
    pub(crate) connection: &'a Connection,
    pub(crate) sql: &'a Sql,
    pub(crate) begin: &'a str,
    pub(crate) time: &'a StoreTime,
    pub(crate) life: &'a Life,
    pub(crate) clock: &'a dyn Clock,
    pub(crate) answer_max: Duration,
}

/// What came of a batch.
pub(crate) struct Outcome {
    pub(crate) answers: Vec<Result<Done, Error>>,
    pub(crate) changed: Vec<Partition>,
}

/// Partitions by name, which is the order that all transactions lock in, with their places.
type Places<'w> = BTreeMap<&'w Partition, usize>;

impl Transaction<'_> {
    /// Does all of `works`: each, or refuses it. Partitions in `known` are taken to exist;
    /// those that are written are added. After a failure the connection must not be used.
    pub(crate) async fn run(
        &self,
        works: &[&Work],
        known: &mut HashSet<Partition>,
    ) -> Result<Outcome, Failure> {
        let mut places: Places<'_> = works.iter().map(|work| (work.partition(), 0)).collect();
        places.values_mut().enumerate().for_each(|(at, place)| *place = at);
        let load = tokio::time::timeout(self.answer_max, self.load(works, &places, known));
        let late = || -> store::BoxError { "no answer in time".into() };
        let (mut workings, now) = load.await.map_err(|_| Failure::Again(late()))??;

        let fresh = || Incarnation(u64::from_le_bytes(clock::random(self.clock)).max(1));
        let answers = works.iter().map(|work| {
            let place = places.get(work.partition()).copied().unwrap_or_default();
            at(&mut workings, place)?.apply(work, now, fresh)
        });
        let answers = answers.collect();
        let changed: Vec<Partition> = workings
            .iter()
            .filter(|working| working.is_changed())
            .map(|working| working.partition.clone())
            .collect();
        if changed.is_empty() {
            let ended = self.connection.client.batch_execute("ROLLBACK");
            ended.await.map_err(Failure::before_commit)?;
        } else {
            let write = tokio::time::timeout(self.answer_max, self.write(&workings, now));
            write.await.map_err(|_| Failure::Unknown(late()))??;
            known.extend(changed.iter().cloned());
        }
        Ok(Outcome { answers, changed })
    }

    /// Locks the partitions and loads what the rules need.
    async fn load(
        &self,
        works: &[&Work],
        places: &Places<'_>,
        known: &mut HashSet<Partition>,
    ) -> Result<(Vec<Working>, Timestamp), Failure> {
        let mut keys: HashSet<(&Partition, &Key)> = HashSet::new();
        let mut ids: HashSet<(&Partition, CommitId)> = HashSet::new();
        for work in works {
            keys.extend(work.keys().into_iter().map(|key| (work.partition(), key)));
            ids.extend(work.id().map(|id| (work.partition(), id)));
        }
        let place = |partition| places.get(partition).copied().unwrap_or_default();
        let new = Columns::makes(places.keys().filter(|name| !known.contains(**name)).copied());
        let all = Columns::names(places.keys().copied());
        let wanted = keys.iter().map(|(of, key)| (place(of), *of, key.as_bytes()));
        let wanted = Columns::placed(wanted);
        let named = Columns::placed(ids.iter().map(|(of, id)| (place(of), *of, &id.0[..])));
        let time = self.time.param();
        let time: [Param<'_>; 1] = [(&time, Type::INT8)];

        let (client, sql) = (&self.connection.client, self.sql);
        let all = all.params();
        // Sent in this order, at once; each statement sees what is there when its turn comes.
        let (begun, made, heads, now, records, replies) = tokio::join!(
            biased;
            client.batch_execute(self.begin),
            unless_empty(client, &sql.make_heads, &new),
            client.query_typed(&sql.lock_heads, &all),
            client.query_typed_one(&sql.now, &time),
            unless_empty(client, &sql.load_records, &wanted),
            unless_empty(client, &sql.load_ids, &named),
        );
        let answers = || Ok((begun?, made?, heads?, now?, records?, replies?));
        let ((), _, heads, now, records, replies) = answers().map_err(Failure::before_commit)?;

        let fingerprint: &str = rows::get(&now, "fingerprint").map_err(Failure::Refused)?;
        if !self.life.is_of(fingerprint) {
            return Err(Failure::AnotherServer);
        }
        if rows::get(&now, "is_unsafe").map_err(Failure::Refused)? {
            return Err(Failure::NotSynchronous);
        }
        if heads.len() != places.len() {
            // Someone brought the tables back to a time before these were made.
            known.clear();
            return Err(Failure::Again("a partition is no longer there".into()));
        }
        let now = self.time.seen(rows::get(&now, "now").map_err(Failure::Refused)?);
        let workings = self.workings(places, &heads, &records, &replies);
        Ok((workings.map_err(Failure::Refused)?, now))
    }

    fn workings(
        &self,
        places: &Places<'_>,
        heads: &[Row],
        records: &[Row],
        replies: &[Row],
    ) -> Result<Vec<Working>, Error> {
        let names = places.keys().copied().cloned();
        let mut workings: Vec<_> = names.map(Working::new).collect();
        for row in heads {
            at(&mut workings, rows::place(row, 1)?)?.meta = rows::meta(row, self.life)?;
        }
        for row in records {
            // Without a size it is a deletion, which is no record.
            if let Some(size) = rows::size(row)? {
                let (key, revision) = (rows::key(row)?, rows::count(row, "revision")?);
                let expires = rows::time(row, "expires")?;
                let working = at(&mut workings, rows::place(row, 0)?)?;
                working.know_record(key, revision, size, expires)?;
            }
        }
        for row in replies {
            let (id, known) = rows::remembered(row)?;
            at(&mut workings, rows::place(row, 0)?)?.know_id(id, known);
        }
        Ok(workings)
    }

    /// Writes what has changed and commits.
    async fn write(&self, workings: &[Working], now: Timestamp) -> Result<(), Failure> {
        let writes = self.writes(workings, now);
        let client = &self.connection.client;
        let writes: Vec<(&str, Vec<Param<'_>>)> =
            writes.iter().map(|(sql, columns)| (*sql, columns.params())).collect();
        let statements = writes.iter().map(|(sql, params)| client.execute_typed(sql, params));
        let (written, committed) =
            tokio::join!(biased; join_all(statements), client.batch_execute("COMMIT"));
        // What the server refuses is rolled back, by the COMMIT that follows it.
        written
            .into_iter()
            .try_for_each(|result| result.map(drop))
            .map_err(Failure::after_commit)?;
        committed.map_err(Failure::after_commit)
    }

    fn writes<'w>(
        &'w self,
        workings: &'w [Working],
        now: Timestamp,
    ) -> Vec<(&'w str, Columns<'w>)> {
        let mut heads = Heads::columns();
        let mut records = Records::columns();
        let mut entries = Entries::columns();
        let mut trims = Trims::columns();
        let mut later = Later::columns();
        let mut ids = Ids::columns();
        for working in workings.iter().filter(|working| working.is_changed()) {
            let partition = &working.partition;
            if let Some(meta) = &working.meta {
                Heads::push(&mut heads, partition, meta, self.life.number);
            }
            for (key, Change { revision, stored }) in working.changed_records() {
                Records::push(&mut records, partition, key, *revision, stored.as_ref(), now);
            }
            for (stream, entry) in &working.appends {
                Entries::push(&mut entries, partition, stream, entry);
            }
            for trim in &working.trims {
                let until = trim.to.min(trim.from.saturating_add(TRIM_AT_ONCE));
                Trims::push(&mut trims, partition, &trim.stream, (trim.from, until));
                if until < trim.to {
                    Later::push(&mut later, partition, &trim.stream, trim.to);
                }
            }
            for (id, known) in working.changed_ids() {
                Ids::push(&mut ids, partition, id, known);
            }
        }
        // Made to be locked, and refused what was to make it.
        let unmade = workings.iter().filter(|working| working.meta.is_none());
        let unmade = Columns::names(unmade.map(|working| &working.partition));
        let sql = self.sql;
        let all = [
            (sql.write_heads.as_str(), heads),
            (sql.unmake_heads.as_str(), unmade),
            (sql.write_records.as_str(), records),
            (sql.write_entries.as_str(), entries),
            (sql.trim_entries.as_str(), trims),
            (sql.trim_later.as_str(), later),
            (sql.write_ids.as_str(), ids),
        ];
        all.into_iter().filter(|(_, columns)| !columns.is_empty()).collect()
    }
}

async fn unless_empty(
    client: &Client,
    sql: &str,
    columns: &Columns<'_>,
) -> Result<Vec<Row>, tokio_postgres::Error> {
    if columns.is_empty() {
        Ok(Vec::new())
    } else {
        client.query_typed(sql, &columns.params()).await
    }
}

fn at(workings: &mut [Working], place: usize) -> Result<&mut Working, Error> {
    workings.get_mut(place).ok_or_else(|| Error::corrupt("a row of no partition"))
}

//! Leaves of those whose node has died.
//!
//! Whoever joins a channel of which joins and leaves are told is written into its roster, and
//! taken out by the commit that tells that he leaves. The owner of the shard looks through the
//! roster now and then: whose record has expired, since no node renews it, it takes out and tells
//! of, in one commit that checks both. So each that joined leaves once, whoever tells it.

use crate::presence::records::{self, JOINS};
use async_trait::async_trait;
use ledger::{LeaseError, Owned, Work};
use std::{collections::HashSet, time::Duration};
use store::{Check, Error, Key, Partition, Record, SharedStore, Write};

const PAGE: usize = 1_000;
/// Leaves that one commit tells.
const BATCH: usize = 24;

/// Tells of those who are gone without a word, in the partitions of the shards that this node
/// owns.
pub(crate) struct Departures {
    store: SharedStore,
    ttl: Duration,
}

impl Departures {
    /// Of presence that lives for `ttl` after its last renewal.
    pub(crate) fn new(store: SharedStore, ttl: Duration) -> Self {
        Self { store, ttl }
    }

    /// The records whose keys begin with `prefix` and lie after `after`.
    async fn all(
        &self,
        partition: &Partition,
        prefix: &str,
        mut after: Option<Key>,
    ) -> Result<Vec<(Key, Record)>, Error> {
        let mut all = Vec::new();
        loop {
            let page = self.store.scan(partition, prefix.as_bytes(), after.as_ref(), PAGE).await?;
            after = page.records.last().map(|(key, _)| key.clone());
            all.extend(page.records);
            if !page.more || after.is_none() {
                return Ok(all);
            }
        }
    }

    /// Those of the roster who are not there, and whether anybody is.
    async fn gone(&self, partition: &Partition) -> Result<(Vec<(String, Record)>, bool), Error> {
        // The roster first: who joins meanwhile is not in it, and is there.
        let roster = self.all(partition, records::ROSTER, None).await?;
        let beats = self.all(partition, records::BEAT, None).await?;
        let present = self.all(partition, "", Some(records::before_present())).await?;
        let there: HashSet<&str> =
            beats.iter().chain(&present).filter_map(|(key, _)| records::client(key)).collect();
        let listed =
            roster.iter().filter_map(|(key, record)| Some((records::client(key)?, record)));
        let gone = listed.filter(|(client, _)| !there.contains(client));
        let gone: Vec<_> =
            gone.map(|(client, record)| (client.to_owned(), record.clone())).collect();
        let is_anybody = gone.len() < roster.len();
        Ok((gone, is_anybody))
    }

    async fn tell(&self, owned: &Owned<'_>, gone: &[(String, Record)]) -> Result<(), LeaseError> {
        let (mut checks, mut writes) = (Vec::new(), Vec::new());
        for (client, record) in gone {
            let key = records::listed(client);
            let revision = record.revision;
            checks.push(Check::Revision { key: key.clone(), revision });
            checks.extend(records::alive(client).map(|key| Check::Absent { key }));
            writes.push(Write::Delete { key });
            match records::present(&record.value) {
                Ok(info) => writes.push(records::left(info)),
                Err(problem) => tracing::warn!(client, problem.detail, "its leave is not told"),
            }
        }
        let fill = |mut commit: store::Commit| {
            commit.checks.extend(checks);
            commit.writes.extend(writes);
            commit.applied()
        };
        owned.commit(fill).await.map(drop)
    }
}

#[async_trait]
impl Work for Departures {
    async fn due(&self, owned: &Owned<'_>) -> Result<Option<Duration>, LeaseError> {
        let partition = owned.partition();
        // What was told the last time was read since.
        let head = self.store.head(partition).await?;
        let last = head.map_or(0, |head| head.last(&JOINS));
        let (gone, is_anybody) = self.gone(partition).await?;
        if let Some(trim) = records::trim(last).filter(|_| !gone.is_empty()) {
            owned.commit(|commit| commit.write(trim).applied()).await?;
        }
        for some in gone.chunks(BATCH) {
            match self.tell(owned, some).await {
                Ok(()) => {}
                // One of them left, or came back: the others are told of one by one.
                Err(LeaseError::Store(Error::Conflict { .. })) => {
                    for one in some.chunks(1) {
                        match self.tell(owned, one).await {
                            Ok(()) => {}
                            Err(LeaseError::Store(Error::Conflict { .. })) => {}
                            Err(error) => return Err(error),
                        }
                    }
                }
                Err(error) => return Err(error),
            }
        }
        // Whoever came meanwhile is seen by another look.
        Ok((is_anybody || !gone.is_empty()).then_some(self.ttl / 2))
    }
}

#[cfg(test)]
mod tests;

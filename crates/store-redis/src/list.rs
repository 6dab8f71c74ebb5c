//! Listing partitions: the lists of all buckets, merged in the order of ids.

use crate::{
    keys,
    nodes::{Again, Nodes},
    reply::Reply,
    request::Request,
    scripts,
};
use futures_util::{StreamExt, TryStreamExt, stream};
use std::collections::BTreeSet;
use store::{BUCKETS, Bucket, Error, Kind, Partition, PartitionPage};
use types::TenantId;

/// Buckets that one script goes through where they need not be in one slot: a millisecond's
/// work of the server at most.
const BUCKETS_AT_ONCE: usize = 128;
/// Requests that a list has under way.
const REQUESTS_AT_ONCE: usize = 64;

/// What is known of a bucket's list.
struct Known {
    bucket: Bucket,
    /// Up to here, in the script's terms: `(name` or `[prefix`.
    from: Vec<u8>,
    /// The last name that is known; `None`: all are.
    last: Option<Vec<u8>>,
}

/// At most `limit` partitions after `after`. Each bucket is asked for its share of the page,
/// and again only where that was not enough.
pub(crate) async fn list(
    nodes: &Nodes,
    tenant: &TenantId,
    kind: &Kind,
    after: Option<&str>,
    limit: usize,
) -> Result<PartitionPage, Error> {
    let prefix = keys::kind_prefix(tenant, kind);
    let from = match after {
        Some(after) => [b"(", &prefix[..], after.as_bytes()].concat(),
        None => [b"[", &prefix[..]].concat(),
    };
    let until = match keys::after_prefix(&prefix) {
        Some(next) => [b"(", &next[..]].concat(),
        None => b"+".to_vec(),
    };
    let wanted = limit.saturating_add(1);
    let share = 2 * wanted.min(1 << 20) / usize::from(BUCKETS) + 4;
    let mut names: BTreeSet<Vec<u8>> = BTreeSet::new();
    let mut open: Vec<Known> =
        Bucket::all().map(|bucket| Known { bucket, from: from.clone(), last: None }).collect();
    loop {
        let batch = if nodes.is_cluster() { 1 } else { BUCKETS_AT_ONCE };
        let batches: Vec<Vec<(Bucket, Vec<u8>)>> = open
            .chunks(batch)
            .map(|chunk| chunk.iter().map(|one| (one.bucket, one.from.clone())).collect())
            .collect();
        let answers = stream::iter(batches)
            .map(|batch| ask(nodes, batch, &until, share))
            .buffered(REQUESTS_AT_ONCE)
            .try_collect::<Vec<_>>();
        let found: Vec<Vec<Vec<u8>>> = answers.await?.into_iter().flatten().collect();
        for (known, found) in open.iter_mut().zip(found) {
            known.last = if found.len() < share { None } else { found.last().cloned() };
            names.extend(found);
        }
        // Names up to the first of those last ones are all known.
        open.retain(|known| known.last.is_some());
        let complete = open.iter().filter_map(|known| known.last.as_ref()).min().cloned();
        let count = match &complete {
            Some(complete) => names.range(..=complete.clone()).count(),
            None => names.len(),
        };
        if count >= wanted || complete.is_none() {
            let partitions = names.iter().take(limit).map(|name| keys::parse_name(name));
            let partitions = partitions.collect::<Result<Vec<Partition>, Error>>()?;
            return Ok(PartitionPage { partitions, more: names.len() > limit });
        }
        for known in &mut open {
            if let Some(last) = &known.last {
                known.from = [b"(", &last[..]].concat();
            }
        }
    }
}

async fn ask(
    nodes: &Nodes,
    batch: Vec<(Bucket, Vec<u8>)>,
    until: &[u8],
    share: usize,
) -> Result<Vec<Vec<Vec<u8>>>, Error> {
    let Some((first, _)) = batch.first() else { return Ok(Vec::new()) };
    let first = *first;
    let mut request = Request::default().arg(until).number(share as u64);
    for (bucket, from) in batch {
        request = request.key(nodes.keys.list(bucket)).arg(from);
    }
    let mut reply = nodes.run(first, &scripts::LIST, &request, Again::Safe).await?;
    let mut lists = Vec::new();
    while !reply.is_empty() {
        let mut list: Reply = reply.list()?;
        let mut names = Vec::new();
        while !list.is_empty() {
            names.push(list.bytes()?);
        }
        lists.push(names);
    }
    Ok(lists)
}

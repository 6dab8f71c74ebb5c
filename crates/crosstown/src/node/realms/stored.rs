//! A published document in the store: in a partition of its service, in parts that fit into
//! records, written together.

use bridge::Document;
use protocol::Problem;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use store::{Commit, Error, Key, Kind, Partition, SharedStore, Write};
use traffic_cop::store_problem;
use types::{PrincipalId, TenantId, Timestamp};

const KIND: Kind = Kind::new("realm-document");
const PART_BYTES: usize = 192 * 1024;
const PARTS_MAX: usize = 4;
/// Bytes of a document that is published.
pub(super) const BYTES_MAX: usize = PARTS_MAX * PART_BYTES;
const HEAD: &str = "head";

/// Who published a document, and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Head {
    pub(super) tenant: TenantId,
    pub(super) by: PrincipalId,
    pub(super) at: Timestamp,
    bytes: usize,
}

pub(super) fn partition(service: &str) -> Result<Partition, Error> {
    Partition::new(TenantId::system(), KIND, service)
}

fn part(number: usize) -> Result<Key, Error> {
    Key::new(format!("part-{number}"))
}

/// Writes a document, which fits.
pub(super) async fn write(
    store: &SharedStore,
    service: &str,
    (tenant, by, at): (TenantId, PrincipalId, Timestamp),
    text: &[u8],
) -> Result<(), Problem> {
    let head = Head { tenant, by, at, bytes: text.len() };
    let value = serde_json::to_vec(&head).expect("a head can be written").into();
    let commit = async {
        let mut commit = Commit::new(partition(service)?).write(Write::Put {
            key: Key::new(HEAD)?,
            value,
            expires: None,
        });
        let mut parts = text.chunks(PART_BYTES);
        for number in 0..PARTS_MAX {
            let key = part(number)?;
            commit = commit.write(match parts.next() {
                Some(text) => Write::Put { key, value: text.to_vec().into(), expires: None },
                None => Write::Delete { key },
            });
        }
        store.commit(commit).await
    };
    commit.await.map(|_| ()).map_err(store_problem)
}

/// Deletes a document; says whether there was one.
pub(super) async fn delete(store: &SharedStore, service: &str) -> Result<bool, Problem> {
    let deleted = async {
        let (partition, head) = (partition(service)?, Key::new(HEAD)?);
        if store.get(&partition, &head).await?.is_none() {
            return Ok(false);
        }
        let mut commit = Commit::new(partition).write(Write::Delete { key: head });
        for number in 0..PARTS_MAX {
            commit = commit.write(Write::Delete { key: part(number)? });
        }
        store.commit(commit).await.map(|_| true)
    };
    deleted.await.map_err(store_problem)
}

/// Reads a document; none if there is none, or none that this version can keep.
pub(super) async fn read(
    store: &SharedStore,
    service: &str,
) -> Result<Option<Arc<Document>>, Error> {
    let partition = partition(service)?;
    // All of it fits into a page, which is of one moment.
    let page = store.scan(&partition, b"", None, PARTS_MAX + 1).await?;
    let (mut head, mut text) = (None, Vec::new());
    for (key, record) in &page.records {
        if key.as_bytes() == HEAD.as_bytes() {
            head = serde_json::from_slice::<Head>(&record.value).ok();
        } else {
            text.extend_from_slice(&record.value);
        }
    }
    let Some(head) = head else { return Ok(None) };
    let document = match Document::parse(&text) {
        Ok(document) if head.bytes == text.len() => Some(Arc::new(document)),
        Ok(_) => {
            tracing::error!(service, "a published document is damaged");
            None
        }
        Err(why) => {
            tracing::error!(service, why, "a published document cannot be kept by this version");
            None
        }
    };
    Ok(document)
}

//! A document piece by piece, for whoever takes what changed meanwhile from its stream.

use crate::{
    state::{BEFORE_ENTRIES, CHANGES, Entry, States, expiry},
    storage,
};
use protocol::Problem;
use store::{Key, Partition, Position};

/// Some entries of a document.
#[derive(Debug, Clone, PartialEq)]
pub struct Page {
    /// The life of the document.
    pub epoch: String,
    /// The offset of a change that these entries already show, with all before it. They may
    /// show some of later ones.
    pub offset: u64,
    /// Entries, by key.
    pub entries: Vec<Entry>,
    /// The key after which the next page begins.
    pub last: Option<Key>,
    /// Whether there are entries after these.
    pub more: bool,
}

impl States {
    /// At most `limit` entries, and not many more than `bytes_max` bytes of values, after the one
    /// named `after`, of a document in a partition that the caller may read. With `ending`, without
    /// those that have ended and are about to be taken out.
    ///
    /// # Errors
    /// `lagged` if the document begins another life meanwhile, or those of the store.
    pub async fn page(
        &self,
        partition: &Partition,
        after: Option<&Key>,
        limit: usize,
        bytes_max: usize,
        ending: bool,
    ) -> Result<Page, Problem> {
        // The head first: the entries show what it tells of, or more.
        let head = self.store.head(partition).await.map_err(storage::problem)?;
        let offset = head.as_ref().map_or(0, |head| head.last(&CHANGES));
        let position = head.map_or(Position::ZERO, |head| head.position);
        let epoch = self.epoch(partition, position).await?;
        let first = Key::new(BEFORE_ENTRIES).map_err(storage::problem)?;
        let after = after.filter(|after| after.as_bytes() > first.as_bytes()).unwrap_or(&first);
        let scan = self.store.scan(partition, b"", Some(after), limit).await;
        let scan = scan.map_err(storage::problem)?;
        if position != Position::ZERO && scan.position.incarnation != position.incarnation {
            return Err(storage::problem(store::Error::Lagged { position: scan.position }));
        }
        let now = self.clock.now();
        let mut entries = Vec::with_capacity(scan.records.len());
        let (mut last, mut bytes) = (None, 0);
        for (key, record) in &scan.records {
            if bytes > bytes_max {
                return Ok(Page { epoch, offset, entries, last, more: true });
            }
            bytes += record.value.len();
            last = Some(key.clone());
            let (value, life) = expiry::read(record)?;
            if ending && life.is_some_and(|life| life.ends <= now) {
                continue;
            }
            let key = String::from_utf8_lossy(key.as_bytes()).into_owned();
            entries.push(Entry { key, revision: record.revision, value });
        }
        Ok(Page { epoch, offset, entries, last, more: scan.more })
    }
}

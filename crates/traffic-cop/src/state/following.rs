//! What changed in a document, for whoever follows it.

use crate::{
    state::{
        CHANGES, Change, ChangeRecord, Changes, DocumentId, EntryRecord, HistoryEntry, States,
        parse_epoch,
    },
    storage,
};
use protocol::Problem;
use store::Position;
use types::{Caller, PrincipalId};

impl States {
    /// What changed after `revision` of the life `epoch`; 0 asks for everything.
    ///
    /// # Errors
    /// `lagged` if that can no longer be told: take a snapshot. `forbidden`, or those of the
    /// store.
    pub async fn changes(
        &self,
        caller: &Caller,
        id: &DocumentId,
        epoch: &str,
        revision: u64,
    ) -> Result<Changes, Problem> {
        let partition = id.readable_by(caller)?;
        let since = match (revision, parse_epoch(epoch)) {
            (0, _) => Position::ZERO,
            (revision, Some(incarnation)) => Position { incarnation, revision },
            (_, None) => {
                return Err(storage::problem(store::Error::Lagged { position: Position::ZERO }));
            }
        };
        let told = self.store.changes(&partition, since).await.map_err(storage::problem)?;
        let change = |change: &store::Change| {
            let value = match &change.value {
                None => None,
                Some(bytes) => Some(storage::decode::<EntryRecord>(bytes)?.0),
            };
            let key = String::from_utf8_lossy(change.key.as_bytes()).into_owned();
            Ok(Change { key, revision: change.revision, deleted: value.is_none(), value })
        };
        let may_read = |change: &&store::Change| {
            let key = String::from_utf8_lossy(change.key.as_bytes());
            self.may_read(caller, &partition, &key)
        };
        let changes = told.keys.iter().filter(may_read).map(change);
        Ok(Changes {
            epoch: self.epoch(&partition, told.position).await?,
            revision: told.position.revision,
            changes: changes.collect::<Result<_, Problem>>()?,
        })
    }

    /// As [`Self::changes`], but waits up to `wait` for the first one.
    ///
    /// # Errors
    /// As [`Self::changes`].
    pub async fn wait_for_changes(
        &self,
        caller: &Caller,
        id: &DocumentId,
        epoch: &str,
        revision: u64,
        wait: std::time::Duration,
    ) -> Result<Changes, Problem> {
        let mut watcher = store::watch(self.store.clone());
        watcher.follow(id.readable_by(caller)?, Position::ZERO);
        let deadline = tokio::time::Instant::now() + wait;
        loop {
            let told = self.changes(caller, id, epoch, revision).await?;
            if !told.changes.is_empty() {
                return Ok(told);
            }
            if tokio::time::timeout_at(deadline, watcher.touched()).await.is_err() {
                return Ok(told);
            }
        }
    }

    /// Changes with who made them and when, from `offset` on (1 is the first), at most `limit`.
    ///
    /// # Errors
    /// `lagged` if `offset` was trimmed, with the member `first`; `forbidden`, or those of the
    /// store.
    pub async fn history(
        &self,
        caller: &Caller,
        id: &DocumentId,
        offset: u64,
        limit: usize,
    ) -> Result<Vec<HistoryEntry>, Problem> {
        let partition = id.readable_by(caller)?;
        let (mut offset, limit) = (offset.max(1), limit.max(1));
        let mut told = Vec::new();
        // A page of which the caller may read nothing is not the last one.
        loop {
            let read = self.store.read(&partition, &CHANGES, offset, limit).await;
            let page = read.map_err(|error| {
                let first =
                    if let store::Error::Trimmed { first } = error { Some(first) } else { None };
                let problem = storage::problem(error);
                first.into_iter().fold(problem, |problem, first| problem.member("first", first))
            })?;
            let Some(last) = page.last() else { break };
            offset = last.sequence + 1;
            for entry in &page {
                let ChangeRecord { key, value, deleted, by, at, .. } =
                    storage::decode(&entry.value)?;
                if self.may_read(caller, &partition, &key) {
                    let change = Change { key, revision: entry.revision, value, deleted };
                    told.push(HistoryEntry { offset: entry.sequence, change, by, at });
                }
            }
            if !told.is_empty() {
                break;
            }
        }
        Ok(told)
    }
}

/// A change of the stream as it is published to sockets, and who made it; nobody, if the entry
/// ended by itself.
///
/// # Errors
/// `internal` if it cannot be read.
pub fn publication(entry: &store::Entry) -> Result<(Change, Option<PrincipalId>), Problem> {
    let ChangeRecord { key, value, deleted, by, .. } = storage::decode(&entry.value)?;
    Ok((Change { key, revision: entry.revision, value, deleted }, by))
}

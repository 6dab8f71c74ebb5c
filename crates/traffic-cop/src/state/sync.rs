//! Copying entries of one document to another, again and again.
//!
//! The two lie in different partitions, and no commit changes both. So this is what is promised:
//! - what is copied was in the source at one moment, its revision is told, and is written to the
//!   target by one commit, or not at all;
//! - what others wrote to the target since the last copy is not overwritten unseen: it is a
//!   conflict, unless the strategy says otherwise;
//! - to repeat it is safe: what is there already is left as it is;
//! - afterwards it is noted, in a third partition, which entries agreed. If that note is lost
//!   between the two commits, an entry that then changes in the source may be told as a conflict,
//!   though nobody else has written it. Nothing is overwritten for it.
//!
//! Deletions are not copied: what the source does not have is only told.

mod note;

use crate::{
    state::{
        ATTEMPTS, DocumentId, Entry, Moment, Operation, STEPS_MAX, States,
        change::{Asked, NewValue},
        entry_key, format_epoch,
        operation::Bounds,
        permission::forbidden,
        sync::note::{Last, Note},
        transaction::about,
    },
    storage,
};
use protocol::{Code, Problem};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use std::collections::{BTreeMap, BTreeSet};
use store::{Check, Commit, Partition, Position};
use types::{Caller, PrincipalId, Timestamp};

/// What becomes of an entry that others wrote to the target since the last copy.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum SyncStrategy {
    /// It stays, and is told as a conflict.
    #[default]
    Reject,
    /// It is replaced.
    SourceWins,
    /// The source's object is merged into it (RFC 7396); what is no object is a conflict.
    MergePatch,
}

/// What came of copying.
#[derive(Debug, Clone, PartialEq, Serialize, schemars::JsonSchema)]
pub struct Synced {
    /// The source's revision of which the copied values are.
    pub from_revision: u64,
    /// The life of the target.
    pub epoch: String,
    /// The target's revision: the one that this made, or, if nothing was written, the one that
    /// it was seen at.
    pub revision: u64,
    /// How many entries were written.
    pub synced: usize,
    /// How many were as they should be.
    pub unchanged: usize,
    /// Those that the source does not have.
    pub missing: Vec<String>,
    /// Those that were left as they are.
    pub conflicts: Vec<SyncConflict>,
}

/// An entry that both have written.
#[derive(Debug, Clone, PartialEq, Serialize, schemars::JsonSchema)]
pub struct SyncConflict {
    /// Its key.
    pub key: String,
    /// As the source has it.
    pub from: SyncSide,
    /// As the target has it; missing if it was deleted there after it was copied.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<SyncSide>,
}

/// An entry without its key.
#[derive(Debug, Clone, PartialEq, Serialize, schemars::JsonSchema)]
pub struct SyncSide {
    /// The revision of its latest change, in its own document.
    pub revision: u64,
    /// Its value.
    pub value: Json,
}

/// The last copy from one document to another.
#[derive(Debug, Clone, PartialEq, Serialize, schemars::JsonSchema)]
pub struct SyncStatus {
    /// When it was, in milliseconds since 1970 UTC.
    pub at: Timestamp,
    /// Who asked for it.
    pub by: PrincipalId,
    /// By which strategy.
    pub strategy: SyncStrategy,
    /// The source's revision of which the copied values were.
    pub from_revision: u64,
    /// The target's revision after it.
    pub revision: u64,
    /// How many entries were written.
    pub synced: usize,
    /// How many were as they should be.
    pub unchanged: usize,
    /// Those that the source did not have.
    pub missing: Vec<String>,
    /// Those that were in conflict.
    pub conflicts: Vec<String>,
}

/// What is to be done with one entry.
#[derive(Debug, PartialEq)]
enum Step {
    Missing,
    Unchanged,
    Write(Operation),
    Conflict,
}

/// Decides about one entry. `agreed`: the revision at which the target's entry last agreed with
/// the source's.
fn decide(
    strategy: SyncStrategy,
    from: Option<&Entry>,
    to: Option<&Entry>,
    agreed: Option<u64>,
    bounds: Bounds,
) -> Step {
    let Some(from) = from else { return Step::Missing };
    let copy = || Step::Write(Operation::Put(from.value.clone()));
    let Some(to) = to else {
        return match (strategy, agreed) {
            // It was deleted there.
            (SyncStrategy::Reject, Some(_)) => Step::Conflict,
            (SyncStrategy::Reject, None) => copy(),
            (SyncStrategy::SourceWins | SyncStrategy::MergePatch, _) => copy(),
        };
    };
    if to.value == from.value {
        return Step::Unchanged;
    }
    if agreed == Some(to.revision) {
        return copy();
    }
    match strategy {
        SyncStrategy::Reject => Step::Conflict,
        SyncStrategy::SourceWins => copy(),
        SyncStrategy::MergePatch if from.value.is_object() && to.value.is_object() => {
            let merge = Operation::Patch(from.value.clone());
            match merge.apply_to(Some(&to.value), bounds) {
                Ok(Some(merged)) if merged == to.value => Step::Unchanged,
                Ok(_) | Err(_) => Step::Write(merge),
            }
        }
        SyncStrategy::MergePatch => Step::Conflict,
    }
}

/// Which documents and entries, and how.
#[derive(Debug, Clone, PartialEq)]
pub struct Transfer {
    /// The source.
    pub from: DocumentId,
    /// The target.
    pub to: DocumentId,
    /// Which entries, at most [`STEPS_MAX`].
    pub keys: BTreeSet<String>,
    /// What becomes of those that both have written.
    pub strategy: SyncStrategy,
}

impl States {
    /// Copies entries of one document to another; the beginning of this file says what is
    /// promised.
    ///
    /// # Errors
    /// `bad_request`, `forbidden`, and those of [`Self::transact`] for what is to be written. If
    /// the store does not answer in between, the entries may have been written: repeat it.
    pub async fn sync(&self, caller: &Caller, transfer: &Transfer) -> Result<Synced, Problem> {
        let (source, target) =
            (transfer.from.readable_by(caller)?, transfer.to.writable_by(caller)?);
        let refuse = |detail: String| Err(Problem::new(Code::BadRequest, detail));
        if source == target {
            return refuse("a document is not copied to itself".into());
        }
        if transfer.keys.is_empty() || transfer.keys.len() > STEPS_MAX {
            return refuse(format!("name 1 to {STEPS_MAX} entries in `keys`"));
        }
        for key in &transfer.keys {
            entry_key(key).map_err(|problem| about(key, problem))?;
            let open = self.may_read(caller, &source, key) && self.may_write(caller, &target, key);
            if !open {
                return Err(about(key, forbidden(key)));
            }
        }
        let head = self.store.head(&source).await.map_err(storage::problem)?;
        let from_revision = head.map_or(0, |head| head.position.revision);
        let moment = Moment { revision: from_revision, epoch: None };
        let (_, from) = self.past(&source, Some(&transfer.keys), &moment).await?;
        let (noted, note) = self.note(caller, transfer).await?;
        let (done, agreed) = self.copy(caller, transfer, &target, from, &note).await?;
        let synced = Synced { from_revision, ..done };
        self.keep(caller, transfer, noted, note, &synced, agreed).await?;
        Ok(synced)
    }

    /// Writes what is to be written, and answers which entries agree then.
    async fn copy(
        &self,
        caller: &Caller,
        transfer: &Transfer,
        target: &Partition,
        from: Vec<Entry>,
        note: &Note,
    ) -> Result<(Synced, BTreeMap<String, u64>), Problem> {
        let bounds = Bounds { bytes: self.config.value_bytes_max, depth: self.config.depth_max };
        let from: BTreeMap<&str, &Entry> =
            from.iter().map(|entry| (entry.key.as_str(), entry)).collect();
        for _ in 0..ATTEMPTS {
            let now = self.some(target, &transfer.keys).await?;
            let epoch = self.epoch(target, now.position).await?;
            let mut to: BTreeMap<String, Entry> =
                now.entries.into_iter().map(|entry| (entry.key.clone(), entry)).collect();
            let (mut missing, mut conflicts, mut writes) = (Vec::new(), Vec::new(), Vec::new());
            let mut agreed = BTreeMap::new();
            let mut unchanged = 0;
            for key in &transfer.keys {
                let (from, current) = (from.get(key.as_str()).copied(), to.remove(key));
                let known = note.agreed.get(key).filter(|_| note.epoch == epoch).copied();
                match decide(transfer.strategy, from, current.as_ref(), known, bounds) {
                    Step::Missing => missing.push(key.clone()),
                    Step::Unchanged => {
                        unchanged += 1;
                        if let (Some(from), Some(to)) = (from, current)
                            && from.value == to.value
                        {
                            agreed.insert(key.clone(), to.revision);
                        }
                    }
                    Step::Write(operation) => writes.push((key.as_str(), current, operation)),
                    Step::Conflict => conflicts.extend(from.map(|from| SyncConflict {
                        key: key.clone(),
                        from: SyncSide { revision: from.revision, value: from.value.clone() },
                        to: current.map(|to| SyncSide { revision: to.revision, value: to.value }),
                    })),
                }
            }
            let (synced, from_revision) = (writes.len(), 0);
            let revision = now.position.revision;
            let mut done =
                Synced { from_revision, epoch, revision, synced, unchanged, missing, conflicts };
            if writes.is_empty() {
                return Ok((done, agreed));
            }
            let mut entries: Vec<(&str, NewValue)> = Vec::with_capacity(synced);
            for (key, current, operation) in writes {
                let if_revision = Some(current.as_ref().map_or(0, |entry| entry.revision));
                let (partition, operation) = (target, &operation);
                let asked = Asked { caller, partition, key, operation, if_revision };
                let change = self.change_exactly(&asked, current);
                entries.push((key, change.map_err(|problem| about(key, problem))?));
            }
            let keys: Vec<&str> = entries.iter().map(|(key, _)| *key).collect();
            let commit = Commit::new(target.clone());
            // Of a document that was not there, nothing is known that another life could change.
            let commit = match now.position {
                Position::ZERO => commit,
                position => commit.check(Check::Incarnation(position.incarnation)),
            };
            let commit = self.within_limits(commit, &entries).await?;
            match self.commit(caller, commit, entries).await {
                Ok(committed) => {
                    done.epoch = format_epoch(committed.position.incarnation);
                    done.revision = committed.position.revision;
                    for (key, (value, _)) in keys.into_iter().zip(&committed.values) {
                        if from.get(key).map(|from| &from.value) == value.as_ref() {
                            agreed.insert(key.to_owned(), done.revision);
                        }
                    }
                    return Ok((done, agreed));
                }
                Err(store::Error::Conflict { .. }) => {}
                Err(error) => return Err(storage::problem(error)),
            }
        }
        Err(Problem::new(Code::Overloaded, "the entries are changed by too many at once"))
    }

    /// What is known of the last copy from one document to the other, as far as the caller may
    /// know of its entries.
    ///
    /// # Errors
    /// `not_found` if there was none; `forbidden`, or those of the store.
    pub async fn sync_status(
        &self,
        caller: &Caller,
        from: &DocumentId,
        to: &DocumentId,
    ) -> Result<SyncStatus, Problem> {
        let (source, target) = (from.readable_by(caller)?, to.readable_by(caller)?);
        let pair = Transfer {
            from: from.clone(),
            to: to.clone(),
            keys: BTreeSet::new(),
            strategy: SyncStrategy::Reject,
        };
        let (_, note) = self.note(caller, &pair).await?;
        let none = || Problem::new(Code::NotFound, "nothing was copied between these documents");
        let last = note.last.ok_or_else(none)?;
        let Last { at, by, strategy, from_revision, revision, synced, unchanged, .. } = last;
        let open = |key: &String| {
            self.may_read(caller, &source, key) && self.may_read(caller, &target, key)
        };
        let known = |keys: Vec<String>| keys.into_iter().filter(open).collect();
        let (missing, conflicts) = (known(last.missing), known(last.conflicts));
        Ok(SyncStatus {
            at,
            by,
            strategy,
            from_revision,
            revision,
            synced,
            unchanged,
            missing,
            conflicts,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_done_with_an_entry() {
        use SyncStrategy::{MergePatch, Reject, SourceWins};
        let bounds = Bounds { bytes: 1_000, depth: 8 };
        let check = |strategy, from: Json, to: Json, agreed, expected: Step| {
            let entry = |value: &Json| Entry { key: "k".into(), revision: 5, value: value.clone() };
            let [from, to] = [&from, &to].map(|value| (!value.is_null()).then(|| entry(value)));
            let step = decide(strategy, from.as_ref(), to.as_ref(), agreed, bounds);
            assert_eq!(step, expected, "{strategy:?} {from:?} {to:?} {agreed:?}");
        };
        let none = || Json::Null;
        let put = |value: Json| Step::Write(Operation::Put(value));
        let (a, ab) = (json!({ "a": 1 }), json!({ "a": 1, "b": 2 }));
        for strategy in [Reject, SourceWins, MergePatch] {
            check(strategy, none(), none(), None, Step::Missing);
            check(strategy, none(), json!(1), Some(5), Step::Missing);
            check(strategy, json!(1), none(), None, put(json!(1)));
            check(strategy, json!(1), json!(1), None, Step::Unchanged);
            // As it was when they last agreed: nobody else has written it.
            check(strategy, json!(2), json!(1), Some(5), put(json!(2)));
        }
        check(Reject, json!(2), json!(1), None, Step::Conflict);
        check(Reject, json!(2), json!(1), Some(4), Step::Conflict);
        check(Reject, json!(1), none(), Some(4), Step::Conflict);
        check(SourceWins, json!(2), json!(1), Some(4), put(json!(2)));
        check(SourceWins, json!(1), none(), Some(4), put(json!(1)));
        check(MergePatch, json!(1), none(), Some(4), put(json!(1)));
        check(MergePatch, json!(2), a.clone(), None, Step::Conflict);
        check(MergePatch, a.clone(), json!(2), None, Step::Conflict);
        check(MergePatch, a.clone(), ab.clone(), None, Step::Unchanged);
        check(MergePatch, ab.clone(), a, None, Step::Write(Operation::Patch(ab)));
    }
}

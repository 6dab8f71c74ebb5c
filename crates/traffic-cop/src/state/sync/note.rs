//! What is noted of copying from one document to another.

use crate::{
    secret,
    state::{ATTEMPTS, DocumentId, States, SyncStrategy, Synced, Transfer},
    storage::{self, Stored},
};
use protocol::{Code, Problem};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use store::{Check, Commit, Key, Kind, Partition};
use types::{Caller, PrincipalId, Timestamp};

const KIND: Kind = Kind::new("state-copy");
/// Entries of a pair of documents of which it is noted that they agreed.
const AGREED_MAX: usize = 512;

/// The last copy, and what it found in agreement.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct Note {
    /// The life of the target of which the revisions are.
    pub(super) epoch: String,
    /// The revisions at which the target's entries agreed with the source's.
    pub(super) agreed: BTreeMap<String, u64>,
    pub(super) last: Option<Last>,
}

impl Stored for Note {
    const VERSION: u8 = 1;
}

#[derive(Serialize, Deserialize)]
pub(super) struct Last {
    pub(super) at: Timestamp,
    pub(super) by: PrincipalId,
    pub(super) strategy: SyncStrategy,
    pub(super) from_revision: u64,
    pub(super) revision: u64,
    pub(super) synced: usize,
    pub(super) unchanged: usize,
    pub(super) missing: Vec<String>,
    pub(super) conflicts: Vec<String>,
}

impl States {
    /// The note of a pair, and its record's revision.
    pub(super) async fn note(
        &self,
        caller: &Caller,
        transfer: &Transfer,
    ) -> Result<(u64, Note), Problem> {
        let (partition, key) = note_of(caller, &transfer.from, &transfer.to)?;
        let record = self.store.get(&partition, &key).await.map_err(storage::problem)?;
        match record {
            None => Ok((0, Note::default())),
            Some(record) => Ok((record.revision, storage::decode(&record.value)?)),
        }
    }

    /// Notes what came of a copy.
    pub(super) async fn keep(
        &self,
        caller: &Caller,
        transfer: &Transfer,
        mut revision: u64,
        mut note: Note,
        done: &Synced,
        agreed: BTreeMap<String, u64>,
    ) -> Result<(), Problem> {
        let (partition, key) = note_of(caller, &transfer.from, &transfer.to)?;
        for _ in 0..ATTEMPTS {
            note.agree(&done.epoch, &agreed);
            note.last = Some(Last {
                at: self.clock.now(),
                by: caller.principal.id.clone(),
                strategy: transfer.strategy,
                from_revision: done.from_revision,
                revision: done.revision,
                synced: done.synced,
                unchanged: done.unchanged,
                missing: done.missing.clone(),
                conflicts: done.conflicts.iter().map(|conflict| conflict.key.clone()).collect(),
            });
            let key = key.clone();
            let check = match revision {
                0 => Check::Absent { key: key.clone() },
                revision => Check::Revision { key: key.clone(), revision },
            };
            let commit = Commit::new(partition.clone()).check(check);
            match self.store.commit(commit.put(key, storage::encode(&note))).await {
                Ok(_) => return Ok(()),
                // Another copy of the pair has ended meanwhile.
                Err(store::Error::Conflict { .. }) => {
                    (revision, note) = self.note(caller, transfer).await?;
                }
                Err(error) => return Err(storage::problem(error)),
            }
        }
        Err(Problem::new(Code::Overloaded, "the documents are copied by too many at once"))
    }
}

impl Note {
    /// Notes which entries agree now. Where too many do, the ones longest unchanged are
    /// forgotten.
    fn agree(&mut self, epoch: &str, agreed: &BTreeMap<String, u64>) {
        if self.epoch != epoch {
            self.agreed.clear();
            epoch.clone_into(&mut self.epoch);
        }
        for (key, revision) in agreed {
            let known = self.agreed.entry(key.clone()).or_default();
            *known = (*known).max(*revision);
        }
        while self.agreed.len() > AGREED_MAX {
            let oldest = self.agreed.iter().min_by_key(|(_, revision)| **revision);
            let Some(oldest) = oldest.map(|(key, _)| key.clone()) else { return };
            self.agreed.remove(&oldest);
        }
    }
}

/// Where the note of a pair is. Names of documents are too long for it.
fn note_of(
    caller: &Caller,
    from: &DocumentId,
    to: &DocumentId,
) -> Result<(Partition, Key), Problem> {
    let id = secret::hash(&format!("{from} {to}"));
    let partition = Partition::new(caller.tenant.clone(), KIND, &id).map_err(storage::problem)?;
    Ok((partition, Key::new("note").map_err(storage::problem)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_bounded_and_of_one_life() {
        let mut note = Note::default();
        let agreed = |range: std::ops::Range<u64>| {
            range.map(|number| (format!("k{number}"), number)).collect::<BTreeMap<_, _>>()
        };
        note.agree("1", &agreed(1..600));
        assert_eq!(note.agreed.len(), AGREED_MAX);
        assert_eq!((note.agreed.get("k87"), note.agreed.get("k88")), (None, Some(&88)));
        note.agree("1", &BTreeMap::from([("k599".into(), 3)]));
        assert_eq!(note.agreed["k599"], 599, "a copy that ends late takes nothing back");
        note.agree("2", &agreed(1..2));
        assert_eq!(note.agreed, agreed(1..2));
    }
}

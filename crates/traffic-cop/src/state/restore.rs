//! Making a document again what it was.

use crate::{
    state::{
        ATTEMPTS, DocumentId, Entry, Moment, Operation, STEPS_MAX, States, Transacted,
        change::{Asked, NewValue},
        entry_key,
        transaction::{about, transacted},
    },
    storage,
};
use protocol::{Code, Problem};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use store::{Check, Commit, Key};
use types::Caller;

/// What to make of a document again. Read from `{"revision": 7, "keys": ["k"]}`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Restoration {
    /// The revision at which it was so.
    pub revision: u64,
    /// The life that the revision is of; if it is not named, the present one.
    #[serde(default)]
    pub epoch: Option<String>,
    /// Which entries, at most [`STEPS_MAX`]; if none are named, all of them.
    #[serde(default)]
    pub keys: Option<BTreeSet<String>>,
    /// Only if that is the revision of the document.
    #[serde(default)]
    pub if_revision: Option<u64>,
}

impl States {
    /// Makes a document, or some entries of it, again what they were at a revision: one change
    /// of each entry that is not as it was, all in one commit. The changes are new ones, by
    /// `caller`; nothing is taken out of the history. If all is as it was, nothing is written.
    ///
    /// After it the whole document (or each of the named entries) is as it was then: a change
    /// that comes at the same time is either undone with the others, or made after it.
    ///
    /// # Errors
    /// `lagged` as [`Self::snapshot_at`]; `conflict` with the member `revision` of the document,
    /// if that is not `if_revision`; `bad_request` if more than [`STEPS_MAX`] entries are named
    /// or would change, then with their number in the member `differing`; else as
    /// [`Self::transact`].
    pub async fn restore(
        &self,
        caller: &Caller,
        id: &DocumentId,
        what: &Restoration,
    ) -> Result<Transacted, Problem> {
        let partition = id.writable_by(caller)?;
        let keys = what.keys.as_ref();
        if keys.is_some_and(|keys| keys.is_empty() || keys.len() > STEPS_MAX) {
            let detail =
                format!("name 1 to {STEPS_MAX} entries in `keys`, or leave it out for all");
            return Err(Problem::new(Code::BadRequest, detail));
        }
        for key in keys.into_iter().flatten() {
            entry_key(key).map_err(|problem| about(key, problem))?;
            self.check_read(caller, &partition, key)?;
        }
        let moment = Moment { revision: what.revision, epoch: what.epoch.clone() };
        for _ in 0..ATTEMPTS {
            let (mut now, mut then) = self.past(&partition, keys, &moment).await?;
            // What the caller does not see stays as it is.
            now.entries.retain(|entry| self.may_read(caller, &partition, &entry.key));
            then.retain(|entry| self.may_read(caller, &partition, &entry.key));
            let revision = now.position.revision;
            if what.if_revision.is_some_and(|expected| expected != revision) {
                let problem = Problem::new(Code::Conflict, "the document has another revision");
                return Err(problem.member("revision", revision));
            }
            let mut commit = Commit::new(partition.clone());
            // Nothing may have come in between: no change of what is compared, no other life.
            commit = match keys {
                Some(keys) if what.if_revision.is_none() => {
                    commit = commit.check(Check::Incarnation(now.position.incarnation));
                    let held = now.entries.iter().map(|entry| (&entry.key, entry.revision));
                    let held: BTreeMap<&String, u64> = held.collect();
                    for key in keys {
                        let name = Key::new(key).map_err(storage::problem)?;
                        commit = commit.check(match held.get(key) {
                            Some(&revision) => Check::Revision { key: name, revision },
                            None => Check::Absent { key: name },
                        });
                    }
                    commit
                }
                Some(_) | None => commit.check(Check::Position(now.position)),
            };
            let differing = differing(now.entries, then);
            let (names, steps): (Vec<String>, Vec<_>) = differing.into_iter().unzip();
            if names.is_empty() {
                let epoch = self.epoch(&partition, now.position).await?;
                return Ok(Transacted { epoch, revision, entries: Vec::new() });
            }
            if names.len() > STEPS_MAX {
                let number = names.len();
                let detail = format!(
                    "{number} entries are not as they were; at most {STEPS_MAX} are changed at \
                     once: name some of them in `keys`"
                );
                return Err(Problem::new(Code::BadRequest, detail).member("differing", number));
            }
            let changes: Vec<NewValue> = names
                .iter()
                .zip(steps)
                .map(|(key, (current, operation))| {
                    // By what it has seen, so that it is no blind write.
                    let if_revision = Some(current.as_ref().map_or(0, |entry| entry.revision));
                    let (partition, operation) = (&partition, &operation);
                    let asked = Asked { caller, partition, key, operation, if_revision };
                    self.change_exactly(&asked, current).map_err(|problem| about(key, problem))
                })
                .collect::<Result<_, _>>()?;
            let entries: Vec<_> = names.iter().map(String::as_str).zip(changes).collect();
            let commit = self.within_limits(commit, &entries).await?;
            match self.commit(caller, commit, entries).await {
                Ok(done) => return Ok(transacted(names, done)),
                Err(store::Error::Conflict { .. }) => {}
                Err(error) => return Err(storage::problem(error)),
            }
        }
        Err(Problem::new(Code::Overloaded, "the document is changed by too many at once"))
    }
}

/// What has to be done with the entries that are not as they were.
fn differing(now: Vec<Entry>, then: Vec<Entry>) -> BTreeMap<String, (Option<Entry>, Operation)> {
    let mut now: BTreeMap<String, Entry> =
        now.into_iter().map(|entry| (entry.key.clone(), entry)).collect();
    let mut steps = BTreeMap::new();
    for Entry { key, value, .. } in then {
        let current = now.remove(&key);
        if current.as_ref().is_none_or(|entry| entry.value != value) {
            steps.insert(key, (current, Operation::Put(value)));
        }
    }
    let gone = now.into_iter().map(|(key, entry)| (key, (Some(entry), Operation::Delete)));
    steps.extend(gone);
    steps
}

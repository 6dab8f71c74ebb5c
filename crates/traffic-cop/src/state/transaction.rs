//! Several entries of a document at once: all of them, or none.

use crate::{
    state::{
        ATTEMPTS, DocumentId, Done, JsonPatch, LOCKS, Operation, States,
        change::{Asked, NewValue},
        entry_key, format_epoch,
    },
    storage,
};
use protocol::{Code, Problem};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use std::collections::{BTreeSet, HashSet};
use store::Commit;
use types::Caller;

/// Entries that one transaction changes.
pub const STEPS_MAX: usize = 32;

/// What to do with one entry, and on which condition. Read from
/// `{"op": "put", "key": "k", "value": 1, "if_revision": 7}`; the operations are `put`,
/// `patch` (a merge), `json_patch` and `delete`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(from = "StepForm")]
pub struct Step {
    /// Which entry.
    pub key: String,
    /// What to do.
    pub operation: Operation,
    /// Only if that is the revision of its latest change; 0 demands that there is none.
    pub if_revision: Option<u64>,
}

#[derive(Deserialize, schemars::JsonSchema)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
enum StepForm {
    Put {
        key: String,
        value: Json,
        if_revision: Option<u64>,
    },
    Patch {
        key: String,
        value: Json,
        if_revision: Option<u64>,
    },
    JsonPatch {
        key: String,
        #[schemars(with = "super::operation::PatchForm")]
        value: JsonPatch,
        if_revision: Option<u64>,
    },
    Delete {
        key: String,
        if_revision: Option<u64>,
    },
}

impl From<StepForm> for Step {
    fn from(form: StepForm) -> Self {
        let (key, operation, if_revision) = match form {
            StepForm::Put { key, value, if_revision } => (key, Operation::Put(value), if_revision),
            StepForm::Patch { key, value, if_revision } => {
                (key, Operation::Patch(value), if_revision)
            }
            StepForm::JsonPatch { key, value, if_revision } => {
                (key, Operation::JsonPatch(value), if_revision)
            }
            StepForm::Delete { key, if_revision } => (key, Operation::Delete, if_revision),
        };
        Self { key, operation, if_revision }
    }
}

impl schemars::JsonSchema for Step {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "TransactionStep".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        StepForm::json_schema(generator)
    }
}

/// A transaction that was applied. Its changes share one revision, in the order of its steps.
#[derive(Debug, Clone, PartialEq, Serialize, schemars::JsonSchema)]
pub struct Transacted {
    /// The life of the document.
    pub epoch: String,
    /// The revision that it made.
    pub revision: u64,
    /// The entries as they are now, in the order of the steps.
    pub entries: Vec<EntryNow>,
}

/// An entry after a transaction.
#[derive(Debug, Clone, PartialEq, Serialize, schemars::JsonSchema)]
pub struct EntryNow {
    /// Its key.
    pub key: String,
    /// Its value; missing if it was deleted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<Json>,
}

impl States {
    /// Changes several entries of a document in one commit: all, or none if any of the
    /// conditions does not hold.
    ///
    /// # Errors
    /// As [`States::apply`], with the member `key` of the entry that it is about; `bad_request`
    /// for no step, more than [`STEPS_MAX`], or two about the same entry.
    pub async fn transact(
        &self,
        caller: &Caller,
        id: &DocumentId,
        steps: &[Step],
    ) -> Result<Transacted, Problem> {
        let partition = id.writable_by(caller)?;
        if steps.is_empty() || steps.len() > STEPS_MAX {
            let detail = format!("a transaction has 1 to {STEPS_MAX} steps");
            return Err(Problem::new(Code::BadRequest, detail));
        }
        let mut unlike = HashSet::new();
        for step in steps {
            entry_key(&step.key).map_err(|problem| about(&step.key, problem))?;
            if !unlike.insert(step.key.as_str()) {
                let problem = Problem::new(Code::BadRequest, "two steps are about the same entry");
                return Err(about(&step.key, problem));
            }
        }
        // Always in the same order, so that two transactions never wait for each other.
        let places: BTreeSet<usize> = steps
            .iter()
            .map(|step| (self.hasher.hash_one((&partition, step.key.as_str())) as usize) % LOCKS)
            .collect();
        let mut turns = Vec::with_capacity(places.len());
        for place in places {
            let mut memory = self.locks[place].lock().await;
            // What is remembered of these entries is about to be another value.
            for step in steps {
                memory.take(&partition, &step.key);
            }
            turns.push(memory);
        }
        for _ in 0..ATTEMPTS {
            let current = steps.iter().map(|step| self.entry(&partition, &step.key));
            let current = futures_util::future::try_join_all(current).await?;
            let mut changes: Vec<NewValue> = Vec::with_capacity(steps.len());
            for (step, current) in steps.iter().zip(current) {
                let Step { key, operation, if_revision } = step;
                let (partition, if_revision) = (&partition, *if_revision);
                let asked = Asked { caller, partition, key, operation, if_revision };
                let added = self.added_since(&asked, current.as_ref()).await?;
                let change = self.change(&asked, current, added.as_ref());
                changes.push(change.map_err(|problem| about(key, problem))?);
            }
            let entries = steps.iter().map(|step| step.key.as_str()).zip(changes);
            let entries: Vec<_> = entries.collect();
            let commit = self.within_limits(Commit::new(partition.clone()), &entries).await?;
            match self.commit(caller, commit, entries).await {
                Ok(done) => {
                    let keys = steps.iter().map(|step| step.key.clone());
                    return Ok(transacted(keys, done));
                }
                Err(store::Error::Conflict { .. }) => {}
                Err(error) => return Err(storage::problem(error)),
            }
        }
        Err(Problem::new(Code::Overloaded, "the entries are changed by too many at once"))
    }
}

/// What a commit has made of the entries of `keys`.
pub(super) fn transacted(keys: impl IntoIterator<Item = String>, done: Done) -> Transacted {
    let values = done.values.into_iter().map(|(value, _)| value);
    let entries = keys.into_iter().zip(values);
    Transacted {
        epoch: format_epoch(done.position.incarnation),
        revision: done.position.revision,
        entries: entries.map(|(key, value)| EntryNow { key, value }).collect(),
    }
}

/// A problem, with the entry that it is about.
pub(super) fn about(key: &str, problem: Problem) -> Problem {
    problem.member("key", key)
}

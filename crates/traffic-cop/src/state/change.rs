//! What a write makes of an entry.

use crate::{
    state::{
        Entry, Merge, Operation, States, Who, document,
        expiry::Renewed,
        merge::{self, Meeting, Outcome, Seen},
        operation::{self, Bounds},
        past::span,
        permission::forbidden,
    },
    storage,
};
use protocol::{Code, Problem};
use serde_json::{Value as Json, value::RawValue};
use std::{borrow::Cow, collections::HashSet};
use store::Partition;
use types::Caller;

/// A write of an entry, as it is asked for.
pub(super) struct Asked<'a> {
    pub(super) caller: &'a Caller,
    pub(super) partition: &'a Partition,
    pub(super) key: &'a str,
    pub(super) operation: &'a Operation,
    pub(super) if_revision: Option<u64>,
}

/// What an entry is to become.
pub(super) struct NewValue {
    /// The revision that it has; 0: it is not there.
    pub(super) held: u64,
    /// The value, and the same as JSON; missing if it is to be deleted.
    pub(super) value: Option<(Json, Box<RawValue>)>,
    /// The values that it adds to a set, if it is a change of one.
    pub(super) added: Option<Vec<Json>>,
    /// How long it is to live.
    pub(super) renewed: Renewed,
}

impl States {
    /// What a write makes of an entry as it is, or why it is refused. `added_since`: what
    /// [`Self::added_since`] found.
    pub(super) fn change(
        &self,
        asked: &Asked<'_>,
        current: Option<Entry>,
        added_since: Option<&HashSet<Json>>,
    ) -> Result<NewValue, Problem> {
        if !self.may_write(asked.caller, asked.partition, asked.key) {
            return Err(forbidden(asked.key));
        }
        let document = document::name(asked.partition);
        let held = current.as_ref().map_or(0, |entry| entry.revision);
        let seen = match asked.if_revision {
            None => Seen::Unsaid,
            Some(expected) if expected == held => Seen::Present,
            Some(_) => Seen::Other,
        };
        let (merge, source) = self.merge(asked);
        let by_source = source.is_some_and(|source| source.includes(asked.caller));
        let value = current.as_ref().map(|entry| &entry.value);
        let meeting = Meeting { seen, current: value, by_source, added_since };
        let (operation, added) = match merge.outcome(asked.operation, meeting)? {
            Outcome::Apply(operation) => (operation, None),
            Outcome::Combined(operation, added) => (Cow::Owned(operation), Some(added)),
            Outcome::Conflict if seen == Seen::Unsaid => {
                let detail = "only its source writes the entry without `if_revision`".to_owned();
                return Err(Problem { detail, ..conflict(current) });
            }
            Outcome::Conflict => return Err(conflict(current)),
        };
        let bounds = Bounds { bytes: self.config.value_bytes_max, depth: self.config.depth_max };
        let made = operation.apply_to(value, bounds);
        let made = made.map_err(|problem| match problem.code == Code::Conflict {
            // A test of a patch: as with `if_revision`, what stands there is told.
            true => Problem { detail: problem.detail, ..conflict(current) },
            false => problem,
        });
        let value = match made? {
            None => None,
            Some(value) => {
                let written = self.written(&value)?;
                if let Some(schema) = document.and_then(|name| self.rules.schema(name, asked.key)) {
                    schema.check(&value)?;
                }
                Some((value, written))
            }
        };
        Ok(NewValue { held, value, added, renewed: Renewed::default() })
    }

    /// As [`Self::change`], for a value that is to be written as it is. A rule may take it for a
    /// change of a counter or a set; then it is refused.
    pub(super) fn change_exactly(
        &self,
        asked: &Asked<'_>,
        current: Option<Entry>,
    ) -> Result<NewValue, Problem> {
        let new = self.change(asked, current, None)?;
        match (asked.operation, &new.value) {
            (Operation::Put(meant), Some((made, _))) if meant != made => {
                let detail = "a rule takes the value for a change of the entry";
                Err(Problem::new(Code::BadRequest, detail))
            }
            _ => Ok(new),
        }
    }

    /// How writes of the entry come together, and who its source is. Rules are for documents.
    pub(super) fn merge(&self, asked: &Asked<'_>) -> (Merge, Option<&Who>) {
        let document = document::name(asked.partition);
        document.map(|name| self.rules.merge(name, asked.key)).unwrap_or_default()
    }

    /// The values that were added to a set after what a removal has seen. `None` if that does
    /// not matter, or is not known any more.
    pub(super) async fn added_since(
        &self,
        asked: &Asked<'_>,
        current: Option<&Entry>,
    ) -> Result<Option<HashSet<Json>>, Problem> {
        let (Some(seen), Some(current)) = (asked.if_revision, current) else { return Ok(None) };
        let matters = self.merge(asked).0 == Merge::AddWinsSet && merge::removes(asked.operation);
        if !matters || seen >= current.revision {
            return Ok(None);
        }
        let head = self.store.head(asked.partition).await.map_err(storage::problem)?;
        let (first, last) = span(head.as_ref());
        let mut known = first == 1;
        let mut added = HashSet::new();
        let told = self.backwards(asked.partition, first, last, |revision, change| {
            if revision <= seen {
                known = true;
                return true;
            }
            if change.key == asked.key {
                match (change.added, change.value) {
                    (Some(values), _) | (None, Some(Json::Array(values))) => added.extend(values),
                    (None, Some(_) | None) => {}
                }
            }
            false
        });
        Ok((told.await? && known).then_some(added))
    }

    /// A value as JSON, if it may be one of an entry.
    fn written(&self, value: &Json) -> Result<Box<RawValue>, Problem> {
        let unwritten = |_| Problem::new(Code::Internal, "the value cannot be written");
        let written = serde_json::value::to_raw_value(value).map_err(unwritten)?;
        let (actual, limit) = (written.get().len(), self.config.value_bytes_max);
        if actual > limit {
            let detail = format!("the value has {actual} bytes; at most {limit} are allowed");
            return Err(Problem::new(Code::BodyTooLarge, detail));
        }
        if operation::depth(value) > self.config.depth_max {
            let detail = format!("the value is nested deeper than {}", self.config.depth_max);
            return Err(Problem::new(Code::BadRequest, detail));
        }
        Ok(written)
    }
}

fn conflict(current: Option<Entry>) -> Problem {
    let problem = Problem::new(Code::Conflict, "the entry has another revision");
    match current {
        None => problem.member("revision", 0),
        Some(entry) => problem.member("revision", entry.revision).member("value", entry.value),
    }
}

//! What becomes of a write that others came before: the strategy that a rule names.

use crate::state::Operation;
use protocol::{Code, Problem};
use serde::Deserialize;
use serde_json::{Number, Value as Json};
use std::{borrow::Cow, collections::HashSet};

/// How writes of an entry come together. `if_revision` is what a write has seen of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Merge {
    /// A write that has seen an earlier revision is refused.
    #[default]
    Reject,
    /// Every write is applied to what is there, whatever it has seen.
    LastWriter,
    /// Writes of the rule's `source` are applied, whatever they have seen. All others are refused
    /// unless they have seen what is there: without `if_revision`, nobody else replaces it.
    SourceWins,
    /// An object that has seen an earlier revision is merged into what is there (RFC 7396), by
    /// `put` as by `patch`. A deletion and the steps of a JSON Patch cannot be merged, and are
    /// refused.
    MergePatch,
    /// A number. `{"add": 3}`, by `put` or `patch`, adds to what is there (to 0, if there is
    /// nothing), whatever it has seen. To set or delete the number is as with `reject`.
    Counter,
    /// An array without repeats. `{"add": […], "remove": […]}`, by `put` or `patch`, adds and
    /// removes values, whatever it has seen. A value that was added after the revision
    /// `if_revision` stays, though it was there before as well: whoever removes has not seen that
    /// it was wanted anew. Without `if_revision` a removal has seen all that is there. To set or
    /// delete the array is as with `reject`; setting it counts as adding each of its values.
    AddWinsSet,
}

/// What a write has seen of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    /// It does not say.
    Unsaid,
    /// What is there.
    Present,
    /// Another revision.
    Other,
}

/// What a write comes upon.
#[derive(Debug, Clone, Copy)]
pub(super) struct Meeting<'a> {
    pub(super) seen: Seen,
    pub(super) current: Option<&'a Json>,
    /// Whether the rule names the writer as the source.
    pub(super) by_source: bool,
    /// Values of a set that were added after what the write has seen, where that is known.
    pub(super) added_since: Option<&'a HashSet<Json>>,
}

/// What is to be done with the entry.
#[derive(Debug, PartialEq)]
pub(super) enum Outcome<'a> {
    /// This.
    Apply(Cow<'a, Operation>),
    /// This, which has added values to a set.
    Combined(Operation, Vec<Json>),
    /// Nothing: the write has to see what is there.
    Conflict,
}

/// Values to add to a set and to remove from it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SetChange {
    #[serde(default)]
    add: Vec<Json>,
    #[serde(default)]
    remove: Vec<Json>,
}

impl Merge {
    /// Whether a `put` depends on the value that is there.
    pub(super) fn needs_value(self) -> bool {
        match self {
            Self::MergePatch | Self::Counter | Self::AddWinsSet => true,
            Self::Reject | Self::LastWriter | Self::SourceWins => false,
        }
    }

    /// What a write comes to.
    ///
    /// # Errors
    /// `bad_request` for what is no counter, or no set.
    pub(super) fn outcome<'a>(
        self,
        operation: &'a Operation,
        meeting: Meeting<'_>,
    ) -> Result<Outcome<'a>, Problem> {
        let Meeting { seen, current, by_source, .. } = meeting;
        let as_it_is = Outcome::Apply(Cow::Borrowed(operation));
        let if_seen = match seen {
            Seen::Other => Outcome::Conflict,
            Seen::Unsaid | Seen::Present => Outcome::Apply(Cow::Borrowed(operation)),
        };
        Ok(match self {
            Self::Reject => if_seen,
            Self::LastWriter => as_it_is,
            Self::SourceWins => match seen {
                _ if by_source => as_it_is,
                Seen::Unsaid if current.is_some() => Outcome::Conflict,
                Seen::Unsaid | Seen::Present | Seen::Other => if_seen,
            },
            Self::MergePatch => match (seen, operation) {
                (Seen::Other, Operation::Put(value @ Json::Object(_))) => {
                    Outcome::Apply(Cow::Owned(Operation::Patch(value.clone())))
                }
                (Seen::Other, Operation::Patch(Json::Object(_))) => as_it_is,
                _ => if_seen,
            },
            Self::Counter => match operation {
                Operation::Put(Json::Number(_)) | Operation::Delete => if_seen,
                Operation::Put(value) | Operation::Patch(value) => {
                    let sum = sum(current, value)?;
                    Outcome::Apply(Cow::Owned(Operation::Put(Json::Number(sum))))
                }
                Operation::JsonPatch(_) => return Err(no_counter()),
            },
            Self::AddWinsSet => match operation {
                Operation::Put(Json::Array(values)) => {
                    let unlike: HashSet<&Json> = values.iter().collect();
                    if unlike.len() < values.len() {
                        return Err(no_set());
                    }
                    if_seen
                }
                Operation::Delete => if_seen,
                Operation::Put(value) | Operation::Patch(value) => return set(meeting, value),
                Operation::JsonPatch(_) => return Err(no_set()),
            },
        })
    }
}

/// Whether `operation` takes values out of a set, so that it matters what was added meanwhile.
pub(super) fn removes(operation: &Operation) -> bool {
    match operation {
        Operation::Put(Json::Object(change)) | Operation::Patch(Json::Object(change)) => {
            change.get("remove").is_some()
        }
        Operation::Put(_) | Operation::Patch(_) => false,
        Operation::JsonPatch(_) | Operation::Delete => false,
    }
}

fn set(meeting: Meeting<'_>, change: &Json) -> Result<Outcome<'static>, Problem> {
    let present = match meeting.current {
        None => &[][..],
        Some(Json::Array(values)) => values,
        Some(_) => return Err(no_set()),
    };
    let SetChange { add, remove } = SetChange::deserialize(change).map_err(|_| no_set())?;
    let none = HashSet::new();
    let stays = match (meeting.seen, meeting.added_since) {
        _ if remove.is_empty() || present.is_empty() => &none,
        (Seen::Unsaid | Seen::Present, _) => &none,
        (Seen::Other, Some(since)) => since,
        (Seen::Other, None) => return Ok(Outcome::Conflict),
    };
    let adds: HashSet<&Json> = add.iter().collect();
    let removes: HashSet<&Json> = remove.iter().collect();
    let leaves =
        |value: &Json| removes.contains(value) && !adds.contains(value) && !stays.contains(value);
    let mut values: Vec<Json> = present.iter().filter(|value| !leaves(value)).cloned().collect();
    let held: HashSet<&Json> = present.iter().collect();
    let mut new: HashSet<&Json> = HashSet::new();
    values.extend(add.iter().filter(|value| !held.contains(value) && new.insert(value)).cloned());
    Ok(Outcome::Combined(Operation::Put(Json::Array(values)), add))
}

/// What `{"add": n}` makes of a counter. Whole numbers stay whole.
fn sum(current: Option<&Json>, change: &Json) -> Result<Number, Problem> {
    let zero = Number::from(0);
    let present = match current {
        None => &zero,
        Some(Json::Number(number)) => number,
        Some(_) => return Err(no_counter()),
    };
    let change = change.as_object().filter(|change| change.len() == 1);
    let Some(Json::Number(more)) = change.and_then(|change| change.get("add")) else {
        return Err(no_counter());
    };
    let whole = |number: &Number| {
        let signed = number.as_i64().map(i128::from);
        signed.or_else(|| number.as_u64().map(i128::from))
    };
    let sum = match (whole(present), whole(more)) {
        (Some(present), Some(more)) => Number::from_i128(present + more),
        _ => present
            .as_f64()
            .zip(more.as_f64())
            .and_then(|(present, more)| Number::from_f64(present + more)),
    };
    let beyond = || Problem::new(Code::BadRequest, "the counter would leave the range of numbers");
    sum.ok_or_else(beyond)
}

fn no_counter() -> Problem {
    let detail = "the entry is a counter: a number, to which `{\"add\": 1}` adds";
    Problem::new(Code::BadRequest, detail)
}

fn no_set() -> Problem {
    let detail = "the entry is a set: an array without repeats, or `{\"add\": [], \"remove\": []}`";
    Problem::new(Code::BadRequest, detail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// What is expected: the value, `None` for a deletion; or the refusal.
    type Expected = Result<Option<Json>, Code>;

    /// Strategy, write, what it has seen, whether by the source, and what comes of it.
    type Case = (Merge, &'static str, Seen, bool, Result<&'static str, Code>);

    fn came_to(merge: Merge, operation: &Operation, meeting: Meeting<'_>) -> Expected {
        let bounds = crate::state::operation::Bounds { bytes: 1_000, depth: 8 };
        let operation = match merge.outcome(operation, meeting) {
            Ok(Outcome::Apply(operation)) => operation.into_owned(),
            Ok(Outcome::Combined(operation, _)) => operation,
            Ok(Outcome::Conflict) => return Err(Code::Conflict),
            Err(problem) => return Err(problem.code),
        };
        operation.apply_to(meeting.current, bounds).map_err(|problem| problem.code)
    }

    fn operation(text: &str) -> Operation {
        let (name, value) = text.split_once(' ').unwrap_or((text, "null"));
        let value: Json = serde_json::from_str(value).unwrap();
        match name {
            "put" => Operation::Put(value),
            "patch" => Operation::Patch(value),
            "steps" => Operation::JsonPatch(serde_json::from_value(value).unwrap()),
            "delete" => Operation::Delete,
            other => panic!("{other}"),
        }
    }

    #[test]
    fn every_strategy_by_what_was_seen() {
        use Merge::*;
        use Seen::*;
        let steps = r#"steps [{ "op": "add", "path": "/c", "value": 3 }]"#;
        let objects: &[Case] = &[
            (Reject, r#"put {"b":2}"#, Unsaid, false, Ok(r#"{"b":2}"#)),
            (Reject, r#"put {"b":2}"#, Present, false, Ok(r#"{"b":2}"#)),
            (Reject, r#"put {"b":2}"#, Other, true, Err(Code::Conflict)),
            (Reject, r#"patch {"b":2}"#, Other, true, Err(Code::Conflict)),
            (LastWriter, r#"put {"b":2}"#, Other, false, Ok(r#"{"b":2}"#)),
            (LastWriter, r#"patch {"b":2}"#, Other, false, Ok(r#"{"a":1,"b":2}"#)),
            (LastWriter, steps, Other, false, Ok(r#"{"a":1,"c":3}"#)),
            (LastWriter, "delete", Other, false, Ok("null")),
            (SourceWins, r#"put {"b":2}"#, Unsaid, true, Ok(r#"{"b":2}"#)),
            (SourceWins, r#"put {"b":2}"#, Other, true, Ok(r#"{"b":2}"#)),
            (SourceWins, "delete", Other, true, Ok("null")),
            (SourceWins, r#"put {"b":2}"#, Present, false, Ok(r#"{"b":2}"#)),
            (SourceWins, r#"put {"b":2}"#, Unsaid, false, Err(Code::Conflict)),
            (SourceWins, r#"patch {"b":2}"#, Unsaid, false, Err(Code::Conflict)),
            (SourceWins, "delete", Unsaid, false, Err(Code::Conflict)),
            (SourceWins, r#"put {"b":2}"#, Other, false, Err(Code::Conflict)),
            (MergePatch, r#"put {"b":2}"#, Unsaid, false, Ok(r#"{"b":2}"#)),
            (MergePatch, r#"put {"b":2}"#, Present, false, Ok(r#"{"b":2}"#)),
            (MergePatch, r#"put {"b":2}"#, Other, false, Ok(r#"{"a":1,"b":2}"#)),
            (MergePatch, r#"patch {"a":null}"#, Other, false, Ok("{}")),
            (MergePatch, "put 5", Other, false, Err(Code::Conflict)),
            (MergePatch, "patch [1]", Other, false, Err(Code::Conflict)),
            (MergePatch, steps, Other, false, Err(Code::Conflict)),
            (MergePatch, "delete", Other, false, Err(Code::Conflict)),
            (MergePatch, "delete", Present, false, Ok("null")),
        ];
        let (object, five, set) = (json!({ "a": 1 }), json!(5), json!(["a", "b", 1]));
        let counters: &[Case] = &[
            (Counter, r#"put {"add":2}"#, Unsaid, false, Ok("7")),
            (Counter, r#"patch {"add":-7}"#, Other, false, Ok("-2")),
            (Counter, r#"patch {"add":0.5}"#, Present, false, Ok("5.5")),
            (
                Counter,
                r#"patch {"add":18446744073709551610}"#,
                Unsaid,
                false,
                Ok("18446744073709551615"),
            ),
            (
                Counter,
                r#"patch {"add":18446744073709551611}"#,
                Unsaid,
                false,
                Err(Code::BadRequest),
            ),
            (Counter, r#"patch {"add":"2"}"#, Unsaid, false, Err(Code::BadRequest)),
            (Counter, r#"patch {"add":2,"x":1}"#, Unsaid, false, Err(Code::BadRequest)),
            (Counter, "put \"x\"", Unsaid, false, Err(Code::BadRequest)),
            (Counter, "patch 2", Unsaid, false, Err(Code::BadRequest)),
            (Counter, steps, Unsaid, false, Err(Code::BadRequest)),
            (Counter, "put 0", Unsaid, false, Ok("0")),
            (Counter, "put 0", Other, false, Err(Code::Conflict)),
            (Counter, "delete", Other, false, Err(Code::Conflict)),
            (Counter, "delete", Present, false, Ok("null")),
        ];
        let sets: &[Case] = &[
            (AddWinsSet, r#"patch {"add":["c","a","c"]}"#, Unsaid, false, Ok(r#"["a","b",1,"c"]"#)),
            (
                AddWinsSet,
                r#"put {"add":["c"],"remove":["a"]}"#,
                Present,
                false,
                Ok(r#"["b",1,"c"]"#),
            ),
            (
                AddWinsSet,
                r#"patch {"add":["a"],"remove":["a",1]}"#,
                Unsaid,
                false,
                Ok(r#"["a","b"]"#),
            ),
            // What was added since stays; see below for what that is here.
            (AddWinsSet, r#"patch {"remove":["a","b"]}"#, Other, false, Ok(r#"["b",1]"#)),
            (AddWinsSet, r#"patch {"remove":["a","b"]}"#, Unsaid, false, Ok("[1]")),
            (AddWinsSet, r#"patch {"remove":["none"]}"#, Present, false, Ok(r#"["a","b",1]"#)),
            (AddWinsSet, r#"put ["x"]"#, Unsaid, false, Ok(r#"["x"]"#)),
            (AddWinsSet, r#"put ["x"]"#, Other, false, Err(Code::Conflict)),
            (AddWinsSet, r#"put ["x","x"]"#, Unsaid, false, Err(Code::BadRequest)),
            (AddWinsSet, r#"patch ["x"]"#, Unsaid, false, Err(Code::BadRequest)),
            (AddWinsSet, r#"put {"more":[]}"#, Unsaid, false, Err(Code::BadRequest)),
            (AddWinsSet, steps, Unsaid, false, Err(Code::BadRequest)),
            (AddWinsSet, "delete", Other, false, Err(Code::Conflict)),
        ];
        let since = HashSet::from([json!("b"), json!("gone")]);
        for (current, cases) in [(&object, objects), (&five, counters), (&set, sets)] {
            for &(merge, text, seen, by_source, expected) in cases {
                let (operation, added_since) = (operation(text), Some(&since));
                let current = Some(current);
                let meeting = Meeting { seen, current, by_source, added_since };
                let expected = expected.map(|value| serde_json::from_str(value).unwrap());
                let expected = expected.map(|value: Json| (!value.is_null()).then_some(value));
                assert_eq!(
                    came_to(merge, &operation, meeting),
                    expected,
                    "{merge:?} {text} {seen:?} {by_source}"
                );
            }
        }
    }

    #[test]
    fn what_is_not_there_yet_and_what_is_not_known() {
        let check = |merge, text, current: Option<Json>, expected: Expected| {
            let (operation, current) = (operation(text), current.as_ref());
            let meeting =
                Meeting { seen: Seen::Other, current, by_source: false, added_since: None };
            assert_eq!(came_to(merge, &operation, meeting), expected, "{merge:?} {text}");
        };
        check(Merge::Counter, r#"patch {"add":2}"#, None, Ok(Some(json!(2))));
        check(Merge::Counter, r#"patch {"add":2}"#, Some(json!("x")), Err(Code::BadRequest));
        let change = r#"patch {"add":[1],"remove":[2]}"#;
        check(Merge::AddWinsSet, change, None, Ok(Some(json!([1]))));
        check(Merge::AddWinsSet, change, Some(json!([2])), Err(Code::Conflict));
        check(Merge::AddWinsSet, r#"patch {"add":[1]}"#, Some(json!([2])), Ok(Some(json!([2, 1]))));
        check(Merge::AddWinsSet, change, Some(json!({})), Err(Code::BadRequest));
        check(Merge::MergePatch, r#"put {"a":1}"#, None, Ok(Some(json!({ "a": 1 }))));
        check(Merge::LastWriter, "delete", None, Err(Code::NotFound));
    }
}

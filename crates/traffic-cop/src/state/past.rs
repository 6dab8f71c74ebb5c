//! A document as it was at an earlier revision.
//!
//! The stream of changes is walked backwards from the present. What did not change after the
//! revision is now as it was then; what did has the value of its last change up to then. The
//! stream does not reach back for ever: where it cannot tell, the answer is `lagged`, and never
//! a document of which a part is from another time.

use crate::{
    state::{
        ATTEMPTS, CHANGES, ChangeRecord, DocumentId, Entry, Snapshot, States, entry_key,
        format_epoch,
    },
    storage,
};
use protocol::{Code, Problem};
use std::collections::{BTreeMap, BTreeSet};
use store::{Head, Partition, Position};
use types::Caller;

/// Changes that are read at once: their values may be large.
const WINDOW: u64 = 128;

/// A point in the life of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moment {
    /// The revision at which it is seen, with all changes up to it.
    pub revision: u64,
    /// The life that the revision is of; if it is not named, the present one.
    pub epoch: Option<String>,
}

/// Entries as they are, read at this position or after it.
pub(super) struct Present {
    pub(super) position: Position,
    pub(super) entries: Vec<Entry>,
}

/// What a walk has found out about an entry that changed after the revision.
#[derive(Debug, PartialEq)]
enum Was {
    /// Nothing yet.
    Sought,
    /// There was none.
    Missing,
    /// This one.
    There(Entry),
}

/// A walk over changes, from the latest to earlier ones.
struct Walk<'a> {
    revision: u64,
    /// Entries that are asked for; all of them if none is named.
    keys: Option<&'a BTreeSet<String>>,
    /// What changed after the revision.
    changed: BTreeMap<String, Was>,
    /// How many of them are still sought.
    sought: usize,
    /// Whether a change up to the revision was seen, and so every one after it.
    arrived: bool,
}

impl<'a> Walk<'a> {
    fn to(revision: u64, keys: Option<&'a BTreeSet<String>>) -> Self {
        Self { revision, keys, changed: BTreeMap::new(), sought: 0, arrived: false }
    }

    /// Goes one change back.
    fn pass(&mut self, made_by: u64, change: ChangeRecord) {
        let ChangeRecord { key, value, created, .. } = change;
        self.arrived |= made_by <= self.revision;
        if self.keys.is_some_and(|keys| !keys.contains(&key)) {
            return;
        }
        if made_by > self.revision {
            let was = if created { Was::Missing } else { Was::Sought };
            self.sought += usize::from(was == Was::Sought);
            let later = self.changed.insert(key, was);
            self.sought -= usize::from(later == Some(Was::Sought));
        } else if let Some(was) = self.changed.get_mut(&key)
            && *was == Was::Sought
        {
            self.sought -= 1;
            *was = match value {
                Some(value) => Was::There(Entry { key, revision: made_by, value }),
                None => Was::Missing,
            };
        }
    }

    /// Whether earlier changes would tell nothing more.
    fn is_done(&self) -> bool {
        self.arrived && self.sought == 0
    }

    /// The entries as they were, from what they are; `None` if it cannot be told. `whole`:
    /// every change that there ever was has been passed.
    fn entries(mut self, now: &[Entry], whole: bool) -> Option<Vec<Entry>> {
        if !whole && !self.is_done() {
            return None;
        }
        let unchanged = now.iter().filter(|entry| !self.changed.contains_key(&entry.key));
        let mut then: BTreeMap<String, Entry> =
            unchanged.map(|entry| (entry.key.clone(), entry.clone())).collect();
        for (key, was) in std::mem::take(&mut self.changed) {
            match was {
                Was::There(entry) => drop(then.insert(key, entry)),
                // Where nothing was forgotten, what was never found never was.
                Was::Missing | Was::Sought => {}
            }
        }
        Some(then.into_values().collect())
    }
}

impl States {
    /// The whole document as it was at a revision.
    ///
    /// # Errors
    /// `lagged` with the member `first`, the offset of the first change that is left, if that is
    /// no longer known, or if the revision is not one of this life; `forbidden`, or those of
    /// the store.
    pub async fn snapshot_at(
        &self,
        caller: &Caller,
        id: &DocumentId,
        moment: &Moment,
    ) -> Result<Snapshot, Problem> {
        let partition = id.readable_by(caller)?;
        let (now, mut entries) = self.past(&partition, None, moment).await?;
        entries.retain(|entry| self.may_read(caller, &partition, &entry.key));
        let epoch = self.epoch(&partition, now.position).await?;
        Ok(Snapshot { epoch, revision: moment.revision, entries })
    }

    /// One entry as it was at a revision.
    ///
    /// # Errors
    /// `not_found` if there was none, and as [`Self::snapshot_at`].
    pub async fn get_at(
        &self,
        caller: &Caller,
        id: &DocumentId,
        key: &str,
        moment: &Moment,
    ) -> Result<Entry, Problem> {
        let partition = id.readable_by(caller)?;
        entry_key(key)?;
        self.check_read(caller, &partition, key)?;
        let keys = BTreeSet::from([key.to_owned()]);
        let (_, entries) = self.past(&partition, Some(&keys), moment).await?;
        let none = || Problem::new(Code::NotFound, "there was no such entry");
        entries.into_iter().next().ok_or_else(none)
    }

    /// Entries as they are, and as they were at a revision: those of `keys`, or all of them.
    pub(super) async fn past(
        &self,
        partition: &Partition,
        keys: Option<&BTreeSet<String>>,
        moment: &Moment,
    ) -> Result<(Present, Vec<Entry>), Problem> {
        for _ in 0..ATTEMPTS {
            let now = match keys {
                None => self.whole(partition).await?,
                Some(keys) => self.some(partition, keys).await?,
            };
            if let Some(then) = self.before(partition, keys, moment, &now).await? {
                return Ok((now, then));
            }
        }
        Err(Problem::new(Code::Overloaded, "the document changes faster than it can be read"))
    }

    /// Some entries as they are.
    pub(super) async fn some(
        &self,
        partition: &Partition,
        keys: &BTreeSet<String>,
    ) -> Result<Present, Problem> {
        let head = self.store.head(partition).await.map_err(storage::problem)?;
        let entries = keys.iter().map(|key| self.entry(partition, key));
        let entries = futures_util::future::try_join_all(entries).await?;
        let position = head.map_or(Position::ZERO, |head| head.position);
        Ok(Present { position, entries: entries.into_iter().flatten().collect() })
    }

    /// What the entries of `now` were at a revision. The stream is read after them, so that it
    /// tells of all that they show, and more: what changed between the two counts as changed.
    /// `None` if it was trimmed meanwhile, or began another life: read again.
    async fn before(
        &self,
        partition: &Partition,
        keys: Option<&BTreeSet<String>>,
        moment: &Moment,
        now: &Present,
    ) -> Result<Option<Vec<Entry>>, Problem> {
        let head = self.store.head(partition).await.map_err(storage::problem)?;
        let position = head.as_ref().map_or(Position::ZERO, |head| head.position);
        if position.incarnation != now.position.incarnation {
            return Ok(None);
        }
        let (first, last) = span(head.as_ref());
        let lagged = || {
            let detail = "the document as it was at that revision is not known, or no longer";
            Problem::new(Code::Lagged, detail).member("first", first)
        };
        let other_life = match &moment.epoch {
            None => false,
            Some(epoch) if position == Position::ZERO => {
                *epoch != self.epoch(partition, position).await?
            }
            Some(epoch) => *epoch != format_epoch(position.incarnation),
        };
        if other_life || moment.revision > now.position.revision {
            return Err(lagged());
        }
        let unchanged = |entry: &Entry| entry.revision <= moment.revision;
        if keys.is_some_and(|keys| keys.len() == now.entries.len())
            && now.entries.iter().all(unchanged)
        {
            return Ok(Some(now.entries.clone()));
        }
        let mut walk = Walk::to(moment.revision, keys);
        let told = self.backwards(partition, first, last, |revision, change| {
            walk.pass(revision, change);
            walk.is_done()
        });
        if !told.await? {
            return Ok(None);
        }
        walk.entries(&now.entries, first == 1).map(Some).ok_or_else(lagged)
    }

    /// Tells the changes from `last` to `first`, each after the one that was made later, until
    /// `pass` says that it is enough. `false`: they are no longer there.
    pub(super) async fn backwards(
        &self,
        partition: &Partition,
        first: u64,
        last: u64,
        mut pass: impl FnMut(u64, ChangeRecord) -> bool,
    ) -> Result<bool, Problem> {
        let mut end = last + 1;
        while end > first {
            let start = end.saturating_sub(WINDOW).max(first);
            let mut window = Vec::new();
            while start + (window.len() as u64) < end {
                let from = start + window.len() as u64;
                let limit = usize::try_from(end - from).unwrap_or(usize::MAX);
                match self.store.read(partition, &CHANGES, from, limit).await {
                    // Less than the head told: the store has lost its tail since.
                    Ok(page) if page.is_empty() => return Ok(false),
                    Ok(page) => window.extend(page),
                    Err(store::Error::Trimmed { .. }) => return Ok(false),
                    Err(error) => return Err(storage::problem(error)),
                }
            }
            for entry in window.iter().rev() {
                if pass(entry.revision, storage::decode(&entry.value)?) {
                    return Ok(true);
                }
            }
            end = start;
        }
        Ok(true)
    }
}

/// The first change that is left of a document, and the last one.
pub(super) fn span(head: Option<&Head>) -> (u64, u64) {
    let mut streams = head.into_iter().flat_map(|head| &head.streams);
    let changes = streams.find(|held| held.stream == CHANGES);
    changes.map_or((1, 0), |held| (held.first, held.last))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value as Json, json};
    use types::{PrincipalId, Timestamp};

    /// `(revision, key, value, created)`, the earliest first.
    type Made = (u64, &'static str, Option<i64>, bool);

    fn walked(changes: &[Made], revision: u64, whole: bool) -> Option<Vec<(String, u64, Json)>> {
        let mut now: BTreeMap<&str, Entry> = BTreeMap::new();
        now.insert("old", Entry { key: "old".into(), revision: 1, value: json!("old") });
        for &(revision, key, value, _) in changes {
            match value {
                Some(n) => {
                    now.insert(key, Entry { key: key.into(), revision, value: json!(n) });
                }
                None => drop(now.remove(key)),
            }
        }
        let now: Vec<Entry> = now.into_values().collect();
        let mut walk = Walk::to(revision, None);
        for &(made_by, key, value, created) in changes.iter().rev() {
            if walk.is_done() {
                break;
            }
            let (by, at) = (PrincipalId::new("ann").ok(), Timestamp(0));
            let (key, value, deleted) = (key.to_owned(), value.map(Json::from), value.is_none());
            walk.pass(made_by, ChangeRecord { key, value, deleted, created, added: None, by, at });
        }
        let then = walk.entries(&now, whole)?;
        Some(then.into_iter().map(|entry| (entry.key, entry.revision, entry.value)).collect())
    }

    #[test]
    fn the_past_is_whole_or_unknown() {
        let changes: &[Made] = &[
            (5, "a", Some(1), true),
            (6, "b", Some(2), false), // What `b` was before is forgotten.
            (7, "a", Some(3), false),
            (8, "c", Some(4), false),
            (8, "a", None, false), // With the change before in one transaction.
            (9, "b", None, false),
            (10, "b", Some(5), true),
            (11, "b", Some(6), false),
        ];
        let check = |revision, whole, expected: Option<&[(&str, u64, i64)]>| {
            let then = walked(changes, revision, whole).map(|then| {
                assert_eq!(then.last(), Some(&("old".to_owned(), 1, json!("old"))));
                then[..then.len() - 1].to_vec()
            });
            let expected = expected.map(|expected| {
                let entry =
                    |&(key, revision, n): &(&str, u64, i64)| (key.into(), revision, json!(n));
                expected.iter().map(entry).collect::<Vec<_>>()
            });
            assert_eq!(then, expected, "at {revision}, whole: {whole}");
        };
        check(12, false, Some(&[("b", 11, 6), ("c", 8, 4)]));
        check(11, false, Some(&[("b", 11, 6), ("c", 8, 4)]));
        check(10, false, Some(&[("b", 10, 5), ("c", 8, 4)]));
        check(9, false, Some(&[("c", 8, 4)]));
        check(8, false, Some(&[("b", 6, 2), ("c", 8, 4)]));
        // What `c` was is known only if nothing was forgotten: then it was not there.
        check(7, false, None);
        check(7, true, Some(&[("a", 7, 3), ("b", 6, 2)]));
        check(6, true, Some(&[("a", 5, 1), ("b", 6, 2)]));
        check(5, false, None);
        check(5, true, Some(&[("a", 5, 1)]));
        // Before the first change that is left, others may have been made.
        check(4, false, None);
        check(4, true, Some(&[]));
    }

    #[test]
    fn a_walk_ends_where_all_is_known() {
        let mut walk = Walk::to(5, None);
        let change = |key: &str, created| {
            let (by, at) = (PrincipalId::new("ann").ok(), Timestamp(0));
            let (key, value) = (key.to_owned(), Some(json!(1)));
            ChangeRecord { key, value, deleted: false, created, added: None, by, at }
        };
        walk.pass(7, change("a", false));
        walk.pass(7, change("a", false));
        walk.pass(6, change("b", true));
        assert!(!walk.is_done());
        walk.pass(5, change("b", true));
        assert!(!walk.is_done());
        walk.pass(4, change("a", false));
        assert!(walk.is_done());
        let keys = BTreeSet::from(["b".to_owned()]);
        let mut walk = Walk::to(5, Some(&keys));
        walk.pass(6, change("a", false));
        assert!(!walk.is_done());
        walk.pass(5, change("a", false));
        assert!(walk.is_done());
    }
}

//! What was asked for and answered, and what has to follow from it.

use serde_json::Value as Json;
use std::collections::BTreeMap;

/// How a write ended, for whoever asked for it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Outcome {
    Done {
        epoch: String,
        revision: u64,
        value: Option<Json>,
    },
    /// It has changed nothing.
    Refused,
    /// It has changed what it should, or nothing.
    Unknown,
}

/// A write of an entry.
#[derive(Debug, Clone)]
pub(crate) struct Written {
    pub(crate) key: &'static str,
    pub(crate) method: &'static str,
    /// Another one for every write.
    pub(crate) value: Json,
    pub(crate) if_revision: Option<u64>,
    pub(crate) outcome: Outcome,
}

/// The lives that the document lost, and how much of each the next one goes on from.
#[derive(Debug, Default)]
pub(crate) struct Lost(Vec<(String, u64)>);

impl Lost {
    /// As the document's lineage tells it.
    pub(crate) fn of(moves: &[Json]) -> Self {
        let mut lost = Vec::new();
        for two in moves.windows(2) {
            let [before, after] = two else { continue };
            let is_new = before["epoch"] != after["epoch"];
            assert_eq!(is_new, after["cause"] == "lost", "{two:?}");
            if is_new {
                assert_eq!(after["from"], "live", "only what is live may be lost: {two:?}");
                let epoch = before["epoch"].as_str().unwrap().to_owned();
                lost.push((epoch, after["revision"].as_u64().unwrap()));
            }
        }
        Self(lost)
    }

    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// Whether what a write made may be gone.
    fn includes(&self, written: &Written) -> bool {
        let Outcome::Done { epoch, revision, .. } = &written.outcome else { return false };
        self.0.iter().any(|(life, kept)| life == epoch && revision > kept)
    }
}

/// All that clients did.
#[derive(Debug, Default)]
pub(crate) struct Model {
    /// By whom, what, and whether it was acknowledged.
    publications: Vec<(usize, Json, bool)>,
    writes: Vec<Written>,
}

impl Model {
    pub(crate) fn published(&mut self, by: usize, data: Json, acknowledged: bool) {
        self.publications.push((by, data, acknowledged));
    }

    pub(crate) fn wrote(&mut self, written: Written) {
        self.writes.push(written);
    }

    /// The channel holds what was acknowledged, nothing twice, nothing else. What a client
    /// published after an acknowledgement comes behind what that was for.
    pub(crate) fn check_publications(&self, held: &[Json], is_all: bool) {
        let first = held.first().map_or(1, |first| first["offset"].as_u64().unwrap());
        for (offset, one) in (first..).zip(held) {
            assert_eq!(one["offset"], offset, "a gap in {held:?}");
            let sent = self.publications.iter().any(|(_, data, _)| *data == one["data"]);
            assert!(sent, "nobody published {one}");
        }
        // In the order in which they were asked for: where each is, if it is.
        let place = |data: &Json| {
            let mut places = held.iter().enumerate().filter(|(_, one)| one["data"] == *data);
            let place = places.next().map(|(place, _)| place);
            assert!(places.next().is_none(), "{data} is there twice: {held:?}");
            place
        };
        let places: Vec<_> = self.publications.iter().map(|(_, data, _)| place(data)).collect();
        for (at, (by, data, acknowledged)) in self.publications.iter().enumerate() {
            if !acknowledged {
                continue;
            }
            assert!(places[at].is_some() || !is_all, "{data} is lost: {held:?}");
            let later = self.publications[at + 1..].iter().zip(&places[at + 1..]);
            for ((_, other, _), place) in later.filter(|((of, _, _), _)| of == by) {
                let in_order = place.is_none_or(|place| Some(place) > places[at]);
                assert!(in_order, "{other} comes before {data}: {held:?}");
            }
        }
    }

    /// The changes explain the document and every answer, but for what was live and is lost.
    pub(crate) fn check_writes(&mut self, changes: &[Json], entries: &[Json], lost: &Lost) {
        self.writes.retain(|written| !lost.includes(written));
        let mut now: BTreeMap<String, (u64, Json)> = BTreeMap::new();
        let mut revision = 0;
        for change in changes {
            let next = change["revision"].as_u64().unwrap();
            assert!(next > revision, "out of order: {changes:?}");
            revision = next;
            let key = change["key"].as_str().unwrap().to_owned();
            let before = now.get(&key).cloned();
            self.check_change(change, before.as_ref());
            match change.get("value") {
                Some(value) => drop(now.insert(key, (revision, value.clone()))),
                None => drop(now.remove(&key)),
            }
        }
        let held: BTreeMap<String, (u64, Json)> = entries
            .iter()
            .map(|one| {
                let (key, revision) = (one["key"].as_str().unwrap(), one["revision"].as_u64());
                (key.to_owned(), (revision.unwrap(), one["value"].clone()))
            })
            .collect();
        assert_eq!(held, now, "the document is not what its changes make");
        for written in &self.writes {
            let Outcome::Done { revision, .. } = &written.outcome else { continue };
            let made = changes.iter().filter(|change| change["revision"] == *revision);
            assert_eq!(made.count(), 1, "{written:?} is lost: {changes:?}");
        }
    }

    /// A change was asked for, on a condition that held, and made what it should.
    fn check_change(&self, change: &Json, before: Option<&(u64, Json)>) {
        let (revision, value) = (change["revision"].as_u64().unwrap(), change.get("value"));
        let held = before.map_or(0, |(revision, _)| *revision);
        let explains = |written: &&Written| {
            let made = match written.method {
                "state.delete" => None,
                "state.patch" => {
                    let mut merged = before.map_or(Json::Null, |(_, value)| value.clone());
                    json_patch::merge(&mut merged, &written.value);
                    Some(merged)
                }
                _ => Some(written.value.clone()),
            };
            let outcome = match &written.outcome {
                Outcome::Done { revision: told, value: shown, .. } => {
                    *told == revision && *shown == made
                }
                Outcome::Refused => false,
                Outcome::Unknown => true,
            };
            outcome
                && change["key"] == written.key
                && value == made.as_ref()
                && written.if_revision.is_none_or(|expected| expected == held)
        };
        let told = self.writes.iter().any(|written| explains(&written));
        assert!(told, "nobody wrote {change} over {before:?}: {:?}", self.writes);
    }
}

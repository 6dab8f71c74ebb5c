//! Random commits, compared with a model of a page.

use crate::{Harness, harness::*};
use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};
use store::{
    Check, Commit, CommitId, Error, Incarnation, Key, Partition, Position, StreamName, Write,
};

/// Sequences and values.
type Entries = Vec<(u64, Vec<u8>)>;

#[derive(Debug, Default)]
struct Model {
    position: Option<Position>,
    fence: u64,
    records: BTreeMap<Key, (Vec<u8>, u64, Option<u64>)>,
    streams: BTreeMap<StreamName, (u64, Entries)>,
    ids: HashMap<CommitId, (Commit, u64, u64, Vec<u64>)>,
    wake: Option<u64>,
}

#[derive(Debug, PartialEq)]
enum Answer {
    Done { revision: u64, sequences: Vec<u64> },
    Conflict,
    Fenced,
    IdReused,
}

impl Model {
    fn revision(&self) -> u64 {
        self.position.map_or(0, |position| position.revision)
    }

    fn live(&self, key: &Key, now: u64) -> Option<u64> {
        let (_, revision, expires) = self.records.get(key)?;
        expires.is_none_or(|at| now < at).then_some(*revision)
    }

    fn commit(&mut self, commit: &Commit, now: u64) -> Answer {
        if let Some((first, at, revision, sequences)) =
            commit.id.and_then(|id| self.ids.get(&id)).filter(|known| now < known.1 + 600_000)
        {
            let same = (&first.checks, &first.writes) == (&commit.checks, &commit.writes);
            let _ = at;
            return if same {
                Answer::Done { revision: *revision, sequences: sequences.clone() }
            } else {
                Answer::IdReused
            };
        }
        let mut fence = self.fence;
        for check in &commit.checks {
            if let Check::Fence(epoch) = check {
                if *epoch < fence {
                    return Answer::Fenced;
                }
                fence = *epoch;
            }
        }
        let holds = commit.checks.iter().all(|check| match check {
            Check::Position(wanted) => *wanted == self.position.unwrap_or(Position::ZERO),
            Check::Incarnation(wanted) => {
                *wanted == self.position.unwrap_or(Position::ZERO).incarnation
            }
            Check::Revision { key, revision } => self.live(key, now) == Some(*revision),
            Check::Absent { key } => self.live(key, now).is_none(),
            Check::Fence(_) => true,
        });
        if !holds {
            return Answer::Conflict;
        }
        self.fence = fence;
        let revision = self.revision() + 1;
        let mut sequences = Vec::new();
        for write in &commit.writes {
            match write {
                Write::Put { key, value, expires } => {
                    let expires = expires.map(|after| now + after.as_millis() as u64);
                    self.records.insert(key.clone(), (value.to_vec(), revision, expires));
                }
                Write::Delete { key } => drop(self.records.remove(key)),
                Write::Append { stream, value } => {
                    let (last, entries) = self.streams.entry(stream.clone()).or_default();
                    *last += 1;
                    sequences.push(*last);
                    entries.push((*last, value.to_vec()));
                }
                Write::Trim { stream, first } => {
                    if let Some((_, entries)) = self.streams.get_mut(stream) {
                        entries.retain(|(sequence, _)| sequence >= first);
                    }
                }
                Write::Wake(after) => {
                    self.wake = after.map(|after| now + after.as_millis() as u64);
                }
                Write::Begin { .. } => unreachable!("the model does not begin"),
            }
        }
        if let Some(id) = commit.id {
            self.ids.insert(id, (commit.clone(), now, revision, sequences.clone()));
        }
        Answer::Done { revision, sequences }
    }
}

fn random_commit(random: &mut Random, p: &Partition, model: &Model, now: u64) -> Commit {
    let mut commit = Commit::new(p.clone());
    let any_key =
        |random: &mut Random| key(["a", "b", "ab", "c", "d/e", ""][random.below(6) as usize]);
    for _ in 0..random.below(3) {
        let key = any_key(random);
        let check = match random.below(7) {
            0 => Check::Position(model.position.unwrap_or(Position::ZERO)),
            1 => Check::Revision { revision: model.live(&key, now).unwrap_or(1), key },
            2 => Check::Revision { revision: random.below(model.revision() + 2), key },
            3 | 4 => Check::Absent { key },
            5 => {
                let Position { incarnation, .. } = model.position.unwrap_or(Position::ZERO);
                Check::Incarnation(Incarnation(incarnation.0 ^ u64::from(random.below(8) == 0)))
            }
            _ => Check::Fence((model.fence + random.below(3)).saturating_sub(1)),
        };
        commit = commit.check(check);
    }
    for _ in 0..random.below(5) {
        let key = any_key(random);
        let stream = [STREAM, OTHER][random.below(2) as usize].clone();
        let value = vec![random.below(256) as u8; random.below(20) as usize];
        let seconds = Duration::from_secs(random.below(40));
        let write = match random.below(10) {
            0..=2 => Write::Put { key, value: value.into(), expires: None },
            3 => Write::Put { key, value: value.into(), expires: Some(seconds) },
            4 | 5 => Write::Delete { key },
            6 | 7 => Write::Append { stream, value: value.into() },
            8 => Write::Trim { first: random.below(model.revision() + 2), stream },
            _ => Write::Wake((random.below(2) == 0).then_some(seconds)),
        };
        commit = commit.write(write);
    }
    if random.below(3) == 0 {
        commit = commit.id(CommitId([random.below(12) as u8; 16]));
    }
    if random.below(3) == 0 { commit.applied() } else { commit }
}

/// Random commits, retries, sweeps and reopenings answer as a model does, and leave the same.
pub async fn random_commits_agree_with_a_model(mut h: Harness) {
    let seed = std::env::var("CONFORMANCE_SEED")
        .map_or_else(|_| rand_seed(), |text| text.parse().unwrap());
    // Printed by the test runner if the test fails.
    println!("CONFORMANCE_SEED={seed}");
    let mut random = Random(seed);
    let partitions = ["p", "pp", ""].map(partition);
    let mut models: [Model; 3] = Default::default();
    let mut now = 0;
    for step in 0..1500 {
        let which = random.below(3) as usize;
        let (p, model) = (&partitions[which], &mut models[which]);
        match random.below(40) {
            0 => {
                let pass = [1, 30, 300, 601][random.below(4) as usize];
                if h.passed(Duration::from_secs(pass)).await {
                    now += pass * 1000;
                }
            }
            1 => {
                let swept = h.sweep(p.bucket()).await;
                let before = model.records.len();
                model.records.retain(|_, (.., expires)| expires.is_none_or(|at| now < at));
                assert_eq!(swept, before - model.records.len(), "seed {seed}, step {step}");
                let position = h.position(p).await;
                assert!(position.revision - model.revision() == u64::from(swept > 0));
                model.position = Some(position).filter(|at| *at != Position::ZERO);
            }
            2 if random.below(5) == 0 => drop(h.reopened()),
            _ => {}
        }
        let model = &mut models[which];
        let retry = model.ids.values().next().filter(|_| random.below(9) == 0);
        let commit = match retry {
            Some((commit, ..)) => commit.clone(),
            None => random_commit(&mut random, p, model, now),
        };
        let since = model.position.unwrap_or(Position::ZERO);
        let wanted = model.commit(&commit, now);
        let got = match h.store().commit(commit.clone()).await {
            Ok(committed) => {
                let at = h.position(p).await;
                model.position = Some(at);
                let revision = committed.position.revision;
                Answer::Done { revision, sequences: committed.sequences }
            }
            Err(Error::Conflict { .. }) => Answer::Conflict,
            Err(Error::Fenced { .. }) => Answer::Fenced,
            Err(Error::IdReused) => Answer::IdReused,
            Err(error) => panic!("seed {seed}, step {step}: {error}"),
        };
        assert_eq!(got, wanted, "seed {seed}, step {step}: {commit:?}");
        compare(&h, p, model, now, since, &format!("seed {seed}, step {step}: {commit:?}")).await;
    }
}

async fn compare(
    h: &Harness,
    p: &Partition,
    model: &Model,
    now: u64,
    since: Position,
    context: &str,
) {
    let records: Vec<_> = h.scan(p, b"", 2).await;
    let live = model.records.iter().filter(|(key, _)| model.live(key, now).is_some());
    let wanted = live.map(|(key, (value, revision, _))| (key.clone(), value.clone(), *revision));
    let got = records.iter().map(|(key, r)| (key.clone(), r.value.to_vec(), r.revision));
    assert_eq!(got.collect::<Vec<_>>(), wanted.collect::<Vec<_>>(), "{context}");
    let Some(head) = h.head(p).await else {
        assert_eq!(model.position, None, "{context}");
        return;
    };
    assert_eq!((head.fence, Some(head.position)), (model.fence, model.position), "{context}");
    for stream in &head.streams {
        let (last, entries) = &model.streams[&stream.stream];
        assert_eq!(stream.last, *last, "{context}");
        let got = h.entries(p, &stream.stream, stream.first, 50).await;
        let got: Vec<_> = got.into_iter().map(|e| (e.sequence, e.value.to_vec())).collect();
        assert_eq!(&got, entries, "{context}");
    }
    assert_eq!(head.streams.len(), model.streams.len(), "{context}");
    let due = h.store().due(p.bucket(), 9).await.unwrap().contains(p);
    assert_eq!(due, model.wake.is_some_and(|at| at <= now), "{context}");
    // Since before this commit: exactly the keys that it changed, with the values that are there.
    match h.store().changes(p, since).await {
        Ok(changes) => {
            assert_eq!(Some(changes.position), model.position, "{context}");
            for change in changes.keys {
                let live = model.live(&change.key, now);
                assert_eq!(change.value.is_some(), live.is_some(), "{context}: {change:?}");
                assert!(change.revision > since.revision, "{context}: {change:?}");
                assert!(live.is_none_or(|live| live == change.revision), "{context}: {change:?}");
            }
        }
        Err(error) => panic!("{context}: {error}"),
    }
}

fn rand_seed() -> u64 {
    let random = clock::random::<8>(&*clock::SystemClock::shared());
    u64::from_le_bytes(random)
}

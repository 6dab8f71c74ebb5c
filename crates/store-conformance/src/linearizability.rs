//! One record as everybody sees it: there is an order of all operations, in which each takes
//! effect at one moment between its call and its answer (Herlihy and Wing 1990).

use crate::{Harness, harness::*};
use stateright::semantics::{ConsistencyTester, LinearizabilityTester, SequentialSpec};
use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use store::{Check, Commit, Error, Partition, SharedStore, Write};
use tokio::task::JoinSet;

const TASKS: u64 = 3;
const OPERATIONS: u64 = 5;
/// Histories at a time under disturbance.
const AT_ONCE: u64 = 8;
/// After so many operations without an answer a task gives up: each of them may have happened
/// at any time since, and the search for an order grows with their number.
const UNKNOWN_MAX: u64 = 2;

/// What a task asks of the record. A revision of none: it must be absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Op {
    Get,
    Put(u64),
    Delete,
    Replace { seen: Option<u64>, value: u64 },
}

/// What it is answered: the revision of a commit, or the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Ret {
    Committed(u64),
    Conflict,
    Record(Option<(u64, u64)>),
}

/// A partition with one record, by the contract.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
struct Spec {
    revision: u64,
    record: Option<(u64, u64)>,
}

impl SequentialSpec for Spec {
    type Op = Op;
    type Ret = Ret;

    fn invoke(&mut self, op: &Op) -> Ret {
        let after = match op {
            Op::Get => return Ret::Record(self.record),
            Op::Replace { seen, .. } if *seen != self.record.map(|(_, revision)| revision) => {
                return Ret::Conflict;
            }
            Op::Put(value) | Op::Replace { value, .. } => Some(*value),
            Op::Delete => None,
        };
        self.revision += 1;
        self.record = after.map(|value| (value, self.revision));
        Ret::Committed(self.revision)
    }
}

/// A hundred histories of three tasks, or as many as `CROSSTOWN_HISTORIES` says.
pub async fn histories_of_a_record_are_linearizable(h: Harness) {
    let count = std::env::var("CROSSTOWN_HISTORIES").ok().and_then(|count| count.parse().ok());
    let store = h.shared();
    let mut unknown = 0;
    for seed in 0..count.unwrap_or(100) {
        unknown += history(&store, partition(&format!("history-{seed}")), seed).await.unwrap();
    }
    assert_eq!(unknown, 0, "nothing was disturbed");
}

/// What was seen while the store was disturbed.
#[derive(Debug, Clone, Copy, Default)]
pub struct Disturbed {
    /// Histories that have an order.
    pub histories: u64,
    /// Operations without an answer among theirs.
    pub unknown: u64,
    /// How often the store was disturbed.
    pub times: u64,
}

/// Runs histories, several at a time, and calls `disturb` so many times in their midst, evenly.
/// It disturbs the store and returns when the store can be reached again.
///
/// # Panics
/// With the history that has no order and its seed.
pub async fn disturbed(
    store: SharedStore,
    histories: u64,
    times: u64,
    mut disturb: impl AsyncFnMut(u64),
) -> Disturbed {
    let done = Arc::new(AtomicBool::new(false));
    let count = Arc::new(AtomicU64::new(0));
    let mut tasks = JoinSet::new();
    for _ in 0..AT_ONCE {
        let (store, done, count) = (store.clone(), done.clone(), count.clone());
        tasks.spawn(async move {
            let mut unknown = 0;
            while !done.load(Relaxed) {
                let seed = count.fetch_add(1, Relaxed);
                let partition = partition(&format!("disturbed-{seed}"));
                match history(&store, partition, seed).await {
                    Ok(more) => unknown += more,
                    Err(why) => panic!("{why}"),
                }
            }
            unknown
        });
    }
    for number in 1..=times {
        disturb(number).await;
        while count.load(Relaxed) * times < histories * number {
            tokio::time::sleep(Duration::from_millis(7)).await;
            if let Some(ended) = tasks.try_join_next() {
                ended.unwrap();
            }
        }
    }
    done.store(true, Relaxed);
    let unknown = tasks.join_all().await.iter().sum();
    Disturbed { histories: count.load(Relaxed), unknown, times }
}

/// How many histories and restarts a test of [`disturbed`] is to see: `CROSSTOWN_DISTURBED`, as
/// `2500,100`, or few.
#[must_use]
pub fn disturbed_length() -> (u64, u64) {
    let given = std::env::var("CROSSTOWN_DISTURBED").unwrap_or_else(|_| "240,4".to_owned());
    let numbers = given.split_once(',').map(|(a, b)| (a.parse().ok(), b.parse().ok()));
    let Some((Some(histories), Some(times))) = numbers else {
        panic!("CROSSTOWN_DISTURBED is `histories,restarts`, not {given}")
    };
    (histories, times)
}

/// Runs tasks that read and write one record of `partition`, which must not exist, and looks
/// for an order. Operations without an answer may have happened or not; how many there were is
/// the answer.
///
/// # Errors
/// The history, if there is no order.
pub async fn history(store: &SharedStore, partition: Partition, seed: u64) -> Result<u64, String> {
    let tester = Arc::new(Mutex::new(LinearizabilityTester::new(Spec::default())));
    let mut tasks = JoinSet::new();
    for task in 0..TASKS {
        let (store, partition, tester) = (store.clone(), partition.clone(), tester.clone());
        tasks.spawn(async move {
            let mut random = seed.wrapping_mul(TASKS).wrapping_add(task);
            let mut seen = None;
            let mut unknown = 0;
            for number in 0..OPERATIONS {
                if unknown == UNKNOWN_MAX {
                    break;
                }
                let value = task * OPERATIONS + number;
                let op = match splitmix(&mut random) % 8 {
                    0..=2 => Op::Get,
                    3 | 4 => Op::Put(value),
                    5 => Op::Delete,
                    _ => Op::Replace { seen, value },
                };
                // Even an engine that never waits lets others in between.
                for _ in 0..splitmix(&mut random) % 3 {
                    tokio::task::yield_now().await;
                }
                // A task whose operation has no answer goes on as another one.
                let thread = task + unknown * TASKS;
                tester.lock().unwrap().on_invoke(thread, op).unwrap();
                match run(&store, &partition, op).await {
                    Some(ret) => {
                        tester.lock().unwrap().on_return(thread, ret).unwrap();
                        match ret {
                            Ret::Record(record) => seen = record.map(|(_, revision)| revision),
                            Ret::Committed(revision) => seen = Some(revision),
                            Ret::Conflict => {}
                        }
                    }
                    None => {
                        unknown += 1;
                        // It goes on when it can see what is left of the history.
                        while store.head(&partition).await.is_err() {
                            tokio::time::sleep(Duration::from_millis(5)).await;
                        }
                    }
                }
            }
            unknown
        });
    }
    let unknown = tasks.join_all().await.iter().sum();
    let tester = tester.lock().unwrap();
    if tester.is_consistent() { Ok(unknown) } else { Err(format!("seed {seed}: {tester:#?}")) }
}

async fn run(store: &SharedStore, partition: &Partition, op: Op) -> Option<Ret> {
    let commit = Commit::new(partition.clone());
    let key = key("record");
    let commit = match op {
        Op::Get => {
            let record = store.get(partition, &key).await.ok()?;
            let record = record.map(|record| {
                let value = std::str::from_utf8(&record.value).unwrap().parse().unwrap();
                (value, record.revision)
            });
            return Some(Ret::Record(record));
        }
        Op::Put(value) => commit.put(key, value.to_string()),
        Op::Delete => commit.write(Write::Delete { key }),
        Op::Replace { seen, value } => {
            let check = match seen {
                None => Check::Absent { key: key.clone() },
                Some(revision) => Check::Revision { key: key.clone(), revision },
            };
            commit.check(check).put(key, value.to_string())
        }
    };
    match store.commit(commit).await {
        Ok(committed) => Some(Ret::Committed(committed.position.revision)),
        Err(Error::Conflict { .. }) => Some(Ret::Conflict),
        Err(error) if error.is_retryable() => None,
        Err(error) => panic!("{error}"),
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014).
fn splitmix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_read_has_no_order() {
        let mut tester = LinearizabilityTester::new(Spec::default());
        tester.on_invret(0, Op::Put(7), Ret::Committed(1)).unwrap();
        let mut stale = tester.clone();
        tester.on_invret(1, Op::Get, Ret::Record(Some((7, 1)))).unwrap();
        assert!(tester.is_consistent());
        stale.on_invret(1, Op::Get, Ret::Record(None)).unwrap();
        assert!(!stale.is_consistent());
    }
}

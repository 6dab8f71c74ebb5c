use super::*;
use crate::{genesis::Genesis, state::Config, state::Operation};
use clock::{ManualClock, SharedClock};
use ledger::{NodeId, Relay, Shard, acquire};
use serde_json::json;
use std::{collections::BTreeMap, sync::Arc};
use store::{Kind, SharedStore};
use store_memory::MemoryStore;
use types::{Caller, CredentialKind, Principal, PrincipalId, PrincipalKind, TenantId};

const TTL: Duration = Duration::from_secs(10);

fn caller() -> Caller {
    let id = PrincipalId::new("ann").unwrap();
    Caller::new(
        TenantId::new("acme").unwrap(),
        Principal { kind: PrincipalKind::User, id },
        CredentialKind::Jwt,
    )
}

/// A map, the nodes that write it, and its owner.
struct World {
    clock: Arc<ManualClock>,
    store: SharedStore,
    partition: Partition,
    nodes: Vec<SharedStates>,
    expiry: Expiry,
}

impl World {
    fn new(nodes: usize) -> Self {
        let clock = ManualClock::new(Timestamp(1_000_000), 7);
        let shared: SharedClock = clock.clone();
        let store: SharedStore = Arc::new(MemoryStore::new(shared.clone()));
        let genesis = Genesis::new(store.clone(), shared.clone());
        let node = || {
            let (store, genesis) = (store.clone(), genesis.clone());
            Arc::new(States::new(store, shared.clone(), Config::default(), genesis))
        };
        let nodes: Vec<_> = std::iter::repeat_with(node).take(nodes).collect();
        let expiry = Expiry::new(nodes[0].clone());
        let tenant = TenantId::new("acme").unwrap();
        let partition = Partition::new(tenant, Kind::new("map"), "board:1").unwrap();
        Self { clock, store, partition, nodes, expiry }
    }

    async fn put(&self, node: usize, key: &str, value: Json, ttl: Option<Duration>) {
        let (by, partition) = (caller(), self.partition.clone());
        let put = Operation::Put(value);
        self.nodes[node].apply_in(&by, partition, key, put, None, ttl).await.unwrap();
    }

    async fn remove(&self, node: usize, key: &str) -> bool {
        let (by, partition, node) = (caller(), self.partition.clone(), &self.nodes[node]);
        node.apply_in(&by, partition, key, Operation::Delete, None, Some(TTL)).await.is_ok()
    }

    /// What the owner of the shard does, if the partition is due.
    async fn sweep(&self) -> bool {
        let due = self.store.due(self.partition.bucket(), 10).await.unwrap();
        if due.is_empty() {
            return false;
        }
        assert_eq!(due, std::slice::from_ref(&self.partition));
        let clock: SharedClock = self.clock.clone();
        let (shard, node) = (Shard::of(&self.partition), NodeId::draw(&clock));
        let lease = acquire(&self.store, &clock, shard, &node).await.unwrap();
        let relay = Relay::new(self.store.clone());
        relay.serve(&lease, &self.partition, Some(&self.expiry)).await.unwrap();
        lease.release(&self.store).await.unwrap();
        true
    }

    /// The keys that a page shows, and those that somebody has who followed all changes.
    async fn seen(&self) -> (Vec<String>, Vec<String>) {
        let page = self.nodes[0].page(&self.partition, None, 1_000, usize::MAX, true);
        let page = page.await.unwrap().entries.into_iter().map(|entry| entry.key).collect();
        let mut followed = BTreeMap::new();
        for (key, value) in self.told().await {
            match value {
                Some(value) => followed.insert(key, value).map_or((), drop),
                // A removal of what nobody has would be the second one.
                None => drop(followed.remove(&key).expect("it is removed once")),
            }
        }
        (page, followed.into_keys().collect())
    }

    async fn told(&self) -> Vec<(String, Option<Json>)> {
        let mut told = Vec::new();
        loop {
            let from = told.len() as u64 + 1;
            let read = self.store.read(&self.partition, &CHANGES, from, 1_000).await.unwrap();
            if read.is_empty() {
                return told;
            }
            told.extend(read.iter().map(|entry| {
                let change: ChangeRecord = storage::decode(&entry.value).unwrap();
                (change.key, change.value)
            }));
        }
    }

    /// Lines of the timetable.
    async fn lines(&self) -> usize {
        let page = self.store.scan(&self.partition, TIMETABLE.as_bytes(), None, 1_000).await;
        page.unwrap().records.len()
    }
}

#[test]
fn a_life_is_renewed_and_its_line_moves_now_and_then() {
    let at = |seconds: u64| Timestamp(seconds * 1_000);
    let life = |ends, due| Some(Life { ends: at(ends), due: at(due) });
    let check = |held, now, ttl: Option<Duration>, expected: Renewed| {
        assert_eq!(renewed(held, at(now), ttl), expected, "{held:?} at {now}");
    };
    let moves = |life, leaves: Option<u64>, comes: Option<u64>| Renewed {
        life,
        leaves: leaves.map(at),
        comes: comes.map(at),
    };
    check(None, 0, None, Renewed::default());
    check(None, 0, Some(TTL), moves(life(10, 10), None, Some(10)));
    // The line stays while it lies far enough ahead, and the end is another all the same.
    check(life(10, 10), 5, Some(TTL), moves(life(15, 10), None, None));
    check(life(15, 10), 6, Some(TTL), moves(life(16, 16), Some(10), Some(16)));
    check(life(15, 10), 12, Some(TTL), moves(life(22, 22), Some(10), Some(22)));
    // What is to end earlier than its line says has another.
    check(life(10, 10), 1, Some(TTL / 2), moves(life(6, 6), Some(10), Some(6)));
    check(life(10, 10), 0, Some(TTL), moves(life(10, 10), None, None));
    check(life(10, 10), 5, None, moves(None, Some(10), None));
}

#[test]
fn an_entry_is_read_as_it_was_written() {
    let value = serde_json::value::to_raw_value(&json!({ "a": [1] })).unwrap();
    for life in [None, Some(Life { ends: Timestamp(u64::MAX), due: Timestamp(0) })] {
        let record = Record { value: written(&value, life), revision: 1 };
        assert_eq!(read(&record).unwrap(), (json!({ "a": [1] }), life));
    }
    for damaged in [&b"\x02"[..], b"\x02\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", b"\x03{}", b""] {
        assert!(read(&Record { value: Bytes::from_static(damaged), revision: 1 }).is_err());
    }
}

#[tokio::test]
async fn an_entry_ends_once_and_its_followers_are_told() {
    let world = World::new(2);
    world.put(0, "stays", json!(0), None).await;
    world.put(0, "a", json!(1), Some(TTL)).await;
    world.put(1, "b", json!(2), Some(TTL / 2)).await;
    assert!(!world.sweep().await);
    world.clock.advance(TTL / 2);
    // Nobody reads what has ended, though it is not taken out yet.
    let all = ["a", "b", "stays"].map(str::to_owned).to_vec();
    assert_eq!(world.seen().await, (vec!["a".to_owned(), "stays".to_owned()], all));
    // Whoever goes on after a page of such entries alone goes on after them.
    let a = Key::new("a").unwrap();
    let page = world.nodes[1].page(&world.partition, Some(&a), 1, usize::MAX, true).await.unwrap();
    assert_eq!((page.entries, page.last, page.more), (vec![], Key::new("b").ok(), true));
    assert!(world.sweep().await && !world.sweep().await);
    let left = vec!["a".to_owned(), "stays".to_owned()];
    assert_eq!(world.seen().await, (left.clone(), left));
    world.clock.advance(TTL / 2 - Duration::from_millis(1));
    assert!(!world.sweep().await);
    world.clock.advance(Duration::from_millis(1));
    assert!(world.sweep().await && !world.sweep().await);
    let left = vec!["stays".to_owned()];
    assert_eq!(world.seen().await, (left.clone(), left));
    assert_eq!(world.told().await.len(), 5);
    let head = world.store.head(&world.partition).await.unwrap().unwrap();
    let removed = world.store.read(&world.partition, &CHANGES, 5, 1).await.unwrap();
    let (change, by) = crate::state::publication(&removed[0]).unwrap();
    assert!(change.deleted && change.key == "a" && by.is_none() && head.fence > 0);
    assert_eq!(world.lines().await, 0);
}

#[tokio::test]
async fn what_is_renewed_stays_and_what_was_removed_is_not_removed_again() {
    let world = World::new(2);
    for key in ["renewed", "removed", "forever", "late"] {
        world.put(0, key, json!(1), Some(TTL)).await;
    }
    world.clock.advance(TTL / 2);
    world.put(1, "renewed", json!(2), Some(TTL)).await;
    assert!(world.remove(1, "removed").await && !world.remove(0, "removed").await);
    world.put(0, "forever", json!(2), None).await;
    world.clock.advance(TTL / 2);
    // It has ended, and its writer comes before the sweep.
    world.put(1, "late", json!(2), Some(TTL)).await;
    while world.sweep().await {}
    let left = ["forever", "late", "renewed"].map(str::to_owned).to_vec();
    assert_eq!(world.seen().await, (left.clone(), left));
    world.clock.advance(TTL);
    while world.sweep().await {}
    let left = vec!["forever".to_owned()];
    assert_eq!(world.seen().await, (left.clone(), left));
    assert_eq!(world.lines().await, 0);
}

#[tokio::test]
async fn a_line_that_is_another_ones_takes_nothing_out_twice() {
    let world = World::new(1);
    world.put(0, "a", json!(1), Some(TTL)).await;
    // As clocks leave them that differ.
    let mut commit = Commit::new(world.partition.clone());
    for early in [1, 2, 3_000] {
        let at = Timestamp(1_000_000 + early);
        commit = commit.put(line(at, "a").unwrap(), Bytes::new());
    }
    world.store.commit(commit.write(Write::Wake(Some(Duration::ZERO)))).await.unwrap();
    world.clock.advance(TTL / 2);
    while world.sweep().await {}
    assert_eq!((world.seen().await.1, world.lines().await), (vec!["a".to_owned()], 1));
    let again = line(Timestamp(1_000_000 + 5_001), "a").unwrap();
    world
        .store
        .commit(Commit::new(world.partition.clone()).put(again, Bytes::new()))
        .await
        .unwrap();
    world.clock.advance(TTL / 2);
    while world.sweep().await {}
    assert_eq!((world.seen().await.1, world.lines().await), (vec![], 0));
    assert_eq!(world.told().await.len(), 2);
}

#[tokio::test]
async fn whoever_comes_between_a_look_and_its_commit_is_seen() {
    let world = World::new(2);
    world.put(0, "a", json!(1), Some(TTL)).await;
    world.clock.advance(TTL);
    let now = Timestamp(2_000_000);
    for renewed in [true, false] {
        let (due, _) = world.expiry.look(&world.partition, now, 10).await.unwrap();
        let mut late = Commit::new(world.partition.clone());
        for one in due {
            late = settled(late, one, now).unwrap();
        }
        match renewed {
            true => world.put(1, "a", json!(2), Some(Duration::from_millis(1))).await,
            false => drop(world.remove(1, "a").await),
        }
        world.clock.advance(Duration::from_millis(1));
        let refused = world.store.commit(late).await;
        assert!(matches!(refused, Err(Error::Conflict { .. })), "{refused:?}");
    }
    // Nor does a later alarm take the place of an earlier one.
    while world.sweep().await {}
    let late = Commit::new(world.partition.clone());
    let late = world.nodes[0].waking(late, Timestamp(9_000_000)).await.unwrap();
    world.put(1, "early", json!(1), Some(TTL)).await;
    let refused = world.store.commit(late).await;
    assert!(matches!(refused, Err(Error::Conflict { .. })), "{refused:?}");
}

#[tokio::test]
async fn random_histories_end_alike_for_all() {
    for seed in 0..40_u64 {
        let world = World::new(2);
        let mut random = seed;
        let mut draw = |below: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040);
            (random >> 33) % below
        };
        // What ends when, as a writer knows.
        let mut model = BTreeMap::<String, Option<Timestamp>>::new();
        let shared: SharedClock = world.clock.clone();
        for step in 0..150 {
            let key = format!("k{}", draw(12));
            let node = usize::try_from(draw(2)).unwrap();
            match draw(10) {
                0..=5 => {
                    let ttl = [None, Some(TTL), Some(TTL), Some(TTL / 4)];
                    let ttl = ttl[usize::try_from(draw(4)).unwrap()];
                    world.put(node, &key, json!(step), ttl).await;
                    model.insert(key, ttl.map(|ttl| shared.now().plus(ttl)));
                }
                6 => {
                    world.remove(node, &key).await;
                    model.remove(&key);
                }
                7 | 8 => world.clock.advance(Duration::from_millis(draw(4_000))),
                _ => drop(world.sweep().await),
            }
            let now = shared.now();
            let alive = model.iter().filter(|(_, ends)| ends.is_none_or(|ends| now < ends));
            let alive: Vec<String> = alive.map(|(key, _)| key.clone()).collect();
            assert_eq!(world.seen().await.0, alive, "seed {seed} at {step}");
        }
        while world.sweep().await {}
        let (page, followed) = world.seen().await;
        assert_eq!(page, followed, "seed {seed}");
        world.clock.advance(TTL);
        while world.sweep().await {}
        let forever = model.iter().filter(|(_, ends)| ends.is_none());
        let forever: Vec<String> = forever.map(|(key, _)| key.clone()).collect();
        assert_eq!(world.seen().await, (forever.clone(), forever), "seed {seed}");
        assert_eq!(world.lines().await, 0, "seed {seed}");
    }
}

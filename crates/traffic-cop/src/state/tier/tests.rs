use super::{contents::Contents, *};
use crate::state::{
    CHANGES, Config, DocumentId, EntryRecord, Moment, Operation, Scope, States, Step,
};
use crate::{genesis::Genesis, storage};
use clock::SystemClock;
use protocol::{Code, Problem};
use serde_json::{Value as Json, json};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use store::{Check, Commit, Kind, Partition, Position, SharedStore, Store, Survives, Tiers};
use store_memory::{Fault, MemoryStore};
use types::{Caller, CredentialKind, Principal, PrincipalId, PrincipalKind, TenantId};

const TIERS: [Tier; 3] = [Tier::Live, Tier::Hot, Tier::Durable];

fn caller() -> Caller {
    Caller::new(
        TenantId::new("acme").unwrap(),
        Principal { kind: PrincipalKind::User, id: PrincipalId::new("ann").unwrap() },
        CredentialKind::Jwt,
    )
}

fn board() -> DocumentId {
    DocumentId(Scope::Pillar("board".into()))
}

fn partition() -> Partition {
    board().readable_by(&caller()).unwrap()
}

fn engine() -> Arc<MemoryStore> {
    Arc::new(MemoryStore::new(SystemClock::shared()))
}

/// The engines of a node, which outlive it, but for what is live.
struct Ground {
    hot: Arc<MemoryStore>,
    durable: Arc<MemoryStore>,
    authority: Authority,
    config: Config,
}

/// A node's documents.
struct Node {
    states: States,
    places: Arc<Places>,
}

impl Ground {
    fn new() -> Self {
        let (hot, durable) = (engine(), engine());
        Self { hot, durable, authority: Authority::Here, config: Config::default() }
    }

    fn node(&self) -> Node {
        let clock = SystemClock::shared();
        let engine_of =
            |partition: &Partition| tier_of(partition).map_or(store::Tier::Durable, Tier::engine);
        let tiers = Tiers::new(self.hot.clone(), self.durable.clone(), engine_of);
        let is_alone = self.authority == Authority::Here;
        let store: SharedStore = match is_alone {
            true => Arc::new(tiers.with_live(engine())),
            false => Arc::new(tiers),
        };
        let genesis = Genesis::new(store.clone(), clock.clone());
        let engines = Engines {
            live: is_alone.then_some(Survives::Nothing),
            hot: Survives::Process,
            durable: Survives::PowerLoss,
        };
        let live_bytes_max = self.config.promotion.live_bytes_max;
        let places = Places::new(
            store.clone(),
            clock.clone(),
            genesis.clone(),
            engines,
            self.authority,
            live_bytes_max,
        );
        let states = States::new(store, clock, self.config.clone(), genesis);
        Node { states: states.with_places(places.clone()), places }
    }
}

impl Node {
    async fn put(&self, key: &str, value: Json, at: Option<u64>) -> Result<u64, Problem> {
        let put = Operation::Put(value);
        let applied = self.states.apply(&caller(), &board(), key, put, at).await?;
        Ok(applied.revision)
    }

    async fn go(&self, to: Tier) -> bool {
        let order = order(to);
        self.places.relocate(&partition(), &order).await.unwrap().is_some()
    }

    async fn snapshot(&self) -> (String, u64, BTreeMap<String, (u64, Json)>) {
        let told = self.states.snapshot(&caller(), &board()).await.unwrap();
        let entry = |entry: crate::state::Entry| (entry.key, (entry.revision, entry.value));
        (told.epoch, told.revision, told.entries.into_iter().map(entry).collect())
    }

    /// `(offset, revision, key, value)`.
    async fn history(&self) -> Vec<(u64, u64, String, Option<Json>)> {
        let told = self.states.history(&caller(), &board(), 1, 1_000).await.unwrap();
        let one = |entry: crate::state::HistoryEntry| {
            (entry.offset, entry.change.revision, entry.change.key, entry.change.value)
        };
        told.into_iter().map(one).collect()
    }

    async fn ask(
        &self,
        of: &DocumentId,
        towards: Towards,
        tier: Option<Tier>,
    ) -> Result<Moved, Problem> {
        let wish = Wish { tier, reason: "because".into() };
        self.states.relocate(&caller(), of, towards, wish).await
    }

    async fn now(&self) -> TierNow {
        self.states.tier(&caller(), &board()).await.unwrap()
    }
}

fn order(to: Tier) -> Order {
    Order { to, cause: Cause::Request, reason: "a test".into(), by: None, score: None }
}

#[tokio::test]
async fn a_document_is_the_same_wherever_it_is() {
    let node = Ground::new().node();
    let first = node.put("a", json!(1), None).await.unwrap();
    node.put("b", json!({ "n": 1 }), None).await.unwrap();
    node.put("gone", json!(1), None).await.unwrap();
    node.states.apply(&caller(), &board(), "gone", Operation::Delete, None).await.unwrap();
    let (epoch, revision, entries) = node.snapshot().await;
    let history = node.history().await;
    for to in [Tier::Live, Tier::Hot, Tier::Durable, Tier::Live, Tier::Durable] {
        assert!(node.go(to).await);
        assert!(!node.go(to).await, "it is there");
        let (epoch_there, revision_there, entries_there) = node.snapshot().await;
        assert_eq!((&epoch_there, &entries_there), (&epoch, &entries), "{to:?}");
        assert!(revision_there >= revision);
        assert_eq!(node.history().await, history);
        assert_eq!(node.now().await.tier, to);
        let then = Moment { revision: first, epoch: Some(epoch.clone()) };
        let then = node.states.snapshot_at(&caller(), &board(), &then).await.unwrap();
        assert_eq!(then.entries.len(), 1);
    }
    // By a revision of long before.
    let stale = node.put("a", json!(2), Some(first + 1)).await.unwrap_err();
    assert_eq!((stale.code, &stale.members["revision"]), (Code::Conflict, &json!(first)));
    let second = node.put("a", json!(2), Some(first)).await.unwrap();
    let steps: Vec<Step> = serde_json::from_value(json!([
        { "op": "put", "key": "a", "value": 3, "if_revision": second },
        { "op": "patch", "key": "b", "value": { "m": 2 }, "if_revision": entries["b"].0 },
        { "op": "put", "key": "c", "value": 1, "if_revision": 0 },
    ]))
    .unwrap();
    node.states.transact(&caller(), &board(), &steps).await.unwrap();
    let (_, _, entries) = node.snapshot().await;
    assert_eq!(entries["b"].1, json!({ "n": 1, "m": 2 }));
    assert_eq!((&entries["a"].1, entries.len()), (&json!(3), 3));
    let moves = node.states.lineage(&caller(), &board(), 1, 100).await.unwrap();
    assert_eq!(moves.len(), 5);
    let last = &moves[4];
    assert_eq!((last.offset, last.moved.from, last.moved.to), (5, Tier::Live, Tier::Durable));
    assert_eq!((last.moved.entries, last.moved.generation), (2, 5));
}

#[tokio::test]
async fn who_was_a_little_behind_is_told_what_changed() {
    let node = Ground::new().node();
    for number in 0..5 {
        node.put(&format!("k{number}"), json!(number), None).await.unwrap();
    }
    let (epoch, seen, _) = node.snapshot().await;
    node.put("k1", json!("new"), None).await.unwrap();
    let delete = node.states.apply(&caller(), &board(), "k2", Operation::Delete, None).await;
    let deleted = delete.unwrap().revision;
    node.go(Tier::Live).await;
    let last = node.put("k3", json!("newer"), None).await.unwrap();
    let since = |revision| {
        let (states, epoch) = (&node.states, epoch.clone());
        async move { states.changes(&caller(), &board(), &epoch, revision).await }
    };
    let told = since(seen).await.unwrap();
    let keys: Vec<_> = told
        .changes
        .iter()
        .map(|change| (change.key.as_str(), change.revision, change.deleted))
        .collect();
    assert_eq!(keys, [("k1", seen + 1, false), ("k2", deleted, true), ("k3", last, false)]);
    assert_eq!(told.revision, last);
    assert_eq!(since(last).await.unwrap().changes, []);
    assert_eq!(since(last + 1).await.unwrap_err().code, Code::Lagged);
    let all = node.states.changes(&caller(), &board(), "", 0).await.unwrap().changes;
    let revisions: Vec<u64> = all.iter().map(|change| change.revision).collect();
    assert!(revisions.is_sorted(), "{revisions:?}");
    let other = node.states.changes(&caller(), &board(), "1234", seen).await;
    assert_eq!(other.unwrap_err().code, Code::Lagged);

    // What is trimmed cannot be told, and is not told in part.
    let at = node.places.placement(&partition()).await.unwrap().place.of(&partition()).unwrap();
    let trim = store::Write::Trim { stream: CHANGES, first: 7 };
    node.places.store.commit(Commit::new(at).write(trim)).await.unwrap();
    assert_eq!(since(seen).await.unwrap_err().code, Code::Lagged);
    assert!(since(deleted).await.is_ok());
}

/// Writers of one counter and of keys of their own, while the document moves.
async fn write_while_it_moves(nodes: Vec<Arc<Node>>, mover: Arc<Node>, moves: usize) {
    let (_, begun, _) = nodes[0].snapshot().await;
    let writer = |number: usize, node: Arc<Node>| async move {
        let mut held = 0;
        for n in 0..40_u64 {
            // By the revision that this writer knows, whatever has moved since.
            held = node.put(&format!("own-{number}"), json!(n), Some(held)).await.unwrap();
            loop {
                let counter = node.states.get(&caller(), &board(), "counter").await.unwrap();
                let next = json!(counter.value.as_u64().unwrap() + 1);
                match node.put("counter", next, Some(counter.revision)).await {
                    Ok(_) => break,
                    Err(problem) => assert_eq!(problem.code, Code::Conflict, "{problem:?}"),
                }
            }
            tokio::task::yield_now().await;
        }
    };
    let writers = nodes.len();
    let writers_at = nodes.iter().cloned().enumerate();
    let tasks: Vec<_> = writers_at.map(|(at, node)| tokio::spawn(writer(at, node))).collect();
    for number in 0..moves {
        mover.go(TIERS[number % 3]).await;
        tokio::task::yield_now().await;
    }
    for task in tasks {
        task.await.unwrap();
    }
    let (_, _, entries) = nodes[0].snapshot().await;
    assert_eq!(entries["counter"].1, json!(40 * writers));
    for at in 0..writers {
        assert_eq!(entries[&format!("own-{at}")].1, json!(39));
    }
    let history = nodes[0].history().await;
    let after: Vec<_> = history.iter().filter(|one| one.1 > begun).collect();
    assert_eq!(after.len(), 80 * writers, "each write is there once");
    assert!(history.windows(2).all(|two| two[0].0 + 1 == two[1].0 && two[0].1 < two[1].1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_while_it_moves() {
    let node = Arc::new(Ground::new().node());
    node.put("counter", json!(0), None).await.unwrap();
    let mut watcher = store::watch(node.places.clone());
    let (_, revision, _) = node.snapshot().await;
    let told = node.states.changes(&caller(), &board(), "", 0).await.unwrap();
    let incarnation = crate::state::parse_epoch(&told.epoch).unwrap();
    watcher.follow(partition(), Position { incarnation, revision });
    let follower = tokio::spawn(async move {
        let mut seen = revision;
        loop {
            let (_, changes) = watcher.next().await;
            for change in changes.unwrap().keys {
                assert!(change.revision > seen, "{change:?} after {seen}");
                seen = change.revision;
                let EntryRecord(value) = storage::decode(&change.value.unwrap()).unwrap();
                if change.key.as_bytes() == b"end" {
                    assert_eq!(value, json!(true));
                    return;
                }
            }
        }
    });
    write_while_it_moves(vec![node.clone(); 3], node.clone(), 60).await;
    node.put("end", json!(true), None).await.unwrap();
    tokio::time::timeout(Duration::from_secs(10), follower).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_share_their_stores_follow_each_others_moves() {
    let ground = Ground { authority: Authority::Shared, ..Ground::new() };
    let [here, there] = [(); 2].map(|()| Arc::new(ground.node()));
    here.put("counter", json!(0), None).await.unwrap();
    there.put("seen", json!(0), None).await.unwrap();
    write_while_it_moves(vec![here.clone(), there.clone()], here.clone(), 30).await;
    // What would be live is hot.
    there.go(Tier::Live).await;
    assert_eq!(here.now().await.tier, Tier::Hot);
}

#[tokio::test]
async fn a_move_that_was_cut_off_is_undone() {
    for steps in 1..=3 {
        let ground = Ground::new();
        let node = ground.node();
        let held = node.put("a", json!(1), None).await.unwrap();
        let (epoch, _, _) = node.snapshot().await;
        // The node ends after so many steps.
        let intent = node.places.intend(&partition(), Tier::Hot).await.unwrap();
        let from = intent.placement.place;
        if steps > 1 {
            let stands = node.places.close(&partition(), from).await.unwrap();
            if steps > 2 {
                let contents = Contents::of(&node.places.store, &partition(), &from).await;
                let places = &node.places;
                places.copy(&partition(), contents.unwrap(), intent.to, stands).await.unwrap();
            }
        }
        let next = ground.node();
        let (epoch_now, _, entries) = next.snapshot().await;
        assert_eq!((epoch_now, entries["a"].clone()), (epoch.clone(), (held, json!(1))));
        let held = next.put("a", json!(2), Some(held)).await.unwrap();
        assert_eq!(next.now().await.tier, Tier::Durable);
        assert!(next.go(Tier::Hot).await);
        let held = next.put("a", json!(3), Some(held)).await.unwrap();
        // Whoever is cut off wakes up again, and changes nothing.
        assert!(node.places.close(&partition(), from).await.is_err(), "the place is fenced");
        let position = Position { incarnation: store::Incarnation(1), revision: 1 };
        let (document, none) = (partition(), Contents::none());
        if let Ok(carried) = node.places.copy(&document, none, intent.to, position).await {
            let order = order(Tier::Hot);
            let switch = node.places.switch(&document, &intent, carried, &order);
            assert!(switch.await.is_err());
        }
        assert_eq!(ground.node().snapshot().await.2["a"], (held, json!(3)));
    }
}

#[tokio::test]
async fn a_document_stays_whole_whatever_commit_of_a_move_fails() {
    for fault in [Fault::LoseRequest, Fault::LoseReply, Fault::Full] {
        for number in 1..=12 {
            for to in [Tier::Hot, Tier::Live] {
                let ground = Ground::new();
                let node = ground.node();
                let held = node.put("a", json!(1), None).await.unwrap();
                let (epoch, _, _) = node.snapshot().await;
                for engine in [&ground.hot, &ground.durable] {
                    engine.plan_faults(|faults| faults.on_commit(number, fault));
                }
                let _ = node.places.relocate(&partition(), &order(to)).await;
                for engine in [&ground.hot, &ground.durable] {
                    engine.plan_faults(|_| store_memory::Faults::none());
                }
                let held = node.put("a", json!(2), Some(held)).await.unwrap();
                let (epoch_now, _, entries) = node.snapshot().await;
                assert_eq!(epoch_now, epoch, "{fault:?} at {number}");
                assert_eq!(entries["a"], (held, json!(2)));
                assert_eq!(node.history().await.len(), 2);
                node.go(to).await;
                node.put("a", json!(3), Some(held)).await.unwrap();
                // In order, as a node that is stopped.
                node.states.settle_down().await;
                let next = ground.node();
                assert_eq!(next.snapshot().await.2["a"].1, json!(3));
                assert_eq!(next.snapshot().await.0, epoch);
            }
        }
    }
}

#[tokio::test]
async fn what_was_live_and_is_lost_goes_on_in_a_new_life() {
    let ground = Ground::new();
    let node = ground.node();
    node.put("kept", json!(1), None).await.unwrap();
    node.go(Tier::Live).await;
    assert_eq!(node.now().await.survives, "nothing");
    let lost = node.put("lost", json!(1), None).await.unwrap();
    let (epoch, _, _) = node.snapshot().await;
    drop(node);
    let next = ground.node();
    let (epoch_now, _, entries) = next.snapshot().await;
    assert_ne!(epoch, epoch_now, "an old position must not be resumed from");
    assert_eq!(entries.keys().collect::<Vec<_>>(), ["kept"]);
    let since = next.states.changes(&caller(), &board(), &epoch, lost).await;
    assert_eq!(since.unwrap_err().code, Code::Lagged);
    let now = next.now().await;
    assert_eq!((now.tier, now.cause), (Tier::Durable, Some(Cause::Lost)));
    next.put("more", json!(1), None).await.unwrap();
    let again = ground.node();
    assert_eq!(again.snapshot().await, next.snapshot().await);
}

#[tokio::test]
async fn what_is_live_outlives_a_node_that_ends_in_order() {
    let ground = Ground::new();
    let node = ground.node();
    node.put("a", json!(1), None).await.unwrap();
    node.go(Tier::Live).await;
    let held = node.put("a", json!(2), None).await.unwrap();
    node.states.settle_down().await;
    let (epoch, _, _) = node.snapshot().await;
    let next = ground.node();
    let (epoch_now, _, entries) = next.snapshot().await;
    assert_eq!((epoch_now, entries["a"].clone()), (epoch, (held, json!(2))));
    let moves = next.states.lineage(&caller(), &board(), 2, 10).await.unwrap();
    assert_eq!((moves[0].moved.to, moves[0].moved.cause), (Tier::Durable, Cause::Shutdown));
}

#[tokio::test]
async fn a_place_that_was_left_is_empty() {
    let node = Ground::new().node();
    for number in 0..300 {
        node.put(&format!("k{number}"), json!("x".repeat(100)), None).await.unwrap();
    }
    let held = async |at: &Partition| {
        node.places.store.scan(at, b"", None, 1_000).await.unwrap().records.len()
    };
    let kept = async || {
        let kept = node.places.placement(&partition()).await.unwrap().kept;
        kept.map(|kept| kept.of(&partition()).unwrap())
    };
    // What survives less may be lost: then it is made again of what is kept, one at a time.
    node.go(Tier::Hot).await;
    assert_eq!((kept().await, held(&partition()).await), (Some(partition()), 300));
    node.go(Tier::Live).await;
    let hot = kept().await.unwrap();
    assert_eq!((held(&hot).await, held(&partition()).await), (300, 0));
    node.go(Tier::Durable).await;
    assert_eq!(held(&hot).await, 0);
    let placement = node.places.placement(&partition()).await.unwrap();
    assert!(placement.kept.is_none() && placement.left.is_empty());
    let listed = node.places.list(partition().tenant(), &Kind::new("state"), None, 10).await;
    assert_eq!(listed.unwrap().partitions, [partition()]);
    assert_eq!(node.snapshot().await.2.len(), 300);
}

#[tokio::test]
async fn large_and_missing_documents_move_as_well() {
    let node = Ground::new().node();
    // Never written: it has an epoch all the same.
    let (epoch, _, _) = node.snapshot().await;
    node.go(Tier::Live).await;
    assert_eq!(node.snapshot().await.0, epoch);
    node.put("a", json!(1), Some(0)).await.unwrap();

    // More commits to copy than there were to write: one revision each.
    let large = json!("x".repeat(60_000));
    for turn in 0..2 {
        let step =
            |number| json!({ "op": "put", "key": format!("k{turn}-{number}"), "value": large });
        let steps: Vec<Json> = (0..8).map(step).collect();
        let steps: Vec<Step> = serde_json::from_value(json!(steps)).unwrap();
        node.states.transact(&caller(), &board(), &steps).await.unwrap();
    }
    let (_, _, entries) = node.snapshot().await;
    for to in [Tier::Durable, Tier::Hot] {
        node.go(to).await;
        assert_eq!(node.snapshot().await.2, entries);
    }
}

#[tokio::test]
async fn what_was_trimmed_stays_so() {
    let mut ground = Ground::new();
    ground.config.history_max = 64;
    let node = ground.node();
    for number in 0..200 {
        node.put("k", json!(number), None).await.unwrap();
    }
    let history = async || {
        let read = node.states.history(&caller(), &board(), 150, 1_000).await.unwrap();
        read.into_iter().map(|one| (one.offset, one.change)).collect::<Vec<_>>()
    };
    let (epoch, _, _) = node.snapshot().await;
    let before = history().await;
    for to in TIERS {
        node.go(to).await;
        assert_eq!(history().await, before);
        let problem = node.states.history(&caller(), &board(), 1, 10).await.unwrap_err();
        assert_eq!(
            (problem.code, problem.members["first"].as_u64() > Some(64)),
            (Code::Lagged, true)
        );
        let since = node.states.changes(&caller(), &board(), &epoch, 10).await;
        assert_eq!(since.unwrap_err().code, Code::Lagged);
    }
    node.put("k", json!(1), None).await.unwrap();
    assert_eq!(history().await.last().unwrap().0, 201);
}

#[tokio::test]
async fn no_more_is_live_than_may_be() {
    let mut ground = Ground::new();
    ground.config.promotion.live_bytes_max = 20_000;
    let node = ground.node();
    let other = DocumentId(Scope::Pillar("other".into()));
    let text = |length| Operation::Put(json!("x".repeat(length)));
    for (of, length) in [(board(), 2_000), (other.clone(), 9_000)] {
        node.states.apply(&caller(), &of, "k", text(length), None).await.unwrap();
    }
    let live = node.ask(&board(), Towards::Live, Some(Tier::Live)).await.unwrap();
    assert_eq!(live.tier, Tier::Live);
    let refused = node.ask(&other, Towards::Live, Some(Tier::Live)).await.unwrap_err();
    assert_eq!((refused.code, refused.detail.contains("live_bytes_max")), (Code::StoreFull, true));
    node.states.apply(&caller(), &other, "k", text(10), None).await.unwrap();
    // What was written is counted, until it is measured.
    for expected in [Tier::Live, Tier::Durable] {
        for _ in 0..10 {
            node.put("k", json!("x".repeat(900)), None).await.unwrap();
        }
        assert!(node.places.live.is_full(0));
        node.places.relieve().await.unwrap();
        assert_eq!(node.now().await.tier, expected);
        assert!(!node.places.live.is_full(0));
    }
    assert_eq!(node.snapshot().await.2["k"].1, json!("x".repeat(900)));
}

#[tokio::test]
async fn the_policy_moves_what_is_not_pinned() {
    let ground = Ground::new();
    let node = ground.node();
    for number in 0..60 {
        node.put("cursor", json!(number), None).await.unwrap();
    }
    let now = node.now().await;
    assert_eq!((now.tier, now.explain.tier), (Tier::Durable, Tier::Live), "{now:?}");
    node.states.pin(&caller(), &board(), true).await.unwrap();
    let consider = async || node.states.consider(&node.places, &partition()).await;
    assert_eq!(consider().await.unwrap(), None);
    node.states.pin(&caller(), &board(), false).await.unwrap();
    let moved = consider().await.unwrap().unwrap();
    assert_eq!((moved.to, moved.cause, moved.score), (Tier::Live, Cause::Policy, Some(50)));
    assert_eq!(consider().await.unwrap(), None, "it stays");
    // It grows.
    node.put("text", json!("x".repeat(2_000)), None).await.unwrap();
    assert_eq!(consider().await.unwrap().unwrap().to, Tier::Durable);
    let simulation: Simulation = serde_json::from_value(json!({
        "policy": { "rest": "0s", "idle": "1h" },
        "tier": "durable",
        "observed": [
            { "bytes": 10, "writes_per_minute": 100.0 },
            { "bytes": 600, "writes_per_minute": 100.0 },
            { "bytes": 450, "writes_per_minute": 100.0 },
            { "bytes": 450, "unchanged_ms": 3_600_000 },
        ],
    }))
    .unwrap();
    let decisions = node.states.simulate(&caller(), &board(), &simulation).await.unwrap();
    let tiers: Vec<Tier> = decisions.iter().map(|decision| decision.tier).collect();
    assert_eq!(tiers, [Tier::Live, Tier::Hot, Tier::Hot, Tier::Durable]);
}

#[tokio::test]
async fn who_asks_is_told_what_may_be() {
    let mut ground = Ground::new();
    let node = ground.node();
    let moved = node.ask(&board(), Towards::Live, None).await.unwrap();
    assert_eq!((moved.moved, moved.tier, moved.survives), (true, Tier::Hot, "process"));
    let wrong = node.ask(&board(), Towards::Live, Some(Tier::Durable)).await;
    assert_eq!(wrong.unwrap_err().code, Code::BadRequest);
    let up = node.ask(&board(), Towards::Durable, None).await.unwrap();
    assert_eq!(up.tier, Tier::Durable);
    assert!(!node.ask(&board(), Towards::Durable, None).await.unwrap().moved);

    let service = DocumentId(Scope::Service("orders".into()));
    let refused = node.ask(&service, Towards::Live, None).await;
    assert_eq!(refused.unwrap_err().code, Code::Forbidden);
    let rule = json!({ "document": "pillar:*", "prefix": "price:", "write": false });
    ground.config.rules = vec![serde_json::from_value(rule).unwrap()];
    let ruled = ground.node();
    let refused = ruled.ask(&board(), Towards::Live, None).await;
    assert_eq!(refused.unwrap_err().code, Code::Forbidden);
    assert!(ruled.states.tier(&caller(), &board()).await.is_ok());

    let store: SharedStore = engine();
    let clock = SystemClock::shared();
    let genesis = Genesis::new(store.clone(), clock.clone());
    let fixed = States::new(store, clock, Config::default(), genesis);
    let refused = fixed.tier(&caller(), &board()).await.unwrap_err();
    assert_eq!(refused.code, Code::NotImplemented);
}

#[tokio::test]
async fn a_check_of_another_place_is_not_taken_for_one_of_this() {
    let node = Ground::new().node();
    node.put("a", json!(1), None).await.unwrap();
    node.go(Tier::Live).await;
    let key = store::Key::new("a").unwrap();
    let position = node.places.head(&partition()).await.unwrap().unwrap().position;
    for (revision, holds) in [(position.revision, false), (1, true)] {
        let check = Check::Revision { key: key.clone(), revision };
        let commit = Commit::new(partition()).check(check);
        assert_eq!(node.places.commit(commit).await.is_ok(), holds, "{revision}");
    }
}

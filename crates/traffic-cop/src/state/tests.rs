use super::*;
use crate::counting::Counting;
use clock::SystemClock;
use serde_json::json;
use store_memory::MemoryStore;
use types::{CredentialKind, Principal, PrincipalKind, TenantId};

mod rules;
mod sync;

fn caller() -> Caller {
    let id = PrincipalId::new("ann").unwrap();
    Caller::new(
        TenantId::new("acme").unwrap(),
        Principal { kind: PrincipalKind::User, id },
        CredentialKind::Jwt,
    )
}

fn document() -> DocumentId {
    DocumentId::new("pillar", "board").unwrap()
}

/// The documents of a node, and what it asks of its store.
struct Node {
    states: States,
    store: Arc<Counting>,
}

impl Node {
    fn on(store: &SharedStore) -> Self {
        Self::with(store, Config::default())
    }

    fn with(store: &SharedStore, config: Config) -> Self {
        let (clock, counting) = (SystemClock::shared(), Counting::over(store.clone()));
        let store: SharedStore = counting.clone();
        let genesis = Genesis::new(store.clone(), clock.clone());
        let states = States::new(store, clock, config, genesis);
        Self { states, store: counting }
    }

    async fn apply(&self, operation: Operation, at: Option<u64>) -> Result<Applied, Problem> {
        self.states.apply(&caller(), &document(), "k", operation, at).await
    }

    async fn patch(&self, patch: Json) -> Json {
        self.apply(Operation::Patch(patch), None).await.unwrap().value.unwrap()
    }

    async fn entry(&self) -> Entry {
        self.states.get(&caller(), &document(), "k").await.unwrap()
    }
}

fn memory() -> SharedStore {
    Arc::new(MemoryStore::new(SystemClock::shared()))
}

#[tokio::test]
async fn a_change_of_what_was_just_written_is_one_call() {
    let node = Node::on(&memory());
    node.patch(json!({ "a": 1 })).await;
    node.store.calls();
    for number in 0..10 {
        assert_eq!(node.patch(json!({ "b": number })).await, json!({ "a": 1, "b": number }));
        assert_eq!(node.store.calls(), 1);
    }
    let revision = node.entry().await.revision;
    node.store.calls();
    node.apply(Operation::Put(json!(5)), Some(revision)).await.unwrap();
    assert_eq!(node.store.calls(), 1);
    let deleted = node.apply(Operation::Delete, Some(revision + 1)).await.unwrap();
    assert_eq!((deleted.revision, deleted.value), (revision + 2, None));
    assert_eq!(node.store.calls(), 1);
    let problem = node.apply(Operation::Delete, None).await.unwrap_err();
    assert_eq!(problem.code, Code::NotFound);
    assert_eq!(node.patch(json!({ "c": 1 })).await, json!({ "c": 1 }));
}

#[tokio::test]
async fn a_patch_merges_into_what_another_node_has_written() {
    let store = memory();
    let [here, there] = [Node::on(&store), Node::on(&store)];
    let mut expected = serde_json::Map::new();
    for number in 0..100 {
        // In turns at first, then each several times.
        let node = if number % if number < 50 { 2 } else { 10 } == 0 { &here } else { &there };
        let name = format!("m{number}");
        let value = node.patch(json!({ name.clone(): number })).await;
        expected.insert(name, number.into());
        assert_eq!(value, Json::Object(expected.clone()));
    }
    assert_eq!(here.entry().await.value, Json::Object(expected));
    let changes = here.states.history(&caller(), &document(), 1, 1_000).await.unwrap();
    let revisions: Vec<u64> = changes.iter().map(|entry| entry.change.revision).collect();
    assert_eq!(revisions, (1..=100).collect::<Vec<u64>>());
}

#[tokio::test]
async fn what_is_remembered_refuses_nothing() {
    let store = memory();
    let [here, there] = [Node::on(&store), Node::on(&store)];
    let deep = |depth| (0..depth).fold(json!(1), |inner, _| json!({ "a": inner }));
    here.apply(Operation::Put(json!({ "large": "x".repeat(3_000) })), None).await.unwrap();
    // As large as a value may be, together with what was there before and is no longer.
    there.apply(Operation::Put(json!({})), None).await.unwrap();
    let patch = json!({ "more": "x".repeat(Config::default().value_bytes_max - 1_000) });
    assert_eq!(here.patch(patch.clone()).await, patch);
    let revision = there.apply(Operation::Put(json!(1)), None).await.unwrap().revision;
    // By a revision that only the store knows.
    here.apply(Operation::Put(json!(2)), Some(revision)).await.unwrap();
    let problem = there.apply(Operation::Put(json!(3)), Some(revision)).await.unwrap_err();
    assert_eq!(problem.code, Code::Conflict);
    assert_eq!(problem.members["value"], json!(2));
    assert_eq!(problem.members["revision"], json!(revision + 1));
    let problem = there.apply(Operation::Put(deep(64)), None).await.unwrap_err();
    assert_eq!(problem.code, Code::BadRequest);
    assert_eq!(here.entry().await.value, json!(2));
}

#[tokio::test]
async fn a_revision_of_a_lost_life_is_not_taken_for_one_of_the_next() {
    let (node, next) = (Node::on(&memory()), memory());
    node.patch(json!({ "lost": 1 })).await;
    node.store.lose(next.clone());
    // Another node comes to the same revision in the new life.
    let other = Node::on(&next);
    assert_eq!(other.patch(json!({ "new": 1 })).await, json!({ "new": 1 }));
    assert_eq!(node.patch(json!({ "more": 1 })).await, json!({ "new": 1, "more": 1 }));
}

fn step(step: Json) -> Step {
    serde_json::from_value(step).unwrap()
}

impl Node {
    async fn transact(&self, steps: &[Json]) -> Result<Transacted, Problem> {
        let steps: Vec<Step> = steps.iter().cloned().map(step).collect();
        self.states.transact(&caller(), &document(), &steps).await
    }

    async fn entries(&self) -> Json {
        let snapshot = self.states.snapshot(&caller(), &document()).await.unwrap();
        snapshot.entries.into_iter().map(|entry| (entry.key, entry.value)).collect()
    }
}

#[tokio::test]
async fn a_transaction_changes_all_or_nothing() {
    let node = Node::on(&memory());
    let put = |key: &str, value: Json| json!({ "op": "put", "key": key, "value": value });
    let first = node.transact(&[put("a", json!(1)), put("b", json!({ "x": 1 }))]).await.unwrap();
    assert_eq!(first.revision, 1);
    let done = node
        .transact(&[
            json!({ "op": "delete", "key": "a", "if_revision": 1 }),
            json!({ "op": "patch", "key": "b", "value": { "y": 2 } }),
            json!({ "op": "json_patch", "key": "b2", "value": [], "if_revision": 0 }),
        ])
        .await;
    let problem = done.unwrap_err();
    assert_eq!((problem.code, &problem.members["key"]), (Code::NotFound, &json!("b2")));
    assert_eq!(node.entries().await, json!({ "a": 1, "b": { "x": 1 } }), "nothing has changed");
    let done = node
        .transact(&[
            json!({ "op": "delete", "key": "a", "if_revision": 1 }),
            json!({ "op": "patch", "key": "b", "value": { "y": 2 } }),
            put("c", json!(3)),
        ])
        .await
        .unwrap();
    assert_eq!(done.revision, 2);
    let now: Vec<_> = done.entries.into_iter().map(|entry| (entry.key, entry.value)).collect();
    let expected = [("a", None), ("b", Some(json!({ "x": 1, "y": 2 }))), ("c", Some(json!(3)))];
    assert_eq!(now, expected.map(|(key, value)| (key.to_owned(), value)));
    assert_eq!(node.entries().await, json!({ "b": { "x": 1, "y": 2 }, "c": 3 }));
    // Followers see the steps in their order, at one revision.
    let told = node.states.history(&caller(), &document(), 3, 10).await.unwrap();
    let told: Vec<_> = told.iter().map(|entry| (entry.offset, entry.change.revision)).collect();
    assert_eq!(told, [(3, 2), (4, 2), (5, 2)]);
    // A single change goes by what the transaction has written.
    node.states
        .apply(&caller(), &document(), "c", Operation::Put(json!(4)), Some(2))
        .await
        .unwrap();
    let stale = node.transact(&[json!({ "op": "delete", "key": "c", "if_revision": 2 })]).await;
    let stale = stale.unwrap_err();
    assert_eq!((stale.code, &stale.members["value"]), (Code::Conflict, &json!(4)));
}

#[tokio::test]
async fn transactions_that_cannot_be_are_refused() {
    let node = Node::on(&memory());
    let put = |key: &str| json!({ "op": "put", "key": key, "value": 1 });
    let many: Vec<Json> = (0..=STEPS_MAX).map(|n| put(&n.to_string())).collect();
    for steps in [vec![], vec![put("a"), put("a")], vec![put("")], many] {
        assert_eq!(node.transact(&steps).await.unwrap_err().code, Code::BadRequest);
    }
    for wrong in [
        json!({ "op": "put", "key": "a" }),
        json!({ "op": "move", "key": "a" }),
        json!({ "op": "delete", "key": "a", "value": 1 }),
        json!({ "op": "json_patch", "key": "a", "value": [{ "op": "x" }] }),
    ] {
        assert!(serde_json::from_value::<Step>(wrong.clone()).is_err(), "{wrong}");
    }
    assert_eq!(node.entries().await, json!({}));
}

/// Two accounts between which many move money never hold another sum.
#[tokio::test]
async fn transactions_of_two_nodes_keep_a_sum() {
    let store = memory();
    let nodes = [Arc::new(Node::on(&store)), Arc::new(Node::on(&store))];
    let put = |key: &str| json!({ "op": "put", "key": key, "value": 100 });
    nodes[0].transact(&[put("a"), put("b")]).await.unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for mover in 0..8_usize {
        let node = nodes[mover % 2].clone();
        tasks.spawn(async move {
            let (mut moved, mut tried) = (0, 0);
            while moved < 10 {
                tried += 1;
                let entry = async |key| node.states.get(&caller(), &document(), key).await.unwrap();
                let (from, to) = if mover % 3 == 0 { ("a", "b") } else { ("b", "a") };
                let (a, b) = (entry(from).await, entry(to).await);
                let put = |entry: &Entry, by: i64| {
                    let value = entry.value.as_i64().unwrap() + by;
                    let (key, at) = (&entry.key, entry.revision);
                    json!({ "op": "put", "key": key, "value": value, "if_revision": at })
                };
                match node.transact(&[put(&a, -1), put(&b, 1)]).await {
                    Ok(_) => moved += 1,
                    Err(problem) => assert_eq!(problem.code, Code::Conflict, "{tried}"),
                }
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    let entries = nodes[1].entries().await;
    let (a, b) = (entries["a"].as_i64().unwrap(), entries["b"].as_i64().unwrap());
    // Movers 0, 3 and 6 move from a, the other five from b.
    assert_eq!((a, b), (100 + 20, 100 - 20));
}

impl Node {
    /// The document as it was: `{key: value}` with the revision of each entry.
    async fn at(&self, revision: u64) -> Result<Json, Problem> {
        let moment = Moment { revision, epoch: None };
        let snapshot = self.states.snapshot_at(&caller(), &document(), &moment).await?;
        assert_eq!(snapshot.revision, revision);
        let entry = |entry: Entry| (entry.key, json!([entry.revision, entry.value]));
        Ok(snapshot.entries.into_iter().map(entry).collect())
    }

    /// As [`Self::at`], now.
    async fn now(&self) -> Json {
        let snapshot = self.states.snapshot(&caller(), &document()).await.unwrap();
        let entry = |entry: Entry| (entry.key, json!([entry.revision, entry.value]));
        snapshot.entries.into_iter().map(entry).collect()
    }

    async fn write(&self, key: &str, value: Option<Json>) -> u64 {
        let operation = value.map_or(Operation::Delete, Operation::Put);
        let applied = self.states.apply(&caller(), &document(), key, operation, None).await;
        applied.unwrap().revision
    }

    async fn restore(&self, what: Json) -> Result<Transacted, Problem> {
        let what = serde_json::from_value(what).unwrap();
        self.states.restore(&caller(), &document(), &what).await
    }
}

/// A document is written at random, past its history's length; each revision that was seen is
/// read again as it was, or said to be unknown.
#[tokio::test]
async fn the_past_is_as_it_was_or_unknown() {
    let (node, other) = {
        let store = memory();
        (Node::on(&store), Node::on(&store))
    };
    let mut seen = vec![(0, json!({}))];
    let mut random = 7_u64;
    let mut next = |below: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (random >> 33) % below
    };
    for number in 0..2_500_u64 {
        let node = if next(2) == 0 { &node } else { &other };
        // Some keys change rarely; new ones come all the time.
        let key = match next(10) {
            0 => format!("new-{number}"),
            1..4 => format!("rare-{}", next(40)),
            _ => format!("often-{}", next(8)),
        };
        let there = node.states.get(&caller(), &document(), &key).await.is_ok();
        let value = (!there || next(4) > 0).then(|| json!(number));
        let revision = node.write(&key, value).await;
        if number % 50 == 0 || number > 2_400 {
            seen.push((revision, node.now().await));
        }
    }
    let (mut known, mut unknown) = (0, 0);
    for (revision, then) in &seen {
        match node.at(*revision).await {
            Ok(now) => {
                assert_eq!(now, *then, "at {revision}");
                known += 1;
            }
            Err(problem) => {
                assert_eq!(problem.code, Code::Lagged);
                assert!(problem.members["first"].as_u64().unwrap() > 1_000);
                unknown += 1;
            }
        }
        // One entry is known at least where the document is.
        let moment = Moment { revision: *revision, epoch: None };
        let one = node.states.get_at(&caller(), &document(), "often-3", &moment).await;
        match (one, then.get("often-3")) {
            (Ok(one), Some(then)) => assert_eq!(json!([one.revision, one.value]), *then),
            (Err(problem), None) => {
                assert!(matches!(problem.code, Code::NotFound | Code::Lagged), "{problem:?}");
            }
            (Err(problem), Some(_)) => assert_eq!(problem.code, Code::Lagged),
            (Ok(one), None) => panic!("{one:?} was not there at {revision}"),
        }
    }
    assert!(known > 50 && unknown > 10, "{known} {unknown}");
    let first = node.states.history(&caller(), &document(), 1, 1).await.unwrap_err();
    assert_eq!(first.code, Code::Lagged, "the history was trimmed");
}

/// What did not change since is known, though its last change is forgotten.
#[tokio::test]
async fn an_entry_that_did_not_change_is_known() {
    let node = Node::on(&memory());
    node.write("kept", Some(json!("as it was"))).await;
    let mut then = 0;
    for number in 0..1_200 {
        let revision = node.write("busy", Some(json!(number))).await;
        then = if number == 299 { revision } else { then };
    }
    let moment = |revision| Moment { revision, epoch: None };
    let at = async |key: &str, revision| {
        let told = node.states.get_at(&caller(), &document(), key, &moment(revision)).await;
        told.map(|entry| entry.value).map_err(|problem| problem.code)
    };
    assert_eq!(at("kept", then).await, Ok(json!("as it was")));
    assert_eq!(at("busy", then).await, Ok(json!(299)));
    assert_eq!(at("none", then).await, Err(Code::NotFound));
    assert_eq!(at("kept", 2).await, Ok(json!("as it was")));
    assert_eq!(at("busy", 2).await, Err(Code::Lagged));
    assert_eq!(at("none", 2).await, Err(Code::Lagged), "it may have been there");
    let whole = node.at(then).await.unwrap();
    assert_eq!(whole, json!({ "kept": [1, "as it was"], "busy": [then, 299] }));
}

#[tokio::test]
async fn a_revision_that_never_was_here_is_unknown() {
    let node = Node::on(&memory());
    assert_eq!(node.at(0).await.unwrap(), json!({}));
    assert_eq!(node.at(1).await.unwrap_err().code, Code::Lagged);
    node.write("a", Some(json!(1))).await;
    assert_eq!(node.at(2).await.unwrap_err().code, Code::Lagged);
    let epoch = node.states.snapshot(&caller(), &document()).await.unwrap().epoch;
    let at = |epoch: &str| Moment { revision: 1, epoch: Some(epoch.to_owned()) };
    assert!(node.states.snapshot_at(&caller(), &document(), &at(&epoch)).await.is_ok());
    let other = node.states.snapshot_at(&caller(), &document(), &at("1234")).await.unwrap_err();
    assert_eq!((other.code, &other.members["first"]), (Code::Lagged, &json!(1)));
}

#[tokio::test]
async fn a_document_is_made_again_what_it_was() {
    let node = Node::on(&memory());
    node.write("a", Some(json!(1))).await;
    node.write("b", Some(json!(2))).await;
    node.write("a", Some(json!(3))).await;
    node.write("b", None).await;
    node.write("c", Some(json!(4))).await;
    let done = node.restore(json!({ "revision": 2, "if_revision": 5 })).await.unwrap();
    assert_eq!(done.revision, 6);
    let now = |key: &str, value: Option<Json>| EntryNow { key: key.to_owned(), value };
    let expected = [now("a", Some(json!(1))), now("b", Some(json!(2))), now("c", None)];
    assert_eq!(done.entries, expected);
    assert_eq!(node.entries().await, json!({ "a": 1, "b": 2 }));
    // What was undone stays in the history, so that this can be undone too.
    assert_eq!(node.at(5).await.unwrap(), json!({ "a": [3, 3], "c": [5, 4] }));
    let again = node.restore(json!({ "revision": 5, "keys": ["c", "none"] })).await.unwrap();
    assert_eq!((again.revision, again.entries.len()), (7, 1));
    assert_eq!(node.entries().await, json!({ "a": 1, "b": 2, "c": 4 }));
    let none = node.restore(json!({ "revision": 2, "keys": ["a"] })).await.unwrap();
    assert_eq!((none.revision, none.entries), (7, Vec::new()), "nothing differs");
    let stale = node.restore(json!({ "revision": 2, "if_revision": 6 })).await.unwrap_err();
    assert_eq!((stale.code, &stale.members["revision"]), (Code::Conflict, &json!(7)));
    let none = node.restore(json!({ "revision": 2, "keys": [] })).await.unwrap_err();
    assert_eq!(none.code, Code::BadRequest);

    let start = node.now().await;
    for number in 0..=STEPS_MAX {
        node.write(&format!("more-{number}"), Some(json!(number))).await;
    }
    let many = node.restore(json!({ "revision": 7 })).await.unwrap_err();
    assert_eq!((many.code, &many.members["differing"]), (Code::BadRequest, &json!(STEPS_MAX + 1)));
    node.write("more-0", None).await;
    node.restore(json!({ "revision": 7 })).await.unwrap();
    assert_eq!(node.now().await, start);
    let none = node.restore(json!({ "revision": 0 })).await.unwrap();
    assert_eq!(none.entries.len(), 3);
    assert_eq!(node.entries().await, json!({}));
}

/// A change between looking and writing is undone with the others, though its entry was as it
/// should be when it was looked at.
#[tokio::test]
async fn a_restoration_is_whole_among_other_writers() {
    for keys in [None, Some(["a", "b"])] {
        let node = Node::on(&memory());
        let put = |key: &str| json!({ "op": "put", "key": key, "value": 0 });
        let start = node.transact(&[put("a"), put("b")]).await.unwrap().revision;
        node.write("a", Some(json!(5))).await;
        let change = ChangeRecord {
            key: "b".into(),
            value: Some(json!(9)),
            deleted: false,
            created: false,
            added: None,
            by: Some(caller().principal.id),
            at: Timestamp(0),
        };
        let other = Commit::new(document().writable_by(&caller()).unwrap())
            .put(Key::new("b").unwrap(), storage::encode(&EntryRecord(json!(9))))
            .append(CHANGES, storage::encode(&change));
        node.store.before_next_commit(other);
        let what = json!({ "revision": start, "keys": keys });
        let done = node.restore(what).await.unwrap();
        assert_eq!(node.entries().await, json!({ "a": 0, "b": 0 }), "{keys:?}");
        assert_eq!((done.revision, done.entries.len()), (4, 2));
    }
}

/// A node whose documents' entries `k…` come together so.
fn merging(store: &SharedStore, merge: &str) -> Node {
    let rule = json!({ "document": "pillar:*", "prefix": "k", "merge": merge });
    let rules = vec![serde_json::from_value(rule).unwrap()];
    Node::with(store, Config { rules, ..Config::default() })
}

#[tokio::test]
async fn no_increment_of_a_counter_is_lost() {
    let store = memory();
    let nodes = [merging(&store, "counter"), merging(&store, "counter")].map(Arc::new);
    let mut tasks = tokio::task::JoinSet::new();
    for adder in 0..8_usize {
        let node = nodes[adder % 2].clone();
        tasks.spawn(async move {
            for _ in 0..10 {
                // A revision that is past does not matter.
                let more = Operation::Patch(json!({ "add": 1 }));
                node.apply(more, Some(1)).await.unwrap();
                let step = json!({ "op": "put", "key": "k", "value": { "add": 2 } });
                node.transact(&[step]).await.unwrap();
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    assert_eq!(nodes[0].entry().await.value, json!(8 * 10 * 3));
    // What is remembered of it is added to as well.
    nodes[0].apply(Operation::Put(json!(1)), None).await.unwrap();
    nodes[0].store.calls();
    for expected in 2..20 {
        let sum = nodes[0].apply(Operation::Put(json!({ "add": 1 })), None).await.unwrap();
        assert_eq!(sum.value, Some(json!(expected)));
    }
    // Entries that no rule covers are as they ever were.
    let put = Operation::Put(json!({ "add": 1 }));
    let other = nodes[0].states.apply(&caller(), &document(), "other", put, None).await.unwrap();
    assert_eq!(other.value, Some(json!({ "add": 1 })));
}

#[tokio::test]
async fn what_was_added_since_is_not_removed() {
    let store = memory();
    let node = merging(&store, "add_wins_set");
    let change = async |change: Json, seen| {
        let applied = node.apply(Operation::Patch(change), seen).await;
        applied.map(|applied| (applied.revision, applied.value.unwrap()))
    };
    let (first, _) = change(json!({ "add": ["a", "b", "c"] }), None).await.unwrap();
    node.write("other", Some(json!(["a"]))).await;
    // Added again: it was there all the time, but is wanted anew.
    change(json!({ "add": ["b"] }), None).await.unwrap();
    let (last, left) = change(json!({ "remove": ["a", "b"] }), Some(first)).await.unwrap();
    assert_eq!(left, json!(["b", "c"]));
    let (_, left) = change(json!({ "remove": ["b"] }), Some(last)).await.unwrap();
    assert_eq!(left, json!(["c"]));
    // Set as a whole, each value is added; a transaction knows that too.
    node.apply(Operation::Put(json!(["c", "d"])), None).await.unwrap();
    let remove = json!({ "remove": ["c", "d"], "add": ["e"] });
    let step = json!({ "op": "patch", "key": "k", "value": remove, "if_revision": last });
    let done = node.transact(&[step]).await.unwrap();
    assert_eq!(done.entries[0].value, Some(json!(["c", "d", "e"])));
    // Where the history no longer tells, the remover has to look.
    for number in 0..1_200 {
        node.write("other", Some(json!(number))).await;
    }
    change(json!({ "add": ["f"] }), None).await.unwrap();
    let refused = change(json!({ "remove": ["c"] }), Some(last)).await.unwrap_err();
    assert_eq!(refused.code, Code::Conflict);
    assert_eq!(refused.members["value"], json!(["c", "d", "e", "f"]));
    let seen = refused.members["revision"].as_u64();
    let (_, left) = change(json!({ "remove": ["c"] }), seen).await.unwrap();
    assert_eq!(left, json!(["d", "e", "f"]));
}

#[tokio::test]
async fn the_source_wins() {
    let rule = json!({
        "document": "pillar:board", "merge": "source_wins", "source": { "principals": ["ann"] },
    });
    let rules = vec![serde_json::from_value(rule).unwrap()];
    let node = Node::with(&memory(), Config { rules, ..Config::default() });
    let bob = {
        let mut bob = caller();
        bob.principal.id = PrincipalId::new("bob").unwrap();
        bob
    };
    let by_bob = async |value: Json, seen| {
        let put = Operation::Put(value);
        node.states.apply(&bob, &document(), "k", put, seen).await
    };
    by_bob(json!(1), None).await.unwrap();
    node.apply(Operation::Put(json!(2)), Some(0)).await.unwrap();
    for seen in [None, Some(1)] {
        let refused = by_bob(json!(3), seen).await.unwrap_err();
        assert_eq!((refused.code, &refused.members["value"]), (Code::Conflict, &json!(2)));
    }
    by_bob(json!(4), Some(2)).await.unwrap();
    assert_eq!(node.entry().await.value, json!(4));
    // To restore is to have seen what is there.
    let what = serde_json::from_value(json!({ "revision": 2 })).unwrap();
    node.states.restore(&bob, &document(), &what).await.unwrap();
    assert_eq!(node.entry().await.value, json!(2));
}

#[tokio::test]
async fn a_stale_object_is_merged() {
    let node = merging(&memory(), "merge_patch");
    node.apply(Operation::Put(json!({ "a": 1 })), None).await.unwrap();
    for number in 0..3 {
        // By what is remembered too, which is not read with its value otherwise.
        let value = json!({ format!("b{number}"): number });
        node.apply(Operation::Put(value), Some(0)).await.unwrap();
    }
    assert_eq!(node.entry().await.value, json!({ "a": 1, "b0": 0, "b1": 1, "b2": 2 }));
}

use super::*;
use crate::counting::Counting;
use clock::SystemClock;
use serde_json::json;
use store_memory::MemoryStore;
use types::{CredentialKind, Principal, PrincipalKind, TenantId};

fn caller() -> Caller {
    let id = PrincipalId::new("ann").unwrap();
    Caller {
        tenant: TenantId::new("acme").unwrap(),
        principal: Principal { kind: PrincipalKind::User, id },
        session: None,
        roles: Arc::new([]),
        expires: None,
        credential: CredentialKind::Jwt,
        channels: Arc::default(),
        capabilities: Arc::default(),
    }
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
        let (clock, counting) = (SystemClock::shared(), Counting::over(store.clone()));
        let store: SharedStore = counting.clone();
        let genesis = Genesis::new(store.clone(), clock.clone());
        let states = States::new(store, clock, Config::default(), genesis);
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

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

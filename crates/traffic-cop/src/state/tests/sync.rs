use super::*;

/// A node with two documents.
struct Pair(Node);

impl Pair {
    fn new() -> Self {
        Self(Node::on(&memory()))
    }

    fn id(name: &str) -> DocumentId {
        DocumentId::new("pillar", name).unwrap()
    }

    async fn write(&self, name: &str, key: &str, value: Option<Json>) -> u64 {
        let operation = value.map_or(Operation::Delete, Operation::Put);
        let applied = self.0.states.apply(&caller(), &Self::id(name), key, operation, None).await;
        applied.unwrap().revision
    }

    fn transfer(keys: &[&str], strategy: SyncStrategy) -> Transfer {
        let keys = keys.iter().map(|&key| key.to_owned()).collect();
        Transfer { from: Self::id("a"), to: Self::id("b"), keys, strategy }
    }

    async fn sync(&self, keys: &[&str], strategy: SyncStrategy) -> Result<Synced, Problem> {
        self.0.states.sync(&caller(), &Self::transfer(keys, strategy)).await
    }

    async fn entries(&self) -> Json {
        let snapshot = self.0.states.snapshot(&caller(), &Self::id("b")).await.unwrap();
        snapshot.entries.into_iter().map(|entry| (entry.key, entry.value)).collect()
    }
}

#[tokio::test]
async fn what_was_copied_is_copied_again_and_nothing_else_is_overwritten() {
    let pair = Pair::new();
    let reject = SyncStrategy::Reject;
    pair.write("a", "k", Some(json!(1))).await;
    pair.write("a", "l", Some(json!({ "x": 1 }))).await;
    let first = pair.sync(&["k", "l", "none"], reject).await.unwrap();
    assert_eq!((first.synced, first.unchanged, first.from_revision, first.revision), (2, 0, 2, 1));
    assert_eq!(first.missing, ["none"]);
    assert_eq!(pair.entries().await, json!({ "k": 1, "l": { "x": 1 } }));
    for _ in 0..2 {
        let again = pair.sync(&["k", "l", "none"], reject).await.unwrap();
        assert_eq!((again.synced, again.unchanged, again.revision), (0, 2, 1), "nothing more");
    }
    // Only the source has changed it.
    pair.write("a", "k", Some(json!(2))).await;
    assert_eq!(pair.sync(&["k", "l"], reject).await.unwrap().synced, 1);
    // Both have.
    let theirs = pair.write("b", "l", Some(json!({ "y": 2 }))).await;
    let ours = pair.write("a", "l", Some(json!({ "x": 3 }))).await;
    pair.write("a", "k", Some(json!(3))).await;
    let both = pair.sync(&["k", "l"], reject).await.unwrap();
    assert_eq!((both.synced, both.unchanged), (1, 0));
    let side = |revision, value| SyncSide { revision, value };
    let (from, to) = (side(ours, json!({ "x": 3 })), Some(side(theirs, json!({ "y": 2 }))));
    assert_eq!(both.conflicts, [SyncConflict { key: "l".into(), from, to }]);
    assert_eq!(pair.entries().await, json!({ "k": 3, "l": { "y": 2 } }));

    let states = &pair.0.states;
    let (a, b) = (Pair::id("a"), Pair::id("b"));
    let status = states.sync_status(&caller(), &a, &b).await.unwrap();
    assert_eq!((status.synced, status.revision), (1, both.revision));
    assert_eq!((status.by.as_str(), status.conflicts), ("ann", vec!["l".to_owned()]));
    let none = states.sync_status(&caller(), &b, &a).await.unwrap_err();
    assert_eq!(none.code, Code::NotFound);

    let merged = pair.sync(&["l"], SyncStrategy::MergePatch).await.unwrap();
    assert_eq!(merged.synced, 1);
    assert_eq!(pair.entries().await["l"], json!({ "x": 3, "y": 2 }));
    let again = pair.sync(&["l"], SyncStrategy::MergePatch).await.unwrap();
    assert_eq!((again.synced, again.unchanged), (0, 1));
    // What was merged is not a copy: it is not replaced unseen.
    pair.write("a", "l", Some(json!({ "x": 4 }))).await;
    assert_eq!(pair.sync(&["l"], reject).await.unwrap().conflicts.len(), 1);
    assert_eq!(pair.sync(&["l"], SyncStrategy::SourceWins).await.unwrap().synced, 1);
    assert_eq!(pair.entries().await["l"], json!({ "x": 4 }));
    pair.write("a", "l", Some(json!(5))).await;
    assert_eq!(pair.sync(&["l"], reject).await.unwrap().synced, 1);
    // Deleted there, which is a change too; deleted here, which is not copied.
    pair.write("b", "l", None).await;
    assert_eq!(pair.sync(&["l"], reject).await.unwrap().conflicts[0].to, None);
    pair.write("a", "k", None).await;
    assert_eq!(pair.sync(&["k"], reject).await.unwrap().missing, ["k"]);
    assert_eq!(pair.entries().await, json!({ "k": 3 }));
}

#[tokio::test]
async fn a_copy_is_of_one_moment_and_comes_upon_nothing_unseen() {
    let pair = Pair::new();
    for key in ["k", "l"] {
        pair.write("a", key, Some(json!(1))).await;
    }
    // Somebody writes to the target just before the copy.
    let other = Commit::new(Pair::id("b").writable_by(&caller()).unwrap())
        .put(Key::new("l").unwrap(), storage::encode(&EntryRecord(json!(9))));
    pair.0.store.before_next_commit(other);
    let synced = pair.sync(&["k", "l"], SyncStrategy::Reject).await.unwrap();
    assert_eq!((synced.synced, synced.conflicts.len()), (1, 1));
    assert_eq!(pair.entries().await, json!({ "k": 1, "l": 9 }));
    // Somebody writes to the source while it is read: none of it is copied yet.
    let change = |key: &str| ChangeRecord {
        key: key.into(),
        value: Some(json!(2)),
        deleted: false,
        created: false,
        added: None,
        by: Some(caller().principal.id),
        at: Timestamp(0),
    };
    let mut other = Commit::new(Pair::id("a").writable_by(&caller()).unwrap());
    for key in ["k", "l"] {
        other = other
            .put(Key::new(key).unwrap(), storage::encode(&EntryRecord(json!(2))))
            .append(CHANGES, storage::encode(&change(key)));
    }
    pair.0.store.before_next_get(other);
    let synced = pair.sync(&["k", "l"], SyncStrategy::SourceWins).await.unwrap();
    assert_eq!((synced.synced, synced.unchanged, synced.from_revision), (1, 1, 2));
    assert_eq!(pair.entries().await, json!({ "k": 1, "l": 1 }));
    let synced = pair.sync(&["k", "l"], SyncStrategy::Reject).await.unwrap();
    assert_eq!((synced.synced, synced.from_revision), (2, 3));
}

fn note() -> (Partition, Key) {
    let kind = store::Kind::new("state-copy");
    let id = crate::secret::hash("pillar:a pillar:b");
    (Partition::new(caller().tenant, kind, &id).unwrap(), Key::new("note").unwrap())
}

/// As after a crash between the copy and its note.
#[tokio::test]
async fn without_its_note_a_copy_overwrites_nothing() {
    let pair = Pair::new();
    pair.write("a", "k", Some(json!(1))).await;
    pair.sync(&["k"], SyncStrategy::Reject).await.unwrap();
    let (partition, key) = note();
    let forget = Commit::new(partition).write(Write::Delete { key });
    pair.0.states.store.commit(forget.clone()).await.unwrap();
    // The same again finds it in agreement, and notes it.
    let again = pair.sync(&["k"], SyncStrategy::Reject).await.unwrap();
    assert_eq!((again.synced, again.unchanged), (0, 1));
    pair.write("a", "k", Some(json!(2))).await;
    assert_eq!(pair.sync(&["k"], SyncStrategy::Reject).await.unwrap().synced, 1);
    // Where the source has changed by then, it is told.
    pair.0.states.store.commit(forget).await.unwrap();
    pair.write("a", "k", Some(json!(3))).await;
    assert_eq!(pair.sync(&["k"], SyncStrategy::Reject).await.unwrap().conflicts.len(), 1);
    assert_eq!(pair.entries().await, json!({ "k": 2 }));
}

/// In another life the same revision may be that of another value.
#[tokio::test]
async fn a_note_of_another_life_does_not_count() {
    let pair = Pair::new();
    pair.write("a", "k", Some(json!(1))).await;
    pair.sync(&["k"], SyncStrategy::Reject).await.unwrap();
    let epoch = pair.0.states.snapshot(&caller(), &Pair::id("b")).await.unwrap().epoch;
    let (partition, key) = note();
    let store = &pair.0.states.store;
    let record = store.get(&partition, &key).await.unwrap().unwrap();
    let text = std::str::from_utf8(&record.value).unwrap().replace(&epoch, "1234");
    assert_ne!(text.as_bytes(), &*record.value);
    store.commit(Commit::new(partition).put(key, text.into_bytes())).await.unwrap();
    pair.write("a", "k", Some(json!(2))).await;
    assert_eq!(pair.sync(&["k"], SyncStrategy::Reject).await.unwrap().conflicts.len(), 1);
}

#[tokio::test]
async fn copies_that_cannot_be_are_refused() {
    let pair = Pair::new();
    pair.write("a", "k", Some(json!(1))).await;
    let many: Vec<String> = (0..=STEPS_MAX).map(|number| number.to_string()).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    for keys in [&[][..], &[""], &many] {
        let refused = pair.sync(keys, SyncStrategy::Reject).await.unwrap_err();
        assert_eq!(refused.code, Code::BadRequest);
    }
    let itself = Transfer { to: Pair::id("a"), ..Pair::transfer(&["k"], SyncStrategy::Reject) };
    let refused = pair.0.states.sync(&caller(), &itself).await.unwrap_err();
    assert_eq!(refused.code, Code::BadRequest);
    let theirs = DocumentId::new("user", "bob").unwrap();
    for transfer in [
        Transfer { to: theirs.clone(), ..itself.clone() },
        Transfer { from: theirs.clone(), ..itself.clone() },
        Transfer { to: DocumentId::new("service", "s").unwrap(), ..itself },
    ] {
        let refused = pair.0.states.sync(&caller(), &transfer).await.unwrap_err();
        assert_eq!(refused.code, Code::Forbidden, "{transfer:?}");
    }
    let status = pair.0.states.sync_status(&caller(), &theirs, &Pair::id("a")).await.unwrap_err();
    assert_eq!(status.code, Code::Forbidden);

    let rules = json!([
        { "document": "pillar:a", "prefix": "k", "read": { "kinds": ["service"] } },
        { "document": "pillar:b", "prefix": "l", "write": { "kinds": ["service"] } },
        { "document": "pillar:b", "prefix": "m", "schema": { "type": "string" } },
        { "document": "pillar:b", "prefix": "o", "merge": "counter" },
    ]);
    let rules = serde_json::from_value(rules).unwrap();
    let pair = Pair(Node::with(&memory(), Config { rules, ..Config::default() }));
    for key in ["l", "m", "n"] {
        pair.write("a", key, Some(json!(1))).await;
    }
    // Each time it were copied, it would be added once more.
    pair.write("a", "o", Some(json!({ "add": 1 }))).await;
    for (key, expected) in [
        ("k", Code::Forbidden),
        ("l", Code::Forbidden),
        ("m", Code::BadRequest),
        ("o", Code::BadRequest),
    ] {
        let refused = pair.sync(&[key, "n"], SyncStrategy::Reject).await.unwrap_err();
        assert_eq!((refused.code, &refused.members["key"]), (expected, &json!(key)));
    }
    assert_eq!(pair.entries().await, json!({}), "all or nothing");
    // What was copied by others is told as far as one may read it.
    let mut service = caller();
    service.principal.kind = PrincipalKind::Service;
    let transfer = Pair::transfer(&["k", "x"], SyncStrategy::Reject);
    pair.0.states.sync(&service, &transfer).await.unwrap();
    for (by, expected) in [(service, vec!["k", "x"]), (caller(), vec!["x"])] {
        let status = pair.0.states.sync_status(&by, &transfer.from, &transfer.to).await.unwrap();
        assert_eq!(status.missing, expected);
    }
}

use super::*;

fn ruled(store: &SharedStore, rules: Json) -> Node {
    let rules = serde_json::from_value(rules).unwrap();
    Node::with(store, Config { rules, ..Config::default() })
}

fn service() -> Caller {
    let mut service = caller();
    service.principal.kind = PrincipalKind::Service;
    service
}

#[tokio::test]
async fn what_a_caller_may_not_read_is_nowhere() {
    let node = ruled(
        &memory(),
        json!([
            { "document": "pillar:*", "prefix": "p:", "read": { "kinds": ["service"] } },
            { "document": "pillar:*", "prefix": "o:", "write": { "kinds": ["service"] } },
        ]),
    );
    let (states, id) = (&node.states, document());
    let put = async |by: &Caller, key: &str, value: i64, seen| {
        let applied = states.apply(by, &id, key, Operation::Put(json!(value)), seen).await;
        applied.map(|applied| applied.revision).map_err(|problem| {
            assert_eq!(problem.members.get("value"), None, "nothing is told");
            problem.code
        })
    };
    let (ann, service) = (caller(), service());
    assert_eq!(put(&service, "p:1", 1, None).await, Ok(1));
    assert_eq!(put(&service, "o:1", 1, None).await, Ok(2));
    assert_eq!(put(&ann, "k", 1, None).await, Ok(3));
    for (key, seen) in
        [("p:1", None), ("p:1", Some(7)), ("o:1", None), ("o:1", Some(7)), ("p:2", None)]
    {
        assert_eq!(put(&ann, key, 2, seen).await, Err(Code::Forbidden), "{key}");
    }
    let step = json!({ "op": "delete", "key": "p:1", "if_revision": 7 });
    let refused = node.transact(&[step]).await.unwrap_err();
    assert_eq!((refused.code, refused.members.get("value")), (Code::Forbidden, None));
    assert_eq!(put(&service, "p:1", 2, Some(1)).await, Ok(4));

    let moment = Moment { revision: 3, epoch: None };
    let keys = |entries: Vec<Entry>| entries.into_iter().map(|entry| entry.key).collect::<Vec<_>>();
    let get = states.get(&ann, &id, "p:1").await.unwrap_err();
    let then = states.get_at(&ann, &id, "p:1", &moment).await.unwrap_err();
    let none = states.get(&ann, &id, "p:9").await.unwrap_err();
    assert_eq!([get.code, then.code, none.code], [Code::Forbidden; 3]);
    for (by, all) in [(&ann, false), (&service, true)] {
        let expected = if all { vec!["k", "o:1", "p:1"] } else { vec!["k", "o:1"] };
        assert_eq!(keys(states.snapshot(by, &id).await.unwrap().entries), expected);
        assert_eq!(keys(states.snapshot_at(by, &id, &moment).await.unwrap().entries), expected);
        let told = states.changes(by, &id, "", 0).await.unwrap();
        assert_eq!((told.changes.len(), told.revision), (expected.len(), 4));
        let history = states.history(by, &id, 1, 10).await.unwrap();
        let offsets: Vec<u64> = history.iter().map(|entry| entry.offset).collect();
        assert_eq!(offsets, if all { vec![1, 2, 3, 4] } else { vec![2, 3] });
        // A page of one: what is passed over does not look like the end.
        assert_eq!(states.history(by, &id, 1, 1).await.unwrap().len(), 1);
        let partition = id.readable_by(by).unwrap();
        assert_eq!(states.may_read_all(by, &partition), all);
        assert_eq!(states.may_read(by, &partition, "p:x"), all);
        assert!(states.may_read(by, &partition, "o:x"));
    }

    // To restore is to restore what one sees, if one may write it.
    let restore = async |by: &Caller, what: Json| {
        let what = serde_json::from_value(what).unwrap();
        let done = states.restore(by, &id, &what).await;
        done.map(|done| done.entries.into_iter().map(|entry| entry.key).collect::<Vec<_>>())
            .map_err(|problem| problem.code)
    };
    assert_eq!(restore(&ann, json!({ "revision": 3 })).await, Ok(vec![]));
    let named = json!({ "revision": 3, "keys": ["p:1"] });
    assert_eq!(restore(&ann, named).await, Err(Code::Forbidden));
    assert_eq!(restore(&ann, json!({ "revision": 1 })).await, Err(Code::Forbidden), "o:1");
    let own = json!({ "revision": 1, "keys": ["k"] });
    assert_eq!(restore(&ann, own).await, Ok(vec!["k".to_owned()]));
    assert_eq!(
        restore(&service, json!({ "revision": 3 })).await,
        Ok(vec!["k".into(), "p:1".into()])
    );
}

#[tokio::test]
async fn values_fit_their_schema_however_they_are_written() {
    let schema = json!({
        "type": "object",
        "properties": { "n": { "type": "integer", "maximum": 10 } },
        "required": ["n"],
    });
    let store = memory();
    let free = Node::on(&store);
    free.write("k", Some(json!("free"))).await;
    let node = ruled(&store, json!([{ "document": "pillar:*", "prefix": "k", "schema": schema }]));
    let check = async |operation: Operation, path: Option<&str>| {
        let outcome = node.apply(operation, None).await;
        let told = outcome.map_err(|problem| {
            assert_eq!(problem.code, Code::BadRequest);
            problem.members["path"].as_str().unwrap().to_owned()
        });
        assert_eq!(told.err().as_deref(), path);
    };
    check(Operation::Put(json!({ "n": 11 })), Some("/n")).await;
    check(Operation::Put(json!({ "n": 1 })), None).await;
    check(Operation::Patch(json!({ "n": null })), Some("")).await;
    check(Operation::Patch(json!({ "n": "x" })), Some("/n")).await;
    let steps = json!([{ "op": "replace", "path": "/n", "value": 99 }]);
    check(Operation::JsonPatch(serde_json::from_value(steps).unwrap()), Some("/n")).await;
    let step = json!({ "op": "put", "key": "k", "value": [] });
    let refused = node.transact(&[step]).await.unwrap_err();
    assert_eq!((&refused.members["key"], &refused.members["path"]), (&json!("k"), &json!("")));
    let refused = node.restore(json!({ "revision": 1 })).await.unwrap_err();
    assert_eq!((refused.code, &refused.members["key"]), (Code::BadRequest, &json!("k")));
    assert_eq!(node.entry().await.value, json!({ "n": 1 }));
    node.write("other", Some(json!("free"))).await;
    check(Operation::Delete, None).await;
}

#[tokio::test]
async fn a_document_keeps_within_its_limits() {
    let store = memory();
    let rules = json!([
        { "document": "pillar:*", "prefix": "few:", "keys_max": 3 },
        { "document": "pillar:*", "bytes_max": 100 },
    ]);
    let nodes = [ruled(&store, rules.clone()), ruled(&store, rules)].map(Arc::new);
    // Exactly so many, though all come at once; others do not count.
    nodes[0].write("o", Some(json!(1))).await;
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..12_usize {
        let node = nodes[number % 2].clone();
        tasks.spawn(async move {
            let (key, put) = (format!("few:{number}"), Operation::Put(json!(1)));
            node.states.apply(&caller(), &document(), &key, put, None).await.map_err(|p| p.code)
        });
    }
    let mut outcomes = Vec::new();
    while let Some(done) = tasks.join_next().await {
        outcomes.push(done.unwrap().map(|_| ()));
    }
    outcomes.sort_by_key(Result::is_err);
    assert_eq!(outcomes[..3], [Ok(()); 3]);
    assert_eq!(outcomes[3..], [Err(Code::BodyTooLarge); 9]);

    let node = &nodes[0];
    let there = node.states.snapshot(&caller(), &document()).await.unwrap().entries;
    let first = there[0].key.clone();
    // Another value for what is there, or one entry for another, is no more than there was.
    node.write(&first, Some(json!(2))).await;
    let instead = [
        json!({ "op": "delete", "key": first }),
        json!({ "op": "put", "key": "few:new", "value": 1 }),
    ];
    node.transact(&instead).await.unwrap();
    let more = json!({ "op": "put", "key": "few:more", "value": 1 });
    assert_eq!(node.transact(&[more]).await.unwrap_err().code, Code::BodyTooLarge);

    // Somebody else is the third, between the counting and the commit.
    node.write("few:new", None).await;
    let third = Commit::new(document().writable_by(&caller()).unwrap())
        .put(Key::new("few:third").unwrap(), storage::encode(&EntryRecord(json!(1))));
    node.store.before_next_commit(third);
    let put = Operation::Put(json!(1));
    let fourth = node.states.apply(&caller(), &document(), "few:4", put, None).await;
    assert_eq!(fourth.unwrap_err().code, Code::BodyTooLarge);

    let put = async |key: &str, bytes: usize| {
        let put = Operation::Put(json!("x".repeat(bytes)));
        let applied = node.states.apply(&caller(), &document(), key, put, None).await;
        applied.map(|_| ()).map_err(|problem| problem.code)
    };
    let held: usize = {
        let entries = node.states.snapshot(&caller(), &document()).await.unwrap().entries;
        entries.iter().map(|entry| entry.key.len() + entry.value.to_string().len()).sum()
    };
    let left = 100 - held - 3; // A key of one letter, and two quotes.
    assert_eq!(put("k", left + 1).await, Err(Code::BodyTooLarge));
    assert_eq!(put("k", left).await, Ok(()));
    assert_eq!(put("k", left + 1).await, Err(Code::BodyTooLarge), "by what is remembered too");
    assert_eq!(put("l", 0).await, Err(Code::BodyTooLarge));
    assert_eq!(put("k", left - 3).await, Ok(()));
    assert_eq!(put("l", 0).await, Ok(()));
    // What is restored is written.
    let then =
        json!({ "revision": there.iter().map(|entry| entry.revision).max(), "keys": [first] });
    assert_eq!(node.restore(then).await.unwrap_err().code, Code::BodyTooLarge);
}

#[tokio::test]
async fn what_was_no_counter_is_not_restored_as_an_increment() {
    let store = memory();
    let free = Node::on(&store);
    free.write("k", Some(json!({ "add": 5 }))).await;
    free.write("k", Some(json!(1))).await;
    let node =
        ruled(&store, json!([{ "document": "pillar:*", "prefix": "k", "merge": "counter" }]));
    let refused = node.restore(json!({ "revision": 1 })).await.unwrap_err();
    assert_eq!((refused.code, &refused.members["key"]), (Code::BadRequest, &json!("k")));
    assert_eq!(node.entry().await.value, json!(1));
}

//! The ledger over every engine: leases, fences, outbox, relay, shares.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod support;

use bytes::Bytes;
use ledger::{
    HELD_FOR, Keeper, Lease, LeaseError, Letter, NodeId, Owned, REGISTERED_FOR, Relay, SHARDS,
    STOPS_AFTER, Shard, Work, acquire, outbox,
};
use std::{collections::HashMap, sync::Arc, time::Duration};
use store::{Check, Commit, Error, Key, Kind, Partition, StreamName};
use support::{Engine, Random};
use types::TenantId;

const KIND: Kind = Kind::new("ledger-test");
const LANE: StreamName = StreamName::new("lane");

macro_rules! over_every_engine {
    ($($test:ident),* $(,)?) => {
        mod memory {
            $(#[tokio::test] async fn $test() { super::$test(&super::Engine::memory()).await; })*
        }
        mod embedded {
            $(#[tokio::test] async fn $test() { super::$test(&super::Engine::embedded()).await; })*
        }
        mod postgres {
            $(#[tokio::test] async fn $test() {
                super::$test(&super::Engine::postgres().await).await;
            })*
        }
        mod redis {
            $(#[tokio::test] async fn $test() {
                super::$test(&super::Engine::redis().await).await;
            })*
        }
        mod cluster {
            $(#[tokio::test] async fn $test() {
                super::$test(&super::Engine::cluster().await).await;
            })*
        }
        mod valkey {
            $(#[tokio::test] async fn $test() {
                super::$test(&super::Engine::valkey().await).await;
            })*
        }
    };
}

over_every_engine!(
    one_node_holds_a_shard_until_its_lease_runs_out,
    a_lease_given_up_is_free_at_once,
    a_former_owner_can_write_no_more,
    an_answer_that_was_lost_costs_no_lease,
    letters_arrive_once_and_in_order_whatever_fails,
    a_letter_for_another_tenant_is_set_aside,
    what_is_due_is_worked_on_and_woken_again,
    nodes_share_the_shards_and_take_over,
);

fn partition(tenant: &str, id: &str) -> Partition {
    Partition::new(TenantId::new(tenant).unwrap(), KIND, id).unwrap()
}

async fn take(engine: &Engine, shard: Shard) -> (NodeId, Result<Arc<Lease>, LeaseError>) {
    let node = NodeId::draw(&engine.clock);
    let lease = acquire(&engine.store, &engine.clock, shard, &node).await;
    (node, lease)
}

async fn one_node_holds_a_shard_until_its_lease_runs_out(engine: &Engine) {
    let shard = Shard::all().nth(7).unwrap();
    let (first, lease) = take(engine, shard).await;
    let lease = lease.unwrap();
    assert!(lease.is_held());
    let (_, refused) = take(engine, shard).await;
    assert!(
        matches!(&refused, Err(LeaseError::Held { holder }) if *holder == first.to_string()),
        "{refused:?}"
    );
    // Renewed, it lasts on; not renewed, its holder stops before the store lets another in.
    engine.advance(STOPS_AFTER / 2);
    lease.renew(&engine.store).await.unwrap();
    engine.advance(STOPS_AFTER - Duration::from_millis(1));
    assert!(lease.is_held());
    engine.advance(Duration::from_millis(1));
    assert!(!lease.is_held());
    assert!(matches!(lease.renew(&engine.store).await, Err(LeaseError::Lost)));
    assert!(matches!(take(engine, shard).await.1, Err(LeaseError::Held { .. })));
    engine.advance(HELD_FOR - STOPS_AFTER);
    let second = take(engine, shard).await.1.unwrap();
    assert!(second.epoch() > lease.epoch());
    assert!(matches!(lease.renew(&engine.store).await, Err(LeaseError::Lost)));
}

async fn a_lease_given_up_is_free_at_once(engine: &Engine) {
    let shard = Shard::all().nth(8).unwrap();
    let first = take(engine, shard).await.1.unwrap();
    first.release(&engine.store).await.unwrap();
    assert!(!first.is_held());
    let second = take(engine, shard).await.1.unwrap();
    // What the first one does late does not take it from the second.
    first.release(&engine.store).await.unwrap();
    assert!(matches!(take(engine, shard).await.1, Err(LeaseError::Held { .. })));
    assert!(second.is_held());
}

async fn a_former_owner_can_write_no_more(engine: &Engine) {
    let partition = partition("acme", "fenced");
    let shard = Shard::of(&partition);
    let first = take(engine, shard).await.1.unwrap();
    let owned = first.open(&engine.store, &partition).await.unwrap();
    let key = Key::new("k").unwrap();
    owned.commit(|commit| commit.put(key.clone(), "first")).await.unwrap();
    engine.advance(HELD_FOR);
    let refused = owned.commit(|commit| commit.put(key.clone(), "late")).await;
    assert!(matches!(refused, Err(LeaseError::Lost)), "it stops by itself: {refused:?}");
    let second = take(engine, shard).await.1.unwrap();
    let owned = second.open(&engine.store, &partition).await.unwrap();
    // The commit of an owner that was paused between its check and its send.
    let late =
        Commit::new(partition.clone()).check(Check::Fence(first.epoch())).put(key.clone(), "late");
    let refused = engine.store.commit(late).await;
    assert!(matches!(refused, Err(Error::Fenced { .. })), "{refused:?}");
    let record = engine.store.get(&partition, &key).await.unwrap().unwrap();
    assert_eq!(&*record.value, b"first");
    owned.commit(|commit| commit.put(key.clone(), "second")).await.unwrap();
}

async fn an_answer_that_was_lost_costs_no_lease(engine: &Engine) {
    let store = engine.faulty(7, 300);
    let shard = Shard::all().nth(9).unwrap();
    let node = NodeId::draw(&engine.clock);
    let mut renewed = 0;
    for _ in 0..40 {
        let Ok(lease) = acquire(&store, &engine.clock, shard, &node).await else {
            engine.advance(HELD_FOR);
            continue;
        };
        for _ in 0..10 {
            engine.advance(Duration::from_secs(2));
            match lease.renew(&store).await {
                Ok(()) => renewed += 1,
                Err(LeaseError::Store(Error::Unavailable { .. })) if lease.is_held() => {}
                Err(LeaseError::Lost | LeaseError::Store(_)) => break,
                Err(error @ LeaseError::Held { .. }) => panic!("{error}"),
            }
        }
        engine.advance(HELD_FOR);
    }
    assert!(renewed > 100, "{renewed} renewals");
}

async fn letters_arrive_once_and_in_order_whatever_fails(engine: &Engine) {
    let seed = Random::seed();
    println!("CROSSTOWN_SEED={seed}");
    let mut random = Random(seed);
    let store = engine.faulty(random.next(), 200);
    let senders: Vec<Partition> = (0..4).map(|n| partition("acme", &format!("from-{n}"))).collect();
    let receivers: Vec<Partition> = (0..3).map(|n| partition("acme", &format!("to-{n}"))).collect();
    let mut sent: HashMap<(usize, usize), u32> = HashMap::new();
    let mut leases: HashMap<Shard, Arc<Lease>> = HashMap::new();
    for round in 0..60 {
        for (from, sender) in senders.iter().enumerate() {
            let to = random.below(receivers.len());
            let count = 1 + random.below(4) as u32;
            let next = sent.entry((from, to)).or_default();
            let letters = (*next..*next + count).map(|number| Letter {
                to: receivers[to].clone(),
                stream: LANE,
                value: Bytes::from(format!("{from} {number}")),
            });
            // Posted without faults: whether it was posted at all must be known here.
            engine.store.commit(outbox::post(Commit::new(sender.clone()), letters)).await.unwrap();
            *next += count;
        }
        // The same partition is served by its owner and, now and then, by one that was paused.
        for sender in &senders {
            let shard = Shard::of(sender);
            if random.below(10) == 0 {
                engine.advance(HELD_FOR);
            }
            let held = leases.get(&shard).filter(|lease| lease.is_held()).cloned();
            let lease = match held {
                Some(lease) => lease,
                None => match acquire(&store, &engine.clock, shard, &NodeId::draw(&engine.clock))
                    .await
                {
                    Ok(lease) => lease,
                    Err(_) => continue,
                },
            };
            leases.insert(shard, Arc::clone(&lease));
            let relay = Relay::new(store.clone());
            let (one, other) =
                tokio::join!(relay.serve(&lease, sender, None), relay.serve(&lease, sender, None));
            let _ = (round, one, other);
        }
    }
    // Without faults, the rest arrives.
    for sender in &senders {
        engine.advance(HELD_FOR);
        let lease = take(engine, Shard::of(sender)).await.1.unwrap();
        Relay::new(engine.store.clone()).serve(&lease, sender, None).await.unwrap();
        assert!(!engine.is_due(sender).await, "nothing is left to do");
        lease.release(&engine.store).await.unwrap();
    }
    let mut total = 0;
    for (to, receiver) in receivers.iter().enumerate() {
        let mut arrived: HashMap<usize, u32> = HashMap::new();
        for text in engine.stream(receiver, &LANE).await {
            let (from, number) = text.split_once(' ').unwrap();
            let next = arrived.entry(from.parse().unwrap()).or_default();
            assert_eq!(number.parse::<u32>().unwrap(), *next, "from {from} to {to}, seed {seed}");
            *next += 1;
            total += 1;
        }
        for from in 0..senders.len() {
            let sent = sent.get(&(from, to)).copied().unwrap_or_default();
            assert_eq!(arrived.get(&from).copied().unwrap_or_default(), sent, "seed {seed}");
        }
    }
    assert!(total >= 240, "{total} letters");
}

async fn a_letter_for_another_tenant_is_set_aside(engine: &Engine) {
    let sender = partition("acme", "tells");
    let (ours, theirs) = (partition("acme", "hears"), partition("globex", "hears"));
    let letter = |to: &Partition, text| Letter { to: to.clone(), stream: LANE, value: text };
    let letters = [
        letter(&ours, Bytes::from_static(b"1")),
        letter(&theirs, Bytes::from_static(b"secret")),
        letter(&ours, Bytes::from_static(b"2")),
    ];
    engine.store.commit(outbox::post(Commit::new(sender.clone()), letters)).await.unwrap();
    let lease = take(engine, Shard::of(&sender)).await.1.unwrap();
    let relayed = Relay::new(engine.store.clone()).serve(&lease, &sender, None).await.unwrap();
    assert_eq!((relayed.delivered, relayed.undeliverable), (2, 1));
    assert_eq!(engine.stream(&ours, &LANE).await, ["1", "2"]);
    assert!(engine.store.head(&theirs).await.unwrap().is_none());
    let aside = engine.stream(&sender, &outbox::UNDELIVERABLE).await;
    assert!(aside.len() == 1 && aside[0].contains("another tenant"), "{aside:?}");
}

/// Counts down, once a second.
struct Countdown;

#[async_trait::async_trait]
impl Work for Countdown {
    async fn due(&self, owned: &Owned<'_>) -> Result<Option<Duration>, LeaseError> {
        owned.commit(|commit| commit.append(LANE, Bytes::from_static(b"tick"))).await?;
        Ok(Some(Duration::from_secs(1)))
    }
}

async fn what_is_due_is_worked_on_and_woken_again(engine: &Engine) {
    let partition = partition("acme", "timer");
    let works: HashMap<Kind, Arc<dyn Work>> = [(KIND, Arc::new(Once) as Arc<dyn Work>)].into();
    engine.store.commit(outbox::post(Commit::new(partition.clone()), [])).await.unwrap();
    assert!(engine.is_due(&partition).await);
    let lease = take(engine, Shard::of(&partition)).await.1.unwrap();
    let relay = Relay::new(engine.store.clone());
    relay.serve(&lease, &partition, Some(&*works[&KIND])).await.unwrap();
    assert!(!engine.is_due(&partition).await);
    engine.advance(Duration::from_secs(1));
    assert!(engine.is_due(&partition).await);
    // Work that changes its partition at every look is not looked at for ever in one turn.
    relay.serve(&lease, &partition, Some(&Countdown)).await.unwrap();
    assert!(engine.stream(&partition, &LANE).await.len() > 1);
    assert!(engine.is_due(&partition).await, "it stays due, and others get their turn");
}

/// Wants to be woken in a second.
struct Once;

#[async_trait::async_trait]
impl Work for Once {
    async fn due(&self, _: &Owned<'_>) -> Result<Option<Duration>, LeaseError> {
        Ok(Some(Duration::from_secs(1)))
    }
}

async fn nodes_share_the_shards_and_take_over(engine: &Engine) {
    let keepers: Vec<Arc<Keeper>> = (0..3)
        .map(|number| {
            let node = NodeId::draw(&engine.clock);
            let address = format!("127.0.0.1:{number}");
            let (store, clock) = (engine.store.clone(), engine.clock.clone());
            Keeper::new(store, clock, node, address, HashMap::new())
        })
        .collect();
    let held = |keepers: &[Arc<Keeper>]| -> usize { keepers.iter().map(|k| k.held()).sum() };
    // The first takes everything, and makes room as the others come.
    keepers[0].keep().await.unwrap();
    assert_eq!(keepers[0].held(), usize::from(SHARDS));
    for _ in 0..3 {
        for keeper in &keepers {
            keeper.keep().await.unwrap();
        }
    }
    assert_eq!(held(&keepers), usize::from(SHARDS));
    assert!(keepers.iter().all(|keeper| keeper.held() > 0));
    for shard in Shard::all() {
        assert_eq!(keepers.iter().filter(|keeper| keeper.lease(shard).is_some()).count(), 1);
    }
    // One dies: its registration ends, then its leases.
    let left = &keepers[1..];
    for _ in 0..HELD_FOR.max(REGISTERED_FOR).as_secs() {
        engine.advance(Duration::from_secs(1));
        for keeper in left {
            keeper.keep().await.unwrap();
        }
    }
    assert_eq!((keepers[0].held(), held(left)), (0, usize::from(SHARDS)));
}

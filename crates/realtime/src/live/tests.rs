use super::*;
use clock::ManualClock;
use protocol::client::Data;
use serde_json::value::to_raw_value;
use store_memory::MemoryStore;
use types::{TenantId, Timestamp};

const MANY: Keep = Keep { size: 1_000, ttl: None };

fn channel(tenant: &str, name: &str) -> Channel {
    Channel::new(&TenantId::new(tenant).unwrap(), name).unwrap()
}

fn publication(text: &str) -> Publication {
    let data: Data = to_raw_value(text).unwrap();
    Publication { data, ..Publication::default() }
}

fn told(live: &Live, channel: &Channel, from: u64) -> Result<Vec<(u64, String)>, Error> {
    let epoch = live.standing(channel).epoch;
    let all = live.read(channel, epoch, from, 1_000)?;
    Ok(all.into_iter().map(|one| (one.offset, one.data.get().to_owned())).collect())
}

#[test]
fn a_history_keeps_the_last_and_says_what_it_has_not() {
    let live = Live::new(1 << 20, clock::SystemClock::shared());
    let (ours, theirs) = (channel("acme", "news"), channel("other", "news"));
    let keep = Keep { size: 2, ttl: None };
    for (text, offset) in [("a", 1), ("b", 2), ("c", 3)] {
        let (epoch, told) = live.append(&ours, publication(text), keep);
        assert_eq!((epoch, told.offset), (live.standing(&ours).epoch, offset));
    }
    let kept = vec![(2, "\"b\"".to_owned()), (3, "\"c\"".to_owned())];
    assert_eq!(told(&live, &ours, 2).unwrap(), kept);
    assert_eq!(told(&live, &ours, 4).unwrap(), []);
    assert!(matches!(told(&live, &ours, 1), Err(Error::Trimmed { first: 2 })));
    assert_eq!(live.standing(&theirs).last, 0, "another tenant's channel of the same name");
    let wrong = Incarnation(live.standing(&ours).epoch.0 ^ 1);
    assert!(matches!(live.read(&ours, wrong, 2, 9), Err(Error::Lagged { .. })));
}

#[test]
fn a_history_ends_so_long_after_its_last_publication() {
    let clock = ManualClock::new(Timestamp(0), 1);
    let live = Live::new(1 << 20, clock.clone());
    let news = channel("acme", "news");
    let keep = Keep { size: 9, ttl: Some(Duration::from_secs(10)) };
    live.append(&news, publication("a"), keep);
    clock.advance(Duration::from_secs(9));
    live.append(&news, publication("b"), keep);
    clock.advance(Duration::from_secs(9));
    assert_eq!(told(&live, &news, 1).unwrap().len(), 2);
    let before = live.standing(&news);
    clock.advance(Duration::from_secs(1));
    assert!(matches!(told(&live, &news, 2), Err(Error::Trimmed { first: 3 })));
    assert_eq!(live.standing(&news), Standing { first: 3, ..before }, "who has all has all still");
}

#[test]
fn what_was_not_used_for_longest_makes_room_and_begins_another_life() {
    let live = Live::new(SHARDS * 20_000, clock::SystemClock::shared());
    let first = channel("acme", "first");
    live.append(&first, publication("a"), MANY);
    let before = live.standing(&first).epoch;
    for at in 0..2_000 {
        live.append(&channel("acme", &at.to_string()), publication(&"x".repeat(1_000)), MANY);
    }
    let bytes: usize = live.0.shards.iter().map(|shard| shard.lock().bytes).sum();
    assert!(bytes <= SHARDS * 20_000, "{bytes}");
    assert_ne!(live.standing(&first).epoch, before);
    for shard in &live.0.shards {
        let shard = shard.lock();
        let sum: usize = shard.histories.iter().map(|(_, history)| history.bytes).sum();
        assert_eq!(shard.bytes, sum);
    }
}

#[test]
fn one_channel_has_its_share_at_most() {
    let live = Live::new(SHARDS * 20_000, clock::SystemClock::shared());
    let news = channel("acme", "news");
    for _ in 0..100 {
        live.append(&news, publication(&"x".repeat(1_000)), MANY);
    }
    let Standing { first, last, .. } = live.standing(&news);
    assert_eq!((told(&live, &news, first).unwrap().len(), last), (14, 100));
    live.append(&news, publication(&"x".repeat(50_000)), MANY);
    assert_eq!(live.standing(&news).first, 102, "there is no room even for one");
}

#[tokio::test]
async fn an_orderly_restart_keeps_histories_and_a_crash_does_not() {
    let clock = clock::SystemClock::shared();
    let store = MemoryStore::new(clock.clone());
    let live = Live::new(64 << 20, clock.clone());
    let (news, deep) = (channel("acme", "news"), channel("acme", "deep"));
    live.append(&news, publication("a"), Keep { size: 1, ttl: None });
    live.append(&news, publication("b"), Keep { size: 1, ttl: None });
    for at in 0..300 {
        live.append(&deep, publication(&format!("{at} {}", "x".repeat(5_000))), MANY);
    }
    let expected = [&news, &deep].map(|channel| live.standing(channel));
    assert_eq!(live.park(&store).await.unwrap(), 2);

    let after = Live::new(64 << 20, clock.clone());
    assert_eq!(after.unpark(&store).await.unwrap(), 2);
    assert_eq!([&news, &deep].map(|channel| after.standing(channel)), expected);
    assert_eq!(told(&after, &news, 2).unwrap(), [(2, "\"b\"".to_owned())]);
    assert_eq!(told(&after, &deep, 1).unwrap(), told(&live, &deep, 1).unwrap());

    // It was taken out: a node that is killed now comes back without it.
    let crashed = Live::new(64 << 20, clock);
    assert_eq!(crashed.unpark(&store).await.unwrap(), 0);
    assert_ne!(crashed.standing(&news).epoch, expected[0].epoch);
}

#[tokio::test]
async fn a_parked_history_without_a_record_has_what_follows_it() {
    let clock = clock::SystemClock::shared();
    let store = MemoryStore::new(clock.clone());
    let live = Live::new(64 << 20, clock.clone());
    let deep = channel("acme", "deep");
    for at in 0..100 {
        live.append(&deep, publication(&format!("{at} {}", "x".repeat(5_000))), MANY);
    }
    live.park(&store).await.unwrap();
    // Five records of some 25 publications each, all in the first partition.
    let first = store::Partition::new(TenantId::system(), store::Kind::new("parked"), "0").unwrap();
    let key = store::Key::new("000000000001").unwrap();
    let lose = store::Commit::new(first).write(store::Write::Delete { key });
    store::Store::commit(&store, lose).await.unwrap();

    let after = Live::new(64 << 20, clock);
    after.unpark(&store).await.unwrap();
    let Standing { first, last, .. } = after.standing(&deep);
    assert!((30..80).contains(&first) && last == 100, "from {first} to {last}");
    assert_eq!(told(&after, &deep, first).unwrap(), told(&live, &deep, first).unwrap());
}

use super::*;
use crate::session::{NewSession, Sessions, WantedTimeline};
use clock::ManualClock;
use store_memory::{Fault, MemoryStore};
use types::Timestamp;

fn trail(items_max: usize, most: usize) -> (Trail, Arc<ManualClock>) {
    let clock = ManualClock::new(Timestamp(1_700_000_000_000), 1);
    let store = Arc::new(MemoryStore::new(clock.clone()));
    let config = Config {
        timeline: true,
        timeline_buffer_max: items_max,
        timeline_events_max: most,
        ..Config::default()
    };
    (Trail::new(store, clock.clone(), &config), clock)
}

fn tenant() -> TenantId {
    TenantId::new("acme").unwrap()
}

fn published(offset: u64) -> What {
    What::Published { channel: "room".into(), offset }
}

async fn told(trail: &Trail, session: SessionId, prefix: &str) -> Vec<Json> {
    let partition = partition(&tenant(), session.shelf()).unwrap();
    let records = trail.0.store.scan(&partition, prefix.as_bytes(), None, 1_000).await.unwrap();
    let items = records
        .records
        .iter()
        .flat_map(|(_, record)| serde_json::from_slice::<Vec<Json>>(&record.value[1..]).unwrap());
    items.collect()
}

#[tokio::test]
async fn what_finds_no_room_is_told_as_a_gap_of_its_session_or_of_all() {
    let (trail, _) = trail(2, 100);
    let session = |n| SessionId::new(7, [n; 16]);
    for n in 0..5 {
        trail.note(&tenant(), session(1), published(n));
    }
    // Four sessions are known; a fifth is not even counted by itself.
    for n in 2..=5 {
        trail.note(&tenant(), session(n), published(0));
    }
    assert_eq!(trail.missed(), 7);
    trail.write().await;
    let first = told(&trail, session(1), &format!("{}/t/", session(1))).await;
    assert_eq!(first.len(), 3);
    assert_eq!((&first[2]["kind"], &first[2]["missing"]), (&"gap".into(), &3.into()));
    let second = told(&trail, session(2), &format!("{}/t/", session(2))).await;
    assert_eq!((second.len(), &second[0]["missing"]), (1, &1.into()));
    let all = Partition::new(tenant(), KIND, ALL).unwrap();
    let all = trail.0.store.scan(&all, b"all/t/", None, 10).await.unwrap();
    let items: Vec<Json> = serde_json::from_slice(&all.records[0].1.value[1..]).unwrap();
    assert_eq!((&items[0]["missing"], &items[0]["of"]), (&1.into(), &"tenant".into()));
    // There is room again.
    trail.note(&tenant(), session(1), published(9));
    trail.write().await;
    assert_eq!(told(&trail, session(1), &format!("{}/t/", session(1))).await.len(), 4);
}

#[tokio::test]
async fn of_a_session_the_last_ones_are_kept_and_its_sockets_have_room_of_their_own() {
    let (trail, clock) = trail(10_000, 40);
    let session = SessionId::new(7, [1; 16]);
    let opened = || What::SocketOpened { connection: "con_1".into(), address: None };
    trail.note(&tenant(), session, opened());
    for n in 0..500 {
        clock.advance(Duration::from_millis(1));
        trail.note(&tenant(), session, published(n));
        if n % 5 == 0 {
            trail.write().await;
        }
    }
    trail.write().await;
    let kept = told(&trail, session, &format!("{session}/t/")).await;
    assert!((40..=60).contains(&kept.len()), "{}", kept.len());
    assert_eq!(kept.last().unwrap()["offset"], 499);
    assert_eq!(told(&trail, session, &format!("{session}/s/")).await.len(), 1);
}

#[tokio::test]
async fn what_the_store_does_not_take_is_written_later() {
    let clock = ManualClock::new(Timestamp(1_700_000_000_000), 1);
    let memory = Arc::new(MemoryStore::new(clock.clone()));
    let config = Config { timeline: true, timeline_buffer_max: 100, ..Config::default() };
    let trail = Trail::new(memory.clone(), clock.clone(), &config);
    let session = SessionId::new(7, [1; 16]);
    for n in 0..250 {
        trail.note(&tenant(), session, published(n));
    }
    memory.plan_faults(|faults| faults.on_commit(1, Fault::LoseRequest));
    trail.write().await;
    assert!(told(&trail, session, &format!("{session}/t/")).await.is_empty());
    trail.write().await;
    let written = told(&trail, session, &format!("{session}/t/")).await;
    assert_eq!(written.len(), 101);
    assert_eq!(written[100]["missing"], 150, "the gap is counted once");
}

#[tokio::test]
async fn a_timeline_joins_what_a_session_did_and_what_happened_to_it() {
    let clock = ManualClock::new(Timestamp(1_700_000_000_000), 1);
    let store: SharedStore = Arc::new(MemoryStore::new(clock.clone()));
    let config = Config { timeline: true, ..Config::default() };
    let revocations = crate::identity::Revocations::new(store.clone());
    let sessions = Sessions::new(store, clock.clone(), config, revocations);
    let ann = types::Principal { kind: types::PrincipalKind::User, id: "ann".parse().unwrap() };
    let (session, _) = sessions.create(&tenant(), &ann, NewSession::default()).await.unwrap();
    for n in 0..3 {
        clock.advance(Duration::from_secs(1));
        sessions.trail().note(&tenant(), session.id, published(n));
    }
    clock.advance(Duration::from_secs(1));
    let metadata = Some(serde_json::Map::new());
    let update = crate::session::Update { metadata, ..Default::default() };
    sessions.update(&tenant(), session.id, update).await.unwrap();
    sessions.trail().write().await;
    let kinds = async |wanted: WantedTimeline| {
        let past = sessions.past(&tenant(), session.id).await.unwrap().unwrap();
        let timeline = sessions.timeline(&tenant(), session.id, past.events, &wanted).await;
        timeline.unwrap().iter().map(|one| (one.id.clone(), one.told["kind"].clone())).collect()
    };
    let all: Vec<(String, Json)> = kinds(WantedTimeline::default()).await;
    let names: Vec<&str> = all.iter().filter_map(|(_, kind)| kind.as_str()).collect();
    assert_eq!(names, ["created", "published", "published", "published", "updated"]);
    let before = WantedTimeline {
        before: Some(all[3].0.clone()),
        limit: Some(2),
        ..WantedTimeline::default()
    };
    assert_eq!(kinds(before).await, all[1..3]);
}

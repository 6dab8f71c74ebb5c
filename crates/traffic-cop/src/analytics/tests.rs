use super::*;
use clock::ManualClock;
use std::process::Command;
use store_memory::{Fault, Faults, MemoryStore};
use types::{
    Caller, CredentialKind, Pillar, Pillars, Principal, PrincipalId, PrincipalKind, SessionId,
};

const BEGIN: Timestamp = Timestamp(1_800_000_000_000);

fn caller(tenant: &str, user: &str) -> Caller {
    let id = PrincipalId::new(user).unwrap();
    let principal = Principal { kind: PrincipalKind::User, id };
    Caller::new(TenantId::new(tenant).unwrap(), principal, CredentialKind::Jwt)
}

fn sample(route: RouteId, caller: Option<&Arc<Caller>>, status: u16) -> Sample<'_> {
    Sample {
        route,
        caller,
        instance: None,
        asked: Some(Asked { method: "GET", path: "/a", pattern: None, query: None }),
        status,
        latency: Duration::from_millis(10),
        bytes_in: 1,
        bytes_out: 100,
        trace: "00f067aa0ba902b7",
        code: None,
    }
}

fn ask(range: &str, now: Timestamp, tenant: Option<&str>) -> Ask {
    let tenant = tenant.map(|tenant| TenantId::new(tenant).unwrap());
    Ask { naming: Naming::Shown, ..Ask::new(Period::named(range, now).unwrap(), tenant) }
}

#[tokio::test]
async fn a_tenant_sees_its_own_traffic_only() {
    let analytics = Arc::new(Analytics::default());
    let route = analytics.route_in("r", "s", Some("solution"));
    let pillars = Pillars::new([Pillar::new("content").unwrap()]).unwrap();
    let session = Some(SessionId::new(1, [2; 16]));
    let ann = Arc::new(Caller { pillars, session, ..caller("acme", "ann") });
    let eve = Arc::new(caller("other", "eve"));
    let recorders = [analytics.recorder(), analytics.recorder()];
    let answered = Some((7, "10.0.0.1:80"));
    recorders[0].record(&Sample { instance: answered, ..sample(route, Some(&ann), 200) }, 0);
    recorders[1].record(&sample(route, Some(&ann), 429), 0);
    recorders[1].record(&sample(route, Some(&eve), 500), 0);
    recorders[1].record(&sample(route, None, 401), 0);
    recorders.iter().for_each(Recorder::flush);
    let now = BEGIN;
    analytics.tick(now);
    for range in ["1m", "1h", "24h"] {
        let report = analytics.report(&ask(range, now, Some("acme")), now).await;
        let total = &report.total.usage;
        assert_eq!((total.requests, total.limited, total.server_errors), (2, 1, 0));
        assert!(report.tenants.is_empty() && report.instances.is_empty());
        assert_eq!((report.users, report.pillars["content"].usage.requests), (Some(1), 2));
        assert_eq!(report.realms["solution"].usage.requests, 2);
        let consumers = report.consumers.unwrap();
        assert_eq!(consumers.len(), 1);
        assert_eq!((consumers[0].of.user.as_str(), consumers[0].usage.limited), ("ann", 1));
        assert_eq!(report.sessions.unwrap()[0].usage.requests, 2);
        assert_eq!(report.endpoints[0].usage.requests, 2);
        let all = analytics.report(&ask(range, now, None), now).await;
        assert_eq!((all.total.usage.requests, all.tenants["(other)"].usage.requests), (4, 1));
        assert_eq!((all.services["s"].usage.bytes_out, all.users), (400, Some(2)));
        assert_eq!(&*all.instances[0].instance, "10.0.0.1:80");
        assert_eq!(all.instances[0].figures.usage.requests, 1);
        assert_eq!((all.endpoints.len(), all.endpoints[0].usage.requests), (1, 4));
        let of_user = Ask { user: Some(eve.principal.id.clone()), ..ask(range, now, None) };
        let of_user = analytics.report(&of_user, now).await;
        assert_eq!(of_user.consumers.unwrap()[0].usage.server_errors, 1);
        assert_eq!(of_user.sessions, Some(Vec::new()));
    }
    let later = Timestamp(now.0 + 66_000);
    let later = analytics.report(&ask("1m", later, None), later).await;
    assert_eq!(later.total.usage.requests, 0);
    assert_eq!(analytics.since_start()[0].1.usage.requests, 4);
    assert_eq!(analytics.instances_since_start()[0].figures.usage.requests, 1);
    let logged = analytics.logged(&Filter { limit: 10, ..Filter::default() });
    assert_eq!((logged.requests.len(), logged.dropped), (4, 0));
    let of_acme = Filter { tenant: Some(ann.tenant.clone()), limit: 10, ..Filter::default() };
    assert!(analytics.logged(&of_acme).requests.iter().all(|entry| entry.principal.is_some()));
    assert_eq!(analytics.logged(&of_acme).requests.len(), 2);
}

#[tokio::test]
async fn tenants_are_bounded() {
    let analytics = Arc::new(Analytics::default());
    let route = analytics.route("r", "s");
    let recorder = analytics.recorder();
    for n in 0..1_500 {
        let caller = Arc::new(caller(&format!("t{n}"), "ann"));
        recorder.record(&sample(route, Some(&caller), 200), u64::MAX);
    }
    recorder.flush();
    analytics.tick(BEGIN);
    let report = analytics.report(&ask("1m", BEGIN, None), BEGIN).await;
    assert_eq!((report.tenants.len(), report.total.usage.requests), (1_001, 1_500));
    assert_eq!(report.tenants["(other)"].usage.requests, 500);
}

/// A life of a node.
struct Life {
    analytics: Arc<Analytics>,
    history: History,
    recorder: Recorder,
    route: RouteId,
}

/// Nodes on a store, and what was asked of them.
struct World {
    clock: Arc<ManualClock>,
    store: Arc<MemoryStore>,
    callers: Vec<Arc<Caller>>,
    asked: u64,
}

impl World {
    fn new() -> Self {
        let clock = ManualClock::new(BEGIN, 1);
        let store = Arc::new(MemoryStore::new(clock.clone()));
        let callers = (0..40).map(|n| Arc::new(caller("acme", &format!("u{n}")))).collect();
        Self { clock, store, callers, asked: 0 }
    }

    fn life(&self) -> Life {
        let analytics = Arc::new(Analytics::default());
        let history = History::new(analytics.clone(), self.store.clone(), self.clock.clone());
        let route = analytics.route("r", "s");
        let recorder = analytics.recorder();
        Life { analytics, history, recorder, route }
    }

    fn now(&self) -> Timestamp {
        clock::Clock::now(&*self.clock)
    }

    /// So many requests in a second.
    fn ask(&mut self, life: &Life, count: u64) {
        life.analytics.tick(self.now());
        for n in 0..count {
            let caller = &self.callers[n as usize % self.callers.len()];
            life.recorder.record(&sample(life.route, Some(caller), 200), u64::MAX);
        }
        life.recorder.flush();
        self.asked += count;
        self.clock.advance(Duration::from_secs(1));
    }

    async fn told(&self, life: &Life, range: &str) -> u64 {
        let report = life.analytics.report(&ask(range, self.now(), None), self.now()).await;
        assert!(report.complete);
        let of_consumers = report.endpoints.iter().map(|of| of.usage.requests).sum::<u64>();
        assert_eq!(report.total.usage.requests, of_consumers);
        let series: u64 = report.series.iter().map(|point| point.figures.usage.requests).sum();
        assert_eq!(report.total.usage.requests, series);
        report.total.usage.requests
    }
}

#[tokio::test]
async fn what_was_counted_outlives_its_node_and_is_counted_once() {
    let mut world = World::new();
    let (first, other) = (world.life(), world.life());
    for second in 0..100 {
        world.ask(&first, second);
        world.ask(&other, 1);
        // Writing is repeated, and does not always come after a whole span.
        for _ in 0..second % 3 {
            first.history.flush().await.unwrap();
        }
    }
    first.history.flush().await.unwrap();
    other.history.flush().await.unwrap();
    for range in ["5m", "1h", "6h", "24h", "7d"] {
        for life in [&first, &other, &world.life()] {
            assert_eq!(world.told(life, range).await, world.asked, "{range}");
        }
    }
    // What is not written is lost with its node, and nothing else.
    let before = world.asked;
    world.ask(&first, 17);
    drop(first);
    let after = world.life();
    assert_eq!(world.told(&after, "1h").await, before);
    let report = after.analytics.report(&ask("24h", world.now(), Some("acme")), world.now()).await;
    assert_eq!((report.users, report.consumers.unwrap()[0].missed_max), (Some(40), 0));
}

#[tokio::test]
async fn a_writing_that_is_not_answered_is_repeated_and_counts_once() {
    let mut world = World::new();
    let life = world.life();
    world.ask(&life, 10);
    world.store.plan_faults(|faults: Faults| {
        faults.on_commit(1, Fault::LoseReply).on_commit(3, Fault::LoseRequest)
    });
    let mut failed = 0;
    while life.history.flush().await.is_err() {
        failed += 1;
        world.ask(&life, 5);
    }
    assert_eq!(failed, 2);
    for range in ["1m", "1h", "7d"] {
        assert_eq!(world.told(&world.life(), range).await, world.asked, "{range}");
    }
}

#[tokio::test]
async fn a_clock_that_jumps_loses_and_repeats_nothing() {
    let mut world = World::new();
    let life = world.life();
    let hour = Duration::from_secs(3_600);
    for back in [0, 1, 7, 40, 0, 170, 3, 0] {
        for _ in 0..200 {
            world.ask(&life, 3);
            life.history.flush().await.unwrap();
        }
        world.clock.jump_to(Timestamp(world.now().0 - back * 60_000));
    }
    // Forwards for a while, and back to where it was.
    let at = world.now();
    world.clock.jump_to(at.plus(4 * hour));
    world.ask(&life, 100);
    life.history.flush().await.unwrap();
    world.clock.jump_to(at);
    world.ask(&life, 50);
    life.history.flush().await.unwrap();
    world.clock.jump_to(at.plus(5 * hour));
    for life in [&life, &world.life()] {
        assert_eq!(world.told(life, "24h").await, world.asked);
    }
    assert_eq!(life.analytics.lost(), 0);
}

#[tokio::test]
async fn what_is_old_is_neither_told_nor_kept() {
    let mut world = World::new();
    let life = world.life();
    world.ask(&life, 5);
    life.history.flush().await.unwrap();
    let records = async || {
        let system = TenantId::system();
        let kind = store::Kind::new("traffic");
        let page = store::Store::list(&*world.store, &system, &kind, None, 1_000).await.unwrap();
        let mut records = 0;
        for partition in page.partitions {
            let page = store::Store::scan(&*world.store, &partition, b"", None, 100).await.unwrap();
            records += page.records.len();
        }
        records
    };
    assert_eq!(records().await, 3);
    let day = Duration::from_secs(24 * 3_600);
    world.clock.advance(day);
    assert_eq!((records().await, world.told(&world.life(), "7d").await), (1, 5));
    world.clock.advance(day * 7);
    assert_eq!((records().await, world.told(&world.life(), "7d").await), (0, 0));
}

#[tokio::test]
async fn a_report_without_the_store_says_so_and_tells_what_the_node_remembers() {
    let mut world = World::new();
    let life = world.life();
    world.ask(&life, 9);
    life.history.flush().await.unwrap();
    world.store.plan_faults(|faults: Faults| (1..50).fold(faults, Faults::on_read));
    let now = world.now();
    let report = life.analytics.report(&ask("1h", now, None), now).await;
    assert_eq!((report.complete, report.total.usage.requests), (false, 9));
}

#[tokio::test]
async fn a_route_that_fails_of_a_sudden_is_noted() {
    let mut world = World::new();
    let life = world.life();
    let failing = life.analytics.route("broken", "s");
    for minute in 0..40 {
        world.ask(&life, 30);
        life.analytics.tick(world.now());
        for _ in 0..30 {
            let status = if (20..30).contains(&minute) { 503 } else { 200 };
            life.recorder.record(&sample(failing, Some(&world.callers[0]), status), u64::MAX);
        }
        life.recorder.flush();
        world.clock.advance(Duration::from_secs(59));
    }
    let notes = life.analytics.notes(None, world.now()).await;
    assert_eq!(notes.len(), 1, "{notes:?}");
    assert_eq!((&*notes[0].route, notes[0].episode.what), ("broken", What::Errors));
    assert_eq!(notes[0].episode.begin, Timestamp(BEGIN.0 + 20 * 60_000));
    assert_eq!(notes[0].episode.end, Some(Timestamp(BEGIN.0 + 30 * 60_000)));
    let report = life.analytics.report(&ask("1h", world.now(), None), world.now()).await;
    assert_eq!(report.notes, notes);
    let other = TenantId::new("other").unwrap();
    assert_eq!(life.analytics.notes(Some(&other), world.now()).await, []);
}

/// Resident memory, now and at its highest, in KiB.
fn memory() -> (u64, u64) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let of = |name: &str| -> u64 {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    (of("VmRSS:"), of("VmHWM:"))
}

/// In a process of its own, so that nothing else is measured.
#[test]
fn a_million_users_and_paths_stay_within_64_mib() {
    const MARK: &str = "CROSSTOWN_TEST_MEASURES";
    if std::env::var_os(MARK).is_none() {
        let name = "analytics::tests::a_million_users_and_paths_stay_within_64_mib";
        let this = std::env::current_exe().unwrap();
        let child =
            Command::new(this).args([name, "--exact", "--nocapture"]).env(MARK, "1").output();
        let child = child.unwrap();
        let said = String::from_utf8_lossy(&child.stdout);
        assert!(child.status.success() && said.contains("measured"), "{said}");
        return;
    }
    let (before, _) = memory();
    let analytics = Arc::new(Analytics::default());
    let route = analytics.route("r", "s");
    let recorders = [analytics.recorder(), analytics.recorder()];
    let heavy: Vec<Arc<Caller>> =
        (0..20).map(|n| Arc::new(caller("acme", &format!("heavy{n}")))).collect();
    let mut now = BEGIN;
    for n in 0..1_000_000_u64 {
        let session = Some(SessionId::new(n, [1; 16]));
        let name = format!("{:x}", n * 0x9e37_79b9);
        let light = caller(&format!("t{}", n % 3_000), &name);
        let caller = Arc::new(Caller { session, ..light });
        // Of letters alone, so that no two are one pattern.
        let path: String = format!("/{n}").bytes().map(|b| char::from(b.max(b'/') + 49)).collect();
        let path = format!("/{path}/{}", name.len());
        let asked = Some(Asked { method: "GET", path: &path, pattern: None, query: None });
        let recorder = &recorders[n as usize % 2];
        recorder.record(&Sample { asked, ..sample(route, Some(&caller), 200) }, n);
        let times = if n % 8 == 0 { 1 + n as usize / 8 % 20 } else { 0 };
        for caller in &heavy[..times] {
            recorder.record(&sample(route, Some(caller), 200), u64::MAX);
        }
        if n % 2_000 == 0 {
            recorders.iter().for_each(Recorder::flush);
            now = now.plus(Duration::from_secs(1));
            analytics.tick(now);
        }
    }
    recorders.iter().for_each(Recorder::flush);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let report = runtime.block_on(analytics.report(&ask("1h", now, None), now));
    let (_, highest) = memory();
    println!("measured {} KiB", highest - before);
    assert!(highest - before < 64 * 1024, "{} KiB", highest - before);
    let first = report.consumers.unwrap();
    for (n, used) in first.iter().enumerate() {
        let expected = 125_000 - n as u64 * 6_250;
        assert_eq!(used.of.user.as_str(), format!("heavy{n}"));
        assert!((used.usage.requests..=used.usage.requests + used.missed_max).contains(&expected));
        assert!(used.usage.requests * 100 > expected * 99, "{used:?}");
    }
    let users = report.users.unwrap();
    assert!((900_000..1_100_000).contains(&users), "{users}");
}

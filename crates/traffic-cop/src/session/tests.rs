use super::*;
use clock::ManualClock;
use store::Bucket;
use store_memory::{Fault, MemoryStore};
use types::{Pillars, PrincipalKind, Priority};

const START: Timestamp = Timestamp(1_700_000_000_000);
const HOUR: Duration = Duration::from_secs(3600);
const SECOND: Duration = Duration::from_secs(1);

struct World {
    clock: Arc<ManualClock>,
    store: Arc<MemoryStore>,
    sessions: Arc<Sessions>,
    tenant: TenantId,
    ann: Principal,
}

fn world_with(config: Config) -> World {
    let clock = ManualClock::new(START, 7);
    let store = Arc::new(MemoryStore::new(clock.clone()));
    let revocations = Revocations::new(store.clone());
    let sessions = Arc::new(Sessions::new(store.clone(), clock.clone(), config, revocations));
    let ann = Principal { kind: PrincipalKind::User, id: "ann".parse().unwrap() };
    World { clock, store, sessions, tenant: TenantId::new("acme").unwrap(), ann }
}

fn world() -> World {
    world_with(Config::default())
}

fn device(id: &str) -> Option<NewDevice> {
    Some(NewDevice { id: Some(id.into()), name: id.into(), kind: String::new() })
}

impl World {
    /// From now on commits take a while, in which others read what was before.
    fn let_others_in_between(&self) {
        let slow = Fault::Delay(Duration::from_millis(1));
        self.store
            .plan_faults(|faults| (1..=500).fold(faults, |all, nth| all.on_commit(nth, slow)));
    }

    async fn make(&self, new: NewSession) -> (SessionId, String) {
        let (session, token) = self.sessions.create(&self.tenant, &self.ann, new).await.unwrap();
        (session.id, token)
    }

    async fn kinds(&self, id: SessionId) -> Vec<EventKind> {
        self.events(id).await.into_iter().map(|event| event.kind).collect()
    }

    async fn events(&self, id: SessionId) -> Vec<Event> {
        let past = self.sessions.past(&self.tenant, id).await.unwrap();
        past.map_or(Vec::new(), |past| past.events.into_iter().map(|one| one.event).collect())
    }

    async fn is_let_in(&self, token: &str) -> bool {
        match self.sessions.identify(token).await {
            Ok(_) => true,
            Err(problem) => {
                assert_eq!(problem.code, Code::Unauthenticated);
                false
            }
        }
    }

    async fn lives(&self, id: SessionId) -> bool {
        self.sessions.get(&self.tenant, id).await.unwrap().is_some()
    }
}

#[tokio::test]
async fn what_happens_to_a_session_is_told_in_order_and_who_did_it() {
    let world = world();
    let World { sessions, tenant, ann, clock, .. } = &world;
    let crm = Principal { kind: PrincipalKind::Service, id: "crm".parse().unwrap() };
    let new = NewSession { by: Some(crm.clone()), device: device("phone"), ..Default::default() };
    let (id, _) = world.make(new).await;
    let update = |update: Update| async move {
        clock.advance(SECOND);
        sessions.update(tenant, id, update).await.unwrap();
    };
    let pillars = |text: &str| Some(serde_json::from_str::<Pillars>(text).unwrap());
    update(Update { pillars: pillars(r#"["content:a"]"#), ..Update::default() }).await;
    update(Update { pillars: pillars(r#"["content:a"]"#), ..Update::default() }).await;
    update(Update { status: Some(Status::Suspended), ..Update::default() }).await;
    update(Update { status: Some(Status::Active), ..Update::default() }).await;
    update(Update { priority: Some(Priority::High), ..Update::default() }).await;
    let wish = Move { from: "content:a".into(), to: "content:b".into(), reason: "lunch".into() };
    sessions.move_to(tenant, id, &wish, &crm).await.unwrap();
    let again = sessions.move_to(tenant, id, &wish, &crm).await.unwrap_err();
    assert_eq!(again.code, Code::Conflict);
    clock.advance(SECOND);
    sessions.destroy(tenant, id, End { why: "destroyed", by: Some(ann) }).await.unwrap();
    let events = world.events(id).await;
    use EventKind::{Bound, Created, Moved, Prioritised, Resumed, Revoked, Suspended};
    let kinds: Vec<_> = events.iter().map(|event| event.kind).collect();
    assert_eq!(kinds, [Created, Bound, Suspended, Resumed, Prioritised, Moved, Revoked]);
    assert_eq!(events[0].by.as_deref(), Some("service:crm"));
    assert_eq!(events[5].details["reason"], "lunch");
    assert_eq!(events[6].details["reason"], "destroyed");
    assert!(sessions.past(tenant, id).await.unwrap().unwrap().is_of(ann));
}

#[tokio::test]
async fn a_session_that_nobody_uses_and_one_at_the_end_of_its_life_end_for_other_reasons() {
    let world = world();
    let idle = NewSession { ttl: Some(SECOND * 10), ..NewSession::default() };
    let whole = NewSession { ttl_max: Some(SECOND * 12), ..idle.clone() };
    let fixed = NewSession { sliding: false, ..idle.clone() };
    let (idle, _) = world.make(idle).await;
    let (whole, token) = world.make(whole).await;
    let (fixed, _) = world.make(fixed).await;
    for _ in 0..11 {
        world.clock.advance(SECOND);
        assert!(world.is_let_in(&token).await);
    }
    world.clock.advance(SECOND);
    for (id, why) in [(idle, "idle"), (whole, "absolute"), (fixed, "absolute")] {
        assert!(!world.lives(id).await);
        let events = world.events(id).await;
        let last = events.last().unwrap();
        assert_eq!((last.kind, &last.details["reason"]), (EventKind::Expired, &why.into()));
    }
    // It is told for as long as is stated, and then nothing is known of them.
    world.clock.advance(HOUR * 23);
    assert_eq!(world.kinds(idle).await.len(), 2);
    world.clock.advance(HOUR * 2);
    for bucket in Bucket::all() {
        world.sessions.store.sweep(bucket).await.unwrap();
        world.sessions.forget_past(bucket).await.unwrap();
    }
    world.clock.advance(HOUR * 25);
    for bucket in Bucket::all() {
        world.sessions.forget_past(bucket).await.unwrap();
    }
    assert!(world.sessions.past(&world.tenant, idle).await.unwrap().is_none());
}

/// The clock of the machine is set, forwards and back.
#[tokio::test]
async fn a_clock_that_is_set_ends_no_session_late_and_none_that_is_used() {
    let world = world();
    let ttl = NewSession { ttl: Some(HOUR), ..NewSession::default() };
    let (id, token) = world.make(ttl).await;
    // Back by a day: it lives no longer than its hour by a clock that nobody sets.
    world.clock.jump_to(Timestamp(START.0 - 24 * 3_600_000));
    assert!(world.is_let_in(&token).await);
    world.clock.advance(HOUR);
    assert!(!world.lives(id).await && !world.is_let_in(&token).await);
    assert_eq!(world.kinds(id).await.last(), Some(&EventKind::Expired));

    // Used while the clock is back, it is as young as it was, and not younger.
    let ttl = NewSession { ttl: Some(HOUR), ..NewSession::default() };
    let (id, token) = world.make(ttl).await;
    let made = world.sessions.get(&world.tenant, id).await.unwrap().unwrap();
    world.clock.jump_to(Timestamp(made.created.0 - 60_000));
    let used = world.sessions.refresh(&world.tenant, id, None).await.unwrap();
    assert_eq!(used.expires, made.expires);
    assert!(world.is_let_in(&token).await);

    // Forwards beyond its end: it is over, and stays so when the clock is set right again, though
    // nobody but the clock has said so.
    world.clock.jump_to(made.expires);
    assert!(!world.lives(id).await && !world.is_let_in(&token).await);
    assert_eq!(world.kinds(id).await.last(), Some(&EventKind::Expired));
}

#[tokio::test]
async fn a_limit_is_exact_however_many_come_at_once() {
    for (on_limit, ended) in [(OnLimit::Refuse, 0), (OnLimit::EndOldest, 16)] {
        let config = Config { per_user_max: 4, on_limit, ..Config::default() };
        let world = Arc::new(world_with(config));
        world.let_others_in_between();
        let making = (0..20).map(|_| {
            let world = world.clone();
            tokio::spawn(async move {
                let (tenant, ann) = (&world.tenant, &world.ann);
                world
                    .sessions
                    .create(tenant, ann, NewSession::default())
                    .await
                    .map(|made| made.0.id)
            })
        });
        let mut made = Vec::new();
        for making in making.collect::<Vec<_>>() {
            match making.await.unwrap() {
                Ok(id) => made.push(id),
                Err(problem) => assert_eq!(problem.code, Code::SessionLimit),
            }
        }
        let living = world.sessions.list(&world.tenant, &world.ann).await.unwrap();
        assert_eq!((living.len(), made.len()), (4, 4 + ended), "{on_limit:?}");
        let mut revoked = 0;
        for id in made {
            let events = world.events(id).await;
            let last = events.last().unwrap();
            if last.kind == EventKind::Revoked {
                assert_eq!(last.details["reason"], "limit");
                revoked += 1;
            }
        }
        assert_eq!(revoked, ended);
    }
}

#[tokio::test]
async fn sessions_of_a_device_and_of_a_user_end_at_once() {
    let world = world_with(Config { per_user_max: 100, ..Config::default() });
    let mut tokens = Vec::new();
    for number in 0..70 {
        let on = if number % 2 == 0 { "phone" } else { "laptop" };
        let new = NewSession { device: device(on), ..NewSession::default() };
        tokens.push(world.make(new).await.1);
    }
    let listed = world.sessions.list(&world.tenant, &world.ann).await.unwrap();
    let devices = devices(&listed);
    assert_eq!(devices.iter().map(|on| on.sessions.len()).collect::<Vec<_>>(), [35, 35]);
    let end = End { why: "lost", by: None };
    let World { sessions, tenant, ann, .. } = &world;
    assert_eq!(sessions.end_all_of(tenant, ann, Some("phone"), end).await.unwrap(), 35);
    for (number, token) in tokens.iter().enumerate() {
        assert_eq!(world.is_let_in(token).await, number % 2 == 1);
    }
    assert_eq!(sessions.end_all_of(tenant, ann, None, end).await.unwrap(), 35);
    assert_eq!(sessions.end_all(tenant, end).await.unwrap(), 0);
    // What is left of them does not grow.
    for _ in 0..70 {
        let (id, _) = world.make(NewSession::default()).await;
        sessions.destroy(tenant, id, end).await.unwrap();
    }
    let partition = partition(tenant, record::shelf(ann)).unwrap();
    let page = sessions.store.scan(&partition, b"", None, 1_000).await.unwrap();
    assert!(page.records.len() <= LEFTOVERS_MAX + 2, "{}", page.records.len());
}

#[tokio::test]
async fn of_many_who_redeem_a_code_one_gets_the_session() {
    let world = Arc::new(world());
    let new = NewSession { device: device("phone"), ..NewSession::default() };
    let (id, old) = world.make(new).await;
    let World { sessions, tenant, ann, .. } = &*world;
    let offered = sessions.offer(tenant, id, &NewHandover::default(), ann).await.unwrap();
    world.let_others_in_between();
    let redeeming = (0..8).map(|number| {
        let (world, code) = (world.clone(), offered.code.clone());
        tokio::spawn(async move {
            let redeemer = Redeemer { device: device(&format!("d{number}")), ..Default::default() };
            world.sessions.redeem(&code, redeemer).await
        })
    });
    let mut won = Vec::new();
    for redeeming in redeeming.collect::<Vec<_>>() {
        match redeeming.await.unwrap() {
            Ok(redeemed) => won.push(redeemed),
            Err(problem) => assert_eq!(problem.code, Code::Conflict),
        }
    }
    let [(session, token)] = &won[..] else { panic!("{} have won", won.len()) };
    assert_eq!(session.id, id);
    assert!(world.is_let_in(token).await && !world.is_let_in(&old).await);
    assert_eq!(world.events(id).await.last().unwrap().details["from_device"], "phone");
    // Another code that is wrong five times ends the right one.
    let offered = sessions.offer(tenant, id, &NewHandover::default(), ann).await.unwrap();
    let wrong = format!("csh_acme.{id}.{}", "x".repeat(43));
    for _ in 0..5 {
        let refused = sessions.redeem(&wrong, Redeemer::default()).await.unwrap_err();
        assert_eq!(refused.code, Code::NotFound);
    }
    let refused = sessions.redeem(&offered.code, Redeemer::default()).await.unwrap_err();
    assert_eq!(refused.code, Code::NotFound);
    assert_eq!(world.kinds(id).await.last(), Some(&EventKind::HandoverRefused));
    assert!(world.is_let_in(token).await);
}

#[tokio::test]
async fn a_session_that_is_handed_to_an_agent_is_used_by_it_alone() {
    let world = world();
    let (id, old) = world.make(NewSession::default()).await;
    let World { sessions, tenant, ann, .. } = &world;
    let agent = Principal { kind: PrincipalKind::Agent, id: "planner".parse().unwrap() };
    let to = Recipient { user: agent.id.clone(), kind: agent.kind };
    let new = NewHandover { to: Some(to), grace: Some(SECOND * 5), ..NewHandover::default() };
    let offered = sessions.offer(tenant, id, &new, ann).await.unwrap();
    let caller = |tenant: &str, who: &Principal| {
        Caller::new(tenant.parse().unwrap(), who.clone(), CredentialKind::ApiKey)
    };
    let redeem = async |caller: Option<&Caller>| {
        sessions.redeem(&offered.code, Redeemer { caller, ..Redeemer::default() }).await
    };
    let refused = |outcome: Result<_, Problem>| outcome.map(drop).unwrap_err().code;
    assert_eq!(refused(redeem(None).await), Code::Unauthenticated);
    assert_eq!(refused(redeem(Some(&caller("acme", ann))).await), Code::Forbidden);
    assert_eq!(refused(redeem(Some(&caller("other", &agent))).await), Code::Unauthenticated);
    let (session, token) = redeem(Some(&caller("acme", &agent))).await.unwrap();
    assert_eq!(session.holder.as_deref(), Some("agent:planner"));
    let who = async |token: &str| {
        let (caller, _) = sessions.identify(token).await.ok()?;
        Some((caller.principal, caller.session, caller.steering.map_or(0, |one| one.handed)))
    };
    assert_eq!(who(&token).await, Some((agent, Some(id), 1)));
    assert_eq!(who(&old).await, Some((ann.clone(), Some(id), 0)));
    world.clock.advance(SECOND * 5);
    assert_eq!(who(&old).await, None);
}

#[tokio::test]
async fn whoever_was_faster_rebinds_a_session() {
    let world = world();
    let (id, token) = world.make(NewSession::default()).await;
    let World { sessions, tenant, ann, .. } = &world;
    let route = |instance: &str| NewRoute {
        service: "app".into(),
        instance: Some(instance.into()),
        pillar: None,
    };
    sessions.route(tenant, id, &route("a:1"), ann).await.unwrap();
    let bound = async || {
        let (caller, _) = sessions.identify(&token).await.unwrap();
        caller.steering.unwrap().instances["app"].to_string()
    };
    assert_eq!(bound().await, "a:1");
    sessions.rebind(tenant, id, "app", "a:1", "b:1").await.unwrap();
    sessions.rebind(tenant, id, "app", "a:1", "c:1").await.unwrap();
    sessions.rebind(tenant, id, "none", "a:1", "c:1").await.unwrap();
    assert_eq!(bound().await, "b:1");
    assert_eq!(world.kinds(id).await[1..], [EventKind::Routed, EventKind::Rebound]);
    let elsewhere = NewRoute { pillar: Some("content".into()), ..route("a:1") };
    let refused = sessions.route(tenant, id, &elsewhere, ann).await.unwrap_err();
    assert_eq!(refused.code, Code::Conflict);
}

#[tokio::test]
async fn events_are_bounded_and_found_among_those_of_other_sessions() {
    let config = Config { events_max: 10, ..Config::default() };
    let world = world_with(config);
    let (quiet, _) = world.make(NewSession::default()).await;
    let (loud, _) = world.make(NewSession::default()).await;
    for number in 0..400 {
        let status = if number % 2 == 0 { Status::Suspended } else { Status::Active };
        let update = Update { status: Some(status), ..Update::default() };
        world.sessions.update(&world.tenant, loud, update).await.unwrap();
    }
    assert_eq!(world.events(loud).await.len(), 10);
    assert_eq!(world.events(quiet).await, [], "what is long past gives way");
    let partition = partition(&world.tenant, quiet.shelf()).unwrap();
    let head = world.sessions.store.head(&partition).await.unwrap().unwrap();
    let held = head.streams[0].last - head.streams[0].first + 1;
    assert!((160..=224).contains(&held), "{held}");
}

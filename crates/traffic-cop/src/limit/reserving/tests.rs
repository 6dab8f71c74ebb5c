use super::*;
use crate::limit::{
    Every, Limits, Measure, Mode, Named, Owners, PLACES, Per, Rule, Subject, shard_of, shards,
    tests::told,
};
use async_trait::async_trait;
use clock::ManualClock;
use http::HeaderMap;
use ledger::{Keeper, NodeId};
use std::sync::OnceLock;
use store::SharedStore;
use store_memory::{Fault, Faults, MemoryStore};
use types::TenantId;

/// The first of December 2026, in UTC.
const DECEMBER: Timestamp = Timestamp(1_796_083_200_000);
const DAY: Duration = Duration::from_secs(86_400);

fn quota(every: Every, quota: u64) -> Rule {
    let calendar = Some(Calendar::new(every, "UTC").unwrap());
    Rule { calendar, ..Rule::new("q", Per::Tenant, quota, 31 * DAY) }
}

struct Node {
    limits: Limits,
    shared: Arc<Shared>,
    clock: SharedClock,
    running: tokio::task::JoinSet<()>,
}

impl Node {
    fn alone(store: &Arc<MemoryStore>, clock: &Arc<ManualClock>, rules: Vec<Rule>) -> Self {
        let shared = Shared::alone(store.clone(), clock.clone()).unwrap();
        Self::of(shared, clock.clone(), rules)
    }

    fn of(shared: Arc<Shared>, clock: SharedClock, rules: Vec<Rule>) -> Self {
        let mut running = tokio::task::JoinSet::new();
        running.spawn(shared.clone().run());
        let limits = Limits::new(rules, shared.clone());
        Self { limits, shared, clock, running }
    }

    async fn ask(&self, tenant: &str) -> (bool, HeaderMap) {
        let tenant = TenantId::new(tenant).unwrap();
        let ip = "::1".parse().unwrap();
        let (principal, session, route) = (None, None, "r");
        let subject = Subject { tenant: Some(&tenant), principal, session, ip, route };
        let decision = self.limits.resolve(&subject).take_by(&self.clock, 1);
        let decision = decision.settle(&self.clock, 1).await;
        (decision.allowed(), told(&decision))
    }

    /// How many of `most` requests are let in.
    async fn admitted(&self, tenant: &str, most: u64) -> u64 {
        let mut count = 0;
        for _ in 0..most {
            count += u64::from(self.ask(tenant).await.0);
        }
        count
    }
}

fn december() -> (Arc<MemoryStore>, Arc<ManualClock>) {
    let clock = ManualClock::new(DECEMBER.plus(DAY), 7);
    (Arc::new(MemoryStore::new(clock.clone())), clock)
}

#[tokio::test]
async fn a_month_survives_restarts_exactly_and_crashes_nearly() {
    let (store, clock) = december();
    let start = || Node::alone(&store, &clock, vec![quota(Every::Month, 1_000)]);
    let mut node = start();
    assert_eq!(node.admitted("acme", 300).await, 300);
    let commits = node.limits.reserves();
    assert!(commits <= 61, "{commits} commits for 300 requests");
    node.limits.settle().await;
    node = start();
    let (_, headers) = node.ask("acme").await;
    assert_eq!(headers["ratelimit"], "\"q\";r=699;t=2592000");
    // As `kill -9` does.
    node.running.abort_all();
    node = start();
    let (_, headers) = node.ask("acme").await;
    let left = headers["ratelimit"].to_str().unwrap();
    let left: u64 = left.split(['=', ';']).nth(2).unwrap().parse().unwrap();
    assert!((688..=698).contains(&left), "{left}");
    assert_eq!(node.admitted("acme", 1_000).await, left);
    assert_eq!(node.admitted("other", 1_001).await, 1_000, "each has his own");
}

#[tokio::test]
async fn a_period_begins_when_the_clock_says_so_and_never_twice() {
    let (store, clock) = december();
    let node = Node::alone(&store, &clock, vec![quota(Every::Day, 3)]);
    assert_eq!(node.admitted("acme", 4).await, 3);
    let (_, headers) = node.ask("acme").await;
    assert_eq!(headers["ratelimit-policy"], "\"q\";q=3;w=86400");
    assert_eq!(headers["ratelimit"], "\"q\";r=0;t=86400");
    assert_eq!(headers["retry-after"], "86400");
    clock.advance(DAY - Duration::from_millis(1));
    assert_eq!(node.ask("acme").await.1["retry-after"], "1");
    clock.advance(Duration::from_millis(1));
    assert_eq!(node.admitted("acme", 4).await, 3, "it is the next day");
    // Somebody sets the clock back: neither is yesterday new, nor today after it.
    clock.jump_to(DECEMBER.plus(DAY));
    let (allowed, headers) = node.ask("acme").await;
    assert!(!allowed);
    assert_eq!(headers["retry-after"], "172800", "until the end of what is counted");
    let restarted = Node::alone(&store, &clock, vec![quota(Every::Day, 3)]);
    assert_eq!(restarted.admitted("acme", 3).await, 0);
    assert_eq!(restarted.admitted("other", 4).await, 3);
    clock.jump_to(DECEMBER.plus(DAY * 2));
    assert_eq!(node.admitted("acme", 3).await, 0);
    // Ahead: what is new by the clock is.
    clock.jump_to(DECEMBER.plus(DAY * 9));
    assert_eq!(node.admitted("acme", 4).await, 3);
}

#[tokio::test]
async fn a_quota_is_charged_with_the_rates_or_not_at_all() {
    let (store, clock) = december();
    let rate = Rule { name: "rate".into(), ..Rule::new("rate", Per::Tenant, 2, DAY) };
    let node = Node::alone(&store, &clock, vec![quota(Every::Month, 10), rate]);
    assert_eq!(node.admitted("acme", 50).await, 2);
    let (_, headers) = node.ask("acme").await;
    assert_eq!(headers["ratelimit-policy"], "\"q\";q=10;w=2678400, \"rate\";q=2;w=86400");
    assert!(headers["ratelimit"].to_str().unwrap().starts_with("\"rate\";r=0"));
    clock.advance(DAY);
    assert_eq!(node.admitted("acme", 2).await, 2);
    node.limits.replace(vec![quota(Every::Month, 10)]);
    assert_eq!(node.admitted("acme", 20).await, 6, "what the rate refused cost nothing");
    node.limits.replace(vec![quota(Every::Month, 15)]);
    assert_eq!(node.admitted("acme", 20).await, 5, "a larger quota goes on where it was");
    let acme = Named { tenant: Some(TenantId::new("acme").unwrap()), ..Named::default() };
    node.limits.reset("q", &acme).await.unwrap();
    node.limits.settle().await;
    let restarted = Node::alone(&store, &clock, vec![quota(Every::Month, 15)]);
    assert_eq!(restarted.admitted("acme", 20).await, 15);
}

#[tokio::test]
async fn bytes_and_shadows_are_counted_by_the_month_too() {
    let (store, clock) = december();
    let bytes = Rule { measure: Measure::Bytes, ..quota(Every::Month, 1_000) };
    let shadow = Rule { name: "shadow".into(), mode: Mode::Shadow, ..quota(Every::Month, 2) };
    let node = Node::alone(&store, &clock, vec![bytes, shadow]);
    let tenant = TenantId::new("acme").unwrap();
    let ip = "::1".parse().unwrap();
    let (principal, session, route) = (None, None, "r");
    let subject = Subject { tenant: Some(&tenant), principal, session, ip, route };
    let mut admitted = 0;
    for _ in 0..10 {
        let decision = node.limits.resolve(&subject).take_by(&node.clock, 1);
        let decision = decision.settle(&node.clock, 1).await;
        if let Some(owing) = decision.owing() {
            owing.ended(&node.clock, 400);
            admitted += 1;
        }
    }
    assert_eq!(admitted, 3, "the third was let in while 200 were left");
    let told = node.limits.shadows(crate::analytics::Range::OneHour, Duration::ZERO);
    assert_eq!(told[0].since_start, 1);
}

#[tokio::test]
async fn without_its_store_a_quota_goes_by_its_rule() {
    use crate::limit::WhenAway;
    for (rule, expected) in
        [(WhenAway::Refuse, 0), (WhenAway::LocalShare, 10), (WhenAway::Pass, 50)]
    {
        let (store, clock) = december();
        let rules = vec![Rule { when_away: rule, ..quota(Every::Month, 1_000) }];
        let node = Node::alone(&store, &clock, rules);
        store.plan_faults(|faults: Faults| {
            (1..=50).fold(faults, |faults, nth| faults.on_commit(nth, Fault::LoseRequest))
        });
        assert_eq!(node.admitted("acme", 50).await, expected, "{rule:?}");
    }
}

/// The nodes of a test, by name.
type Nodes = Arc<OnceLock<Vec<(String, Arc<Shared>)>>>;

struct Between {
    keeper: Arc<Keeper>,
    nodes: Nodes,
}

#[async_trait]
impl Owners for Between {
    fn nodes(&self) -> u64 {
        2
    }

    fn owner(&self, place: u8) -> Option<String> {
        self.keeper.owner(shard_of(place)?).map(|(_, name)| name)
    }

    async fn ask(&self, owner: &str, asks: Vec<Ask>) -> Result<Vec<Option<Grant>>, String> {
        let sent = serde_json::to_string(&asks).unwrap();
        let asks: Vec<Ask> = serde_json::from_str(&sent).unwrap();
        let nodes = self.nodes.get().ok_or("nobody is there yet")?;
        let (_, node) = nodes.iter().find(|(name, _)| name == owner).ok_or("who is that?")?;
        Ok(node.grant(&asks).await)
    }
}

async fn two(clock: &Arc<ManualClock>, store: &SharedStore, rules: &[Rule]) -> [Node; 2] {
    let nodes = Nodes::default();
    let started = ["one", "two"].map(|name| {
        let keeper = Keeper::of(
            shards(),
            store.clone(),
            clock.clone(),
            NodeId::draw(&(clock.clone() as SharedClock)),
            name.into(),
        );
        tokio::spawn(keeper.clone().run(std::future::pending()));
        let owners = Arc::new(Between { keeper: keeper.clone(), nodes: nodes.clone() });
        let shared = Shared::new(store.clone(), clock.clone(), keeper, owners).unwrap();
        Node::of(shared, clock.clone(), rules.to_vec())
    });
    let all = ["one".to_owned(), "two".to_owned()].into_iter();
    let _ = nodes.set(all.zip(started.iter().map(|node| node.shared.clone())).collect());
    settled(&started).await;
    started
}

/// Until each place is held by the node that both believe to be its owner.
async fn settled(nodes: &[Node; 2]) {
    let is_settled = |place: u8| {
        let owners = nodes.each_ref().map(|node| node.shared.owners.owner(place));
        let held =
            nodes.each_ref().map(|node| node.shared.holds(&node.shared.places[usize::from(place)]));
        let one = (Some("one".to_owned()), [true, false]);
        let two = (Some("two".to_owned()), [false, true]);
        [one, two].contains(&(owners[0].clone(), held)) && owners[0] == owners[1]
    };
    let settled = async {
        while !(0..PLACES).all(is_settled) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), settled).await.expect("places have owners");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_admit_one_quota_and_turn_together() {
    let (store, clock) = december();
    let store: SharedStore = store;
    let nodes = two(&clock, &store, &[quota(Every::Month, 300)]).await;
    let tenants: Vec<String> = (0..6).map(|n| format!("tenant-{n}")).collect();
    for month in 0..2_u64 {
        for tenant in &tenants {
            let both = tokio::join!(nodes[0].admitted(tenant, 250), nodes[1].admitted(tenant, 250));
            let both = both.0 + both.1;
            assert!(both <= 300, "{tenant} in month {month}: {both}");
            assert!(both >= 240, "{tenant} in month {month}: {both}, shares are lost");
            for node in &nodes {
                let (allowed, headers) = node.ask(tenant).await;
                let policy = headers["ratelimit-policy"].to_str().unwrap();
                assert_eq!(policy, "\"q\";q=300;w=2678400");
                if !allowed {
                    let wait: u64 = headers["retry-after"].to_str().unwrap().parse().unwrap();
                    assert_eq!(wait, (30 + month) * 86_400 - 2 * month, "{tenant}");
                }
            }
        }
        // Beyond the leases, too: what was counted is loaded, and belongs to the month before.
        clock.advance(30 * DAY);
        settled(&nodes).await;
        // Who was asked before that counts as away for a second.
        clock.advance(Duration::from_secs(2));
    }
}

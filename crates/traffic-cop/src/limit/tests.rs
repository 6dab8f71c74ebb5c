use super::{shared::Charged, *};
use clock::{Clock, SharedClock};
use http::{HeaderMap, HeaderName, HeaderValue, header::RETRY_AFTER};
use std::sync::atomic::{AtomicU64, Ordering};
use types::{Principal, PrincipalId, PrincipalKind, SessionId, TenantId, Timestamp};

fn rule(name: &str, per: Per, requests: u64, seconds: u64) -> Rule {
    Rule::new(name, per, requests, Duration::from_secs(seconds))
}

fn by_rules(rules: Vec<Rule>) -> Limits {
    Limits::new(rules, Shared::in_memory(clock::SystemClock::shared()))
}

fn tenant(name: &str) -> TenantId {
    TenantId::new(name).unwrap()
}

fn subject<'a>(tenant: &'a TenantId, ip: &str) -> Subject<'a> {
    let ip = ip.parse().unwrap();
    Subject { tenant: Some(tenant), principal: None, session: None, ip, route: "r" }
}

/// The fields by which a client is told of a decision.
pub(super) fn told(decision: &Decision) -> HeaderMap {
    let mut headers = HeaderMap::new();
    decision.tell(|name, value| {
        assert!(decision.tells(name));
        assert!(headers.insert(name, HeaderValue::from_bytes(value).unwrap()).is_none());
    });
    if !decision.allowed() {
        let refusal = decision.problem().to_response();
        headers.insert(RETRY_AFTER, refusal.headers()[RETRY_AFTER].clone());
    }
    headers
}

#[test]
fn a_bucket_takes_its_burst_and_then_its_rate() {
    let limits = by_rules(vec![rule("t", Per::Tenant, 10, 10)]);
    let acme = tenant("acme");
    let charge = limits.resolve(&subject(&acme, "::1"));
    let at = Duration::from_secs;
    for _ in 0..10 {
        assert!(charge.take(at(5), 1).allowed());
    }
    let refused = charge.take(at(5), 1);
    assert!(!refused.allowed());
    let headers = told(&refused);
    assert_eq!(headers["ratelimit-policy"], "\"t\";q=10;w=10");
    assert_eq!(headers["ratelimit"], "\"t\";r=0;t=10");
    assert_eq!(headers["retry-after"], "1");
    assert!(charge.take(at(6), 1).allowed());
    assert!(!charge.take(at(6), 1).allowed());
}

#[test]
fn a_refusal_of_one_rule_charges_none() {
    let limits =
        by_rules(vec![rule("wide", Per::Global, 100, 100), rule("narrow", Per::Tenant, 1, 100)]);
    let acme = tenant("acme");
    let charge = limits.resolve(&subject(&acme, "::1"));
    assert!(charge.take(Duration::ZERO, 1).allowed());
    for _ in 0..50 {
        assert!(!charge.take(Duration::ZERO, 1).allowed());
    }
    let part = &charge.0.parts[0];
    let Charged::Taken(probe) = charge.0.charge(part, Duration::ZERO, 1) else { panic!() };
    assert_eq!(probe.remaining, 98);
}

#[test]
fn tenants_have_buckets_of_their_own() {
    let limits = by_rules(vec![rule("r", Per::Route, 1, 100)]);
    let (acme, other) = (tenant("acme"), tenant("other"));
    assert!(limits.resolve(&subject(&acme, "::1")).take(Duration::ZERO, 1).allowed());
    assert!(!limits.resolve(&subject(&acme, "::1")).take(Duration::ZERO, 1).allowed());
    assert!(limits.resolve(&subject(&other, "::1")).take(Duration::ZERO, 1).allowed());
}

#[test]
fn an_ipv6_network_is_one_subject() {
    let limits = by_rules(vec![rule("ip", Per::Ip, 1, 100)]);
    let acme = tenant("acme");
    let taken = |ip| limits.resolve(&subject(&acme, ip)).take(Duration::ZERO, 1).allowed();
    assert!(taken("2001:db8::1"));
    assert!(!taken("2001:db8::ffff:1"));
    assert!(taken("2001:db8:0:1::1"));
    assert!(taken("10.0.0.1"));
    assert!(!taken("::ffff:10.0.0.1"));
}

#[test]
fn idle_buckets_are_forgotten() {
    let limits = by_rules(vec![rule("t", Per::Tenant, 1, 10)]);
    let acme = tenant("acme");
    assert!(limits.resolve(&subject(&acme, "::1")).take(Duration::ZERO, 1).allowed());
    limits.expire(Duration::from_secs(9));
    assert_eq!(limits.bucket_count(), 1);
    limits.expire(Duration::from_secs(10));
    assert_eq!(limits.bucket_count(), 0);
}

/// The time as a thread sees it that does not run for a while after it has first looked.
struct Lagging(AtomicU64);

impl Clock for Lagging {
    fn now(&self) -> Timestamp {
        Timestamp(0)
    }

    fn elapsed(&self) -> Duration {
        let looked = self.0.fetch_add(1, Ordering::Relaxed);
        Duration::from_millis(if looked == 0 { 0 } else { 500 })
    }

    fn fill_random(&self, bytes: &mut [u8]) {
        bytes.fill(0);
    }
}

#[test]
fn a_thread_that_did_not_run_is_not_refused_for_what_others_took_since() {
    let limits = by_rules(vec![rule("t", Per::Tenant, 10, 1)]);
    let acme = tenant("acme");
    let charge = limits.resolve(&subject(&acme, "::1"));
    for _ in 0..9 {
        assert!(charge.take(Duration::from_millis(500), 1).allowed());
    }
    // By its own time there is no room before 0.4 s.
    assert!(!charge.take(Duration::ZERO, 1).allowed());
    let lagging: SharedClock = Arc::new(Lagging(AtomicU64::new(0)));
    assert!(charge.take_by(&lagging, 1).allowed());
    assert!(!charge.take_by(&lagging, 1).allowed(), "the tenth was the last");
}

#[test]
fn a_session_has_its_own_bucket_and_who_has_none_that_of_the_caller() {
    let limits = by_rules(vec![rule("s", Per::Session, 1, 100)]);
    let (acme, id) = (tenant("acme"), PrincipalId::new("ann").unwrap());
    let ann = Principal { kind: PrincipalKind::User, id };
    let taken = |session: Option<u8>, principal| {
        let session = session.map(|random| SessionId::new(7, [random; 16]));
        let subject = Subject { session, principal, ..subject(&acme, "::1") };
        limits.resolve(&subject).take(Duration::ZERO, 1).allowed()
    };
    assert!(taken(Some(1), Some(&ann)));
    assert!(!taken(Some(1), Some(&ann)));
    assert!(taken(Some(2), Some(&ann)));
    assert!(taken(None, Some(&ann)));
    assert!(!taken(None, Some(&ann)));
    assert!(taken(None, None) && taken(None, None), "nobody is counted");
}

#[test]
fn a_rule_in_shadow_counts_whom_it_would_refuse_and_refuses_nobody() {
    let shadow = Rule { mode: Mode::Shadow, ..rule("new", Per::Tenant, 2, 100) };
    let limits = by_rules(vec![shadow.clone(), rule("old", Per::Tenant, 4, 100)]);
    let acme = tenant("acme");
    let charge = limits.resolve(&subject(&acme, "::1"));
    let (mut headers, mut admitted) = (HeaderMap::new(), 0);
    for _ in 0..10 {
        let decision = charge.take(Duration::from_secs(5), 1);
        admitted += u32::from(decision.allowed());
        headers = told(&decision);
        assert!(!headers["ratelimit"].to_str().unwrap().contains("new"), "{headers:?}");
    }
    assert_eq!(headers["ratelimit-policy"], "\"old\";q=4;w=100");
    assert_eq!(admitted, 4);
    let told = |limits: &Limits| limits.shadows(Range::OneMinute, Duration::from_secs(5));
    let report = told(&limits);
    assert_eq!((report.len(), &*report[0].limit, report[0].since_start), (1, "new", 2));
    assert_eq!(report[0].refusals.refused, 2, "what others refuse is not charged to it");
    let named = Named { tenant: Some(acme.clone()), ..Named::default() };
    assert_eq!(*report[0].refusals.subjects[0].subject, named);
    // It is full again at the rate of what it admitted, as if it held.
    assert!(charge.take(Duration::from_secs(60), 1).allowed());
    assert_eq!(told(&limits)[0].since_start, 2);
    limits.replace(vec![shadow]);
    assert_eq!(told(&limits)[0].since_start, 2, "it goes on where it was");
    limits.replace(vec![rule("new", Per::Tenant, 2, 100)]);
    assert_eq!(told(&limits), []);
}

/// A clock that stands still at so many seconds.
fn standing(seconds: u64) -> SharedClock {
    let clock = clock::ManualClock::new(Timestamp(0), 1);
    clock.advance(Duration::from_secs(seconds));
    clock
}

fn by_tokens(requests: u64) -> Rule {
    let name = HeaderName::from_static("x-tokens-used");
    let measure = Measure::Field { name, kept: false };
    Rule { measure, cost: 3, ..rule("tokens", Per::Tenant, requests, requests) }
}

/// Answers an admitted request with this header value; the headers that the client sees.
fn answer(charge: &Charge, clock: &SharedClock, tokens: Option<&str>) -> Option<HeaderMap> {
    let mut decision = charge.take_by(clock, 1);
    let mut owing = decision.owing()?;
    let mut head = HeaderMap::new();
    if let Some(tokens) = tokens {
        head.insert("x-tokens-used", HeaderValue::from_str(tokens).unwrap());
    }
    owing.answered(clock, &mut head, &mut decision);
    owing.ended(clock, 1_000);
    head.extend(told(&decision));
    Some(head)
}

#[test]
fn a_request_costs_what_its_rule_or_its_route_says() {
    let costs = [("r".to_owned(), 4)].into();
    let limits = by_rules(vec![
        Rule { cost: 2, costs, ..rule("t", Per::Tenant, 10, 10) },
        rule("g", Per::Global, 3, 9),
    ]);
    let acme = tenant("acme");
    let here = limits.resolve(&subject(&acme, "::1"));
    let there = limits.resolve(&Subject { route: "other", ..subject(&acme, "::1") });
    assert!(here.take(Duration::ZERO, 1).allowed() && here.take(Duration::ZERO, 1).allowed());
    assert!(!here.take(Duration::ZERO, 1).allowed(), "two are left");
    assert!(there.take(Duration::ZERO, 1).allowed(), "a refusal has charged nothing");
    assert!(!there.take(Duration::from_secs(2), 1).allowed(), "the other limit is used up");
    assert!(here.take(Duration::from_secs(4), 1).allowed(), "and gave back what it had cost");
    assert!(here.take(Duration::from_secs(9), 1).owing().is_none(), "all is known before");
}

#[test]
fn what_an_answer_says_that_it_cost_is_charged_and_may_be_owed() {
    let limits = by_rules(vec![by_tokens(10)]);
    let acme = tenant("acme");
    let charge = limits.resolve(&subject(&acme, "::1"));
    let head = answer(&charge, &standing(5), Some("7")).unwrap();
    assert_eq!(head["ratelimit"], "\"tokens\";r=3;t=7");
    assert!(!head.contains_key("x-tokens-used"));
    let head = answer(&charge, &standing(5), Some("18")).unwrap();
    assert_eq!(head["ratelimit"], "\"tokens\";r=0;t=25");
    assert!(answer(&charge, &standing(5), Some("1")).is_none());
    let head = told(&charge.take_by(&standing(5), 1));
    assert_eq!(head["ratelimit"], "\"tokens\";r=0;t=25");
    assert_eq!(head["retry-after"], "16");
    assert!(answer(&charge, &standing(20), Some("0")).is_none());
    assert!(answer(&charge, &standing(21), Some("0")).is_some());
    // Without an end, so high a cost would be a refusal for ever.
    answer(&charge, &standing(21), Some("1000000000")).unwrap();
    let month = 31 * 86_400;
    assert!(answer(&charge, &standing(21 + month), None).is_none());
    assert!(answer(&charge, &standing(22 + month), None).is_some());
}

#[test]
fn an_answer_without_a_cost_costs_the_default_and_a_malformed_one_is_counted() {
    let limits = by_rules(vec![by_tokens(10)]);
    let acme = tenant("acme");
    let charge = limits.resolve(&subject(&acme, "::1"));
    let left = |head: Option<HeaderMap>| head.unwrap()["ratelimit"].to_str().unwrap().to_owned();
    assert_eq!(left(answer(&charge, &standing(0), None)), "\"tokens\";r=7;t=3");
    assert_eq!(limits.malformed(), [("tokens".into(), 0)]);
    assert_eq!(left(answer(&charge, &standing(0), Some("many"))), "\"tokens\";r=4;t=6");
    assert_eq!(limits.malformed(), [("tokens".into(), 1)]);
    // Nor is a request free that nobody answers.
    charge.take_by(&standing(0), 1).owing().unwrap().ended(&standing(0), 0);
    assert_eq!(left(answer(&charge, &standing(0), Some("0"))), "\"tokens\";r=1;t=9");
    let kept = Measure::Field { name: HeaderName::from_static("x-tokens-used"), kept: true };
    let limits = by_rules(vec![Rule { measure: kept, ..by_tokens(10) }]);
    let head = answer(&limits.resolve(&subject(&acme, "::1")), &standing(0), Some("1")).unwrap();
    assert_eq!(head["x-tokens-used"], "1");
}

#[test]
fn bytes_are_charged_at_the_end() {
    let bytes = Rule { measure: Measure::Bytes, ..rule("b", Per::Tenant, 2_500, 10) };
    let limits = by_rules(vec![bytes]);
    let acme = tenant("acme");
    let charge = limits.resolve(&subject(&acme, "::1"));
    let head = answer(&charge, &standing(0), Some("7")).unwrap();
    assert_eq!(head["ratelimit-policy"], "\"b\";q=2500;w=10;qu=\"content-bytes\"");
    assert_eq!(head["x-tokens-used"], "7", "it is no cost here");
    assert!(answer(&charge, &standing(0), None).is_some());
    assert!(answer(&charge, &standing(0), None).is_some(), "500 are left, and 500 are owed");
    assert!(answer(&charge, &standing(0), None).is_none());
}

#[test]
fn a_shadow_is_charged_afterwards_for_those_only_whom_it_would_have_let_in() {
    let limits = by_rules(vec![Rule { mode: Mode::Shadow, ..by_tokens(10) }]);
    let acme = tenant("acme");
    let charge = limits.resolve(&subject(&acme, "::1"));
    for _ in 0..5 {
        let head = answer(&charge, &standing(0), Some("6")).unwrap();
        assert!(head.is_empty(), "{head:?}");
    }
    let refused =
        |seconds| limits.shadows(Range::OneMinute, Duration::from_secs(seconds))[0].since_start;
    assert_eq!(refused(0), 3);
    answer(&charge, &standing(3), Some("6"));
    assert_eq!(refused(3), 3, "twelve were taken, and not thirty");
}

#[tokio::test]
async fn an_operator_makes_one_subject_whole_again() {
    let limits = by_rules(vec![rule("t", Per::Tenant, 1, 100)]);
    let names = ["acme", "other"].map(tenant);
    let charges = [0, 1].map(|at| limits.resolve(&subject(&names[at], "::1")));
    let taken = |at: usize| charges[at].take(Duration::ZERO, 1).allowed();
    assert!(taken(0) && taken(1));
    let acme = Named { tenant: Some(names[0].clone()), ..Named::default() };
    limits.reset("t", &acme).await.unwrap();
    assert!(taken(0) && !taken(0) && !taken(1));
    assert!(matches!(limits.reset("x", &acme).await, Err(ResetError::NoLimit)));
    let nobody = Named::default();
    assert!(matches!(limits.reset("t", &nobody).await, Err(ResetError::Subject(_))));
}

#[test]
fn a_cost_that_cannot_be_is_refused_with_what_to_change() {
    let read = |more: &str| {
        let rule = format!("name = \"a\"\nper = \"ip\"\nrequests = 10\nperiod = \"1s\"\n{more}");
        toml::from_str::<Rule>(&rule).map_err(|error| error.message().to_owned())
    };
    let refused = |more: &str, expected: &str| {
        let why = read(more).expect_err(more);
        assert!(why.contains(expected), "{more}: {why}");
    };
    refused("cost = 0", "must be 1 to the limit's `burst`, 10");
    refused("cost = 3\nburst = 2", "must be 1 to the limit's `burst`, 2");
    refused("costs = { r = 11 }", "must be 1 to the limit's `burst`, 10");
    refused("cost = \"byte\"", "`cost` is a whole number or \"bytes\"");
    refused("cost = \"bytes\"\ncosts = { r = 2 }", "`costs` of a limit are fixed");
    refused("cost = \"bytes\"\ncost_header = \"x-a\"", "not both");
    refused("cost_header = \"x a\"", "must name a header field, unlike `x a`");
    refused("keep_cost_header = true", "needs its `cost_header`");
    assert_eq!(read("cost = \"bytes\"").unwrap().measure, Measure::Bytes);
    let rule = read("cost = 2\ncost_header = \"X-Tokens-Used\"").unwrap();
    let name = HeaderName::from_static("x-tokens-used");
    assert_eq!((rule.cost, rule.measure), (2, Measure::Field { name, kept: false }));
}

#[test]
fn a_quota_that_cannot_be_is_refused_with_what_to_change() {
    let read = |rule: &str| {
        let rule = format!("name = \"a\"\nper = \"ip\"\n{rule}");
        toml::from_str::<Rule>(&rule).map_err(|error| error.message().to_owned())
    };
    let refused = |rule: &str, expected: &str| {
        let why = read(rule).expect_err(rule);
        assert!(why.contains(expected), "{rule}: {why}");
    };
    refused("period = \"day\"", "a limit needs `requests` in any `period`, or a `quota`");
    refused("period = \"day\"\nrequests = 5", "has a `quota` in place of `requests`");
    refused("period = \"day\"\nrequests = 5\nquota = 5", "not both");
    refused("period = \"1d\"\nquota = 5", "unlike `1d`");
    refused("period = \"year\"\nquota = 5", "unlike `year`");
    refused("period = \"1d\"\nrequests = 5\ntime_zone = \"UTC\"", "is for a `quota`");
    refused("period = \"day\"\nquota = 0", "`quota` of a limit must be 1 to");
    refused("period = \"day\"\nquota = 5\nburst = 2", "a `quota` has no `burst`");
    refused("period = \"day\"\nquota = 5\nscope = \"node\"", "remove `scope`");
    refused("period = \"day\"\nquota = 5\ntime_zone = \"Mars\"", "`Mars` is not a time zone");
    refused("period = \"day\"\nquota = 5\ncost = 6", "must be 1 to the limit's `quota`, 5");
    let rule = read("period = \"month\"\nquota = 1000000000000\ncost = \"bytes\"").unwrap();
    assert_eq!(rule.calendar, Some(Calendar::new(Every::Month, "UTC").unwrap()));
    assert_eq!((rule.requests, rule.excess_max(3)), (1_000_000_000_000, Some(30_000_000_000)));
}

/// What the fields of a decision say: what remains, and the seconds to the reset and to a retry.
fn said(decision: &Decision) -> (u64, u64, Option<u64>) {
    let headers = told(decision);
    let text = headers["ratelimit"].to_str().unwrap();
    let mut numbers = text.split(['=', ';']).filter_map(|part| part.parse().ok());
    let retry = headers.get("retry-after").map(|wait| wait.to_str().unwrap().parse().unwrap());
    (numbers.next().unwrap(), numbers.next().unwrap(), retry)
}

/// Seconds and requests by chance; the seed is the clock's.
#[test]
fn the_fields_say_what_then_happens() {
    for seed in 0..40 {
        let clock = clock::ManualClock::new(Timestamp(1_796_083_200_000), seed);
        let shared: SharedClock = clock.clone();
        let chance = |most: u64| u64::from(clock::random::<1>(&*clock)[0]) % most + 1;
        let (requests, seconds) = (chance(20), chance(100));
        let burst = chance(requests);
        let calendar = Some(Calendar::new(Every::Hour, "UTC").unwrap());
        let rules = vec![
            Rule { burst, ..rule("rate", Per::Tenant, requests, seconds) },
            Rule { calendar, ..rule("quota", Per::Tenant, 3 * chance(20), 1) },
        ];
        let limits = Limits::new(rules, Shared::in_memory(shared.clone()));
        let acme = tenant("acme");
        let charge = limits.resolve(&subject(&acme, "::1"));
        for _ in 0..20 {
            clock.advance(Duration::from_millis(chance(200) * 10));
            let first = charge.take_by(&shared, 1);
            if !first.allowed() {
                let (_, reset, retry) = said(&first);
                let retry = retry.unwrap();
                assert!(retry <= reset, "{seed}: {retry} and {reset}");
                clock.advance(Duration::from_secs(retry - 1));
                assert!(retry == 1 || !charge.take_by(&shared, 1).allowed(), "{seed}: too early");
                clock.advance(Duration::from_secs(1));
                // Unless the other rule holds it up: no rule can speak for another.
                let then = charge.take_by(&shared, 1);
                let by = |decision: &Decision| decision.refused_by().map(str::to_owned);
                assert!(then.allowed() || by(&then) != by(&first), "{seed}: too late");
                continue;
            }
            let (remaining, reset, _) = said(&first);
            for _ in 0..remaining {
                assert!(charge.take_by(&shared, 1).allowed(), "{seed}: of {remaining}");
            }
            assert!(!charge.take_by(&shared, 1).allowed(), "{seed}: more than {remaining}");
            assert!(reset <= 3_600, "{seed}: {reset}");
        }
        let last = charge.take_by(&shared, 1);
        clock.advance(Duration::from_secs(said(&last).1.max(3_600)));
        let whole = charge.take_by(&shared, 1);
        let most = burst.min(limits.rules.load()[1].rule.requests);
        assert_eq!(said(&whole).0, most - 1, "{seed}: after the reset all of it is there");
    }
}

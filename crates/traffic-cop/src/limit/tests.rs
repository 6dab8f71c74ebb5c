use super::{shared::Charged, *};
use clock::{Clock, SharedClock};
use http::HeaderMap;
use std::sync::atomic::{AtomicU64, Ordering};
use types::{Principal, PrincipalId, PrincipalKind, SessionId, TenantId, Timestamp};

fn rule(name: &str, per: Per, requests: u64, seconds: u64) -> Rule {
    Rule::new(name, per, requests, Duration::from_secs(seconds))
}

fn tenant(name: &str) -> TenantId {
    TenantId::new(name).unwrap()
}

fn subject<'a>(tenant: &'a TenantId, ip: &str) -> Subject<'a> {
    let ip = ip.parse().unwrap();
    Subject { tenant: Some(tenant), principal: None, session: None, ip, route: "r" }
}

#[test]
fn a_bucket_takes_its_burst_and_then_its_rate() {
    let limits = Limits::new(vec![rule("t", Per::Tenant, 10, 10)], None);
    let acme = tenant("acme");
    let charge = limits.resolve(&subject(&acme, "::1"));
    let at = Duration::from_secs;
    for _ in 0..10 {
        assert!(charge.take(at(5), 1).allowed());
    }
    let refused = charge.take(at(5), 1);
    assert!(!refused.allowed());
    let mut headers = HeaderMap::new();
    refused.write_headers(&mut headers);
    assert_eq!(headers["ratelimit-policy"], "\"t\";q=10;w=10");
    assert_eq!(headers["ratelimit"], "\"t\";r=0;t=10");
    assert_eq!(headers["retry-after"], "1");
    assert!(charge.take(at(6), 1).allowed());
    assert!(!charge.take(at(6), 1).allowed());
}

#[test]
fn a_refusal_of_one_rule_charges_none() {
    let limits = Limits::new(
        vec![rule("wide", Per::Global, 100, 100), rule("narrow", Per::Tenant, 1, 100)],
        None,
    );
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
    let limits = Limits::new(vec![rule("r", Per::Route, 1, 100)], None);
    let (acme, other) = (tenant("acme"), tenant("other"));
    assert!(limits.resolve(&subject(&acme, "::1")).take(Duration::ZERO, 1).allowed());
    assert!(!limits.resolve(&subject(&acme, "::1")).take(Duration::ZERO, 1).allowed());
    assert!(limits.resolve(&subject(&other, "::1")).take(Duration::ZERO, 1).allowed());
}

#[test]
fn an_ipv6_network_is_one_subject() {
    let limits = Limits::new(vec![rule("ip", Per::Ip, 1, 100)], None);
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
    let limits = Limits::new(vec![rule("t", Per::Tenant, 1, 10)], None);
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
    let limits = Limits::new(vec![rule("t", Per::Tenant, 10, 1)], None);
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
    let limits = Limits::new(vec![rule("s", Per::Session, 1, 100)], None);
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
    let limits = Limits::new(vec![shadow.clone(), rule("old", Per::Tenant, 4, 100)], None);
    let acme = tenant("acme");
    let charge = limits.resolve(&subject(&acme, "::1"));
    let mut headers = HeaderMap::new();
    let mut admitted = 0;
    for _ in 0..10 {
        let decision = charge.take(Duration::from_secs(5), 1);
        admitted += u32::from(decision.allowed());
        decision.write_headers(&mut headers);
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

use super::*;
use clock::Clock;
use std::sync::atomic::{AtomicU64, Ordering};
use types::Timestamp;

fn rule(name: &str, per: Per, requests: u64, seconds: u64) -> Rule {
    let period = Duration::from_secs(seconds);
    let (scope, when_away) = (Scope::Node, WhenAway::LocalShare);
    let (name, routes) = (name.into(), Vec::new());
    Rule { name, per, requests, period, burst: requests, routes, scope, when_away }
}

fn tenant(name: &str) -> TenantId {
    TenantId::new(name).unwrap()
}

fn subject<'a>(tenant: &'a TenantId, ip: &str) -> Subject<'a> {
    Subject { tenant: Some(tenant), principal: None, ip: ip.parse().unwrap(), route: "r" }
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

use super::*;
use crate::instance::Lease;

const SECOND: Duration = Duration::from_secs(1);

fn service(balance: Balance, weights: &[u32]) -> Service {
    let urls = (0..weights.len()).map(|index| format!("http://127.0.0.1:{}", 9000 + index));
    let mut config = ServiceConfig { balance, ..ServiceConfig::at(urls) };
    for (instance, weight) in config.instances.iter_mut().zip(weights) {
        instance.weight = *weight;
    }
    Service::compile("s", &config, None).unwrap()
}

fn at(elapsed: Duration) -> Turn {
    Turn { elapsed, ..Turn::default() }
}

impl Service {
    fn instance(&self, index: usize) -> &Arc<Instance> {
        &self.fixed[index].instance
    }

    /// How often each instance is taken in `count` turns.
    fn taken(&self, count: u64, elapsed: Duration, key: impl Fn(u64) -> Option<u64>) -> Vec<u64> {
        let mut taken = vec![0; self.fixed.len()];
        let mut random = 7_u64;
        for number in 0..count {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let random = random ^ (random >> 33);
            let turn = Turn { elapsed, random, key: key(number), count: 0 };
            let chosen = self.choose(&self.fixed, &[], turn).unwrap();
            taken[self.index(chosen)] += 1;
        }
        taken
    }

    fn index(&self, instance: &Instance) -> usize {
        self.fixed.iter().position(|member| member.instance.id == instance.id).unwrap()
    }

    fn fail(&self, index: usize, times: u32, elapsed: Duration) {
        for _ in 0..times {
            self.note(self.instance(index), Outcome::Failed, elapsed);
        }
    }
}

#[test]
fn who_would_be_next_is_who_is_called() {
    for balance in [Balance::LeastLoaded, Balance::Random, Balance::ConsistentHash] {
        let service = service(balance, &[1, 2, 3, 4]);
        for random in (0..100_u64).map(|number| number.wrapping_mul(0x9e37_79b9_7f4a_7c15)) {
            let next = service.next(Some(random), random, SECOND).unwrap();
            let turn = Turn { elapsed: SECOND, random, key: Some(random), count: 0 };
            let called = service.choose(&service.fixed, &[], turn).unwrap();
            assert_eq!(next.id, called.id, "{balance:?} {random}");
            let scores = service.scores(None, Some(random), random, SECOND);
            let chosen = scores.iter().filter(|score| score.chosen);
            let chosen: Vec<u64> = chosen.map(|score| score.instance.id).collect();
            assert_eq!(chosen, [called.id], "{balance:?} {random}");
        }
    }
}

#[test]
fn round_robin_takes_each_in_turn_and_by_weight() {
    let equal = service(Balance::RoundRobin, &[1, 1, 1]);
    assert_eq!(equal.taken(9, SECOND, |_| None), [3, 3, 3]);
    let weighted = service(Balance::RoundRobin, &[5, 1, 2]);
    let taken = weighted.taken(800, SECOND, |_| None);
    for (taken, exact) in taken.iter().zip([500, 100, 200]) {
        assert!(taken.abs_diff(exact) <= 2, "{taken} of {exact}");
    }
}

#[test]
fn random_choices_follow_the_weights() {
    let taken = service(Balance::Random, &[3, 1]).taken(4_000, SECOND, |_| None);
    assert!(taken[0].abs_diff(3_000) < 150, "{taken:?}");
}

#[test]
fn the_less_loaded_of_two_is_taken_and_never_the_same_twice() {
    for balance in [Balance::LeastLoaded, Balance::LeastConnections] {
        let service = service(balance, &[1, 1]);
        let _lease = Lease::new(service.instance(0));
        assert_eq!(service.taken(50, SECOND, |_| None), [0, 50]);
    }
    // Load counts against the share.
    let weighted = service(Balance::LeastConnections, &[3, 1]);
    let _leases = [Lease::new(weighted.instance(0)), Lease::new(weighted.instance(1))];
    assert_eq!(weighted.taken(50, SECOND, |_| None), [50, 0]);
}

#[test]
fn the_slower_of_two_is_spared_until_its_peak_is_forgotten() {
    let service = service(Balance::PeakEwma, &[1, 1]);
    let answer = |index, millis, at| {
        let latency = Some(Duration::from_millis(millis));
        service.note(service.instance(index), Outcome::Answered { status: 200, latency }, at);
    };
    answer(0, 10, SECOND);
    answer(1, 10, SECOND);
    answer(1, 500, SECOND * 2);
    assert_eq!(service.taken(50, SECOND * 2, |_| None), [50, 0]);
    for second in 3..120 {
        answer(1, 10, SECOND * second);
        answer(0, 11, SECOND * second);
    }
    assert_eq!(service.taken(50, SECOND * 120, |_| None), [0, 50]);
}

#[test]
fn a_key_stays_where_it_is_when_others_come_and_go() {
    let four = service(Balance::ConsistentHash, &[1, 1, 1, 1]);
    let owner = |service: &Service, key| {
        let turn = Turn { key: Some(key), ..at(SECOND) };
        service.index(service.choose(&service.fixed, &[], turn).unwrap())
    };
    let before: Vec<usize> = (0..400).map(|key| owner(&four, key)).collect();
    for index in 0..4 {
        let count = before.iter().filter(|owner| **owner == index).count();
        assert!(count.abs_diff(100) < 40, "{index} has {count}");
    }
    four.instance(2).set_fit(false, SECOND);
    for (key, before) in before.iter().enumerate() {
        let now = owner(&four, key as u64);
        assert_ne!(now, 2);
        assert!(*before == 2 || now == *before, "{key} moved");
    }
    let shares = service(Balance::ConsistentHash, &[3, 1]).taken(4_000, SECOND, Some);
    assert!(shares[0].abs_diff(3_000) < 150, "{shares:?}");
}

#[test]
fn a_hot_key_spills_over_before_its_instance_has_more_than_its_share() {
    let service = service(Balance::ConsistentHash, &[1, 1, 1, 1]);
    let mut leases = Vec::new();
    for _ in 0..40 {
        let chosen =
            service.choose(&service.fixed, &[], Turn { key: Some(1), ..at(SECOND) }).unwrap();
        leases.push(Lease::new(chosen));
    }
    let most = service.fixed.iter().map(|member| member.instance.in_flight()).max().unwrap();
    assert!(most <= 13, "{most} of 40 on one of four");
}

#[test]
fn an_instance_that_refused_is_the_last_choice() {
    let service = service(Balance::RoundRobin, &[1, 1]);
    let (a, b) = (service.instance(0), service.instance(1));
    a.avoid(SECOND * 5);
    for _ in 0..4 {
        assert_eq!(service.choose(&service.fixed, &[], at(SECOND * 5)).unwrap().id, b.id);
    }
    assert_eq!(service.choose(&service.fixed, &[b.id], at(SECOND * 5)).unwrap().id, a.id);
    assert!(service.choose(&service.fixed, &[a.id, b.id], at(SECOND * 5)).is_none());
    assert_eq!(service.taken(4, SECOND * 7, |_| None), [2, 2]);
}

#[test]
fn what_fails_its_checks_is_never_called() {
    for weights in [&[1][..], &[1, 1]] {
        let service = service(Balance::LeastLoaded, weights);
        for index in 0..weights.len() {
            assert!(service.choose(&service.fixed, &[], at(SECOND)).is_some());
            service.instance(index).set_fit(false, SECOND);
        }
        assert!(service.choose(&service.fixed, &[], at(SECOND)).is_none());
        service.instance(0).set_fit(true, SECOND);
        assert!(service.choose(&service.fixed, &[], at(SECOND)).is_some());
    }
}

#[test]
fn failures_in_a_row_eject_for_longer_each_time() {
    let service = service(Balance::RoundRobin, &[1, 1]);
    let ok = Outcome::Answered { status: 200, latency: None };
    let broken = Outcome::Answered { status: 503, latency: None };
    service.fail(0, 4, SECOND);
    service.note(service.instance(0), ok, SECOND);
    service.fail(0, 4, SECOND);
    assert_eq!(service.instance(0).condition(SECOND), Condition::Fit);
    service.note(service.instance(0), broken, SECOND);
    assert_eq!(service.instance(0).condition(SECOND), Condition::Ejected);
    assert_eq!(service.taken(4, SECOND, |_| None), [0, 4]);
    assert_eq!(service.instance(0).condition(SECOND * 31), Condition::Fit);
    // At once again: twice as long.
    service.fail(0, 5, SECOND * 31);
    assert_eq!(service.instance(0).condition(SECOND * 90), Condition::Ejected);
    assert_eq!(service.instance(0).condition(SECOND * 91), Condition::Fit);
    // After it was well for as long, it starts anew.
    service.fail(0, 5, SECOND * 200);
    assert_eq!(service.instance(0).condition(SECOND * 230), Condition::Fit);
}

#[test]
fn a_fault_of_all_ejects_no_more_than_allowed() {
    let service = service(Balance::RoundRobin, &[1, 1, 1, 1, 1]);
    for index in 0..5 {
        service.fail(index, 50, SECOND);
    }
    let out = |member: &&Member| member.instance.condition(SECOND) == Condition::Ejected;
    assert_eq!(service.fixed.iter().filter(out).count(), 2);
    assert!(service.taken(9, SECOND, |_| None)[2..].iter().all(|taken| *taken == 3));
    let single = super::tests::service(Balance::RoundRobin, &[1]);
    single.fail(0, 50, SECOND);
    assert!(single.choose(&single.fixed, &[], at(SECOND)).is_some());
}

#[test]
fn what_is_fit_again_starts_slowly() {
    let mut service = service(Balance::Random, &[1, 1]);
    service.rule.slow_start = SECOND * 10;
    service.instance(0).set_fit(false, SECOND);
    service.instance(0).set_fit(true, SECOND * 2);
    let early = service.taken(1_000, SECOND * 3, |_| None)[0];
    let late = service.taken(1_000, SECOND * 7, |_| None)[0];
    let done = service.taken(1_000, SECOND * 12, |_| None)[0];
    assert!(early < 150 && (250..450).contains(&late) && done > 450, "{early} {late} {done}");
}

#[test]
fn a_reload_keeps_instances_it_knows() {
    let mut config = Config::new();
    config.insert("a".into(), ServiceConfig::at(["http://127.0.0.1:1".to_owned()]));
    let before = Services::compile(&config, None).unwrap();
    let _lease = Lease::new(before.get("a").unwrap().instance(0));
    config.get_mut("a").unwrap().instances.push("http://127.0.0.1:2".to_owned().into());
    let after = Services::compile(&config, Some(&before)).unwrap();
    let service = after.get("a").unwrap();
    assert_eq!((service.instance(0).in_flight(), service.instance(1).in_flight()), (1, 0));
}

#[test]
fn a_reload_keeps_instances_that_were_found() {
    let registration = "tenants = [\"acme\"]\nroles = [\"registrar\"]\nnetworks = [\"10.0.0.0/8\"]";
    let mut of_a = ServiceConfig::at([]);
    of_a.registration = Some(toml::from_str(registration).unwrap());
    of_a.health = Some(toml::from_str("").unwrap());
    let mut config: Config = [("a".into(), of_a)].into();
    let before = Services::compile(&config, None).unwrap();
    let found = Found {
        scheme: Scheme::Http,
        host: "10.0.0.1".into(),
        address: "10.0.0.1:80".parse().unwrap(),
        weight: 1,
        origin: Origin::Registered("ins_1".into()),
    };
    let instances = |services: &Services| services.get("a").unwrap().members().to_vec();
    before.get("a").unwrap().set_registered(vec![found.clone()], SECOND);
    let instance = instances(&before)[0].instance.clone();
    assert_eq!(instance.condition(SECOND), Condition::Unfit);
    instance.set_fit(true, SECOND);
    let after = Services::compile(&config, Some(&before)).unwrap();
    after.get("a").unwrap().set_registered(vec![found], SECOND);
    assert!(instances(&after)[0].is(&instance));
    assert_eq!(instance.condition(SECOND), Condition::Fit);
    // Nobody registers any more.
    config.insert("a".into(), ServiceConfig::at(["http://127.0.0.1:1".to_owned()]));
    let last = Services::compile(&config, Some(&after)).unwrap();
    assert_eq!(instances(&last).len(), 1);
    assert!(!instances(&last)[0].is(&instance));
}

#[test]
fn services_at_one_address_are_fit_each_by_itself() {
    let at_one = ServiceConfig::at(["http://127.0.0.1:1".to_owned()]);
    let config: Config = [("a".into(), at_one.clone()), ("b".into(), at_one)].into();
    let mut services = Services::compile(&config, None).unwrap();
    services.get("a").unwrap().instance(0).set_fit(false, SECOND);
    for _ in 0..2 {
        services = Services::compile(&config, Some(&services)).unwrap();
        let condition = |name: &str| services.get(name).unwrap().instance(0).condition(SECOND);
        assert_eq!((condition("a"), condition("b")), (Condition::Unfit, Condition::Fit));
    }
}

#[test]
fn what_cannot_work_is_refused_with_its_name() {
    let refused = |change: &str, expected: &str| {
        let text = format!("[s]\ninstances = [\"http://127.0.0.1:1\"]\n{change}");
        let config: Config = toml::from_str(&text).unwrap();
        let error = Services::compile(&config, None).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    refused("health = { path = \"health\" }", "`health.path`");
    refused("health = { interval = \"0s\" }", "`health.interval`");
    refused("response_timeout = \"0s\"", "`response_timeout`");
    let config: Config =
        toml::from_str("[s]\ninstances = [{ url = \"http://a\", weight = 0 }]").unwrap();
    let error = Services::compile(&config, None).unwrap_err().to_string();
    assert!(error.contains("`weight`"), "{error}");
}

#[test]
fn who_is_bound_to_an_instance_comes_to_it_while_it_is_fit_and_else_to_one_other() {
    let service = service(Balance::RoundRobin, &[1, 1, 1]);
    let bound = service.instance(1).authority().to_owned();
    let comes_to = |key: u64, elapsed: Duration| {
        let turn = Turn { key: Some(key), ..at(elapsed) };
        let chosen = service.choose_for(Some(&bound), &service.fixed, &[], turn).unwrap();
        service.index(chosen)
    };
    assert!((0..9).all(|key| comes_to(key, SECOND) == 1));
    service.instance(1).avoid(SECOND);
    let others: Vec<usize> = (0..64).map(|key| comes_to(key, SECOND)).collect();
    assert!([0, 2].iter().all(|other| others.contains(other)) && !others.contains(&1));
    let again: Vec<usize> = (0..64).map(|key| comes_to(key, SECOND)).collect();
    assert_eq!(again, others, "by the same key to the same one");
    assert!((0..9).all(|key| comes_to(key, SECOND * 3) == 1), "it was only away for a moment");
    // An instance that there is not is none.
    let turn = Turn { key: Some(1), ..at(SECOND * 3) };
    assert!(service.choose_for(Some("gone:1"), &service.fixed, &[], turn).is_some());
}

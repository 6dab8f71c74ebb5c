//! Which instance a client reaches, and what it sees when some are not fit.

use crate::support::{Answer, Client, Edge, nowhere, one_worker, origin, services, soon};
use soa::{Balance, EjectionConfig, HashKey, HealthConfig};
use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicU16, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

/// A service that answers with its name, and with the status that it is told: one to requests,
/// another to checks.
struct Instance {
    address: String,
    status: Arc<AtomicU16>,
    health: Arc<AtomicU16>,
    calls: Arc<AtomicUsize>,
    checks: Arc<AtomicUsize>,
}

async fn instance(name: &'static str) -> Instance {
    let (status, health) = (Arc::new(AtomicU16::new(200)), Arc::new(AtomicU16::new(200)));
    let (calls, checks) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
    let told = (status.clone(), health.clone(), calls.clone(), checks.clone());
    let address = origin(move |mut client: Client, _| {
        let (status, health, calls, checks) = told.clone();
        async move {
            while let Some((_, head)) = client.head().await {
                let status = if head.starts_with("GET /health ") {
                    checks.fetch_add(1, SeqCst);
                    health.load(SeqCst)
                } else {
                    calls.fetch_add(1, SeqCst);
                    status.load(SeqCst)
                };
                let length = name.len();
                let answer =
                    format!("HTTP/1.1 {status} X\r\ncontent-length: {length}\r\n\r\n{name}");
                client.send(answer).await;
            }
        }
    })
    .await;
    Instance { address, status, health, calls, checks }
}

async fn get(edge: &Edge, fields: &str) -> Answer {
    edge.ask(&format!("GET / HTTP/1.1\r\nhost: a\r\n{fields}\r\n")).await
}

/// Asks until `done`.
async fn until(edge: &Edge, mut done: impl FnMut(&Answer) -> bool) {
    soon(async {
        while !done(&get(edge, "").await) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn an_instance_that_fails_calls_is_left_out() {
    let (good, bad) = (instance("good").await, instance("bad").await);
    let mut services = services(&[&good.address, &bad.address]);
    let service = services.get_mut("origin").unwrap();
    service.balance = Balance::RoundRobin;
    service.ejection = EjectionConfig { failures: 3, ..EjectionConfig::default() };
    let edge = Edge::start(one_worker(), &services);
    bad.status.store(503, SeqCst);
    let mut failed = 0;
    for _ in 0..40 {
        failed += usize::from(get(&edge, "").await.status == 503);
    }
    assert_eq!((failed, bad.calls.load(SeqCst)), (3, 3));
    let mut conditions = Vec::new();
    edge.gateway.instances(|_, instance, _, _, elapsed| {
        conditions.push(instance.condition(elapsed).as_str());
    });
    assert_eq!(conditions, ["fit", "ejected"]);
}

#[tokio::test]
async fn garbage_silence_and_a_broken_answer_are_failures() {
    for answer in [Some("garbage\r\n\r\n"), Some(""), None] {
        let good = instance("good").await;
        let bad = origin(move |mut client: Client, _| async move {
            client.head().await;
            match answer {
                Some(answer) => client.send(answer).await,
                None => std::future::pending().await,
            }
        })
        .await;
        let mut services = services(&[&good.address, &bad]);
        let service = services.get_mut("origin").unwrap();
        service.balance = Balance::RoundRobin;
        service.response_timeout = Duration::from_millis(200);
        service.ejection = EjectionConfig { failures: 2, ..EjectionConfig::default() };
        let edge = Edge::start(one_worker(), &services);
        let expected = if answer.is_some() { 502 } else { 504 };
        let mut failed = 0;
        for _ in 0..12 {
            let status = get(&edge, "").await.status;
            assert!(status == 200 || status == expected, "{status}");
            failed += usize::from(status != 200);
        }
        assert_eq!(failed, 2, "{answer:?}");
    }
}

#[tokio::test]
async fn a_client_that_breaks_off_is_no_fault_of_the_service() {
    let (one, two) = (instance("one").await, instance("two").await);
    let mut services = services(&[&one.address, &two.address]);
    let service = services.get_mut("origin").unwrap();
    service.balance = Balance::RoundRobin;
    service.ejection = EjectionConfig { failures: 1, ..EjectionConfig::default() };
    let edge = Edge::start(one_worker(), &services);
    for _ in 0..4 {
        // The instance answers early or not at all; the chunk is malformed.
        let answer =
            edge.ask("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nX\r\n").await;
        assert_eq!(answer.status, 400);
    }
    edge.gateway.instances(|_, instance, _, _, elapsed| {
        assert_eq!(instance.condition(elapsed).as_str(), "fit");
    });
}

#[tokio::test]
async fn a_service_of_which_all_fail_is_still_called() {
    let (one, two) = (instance("one").await, instance("two").await);
    let mut services = services(&[&one.address, &two.address]);
    services.get_mut("origin").unwrap().balance = Balance::RoundRobin;
    let edge = Edge::start(one_worker(), &services);
    for instance in [&one, &two] {
        instance.status.store(500, SeqCst);
    }
    for _ in 0..40 {
        assert_eq!(get(&edge, "").await.status, 500);
    }
    assert_eq!(one.calls.load(SeqCst) + two.calls.load(SeqCst), 40);
    // One of two may be left out, so both are well again after one success each.
    one.status.store(200, SeqCst);
    two.status.store(200, SeqCst);
    assert_eq!(get(&edge, "").await.status, 200);
}

#[tokio::test]
async fn what_fails_its_checks_is_not_called_until_it_passes_them() {
    let (one, two) = (instance("one").await, instance("two").await);
    let mut services = services(&[&one.address, &two.address]);
    let service = services.get_mut("origin").unwrap();
    service.health = Some(HealthConfig {
        path: Some("/health".into()),
        interval: Duration::from_millis(10),
        timeout: Duration::from_secs(1),
        unfit_after: 2,
        ..HealthConfig::default()
    });
    service.balance = Balance::RoundRobin;
    two.health.store(500, SeqCst);
    let edge = Edge::start(one_worker(), &services);
    let mut in_row = 0;
    until(&edge, |answer| {
        in_row = if answer.text() == "one" { in_row + 1 } else { 0 };
        in_row == 10
    })
    .await;
    assert!(two.checks.load(SeqCst) >= 2);
    // Then none is fit, which is said at once.
    one.health.store(404, SeqCst);
    until(&edge, |answer| answer.status == 503).await;
    let calls = one.calls.load(SeqCst) + two.calls.load(SeqCst);
    let answer = get(&edge, "").await;
    assert_eq!((answer.code().as_str(), answer.header("retry-after")), ("no_instance", Some("1")));
    assert_eq!(one.calls.load(SeqCst) + two.calls.load(SeqCst), calls);
    two.health.store(204, SeqCst);
    until(&edge, |answer| answer.status == 200 && answer.text() == "two").await;
    // Nobody asks any more, so nobody can say that one is unfit.
    services.get_mut("origin").unwrap().health = None;
    edge.gateway.reload(one_worker(), &services).unwrap();
    until(&edge, |answer| answer.text() == "one").await;
}

#[tokio::test]
async fn an_instance_that_takes_no_connection_fails_its_check() {
    let (up, down) = (instance("up").await, nowhere().await);
    let mut services = services(&[&up.address, &down]);
    let health = "interval = \"10ms\"\nunfit_after = 1";
    services.get_mut("origin").unwrap().health = Some(toml::from_str(health).unwrap());
    let edge = Edge::start(one_worker(), &services);
    soon(async {
        loop {
            let mut conditions = Vec::new();
            edge.gateway.instances(|_, instance, _, _, elapsed| {
                conditions.push(instance.condition(elapsed).as_str());
            });
            if conditions == ["fit", "unfit"] {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    for _ in 0..9 {
        assert_eq!(get(&edge, "").await.text(), "up");
    }
}

#[tokio::test]
async fn equal_keys_come_to_the_same_instance() {
    let instances = [instance("a").await, instance("b").await, instance("c").await];
    let addresses: Vec<&str> = instances.iter().map(|one| one.address.as_str()).collect();
    for (hash, field) in [
        (HashKey::Header("x-cart".parse().unwrap()), "x-cart: "),
        (HashKey::Cookie("cart".into()), "cookie: theme=dark; cart="),
    ] {
        let mut services = services(&addresses);
        let service = services.get_mut("origin").unwrap();
        (service.balance, service.hash) = (Balance::ConsistentHash, hash);
        let edge = Edge::start(one_worker(), &services);
        let mut reached = BTreeSet::new();
        // Of twelve, one time in forty none comes to one of the instances.
        for key in 0..40 {
            let field = format!("{field}{key}\r\n");
            let first = get(&edge, &field).await.text().to_owned();
            for _ in 0..3 {
                assert_eq!(get(&edge, &field).await.text(), first);
            }
            reached.insert(first);
        }
        assert_eq!(reached.len(), 3, "forty keys are spread");
        // Without the field it is the address, which is the same for all.
        let first = get(&edge, "").await.text().to_owned();
        assert_eq!(get(&edge, "").await.text(), first);
    }
}

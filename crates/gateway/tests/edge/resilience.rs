//! What a client sees on a service's bad days, and what the service is spared.

use crate::support::{Answer, Client, Edge, nowhere, one_worker, origin, services, soon};
use parking_lot::Mutex;
use soa::{
    Balance, BreakerConfig, BudgetConfig, ConcurrencyConfig, HedgeConfig, Priority, RetryConfig,
    ServiceConfig,
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};
use tokio::{io::AsyncReadExt, sync::Semaphore};

/// What a service does with a request.
#[derive(Debug, Clone, Copy)]
enum Act {
    Answer(u16),
    /// With a header field.
    Field(u16, &'static str),
    /// Closes the connection without a byte.
    Hangs,
    /// Sends half of an answer's body, then closes.
    Half,
    /// Answers after so many milliseconds.
    Late(u64),
    Never,
}

/// A service that does with its n-th request what the n-th act says, and with all later ones
/// what the last says.
struct Script {
    address: String,
    requests: Arc<Mutex<Vec<(String, String)>>>,
    /// Connections that ended while an answer was owed.
    given_up: Arc<AtomicUsize>,
}

impl Script {
    async fn start(acts: &'static [Act]) -> Self {
        let requests: Arc<Mutex<Vec<(String, String)>>> = Arc::default();
        let given_up = Arc::<AtomicUsize>::default();
        let (noted, left) = (requests.clone(), given_up.clone());
        let address =
            origin(move |client, _| play(client, acts, noted.clone(), left.clone())).await;
        Self { address, requests, given_up }
    }

    fn count(&self) -> usize {
        self.requests.lock().len()
    }

    /// The value of a header field in each of the requests.
    fn field(&self, name: &str) -> Vec<String> {
        let of = |head: &str| {
            let mut fields = head.lines().filter_map(|line| line.split_once(": "));
            fields.find(|(held, _)| *held == name).map(|(_, value)| value.to_owned())
        };
        self.requests.lock().iter().map(|(head, _)| of(head).unwrap_or_default()).collect()
    }
}

async fn play(
    mut client: Client,
    acts: &'static [Act],
    requests: Arc<Mutex<Vec<(String, String)>>>,
    given_up: Arc<AtomicUsize>,
) {
    while let Some((_, head)) = client.head().await {
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
        soon(client.0.read_exact(&mut body)).await.unwrap();
        let number = {
            let mut requests = requests.lock();
            requests.push((head, String::from_utf8(body).unwrap()));
            requests.len() - 1
        };
        let (status, field, wait) = match acts[number.min(acts.len() - 1)] {
            Act::Answer(status) => (status, "x: y", 0),
            Act::Field(status, field) => (status, field, 0),
            Act::Hangs => return,
            Act::Half => {
                client.send("HTTP/1.1 200 X\r\ncontent-length: 4\r\n\r\nha").await;
                return;
            }
            Act::Late(wait) => (200, "x: y", wait),
            Act::Never => (200, "x: y", 60_000),
        };
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(wait)) => {}
            _ = client.0.read_u8() => {
                given_up.fetch_add(1, SeqCst);
                return;
            }
        }
        let body = number.to_string();
        let length = body.len();
        let answer = format!("HTTP/1.1 {status} X\r\n{field}\r\ncontent-length: {length}\r\n\r\n");
        client.send(answer + &body).await;
    }
}

fn service(origins: &[&str], change: impl FnOnce(&mut ServiceConfig)) -> soa::Config {
    let mut services = services(origins);
    let service = services.get_mut("origin").unwrap();
    // In order, so that it is known who is asked first.
    service.balance = Balance::RoundRobin;
    service.ejection.failures = 0;
    change(service);
    services
}

fn retries() -> RetryConfig {
    RetryConfig { backoff: Duration::from_millis(1), ..RetryConfig::default() }
}

async fn send(edge: &Edge, method: &str, fields: &str, body: &str) -> Answer {
    let length = if body.is_empty() && method == "GET" {
        String::new()
    } else {
        format!("content-length: {}\r\n", body.len())
    };
    edge.ask(&format!("{method} / HTTP/1.1\r\nhost: a\r\n{length}{fields}\r\n{body}")).await
}

async fn get(edge: &Edge) -> Answer {
    send(edge, "GET", "", "").await
}

#[tokio::test]
async fn what_may_be_sent_twice_is_sent_again_until_it_succeeds() {
    for failure in [Act::Answer(503), Act::Hangs] {
        let acts: &'static [Act] = Box::leak(Box::new([failure, failure, Act::Answer(200)]));
        for (method, fields, body, expected) in [
            ("GET", "", "", true),
            ("PUT", "", "seven", true),
            ("POST", "", "seven", false),
            ("POST", "idempotency-key: 7\r\n", "seven", true),
            ("PATCH", "", "", false),
            // Longer than what is kept.
            ("PUT", "", "seventeen", false),
        ] {
            let script = Script::start(acts).await;
            let services = service(&[&script.address], |service| {
                let retry = RetryConfig { body_bytes_max: 5, idempotency_key: true, ..retries() };
                service.retry = Some(retry);
            });
            let edge = Edge::start(one_worker(), &services);
            let answer = send(&edge, method, fields, body).await;
            let case = format!("{failure:?} {method} {fields}");
            if expected {
                assert_eq!((answer.status, answer.text()), (200, "2"), "{case}");
                let bodies = script.requests.lock().iter().all(|(_, sent)| sent == body);
                assert!(bodies, "{case}: {:?}", script.requests.lock());
            } else {
                let status = if matches!(failure, Act::Hangs) { 502 } else { 503 };
                assert_eq!((answer.status, script.count()), (status, 1), "{case}");
            }
        }
    }
}

#[tokio::test]
async fn nothing_is_sent_twice_unasked() {
    for act in [Act::Answer(503), Act::Hangs] {
        let script = Script::start(Box::leak(Box::new([act, Act::Answer(200)]))).await;
        let edge = Edge::start(one_worker(), &service(&[&script.address], |_| {}));
        assert!(get(&edge).await.status >= 502);
        assert_eq!(script.count(), 1);
    }
}

#[tokio::test]
async fn a_route_knows_better_than_the_method() {
    for (method, idempotent, count) in [("POST", true, 2), ("GET", false, 1)] {
        let script = Script::start(&[Act::Answer(503), Act::Answer(200)]).await;
        let services = service(&[&script.address], |service| service.retry = Some(retries()));
        let mut config = one_worker();
        config.routes[0].idempotent = Some(idempotent);
        let edge = Edge::start(config, &services);
        send(&edge, method, "", "").await;
        assert_eq!(script.count(), count, "{method}");
    }
}

#[tokio::test]
async fn another_instance_is_asked_first_and_the_last_answer_is_passed_on() {
    let (bad, good) =
        (Script::start(&[Act::Answer(503)]).await, Script::start(&[Act::Answer(200)]).await);
    let services =
        service(&[&bad.address, &good.address], |service| service.retry = Some(retries()));
    let edge = Edge::start(one_worker(), &services);
    for _ in 0..10 {
        assert_eq!(get(&edge).await.status, 200);
    }
    assert_eq!((bad.count(), good.count()), (5, 10));
    // All fail: three attempts, and what the last of them said.
    let bad = Script::start(&[Act::Answer(502), Act::Answer(503), Act::Answer(504)]).await;
    let services = service(&[&bad.address], |service| service.retry = Some(retries()));
    let edge = Edge::start(one_worker(), &services);
    let answer = get(&edge).await;
    assert_eq!((answer.status, answer.text(), bad.count()), (504, "2", 3));
    // One cannot be connected to, the other says that it is busy.
    let (nowhere, busy) = (nowhere().await, Script::start(&[Act::Answer(503)]).await);
    let services = service(&[&nowhere, &busy.address], |service| service.retry = Some(retries()));
    let edge = Edge::start(one_worker(), &services);
    assert!(get(&edge).await.status >= 502);
}

#[tokio::test]
async fn a_service_that_says_when_to_come_again_is_not_asked_before() {
    let script = Script::start(&[Act::Field(503, "retry-after: 9"), Act::Answer(200)]).await;
    let services = service(&[&script.address], |service| service.retry = Some(retries()));
    let answer = get(&Edge::start(one_worker(), &services)).await;
    assert_eq!((answer.status, answer.header("retry-after"), script.count()), (503, Some("9"), 1));
}

#[tokio::test]
async fn an_answer_that_breaks_in_its_body_is_not_asked_for_again() {
    let script = Script::start(&[Act::Half, Act::Answer(200)]).await;
    let services = service(&[&script.address], |service| service.retry = Some(retries()));
    let edge = Edge::start(one_worker(), &services);
    let mut client = edge.connect().await;
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert!(client.answer().await.is_none());
    assert_eq!(script.count(), 1);
}

#[tokio::test]
async fn retries_stay_within_their_budget() {
    let script = Script::start(&[Act::Answer(503)]).await;
    let services = service(&[&script.address], |service| {
        service.retry = Some(retries());
        service.budget = BudgetConfig { percent: 20, per_second: 0 };
    });
    let edge = Edge::start(one_worker(), &services);
    for _ in 0..100 {
        assert_eq!(get(&edge).await.status, 503);
    }
    let count = script.count();
    assert!((110..=120).contains(&count), "{count}");
}

#[tokio::test]
async fn an_attempt_that_takes_too_long_is_given_up() {
    let script = Script::start(&[Act::Never, Act::Answer(200)]).await;
    let services = service(&[&script.address], |service| {
        let attempt_timeout = Some(Duration::from_millis(100));
        service.retry = Some(RetryConfig { attempt_timeout, ..retries() });
    });
    let edge = Edge::start(one_worker(), &services);
    assert_eq!(get(&edge).await.status, 200);
    soon(async {
        while script.given_up.load(SeqCst) == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    // What may not be sent twice is late.
    let script = Script::start(&[Act::Never]).await;
    let services = service(&[&script.address], |service| {
        let attempt_timeout = Some(Duration::from_millis(100));
        service.retry = Some(RetryConfig { attempt_timeout, ..retries() });
    });
    let answer = send(&Edge::start(one_worker(), &services), "POST", "", "").await;
    assert_eq!(
        (answer.status, answer.code().as_str(), script.count()),
        (504, "upstream_timeout", 1)
    );
}

#[tokio::test]
async fn deadlines_shrink_along_the_way() {
    let script = Script::start(&[Act::Answer(200), Act::Answer(200), Act::Answer(503)]).await;
    let services = service(&[&script.address], |service| {
        service.response_timeout = Duration::from_secs(20);
        let backoff = Duration::from_millis(50);
        service.retry = Some(RetryConfig { backoff, attempts: 10, ..RetryConfig::default() });
    });
    let edge = Edge::start(one_worker(), &services);
    get(&edge).await;
    send(&edge, "GET", "x-crosstown-timeout: 9000\r\n", "").await;
    send(&edge, "GET", "x-crosstown-timeout: 90000\r\n", "").await;
    let told = script.field("x-crosstown-timeout");
    let told: Vec<u64> = told.iter().map(|millis| millis.parse().unwrap()).collect();
    assert_eq!(told[0], 20_000);
    assert!((1..=9_000).contains(&told[1]), "{told:?}");
    // A client may wait for less and not for more; each attempt has less than the one before.
    assert_eq!(told[2], 20_000);
    assert_eq!(told.len(), 13);
    assert!(told[2..].windows(2).all(|pair| pair[1] <= pair[0]) && told[12] < 20_000, "{told:?}");
    // A nested call of the service that hands on what it was told is held to it.
    let answer = send(&edge, "GET", "x-crosstown-timeout: 0\r\n", "").await;
    assert_eq!((answer.status, answer.code().as_str()), (504, "upstream_timeout"));
    let answer = send(&edge, "GET", "x-crosstown-timeout: soon\r\n", "").await;
    assert_eq!((answer.status, answer.code().as_str()), (400, "bad_request"));
    assert_eq!(script.count(), 13);
    let script = Script::start(&[Act::Never]).await;
    let edge = Edge::start(one_worker(), &service(&[&script.address], |_| {}));
    let answer = send(&edge, "GET", "x-crosstown-timeout: 200\r\n", "").await;
    assert_eq!(answer.status, 504);
}

#[tokio::test]
async fn a_second_instance_is_asked_when_the_first_is_slow() {
    for (method, hedged) in [("GET", true), ("POST", false)] {
        let (slow, fast) =
            (Script::start(&[Act::Late(3_000)]).await, Script::start(&[Act::Late(100)]).await);
        let services = service(&[&slow.address, &fast.address], |service| {
            service.hedge = Some(toml::from_str("after = \"50ms\"").unwrap());
        });
        let edge = Edge::start(one_worker(), &services);
        let answer = send(&edge, method, "", "").await;
        assert_eq!(answer.status, 200, "{method}");
        assert_eq!((slow.count(), fast.count()), (1, usize::from(hedged)), "{method}");
        if hedged {
            soon(async {
                while slow.given_up.load(SeqCst) == 0 {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            })
            .await;
            let mut hedges = 0;
            edge.gateway.guards(|_, report| hedges = report.hedges);
            assert_eq!(hedges, 1);
        }
    }
}

#[tokio::test]
async fn what_most_calls_take_is_learned() {
    // One of twelve is slow.
    let acts = (0..300).map(|number| Act::Late(if number % 12 == 11 { 80 } else { 1 }));
    let acts: &'static [Act] = acts.collect::<Vec<_>>().leak();
    let (one, two) = (Script::start(acts).await, Script::start(acts).await);
    let services = service(&[&one.address, &two.address], |service| {
        let hedge: HedgeConfig = toml::from_str("after = \"p90\"").unwrap();
        service.hedge = Some(hedge);
        service.budget = BudgetConfig { percent: 10, per_second: 0 };
    });
    let edge = Edge::start(one_worker(), &services);
    for _ in 0..100 {
        get(&edge).await;
    }
    assert_eq!(one.count() + two.count(), 100, "before there are a hundred, nobody can tell");
    for _ in 0..150 {
        get(&edge).await;
    }
    let hedges = one.count() + two.count() - 250;
    assert!((1..=25).contains(&hedges), "{hedges}");
}

#[tokio::test]
async fn a_breaker_spares_a_service_that_fails() {
    // Errors and connections that break both count.
    let fails = (0..10).map(|turn| if turn % 2 == 0 { Act::Answer(500) } else { Act::Hangs });
    let acts: Vec<Act> = fails.chain([Act::Answer(200)]).collect();
    let script = Script::start(acts.leak()).await;
    let services = service(&[&script.address], |service| {
        let breaker =
            BreakerConfig { calls_min: 10, open: Duration::from_secs(2), ..Default::default() };
        service.breaker = Some(breaker);
    });
    let edge = Edge::start(one_worker(), &services);
    for turn in 0..10 {
        assert_eq!(get(&edge).await.status, if turn % 2 == 0 { 500 } else { 502 });
    }
    let condition = || {
        let mut condition = None;
        edge.gateway.guards(|_, report| condition = report.breaker);
        condition.unwrap()
    };
    assert_eq!(condition(), "open");
    let answer = get(&edge).await;
    assert_eq!((answer.status, answer.code().as_str()), (503, "circuit_open"));
    let after: u64 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=2).contains(&after), "{after}");
    assert_eq!(script.count(), 10);
    // It is tried, and closes after three successes.
    soon(async {
        while get(&edge).await.status != 200 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    assert_eq!((condition(), script.count()), ("probing", 11));
    for _ in 0..2 {
        assert_eq!(get(&edge).await.status, 200);
    }
    assert_eq!(condition(), "closed");
    // A reload keeps it, as long as its rules are the same.
    edge.gateway.reload(one_worker(), &services).unwrap();
    assert_eq!(condition(), "closed");
}

/// Requests that wait for their answers until `let_go`.
async fn held(edge: &Edge, path: &str, count: usize) -> Vec<Client> {
    let mut clients = Vec::new();
    for _ in 0..count {
        let mut client = edge.connect().await;
        client.send(format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n")).await;
        clients.push(client);
    }
    clients
}

#[tokio::test]
async fn a_service_is_given_as_many_calls_as_it_can_take_and_the_urgent_ones_first() {
    let door = Arc::new(Semaphore::new(0));
    let (entered, inside) = (door.clone(), Arc::<AtomicUsize>::default());
    let count = inside.clone();
    let address = origin(move |mut client, _| {
        let (door, inside) = (entered.clone(), count.clone());
        async move {
            while client.head().await.is_some() {
                inside.fetch_add(1, SeqCst);
                door.acquire().await.unwrap().forget();
                client.send("HTTP/1.1 200 X\r\ncontent-length: 0\r\n\r\n").await;
            }
        }
    })
    .await;
    let services = service(&[&address], |service| {
        service.concurrency = Some(ConcurrencyConfig { max: 10, min: 1, adaptive: false });
    });
    let mut config = one_worker();
    let route = config.routes.remove(0);
    for (priority, path) in [
        (Priority::Low, "/low"),
        (Priority::Normal, "/normal"),
        (Priority::High, "/high"),
        (Priority::Urgent, "/urgent"),
    ] {
        let (name, path) = (path[1..].to_owned(), Some(path.to_owned()));
        config.routes.push(gateway::RouteConfig { name, path, priority, ..route.clone() });
    }
    let edge = Edge::start(config, &services);
    let mut clients = Vec::new();
    let mut waiting = 0;
    for (path, places) in [("/low", 5), ("/normal", 3), ("/high", 1), ("/urgent", 1)] {
        clients.extend(held(&edge, path, places).await);
        waiting += places;
        soon(async {
            while inside.load(SeqCst) < waiting {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
        let answer = edge.ask(&format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n")).await;
        assert_eq!((answer.status, answer.code().as_str()), (503, "overloaded"), "{path}");
        assert_eq!(answer.header("retry-after"), Some("1"));
    }
    // Who leaves makes room.
    drop(clients.pop());
    soon(async {
        loop {
            let mut next = held(&edge, "/urgent", 1).await.remove(0);
            let entered = async {
                while inside.load(SeqCst) < 11 {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            tokio::select! {
                answer = next.answer() => assert_eq!(answer.unwrap().status, 503),
                () = entered => break clients.push(next),
            }
        }
    })
    .await;
    // One for whom nobody waits any more.
    door.add_permits(11);
    for mut client in clients {
        assert_eq!(client.answer().await.unwrap().status, 200);
    }
    door.add_permits(10);
    let answer = edge.ask("GET /low HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn ten_times_what_a_service_can_do_leaves_it_busy_and_refuses_the_rest() {
    // Four at a time, 20 ms each; whoever waits for longer than 400 ms is served in vain.
    let (workers, served) = (Arc::new(Semaphore::new(4)), Arc::<AtomicUsize>::default());
    let (at_work, done) = (workers.clone(), served.clone());
    let address = origin(move |mut client, _| {
        let (workers, done) = (at_work.clone(), done.clone());
        async move {
            while client.head().await.is_some() {
                let worker = workers.acquire().await.unwrap();
                tokio::time::sleep(Duration::from_millis(20)).await;
                drop(worker);
                done.fetch_add(1, SeqCst);
                client.send("HTTP/1.1 200 X\r\ncontent-length: 0\r\n\r\n").await;
            }
        }
    })
    .await;
    let services = service(&[&address], |service| {
        service.concurrency = Some(ConcurrencyConfig::default());
        service.response_timeout = Duration::from_millis(400);
    });
    let edge = Arc::new(Edge::start(one_worker(), &services));
    let statuses: Arc<Mutex<Vec<u16>>> = Arc::default();
    let clients: Vec<_> = (0..80)
        .map(|_| {
            let (edge, statuses) = (edge.clone(), statuses.clone());
            tokio::spawn(async move {
                let mut client = edge.connect().await;
                let end = tokio::time::Instant::now() + Duration::from_secs(4);
                while tokio::time::Instant::now() < end {
                    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
                    let answer = client.answer().await.unwrap();
                    statuses.lock().push(answer.status);
                    if answer.status == 503 {
                        assert_eq!(answer.header("retry-after"), Some("1"));
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                }
            })
        })
        .collect();
    for client in clients {
        client.await.unwrap();
    }
    let statuses = statuses.lock();
    let count = |status| statuses.iter().filter(|held| **held == status).count();
    let (good, refused, late) = (count(200), count(503), count(504));
    assert_eq!(good + refused + late, statuses.len());
    assert!(refused > good, "{good} {refused} {late}");
    // Nearly all that it does is of use to somebody.
    let served = served.load(SeqCst);
    assert!(good * 10 >= served * 9, "{good} of {served}, {refused} refused, {late} late");
}

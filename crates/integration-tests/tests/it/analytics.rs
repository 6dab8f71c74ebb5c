//! Traffic analytics, held against what clients and services have counted themselves.

mod asking;
mod origin;

use asking::{Request, ask};
use http::Method;
use integration_tests::{Server, Socket, binary, repository};
use origin::{BODY, Origin};
use serde_json::{Value as Json, json};
use std::{env, fs, path::Path, process::Command, time::Duration};
use test_servers::{Process, free_ports};
use tokio::time::Instant;

const WITHIN: Duration = Duration::from_secs(60);
/// Connections that ask what is answered at once, and what takes a while.
const FAST: usize = 16;
const SLOW: usize = 128;

/// A node before two instances of a service.
async fn node(more: &str) -> (Server, [Origin; 2]) {
    let origins = [Origin::start().await, Origin::start().await];
    let config = format!(
        "[services.work]\ninstances = [\"http://{}\", \"http://{}\"]\n\
         [[routes]]\nname = \"work\"\nservice = \"work\"\nprefix = \"/work/\"\n{more}",
        origins[0].address, origins[1].address
    );
    (Server::start(&config), origins)
}

/// The operator's report, once it has counted so many requests of the route.
async fn report(server: &Server, query: &str, expected: u64) -> Json {
    let until = Instant::now() + WITHIN;
    loop {
        let path = format!("/analytics/traffic?{query}");
        let report: Json = server.admin().get(&path).await.unwrap();
        if requests(&report) == expected {
            return report;
        }
        assert!(Instant::now() < until && requests(&report) < expected, "{expected}: {report:#}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn route(report: &Json) -> &Json {
    let routes = report["routes"].as_array().unwrap();
    routes.iter().find(|route| route["route"] == "work").unwrap_or(&Json::Null)
}

/// What a report counts of the route.
fn requests(report: &Json) -> u64 {
    route(report)["requests"].as_u64().unwrap_or_default()
}

/// How many requests the tests make: 20,000, or as many as are wanted.
fn wanted() -> u64 {
    env::var("CROSSTOWN_ANALYTICS_REQUESTS").map_or(20_000, |count| count.parse().unwrap())
}

/// The latency that a fraction of them did not exceed, in milliseconds; `latencies` are in order.
fn percentile(latencies: &[Duration], fraction: f64) -> f64 {
    let rank = (latencies.len() as f64 * fraction).ceil() as usize;
    latencies[rank.clamp(1, latencies.len()) - 1].as_secs_f64() * 1000.0
}

/// A number that looks as if it was drawn, between 0 and 1.
fn drawn(n: usize) -> f64 {
    let mixed = (n as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed ^ mixed >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9) as f64 / u64::MAX as f64
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn figures_over_a_restart_are_what_clients_and_service_counted() {
    let (mut server, origins) = node("").await;
    // The n-th of two hundred users asks n times as often as the first.
    let (users, rounds) = (200, wanted().div_ceil(20_100));
    let tokens: Vec<String> =
        (0..users).map(|user| server.token("acme", &format!("user{user}"))).collect();
    let mut asked = Vec::new();
    for number in (0..rounds).flat_map(|_| (0..users).flat_map(|user| vec![user; user + 1])) {
        let n = asked.len();
        let status = if n % 50 == 7 {
            503
        } else if n % 20 == 3 {
            404
        } else {
            200
        };
        // Half of them take 127 ms at most, one in a thousand a second and more (Pareto), so that
        // what is spent beside the service is small.
        let delay = (100.0 / (1.0 - drawn(n)).max(1e-4).powf(0.35)) as u64;
        let target = format!("/work/items/{n}?status={status}&delay={delay}");
        asked.push(Request { token: tokens[number].clone(), target });
    }
    // In another order, so that nothing of a kind comes together.
    let mut order: Vec<u64> = (0..asked.len() as u64).collect();
    order.sort_by_key(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let all: Vec<Request> = order.into_iter().map(|n| asked[n as usize].clone()).collect();
    let (first, second) = all.split_at(all.len() / 2);
    let mut answers = ask(&server, first, SLOW).await;
    server.stop();
    server.start_again();
    answers.extend(ask(&server, second, SLOW).await);
    let mut by_clients: Vec<Duration> = answers.iter().map(|answer| answer.latency).collect();
    let mut by_service: Vec<Duration> = origins.iter().flat_map(Origin::taken).collect();
    by_clients.sort_unstable();
    by_service.sort_unstable();

    let total = all.len() as u64;
    for range in ["1h", "24h", "7d"] {
        let report = report(&server, &format!("range={range}&top=20"), total).await;
        let counted = route(&report);
        let of = |from: u16, to: u16| {
            answers.iter().filter(|answer| (from..to).contains(&answer.status)).count() as u64
        };
        assert_eq!(counted["client_errors"], of(400, 500));
        assert_eq!(counted["server_errors"], of(500, 600));
        assert_eq!(counted["bytes_out"], total * BODY as u64);
        let by_instance: Vec<u64> = origins
            .iter()
            .map(|origin| {
                let instances = report["instances"].as_array().unwrap();
                let address = origin.address.to_string();
                let one = instances.iter().find(|one| one["instance"] == *address).unwrap();
                one["requests"].as_u64().unwrap()
            })
            .collect();
        assert_eq!(by_instance, origins.each_ref().map(Origin::answered));
        assert_eq!(by_instance.iter().sum::<u64>(), total);
        assert_eq!((&report["users"], &report["complete"]), (&json!(200), &json!(true)));
        let consumers = report["consumers"].as_array().unwrap();
        for (place, consumer) in consumers.iter().enumerate() {
            let user = users - 1 - place;
            let expected = json!([format!("user{user}"), (user as u64 + 1) * rounds, 0]);
            let told = json!([consumer["user"], consumer["requests"], consumer["missed_max"]]);
            assert_eq!(told, expected, "{range}");
        }
        assert_eq!(consumers.len(), 20);
        let endpoint = &report["endpoints"][0];
        assert_eq!(
            (&endpoint["pattern"], &endpoint["requests"]),
            (&json!("/work/items/{id}"), &json!(total))
        );
        for (name, fraction) in [
            ("latency_ms_p50", 0.5),
            ("latency_ms_p90", 0.9),
            ("latency_ms_p95", 0.95),
            ("latency_ms_p99", 0.99),
            ("latency_ms_p99.9", 0.999),
        ] {
            let told = counted[name].as_f64().unwrap();
            let seen = [&by_clients, &by_service].map(|latencies| percentile(latencies, fraction));
            println!("{name}: {told}; clients and service saw {seen:?}");
            assert!(seen.iter().all(|seen| (told / seen - 1.0).abs() <= 0.05), "{name}");
        }
    }
    let one: Json = server.admin().get("/analytics/traffic?user=user7").await.unwrap();
    assert_eq!(one["consumers"][0]["requests"], 8 * rounds);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_node_loses_no_more_than_it_counted_since_it_last_wrote() {
    let (mut server, _origins) = node("[analytics]\nflush_interval = \"1s\"\n").await;
    let token = server.token("acme", "ann");
    let some =
        |count: usize| vec![Request { token: token.clone(), target: "/work/a".into() }; count];
    let mut written = 0;
    for round in 0..3 {
        ask(&server, &some(200), FAST).await;
        report(&server, "range=1h", written + 200).await;
        // Many times the interval.
        tokio::time::sleep(Duration::from_secs(8)).await;
        written += 200;
        ask(&server, &some(50), FAST).await;
        server.kill();
        server.start_again();
        let all: Json = server.admin().get("/analytics/traffic?range=24h").await.unwrap();
        let told = requests(&all);
        assert!((written..=written + 50).contains(&told), "round {round}: {told} of {written}");
        written = told;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_users_and_paths_take_a_bounded_memory() {
    let (server, _origins) = node("").await;
    let count = (wanted() / 4).min(1_000_000);
    let resident = || -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    let heavy = server.token("acme", "heavy");
    let mut asked = 0;
    let mut warm = None;
    for from in (0..count).step_by(1_000) {
        let requests: Vec<Request> = (from..(from + 1_000).min(count))
            .flat_map(|n| {
                let name: String = n.to_string().bytes().map(|b| char::from(b + 49)).collect();
                let tenant = format!("tenant{}", n % 2_000);
                let token = server.token(&tenant, &name);
                let light = Request { token, target: format!("/work/{name}/x") };
                let again = Request { token: heavy.clone(), target: "/work/a".into() };
                [light, again]
            })
            .collect();
        asked += ask(&server, &requests, FAST).await.len() as u64;
        warm.get_or_insert_with(resident);
    }
    let report = report(&server, "range=1h&top=1", asked).await;
    let grown = resident().saturating_sub(warm.unwrap());
    // Whatever else remembers callers is in it too.
    assert!(grown < 160 * 1024, "{grown} KiB");
    let heavy = &report["consumers"][0];
    let told = heavy["requests"].as_u64().unwrap();
    let missed_max = heavy["missed_max"].as_u64().unwrap();
    assert_eq!(heavy["user"], "heavy");
    assert!((told..=told + missed_max).contains(&count), "{heavy}");
    let users = report["users"].as_u64().unwrap() as f64;
    assert!((users / (count + 1) as f64 - 1.0).abs() < 0.1, "{users} of {count}");
}

#[tokio::test]
async fn everybody_sees_what_he_may() {
    let (server, _origins) = node("[analytics.log]\nsample = 1.0\n").await;
    let of = |tenant: &str, user: &str, roles: Json| {
        server.token_with(tenant, user, json!({ "roles": roles, "pillars": ["content"] }))
    };
    let ann = of("acme", "ann", json!([]));
    let boss = of("acme", "boss", json!(["admin"]));
    let eve = of("other", "eve", json!(["admin"]));
    let request =
        |token: &str, target: &str| Request { token: token.into(), target: target.into() };
    ask(
        &server,
        &[
            request(&ann, "/work/a?status=503&secret=hush"),
            request(&ann, "/work/b"),
            request(&boss, "/work/b"),
            request(&eve, "/work/c"),
            request("nonsense", "/work/d"),
        ],
        FAST,
    )
    .await;
    report(&server, "range=1m", 5).await;
    let client = |token: &str| client::Client::new(&server.base(), token).unwrap();
    let get = async |token: &str, path: &str| -> Result<Json, client::Error> {
        client(token).get(&format!("/crosstown/v1/analytics/{path}")).await
    };
    let own = get(&ann, "traffic?range=1m").await.unwrap();
    assert_eq!(route(&own)["requests"], 3);
    for hidden in ["consumers", "sessions", "endpoints", "tenants", "instances"] {
        assert!(own[hidden].is_null(), "{hidden}: {own}");
    }
    let seen = get(&boss, "traffic?range=1m").await.unwrap();
    let names: Vec<&Json> =
        seen["consumers"].as_array().unwrap().iter().map(|one| &one["user"]).collect();
    assert!(names.contains(&&json!("ann")) && !names.contains(&&json!("eve")), "{seen}");
    assert_eq!(seen["pillars"]["content"]["server_errors"], 1);
    let himself = get(&ann, "traffic?user=ann").await.unwrap();
    assert_eq!(himself["consumers"][0]["server_errors"], 1);
    for (path, code) in [
        ("traffic?user=boss", "forbidden"),
        ("log", "forbidden"),
        ("traffic?range=2h", "bad_request"),
        ("traffic?from=2020-01-01T00:00:00Z", "bad_request"),
        ("traffic?from=5&to=4", "bad_request"),
        ("traffic?tenant=other", "bad_request"),
        ("traffic?top=0", "bad_request"),
        ("traffic?by=luck", "bad_request"),
    ] {
        let refused = get(&ann, path).await.unwrap_err();
        assert_eq!(refused.code(), Some(code), "{path}");
    }
    let to = own["to"].as_u64().unwrap();
    let custom = get(&boss, &format!("traffic?from={}&to={to}", to - 60_000)).await.unwrap();
    assert_eq!((&custom["range"], requests(&custom)), (&json!("custom"), 3));

    let log = get(&boss, "log?limit=1000").await.unwrap();
    let entries = log["requests"].as_array().unwrap();
    assert!(entries.iter().all(|entry| entry["tenant"] == "acme"), "{log:#}");
    let failed = get(&boss, "log?status=500").await.unwrap();
    let entry = &failed["requests"][0];
    assert_eq!(entry["path"], "/work/a?status=…&secret=…");
    assert!(!log.to_string().contains("hush"));
    for (name, expected) in [
        ("method", json!("GET")),
        ("route", json!("work")),
        ("service", json!("work")),
        ("status", json!(503)),
        ("principal", json!("ann")),
        ("bytes_out", json!(BODY)),
        ("code", Json::Null),
    ] {
        assert_eq!(entry[name], expected, "{name}");
    }
    assert!(entry["instance"].is_string() && entry["trace"].as_str().unwrap().len() == 16);
    let all: Json = server.admin().get("/analytics/log?route=work&limit=1000").await.unwrap();
    let refused = all["requests"].as_array().unwrap();
    assert!(refused.iter().any(|entry| entry["code"] == "unauthenticated"), "{all:#}");
    assert_eq!(refused.len(), 5);
}

#[tokio::test]
async fn seconds_are_told_to_those_who_may_follow_them() {
    let (server, _origins) = node("").await;
    let key = server.api_key("acme", "crm").await;
    let ann = server.token("acme", "ann");
    let mut socket = Socket::connect(&server.base(), &ann).await;
    let refused = socket.ask("subscribe", json!({ "channel": "$traffic" })).await.unwrap_err();
    assert_eq!(refused["code"], 103, "{refused}");
    let mut socket = Socket::connect(&server.base(), &key).await;
    socket.ask("subscribe", json!({ "channel": "$traffic" })).await.unwrap();
    // Whatever was asked before somebody followed is not told.
    let push = socket.push().await;
    assert_eq!(push["pub"]["data"]["total"]["requests"], 0, "{push}");
    let eve = Request { token: server.token("other", "eve"), target: "/work/a".into() };
    ask(&server, &vec![eve; 10], FAST).await;
    let request = Request { token: ann, target: "/work/a".into() };
    ask(&server, &vec![request; 30], FAST).await;
    let (mut told, until) = (0, Instant::now() + WITHIN);
    while told < 30 {
        let push = socket.push().await;
        assert!(Instant::now() < until, "{told} of 30");
        assert_eq!(push["channel"], "$traffic");
        let second = &push["pub"]["data"];
        let routes = second["routes"].as_array().unwrap().iter();
        told += routes.map(|route| route["requests"].as_u64().unwrap()).sum::<u64>();
    }
    assert_eq!(told, 30);
}

#[tokio::test]
async fn prometheus_is_told_of_instances() {
    let (server, origins) = node("").await;
    let token = server.token("acme", "zebulon");
    let request = Request { token, target: "/work/a?status=500".into() };
    ask(&server, &vec![request; 6], FAST).await;
    report(&server, "range=1m", 6).await;
    let mut sum = 0;
    for origin in &origins {
        let labels = format!("{{service=\"work\",instance=\"{}\"}}", origin.address);
        for what in ["requests", "server_errors"] {
            let name = format!("crosstown_instance_{what}_total{labels}");
            assert_eq!(server.metric(&name).await, origin.answered());
        }
        sum += origin.answered();
    }
    assert_eq!(sum, 6);
    let answer = server.admin().call(Method::GET, "/metrics", None).await.unwrap();
    assert!(!String::from_utf8(answer.body.to_vec()).unwrap().contains("zebulon"));
}

fn receiver(port: u16, folder: &Path) -> Process {
    let python = binary().ancestors().nth(2).unwrap().join("python/bin/python");
    let script = repository().join("crates/integration-tests/tests/it/analytics/receiver.py");
    let mut command = Command::new(python);
    command.arg(script).arg(port.to_string());
    Process::start(&mut command, port, &folder.join("receiver.log")).unwrap()
}

#[tokio::test]
async fn a_receiver_of_opentelemetry_is_told_and_need_not_be_there() {
    let [port] = free_ports().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let telemetry =
        format!("[telemetry]\notlp = \"http://127.0.0.1:{port}/v1/metrics\"\ninterval = \"1s\"\n");
    let (server, origins) = node(&telemetry).await;
    let token = server.token("acme", "ann");
    let fine = Request { token: token.clone(), target: "/work/a?delay=30".into() };
    let failed = Request { token, target: "/work/a?status=500".into() };
    // While nobody is there, requests are served and what is to be told waits.
    ask(&server, &[vec![fine; 20], vec![failed; 4]].concat(), FAST).await;
    report(&server, "range=1m", 24).await;
    let receiver = receiver(port, folder.path());
    let client = client::Client::new(&format!("http://{}", receiver.address()), "none").unwrap();
    let until = Instant::now() + WITHIN;
    let told = loop {
        let told: Json = client.get("/").await.unwrap();
        let requests = &metric(&told, "crosstown.requests")["sum"];
        if value(requests, "crosstown.route", "work")["asInt"] == "24" {
            break told;
        }
        assert!(Instant::now() < until, "{told:#}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    let of = |name: &str| &metric(&told, name)["sum"];
    assert_eq!(
        of("crosstown.requests")["aggregationTemporality"],
        "AGGREGATION_TEMPORALITY_CUMULATIVE"
    );
    assert_eq!(of("crosstown.requests")["isMonotonic"], true);
    assert_eq!(value(of("crosstown.server_errors"), "crosstown.route", "work")["asInt"], "4");
    let bytes = value(of("crosstown.response.body"), "crosstown.service", "work");
    assert_eq!(bytes["asInt"], (24 * BODY).to_string());
    for origin in &origins {
        let address = origin.address.to_string();
        let point = value(of("crosstown.instance.requests"), "crosstown.instance", &address);
        assert_eq!(point["asInt"], origin.answered().to_string());
    }
    let latencies = &metric(&told, "http.server.request.duration")["histogram"];
    let point = value(latencies, "crosstown.route", "work");
    assert_eq!(point["count"], "24");
    let counts = point["bucketCounts"].as_array().unwrap();
    let counts: Vec<u64> = counts.iter().map(|n| n.as_str().unwrap().parse().unwrap()).collect();
    let bounds = point["explicitBounds"].as_array().unwrap();
    assert_eq!((counts.len(), counts.iter().sum::<u64>()), (bounds.len() + 1, 24));
    let slow: u64 =
        counts.iter().zip(bounds).filter(|(_, b)| b.as_f64() > Some(0.025)).map(|(n, _)| n).sum();
    assert!(slow + counts[counts.len() - 1] >= 20, "{point}");
    assert!(point["sum"].as_f64() >= Some(0.6) && !told.to_string().contains("ann"));
    let resource = &told["resourceMetrics"][0]["resource"]["attributes"];
    assert!(resource.to_string().contains("service.instance.id"), "{resource}");
    assert!(server.metric("crosstown_telemetry_told_total").await >= 1);
    assert_eq!(server.metric("crosstown_telemetry_lost_total").await, 0);
}

/// A metric by its name.
fn metric<'a>(told: &'a Json, name: &str) -> &'a Json {
    let metrics = &told["resourceMetrics"][0]["scopeMetrics"][0]["metrics"];
    let mut metrics = metrics.as_array().into_iter().flatten();
    metrics.find(|metric| metric["name"] == name).unwrap_or(&Json::Null)
}

/// The point of a metric with this attribute.
fn value<'a>(data: &'a Json, key: &str, value: &str) -> &'a Json {
    let mut points = data["dataPoints"].as_array().into_iter().flatten();
    let has = |point: &&Json| {
        let attributes = point["attributes"].as_array().unwrap();
        attributes.contains(&json!({ "key": key, "value": { "stringValue": value } }))
    };
    points.find(has).unwrap_or(&Json::Null)
}

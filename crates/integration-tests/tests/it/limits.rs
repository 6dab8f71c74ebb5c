//! Limits, on one node and on two that share them.

mod accuracy;
mod costs;
mod fields;
mod quotas;
mod shadow;
mod spoofing;

use client::Client;
use http::Method;
use integration_tests::Server;
use std::time::{Duration, Instant};
use test_servers::{Appends, Postgres, PostgresOptions, Redis, RedisOptions};

const WHOAMI: &str = "/crosstown/v1/whoami";

fn two_nodes(keys: &str, limits: &str) -> [Server; 2] {
    [(); 2].map(|()| Server::start_on(keys, limits))
}

/// Until each node knows of the other and every place has an owner.
async fn settled(nodes: &[Server]) {
    let until = Instant::now() + Duration::from_secs(30);
    loop {
        let mut owned = Vec::new();
        for node in nodes {
            owned.push(node.metric("crosstown_limit_places_owned").await);
        }
        if owned.iter().sum::<u64>() == 16
            && owned.iter().all(|owned| *owned < 16 || nodes.len() == 1)
        {
            return;
        }
        assert!(Instant::now() < until, "places: {owned:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Calls as fast as the nodes answer, for so long: how many were let in.
async fn admitted(callers: &[Client], within: Duration) -> u64 {
    let until = Instant::now() + within;
    let mut tasks = tokio::task::JoinSet::new();
    for caller in callers {
        for _ in 0..4 {
            let caller = caller.clone();
            tasks.spawn(async move {
                let mut count = 0;
                while Instant::now() < until {
                    let answer = caller.call(Method::GET, WHOAMI, None).await.unwrap();
                    match answer.status.as_u16() {
                        200 => count += 1,
                        429 => {
                            assert!(answer.headers.contains_key("retry-after"));
                            tokio::time::sleep(Duration::from_millis(2)).await;
                        }
                        other => panic!("{other}"),
                    }
                }
                count
            });
        }
    }
    tasks.join_all().await.iter().sum()
}

/// Until the node decides by itself: at once, or once every place has an owner where its store
/// could be shared.
async fn ready(node: &Server) {
    let metrics = node.admin().call(Method::GET, "/metrics", None).await.unwrap();
    if String::from_utf8_lossy(&metrics.body).contains("crosstown_limit_places_owned") {
        settled(std::slice::from_ref(node)).await;
    }
}

fn callers(nodes: &[Server], user: &str) -> Vec<Client> {
    nodes.iter().map(|node| node.client("acme", user)).collect()
}

const LIMITS: &str = "[[limits]]\nname = \"shared\"\nper = \"user\"\nrequests = 200\nperiod = \"1s\"\n\
    burst = 100\n[[limits]]\nname = \"own\"\nper = \"ip\"\nrequests = 1000000\nperiod = \"1s\"\n\
    scope = \"node\"\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_admit_what_one_would() {
    let redis = Redis::start(RedisOptions::appending(Appends::Always)).unwrap();
    let nodes = two_nodes(&format!("durable = \"{}\"", redis.url()), LIMITS);
    settled(&nodes).await;
    for user in ["ann", "bob", "eve"] {
        let begun = Instant::now();
        let both = admitted(&callers(&nodes, user), Duration::from_secs(3)).await;
        let most = 100 + (200.0 * begun.elapsed().as_secs_f64()).ceil() as u64;
        println!("{user}: {both} of at most {most}");
        assert!(both <= most, "{both} of at most {most}");
        assert!(both * 10 >= most * 8, "{both} of {most}: shares are lost");
    }
    // Whoever asks often asks its owner seldom, and nobody asks the store.
    let mut questions = 0;
    for node in &nodes {
        questions += node.metric("crosstown_limit_questions_total").await;
        assert_eq!(node.metric("crosstown_limit_away_total").await, 0);
        assert!(node.metric("crosstown_limit_saves_total").await <= 20);
    }
    assert!(questions > 0, "no key was owned by the other node");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_node_takes_little_of_the_count_along() {
    let postgres = Postgres::start(PostgresOptions::default()).unwrap();
    let limits = "[[limits]]\nname = \"hour\"\nper = \"user\"\nrequests = 300\nperiod = \"1h\"\n";
    let keys = format!("durable = \"{}\"", postgres.url(""));
    let mut nodes = two_nodes(&keys, limits);
    settled(&nodes).await;
    let users: Vec<String> = (0..8).map(|n| format!("user-{n}")).collect();
    for user in &users {
        let used = admitted(&callers(&nodes, user), Duration::from_millis(400)).await;
        assert!(used <= 300, "{used}");
        let rest = admitted(&callers(&nodes, user), Duration::from_millis(1_500)).await;
        assert!((290..=300).contains(&(used + rest)), "{used} and {rest}");
    }
    // What was counted a second ago is saved.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    nodes[0].kill();
    let left = &nodes[1..];
    settled(left).await;
    for user in &users {
        let more = admitted(&callers(left, user), Duration::from_millis(100)).await;
        assert!(more <= 10, "{user}: {more} more");
    }
}

#[tokio::test]
async fn only_nodes_are_answered() {
    let redis = Redis::start(RedisOptions::appending(Appends::Always)).unwrap();
    let node = Server::start_on(&format!("durable = \"{}\"", redis.url()), "");
    let log = node.log();
    let address = log.split("\"address\":\"").nth(1).unwrap().split('"').next().unwrap();
    let stranger = Client::new(&format!("http://{address}"), "").unwrap();
    let body = Some(b"[]".to_vec());
    let answer = stranger.call(Method::POST, "/limits", body).await.unwrap();
    assert_eq!(answer.status, 401);
    let answer = stranger.call(Method::GET, "/", None).await.unwrap();
    assert_eq!(answer.status, 404);
}

#[tokio::test]
async fn each_rule_says_what_happens_without_the_store() {
    let mut redis = Redis::start(RedisOptions::appending(Appends::Always)).unwrap();
    let limit = |name: &str, policy: &str, route: &str| {
        format!(
            "[[limits]]\nname = \"{name}\"\nper = \"ip\"\nrequests = 4\nperiod = \"1h\"\n\
             when_away = \"{policy}\"\nroutes = [\"{route}\"]\n"
        )
    };
    let route = |name: &str| {
        format!(
            "[[routes]]\nname = \"{name}\"\nservice = \"s\"\nprefix = \"/{name}\"\nauth = \"none\"\n"
        )
    };
    let routes = ["share", "refuse", "pass"].map(route).concat();
    let limits = [
        limit("share", "local_share", "share"),
        limit("refuse", "refuse", "refuse"),
        limit("pass", "pass", "pass"),
    ];
    let config =
        format!("{}{routes}[services.s]\ninstances = [\"http://127.0.0.1:9\"]\n", limits.concat());
    let node = Server::start_on(&format!("durable = \"{}\"", redis.url()), &config);
    settled(std::slice::from_ref(&node)).await;
    redis.kill().unwrap();
    // The node owned every place itself; it stops when it can no longer save.
    let until = Instant::now() + Duration::from_secs(20);
    while node.metric("crosstown_limit_places_owned").await > 0 {
        assert!(Instant::now() < until, "it still counts as an owner");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let caller = Client::new(&node.base(), "").unwrap();
    let statuses = async |path: &str| {
        let mut statuses = Vec::new();
        for _ in 0..6 {
            statuses.push(caller.call(Method::GET, path, None).await.unwrap().status.as_u16());
        }
        statuses
    };
    // The service is not there: 502 is what was let in.
    assert_eq!(statuses("/share").await, [502, 502, 502, 502, 429, 429]);
    assert_eq!(statuses("/refuse").await, [503; 6]);
    assert_eq!(statuses("/pass").await, [502; 6]);
    assert!(node.metric("crosstown_limit_away_total").await >= 18);
    redis.start_again().unwrap();
    let until = Instant::now() + Duration::from_secs(30);
    while node.metric("crosstown_limit_places_owned").await < 16 {
        assert!(Instant::now() < until, "it is not whole again");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(statuses("/refuse").await, [502, 502, 502, 502, 429, 429]);
}

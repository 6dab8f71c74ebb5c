//! Nodes are restarted one after the other behind HAProxy, under load: no request fails, and
//! no publication is missed.

use client::Client;
use http::Method;
use integration_tests::{Server, Socket};
use serde_json::{Value as Json, json};
use std::{
    fs,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tempfile::TempDir;
use test_servers::{Appends, Postgres, PostgresOptions, Process, Redis, RedisOptions, free_ports};

const WRITERS: usize = 8;
const CONFIG: &str = "
[[realtime.namespaces]]
name = \"news\"
history_size = 100000
[shutdown]
announce = \"3s\"
";

/// A balancer that asks each node ten times a second whether it is ready. It sends a request
/// elsewhere only if it could not connect: then nothing was sent.
fn balancer(nodes: &[Server; 2]) -> (Process, String, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let [port] = free_ports().unwrap();
    let port_of = |base: String| base.rsplit(':').next().unwrap().to_owned();
    let server = |(at, node): (usize, &Server)| {
        let (edge, admin) = (port_of(node.base()), port_of(node.admin_base()));
        format!("    server n{at} 127.0.0.1:{edge} check port {admin}\n")
    };
    let servers: String = nodes.iter().enumerate().map(server).collect();
    let config = format!(
        "defaults\n    mode http\n    timeout connect 1s\n    timeout client 30s\n    \
         timeout server 30s\n    timeout tunnel 1m\n    retries 3\n    option redispatch 1\n    \
         retry-on conn-failure\n    timeout check 2s\nfrontend in\n    \
         bind 127.0.0.1:{port}\n    default_backend nodes\n    \
         http-request return status 200 content-type text/plain lf-string %[nbsrv(nodes)] \
         if {{ path /up }}\nbackend nodes\n    balance roundrobin\n    \
         option httpchk GET /ready\n    default-server inter 100ms fall 2 rise 1\n{servers}"
    );
    let file = folder.path().join("haproxy.cfg");
    fs::write(&file, config).unwrap();
    let mut haproxy = Command::new("haproxy");
    haproxy.arg("-db").arg("-f").arg(&file);
    let haproxy = Process::start(&mut haproxy, port, &folder.path().join("log")).unwrap();
    (haproxy, format!("http://127.0.0.1:{port}"), folder)
}

/// Waits until the balancer knows that both nodes are ready, as whoever restarts them would.
async fn both_are_up(base: &str, token: &str) {
    let client = Client::new(base, token).unwrap();
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        let answer = client.call(Method::GET, "/up", None).await.unwrap();
        if &*answer.body == b"2" {
            return;
        }
        assert!(
            Instant::now() < until,
            "{} nodes are ready",
            String::from_utf8_lossy(&answer.body)
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// What everybody counts.
#[derive(Default)]
struct Counts {
    following: AtomicBool,
    over: AtomicBool,
    requests: AtomicU64,
    published: AtomicU64,
}

/// Publishes and reads through the balancer, until it is over.
async fn write(press: Client, ann: Client, counts: Arc<Counts>) {
    let path = "/crosstown/v1/channels/news:all/publications";
    while !counts.over.load(Ordering::SeqCst) {
        let n = counts.published.fetch_add(1, Ordering::SeqCst);
        let answer = press.call(Method::POST, path, Some(n.to_string().into_bytes())).await;
        let answer = answer.unwrap();
        assert_eq!(answer.status, 201, "{}", String::from_utf8_lossy(&answer.body));
        ann.get::<Json>("/crosstown/v1/whoami").await.unwrap();
        counts.requests.fetch_add(2, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Follows the channel over all connections, until it has seen `most` publications.
async fn follow(base: String, token: String, counts: Arc<Counts>) -> (Vec<u64>, usize) {
    let (mut seen, mut connections) = (Vec::new(), 0);
    let mut position: Option<Json> = None;
    let done = |seen: &[u64]| {
        counts.over.load(Ordering::SeqCst)
            && seen.len() as u64 >= counts.published.load(Ordering::SeqCst)
    };
    while !done(&seen) {
        let Ok(mut socket) = Socket::try_open(&base).await else { continue };
        if socket.ask("connect", json!({ "token": token })).await.is_err() {
            continue;
        }
        let mut wish = json!({ "channel": "news:all", "recoverable": true });
        if let Some(position) = &position {
            wish["recover"] = true.into();
            wish["epoch"] = position["epoch"].clone();
            wish["offset"] = seen.len().into();
        }
        let Ok(start) = socket.ask("subscribe", wish).await else { continue };
        connections += 1;
        assert_eq!(start["recovered"] == true, position.is_some(), "{start}");
        let mut take = |publication: &Json| {
            assert_eq!(publication["offset"], seen.len() as u64 + 1, "{publication}");
            seen.push(publication["data"].as_u64().unwrap());
        };
        start["publications"].as_array().into_iter().flatten().for_each(&mut take);
        position = Some(start);
        counts.following.store(true, Ordering::SeqCst);
        loop {
            let pushed = tokio::time::timeout(Duration::from_millis(500), socket.push()).await;
            match pushed {
                Ok(push) if push["pub"].is_object() => {
                    assert_eq!(push["pub"]["offset"], seen.len() as u64 + 1, "{push}");
                    seen.push(push["pub"]["data"].as_u64().unwrap());
                }
                Ok(_) => break,
                Err(_) if done(&seen) => break,
                Err(_) => {}
            }
        }
    }
    (seen, connections)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_fails_no_request_and_loses_no_message() {
    let redis = Redis::start(RedisOptions::appending(Appends::Always)).unwrap();
    let postgres = Postgres::start(PostgresOptions::default()).unwrap();
    let keys = format!("hot = \"{}\"\ndurable = \"{}\"", redis.url(), postgres.url(""));
    let mut nodes = [(); 2].map(|()| Server::start_on(&keys, CONFIG));
    let (_haproxy, base, _folder) = balancer(&nodes);
    let press = Client::new(&base, &nodes[0].api_key("acme", "press").await).unwrap();
    let token = nodes[0].token("acme", "ann");
    let counts = Arc::<Counts>::default();
    let follower = tokio::spawn(follow(base.clone(), token.clone(), counts.clone()));
    while !counts.following.load(Ordering::SeqCst) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mut writers = tokio::task::JoinSet::new();
    for _ in 0..WRITERS {
        let ann = Client::new(&base, &token).unwrap();
        writers.spawn(write(press.clone(), ann, counts.clone()));
    }
    let mut under = Vec::new();
    for node in &mut nodes {
        both_are_up(&base, &token).await;
        let before = counts.requests.load(Ordering::SeqCst);
        tokio::task::block_in_place(|| {
            node.stop();
            node.start_again();
        });
        under.push(counts.requests.load(Ordering::SeqCst) - before);
    }
    both_are_up(&base, &token).await;
    counts.over.store(true, Ordering::SeqCst);
    while let Some(writer) = writers.join_next().await {
        writer.unwrap();
    }
    let (seen, connections) = follower.await.unwrap();
    let mut all = seen.clone();
    all.sort_unstable();
    assert!(all.into_iter().eq(0..counts.published.load(Ordering::SeqCst)), "each exactly once");
    assert!(connections >= 2 && under.iter().all(|requests| *requests > 0), "{under:?}");
    println!(
        "{} requests, 0 failed, {under:?} of them while a node was away; {} publications seen \
         over {connections} connections",
        counts.requests.load(Ordering::SeqCst),
        seen.len(),
    );
}

//! Instances that register themselves, and stay for as long as their heartbeats come.

mod checks;
mod process;

use client::{Client, Error};
use http::Method;
use integration_tests::Server;
use process::ServiceProcess;
use serde_json::{Value as Json, json};
use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};
use test_servers::{Dns, Told};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

const INSTANCES: &str = "/crosstown/v1/services/shop/instances";

/// A service `shop` whose instances register themselves, as `terms` say besides, and a route to
/// it.
pub(crate) fn config(terms: &str, more: &str) -> String {
    format!(
        "[services.shop]\nbalance = \"round_robin\"\nconnect_timeout = \"300ms\"\n{more}\n\
         registration = {{ tenants = [\"acme\"], roles = [\"registrar\"]{terms} }}\n\
         [[routes]]\nname = \"shop\"\nservice = \"shop\"\nauth = \"none\"\n"
    )
}

/// The key of a service of `tenant` with this role.
pub(crate) async fn key(node: &Server, tenant: &str, principal: &str, role: &str) -> String {
    let body = json!({ "tenant": tenant, "principal": principal, "roles": [role] });
    let key: Json = node.admin().post("/api-keys", &body).await.unwrap();
    key["text"].as_str().unwrap().to_owned()
}

async fn registrar(node: &Server, principal: &str) -> Client {
    Client::new(&node.base(), &key(node, "acme", principal, "registrar").await).unwrap()
}

/// An instance in this process that tells its name; how many connections it got.
pub(crate) async fn instance(
    address: (Ipv4Addr, u16),
    name: &'static str,
) -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind(address).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let accepted = Arc::new(AtomicUsize::new(0));
    let counted = accepted.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            counted.fetch_add(1, SeqCst);
            tokio::spawn(async move {
                let mut bytes = vec![0; 4096];
                while stream.read(&mut bytes).await.is_ok_and(|length| length > 0) {
                    let status = if bytes.starts_with(b"GET /health") { 503 } else { 200 };
                    let length = name.len();
                    let answer =
                        format!("HTTP/1.1 {status} X\r\ncontent-length: {length}\r\n\r\n{name}");
                    let _ = stream.write_all(answer.as_bytes()).await;
                }
            });
        }
    });
    (port, accepted)
}

fn here(port: u16) -> String {
    format!("http://127.0.0.1:{port}")
}

/// Who answers, over a few calls; `status code` where nobody does.
pub(crate) async fn who(node: &Server) -> BTreeSet<String> {
    let client = Client::new(&node.base(), "").unwrap();
    let mut seen = BTreeSet::new();
    for _ in 0..6 {
        let answer = client.call(Method::GET, "/", None).await.unwrap();
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        seen.insert(match answer.status.as_u16() {
            200 => text,
            status => format!("{status} {}", serde_json::from_str::<Json>(&text).unwrap()["code"]),
        });
    }
    seen
}

pub(crate) async fn until_they_are(node: &Server, expected: &[&str]) {
    let expected: BTreeSet<String> = expected.iter().map(|name| (*name).to_owned()).collect();
    let until = Instant::now() + Duration::from_secs(40);
    loop {
        let seen = who(node).await;
        if seen == expected {
            return;
        }
        assert!(Instant::now() < until, "{seen:?} instead of {expected:?}: {}", node.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub(crate) const NOBODY: &[&str] = &["503 \"no_instance\""];

/// The instances as the operator sees them.
async fn shown(node: &Server) -> Vec<Json> {
    let services: Json = node.admin().get("/services").await.unwrap();
    services["instances"].as_array().unwrap().clone()
}

fn refused<T: std::fmt::Debug>(answer: Result<T, Error>) -> String {
    answer.unwrap_err().code().unwrap().to_owned()
}

#[tokio::test]
async fn processes_that_register_are_called_until_they_die_or_end() {
    let node = Server::start(&config(", loopback = true", ""));
    until_they_are(&node, NOBODY).await;
    let key = key(&node, "acme", "shop", "registrar").await;
    let start = |name| ServiceProcess::start(&node, &key, name, Duration::from_secs(2));
    let (mut left, right) = (start("left"), start("right"));
    until_they_are(&node, &["left", "right"]).await;
    let instances = shown(&node).await;
    for one in &instances {
        assert_eq!((&one["origin"], &one["by"]), (&json!("registered"), &json!("acme/shop")));
        assert!(one["expires"].as_u64().unwrap() > 1_000_000_000_000);
    }
    // Nobody sends its heartbeats any more, and nobody says so.
    left.kill();
    let until = Instant::now() + Duration::from_secs(40);
    while shown(&node).await.len() > 1 {
        assert!(Instant::now() < until, "{}", node.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    until_they_are(&node, &["right"]).await;
    // One that ends is called no more once it was told so: no call fails.
    let _next = start("next");
    until_they_are(&node, &["next", "right"]).await;
    let load = Load::start(&node);
    right.end().await;
    load.end().await;
    until_they_are(&node, &["next"]).await;
}

/// Calls without a pause, none of which may fail.
struct Load {
    over: Arc<AtomicBool>,
    callers: Vec<tokio::task::JoinHandle<usize>>,
}

impl Load {
    fn start(node: &Server) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let call = |_| {
            let (client, over) = (Client::new(&node.base(), "").unwrap(), over.clone());
            tokio::spawn(async move {
                let mut count = 0;
                while !over.load(SeqCst) {
                    let answer = client.call(Method::GET, "/slow", None).await.unwrap();
                    assert_eq!(answer.status, 200, "{:?}", answer.body);
                    count += 1;
                }
                count
            })
        };
        let callers = (0..8).map(call).collect();
        Self { over, callers }
    }

    async fn end(self) {
        tokio::time::sleep(Duration::from_millis(300)).await;
        self.over.store(true, SeqCst);
        for caller in self.callers {
            assert!(caller.await.unwrap() > 0);
        }
    }
}

#[tokio::test]
async fn instances_that_come_and_go_fail_no_call() {
    let node = Server::start(&config(", loopback = true", ""));
    let shop = registrar(&node, "shop").await;
    let (stays, _) = instance((Ipv4Addr::LOCALHOST, 0), "stays").await;
    let (comes, _) = instance((Ipv4Addr::LOCALHOST, 0), "comes").await;
    let options = client::InstanceOptions { ttl: Duration::from_secs(60), ..Default::default() };
    let _stays = shop.register("shop", &here(stays), options.clone()).await.unwrap();
    until_they_are(&node, &["stays"]).await;
    let load = Load::start(&node);
    for _ in 0..10 {
        let registration = shop.register("shop", &here(comes), options.clone()).await.unwrap();
        let listed: Json = shop.get(INSTANCES).await.unwrap();
        assert_eq!(listed["instances"].as_array().unwrap().len(), 2);
        registration.end().await.unwrap();
    }
    load.end().await;
    until_they_are(&node, &["stays"]).await;
    // Dropped, it ends too.
    let registration = shop.register("shop", &here(comes), options).await.unwrap();
    until_they_are(&node, &["comes", "stays"]).await;
    drop(registration);
    until_they_are(&node, &["stays"]).await;
}

#[tokio::test]
async fn a_node_that_starts_again_knows_who_is_registered_before_it_serves() {
    let mut node = Server::start(&config(", loopback = true", ""));
    let shop = registrar(&node, "shop").await;
    let (port, _) = instance((Ipv4Addr::LOCALHOST, 0), "there").await;
    let new = json!({
        "url": here(port), "ttl": "5m", "weight": 3, "version": "1.2", "tags": ["blue"],
        "metadata": { "zone": "a" },
    });
    let told: Json = shop.post(INSTANCES, &new).await.unwrap();
    assert_eq!(told["renew_after_ms"], 100_000);
    node.kill();
    node.start_again();
    assert_eq!(who(&node).await, BTreeSet::from(["there".to_owned()]));
    let listed: Json = registrar(&node, "shop").await.get(INSTANCES).await.unwrap();
    let (one, id) = (&listed["instances"][0], &told["id"]);
    assert_eq!((&one["id"], &one["weight"], &one["version"]), (id, &json!(3), &json!("1.2")));
    assert_eq!((&one["tags"][0], &one["metadata"]["zone"]), (&json!("blue"), &json!("a")));
}

#[tokio::test]
async fn only_who_may_registers_and_only_its_own() {
    let node = Server::start(&format!(
        "{}[services.closed]\ninstances = [\"http://127.0.0.1:9\"]\n",
        config(", loopback = true", "")
    ));
    let shop = registrar(&node, "shop").await;
    let (port, _) = instance((Ipv4Addr::LOCALHOST, 0), "shop").await;
    let new = json!({ "url": here(port), "ttl": "1m" });
    let told: Json = shop.post(INSTANCES, &new).await.unwrap();
    let path = format!("{INSTANCES}/{}", told["id"].as_str().unwrap());
    let services: Json = shop.get("/crosstown/v1/services").await.unwrap();
    assert_eq!(services, json!({ "services": ["shop"] }));

    let client = |key: &str| Client::new(&node.base(), key).unwrap();
    let strangers = [
        client(&key(&node, "other", "shop", "registrar").await),
        client(&key(&node, "acme", "shop", "reader").await),
        client(&node.token_with("acme", "shop", json!({ "roles": ["registrar", "admin"] }))),
    ];
    for stranger in &strangers {
        assert_eq!(refused(stranger.post::<Json>(INSTANCES, &new).await), "forbidden");
        assert_eq!(refused(stranger.put::<Json>(&path, &json!({})).await), "forbidden");
        assert_eq!(refused(stranger.get::<Json>(INSTANCES).await), "forbidden");
        assert_eq!(refused(stranger.delete(&path).await), "forbidden");
        let services: Json = stranger.get("/crosstown/v1/services").await.unwrap();
        assert_eq!(services, json!({ "services": [] }));
    }
    // There is no telling a service that is closed from one that is not there.
    for service in ["closed", "nowhere"] {
        let path = format!("/crosstown/v1/services/{service}/instances");
        assert_eq!(refused(shop.post::<Json>(&path, &new).await), "forbidden");
    }
    let rival = registrar(&node, "rival").await;
    assert_eq!(refused(rival.post::<Json>(INSTANCES, &new).await), "conflict");
    assert_eq!(refused(rival.put::<Json>(&path, &json!({})).await), "forbidden");
    assert_eq!(refused(rival.delete(&path).await), "forbidden");

    // Said again, it is a heartbeat, and what is said anew holds.
    let answer = shop.call(Method::POST, INSTANCES, Some(new.to_string().into())).await.unwrap();
    assert_eq!(answer.status, 200);
    let renewed: Json = shop.put(&path, &json!({})).await.unwrap();
    assert!(renewed["expires"].as_u64() >= told["expires"].as_u64());
    until_they_are(&node, &["shop"]).await;
    node.admin()
        .delete(&format!("/services/shop/instances/{}", told["id"].as_str().unwrap()))
        .await
        .unwrap();
    until_they_are(&node, NOBODY).await;
    assert_eq!(refused(shop.put::<Json>(&path, &json!({})).await), "not_found");
}

#[tokio::test]
async fn registrations_have_bounds() {
    let terms = ", loopback = true, ttl_max = \"1m\", instances_max = 2";
    let node = Server::start(&config(terms, ""));
    let shop = registrar(&node, "shop").await;
    for wrong in [
        json!({ "url": here(9001), "ttl": "2m" }),
        json!({ "url": here(9001), "ttl": "0s" }),
        json!({ "url": here(9001), "weight": 0 }),
        json!({ "url": here(9001), "weight": 1001 }),
        json!({ "url": here(9001), "colour": "blue" }),
        json!({ "url": here(9001), "version": "v".repeat(65) }),
        json!({ "url": here(9001), "tags": vec!["t"; 17] }),
        json!({ "url": here(9001), "metadata": { "m": "x".repeat(5000) } }),
        json!({ "url": "https://127.0.0.1:9001" }),
        json!({}),
    ] {
        assert_eq!(refused(shop.post::<Json>(INSTANCES, &wrong).await), "bad_request", "{wrong}");
    }
    for port in [9001, 9002] {
        shop.post::<Json>(INSTANCES, &json!({ "url": here(port) })).await.unwrap();
    }
    let third = json!({ "url": here(9003) });
    assert_eq!(refused(shop.post::<Json>(INSTANCES, &third).await), "overloaded");
    shop.post::<Json>(INSTANCES, &json!({ "url": here(9001) })).await.unwrap();
}

#[tokio::test]
async fn an_address_that_is_not_allowed_is_never_connected_to() {
    let dns = Dns::start().unwrap();
    let server = dns.address();
    let terms = format!(", server = \"{server}\"");
    let node = Server::start(&config(&terms, "health = { interval = \"50ms\" }"));
    let shop = registrar(&node, "shop").await;
    let (port, accepted) = instance((Ipv4Addr::LOCALHOST, 0), "inside").await;
    let ip = |ip: &str| ip.parse::<IpAddr>().unwrap();
    dns.tell("inside.test", Told::Addresses(vec![ip("127.0.0.1")]));
    dns.tell("mapped.test", Told::Addresses(vec![ip("::ffff:127.0.0.1")]));
    dns.tell("both.test", Told::Addresses(vec![ip("8.8.8.8"), ip("127.0.0.1")]));
    dns.tell("metadata.test", Told::Addresses(vec![ip("169.254.169.254")]));
    dns.tell("empty.test", Told::Addresses(Vec::new()));
    for host in [
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0x7f.1",
        "017700000001",
        "0177.0.0.1",
        "127.0.0.1.",
        "0.0.0.0",
        "0",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
        "%31%32%37.0.0.1",
        "①②⑦.0.0.1",
        "[::1%25lo]",
        "user@127.0.0.1",
        "8.8.8.8@127.0.0.1",
        "localhost.",
        "inside.test",
        "mapped.test",
        "both.test",
        "metadata.test",
        "empty.test",
        "missing.test",
        "169.254.169.254",
        "10.0.0.1",
        "192.168.0.1",
        "100.64.0.1",
        "[fd00::1]",
        "[fe80::1]",
    ] {
        let new = json!({ "url": format!("http://{host}:{port}") });
        let code = refused(shop.post::<Json>(INSTANCES, &new).await);
        assert!(code == "forbidden" || code == "bad_request", "{host}: {code}");
    }
    assert_eq!(shown(&node).await, Vec::<Json>::new());
    assert_eq!(who(&node).await, BTreeSet::from([NOBODY[0].to_owned()]));
    assert_eq!(accepted.load(SeqCst), 0);
}

/// A name is looked up once; what it stands for later changes nothing (DNS rebinding).
#[tokio::test]
async fn a_name_stays_what_it_was_when_it_was_registered() {
    let dns = Dns::start().unwrap();
    let node =
        Server::start(&config(&format!(", loopback = true, server = \"{}\"", dns.address()), ""));
    let shop = registrar(&node, "shop").await;
    let (port, _) = instance((Ipv4Addr::LOCALHOST, 0), "first").await;
    let (_, accepted) = instance((Ipv4Addr::new(127, 0, 0, 2), port), "second").await;
    dns.tell("shop.test", Told::Addresses(vec![[127, 0, 0, 1].into()]));
    let new = json!({ "url": format!("http://shop.test:{port}"), "ttl": "1m" });
    let told: Json = shop.post(INSTANCES, &new).await.unwrap();
    assert_eq!(told["address"], format!("127.0.0.1:{port}"));
    dns.tell("shop.test", Told::Addresses(vec![[127, 0, 0, 2].into()]));
    let path = format!("{INSTANCES}/{}", told["id"].as_str().unwrap());
    shop.put::<Json>(&path, &json!({})).await.unwrap();
    until_they_are(&node, &["first"]).await;
    assert_eq!(accepted.load(SeqCst), 0);
}

#[tokio::test]
async fn an_instance_that_is_not_well_is_not_called() {
    let health = "health = { path = \"/health\", interval = \"20ms\" }";
    let node = Server::start(&config(", loopback = true", health));
    let shop = registrar(&node, "shop").await;
    let (port, accepted) = instance((Ipv4Addr::LOCALHOST, 0), "ill").await;
    shop.post::<Json>(INSTANCES, &json!({ "url": here(port), "ttl": "1m" })).await.unwrap();
    let until = Instant::now() + Duration::from_secs(20);
    while accepted.load(SeqCst) < 3 {
        assert!(Instant::now() < until, "it is not checked");
        assert_eq!(who(&node).await, BTreeSet::from([NOBODY[0].to_owned()]));
    }
    assert_eq!(shown(&node).await[0]["condition"], "unfit");
}

//! What callers see while a store is away, slow or takes no writes, and that everything is as
//! before afterwards. The servers are real, and are killed, paused (SIGSTOP) and cut off.

use client::{Answer, Client};
use http::Method;
use integration_tests::{Server, Socket};
use serde_json::{Value as Json, json};
use std::time::{Duration, Instant};
use test_servers::{Appends, Postgres, PostgresOptions, Proxy, Redis, RedisOptions};

const SESSIONS: &str = "/crosstown/v1/sessions";
const WHOAMI: &str = "/crosstown/v1/whoami";
/// Credentials are asked for again soon, so that it is copies that let callers in.
const CONFIG: &str = "
[identity]
trusted_for = \"100ms\"
[[realtime.namespaces]]
name = \"news\"
history_size = 100
[[realtime.namespaces]]
name = \"now\"
history_size = 0
";
const GUARD: &str = "guard = { patience = \"1s\", publications_wait = \"300ms\" }";

/// How a server is taken away.
#[derive(Debug, Clone, Copy)]
enum Harm {
    Killed,
    Paused,
    Cut,
    Silent,
}

/// One node, its stores, and the lines to them.
struct Ground {
    node: Server,
    redis: Redis,
    postgres: Postgres,
    /// To Redis, to PostgreSQL.
    lines: [Proxy; 2],
}

impl Ground {
    fn start() -> Self {
        let redis = Redis::start(RedisOptions::appending(Appends::Always)).unwrap();
        let postgres = Postgres::start(PostgresOptions::default()).unwrap();
        let lines = [redis.port(), postgres.port()].map(|port| Proxy::start(port).unwrap());
        let from = format!("127.0.0.1:{}", postgres.port());
        let durable = postgres.url("").replace(&from, &format!("127.0.0.1:{}", lines[1].port()));
        let hot = format!("redis://127.0.0.1:{}", lines[0].port());
        let keys = format!("hot = \"{hot}\"\ndurable = \"{durable}\"\n{GUARD}");
        let node = Server::start_on(&keys, CONFIG);
        Self { node, redis, postgres, lines }
    }

    fn harm(&mut self, tier: &str, harm: Harm) {
        let line = &self.lines[usize::from(tier == "durable")];
        match (harm, tier) {
            (Harm::Cut, _) => line.cut(),
            (Harm::Silent, _) => line.silence(),
            (Harm::Killed, "hot") => self.redis.kill().unwrap(),
            (Harm::Killed, _) => self.postgres.kill().unwrap(),
            (Harm::Paused, "hot") => self.redis.process().pause().unwrap(),
            (Harm::Paused, _) => self.postgres.pause().unwrap(),
        }
    }

    fn heal(&mut self, tier: &str, harm: Harm) {
        let line = &self.lines[usize::from(tier == "durable")];
        match (harm, tier) {
            (Harm::Cut | Harm::Silent, _) => line.heal(),
            (Harm::Killed, "hot") => self.redis.start_again().unwrap(),
            (Harm::Killed, _) => self.postgres.restart().unwrap(),
            (Harm::Paused, "hot") => self.redis.process().resume().unwrap(),
            (Harm::Paused, _) => self.postgres.resume().unwrap(),
        }
    }
}

async fn health(node: &Server) -> (u16, Json) {
    let answer = node.admin().call(Method::GET, "/health", None).await.unwrap();
    (answer.status.as_u16(), serde_json::from_slice(&answer.body).unwrap())
}

/// Waits until `part` of `/health` is in `condition`, and answers all of it.
async fn until_it_is(node: &Server, part: &str, condition: &str) -> (u16, Json) {
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        let (status, told) = health(node).await;
        if told.pointer(part).is_some_and(|part| part["condition"] == condition) {
            return (status, told);
        }
        assert!(Instant::now() < until, "{part} is not {condition}: {told}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn put(client: &Client, document: &str, value: u64) -> Answer {
    let path = format!("/crosstown/v1/state/{document}/entries/a");
    client.call(Method::PUT, &path, Some(value.to_string().into_bytes())).await.unwrap()
}

/// Writes until it is taken: a machine that is busy may take a store for away for a moment.
async fn written(client: &Client, document: &str, value: u64) {
    let until = Instant::now() + Duration::from_secs(30);
    while put(client, document, value).await.status != 200 {
        assert!(Instant::now() < until, "{document} takes no writes");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Refused, with a code, advice, and a time to come back after.
fn assert_refused(answer: &Answer, code: &str) {
    let problem: Json = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!((answer.status.as_u16(), &problem["code"]), (503, &json!(code)), "{problem}");
    assert_eq!(problem["retry"], "later", "{problem}");
    assert!(answer.headers.contains_key("retry-after"), "{:?}", answer.headers);
}

/// Sessions are in the hot store, API keys and documents of users in the durable one.
async fn away(tier: &str, harm: Harm) {
    let mut ground = Ground::start();
    let other = if tier == "hot" { "durable" } else { "hot" };
    let ann = ground.node.client("acme", "ann");
    let base = ground.node.base();
    let made: Json = ann.post(SESSIONS, &json!({})).await.unwrap();
    let by_session = Client::new(&base, made["token"].as_str().unwrap()).unwrap();
    let by_key = Client::new(&base, &ground.node.api_key("acme", "orders").await).unwrap();
    let known = if tier == "hot" { &by_session } else { &by_key };
    let session = format!("session/{}", made["id"].as_str().unwrap());
    let [here, there] = match tier {
        "hot" => [&*session, "user/ann"],
        _ => ["user/ann", &*session],
    };
    let owner = |document: &str| if document == "user/ann" { &ann } else { &by_session };
    for document in [here, there] {
        assert_eq!(put(owner(document), document, 1).await.status, 200);
    }
    known.get::<Json>(WHOAMI).await.unwrap();

    ground.harm(tier, harm);
    let at = [format!("/stores/{tier}"), format!("/stores/{other}")];
    // Somebody has to ask before it can be known.
    while health(&ground.node).await.1["stores"][tier]["condition"] != "away" {
        let _ = ann.call(Method::GET, &format!("/crosstown/v1/state/{here}"), None).await;
    }
    let (status, told) = until_it_is(&ground.node, &at[0], "away").await;
    assert_eq!((status, &told["status"]), (503, &json!("store_unavailable")), "{told}");
    assert_ne!(told["stores"][other]["condition"], "away", "{told}");

    // A token proves itself; a copy proves who was known; nobody else is let in.
    ann.get::<Json>(WHOAMI).await.unwrap();
    let before = ground.node.metric("crosstown_callers_from_copies_total").await;
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    let who: Json = known.get(WHOAMI).await.unwrap();
    assert!(who["principal"] == "ann" || who["principal"] == "orders", "{who}");
    assert!(ground.node.metric("crosstown_callers_from_copies_total").await > before);
    let forged = match tier {
        "hot" => format!("{}x", made["token"].as_str().unwrap()),
        _ => "ctk_acme.AAAAAAAAAAAA.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA".to_owned(),
    };
    let unknown = Client::new(&base, &forged).unwrap();
    assert_refused(&unknown.call(Method::GET, WHOAMI, None).await.unwrap(), "store_unavailable");

    // What needs the store is refused, and what needs the other one goes on.
    let sent = format!("crosstown_store_calls_total{{store=\"{tier}\",outcome=\"refused\"}}");
    let before = ground.node.metric(&sent).await;
    assert_refused(&put(owner(here), here, 2).await, "store_unavailable");
    assert!(ground.node.metric(&sent).await > before, "it was refused without being asked");
    written(owner(there), there, 2).await;

    ground.heal(tier, harm);
    until_it_is(&ground.node, &at[0], "well").await;
    written(owner(here), here, 3).await;
    let answer = unknown.call(Method::GET, WHOAMI, None).await.unwrap();
    assert_eq!(answer.status, 401, "whoever is not known is told so again");
    // What took so long makes it slow for some more answers.
    let until = Instant::now() + Duration::from_secs(30);
    loop {
        let (status, told) = health(&ground.node).await;
        if (status, &told["status"]) == (200, &json!("ok")) {
            return;
        }
        assert!(Instant::now() < until, "{told}");
        for document in [here, there] {
            written(owner(document), document, 4).await;
        }
    }
}

macro_rules! on_each {
    ($($tier:ident: $($name:ident $harm:ident),*;)*) => { $(
        mod $tier {
            $(#[tokio::test]
            async fn $name() { super::away(stringify!($tier), super::Harm::$harm).await })*
        }
    )* };
}

on_each! {
    hot: is_killed Killed, is_paused Paused, is_cut_off Cut, is_silent Silent;
    durable: is_killed Killed, is_paused Paused, is_cut_off Cut, is_silent Silent;
}

#[tokio::test]
async fn a_copy_may_be_refused_by_policy() {
    let mut redis = Redis::start(RedisOptions::appending(Appends::Always)).unwrap();
    let keys = format!("durable = \"{}\"\n{GUARD}", redis.url());
    let config = format!("{CONFIG}\n").replace("[identity]\n", "[identity]\ncopies_for = \"0s\"\n");
    let node = Server::start_on(&keys, &config);
    let made: Json = node.client("acme", "ann").post(SESSIONS, &json!({})).await.unwrap();
    let by_session = Client::new(&node.base(), made["token"].as_str().unwrap()).unwrap();
    by_session.get::<Json>(WHOAMI).await.unwrap();
    redis.kill().unwrap();
    until_it_is(&node, "/stores/hot_and_durable", "away").await;
    let answer = by_session.call(Method::GET, WHOAMI, None).await.unwrap();
    assert_refused(&answer, "store_unavailable");
}

/// Reads go on, writes are refused for what it is, and a sliding session still lets in.
async fn read_only(
    ground: &Ground,
    tier: &str,
    document: &str,
    client: &Client,
    set: impl Fn(bool),
) {
    let at = format!("/stores/{tier}");
    assert_eq!(put(client, document, 1).await.status, 200);
    set(true);
    let until = Instant::now() + Duration::from_secs(20);
    let refused = loop {
        let answer = put(client, document, 2).await;
        if answer.status != 200 {
            break answer;
        }
        assert!(Instant::now() < until, "{tier} still takes writes");
    };
    assert_refused(&refused, "store_read_only");
    let (status, told) = until_it_is(&ground.node, &at, "read_only").await;
    assert_eq!((status, &told["status"]), (200, &json!("degraded")), "{told}");
    let snapshot: Json = client.get(&format!("/crosstown/v1/state/{document}")).await.unwrap();
    assert!(snapshot["entries"][0]["value"].as_u64() >= Some(1), "{snapshot}");
    set(false);
    // Nobody writes: the node finds out by itself.
    until_it_is(&ground.node, &at, "well").await;
    assert_eq!(put(client, document, 3).await.status, 200);
}

#[tokio::test]
async fn stores_that_take_no_writes_are_read() {
    let ground = Ground::start();
    let ann = ground.node.client("acme", "ann");
    read_only(&ground, "durable", "user/ann", &ann, |on| {
        let value = if on { "on" } else { "off" };
        let set = format!("ALTER SYSTEM SET default_transaction_read_only = {value}");
        ground.postgres.sql("postgres", &set).unwrap();
        ground.postgres.sql("postgres", "SELECT pg_reload_conf()").unwrap();
    })
    .await;
    let made: Json = ann.post(SESSIONS, &json!({})).await.unwrap();
    let by_session = Client::new(&ground.node.base(), made["token"].as_str().unwrap()).unwrap();
    let document = format!("session/{}", made["id"].as_str().unwrap());
    read_only(&ground, "hot", &document, &by_session, |on| {
        let least = if on { "1" } else { "0" };
        ground.redis.ask(&["CONFIG", "SET", "min-replicas-to-write", least]).unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_slow_store_is_told_of_and_works_on() {
    let ground = Ground::start();
    let ann = ground.node.client("acme", "ann");
    ground.lines[1].delay(Duration::from_millis(200));
    let until = Instant::now() + Duration::from_secs(30);
    let mut count = 0;
    while health(&ground.node).await.1["stores"]["durable"]["condition"] != "slow" {
        count += 1;
        assert_eq!(put(&ann, "user/ann", count).await.status, 200);
        assert!(Instant::now() < until, "{}", health(&ground.node).await.1);
    }
    let (status, told) = health(&ground.node).await;
    assert_eq!((status, &told["status"]), (200, &json!("degraded")), "{told}");
    ground.lines[1].heal();
    while health(&ground.node).await.1["stores"]["durable"]["condition"] != "well" {
        count += 1;
        assert_eq!(put(&ann, "user/ann", count).await.status, 200);
        assert!(Instant::now() < until, "{}", health(&ground.node).await.1);
    }
}

/// Publications of channels without history wait for the fan-out, then are refused; those with
/// history go through the store as ever.
#[tokio::test]
async fn without_its_fan_out_a_node_passes_on_what_is_stored() {
    let mut fanout = Redis::start(RedisOptions::default()).unwrap();
    let redis = Redis::start(RedisOptions::appending(Appends::Always)).unwrap();
    let keys = format!("live = \"{}\"\nhot = \"{}\"\n{GUARD}", fanout.url(), redis.url());
    let node = Server::start_on(&keys, CONFIG);
    let press = Client::new(&node.base(), &node.api_key("acme", "press").await).unwrap();
    let mut socket = Socket::connect(&node.base(), &node.token("acme", "ann")).await;
    for channel in ["now:all", "news:all"] {
        socket.ask("subscribe", json!({ "channel": channel })).await.unwrap();
    }
    let publish = async |channel: &str, n: u64| {
        let path = format!("/crosstown/v1/channels/{channel}/publications");
        press.call(Method::POST, &path, Some(n.to_string().into_bytes())).await.unwrap()
    };
    fanout.kill().unwrap();
    until_it_is(&node, "/fanout", "away").await;
    let (status, told) = health(&node).await;
    assert_eq!((status, &told["status"]), (200, &json!("degraded")), "{told}");
    assert_refused(&publish("now:all", 1).await, "store_unavailable");
    assert_eq!(publish("news:all", 2).await.status, 201);
    assert_eq!(socket.push().await["pub"]["data"], 2);
    fanout.start_again().unwrap();
    until_it_is(&node, "/fanout", "well").await;
    // The listener comes back in its own time, and nobody is promised what passed before.
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        assert_eq!(publish("now:all", 3).await.status, 201);
        let heard = tokio::time::timeout(Duration::from_millis(200), socket.push()).await;
        if let Ok(push) = heard {
            assert_eq!((&push["channel"], &push["pub"]["data"]), (&json!("now:all"), &json!(3)));
            return;
        }
        assert!(Instant::now() < until, "nothing passes any more");
    }
}

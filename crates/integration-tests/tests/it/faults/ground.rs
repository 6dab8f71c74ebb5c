//! The servers, what is done to them, and what everybody shares.

use super::{TENANTS, USERS};
use client::Client;
use integration_tests::{Random, Server};
use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use test_servers::{Appends, Postgres, PostgresOptions, Proxy, Redis, RedisOptions};

const CONFIG: &str = "
[sessions]
per_user_max = 1000
[state]
history_max = 100000
[realtime]
recover_max = 1000000
queue_bytes_max = 67108864
[[realtime.namespaces]]
name = \"news\"
history_size = 1000000
";

/// Two nodes, the lines to their stores, and the stores.
pub(super) struct Ground {
    nodes: [Server; 2],
    /// Of each node: to Redis, to PostgreSQL.
    lines: [[Proxy; 2]; 2],
    redis: Redis,
    postgres: Postgres,
    done: BTreeMap<&'static str, usize>,
}

impl Ground {
    pub(super) fn start() -> Self {
        let redis = Redis::start(RedisOptions::appending(Appends::Always)).unwrap();
        let postgres = Postgres::start(PostgresOptions::default()).unwrap();
        let line = || [redis.port(), postgres.port()].map(|port| Proxy::start(port).unwrap());
        let lines = [line(), line()];
        let nodes = lines.each_ref().map(|[to_redis, to_postgres]| {
            let hot = format!("redis://127.0.0.1:{}/?survives=power-loss", to_redis.port());
            let durable = postgres.url("");
            let from = format!("127.0.0.1:{}", postgres.port());
            let durable = durable.replace(&from, &format!("127.0.0.1:{}", to_postgres.port()));
            let stores = format!("hot = \"{hot}\"\ndurable = \"{durable}\"");
            let limits = super::prober::CONFIG;
            Server::start_on(&stores, &format!("{CONFIG}{limits}"))
        });
        Self { nodes, lines, redis, postgres, done: BTreeMap::new() }
    }

    /// Does harm, and undoes it.
    pub(super) async fn harm(&mut self, random: &mut Random) -> &'static str {
        let at = random.below(2);
        let long = Duration::from_millis(1_000 + random.next() % 3_000);
        let short = Duration::from_millis(random.next() % 1_000);
        let what = match random.below(9) {
            0 | 1 => {
                self.nodes[at].kill();
                tokio::time::sleep(short).await;
                tokio::task::block_in_place(|| self.nodes[at].start_again());
                "a killed node"
            }
            2 => {
                self.nodes[at].pause();
                tokio::time::sleep(long).await;
                self.nodes[at].resume();
                "a paused node"
            }
            3 => {
                tokio::task::block_in_place(|| self.redis.kill()).unwrap();
                tokio::time::sleep(short).await;
                tokio::task::block_in_place(|| self.redis.start_again()).unwrap();
                "a killed Redis"
            }
            4 => {
                tokio::task::block_in_place(|| self.postgres.kill()).unwrap();
                tokio::time::sleep(short).await;
                tokio::task::block_in_place(|| self.postgres.restart()).unwrap();
                "a killed PostgreSQL"
            }
            which => {
                let [redis, postgres] = &self.lines[at];
                let (lines, what) = match which {
                    5 => (vec![redis], "a line to Redis cut"),
                    6 => (vec![postgres], "a line to PostgreSQL cut"),
                    7 => (vec![redis, postgres], "both lines cut"),
                    _ => (vec![redis, postgres], "both lines silent"),
                };
                for line in &lines {
                    if which == 8 { line.silence() } else { line.cut() }
                }
                tokio::time::sleep(long).await;
                lines.iter().for_each(|line| line.heal());
                what
            }
        };
        *self.done.entry(what).or_default() += 1;
        what
    }

    pub(super) fn told(&self) -> String {
        let each = self.done.iter().map(|(what, times)| format!("{times} × {what}"));
        each.collect::<Vec<_>>().join(", ")
    }
}

/// One user's way to both nodes, and how far things have come for them.
pub(super) struct User {
    pub(super) tenant: &'static str,
    pub(super) name: &'static str,
    pub(super) token: String,
    pub(super) by_token: [Client; 2],
    /// With the API key of a service of the tenant.
    pub(super) service: [Client; 2],
    pub(super) connected: AtomicBool,
    pub(super) news: Reach,
    pub(super) state: Reach,
}

/// Up to where a channel was acknowledged to its writer, and seen by its follower.
#[derive(Default)]
pub(super) struct Reach {
    pub(super) acknowledged: AtomicU64,
    pub(super) seen: AtomicU64,
}

/// What everybody shares.
pub(super) struct World {
    pub(super) bases: [String; 2],
    pub(super) users: Vec<Arc<User>>,
    /// Nothing new is asked for.
    pub(super) quiet: AtomicBool,
    /// Nobody listens any more.
    pub(super) over: AtomicBool,
    pub(super) faults: AtomicUsize,
    seed: u64,
    wrong: Mutex<Vec<String>>,
}

impl World {
    pub(super) async fn new(ground: &Ground, seed: u64) -> Self {
        let bases = ground.nodes.each_ref().map(Server::base);
        let mut users = Vec::new();
        for tenant in TENANTS {
            let key = ground.nodes[0].api_key(tenant, "press").await;
            let clients = |credential: &str| {
                bases.each_ref().map(|base| Client::new(base, credential).unwrap())
            };
            for name in USERS {
                let token = ground.nodes[0].token(tenant, name);
                users.push(Arc::new(User {
                    tenant,
                    name,
                    by_token: clients(&token),
                    service: clients(&key),
                    token,
                    connected: AtomicBool::new(false),
                    news: Reach::default(),
                    state: Reach::default(),
                }));
            }
        }
        let (quiet, over, faults, wrong) = Default::default();
        Self { bases, users, quiet, over, faults, seed, wrong }
    }

    pub(super) fn client(&self, tenant: &str, name: &str) -> Arc<User> {
        let mut users = self.users.iter();
        users.find(|user| user.tenant == tenant && user.name == name).unwrap().clone()
    }

    pub(super) fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    pub(super) fn is_quiet(&self) -> bool {
        self.quiet.load(Ordering::SeqCst)
    }

    pub(super) fn wrong(&self, what: String) {
        self.wrong.lock().unwrap().push(what);
    }

    /// Stops at what has gone wrong so far.
    pub(super) fn check(&self, when: impl Fn() -> String) {
        let wrong = self.wrong.lock().unwrap();
        let first = wrong.iter().take(20).cloned().collect::<Vec<_>>().join("\n");
        let (count, seed) = (wrong.len(), self.seed);
        assert!(wrong.is_empty(), "{}, seed {seed}, {count} wrong:\n{first}", when());
    }

    /// Waits until every client has been connected with all before it that was acknowledged when
    /// the faults ended. At some moment each: clients also come and go by themselves.
    pub(super) async fn whole_since(&self, healed: Instant, within: Duration) -> Duration {
        let mut owed: Vec<_> = self.users.iter().zip(self.acknowledged()).collect();
        loop {
            let elapsed = healed.elapsed();
            owed.retain(|(user, owed)| !user.has_seen(*owed));
            if owed.is_empty() {
                return elapsed;
            }
            if elapsed > within {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        for (user, owed) in owed {
            let connected = user.connected.load(Ordering::SeqCst);
            let (tenant, name) = (user.tenant, user.name);
            self.wrong(format!(
                "{name} of {tenant} is not whole {within:?} after the last fault: connected \
                 {connected}, owed {owed:?}, seen {} and {}",
                user.news.seen.load(Ordering::SeqCst),
                user.state.seen.load(Ordering::SeqCst),
            ));
        }
        within
    }

    fn acknowledged(&self) -> Vec<(u64, u64)> {
        let of = |reach: &Reach| reach.acknowledged.load(Ordering::SeqCst);
        self.users.iter().map(|user| (of(&user.news), of(&user.state))).collect()
    }
}

impl User {
    fn has_seen(&self, (news, state): (u64, u64)) -> bool {
        self.connected.load(Ordering::SeqCst)
            && self.news.seen.load(Ordering::SeqCst) >= news
            && self.state.seen.load(Ordering::SeqCst) >= state
    }
}

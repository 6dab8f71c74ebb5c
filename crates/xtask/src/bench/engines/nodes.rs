//! Nodes on shared stores, and a paced load on them.

use crate::{
    bench::{
        engines::far::{Calls, Servers, between, requests, transactions},
        filled, gateway,
        origin::Origin,
        write,
    },
    command::output,
    process::{Cpu, Server, cpu_of_tree, free_ports},
};
use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};
use test_servers::{Appends, Postgres, PostgresOptions, Redis, RedisOptions};

/// How long the nodes may take to share the limits out.
const SETTLING: Duration = Duration::from_secs(60);
/// The limit of the route `/tight`: so many requests each second, and so many at once.
pub(super) const RATE: u64 = 400;
pub(super) const BURST: u64 = 100;

/// The stores that nodes share, and the service behind them.
pub(super) struct Ground {
    redis: Servers,
    postgres: Postgres,
    folder: PathBuf,
    origin: Origin,
}

/// A node.
pub(super) struct Node {
    server: Server,
    port: u16,
    admin: u16,
    folder: PathBuf,
    /// To call it with.
    key: String,
}

/// Nodes that are loaded together.
pub(super) struct Nodes {
    /// The database that they share, or that of the first.
    pub(super) name: &'static str,
    pub(super) nodes: Vec<Node>,
}

/// What a load came to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Load {
    /// Answers, of whichever kind.
    pub(super) answers: u64,
    /// Answers other than 2xx.
    pub(super) refused: u64,
    /// Connections that broke, and answers that did not come.
    pub(super) broken: u64,
    /// Requests that the service has counted.
    pub(super) served: u64,
    pub(super) seconds: f64,
}

impl Ground {
    pub(super) fn prepare() -> Result<Self, String> {
        let folder = crate::bench::folder("engines-nodes")?;
        let told = |error: std::io::Error| error.to_string();
        let redis = Redis::start(RedisOptions::appending(Appends::Always)).map_err(told)?;
        let postgres = Postgres::start(PostgresOptions::default()).map_err(told)?;
        let origin = Origin::start(&folder, None)?;
        Ok(Self { redis: Servers::Redis(redis), postgres, folder, origin })
    }

    /// Starts `count` nodes on a database of their own, and waits until they have shared the
    /// limits out.
    pub(super) fn nodes(
        &self,
        crosstown: &Path,
        name: &'static str,
        count: usize,
    ) -> Result<Nodes, String> {
        crate::bench::engines::far::database(&self.postgres, name)?;
        let url = self.postgres.url("");
        let (server, _) = url.rsplit_once('/').ok_or("a URL without a database")?;
        let hot = format!("{}?prefix={name}:", self.redis.url(name)?);
        let durable = format!("{server}/{name}");
        let mut nodes = Vec::new();
        for number in 0..count {
            let folder = self.folder.join(format!("{name}-{number}"));
            std::fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
            let [port, admin] = free_ports()?;
            let values = [
                ("HOT", hot.clone()),
                ("DURABLE", durable.clone()),
                ("DIR", folder.display().to_string()),
                ("PORT", port.to_string()),
                ("ADMIN", admin.to_string()),
                ("BACKEND", self.origin.port.to_string()),
                ("RATE", RATE.to_string()),
                ("BURST", BURST.to_string()),
            ];
            let config = folder.join("crosstown.toml");
            write(&config, &filled("engines/node.toml", &values)?)?;
            let log = std::fs::File::create(folder.join("log")).map_err(|e| e.to_string())?;
            let mut command = Command::new(crosstown);
            command.arg("serve").arg("--config").arg(&config).stderr(log);
            let server = Server::start(&mut command, port)?;
            nodes.push(Node { server, port, admin, folder, key: String::new() });
        }
        let first = nodes.first().ok_or("no node")?;
        let key = gateway::make_key(crosstown, &first.folder.join("crosstown.toml"))?;
        nodes.iter_mut().for_each(|node| node.key.clone_from(&key));
        let nodes = Nodes { name, nodes };
        nodes.settle()?;
        Ok(nodes)
    }

    /// Two nodes, each alone on a database of its own.
    pub(super) fn strangers(
        &self,
        crosstown: &Path,
        names: [&'static str; 2],
    ) -> Result<Nodes, String> {
        let mut first = self.nodes(crosstown, names[0], 1)?;
        first.nodes.extend(self.nodes(crosstown, names[1], 1)?.nodes);
        Ok(first)
    }

    /// Calls of both stores, by those nodes and whoever else uses the Redis.
    pub(super) fn calls(&self, nodes: &Nodes) -> Result<StoreCalls, String> {
        Ok(StoreCalls {
            redis: self.redis.calls("")?,
            postgres: transactions(&self.postgres, nodes.name)?,
        })
    }

    pub(super) fn cpu(&self) -> Cpu {
        self.redis.cpu().plus(cpu_of_tree(self.postgres.process().pid()))
    }

    /// Loads `path` through all of the nodes for `seconds`, with `connections` in all, each of
    /// which waits for `pace` milliseconds between its requests.
    pub(super) fn load(
        &self,
        nodes: &Nodes,
        path: &str,
        connections: usize,
        pace: u64,
        seconds: u64,
    ) -> Result<Load, String> {
        let script = self.folder.join("paced.lua");
        write(&script, &filled("engines/paced.lua", &[("PACE", pace.to_string())])?)?;
        let each = (connections / nodes.nodes.len()).to_string();
        let before = self.origin.counted()?;
        let mut running = Vec::new();
        for node in &nodes.nodes {
            let load = Command::new("wrk")
                .args(["-t1", "-c", &each, "-d", &format!("{seconds}s"), "-s"])
                .arg(&script)
                .args(["-H", &format!("X-API-Key: {}", node.key)])
                .arg(format!("http://127.0.0.1:{}{path}", node.port))
                .stdout(Stdio::piped())
                .spawn()
                .map_err(|error| format!("wrk: {error}"))?;
            running.push(load);
        }
        let mut all = Load { answers: 0, refused: 0, broken: 0, served: 0, seconds: 0.0 };
        for load in running {
            let ended = load.wait_with_output().map_err(|error| format!("wrk: {error}"))?;
            let said = Said::read(&String::from_utf8_lossy(&ended.stdout))?;
            all.answers += said.answers;
            all.refused += said.refused;
            all.broken += said.broken;
            all.seconds = all.seconds.max(said.seconds);
        }
        // What was in flight when wrk stopped is answered within this time.
        std::thread::sleep(Duration::from_millis(50));
        // The question for the count is a request itself.
        all.served = self.origin.counted()? - before - 1;
        Ok(all)
    }
}

/// What two stores have been asked.
#[derive(Debug)]
pub(super) struct StoreCalls {
    redis: Calls,
    postgres: u64,
}

impl StoreCalls {
    /// Requests to Redis, and transactions of PostgreSQL, since `earlier`.
    pub(super) fn since(&self, earlier: &Self) -> (u64, u64) {
        (requests(&between(&earlier.redis, &self.redis)), self.postgres - earlier.postgres)
    }
}

impl Nodes {
    pub(super) fn cpu(&self) -> Cpu {
        let each = self.nodes.iter().map(|node| cpu_of_tree(node.server.pid()));
        each.fold(Cpu::default(), Cpu::plus)
    }

    fn settle(&self) -> Result<(), String> {
        let until = Instant::now() + SETTLING;
        loop {
            let mut owned = Vec::new();
            for node in &self.nodes {
                owned.push(node.owned()?);
            }
            let shared = owned.iter().all(|places| *places < 16 || self.nodes.len() == 1);
            if owned.iter().sum::<u64>() == 16 && shared {
                return Ok(());
            }
            if Instant::now() > until {
                return Err(format!("the limits are not shared out: {owned:?}"));
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

impl Node {
    /// How many places of shared limits it owns.
    fn owned(&self) -> Result<u64, String> {
        let key = std::fs::read_to_string(self.folder.join("admin-key"));
        let key = key.map_err(|error| format!("the admin key: {error}"))?;
        let header = format!("Authorization: Bearer {}", key.trim());
        let url = format!("http://127.0.0.1:{}/metrics", self.admin);
        let metrics = output("curl", &["-fs", "-H", &header, &url])?;
        let name = "crosstown_limit_places_owned ";
        let line = metrics.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|count| count.trim().parse().ok()).ok_or_else(|| format!("no {name}"))
    }
}

/// What wrk says at its end.
#[derive(Debug, PartialEq)]
struct Said {
    answers: u64,
    refused: u64,
    broken: u64,
    seconds: f64,
}

impl Said {
    /// Of `  15301 requests in 10.02s, 17.1MB read`, and the lines about errors.
    fn read(text: &str) -> Result<Self, String> {
        let unread = || format!("wrk does not tell: {text}");
        let lines = || text.lines().map(str::trim);
        let sum = lines().find_map(|line| line.split_once(" requests in ")).ok_or_else(unread)?;
        let seconds = sum.1.split(',').next().unwrap_or_default();
        let seconds = match seconds.strip_suffix('s') {
            Some(seconds) => seconds.parse::<f64>().map_err(|_| unread())?,
            None => return Err(unread()),
        };
        let numbers = |name: &str| -> u64 {
            let told = lines().filter_map(|line| line.strip_prefix(name));
            told.flat_map(str::split_whitespace)
                .filter_map(|word| word.trim_end_matches(',').parse::<u64>().ok())
                .sum()
        };
        Ok(Self {
            answers: sum.0.parse().map_err(|_| unread())?,
            refused: numbers("Non-2xx or 3xx responses:"),
            broken: numbers("Socket errors:"),
            seconds,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrk_tells_what_came() {
        let said = "Running 10s test\n  15301 requests in 10.02s, 17.1MB read\n\
            \x20 Socket errors: connect 0, read 1, write 0, timeout 2\n\
            \x20 Non-2xx or 3xx responses: 9000\nRequests/sec:   1527.05\n";
        let read = Said::read(said).unwrap();
        assert_eq!(read, Said { answers: 15_301, refused: 9_000, broken: 3, seconds: 10.02 });
        assert!(Said::read("unable to connect").is_err());
    }
}

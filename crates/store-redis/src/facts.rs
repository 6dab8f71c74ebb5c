//! What a server says of itself: which process it is, and how durable.

use crate::options::{OpenError, Settings, level};
use redis::{RedisResult, aio::MultiplexedConnection};
use std::collections::HashMap;
use store::Survives;

/// What a server says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Facts {
    /// The process: another one after each start.
    process: String,
    /// The history of its data: another one whenever it may have begun to differ from that of
    /// a server that copies it or was copied.
    history: String,
    /// Whether it became master of data that it had copied.
    promoted: bool,
    is_replica: bool,
    pub(crate) is_cluster: bool,
    version: String,
    product: &'static str,
    policy: String,
    appends: bool,
    fsync: Fsync,
    replicas: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fsync {
    /// Before it answers.
    Always,
    /// Before it answers, but for the time in which it rewrites the file.
    AlwaysButForRewrites,
    EverySecond,
    Never,
    /// The user may not ask.
    Unknown,
}

impl Facts {
    pub(crate) async fn read(connection: &mut MultiplexedConnection) -> RedisResult<Self> {
        let mut ask = redis::cmd("INFO");
        for section in ["server", "replication", "cluster", "persistence", "memory"] {
            ask.arg(section);
        }
        let said: String = ask.query_async(connection).await?;
        let mut ask = redis::cmd("CONFIG");
        ask.arg("GET").arg("appendfsync").arg("no-appendfsync-on-rewrite");
        // Managed servers often refuse this one; what is not known is not promised.
        let config: HashMap<String, String> = ask.query_async(connection).await.unwrap_or_default();
        let facts: HashMap<&str, &str> =
            said.lines().filter_map(|line| line.split_once(':')).collect();
        let fact = |name: &str| facts.get(name).copied().unwrap_or_default().to_owned();
        let set = |name: &str| config.get(name).map(String::as_str);
        let valkey = fact("valkey_version");
        let (product, version) =
            if valkey.is_empty() { ("Redis", fact("redis_version")) } else { ("Valkey", valkey) };
        let fsync = match (set("appendfsync"), set("no-appendfsync-on-rewrite")) {
            (Some("always"), Some("no")) => Fsync::Always,
            (Some("always"), _) => Fsync::AlwaysButForRewrites,
            (Some("everysec"), _) => Fsync::EverySecond,
            (Some("no"), _) => Fsync::Never,
            _ => Fsync::Unknown,
        };
        Ok(Self {
            process: fact("run_id"),
            history: fact("master_replid"),
            promoted: fact("master_replid2").bytes().any(|digit| digit != b'0'),
            is_replica: fact("role") != "master",
            is_cluster: fact("cluster_enabled") == "1",
            version,
            product,
            policy: fact("maxmemory_policy"),
            appends: fact("aof_enabled") == "1",
            fsync,
            replicas: fact("connected_slaves").parse().unwrap_or_default(),
        })
    }

    /// What an acknowledged commit survives, as long as this server itself is not lost. With
    /// `everysec` the server answers before it has written while it synchronises what came
    /// before, for up to two seconds: a crash of its process loses that.
    pub(crate) fn survives(&self) -> Survives {
        if !self.appends {
            return Survives::Nothing;
        }
        match self.fsync {
            Fsync::Always => Survives::PowerLoss,
            Fsync::AlwaysButForRewrites | Fsync::Never => Survives::Process,
            Fsync::EverySecond | Fsync::Unknown => Survives::Nothing,
        }
    }

    fn keeps(&self) -> &'static str {
        if self.survives() == Survives::PowerLoss { "1" } else { "0" }
    }

    /// The server as the scripts know it.
    pub(crate) fn server(&self) -> String {
        format!("{}/{}/{}", self.process, self.history, self.keeps())
    }

    /// What `life.lua` decides by.
    pub(crate) fn life_args(&self) -> [&str; 4] {
        let promoted = if self.promoted { "1" } else { "0" };
        [&self.process, &self.history, self.keeps(), promoted]
    }

    /// Whether what was checked still holds.
    pub(crate) fn same_setup(&self, other: &Self) -> bool {
        (self.is_replica, &self.policy, self.survives())
            == (other.is_replica, &other.policy, other.survives())
    }

    /// How it is set up, for the log and for errors.
    pub(crate) fn describe(&self) -> String {
        let file = match (self.appends, self.fsync) {
            (false, _) => "no append-only file (a restart loses everything or goes back)",
            (true, Fsync::Always) => "appendfsync always",
            (true, Fsync::AlwaysButForRewrites) => {
                "appendfsync always, but no-appendfsync-on-rewrite"
            }
            (true, Fsync::EverySecond) => "appendfsync everysec (a crash loses up to 2 s)",
            (true, Fsync::Never) => "appendfsync no",
            (true, Fsync::Unknown) => "an unknown appendfsync",
        };
        format!("{} {}, {file}, {} replicas", self.product, self.version, self.replicas)
    }

    /// Refuses a server that cannot keep the contract, or keeps less than was demanded.
    pub(crate) fn check(&self, server: &str, settings: &Settings) -> Result<(), OpenError> {
        let server = || server.to_owned();
        if self.is_replica {
            return Err(OpenError::Replica { server: server() });
        }
        let major = self.version.split('.').next().and_then(|major| major.parse().ok());
        if self.product == "Redis" && major.is_none_or(|major: u32| major < 7) {
            return Err(OpenError::Version { server: server(), found: self.version.clone() });
        }
        if self.policy != "noeviction" {
            return Err(OpenError::Evicts { server: server(), policy: self.policy.clone() });
        }
        if self.survives() < settings.survives {
            let advice = match settings.survives {
                Survives::PowerLoss => {
                    "set `appendonly yes`, `appendfsync always` and `no-appendfsync-on-rewrite no`"
                }
                Survives::Process | Survives::Nothing => {
                    "set `appendonly yes`, and `appendfsync always` or `no`"
                }
            };
            return Err(OpenError::Durability {
                server: server(),
                demanded: level(settings.survives),
                found: self.describe(),
                advice,
            });
        }
        Ok(())
    }
}

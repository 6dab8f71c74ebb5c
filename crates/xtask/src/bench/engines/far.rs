//! The servers of an engine: their processes, and what they counted.

use crate::process::{Cpu, cpu_of_tree};
use std::collections::BTreeMap;
use test_servers::{Postgres, ROLE, Redis, RedisCluster};

const TRANSACTION: &str = "transaction";
/// Commands of a connection, which no script of ours calls.
const NEVER_IN_SCRIPTS: &[&str] =
    &["client", "cluster", "config", "hello", "ping", "script", "ssubscribe", "sunsubscribe"];

/// The servers of an engine; none for what runs within our own process.
pub(super) enum Servers {
    None,
    Redis(Redis),
    Cluster(Box<RedisCluster>),
    Postgres(Postgres),
}

/// Calls by command, or transactions.
pub(super) type Calls = BTreeMap<String, u64>;

impl Servers {
    fn redis(&self) -> Vec<&Redis> {
        match self {
            Self::None | Self::Postgres(_) => Vec::new(),
            Self::Redis(redis) => vec![redis],
            Self::Cluster(cluster) => cluster.nodes().iter().collect(),
        }
    }

    pub(super) fn cpu(&self) -> Cpu {
        let mut pids: Vec<u32> = self.redis().iter().map(|redis| redis.process().pid()).collect();
        if let Self::Postgres(postgres) = self {
            pids.push(postgres.process().pid());
        }
        pids.into_iter().map(cpu_of_tree).fold(Cpu::default(), Cpu::plus)
    }

    /// What they have counted: of Redis the calls by command, of PostgreSQL the transactions in
    /// `database`. A server of PostgreSQL tells of a connection's last second once it has
    /// ended.
    ///
    /// # Errors
    /// If they do not tell.
    pub(super) fn calls(&self, database: &str) -> Result<Calls, String> {
        let mut sum = Calls::new();
        for redis in self.redis() {
            let told = redis.ask(&["INFO", "commandstats"]).map_err(|error| error.to_string())?;
            for (command, calls) in by_command(&told) {
                *sum.entry(command).or_default() += calls;
            }
        }
        if let Self::Postgres(postgres) = self {
            sum.insert(TRANSACTION.into(), transactions(postgres, database)?);
        }
        Ok(sum)
    }

    /// A database of its own, where that is what keeps the two sides apart.
    ///
    /// # Errors
    /// If it cannot be made.
    pub(super) fn url(&self, side: &str) -> Result<String, String> {
        Ok(match self {
            Self::None => String::new(),
            Self::Redis(redis) => redis.url(),
            Self::Cluster(cluster) => cluster.url(),
            Self::Postgres(postgres) => {
                database(postgres, side)?;
                let url = postgres.url("");
                let (server, _) = url.rsplit_once('/').ok_or("a URL without a database")?;
                format!("{server}/{side}")
            }
        })
    }

    /// Leaves nothing of what was done.
    ///
    /// # Errors
    /// If that cannot be done.
    pub(super) fn empty(&self) -> Result<(), String> {
        for redis in self.redis() {
            redis.ask(&["FLUSHALL"]).map_err(|error| error.to_string())?;
        }
        Ok(())
    }
}

/// Makes an empty database, in place of the one of that name.
pub(super) fn database(postgres: &Postgres, name: &str) -> Result<(), String> {
    for statement in [
        format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"),
        format!("CREATE DATABASE {name} OWNER {ROLE}"),
    ] {
        postgres.sql("postgres", &statement).map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// Transactions that ended in a database.
pub(super) fn transactions(postgres: &Postgres, database: &str) -> Result<u64, String> {
    let ask = format!(
        "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = '{database}'"
    );
    let told = postgres.sql("postgres", &ask).map_err(|error| error.to_string())?;
    told.trim().parse().map_err(|_| format!("{database}: `{told}` transactions"))
}

/// Of `cmdstat_hget:calls=3,usec=…`. The questions for them do not count.
pub(super) fn by_command(info: &str) -> Calls {
    let call = |line: &str| {
        let (command, rest) = line.trim().strip_prefix("cmdstat_")?.split_once(":calls=")?;
        let calls = rest.split(',').next()?.parse().ok()?;
        Some((command.to_owned(), calls))
    };
    info.lines().filter_map(call).filter(|(command, _)| command != "info").collect()
}

/// What was called in between.
pub(super) fn between(before: &Calls, after: &Calls) -> Calls {
    let since = |(command, calls): (&String, &u64)| {
        let calls = calls - before.get(command).copied().unwrap_or_default();
        (calls > 0).then(|| (command.clone(), calls))
    };
    after.iter().filter_map(since).collect()
}

/// How often somebody asked from outside. What a script calls is counted by the server as well,
/// and cannot be told from what was asked; so where there are scripts, only they count, and
/// whatever no script calls.
pub(super) fn requests(calls: &Calls) -> u64 {
    let of = |names: &[&str]| names.iter().filter_map(|name| calls.get(*name)).sum::<u64>();
    let scripts = of(&["eval", "evalsha"]);
    if scripts == 0 {
        return calls.values().sum();
    }
    let mut outside = of(&[TRANSACTION]) + scripts;
    for (command, calls) in calls {
        if NEVER_IN_SCRIPTS.iter().any(|name| command.split('|').next() == Some(name)) {
            outside += calls;
        }
    }
    outside
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redis_tells_calls_by_command() {
        let told = "# Commandstats\r\ncmdstat_evalsha:calls=4,usec=9,usec_per_call=2.25\r\n\
            cmdstat_hget:calls=12,usec=1\r\ncmdstat_info:calls=7,usec=1\r\n\
            cmdstat_config|get:calls=2,usec=1\r\nother:1\r\n";
        let calls = by_command(told);
        assert_eq!(calls.len(), 3);
        assert_eq!(requests(&calls), 6);
        let later = by_command("cmdstat_evalsha:calls=4,\ncmdstat_hget:calls=15,");
        let between = between(&calls, &later);
        assert_eq!((between.len(), requests(&between)), (1, 3));
    }
}

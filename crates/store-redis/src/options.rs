//! How a store is opened, and why it may not be.

use redis::{ConnectionInfo, IntoConnectionInfo};
use std::{fmt, time::Duration};
use store::Survives;
use url::form_urlencoded;

/// How a store is opened, beside its URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// How long a server may take to answer; beyond, what was asked is unknown. 3 s. The URL's
    /// `timeout_ms` goes before it.
    pub response_timeout: Duration,
    /// How long making a connection may take. 2 s.
    pub connect_timeout: Duration,
    /// The longest pause between two attempts to connect; they start at 50 ms and double. 2 s.
    pub backoff_max: Duration,
    /// Bytes of requests that may be under way to one server; beyond, callers wait. 16 MiB.
    pub in_flight_bytes: u32,
    /// How often watchers ask by themselves, in case a hint was lost. 5 s: a lost connection
    /// for hints is told to them at once when it is back.
    pub poll_every: Duration,
    /// How often a server is asked whether it is still the same, and still keeps what it did;
    /// and how long a lost cluster's map may stay unnoticed while nobody asks. 5 s.
    pub check_every: Duration,
    /// Whose time records expire by.
    pub time: StoreTime,
}

/// Whose time a store lives by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StoreTime {
    /// The server's.
    #[default]
    Server,
    /// The node's clock. For tests, which set it; nodes whose clocks differ would not agree.
    Clock,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            response_timeout: Duration::from_secs(3),
            connect_timeout: Duration::from_secs(2),
            backoff_max: Duration::from_secs(2),
            in_flight_bytes: 16 << 20,
            poll_every: Duration::from_secs(5),
            check_every: Duration::from_secs(5),
            time: StoreTime::Server,
        }
    }
}

/// Why a store cannot be opened. None of it tells a password.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The URL cannot be used.
    #[error("the redis URL cannot be used: {0}")]
    Url(String),
    /// The server does not answer, or not to us.
    #[error("{server} cannot be used")]
    Unreachable {
        /// Where it is.
        server: String,
        /// What went wrong.
        #[source]
        source: store::BoxError,
    },
    /// The server is too old.
    #[error("{server} is Redis {found}: version 7.0 or later is needed, or Valkey")]
    Version {
        /// Where it is.
        server: String,
        /// What it says.
        found: String,
    },
    /// The server would throw data away when its memory is full.
    #[error(
        "{server} has `maxmemory-policy {policy}` and would evict what was acknowledged: set it to \
         `noeviction` (CONFIG SET maxmemory-policy noeviction, and in its configuration file)"
    )]
    Evicts {
        /// Where it is.
        server: String,
        /// What it would do.
        policy: String,
    },
    /// The server keeps less than the URL demands.
    #[error("{server} keeps less than `survives={demanded}` demands: it has {found}; {advice}")]
    Durability {
        /// Where it is.
        server: String,
        /// What the URL demands.
        demanded: &'static str,
        /// How the server is set up.
        found: String,
        /// What to set.
        advice: &'static str,
    },
    /// The server copies another one and takes no writes.
    #[error("{server} is a replica: give the address of its master")]
    Replica {
        /// Where it is.
        server: String,
    },
}

/// Whether `url` can be a server's, without asking it.
///
/// # Errors
/// [`OpenError::Url`].
pub fn check_url(url: &str) -> Result<(), OpenError> {
    Settings::parse(url, Options::default()).map(drop)
}

/// What a URL and the options say together.
#[derive(Clone)]
pub(crate) struct Settings {
    /// The servers to ask first, with the password.
    pub(crate) seeds: Vec<ConnectionInfo>,
    /// Where they are, without it.
    pub(crate) shown: String,
    /// Whether several nodes were named, which must be a cluster's.
    pub(crate) cluster: bool,
    pub(crate) prefix: String,
    pub(crate) survives: Survives,
    pub(crate) options: Options,
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings").field("servers", &self.shown).finish_non_exhaustive()
    }
}

impl Settings {
    /// Reads `redis://[user:password@]host:port[/database][?prefix=&survives=&timeout_ms=]`;
    /// `valkey:` is the same, and `redis+cluster://a:1,b:2` names several nodes of a cluster.
    pub(crate) fn parse(url: &str, mut options: Options) -> Result<Self, OpenError> {
        let wrong = |what: &str| OpenError::Url(what.to_owned());
        let (scheme, rest) = url.split_once("://").ok_or_else(|| wrong("it has no scheme"))?;
        let cluster = match scheme {
            "redis" | "valkey" => false,
            "redis+cluster" | "valkey+cluster" => true,
            "rediss" | "valkeys" => return Err(wrong("TLS is not built in; use a tunnel")),
            _ => return Err(wrong("its scheme is none of redis, redis+cluster, valkey")),
        };
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, hosts) = match authority.rsplit_once('@') {
            Some((user, hosts)) => (format!("{user}@"), hosts),
            None => (String::new(), authority),
        };
        if hosts.contains(',') && !cluster {
            return Err(wrong("several hosts need the scheme redis+cluster"));
        }
        if cluster && !matches!(database, "" | "0") {
            return Err(wrong("a cluster has database 0 only"));
        }
        let seed = |host: &str| {
            let url = format!("redis://{user}{host}/{database}");
            // The error might repeat what was given, password and all.
            url.into_connection_info()
                .map_err(|_| wrong("it is not of the form user:password@host:port/0"))
        };
        let seeds = hosts.split(',').map(seed).collect::<Result<Vec<_>, _>>()?;
        let (mut prefix, mut survives) = ("crosstown:".to_owned(), Survives::Nothing);
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match &*name {
                "prefix" => prefix = value.into_owned(),
                "survives" => {
                    survives = match &*value {
                        "nothing" => Survives::Nothing,
                        "process" => Survives::Process,
                        "power-loss" => Survives::PowerLoss,
                        _ => return Err(wrong("survives is nothing, process or power-loss")),
                    };
                }
                "timeout_ms" => {
                    let ms = value.parse().ok().filter(|ms| *ms > 0);
                    let ms = ms.ok_or_else(|| wrong("timeout_ms is no number of milliseconds"))?;
                    options.response_timeout = Duration::from_millis(ms);
                }
                _ => return Err(wrong("it knows prefix, survives and timeout_ms only")),
            }
        }
        if prefix.len() > 64 || prefix.contains(['{', '}']) {
            return Err(wrong("a prefix has at most 64 bytes and no brace"));
        }
        let shown = format!("{scheme}://{hosts}/{database}");
        Ok(Self { seeds, shown, cluster, prefix, survives, options })
    }
}

/// A level as a URL names it.
pub(crate) fn level(survives: Survives) -> &'static str {
    match survives {
        Survives::Nothing => "nothing",
        Survives::Process => "process",
        Survives::PowerLoss => "power-loss",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Result<Settings, OpenError> {
        Settings::parse(url, Options::default())
    }

    #[test]
    fn a_url_says_where_and_what() {
        let one =
            parse("redis://u:p%40ss@h:1/2?prefix=x&survives=power-loss&timeout_ms=9").unwrap();
        assert_eq!((one.seeds.len(), one.cluster, &*one.prefix), (1, false, "x"));
        assert_eq!(one.seeds[0].redis_settings().password(), Some("p@ss"));
        assert_eq!((one.seeds[0].redis_settings().db(), &*one.shown), (2, "redis://h:1/2"));
        assert_eq!(one.survives, Survives::PowerLoss);
        assert_eq!(one.options.response_timeout, Duration::from_millis(9));
        let many = parse("redis+cluster://:secret@a:1,b:2,c:3/").unwrap();
        assert_eq!((many.seeds.len(), many.cluster), (3, true));
        assert_eq!(many.seeds[2].redis_settings().password(), Some("secret"));
    }

    #[test]
    fn what_is_wrong_is_told_without_the_password() {
        for url in [
            "h:1",
            "http://:secret@h",
            "rediss://:secret@h",
            "redis://:secret@a,b",
            "redis://:secret@h:port",
            "redis://:secret@h/x",
            "redis+cluster://:secret@a/1",
            "redis://:secret@h?survives=much",
            "redis://:secret@h?prefix={a}",
            "redis://:secret@h?password=secret",
        ] {
            let error = parse(url).expect_err(url);
            assert!(!format!("{error} {error:?}").contains("secret"), "{error:?}");
        }
        let settings = parse("redis://user:secret@h").unwrap();
        assert!(!format!("{settings:?}").contains("secret"));
    }
}

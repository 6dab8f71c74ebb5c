//! Where the database is and how it is used, read from a URL.

use crate::OpenError;
use clock::SharedClock;
use std::{path::PathBuf, time::Duration};
use store::{Survives, bounds};
use url::Url;

/// How the connection is protected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tls {
    /// Not at all. The default for loopback addresses.
    Disable,
    /// Encrypted, by whoever answers: it keeps out who listens, not who interposes.
    Require,
    /// Encrypted, and the server's certificate is checked with its name, against these roots or
    /// else those of the system. The default for all other hosts.
    VerifyFull {
        /// A file of root certificates (PEM).
        roots: Option<PathBuf>,
    },
}

/// How this node learns what other nodes have committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HintsBy {
    /// `NOTIFY` where the connection is found to be direct, polling where a pooler is between.
    Auto,
    /// `NOTIFY`, whatever is between.
    Notify,
    /// Polling alone.
    Poll,
}

/// Where the database is and how it is used.
#[derive(Clone)]
pub struct Options {
    /// Name or address of the server.
    pub host: String,
    /// Its port. 5432.
    pub port: u16,
    /// The role to log in as; the tables are its own.
    pub user: String,
    /// Its password; never shown.
    pub password: Option<String>,
    /// The database. The same name as the user.
    pub database: String,
    /// The schema that holds the tables, made if need be: 1 to 40 of a-z, 0-9 and _, not
    /// starting with a digit. `crosstown`.
    pub schema: String,
    /// What must survive: opening is refused if the server keeps less. Nothing is demanded.
    pub survives: Option<Survives>,
    /// How the connection is protected.
    pub tls: Tls,
    /// How this node learns what other nodes have committed. Auto.
    pub hints: HintsBy,
    /// Transactions of commits at the same time, each on its own connection. 2: more share
    /// the server's group commit, but each carries fewer commits.
    pub writers: usize,
    /// Connections for reads. 4.
    pub readers: usize,
    /// How long one statement may take, waiting for locks included. 10 s.
    pub statement_timeout: Duration,
    /// How long to wait for a connection. 5 s.
    pub connect_timeout: Duration,
    /// How long what certainly was not applied is tried again, and how long to wait for room
    /// in the queue, before the caller is told. 5 s.
    pub patience: Duration,
    /// Bytes of commits that may wait; beyond, callers wait. 16 MiB.
    pub queue_bytes: u32,
    /// Bytes of commits that share one transaction at most. 4 MiB.
    pub batch_bytes: usize,
    /// Commits that share one transaction at most. 256.
    pub batch_commits: usize,
    /// How often to look for other nodes' commits without `NOTIFY`. 250 ms, at most 500 ms.
    pub poll_every: Duration,
    /// The name that the server shows for the connections. `crosstown`.
    pub application_name: String,
    /// The time to use in place of the server's. Only for tests that cannot wait for minutes.
    pub clock: Option<SharedClock>,
}

impl Options {
    /// The defaults, for a server.
    #[must_use]
    pub fn new(host: &str, user: &str, database: &str) -> Self {
        Self {
            host: host.to_owned(),
            port: 5432,
            user: user.to_owned(),
            password: None,
            database: database.to_owned(),
            schema: "crosstown".to_owned(),
            survives: None,
            tls: if is_loopback(host) { Tls::Disable } else { Tls::VerifyFull { roots: None } },
            hints: HintsBy::Auto,
            writers: 2,
            readers: 4,
            statement_timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(5),
            patience: Duration::from_secs(5),
            queue_bytes: 16 << 20,
            batch_bytes: 4 << 20,
            batch_commits: 256,
            poll_every: Duration::from_millis(250),
            application_name: "crosstown".to_owned(),
            clock: None,
        }
    }

    /// Reads `postgres://USER:PASSWORD@HOST:PORT/DATABASE?PARAMETERS`. The parameters are
    /// `schema`, `survives` (`nothing`, `process`, `power-loss`), `sslmode` (`disable`,
    /// `require`, `verify-full`), `sslrootcert` (a file), `hints` (`auto`, `notify`, `poll`),
    /// `writers`, `readers`, `statement_timeout_ms`, `poll_every_ms`, `application_name`.
    ///
    /// # Errors
    /// [`OpenError::Url`] for what is missing, not known, or has a wrong value. It never
    /// tells the password.
    pub fn parse(url: &str) -> Result<Self, OpenError> {
        let wrong = |detail: &str| OpenError::Url { detail: detail.to_owned() };
        let url = Url::parse(url).map_err(|error| wrong(&error.to_string()))?;
        if !matches!(url.scheme(), "postgres" | "postgresql") {
            return Err(wrong("it must begin with postgres://"));
        }
        let host = url.host_str().ok_or_else(|| wrong("it names no host"))?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let user = decoded(url.username())?;
        if user.is_empty() {
            return Err(wrong("it names no user"));
        }
        let path = decoded(url.path().trim_start_matches('/'))?;
        let mut options = Self::new(host, &user, if path.is_empty() { &user } else { &path });
        options.port = url.port().unwrap_or(5432);
        options.password = url.password().map(decoded).transpose()?;
        let mut roots = None;
        for (name, value) in url.query_pairs() {
            options.set(&name, &value, &mut roots)?;
        }
        match (&mut options.tls, roots) {
            (_, None) => {}
            (Tls::VerifyFull { roots }, given) => *roots = given,
            (Tls::Disable | Tls::Require, Some(_)) => {
                return Err(wrong("sslrootcert needs sslmode=verify-full"));
            }
        }
        Ok(options)
    }

    fn set(
        &mut self,
        name: &str,
        value: &str,
        roots: &mut Option<PathBuf>,
    ) -> Result<(), OpenError> {
        let wrong = |allowed: &str| OpenError::Url {
            detail: format!("`{name}` is `{value}`, and must be {allowed}"),
        };
        let number = |most: u64| match value.parse::<u64>() {
            Ok(number) if (1..=most).contains(&number) => Ok(number),
            _ => Err(wrong(&format!("1 to {most}"))),
        };
        match name {
            "schema" => {
                if !is_schema(value) {
                    return Err(wrong("1 to 40 of a-z, 0-9 and _, not starting with a digit"));
                }
                value.clone_into(&mut self.schema);
            }
            "survives" => {
                self.survives = Some(match value {
                    "nothing" => Survives::Nothing,
                    "process" => Survives::Process,
                    "power-loss" => Survives::PowerLoss,
                    _ => return Err(wrong("nothing, process or power-loss")),
                });
            }
            "sslmode" => {
                self.tls = match value {
                    "disable" => Tls::Disable,
                    "require" => Tls::Require,
                    "verify-full" => Tls::VerifyFull { roots: None },
                    _ => return Err(wrong("disable, require or verify-full")),
                };
            }
            "sslrootcert" => *roots = Some(value.into()),
            "hints" => {
                self.hints = match value {
                    "auto" => HintsBy::Auto,
                    "notify" => HintsBy::Notify,
                    "poll" => HintsBy::Poll,
                    _ => return Err(wrong("auto, notify or poll")),
                };
            }
            "writers" => self.writers = number(64)? as usize,
            "readers" => self.readers = number(256)? as usize,
            "statement_timeout_ms" => {
                self.statement_timeout = Duration::from_millis(number(600_000)?);
            }
            "poll_every_ms" => self.poll_every = Duration::from_millis(number(500)?),
            "application_name" => value.clone_into(&mut self.application_name),
            _ => return Err(OpenError::Url { detail: format!("`{name}` is not known") }),
        }
        Ok(())
    }

    /// The engine and where it is, without secrets.
    pub(crate) fn engine(&self) -> String {
        format!("postgres://{}:{}/{}?schema={}", self.host, self.port, self.database, self.schema)
    }

    /// Numbers that would stop the store from working, made right.
    pub(crate) fn bounded(mut self) -> Result<Self, OpenError> {
        if !is_schema(&self.schema) {
            return Err(OpenError::Url { detail: format!("`{}` is no schema", self.schema) });
        }
        self.writers = self.writers.max(1);
        self.readers = self.readers.max(1);
        self.batch_commits = self.batch_commits.max(1);
        self.poll_every = self.poll_every.min(Duration::from_millis(500));
        // A commit may be as large as the bounds allow, and must fit.
        self.queue_bytes = self.queue_bytes.max(4 * bounds::COMMIT_BYTES_MAX as u32);
        Ok(self)
    }
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options")
            .field("engine", &self.engine())
            .field("user", &self.user)
            .field("password", &self.password.as_ref().map(|_| "…"))
            .field("survives", &self.survives)
            .field("tls", &self.tls)
            .field("hints", &self.hints)
            .finish_non_exhaustive()
    }
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
}

/// It becomes a part of statements, so nothing that needs quoting is let in.
fn is_schema(name: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    !name.is_empty()
        && name.len() <= 40
        && name.bytes().all(allowed)
        && !name.as_bytes()[0].is_ascii_digit()
        && !name.starts_with("pg_")
}

/// Percent-decoding, as the parts of a URL before `?` need it.
fn decoded(part: &str) -> Result<String, OpenError> {
    let wrong = || OpenError::Url { detail: "a wrong percent-encoding".to_owned() };
    let mut bytes = Vec::with_capacity(part.len());
    let mut rest = part.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        if *first == b'%' {
            let hex = after.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
            let byte = hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()).ok_or_else(wrong)?;
            bytes.push(byte);
            rest = &after[2..];
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    String::from_utf8(bytes).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_says_everything() {
        let url = "postgres://a%40b:p%25w@db.example:6543/main?schema=s1&survives=power-loss\
            &sslrootcert=/ca.pem&hints=poll&writers=3&readers=9&statement_timeout_ms=500";
        let options = Options::parse(url).unwrap();
        assert_eq!((options.host.as_str(), options.port), ("db.example", 6543));
        assert_eq!((options.user.as_str(), options.password.as_deref()), ("a@b", Some("p%w")));
        assert_eq!((options.database.as_str(), options.schema.as_str()), ("main", "s1"));
        assert_eq!(options.survives, Some(Survives::PowerLoss));
        assert_eq!(options.tls, Tls::VerifyFull { roots: Some("/ca.pem".into()) });
        assert_eq!((options.writers, options.readers), (3, 9));
        assert_eq!(options.statement_timeout, Duration::from_millis(500));
        let shown = format!("{options:?}");
        assert!(!shown.contains("p%w") && !shown.contains("p%25w"), "{shown}");
        assert_eq!(Options::parse("postgres://u@127.0.0.1").unwrap().tls, Tls::Disable);
        assert_eq!(Options::parse("postgres://u@[::1]/x").unwrap().tls, Tls::Disable);
    }

    #[test]
    fn what_is_not_known_is_refused_without_telling_the_password() {
        for wrong in [
            "?survive=power-loss",
            "?survives=all",
            "?schema=a-b",
            "?schema=pg_x",
            "?schema=",
            "?sslmode=prefer",
            "?sslmode=require&sslrootcert=/x",
            "?writers=0",
            "?readers=many",
            "?poll_every_ms=501",
            "?target_session_attrs=any",
        ] {
            let error = Options::parse(&format!("postgres://u:secret@h/d{wrong}")).unwrap_err();
            let shown = format!("{error} {error:?}");
            assert!(!shown.contains("secret"), "{shown}");
        }
        for wrong in ["mysql://u@h/d", "postgres://h/d", "nonsense", "postgres://u:%zz@h/d"] {
            assert!(Options::parse(wrong).is_err(), "{wrong}");
        }
    }
}

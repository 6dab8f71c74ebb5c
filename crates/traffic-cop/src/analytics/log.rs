//! The request log: of some requests a line, of failed and slow ones always, the latest in memory.

use crate::analytics::recorder::Sample;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::{collections::VecDeque, fmt::Write, sync::Arc, time::Duration};
use types::{PrincipalId, PrincipalKind, SessionId, TenantId, Timestamp};

/// Bytes of a path, and of a query's names, that are kept.
const PATH_BYTES_MAX: usize = 256;

/// Which requests are logged.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The fraction of requests that are logged whatever became of them, 0 to 1.
    pub sample: f64,
    /// Requests that take at least so long are all logged, as are all with a status of 500 and
    /// above.
    #[serde(with = "types::duration")]
    pub slow: Duration,
    /// Requests that are kept in memory, at most 100000; of a longer log the oldest go. Each takes
    /// about half a KiB.
    pub entries_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        // Two MiB, and a hundredth costs next to nothing.
        Self { sample: 0.01, slow: Duration::from_secs(1), entries_max: 4_096 }
    }
}

impl Config {
    /// Refuses what makes no sense.
    ///
    /// # Errors
    /// What to change.
    pub fn check(&self) -> Result<(), String> {
        if !(0.0..=1.0).contains(&self.sample) {
            return Err("`analytics.log.sample` must be 0 to 1".into());
        }
        if self.entries_max > 100_000 {
            return Err("`analytics.log.entries_max` must be at most 100000".into());
        }
        Ok(())
    }
}

/// Decides which requests are logged.
#[derive(Debug)]
pub(super) struct Logging {
    /// A chance below this is taken.
    below: u64,
    slow: Duration,
}

impl Logging {
    pub(super) fn new(config: &Config) -> Self {
        // Saturates at the largest number there is.
        Self { below: (config.sample * u64::MAX as f64) as u64, slow: config.slow }
    }

    /// Whether this one is; `chance` is a random number.
    pub(super) fn takes(&self, status: u16, latency: Duration, chance: u64) -> bool {
        status >= 500 || latency >= self.slow || chance < self.below || self.below == u64::MAX
    }
}

/// A request in the log.
#[derive(Debug, Clone, PartialEq, Serialize, schemars::JsonSchema)]
#[schemars(rename = "LoggedRequest")]
pub struct Entry {
    /// When its answer ended, within a second, in milliseconds since 1970 UTC.
    pub at: Timestamp,
    /// The method.
    pub method: Box<str>,
    /// The path, and the names of what its query says; control characters and what is not ASCII
    /// are escaped.
    pub path: Box<str>,
    /// The route.
    pub route: Arc<str>,
    /// The service that the route leads to.
    pub service: Arc<str>,
    /// The instance that answered, if one did.
    pub instance: Option<Box<str>>,
    /// The HTTP status that the client saw.
    pub status: u16,
    /// From the complete head of the request to the end of the answer.
    pub latency_ms: f64,
    /// Bytes of the request's body.
    pub bytes_in: u64,
    /// Bytes of the answer's body.
    pub bytes_out: u64,
    /// The caller's tenant, if there was a caller.
    pub tenant: Option<TenantId>,
    /// His name.
    pub principal: Option<PrincipalId>,
    /// What he is.
    pub kind: Option<PrincipalKind>,
    /// His session.
    pub session: Option<SessionId>,
    /// What identifies the request in logs and to services.
    pub trace: Box<str>,
    /// Why the gateway refused it, if it did.
    pub code: Option<&'static str>,
}

impl Entry {
    /// Without the time and the names of the route, which are filled in later.
    pub(super) fn of(sample: &Sample<'_>) -> Self {
        let caller = sample.caller;
        let (method, path) = match &sample.asked {
            Some(asked) => (escaped(asked.method), shown(asked.path, asked.query)),
            None => (Box::default(), Box::default()),
        };
        Self {
            at: Timestamp::default(),
            method,
            path,
            route: Arc::default(),
            service: Arc::default(),
            instance: sample.instance.map(|(_, authority)| authority.into()),
            status: sample.status,
            latency_ms: (sample.latency.as_secs_f64() * 1e6).round() / 1e3,
            bytes_in: sample.bytes_in,
            bytes_out: sample.bytes_out,
            tenant: caller.map(|caller| caller.tenant.clone()),
            principal: caller.map(|caller| caller.principal.id.clone()),
            kind: caller.map(|caller| caller.principal.kind),
            session: caller.and_then(|caller| caller.session),
            trace: sample.trace.into(),
            code: sample.code,
        }
    }
}

/// Text in visible ASCII: whoever prints it is not told what to do by it.
fn escaped(text: &str) -> Box<str> {
    let mut shown = String::new();
    for character in text.chars() {
        if shown.len() > PATH_BYTES_MAX {
            shown.push('…');
            break;
        }
        match character {
            '\\' => shown.push_str("\\\\"),
            ' '..='~' => shown.push(character),
            other => shown.extend(other.escape_default()),
        }
    }
    shown.into()
}

/// A path, and of its query only what is named: values may be secrets.
fn shown(path: &str, query: Option<&str>) -> Box<str> {
    let mut shown = escaped(path).into_string();
    let names = query.into_iter().flat_map(|query| query.split('&'));
    for (at, pair) in names.enumerate() {
        shown.push(if at == 0 { '?' } else { '&' });
        if shown.len() > 2 * PATH_BYTES_MAX {
            shown.push('…');
            break;
        }
        match pair.split_once('=') {
            Some((name, _)) => {
                let _ = write!(shown, "{}=…", escaped(name));
            }
            // It may be a value without a name.
            None => shown.push('…'),
        }
    }
    shown.into()
}

/// What somebody wants to see of the log.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Of this tenant.
    pub tenant: Option<TenantId>,
    /// By this route.
    pub route: Option<String>,
    /// To this service.
    pub service: Option<String>,
    /// With at least this status.
    pub status_min: Option<u16>,
    /// That took at least so long.
    pub latency_min: Option<Duration>,
    /// Of this user, agent or service.
    pub user: Option<PrincipalId>,
    /// Of this session.
    pub session: Option<SessionId>,
    /// With this in its trace.
    pub trace: Option<String>,
    /// Answered since.
    pub since: Option<Timestamp>,
    /// At most so many, the latest.
    pub limit: usize,
}

impl Filter {
    fn takes(&self, entry: &Entry) -> bool {
        fn is<T: PartialEq<U>, U>(wanted: Option<&T>, is: Option<&U>) -> bool {
            wanted.is_none_or(|wanted| is.is_some_and(|is| wanted == is))
        }
        is(self.tenant.as_ref(), entry.tenant.as_ref())
            && self.route.as_ref().is_none_or(|route| **route == *entry.route)
            && self.service.as_ref().is_none_or(|service| **service == *entry.service)
            && self.status_min.is_none_or(|least| entry.status >= least)
            && self.latency_min.is_none_or(|least| entry.latency_ms >= least.as_secs_f64() * 1e3)
            && is(self.user.as_ref(), entry.principal.as_ref())
            && is(self.session.as_ref(), entry.session.as_ref())
            && self.trace.as_ref().is_none_or(|trace| entry.trace.contains(&**trace))
            && self.since.is_none_or(|since| entry.at >= since)
    }
}

/// What the log of this node shows.
#[derive(Debug, Clone, PartialEq, Serialize, schemars::JsonSchema)]
pub struct Logged {
    /// The requests that were asked for, the latest first.
    pub requests: Vec<Entry>,
    /// Requests that were to be logged since the node started, and were too many in their second.
    pub dropped: u64,
}

/// The latest requests that were logged.
#[derive(Debug)]
pub(super) struct Log {
    entries: Mutex<VecDeque<Entry>>,
    entries_max: usize,
}

impl Log {
    pub(super) fn new(config: &Config) -> Self {
        Self { entries: Mutex::default(), entries_max: config.entries_max }
    }

    pub(super) fn add(&self, new: impl Iterator<Item = Entry>) {
        let mut entries = self.entries.lock();
        entries.extend(new);
        let beyond = entries.len().saturating_sub(self.entries_max);
        entries.drain(..beyond);
    }

    pub(super) fn find(&self, filter: &Filter) -> Vec<Entry> {
        let entries = self.entries.lock();
        let found = entries.iter().rev().filter(|entry| filter.takes(entry));
        found.take(filter.limit).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failed_and_slow_requests_are_always_logged_and_others_by_chance() {
        let logging = |sample| Logging::new(&Config { sample, ..Config::default() });
        let (fast, slow) = (Duration::from_millis(999), Duration::from_secs(1));
        for sample in [0.0, 0.5, 1.0] {
            assert!(logging(sample).takes(500, fast, u64::MAX));
            assert!(logging(sample).takes(200, slow, u64::MAX));
        }
        assert!(!logging(0.0).takes(499, fast, 0));
        assert!(logging(0.5).takes(200, fast, u64::MAX / 2 - 1_000_000));
        assert!(!logging(0.5).takes(200, fast, u64::MAX / 2 + 1_000_000));
        assert!(logging(1.0).takes(200, fast, u64::MAX));
    }

    #[test]
    fn values_and_control_characters_are_not_shown() {
        for (path, query, expected) in [
            ("/a", None, "/a"),
            ("/a", Some("token=hush&x=1&"), "/a?token=…&x=…&…"),
            ("/a", Some("hush"), "/a?…"),
            ("/a\u{1b}[2Jä\\", Some("\n=1"), "/a\\u{1b}[2J\\u{e4}\\\\?\\n=…"),
        ] {
            assert_eq!(&*shown(path, query), expected);
        }
        let long = shown(&"é".repeat(10_000), Some(&"a=1&".repeat(10_000)));
        assert!(long.len() < 1_024, "{}", long.len());
    }
}

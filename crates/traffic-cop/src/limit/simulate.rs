//! Limits over recorded requests, in virtual time: the rules and buckets of a node, and a clock
//! that stands where the record does.
//!
//! What a request turned out to cost is charged when it came, since the record does not say how
//! long it took.

use crate::limit::{
    Limits, Mode, Named, Rule, Shared, Subject, charge::Decision, subject::SubjectKey,
};
use ahash::RandomState;
use clock::{Clock, ManualClock, SharedClock};
use http::{HeaderMap, HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};
use types::{Principal, PrincipalId, PrincipalKind, SessionId, TenantId, Timestamp};

/// Subjects that a report shows.
const SHOWN_MAX: usize = 20;
/// As a node forgets buckets that are full again.
const EXPIRE_EVERY: Duration = Duration::from_secs(10);
const MINUTE_MS: u64 = 60_000;

/// A request as it was recorded.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recorded {
    #[serde(deserialize_with = "moment")]
    time: Timestamp,
    route: String,
    ip: IpAddr,
    tenant: Option<TenantId>,
    kind: Option<PrincipalKind>,
    principal: Option<PrincipalId>,
    session: Option<SessionId>,
    /// Of both bodies.
    #[serde(default)]
    bytes: u64,
    /// What header fields of the answer said that it cost.
    #[serde(default)]
    costs: BTreeMap<String, u64>,
}

impl Recorded {
    /// Reads a line of JSON.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(line: &str) -> Result<Self, String> {
        let read: Self = serde_json::from_str(line).map_err(|error| error.to_string())?;
        if read.tenant.is_none() && (read.principal.is_some() || read.session.is_some()) {
            return Err("a `principal` and a `session` need their `tenant`".into());
        }
        if read.kind.is_some() && read.principal.is_none() {
            return Err("a `kind` needs its `principal`".into());
        }
        let name = read.costs.keys().find(|name| HeaderName::from_bytes(name.as_bytes()).is_err());
        match name {
            Some(name) => Err(format!("`costs` are named by header fields, unlike `{name}`")),
            None => Ok(read),
        }
    }

    fn principal(&self) -> Option<Principal> {
        let kind = self.kind.unwrap_or(PrincipalKind::User);
        self.principal.clone().map(|id| Principal { kind, id })
    }

    fn head(&self) -> HeaderMap {
        let costs = self.costs.iter().filter_map(|(name, cost)| {
            Some((HeaderName::from_bytes(name.as_bytes()).ok()?, HeaderValue::from(*cost)))
        });
        costs.collect()
    }

    /// Who it was, whatever a rule counts.
    fn named(&self) -> Named {
        let principal = self.principal();
        let ip = if principal.is_none() { Some(self.ip) } else { None };
        let kind = principal.as_ref().map(|principal| principal.kind);
        let principal = principal.map(|principal| principal.id);
        Named { tenant: self.tenant.clone(), kind, principal, ip, ..Named::default() }
    }
}

/// Milliseconds since 1970, or as RFC 3339 writes a time.
fn moment<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Timestamp, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Form {
        Millis(u64),
        Text(String),
    }
    let at = match Form::deserialize(d) {
        Ok(Form::Millis(millis)) => Some(millis).filter(|millis| *millis <= MILLIS_MAX),
        Ok(Form::Text(text)) => text
            .parse::<jiff::Timestamp>()
            .ok()
            .and_then(|at| u64::try_from(at.as_millisecond()).ok()),
        Err(_) => None,
    };
    at.map(Timestamp).ok_or_else(|| {
        serde::de::Error::custom(
            "`time` is milliseconds since 1970 or, for instance, \"2026-12-01T09:30:00Z\"",
        )
    })
}

/// The last millisecond of 9999, less a day.
const MILLIS_MAX: u64 = 253_402_214_400_000;

/// As RFC 3339 writes it.
fn written(at: Timestamp) -> String {
    let at = i64::try_from(at.0).ok().and_then(|at| jiff::Timestamp::from_millisecond(at).ok());
    at.map(|at| at.to_string()).unwrap_or_default()
}

/// Rules, and what they have come to.
pub struct Simulation {
    limits: Limits,
    manual: Arc<ManualClock>,
    clock: SharedClock,
    last: Option<Timestamp>,
    expired: Duration,
    first: Option<Timestamp>,
    admitted: u64,
    refused: u64,
    rules: Vec<Watched>,
}

/// A rule under watch.
#[derive(Debug)]
struct Watched {
    rule: Rule,
    requests: u64,
    admitted: u64,
    refused: u64,
    subjects: HashMap<Named, Count, RandomState>,
    minute: Minute,
    busiest: Minute,
    worst: Minute,
}

#[derive(Debug, Clone, Copy, Default)]
struct Count {
    requests: u64,
    refused: u64,
}

/// What a rule came to in a minute.
#[derive(Debug, Clone, Copy, Default)]
struct Minute {
    begins: Timestamp,
    count: Count,
}

/// What rules came to over a record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Requests that no rule refused.
    pub admitted: u64,
    /// Requests that a rule refused.
    pub refused: u64,
    /// The first of them, as RFC 3339 writes a time.
    pub first: Option<String>,
    /// The last of them.
    pub last: Option<String>,
    /// Each rule, in the order of the configuration.
    pub limits: Vec<LimitReport>,
}

/// What a rule came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LimitReport {
    /// Its name.
    pub limit: Arc<str>,
    /// Whether it refuses, or would only.
    pub mode: Mode,
    /// Requests that it counts; if it is in shadow, those of them that no other rule refused.
    pub requests: u64,
    /// Those that went through: no rule refused them, or this one in shadow would not have.
    pub admitted: u64,
    /// Those that this rule refused, or would have.
    pub refused: u64,
    /// How many subjects were refused something.
    pub subjects_refused: u64,
    /// Those that were refused most often, at most twenty.
    pub subjects: Vec<SubjectReport>,
    /// The minute with the most requests.
    pub busiest: Option<MinuteReport>,
    /// The minute with the most refusals.
    pub worst: Option<MinuteReport>,
}

/// What a rule came to for a subject.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SubjectReport {
    /// Who it is.
    pub subject: Named,
    /// Its requests.
    pub requests: u64,
    /// Those refused.
    pub refused: u64,
}

/// What a rule came to in a minute.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MinuteReport {
    /// Its beginning, as RFC 3339 writes a time.
    pub minute: String,
    /// Requests that the rule counts.
    pub requests: u64,
    /// Those that it refused.
    pub refused: u64,
}

impl Simulation {
    /// Over `rules`, each bucket full.
    #[must_use]
    pub fn new(rules: Vec<Rule>) -> Self {
        let manual = ManualClock::new(Timestamp(0), 0);
        let clock: SharedClock = manual.clone();
        Self {
            limits: Limits::new(rules.clone(), Shared::in_memory(clock.clone())),
            manual,
            clock,
            last: None,
            expired: Duration::ZERO,
            first: None,
            admitted: 0,
            refused: 0,
            rules: rules.into_iter().map(Watched::new).collect(),
        }
    }

    /// Charges a request; whether it was let in.
    ///
    /// # Errors
    /// It came before the one before it.
    pub fn take(&mut self, recorded: &Recorded) -> Result<bool, String> {
        self.advance(recorded.time)?;
        let principal = recorded.principal();
        let subject = Subject {
            tenant: recorded.tenant.as_ref(),
            principal: principal.as_ref(),
            session: recorded.session,
            ip: recorded.ip,
            route: &recorded.route,
        };
        let mut decision = self.limits.resolve(&subject).take_by(&self.clock, 1);
        if let Some(mut owing) = decision.owing() {
            owing.answered(&self.clock, &mut recorded.head(), &mut decision);
            owing.ended(&self.clock, recorded.bytes);
        }
        for watched in &mut self.rules {
            watched.note(recorded.time, &subject, &decision);
        }
        match decision.allowed() {
            true => self.admitted += 1,
            false => self.refused += 1,
        }
        Ok(decision.allowed())
    }

    fn advance(&mut self, time: Timestamp) -> Result<(), String> {
        match self.last {
            None => {
                self.manual.jump_to(time);
                self.first = Some(time);
            }
            Some(last) if time < last => {
                return Err("it came before the request before it: sort them by time".into());
            }
            Some(last) => self.manual.advance(time.since(last)),
        }
        self.last = Some(time);
        let now = self.manual.elapsed();
        if now.saturating_sub(self.expired) >= EXPIRE_EVERY {
            self.expired = now;
            self.limits.expire(now);
        }
        Ok(())
    }

    /// What it has come to.
    #[must_use]
    pub fn report(&self) -> Report {
        Report {
            admitted: self.admitted,
            refused: self.refused,
            first: self.first.map(written),
            last: self.last.map(written),
            limits: self.rules.iter().map(Watched::report).collect(),
        }
    }
}

impl Watched {
    fn new(rule: Rule) -> Self {
        Self {
            rule,
            requests: 0,
            admitted: 0,
            refused: 0,
            subjects: HashMap::default(),
            minute: Minute::default(),
            busiest: Minute::default(),
            worst: Minute::default(),
        }
    }

    fn note(&mut self, at: Timestamp, subject: &Subject<'_>, decision: &Decision) {
        let is_shadow = self.rule.mode == Mode::Shadow;
        if !self.rule.covers(subject.route) || (is_shadow && !decision.allowed()) {
            return;
        }
        let Some(key) = SubjectKey::of(self.rule.per, subject) else { return };
        let refuses = match is_shadow {
            true => decision.would_refuse(&self.rule.name),
            false => decision.refused_by() == Some(&*self.rule.name),
        };
        self.requests += 1;
        self.admitted += u64::from(decision.allowed() && !refuses);
        self.refused += u64::from(refuses);
        self.subjects.entry(key.named()).or_default().add(refuses);
        let begins = Timestamp(at.0 - at.0 % MINUTE_MS);
        if self.minute.begins != begins {
            self.minute = Minute { begins, count: Count::default() };
        }
        self.minute.count.add(refuses);
        if self.minute.count.requests > self.busiest.count.requests {
            self.busiest = self.minute;
        }
        let is_worst = self.minute.begins == self.worst.begins;
        if is_worst || self.minute.count.refused > self.worst.count.refused {
            self.worst = self.minute;
        }
    }

    fn report(&self) -> LimitReport {
        let refused = self.subjects.iter().filter(|(_, count)| count.refused > 0);
        let (subjects, subjects_refused) = shown(refused);
        LimitReport {
            limit: self.rule.name.clone(),
            mode: self.rule.mode,
            requests: self.requests,
            admitted: self.admitted,
            refused: self.refused,
            subjects_refused,
            subjects,
            busiest: self.busiest.report(),
            worst: self.worst.report(),
        }
    }
}

/// Those refused most often, and how many there are.
fn shown<'a>(counts: impl Iterator<Item = (&'a Named, &'a Count)>) -> (Vec<SubjectReport>, u64) {
    let mut subjects: Vec<SubjectReport> = counts
        .map(|(subject, count)| SubjectReport {
            subject: subject.clone(),
            requests: count.requests,
            refused: count.refused,
        })
        .collect();
    subjects.sort_by(|a, b| b.refused.cmp(&a.refused).then_with(|| a.subject.cmp(&b.subject)));
    let all = subjects.len() as u64;
    subjects.truncate(SHOWN_MAX);
    (subjects, all)
}

impl Count {
    fn add(&mut self, refused: bool) {
        self.requests += 1;
        self.refused += u64::from(refused);
    }
}

impl Minute {
    fn report(&self) -> Option<MinuteReport> {
        let Count { requests, refused } = self.count;
        let minute = written(self.begins);
        (requests > 0).then_some(MinuteReport { minute, requests, refused })
    }
}

/// Whom other rules would treat otherwise.
#[derive(Debug, Default)]
pub struct Comparison {
    newly_refused: u64,
    newly_admitted: u64,
    callers: HashMap<Named, Count, RandomState>,
}

/// What other rules would do otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Requests that the other rules refuse and these do not.
    pub newly_refused: u64,
    /// Requests that the other rules let in and these do not.
    pub newly_admitted: u64,
    /// How many callers would be refused something that they are not now.
    pub callers_newly_refused: u64,
    /// Those of them for whom that is most, at most twenty; `refused` is what is new.
    pub callers: Vec<SubjectReport>,
}

impl Comparison {
    /// Notes what became of a request by these rules and by the others.
    pub fn note(&mut self, recorded: &Recorded, admitted: bool, by_others: bool) {
        let is_new = admitted && !by_others;
        self.newly_refused += u64::from(is_new);
        self.newly_admitted += u64::from(!admitted && by_others);
        self.callers.entry(recorded.named()).or_default().add(is_new);
    }

    /// What it has come to.
    #[must_use]
    pub fn report(&self) -> Difference {
        let refused = self.callers.iter().filter(|(_, count)| count.refused > 0);
        let (callers, callers_newly_refused) = shown(refused);
        let Self { newly_refused, newly_admitted, .. } = *self;
        Difference { newly_refused, newly_admitted, callers_newly_refused, callers }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limit::{Calendar, Every, Measure, Per};

    fn line(time: &str, principal: &str, more: &str) -> Recorded {
        let line = format!(
            "{{\"time\":\"{time}\",\"route\":\"r\",\"ip\":\"10.0.0.1\",\"tenant\":\"acme\",\
             \"principal\":\"{principal}\"{more}}}"
        );
        Recorded::read(&line).unwrap()
    }

    fn rule(name: &str, requests: u64) -> Rule {
        Rule::new(name, Per::User, requests, Duration::from_secs(60))
    }

    #[test]
    fn a_record_is_judged_as_a_node_would_have() {
        let shadow = Rule { mode: Mode::Shadow, ..rule("shadow", 1) };
        let mut simulation = Simulation::new(vec![rule("minute", 3), shadow]);
        let mut take = |time: &str, who: &str| simulation.take(&line(time, who, "")).unwrap();
        let admitted: Vec<bool> =
            (0..5).map(|n| take(&format!("2026-12-01T10:00:0{n}Z"), "ann")).collect();
        assert_eq!(admitted, [true, true, true, false, false]);
        assert!(take("2026-12-01T10:00:09Z", "bob"));
        // The fourth of a minute's three has come free.
        assert!(take("2026-12-01T10:00:25Z", "ann"));
        assert!(take("2026-12-01T10:30:00Z", "ann"));
        let report = simulation.report();
        assert_eq!((report.admitted, report.refused), (6, 2));
        assert_eq!(report.first.as_deref(), Some("2026-12-01T10:00:00Z"));
        let [minute, shadow] = &report.limits[..] else { panic!("{report:?}") };
        assert_eq!((minute.requests, minute.admitted, minute.refused), (8, 6, 2));
        assert_eq!((minute.subjects_refused, minute.subjects[0].refused), (1, 2));
        assert_eq!(minute.subjects[0].subject.principal, Some(PrincipalId::new("ann").unwrap()));
        let worst = minute.worst.as_ref().unwrap();
        assert_eq!((&*worst.minute, worst.requests, worst.refused), ("2026-12-01T10:00:00Z", 7, 2));
        assert_eq!((shadow.requests, shadow.admitted, shadow.refused), (6, 3, 3));
    }

    #[test]
    fn quotas_and_costs_count_in_the_time_of_the_record() {
        let calendar = Some(Calendar::new(Every::Day, "UTC").unwrap());
        let name = HeaderName::from_static("x-tokens-used");
        let measure = Measure::Field { name, kept: false };
        let mut simulation =
            Simulation::new(vec![Rule { calendar, measure, ..rule("day", 1_000) }]);
        let tokens = ",\"costs\":{\"x-tokens-used\":600}";
        let mut take = |time: &str| simulation.take(&line(time, "ann", tokens)).unwrap();
        assert!(take("2026-12-01T23:00:00Z") && take("2026-12-01T23:10:00Z"));
        assert!(!take("2026-12-01T23:59:59.999Z"));
        assert!(take("2026-12-02T00:00:00Z"));
    }

    #[test]
    fn a_line_that_cannot_be_read_says_why() {
        let refused = |line: &str, expected: &str| {
            let why = Recorded::read(line).unwrap_err();
            assert!(why.contains(expected), "{line}: {why}");
        };
        let known = "\"route\":\"r\",\"ip\":\"::1\"";
        refused("", "EOF");
        refused(&format!("{{\"time\":1,{known},\"path\":\"/\"}}"), "unknown field `path`");
        refused(&format!("{{\"time\":\"now\",{known}}}"), "milliseconds since 1970");
        refused(&format!("{{\"time\":-1,{known}}}"), "milliseconds since 1970");
        refused(&format!("{{\"time\":{},{known}}}", u64::MAX), "milliseconds since 1970");
        refused(&format!("{{\"time\":1,{known},\"principal\":\"a\"}}"), "need their `tenant`");
        refused(&format!("{{\"time\":1,{known},\"kind\":\"user\"}}"), "needs its `principal`");
        refused(&format!("{{\"time\":1,{known},\"costs\":{{\"a b\":1}}}}"), "unlike `a b`");
        let mut simulation = Simulation::new(Vec::new());
        assert!(simulation.take(&line("2026-12-01T10:00:01Z", "a", "")).unwrap());
        let why = simulation.take(&line("2026-12-01T10:00:00Z", "a", "")).unwrap_err();
        assert!(why.contains("sort them by time"), "{why}");
    }

    #[test]
    fn two_configurations_are_compared_request_by_request() {
        let (mut now, mut then) =
            (Simulation::new(vec![rule("a", 3)]), Simulation::new(vec![rule("a", 2)]));
        let mut comparison = Comparison::default();
        for second in 0..6 {
            let recorded = line(&format!("2026-12-01T10:00:0{second}Z"), "ann", "");
            let admitted = [now.take(&recorded).unwrap(), then.take(&recorded).unwrap()];
            comparison.note(&recorded, admitted[0], admitted[1]);
        }
        let difference = comparison.report();
        assert_eq!((difference.newly_refused, difference.newly_admitted), (1, 0));
        assert_eq!((difference.callers_newly_refused, difference.callers[0].refused), (1, 1));
    }
}

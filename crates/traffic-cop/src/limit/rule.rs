//! A limit as it is configured.

use crate::limit::{
    calendar::{Calendar, Every},
    gcra::Rate,
    quota::part,
    shared::SAVED_WITHIN,
    subject::Pace,
};
use http::HeaderName;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// The most of a quota: the largest number of a structured field (RFC 9651, section 3.3.1).
const QUOTA_MAX: u64 = 999_999_999_999_999;

/// What each bucket of a rule is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Per {
    /// One for each principal of a tenant.
    User,
    /// One for each session; callers without one are counted as [`Self::User`] does.
    Session,
    /// One for each route, in each tenant.
    Route,
    /// One for each IPv4 address and each IPv6 /64.
    Ip,
    /// One for each tenant.
    Tenant,
    /// One for all.
    Global,
}

/// Whose requests a rule counts together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Those of all nodes that share their stores.
    #[default]
    Shared,
    /// Those of each node by itself.
    Node,
}

/// What a node does with a request while the owner of a shared limit cannot be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WhenAway {
    /// Counts by itself, and allows its part: the limit divided by the number of nodes.
    #[default]
    LocalShare,
    /// Refuses it with 503.
    Refuse,
    /// Lets it pass uncounted.
    Pass,
}

/// What a rule does with a request that it has no room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Refuses it.
    #[default]
    Enforce,
    /// Counts whom it would have refused, and lets the request pass.
    Shadow,
}

/// A limit: `{ name = "per-user", per = "user", requests = 100, period = "1m" }`.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "RuleForm")]
pub struct Rule {
    /// Its name, shown to clients in `RateLimit`.
    pub name: Arc<str>,
    /// Whom it counts.
    pub per: Per,
    /// Requests allowed in a period.
    pub requests: u64,
    /// The period; of a quota, the longest there is.
    pub period: Duration,
    /// The periods of a quota: it is counted from the beginning of one to its end.
    pub calendar: Option<Calendar>,
    /// Requests allowed at once; as many as in a period, unless told otherwise.
    pub burst: u64,
    /// Names of the routes that it covers; none: all of them.
    pub routes: Vec<String>,
    /// Whether nodes count together.
    pub scope: Scope,
    /// What happens while the nodes cannot agree.
    pub when_away: WhenAway,
    /// Whether it refuses.
    pub mode: Mode,
    /// What a request costs, of `requests` and `burst`; where that is known afterwards, what
    /// counts if it is not.
    pub cost: u32,
    /// What it costs on some routes, by name.
    pub costs: BTreeMap<String, u32>,
    /// What tells the cost.
    pub measure: Measure,
}

/// What tells the cost of a request.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Measure {
    /// The configuration.
    #[default]
    Fixed,
    /// The bytes of both bodies, once they have passed; of a socket's command, its own.
    Bytes,
    /// A header field of the answer.
    Field {
        /// Its name.
        name: HeaderName,
        /// Whether the client gets the field, too.
        kept: bool,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleForm {
    name: String,
    per: Per,
    requests: Option<u64>,
    quota: Option<u64>,
    period: String,
    time_zone: Option<String>,
    burst: Option<u64>,
    #[serde(default)]
    routes: Vec<String>,
    #[serde(default)]
    scope: Scope,
    #[serde(default)]
    when_away: WhenAway,
    #[serde(default)]
    mode: Mode,
    cost: Option<Cost>,
    #[serde(default)]
    costs: BTreeMap<String, u32>,
    cost_header: Option<String>,
    keep_cost_header: Option<bool>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "`cost` is a whole number or \"bytes\"")]
enum Cost {
    Fixed(u32),
    By(ByBytes),
}

#[derive(Deserialize)]
enum ByBytes {
    #[serde(rename = "bytes")]
    Bytes,
}

/// How much a limit allows, and when.
struct Amount {
    requests: u64,
    burst: u64,
    period: Duration,
    calendar: Option<Calendar>,
}

impl RuleForm {
    fn amount(&self) -> Result<Amount, String> {
        match (self.requests, self.quota) {
            (Some(requests), None) => self.rate(requests),
            (None, Some(quota)) => self.quota(quota),
            (Some(_), Some(_)) => Err("a limit has `requests` or `quota`, not both".into()),
            (None, None) => Err("a limit needs `requests` in any `period`, or a `quota` in each \
                hour, day, week or month"
                .into()),
        }
    }

    fn rate(&self, requests: u64) -> Result<Amount, String> {
        if Every::named(&self.period).is_some() {
            return Err(format!(
                "a limit with `period = \"{}\"` has a `quota` in place of `requests`",
                self.period
            ));
        }
        if self.time_zone.is_some() {
            return Err("`time_zone` of a limit is for a `quota`".into());
        }
        if !(1..=1_000_000_000).contains(&requests) {
            return Err("`requests` of a limit must be 1 to 1000000000".into());
        }
        let period = types::duration::parse(&self.period)?;
        let day = Duration::from_secs(86_400);
        if period < Duration::from_millis(1) || period > 31 * day {
            return Err("`period` of a limit must be 1ms to 31d".into());
        }
        let burst = self.burst.unwrap_or(requests);
        if !(1..=requests).contains(&burst) {
            return Err("`burst` of a limit must be 1 to its `requests`".into());
        }
        if period.as_nanos() / u128::from(requests) == 0 {
            return Err("a limit of more than one request per nanosecond limits nothing".into());
        }
        Ok(Amount { requests, burst, period, calendar: None })
    }

    fn quota(&self, quota: u64) -> Result<Amount, String> {
        let every = Every::named(&self.period).ok_or_else(|| {
            format!(
                "`period` of a `quota` is \"hour\", \"day\", \"week\" or \"month\", unlike `{}`",
                self.period
            )
        })?;
        if !(1..=QUOTA_MAX).contains(&quota) {
            return Err(format!("`quota` of a limit must be 1 to {QUOTA_MAX}"));
        }
        if self.burst.is_some() {
            return Err(
                "a `quota` has no `burst`: add a limit with `requests` in a `period`".into()
            );
        }
        if self.scope == Scope::Node {
            return Err("a `quota` is counted by all nodes together: remove `scope`".into());
        }
        let calendar = Calendar::new(every, self.time_zone.as_deref().unwrap_or("UTC"))?;
        let period = Duration::from_secs(31 * 86_400);
        Ok(Amount { requests: quota, burst: quota, period, calendar: Some(calendar) })
    }

    /// What tells the cost, and what it is or else is taken to be.
    fn measure(&self) -> Result<(Measure, u32), String> {
        let cost = match self.cost {
            Some(Cost::Fixed(cost)) => cost,
            Some(Cost::By(ByBytes::Bytes)) | None => 1,
        };
        let is_bytes = matches!(self.cost, Some(Cost::By(ByBytes::Bytes)));
        let measure = match &self.cost_header {
            Some(_) if is_bytes => {
                return Err("a limit has `cost = \"bytes\"` or `cost_header`, not both".into());
            }
            Some(name) => {
                let read = HeaderName::from_bytes(name.as_bytes());
                let name = read.map_err(|_| {
                    format!("`cost_header` of a limit must name a header field, unlike `{name}`")
                })?;
                Measure::Field { name, kept: self.keep_cost_header.unwrap_or(false) }
            }
            None if self.keep_cost_header.is_some() => {
                return Err("`keep_cost_header` of a limit needs its `cost_header`".into());
            }
            None if is_bytes => Measure::Bytes,
            None => Measure::Fixed,
        };
        if !self.costs.is_empty() && measure != Measure::Fixed {
            return Err("`costs` of a limit are fixed: remove them, or what tells another \
                cost (`cost = \"bytes\"` or `cost_header`)"
                .into());
        }
        Ok((measure, cost))
    }
}

impl TryFrom<RuleForm> for Rule {
    type Error = String;

    fn try_from(form: RuleForm) -> Result<Self, String> {
        let named = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        if form.name.is_empty() || form.name.len() > 64 || !form.name.bytes().all(named) {
            return Err("`name` of a limit must be 1 to 64 characters of A-Z a-z 0-9 - _ .".into());
        }
        let Amount { requests, burst, period, calendar } = form.amount()?;
        let (measure, cost) = form.measure()?;
        let fits = |cost: u32| (1..=burst).contains(&u64::from(cost));
        if !fits(cost) || !form.costs.values().all(|cost| fits(*cost)) {
            let most = if calendar.is_some() { "quota" } else { "burst" };
            return Err(format!("what a request costs must be 1 to the limit's `{most}`, {burst}"));
        }
        let RuleForm { name, per, routes, scope, when_away, mode, costs, .. } = form;
        let rule = Self::new(&name, per, requests, period);
        Ok(Self { burst, calendar, routes, scope, when_away, mode, cost, costs, measure, ..rule })
    }
}

impl Rule {
    /// A rule of `requests` in a `period`, all else as the configuration has it by default.
    #[must_use]
    pub fn new(name: &str, per: Per, requests: u64, period: Duration) -> Self {
        Self {
            name: name.into(),
            per,
            requests,
            period,
            calendar: None,
            burst: requests,
            routes: Vec::new(),
            scope: Scope::default(),
            when_away: WhenAway::default(),
            mode: Mode::default(),
            cost: 1,
            costs: BTreeMap::new(),
            measure: Measure::default(),
        }
    }

    pub(super) fn covers(&self, route: &str) -> bool {
        self.routes.is_empty() || self.routes.iter().any(|name| name == route)
    }

    /// What a request of a route costs before it is answered; 0 if that is known afterwards.
    pub(super) fn cost_of(&self, route: &str) -> u32 {
        match self.measure {
            Measure::Fixed => self.costs.get(route).copied().unwrap_or(self.cost),
            Measure::Bytes | Measure::Field { .. } => 0,
        }
    }

    /// Requests that may be admitted beyond the limit when the owner of a shared one is lost:
    /// what it can have granted since it last saved. Of a quota: what `nodes` may admit while it
    /// cannot be reserved; `None` if that is anything.
    #[must_use]
    pub fn excess_max(&self, nodes: u64) -> Option<u64> {
        if self.calendar.is_some() {
            return match self.when_away {
                WhenAway::Refuse => Some(0),
                WhenAway::LocalShare => Some(part(self.requests) * nodes),
                WhenAway::Pass => None,
            };
        }
        let rate = self.requests as f64 / self.period.as_secs_f64();
        let granted = self.burst as f64 + rate * SAVED_WITHIN.as_secs_f64();
        Some(granted.ceil() as u64)
    }

    pub(super) fn pace(&self) -> Pace {
        match &self.calendar {
            Some(calendar) => Pace::Quota(calendar.clone()),
            None => Pace::Rate(self.rate()),
        }
    }

    pub(super) fn rate(&self) -> Rate {
        let interval = self.period.as_nanos() / u128::from(self.requests);
        Rate { interval: u64::try_from(interval).unwrap_or(u64::MAX), burst: self.burst }
    }
}

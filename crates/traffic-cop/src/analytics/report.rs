//! Reports: what was counted in a period, from one point of view.

use crate::analytics::{
    distinct::Distinct,
    figures::{Counts, Figures, Usage, rate},
    names::{RouteId, RouteName},
    notes::Note,
    period::Period,
    span::{InstanceName, KINDS, Span},
    top::{Counter, Top},
};
use ahash::RandomState;
use serde::Serialize;
use std::{
    collections::{BTreeMap, HashMap},
    hash::Hash,
    sync::Arc,
};
use types::{PrincipalId, PrincipalKind, SessionId, TenantId, Timestamp};

/// Consumers and endpoints that a report shows at most.
pub const TOP_MAX: usize = 100;

/// By what consumers and endpoints are ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum By {
    /// Requests.
    #[default]
    Requests,
    /// Answers with a status of 400 and above.
    Errors,
    /// Bytes of both bodies.
    Bytes,
    /// Requests that a limit refused.
    Limited,
}

impl By {
    /// Reads `requests`, `errors`, `bytes` or `limited`.
    ///
    /// # Errors
    /// A sentence that says what is accepted.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text {
            "requests" => Ok(Self::Requests),
            "errors" => Ok(Self::Errors),
            "bytes" => Ok(Self::Bytes),
            "limited" => Ok(Self::Limited),
            other => {
                let known = "`requests`, `errors`, `bytes` or `limited`";
                Err(format!("`{other}` is nothing to order by; use {known}"))
            }
        }
    }

    fn of(self, usage: &Usage) -> u64 {
        match self {
            Self::Requests => usage.requests,
            Self::Errors => usage.client_errors + usage.server_errors,
            Self::Bytes => usage.bytes_in.saturating_add(usage.bytes_out),
            Self::Limited => usage.limited,
        }
    }
}

/// Whose names a report may tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Naming {
    /// Nobody's.
    #[default]
    Hidden,
    /// Those of consumers, and what is asked by path.
    Shown,
}

/// What is asked.
#[derive(Debug, Clone)]
pub struct Ask {
    /// About which time.
    pub period: Period,
    /// About one tenant; none: about all of them, and about instances.
    pub tenant: Option<TenantId>,
    /// Whether consumers are told.
    pub naming: Naming,
    /// About one user, agent or service alone, as far as consumers go.
    pub user: Option<PrincipalId>,
    /// About one of this kind alone, likewise.
    pub kind: Option<PrincipalKind>,
    /// About one session alone, likewise.
    pub session: Option<SessionId>,
    /// How many consumers and endpoints.
    pub top: usize,
    /// In which order.
    pub by: By,
}

impl Ask {
    /// A report on a period, of one tenant or all, which tells no consumers.
    #[must_use]
    pub fn new(period: Period, tenant: Option<TenantId>) -> Self {
        let (naming, by) = (Naming::Hidden, By::Requests);
        Self { period, tenant, naming, user: None, kind: None, session: None, top: 20, by }
    }
}

/// A route's figures.
#[derive(Debug, Clone, PartialEq, Serialize, schemars::JsonSchema)]
pub struct RouteFigures {
    /// The route.
    pub route: Arc<str>,
    /// The service that it leads to.
    pub service: Arc<str>,
    /// The realm of the service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub realm: Option<Arc<str>>,
    /// Its figures.
    #[serde(flatten)]
    pub figures: Figures,
}

/// An instance's figures.
#[derive(Debug, Clone, PartialEq, Serialize, schemars::JsonSchema)]
pub struct InstanceFigures {
    /// Its service.
    pub service: Arc<str>,
    /// Its host and port.
    pub instance: Arc<str>,
    /// Its figures.
    #[serde(flatten)]
    pub figures: Figures,
}

/// The figures of a part of the period.
#[derive(Debug, Clone, PartialEq, Serialize, schemars::JsonSchema)]
#[schemars(rename = "TrafficPoint")]
pub struct Point {
    /// When it began, in milliseconds since 1970 UTC.
    pub at: Timestamp,
    /// Its figures.
    #[serde(flatten)]
    pub figures: Figures,
}

/// What somebody used.
#[derive(Debug, Clone, PartialEq, Serialize, schemars::JsonSchema)]
#[schemars(rename = "{T}Usage")]
pub struct Used<T> {
    /// Who, or what.
    #[serde(flatten)]
    pub of: T,
    /// The counts.
    #[serde(flatten)]
    pub usage: Usage,
    /// Requests a second.
    pub rate: f64,
    /// Requests that may have been more, where there were more of them than are counted apart.
    pub missed_max: u64,
}

/// A user, agent or service.
#[derive(Debug, Clone, PartialEq, Serialize, schemars::JsonSchema)]
pub struct ConsumerName {
    /// Its tenant.
    pub tenant: TenantId,
    /// Its name.
    pub user: PrincipalId,
    /// What it is.
    pub kind: PrincipalKind,
}

/// A session.
#[derive(Debug, Clone, PartialEq, Serialize, schemars::JsonSchema)]
pub struct SessionName {
    /// Its tenant.
    pub tenant: TenantId,
    /// Its id.
    pub session: SessionId,
}

/// A method and the paths of a pattern.
#[derive(Debug, Clone, PartialEq, Serialize, schemars::JsonSchema)]
pub struct EndpointName {
    /// The route.
    pub route: Arc<str>,
    /// The service that it leads to.
    pub service: Arc<str>,
    /// The method.
    pub method: Arc<str>,
    /// The paths: as the route or the API's document writes them, and otherwise with `{id}` for
    /// names and numbers.
    pub pattern: Arc<str>,
}

/// The traffic of a period.
#[derive(Debug, Clone, PartialEq, Serialize, schemars::JsonSchema)]
#[schemars(rename = "TrafficReport")]
pub struct Report {
    /// The range asked for; `custom` between two times.
    pub range: &'static str,
    /// When it begins, in milliseconds since 1970 UTC.
    pub from: Timestamp,
    /// When it ends.
    pub to: Timestamp,
    /// How wide each point of the series is.
    pub width_ms: u64,
    /// Whether the store could be asked; else this is what this node remembers.
    pub complete: bool,
    /// Everything together.
    pub total: Figures,
    /// Different users, agents and services: exactly up to 256, then within some 2 %. Unknown of a
    /// tenant that is not among the 64 whose users are told apart.
    pub users: Option<u64>,
    /// By route.
    pub routes: Vec<RouteFigures>,
    /// By service.
    pub services: BTreeMap<Arc<str>, Figures>,
    /// By realm, of services that belong to one.
    pub realms: BTreeMap<Arc<str>, Figures>,
    /// By pillar of the caller's session. A session that works in several counts for each.
    pub pillars: BTreeMap<String, Figures>,
    /// By instance; only in the operator's report over all tenants.
    #[schemars(default)]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub instances: Vec<InstanceFigures>,
    /// By tenant, likewise. `(other)` stands for requests without a tenant and for tenants beyond
    /// the bound.
    #[schemars(default)]
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub tenants: BTreeMap<String, Figures>,
    /// The endpoints that are asked most, for those who may know: a path may say what somebody asked
    /// for.
    #[schemars(default)]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<Used<EndpointName>>,
    /// The users, agents and services that ask most, for those who may know.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consumers: Option<Vec<Used<ConsumerName>>>,
    /// The sessions, likewise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sessions: Option<Vec<Used<SessionName>>>,
    /// What was out of the ordinary, as far as it can be told.
    pub notes: Vec<Note>,
    /// By parts of the period; those without traffic are missing.
    pub series: Vec<Point>,
}

/// Adds up the spans of a period.
pub(super) struct Sum<'a> {
    ask: &'a Ask,
    total: Counts,
    routes: HashMap<RouteId, Counts, RandomState>,
    instances: HashMap<InstanceName, Counts, RandomState>,
    tenants: HashMap<Option<TenantId>, Counts, RandomState>,
    series: BTreeMap<u64, Counts>,
    /// What is told as it is.
    others: Span,
}

impl<'a> Sum<'a> {
    pub(super) fn new(ask: &'a Ask) -> Self {
        Self {
            ask,
            total: Counts::default(),
            routes: HashMap::default(),
            instances: HashMap::default(),
            tenants: HashMap::default(),
            series: BTreeMap::new(),
            others: Span::default(),
        }
    }

    /// Adds what one life of a node counted in the span that began at `start`.
    pub(super) fn add(&mut self, start: u64, span: Span) {
        let mut point = Counts::default();
        let wanted = self.ask.tenant.as_ref();
        for ((route, tenant), counts) in &span.routes {
            if wanted.is_some() && tenant.as_ref() != wanted {
                continue;
            }
            point.add(counts);
            self.routes.entry(*route).or_default().add(counts);
            if wanted.is_none() {
                self.tenants.entry(tenant.clone()).or_default().add(counts);
            }
        }
        if point.usage.requests > 0 {
            let at = start / self.ask.period.point * self.ask.period.point;
            self.total.add(&point);
            self.series.entry(at).or_default().add(&point);
        }
        if wanted.is_none() {
            for (name, counts) in &span.instances {
                self.instances.entry(name.clone()).or_default().add(counts);
            }
        }
        let rest = Span { routes: HashMap::default(), instances: HashMap::default(), ..span };
        self.others.add(&rest);
    }

    /// The report; `names` of every route that was added.
    pub(super) fn report(self, names: &[RouteName], complete: bool, notes: Vec<Note>) -> Report {
        let Self { ask, total, routes, instances, tenants, series, others } = self;
        let period = &ask.period;
        let over = period.length();
        let figures = |counts: &Counts| Figures::of(counts, over);
        let name = |route: &RouteId| names[route.0 as usize].clone();
        let (mut services, mut realms) = (BTreeMap::new(), BTreeMap::new());
        let mut by_route: Vec<RouteFigures> = Vec::with_capacity(routes.len());
        for (route, counts) in &routes {
            let RouteName { route, service, realm } = name(route);
            add_to(&mut services, service.clone(), counts);
            if let Some(realm) = &realm {
                add_to(&mut realms, realm.clone(), counts);
            }
            by_route.push(RouteFigures { route, service, realm, figures: figures(counts) });
        }
        by_route.sort_by(|a, b| (&a.route, &a.service).cmp(&(&b.route, &b.service)));
        let mut pillars = BTreeMap::new();
        for ((tenant, pillar), counts) in &others.pillars {
            if ask.tenant.as_ref().is_none_or(|wanted| wanted == tenant) {
                add_to(&mut pillars, pillar.to_string(), counts);
            }
        }
        let mut instances: Vec<InstanceFigures> = instances
            .into_iter()
            .map(|(InstanceName { service, instance }, counts)| InstanceFigures {
                service,
                instance,
                figures: figures(&counts),
            })
            .collect();
        instances.sort_by(|a, b| (&a.service, &a.instance).cmp(&(&b.service, &b.instance)));
        let tenants = tenants.iter().map(|(tenant, counts)| {
            let tenant = tenant.as_ref().map_or("(other)", TenantId::as_str);
            (tenant.to_owned(), figures(counts))
        });
        let users = match &ask.tenant {
            None => Some(&others.users.all),
            Some(tenant) => others.users.by_tenant.get(tenant),
        };
        let nobody = (total.usage.requests == 0).then_some(0);
        let width = std::time::Duration::from_millis(period.point);
        Report {
            range: period.name,
            from: Timestamp(period.from),
            to: Timestamp(period.to),
            width_ms: period.point,
            complete,
            total: figures(&total),
            users: users.map(Distinct::count).or(nobody),
            routes: by_route,
            services: told(&services, over),
            realms: told(&realms, over),
            pillars: told(&pillars, over),
            instances,
            tenants: tenants.collect(),
            endpoints: match ask.naming {
                Naming::Shown => endpoints(ask, &others, &name),
                Naming::Hidden => Vec::new(),
            },
            consumers: (ask.naming == Naming::Shown).then(|| consumers(ask, &others)),
            sessions: (ask.naming == Naming::Shown).then(|| sessions(ask, &others)),
            notes,
            series: series
                .into_iter()
                .map(|(at, counts)| Point {
                    at: Timestamp(at),
                    figures: Figures::of(&counts, width),
                })
                .collect(),
        }
    }
}

fn add_to<K: Ord>(sums: &mut BTreeMap<K, Counts>, key: K, counts: &Counts) {
    sums.entry(key).or_default().add(counts);
}

fn told<K: Ord + Clone>(
    sums: &BTreeMap<K, Counts>,
    over: std::time::Duration,
) -> BTreeMap<K, Figures> {
    sums.iter().map(|(key, counts)| (key.clone(), Figures::of(counts, over))).collect()
}

fn first<K: Eq + Hash + Ord + Clone, T>(
    ask: &Ask,
    top: &Top<K>,
    is_wanted: impl Fn(&K) -> bool,
    name: impl Fn(&K) -> T,
) -> Vec<Used<T>> {
    let first = top.first(ask.top.min(TOP_MAX), is_wanted, |usage| ask.by.of(usage));
    first
        .into_iter()
        .map(|(key, Counter { usage, missed_max })| Used {
            of: name(key),
            usage: *usage,
            rate: rate(usage.requests, ask.period.length()),
            missed_max: *missed_max,
        })
        .collect()
}

fn consumers(ask: &Ask, span: &Span) -> Vec<Used<ConsumerName>> {
    let is_wanted = |consumer: &super::span::Consumer| {
        ask.tenant.as_ref().is_none_or(|tenant| *tenant == consumer.tenant)
            && ask.user.as_ref().is_none_or(|user| *user == consumer.id)
            && ask.kind.is_none_or(|kind| kind == KINDS[usize::from(consumer.kind)])
            && (ask.session.is_none() || ask.user.is_some())
    };
    first(ask, &span.consumers, is_wanted, |consumer| ConsumerName {
        tenant: consumer.tenant.clone(),
        user: consumer.id.clone(),
        kind: KINDS[usize::from(consumer.kind)],
    })
}

fn sessions(ask: &Ask, span: &Span) -> Vec<Used<SessionName>> {
    let is_wanted = |(tenant, session): &(TenantId, SessionId)| {
        ask.tenant.as_ref().is_none_or(|wanted| wanted == tenant)
            && ask.session.is_none_or(|wanted| wanted == *session)
            && (ask.user.is_none() || ask.session.is_some())
    };
    first(ask, &span.sessions, is_wanted, |(tenant, session)| SessionName {
        tenant: tenant.clone(),
        session: *session,
    })
}

/// Of all tenants together, an endpoint is told once.
fn endpoints(
    ask: &Ask,
    span: &Span,
    name: &impl Fn(&RouteId) -> RouteName,
) -> Vec<Used<EndpointName>> {
    let wanted = ask.tenant.as_ref();
    let mut sums: HashMap<_, Counter, RandomState> = HashMap::default();
    for (endpoint, counter) in span.endpoints.iter() {
        if wanted.is_none() || endpoint.tenant.as_ref() == wanted {
            let key = (endpoint.route, endpoint.method.clone(), endpoint.pattern.clone());
            let sum = sums.entry(key).or_default();
            sum.usage.add(&counter.usage);
            sum.missed_max += counter.missed_max;
        }
    }
    let top = Top::of(sums.into_iter(), 0);
    first(
        ask,
        &top,
        |_| true,
        |(route, method, pattern)| {
            let RouteName { route, service, .. } = name(route);
            EndpointName { route, service, method: method.clone(), pattern: pattern.clone() }
        },
    )
}

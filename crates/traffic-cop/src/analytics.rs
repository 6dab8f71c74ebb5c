//! Traffic analytics: what routes, services, instances, realms, tenants, pillars and consumers ask
//! and get, how fast, and what is out of the ordinary.
//!
//! Each core counts for itself ([`Recorder`], no atomics and no locks) and hands over what it
//! counted every second; [`Analytics`] adds it up into spans of three widths. [`History`] writes
//! them to the store, from which reports of all nodes, and of times before the start, are put
//! together. Labels come from configuration and credentials only, and their number is bounded; so
//! is everything else, whatever clients send.

mod distinct;
mod figures;
mod histogram;
mod history;
mod live;
mod log;
mod names;
mod notes;
mod pattern;
mod period;
mod range;
mod record;
mod recorder;
mod report;
mod ring;
mod row;
mod span;
mod top;
mod totals;

pub use figures::{Figures, Usage};
pub use histogram::Histogram;
pub use history::History;
pub use live::{CHANNEL, Second, SecondOfRoute};
pub use log::{Config as LogConfig, Entry, Filter, Logged};
pub use names::{RouteId, RouteName};
pub use notes::{Episode, Note, What};
pub use pattern::PathPattern;
pub use period::Period;
pub use range::Range;
pub use recorder::{Asked, Recorder, Sample};
pub use report::{
    Ask, By, ConsumerName, EndpointName, InstanceFigures, Naming, Point, Report, RouteFigures,
    SessionName, TOP_MAX, Used,
};

use crate::analytics::{
    figures::Counts,
    history::Kept,
    log::{Log, Logging},
    names::Names,
    notes::Minute,
    recorder::Counted,
    report::Sum,
    ring::Piece,
    span::Span,
    totals::Totals,
};
use parking_lot::Mutex;
use serde::Deserialize;
use std::{
    collections::HashMap,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::sync::Semaphore;
use types::{TenantId, Timestamp};

/// How long notes are told again before they are looked for anew.
const NOTES_FRESH: Duration = Duration::from_secs(20);
/// Tenants whose notes are remembered so long.
const NOTES_TENANTS_MAX: usize = 64;
/// Routes that notes are looked for in.
const NOTES_ROUTES_MAX: usize = 4_000;
/// Reports that are put together at a time: each may read much.
const READERS_MAX: usize = 2;

/// The notes of a tenant, or of all, and when they were looked for.
type KnownNotes = HashMap<Option<TenantId>, (Timestamp, Vec<Note>)>;

/// How traffic is counted.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// How often what was counted is written to the store: what a node that is killed may lose,
    /// and how late other nodes see it. 1s to 1m.
    #[serde(with = "types::duration")]
    pub flush_interval: Duration,
    /// Which requests are logged.
    pub log: LogConfig,
}

impl Default for Config {
    fn default() -> Self {
        // A few records of some ten KiB each time: little to write, and little to lose.
        Self { flush_interval: Duration::from_secs(5), log: LogConfig::default() }
    }
}

impl Config {
    /// Refuses what makes no sense.
    ///
    /// # Errors
    /// What to change.
    pub fn check(&self) -> Result<(), String> {
        if !(Duration::from_secs(1)..=Duration::from_secs(60)).contains(&self.flush_interval) {
            return Err("`analytics.flush_interval` must be 1s to 1m".into());
        }
        self.log.check()
    }
}

/// Traffic: of this node, and what [`History`] keeps of all of them.
#[derive(Debug)]
pub struct Analytics {
    flush_interval: Duration,
    names: Names,
    totals: Mutex<Totals>,
    logging: Logging,
    log: Log,
    unlogged: AtomicU64,
    kept: OnceLock<Kept>,
    notes: Mutex<KnownNotes>,
    readers: Semaphore,
}

impl Default for Analytics {
    fn default() -> Self {
        Self::new(&Config::default())
    }
}

impl Analytics {
    /// Nothing is counted yet.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        Self {
            flush_interval: config.flush_interval,
            names: Names::default(),
            totals: Mutex::default(),
            logging: Logging::new(&config.log),
            log: Log::new(&config.log),
            unlogged: AtomicU64::new(0),
            kept: OnceLock::new(),
            notes: Mutex::default(),
            readers: Semaphore::new(READERS_MAX),
        }
    }

    /// The number of a route to a service that belongs to no realm; the same names always get the
    /// same one.
    #[must_use]
    pub fn route(&self, route: &str, service: &str) -> RouteId {
        self.route_in(route, service, None)
    }

    /// As [`Self::route`], of a service of `realm`.
    #[must_use]
    pub fn route_in(&self, route: &str, service: &str, realm: Option<&str>) -> RouteId {
        self.names.number(route, service, realm)
    }

    /// The names of a route.
    #[must_use]
    pub fn name(&self, route: RouteId) -> RouteName {
        self.names.name(route)
    }

    /// A recorder for one core.
    #[must_use]
    pub fn recorder(self: &Arc<Self>) -> Recorder {
        Recorder::new(self.clone())
    }

    /// Moves on to `now`. Call it once a second, after the recorders' flush.
    pub fn tick(&self, now: Timestamp) {
        self.totals.lock().move_on(now, &self.names);
    }

    /// The traffic of a period, of all nodes.
    pub async fn report(&self, ask: &Ask, now: Timestamp) -> Report {
        let mut notes = self.notes(ask.tenant.as_ref(), now).await;
        notes.retain(|note| {
            let Episode { begin, end, .. } = note.episode;
            begin.0 < ask.period.to && end.is_none_or(|end| end.0 > ask.period.from)
        });
        let mut sum = Sum::new(ask);
        let complete = self.each_span(&ask.period, |start, span| sum.add(start, span)).await;
        sum.report(&self.names.all(), complete, notes)
    }

    /// What was out of the ordinary in the last two hours: of one tenant's traffic, or of all.
    pub async fn notes(&self, tenant: Option<&TenantId>, now: Timestamp) -> Vec<Note> {
        let tenant = tenant.cloned();
        if let Some((at, notes)) = self.notes.lock().get(&tenant)
            && now >= *at
            && now.since(*at) < NOTES_FRESH
        {
            return notes.clone();
        }
        let found = self.find_notes(tenant.as_ref(), now).await;
        let mut known = self.notes.lock();
        if known.len() >= NOTES_TENANTS_MAX {
            known.clear();
        }
        known.insert(tenant, (now, found.clone()));
        found
    }

    async fn find_notes(&self, tenant: Option<&TenantId>, now: Timestamp) -> Vec<Note> {
        let mut routes: HashMap<RouteId, Vec<Minute>> = HashMap::new();
        let mut minute: (u64, HashMap<RouteId, Counts>) = (0, HashMap::new());
        let mut close = |(start, counted): (u64, HashMap<RouteId, Counts>)| {
            for (route, counts) in counted {
                let has_room = routes.len() < NOTES_ROUTES_MAX || routes.contains_key(&route);
                if counts.usage.requests >= notes::REQUESTS_MIN && has_room {
                    routes.entry(route).or_default().push(Minute::of(start, &counts));
                }
            }
        };
        // All that lives of nodes have of a minute comes together.
        let period = Period::whole_minutes(now);
        self.each_span(&period, |start, span| {
            if start != minute.0 {
                close(std::mem::replace(&mut minute, (start, HashMap::new())));
            }
            for ((route, owner), counts) in &span.routes {
                if tenant.is_none() || owner.as_ref() == tenant {
                    minute.1.entry(*route).or_default().add(counts);
                }
            }
        })
        .await;
        close(minute);
        let mut found = Vec::new();
        for (route, minutes) in routes {
            for what in [What::Errors, What::Latency] {
                for episode in notes::episodes(&minutes, what, period.to) {
                    let RouteName { route, service, .. } = self.names.name(route);
                    found.push(Note { route, service, episode });
                }
            }
        }
        found.sort_by(|a, b| {
            let (one, other) = (&a.episode, &b.episode);
            (other.begin, &a.route, one.what).cmp(&(one.begin, &b.route, other.what))
        });
        found
    }

    /// Hands on what there is of a period, in memory and in the store, in order of time and a part at
    /// a time; whether the store could be read.
    async fn each_span(&self, period: &Period, mut with: impl FnMut(u64, Span)) -> bool {
        let _one = self.readers.acquire().await;
        let mut held = self.totals.lock().of(period, &self.names);
        held.sort_by_key(|piece| piece.start);
        let mut complete = true;
        for block in period.blocks() {
            let stored = match (self.kept(), complete) {
                (Some(kept), true) => kept.read(period, block, &held).await,
                (Some(_), false) | (None, _) => Ok(Vec::new()),
            };
            let mut spans = stored.unwrap_or_else(|error| {
                tracing::warn!(%error, "traffic of other nodes and of earlier cannot be read");
                complete = false;
                Vec::new()
            });
            let own = held.iter().filter(|piece| period.width.block_of(piece.start) == block);
            spans.extend(own.map(|piece| (piece.start, piece.bytes.clone())));
            spans.sort_by_key(|(start, _)| *start);
            for (start, bytes) in spans {
                if let Some(span) = record::decode(&bytes, &self.names) {
                    with(start, span);
                }
                tokio::task::yield_now().await;
            }
        }
        complete
    }

    /// What is logged of this node.
    #[must_use]
    pub fn logged(&self, filter: &Filter) -> Logged {
        Logged { requests: self.log.find(filter), dropped: self.unlogged.load(Relaxed) }
    }

    /// Everything since the node started, per route and service, over all tenants.
    #[must_use]
    pub fn since_start(&self) -> Vec<(RouteName, Figures, Histogram)> {
        let routes = self.names.all();
        let totals = self.totals.lock();
        let of = |(number, name): (usize, RouteName)| {
            let route = RouteId(number as u32);
            let counts = totals.since_start.get(&route).cloned().unwrap_or_default();
            (name, Figures::of(&counts, Duration::ZERO), counts.latency)
        };
        routes.into_iter().enumerate().map(of).collect()
    }

    /// The same, per instance.
    #[must_use]
    pub fn instances_since_start(&self) -> Vec<InstanceFigures> {
        let totals = self.totals.lock();
        let instances = totals.instances.iter().map(|(name, counts)| InstanceFigures {
            service: name.service.clone(),
            instance: name.instance.clone(),
            figures: Figures::of(counts, Duration::ZERO),
        });
        let mut instances: Vec<InstanceFigures> = instances.collect();
        instances.sort_by(|a, b| (&a.service, &a.instance).cmp(&(&b.service, &b.instance)));
        instances
    }

    /// Requests that could neither be written to the store nor be held until it came back.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.totals.lock().lost
    }

    fn logging(&self) -> &Logging {
        &self.logging
    }

    /// Takes over what a core has counted, and empties it.
    fn merge(&self, counted: &mut Counted) {
        let lines = std::mem::take(&mut counted.logged);
        self.unlogged.fetch_add(counted.unlogged, Relaxed);
        let now = {
            let mut totals = self.totals.lock();
            totals.merge(counted, &self.names);
            totals.now()
        };
        self.log.add(lines.into_iter().map(|(route, entry)| {
            let RouteName { route, service, .. } = self.names.name(route);
            Entry { at: now, route, service, ..entry }
        }));
    }

    fn flush_interval(&self) -> Duration {
        self.flush_interval
    }

    fn keep_in(&self, kept: Kept) {
        // Whoever is first keeps it.
        let _ = self.kept.set(kept);
    }

    fn kept(&self) -> Option<&Kept> {
        self.kept.get()
    }

    fn unwritten(&self) -> Vec<Piece> {
        self.totals.lock().unwritten(&self.names)
    }

    fn is_written(&self, piece: &Piece) {
        self.totals.lock().is_written(piece);
    }
}

#[cfg(test)]
mod tests;

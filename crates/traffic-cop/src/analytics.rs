//! Traffic analytics: counters and latency histograms per route, service and tenant.
//!
//! Each core counts for itself ([`Recorder`], no atomics and no locks) and hands over what
//! it counted every second; [`Analytics`] adds it up into one ring of seconds and one of
//! minutes. Labels come from configuration and credentials only, and their number is
//! bounded; what is beyond the bound counts as `other`. [`History`] adds up what several nodes
//! counted.

mod histogram;
mod history;
mod packed;
mod ring;

pub use histogram::Histogram;
pub use history::History;
pub use ring::{Figures, Range, Report, RouteFigures};

use crate::analytics::ring::{Rings, Slot};
use ahash::RandomState;
use indexmap::{Equivalent, IndexSet};
use parking_lot::Mutex;
use std::{
    cell::RefCell,
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};
use types::{TenantId, Timestamp};

/// Tenants that are counted by name; the rest count as one.
const TENANTS_MAX: usize = 1_000;
/// Seconds that wait until other nodes can be told of them; beyond, the oldest are left out.
const UNTOLD_MAX: usize = 300;

/// A route as analytics knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RouteId(u32);

/// One finished request.
#[derive(Debug, Clone, Copy)]
pub struct Sample<'a> {
    /// Which route it took.
    pub route: RouteId,
    /// The caller's tenant, if there was a caller.
    pub tenant: Option<&'a TenantId>,
    /// The HTTP status that the client saw.
    pub status: u16,
    /// From the complete request head to the complete answer.
    pub latency: Duration,
    /// Bytes of the request's body.
    pub bytes_in: u64,
    /// Bytes of the answer's body.
    pub bytes_out: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Label {
    route: RouteId,
    tenant: Option<TenantId>,
}

/// What was counted for one label.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Counts {
    pub(crate) by_class: [u64; 6],
    pub(crate) limited: u64,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    pub(crate) latency: Histogram,
}

impl Counts {
    fn add_sample(&mut self, sample: &Sample<'_>) {
        self.by_class[usize::from(sample.status / 100).min(5)] += 1;
        self.limited += u64::from(sample.status == 429);
        self.bytes_in += sample.bytes_in;
        self.bytes_out += sample.bytes_out;
        self.latency.record(sample.latency);
    }

    pub(crate) fn add(&mut self, other: &Self) {
        for (sum, more) in self.by_class.iter_mut().zip(other.by_class) {
            *sum += more;
        }
        self.limited += other.limited;
        self.bytes_in += other.bytes_in;
        self.bytes_out += other.bytes_out;
        self.latency.add(&other.latency);
    }

    pub(crate) fn requests(&self) -> u64 {
        self.by_class.iter().sum()
    }
}

/// The name and service of a route.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RouteName {
    /// The route's name in the configuration.
    pub route: Arc<str>,
    /// The service that it leads to.
    pub service: Arc<str>,
}

/// Hashed as a [`RouteName`] is.
impl Equivalent<RouteName> for (&str, &str) {
    fn equivalent(&self, name: &RouteName) -> bool {
        *self.0 == *name.route && *self.1 == *name.service
    }
}

/// Traffic: of this node, and what [`History`] adds.
#[derive(Debug, Default)]
pub struct Analytics {
    /// The place of each is its number.
    routes: Mutex<IndexSet<RouteName, RandomState>>,
    totals: Mutex<Totals>,
}

#[derive(Debug, Default)]
struct Totals {
    since_start: HashMap<Label, Counts, RandomState>,
    tenants: HashSet<TenantId>,
    rings: Rings,
    /// What other nodes are to be told, if there is anybody who does.
    untold: Option<VecDeque<(Timestamp, Slot)>>,
}

impl Totals {
    /// The label to count under: the number of tenants is bounded.
    fn bounded(&mut self, mut label: Label) -> Label {
        if let Some(tenant) = &label.tenant
            && !self.tenants.contains(tenant)
        {
            if self.tenants.len() < TENANTS_MAX {
                self.tenants.insert(tenant.clone());
            } else {
                label.tenant = None;
            }
        }
        label
    }
}

impl Analytics {
    /// The number of a route; the same names always get the same one.
    #[must_use]
    pub fn route(&self, route: &str, service: &str) -> RouteId {
        let mut routes = self.routes.lock();
        let at = routes.get_index_of(&(route, service)).unwrap_or_else(|| {
            let name = RouteName { route: route.into(), service: service.into() };
            routes.insert_full(name).0
        });
        RouteId(u32::try_from(at).expect("fewer routes than 2^32"))
    }

    /// A recorder for one core.
    #[must_use]
    pub fn recorder(self: &Arc<Self>) -> Recorder {
        Recorder { node: self.clone(), counted: RefCell::default() }
    }

    /// Moves the rings on to `now`. Call it once a second, after the recorders' flush.
    pub fn tick(&self, now: Timestamp) {
        let mut totals = self.totals.lock();
        let counted = totals.rings.tick(now);
        if let Some(untold) = &mut totals.untold
            && !counted.is_empty()
        {
            untold.push_back((now, counted));
            if untold.len() > UNTOLD_MAX {
                untold.pop_front();
            }
        }
    }

    /// The traffic of the last `range` up to `now`: of one tenant, or of all of them.
    #[must_use]
    pub fn report(&self, range: Range, now: Timestamp, tenant: Option<&TenantId>) -> Report {
        let routes = self.names();
        let totals = self.totals.lock();
        ring::report(&totals.rings, &routes, range, now, tenant)
    }

    /// Everything since the node started, per route and service, over all tenants.
    #[must_use]
    pub fn since_start(&self) -> Vec<(RouteName, Figures, Histogram)> {
        let routes = self.names();
        let totals = self.totals.lock();
        let mut by_route: Vec<Counts> = vec![Counts::default(); routes.len()];
        for (label, counts) in &totals.since_start {
            by_route[label.route.0 as usize].add(counts);
        }
        let figures = |counts: Counts| (Figures::of(&counts), counts.latency);
        routes
            .into_iter()
            .zip(by_route)
            .map(|(name, counts)| {
                let (figures, latency) = figures(counts);
                (name, figures, latency)
            })
            .collect()
    }

    fn merge(&self, counted: &mut HashMap<Label, Counts, RandomState>) {
        let mut totals = self.totals.lock();
        let totals = &mut *totals;
        for (label, counts) in counted.drain() {
            let label = totals.bounded(label);
            totals.since_start.entry(label.clone()).or_default().add(&counts);
            totals.rings.add(label, &counts);
        }
    }

    fn names(&self) -> Vec<RouteName> {
        self.routes.lock().iter().cloned().collect()
    }

    fn name(&self, route: RouteId) -> RouteName {
        self.routes.lock()[route.0 as usize].clone()
    }

    fn keep_for_others(&self) {
        self.totals.lock().untold = Some(VecDeque::new());
    }

    fn next_for_others(&self) -> Option<(Timestamp, Slot)> {
        self.totals.lock().untold.as_mut()?.pop_front()
    }

    fn again_for_others(&self, at: Timestamp, slot: Slot) {
        if let Some(untold) = &mut self.totals.lock().untold {
            untold.push_front((at, slot));
        }
    }

    fn add_of_others(&self, at: Timestamp, slot: Slot) {
        let mut totals = self.totals.lock();
        let mut bounded = Slot::default();
        for (label, counts) in slot {
            bounded.entry(totals.bounded(label)).or_default().add(&counts);
        }
        totals.rings.add_second(at, &bounded);
    }
}

/// Counts the requests of one core.
#[derive(Debug)]
pub struct Recorder {
    node: Arc<Analytics>,
    counted: RefCell<HashMap<Label, Counts, RandomState>>,
}

impl Recorder {
    /// Counts one request.
    pub fn record(&self, sample: &Sample<'_>) {
        let label = Label { route: sample.route, tenant: sample.tenant.cloned() };
        self.counted.borrow_mut().entry(label).or_default().add_sample(sample);
    }

    /// Hands over what was counted. Call it each second, and before the core ends.
    pub fn flush(&self) {
        self.node.merge(&mut self.counted.borrow_mut());
    }
}

#[cfg(test)]
mod tests;

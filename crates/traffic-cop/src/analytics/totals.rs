//! What this life of the node has counted.

use crate::analytics::{
    figures::Counts,
    names::{Names, RouteId},
    period::{Period, SLICE, WIDTHS},
    recorder::{Counted, consumer},
    ring::{Piece, Ring},
    span::{InstanceName, Span},
};
use ahash::RandomState;
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};
use types::{TenantId, Timestamp};

/// Tenants that are counted by name; the rest count as one.
const TENANTS_MAX: usize = 1_000;
/// Instances that are counted by name since the start.
const INSTANCES_MAX: usize = 1_000;

/// What was counted for a tenant since somebody last asked, by route.
pub(super) type Second = HashMap<RouteId, Counts, RandomState>;

#[derive(Debug)]
pub(super) struct Totals {
    pub(super) since_start: HashMap<RouteId, Counts, RandomState>,
    pub(super) instances: HashMap<InstanceName, Counts, RandomState>,
    tenants: HashSet<TenantId>,
    /// What belongs to the slice of `at` and is in no ring yet.
    pending: Span,
    at: Timestamp,
    now: Timestamp,
    rings: [Ring; 3],
    /// Which count of this life it is.
    count: u32,
    /// Requests that could neither be written nor held any longer.
    pub(super) lost: u64,
    /// Tenants whose figures somebody follows.
    pub(super) followed: HashMap<TenantId, Second, RandomState>,
}

impl Default for Totals {
    fn default() -> Self {
        Self {
            since_start: HashMap::default(),
            instances: HashMap::default(),
            tenants: HashSet::new(),
            pending: Span::default(),
            at: Timestamp::default(),
            now: Timestamp::default(),
            rings: WIDTHS.map(Ring::new),
            count: 0,
            lost: 0,
            followed: HashMap::default(),
        }
    }
}

impl Totals {
    /// Adds what a core has counted, and empties it.
    pub(super) fn merge(&mut self, counted: &mut Counted, names: &Names) {
        let tenants: Vec<Option<TenantId>> =
            counted.tenants.iter().map(|tenant| self.bounded(tenant.as_ref())).collect();
        let of = |number: u32| tenants[number as usize].clone();
        for ((route, tenant), counts) in &counted.routes {
            self.since_start.entry(*route).or_default().add(counts);
            let tenant = of(*tenant);
            let followed = tenant.as_ref().and_then(|tenant| self.followed.get_mut(tenant));
            if let Some(second) = followed {
                second.entry(*route).or_default().add(counts);
            }
            self.pending.add_route(*route, tenant, counts);
        }
        let mut services: HashMap<RouteId, Arc<str>, RandomState> = HashMap::default();
        for ((route, _), (authority, counts)) in &counted.instances {
            let service = services.entry(*route).or_insert_with(|| names.name(*route).service);
            let name = InstanceName { service: service.clone(), instance: authority.clone() };
            if self.instances.len() < INSTANCES_MAX || self.instances.contains_key(&name) {
                self.instances.entry(name.clone()).or_default().add(counts);
            }
            self.pending.add_instance(name, counts);
        }
        for ((tenant, pillar), counts) in &counted.pillars {
            if let Some(tenant) = of(*tenant) {
                self.pending.add_pillar(tenant, pillar.clone(), counts);
            }
        }
        // Those of tenants beyond the bound as well: consumers have a bound of their own.
        for (caller, _, usage) in counted.callers.values() {
            self.pending.add_consumer(&consumer(caller), usage);
            if let Some(session) = caller.session {
                self.pending.sessions.add(&(caller.tenant.clone(), session), usage);
            }
        }
        for (endpoint, usage) in counted.endpoints.values() {
            self.pending.endpoints.add(endpoint, usage);
        }
        counted.clear();
    }

    /// The tenant to count under: their number is bounded.
    fn bounded(&mut self, tenant: Option<&TenantId>) -> Option<TenantId> {
        let tenant = tenant?;
        if !self.tenants.contains(tenant) {
            if self.tenants.len() >= TENANTS_MAX {
                return None;
            }
            self.tenants.insert(tenant.clone());
        }
        Some(tenant.clone())
    }

    /// Moves on to `now`: what comes from now on belongs to its slice.
    pub(super) fn move_on(&mut self, now: Timestamp, names: &Names) {
        self.now = now;
        if SLICE.start(now) != SLICE.start(self.at) {
            // What was counted before the first time was told belongs to it.
            if self.at == Timestamp::default() {
                self.at = now;
            }
            self.fold(names);
            self.at = now;
        }
    }

    /// The time that was told last.
    pub(super) fn now(&self) -> Timestamp {
        self.now
    }

    /// Adds what is pending to the rings.
    pub(super) fn fold(&mut self, names: &Names) {
        if self.pending.is_empty() {
            return;
        }
        let (at, count) = (self.at, self.count);
        if self.rings.iter().any(|ring| ring.has_forgotten(at, count)) {
            self.count += 1;
        }
        let pending = std::mem::take(&mut self.pending);
        for ring in &mut self.rings {
            self.lost += ring.add(at, self.count, &pending, names);
        }
    }

    pub(super) fn unwritten(&mut self, names: &Names) -> Vec<Piece> {
        self.fold(names);
        self.rings.iter().flat_map(|ring| ring.unwritten(names)).collect()
    }

    pub(super) fn is_written(&mut self, piece: &Piece) {
        for (ring, width) in self.rings.iter_mut().zip(WIDTHS) {
            if width == piece.width {
                ring.is_written(piece);
            }
        }
    }

    pub(super) fn of(&mut self, period: &Period, names: &Names) -> Vec<Piece> {
        self.fold(names);
        let rings = self.rings.iter().zip(WIDTHS);
        let fitting = rings.filter(|(_, width)| *width == period.width);
        fitting.flat_map(|(ring, _)| ring.of(period, names)).collect()
    }
}

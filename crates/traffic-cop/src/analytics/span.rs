//! What was counted in a span of time. Spans add up.

use crate::analytics::{
    distinct::Distinct,
    figures::{Counts, Usage},
    names::RouteId,
    top::Top,
};
use ahash::RandomState;
use std::{
    collections::HashMap,
    hash::{Hash, Hasher},
    sync::Arc,
};
use types::{Pillar, PrincipalId, PrincipalKind, SessionId, TenantId};
use xxhash_rust::xxh3::Xxh3;

/// Lines of a span beyond which tenants of a route count as one: routes come from the
/// configuration, and so do not multiply.
const LINES_MAX: usize = 4_096;
const INSTANCES_MAX: usize = 1_000;
const PILLARS_MAX: usize = 1_000;
/// Tenants whose users are told apart by tenant.
const TENANTS_OF_USERS_MAX: usize = 64;

/// A user, agent or service of a tenant.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Consumer {
    pub(super) tenant: TenantId,
    pub(super) id: PrincipalId,
    /// Its number in [`KINDS`].
    pub(super) kind: u8,
}

pub(super) const KINDS: [PrincipalKind; 3] =
    [PrincipalKind::User, PrincipalKind::Agent, PrincipalKind::Service];

impl Consumer {
    pub(super) fn new(tenant: &TenantId, kind: PrincipalKind, id: &PrincipalId) -> Self {
        let kind = match kind {
            PrincipalKind::User => 0,
            PrincipalKind::Agent => 1,
            PrincipalKind::Service => 2,
        };
        Self { tenant: tenant.clone(), id: id.clone(), kind }
    }

    /// The same on every node and in every life.
    fn stable_hash(&self) -> u64 {
        let mut hasher = Xxh3::new();
        hasher.write(self.tenant.as_str().as_bytes());
        hasher.write_u8(b'/');
        hasher.write_u8(self.kind);
        hasher.write(self.id.as_str().as_bytes());
        hasher.finish()
    }
}

/// What is asked of a route.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Endpoint {
    pub(super) route: RouteId,
    pub(super) tenant: Option<TenantId>,
    pub(super) method: Arc<str>,
    pub(super) pattern: Arc<str>,
}

/// An instance of a service.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct InstanceName {
    pub(super) service: Arc<str>,
    pub(super) instance: Arc<str>,
}

pub(super) type Lines<K> = HashMap<K, Counts, RandomState>;

/// Which users there were.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Users {
    pub(super) all: Distinct,
    pub(super) by_tenant: HashMap<TenantId, Distinct, RandomState>,
}

impl Users {
    fn add(&mut self, consumer: &Consumer) {
        let hash = consumer.stable_hash();
        self.all.add(hash);
        if let Some(of_tenant) = self.of(&consumer.tenant) {
            of_tenant.add(hash);
        }
    }

    fn of(&mut self, tenant: &TenantId) -> Option<&mut Distinct> {
        if self.by_tenant.len() >= TENANTS_OF_USERS_MAX && !self.by_tenant.contains_key(tenant) {
            return None;
        }
        Some(self.by_tenant.entry(tenant.clone()).or_default())
    }

    pub(super) fn merge(&mut self, other: &Self) {
        self.all.merge(&other.all);
        for (tenant, users) in &other.by_tenant {
            if let Some(own) = self.of(tenant) {
                own.merge(users);
            }
        }
    }
}

/// What was counted.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Span {
    pub(super) routes: Lines<(RouteId, Option<TenantId>)>,
    pub(super) instances: Lines<InstanceName>,
    pub(super) pillars: Lines<(TenantId, Pillar)>,
    pub(super) consumers: Top<Consumer>,
    pub(super) sessions: Top<(TenantId, SessionId)>,
    pub(super) endpoints: Top<Endpoint>,
    pub(super) users: Users,
}

impl Span {
    pub(super) fn is_empty(&self) -> bool {
        self.routes.is_empty()
    }

    pub(super) fn add_route(&mut self, route: RouteId, tenant: Option<TenantId>, counts: &Counts) {
        let mut label = (route, tenant);
        if self.routes.len() >= LINES_MAX && !self.routes.contains_key(&label) {
            label.1 = None;
        }
        self.routes.entry(label).or_default().add(counts);
    }

    pub(super) fn add_instance(&mut self, name: InstanceName, counts: &Counts) {
        add_bounded(&mut self.instances, name, counts, INSTANCES_MAX);
    }

    pub(super) fn add_pillar(&mut self, tenant: TenantId, pillar: Pillar, counts: &Counts) {
        add_bounded(&mut self.pillars, (tenant, pillar), counts, PILLARS_MAX);
    }

    pub(super) fn add_consumer(&mut self, consumer: &Consumer, usage: &Usage) {
        self.users.add(consumer);
        self.consumers.add(consumer, usage);
    }

    pub(super) fn add(&mut self, other: &Self) {
        for ((route, tenant), counts) in &other.routes {
            self.add_route(*route, tenant.clone(), counts);
        }
        for (name, counts) in &other.instances {
            self.add_instance(name.clone(), counts);
        }
        for ((tenant, pillar), counts) in &other.pillars {
            self.add_pillar(tenant.clone(), pillar.clone(), counts);
        }
        self.consumers.merge(&other.consumers);
        self.sessions.merge(&other.sessions);
        self.endpoints.merge(&other.endpoints);
        self.users.merge(&other.users);
    }
}

/// What is beyond the bound is left out: routes and tenants have all of it.
fn add_bounded<K: Eq + Hash>(lines: &mut Lines<K>, label: K, counts: &Counts, max: usize) {
    if lines.len() < max || lines.contains_key(&label) {
        lines.entry(label).or_default().add(counts);
    }
}

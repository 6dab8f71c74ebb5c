//! Counting the requests of one core: no lock, and no memory taken for a request that is like
//! another of the same second.

use crate::analytics::{
    Analytics,
    figures::{Counts, Usage},
    log::Entry,
    names::RouteId,
    pattern::{self, PathPattern},
    span::{Consumer, Endpoint},
};
use ahash::RandomState;
use indexmap::IndexSet;
use std::{
    cell::RefCell,
    collections::HashMap,
    hash::{BuildHasher, Hash, Hasher},
    sync::Arc,
    time::Duration,
};
use types::{Caller, Pillar, TenantId};

/// Callers and endpoints that a core counts before it hands over what it has, though the second is
/// not over.
const CALLERS_MAX: usize = 2_048;
const ENDPOINTS_MAX: usize = 2_048;
/// Lines of the log that a core keeps for a second.
const LOGGED_MAX: usize = 512;

/// One finished request.
#[derive(Debug, Clone, Copy)]
pub struct Sample<'a> {
    /// Which route it took.
    pub route: RouteId,
    /// Who asked, if that is known.
    pub caller: Option<&'a Arc<Caller>>,
    /// Which instance answered, if one did: its number, and its host and port.
    pub instance: Option<(u64, &'a str)>,
    /// What was asked for, if it was a request at all.
    pub asked: Option<Asked<'a>>,
    /// The HTTP status that the client saw.
    pub status: u16,
    /// From the complete request head to the complete answer.
    pub latency: Duration,
    /// Bytes of the request's body.
    pub bytes_in: u64,
    /// Bytes of the answer's body.
    pub bytes_out: u64,
    /// What identifies it in logs.
    pub trace: &'a str,
    /// Why the gateway refused it, if it did.
    pub code: Option<&'static str>,
}

/// What was asked for.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// The method.
    pub method: &'a str,
    /// The path.
    pub path: &'a str,
    /// What paths of the route look like, if it says so.
    pub pattern: Option<&'a PathPattern>,
    /// What follows the path.
    pub query: Option<&'a str>,
}

/// What a core has counted since it last handed over.
#[derive(Debug, Default)]
pub(super) struct Counted {
    /// By route and number of the tenant.
    pub(super) routes: HashMap<(RouteId, u32), Counts, RandomState>,
    pub(super) tenants: IndexSet<Option<TenantId>, RandomState>,
    /// By route and instance, with the instance's address.
    pub(super) instances: HashMap<(RouteId, u64), (Arc<str>, Counts), RandomState>,
    pub(super) pillars: HashMap<(u32, Pillar), Counts, RandomState>,
    /// By the address of the caller, who is held so that nobody else gets it.
    pub(super) callers: HashMap<usize, (Arc<Caller>, u32, Usage), RandomState>,
    /// By a hash of route, tenant, method and pattern.
    pub(super) endpoints: HashMap<u64, (Endpoint, Usage), RandomState>,
    pub(super) logged: Vec<(RouteId, Entry)>,
    pub(super) unlogged: u64,
    hashing: RandomState,
}

impl Counted {
    fn add(&mut self, sample: &Sample<'_>) {
        let usage = Usage::one(sample.status, sample.bytes_in, sample.bytes_out);
        let tenant = match sample.caller {
            None => self.tenant(None),
            Some(caller) => self.add_caller(caller, &usage, sample.latency),
        };
        self.routes.entry((sample.route, tenant)).or_default().add_one(&usage, sample.latency);
        if let Some((number, authority)) = sample.instance {
            let (_, counts) = self
                .instances
                .entry((sample.route, number))
                .or_insert_with(|| (authority.into(), Counts::default()));
            counts.add_one(&usage, sample.latency);
        }
        if let Some(asked) = &sample.asked {
            self.add_endpoint(sample, asked, tenant, &usage);
        }
    }

    fn tenant(&mut self, tenant: Option<&TenantId>) -> u32 {
        self.tenants.insert_full(tenant.cloned()).0 as u32
    }

    fn add_caller(&mut self, caller: &Arc<Caller>, usage: &Usage, latency: Duration) -> u32 {
        let address = Arc::as_ptr(caller) as usize;
        let number = match self.callers.get_mut(&address) {
            Some((_, tenant, used)) => {
                used.add(usage);
                *tenant
            }
            None => {
                let tenant = self.tenant(Some(&caller.tenant));
                self.callers.insert(address, (Arc::clone(caller), tenant, *usage));
                tenant
            }
        };
        for pillar in caller.pillars.iter() {
            self.pillars.entry((number, pillar.clone())).or_default().add_one(usage, latency);
        }
        number
    }

    fn add_endpoint(&mut self, sample: &Sample<'_>, asked: &Asked<'_>, tenant: u32, usage: &Usage) {
        let mut hasher = self.hashing.build_hasher();
        (sample.route, tenant, asked.method).hash(&mut hasher);
        match asked.pattern {
            Some(known) => known.hash.hash(&mut hasher),
            None => pattern::hash(asked.path, &mut hasher),
        }
        let (_, used) = self.endpoints.entry(hasher.finish()).or_insert_with(|| {
            let endpoint = Endpoint {
                route: sample.route,
                tenant: sample.caller.map(|caller| caller.tenant.clone()),
                method: asked.method.into(),
                pattern: match asked.pattern {
                    Some(known) => Arc::clone(&known.text),
                    None => pattern::pattern(asked.path).into(),
                },
            };
            (endpoint, Usage::default())
        });
        used.add(usage);
    }

    fn log(&mut self, sample: &Sample<'_>) {
        if self.logged.len() < LOGGED_MAX {
            self.logged.push((sample.route, Entry::of(sample)));
        } else {
            self.unlogged += 1;
        }
    }

    fn is_full(&self) -> bool {
        self.callers.len() >= CALLERS_MAX || self.endpoints.len() >= ENDPOINTS_MAX
    }

    /// Everything is as at first; the tables keep their room.
    pub(super) fn clear(&mut self) {
        self.routes.clear();
        self.tenants.clear();
        self.instances.clear();
        self.pillars.clear();
        self.callers.clear();
        self.endpoints.clear();
        self.logged.clear();
        self.unlogged = 0;
    }
}

/// Who is meant by a caller.
pub(super) fn consumer(caller: &Caller) -> Consumer {
    Consumer::new(&caller.tenant, caller.principal.kind, &caller.principal.id)
}

/// Counts the requests of one core.
#[derive(Debug)]
pub struct Recorder {
    node: Arc<Analytics>,
    counted: RefCell<Counted>,
}

impl Recorder {
    pub(super) fn new(node: Arc<Analytics>) -> Self {
        Self { node, counted: RefCell::default() }
    }

    /// Counts one request; `chance` is a random number, by which some are logged.
    pub fn record(&self, sample: &Sample<'_>, chance: u64) {
        let mut counted = self.counted.borrow_mut();
        counted.add(sample);
        if self.node.logging().takes(sample.status, sample.latency, chance) {
            counted.log(sample);
        }
        if counted.is_full() {
            self.node.merge(&mut counted);
        }
    }

    /// Hands over what was counted. Call it each second, and before the core ends.
    pub fn flush(&self) {
        self.node.merge(&mut self.counted.borrow_mut());
    }
}

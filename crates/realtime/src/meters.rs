//! What passes through the connections of this node, counted by tenant since its start.

use crate::closings::Closings;
use ahash::RandomState;
use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};
use traffic_cop::totals::Passed;
use types::TenantId;

/// What passes through a tenant's connections of one core. Only that core's thread counts, so that
/// it costs no more than memory of its own.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    messages_in: AtomicU64,
    bytes_in: AtomicU64,
    messages_out: AtomicU64,
    bytes_out: AtomicU64,
    closings: Closings,
}

impl Meter {
    /// A message of a client came.
    pub(crate) fn received(&self, bytes: usize) {
        add(&self.messages_in, 1);
        add(&self.bytes_in, bytes as u64);
    }

    /// A reply or push was written, or queued.
    pub(crate) fn sent(&self, bytes: usize) {
        add(&self.messages_out, 1);
        add(&self.bytes_out, bytes as u64);
    }

    /// A connection has ended.
    pub(crate) fn closed(&self, code: u16, why: &'static str) {
        self.closings.count(code, why);
    }

    fn passed(&self) -> Passed {
        Passed {
            messages_in: self.messages_in.load(Relaxed),
            bytes_in: self.bytes_in.load(Relaxed),
            messages_out: self.messages_out.load(Relaxed),
            bytes_out: self.bytes_out.load(Relaxed),
        }
    }
}

/// One thread adds.
fn add(counter: &AtomicU64, more: u64) {
    counter.store(counter.load(Relaxed) + more, Relaxed);
}

/// The meters of all tenants that have had a connection here, by core.
#[derive(Default)]
pub(crate) struct Meters(Mutex<HashMap<TenantId, BTreeMap<usize, Arc<Meter>>, RandomState>>);

impl Meters {
    /// That of a tenant on a core.
    pub(crate) fn of(&self, tenant: &TenantId, core: usize) -> Arc<Meter> {
        let mut meters = self.0.lock();
        if let Some(meter) = meters.get(tenant).and_then(|of| of.get(&core)) {
            return meter.clone();
        }
        let of_tenant = meters.entry(tenant.clone()).or_default();
        of_tenant.entry(core).or_default().clone()
    }

    /// What has passed through a tenant's connections, and how those ended that did.
    pub(crate) fn read(&self, tenant: &TenantId) -> (Passed, BTreeMap<u16, u64>) {
        let meters = self.0.lock();
        let (mut passed, mut closings) = (Passed::default(), BTreeMap::new());
        for meter in meters.get(tenant).into_iter().flat_map(BTreeMap::values) {
            passed = passed.and(meter.passed());
            for (code, _, count) in meter.closings.all() {
                *closings.entry(code).or_default() += count;
            }
        }
        (passed, closings)
    }

    /// What has passed through everybody's.
    pub(crate) fn all(&self) -> Passed {
        let meters = self.0.lock();
        let all = meters.values().flat_map(BTreeMap::values);
        all.fold(Passed::default(), |sum, meter| sum.and(meter.passed()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_is_told_of_its_own_cores_together() {
        let meters = Meters::default();
        let [acme, other] = ["acme", "other"].map(|name| TenantId::new(name).unwrap());
        meters.of(&acme, 0).received(10);
        meters.of(&acme, 1).received(5);
        meters.of(&acme, 1).sent(7);
        meters.of(&acme, 1).closed(3503, "x");
        meters.of(&other, 1).sent(100);
        let (passed, closings) = meters.read(&acme);
        let expected = Passed { messages_in: 2, bytes_in: 15, messages_out: 1, bytes_out: 7 };
        assert_eq!((passed, closings), (expected, BTreeMap::from([(3503, 1)])));
        assert_eq!(meters.all().bytes_out, 107);
        assert_eq!(meters.read(&TenantId::new("none").unwrap()).0, Passed::default());
    }
}

//! How many connections there may be, in all and from one address.

use ahash::AHashMap;
use parking_lot::Mutex;
use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};
use tokio::sync::Notify;
use traffic_cop::limit::network;

/// Counts the connections of a node.
#[derive(Debug)]
pub(crate) struct Admission {
    total: AtomicUsize,
    by_core: Box<[AtomicUsize]>,
    by_address: Mutex<AHashMap<IpAddr, usize>>,
    empty: Notify,
}

impl Admission {
    pub(crate) fn new(cores: usize) -> Arc<Self> {
        Arc::new(Self {
            total: AtomicUsize::new(0),
            by_core: (0..cores).map(|_| AtomicUsize::new(0)).collect(),
            by_address: Mutex::default(),
            empty: Notify::new(),
        })
    }

    pub(crate) fn connections(&self) -> usize {
        self.total.load(Relaxed)
    }

    /// Room for a connection from `ip`, on the least loaded core, or none. Without an address,
    /// it is one of a proxy, which speaks for many.
    pub(crate) fn admit(
        self: &Arc<Self>,
        ip: Option<IpAddr>,
        max: usize,
        per_address_max: usize,
    ) -> Option<Permit> {
        if self.connections() >= max {
            return None;
        }
        let address = ip.map(network);
        if let Some(address) = address
            && !self.count(address, per_address_max)
        {
            return None;
        }
        let loads = self.by_core.iter().enumerate();
        let core = loads.min_by_key(|(_, load)| load.load(Relaxed)).map_or(0, |(core, _)| core);
        self.by_core[core].fetch_add(1, Relaxed);
        self.total.fetch_add(1, Relaxed);
        Some(Permit { admission: Arc::clone(self), address, core })
    }

    /// Counts one more of an address, unless it has as many as it may.
    fn count(&self, address: IpAddr, max: usize) -> bool {
        let mut by_address = self.by_address.lock();
        let count = by_address.entry(address).or_default();
        if *count >= max {
            return false;
        }
        *count += 1;
        true
    }

    fn discount(&self, address: IpAddr) {
        let mut by_address = self.by_address.lock();
        if let Some(count) = by_address.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                by_address.remove(&address);
            }
        }
    }

    /// Waits until there is no connection.
    pub(crate) async fn until_empty(&self) {
        loop {
            let notified = self.empty.notified();
            if self.connections() == 0 {
                return;
            }
            notified.await;
        }
    }
}

/// One connection of the node, for as long as it is held.
#[derive(Debug)]
pub struct Permit {
    admission: Arc<Admission>,
    address: Option<IpAddr>,
    core: usize,
}

impl Permit {
    pub(crate) fn core(&self) -> usize {
        self.core
    }

    /// Counts a proxy's connection for `ip`, from which it comes; false if that one has as many
    /// as it may.
    pub(crate) fn count_for(&mut self, ip: IpAddr, max: usize) -> bool {
        let address = network(ip);
        if self.address.is_some() || !self.admission.count(address, max) {
            return false;
        }
        self.address = Some(address);
        true
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(address) = self.address {
            self.admission.discount(address);
        }
        self.admission.by_core[self.core].fetch_sub(1, Relaxed);
        if self.admission.total.fetch_sub(1, Relaxed) == 1 {
            self.admission.empty.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_cores_are_counted() {
        let admission = Admission::new(2);
        let admit = |ip: &str, max| admission.admit(Some(ip.parse().unwrap()), max, 2);
        let a = admit("2001:db8::1", 3).unwrap();
        let b = admit("2001:db8::2", 3).unwrap();
        assert_ne!(a.core(), b.core());
        assert!(admit("2001:db8::3", 3).is_none(), "one /64 is one address");
        let c = admit("::ffff:10.0.0.1", 3).unwrap();
        assert!(admit("10.0.0.2", 3).is_none(), "the node is full");
        drop((a, b));
        let d = admit("10.0.0.1", 3).unwrap();
        assert!(admit("10.0.0.1", 9).is_none());
        let mut behind = admission.admit(None, 9, 2).unwrap();
        assert!(!behind.count_for("10.0.0.1".parse().unwrap(), 2));
        assert!(behind.count_for("10.0.0.2".parse().unwrap(), 2));
        drop((c, d, behind));
        assert_eq!(admission.connections(), 0);
        assert!(admission.by_address.lock().is_empty());
    }
}

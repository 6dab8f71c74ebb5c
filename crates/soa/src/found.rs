//! Instances that come and go: which of them are members, as found by DNS and as registered.

use crate::{
    balance::Member,
    config::{Scheme, ServiceConfig},
    instance::Instance,
};
use arc_swap::ArcSwap;
use parking_lot::Mutex;
use std::{net::SocketAddr, ops::Deref, sync::Arc, time::Duration};
use tokio::sync::Notify;

/// Instances that DNS may tell of a service; the rest is left out.
pub(crate) const FOUND_MAX: usize = 256;

/// Where it is known from that there is an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The configuration.
    Config,
    /// The DNS.
    Dns,
    /// Whoever registered it, by this id.
    Registered(Arc<str>),
}

impl Origin {
    /// Of two that tell of one address, the lesser counts.
    fn rank(&self) -> u8 {
        match self {
            Self::Config => 0,
            Self::Dns => 1,
            Self::Registered(_) => 2,
        }
    }

    /// Its name.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::Dns => "dns",
            Self::Registered(_) => "registered",
        }
    }
}

/// An instance that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) scheme: Scheme,
    /// What it is called by: the host of `Host`, and what its certificate has to name.
    pub(crate) host: String,
    /// Where it is connected to; nobody looks the host up again.
    pub(crate) address: SocketAddr,
    pub(crate) weight: u32,
    pub(crate) origin: Origin,
}

/// The members of a service at this time.
pub(crate) enum View<'a> {
    Fixed(&'a [Member]),
    Now(Arc<Box<[Member]>>),
}

impl Deref for View<'_> {
    type Target = [Member];

    fn deref(&self) -> &[Member] {
        match self {
            Self::Fixed(members) => members,
            Self::Now(members) => members,
        }
    }
}

/// The members of a service whose instances come and go.
#[derive(Debug)]
pub(crate) struct Changing {
    now: ArcSwap<Box<[Member]>>,
    found: Mutex<Vec<Found>>,
    /// Why the DNS does not tell more.
    pub(crate) trouble: Mutex<Option<String>>,
    /// For the one who checks them.
    pub(crate) changed: Notify,
}

impl Changing {
    /// With nobody but the `fixed` members.
    pub(crate) fn new(fixed: &[Member]) -> Self {
        Self {
            now: ArcSwap::from_pointee(fixed.into()),
            found: Mutex::default(),
            trouble: Mutex::default(),
            changed: Notify::new(),
        }
    }

    /// With the `fixed` members, and those that were found `before` and may stay.
    pub(crate) fn after(fixed: &[Member], before: &Self, stays: impl Fn(&Found) -> bool) -> Self {
        let mut found = before.found.lock().clone();
        found.retain(stays);
        let (members, _) = joined(fixed, &before.members(), &found);
        Self {
            now: ArcSwap::from_pointee(members),
            found: Mutex::new(found),
            trouble: Mutex::default(),
            changed: Notify::new(),
        }
    }

    /// What the DNS told.
    pub(crate) fn dns(&self) -> Vec<Found> {
        let found = self.found.lock();
        found.iter().filter(|found| found.origin == Origin::Dns).cloned().collect()
    }

    pub(crate) fn members(&self) -> Arc<Box<[Member]>> {
        self.now.load_full()
    }

    /// What was found by `origin` is now this. Says who came and who left.
    pub(crate) fn set(
        &self,
        fixed: &[Member],
        config: &ServiceConfig,
        is_its: impl Fn(&Origin) -> bool,
        new: Vec<Found>,
        elapsed: Duration,
    ) -> Change {
        let mut found = self.found.lock();
        found.retain(|found| !is_its(&found.origin));
        found.extend(new);
        found.sort_by_key(|found| found.origin.rank());
        let before = self.members();
        let (members, came) = joined(fixed, &before, &found);
        for instance in &came {
            instance.begin(config.health.is_none(), elapsed);
        }
        let is_gone = |member: &&Member| members.iter().all(|now| !now.is(&member.instance));
        let left = before.iter().filter(is_gone).map(|gone| Arc::clone(&gone.instance)).collect();
        self.now.store(Arc::new(members));
        drop(found);
        let change = Change { came, left };
        if !change.came.is_empty() || !change.left.is_empty() {
            self.changed.notify_one();
        }
        change
    }
}

/// Who came, and who left.
pub(crate) struct Change {
    pub(crate) came: Vec<Arc<Instance>>,
    pub(crate) left: Vec<Arc<Instance>>,
}

/// The `fixed` members and those that were `found`, each address once; whoever was there `before`
/// stays as it is. And who was not.
fn joined(
    fixed: &[Member],
    before: &[Member],
    found: &[Found],
) -> (Box<[Member]>, Vec<Arc<Instance>>) {
    let (mut members, mut came) = (fixed.to_vec(), Vec::new());
    for found in found {
        let Some(instance) = Instance::found(found) else { continue };
        if members.iter().any(|member| member.instance.authority == instance.authority) {
            continue;
        }
        let known = before.iter().find(|member| member.instance.is_same(&instance));
        let instance = match known {
            Some(member) => Arc::clone(&member.instance),
            None => {
                let instance = Arc::new(instance);
                came.push(Arc::clone(&instance));
                instance
            }
        };
        members.push(Member { instance, weight: found.weight, origin: found.origin.clone() });
    }
    (members.into(), came)
}

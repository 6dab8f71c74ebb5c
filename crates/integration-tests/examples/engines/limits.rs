//! Charging shared limits, on a node that owns them.

use crate::{Work, ours, told};
use async_trait::async_trait;
use clock::SharedClock;
use ledger::{Keeper, NodeId};
use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::Duration,
};
use store::SharedStore;
use traffic_cop::limit::{
    Ask, Charge, Grant, Limits, Owners, PLACES, Per, Rule, Shared, Subject, WhenAway, shards,
};

/// How long taking the places over may take.
const SETTLING: Duration = Duration::from_secs(30);

struct Charging {
    charges: Vec<Charge>,
    clock: SharedClock,
}

/// There is one node, which owns every place.
struct Alone;

#[async_trait]
impl Owners for Alone {
    fn nodes(&self) -> u64 {
        1
    }

    fn owner(&self, _: u8) -> Option<String> {
        None
    }

    async fn ask(&self, _: &str, _: Vec<Ask>) -> Result<Vec<Option<Grant>>, String> {
        Err("there is no other node".into())
    }
}

pub(crate) async fn prepare(
    store: SharedStore,
    clock: SharedClock,
    tasks: usize,
) -> Result<Arc<dyn Work>, String> {
    let node = NodeId::draw(&clock);
    let keeper = Keeper::of(shards(), store.clone(), clock.clone(), node, String::new());
    let shared = Shared::new(store, clock.clone(), keeper.clone(), Arc::new(Alone));
    let shared = shared.map_err(told)?;
    tokio::spawn(keeper.run(std::future::pending()));
    tokio::spawn(shared.clone().run());
    let settled = async {
        while shared.figures().owned < usize::from(PLACES) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(SETTLING, settled).await.map_err(|_| "no place has an owner")?;
    let rule = Rule {
        burst: 10_000_000,
        when_away: WhenAway::Refuse,
        ..Rule::new("user", Per::User, 100_000_000, Duration::from_secs(1))
    };
    let limits = Limits::new(vec![rule], shared);
    let mut charges = Vec::new();
    for task in 0..tasks {
        let (tenant, principal) = (ours::tenant()?, ours::principal(&format!("user-{task}"))?);
        let ip = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let (tenant, principal) = (Some(&tenant), Some(&principal));
        charges.push(limits.resolve(&Subject { tenant, principal, session: None, ip, route: "r" }));
    }
    Ok(Arc::new(Charging { charges, clock }))
}

#[async_trait]
impl Work for Charging {
    async fn once(&self, task: usize, _: u64) -> Result<(), String> {
        let decision = self.charges[task].take(self.clock.elapsed(), 1);
        if decision.allowed() { Ok(()) } else { Err(format!("{decision:?}")) }
    }
}

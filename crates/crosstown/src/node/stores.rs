//! Opening the engines of the tiers.

use crate::stores::{Engine, Engines, Live};
use clock::SharedClock;
use realtime::Reach;
use std::sync::Arc;
use store::{Capabilities, Partition, SharedFanout, SharedStore, Store, Survives, Tier, Tiers};
use store_embedded::EmbeddedStore;
use store_guard::{GuardedFanout, GuardedStore};
use store_memory::MemoryStore;
use store_postgres::PostgresStore;
use store_redis::{RedisFanout, RedisStore};
use traffic_cop::state::tier;

/// The engines of a node.
pub(super) struct Stores {
    /// Each partition in the engine of its tier.
    pub(super) all: SharedStore,
    /// What the tiers keep.
    pub(super) kept: tier::Engines,
    /// What `/health` tells of, by tier.
    pub(super) tiers: Vec<(&'static str, Arc<GuardedStore>)>,
    /// The fan-out between nodes, if there is one.
    pub(super) live: Option<Arc<GuardedFanout>>,
    /// Whether this node is the only one.
    is_alone: bool,
    embedded: Vec<Arc<EmbeddedStore>>,
}

impl Stores {
    /// Opens what is configured, each engine behind a guard.
    ///
    /// # Errors
    /// One line that says what is wrong and what to do.
    pub(super) async fn open(
        engines: Engines,
        guard: &store_guard::Config,
        clock: &SharedClock,
    ) -> Result<Self, String> {
        let are_shared = engines.are_shared();
        let Engines { live, hot, durable } = engines;
        let mut embedded = Vec::new();
        let mut tiers = Vec::new();
        for (tier, engine) in [("hot", Some(hot)), ("durable", durable)] {
            let Some(engine) = engine else { continue };
            let is_shared = engine.is_shared();
            let store = open(engine, clock, &mut embedded).await?;
            tiers.push((tier, GuardedStore::new(store, is_shared, guard, clock.clone())));
        }
        let (hot, durable): (SharedStore, SharedStore) = match &mut *tiers {
            [(_, hot), (_, durable)] => (hot.clone(), durable.clone()),
            [(tier, only), ..] => {
                *tier = "hot_and_durable";
                (only.clone(), only.clone())
            }
            [] => return Err("no store is configured".into()),
        };
        let kept = tier::Engines {
            live: (!are_shared).then_some(Survives::Nothing),
            hot: hot.capabilities().survives,
            durable: durable.capabilities().survives,
        };
        let all: SharedStore = match are_shared {
            true if Arc::ptr_eq(&hot, &durable) => hot,
            true => Arc::new(Tiers::new(hot, durable, tier_of)),
            false => {
                let live = Arc::new(MemoryStore::new(clock.clone()));
                Arc::new(Tiers::new(hot, durable, tier_of).with_live(live))
            }
        };
        let is_alone = matches!(live, Live::Here);
        let live = match live {
            Live::Here | Live::Stored => None,
            Live::Redis(url) => {
                let options = store_redis::Options::default();
                let fanout = RedisFanout::open(&url, options, clock.clone()).await;
                let fanout: SharedFanout = Arc::new(fanout.map_err(|error| chain(&error))?);
                Some(GuardedFanout::new(fanout, true, guard, clock.clone()))
            }
        };
        Ok(Self { all, kept, tiers, live, is_alone, embedded })
    }

    /// How publications that no store keeps reach those who are subscribed.
    pub(super) fn reach(&self) -> Reach {
        match &self.live {
            Some(fanout) => Reach::FannedOut(fanout.clone()),
            None if self.is_alone => Reach::Here,
            None => Reach::Stored,
        }
    }

    /// The guards' work, until dropped.
    pub(super) fn tend(&self) -> impl Future<Output = ()> + Send + 'static {
        let tiers = self.tiers.iter().map(|(tier, store)| store.clone().run(tier));
        let tiers = futures_util::future::join_all(tiers);
        let live = self.live.clone();
        async move {
            let live = async {
                match live {
                    Some(live) => live.run().await,
                    None => std::future::pending().await,
                }
            };
            tokio::join!(tiers, live);
        }
    }

    /// Logs what they promise.
    pub(super) fn tell(&self) {
        for (tier, store) in &self.tiers {
            let Capabilities { engine, survives } = store.capabilities();
            tracing::info!(tier, engine, ?survives, "the store is open");
        }
    }

    /// The stores that have to be closed in order.
    pub(super) fn embedded(&self) -> Vec<Arc<EmbeddedStore>> {
        self.embedded.clone()
    }
}

async fn open(
    engine: Engine,
    clock: &SharedClock,
    embedded: &mut Vec<Arc<EmbeddedStore>>,
) -> Result<SharedStore, String> {
    match engine {
        Engine::Memory => {
            tracing::warn!("a store is `memory:`: nothing survives the end of this process");
            Ok(Arc::new(MemoryStore::new(clock.clone())))
        }
        Engine::Embedded(dir) => {
            let options = store_embedded::Options::default();
            let opened = EmbeddedStore::open(&dir, options, clock.clone());
            let store = Arc::new(opened.map_err(|error| chain(&error))?);
            embedded.push(store.clone());
            Ok(store)
        }
        Engine::Postgres(options) => match PostgresStore::open(*options).await {
            Ok(store) => Ok(Arc::new(store)),
            Err(error) => Err(chain(&error)),
        },
        Engine::Redis(url) => {
            match RedisStore::open(&url, store_redis::Options::default(), clock.clone()).await {
                Ok(store) => Ok(Arc::new(store)),
                Err(error) => Err(chain(&error)),
            }
        }
    }
}

/// Where a partition belongs. A change of this needs a way to move what is there already.
///
/// Leases are durable although they change all the time: a lost lease would come back with an
/// epoch below the fences that its owners left behind.
fn tier_of(partition: &Partition) -> Tier {
    if let Some(tier) = tier::tier_of(partition) {
        return tier.engine();
    }
    match partition.kind().as_str() {
        "session" | "kept" | "trail" | "channel" | "passing" | "presence" | "limit" | "traffic"
        | "registration" => Tier::Hot,
        "genesis-channel" | "genesis-passing" | "genesis-state-of-session" => Tier::Hot,
        _ => Tier::Durable,
    }
}

/// An error with its causes, in one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    text
}

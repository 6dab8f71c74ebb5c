//! A node's share of the shards, and the work that comes with them.

use crate::{
    Lease, LeaseError, NodeId, Nodes, Owned, RENEW_EVERY, Relay, Shard, acquire,
    nodes::{self, REGISTERED_FOR},
};
use async_trait::async_trait;
use clock::SharedClock;
use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    future::Future,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use store::{Error, Kind, Partition, SharedStore};
use tokio::{sync::mpsc, task::JoinSet, time::MissedTickBehavior};

/// How often the buckets of a held shard are asked for what is due.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Partitions of one bucket that are looked at in a turn.
const DUE_MAX: usize = 64;
/// Partitions that wait for a look because of a nudge; beyond it they wait for the next turn.
const NUDGES_MAX: usize = 4096;

/// What a layer does with a due partition of its kind.
#[async_trait]
pub trait Work: Send + Sync {
    /// Does what is due by the partition's records, and answers when to look again; none: when
    /// woken. Called again if the partition changed meanwhile, so it decides by what it reads
    /// and repeats nothing that is done.
    ///
    /// # Errors
    /// The partition stays due.
    async fn due(&self, owned: &Owned<'_>) -> Result<Option<Duration>, LeaseError>;
}

/// Holds a node's share of the shards, and looks after what is due in them.
pub struct Keeper {
    store: SharedStore,
    clock: SharedClock,
    nodes: Nodes,
    node: NodeId,
    address: String,
    relay: Relay,
    works: HashMap<Kind, Arc<dyn Work>>,
    /// The shards that are kept, and whether it is looked for what is due in them.
    shards: Vec<Shard>,
    looks: bool,
    /// The nodes that were there when it was last asked, and their addresses.
    there: Mutex<Vec<(NodeId, String)>>,
    leases: Mutex<BTreeMap<Shard, Arc<Lease>>>,
    nudges: mpsc::Sender<Partition>,
    nudged: Mutex<Option<mpsc::Receiver<Partition>>>,
}

impl fmt::Debug for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keeper").field("node", &self.node).finish_non_exhaustive()
    }
}

impl Keeper {
    /// A keeper for the node `node`, which its peers reach at `address`. `works` do what is due
    /// in partitions of their kinds; outboxes are emptied in all.
    #[must_use]
    pub fn new(
        store: SharedStore,
        clock: SharedClock,
        node: NodeId,
        address: String,
        works: HashMap<Kind, Arc<dyn Work>>,
    ) -> Arc<Self> {
        Arc::new(Self { works, ..Self::idle(store, clock, node, address) })
    }

    /// A keeper of `shards` alone, whose owners have no work in partitions: holding a lease is
    /// all.
    #[must_use]
    pub fn of(
        shards: impl IntoIterator<Item = Shard>,
        store: SharedStore,
        clock: SharedClock,
        node: NodeId,
        address: String,
    ) -> Arc<Self> {
        let mut shards: Vec<Shard> = shards.into_iter().collect();
        shards.sort_unstable();
        shards.dedup();
        Arc::new(Self { shards, looks: false, ..Self::idle(store, clock, node, address) })
    }

    fn idle(store: SharedStore, clock: SharedClock, node: NodeId, address: String) -> Self {
        let (nudges, nudged) = mpsc::channel(NUDGES_MAX);
        Self {
            nodes: Nodes::new(Arc::clone(&store), Arc::clone(&clock)),
            relay: Relay::new(Arc::clone(&store)),
            store,
            clock,
            node,
            address,
            works: HashMap::new(),
            shards: Shard::all().collect(),
            looks: true,
            there: Mutex::default(),
            leases: Mutex::default(),
            nudges,
            nudged: Mutex::new(Some(nudged)),
        }
    }

    /// This node's name.
    #[must_use]
    pub fn node(&self) -> &NodeId {
        &self.node
    }

    /// How many nodes there were when it was last asked.
    #[must_use]
    pub fn node_count(&self) -> usize {
        self.there().len()
    }

    /// The other nodes that were there when it was last asked, and their addresses.
    #[must_use]
    pub fn others(&self) -> Vec<(NodeId, String)> {
        let there = self.there();
        there.iter().filter(|(node, _)| *node != self.node).cloned().collect()
    }

    /// Where `node` is reached, if it was there when that was last asked.
    #[must_use]
    pub fn address(&self, node: &str) -> Option<String> {
        let there = self.there();
        let found = there.iter().find(|(known, _)| known.as_str() == node);
        found.map(|(_, address)| address.clone())
    }

    /// Who should own `shard`, and its address: one that has just come may not own it yet.
    #[must_use]
    pub fn owner(&self, shard: Shard) -> Option<(NodeId, String)> {
        let there = self.there();
        let owner = nodes::owner(shard, there.iter().map(|(node, _)| node))?;
        there.iter().find(|(node, _)| node == owner).cloned()
    }

    /// The lease of `shard`, if this node holds it now.
    #[must_use]
    pub fn lease(&self, shard: Shard) -> Option<Arc<Lease>> {
        self.leases().get(&shard).filter(|lease| lease.is_held()).cloned()
    }

    /// How many shards this node holds.
    #[must_use]
    pub fn held(&self) -> usize {
        self.leases().values().filter(|lease| lease.is_held()).count()
    }

    /// Says that `partition` may be due. Lost or left out, it costs up to two seconds.
    pub fn nudge(&self, partition: Partition) {
        let _ = self.nudges.try_send(partition);
    }

    /// Keeps and works until `stop`, then gives every shard up. To be called once.
    pub async fn run(self: Arc<Self>, stop: impl Future<Output = ()>) {
        let Some(mut nudged) = self.nudged.lock().unwrap_or_else(PoisonError::into_inner).take()
        else {
            return;
        };
        let keeping = async {
            let mut tick = tokio::time::interval(RENEW_EVERY);
            tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                tick.tick().await;
                if let Err(error) = self.keep().await {
                    tracing::warn!(%error, "shards cannot be kept");
                }
            }
        };
        let looking = async {
            if !self.looks {
                return std::future::pending().await;
            }
            loop {
                self.look().await;
                let rest = tokio::time::sleep(LOOK_EVERY);
                tokio::pin!(rest);
                loop {
                    tokio::select! {
                        () = &mut rest => break,
                        Some(partition) = nudged.recv() => self.serve(&partition).await,
                    }
                }
            }
        };
        tokio::select! {
            () = stop => {}
            () = keeping => {}
            () = looking => {}
        }
        self.leave().await;
    }

    /// Renews, gives up and takes, so that this node holds what is its share among the nodes
    /// that are registered.
    ///
    /// # Errors
    /// Those of the store; leases that could not be renewed run out.
    pub async fn keep(self: &Arc<Self>) -> Result<(), Error> {
        let renewing = self.renew();
        let registering = self.nodes.register(&self.node, &self.address);
        let ((), registered) = tokio::join!(renewing, registering);
        registered?;
        let there = self.nodes.list().await?;
        let nodes: Vec<NodeId> = there.iter().map(|(node, _)| node.clone()).collect();
        *self.there() = there;
        let mut taking = JoinSet::new();
        for &shard in &self.shards {
            let ours = nodes::owner(shard, &nodes) == Some(&self.node);
            let lease = self.lease(shard);
            match (ours, lease) {
                (true, None) => {
                    let this = Arc::clone(self);
                    taking.spawn(async move {
                        match acquire(&this.store, &this.clock, shard, &this.node).await {
                            Ok(lease) => drop(this.leases().insert(shard, lease)),
                            Err(LeaseError::Held { .. } | LeaseError::Lost) => {}
                            Err(error) => tracing::warn!(%error, "a shard cannot be taken"),
                        }
                    });
                }
                (false, Some(lease)) => self.give_up(&lease).await,
                (true, Some(_)) | (false, None) => {}
            }
        }
        taking.join_all().await;
        Ok(())
    }

    async fn renew(self: &Arc<Self>) {
        let held: Vec<Arc<Lease>> = self.leases().values().cloned().collect();
        let mut renewing = JoinSet::new();
        for lease in held {
            let this = Arc::clone(self);
            renewing.spawn(async move {
                match lease.renew(&this.store).await {
                    Ok(()) => {}
                    Err(LeaseError::Lost | LeaseError::Held { .. }) => {
                        tracing::warn!(shard = lease.shard().number(), "a shard was lost");
                        this.forget(&lease);
                    }
                    Err(LeaseError::Store(error)) => {
                        tracing::warn!(%error, shard = lease.shard().number(), "not renewed");
                    }
                }
            });
        }
        renewing.join_all().await;
    }

    async fn give_up(&self, lease: &Arc<Lease>) {
        self.forget(lease);
        if let Err(error) = lease.release(&self.store).await {
            tracing::warn!(%error, "a shard runs out instead of being given up");
        }
    }

    async fn leave(&self) {
        let leases = std::mem::take(&mut *self.leases());
        // A store that does not answer must not keep the node from ending.
        let leaving = async {
            for lease in leases.values() {
                let _ = lease.release(&self.store).await;
            }
            let _ = self.nodes.leave(&self.node).await;
        };
        let _ = tokio::time::timeout(REGISTERED_FOR, leaving).await;
    }

    /// One turn over every bucket of every held shard.
    async fn look(&self) {
        for shard in Shard::all() {
            for bucket in shard.buckets() {
                if self.lease(shard).is_none() {
                    break;
                }
                match self.store.due(bucket, DUE_MAX).await {
                    Ok(due) => {
                        for partition in due {
                            self.serve(&partition).await;
                        }
                    }
                    Err(error) => return tracing::warn!(%error, "what is due cannot be told"),
                }
            }
        }
    }

    async fn serve(&self, partition: &Partition) {
        let Some(lease) = self.lease(Shard::of(partition)) else { return };
        let work = self.works.get(partition.kind()).map(|work| &**work);
        match self.relay.serve(&lease, partition, work).await {
            Ok(_) => {}
            Err(LeaseError::Lost) => self.forget(&lease),
            Err(error) => tracing::warn!(%error, %partition, "it stays due"),
        }
    }

    fn forget(&self, lease: &Arc<Lease>) {
        let mut leases = self.leases();
        if leases.get(&lease.shard()).is_some_and(|held| Arc::ptr_eq(held, lease)) {
            leases.remove(&lease.shard());
        }
    }

    fn there(&self) -> std::sync::MutexGuard<'_, Vec<(NodeId, String)>> {
        self.there.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn leases(&self) -> std::sync::MutexGuard<'_, BTreeMap<Shard, Arc<Lease>>> {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

//! The shards that this node owns, until it ends.

use clock::SharedClock;
use ledger::{Keeper, NodeId, Work};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};
use store::{Kind, SharedStore};
use tokio::{sync::oneshot, task::JoinHandle};

/// A keeper at work.
pub(super) struct Keeping(Mutex<Option<(oneshot::Sender<()>, JoinHandle<()>)>>);

impl Keeping {
    /// Has `keeper` keep its shards, and work in them.
    pub(super) fn of(keeper: Arc<Keeper>) -> Self {
        let (stop, stopped) = oneshot::channel::<()>();
        let running = tokio::spawn(keeper.run(async { drop(stopped.await) }));
        Self(Mutex::new(Some((stop, running))))
    }

    /// The same for the only node of its stores; `None` if there is no work for an owner.
    pub(super) fn alone(
        store: SharedStore,
        clock: SharedClock,
        works: HashMap<Kind, Arc<dyn Work>>,
    ) -> Option<Self> {
        if works.is_empty() {
            return None;
        }
        let node = NodeId::draw(&clock);
        Some(Self::of(Keeper::new(store, clock, node, String::new(), works)))
    }

    /// Gives up what this node owns, so that others need not wait for it to run out.
    pub(super) async fn end(&self) {
        let keeping = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((stop, running)) = keeping {
            let _ = stop.send(());
            if let Err(error) = running.await {
                tracing::error!(%error, "this node did not leave in order");
            }
        }
    }
}

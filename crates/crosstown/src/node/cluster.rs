//! This node among those that share its stores.

use crate::{
    config::PeersConfig,
    node::{
        admin,
        peers::{Peers, Secret, Server, Streams},
    },
};
use clock::SharedClock;
use ledger::{Keeper, NodeId};
use realtime::Realtime;
use std::sync::{Arc, Mutex, PoisonError};
use store::SharedStore;
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle};
use traffic_cop::limit::{Shared, shards};

/// Connections of other nodes at a time.
const CONNECTIONS_MAX: usize = 1024;

/// A registered node, with what it owns for all.
pub(super) struct Cluster {
    pub(super) limits: Arc<Shared>,
    pub(super) peers: Arc<Peers>,
    node: NodeId,
    streams: Streams,
    keeping: Mutex<Option<(oneshot::Sender<()>, JoinHandle<()>)>>,
}

impl Cluster {
    /// Listens for other nodes, registers this one, and begins to own its part.
    ///
    /// # Errors
    /// One line that says what is wrong and what to do.
    pub(super) async fn join(
        config: &PeersConfig,
        store: SharedStore,
        clock: SharedClock,
    ) -> Result<Self, String> {
        let secret = Secret::open(&store, &clock).await?;
        let listener = TcpListener::bind(config.listen).await.map_err(|error| {
            format!(
                "cannot listen on {}: {error}; set `peers.listen` to a free port",
                config.listen
            )
        })?;
        let listening = listener.local_addr().map_err(|error| error.to_string())?;
        let address = config.advertise.unwrap_or(listening);
        let node = NodeId::draw(&clock);
        tracing::info!(%node, %address, "this node is one of several");
        let (shards, address) = (shards(), address.to_string());
        let keeper = Keeper::of(shards, store.clone(), clock.clone(), node.clone(), address);
        let peers = Arc::new(Peers::new(secret.clone(), clock.clone(), keeper.clone()));
        let limits = Shared::new(store, clock.clone(), keeper.clone(), peers.clone())
            .map_err(|error| error.to_string())?;
        let streams = Streams::default();
        let routes = Server::routes(secret, clock, limits.clone(), streams.clone());
        tokio::spawn(admin::serve(listener, routes, CONNECTIONS_MAX));
        tokio::spawn(limits.clone().run());
        let (stop, stopped) = oneshot::channel::<()>();
        let keeping = tokio::spawn(keeper.run(async { drop(stopped.await) }));
        let keeping = Mutex::new(Some((stop, keeping)));
        Ok(Self { limits, peers, node, streams, keeping })
    }

    /// This node's name.
    pub(super) fn node(&self) -> String {
        self.node.to_string()
    }

    /// From now on, takes commands from other nodes for the streams of this one.
    pub(super) fn serve_streams(&self, realtime: Arc<Realtime>) {
        let _ = self.streams.set(realtime);
    }

    /// Gives up what this node owns, so that others need not wait for it to run out.
    pub(super) async fn leave(&self) {
        let keeping = self.keeping.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((stop, keeping)) = keeping {
            let _ = stop.send(());
            if let Err(error) = keeping.await {
                tracing::error!(%error, "this node did not leave in order");
            }
        }
    }
}

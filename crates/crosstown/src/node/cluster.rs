//! This node among those that share its stores.

use crate::{
    config::PeersConfig,
    node::{
        admin,
        keeping::Keeping,
        peers::{Peers, Secret, Server, Streams},
    },
};
use clock::SharedClock;
use ledger::{Keeper, NodeId, Work};
use realtime::Realtime;
use std::{collections::HashMap, sync::Arc};
use store::{Kind, SharedStore};
use tokio::net::TcpListener;
use traffic_cop::limit::{Shared, shards};

/// Connections of other nodes at a time.
const CONNECTIONS_MAX: usize = 1024;

/// A registered node, with what it owns for all.
pub(super) struct Cluster {
    pub(super) limits: Arc<Shared>,
    pub(super) peers: Arc<Peers>,
    node: NodeId,
    streams: Streams,
    keeping: Keeping,
}

impl Cluster {
    /// Listens for other nodes, registers this one, and begins to own its part, in which it does
    /// `works`.
    ///
    /// # Errors
    /// One line that says what is wrong and what to do.
    pub(super) async fn join(
        config: &PeersConfig,
        store: SharedStore,
        clock: SharedClock,
        works: HashMap<Kind, Arc<dyn Work>>,
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
        let (at, called, address) = (store.clone(), node.clone(), address.to_string());
        let keeper = match works.is_empty() {
            true => Keeper::of(shards(), at, clock.clone(), called, address),
            false => Keeper::new(at, clock.clone(), called, address, works),
        };
        let peers = Arc::new(Peers::new(secret.clone(), clock.clone(), keeper.clone()));
        let limits = Shared::new(store, clock.clone(), keeper.clone(), peers.clone())
            .map_err(|error| error.to_string())?;
        let streams = Streams::default();
        let routes = Server::routes(secret, clock, limits.clone(), streams.clone());
        tokio::spawn(admin::serve(listener, routes, CONNECTIONS_MAX));
        let keeping = Keeping::of(keeper);
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
        self.keeping.end().await;
    }
}

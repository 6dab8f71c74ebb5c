//! How this node learns what others have committed, and tells what it has.
//!
//! What changed is always found by one poll over the heads; `NOTIFY` only says that polling
//! at once is worth it. It carries no names, since every user of the database may listen, and
//! it is sent after the commit, since within a transaction it takes a lock of the whole
//! server. Lost, it costs the time until the next poll.

use crate::{
    HintsBy,
    connection::{Connection, Inbox},
    engine::Engine,
    pool::Param,
    rows,
    server::Server,
};
use std::{sync::Arc, time::Duration};
use store::{BoxError, Error};
use tokio::time::Instant;
use tokio_postgres::types::Type;

/// How often to poll while notifications arrive.
const LISTENING_EVERY: Duration = Duration::from_secs(5);
/// Between two polls, and between two notifications, at least.
const APART: Duration = Duration::from_millis(10);
/// No transaction has come so far.
const NONE_YET: &str = "18446744073709551615";

/// Follows the commits of other nodes.
pub(crate) struct Follower {
    engine: Arc<Engine>,
    inbox: Arc<Inbox>,
    /// All transactions below had ended at the last poll.
    since: String,
    listens: Listens,
}

enum Listens {
    /// Connected, and it was found to be of use.
    With(Connection),
    /// Not now.
    Not,
    /// A pooler is between, or it is not wanted.
    Never,
}

impl Follower {
    /// From now on: what is committed later is not missed.
    pub(crate) async fn start(engine: Arc<Engine>, node: String) -> Result<Self, Error> {
        let listens = match engine.options.hints {
            HintsBy::Poll => Listens::Never,
            HintsBy::Auto | HintsBy::Notify => Listens::Not,
        };
        let inbox = Arc::new(Inbox { node, ..Inbox::default() });
        let mut follower = Self { engine, inbox, since: NONE_YET.to_owned(), listens };
        follower.poll().await?;
        Ok(follower)
    }

    pub(crate) async fn run(mut self) {
        loop {
            self.listen().await;
            let last = Instant::now();
            if let Err(error) = self.poll().await {
                tracing::debug!(%error, "other nodes' commits are not known at the moment");
            }
            let every = match &self.listens {
                Listens::With(_) => LISTENING_EVERY,
                Listens::Not | Listens::Never => self.engine.options.poll_every,
            };
            // Elapsed or nudged: either way it is time.
            let _ = tokio::time::timeout(every, self.inbox.nudge.notified()).await;
            tokio::time::sleep_until(last + APART).await;
        }
    }

    async fn poll(&mut self) -> Result<(), Error> {
        let engine = &*self.engine;
        let life = engine.lives.known();
        let param: Param<'_> = (&self.since, Type::TEXT);
        let found = engine.pool.read(&engine.sql.touched, &[param]).await?;
        let mut next = None;
        for row in &found {
            match rows::get::<Option<String>>(row, "xmin")? {
                Some(xmin) => {
                    let fingerprint = rows::get(row, "fingerprint")?;
                    next = Some((xmin, life.is_of(fingerprint)));
                }
                None => engine.hints.notify(&rows::partition(row)?),
            }
        }
        let (xmin, is_same) = next.ok_or_else(|| Error::corrupt("an answer without an xmin"))?;
        if !is_same {
            // Watchers of what was lost ask again by themselves: see `Hints::lossy`.
            let renewed = engine.lives.renew_after(&life, &engine.connector).await;
            renewed.map_err(Error::unavailable)?;
        }
        self.since = xmin;
        Ok(())
    }

    /// Makes sure that notifications arrive, where they can.
    async fn listen(&mut self) {
        match &self.listens {
            Listens::With(connection) if !connection.client.is_closed() => return,
            Listens::Never => return,
            Listens::With(_) | Listens::Not => {}
        }
        self.listens = match self.try_listen().await {
            Ok(Some(connection)) => Listens::With(connection),
            Ok(None) => {
                tracing::info!(
                    "a pooler stands before the server: other nodes' commits are polled for"
                );
                Listens::Never
            }
            Err(error) => {
                tracing::debug!(%error, "not listening at the moment");
                Listens::Not
            }
        };
    }

    async fn try_listen(&self) -> Result<Option<Connection>, BoxError> {
        let engine = &*self.engine;
        let connection = engine.connector.connect(Some(self.inbox.clone())).await?;
        if engine.options.hints == HintsBy::Auto {
            let server = Server::ask(&connection, &engine.sql, &engine.options.schema).await?;
            if server.client_port != Some(connection.local_port.into()) {
                return Ok(None);
            }
        }
        let listen = format!("LISTEN \"{}\"", channel(&engine.options.schema));
        connection.client.batch_execute(&listen).await?;
        Ok(Some(connection))
    }
}

/// Tells other nodes that something was committed here, once for all that comes at once.
pub(crate) async fn tell(engine: Arc<Engine>, node: String) {
    let channel = channel(&engine.options.schema);
    let params: [Param<'_>; 2] = [(&channel, Type::TEXT), (&node, Type::TEXT)];
    loop {
        engine.committed.notified().await;
        if let Err(error) = engine.pool.write(&engine.sql.tell, &params).await {
            tracing::debug!(%error, "other nodes will find what was committed when they poll");
        }
        tokio::time::sleep(APART).await;
    }
}

fn channel(schema: &str) -> String {
    format!("crosstown.{schema}")
}

//! One server, and the connection to it.

use crate::{
    facts::Facts,
    options::{OpenError, Settings},
    scripts,
};
use parking_lot::RwLock;
use redis::{AsyncConnectionConfig, ConnectionAddr, ConnectionInfo, aio::MultiplexedConnection};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use store::{BoxError, Error};
use tokio::{
    sync::{Mutex, Semaphore, SemaphorePermit},
    time::Instant,
};

const BACKOFF_MIN: Duration = Duration::from_millis(50);
/// What a request takes of the room for requests beside its own bytes: a page may come back.
const REQUEST_BYTES: usize = 4096;

/// Host and port.
pub(crate) type Address = (String, u16);

/// One server.
pub(crate) struct Node {
    info: ConnectionInfo,
    pub(crate) shown: String,
    settings: Arc<Settings>,
    link: RwLock<Option<Arc<Link>>>,
    attempts: Mutex<Attempts>,
    room: Semaphore,
}

/// A connection to one server process. It is never used again once lost, so whatever was
/// learned of the process when it was made holds for all that is sent through it.
pub(crate) struct Link {
    connection: MultiplexedConnection,
    pub(crate) facts: Facts,
    pub(crate) server: String,
    lost: AtomicBool,
}

struct Attempts {
    failed: u32,
    next: Instant,
}

impl Link {
    pub(crate) fn connection(&self) -> MultiplexedConnection {
        self.connection.clone()
    }
}

impl Node {
    pub(crate) fn new(info: ConnectionInfo, settings: Arc<Settings>) -> Self {
        let shown = info.addr().to_string();
        let room = Semaphore::new(settings.options.in_flight_bytes as usize);
        let attempts = Mutex::new(Attempts { failed: 0, next: Instant::now() });
        Self { info, shown, settings, link: RwLock::default(), attempts, room }
    }

    pub(crate) fn info(&self) -> &ConnectionInfo {
        &self.info
    }

    pub(crate) fn address(&self) -> Option<Address> {
        let ConnectionAddr::Tcp(host, port) = self.info.addr() else { return None };
        Some((host.clone(), *port))
    }

    /// Connects, learns which process answers and gives it the scripts.
    ///
    /// # Errors
    /// [`OpenError`].
    pub(crate) async fn connect(&self) -> Result<Arc<Link>, OpenError> {
        let unreachable = |source: redis::RedisError| OpenError::Unreachable {
            server: self.shown.clone(),
            source: source.into(),
        };
        let options = &self.settings.options;
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(options.connect_timeout))
            .set_response_timeout(Some(options.response_timeout));
        let client = redis::Client::open(self.info.clone()).map_err(unreachable)?;
        let connecting = client.get_multiplexed_async_connection_with_config(&config);
        let mut connection = connecting.await.map_err(unreachable)?;
        let facts = Facts::read(&mut connection).await.map_err(unreachable)?;
        facts.check(&self.shown, &self.settings)?;
        load_scripts(&mut connection).await.map_err(unreachable)?;
        let server = facts.server();
        let link = Arc::new(Link { connection, facts, server, lost: AtomicBool::new(false) });
        *self.link.write() = Some(link.clone());
        Ok(link)
    }

    /// The connection, made anew if it was lost. While the server cannot be reached, attempts
    /// are made after growing pauses, and callers in between are refused at once: nothing
    /// they wanted was sent.
    pub(crate) async fn link(&self) -> Result<Arc<Link>, Error> {
        if let Some(link) = self.present() {
            return Ok(link);
        }
        let mut attempts = self.attempts.lock().await;
        // Another caller may have connected meanwhile.
        if let Some(link) = self.present() {
            return Ok(link);
        }
        if attempts.failed > 0 && Instant::now() < attempts.next {
            let text = format!("{} cannot be reached; nothing was sent", self.shown);
            return Err(Error::unavailable(text));
        }
        match self.connect().await {
            Ok(link) => {
                if attempts.failed > 0 {
                    tracing::info!(server = self.shown, "connected again");
                }
                attempts.failed = 0;
                Ok(link)
            }
            Err(error) => {
                if attempts.failed == 0 {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(server = self.shown, error, "the connection is lost");
                }
                let doubled = BACKOFF_MIN * 2_u32.saturating_pow(attempts.failed.min(16));
                attempts.failed += 1;
                attempts.next = Instant::now() + doubled.min(self.settings.options.backoff_max);
                Err(Error::unavailable(error))
            }
        }
    }

    pub(crate) fn present(&self) -> Option<Arc<Link>> {
        self.link.read().as_ref().filter(|link| !link.lost.load(Ordering::Relaxed)).cloned()
    }

    /// Gives up a connection that broke, or whose server is no longer what it was.
    pub(crate) fn lose(&self, link: &Link) {
        link.lost.store(true, Ordering::Relaxed);
    }

    /// Asks the server whether it is still what it was when the connection was made.
    pub(crate) async fn check(&self) {
        let Some(link) = self.present() else { return };
        match Facts::read(&mut link.connection()).await {
            Ok(facts) if facts.server() == link.server && facts.same_setup(&link.facts) => {}
            Ok(_) | Err(_) => self.lose(&link),
        }
    }

    /// Waits for room for a request of `bytes`.
    pub(crate) async fn room(&self, bytes: usize) -> Result<SemaphorePermit<'_>, Error> {
        let most = self.settings.options.in_flight_bytes;
        let cost = u32::try_from(bytes + REQUEST_BYTES).unwrap_or(u32::MAX).min(most);
        self.room
            .acquire_many(cost)
            .await
            .map_err(|closed| Error::unavailable(BoxError::from(closed)))
    }
}

/// Gives a server the scripts. It may forget them, and is then given them again.
pub(crate) async fn load_scripts(connection: &mut MultiplexedConnection) -> redis::RedisResult<()> {
    let mut pipe = redis::pipe();
    for script in scripts::all() {
        pipe.cmd("SCRIPT").arg("LOAD").arg(script.text()).ignore();
    }
    pipe.query_async(connection).await
}

//! What the parts of an open store share.

use crate::{Options, connection::Connector, pool::Pool, server::Lives, sql::Sql, time::StoreTime};
use clock::SharedClock;
use std::sync::{Arc, atomic::AtomicBool};
use store::{Hints, Survives};
use tokio::sync::Notify;

/// What the parts of an open store share.
pub(crate) struct Engine {
    pub(crate) options: Options,
    pub(crate) sql: Arc<Sql>,
    pub(crate) connector: Arc<Connector>,
    pub(crate) pool: Pool,
    pub(crate) time: StoreTime,
    pub(crate) lives: Lives,
    pub(crate) hints: Hints,
    /// For randomness alone; the time is the server's.
    pub(crate) clock: SharedClock,
    pub(crate) survives: Survives,
    /// Whether a transaction has to ask for a durable commit: the server's default is not.
    pub(crate) asks_for_sync: AtomicBool,
    /// Something was committed here, which other nodes are to be told.
    pub(crate) committed: Notify,
}

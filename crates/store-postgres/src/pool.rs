//! Connections for reads, each statement in a transaction of its own.

use crate::{
    connection::{Connection, Connector},
    error::read_error,
};
use futures_util::future::join3;
use parking_lot::Mutex;
use std::{sync::Arc, time::Duration};
use store::Error;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio_postgres::{
    Row,
    types::{ToSql, Type},
};

/// A parameter with its type, so that nothing needs to be prepared: no state stays behind in
/// the session, and a transaction pooler may stand between.
pub(crate) type Param<'a> = (&'a (dyn ToSql + Sync), Type);

pub(crate) struct Pool {
    connector: Arc<Connector>,
    idle: Mutex<Vec<Connection>>,
    permits: Semaphore,
    begin_read: String,
    begin_write: String,
    answer_max: Duration,
}

impl Pool {
    pub(crate) fn new(connector: Arc<Connector>, size: usize, statement_timeout: Duration) -> Self {
        let timeout = statement_timeout.as_millis();
        let begin = |access| {
            format!(
                "BEGIN ISOLATION LEVEL READ COMMITTED{access}; \
                 SET LOCAL statement_timeout = {timeout}"
            )
        };
        Self {
            idle: Mutex::default(),
            permits: Semaphore::new(size),
            begin_read: begin(" READ ONLY"),
            // What is written here need not be durable: see `forget` and `hints`.
            begin_write: begin("") + "; SET LOCAL synchronous_commit = off",
            answer_max: connector.answer_max(),
            connector,
        }
    }

    /// The rows of one statement that changes nothing.
    pub(crate) async fn read(&self, sql: &str, params: &[Param<'_>]) -> Result<Vec<Row>, Error> {
        self.statement(&self.begin_read, sql, params).await
    }

    /// The rows of one statement whose effect may be lost with the server.
    pub(crate) async fn write(&self, sql: &str, params: &[Param<'_>]) -> Result<Vec<Row>, Error> {
        self.statement(&self.begin_write, sql, params).await
    }

    async fn statement(
        &self,
        begin: &str,
        sql: &str,
        params: &[Param<'_>],
    ) -> Result<Vec<Row>, Error> {
        let mut tries = 0;
        loop {
            tries += 1;
            let lease = self.lease().await?;
            let client = &lease.connection().client;
            // All three are sent when first polled, so that a caller who goes away leaves
            // the connection behind in order: its answers are dropped as they come.
            let answers = join3(
                client.batch_execute(begin),
                client.query_typed(sql, params),
                client.batch_execute("COMMIT"),
            );
            let Ok((begun, rows, ended)) = tokio::time::timeout(self.answer_max, answers).await
            else {
                lease.abandon();
                return Err(Error::unavailable("no answer in time"));
            };
            match begun.and(rows).and_then(|rows| ended.map(|()| rows)) {
                Ok(rows) => return Ok(rows),
                Err(error) if tries < 3 && (error.is_closed() || is_over(&error)) => {
                    // The others have most likely ended with it.
                    self.idle.lock().clear();
                    tracing::debug!(%error, "a read is tried again on another connection");
                }
                Err(error) => return Err(read_error(error)),
            }
        }
    }

    async fn lease(&self) -> Result<Lease<'_>, Error> {
        let closed = || Error::unavailable("the store is closed");
        let permit = self.permits.acquire().await.map_err(|_| closed())?;
        loop {
            let idle = self.idle.lock().pop();
            match idle {
                Some(connection) if connection.client.is_closed() => {}
                Some(connection) => {
                    return Ok(Lease { pool: self, connection: Some(connection), _permit: permit });
                }
                None => {
                    let made = self.connector.connect(None).await.map_err(Error::unavailable)?;
                    return Ok(Lease { pool: self, connection: Some(made), _permit: permit });
                }
            }
        }
    }
}

/// Whether the connection was lost, or ended by the server.
fn is_over(error: &tokio_postgres::Error) -> bool {
    let class = error.code().and_then(|code| code.code().get(..3));
    match class {
        Some(class) => class == "57P" || class.starts_with("08"),
        None => {
            std::error::Error::source(error).is_some_and(|source| source.is::<std::io::Error>())
        }
    }
}

struct Lease<'a> {
    pool: &'a Pool,
    connection: Option<Connection>,
    _permit: SemaphorePermit<'a>,
}

impl Lease<'_> {
    fn connection(&self) -> &Connection {
        self.connection.as_ref().expect("it is taken only when the lease ends")
    }

    fn abandon(mut self) {
        if let Some(connection) = self.connection.take() {
            connection.abandon();
        }
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take().filter(|c| !c.client.is_closed()) {
            self.pool.idle.lock().push(connection);
        }
    }
}

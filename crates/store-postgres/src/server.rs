//! Which server answers, what it keeps, and the lives of the database.
//!
//! A partition's incarnation stays what it is for as long as nothing can have been lost.
//! Where the tail may have been, the database begins a new *life*: one row, and every
//! incarnation that was written in an earlier life is another one from then on, without
//! touching the partitions.

use crate::{
    OpenError, Options,
    connection::{Connection, Connector},
    error::Failure,
    number,
    pool::Param,
    sql::Sql,
};
use clock::SharedClock;
use parking_lot::RwLock;
use std::sync::Arc;
use store::{BoxError, Incarnation, Survives};
use tokio_postgres::types::Type;

/// The oldest version whose functions and behaviour are relied on.
const VERSION_MIN: i32 = 150_000;

/// What a server says of itself.
pub(crate) struct Server {
    pub(crate) version: i32,
    pub(crate) is_in_recovery: bool,
    pub(crate) survives: Survives,
    /// The setting that says so.
    pub(crate) why: &'static str,
    /// Whether each transaction has to ask for a durable commit.
    pub(crate) asks_for_sync: bool,
    fingerprint: String,
    identity: String,
    /// The port that the server sees at our end.
    pub(crate) client_port: Option<i32>,
}

impl Server {
    pub(crate) async fn ask(
        connection: &Connection,
        sql: &Sql,
        schema: &str,
    ) -> Result<Self, tokio_postgres::Error> {
        let param: Param<'_> = (&schema, Type::TEXT);
        let row = connection.client.query_typed_one(&sql.server, &[param]).await?;
        let is_on = |name| row.try_get::<_, String>(name).map(|value| value != "off");
        let (survives, why) = match (is_on("fsync")?, is_on("full_page_writes")?) {
            (true, true) => (Survives::PowerLoss, "fsync and full_page_writes are on"),
            (true, false) => (Survives::Process, "full_page_writes is off"),
            (false, _) => (Survives::Process, "fsync is off"),
        };
        let mut identity: String = row.try_get("identity")?;
        if survives < Survives::PowerLoss {
            // Any restart may be that of a machine that lost what it had not written.
            identity = format!("{identity}/{}", row.try_get::<_, String>("started")?);
        }
        Ok(Self {
            version: row.try_get("version")?,
            is_in_recovery: row.try_get("is_in_recovery")?,
            survives,
            why,
            asks_for_sync: !is_on("synchronous_commit")?,
            fingerprint: row.try_get("fingerprint")?,
            identity,
            client_port: row.try_get("client_port")?,
        })
    }

    /// Whether it will do.
    pub(crate) fn check(&self, options: &Options) -> Result<(), OpenError> {
        let engine = options.engine();
        if self.version < VERSION_MIN {
            return Err(OpenError::Version { engine, found: self.version });
        }
        if self.is_in_recovery {
            return Err(OpenError::Standby { engine });
        }
        match options.survives {
            Some(declared) if declared > self.survives => {
                let (kept, why) = (self.survives, self.why);
                Err(OpenError::Survives { engine, declared, kept, why })
            }
            Some(_) | None => Ok(()),
        }
    }
}

/// A time in which nothing was lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Life {
    pub(crate) number: i32,
    salt: u64,
    /// Of the server when this was found.
    fingerprint: String,
}

impl Life {
    /// What an incarnation that was written in `life` is called now.
    pub(crate) fn incarnation(&self, life: i32, written: i64) -> Incarnation {
        let written = number::from_bits(written);
        if life == self.number {
            return Incarnation(written);
        }
        match written ^ self.salt {
            // Zero is none at all.
            0 => Incarnation(!written),
            other => Incarnation(other),
        }
    }

    pub(crate) fn is_of(&self, fingerprint: &str) -> bool {
        self.fingerprint == fingerprint
    }
}

/// The life that this node knows.
pub(crate) struct Lives {
    schema: String,
    sql: Arc<Sql>,
    clock: SharedClock,
    known: RwLock<Arc<Life>>,
    renewing: tokio::sync::Mutex<()>,
}

impl Lives {
    pub(crate) fn new(schema: &str, sql: Arc<Sql>, clock: SharedClock) -> Self {
        let none = Life { number: 0, salt: 0, fingerprint: String::new() };
        let known = RwLock::new(Arc::new(none));
        Self { schema: schema.to_owned(), sql, clock, known, renewing: Default::default() }
    }

    pub(crate) fn known(&self) -> Arc<Life> {
        self.known.read().clone()
    }

    /// Looks which server answers, unless someone has since `seen` was known.
    pub(crate) async fn renew_after(
        &self,
        seen: &Life,
        connector: &Connector,
    ) -> Result<(), BoxError> {
        let _one = self.renewing.lock().await;
        if *self.known() != *seen {
            return Ok(());
        }
        self.renew(&connector.connect(None).await?).await
    }

    /// Looks which server answers, and begins a new life if it is not the one of the last.
    pub(crate) async fn renew(&self, connection: &Connection) -> Result<(), BoxError> {
        let client = &connection.client;
        client.batch_execute(&begin(&self.schema)).await?;
        let server = Server::ask(connection, &self.sql, &self.schema).await?;
        let latest = client.query_typed(&self.sql.latest_life, &[]).await?;
        let mut found = None;
        if let Some(row) = latest.first() {
            let life = row.try_get("life")?;
            let salt = number::from_bits(row.try_get("salt")?);
            let is_same = row.try_get::<_, &str>("identity")? == server.identity;
            found = Some((life, salt, is_same));
        }
        let (number, salt) = match found {
            Some((life, salt, true)) => (life, salt),
            other => {
                let life = other.map_or(1, |(last, ..)| last + 1);
                let salt = u64::from_le_bytes(clock::random(&*self.clock)).max(1);
                let signed = number::bits(salt);
                let params: [Param<'_>; 3] =
                    [(&life, Type::INT4), (&server.identity, Type::TEXT), (&signed, Type::INT8)];
                client.execute_typed(&self.sql.begin_life, &params).await?;
                if life > 1 {
                    tracing::warn!(
                        life,
                        "the database was restored, failed over or moved: every partition begins a new incarnation"
                    );
                }
                (life, salt)
            }
        };
        client.batch_execute("COMMIT").await?;
        *self.known.write() = Arc::new(Life { number, salt, fingerprint: server.fingerprint });
        Ok(())
    }
}

/// Begins what only one node may do at a time: migrations and new lives.
pub(crate) fn begin(schema: &str) -> String {
    format!(
        "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL statement_timeout = 600000; \
         SET LOCAL synchronous_commit = on; \
         SELECT pg_advisory_xact_lock(hashtextextended('crosstown.{schema}', 0))"
    )
}

impl From<BoxError> for Failure {
    fn from(error: BoxError) -> Self {
        Self::Again(error)
    }
}

//! The store itself: what callers hold.

use crate::{
    HintsBy, OpenError, Options,
    batch::{Done, Work},
    connection::Connector,
    engine::Engine,
    following::{self, Follower},
    forgetting, migrations,
    pool::Pool,
    server::{Lives, Server},
    sql::Sql,
    time::StoreTime,
    writer::{Job, Writer},
};
use async_trait::async_trait;
use clock::{SharedClock, SystemClock};
use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};
use store::{
    Bucket, Capabilities, Changes, Commit, Committed, Entry, Error, Head, Hints, Key, Kind,
    Partition, PartitionPage, Position, Record, ScanPage, Store, StreamName, Write, bounds,
    rules::Meta,
};
use tokio::{
    sync::{Notify, Semaphore, mpsc, oneshot},
    task::AbortHandle,
};
use types::TenantId;

/// How often watchers look by themselves: only where a restored server has lost what they
/// have seen does no poll tell them.
const ASK_AGAIN: Duration = Duration::from_secs(30);
/// Records that one look of a sweep finds.
const SWEEP_AT_ONCE: usize = 1024;

/// The store on PostgreSQL.
///
/// **Commits** wait in a bounded queue for one of a few writers, chosen by the partition. A
/// writer takes what waits and makes one transaction of it: it locks the partitions' rows in
/// the order of their names, loads what the checks need, decides each commit in turn, writes
/// what is left to write and commits. A commit that is refused leaves the others alone.
/// [`store::Durability::Applied`] is acknowledged as durably as the rest.
///
/// **Reads** are one statement each, on the primary server.
///
/// **No session keeps state**, so a transaction pooler may stand between; only the connection
/// that listens for notifications must be direct, and where none is, other nodes' commits are
/// polled for.
///
/// **Time** is the server's, and never goes back for what this node has seen.
///
/// **When the server goes away**, what certainly was not applied is tried again for
/// [`Options::patience`]; what was lost after COMMIT was sent gets [`Error::Unavailable`] at
/// once, and so do reads.
pub struct PostgresStore {
    engine: Arc<Engine>,
    queue: Arc<Semaphore>,
    writers: Vec<mpsc::UnboundedSender<Job>>,
    tasks: Vec<AbortHandle>,
}

impl PostgresStore {
    /// Opens the store, bringing its schema up to date. Its tasks run on the present runtime
    /// until it is dropped.
    ///
    /// # Errors
    /// [`OpenError`]: nothing was changed then, or the schema alone.
    pub async fn open(options: Options) -> Result<Self, OpenError> {
        let options = options.bounded()?;
        let name = options.engine();
        let unusable = |source| OpenError::Server { engine: name.clone(), source };
        let clock: SharedClock = SystemClock::shared();
        let sql = Arc::new(Sql::new(&options.schema));
        let connector = Arc::new(Connector::new(&options)?);
        let connection = connector.connect(None).await.map_err(unusable)?;
        let ask = || Server::ask(&connection, &sql, &options.schema);
        let server = ask().await.map_err(|error| unusable(error.into()))?;
        server.check(&options)?;
        migrations::apply(&connection, &sql, &options).await?;
        let lives = Lives::new(&options.schema, sql.clone(), clock.clone());
        lives.renew(&connection).await.map_err(unusable)?;
        tracing::info!(engine = name, survives = ?server.survives, why = server.why, "opened");

        let node = format!("{:032x}", u128::from_le_bytes(clock::random(&*clock)));
        let pool = Pool::new(connector.clone(), options.readers, options.statement_timeout);
        let engine = Arc::new(Engine {
            sql,
            connector,
            pool,
            time: StoreTime::new(options.clock.clone()),
            lives,
            hints: Hints::lossy(ASK_AGAIN),
            clock,
            survives: server.survives,
            asks_for_sync: AtomicBool::new(server.asks_for_sync),
            committed: Notify::new(),
            options,
        });
        let follower = Follower::start(engine.clone(), node.clone()).await;
        let follower = follower.map_err(|error| unusable(error.into()))?;
        let mut tasks = vec![
            tokio::spawn(follower.run()).abort_handle(),
            tokio::spawn(forgetting::run(engine.clone())).abort_handle(),
        ];
        if engine.options.hints != HintsBy::Poll {
            tasks.push(tokio::spawn(following::tell(engine.clone(), node)).abort_handle());
        }
        let start = |_| {
            // Unbounded, since each job holds its share of the queue, which is bounded.
            let (sender, jobs) = mpsc::unbounded_channel();
            tokio::spawn(Writer::new(engine.clone()).run(jobs));
            sender
        };
        let writers = (0..engine.options.writers).map(start).collect();
        let queue = Arc::new(Semaphore::new(engine.options.queue_bytes as usize));
        Ok(Self { engine, queue, writers, tasks })
    }

    async fn submit(&self, work: Work, cost: usize) -> Result<Done, Error> {
        let closed = || Error::unavailable("the store is closed, and nothing changed");
        let most = self.engine.options.queue_bytes;
        let cost = u32::try_from(cost).unwrap_or(u32::MAX).min(most);
        let share = self.queue.clone().acquire_many_owned(cost);
        let share = tokio::time::timeout(self.engine.options.patience, share).await;
        let full = |_| Error::unavailable("the queue of commits is full, and nothing changed");
        let share = share.map_err(full)?.map_err(|_| closed())?;
        let (reply, answer) = oneshot::channel();
        let writer = usize::from(work.partition().bucket().0) % self.writers.len();
        let writer = self.writers.get(writer).ok_or_else(closed)?;
        writer.send(Job { work, share, reply }).map_err(|_| closed())?;
        answer.await.map_err(|_| Error::unavailable("the store ended while it was asked"))?
    }
}

impl Drop for PostgresStore {
    /// What is queued is still written; the rest ends.
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

impl std::fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PostgresStore")
            .field("options", &self.engine.options)
            .finish_non_exhaustive()
    }
}

/// What a commit takes of the queue.
fn cost(commit: &Commit) -> usize {
    let writes = commit.writes.iter().map(|write| match write {
        Write::Put { key, value, .. } => key.as_bytes().len() + value.len(),
        Write::Append { value, .. } => value.len(),
        Write::Delete { key } => key.as_bytes().len(),
        Write::Begin { heads, .. } => heads.len() * 64,
        Write::Trim { .. } | Write::Wake(_) => 0,
    });
    512 + 128 * (commit.writes.len() + commit.checks.len()) + writes.sum::<usize>()
}

#[async_trait]
impl Store for PostgresStore {
    fn capabilities(&self) -> Capabilities {
        let engine = self.engine.options.engine();
        Capabilities { engine, survives: self.engine.survives }
    }

    async fn commit(&self, commit: Commit) -> Result<Committed, Error> {
        bounds::check(&commit)?;
        let cost = cost(&commit);
        match self.submit(Work::Commit(commit), cost).await? {
            Done::Committed(committed) => Ok(committed),
            Done::Swept(_) => Err(Error::corrupt("a sweep answered a commit")),
        }
    }

    async fn head(&self, partition: &Partition) -> Result<Option<Head>, Error> {
        Ok(self.engine.meta(partition).await?.as_ref().map(Meta::head))
    }

    async fn get(&self, partition: &Partition, key: &Key) -> Result<Option<Record>, Error> {
        self.engine.get(partition, key).await
    }

    async fn scan(
        &self,
        partition: &Partition,
        prefix: &[u8],
        after: Option<&Key>,
        limit: usize,
    ) -> Result<ScanPage, Error> {
        self.engine.scan(partition, prefix, after, limit).await
    }

    async fn read(
        &self,
        partition: &Partition,
        stream: &StreamName,
        from: u64,
        limit: usize,
    ) -> Result<Vec<Entry>, Error> {
        self.engine.read(partition, stream, from, limit).await
    }

    async fn changes(&self, partition: &Partition, since: Position) -> Result<Changes, Error> {
        self.engine.changes(partition, since).await
    }

    fn hints(&self, _: &Partition) -> &Hints {
        &self.engine.hints
    }

    async fn due(&self, bucket: Bucket, limit: usize) -> Result<Vec<Partition>, Error> {
        self.engine.due(bucket, limit).await
    }

    async fn list(
        &self,
        tenant: &TenantId,
        kind: &Kind,
        after: Option<&str>,
        limit: usize,
    ) -> Result<PartitionPage, Error> {
        self.engine.list(tenant, kind, after, limit).await
    }

    async fn sweep(&self, bucket: Bucket) -> Result<usize, Error> {
        let mut total = 0;
        loop {
            let mut expired: BTreeMap<Partition, Vec<Key>> = BTreeMap::new();
            for (partition, key) in self.engine.expired(bucket, SWEEP_AT_ONCE).await? {
                expired.entry(partition).or_default().push(key);
            }
            let before = total;
            for (partition, keys) in expired {
                for keys in keys.chunks(bounds::COMMIT_WRITES_MAX) {
                    let work = Work::Sweep { partition: partition.clone(), keys: keys.to_vec() };
                    match self.submit(work, keys.len() * 640).await? {
                        Done::Swept(count) => total += count,
                        Done::Committed(_) => {
                            return Err(Error::corrupt("a commit answered a sweep"));
                        }
                    }
                }
            }
            if total == before {
                return Ok(total);
            }
        }
    }
}

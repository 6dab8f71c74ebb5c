//! The store itself: what callers hold.

use crate::{
    OpenError, Options,
    folder::Folder,
    reads::Reads,
    time::StoreTime,
    writer::{Job, Work, Writer},
};
use async_trait::async_trait;
use clock::SharedClock;
use parking_lot::Mutex;
use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, mpsc},
    thread::JoinHandle,
};
use store::{
    Bucket, Capabilities, Changes, Commit, Committed, Entry, Error, Head, Hints, Key, Kind,
    Partition, PartitionPage, Position, Record, ScanPage, Store, StreamName, Survives, Write,
    bounds, rules::Meta,
};
use tokio::sync::{Semaphore, oneshot};
use types::{TenantId, Timestamp};

/// The store in a local folder.
///
/// **Commits** wait in a bounded queue for one writer thread. It takes what waits, checks
/// each against the state that includes the earlier ones of the group, writes the whole group
/// as one batch of the journal, calls `fdatasync`, and only then lets readers see it, fires
/// the hints and answers. [`store::Durability::Applied`] shares the group's sync and is
/// acknowledged with it: no acknowledged commit is ever lost, and nobody ever saw one that
/// was, so a partition lives in one incarnation for as long as the folder does.
///
/// **Reads** run on the caller's thread, each on one snapshot: a point read takes
/// microseconds, a page at most 1 MiB; what is not in memory is read from the disk there.
/// [`Store::changes`] is as long as what changed.
///
/// **When the disk fails**, whatever was in the group gets [`Error::Unavailable`], and so does
/// every commit after it until the folder is opened again; reads go on. With less free space
/// than [`Options::free_bytes_min`], commits get [`Error::Full`] before anything is written,
/// and work again once there is space.
///
/// **Time** starts at the wall clock, or at the last time known to the folder if that is
/// later, and then runs with the clock's elapsed time.
///
/// Dropping the store waits until what is queued is written.
pub struct EmbeddedStore {
    folder: Arc<Folder>,
    time: StoreTime,
    hints: Arc<Hints>,
    queue: Arc<Semaphore>,
    queue_bytes: u32,
    jobs: mpsc::Sender<Job>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl EmbeddedStore {
    /// Opens the store in `dir`, which is made if need be. May take as long as reading the
    /// journal does; blocks.
    ///
    /// # Errors
    /// [`OpenError`]; nothing in the folder has changed then, but for a torn tail cut off.
    pub fn open(
        dir: impl AsRef<Path>,
        options: Options,
        clock: SharedClock,
    ) -> Result<Self, OpenError> {
        let dir = dir.as_ref();
        let folder = Arc::new(Folder::open(dir, &options)?);
        let last = Reads::new(&folder, Timestamp::default()).last_time();
        let last = last.map_err(|error| OpenError::Damaged {
            dir: dir.to_owned(),
            detail: error.to_string(),
        })?;
        let time = StoreTime::start(clock, last);
        let hints = Arc::new(Hints::reliable());
        // A commit may be as large as the bounds allow, and must fit.
        let queue_bytes = options.queue_bytes.max(4 * bounds::COMMIT_BYTES_MAX as u32);
        let (jobs, receive) = mpsc::channel();
        let writer = Writer {
            folder: folder.clone(),
            time: time.clone(),
            hints: hints.clone(),
            options,
            forget_next: Timestamp::default(),
            behind: false,
            stopped: None,
        };
        let thread = std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || writer.run(&receive))
            .map_err(|source| OpenError::Io { dir: dir.to_owned(), source })?;
        let queue = Arc::new(Semaphore::new(queue_bytes as usize));
        let writer = Mutex::new(Some(thread));
        Ok(Self { folder, time, hints, queue, queue_bytes, jobs, writer })
    }

    /// Writes what is queued and stops writing; later commits get [`Error::Unavailable`].
    /// Blocks until done. The folder stays locked until the store is dropped.
    pub fn close(&self) {
        let Some(thread) = self.writer.lock().take() else { return };
        // If it has ended already, it was by a panic, which is told below.
        let _ = self.jobs.send(Job { work: Work::Close, share: None });
        if thread.join().is_err() {
            tracing::error!("the store's writer panicked");
        }
    }

    async fn submit<T>(
        &self,
        cost: usize,
        work: impl FnOnce(oneshot::Sender<Result<T, Error>>) -> Work,
    ) -> Result<T, Error> {
        let closed = || Error::unavailable("the store is closed");
        let cost = u32::try_from(cost).unwrap_or(u32::MAX).min(self.queue_bytes);
        let share = self.queue.clone().acquire_many_owned(cost).await.map_err(|_| closed())?;
        let (reply, answer) = oneshot::channel();
        let job = Job { work: work(reply), share: Some(share) };
        self.jobs.send(job).map_err(|_| closed())?;
        answer.await.map_err(|_| closed())?
    }

    fn reads(&self) -> Reads<'_> {
        Reads::new(&self.folder, self.time.now())
    }
}

impl Drop for EmbeddedStore {
    fn drop(&mut self) {
        self.close();
    }
}

impl std::fmt::Debug for EmbeddedStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EmbeddedStore").field("dir", &self.folder.dir).finish_non_exhaustive()
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
impl Store for EmbeddedStore {
    fn capabilities(&self) -> Capabilities {
        let engine = format!("embedded:{}", self.folder.dir.display());
        Capabilities { engine, survives: Survives::PowerLoss }
    }

    async fn commit(&self, commit: Commit) -> Result<Committed, Error> {
        bounds::check(&commit)?;
        self.submit(cost(&commit), |reply| Work::Commit { commit, reply }).await
    }

    async fn head(&self, partition: &Partition) -> Result<Option<Head>, Error> {
        Ok(self.reads().meta(partition)?.as_ref().map(Meta::head))
    }

    async fn get(&self, partition: &Partition, key: &Key) -> Result<Option<Record>, Error> {
        self.reads().get(partition, key)
    }

    async fn scan(
        &self,
        partition: &Partition,
        prefix: &[u8],
        after: Option<&Key>,
        limit: usize,
    ) -> Result<ScanPage, Error> {
        self.reads().scan(partition, prefix, after, limit)
    }

    async fn read(
        &self,
        partition: &Partition,
        stream: &StreamName,
        from: u64,
        limit: usize,
    ) -> Result<Vec<Entry>, Error> {
        self.reads().read(partition, stream, from, limit)
    }

    async fn changes(&self, partition: &Partition, since: Position) -> Result<Changes, Error> {
        self.reads().changes(partition, since)
    }

    fn hints(&self, _: &Partition) -> &Hints {
        &self.hints
    }

    async fn due(&self, bucket: Bucket, limit: usize) -> Result<Vec<Partition>, Error> {
        self.reads().due(bucket, limit)
    }

    async fn list(
        &self,
        tenant: &TenantId,
        kind: &Kind,
        after: Option<&str>,
        limit: usize,
    ) -> Result<PartitionPage, Error> {
        self.reads().list(tenant, kind, after, limit)
    }

    async fn sweep(&self, bucket: Bucket) -> Result<usize, Error> {
        let mut total = 0;
        loop {
            let mut expired: BTreeMap<Partition, Vec<Key>> = BTreeMap::new();
            for (partition, key) in self.reads().expired(bucket, 1024)? {
                expired.entry(partition).or_default().push(key);
            }
            let before = total;
            for (partition, keys) in expired {
                for keys in keys.chunks(bounds::COMMIT_WRITES_MAX) {
                    let (partition, keys) = (partition.clone(), keys.to_vec());
                    let cost = keys.len() * 640;
                    let work = |reply| Work::Sweep { partition, keys, reply };
                    total += self.submit(cost, work).await?;
                }
            }
            if total == before {
                return Ok(total);
            }
        }
    }
}

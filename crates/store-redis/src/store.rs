//! The store itself: what callers hold.

use crate::{
    keys::{self, Keys},
    list,
    listener::{Heard, Listener},
    nodes::{Again, Nodes},
    options::{OpenError, Options, Settings, level},
    peek::{self, Peek, Peeked, Peeker},
    reply::{self, Reply},
    request::{self, Request},
    scripts::{self, Script},
};
use async_trait::async_trait;
use clock::SharedClock;
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};
use store::{
    Bucket, Capabilities, Change, Changes, Commit, Committed, Entry, Error, Head, Hints,
    Incarnation, Key, Kind, Partition, PartitionPage, Position, Record, ScanPage, Store,
    StreamName, bounds,
};
use tokio::task::JoinSet;
use types::TenantId;

/// The largest number that is given to a script as a limit.
const LIMIT_MAX: usize = 1 << 30;
/// Expired records that are asked for at once.
const SWEEP: usize = 1024;

/// The store on a Redis or Valkey server, or on a Redis Cluster.
///
/// **A commit** is one script in the one slot of its partition's bucket; it validates all
/// before its first write. Its answer comes once the server has done with it what
/// `appendfsync` says; [`store::Durability`] makes no difference here. If the connection is
/// lost or the answer late, the commit is unknown ([`Error::Unavailable`]); it is sent again by
/// itself only if it has an id, once, and only after the connection broke. What was refused
/// before it was done (a moved slot, a server that loads) is sent again until the timeout.
///
/// **Reads** are scripts as well, on the master alone: each is atomic and positioned.
///
/// **Hints** come by sharded publish/subscribe. While that connection is away, watchers ask by
/// themselves each [`Options::poll_every`], and all are told to ask when it is there and when it
/// is back.
///
/// **Lives.** Each bucket records which server process goes on with its data. Another process,
/// or another replication history, starts a new life, and thereby a new incarnation of every
/// partition in it; unless the same server kept everything over its restart (append-only file,
/// `appendfsync always`, before and after). The architecture decision record 0009 says what is
/// noticed and what is not.
pub struct RedisStore {
    nodes: Arc<Nodes>,
    hints: Arc<Hints>,
    peeker: Peeker,
    engine: String,
    _tasks: JoinSet<()>,
}

impl RedisStore {
    /// Connects to the servers of `url`: `redis://[user:password@]host:port[/database]`, or
    /// `redis+cluster://host:port,host:port` to name several nodes of a cluster (one is enough:
    /// whether it is a cluster's is asked). Parameters: `prefix` of all keys (`crosstown:`),
    /// `survives` (`nothing`, `process`, `power-loss`), what the server has to keep, and
    /// `timeout_ms`. Has to be called within a tokio runtime, which then runs its tasks until
    /// it is dropped.
    ///
    /// # Errors
    /// [`OpenError`].
    pub async fn open(url: &str, options: Options, clock: SharedClock) -> Result<Self, OpenError> {
        let settings = Settings::parse(url, options)?;
        let engine = settings.shown.clone();
        let hints = Arc::new(Hints::lossy(settings.options.poll_every));
        let nodes = Arc::new(Nodes::open(settings, clock).await?);
        let told = hints.clone();
        let listener = Listener::new(nodes.clone(), move |heard| match heard {
            Heard::Message { message, .. } => {
                if let Ok(partition) = keys::parse_name(&message) {
                    told.notify(&partition);
                }
            }
            Heard::Gap => told.notify_all(),
        });
        let channels = || Bucket::all().map(|bucket| (nodes.keys.hints(bucket), bucket));
        listener.want(channels());
        let mut tasks = JoinSet::new();
        let (listening, told) = (listener.clone(), hints.clone());
        let channels: Vec<_> = channels().map(|(channel, _)| channel).collect();
        tasks.spawn(async move {
            while listening.confirmed(&channels).await.is_err() {}
            // Who has looked before has missed what came between.
            told.notify_all();
        });
        let checking = nodes.clone();
        tasks.spawn(async move { checking.keep_checking().await });
        tasks.spawn(async move { match listener.run().await {} });
        let (peeker, peeks) = Peeker::new();
        tasks.spawn(peek::run(nodes.clone(), peeks));
        let survives = level(nodes.survives());
        tracing::info!(engine, survives, "the store is open");
        Ok(Self { nodes, hints, peeker, engine, _tasks: tasks })
    }

    fn keys(&self) -> &Keys {
        &self.nodes.keys
    }

    fn of(&self, partition: &Partition) -> Request {
        Request::of(self.keys(), partition)
    }

    async fn read_by(
        &self,
        partition: &Partition,
        script: &Script,
        request: Request,
    ) -> Result<Reply, Error> {
        self.nodes.run(partition.bucket(), script, &request, Again::Safe).await
    }

    async fn timed(&self, index: Vec<u8>, bucket: Bucket, limit: usize) -> Result<Reply, Error> {
        let request = Request::default().key(index).number(limit.min(LIMIT_MAX) as u64);
        self.nodes.run(bucket, &scripts::TIMED, &request, Again::Safe).await
    }
}

impl std::fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedisStore").field("engine", &self.engine).finish_non_exhaustive()
    }
}

#[async_trait]
impl Store for RedisStore {
    fn capabilities(&self) -> Capabilities {
        Capabilities { engine: self.engine.clone(), survives: self.nodes.survives() }
    }

    async fn commit(&self, commit: Commit) -> Result<Committed, Error> {
        bounds::check(&commit)?;
        let bucket = commit.partition.bucket();
        let (mut reply, mut status) = (None, String::new());
        if let Some(request) = request::change(self.keys(), &commit) {
            let run = self.nodes.run(bucket, &scripts::CHANGE, &request, Again::Unsafe);
            status = reply.insert(run.await?).status()?;
        }
        let mut reply = match reply.filter(|_| status != "whole") {
            Some(reply) => reply,
            None => {
                let fresh = Incarnation(self.nodes.fresh());
                let request = request::commit(self.keys(), &commit, fresh)?;
                let again = if commit.id.is_some() { Again::Safe } else { Again::Unsafe };
                let mut reply = self.nodes.run(bucket, &scripts::COMMIT, &request, again).await?;
                status = reply.status()?;
                reply
            }
        };
        match &*status {
            "ok" => {
                let committed = reply.committed()?;
                // Those of this process need not wait for the hint to come back.
                self.hints.notify(&commit.partition);
                Ok(committed)
            }
            status => Err(reply.error(status)),
        }
    }

    async fn head(&self, partition: &Partition) -> Result<Option<Head>, Error> {
        let mut reply = self.read_by(partition, &scripts::HEAD, self.of(partition)).await?;
        match &*reply.status()? {
            "ok" => reply.head().map(Some),
            "none" => Ok(None),
            status => Err(reply.error(status)),
        }
    }

    async fn get(&self, partition: &Partition, key: &Key) -> Result<Option<Record>, Error> {
        let records = self.keys().records(partition);
        let peek = Peek { bucket: partition.bucket(), records, key: key.as_bytes().to_vec() };
        match self.peeker.peek(peek).await? {
            Peeked::Nothing => return Ok(None),
            Peeked::Record(raw) => return reply::record(raw).map(Some),
            Peeked::Unclear => {}
        }
        let records = self.keys().records(partition);
        let request = self.of(partition).key(records).arg(key.as_bytes());
        let mut reply = self.read_by(partition, &scripts::GET, request).await?;
        match &*reply.status()? {
            "ok" => reply.record().map(Some),
            "none" => Ok(None),
            status => Err(reply.error(status)),
        }
    }

    async fn scan(
        &self,
        partition: &Partition,
        prefix: &[u8],
        after: Option<&Key>,
        limit: usize,
    ) -> Result<ScanPage, Error> {
        let from = match after {
            Some(after) if after.as_bytes() >= prefix => [b"(", after.as_bytes()].concat(),
            Some(_) | None => [b"[", prefix].concat(),
        };
        let until = match keys::after_prefix(prefix) {
            Some(next) => [b"(", &next[..]].concat(),
            None => b"+".to_vec(),
        };
        let request = self
            .of(partition)
            .key(self.keys().records(partition))
            .key(self.keys().order(partition))
            .arg(from)
            .arg(until)
            .number(limit.min(LIMIT_MAX) as u64)
            .number(bounds::PAGE_BYTES_MAX as u64);
        let mut reply = self.read_by(partition, &scripts::SCAN, request).await?;
        match &*reply.status()? {
            "ok" => {
                let (position, more) = (reply.position()?, reply.number()? == 1);
                let mut records = Vec::new();
                while !reply.is_empty() {
                    records.push((reply.key()?, reply.record()?));
                }
                Ok(ScanPage { position, records, more })
            }
            status => Err(reply.error(status)),
        }
    }

    async fn read(
        &self,
        partition: &Partition,
        stream: &StreamName,
        from: u64,
        limit: usize,
    ) -> Result<Vec<Entry>, Error> {
        // Sequences count from 1, so 0 asks for the first as well.
        let request = self
            .of(partition)
            .key(self.keys().stream(partition, stream))
            .arg(stream.as_str())
            .number(from.clamp(1, 1 << 52))
            .number(limit.min(LIMIT_MAX) as u64)
            .number(bounds::PAGE_BYTES_MAX as u64);
        let mut reply = self.read_by(partition, &scripts::READ, request).await?;
        match &*reply.status()? {
            "ok" => {
                let _last = reply.number()?;
                let mut entries = Vec::new();
                while !reply.is_empty() {
                    entries.push(reply.entry()?);
                }
                Ok(entries)
            }
            status => Err(reply.error(status)),
        }
    }

    async fn changes(&self, partition: &Partition, since: Position) -> Result<Changes, Error> {
        let mut after = since.revision.to_string();
        // By pages, each whole at its own position. What changes meanwhile moves behind the
        // last page, so at that page's position every key is told as it then is.
        let mut latest: HashMap<Key, Change> = HashMap::new();
        loop {
            let request = self
                .of(partition)
                .key(self.keys().records(partition))
                .key(self.keys().changes(partition))
                .key(self.keys().deletions(partition))
                .number(since.incarnation.0)
                .number(since.revision)
                .arg(&after)
                .number(bounds::PAGE_BYTES_MAX as u64);
            let mut reply = self.read_by(partition, &scripts::CHANGES, request).await?;
            match &*reply.status()? {
                "ok" => {}
                status => return Err(reply.error(status)),
            }
            let (position, next, streams) = (reply.position()?, reply.text()?, reply.streams()?);
            while !reply.is_empty() {
                let change = reply.change()?;
                latest.insert(change.key.clone(), change);
            }
            if next.is_empty() {
                let mut keys: Vec<Change> = latest.into_values().collect();
                keys.sort_unstable_by(|a, b| (a.revision, &a.key).cmp(&(b.revision, &b.key)));
                return Ok(Changes { position, keys, streams });
            }
            after = next;
        }
    }

    fn hints(&self, _: &Partition) -> &Hints {
        &self.hints
    }

    async fn due(&self, bucket: Bucket, limit: usize) -> Result<Vec<Partition>, Error> {
        let mut reply = self.timed(self.keys().due(bucket), bucket, limit).await?;
        let mut due = Vec::new();
        while !reply.is_empty() {
            due.push(keys::parse_name(&reply.bytes()?)?);
        }
        Ok(due)
    }

    async fn list(
        &self,
        tenant: &TenantId,
        kind: &Kind,
        after: Option<&str>,
        limit: usize,
    ) -> Result<PartitionPage, Error> {
        list::list(&self.nodes, tenant, kind, after, limit).await
    }

    async fn sweep(&self, bucket: Bucket) -> Result<usize, Error> {
        let mut total = 0;
        loop {
            let mut reply = self.timed(self.keys().expiries(bucket), bucket, SWEEP).await?;
            let mut expired: BTreeMap<Partition, Vec<Key>> = BTreeMap::new();
            while !reply.is_empty() {
                let (partition, key) = keys::parse_expiry(&reply.bytes()?)?;
                expired.entry(partition).or_default().push(key);
            }
            let before = total;
            for (partition, keys) in expired {
                for keys in keys.chunks(bounds::COMMIT_WRITES_MAX) {
                    // Sent twice, it finds nothing to do.
                    let request = request::sweep(self.keys(), &partition, keys);
                    let run = self.nodes.run(bucket, &scripts::COMMIT, &request, Again::Safe);
                    let mut reply = run.await?;
                    match &*reply.status()? {
                        "swept" => total += reply.number()? as usize,
                        "idle" => {}
                        status => return Err(reply.error(status)),
                    }
                    self.hints.notify(&partition);
                }
            }
            if total == before {
                return Ok(total);
            }
        }
    }
}

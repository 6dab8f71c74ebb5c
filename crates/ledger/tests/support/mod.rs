//! An engine under test, its clock, and faults before it.

use clock::{ManualClock, SharedClock};
use std::{
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use store::{
    Bucket, Capabilities, Changes, Commit, Committed, Entry, Error, Head, Hints, Key, Kind,
    Partition, PartitionPage, Position, Record, ScanPage, SharedStore, Store, StreamName,
};
use store_redis::{Options, RedisStore, StoreTime};
use tempfile::TempDir;
use test_servers::{Postgres, PostgresOptions, Redis, RedisCluster, RedisOptions, Shared};
use types::{TenantId, Timestamp};

/// A store under test. Servers are shared by the tests of this binary.
pub(crate) struct Engine {
    pub(crate) store: SharedStore,
    pub(crate) clock: SharedClock,
    manual: Arc<ManualClock>,
    _kept: Option<TempDir>,
}

fn manual() -> (Arc<ManualClock>, SharedClock) {
    let manual = ManualClock::new(Timestamp(1), 1);
    (manual.clone(), manual)
}

/// Another one each time.
fn number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Relaxed)
}

impl Engine {
    pub(crate) fn memory() -> Self {
        let (manual, clock) = manual();
        let store = Arc::new(store_memory::MemoryStore::new(clock.clone()));
        Self { store, clock, manual, _kept: None }
    }

    pub(crate) fn embedded() -> Self {
        let (manual, clock) = manual();
        let folder = tempfile::tempdir().unwrap();
        let options = store_embedded::Options::default();
        let store = store_embedded::EmbeddedStore::open(folder.path(), options, clock.clone());
        Self { store: Arc::new(store.unwrap()), clock, manual, _kept: Some(folder) }
    }

    /// In a schema of its own.
    pub(crate) async fn postgres() -> Self {
        static SERVER: LazyLock<Shared<Postgres>> = LazyLock::new(|| {
            Shared::new(Postgres::start(PostgresOptions::default()).unwrap()).unwrap()
        });
        let (manual, clock) = manual();
        let url = SERVER.url(&format!("schema=ledger_{}", number()));
        let parsed = store_postgres::Options::parse(&url).unwrap();
        let options = store_postgres::Options { clock: Some(clock.clone()), ..parsed };
        let store = store_postgres::PostgresStore::open(options).await.unwrap();
        Self { store: Arc::new(store), clock, manual, _kept: None }
    }

    pub(crate) async fn redis() -> Self {
        static SERVER: LazyLock<Shared<Redis>> =
            LazyLock::new(|| Shared::new(Redis::start(RedisOptions::default()).unwrap()).unwrap());
        Self::of_redis(&SERVER.url()).await
    }

    pub(crate) async fn cluster() -> Self {
        static SERVER: LazyLock<Shared<RedisCluster>> = LazyLock::new(|| {
            Shared::new(RedisCluster::start(RedisOptions::default()).unwrap()).unwrap()
        });
        Self::of_redis(&SERVER.url()).await
    }

    pub(crate) async fn valkey() -> Self {
        static SERVER: LazyLock<Shared<Redis>> = LazyLock::new(|| {
            Shared::new(Redis::start_valkey(RedisOptions::default()).unwrap()).unwrap()
        });
        Self::of_redis(&SERVER.url()).await
    }

    /// Under a prefix of its own.
    async fn of_redis(url: &str) -> Self {
        let (manual, clock) = manual();
        let url = format!("{url}?prefix=ledger{}:", number());
        let options = Options { time: StoreTime::Clock, ..Options::default() };
        let store = RedisStore::open(&url, options, clock.clone()).await.unwrap();
        Self { store: Arc::new(store), clock, manual, _kept: None }
    }

    pub(crate) fn advance(&self, duration: Duration) {
        self.manual.advance(duration);
    }

    pub(crate) async fn is_due(&self, partition: &Partition) -> bool {
        self.store.due(partition.bucket(), 99).await.unwrap().contains(partition)
    }

    /// Every entry of a stream, as text.
    pub(crate) async fn stream(&self, partition: &Partition, stream: &StreamName) -> Vec<String> {
        let mut texts = Vec::new();
        loop {
            let from = texts.len() as u64 + 1;
            let entries = self.store.read(partition, stream, from, 1000).await.unwrap();
            if entries.is_empty() {
                return texts;
            }
            let text = |entry: Entry| String::from_utf8_lossy(&entry.value).into_owned();
            texts.extend(entries.into_iter().map(text));
        }
    }

    /// The store, behind a line on which so many of a thousand commits lose their request or
    /// their reply.
    pub(crate) fn faulty(&self, seed: u64, per_mille: u64) -> SharedStore {
        Arc::new(Faulty { store: self.store.clone(), state: AtomicU64::new(seed | 1), per_mille })
    }
}

struct Faulty {
    store: SharedStore,
    state: AtomicU64,
    per_mille: u64,
}

impl Faulty {
    fn draw(&self) -> u64 {
        let mut random = Random(self.state.load(Relaxed));
        let drawn = random.next();
        self.state.store(random.0, Relaxed);
        drawn
    }
}

#[async_trait::async_trait]
impl Store for Faulty {
    fn capabilities(&self) -> Capabilities {
        self.store.capabilities()
    }

    async fn commit(&self, commit: Commit) -> Result<Committed, Error> {
        let drawn = self.draw();
        let fails = drawn % 1000 < self.per_mille;
        if fails && drawn & 1 << 40 == 0 {
            return Err(Error::unavailable("the request was lost"));
        }
        let answer = self.store.commit(commit).await;
        if fails { Err(Error::unavailable("the reply was lost")) } else { answer }
    }

    async fn head(&self, partition: &Partition) -> Result<Option<Head>, Error> {
        self.store.head(partition).await
    }

    async fn get(&self, partition: &Partition, key: &Key) -> Result<Option<Record>, Error> {
        self.store.get(partition, key).await
    }

    async fn scan(
        &self,
        partition: &Partition,
        prefix: &[u8],
        after: Option<&Key>,
        limit: usize,
    ) -> Result<ScanPage, Error> {
        self.store.scan(partition, prefix, after, limit).await
    }

    async fn read(
        &self,
        partition: &Partition,
        stream: &StreamName,
        from: u64,
        limit: usize,
    ) -> Result<Vec<Entry>, Error> {
        self.store.read(partition, stream, from, limit).await
    }

    async fn changes(&self, partition: &Partition, since: Position) -> Result<Changes, Error> {
        self.store.changes(partition, since).await
    }

    fn hints(&self, partition: &Partition) -> &Hints {
        self.store.hints(partition)
    }

    async fn due(&self, bucket: Bucket, limit: usize) -> Result<Vec<Partition>, Error> {
        self.store.due(bucket, limit).await
    }

    async fn list(
        &self,
        tenant: &TenantId,
        kind: &Kind,
        after: Option<&str>,
        limit: usize,
    ) -> Result<PartitionPage, Error> {
        self.store.list(tenant, kind, after, limit).await
    }

    async fn sweep(&self, bucket: Bucket) -> Result<usize, Error> {
        self.store.sweep(bucket).await
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    /// From `CROSSTOWN_SEED`, or drawn.
    pub(crate) fn seed() -> u64 {
        let given = std::env::var("CROSSTOWN_SEED").ok().and_then(|seed| seed.parse().ok());
        given.unwrap_or_else(|| u64::from_be_bytes(clock::random(&*clock::SystemClock::shared())))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}

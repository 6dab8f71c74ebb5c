//! The servers, and which of them has a bucket.

use crate::{
    failure::{Next, told},
    keys::Keys,
    map::{Map, Range},
    node::{Address, Link, Node, load_scripts},
    options::{OpenError, Settings, StoreTime},
    reply::Reply,
    request::Request,
    scripts::{self, Script},
};
use clock::SharedClock;
use parking_lot::RwLock;
use redis::{ConnectionAddr, RedisError, Value};
use std::{sync::Arc, time::Duration};
use store::{Bucket, Error, Survives};
use tokio::{
    sync::{Mutex, watch},
    time::Instant,
};

/// The pause before something is asked again that the server could not do just then.
const PAUSE: Duration = Duration::from_millis(50);

/// Whether a request may be sent again after its answer was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Again {
    /// It changes nothing, or its id tells that it was done.
    Safe,
    /// It would be done twice.
    Unsafe,
}

/// The servers.
pub(crate) struct Nodes {
    pub(crate) settings: Arc<Settings>,
    pub(crate) keys: Keys,
    clock: SharedClock,
    map: RwLock<Arc<Map>>,
    /// Counts the maps, for those who hold connections of their own.
    changed: watch::Sender<u64>,
    refreshing: Mutex<Option<Instant>>,
    /// The slot of each bucket; `None` if this is no cluster.
    slots: Option<Vec<u16>>,
}

impl Nodes {
    /// Connects to every server.
    ///
    /// # Errors
    /// [`OpenError`].
    pub(crate) async fn open(settings: Settings, clock: SharedClock) -> Result<Self, OpenError> {
        let settings = Arc::new(settings);
        let keys = Keys::new(&settings.prefix);
        let mut failed = None;
        for seed in &settings.seeds {
            let node = Arc::new(Node::new(seed.clone(), settings.clone()));
            match node.connect().await {
                Ok(link) => return Self::from_seed(settings, keys, clock, node, &link).await,
                Err(error @ OpenError::Unreachable { .. }) => failed = Some(error),
                Err(error) => return Err(error),
            }
        }
        Err(failed.unwrap_or_else(|| OpenError::Url("it names no server".to_owned())))
    }

    async fn from_seed(
        settings: Arc<Settings>,
        keys: Keys,
        clock: SharedClock,
        seed: Arc<Node>,
        link: &Link,
    ) -> Result<Self, OpenError> {
        if settings.cluster && !link.facts.is_cluster {
            return Err(OpenError::Url(format!("{} is not part of a cluster", seed.shown)));
        }
        let unreachable = |source: RedisError| OpenError::Unreachable {
            server: seed.shown.clone(),
            source: source.into(),
        };
        let slots = if link.facts.is_cluster {
            // The server knows how buckets fall into slots; nobody else needs to.
            let mut ask = redis::pipe();
            for bucket in Bucket::all() {
                ask.cmd("CLUSTER").arg("KEYSLOT").arg(keys.life(bucket));
            }
            Some(ask.query_async(&mut link.connection()).await.map_err(unreachable)?)
        } else {
            None
        };
        let map = RwLock::new(Arc::new(Map::of_one(seed.clone())));
        let (changed, refreshing) = (watch::Sender::new(0), Mutex::new(None));
        let nodes = Self { settings, keys, clock, map, changed, refreshing, slots };
        if nodes.slots.is_some() {
            nodes.read_map(&seed, link).await.map_err(unreachable)?;
        }
        for node in &nodes.map().nodes {
            let link = match node.present() {
                Some(link) => link,
                None => node.connect().await?,
            };
            let found = link.facts.describe();
            tracing::info!(server = node.shown, found, "connected");
        }
        Ok(nodes)
    }

    pub(crate) fn map(&self) -> Arc<Map> {
        self.map.read().clone()
    }

    pub(crate) fn is_cluster(&self) -> bool {
        self.slots.is_some()
    }

    /// Tells whenever buckets may have moved.
    pub(crate) fn changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// The least that any server keeps.
    pub(crate) fn survives(&self) -> Survives {
        let map = self.map();
        let links = map.nodes.iter().filter_map(|node| node.present());
        // Nobody is connected: at least what was demanded of whoever will be.
        links.map(|link| link.facts.survives()).min().unwrap_or(self.settings.survives)
    }

    /// A number that was not there before.
    pub(crate) fn fresh(&self) -> u64 {
        u64::from_le_bytes(clock::random(&*self.clock)).max(1)
    }

    /// The time as scripts take it; empty: the server's.
    pub(crate) fn time(&self) -> String {
        match self.settings.options.time {
            StoreTime::Server => String::new(),
            StoreTime::Clock => self.clock.now().0.to_string(),
        }
    }

    /// Asks the cluster again who has which slot, unless somebody just did.
    async fn refresh(&self) {
        if self.slots.is_none() {
            return;
        }
        let asked = Instant::now();
        let mut last = self.refreshing.lock().await;
        if last.is_some_and(|last| last > asked) {
            return;
        }
        for node in &self.map().nodes {
            let Ok(link) = node.link().await else { continue };
            if self.read_map(node, &link).await.is_ok() {
                *last = Some(Instant::now());
                return;
            }
        }
    }

    async fn read_map(&self, asked: &Node, link: &Link) -> Result<(), RedisError> {
        let Some(slots) = &self.slots else { return Ok(()) };
        let answer: Vec<Value> =
            redis::cmd("CLUSTER").arg("SLOTS").query_async(&mut link.connection()).await?;
        let ranges: Vec<Range> = answer.iter().filter_map(Range::parse).collect();
        let host = asked.address().unwrap_or_default().0;
        let map = self.map().renewed(ranges, slots, &host, |address| self.node_at(asked, address));
        // A node that was just cut off may know of nobody.
        if !map.nodes.is_empty() && !map.is_same(&self.map()) {
            *self.map.write() = Arc::new(map);
            self.changed.send_modify(|count| *count += 1);
        }
        Ok(())
    }

    fn node_at(&self, like: &Node, (host, port): &Address) -> Arc<Node> {
        let info = like.info().clone().set_addr(ConnectionAddr::Tcp(host.clone(), *port));
        Arc::new(Node::new(info, self.settings.clone()))
    }

    /// Asks every server whether it is still what it was, for as long as it is polled.
    pub(crate) async fn keep_checking(&self) {
        loop {
            tokio::time::sleep(self.settings.options.check_every).await;
            self.refresh().await;
            for node in &self.map().nodes {
                node.check().await;
            }
        }
    }

    /// Runs `script` where `bucket` is.
    ///
    /// # Errors
    /// [`Error::Unavailable`] and [`Error::Full`]; what the script itself refuses is a reply.
    pub(crate) async fn run(
        &self,
        bucket: Bucket,
        script: &Script,
        request: &Request,
        again: Again,
    ) -> Result<Reply, Error> {
        let until = Instant::now() + self.settings.options.response_timeout;
        let mut lost_answer = false;
        let mut asking: Option<Arc<Node>> = None;
        loop {
            let map = self.map();
            let told_to_ask = asking.take();
            let is_asking = told_to_ask.is_some();
            let node = match told_to_ask.or_else(|| map.node(bucket).cloned()) {
                Some(node) => node,
                None => {
                    self.pause(until, "no node serves the slot; nothing was done").await?;
                    self.refresh().await;
                    continue;
                }
            };
            let link = node.link().await?;
            let _room = node.room(request.size()).await?;
            let error = match self.send(&link, script, request, is_asking).await {
                Ok(value) if needs_life(&value) => {
                    self.take_over(&link, bucket, is_asking).await?;
                    continue;
                }
                Ok(value) => return Reply::new(value),
                Err(error) => error,
            };
            match Next::after(&error) {
                Next::Load => {
                    load_scripts(&mut link.connection()).await.map_err(Error::unavailable)?;
                }
                Next::Moved => self.refresh().await,
                Next::Ask => {
                    let to = error.redirect_node();
                    asking = to.map(|(host, port)| self.node_at(&node, &(host.to_owned(), port)));
                }
                Next::Wait => {
                    self.pause(until, "the server is not ready; nothing was done").await?;
                    self.refresh().await;
                }
                Next::Reconnect => {
                    node.lose(&link);
                    self.pause(until, "the server takes no writes; nothing was done").await?;
                    self.refresh().await;
                }
                Next::Lost => {
                    node.lose(&link);
                    let may = again == Again::Safe && !lost_answer && !error.is_timeout();
                    if !may {
                        return Err(Error::unavailable(error));
                    }
                    lost_answer = true;
                    self.refresh().await;
                }
                Next::Full | Next::Refuse => return Err(told(error)),
            }
            if Instant::now() > until {
                return Err(Error::unavailable(error));
            }
        }
    }

    async fn pause(&self, until: Instant, why: &'static str) -> Result<(), Error> {
        if Instant::now() > until {
            return Err(Error::unavailable(why));
        }
        tokio::time::sleep(PAUSE).await;
        Ok(())
    }

    async fn send(
        &self,
        link: &Link,
        script: &Script,
        request: &Request,
        is_asking: bool,
    ) -> Result<Value, RedisError> {
        let mut cmd = redis::cmd("EVALSHA");
        cmd.arg(script.hash()).arg(request.keys.len()).arg(&request.keys);
        cmd.arg(&link.server).arg(self.time()).arg(&request.args);
        if !is_asking {
            return cmd.query_async(&mut link.connection()).await;
        }
        let mut both = redis::pipe();
        both.cmd("ASKING").ignore().add_command(cmd);
        let (answer,): (Value,) = both.query_async(&mut link.connection()).await?;
        Ok(answer)
    }

    /// Lets the server of `link` go on with a bucket's data, in its old life or in a new one.
    async fn take_over(&self, link: &Link, bucket: Bucket, is_asking: bool) -> Result<(), Error> {
        let mut cmd = redis::cmd("EVAL");
        cmd.arg(scripts::LIFE.text()).arg(1).arg(self.keys.life(bucket));
        for arg in link.facts.life_args() {
            cmd.arg(arg);
        }
        cmd.arg(format!("{:016x}", self.fresh()));
        let mut connection = link.connection();
        let done: Result<(), RedisError> = if is_asking {
            let mut both = redis::pipe();
            both.cmd("ASKING").ignore().add_command(cmd).ignore();
            both.query_async(&mut connection).await
        } else {
            cmd.exec_async(&mut connection).await
        };
        done.map_err(told)
    }
}

fn needs_life(value: &Value) -> bool {
    matches!(value, Value::Array(parts)
        if matches!(parts.as_slice(), [Value::BulkString(status)] if status == b"life"))
}

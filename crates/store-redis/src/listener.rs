//! Listening to channels of sharded publish/subscribe, on whichever server they are.
//!
//! One task holds a connection to each server that it must listen to. Whenever one of them is
//! lost or a bucket moves, all are made anew; what was published meanwhile is lost, and whoever
//! listens is told so.

use crate::{node::Node, nodes::Nodes};
use futures_util::future::{join_all, try_join_all};
use parking_lot::Mutex;
use redis::{
    AsyncConnectionConfig, ProtocolVersion, PushInfo, PushKind, RedisError, Value,
    aio::MultiplexedConnection,
};
use std::{
    collections::{HashMap, HashSet},
    convert::Infallible,
    sync::Arc,
    time::Duration,
};
use store::{Bucket, Error};
use tokio::sync::{Notify, watch};

const BACKOFF_MIN: Duration = Duration::from_millis(50);

/// What is heard.
pub(crate) enum Heard<'a> {
    /// A message.
    Message { channel: &'a [u8], message: Vec<u8> },
    /// Messages may have been lost before whatever comes next.
    Gap,
}

type Channels = Vec<(Vec<u8>, Bucket)>;
type Tell = Box<dyn Fn(Heard<'_>) + Send + Sync>;

/// Listens to channels.
pub(crate) struct Listener {
    nodes: Arc<Nodes>,
    tell: Tell,
    wanted: Mutex<HashMap<Vec<u8>, Bucket>>,
    /// Those that are being left; the server confirms that as it tells of a slot that moved.
    leaving: Mutex<HashSet<Vec<u8>>>,
    /// Those that the servers have confirmed.
    confirmed: watch::Sender<HashSet<Vec<u8>>>,
    changed: Notify,
}

/// Why connections are made anew.
enum Ended {
    /// One was lost.
    Lost(String),
    /// Buckets have moved.
    Moved,
}

impl From<RedisError> for Ended {
    fn from(error: RedisError) -> Self {
        Self::Lost(error.to_string())
    }
}

impl Listener {
    /// `tell` is called on the connections' own tasks and must not wait.
    pub(crate) fn new(
        nodes: Arc<Nodes>,
        tell: impl Fn(Heard<'_>) + Send + Sync + 'static,
    ) -> Arc<Self> {
        let (tell, wanted, leaving) = (Box::new(tell), Mutex::default(), Mutex::default());
        let (confirmed, changed) = (watch::Sender::default(), Notify::new());
        Arc::new(Self { nodes, tell, wanted, leaving, confirmed, changed })
    }

    /// Listens to `channels`, once the task gets to it.
    pub(crate) fn want(&self, channels: impl IntoIterator<Item = (Vec<u8>, Bucket)>) {
        self.wanted.lock().extend(channels);
        self.changed.notify_one();
    }

    /// Waits until the servers have confirmed `channels`.
    pub(crate) async fn confirmed(&self, channels: &[Vec<u8>]) -> Result<(), Error> {
        let mut confirmed = self.confirmed.subscribe();
        let all = confirmed.wait_for(|known| channels.iter().all(|one| known.contains(one)));
        let timeout = self.nodes.settings.options.response_timeout;
        match tokio::time::timeout(timeout, all).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Error::unavailable("no connection to listen on")),
        }
    }

    /// No longer listens to a channel, unless `is_wanted`.
    pub(crate) fn leave(&self, channel: &[u8], is_wanted: impl FnOnce() -> bool) {
        let mut wanted = self.wanted.lock();
        if !is_wanted() {
            wanted.remove(channel);
            self.changed.notify_one();
        }
    }

    /// Listens for as long as it is polled.
    pub(crate) async fn run(self: Arc<Self>) -> Infallible {
        let mut failed = 0_u32;
        let mut moved = self.nodes.changed();
        loop {
            let was_listening = !self.confirmed.borrow().is_empty();
            moved.mark_unchanged();
            let Err(ended) = self.session(&mut moved, was_listening || failed > 0).await;
            if !self.confirmed.borrow().is_empty() {
                failed = 0;
            }
            self.confirmed.send_modify(HashSet::clear);
            // Before whatever is heard next, and again once the servers have confirmed: only
            // what is looked up after that is sure to be whole.
            (self.tell)(Heard::Gap);
            if let Ended::Lost(error) = ended {
                if failed == 0 {
                    tracing::warn!(error, "hints and messages are lost until it is back");
                }
                let most = self.nodes.settings.options.backoff_max;
                let pause = BACKOFF_MIN * 2_u32.saturating_pow(failed.min(16));
                failed += 1;
                tokio::time::sleep(pause.min(most)).await;
            }
        }
    }

    async fn session(
        self: &Arc<Self>,
        moved: &mut watch::Receiver<u64>,
        had_gap: bool,
    ) -> Result<Infallible, Ended> {
        let map = self.nodes.map();
        self.leaving.lock().clear();
        let lost = Arc::new(Notify::new());
        let connecting = map.nodes.iter().map(|node| self.connect(node, lost.clone()));
        let connections = try_join_all(connecting).await?;
        let place = |bucket| {
            let node = map.node(bucket)?;
            let at = map.nodes.iter().position(|one| Arc::ptr_eq(one, node))?;
            connections.get(at).cloned()
        };
        let mut tell_gap = had_gap;
        loop {
            let (new, old) = self.take_difference();
            let subscribing = new.iter().filter_map(|(channel, bucket)| {
                Some(send("SSUBSCRIBE", place(*bucket)?, channel.clone()))
            });
            for answer in join_all(subscribing).await {
                answer?;
            }
            self.leaving.lock().extend(old.iter().map(|(channel, _)| channel.clone()));
            let leaving = old.iter().filter_map(|(channel, bucket)| {
                Some(send("SUNSUBSCRIBE", place(*bucket)?, channel.clone()))
            });
            for answer in join_all(leaving).await {
                answer?;
            }
            self.confirmed.send_modify(|known| {
                known.extend(new.into_iter().map(|(channel, _)| channel));
            });
            if std::mem::take(&mut tell_gap) {
                (self.tell)(Heard::Gap);
            }
            tokio::select! {
                () = self.changed.notified() => {}
                () = lost.notified() => return Err(Ended::Lost("a connection ended".to_owned())),
                _ = moved.changed() => return Err(Ended::Moved),
                () = tokio::time::sleep(self.nodes.settings.options.check_every) => {
                    for connection in &connections {
                        let mut connection = connection.clone();
                        redis::cmd("PING").query_async::<()>(&mut connection).await?;
                    }
                }
            }
        }
    }

    /// Channels to subscribe to and to leave. The latter are no longer confirmed from here on:
    /// who wants one again meanwhile has to wait until it is subscribed to anew. As they are
    /// wanted by nobody, their buckets are found by their names.
    fn take_difference(&self) -> (Channels, Channels) {
        let wanted = self.wanted.lock();
        let (mut new, mut old) = (Vec::new(), Vec::new());
        self.confirmed.send_modify(|confirmed| {
            let missing = wanted.iter().filter(|(channel, _)| !confirmed.contains(*channel));
            new.extend(missing.map(|(channel, bucket)| (channel.clone(), *bucket)));
            old.extend(confirmed.extract_if(|channel| !wanted.contains_key(channel)));
        });
        let bucket = |channel: Vec<u8>| {
            let bucket = self.nodes.keys.bucket_of_channel(&channel)?;
            Some((channel, bucket))
        };
        (new, old.into_iter().filter_map(bucket).collect())
    }

    async fn connect(
        self: &Arc<Self>,
        node: &Arc<Node>,
        lost: Arc<Notify>,
    ) -> Result<MultiplexedConnection, RedisError> {
        let options = &self.nodes.settings.options;
        let me = self.clone();
        let hear = move |push: PushInfo| {
            match (&push.kind, push.data.as_slice()) {
                (PushKind::SMessage, [Value::BulkString(channel), Value::BulkString(message)]) => {
                    (me.tell)(Heard::Message { channel, message: message.clone() });
                }
                (PushKind::Disconnection, _) => lost.notify_one(),
                // Unless it is one that we leave, its slot has moved elsewhere.
                (PushKind::SUnsubscribe, [Value::BulkString(channel), ..])
                    if !me.leaving.lock().remove(channel) =>
                {
                    lost.notify_one();
                }
                _ => {}
            }
            Ok::<(), Infallible>(())
        };
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(options.connect_timeout))
            .set_response_timeout(Some(options.response_timeout))
            .set_push_sender(hear);
        let info = node.info().clone();
        let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
        let client = redis::Client::open(info.set_redis_settings(settings))?;
        client.get_multiplexed_async_connection_with_config(&config).await
    }
}

/// One channel at a time: each is confirmed on its own.
async fn send(
    command: &'static str,
    mut connection: MultiplexedConnection,
    channel: Vec<u8>,
) -> Result<(), RedisError> {
    let mut cmd = redis::cmd(command);
    cmd.arg(channel);
    connection.send_packed_command(&cmd).await?.extract_error().map(drop)
}

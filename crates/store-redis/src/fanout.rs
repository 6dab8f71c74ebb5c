//! The fan-out over sharded publish/subscribe.

use crate::{
    keys,
    listener::{Heard, Listener},
    nodes::{Again, Nodes},
    options::{OpenError, Options, Settings},
    request::Request,
    scripts,
};
use async_trait::async_trait;
use bytes::Bytes;
use clock::SharedClock;
use std::sync::Arc;
use store::{Error, Fanout, Subscribers, Subscription, Topic, check_message};
use tokio::task::JoinSet;

/// The fan-out over a Redis server or cluster.
///
/// A topic is a channel of sharded publish/subscribe in the slot of its bucket. A lost
/// connection is told to every subscription as [`store::Told::MayHaveMissed`], at once and
/// again when it is back; so is a server that drops a connection because it reads too slowly.
pub struct RedisFanout {
    nodes: Arc<Nodes>,
    listener: Arc<Listener>,
    subscribers: Arc<Subscribers>,
    _tasks: JoinSet<()>,
}

impl RedisFanout {
    /// Connects to the servers of `url`, as [`crate::RedisStore::open`] does.
    ///
    /// # Errors
    /// [`OpenError`].
    pub async fn open(url: &str, options: Options, clock: SharedClock) -> Result<Self, OpenError> {
        let nodes = Arc::new(Nodes::open(Settings::parse(url, options)?, clock).await?);
        let subscribers = Arc::<Subscribers>::default();
        let (names, to) = (nodes.keys.clone(), subscribers.clone());
        let listener = Listener::new(nodes.clone(), move |heard| match heard {
            Heard::Message { channel, message } => {
                let name = names.topic_of_channel(channel).unwrap_or_default();
                if let Ok(partition) = keys::parse_name(name) {
                    to.deliver(&partition.into(), &message.into());
                }
            }
            Heard::Gap => to.missed(),
        });
        let mut tasks = JoinSet::new();
        let (checking, listening) = (nodes.clone(), listener.clone());
        tasks.spawn(async move { checking.keep_checking().await });
        tasks.spawn(async move { match listening.run().await {} });
        Ok(Self { nodes, listener, subscribers, _tasks: tasks })
    }
}

fn channel(nodes: &Nodes, topic: &Topic) -> Vec<u8> {
    nodes.keys.topic(topic.bucket(), &keys::name(topic.as_ref()))
}

#[async_trait]
impl Fanout for RedisFanout {
    async fn publish(&self, topic: &Topic, message: Bytes) -> Result<(), Error> {
        check_message(&message)?;
        let bucket = topic.bucket();
        let request = Request::default().key(channel(&self.nodes, topic)).arg(&message);
        self.nodes.run(bucket, &scripts::PUBLISH, &request, Again::Unsafe).await.map(drop)
    }

    async fn subscribe(&self, topics: &[Topic]) -> Result<Subscription, Error> {
        let (nodes, listener) = (self.nodes.clone(), self.listener.clone());
        let subscribers = self.subscribers.clone();
        let channels: Vec<Vec<u8>> = topics.iter().map(|topic| channel(&nodes, topic)).collect();
        let topics = topics.to_vec();
        let subscription = subscribers.subscribe(&topics);
        let buckets = topics.iter().map(Topic::bucket);
        listener.want(channels.iter().cloned().zip(buckets));
        let listening = listener.clone();
        let subscription = subscription.when_dropped(move || {
            for topic in &topics {
                let channel = channel(&nodes, topic);
                listening.leave(&channel, || subscribers.any(topic));
            }
        });
        listener.confirmed(&channels).await?;
        Ok(subscription)
    }
}

impl std::fmt::Debug for RedisFanout {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedisFanout")
            .field("servers", &self.nodes.settings.shown)
            .finish_non_exhaustive()
    }
}

//! The fan-out within one process.

use async_trait::async_trait;
use bytes::Bytes;
use store::{Error, Fanout, Subscribers, Subscription, Topic, check_message};

/// The fan-out within one process: nothing is lost but what a slow reader cannot take.
#[derive(Debug, Default)]
pub struct MemoryFanout {
    subscribers: Subscribers,
}

#[async_trait]
impl Fanout for MemoryFanout {
    async fn publish(&self, topic: &Topic, message: Bytes) -> Result<(), Error> {
        check_message(&message)?;
        self.subscribers.deliver(topic, &message);
        Ok(())
    }

    async fn subscribe(&self, topics: &[Topic]) -> Result<Subscription, Error> {
        Ok(self.subscribers.subscribe(topics))
    }
}

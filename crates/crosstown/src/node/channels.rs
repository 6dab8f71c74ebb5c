//! Channels, as the HTTP API publishes to them.

use async_trait::async_trait;
use protocol::{Code, Problem, client::filter::Tags};
use realtime::{Publications, Realtime};
use serde_json::{Map, Value, value::RawValue};
use std::{sync::Arc, time::Duration};
use traffic_cop::state::{Applied, Operation};
use types::Caller;

pub(super) struct Channels {
    pub(super) publications: Publications,
    pub(super) realtime: Arc<Realtime>,
}

#[async_trait]
impl api::Channels for Channels {
    async fn publish(
        &self,
        caller: &Caller,
        channel: &str,
        data: Box<RawValue>,
        tags: Tags,
    ) -> Result<u64, Problem> {
        self.publications.publish(caller, channel, data, tags).await
    }

    async fn set(
        &self,
        caller: &Caller,
        channel: &str,
        key: &str,
        operation: Operation,
        ttl: Option<Duration>,
    ) -> Result<Applied, Problem> {
        self.publications.set(caller, channel, key, operation, ttl).await
    }

    async fn describe(
        &self,
        caller: &Caller,
        channel: &str,
    ) -> Result<Map<String, Value>, Problem> {
        let description = self.realtime.describe(caller, channel).await?;
        match serde_json::to_value(description) {
            Ok(Value::Object(members)) => Ok(members),
            Ok(_) | Err(_) => {
                Err(Problem::new(Code::Internal, "the description cannot be written"))
            }
        }
    }
}

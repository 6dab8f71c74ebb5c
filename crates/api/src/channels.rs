//! `/crosstown/v1/channels/{channel}/publications`: publishing for those without a socket.

use crate::{
    Channels,
    answer::{Answer, json_with},
    request::{By, Json},
};
use axum::{
    Router,
    extract::{Path, State},
    routing::post,
};
use http::StatusCode;
use serde::Serialize;
use serde_json::value::RawValue;
use std::sync::Arc;

pub(crate) fn routes(channels: Arc<dyn Channels>) -> Router {
    Router::new().route("/channels/{channel}/publications", post(publish)).with_state(channels)
}

#[derive(Serialize)]
struct Published {
    /// The publication's number in the channel; 0 if the channel keeps no history.
    offset: u64,
}

async fn publish(
    State(channels): State<Arc<dyn Channels>>,
    by: By,
    Path(channel): Path<String>,
    Json(data): Json<Box<RawValue>>,
) -> Answer {
    let offset = channels.publish(&by, &channel, data).await?;
    json_with(StatusCode::CREATED, Published { offset })
}

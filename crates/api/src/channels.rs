//! `/crosstown/v1/channels/{channel}/publications`: publishing for those without a socket.

use crate::{
    Channels,
    answer::{Answer, json_with},
    request::{By, Json},
};
use axum::{
    Router,
    extract::{Path, RawQuery, State},
    routing::post,
};
use http::StatusCode;
use protocol::{Code, Problem, client::filter::Tags};
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
    RawQuery(query): RawQuery,
    Json(data): Json<Box<RawValue>>,
) -> Answer {
    let tags = tags(query.as_deref().unwrap_or_default())?;
    let offset = channels.publish(&by, &channel, data, tags).await?;
    json_with(StatusCode::CREATED, Published { offset })
}

/// The tags of `?tag=ticker:AAPL&tag=price:10`.
fn tags(query: &str) -> Result<Tags, Problem> {
    let mut tags = Tags::new();
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        let Some((tag, value)) = value.split_once(':').filter(|_| name == "tag") else {
            let detail = "a publication takes `tag=NAME:VALUE`, and no other parameter";
            return Err(Problem::new(Code::BadRequest, detail));
        };
        if tags.insert(tag.to_owned(), value.to_owned()).is_some() {
            return Err(Problem::new(Code::BadRequest, "a tag is given twice"));
        }
    }
    Ok(tags)
}

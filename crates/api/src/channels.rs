//! `/crosstown/v1/channels/{channel}/publications` and, of maps, `…/entries/{key}`: publishing for
//! those without a socket.

use crate::{
    Channels,
    answer::{Answer, json, json_with},
    request::{By, Json, Wanted},
};
use axum::{
    Router,
    extract::{Path, RawQuery, State},
    routing::{post, put},
};
use http::StatusCode;
use protocol::{Code, Problem, client::filter::Tags};
use serde::{Deserialize, Serialize};
use serde_json::{Value, value::RawValue};
use std::{sync::Arc, time::Duration};
use traffic_cop::state::Operation;

pub(crate) fn routes(channels: Arc<dyn Channels>) -> Router {
    Router::new()
        .route("/channels/{channel}/publications", post(publish))
        .route("/channels/{channel}/entries/{key}", put(set).delete(remove))
        .with_state(channels)
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

/// How long an entry is to live: `?ttl=30s`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Living {
    #[serde(default, deserialize_with = "types::duration::optional")]
    ttl: Option<Duration>,
}

/// A change of a map, made.
#[derive(Serialize)]
struct Changed {
    epoch: String,
    revision: u64,
}

async fn set(
    State(channels): State<Arc<dyn Channels>>,
    by: By,
    Path((channel, key)): Path<(String, String)>,
    Wanted(Living { ttl }): Wanted<Living>,
    Json(value): Json<Value>,
) -> Answer {
    let done = channels.set(&by, &channel, &key, Operation::Put(value), ttl).await?;
    json(Changed { epoch: done.epoch, revision: done.revision })
}

async fn remove(
    State(channels): State<Arc<dyn Channels>>,
    by: By,
    Path((channel, key)): Path<(String, String)>,
) -> Answer {
    let done = channels.set(&by, &channel, &key, Operation::Delete, None).await?;
    json(Changed { epoch: done.epoch, revision: done.revision })
}

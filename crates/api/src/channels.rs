//! `/crosstown/v1/channels`: which channels are followed, on any node, what one is, and for those
//! without a socket publishing, and setting and removing the entries of maps.

use crate::{
    Channels,
    answer::{Answer, json, json_with, refuse},
    request::{By, Json, Wanted},
};
use axum::{
    Router,
    extract::{Path, RawQuery, State},
    routing::{get, post, put},
};
use http::StatusCode;
use protocol::{Code, Problem, client::filter::Tags};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, value::RawValue};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use traffic_cop::{
    channels::{self, Active, Distinct, Followed},
    connections::Holders,
    state::Operation,
};

/// Channels that one answer shows, unless the caller says otherwise.
const SHOWN: usize = 100;
const SHOWN_MAX: usize = 1_000;
/// Bytes of a channel's name, or of a pattern.
const NAME_BYTES_MAX: usize = 255;

type SharedHolders = Arc<dyn Holders>;

pub(crate) fn routes(channels: Arc<dyn Channels>, holders: SharedHolders) -> Router {
    let one = get(read).with_state((channels.clone(), holders.clone()));
    Router::new()
        .route("/channels/{channel}/publications", post(publish))
        .route("/channels/{channel}/entries/{key}", put(set).delete(remove))
        .with_state(channels)
        .route("/channels", get(list))
        .with_state(holders)
        .route("/channels/{channel}", one)
}

/// Which channels, by a query.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Which {
    /// `*` stands for any characters.
    pattern: Option<String>,
    limit: Option<usize>,
    /// From an answer before.
    cursor: Option<String>,
}

#[derive(Serialize)]
struct Listed {
    channels: Vec<Active>,
    /// What to ask for the rest by, if there may be more.
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<String>,
}

async fn list(
    State(holders): State<SharedHolders>,
    by: By,
    Wanted(which): Wanted<Which>,
) -> Answer {
    by.speaks_for_tenant()?;
    let Which { pattern, limit, cursor } = which;
    let limit = limit.unwrap_or(SHOWN);
    if !(1..=SHOWN_MAX).contains(&limit) {
        return refuse(Code::BadRequest, format!("`limit` is 1 to {SHOWN_MAX}"));
    }
    if [&pattern, &cursor].into_iter().flatten().any(|text| text.len() > NAME_BYTES_MAX) {
        let detail = format!("`pattern` and `cursor` have at most {NAME_BYTES_MAX} bytes");
        return refuse(Code::BadRequest, detail);
    }
    let wanted = channels::Wanted { tenant: by.tenant.clone(), pattern, after: cursor, limit };
    let page = holders.channels(wanted).await?;
    json(Listed { channels: page.channels, cursor: page.next })
}

#[derive(Serialize)]
struct Shown {
    /// Subscriptions on all nodes.
    subscribers: u64,
    /// Their principals, each once.
    users: Option<u64>,
    /// Subscriptions by node.
    nodes: BTreeMap<String, u64>,
    /// What the channel is.
    #[serde(flatten)]
    is: Map<String, Value>,
}

async fn read(
    State((channels, holders)): State<(Arc<dyn Channels>, SharedHolders)>,
    by: By,
    Path(channel): Path<String>,
) -> Answer {
    by.speaks_for_tenant()?;
    let is = channels.describe(&by, &channel).await?;
    let followers = holders.followers(Followed { tenant: by.tenant.clone(), channel }).await?;
    json(Shown {
        subscribers: followers.iter().map(|of| of.subscribers).sum(),
        users: Distinct::count_all(followers.iter().map(|of| &of.users)),
        nodes: followers.into_iter().map(|of| (of.node, of.subscribers)).collect(),
        is,
    })
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

//! `/crosstown/v1/channels`: which channels are followed, on any node, what one is, and for those
//! without a socket publishing, and setting and removing the entries of maps.

use crate::{
    Channels, Parts,
    answer::{Answer, Created, refuse},
    document::told,
    request::{AnyJson, By, InPath, Json, Wanted},
};
use aide::axum::{
    ApiRouter,
    routing::{get_with, post_with, put_with},
};
use axum::extract::{RawQuery, State};
use protocol::{
    Code::{self, Conflict, NotFound, StoreFull},
    Problem,
    client::filter::Tags,
};
use schemars::JsonSchema;
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

pub(crate) fn routes() -> ApiRouter<Parts> {
    const CHANGE: &[Code] = &[NotFound, Conflict, StoreFull];
    let entry = put_with(set, told("setMapEntry", "Set an entry of a map.", CHANGE))
        .delete_with(remove, told("removeMapEntry", "Remove an entry of a map.", CHANGE));
    ApiRouter::new()
        .api_route(
            "/channels",
            get_with(list, told("listChannels", "Channels that are followed, on all nodes.", &[])),
        )
        .api_route(
            "/channels/{channel}",
            get_with(
                read,
                told("readChannel", "What a channel is, and who follows it.", &[NotFound]),
            ),
        )
        .api_route(
            "/channels/{channel}/publications",
            post_with(publish, told("publish", "Publish to a channel.", &[NotFound, StoreFull])),
        )
        .api_route("/channels/{channel}/entries/{key}", entry)
}

/// Which channel a path names.
#[derive(Deserialize, JsonSchema)]
struct OfChannel {
    /// Its name.
    channel: String,
}

/// Which entry of a map a path names.
#[derive(Deserialize, JsonSchema)]
struct OfMapEntry {
    /// The map's channel.
    channel: String,
    /// The entry's key.
    key: String,
}

/// Which channels, by a query.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Which {
    /// `*` stands for any characters.
    pattern: Option<String>,
    /// So many at most; 100, unless it is said.
    #[schemars(range(min = 1, max = 1_000))]
    limit: Option<usize>,
    /// From an answer before.
    cursor: Option<String>,
}

/// Channels that are followed, in the order of their names.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Channels")]
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
) -> Answer<Json<Listed>> {
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
    Ok(Json(Listed { channels: page.channels, cursor: page.next }))
}

/// A channel.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Channel")]
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
    State(channels): State<Arc<dyn Channels>>,
    State(holders): State<SharedHolders>,
    by: By,
    InPath(OfChannel { channel }): InPath<OfChannel>,
) -> Answer<Json<Shown>> {
    by.speaks_for_tenant()?;
    let is = channels.describe(&by, &channel).await?;
    let followers = holders.followers(Followed { tenant: by.tenant.clone(), channel }).await?;
    Ok(Json(Shown {
        subscribers: followers.iter().map(|of| of.subscribers).sum(),
        users: Distinct::count_all(followers.iter().map(|of| &of.users)),
        nodes: followers.into_iter().map(|of| (of.node, of.subscribers)).collect(),
        is,
    }))
}

/// A publication that was taken.
#[derive(Serialize, JsonSchema)]
struct Published {
    /// The publication's number in the channel; 0 if the channel keeps no history.
    offset: u64,
}

async fn publish(
    State(channels): State<Arc<dyn Channels>>,
    by: By,
    InPath(OfChannel { channel }): InPath<OfChannel>,
    RawQuery(query): RawQuery,
    AnyJson(data): AnyJson<Box<RawValue>>,
) -> Answer<Created<Published>> {
    let tags = tags(query.as_deref().unwrap_or_default())?;
    let offset = channels.publish(&by, &channel, data, tags).await?;
    Ok(Created(Published { offset }))
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
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Living {
    /// Its time; as long as the map has it, unless it is said.
    #[serde(default, deserialize_with = "types::duration::optional")]
    #[schemars(with = "Option<types::duration::Text>")]
    ttl: Option<Duration>,
}

/// A change of a map, made.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ChangedMap")]
struct Changed {
    /// The life of the map.
    epoch: String,
    /// The revision that it made.
    revision: u64,
}

async fn set(
    State(channels): State<Arc<dyn Channels>>,
    by: By,
    InPath(OfMapEntry { channel, key }): InPath<OfMapEntry>,
    Wanted(Living { ttl }): Wanted<Living>,
    AnyJson(value): AnyJson<Value>,
) -> Answer<Json<Changed>> {
    let done = channels.set(&by, &channel, &key, Operation::Put(value), ttl).await?;
    Ok(Json(Changed { epoch: done.epoch, revision: done.revision }))
}

async fn remove(
    State(channels): State<Arc<dyn Channels>>,
    by: By,
    InPath(OfMapEntry { channel, key }): InPath<OfMapEntry>,
) -> Answer<Json<Changed>> {
    let done = channels.set(&by, &channel, &key, Operation::Delete, None).await?;
    Ok(Json(Changed { epoch: done.epoch, revision: done.revision }))
}

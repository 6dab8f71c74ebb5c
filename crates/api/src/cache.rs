//! The answers that a node keeps.

use crate::{
    admin,
    answer::{Answer, Done},
    document::told,
    request::Json,
};
use aide::axum::{ApiRouter, routing::get_with};
use axum::extract::State;
use schemars::JsonSchema;
use serde::Serialize;
use std::{fmt::Write, sync::Arc};

/// What the cache did since the node started, and what is in it.
#[derive(Debug, Clone, Copy, Default, Serialize, JsonSchema)]
#[schemars(rename = "Cache")]
pub struct CacheView {
    /// Requests answered from it.
    pub hits: u64,
    /// Requests that a service answered.
    pub misses: u64,
    /// Requests answered from it after the service said that nothing had changed.
    pub revalidated: u64,
    /// Targets of which an answer is kept.
    pub targets: u64,
    /// Bytes that they take, about.
    pub bytes: u64,
}

/// The cache of a node.
#[derive(Clone)]
pub struct Cache {
    /// How it is.
    pub see: Arc<dyn Fn() -> CacheView + Send + Sync>,
    /// Forgets everything.
    pub forget: Arc<dyn Fn() + Send + Sync>,
}

pub(crate) fn admin_routes() -> ApiRouter<admin::Parts> {
    let cache = get_with(show, told("readCache", "What is kept of answers.", &[]))
        .delete_with(forget, told("forgetCache", "Forget all of it.", &[]));
    ApiRouter::new().api_route("/cache", cache)
}

async fn show(State(cache): State<Cache>) -> Answer<Json<CacheView>> {
    Ok(Json((cache.see)()))
}

async fn forget(State(cache): State<Cache>) -> Answer<Done> {
    (cache.forget)();
    Ok(Done)
}

/// Writes the cache's figures for Prometheus.
pub(crate) fn metrics(text: &mut String, cache: CacheView) {
    for (what, help, kind, count) in [
        ("hits_total", "Requests answered from the cache.", "counter", cache.hits),
        ("misses_total", "Cacheable requests that a service answered.", "counter", cache.misses),
        (
            "revalidated_total",
            "Requests answered from the cache since nothing had changed.",
            "counter",
            cache.revalidated,
        ),
        ("targets", "Targets of which an answer is kept.", "gauge", cache.targets),
        ("bytes", "Bytes of kept answers.", "gauge", cache.bytes),
    ] {
        let name = format!("crosstown_cache_{what}");
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {count}");
    }
}

//! Instances that register on one of two nodes.

use super::Stores;
use crate::registration::{NOBODY, config, instance, key, until_they_are};
use client::{Client, InstanceOptions};
use integration_tests::Server;
use serde_json::{Value as Json, json};
use std::{net::Ipv4Addr, time::Duration};

pub(super) async fn who_registers_on_one_node_is_called_by_both(stores: Stores) {
    let nodes = [(); 2].map(|()| Server::start_on(&stores.keys, &config(", loopback = true", "")));
    let [here, there] = &nodes;
    let key = key(here, "acme", "shop", "registrar").await;
    let by = |node: &Server| Client::new(&node.base(), &key).unwrap();
    let options = |ttl| InstanceOptions { ttl: Duration::from_secs(ttl), ..Default::default() };
    let (left, _) = instance((Ipv4Addr::LOCALHOST, 0), "left").await;
    let (right, _) = instance((Ipv4Addr::LOCALHOST, 0), "right").await;
    let url = |port| format!("http://127.0.0.1:{port}");
    let kept = by(here).register("shop", &url(left), options(2)).await.unwrap();
    let other = by(there).register("shop", &url(right), options(60)).await.unwrap();
    for node in &nodes {
        until_they_are(node, &["left", "right"]).await;
    }
    // Heartbeats keep it, on both, for longer than its time to live.
    tokio::time::sleep(Duration::from_secs(4)).await;
    for node in &nodes {
        until_they_are(node, &["left", "right"]).await;
    }
    kept.end().await.unwrap();
    for node in &nodes {
        until_they_are(node, &["right"]).await;
    }
    // One without heartbeats ends on both.
    other.end().await.unwrap();
    let new = json!({ "url": url(left), "ttl": "2s" });
    let path = "/crosstown/v1/services/shop/instances";
    by(here).post::<Json>(path, &new).await.unwrap();
    for node in &nodes {
        until_they_are(node, NOBODY).await;
    }
}

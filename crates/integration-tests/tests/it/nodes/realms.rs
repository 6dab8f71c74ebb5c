//! Documents of realms that are published on one of two nodes.

use super::Stores;
use crate::registration::instance;
use client::Client;
use http::Method;
use integration_tests::Server;
use serde_json::json;
use std::{net::Ipv4Addr, time::Duration};

const PATH: &str = "/crosstown/v1/realms/own/services/shop/openapi";

fn document(path: &str) -> String {
    json!({
        "openapi": "3.1.0",
        "info": { "title": "Shop", "version": "1" },
        "paths": { path: { "get": { "operationId": "get" } } },
    })
    .to_string()
}

pub(super) async fn what_a_realm_publishes_on_one_node_holds_on_both(stores: Stores) {
    let (port, _) = instance((Ipv4Addr::LOCALHOST, 0), "shop").await;
    let config = format!(
        "[services.shop]\ninstances = [\"http://127.0.0.1:{port}\"]\n[realms.own]\n\
         roles = [\"own\"]\n[realms.own.services]\nshop = {{ openapi = {{ registered = true }} }}\n"
    );
    let nodes = [(); 2].map(|()| Server::start_on(&stores.keys, &config));
    let by = |node: &Server| {
        let token = node.token_with("acme", "speaker", json!({ "roles": ["own"] }));
        Client::new(&node.base(), &token).unwrap()
    };
    let ask = async |node: &Server, path: &str| {
        let service = by(node).service("own", "shop");
        service.call(Method::GET, path, None).await.unwrap().status.as_u16()
    };
    let until = async |node: &Server, path: &str, expected: u16| {
        for _ in 0..300 {
            if ask(node, path).await == expected {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("{path} never answers {expected}");
    };
    let publish = async |node: &Server, path: &str| {
        let text = Some(document(path).into_bytes());
        let answer = by(node).call(Method::PUT, PATH, text).await.unwrap();
        assert_eq!(answer.status, 200);
    };
    publish(&nodes[0], "/who").await;
    assert_eq!(ask(&nodes[0], "/who").await, 200, "at once where it was published");
    until(&nodes[1], "/who", 200).await;
    publish(&nodes[1], "/other").await;
    assert_eq!(ask(&nodes[1], "/who").await, 404);
    until(&nodes[0], "/who", 404).await;
    by(&nodes[0]).delete(PATH).await.unwrap();
    until(&nodes[1], "/other", 503).await;
}

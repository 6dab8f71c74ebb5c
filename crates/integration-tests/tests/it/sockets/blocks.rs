//! Users who are kept out.

use client::Client;
use integration_tests::{Server, Socket, Stream};
use serde_json::{Value as Json, json};
use std::time::{Duration, Instant};
use test_servers::{Appends, Redis, RedisOptions};

const BLOCK: &str = "/crosstown/v1/users/ann/block";
const WHO: &str = "/crosstown/v1/whoami";

async fn service(server: &Server) -> Client {
    Client::new(&server.base(), &server.api_key("acme", "crm").await).unwrap()
}

/// How a request is answered: by whom it is, or by which code.
async fn answered(base: &str, token: &str) -> String {
    match Client::new(base, token).unwrap().get::<Json>(WHO).await {
        Ok(who) => who["principal"].as_str().unwrap().to_owned(),
        Err(error) => error.code().unwrap_or("none").to_owned(),
    }
}

async fn connects(base: &str, token: &str) -> u16 {
    let mut socket = Socket::open(base).await;
    match socket.ask("connect", json!({ "token": token })).await {
        Ok(_) => 0,
        Err(_) => socket.close_code().await,
    }
}

#[tokio::test]
async fn a_blocked_user_is_out_until_the_block_is_lifted() {
    let mut server = Server::start("");
    let base = server.base();
    let service = service(&server).await;
    let jwt = server.token("acme", "ann");
    let session: Json =
        server.client("acme", "ann").post("/crosstown/v1/sessions", &json!({})).await.unwrap();
    let session = session["token"].as_str().unwrap().to_owned();
    let stranger = server.token("other", "ann");
    let bob = server.token("acme", "bob");
    let agent = server.token_with("acme", "ann", json!({ "kind": "agent" }));
    let mut anns = [Socket::connect(&base, &jwt).await, Socket::connect(&base, &session).await];
    let connect = json!({ "id": 1, "connect": { "token": jwt } }).to_string();
    let kind = ["Content-Type: application/json"];
    let line = "POST /connection/http_stream";
    let mut stream = Stream::ask(&base, line, &kind, connect.as_bytes()).await;
    stream.line().await.unwrap();
    let mut others = [
        Socket::connect(&base, &stranger).await,
        Socket::connect(&base, &bob).await,
        Socket::connect(&base, &agent).await,
    ];
    for token in [&jwt, &session] {
        assert_eq!(answered(&base, token).await, "ann");
    }

    let refused = server.client("acme", "bob").post::<Json>(BLOCK, &json!({})).await;
    assert_eq!(refused.unwrap_err().code(), Some("forbidden"));
    let begun = Instant::now();
    let block: Json = service.post(BLOCK, &json!({ "reason": "spam" })).await.unwrap();
    let told = (&block["user"], &block["kind"], &block["reason"], &block["by"]);
    assert_eq!(told, (&json!("ann"), &json!("user"), &json!("spam"), &json!("crm")));
    for socket in &mut anns {
        assert_eq!(socket.close_code().await, 3503);
    }
    let end = stream.line().await.unwrap();
    assert_eq!(end["push"]["disconnect"]["code"], 3503);
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    for socket in &mut others {
        assert!(socket.rpc("session.get", json!({})).await.is_ok());
    }
    server.kill();
    server.start_again();
    for token in [&jwt, &session] {
        assert_eq!(answered(&base, token).await, "forbidden");
        assert_eq!(connects(&base, token).await, 3507);
    }
    let answer = Client::new(&base, &jwt).unwrap().call(http::Method::GET, WHO, None).await;
    let problem: Json = serde_json::from_slice(&answer.unwrap().body).unwrap();
    assert_eq!((&problem["blocked"], &problem["status"]), (&json!(true), &json!(403)));
    assert!(!problem.to_string().contains("spam"), "why is not for whom it concerns: {problem}");
    for (token, who) in [(&stranger, "ann"), (&bob, "bob"), (&agent, "ann")] {
        assert_eq!(answered(&base, token).await, who);
        assert_eq!(connects(&base, token).await, 0);
    }
    let service = Client::new(&base, &server.api_key("acme", "crm").await).unwrap();
    let listed: Json = service.get("/crosstown/v1/blocks").await.unwrap();
    assert_eq!(listed, json!({ "blocks": [block] }));
    let seen = server.client("acme", "bob").get::<Json>("/crosstown/v1/blocks").await;
    assert_eq!(seen.unwrap_err().code(), Some("forbidden"));
    let foreign = Client::new(&base, &server.api_key("other", "crm").await).unwrap();
    let listed: Json = foreign.get("/crosstown/v1/blocks").await.unwrap();
    assert_eq!(listed, json!({ "blocks": [] }));

    service.delete(BLOCK).await.unwrap();
    for token in [&jwt, &session] {
        assert_eq!(answered(&base, token).await, "ann");
        assert_eq!(connects(&base, token).await, 0);
    }
    assert_eq!(service.delete(BLOCK).await.unwrap_err().code(), Some("not_found"));
}

#[tokio::test]
async fn a_block_ends_by_itself_if_that_was_said() {
    let server = Server::start("");
    let (service, jwt) = (service(&server).await, server.token("acme", "ann"));
    for bad in [json!({ "duration": "1ms" }), json!({ "reason": "x".repeat(300) })] {
        let refused = service.post::<Json>(BLOCK, &bad).await;
        assert_eq!(refused.unwrap_err().code(), Some("bad_request"));
    }
    let block: Json = service.post(BLOCK, &json!({ "duration": "1s" })).await.unwrap();
    assert!(block["until"].as_u64() > block["since"].as_u64(), "{block}");
    assert_eq!(answered(&server.base(), &jwt).await, "forbidden");
    // It ends by the real clock of another process: this has to wait for it.
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    assert_eq!(answered(&server.base(), &jwt).await, "ann");
    let listed: Json = service.get("/crosstown/v1/blocks").await.unwrap();
    assert_eq!(listed, json!({ "blocks": [] }));
}

#[tokio::test]
async fn whom_one_node_blocks_the_other_keeps_out() {
    let redis = Redis::start(RedisOptions::appending(Appends::Always)).unwrap();
    let keys = format!("durable = \"{}\"", redis.url());
    let nodes = [(); 2].map(|()| Server::start_on(&keys, ""));
    let (service, jwt) = (service(&nodes[0]).await, nodes[1].token("acme", "ann"));
    let base = nodes[1].base();
    let mut socket = Socket::connect(&base, &jwt).await;
    assert_eq!(answered(&base, &jwt).await, "ann");
    let begun = Instant::now();
    let _: Json = service.post(BLOCK, &json!({})).await.unwrap();
    assert_eq!(socket.close_code().await, 3503);
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    assert_eq!(answered(&base, &jwt).await, "forbidden");
    service.delete(BLOCK).await.unwrap();
    let until = Instant::now() + Duration::from_secs(5);
    while answered(&base, &jwt).await != "ann" {
        assert!(Instant::now() < until, "the other node does not see that it is lifted");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Also at a node that has not asked yet who is blocked.
#[tokio::test]
async fn who_has_no_credential_can_be_blocked_as_well() {
    let mut server = Server::start("[identity.anonymous]\ntenant = \"acme\"\nuser = \"guest\"\n");
    let path = "/crosstown/v1/users/guest/block";
    let answered = async |base: &str| {
        let connect = json!({ "id": 1, "connect": {} }).to_string();
        let kind = ["Content-Type: application/json"];
        let line = "POST /connection/http_stream";
        Stream::ask(base, line, &kind, connect.as_bytes()).await.status
    };
    assert_eq!(answered(&server.base()).await, 200);
    let _: Json = service(&server).await.post(path, &json!({})).await.unwrap();
    assert_eq!(answered(&server.base()).await, 403);
    server.kill();
    server.start_again();
    assert_eq!(answered(&server.base()).await, 403);
    service(&server).await.delete(path).await.unwrap();
    assert_eq!(answered(&server.base()).await, 200);
}

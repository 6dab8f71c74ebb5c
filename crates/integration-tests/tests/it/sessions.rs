mod ends;
mod hands;
mod past;
mod routing;

use client::Client;
use http::Method;
use integration_tests::{Server, Socket, binary};
use serde_json::{Value as Json, json};
use std::{
    process::Command,
    time::{Duration, Instant},
};

pub(crate) const SESSIONS: &str = "/crosstown/v1/sessions";

/// A session as its maker got it.
pub(crate) struct Made {
    pub(crate) path: String,
    pub(crate) token: String,
}

impl Made {
    pub(crate) fn of(answer: &Json) -> Self {
        Self {
            path: format!("{SESSIONS}/{}", answer["id"].as_str().unwrap()),
            token: answer["token"].as_str().unwrap().to_owned(),
        }
    }

    pub(crate) fn id(&self) -> &str {
        self.path.rsplit('/').next().unwrap()
    }

    pub(crate) fn client(&self, server: &Server) -> Client {
        Client::new(&server.base(), &self.token).unwrap()
    }
}

/// A service of the tenant `acme`.
pub(crate) async fn service(server: &Server) -> Client {
    Client::new(&server.base(), &server.api_key("acme", "crm").await).unwrap()
}

/// A session that the service makes for a user.
pub(crate) async fn made(service: &Client, user: &str, wish: Json) -> Made {
    Made::of(&service.post::<Json>(&format!("{SESSIONS}?user={user}"), &wish).await.unwrap())
}

/// Ends many sessions at once, and says how many.
pub(crate) async fn end(client: &Client, query: &str) -> Json {
    let answer = client.call(Method::DELETE, &format!("{SESSIONS}?{query}"), None).await.unwrap();
    serde_json::from_slice(&answer.body).unwrap()
}

pub(crate) async fn events(client: &Client, session: &Made, query: &str) -> Vec<Json> {
    let told: Json = client.get(&format!("{}/events?{query}", session.path)).await.unwrap();
    told["events"].as_array().unwrap().clone()
}

pub(crate) fn kinds(told: &[Json]) -> Vec<&str> {
    told.iter().map(|one| one["kind"].as_str().unwrap()).collect()
}

/// Asks until what is told is as wished: what sessions do is written about once a second.
pub(crate) async fn until<T>(what: &str, ask: impl AsyncFn() -> T, is_it: impl Fn(&T) -> bool) -> T
where
    T: std::fmt::Debug,
{
    let until = Instant::now() + Duration::from_secs(30);
    loop {
        let told = ask().await;
        if is_it(&told) {
            return told;
        }
        assert!(Instant::now() < until, "{what}: {:.2000}", format!("{told:?}"));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// What `crosstown sessions` prints, for the service.
pub(crate) async fn cli(server: &Server, args: &[&str]) -> String {
    let key = server.api_key("acme", "operator").await;
    let output = Command::new(binary())
        .arg("sessions")
        .args(args)
        .args(["--node", &server.base()])
        .env("CROSSTOWN_API_KEY", key)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

pub(crate) async fn refused(outcome: Result<Json, client::Error>) -> String {
    outcome.expect_err("a refusal").code().expect("a code").to_owned()
}

#[tokio::test]
async fn a_session_lives_through_its_life() {
    let mut server = Server::start("[sessions]\nper_user_max = 2\n");
    let ann = server.client("acme", "ann");
    let body = json!({ "kind": "mobile", "ttl": "1h", "metadata": { "device": "phone" } });
    let session: Json = ann.post(SESSIONS, &body).await.unwrap();
    let (id, token) = (session["id"].as_str().unwrap(), session["token"].as_str().unwrap());
    assert_eq!((&session["kind"], &session["status"]), (&json!("mobile"), &json!("active")));
    let path = format!("{SESSIONS}/{id}");

    let by_token = Client::new(&server.base(), token).unwrap();
    let who: Json = by_token.get("/crosstown/v1/whoami").await.unwrap();
    assert_eq!((&who["principal"], &who["session"]), (&json!("ann"), &session["id"]));

    let changed: Json =
        ann.patch(&path, &json!({ "metadata": { "device": "watch" } })).await.unwrap();
    assert_eq!(changed["metadata"]["device"], "watch");
    let _: Json = ann.post(SESSIONS, &json!({})).await.unwrap();
    assert_eq!(refused(ann.post(SESSIONS, &json!({})).await).await, "session_limit");
    let listed: Json = ann.get(SESSIONS).await.unwrap();
    assert_eq!(listed["sessions"].as_array().unwrap().len(), 2);

    server.kill();
    server.start_again();
    let read: Json = by_token.get(&path).await.unwrap();
    assert_eq!(read["metadata"]["device"], "watch");

    let _: Json = ann.patch(&path, &json!({ "status": "suspended" })).await.unwrap();
    assert_eq!(refused(by_token.get(&path).await).await, "forbidden");
    let _: Json = ann.patch(&path, &json!({ "status": "active" })).await.unwrap();
    let _: Json = by_token.post(&format!("{path}/refresh"), &json!({})).await.unwrap();

    ann.delete(&path).await.unwrap();
    assert_eq!(refused(by_token.get(&path).await).await, "unauthenticated");
    assert_eq!(refused(ann.get(&path).await).await, "not_found");
}

#[tokio::test]
async fn others_see_nothing() {
    let server = Server::start("");
    let session: Json = server.client("acme", "ann").post(SESSIONS, &json!({})).await.unwrap();
    let path = format!("{SESSIONS}/{}", session["id"].as_str().unwrap());
    for stranger in [server.client("acme", "bob"), server.client("other", "ann")] {
        assert_eq!(refused(stranger.get(&path).await).await, "not_found");
        let suspend = json!({ "status": "suspended" });
        assert_eq!(refused(stranger.patch(&path, &suspend).await).await, "not_found");
        assert_eq!(stranger.delete(&path).await.unwrap_err().code(), Some("not_found"));
    }
    let of_ann = format!("{SESSIONS}?user=ann");
    assert_eq!(refused(server.client("acme", "bob").get(&of_ann).await).await, "forbidden");
    let service = Client::new(&server.base(), &server.api_key("acme", "crm").await).unwrap();
    let listed: Json = service.get(&of_ann).await.unwrap();
    assert_eq!(listed["sessions"].as_array().unwrap().len(), 1);
    let foreign = Client::new(&server.base(), &server.api_key("other", "crm").await).unwrap();
    let listed: Json = foreign.get(&of_ann).await.unwrap();
    assert_eq!(listed["sessions"], json!([]));
}

#[tokio::test]
async fn sessions_end_by_themselves() {
    let server = Server::start("");
    let ann = server.client("acme", "ann");
    let body = json!({ "ttl": "1s", "sliding": false });
    let session: Json = ann.post(SESSIONS, &body).await.unwrap();
    let token = session["token"].as_str().unwrap();
    let by_token = Client::new(&server.base(), token).unwrap();
    let _: Json = by_token.get("/crosstown/v1/whoami").await.unwrap();
    // The session ends by the real clock of another process: this has to wait for it.
    tokio::time::sleep(std::time::Duration::from_millis(1_200)).await;
    let gone = by_token.get::<Json>("/crosstown/v1/whoami").await;
    assert!(["unauthenticated", "token_expired"].contains(&refused(gone).await.as_str()));
    let listed: Json = ann.get(SESSIONS).await.unwrap();
    assert_eq!(listed["sessions"], json!([]));
}

#[tokio::test]
async fn a_destroyed_session_closes_its_sockets() {
    let server = Server::start("");
    let ann = server.client("acme", "ann");
    let session: Json = ann.post(SESSIONS, &json!({})).await.unwrap();
    let mut socket = Socket::connect(&server.base(), session["token"].as_str().unwrap()).await;
    let mut other = Socket::connect(&server.base(), &server.token("acme", "ann")).await;
    ann.delete(&format!("{SESSIONS}/{}", session["id"].as_str().unwrap())).await.unwrap();
    assert_eq!(socket.close_code().await, 3503);
    assert!(other.rpc("session.get", json!({})).await.is_ok());
}

#[tokio::test]
async fn credentials_that_do_not_hold_are_refused() {
    let server = Server::start("");
    let with = |claims: Json| server.token_with("acme", "ann", claims);
    let bad = [
        (with(json!({ "exp": 1 })), "token_expired"),
        (with(json!({ "exp": null })), "unauthenticated"),
        (with(json!({ "aud": "elsewhere" })), "unauthenticated"),
        (with(json!({ "iss": "elsewhere" })), "unauthenticated"),
        (with(json!({ "sub": "" })), "unauthenticated"),
        (with(json!({ "tenant": "a/b" })), "unauthenticated"),
        (with(json!({ "tenant": "system.crosstown" })), "unauthenticated"),
        (with(json!({ "nbf": 99_999_999_999_u64 })), "unauthenticated"),
        (format!("{}x", with(json!({}))), "unauthenticated"),
        ("ctk_acme.x.y".into(), "unauthenticated"),
        ("cst_acme.ses_x.y".into(), "unauthenticated"),
        ("e30.e30.".into(), "unauthenticated"),
        ("x".repeat(7_000), "unauthenticated"),
        (String::new(), "unauthenticated"),
    ];
    for (token, expected) in bad {
        let client = Client::new(&server.base(), &token).unwrap();
        let code = refused(client.get("/crosstown/v1/whoami").await).await;
        assert_eq!(code, expected, "{token}");
    }
}

#[tokio::test]
async fn an_api_key_ends_when_it_is_deleted() {
    let server = Server::start("");
    let key = server.api_key("acme", "orders").await;
    let service = Client::new(&server.base(), &key).unwrap();
    let who: Json = service.get("/crosstown/v1/whoami").await.unwrap();
    assert_eq!((&who["kind"], &who["credential"]), (&json!("service"), &json!("api_key")));
    let listed: Json = server.admin().get("/api-keys?tenant=acme").await.unwrap();
    assert!(!listed.to_string().contains(key.rsplit('.').next().unwrap()));
    let id = listed["api_keys"][0]["id"].as_str().unwrap();
    server.admin().delete(&format!("/api-keys/acme/{id}")).await.unwrap();
    assert_eq!(refused(service.get("/crosstown/v1/whoami").await).await, "unauthenticated");
}

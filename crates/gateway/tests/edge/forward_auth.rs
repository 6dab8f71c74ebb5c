//! A service of the operator's decides whether a request may go on.

use crate::support::{Answer, Client, Edge, Origin, config, nowhere, origin};
use gateway::{Config, RouteConfig};
use parking_lot::Mutex;
use std::sync::Arc;

/// A service that answers what the cookie says, and notes what it was asked.
async fn judge() -> (String, Arc<Mutex<Vec<String>>>) {
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let noted = asked.clone();
    let address = origin(move |mut client: Client, _| {
        let noted = noted.clone();
        async move {
            while let Some((_, head)) = client.head().await {
                noted.lock().push(head.clone());
                let cookie = head.lines().find_map(|line| line.strip_prefix("cookie: "));
                let who = "x-crosstown-tenant: acme\r\nx-crosstown-principal: ann\r\n\
                     x-crosstown-roles: dev\r\n";
                let answer = match cookie {
                    Some("ok") => format!("200 OK\r\nx-plan: gold\r\nx-plan: plus\r\n{who}"),
                    Some("plain") => "204 No\r\n".to_owned(),
                    Some("login") => "302 Go\r\nlocation: /login\r\nset-cookie: a=b\r\n".to_owned(),
                    Some("fails") => "500 Oh\r\n".to_owned(),
                    Some("garbage") => "nonsense\r\n".to_owned(),
                    Some("silent") => std::future::pending().await,
                    Some(_) | None => "403 No\r\nx-why: rules\r\n".to_owned(),
                };
                let length = if answer.starts_with("204") { "" } else { "content-length: 0\r\n" };
                client.send(format!("HTTP/1.1 {answer}{length}\r\n")).await;
            }
        }
    })
    .await;
    (address, asked)
}

fn route(text: &str) -> Config {
    let route: RouteConfig =
        toml::from_str(&format!("name = \"r\"\nservice = \"s\"\n{text}")).unwrap();
    Config { workers: 1, routes: vec![route], ..config() }
}

fn services(judge: &str, origin: &str) -> soa::Config {
    let at = |address: &str| soa::ServiceConfig::at([format!("http://{address}")]);
    [("s".to_owned(), at(origin)), ("judge".to_owned(), at(judge))].into()
}

async fn send(edge: &Edge, fields: &str) -> Answer {
    let asked = "POST /orders/7?x=1 HTTP/1.1\r\nhost: shop\r\ncontent-length: 4\r\n";
    edge.ask(&format!("{asked}{fields}\r\nbody")).await
}

#[tokio::test]
async fn what_the_service_grants_goes_on_and_what_it_refuses_is_the_clients() {
    let (judge, asked) = judge().await;
    let origin = Origin::echo().await;
    let auth = "forward_auth = { service = \"judge\", path = \"/verify?strict\", \
         answer_fields = [\"x-plan\"], timeout = \"300ms\" }";
    let config = route(&format!("auth = \"none\"\n{auth}"));
    let edge = Edge::start(config, &services(&judge, &origin.address));
    let answer = send(&edge, "cookie: ok\r\nx-plan: mine\r\nx-other: o\r\n").await;
    assert_eq!(answer.status, 200);
    for line in ["x-plan: gold", "x-plan: plus", "x-other: o", "\r\n\r\nbody"] {
        assert!(answer.text().contains(line), "{}", answer.text());
    }
    assert!(!answer.text().contains("mine"), "{}", answer.text());
    let head = asked.lock().pop().unwrap();
    assert!(head.starts_with("GET /verify?strict HTTP/1.1\r\n"), "{head}");
    for line in [
        "x-forwarded-method: POST",
        "x-forwarded-uri: /orders/7?x=1",
        "x-forwarded-host: shop",
        "x-forwarded-proto: http",
        "x-forwarded-for: 127.0.0.1",
        "cookie: ok",
    ] {
        assert!(head.contains(&format!("{line}\r\n")), "{head}");
    }
    assert!(!head.contains("x-other") && !head.contains("content-length"), "{head}");
    // Granted, and nothing said: then a client's word is not the service's either.
    let answer = send(&edge, "cookie: plain\r\nx-plan: mine\r\n").await;
    assert!(answer.status == 200 && !answer.text().contains("x-plan"), "{}", answer.text());
    let before = origin.requests().unwrap().len();
    let answer = send(&edge, "").await;
    assert_eq!((answer.status, answer.header("x-why")), (403, Some("rules")));
    let answer = send(&edge, "cookie: login\r\n").await;
    let told = (answer.header("location"), answer.header("set-cookie"));
    assert_eq!((answer.status, told), (302, (Some("/login"), Some("a=b"))));
    for (cookie, status, code) in [
        ("fails", 502, "bad_gateway"),
        ("garbage", 502, "bad_gateway"),
        ("silent", 504, "upstream_timeout"),
    ] {
        let answer = send(&edge, &format!("cookie: {cookie}\r\n")).await;
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{cookie}");
    }
    assert_eq!(origin.requests().unwrap().len(), before, "none of them went on");
    // Nobody who could be asked is no consent.
    edge.gateway
        .reload(
            route(&format!("auth = \"none\"\n{auth}")),
            &services(&nowhere().await, &origin.address),
        )
        .unwrap();
    assert_eq!(send(&edge, "cookie: ok\r\n").await.code(), "upstream_unreachable");
    assert_eq!(origin.requests().unwrap().len(), before);
}

#[tokio::test]
async fn the_service_may_say_who_calls() {
    let (judge, asked) = judge().await;
    let origin = Origin::echo().await;
    let auth = "forward_auth = { service = \"judge\", path = \"/\", identity = true }";
    let with = |roles: &str| route(&format!("auth = \"none\"\nroles = [\"{roles}\"]\n{auth}"));
    let services = services(&judge, &origin.address);
    let edge = Edge::start(with("dev"), &services);
    let answer = send(&edge, "cookie: ok\r\nx-crosstown-principal: eve\r\n").await;
    for line in ["x-crosstown-tenant: acme", "x-crosstown-principal: ann", "x-crosstown-kind: user"]
    {
        assert!(answer.text().contains(&format!("{line}\r\n")), "{}", answer.text());
    }
    assert!(!asked.lock()[0].contains("eve"), "{:?}", asked.lock());
    // Without a name there is no caller, and a role that it has not is needed in vain.
    assert_eq!(send(&edge, "cookie: plain\r\n").await.code(), "bad_gateway");
    edge.gateway.reload(with("admin"), &services).unwrap();
    assert_eq!(send(&edge, "cookie: ok\r\n").await.code(), "forbidden");
    assert_eq!(origin.requests().unwrap().len(), 1);
}

#[tokio::test]
async fn a_caller_is_known_to_the_service_that_is_asked() {
    let (judge, asked) = judge().await;
    let origin = Origin::echo().await;
    let config = route("forward_auth = { service = \"judge\", path = \"/\" }");
    let edge = Edge::start(config, &services(&judge, &origin.address));
    // Who has no credential is not asked about.
    assert_eq!(send(&edge, "cookie: ok\r\n").await.status, 401);
    assert!(asked.lock().is_empty());
    let key = edge.key("acme", "robot", &[]).await;
    let fields = format!("cookie: ok\r\nauthorization: Bearer {key}\r\n");
    assert_eq!(send(&edge, &fields).await.status, 200);
    let head = asked.lock()[0].clone();
    for line in ["x-crosstown-tenant: acme", "x-crosstown-principal: robot"] {
        assert!(head.contains(&format!("{line}\r\n")), "{head}");
    }
}

#[tokio::test]
async fn a_verdict_that_cannot_be_meant_is_refused_at_the_start() {
    let services = services("127.0.0.1:1", "127.0.0.1:1");
    for (text, reason) in [
        ("forward_auth = { service = \"x\", path = \"/\" }", "no service `x`"),
        ("forward_auth = { service = \"judge\", path = \"verify\" }", "begins with `/`"),
        ("forward_auth = { service = \"judge\", path = \"/\", timeout = \"0s\" }", "timeout"),
        (
            "forward_auth = { service = \"judge\", path = \"/\", answer_fields = [\"host\"] }",
            "not a route's to change",
        ),
        (
            "forward_auth = { service = \"judge\", path = \"/\", identity = true }",
            "auth = \"none\"",
        ),
    ] {
        let error = gateway::Gateway::check(&route(text), &services).unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
    }
}

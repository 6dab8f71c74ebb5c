//! Header fields that the gateway sets, for services and for clients.

use crate::support::{Client, Edge, Origin, nowhere, one_worker, origin, route, services};
use bytes::Bytes;
use gateway::{Auth, RouteConfig};
use http::{HeaderValue, Request};
use http_body_util::Empty;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::{sync::Arc, time::Duration};
use traffic_cop::{
    identity::AnonymousConfig,
    limit::{Per, Rule},
};

const GET: &str = "GET /a HTTP/1.1\r\nhost: a\r\n\r\n";

#[tokio::test]
async fn a_service_may_be_asked_by_its_own_name() {
    let origin = Origin::echo().await;
    let mut services = services(&[&origin.address]);
    let edge = Edge::start(one_worker(), &services);
    let answer = edge.ask(GET).await;
    assert!(answer.text().contains("host: a\r\n"), "{}", answer.text());
    assert!(!answer.text().contains("x-forwarded-host"), "{}", answer.text());
    services.get_mut("origin").unwrap().host = soa::HostHeader::Instance;
    edge.gateway.reload(one_worker(), &services).unwrap();
    let answer = edge.ask(GET).await;
    for expected in [format!("host: {}\r\n", origin.address), "x-forwarded-host: a\r\n".into()] {
        assert!(answer.text().contains(&expected), "{expected} in {}", answer.text());
    }
}

#[tokio::test]
async fn what_a_service_is_told_comes_from_the_credential() {
    let origin = Origin::echo().await;
    let mut config = one_worker();
    config.routes = vec![
        RouteConfig { auth: Auth::Required, ..route("private", "/private") },
        RouteConfig {
            auth: Auth::Required,
            roles: vec!["admin".into()],
            strip_prefix: true,
            ..route("admin", "/admin")
        },
        RouteConfig { auth: Auth::Optional, ..route("public", "/public") },
    ];
    let anonymous = AnonymousConfig {
        tenant: "acme".parse().unwrap(),
        user: "guest".parse().unwrap(),
        roles: Vec::new(),
    };
    let edge = Edge::with(
        config,
        &services(&[&origin.address]),
        Vec::new(),
        Some(anonymous),
        Arc::new(|_| Vec::new()),
    );
    let key = edge.key("acme", "robot", &["admin", "dev"]).await;
    let weak = edge.key("acme", "weak", &[]).await;
    let ask = |path: &str, fields: &str| format!("GET {path} HTTP/1.1\r\nhost: a\r\n{fields}\r\n");

    let answer = edge.ask(&ask("/private", "")).await;
    assert_eq!((answer.status, answer.code().as_str()), (401, "unauthenticated"));
    assert_eq!(edge.ask(&ask("/private", "authorization: Bearer no\r\n")).await.status, 401);
    assert_eq!(edge.ask(&ask("/public", "authorization: Bearer no\r\n")).await.status, 401);
    let two = format!("authorization: Bearer {key}\r\nx-api-key: {key}\r\n");
    assert_eq!(edge.ask(&ask("/private", &two)).await.status, 400);
    assert_eq!(
        edge.ask(&ask("/admin", &format!("x-api-key: {weak}\r\n"))).await.code(),
        "forbidden"
    );
    assert_eq!(edge.ask(&ask("/nowhere", "")).await.code(), "no_route");
    assert!(origin.received().is_empty());

    let fields = format!(
        "x-api-key: {key}\r\nx-crosstown-principal: evil\r\nx-forwarded-for: 6.6.6.6\r\n\
         traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n"
    );
    // Spelled otherwise and with parameters, it is still the same route.
    for path in ["/admin/x?y=%2f", "/%61dmin/x?y=%2f"] {
        let answer = edge.ask(&ask(path, &fields)).await;
        let text = answer.text().to_owned();
        assert_eq!(answer.status, 200, "{text}");
        assert!(text.starts_with("GET /x?y=%2f HTTP/1.1\r\n"), "{text}");
        for expected in [
            "x-crosstown-tenant: acme\r\n",
            "x-crosstown-principal: robot\r\n",
            "x-crosstown-kind: service\r\n",
            "x-crosstown-roles: admin,dev\r\n",
            "x-forwarded-for: 127.0.0.1\r\n",
            "x-forwarded-proto: http\r\n",
            "host: a\r\n",
        ] {
            assert!(text.contains(expected), "no {expected} in {text}");
        }
        let id = answer.header("x-request-id").unwrap();
        let parent = format!("traceparent: 00-0af7651916cd43dd8448eb211c80319c-{id}-01\r\n");
        assert!(text.contains(&parent) && text.contains(&format!("x-request-id: {id}")), "{text}");
        // What the client said by these names is gone, not added to.
        for name in ["traceparent:", "x-request-id:", "x-forwarded-for:", "x-crosstown-principal:"]
        {
            assert_eq!(text.matches(name).count(), 1, "{name} in {text}");
        }
        assert!(!text.contains("evil") && !text.contains("6.6.6.6") && !text.contains(&key));
    }
    let answer = edge.ask(&ask("/admin;x/x", &format!("x-api-key: {key}\r\n"))).await;
    assert_eq!(answer.status, 400);
    assert!(edge.ask(&ask("/public", "")).await.text().contains("x-crosstown-principal: guest"));
}

#[tokio::test]
async fn fields_that_are_ours_replace_those_of_a_service() {
    let origin = origin(|mut client: Client, _| async move {
        while client.head().await.is_some() {
            client
                .send(
                    "HTTP/1.1 200 OK\r\nx-request-id: theirs\r\nratelimit: theirs\r\n\
                     ratelimit-policy: theirs\r\nx-own: theirs\r\ncontent-length: 0\r\n\r\n",
                )
                .await;
        }
    })
    .await;
    let edge = |rules| {
        let services = services(&[&origin]);
        Edge::with(one_worker(), &services, rules, None, Arc::new(|_| Vec::new()))
    };
    let rule = Rule::new("few", Per::Ip, 9, Duration::from_secs(3600));
    for (rules, limits) in [(Vec::new(), "theirs"), (vec![rule], "\"few\";")] {
        let edge = edge(rules);
        let by_1 = edge.ask(GET).await.head.to_ascii_lowercase();
        let by_1: Vec<(String, String)> = by_1
            .lines()
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        let socket = tokio::net::TcpStream::connect(edge.gateway.local_addr()).await.unwrap();
        let (mut sender, connection) =
            http2::handshake(TokioExecutor::new(), TokioIo::new(socket)).await.unwrap();
        tokio::spawn(connection);
        let request = Request::get("http://a/a").body(Empty::<Bytes>::new()).unwrap();
        let by_2 = sender.send_request(request).await.unwrap().headers().clone();
        let by_2 = by_2.iter().map(|(name, value)| (name.to_string(), said(value))).collect();
        for fields in [by_1, by_2] {
            let of = |name: &str| {
                let found: Vec<&str> = fields
                    .iter()
                    .filter(|(held, _)| held == name)
                    .map(|(_, value)| &**value)
                    .collect();
                assert_eq!(found.len(), 1, "{name} in {fields:?}");
                found[0]
            };
            assert!(of("ratelimit").starts_with(limits), "{fields:?}");
            assert!(of("ratelimit-policy").starts_with(limits), "{fields:?}");
            assert_eq!((of("x-request-id").len(), of("x-own")), (16, "theirs"), "{fields:?}");
        }
    }
}

fn said(value: &HeaderValue) -> String {
    value.to_str().unwrap().to_owned()
}

#[tokio::test]
async fn an_answer_of_ours_tells_limits_as_a_service_s_does() {
    let services = services(&[&nowhere().await]);
    let rule = Rule::new("few", Per::Ip, 9, Duration::from_secs(3600));
    let edge = Edge::with(one_worker(), &services, vec![rule], None, Arc::new(|_| Vec::new()));
    for left in ["r=8", "r=7"] {
        let answer = edge.ask(GET).await;
        assert_eq!(answer.status, 502, "{answer:?}");
        assert!(answer.header("ratelimit").unwrap().contains(left), "{answer:?}");
        assert!(
            answer.header("ratelimit-policy").is_some() && answer.header("x-request-id").is_some()
        );
    }
}

//! Which service a request reaches, and with which path.

use crate::support::{Answer, BELOW, Edge, Origin, config, soon, stripped};
use gateway::{Auth, CompressConfig, Config, RouteConfig};
use std::{collections::BTreeMap, time::Duration};
use traffic_cop::analytics::{Ask, Naming, Period};

/// Services, each of which answers what it was sent.
async fn origins<const N: usize>(names: [&str; N]) -> (soa::Config, [Origin; N]) {
    let mut services = soa::Config::new();
    let mut origins = Vec::new();
    for name in names {
        let origin = Origin::echo().await;
        let service = soa::ServiceConfig::at([format!("http://{}", origin.address)]);
        services.insert(name.to_owned(), service);
        origins.push(origin);
    }
    (services, origins.try_into().ok().unwrap())
}

fn routes(text: &str) -> Config {
    #[derive(serde::Deserialize)]
    struct Routes {
        routes: Vec<RouteConfig>,
    }
    let Routes { routes } = toml::from_str(text).unwrap();
    Config { workers: 1, routes, ..config() }
}

async fn get(edge: &Edge, path: &str, fields: &str) -> Answer {
    edge.ask(&format!("GET {path} HTTP/1.1\r\nhost: a\r\n{fields}\r\n")).await
}

#[tokio::test]
async fn parameters_expressions_and_rewrites_decide_what_a_service_is_asked() {
    let (services, _origins) = origins(["s"]).await;
    let edge = Edge::start(
        routes(
            "[[routes]]\nname = \"order\"\nservice = \"s\"\nauth = \"none\"\n\
             path = \"/orders/{id}\"\nrewrite = \"/v2/{id}/order\"\n\
             [[routes]]\nname = \"item\"\nservice = \"s\"\nauth = \"none\"\n\
             regex = \"/item-(?<id>[0-9]+)(?<rest>/.*)?\"\nrewrite = \"/items/{id}{rest}\"\n\
             [[routes]]\nname = \"user\"\nservice = \"s\"\nauth = \"none\"\n\
             prefix = \"/users/{user}/files\"\nrewrite = \"/files/{user}\"\n\
             [[routes]]\nname = \"odd\"\nservice = \"s\"\nauth = \"none\"\n\
             regex = \"/odd(?<rest>.*)\"\nrewrite = \"/{rest}\"\n",
        ),
        &services,
    );
    for (path, expected) in [
        ("/orders/7?a=b%20c", "GET /v2/7/order?a=b%20c HTTP/1.1"),
        ("/orders/a%c3%a9", "GET /v2/a%C3%A9/order HTTP/1.1"),
        ("/item-12/x", "GET /items/12/x HTTP/1.1"),
        ("/item-12", "GET /items/12 HTTP/1.1"),
        ("/users/ann/files/a/b", "GET /files/ann/a/b HTTP/1.1"),
        ("/oddly", "GET /ly HTTP/1.1"),
    ] {
        let answer = get(&edge, path, "").await;
        assert_eq!(answer.text().lines().next(), Some(expected), "{path}");
    }
    for (path, code) in [
        ("/orders/7/8", "no_route"),
        ("/item-x", "no_route"),
        // It would become a path with an empty segment.
        ("/odd/a", "bad_request"),
        ("/orders/7;a=b", "bad_request"),
    ] {
        assert_eq!(get(&edge, path, "").await.code(), code, "{path}");
    }
}

#[tokio::test]
async fn a_prefix_is_taken_off_whatever_is_done_with_the_answer() {
    for compress in [None, Some(CompressConfig::default())] {
        let (services, [origin]) = origins(["origin"]).await;
        let config = Config { routes: vec![RouteConfig { compress, ..stripped() }], ..config() };
        let edge = Edge::start(config, &services);
        for (target, told) in BELOW {
            let answer = edge.ask(&format!("GET {target} HTTP/1.1\r\nhost: a\r\n\r\n")).await;
            let begin = format!("GET {told} HTTP/1.1\r\n");
            assert!(answer.text().starts_with(&begin), "{target}: {}", answer.text());
        }
        assert_eq!(origin.requests().unwrap().len(), BELOW.len());
    }
}

#[tokio::test]
async fn a_tenant_may_have_routes_of_its_own() {
    let (services, [all, own]) = origins(["all", "own"]).await;
    let edge = Edge::start(
        routes(
            "[[routes]]\nname = \"all\"\nservice = \"all\"\nauth = \"optional\"\n\
             [[routes]]\nname = \"own\"\nservice = \"own\"\ntenants = [\"acme\", \"blue\"]\n",
        ),
        &services,
    );
    let acme = edge.key("acme", "robot", &[]).await;
    let other = edge.key("other", "robot", &[]).await;
    for (key, to_own) in [(Some(&acme), true), (Some(&other), false), (None, false)] {
        let fields = key.map_or(String::new(), |key| format!("authorization: Bearer {key}\r\n"));
        let before = own.received().len() + own.requests().unwrap().len();
        assert_eq!(get(&edge, "/", &fields).await.status, 200);
        let after = own.received().len() + own.requests().unwrap().len();
        assert_eq!(after > before, to_own, "{key:?}");
    }
    // What a client says of itself is no credential, and a wrong credential is nobody's.
    get(&edge, "/", "x-crosstown-tenant: acme\r\n").await;
    assert_eq!(get(&edge, "/", "authorization: Bearer nonsense\r\n").await.status, 401);
    assert_eq!((own.requests().unwrap().len(), all.requests().unwrap().len()), (1, 3));
}

#[tokio::test]
async fn a_part_of_the_requests_goes_to_another_service() {
    let (services, [old, new, none]) = origins(["old", "new", "none"]).await;
    let text = "[[routes]]\nname = \"r\"\nauth = \"none\"\nsplit = [\
         { service = \"old\", weight = 3 }, { service = \"none\", weight = 0 },\
         { service = \"new\", weight = 1 }]\n";
    let edge = Edge::start(routes(text), &services);
    for _ in 0..400 {
        assert_eq!(get(&edge, "/", "").await.status, 200);
    }
    let count = |origin: &Origin| origin.requests().unwrap().len();
    assert_eq!((count(&old) + count(&new), count(&none)), (400, 0));
    assert!((60..=140).contains(&count(&new)), "{}", count(&new));
    // Figures tell them apart.
    let figures = edge.analytics.since_start();
    let services: BTreeMap<_, _> = figures
        .iter()
        .filter(|(route, ..)| &*route.route == "r")
        .map(|(route, figures, _)| (route.service.clone(), figures.usage.requests))
        .filter(|(_, requests)| *requests > 0)
        .collect();
    let total: u64 = services.values().sum();
    assert!(services.len() == 2 && total <= 400, "{services:?}");
}

#[tokio::test]
async fn endpoints_are_told_as_the_route_writes_them() {
    let (services, _origins) = origins(["a"]).await;
    let text = "[[routes]]\nname = \"named\"\nauth = \"none\"\nservice = \"a\"\npath = \"/of/{who}\"\n\
         [[routes]]\nname = \"rest\"\nauth = \"none\"\nservice = \"a\"\n";
    let edge = Edge::start(routes(text), &services);
    for path in ["/of/ann", "/of/bob", "/of/17", "/17", "/18"] {
        assert_eq!(get(&edge, path, "").await.status, 200);
    }
    edge.gateway.drain(Duration::from_secs(5)).await;
    let now = clock::Clock::now(&*clock::SystemClock::shared());
    edge.analytics.tick(now);
    let ask = Ask::new(Period::named("1m", now).unwrap(), None);
    let ask = Ask { naming: Naming::Shown, ..ask };
    let report = edge.analytics.report(&ask, now).await;
    let told: Vec<(&str, u64)> =
        report.endpoints.iter().map(|one| (&*one.of.pattern, one.usage.requests)).collect();
    assert_eq!(told, [("/of/{who}", 3), ("/{id}", 2)]);
}

#[tokio::test]
async fn the_way_that_is_told_is_the_one_that_was_gone() {
    let (services, origins) = origins(["old", "new"]).await;
    let text = "[[routes]]\nname = \"r\"\n\
         split = [{ service = \"old\", weight = 1 }, { service = \"new\", weight = 1 }]\n";
    let config = Config { explain_roles: vec!["curious".parse().unwrap()], ..routes(text) };
    let edge = Edge::start(config, &services);
    let key = edge.key("acme", "robot", &["curious"]).await;
    let fields = format!("authorization: Bearer {key}\r\nx-crosstown-explain: 1\r\n");
    let mut told = BTreeMap::new();
    for _ in 0..40 {
        let answer = get(&edge, "/", &fields).await;
        let field = answer.header("x-crosstown-explain").unwrap();
        let way: serde_json::Value = serde_json::from_str(field).unwrap();
        let service = way["service"].as_str().unwrap().to_owned();
        let at = usize::from(service == "new");
        assert_eq!(way["instance"], origins[at].address);
        *told.entry(service).or_insert(0) += 1;
    }
    let count = |at: usize| origins[at].requests().unwrap().len();
    assert_eq!((told["old"], told["new"]), (count(0), count(1)));
}

#[tokio::test]
async fn a_caller_stays_with_its_part() {
    let (services, origins) = origins(["old", "new"]).await;
    let text = "[[routes]]\nname = \"r\"\nauth = \"none\"\nsplit_by = \"header:x-user\"\n\
         split = [{ service = \"old\", weight = 1 }, { service = \"new\", weight = 1 }]\n";
    let edge = Edge::start(routes(text), &services);
    let counts = || origins.each_ref().map(|origin| origin.requests().unwrap().len());
    let mut reached = [0, 0];
    for user in 0..16 {
        let before = counts();
        for _ in 0..5 {
            get(&edge, "/", &format!("x-user: {user}\r\n")).await;
        }
        let after = counts();
        let gained = [after[0] - before[0], after[1] - before[1]];
        assert!(gained.contains(&5), "{gained:?}");
        reached[usize::from(gained[1] == 5)] += 1;
    }
    assert!(reached[0] > 0 && reached[1] > 0, "{reached:?}");
}

#[tokio::test]
async fn copies_go_to_a_service_whose_answers_reach_nobody() {
    let (services, [real, shadow]) = origins(["real", "shadow"]).await;
    let text = "[[routes]]\nname = \"r\"\nservice = \"real\"\nauth = \"none\"\n\
         mirror = { service = \"shadow\", body_bytes_max = 5 }\n";
    let edge = Edge::start(routes(text), &services);
    let post = |body: &str| {
        format!("POST /a?b HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n{body}", body.len())
    };
    for body in ["seven", "", "longer than is kept"] {
        let answer = edge.ask(&post(body)).await;
        assert!(answer.status == 200 && answer.text().ends_with(body), "{answer:?}");
        assert!(!answer.text().contains("x-crosstown-mirrored"));
    }
    soon(async {
        while shadow.requests().map_or(0, |requests| requests.len()) < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    let copies = shadow.requests().unwrap();
    assert!(copies[0].0.starts_with("POST /a?b HTTP/1.1\r\n"), "{}", copies[0].0);
    assert!(copies.iter().all(|(head, _)| head.contains("x-crosstown-mirrored: 1")));
    let mut bodies: Vec<&[u8]> = copies.iter().map(|(_, body)| body.as_slice()).collect();
    bodies.sort_unstable();
    assert_eq!((bodies, real.requests().unwrap().len()), (vec![&b""[..], b"seven"], 3));
    // A service that is gone hinders nobody, and neither does one that says nothing.
    let mut services = services;
    let gone = soa::ServiceConfig::at([format!("http://{}", crate::support::nowhere().await)]);
    services.insert("shadow".into(), gone);
    edge.gateway.reload(routes(text), &services).unwrap();
    for _ in 0..5 {
        assert_eq!(edge.ask(&post("seven")).await.status, 200);
    }
}

#[tokio::test]
async fn a_route_that_cannot_be_meant_is_refused_by_name() {
    let (services, _origins) = origins(["s"]).await;
    for (line, reason) in [
        ("split = [{ service = \"x\", weight = 1 }]", "no service `x`"),
        ("service = \"s\"\nsplit = [{ service = \"s\", weight = 1 }]", "not both"),
        ("split = [{ service = \"s\", weight = 0 }]", "more than zero"),
        ("service = \"s\"\nsplit_by = \"user\"", "goes with `split`"),
        ("service = \"s\"\nmirror = { service = \"x\" }", "no service `x`"),
        ("service = \"s\"\nmirror = { service = \"s\", percent = 0 }", "percent"),
        ("", "`service` or `split`"),
    ] {
        let config = routes(&format!("[[routes]]\nname = \"r\"\n{line}\n"));
        assert_eq!(config.routes[0].auth, Auth::Required);
        let error = gateway::Gateway::check(&config, &services).unwrap_err().to_string();
        assert!(error.contains("route `r`") && error.contains(reason), "{error}");
    }
}

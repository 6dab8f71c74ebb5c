//! What a route changes on the way, and what it tells pages of other origins.

use crate::support::{Answer, Client, Edge, Origin, config, origin, services};
use gateway::{Auth, Config, CorsConfig, EditConfig};

fn edit(text: &str) -> EditConfig {
    toml::from_str(text).unwrap()
}

/// One route with `change` made to it.
fn with(change: impl FnOnce(&mut gateway::RouteConfig)) -> Config {
    let mut config = Config { workers: 1, ..config() };
    change(&mut config.routes[0]);
    config
}

#[tokio::test]
async fn fields_are_changed_on_the_way_in() {
    let origin = Origin::echo().await;
    let config = with(|route| {
        route.request_headers = edit(
            "remove = [\"x-secret\"]\nset = { x-stage = \"beta\" }\nadd = { x-tag = \"two\" }",
        );
    });
    let edge = Edge::start(config, &services(&[&origin.address]));
    let answer = edge
        .ask(
            "GET / HTTP/1.1\r\nhost: a\r\nx-secret: s\r\nx-stage: a\r\nx-stage: b\r\n\
             x-tag: one\r\n\r\n",
        )
        .await;
    let seen = answer.text();
    assert!(!seen.contains("x-secret"), "{seen}");
    for (name, values) in [("x-stage", vec!["beta"]), ("x-tag", vec!["one", "two"])] {
        let found: Vec<_> =
            seen.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).collect();
        assert_eq!(found, values, "{seen}");
    }
}

#[tokio::test]
async fn fields_are_changed_on_the_way_out() {
    let address = origin(|mut client: Client, _| async move {
        client.head().await;
        let fields = "server: shop/1.2\r\nvary: accept\r\nx-frame: no\r\n";
        client.send(format!("HTTP/1.1 200 OK\r\n{fields}content-length: 0\r\n\r\n")).await;
    })
    .await;
    let config = with(|route| {
        route.response_headers = edit(
            "remove = [\"server\"]\nset = { x-frame = \"DENY\" }\nadd = { vary = \"cookie\" }",
        );
    });
    let edge = Edge::start(config, &services(&[&address]));
    let answer = edge.ask("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert_eq!((answer.header("server"), answer.header("x-frame")), (None, Some("DENY")));
    assert_eq!(answer.head.matches("vary: ").count(), 2, "{}", answer.head);
}

#[tokio::test]
async fn a_field_that_is_not_a_routes_to_change_is_refused_at_the_start() {
    for text in ["set = { host = \"b\" }", "remove = [\"content-length\"]"] {
        let config = with(|route| route.request_headers = edit(text));
        let error = gateway::Gateway::check(&config, &services(&["127.0.0.1:9"])).unwrap_err();
        assert!(error.to_string().contains("route `all`"), "{error}");
    }
}

fn cors(text: &str) -> Option<CorsConfig> {
    Some(toml::from_str(text).unwrap())
}

fn allowed(answer: &Answer) -> Option<&str> {
    answer.header("access-control-allow-origin")
}

const PAGE: &str = "https://app.example.org";

/// What a browser sends before it sends what is not simple.
fn preflight(origin: &str, method: &str) -> String {
    format!(
        "OPTIONS /a HTTP/1.1\r\nhost: a\r\norigin: {origin}\r\n\
         access-control-request-method: {method}\r\n\r\n"
    )
}

#[tokio::test]
async fn pages_of_permitted_origins_are_told_so() {
    let address = origin(|mut client: Client, _| async move {
        while client.head().await.is_some() {
            let fields = "access-control-allow-origin: *\r\naccess-control-allow-credentials: no";
            client
                .send(format!("HTTP/1.1 200 OK\r\n{fields}\r\ncontent-length: 2\r\n\r\nok"))
                .await;
        }
    })
    .await;
    let config = with(|route| {
        route.methods = vec!["POST".into()];
        route.auth = Auth::Required;
        route.cors = cors(&format!(
            "origins = [\"{PAGE}\"]\ncredentials = true\nexpose = [\"etag\"]\nmax_age = \"60s\""
        ));
    });
    let edge = Edge::start(config, &services(&[&address]));
    // Without a credential, as browsers ask.
    let answer = edge.ask(&preflight(PAGE, "POST")).await;
    assert_eq!((answer.status, allowed(&answer)), (204, Some(PAGE)));
    for (name, value) in [
        ("access-control-allow-methods", "POST"),
        ("access-control-allow-headers", "authorization, content-type"),
        ("access-control-allow-credentials", "true"),
        ("access-control-max-age", "60"),
        ("vary", "origin"),
    ] {
        assert_eq!(answer.header(name), Some(value), "{}", answer.head);
    }
    let other = edge.ask(&preflight("https://evil.example", "POST")).await;
    assert_eq!((other.status, allowed(&other)), (204, None));
    assert_eq!(other.header("access-control-allow-methods"), None);
    // No route takes it, so there is nobody to permit it.
    assert_eq!(edge.ask(&preflight(PAGE, "DELETE")).await.status, 405);
    // A refusal can be read by the page, too.
    let post = |origin: &str, more: &str| {
        format!(
            "POST /a HTTP/1.1\r\nhost: a\r\norigin: {origin}\r\n{more}content-length: 0\r\n\r\n"
        )
    };
    let answer = edge.ask(&post(PAGE, "")).await;
    assert_eq!((answer.status, allowed(&answer)), (401, Some(PAGE)));
    let key = format!("authorization: Bearer {}\r\n", edge.key("acme", "shop", &[]).await);
    let answer = edge.ask(&post(PAGE, &key)).await;
    assert_eq!((answer.text(), allowed(&answer)), ("ok", Some(PAGE)));
    assert_eq!(answer.header("access-control-allow-credentials"), Some("true"));
    assert_eq!(answer.header("access-control-expose-headers"), Some("etag"));
    // What the service says of other origins does not count.
    let answer = edge.ask(&post("https://evil.example", &key)).await;
    assert_eq!((answer.text(), allowed(&answer)), ("ok", None));
}

#[tokio::test]
async fn any_origin_is_told_as_any() {
    let origin = Origin::echo().await;
    let config = with(|route| route.cors = cors("origins = [\"*\"]"));
    let edge = Edge::start(config, &services(&[&origin.address]));
    let get = format!("GET / HTTP/1.1\r\nhost: a\r\norigin: {PAGE}\r\n\r\n");
    let answer = edge.ask(&get).await;
    assert_eq!((allowed(&answer), answer.header("vary")), (Some("*"), None));
    // Who is not a page is not told.
    assert_eq!(allowed(&edge.ask("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await), None);
}

#[tokio::test]
async fn a_service_answers_browsers_itself_where_the_route_does_not() {
    let origin = Origin::echo().await;
    let edge = Edge::start(with(|_| {}), &services(&[&origin.address]));
    let answer = edge.ask(&preflight(PAGE, "POST")).await;
    assert!(answer.text().starts_with("OPTIONS /a "), "{answer:?}");
    // But not by a method that the route does not take.
    let config = with(|route| route.methods = vec!["POST".into()]);
    let edge = Edge::start(config, &services(&[&origin.address]));
    assert_eq!(edge.ask(&preflight(PAGE, "POST")).await.status, 405);
}

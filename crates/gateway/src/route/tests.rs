use super::*;

fn table(routes: &[(&str, RouteConfig)]) -> Result<Table, ConfigError> {
    let mut services = soa::Config::new();
    services.insert("s".into(), soa::ServiceConfig::at(["http://127.0.0.1:1".to_owned()]));
    let services = Services::compile(&services, None).unwrap();
    let routes = routes
        .iter()
        .map(|(name, route)| RouteConfig {
            name: (*name).into(),
            service: "s".into(),
            ..route.clone()
        })
        .collect();
    let config = Config { routes, ..Config::default() };
    Table::compile(&config, &services, &Analytics::default())
}

fn prefix(prefix: &str) -> RouteConfig {
    RouteConfig { prefix: Some(prefix.into()), ..RouteConfig::default() }
}

fn path(path: &str) -> RouteConfig {
    RouteConfig { path: Some(path.into()), ..RouteConfig::default() }
}

fn on(host: &str, route: RouteConfig) -> RouteConfig {
    RouteConfig { hosts: vec![host.into()], ..route }
}

fn find(table: &Table, method: &str, host: &str, path: &str, version: Option<&str>) -> String {
    let mut headers = HeaderMap::new();
    if let Some(version) = version {
        headers.insert("x-version", version.parse().unwrap());
    }
    let (path, query) = match path.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (path, None),
    };
    match table.find(host, path, &method.parse().unwrap(), query, &headers, Whose::Unknown) {
        Match::Route(route) => route.name.clone(),
        Match::Tenant => "by tenant".into(),
        Match::Method(others) => format!("405 {others:?}"),
        Match::None => "404".into(),
    }
}

#[test]
fn the_more_specific_route_is_taken() {
    let get = RouteConfig { methods: vec!["GET".into()], ..prefix("/api/orders") };
    let v2 = RouteConfig {
        headers: [("x-version".to_owned(), "2".to_owned())].into(),
        ..prefix("/api")
    };
    let table = table(&[
        ("root", on("a.org", prefix("/"))),
        ("api", prefix("/api")),
        ("api-late", prefix("/api")),
        ("orders-get", get),
        ("v2", v2),
        ("exact", path("/api/orders/new")),
        ("post-only", RouteConfig { methods: vec!["POST".into()], ..path("/post") }),
        ("wild", on("*.b.org", prefix("/api"))),
        ("wilder", on("*.x.b.org", prefix("/api"))),
        ("slash", path("/dir/")),
    ])
    .unwrap();
    for (method, host, path, version, expected) in [
        ("GET", "h", "/api", None, "api"),
        ("GET", "h", "/api/", None, "api"),
        ("GET", "h", "/api/x/y", None, "api"),
        ("GET", "h", "/apix", None, "404"),
        ("GET", "h", "/", None, "404"),
        ("GET", "h", "/api/x", Some("2"), "v2"),
        ("GET", "h", "/api/x", Some("3"), "api"),
        ("GET", "h", "/api/orders/7", None, "orders-get"),
        ("GET", "h", "/api/orders/7", Some("2"), "orders-get"),
        ("PUT", "h", "/api/orders/7", None, "api"),
        ("PUT", "h", "/api/orders/7", Some("2"), "v2"),
        ("GET", "h", "/api/orders/new", None, "exact"),
        ("GET", "h", "/api/orders/new/x", None, "orders-get"),
        ("GET", "h", "/post", None, "405 [POST]"),
        ("POST", "h", "/post", None, "post-only"),
        ("POST", "h", "/post/", None, "404"),
        ("GET", "h", "/dir/", None, "slash"),
        ("GET", "h", "/dir", None, "404"),
        ("GET", "a.org", "/", None, "root"),
        ("GET", "a.org", "/api", None, "root"),
        ("GET", "b.org", "/api", None, "api"),
        ("GET", "y.b.org", "/api", None, "wild"),
        ("GET", "z.x.b.org", "/api", None, "wilder"),
        ("GET", "y.b.org", "/post", None, "405 [POST]"),
    ] {
        assert_eq!(find(&table, method, host, path, version), expected, "{method} {host} {path}");
    }
}

#[test]
fn routes_that_cannot_be_meant_are_refused() {
    for (route, reason) in [
        (RouteConfig { path: Some("/a".into()), ..prefix("/a") }, "one of"),
        (RouteConfig { regex: Some("/a".into()), ..prefix("/a") }, "one of"),
        (RouteConfig { regex: Some("(".into()), ..RouteConfig::default() }, "regex"),
        (prefix("/x{y}"), "whole segment"),
        (RouteConfig { rewrite: Some("/{id}".into()), ..path("/a") }, "does not have"),
        (
            RouteConfig { rewrite: Some("/b".into()), strip_prefix: true, ..prefix("/a") },
            "strip_prefix",
        ),
        (
            RouteConfig { tenants: vec!["a".parse().unwrap()], auth: Auth::None, ..prefix("/") },
            "need",
        ),
        (prefix("a"), "normal form"),
        (prefix("/a/../b"), "normal form"),
        (prefix("/%61"), "normal form"),
        (on("A.org", prefix("/")), "lowercase"),
        (on("a.org:80", prefix("/")), "lowercase"),
        (on("*", prefix("/")), "lowercase"),
        (RouteConfig { methods: vec!["get".into()], ..prefix("/") }, "method"),
        (RouteConfig { strip_prefix: true, ..path("/a") }, "strip_prefix"),
        (RouteConfig { roles: vec!["a b".into()], ..prefix("/") }, "role"),
        (RouteConfig { roles: vec!["a".into()], auth: Auth::None, ..prefix("/") }, "need"),
    ] {
        let error = table(&[("r", route)]).unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
    }
    assert!(table(&[("_r", prefix("/"))]).is_err());
    assert!(table(&[("r", prefix("/")), ("r", prefix("/b"))]).is_err());
}

#[test]
fn parameters_and_expressions_stand_between_exact_paths_and_prefixes() {
    let regex = RouteConfig { regex: Some("/api/[a-z]+/[0-9]+".into()), ..RouteConfig::default() };
    let acme = RouteConfig { tenants: vec!["acme".parse().unwrap()], ..path("/t/{id}") };
    let table = table(&[
        ("prefix", prefix("/api")),
        ("regex", regex),
        ("order", path("/api/orders/{id}")),
        ("new", RouteConfig { methods: vec!["POST".into()], ..path("/api/orders/new") }),
        ("item", path("/api/{kind}/{id}/items")),
        ("files", prefix("/users/{user}/files")),
        ("all", path("/t/{id}")),
        ("acme", acme),
        ("b", prefix("/b")),
        ("b-slash", path("/b/")),
    ])
    .unwrap();
    for (method, path, expected) in [
        ("GET", "/api/orders/7", "order"),
        ("POST", "/api/orders/new", "new"),
        ("GET", "/api/orders/new", "order"),
        ("GET", "/api/orders/7/items", "item"),
        ("GET", "/api/things/7", "regex"),
        ("GET", "/api/things/7a", "prefix"),
        ("GET", "/api/orders", "prefix"),
        ("GET", "/users/ann/files", "files"),
        ("GET", "/users/ann/files/a/b", "files"),
        ("GET", "/users/ann", "404"),
        ("GET", "/users//files", "404"),
        ("GET", "/t/1", "by tenant"),
        ("GET", "/b/", "b-slash"),
        ("GET", "/b/x", "b"),
    ] {
        assert_eq!(find(&table, method, "h", path, None), expected, "{method} {path}");
    }
    let of = |tenant: Option<&str>| {
        let tenant = tenant.map(|tenant| tenant.parse().unwrap());
        let whose = Whose::Known(tenant.as_ref());
        let found = table.find("h", "/t/1", &Method::GET, None, &HeaderMap::new(), whose);
        let Match::Route(route) = found else { panic!("{found:?}") };
        route.name.clone()
    };
    assert_eq!(
        (of(Some("acme")), of(Some("other")), of(None)),
        ("acme".into(), "all".into(), "all".into())
    );
}

#[test]
fn a_query_parameter_may_decide() {
    let query = |name: &str, value: &str| RouteConfig {
        query: [(name.to_owned(), value.to_owned())].into(),
        ..prefix("/api")
    };
    let table = table(&[("api", prefix("/api")), ("beta", query("stage", "beta & more"))]).unwrap();
    let find = |path| find(&table, "GET", "a.org", path, None);
    assert_eq!(find("/api?x=1&stage=beta+%26%20more"), "beta");
    for other in
        ["/api", "/api?stage=", "/api?stage=beta", "/api?sta=ge&beta", "/api?Stage=beta+%26+more"]
    {
        assert_eq!(find(other), "api", "{other}");
    }
}

#[test]
fn a_route_is_found_without_anything_that_serves_it() {
    let services = soa::Config::from([(
        "s".to_owned(),
        soa::ServiceConfig::at(["http://127.0.0.1:1".to_owned()]),
    )]);
    let route = |name: &str, route: RouteConfig| RouteConfig {
        name: name.into(),
        service: "s".into(),
        ..route
    };
    let acme = RouteConfig { tenants: vec!["acme".parse().unwrap()], ..path("/acme") };
    let routes = vec![route("a", prefix("/a")), route("b", path("/b/{id}")), route("acme", acme)];
    let config = Config { routes, ..Config::default() };
    let routes = Routes::compile(&config, &services).unwrap();
    for (path, expected) in
        [("/a/x", Some("a")), ("/b/7", Some("b")), ("/b", None), ("/acme", None)]
    {
        assert_eq!(routes.find("h", path, &Method::GET), expected, "{path}");
    }
    assert!(Routes::compile(&config, &soa::Config::new()).is_err());
}

//! What is asked whether it is well, and what never is.

use super::*;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Empty;
use hyper::{body::Incoming, server::conn, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::{convert::Infallible, fs};

/// Each way to ask an instance, and the service whose instances are asked so.
const WAYS: [(&str, &str); 4] = [
    ("tcp", "health = { interval = \"20ms\" }"),
    ("http", "health = { interval = \"20ms\", path = \"/health\" }"),
    ("h2", "protocol = \"h2\"\nhealth = { interval = \"20ms\", path = \"/health\" }"),
    ("grpc", "protocol = \"h2\"\nhealth = { interval = \"20ms\", grpc = true }"),
];

/// Services whose instances register themselves, as `terms` say besides, and one that is always
/// asked, so that it can be seen that time passes.
fn services(terms: &str, always: u16) -> String {
    let service = |(name, health): (&str, &str)| {
        format!(
            "[services.{name}]\n{health}\n\
             registration = {{ tenants = [\"acme\"], roles = [\"registrar\"]{terms} }}\n"
        )
    };
    format!(
        "{}[services.always]\ninstances = [\"http://127.0.0.1:{always}\"]\n\
         health = {{ interval = \"20ms\" }}\n",
        WAYS.map(service).concat()
    )
}

fn path(service: &str) -> String {
    format!("/crosstown/v1/services/{service}/instances")
}

/// Until it was connected to `times` more.
async fn more(accepted: &AtomicUsize, times: usize, what: &str) {
    let (before, until) = (accepted.load(SeqCst), Instant::now() + Duration::from_secs(30));
    while accepted.load(SeqCst) < before + times {
        assert!(Instant::now() < until, "{what} is not checked");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A listener that takes every connection and says nothing.
async fn silent(address: &str) -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind(address).await.unwrap();
    let (port, accepted) = (listener.local_addr().unwrap().port(), Arc::<AtomicUsize>::default());
    let counted = accepted.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            counted.fetch_add(1, SeqCst);
            drop(stream);
        }
    });
    (port, accepted)
}

/// What was registered while it was allowed is not asked any more once it is not: not after a
/// reload, whatever heartbeats come, and not by a node that starts again.
#[tokio::test]
async fn an_address_that_is_forbidden_later_is_checked_no_more() {
    let dns = Dns::start().unwrap();
    dns.tell("shop.test", Told::Addresses(vec![[127, 0, 0, 3].into()]));
    let (always, passes) = silent("127.0.0.1:0").await;
    let server = format!(", server = \"{}\"", dns.address());
    let allowed = services(&format!(", loopback = true{server}"), always);
    let mut node = Server::start(&allowed);
    let shop = registrar(&node, "shop").await;
    let (mut listeners, mut registered) = (Vec::new(), Vec::new());
    for (service, _) in WAYS {
        for (listen, host) in [
            ("127.0.0.1:0", "127.0.0.1"),
            ("127.0.0.2:0", "127.0.0.2"),
            ("127.0.0.3:0", "shop.test"),
            ("[::1]:0", "[::1]"),
        ] {
            let (port, accepted) = silent(listen).await;
            let new = json!({ "url": format!("http://{host}:{port}"), "ttl": "5m" });
            let told: Json = shop.post(&path(service), &new).await.unwrap();
            let id = told["id"].as_str().unwrap();
            registered.push((format!("{}/{id}", path(service)), new));
            listeners.push((format!("{service} {host}"), accepted));
        }
    }
    for (what, accepted) in &listeners {
        more(accepted, 3, what).await;
    }

    let file = node.folder().join("crosstown.toml");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace(&allowed, &services(&server, always))).unwrap();
    let _: Json = node.admin().post("/reload", &()).await.unwrap();
    // What had begun before may be seen to have begun.
    more(&passes, 5, "always").await;
    let count = || listeners.iter().map(|(what, one)| (what.clone(), one.load(SeqCst)));
    let before: Vec<(String, usize)> = count().collect();
    for (heartbeat, new) in &registered {
        shop.put::<Json>(heartbeat, &json!({})).await.unwrap();
        let service = heartbeat.rsplit_once('/').unwrap().0;
        assert_eq!(refused(shop.post::<Json>(service, new).await), "forbidden");
    }
    more(&passes, 20, "always").await;
    assert_eq!(count().collect::<Vec<_>>(), before);
    assert_eq!(shown(&node).await.len(), 1);

    node.kill();
    node.start_again();
    more(&passes, 20, "always").await;
    assert_eq!(count().collect::<Vec<_>>(), before);
}

/// Every way to say that what was asked for is elsewhere.
fn elsewhere(number: usize, inside: &str) -> Response<Empty<Bytes>> {
    let status = [300, 301, 302, 303, 305, 307, 308, 201, 421][number % 9];
    Response::builder()
        .status(status)
        .header("location", format!("http://{inside}/secret"))
        .header("content-location", format!("http://{inside}/secret"))
        .header("refresh", format!("0; url=http://{inside}/secret"))
        .header("alt-svc", format!("h2=\"{inside}\", http/1.1=\"{inside}\""))
        .body(Empty::new())
        .unwrap()
}

/// An instance that says of each request, by HTTP/1.1 or HTTP/2, that it is to be sent elsewhere.
async fn referring(is_h2: bool, inside: String) -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (port, asked) = (listener.local_addr().unwrap().port(), Arc::<AtomicUsize>::default());
    let counted = asked.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (inside, counted) = (inside.clone(), counted.clone());
            let answer = move |_: Request<Incoming>| {
                let answer = elsewhere(counted.fetch_add(1, SeqCst), &inside);
                async move { Ok::<_, Infallible>(answer) }
            };
            let (stream, service) = (TokioIo::new(stream), service_fn(answer));
            tokio::spawn(async move {
                if is_h2 {
                    let h2 = conn::http2::Builder::new(TokioExecutor::new());
                    let _ = h2.serve_connection(stream, service).await;
                } else {
                    let h1 = conn::http1::Builder::new();
                    let _ = h1.serve_connection(stream, service).await;
                }
            });
        }
    });
    (port, asked)
}

#[tokio::test]
async fn a_check_goes_nowhere_that_an_instance_sends_it() {
    let (always, _) = silent("127.0.0.1:0").await;
    let node = Server::start(&services(", loopback = true", always));
    let shop = registrar(&node, "shop").await;
    let (port, inside) = silent("127.0.0.2:0").await;
    let mut referrers = Vec::new();
    for (service, is_h2) in [("http", false), ("h2", true), ("grpc", true)] {
        let (port, asked) = referring(is_h2, format!("127.0.0.2:{port}")).await;
        let new = json!({ "url": here(port), "ttl": "5m" });
        shop.post::<Json>(&path(service), &new).await.unwrap();
        referrers.push((service, asked));
    }
    for (service, asked) in &referrers {
        more(asked, 27, service).await;
    }
    assert_eq!(inside.load(SeqCst), 0);
}

//! What a route does with bodies: kept answers, compression, changed JSON.

use crate::support::{Answer, Client, Edge, Origin, config, origin, services};
use flate2::read::GzDecoder;
use gateway::{Config, RouteConfig};
use parking_lot::Mutex;
use std::{io::Read, sync::Arc, time::Duration};

/// A service that answers each request with the next number, and with the header fields that the
/// request's path says: `/?cache-control=max-age%3D60` and so on.
struct Counting {
    address: String,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Counting {
    async fn start() -> Self {
        let requests: Arc<Mutex<Vec<String>>> = Arc::default();
        let noted = requests.clone();
        let address = origin(move |mut client: Client, _| {
            let noted = noted.clone();
            async move {
                while let Some((_, head)) = client.head().await {
                    let number = {
                        let mut noted = noted.lock();
                        noted.push(head.clone());
                        noted.len()
                    };
                    let answer = counted(&head, number);
                    client.send(answer).await;
                }
            }
        })
        .await;
        Self { address, requests }
    }

    fn count(&self) -> usize {
        self.requests.lock().len()
    }

    fn last(&self) -> String {
        self.requests.lock().last().unwrap().clone()
    }
}

fn counted(head: &str, number: usize) -> String {
    let target = head.split(' ').nth(1).unwrap();
    let query = target.split_once('?').map_or("", |(_, query)| query);
    let mut fields: String = url::form_urlencoded::parse(query.as_bytes())
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect();
    let asked = head.lines().find_map(|line| line.strip_prefix("if-none-match: "));
    if asked.is_some_and(|tag| fields.contains(&format!("etag: {tag}"))) {
        return format!("HTTP/1.1 304 X\r\n{fields}x-number: {number}\r\n\r\n");
    }
    let body = if head.starts_with("HEAD") { String::new() } else { format!("number {number}") };
    let length = format!("number {number}").len();
    fields += &format!("content-length: {length}\r\n");
    format!("HTTP/1.1 200 X\r\n{fields}\r\n{body}")
}

fn route(text: &str) -> Config {
    let mut config = Config { workers: 1, ..config() };
    let text = format!("name = \"r\"\nservice = \"origin\"\n{text}");
    let route: RouteConfig = toml::from_str(&text).unwrap();
    config.routes = vec![route];
    config
}

async fn send(edge: &Edge, method: &str, target: &str, fields: &str) -> Answer {
    let mut client = edge.connect().await;
    client.send(format!("{method} {target} HTTP/1.1\r\nhost: a\r\n{fields}\r\n")).await;
    if method == "HEAD" {
        let (status, head) = client.head().await.unwrap();
        // Nothing may follow it.
        client.send("GET /none-such-- HTTP/1.1\r\nhost: a\r\n\r\n").await;
        assert!(client.head().await.is_some());
        return Answer { status, head, body: Vec::new() };
    }
    client.answer().await.expect("an answer")
}

async fn get(edge: &Edge, target: &str, fields: &str) -> Answer {
    send(edge, "GET", target, fields).await
}

const FRESH: &str = "/?cache-control=max-age%3D600";

#[tokio::test]
async fn a_fresh_answer_is_given_again() {
    let origin = Counting::start().await;
    let edge = Edge::start(route("auth = \"none\"\ncache = {}"), &services(&[&origin.address]));
    let first = get(&edge, FRESH, "").await;
    assert_eq!(first.header("cache-status"), Some("crosstown; fwd=miss; stored"));
    let again = get(&edge, FRESH, "").await;
    assert_eq!((again.status, again.text()), (200, "number 1"));
    assert_eq!(again.header("cache-status"), Some("crosstown; hit"));
    assert!(again.header("age").is_some_and(|age| age.parse::<u64>().is_ok()), "{}", again.head);
    // So is its head, and one whose client has it need not have it again.
    let head = send(&edge, "HEAD", FRESH, "").await;
    assert_eq!((head.status, head.header("content-length")), (200, Some("8")));
    let tagged = format!("{FRESH}&etag=%22t%22");
    get(&edge, &tagged, "").await;
    let known = get(&edge, &tagged, "if-none-match: \"x\", W/\"t\"\r\n").await;
    assert_eq!((known.status, known.body.len(), known.header("etag")), (304, 0, Some("\"t\"")));
    assert_eq!(get(&edge, &tagged, "if-none-match: \"x\"\r\n").await.status, 200);
    // Another target, and another host, are others.
    assert_eq!(get(&edge, &format!("{FRESH}&x=y"), "").await.text(), "number 4");
    let asked = "GET /?cache-control=max-age%3D600 HTTP/1.1\r\nhost: b\r\n\r\n";
    assert_eq!(edge.ask(asked).await.text(), "number 5");
    // The client may insist, and the operator forget.
    assert_eq!(get(&edge, FRESH, "cache-control: no-cache\r\n").await.text(), "number 6");
    assert_eq!(get(&edge, FRESH, "").await.text(), "number 6");
    edge.gateway.forget_cached();
    assert_eq!(get(&edge, FRESH, "").await.text(), "number 7");
    let report = edge.gateway.cached();
    assert!(report.hits >= 5 && report.misses >= 5 && report.targets == 1, "{report:?}");
}

#[tokio::test]
async fn what_may_not_be_kept_is_not() {
    let origin = Counting::start().await;
    let edge = Edge::start(route("auth = \"none\"\ncache = {}"), &services(&[&origin.address]));
    for fields in [
        "",
        "cache-control=no-store",
        "cache-control=private%2C+max-age%3D600",
        "cache-control=no-cache",
        "cache-control=max-age%3D0",
        "cache-control=max-age%3D600&vary=*",
        "cache-control=max-age%3D600&set-cookie=a%3Db",
        "cache-control=public%2C+max-age%3D600&set-cookie=a%3Db",
        "cache-control=max-age%3D600&cache-control=private",
        "expires=Thu%2C+01+Jan+1970+00:00:00+GMT",
    ] {
        let target = format!("/?{fields}");
        let before = origin.count();
        for _ in 0..2 {
            assert_eq!(get(&edge, &target, "").await.status, 200);
        }
        assert_eq!(origin.count() - before, 2, "{fields}");
    }
    for fields in ["cache-control: no-store\r\n", "range: bytes=0-1\r\n"] {
        let target = format!("{FRESH}&for={}", fields.len());
        let before = origin.count();
        get(&edge, &target, fields).await;
        get(&edge, &target, fields).await;
        assert_eq!(origin.count() - before, 2, "{fields}");
    }
    // With a body, the target does not say all that was asked for.
    for body in ["one", "two"] {
        let before = origin.count();
        let asked = format!("GET {FRESH} HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\n{body}");
        // The service answers without reading it.
        assert_eq!(edge.ask(&asked).await.status, 200);
        assert_eq!(origin.count() - before, 1, "{body}");
    }
    for method in ["POST", "OPTIONS"] {
        let before = origin.count();
        for _ in 0..2 {
            send(&edge, method, FRESH, "content-length: 0\r\n").await;
        }
        assert_eq!(origin.count() - before, 2, "{method}");
    }
}

#[tokio::test]
async fn what_was_made_for_somebody_is_for_nobody_else() {
    let origin = Counting::start().await;
    let services = services(&[&origin.address]);
    let edge = Edge::start(route("auth = \"optional\"\ncache = {}"), &services);
    let mut fields = Vec::new();
    for (tenant, user) in [("acme", "ann"), ("acme", "bob"), ("other", "ann")] {
        let key = edge.key(tenant, user, &[]).await;
        fields.push(format!("authorization: Bearer {key}\r\n"));
    }
    let [ann, bob, stranger] = &fields[..] else { panic!() };
    // The service did not think of it: each is asked for himself, and nobody sees another's.
    for who in [ann, bob, stranger, ann] {
        let before = origin.count();
        get(&edge, FRESH, who).await;
        assert_eq!(origin.count(), before + 1);
    }
    assert_eq!(get(&edge, FRESH, "").await.text(), "number 5", "somebody's is not for nobody");
    // A cookie may be a credential of the service's own.
    assert_eq!(get(&edge, &format!("{FRESH}&c"), "cookie: a=b\r\n").await.text(), "number 6");
    assert_eq!(get(&edge, &format!("{FRESH}&c"), "cookie: a=c\r\n").await.text(), "number 7");
    // What the service says is for all, is for all of the tenant.
    let public = "/?cache-control=public%2C+max-age%3D600";
    assert_eq!(get(&edge, public, ann).await.text(), "number 8");
    assert_eq!(get(&edge, public, bob).await.text(), "number 8");
    assert_eq!(get(&edge, public, stranger).await.text(), "number 9");
    assert_eq!(get(&edge, public, "").await.text(), "number 10");
    // For each by himself, also what is private.
    edge.gateway.reload(route("cache = { per = \"caller\" }"), &services).unwrap();
    let private = "/?cache-control=private%2C+max-age%3D600";
    assert_eq!(get(&edge, private, ann).await.text(), "number 11");
    assert_eq!(get(&edge, private, ann).await.text(), "number 11");
    assert_eq!(get(&edge, private, bob).await.text(), "number 12");
    assert_eq!(get(&edge, private, stranger).await.text(), "number 13");
}

#[tokio::test]
async fn requests_that_the_service_tells_apart_are_told_apart() {
    let origin = Counting::start().await;
    let edge = Edge::start(route("auth = \"none\"\ncache = {}"), &services(&[&origin.address]));
    let target = format!("{FRESH}&vary=accept-language%2C+x-tone");
    let ask = |fields: &'static str| get(&edge, &target, fields);
    let german = "accept-language: de\r\n";
    assert_eq!(ask(german).await.text(), "number 1");
    assert_eq!(ask("accept-language: en\r\n").await.text(), "number 2");
    assert_eq!(ask("").await.text(), "number 3");
    // The second value of a field counts as the first does.
    let both = "accept-language: de\r\naccept-language: fr\r\n";
    assert_eq!(ask(both).await.text(), "number 4");
    assert_eq!(ask("accept-language: de\r\nx-tone: dark\r\n").await.text(), "number 5");
    for (fields, number) in [(german, 1), ("", 3), (both, 4)] {
        assert_eq!(ask(fields).await.text(), format!("number {number}"));
    }
}

#[tokio::test]
async fn where_a_client_thinks_that_it_is_tells_answers_apart() {
    let origin = Counting::start().await;
    let config = Config {
        trusted_proxies: vec!["127.0.0.0/8".parse().unwrap()],
        ..route("auth = \"none\"\ncache = {}")
    };
    let edge = Edge::start(config, &services(&[&origin.address]));
    let (proto, host) = ("x-forwarded-proto: https\r\n", "x-forwarded-host: b.example\r\n");
    for (fields, number) in [("", 1), (proto, 2), (host, 3), ("", 1), (proto, 2), (host, 3)] {
        assert_eq!(get(&edge, FRESH, fields).await.text(), format!("number {number}"));
    }
}

#[tokio::test]
async fn a_stale_answer_is_asked_for_and_need_not_come_again() {
    let origin = Counting::start().await;
    let edge = Edge::start(route("auth = \"none\"\ncache = {}"), &services(&[&origin.address]));
    let target = "/?cache-control=no-cache&etag=%22t%22&link=a&link=b";
    assert_eq!(get(&edge, target, "").await.text(), "number 1");
    let again = get(&edge, target, "if-none-match: \"mine\"\r\n").await;
    assert!(origin.last().contains("if-none-match: \"t\"\r\n"), "{}", origin.last());
    assert!(!origin.last().contains("mine"), "{}", origin.last());
    assert_eq!((again.status, again.text()), (200, "number 1"));
    assert_eq!(again.header("cache-status"), Some("crosstown; hit; fwd=stale; fwd-status=304"));
    assert_eq!(again.head.matches("link: ").count(), 2, "{}", again.head);
    assert_eq!(again.header("x-number"), Some("2"));
    assert_eq!(edge.gateway.cached().revalidated, 1);
    // A head is no answer to keep.
    send(&edge, "HEAD", FRESH, "").await;
    assert_eq!(get(&edge, FRESH, "").await.text(), "number 5");
    // A head asks, too, and spoils nothing.
    let head = send(&edge, "HEAD", target, "").await;
    assert_eq!(head.status, 200);
    assert_eq!(get(&edge, target, "").await.text(), "number 1");
}

#[tokio::test]
async fn a_change_makes_the_service_be_asked_again() {
    let origin = Counting::start().await;
    let edge = Edge::start(route("auth = \"none\"\ncache = {}"), &services(&[&origin.address]));
    get(&edge, FRESH, "").await;
    assert_eq!(get(&edge, FRESH, "").await.text(), "number 1");
    assert_eq!(send(&edge, "PUT", FRESH, "content-length: 0\r\n").await.text(), "number 2");
    assert_eq!(get(&edge, FRESH, "").await.text(), "number 3");
}

#[tokio::test]
async fn broken_and_long_answers_are_not_kept_and_the_cache_is_bounded() {
    let address = origin(|mut client: Client, number| async move {
        client.head().await;
        let head = "HTTP/1.1 200 X\r\ncache-control: max-age=60\r\nconnection: close\r\n";
        if number == 0 {
            client.send(format!("{head}content-length: 9\r\n\r\nhalf")).await;
        } else {
            client.send(format!("{head}content-length: 9\r\n\r\nwhole one")).await;
        }
    })
    .await;
    let edge = Edge::start(route("auth = \"none\"\ncache = {}"), &services(&[&address]));
    let mut client = edge.connect().await;
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert!(client.answer().await.is_none());
    assert_eq!(get(&edge, "/", "").await.text(), "whole one");
    assert_eq!(get(&edge, "/", "").await.header("cache-status"), Some("crosstown; hit"));
    let origin = Counting::start().await;
    let text = "auth = \"none\"\ncache = { body_bytes_max = 7 }";
    let edge = Edge::start(route(text), &services(&[&origin.address]));
    get(&edge, FRESH, "").await;
    assert_eq!(get(&edge, FRESH, "").await.text(), "number 2");
    // Its length need not be known before.
    let address = chunked("cache-control: max-age=60\r\n", &["1234", "5678"], 0).await;
    let edge = Edge::start(route(text), &services(&[&address]));
    for _ in 0..2 {
        assert_eq!(get(&edge, "/", "").await.text(), "12345678");
    }
    assert_eq!(edge.gateway.cached().targets, 0);
    let mut small = route("auth = \"none\"\ncache = {}");
    small.cache_bytes_max = 64 * 1024;
    let edge = Edge::start(small, &services(&[&origin.address]));
    for number in 0..200 {
        get(&edge, &format!("{FRESH}&n={number}"), "").await;
    }
    let report = edge.gateway.cached();
    assert!(report.bytes <= 64 * 1024 && report.targets > 0, "{report:?}");
}

/// A service that answers with this body, in chunks with a pause between them.
async fn chunked(fields: &'static str, chunks: &'static [&'static str], pause: u64) -> String {
    origin(move |mut client: Client, _| async move {
        while client.head().await.is_some() {
            client
                .send(format!("HTTP/1.1 200 X\r\n{fields}transfer-encoding: chunked\r\n\r\n"))
                .await;
            for chunk in chunks {
                client.send(format!("{:x}\r\n{chunk}\r\n", chunk.len())).await;
                tokio::time::sleep(Duration::from_millis(pause)).await;
            }
            client.send("0\r\n\r\n").await;
        }
    })
    .await
}

fn unzipped(coding: &str, body: &[u8]) -> String {
    let mut text = String::new();
    match coding {
        "gzip" => GzDecoder::new(body).read_to_string(&mut text).unwrap(),
        "br" => brotli::Decompressor::new(body, 4096).read_to_string(&mut text).unwrap(),
        other => panic!("{other}"),
    };
    text
}

const TEXT: &str = "It was the best of times, it was the worst of times. ";

#[tokio::test]
async fn answers_are_compressed_as_the_client_likes_it() {
    let fields = "content-type: text/plain; charset=utf-8\r\netag: \"t\"\r\nvary: accept\r\n";
    let address = chunked(fields, &[TEXT; 20], 0).await;
    let edge = Edge::start(route("auth = \"none\"\ncompress = {}"), &services(&[&address]));
    for (accepted, coding) in
        [("gzip", Some("gzip")), ("gzip, br", Some("br")), ("br;q=0", None), ("", None)]
    {
        let fields = if accepted.is_empty() {
            String::new()
        } else {
            format!("accept-encoding: {accepted}\r\n")
        };
        let answer = get(&edge, "/", &fields).await;
        assert_eq!(answer.header("content-encoding"), coding, "{accepted}");
        assert_eq!(answer.head.matches("vary: ").count(), 2, "{}", answer.head);
        let text = match coding {
            Some(coding) => {
                assert_eq!(answer.header("etag"), Some("W/\"t\""));
                assert!(answer.body.len() < TEXT.len() * 10);
                unzipped(coding, &answer.body)
            }
            None => answer.text().to_owned(),
        };
        assert_eq!(text, TEXT.repeat(20));
    }
}

#[tokio::test]
async fn a_slow_answer_is_not_held_back_by_compression() {
    let door = Arc::new(tokio::sync::Notify::new());
    let opened = door.clone();
    let address = origin(move |mut client: Client, _| {
        let door = opened.clone();
        async move {
            client.head().await;
            let head = "HTTP/1.1 200 X\r\ncontent-type: text/plain\r\n";
            let size = TEXT.len();
            let first = format!("{head}transfer-encoding: chunked\r\n\r\n{size:x}\r\n{TEXT}\r\n");
            client.send(first).await;
            door.notified().await;
            client.send("3\r\nend\r\n0\r\n\r\n").await;
        }
    })
    .await;
    let edge = Edge::start(route("auth = \"none\"\ncompress = {}"), &services(&[&address]));
    let mut client = edge.connect().await;
    client.send("GET / HTTP/1.1\r\nhost: a\r\naccept-encoding: gzip\r\n\r\n").await;
    client.head().await.unwrap();
    let mut body = Vec::new();
    let mut text = vec![0; TEXT.len()];
    // The first part can be read before the service says more.
    while GzDecoder::new(&*body).read_exact(&mut text).is_err() {
        body.extend(client.chunk().await.unwrap().expect("not the end before it can be read"));
    }
    assert_eq!(text, TEXT.as_bytes());
    door.notify_one();
    while let Some(chunk) = client.chunk().await.unwrap() {
        body.extend(chunk);
    }
    assert_eq!(unzipped("gzip", &body), format!("{TEXT}end"));
}

#[tokio::test]
async fn what_is_no_text_or_has_a_coding_is_left_alone() {
    for fields in [
        "content-type: image/png\r\n",
        "content-type: text/plain\r\ncontent-encoding: zstd\r\n",
        "content-type: text/plain\r\ncache-control: no-transform\r\n",
        "content-type: text/event-stream\r\n",
        "",
    ] {
        let address = chunked(fields, &[TEXT, TEXT], 0).await;
        let edge = Edge::start(route("auth = \"none\"\ncompress = {}"), &services(&[&address]));
        let answer = get(&edge, "/", "accept-encoding: gzip, br\r\n").await;
        assert_eq!(answer.text(), TEXT.repeat(2), "{fields}");
        assert!(!answer.head.contains("vary: accept-encoding"), "{}", answer.head);
    }
    // Too short to be worth it.
    let origin = Counting::start().await;
    let edge = Edge::start(route("auth = \"none\"\ncompress = {}"), &services(&[&origin.address]));
    let answer = get(&edge, "/?content-type=text/plain", "accept-encoding: gzip\r\n").await;
    assert_eq!((answer.text(), answer.header("content-encoding")), ("number 1", None));
    // The service is not asked for what it would have to be asked for again.
    assert!(!origin.last().contains("accept-encoding"), "{}", origin.last());
}

#[tokio::test]
async fn members_of_a_body_are_changed_on_the_way_in() {
    let origin = Origin::echo().await;
    let text = "auth = \"none\"\nrequest_json = { remove = [\"/secret\"], set = { \"/v\" = 2 }, \
         bytes_max = 60 }";
    let edge = Edge::start(route(text), &services(&[&origin.address]));
    let post = |media: &str, body: &str| {
        let length = body.len();
        format!(
            "POST / HTTP/1.1\r\nhost: a\r\ncontent-type: {media}\r\ncontent-length: {length}\r\n\r\n{body}"
        )
    };
    let body = "{\"n\":1.50,\"secret\":\"s\"}";
    let answer = edge.ask(&post("application/json", body)).await;
    assert!(answer.text().ends_with("\r\n\r\n{\"n\":1.50,\"v\":2}"), "{}", answer.text());
    assert!(answer.text().contains("content-length: 16\r\n"), "{}", answer.text());
    // What says that it is something else is not touched.
    assert!(edge.ask(&post("text/plain", body)).await.text().ends_with(body));
    let before = origin.requests().unwrap().len();
    for (media, body, code) in [
        ("application/json", "{\"n\":", "bad_request"),
        ("application/vnd.x+json", "not json", "bad_request"),
        ("application/json", &format!("\"{}\"", "x".repeat(60)), "body_too_large"),
    ] {
        assert_eq!(edge.ask(&post(media, body)).await.code(), code);
    }
    let encoded = "application/json\r\ncontent-encoding: gzip";
    assert_eq!(edge.ask(&post(encoded, body)).await.code(), "bad_request");
    assert_eq!(origin.requests().unwrap().len(), before, "none of them was called");
}

#[tokio::test]
async fn members_of_a_body_are_changed_on_the_way_out_or_it_is_not_passed_on() {
    let text = "auth = \"none\"\nresponse_json = { remove = [\"/secret\"], bytes_max = 40 }";
    for (fields, chunks, expected) in [
        (
            "content-type: application/json\r\netag: \"t\"\r\n",
            &["{\"a\":1,\"sec", "ret\":2}"][..],
            Ok("{\"a\":1}"),
        ),
        ("content-type: text/plain\r\n", &["{\"secret\":2}"][..], Ok("{\"secret\":2}")),
        ("content-type: application/json\r\n", &["{\"secret\":"][..], Err("no JSON")),
        (
            "content-type: application/json\r\ncontent-encoding: gzip\r\n",
            &["{\"secret\":1}"][..],
            Err("compressed"),
        ),
        (
            "content-type: application/json\r\n",
            &["{\"secret\":1,\"a\":\"", "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\"}"][..],
            Err("longer"),
        ),
    ] {
        let address = chunked(fields, chunks, 0).await;
        let edge = Edge::start(route(text), &services(&[&address]));
        let answer = get(&edge, "/", "accept-encoding: gzip\r\n").await;
        match expected {
            Ok(body) => {
                assert_eq!((answer.status, answer.text()), (200, body));
                assert!(answer.header("etag").is_none());
            }
            Err(why) => {
                assert_eq!((answer.status, answer.code().as_str()), (502, "bad_gateway"));
                assert!(answer.text().contains(why), "{}", answer.text());
            }
        }
    }
}

#[tokio::test]
async fn a_service_is_asked_for_what_can_be_changed() {
    let origin = Counting::start().await;
    let text = "auth = \"none\"\nresponse_json = { remove = [\"/secret\"] }";
    let edge = Edge::start(route(text), &services(&[&origin.address]));
    get(&edge, "/", "accept-encoding: gzip\r\n").await;
    assert!(!origin.last().contains("accept-encoding"), "{}", origin.last());
}

#[tokio::test]
async fn a_kept_answer_goes_the_same_way_as_a_new_one() {
    let origin = Counting::start().await;
    let text = "auth = \"none\"\ncache = {}\ncompress = { bytes_min = 1 }\n\
         response_headers = { set = { x-way = \"out\" } }";
    let edge = Edge::start(route(text), &services(&[&origin.address]));
    let target = format!("{FRESH}&content-type=text/plain");
    for fields in ["accept-encoding: gzip\r\n", "", "accept-encoding: br\r\n"] {
        let answer = get(&edge, &target, fields).await;
        assert_eq!(answer.header("x-way"), Some("out"));
        let text = match answer.header("content-encoding") {
            Some(coding) => unzipped(coding, &answer.body),
            None => answer.text().to_owned(),
        };
        assert_eq!(text, "number 1");
    }
    assert_eq!(origin.count(), 1);
}

//! Services that are called by HTTP/2.

use crate::support::{BELOW, Edge, config, soon, stripped};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Empty, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{ServerConfig, ServerConnection, crypto::ring};
use soa::{Protocol, ServiceConfig, TlsConfig};
use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};
use test_servers::Authority;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
};
use transport::{Stream, Tls};

type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

/// A service of HTTP/2, whose connections end, once their requests have, when it is told to.
struct Service {
    address: String,
    connections: Arc<AtomicUsize>,
    goodbye: watch::Sender<usize>,
}

/// How a service is made.
#[derive(Clone)]
struct Options {
    streams_max: u32,
    tls: Option<Arc<ServerConfig>>,
}

impl Default for Options {
    fn default() -> Self {
        Self { streams_max: 100, tls: None }
    }
}

impl Service {
    async fn start<F>(
        options: Options,
        serve: impl Fn(Request<Incoming>) -> F + Clone + Send + 'static,
    ) -> Self
    where
        F: Future<Output = Answer> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let connections = Arc::new(AtomicUsize::new(0));
        let (goodbye, told) = watch::channel(0);
        let count = connections.clone();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                count.fetch_add(1, SeqCst);
                let (options, serve, mut told) = (options.clone(), serve.clone(), told.clone());
                told.mark_unchanged();
                tokio::spawn(async move {
                    let Some(stream) = open(socket, options.tls).await else { return };
                    let service = service_fn(move |request| {
                        let answer = serve(request);
                        async move { Ok::<_, Infallible>(answer.await) }
                    });
                    let connection = http2::Builder::new(TokioExecutor::new())
                        .max_concurrent_streams(options.streams_max)
                        .serve_connection(TokioIo::new(stream), service);
                    let mut connection = std::pin::pin!(connection);
                    tokio::select! {
                        _ = &mut connection => return,
                        _ = told.changed() => connection.as_mut().graceful_shutdown(),
                    }
                    let _ = connection.await;
                });
            }
        });
        Self { address, connections, goodbye }
    }

    fn config(&self) -> soa::Config {
        [("origin".to_owned(), self.service())].into()
    }

    fn service(&self) -> ServiceConfig {
        let at = ServiceConfig::at([format!("http://{}", self.address)]);
        ServiceConfig { protocol: Protocol::H2, ..at }
    }

    fn connections(&self) -> usize {
        self.connections.load(SeqCst)
    }

    fn say_goodbye(&self) {
        self.goodbye.send_modify(|count| *count += 1);
    }
}

async fn open(socket: TcpStream, tls: Option<Arc<ServerConfig>>) -> Option<Stream> {
    let Some(tls) = tls else { return Some(socket.into()) };
    let session = ServerConnection::new(tls).ok()?;
    Some(Stream::Tls(Box::new(Tls::shake(socket, session).await.ok()?)))
}

fn whole(body: impl Into<Bytes>) -> Answer {
    Response::new(Full::new(body.into()).boxed_unsync())
}

/// What it was sent: the head as text, then the body.
async fn echo(request: Request<Incoming>) -> Answer {
    let (head, body) = request.into_parts();
    let mut text = format!("{} {} {:?}\n", head.method, head.uri, head.version);
    for (name, value) in &head.headers {
        text.push_str(&format!("{name}: {}\n", value.to_str().unwrap()));
    }
    text.push('\n');
    let Ok(body) = body.collect().await else { return whole("broken") };
    whole([text.as_bytes(), &body.to_bytes()].concat())
}

fn one_core() -> gateway::Config {
    gateway::Config { workers: 1, ..config() }
}

#[tokio::test]
async fn a_request_of_http_1_becomes_one_of_http_2() {
    let service = Service::start(Options::default(), echo).await;
    let edge = Edge::start(one_core(), &service.config());
    let mut client = edge.connect().await;
    client.send("GET /a?b HTTP/1.1\r\nhost: A.example\r\ncookie: a=1\r\n\r\n").await;
    let answer = client.answer().await.unwrap();
    let text = answer.text();
    assert!(text.starts_with("GET http://A.example/a?b HTTP/2.0\n"), "{text}");
    for held in ["\ncookie: a=1\n", "\nx-forwarded-proto: http\n", "\nx-crosstown-timeout: "] {
        assert!(text.contains(held), "{text}");
    }
    for gone in ["\nhost:", "\nconnection:", "content-length", "transfer-encoding"] {
        assert!(!text.contains(gone), "{text}");
    }
    // Who asks for another protocol is answered as if it had not.
    let asks = "GET /w HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
    let answer = edge.ask(asks).await;
    assert_eq!(answer.status, 200);
    assert!(!answer.text().contains("upgrade"), "{}", answer.text());
    // Bodies of any framing, empty ones included.
    let chunked = "POST /p HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n\
                   3\r\nabc\r\n2\r\nde\r\n0\r\nx-trailer: 1\r\n\r\n";
    let long = vec![b'x'; 900_000];
    let length = format!("PUT /p HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n", long.len());
    for (request, ends, says) in [
        (chunked.as_bytes().to_vec(), b"\n\nabcde".to_vec(), None),
        ([length.as_bytes(), &long].concat(), long.clone(), Some("content-length: 900000\n")),
        (
            b"POST /p HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n".to_vec(),
            b"\n\n".to_vec(),
            Some("content-length: 0\n"),
        ),
    ] {
        client.send(request).await;
        let answer = client.answer().await.unwrap();
        assert_eq!(answer.status, 200);
        assert!(answer.body.ends_with(&ends));
        let text = String::from_utf8_lossy(&answer.body);
        assert!(says.is_none_or(|says| text.contains(says)) && !text.contains("x-trailer"));
    }
    assert_eq!(service.connections(), 1);
}

#[tokio::test]
async fn a_service_of_http_2_is_not_told_the_prefix_of_its_route() {
    let service = Service::start(Options::default(), echo).await;
    let edge =
        Edge::start(gateway::Config { routes: vec![stripped()], ..one_core() }, &service.config());
    for (target, told) in BELOW {
        let answer = edge.ask(&format!("GET {target} HTTP/1.1\r\nhost: a\r\n\r\n")).await;
        let begin = format!("GET http://a{told} HTTP/2.0\n");
        assert!(answer.text().starts_with(&begin), "{target}: {}", answer.text());
    }
}

#[tokio::test]
async fn answers_of_http_2_end_where_they_say() {
    let service = Service::start(Options::default(), |request: Request<Incoming>| async move {
        let empty = || Response::new(Empty::new().boxed_unsync());
        let mut answer = match request.uri().path() {
            "/204" => empty(),
            "/304" => empty(),
            "/empty" => empty(),
            "/early" => whole("not needed"),
            path => whole(path.to_owned()),
        };
        let status: u16 = request.uri().path()[1..].parse().unwrap_or(200);
        *answer.status_mut() = StatusCode::from_u16(status).unwrap();
        answer.headers_mut().insert("connection", HeaderValue::from_static("x-hop"));
        answer
    })
    .await;
    let edge = Edge::start(one_core(), &service.config());
    let mut client = edge.connect().await;
    for (target, status, length) in [
        ("GET /204", 204, None),
        ("GET /304", 304, None),
        ("GET /empty", 200, Some("0")),
        ("GET /404", 404, Some("4")),
        ("GET /503", 503, Some("4")),
        ("GET /long-enough", 200, Some("12")),
    ] {
        client.send(format!("{target} HTTP/1.1\r\nhost: a\r\n\r\n")).await;
        let answer = client.answer().await.unwrap();
        assert_eq!((answer.status, answer.header("content-length")), (status, length), "{target}");
        assert_eq!(answer.header("connection"), None);
    }
    client.send("HEAD /long-enough HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let (status, head) = client.head().await.unwrap();
    assert!(status == 200 && head.contains("content-length: 12\r\n"), "{head}");
    // An answer that comes before the request's end; who still sends is not read on.
    let mut early = edge.connect().await;
    early.send("POST /early HTTP/1.1\r\nhost: a\r\ncontent-length: 500000\r\n\r\nabc").await;
    let answer = early.answer().await.unwrap();
    assert_eq!((answer.status, answer.text()), (200, "not needed"));
    // The connection to the service is none the worse for it.
    client.send("GET /after HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert_eq!(client.answer().await.unwrap().text(), "/after");
    assert_eq!(service.connections(), 1);
}

/// Answers with each piece of the body as it comes.
async fn repeat(request: Request<Incoming>) -> Answer {
    let (sender, receiver) = mpsc::channel::<Bytes>(1);
    let mut body = request.into_body();
    tokio::spawn(async move {
        while let Some(Ok(frame)) = body.frame().await {
            let Ok(data) = frame.into_data() else { continue };
            if sender.send(data).await.is_err() {
                return;
            }
        }
    });
    let frames = futures_util::stream::unfold(receiver, |mut receiver| async {
        let data = receiver.recv().await?;
        Some((Ok::<_, Infallible>(Frame::data(data)), receiver))
    });
    Response::new(BodyExt::boxed_unsync(StreamBody::new(frames)))
}

#[tokio::test]
async fn bodies_flow_both_ways_at_once() {
    let service = Service::start(Options::default(), repeat).await;
    let edge = Edge::start(one_core(), &service.config());
    let mut client = edge.connect().await;
    client.send("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n").await;
    assert_eq!(client.head().await.unwrap().0, 200);
    for letter in ["a", "b", "c"] {
        client.send(format!("1\r\n{letter}\r\n")).await;
        assert_eq!(client.chunk().await.unwrap().unwrap(), letter.as_bytes());
    }
    client.send("0\r\n\r\n").await;
    assert_eq!(client.chunk().await, Some(None));
}

/// An answer without an end, which counts the bytes that are taken of it.
fn endless(given: Arc<AtomicUsize>) -> Answer {
    let frames = futures_util::stream::repeat_with(move || {
        let data = Bytes::from_static(&[b'x'; 16 * 1024]);
        given.fetch_add(data.len(), SeqCst);
        Ok::<_, Infallible>(Frame::data(data))
    });
    Response::new(BodyExt::boxed_unsync(StreamBody::new(frames)))
}

#[tokio::test]
async fn an_answer_says_whose_it_is() {
    let service = Service::start(Options::default(), echo).await;
    let mut config = one_core();
    config.explain_roles = vec!["curious".parse().unwrap()];
    config.routes[0].auth = gateway::Auth::Required;
    let edge = Edge::start(config, &service.config());
    let key = edge.key("acme", "robot", &["curious"]).await;
    let fields = format!("authorization: Bearer {key}\r\nx-crosstown-explain: 1\r\n");
    let answer = edge.ask(&format!("GET / HTTP/1.1\r\nhost: a\r\n{fields}\r\n")).await;
    let way = answer.header("x-crosstown-explain").unwrap();
    assert!(way.contains(&format!("\"instance\":\"{}\"", service.address)), "{way}");
}

#[tokio::test]
async fn a_client_that_does_not_read_holds_nobody_up() {
    let given = Arc::new(AtomicUsize::new(0));
    let counted = given.clone();
    let service = Service::start(Options::default(), move |request: Request<Incoming>| {
        let given = counted.clone();
        async move {
            match request.uri().path() {
                "/endless" => endless(given),
                _ => echo(request).await,
            }
        }
    })
    .await;
    let patient = gateway::Config { write_timeout: Duration::from_secs(60), ..one_core() };
    let edge = Edge::start(patient, &service.config());
    let mut slow = Vec::new();
    for _ in 0..16 {
        let mut client = edge.connect().await;
        client.send("GET /endless HTTP/1.1\r\nhost: a\r\n\r\n").await;
        assert_eq!(client.head().await.unwrap().0, 200);
        slow.push(client);
    }
    // Until nothing of theirs moves any more.
    soon(async {
        let mut before = 0;
        while given.load(SeqCst) != before {
            before = given.load(SeqCst);
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    })
    .await;
    let body = vec![b'y'; 900_000];
    let head = format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n", body.len());
    let mut quick = edge.connect().await;
    for _ in 0..3 {
        quick.send([head.as_bytes(), &body].concat()).await;
        assert!(quick.answer().await.unwrap().body.ends_with(&body));
    }
    assert_eq!(service.connections(), 1);
}

#[tokio::test]
async fn requests_share_connections_up_to_a_bound() {
    for (ours, theirs, expected) in [(100, 100, 1), (5, 100, 4), (100, 5, 4)] {
        let (arrived, mut arrivals) = mpsc::channel(100);
        let (release, released) = watch::channel(false);
        let options = Options { streams_max: theirs, ..Options::default() };
        let service = Service::start(options, move |_| {
            let (arrived, mut released) = (arrived.clone(), released.clone());
            async move {
                let _ = arrived.send(()).await;
                let _ = released.wait_for(|released| *released).await;
                whole("done")
            }
        })
        .await;
        let mut services = service.config();
        services.get_mut("origin").unwrap().streams_max = ours;
        let edge = Edge::start(one_core(), &services);
        // The service's own bound is known once it has said so.
        let _ = release.send(true);
        assert_eq!(edge.ask("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.text(), "done");
        arrivals.recv().await;
        let _ = release.send(false);
        let mut clients = Vec::new();
        for _ in 0..20 {
            let mut client = edge.connect().await;
            client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
            clients.push(client);
        }
        for _ in 0..20 {
            soon(arrivals.recv()).await.unwrap();
        }
        assert_eq!(service.connections(), expected);
        let _ = release.send(true);
        for mut client in clients {
            assert_eq!(client.answer().await.unwrap().text(), "done");
        }
    }
}

/// Tells when a request, or the sending of its answer, is given up.
struct Told(mpsc::UnboundedSender<&'static str>, &'static str);

impl Drop for Told {
    fn drop(&mut self) {
        let _ = self.0.send(self.1);
    }
}

#[tokio::test]
async fn a_request_that_nobody_waits_for_is_reset_and_the_others_go_on() {
    let (told, mut tells) = mpsc::unbounded_channel();
    let (seen, mut sees) = mpsc::unbounded_channel();
    let service = Service::start(Options::default(), move |request: Request<Incoming>| {
        let (told, seen) = (told.clone(), seen.clone());
        async move {
            let _ = seen.send(());
            match request.uri().path() {
                "/wait" => {
                    let _told = Told(told, "head");
                    std::future::pending().await
                }
                "/stream" => {
                    let state = (Told(told, "body"), true);
                    let frames = futures_util::stream::unfold(state, |(told, first)| async move {
                        if !first {
                            std::future::pending::<()>().await;
                        }
                        let data = Frame::data(Bytes::from_static(b"first"));
                        Some((Ok::<_, Infallible>(data), (told, false)))
                    });
                    Response::new(BodyExt::boxed_unsync(StreamBody::new(frames)))
                }
                _ => {
                    let mut body = request.into_body();
                    while let Some(Ok(_)) = body.frame().await {}
                    let _told = Told(told, "upload");
                    whole("whole")
                }
            }
        }
    })
    .await;
    let mut config = one_core();
    config.routes[0].timeout = Some(Duration::from_secs(20));
    let edge = Edge::start(config, &service.config());
    let mut staying = edge.connect().await;
    staying.send("GET /stream HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert_eq!(staying.head().await.unwrap().0, 200);
    for (request, expected) in [
        ("GET /wait HTTP/1.1\r\nhost: a\r\n\r\n", "head"),
        ("POST /wait HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\nabc", "head"),
        ("GET /stream HTTP/1.1\r\nhost: a\r\n\r\n", "body"),
        ("POST /stream HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\nabc", "body"),
        ("POST /upload HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\nabc", "upload"),
    ] {
        while sees.try_recv().is_ok() {}
        let mut client = edge.connect().await;
        client.send(request).await;
        soon(sees.recv()).await.unwrap();
        if expected == "body" {
            assert_eq!(client.head().await.unwrap().0, 200);
        }
        drop(client);
        assert_eq!(soon(tells.recv()).await, Some(expected), "{request}");
    }
    assert_eq!(staying.chunk().await.unwrap().unwrap(), b"first");
    assert_eq!(service.connections(), 1);
}

#[tokio::test]
async fn an_instance_that_says_goodbye_loses_no_request() {
    let service = Service::start(Options::default(), |request| async {
        tokio::time::sleep(Duration::from_millis(5)).await;
        echo(request).await
    })
    .await;
    let edge = Arc::new(Edge::start(config(), &service.config()));
    let asked = Arc::new(AtomicUsize::new(0));
    let clients: Vec<_> = (0..16)
        .map(|_| {
            let (edge, asked) = (edge.clone(), asked.clone());
            tokio::spawn(async move {
                let mut client = edge.connect().await;
                for n in 0..60 {
                    let method = if n % 2 == 0 { "POST" } else { "GET" };
                    let head = format!("{method} /{n} HTTP/1.1\r\nhost: a\r\n");
                    client.send(format!("{head}content-length: 3\r\n\r\nabc")).await;
                    let answer = client.answer().await.unwrap();
                    assert_eq!(answer.status, 200, "{}", answer.text());
                    asked.fetch_add(1, SeqCst);
                }
            })
        })
        .collect();
    for quarter in 1..4 {
        soon(async {
            while asked.load(SeqCst) < quarter * 240 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
        service.say_goodbye();
    }
    for client in clients {
        client.await.unwrap();
    }
    assert!(service.connections() >= 4, "{}", service.connections());
}

/// A service in raw frames: refuses the first request of each of `refusals` connections as its
/// `kind` says, and answers 204 to any other.
async fn refusing(kind: &'static str, refusals: usize) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let requests = Arc::new(AtomicUsize::new(0));
    let count = requests.clone();
    tokio::spawn(async move {
        let mut connections = 0;
        while let Ok((mut socket, _)) = listener.accept().await {
            connections += 1;
            let (refuses, count) = (connections <= refusals, count.clone());
            tokio::spawn(async move {
                let mut preface = [0; 24];
                socket.read_exact(&mut preface).await.unwrap();
                socket.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
                let mut refuses = refuses;
                loop {
                    let mut head = [0; 9];
                    if socket.read_exact(&mut head).await.is_err() {
                        return;
                    }
                    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
                    let mut payload = vec![0; length as usize];
                    socket.read_exact(&mut payload).await.unwrap();
                    let (kind_of, flags) = (head[3], head[4]);
                    // The end of a request: of its head, or of its body.
                    if kind_of > 1 || flags & 1 == 0 {
                        continue;
                    }
                    count.fetch_add(1, SeqCst);
                    let stream = &head[5..];
                    let frame = match (std::mem::take(&mut refuses), kind) {
                        (false, _) => [&[0, 0, 1, 1, 5][..], stream, &[0x89]].concat(),
                        (true, "refused") => [&[0, 0, 4, 3, 0][..], stream, &[0, 0, 0, 7]].concat(),
                        (true, "cancelled") => {
                            [&[0, 0, 4, 3, 0][..], stream, &[0, 0, 0, 8]].concat()
                        }
                        (true, "leaving") => {
                            let goodbye = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
                            goodbye.to_vec()
                        }
                        (true, _) => return,
                    };
                    if socket.write_all(&frame).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    (address, requests)
}

#[tokio::test]
async fn what_was_surely_not_processed_is_sent_again_and_nothing_else() {
    let length = "POST /p HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 3\r\n\r\nabc";
    let chunked = "POST /p HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\
                   transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    for (kind, refusals, status, sent) in [
        ("refused", 1, 204, 2),
        ("leaving", 1, 204, 2),
        // Not for ever: the client is told that it may.
        ("leaving", 9, 502, 2),
        // What the service may have begun.
        ("cancelled", 1, 502, 1),
        ("closed", 1, 502, 1),
    ] {
        for request in [length, chunked] {
            let (address, requests) = refusing(kind, refusals).await;
            let at = ServiceConfig::at([format!("http://{address}")]);
            let service = ServiceConfig { protocol: Protocol::H2, ..at };
            let edge = Edge::start(one_core(), &[("origin".to_owned(), service)].into());
            let answer = edge.ask(request).await;
            assert_eq!((answer.status, requests.load(SeqCst)), (status, sent), "{kind}");
            if status == 502 {
                let unsent = if kind == "leaving" { "upstream_unreachable" } else { "bad_gateway" };
                assert_eq!(answer.code(), unsent, "{kind}");
            }
        }
    }
}

#[tokio::test]
async fn an_instance_by_tls_has_to_agree_on_http_2() {
    let folder = tempfile::tempdir().unwrap();
    let mut authority = Authority::new(folder.path(), "ca");
    let own = authority.server("service", &["127.0.0.1"]);
    for (protocols, status) in [(&["h2"][..], 200), (&["http/1.1"], 502), (&[], 502)] {
        let chain = transport::certificates(&own.certificate).unwrap();
        let key = transport::private_key(&own.key).unwrap();
        let mut tls = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        tls.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        let options = Options { tls: Some(Arc::new(tls)), ..Options::default() };
        let service = Service::start(options, echo).await;
        let at = ServiceConfig::at([format!("https://{}", service.address)]);
        let trust = TlsConfig { ca: Some(folder.path().join("ca.pem")), ..TlsConfig::default() };
        let service = ServiceConfig { protocol: Protocol::H2, tls: Some(trust), ..at };
        let edge = Edge::start(config(), &[("origin".to_owned(), service)].into());
        let answer = edge.ask("GET /x HTTP/1.1\r\nhost: a\r\n\r\n").await;
        assert_eq!(answer.status, status, "{protocols:?}");
        if status == 200 {
            assert!(answer.text().starts_with("GET https://a/x HTTP/2.0\n"), "{}", answer.text());
        }
    }
}

#[tokio::test]
async fn a_service_that_speaks_http_1_only_is_found_out() {
    let origin = crate::support::Origin::echo().await;
    let at = ServiceConfig::at([format!("http://{}", origin.address)]);
    let service = ServiceConfig { protocol: Protocol::H2, ..at };
    let mut config = config();
    config.routes[0].timeout = Some(Duration::from_millis(500));
    let edge = Edge::start(config, &[("origin".to_owned(), service)].into());
    let answer = edge.ask("GET /x HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert!(matches!(answer.status, 502 | 504), "{}", answer.status);
}

#[tokio::test]
async fn checks_of_http_2_leave_out_what_is_not_fit() {
    let (fit, is_fit) = watch::channel(true);
    let service = Service::start(Options::default(), move |_| {
        let status = if *is_fit.borrow() { StatusCode::OK } else { StatusCode::NOT_FOUND };
        async move {
            let mut answer = whole("");
            *answer.status_mut() = status;
            answer
        }
    })
    .await;
    let mut services = service.config();
    let health = "path = \"/health\"\ninterval = \"20ms\"\nunfit_after = 1\nfit_after = 1";
    services.get_mut("origin").unwrap().health = Some(toml::from_str(health).unwrap());
    let edge = Edge::start(config(), &services);
    for is in [true, false, true] {
        fit.send_replace(is);
        let until = if is { soa::Condition::Fit } else { soa::Condition::Unfit };
        soon(async {
            let mut now = None;
            while now != Some(until) {
                tokio::time::sleep(Duration::from_millis(10)).await;
                edge.gateway.instances(|_, instance, _, _, elapsed| {
                    now = Some(instance.condition(elapsed));
                });
            }
        })
        .await;
    }
}

#[tokio::test]
async fn trailers_of_an_answer_reach_clients_of_http_2() {
    let service = Service::start(Options::default(), |_| async {
        let trailers: HeaderMap = [("x-sum", "7")].into_iter().map(field).collect();
        let body = Full::new(Bytes::from_static(b"abc"));
        let body = body.with_trailers(async { Some(Ok(trailers)) });
        Response::new(body.boxed_unsync())
    })
    .await;
    let edge = Edge::start(config(), &service.config());
    let socket = TcpStream::connect(edge.gateway.local_addr()).await.unwrap();
    let (mut client, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(socket))
            .await
            .unwrap();
    tokio::spawn(connection);
    let request = Request::get("http://a/").body(Empty::<Bytes>::new()).unwrap();
    let answer = soon(client.send_request(request)).await.unwrap();
    assert!(!answer.body().is_end_stream());
    let whole = soon(answer.into_body().collect()).await.unwrap();
    assert_eq!(whole.trailers().unwrap()["x-sum"], "7");
    assert_eq!(whole.to_bytes(), "abc");
    // Others get the body.
    assert_eq!(edge.ask("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.text(), "abc");
}

#[test]
fn what_cannot_be_meant_is_refused() {
    let h2 = "[origin]\nprotocol = \"h2\"\ninstances = [\"http://a.example\"]\n";
    for (text, why) in [
        (format!("{h2}streams_max = 0"), "streams_max"),
        (format!("{h2}ping_interval = \"0s\""), "ping_interval"),
        (format!("{h2}health = {{ grpc = true, path = \"/\" }}"), "give one"),
        (format!("{h2}health = {{ grpc = \"{}\" }}", "x".repeat(128)), "127 bytes"),
        (format!("{h2}health = {{ grpc = true }}").replace("h2", "http1"), "protocol"),
    ] {
        let services: soa::Config = toml::from_str(&text).unwrap();
        let refused = gateway::Gateway::check(&config(), &services).unwrap_err().to_string();
        assert!(refused.contains(why), "{refused}");
    }
    assert!(toml::from_str::<soa::Config>(&h2.replace("h2", "h3")).is_err());
}

fn field((name, value): (&'static str, &'static str)) -> (http::HeaderName, HeaderValue) {
    (http::HeaderName::from_static(name), HeaderValue::from_static(value))
}

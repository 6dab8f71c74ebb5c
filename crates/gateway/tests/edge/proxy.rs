//! What lies between a client and a service when both are well-behaved, and when one is not.

use crate::support::{
    Client, Edge, Origin, config, nowhere, one_worker, origin, route, services, soon,
};
use gateway::{Auth, Body, Config, MountPoint, Upgrade};
use std::{
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::Notify,
};
use traffic_cop::limit::{Per, Rule};

const GET: &str = "GET /a HTTP/1.1\r\nhost: a\r\n\r\n";

#[tokio::test]
async fn one_upstream_connection_serves_many_requests() {
    let origin = Origin::echo().await;
    let edge = Edge::start(one_worker(), &services(&[&origin.address]));
    for _ in 0..3 {
        let mut client = edge.connect().await;
        for _ in 0..5 {
            client.send(GET).await;
            assert_eq!(client.answer().await.unwrap().status, 200);
        }
    }
    assert_eq!(origin.received().len(), 1);
    assert_eq!(origin.requests().unwrap().len(), 15);
}

#[tokio::test]
async fn bodies_stream_in_both_directions() {
    // The service answers each chunk before the next is sent, so nothing may be held back.
    let address = origin(|mut client: Client, _| async move {
        client.head().await.unwrap();
        client.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await;
        while let Some(Some(chunk)) = client.chunk().await {
            let text = [format!("{:x}\r\n", chunk.len()).as_bytes(), &chunk, b"\r\n"].concat();
            client.send(text).await;
        }
        client.send("0\r\n\r\n").await;
    })
    .await;
    let edge = Edge::start(one_worker(), &services(&[&address]));
    let mut client = edge.connect().await;
    client.send("POST /a HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n").await;
    assert_eq!(client.head().await.unwrap().0, 200);
    for word in ["one", "two", "three"] {
        client.send(format!("{:x}\r\n{word}\r\n", word.len())).await;
        assert_eq!(client.chunk().await.unwrap().unwrap(), word.as_bytes());
    }
    client.send("0\r\n\r\n").await;
    assert_eq!(client.chunk().await, Some(None));
}

#[tokio::test]
async fn a_large_body_arrives_whole() {
    let origin = Origin::echo().await;
    let edge = Edge::start(one_worker(), &services(&[&origin.address]));
    let mut client = edge.connect().await;
    let body: Vec<u8> = (0..1_000_000u32).map(|index| b'a' + (index % 23) as u8).collect();
    let (mut read, mut write) = client.0.into_split();
    let sent = body.clone();
    tokio::spawn(async move {
        let head = format!("POST /a HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n", sent.len());
        write.write_all(head.as_bytes()).await.unwrap();
        write.write_all(&sent).await.unwrap();
        std::future::pending::<()>().await;
    });
    let mut got = Vec::new();
    let mut buffer = vec![0; 64 * 1024];
    while !got.ends_with(&body) {
        let count = soon(read.read(&mut buffer)).await.unwrap();
        assert_ne!(count, 0);
        got.extend_from_slice(&buffer[..count]);
    }
    assert_eq!(origin.requests().unwrap()[0].1, body);
    client = edge.connect().await;
    client.send(GET).await;
    assert_eq!(client.answer().await.unwrap().status, 200);
}

#[tokio::test]
async fn server_sent_events_pass_one_by_one() {
    let address = origin(|mut client: Client, _| async move {
        client.head().await.unwrap();
        client.send("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n").await;
        let mut go = [0];
        for event in 0..3 {
            client.send(format!("data: {event}\n\n")).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
            let _ = client.0.try_read(&mut go);
        }
    })
    .await;
    let edge = Edge::start(one_worker(), &services(&[&address]));
    let mut client = edge.connect().await;
    client.send(GET).await;
    let (status, head) = client.head().await.unwrap();
    assert!(status == 200 && head.contains("text/event-stream"), "{head}");
    for event in 0..3 {
        let chunk = client.chunk().await.unwrap().unwrap();
        assert_eq!(chunk, format!("data: {event}\n\n").as_bytes());
    }
    assert_eq!(client.chunk().await, Some(None));
}

const UPGRADE: &str = "GET /ws HTTP/1.1\r\nhost: a\r\nconnection: keep-alive, Upgrade\r\n\
    upgrade: websocket\r\nsec-websocket-key: x\r\n\r\n";

async fn switching_origin() -> String {
    origin(|mut client: Client, _| async move {
        let (_, head) = client.head().await.unwrap_or_default();
        assert!(head.contains("upgrade: websocket\r\n"), "{head}");
        // The first bytes of the other protocol come with the head.
        client
            .send(
                "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\n\
                 upgrade: websocket\r\nsec-websocket-accept: y\r\n\r\nhello",
            )
            .await;
        let mut buffer = [0; 64];
        while let Ok(count @ 1..) = client.0.read(&mut buffer).await {
            client.send(&buffer[..count]).await;
        }
    })
    .await
}

#[tokio::test]
async fn bytes_flow_after_an_upgrade() {
    let address = switching_origin().await;
    let edge = Edge::start(one_worker(), &services(&[&address]));
    let mut client = edge.connect().await;
    client.send(UPGRADE.to_owned() + "early").await;
    let (status, head) = client.head().await.unwrap();
    assert_eq!(status, 101);
    assert!(head.contains("sec-websocket-accept: y") && head.contains("upgrade: websocket"));
    let mut buffer = [0; 10];
    soon(client.0.read_exact(&mut buffer)).await.unwrap();
    assert_eq!(&buffer, b"helloearly");
    client.send("ping").await;
    soon(client.0.read_exact(&mut buffer[..4])).await.unwrap();
    assert_eq!(&buffer[..4], b"ping");
    assert_eq!(edge.gateway.connections(), 1);
    // Nothing but the deadline ends it.
    assert_eq!(edge.gateway.drain(Duration::from_millis(50)).await, 1);
    assert!(client.is_closed().await);
}

#[tokio::test]
async fn a_service_that_switches_unasked_is_no_tunnel() {
    let address = origin(|mut client: Client, _| async move {
        client.head().await;
        client
            .send("HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n")
            .await;
        let _ = client.0.read_u8().await;
    })
    .await;
    let edge = Edge::start(one_worker(), &services(&[&address]));
    let answer = edge.ask(GET).await;
    assert_eq!((answer.status, answer.code().as_str()), (502, "bad_gateway"));
}

#[tokio::test]
async fn wrong_answers_of_a_service_are_said_to_be_its() {
    let huge = format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "y".repeat(100_000));
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "x: y\r\n".repeat(200));
    for answer in [
        "garbage\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabcd",
        "HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nx : y\r\n\r\n",
        "HTTP/1.1 200 OK\r\nx: y",
        "",
        &huge,
        &many,
    ] {
        let text = answer.to_owned();
        let address = origin(move |mut client: Client, _| {
            let text = text.clone();
            async move {
                client.head().await;
                let _ = client.0.write_all(text.as_bytes()).await;
            }
        })
        .await;
        let edge = Edge::start(one_worker(), &services(&[&address]));
        let got = edge.ask(GET).await;
        let start: String = answer.chars().take(80).collect();
        assert_eq!(got.status, 502, "{start:?}");
        assert_eq!(got.code(), "bad_gateway");
    }
}

#[tokio::test]
async fn an_answer_cut_short_never_looks_whole() {
    for head in [
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello",
    ] {
        let address = origin(move |mut client: Client, _| async move {
            client.head().await;
            client.send(head).await;
        })
        .await;
        let edge = Edge::start(one_worker(), &services(&[&address]));
        let mut client = edge.connect().await;
        client.send(GET).await;
        assert!(client.answer().await.is_none(), "{head:?}");
    }
}

#[tokio::test]
async fn services_that_are_slow_or_gone() {
    let silent = origin(|mut client: Client, _| async move {
        client.head().await;
        std::future::pending::<()>().await;
    })
    .await;
    let mut config = one_worker();
    config.routes[0].timeout = Some(Duration::from_millis(100));
    let edge = Edge::start(config, &services(&[&silent]));
    let answer = edge.ask(GET).await;
    assert_eq!((answer.status, answer.code().as_str()), (504, "upstream_timeout"));

    let (a, b) = (nowhere().await, nowhere().await);
    let edge = Edge::start(one_worker(), &services(&[&a, &b]));
    let answer = edge.ask(GET).await;
    assert_eq!((answer.status, answer.code().as_str()), (502, "upstream_unreachable"));

    let alive = Origin::echo().await;
    let edge = Edge::start(one_worker(), &services(&[&a, &alive.address]));
    for _ in 0..10 {
        assert_eq!(edge.ask(GET).await.status, 200);
    }
}

#[tokio::test]
async fn a_pooled_connection_that_died_is_replaced_and_a_sent_request_is_not_repeated() {
    let count = Arc::new(AtomicUsize::new(0));
    let requests = count.clone();
    // Each connection answers one request; the even ones close idle, the odd ones close when
    // they get another.
    let address = origin(move |mut client: Client, _| {
        let requests = requests.clone();
        async move {
            while client.head().await.is_some() {
                if requests.fetch_add(1, SeqCst) == 2 {
                    return;
                }
                client.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
                if requests.load(SeqCst) == 1 {
                    return;
                }
            }
        }
    })
    .await;
    let edge = Edge::start(one_worker(), &services(&[&address]));
    assert_eq!(edge.ask(GET).await.status, 200);
    // The service closed the connection; the gateway has to notice.
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(edge.ask(GET).await.status, 200);
    assert_eq!(edge.ask(GET).await.status, 502);
    assert_eq!(count.load(SeqCst), 3);
}

#[tokio::test]
async fn a_service_is_not_kept_working_for_a_client_that_left() {
    let (asked, left) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (was_asked, has_left) = (asked.clone(), left.clone());
    let address = origin(move |mut client: Client, _| {
        let (asked, left) = (asked.clone(), left.clone());
        async move {
            client.head().await;
            asked.notify_one();
            // It thinks for ever, and sees the end of its connection.
            if client.is_closed().await {
                left.notify_one();
            }
        }
    })
    .await;
    let edge = Edge::start(one_worker(), &services(&[&address]));
    let mut client = edge.connect().await;
    client.send(GET).await;
    soon(was_asked.notified()).await;
    assert_eq!(edge.gateway.in_flight(), 1);
    drop(client);
    soon(has_left.notified()).await;
    let counted = async {
        while edge.gateway.in_flight() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    soon(counted).await;
}

#[tokio::test]
async fn a_connection_with_an_unread_answer_is_not_used_again() {
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = connections.clone();
    let address = origin(move |mut client: Client, _| {
        counted.fetch_add(1, SeqCst);
        async move {
            client.head().await;
            client.send("HTTP/1.1 200 OK\r\ncontent-length: 100000000\r\n\r\n").await;
            while client.0.write_all(&[b'x'; 65536]).await.is_ok() {}
        }
    })
    .await;
    let edge = Edge::start(one_worker(), &services(&[&address]));
    for expected in 1..3 {
        let mut client = edge.connect().await;
        client.send(GET).await;
        assert_eq!(client.head().await.unwrap().0, 200);
        drop(client);
        assert_eq!(connections.load(SeqCst), expected);
        while edge.gateway.in_flight() > 0 {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn a_body_that_nobody_reads_ends_the_connection_after_the_answer() {
    let address = origin(|mut client: Client, _| async move {
        client.head().await;
        client
            .send("HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\nconnection: close\r\n\r\nno")
            .await;
    })
    .await;
    let edge = Edge::start(one_worker(), &services(&[&address]));
    let mut client = edge.connect().await;
    client.send("POST /a HTTP/1.1\r\nhost: a\r\ncontent-length: 500000\r\n\r\npart").await;
    let answer = client.answer().await.unwrap();
    assert_eq!((answer.status, answer.text()), (413, "no"));
    assert!(client.is_closed().await);
}

#[tokio::test]
async fn instances_take_turns() {
    let origins = [Origin::echo().await, Origin::echo().await, Origin::echo().await];
    let addresses: Vec<&str> = origins.iter().map(|origin| origin.address.as_str()).collect();
    let mut services = services(&addresses);
    services.get_mut("origin").unwrap().balance = soa::Balance::RoundRobin;
    let edge = Edge::start(config(), &services);
    for _ in 0..30 {
        assert_eq!(edge.ask(GET).await.status, 200);
    }
    for origin in &origins {
        assert_eq!(origin.requests().unwrap().len(), 10);
    }
}

#[tokio::test]
async fn limits_are_charged_and_everything_is_recorded() {
    let origin = Origin::echo().await;
    let rule = Rule::new("few", Per::Ip, 2, Duration::from_secs(3600));
    let edge = Edge::with(
        one_worker(),
        &services(&[&origin.address]),
        vec![rule],
        None,
        Arc::new(|_| Vec::new()),
    );
    for left in ["r=1", "r=0"] {
        let answer = edge.ask(GET).await;
        assert_eq!(answer.status, 200);
        assert!(answer.header("ratelimit").unwrap().contains(left), "{answer:?}");
        assert!(answer.header("ratelimit-policy").is_some());
    }
    let answer = edge.ask(GET).await;
    assert_eq!((answer.status, answer.code().as_str()), (429, "rate_limited"));
    assert!(answer.header("retry-after").is_some() && answer.header("ratelimit").is_some());
    assert_eq!(edge.ask("GET /a HTTP/1.1\r\n\r\n").await.status, 400);
    assert_eq!(edge.ask("GET /.. HTTP/1.1\r\nhost: a\r\n\r\n").await.status, 400);
    edge.gateway.drain(Duration::from_secs(5)).await;
    let now = clock::Clock::now(&*clock::SystemClock::shared());
    edge.analytics.tick(now);
    let mut counted: Vec<(String, u64)> = edge
        .analytics
        .since_start()
        .into_iter()
        .map(|(name, _, latency)| (name.route.to_string(), latency.count()))
        .filter(|(_, count)| *count > 0)
        .collect();
    counted.sort();
    let expected = [("_framing", 1), ("_unmatched", 1), ("all", 3)];
    assert_eq!(counted, expected.map(|(name, count)| (name.to_owned(), count)));
}

#[tokio::test]
async fn a_reload_drops_nothing() {
    let origin = Origin::echo().await;
    let services = services(&[&origin.address]);
    let edge = Edge::start(config(), &services);
    let stop = Arc::new(AtomicUsize::new(0));
    let address = edge.gateway.local_addr();
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let stop = stop.clone();
            tokio::spawn(async move {
                let mut client = Client(tokio::net::TcpStream::connect(address).await.unwrap());
                let mut count = 0;
                while stop.load(SeqCst) == 0 {
                    client.send(GET).await;
                    let answer = client.answer().await.expect("the connection stays");
                    assert_eq!(answer.status, 200);
                    count += 1;
                }
                count
            })
        })
        .collect();
    for round in 0..50 {
        let mut config = config();
        config.routes.push(route(&format!("more-{round}"), "/more"));
        edge.gateway.reload(config, &services).unwrap();
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    stop.store(1, SeqCst);
    for client in clients {
        assert!(client.await.unwrap() > 0);
    }
    assert!(edge.gateway.reload(Config::default(), &soa::Config::new()).is_ok());
    assert_eq!(edge.ask(GET).await.code(), "no_route");
    let wrong = Config { routes: vec![route("x", "no-slash")], ..config() };
    assert!(edge.gateway.reload(wrong, &services).is_err());
}

#[tokio::test]
async fn a_drain_lets_requests_finish() {
    let (go, started) =
        (Arc::new(tokio::sync::Notify::new()), Arc::new(tokio::sync::Notify::new()));
    let (wait, begun) = (go.clone(), started.clone());
    let address = origin(move |mut client: Client, _| {
        let (wait, begun) = (wait.clone(), begun.clone());
        async move {
            client.head().await;
            begun.notify_one();
            wait.notified().await;
            client.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
            let _ = client.0.read_u8().await;
        }
    })
    .await;
    let edge = Edge::start(one_worker(), &services(&[&address]));
    let mut idle = edge.connect().await;
    let mut busy = edge.connect().await;
    busy.send(GET).await;
    soon(started.notified()).await;
    let client = async {
        assert!(idle.is_closed().await, "an idle connection is closed at once");
        go.notify_one();
        let answer = busy.answer().await.unwrap();
        assert_eq!((answer.status, answer.text()), (200, "ok"));
        assert_eq!(answer.header("connection"), Some("close"));
        assert!(busy.is_closed().await);
    };
    let (cut, ()) =
        soon(async { tokio::join!(edge.gateway.drain(Duration::from_secs(10)), client) }).await;
    assert_eq!(cut, 0);
    assert!(tokio::net::TcpStream::connect(edge.gateway.local_addr()).await.is_err());
}

#[tokio::test]
async fn connections_beyond_the_bound_are_refused() {
    let mut config = one_worker();
    config.connections_per_ip_max = 2;
    let edge = Edge::start(config, &services(&["127.0.0.1:1"]));
    let held = [edge.connect().await, edge.connect().await];
    while edge.gateway.connections() < 2 {
        tokio::task::yield_now().await;
    }
    let mut third = edge.connect().await;
    assert_eq!(third.answer().await.unwrap().code(), "overloaded");
    assert!(third.is_closed().await);
    drop(held);
    while edge.gateway.connections() > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(edge.ask(GET).await.status, 502);
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_cut() {
    let address = origin(|mut client: Client, _| async move {
        client.head().await;
        let _ = client.0.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
        while client.0.write_all(&[b'x'; 65536]).await.is_ok() {}
    })
    .await;
    let mut config = one_worker();
    config.write_timeout = Duration::from_millis(200);
    let edge = Edge::start(config, &services(&[&address]));
    let mut client = edge.connect().await;
    client.send(GET).await;
    soon(async {
        while edge.gateway.in_flight() == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        while edge.gateway.connections() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

struct Hello;

impl gateway::Mount for Hello {
    fn call(
        &self,
        mut request: http::Request<Body>,
    ) -> gateway::LocalBoxFuture<http::Response<Body>> {
        let caller = request.extensions().get::<Arc<types::Caller>>().cloned();
        let ip = request.extensions().get::<std::net::IpAddr>().copied();
        let path = request.uri().path().to_owned();
        Box::pin(async move {
            if path.ends_with("/socket") {
                let upgrade = Upgrade::take(&mut request).unwrap();
                tokio::task::spawn_local(async move {
                    let mut socket = upgrade.socket().await.unwrap();
                    socket.stream.write_all(&socket.early).await.unwrap();
                    socket.stream.write_all(b"bye").await.unwrap();
                });
                let mut answer = http::Response::new(Body::Empty);
                *answer.status_mut() = http::StatusCode::SWITCHING_PROTOCOLS;
                answer.headers_mut().insert("upgrade", "websocket".parse().unwrap());
                answer.headers_mut().insert("connection", "upgrade".parse().unwrap());
                return answer;
            }
            let name = caller.map_or("nobody".into(), |caller| caller.principal.id.to_string());
            let text = format!("{path} {name} {}", ip.unwrap());
            http::Response::new(Body::from(bytes::Bytes::from(text)))
        })
    }
}

#[tokio::test]
async fn mounts_go_before_routes_and_may_take_the_socket() {
    let make: gateway::MakeMounts = Arc::new(|_| {
        let mount: Rc<dyn gateway::Mount> = Rc::new(Hello);
        let point = |prefix: &str, auth| MountPoint {
            prefix: prefix.into(),
            name: "hello",
            auth,
            body_bytes_max: 10,
            priority: None,
            mount: mount.clone(),
        };
        vec![point("/own/", Auth::Optional), point("/exact", Auth::Required)]
    });
    let edge = Edge::with(one_worker(), &services(&["127.0.0.1:1"]), Vec::new(), None, make);
    let ask = |path: &str, more: &str| format!("GET {path} HTTP/1.1\r\nhost: a\r\n{more}\r\n");
    assert_eq!(edge.ask(&ask("/own/x", "")).await.text(), "/own/x nobody 127.0.0.1");
    assert_eq!(edge.ask(&ask("/exact", "")).await.status, 401);
    assert_eq!(edge.ask(&ask("/exact/x", "")).await.status, 502);
    let key = edge.key("acme", "robot", &[]).await;
    let with_key = ask("/exact", &format!("x-api-key: {key}\r\n"));
    assert_eq!(edge.ask(&with_key).await.text(), "/exact robot 127.0.0.1");
    assert_eq!(edge.ask(&ask("/own/x", "content-length: 11\r\n")).await.status, 413);
    let mut client = edge.connect().await;
    client.send(ask("/own/socket", "connection: upgrade\r\nupgrade: websocket\r\n") + "hi ").await;
    assert_eq!(client.head().await.unwrap().0, 101);
    let mut rest = String::new();
    soon(client.0.read_to_string(&mut rest)).await.unwrap();
    assert_eq!(rest, "hi bye");
}

//! What one HTTP/1 connection carries, message after message.

use crate::support::{Client, Edge, Origin, config, origin, services, soon};
use gateway::{Auth, Config, RouteConfig};
use tokio::io::AsyncReadExt;

fn guarded() -> Config {
    let mut config = Config { workers: 1, ..config() };
    config.routes.push(RouteConfig {
        name: "guarded".into(),
        service: "origin".into(),
        prefix: Some("/guarded".into()),
        auth: Auth::Required,
        ..RouteConfig::default()
    });
    config
}

/// Answers each request with `answer`, whatever it was.
async fn always(answer: &'static str) -> String {
    origin(move |mut client: Client, _| async move {
        while client.head().await.is_some() {
            client.send(answer).await;
        }
    })
    .await
}

#[tokio::test]
async fn requests_that_come_together_are_answered_in_order() {
    let origin = Origin::echo().await;
    let edge = Edge::start(guarded(), &services(&[&origin.address]));
    let mut client = edge.connect().await;
    client
        .send(
            "GET /1 HTTP/1.1\r\nhost: a\r\n\r\n\
             POST /2 HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc\
             POST /guarded HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc\
             POST /3 HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n2\r\nde\r\n0\r\n\r\n\
             GET /4 HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n\
             GET /5 HTTP/1.1\r\nhost: a\r\n\r\n",
        )
        .await;
    for begin in ["GET /1 ", "POST /2 "] {
        assert!(client.answer().await.unwrap().text().starts_with(begin));
    }
    // Its body was here, so the next request could be found.
    assert_eq!(client.answer().await.unwrap().status, 401);
    for (begin, end) in [("POST /3 ", "\r\n\r\nde"), ("GET /4 ", "\r\n\r\n")] {
        let answer = client.answer().await.unwrap();
        assert!(answer.text().starts_with(begin) && answer.text().ends_with(end), "{answer:?}");
        assert_eq!(answer.header("connection").is_some(), begin == "GET /4 ");
    }
    assert!(client.is_closed().await);
    assert_eq!(origin.requests().unwrap().len(), 4);
}

#[tokio::test]
async fn a_refused_body_that_is_still_to_come_ends_the_connection() {
    let origin = Origin::echo().await;
    let edge = Edge::start(guarded(), &services(&[&origin.address]));
    let mut client = edge.connect().await;
    client.send("POST /guarded HTTP/1.1\r\nhost: a\r\ncontent-length: 30\r\n\r\nabc").await;
    let answer = client.answer().await.unwrap();
    assert_eq!((answer.status, answer.header("connection")), (401, Some("close")));
    client.send("GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert!(client.is_closed().await);
    assert!(origin.received().is_empty());
}

#[tokio::test]
async fn a_client_that_asks_first_is_told_to_go_on_once_somebody_reads() {
    let origin = Origin::echo().await;
    let edge = Edge::start(guarded(), &services(&[&origin.address]));
    let ask = |path: &str| {
        format!(
            "POST {path} HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\n"
        )
    };
    let mut client = edge.connect().await;
    client.send(ask("/a")).await;
    assert_eq!(client.head().await.unwrap().0, 100);
    client.send("abc").await;
    let answer = client.answer().await.unwrap();
    assert!(answer.text().ends_with("\r\n\r\nabc"), "{answer:?}");
    assert!(!answer.text().contains("expect"), "{answer:?}");
    // Who is refused is not asked for the body.
    client.send(ask("/guarded")).await;
    assert_eq!(client.head().await.unwrap().0, 401);
}

#[tokio::test]
async fn answers_without_a_body_end_with_their_head() {
    for (asked, given, expected) in [
        ("HEAD", "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n", Some("5")),
        ("GET", "HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n", Some("5")),
        ("GET", "HTTP/1.1 204 No Content\r\ncontent-length: 0\r\n\r\n", None),
        ("POST", "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", Some("0")),
    ] {
        let edge = Edge::start(guarded(), &services(&[&always(given).await]));
        let mut client = edge.connect().await;
        for _ in 0..2 {
            client.send(format!("{asked} / HTTP/1.1\r\nhost: a\r\n\r\n")).await;
            let (status, head) = client.head().await.unwrap();
            assert!(given.contains(&format!(" {status} ")), "{head}");
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            assert_eq!(length, expected, "{asked}: {head}");
            assert!(!head.contains("transfer-encoding"), "{head}");
        }
    }
}

#[tokio::test]
async fn http_1_0_gets_what_it_understands() {
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    let edge = Edge::start(guarded(), &services(&[&always(chunked).await]));
    let mut client = edge.connect().await;
    client.send("GET / HTTP/1.0\r\nhost: a\r\nconnection: keep-alive\r\n\r\n").await;
    // Its end cannot be told but by closing.
    let answer = client.answer().await.unwrap();
    assert_eq!((answer.text(), answer.header("connection")), ("abc", Some("close")));
    let counted = "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc";
    let edge = Edge::start(guarded(), &services(&[&always(counted).await]));
    let mut client = edge.connect().await;
    for _ in 0..2 {
        client.send("GET / HTTP/1.0\r\nhost: a\r\nconnection: keep-alive\r\n\r\n").await;
        let answer = client.answer().await.unwrap();
        assert_eq!((answer.text(), answer.header("connection")), ("abc", Some("keep-alive")));
    }
    client.send("GET / HTTP/1.0\r\nhost: a\r\n\r\n").await;
    assert_eq!(client.answer().await.unwrap().text(), "abc");
    assert!(client.is_closed().await);
}

#[tokio::test]
async fn interim_responses_are_passed_over_but_not_for_ever() {
    let early = "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n\
        HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
    let edge = Edge::start(guarded(), &services(&[&always(early).await]));
    let mut client = edge.connect().await;
    for _ in 0..2 {
        client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        assert_eq!(client.answer().await.unwrap().text(), "ok");
    }
    let endless = origin(|mut client: Client, _| async move {
        client.head().await;
        loop {
            client.send("HTTP/1.1 103 Early Hints\r\n\r\n").await;
        }
    })
    .await;
    let edge = Edge::start(guarded(), &services(&[&endless]));
    let answer = edge.ask("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert_eq!((answer.status, answer.code().as_str()), (502, "bad_gateway"));
}

#[tokio::test]
async fn what_a_service_says_unasked_answers_nobody() {
    for answer in [
        // It takes no more, though it does not close.
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nfirst",
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nfirst\
         HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nfalse",
        "HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nfalse",
    ] {
        let address = origin(move |mut client: Client, number| async move {
            client.head().await;
            let second = "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nsecond";
            client.send(if number == 0 { answer } else { second }).await;
            // What comes on the first connection now is answered wrongly.
            if client.head().await.is_some() {
                client.send("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nfalse").await;
            }
        })
        .await;
        let edge = Edge::start(guarded(), &services(&[&address]));
        let mut client = edge.connect().await;
        client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        assert_ne!(client.answer().await.unwrap().text(), "false");
        client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        assert_eq!(client.answer().await.unwrap().text(), "second", "{answer}");
    }
}

#[tokio::test]
async fn a_client_that_has_spoken_ahead_and_left_is_not_waited_for() {
    let (left, mut gone) = tokio::sync::mpsc::channel(1);
    let slow = origin(move |mut client: Client, _| {
        let left = left.clone();
        async move {
            client.head().await;
            client.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n").await;
            // Nothing more, until the gateway gives up.
            let mut rest = Vec::new();
            let _ = client.0.read_to_end(&mut rest).await;
            let _ = left.send(()).await;
        }
    })
    .await;
    let edge = Edge::start(guarded(), &services(&[&slow]));
    let mut client = edge.connect().await;
    let get = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
    client.send([get, get].concat()).await;
    assert_eq!(client.head().await.unwrap().0, 200);
    drop(client);
    soon(gone.recv()).await.unwrap();
}

//! HTTP/2 in, HTTP/1.1 out: what the one allows and the other does not.

use crate::support::{Client, Edge, Origin, config, services, soon};
use std::time::Duration;
use tokio::io::AsyncReadExt;

const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const GOAWAY: u8 = 7;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Literal fields, never indexed, without Huffman coding (RFC 7541, section 6.2.2).
fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            assert!(text.len() < 127);
            block.push(u8::try_from(text.len()).unwrap());
            block.extend(text.bytes());
        }
    }
    block
}

/// One request in raw frames; gives the first frame that answers it: its kind and, of headers,
/// the status.
async fn ask(edge: &Edge, fields: &[(&str, &str)], body: Option<&[u8]>) -> (u8, String) {
    let mut client = edge.connect().await;
    let end = if body.is_some() { 4 } else { 5 };
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(4, 0, 0, &[]));
    bytes.extend(frame(HEADERS, end, 1, &block(fields)));
    if let Some(body) = body {
        bytes.extend(frame(0, 1, 1, body));
    }
    client.send(bytes).await;
    answer(&mut client).await
}

async fn answer(client: &mut Client) -> (u8, String) {
    loop {
        let mut head = [0; 9];
        if soon(client.0.read_exact(&mut head)).await.is_err() {
            return (0, "closed".into());
        }
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let mut payload = vec![0; length];
        soon(client.0.read_exact(&mut payload)).await.unwrap();
        match head[3] {
            HEADERS => return (HEADERS, status(&payload)),
            kind @ (RST_STREAM | GOAWAY) => return (kind, String::new()),
            _ => {}
        }
    }
}

/// `:status` is the first field: from the static table, or a literal of three letters.
fn status(block: &[u8]) -> String {
    match block[0] {
        0x88 => "200".into(),
        0x8c => "400".into(),
        0x8d => "404".into(),
        _ => {
            let huffman = block[1] & 0x80 != 0;
            if huffman {
                format!("{:02x?}", &block[2..4])
            } else {
                String::from_utf8_lossy(&block[2..5]).into()
            }
        }
    }
}

const GOOD: [(&str, &str); 4] =
    [(":method", "GET"), (":scheme", "http"), (":path", "/a"), (":authority", "a")];

fn with<'a>(more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    GOOD.into_iter().chain(more.iter().copied()).collect()
}

#[tokio::test]
async fn a_request_becomes_one_of_http_1() {
    let origin = Origin::echo().await;
    let one = gateway::Config { workers: 1, ..config() };
    let edge = Edge::start(one, &services(&[&origin.address]));
    let fields = with(&[("cookie", "a=1"), ("cookie", "b=2"), ("x-crosstown-tenant", "evil")]);
    assert_eq!(ask(&edge, &fields, None).await, (HEADERS, "200".into()));
    assert_eq!(ask(&edge, &with(&[("host", "A")]), None).await, (HEADERS, "200".into()));
    let posts = [(":method", "POST"), (":scheme", "http"), (":path", "/p?q"), (":authority", "a")];
    assert_eq!(ask(&edge, &posts, Some(b"abc")).await, (HEADERS, "200".into()));
    let requests = origin.requests().unwrap();
    assert_eq!(requests.len(), 3);
    let (head, _) = &requests[0];
    assert!(head.starts_with("GET /a HTTP/1.1\r\n") && head.contains("host: a\r\n"), "{head}");
    assert!(head.contains("cookie: a=1; b=2\r\n") && !head.contains("evil"), "{head}");
    assert!(requests[2].0.starts_with("POST /p?q HTTP/1.1\r\n") && requests[2].1 == b"abc");
}

type Case<'a> = (&'a str, Vec<(&'a str, &'a str)>, Option<&'a [u8]>);

#[tokio::test]
async fn what_would_split_a_message_is_refused() {
    let origin = Origin::echo().await;
    let edge = Edge::start(config(), &services(&[&origin.address]));
    let cases: [Case; 19] = [
        ("CR LF in a value", with(&[("x", "a\r\nb: c")]), None),
        ("LF in a value", with(&[("x", "a\nb")]), None),
        ("NUL in a value", with(&[("x", "a\0b")]), None),
        ("LF in a name", with(&[("x\ny", "a")]), None),
        ("colon in a name", with(&[("x:y", "a")]), None),
        ("capitals in a name", with(&[("X-Y", "a")]), None),
        ("space in a name", with(&[("x y", "a")]), None),
        ("transfer-encoding", with(&[("transfer-encoding", "chunked")]), Some(b"0\r\n\r\n")),
        ("connection", with(&[("connection", "close")]), None),
        ("upgrade", with(&[("upgrade", "websocket")]), None),
        ("content-length that is too small", with(&[("content-length", "1")]), Some(b"abc")),
        ("content-length that is too large", with(&[("content-length", "9")]), Some(b"abc")),
        (
            "two content-lengths",
            with(&[("content-length", "3"), ("content-length", "3")]),
            Some(b"abcd"),
        ),
        ("another host", with(&[("host", "b")]), None),
        ("no host", GOOD[..3].to_vec(), None),
        ("path with a line", vec![GOOD[0], GOOD[1], (":path", "/a\r\nx: y"), GOOD[3]], None),
        ("path with a space", vec![GOOD[0], GOOD[1], (":path", "/a b"), GOOD[3]], None),
        ("method with a line", vec![(":method", "GET /x\r\n"), GOOD[1], GOOD[2], GOOD[3]], None),
        ("CONNECT", vec![(":method", "CONNECT"), (":authority", "a:1")], None),
    ];
    for (name, fields, body) in cases {
        let (kind, status) = ask(&edge, &fields, body).await;
        assert!(kind != HEADERS || status != "200", "{name}: {kind} {status}");
    }
    drop(edge);
    let whole = origin.requests().unwrap_or_default();
    assert!(whole.is_empty(), "{whole:?}");
}

#[tokio::test]
async fn a_drain_says_goodbye() {
    let origin = Origin::echo().await;
    let edge = Edge::start(config(), &services(&[&origin.address]));
    let mut client = edge.connect().await;
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(4, 0, 0, &[]));
    bytes.extend(frame(HEADERS, 5, 1, &block(&GOOD)));
    client.send(bytes).await;
    assert_eq!(answer(&mut client).await, (HEADERS, "200".into()));
    let goodbye = async {
        loop {
            match answer(&mut client).await {
                (GOAWAY, _) => return,
                (0, _) => panic!("closed without a word"),
                _ => {}
            }
        }
    };
    tokio::join!(edge.gateway.drain(Duration::from_secs(1)), goodbye);
}

#[tokio::test]
async fn a_client_that_makes_no_room_for_the_answer_is_cut() {
    let origin = Origin::echo().await;
    let edge = Edge::start(config(), &services(&[&origin.address]));
    let mut client = edge.connect().await;
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    // SETTINGS_INITIAL_WINDOW_SIZE = 0
    bytes.extend(frame(4, 0, 0, &[0, 4, 0, 0, 0, 0]));
    bytes.extend(frame(HEADERS, 5, 1, &block(&GOOD)));
    client.send(bytes).await;
    assert_eq!(answer(&mut client).await, (HEADERS, "200".into()));
    let mut rest = Vec::new();
    let _ = soon(client.0.read_to_end(&mut rest)).await;
    // The client sees the end a moment before the core has counted it.
    soon(async {
        while (edge.gateway.connections(), edge.gateway.in_flight()) != (0, 0) {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

//! The framing table: every way of saying a message that two servers might read differently.

mod nginx;

use crate::support::{Answer, Client, Edge, Origin, config, services, soon};
use futures_util::FutureExt;
use nginx::Reader;
use std::{panic::AssertUnwindSafe, time::Duration};
use tokio::io::AsyncReadExt;

const TABLE: &str = include_str!("framing.txt");

struct Case {
    name: String,
    /// Pieces that are sent one after another, each after the last was taken.
    pieces: Vec<Vec<u8>>,
    /// Statuses in order; `close` if the connection then ends.
    answers: Vec<String>,
    /// What the origin saw: `METHOD target body` for each request.
    origin: Vec<String>,
    /// Whether the origin may have been sent the beginning of a request that never ends.
    partial: bool,
}

fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    for line in TABLE.lines() {
        let line = line.trim_end();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(name) = line.strip_prefix("== ") {
            cases.push(Case {
                name: name.into(),
                pieces: Vec::new(),
                answers: Vec::new(),
                origin: Vec::new(),
                partial: false,
            });
            continue;
        }
        let case = cases.last_mut().expect("a case begins with ==");
        let (key, value) = line.split_once(' ').unwrap_or((line, ""));
        match key {
            ">" => case.pieces.push(unescape(value)),
            "<" => case.answers.extend(value.split(' ').map(str::to_owned)),
            "=" => case.origin.push(String::from_utf8(unescape(value)).expect("UTF-8")),
            "partial" => case.partial = true,
            _ => panic!("what is {line:?}?"),
        }
    }
    cases
}

/// `\r \n \t \0 \xNN \\`, `{text*count}`, and `~` for the ordinary end of a head:
/// `\r\nhost: a\r\n\r\n`.
fn unescape(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        match c {
            '~' => out.extend_from_slice(b"\r\nhost: a\r\n\r\n"),
            '{' => {
                let (inside, after) = rest.split_once('}').expect("a closing brace");
                let (text, count) = inside.rsplit_once('*').expect("a count");
                out.extend(unescape(text).repeat(count.parse().unwrap()));
                rest = after;
            }
            '\\' => {
                let escape = rest.chars().next().expect("an escape");
                rest = &rest[1..];
                match escape {
                    'r' => out.push(b'\r'),
                    'n' => out.push(b'\n'),
                    't' => out.push(b'\t'),
                    '0' => out.push(0),
                    'x' => {
                        out.push(u8::from_str_radix(&rest[..2], 16).unwrap());
                        rest = &rest[2..];
                    }
                    _ => out.push(escape as u8),
                }
            }
            _ => out.extend(c.to_string().as_bytes()),
        }
    }
    out
}

/// Says what is to be said, and compares what comes back.
async fn drive(case: &Case, edge: Edge) -> Result<(), String> {
    let mut client = edge.connect().await;
    for (index, piece) in case.pieces.iter().enumerate() {
        if index > 0 {
            // The gateway has nothing else to show for what it has read so far.
            tokio::time::sleep(Duration::from_millis(40)).await;
        }
        if tokio::io::AsyncWriteExt::write_all(&mut client.0, piece).await.is_err() {
            break;
        }
    }
    let (mut seen, mut said) = (Vec::new(), String::new());
    for expected in &case.answers {
        if expected == "close" {
            seen.push(if client.is_closed().await { "close" } else { "open" }.to_owned());
            continue;
        }
        if expected == "open" {
            let mut byte = [0];
            let read = tokio::time::timeout(Duration::from_millis(100), client.0.read(&mut byte));
            seen.push(if read.await.is_err() { "open" } else { "close" }.to_owned());
            continue;
        }
        match answer(&mut client).await {
            Some(answer) => {
                seen.push(answer.status.to_string());
                said = String::from_utf8_lossy(&answer.body).into_owned();
            }
            None => {
                seen.push("nothing".into());
                break;
            }
        }
    }
    if seen != case.answers {
        return Err(format!("the client saw {seen:?}, not {:?}: {said}", case.answers));
    }
    drop(client);
    edge.gateway.drain(Duration::ZERO).await;
    Ok(())
}

async fn run(case: &Case) -> Result<(), String> {
    let origin = Origin::echo().await;
    drive(case, Edge::start(config(), &services(&[&origin.address]))).await?;
    if case.partial {
        let received = origin.received().concat();
        let text = String::from_utf8_lossy(&received);
        if origin.requests().is_ok_and(|requests| !requests.is_empty()) {
            return Err(format!("the origin was sent a whole request: {text:?}"));
        }
        return Ok(());
    }
    let requests: Vec<String> = origin
        .requests()?
        .into_iter()
        .map(|(head, body)| {
            let line = head.lines().next().unwrap_or_default();
            let line = line.strip_suffix(" HTTP/1.1").expect("HTTP/1.1 is spoken");
            let lower = head.to_ascii_lowercase();
            for gone in ["upgrade: h2c", "expect:", "trailer:", "x-crosstown-tenant: evil"] {
                assert!(!lower.contains(gone), "{gone} was sent on: {head}");
            }
            format!("{line} {}", String::from_utf8_lossy(&body)).trim_end().to_owned()
        })
        .collect();
    if requests != case.origin {
        return Err(format!("the origin was sent {requests:?}, not {:?}", case.origin));
    }
    Ok(())
}

async fn answer(client: &mut Client) -> Option<Answer> {
    let answer = client.answer().await?;
    if answer.status >= 400 {
        let kind = answer.header("content-type");
        assert_eq!(kind, Some("application/problem+json"), "{answer:?}");
    }
    Some(answer)
}

/// What each case comes to, some of them at once; fails with those that go wrong.
async fn judge(cases: &[Case], run: impl AsyncFn(usize, &Case) -> Result<(), String>) {
    let numbered: Vec<_> = cases.iter().enumerate().collect();
    let mut wrong = Vec::new();
    for chunk in numbered.chunks(16) {
        let runs = chunk.iter().map(async |(number, case)| {
            let outcome = AssertUnwindSafe(soon(run(*number, case))).catch_unwind().await;
            (case, outcome.unwrap_or_else(|_| Err("what was expected does not come".into())))
        });
        for (case, outcome) in futures_util::future::join_all(runs).await {
            if let Err(what) = outcome {
                wrong.push(format!("{}: {what}", case.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_table_holds() {
    let cases = cases();
    assert!(cases.len() >= 300, "only {} cases", cases.len());
    judge(&cases, async |_, case| run(case).await).await;
}

/// nginx, a parser that is not ours, finds the requests that the table names in the bytes that
/// are sent on, and no others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nginx_reads_what_is_sent_on_in_the_same_way() {
    let cases = cases();
    let nginx = Reader::start(cases.len());
    judge(&cases, async |number, case| {
        drive(case, Edge::start(config(), &services(&[&nginx.instance(number)]))).await
    })
    .await;
    let read = nginx.stop();
    for (number, case) in cases.iter().enumerate() {
        let none = Vec::new();
        let read = read.get(&number).unwrap_or(&none);
        let expected = if case.partial { &none } else { &case.origin };
        assert_eq!(read, expected, "{}", case.name);
    }
}

/// Byte by byte, the same bytes mean the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_trickles_in_is_still_one_request() {
    let origin = Origin::echo().await;
    let edge = Edge::start(config(), &services(&[&origin.address]));
    let mut client = edge.connect().await;
    client.0.set_nodelay(true).unwrap();
    let request = b"POST /x HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n\
        2\r\nab\r\n1;e\r\nc\r\n0\r\nx-t: 1\r\n\r\nGET /y HTTP/1.1\r\nhost: a\r\n\r\n";
    for byte in request {
        client.send([*byte]).await;
    }
    assert_eq!(client.answer().await.unwrap().status, 200);
    assert_eq!(client.answer().await.unwrap().status, 200);
    let requests = origin.requests().unwrap();
    assert_eq!(requests.len(), 2);
    assert_eq!(requests[0].1, b"abc");
}

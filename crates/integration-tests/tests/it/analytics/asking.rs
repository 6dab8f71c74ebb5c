//! Clients that count what they are answered.

use super::origin::BODY;
use integration_tests::Server;
use std::time::Duration;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    time::Instant,
};

/// One request, and who asks.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) token: String,
    pub(super) target: String,
}

/// What was answered.
#[derive(Debug, Clone, Copy)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) latency: Duration,
}

/// Asks all of it, one after the other on each of some connections.
pub(super) async fn ask(server: &Server, requests: &[Request], connections: usize) -> Vec<Answer> {
    let per = requests.len().div_ceil(connections).max(1);
    let clients = requests.chunks(per).map(|requests| {
        let (edge, requests) = (server.edge(), requests.to_vec());
        tokio::spawn(async move { on_one(edge, &requests).await })
    });
    let clients: Vec<_> = clients.collect();
    let mut answers = Vec::new();
    for client in clients {
        answers.extend(client.await.unwrap());
    }
    assert_eq!(answers.len(), requests.len());
    answers
}

async fn on_one(edge: (&'static str, u16), requests: &[Request]) -> Vec<Answer> {
    let stream = TcpStream::connect(edge).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let mut stream = BufReader::new(stream);
    let mut answers = Vec::new();
    for Request { token, target } in requests {
        let head =
            format!("GET {target} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {token}\r\n\r\n");
        let began = Instant::now();
        stream.write_all(head.as_bytes()).await.unwrap();
        let (mut status, mut length) = (None, 0);
        loop {
            let mut line = String::new();
            stream.read_line(&mut line).await.unwrap();
            let line = line.trim_end();
            if status.is_none() {
                status = Some(line.split(' ').nth(1).expect(line).parse().unwrap());
            } else if line.is_empty() {
                break;
            } else if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse().unwrap();
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.unwrap();
        let status = status.unwrap();
        assert!(status >= 400 || body.len() == BODY, "{status}");
        answers.push(Answer { status, latency: began.elapsed() });
    }
    answers
}

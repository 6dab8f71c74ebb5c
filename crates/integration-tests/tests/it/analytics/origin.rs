//! A service that counts what it is asked and how long that took it, answers what it is told to,
//! and takes its time.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    time::Instant,
};

/// Bytes of each answer's body.
pub(super) const BODY: usize = 100;

/// How long each request took, as far as it was answered.
type Taken = Arc<Mutex<Vec<Duration>>>;

/// A service on a port of its own.
pub(super) struct Origin {
    pub(super) address: SocketAddr,
    taken: Taken,
    accepting: JoinHandle<()>,
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Origin {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let taken = Taken::default();
        let counted = taken.clone();
        let accepting = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(serve(stream, counted.clone()));
            }
        });
        Self { address, taken, accepting }
    }

    /// Requests that it answered.
    pub(super) fn answered(&self) -> u64 {
        self.taken.lock().unwrap().len() as u64
    }

    /// How long each of them took it.
    pub(super) fn taken(&self) -> Vec<Duration> {
        self.taken.lock().unwrap().clone()
    }
}

/// Reads `/…?status=503&delay=20` and does so.
async fn serve(stream: TcpStream, taken: Taken) {
    stream.set_nodelay(true).unwrap();
    let mut stream = BufReader::new(stream);
    loop {
        let (mut target, mut length, mut first) = (String::new(), 0, true);
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line).await.unwrap_or(0) == 0 {
                return;
            }
            let line = line.trim_end();
            if first {
                target = line.split(' ').nth(1).unwrap_or_default().to_owned();
                first = false;
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
        let began = Instant::now();
        let query = target.split_once('?').map_or("", |(_, query)| query);
        let said = |name: &str| {
            let pair = query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
            pair.map(|value| value.parse::<u64>().unwrap())
        };
        if let Some(delay) = said("delay") {
            tokio::time::sleep(Duration::from_millis(delay)).await;
        }
        let status = said("status").unwrap_or(200);
        let body = "x".repeat(BODY);
        let answer = format!("HTTP/1.1 {status} Said\r\ncontent-length: {BODY}\r\n\r\n{body}");
        let written = stream.write_all(answer.as_bytes()).await;
        taken.lock().unwrap().push(began.elapsed());
        if written.is_err() {
            return;
        }
    }
}

//! HTTP/1.1 by hand: a request, and an answer that may never end.

use serde_json::Value as Json;
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

const WITHIN: Duration = Duration::from_secs(20);

/// An answer as it comes.
pub struct Stream {
    socket: TcpStream,
    /// What was read and not taken yet, the chunks' framing left out.
    pub read: Vec<u8>,
    raw: Vec<u8>,
    /// The status.
    pub status: u16,
    /// The header, in small letters.
    pub head: String,
    ended: bool,
}

impl Stream {
    /// Sends a request to `base` and reads the head of the answer. `fields` are lines of the
    /// header.
    ///
    /// # Panics
    /// If there is no answer.
    pub async fn ask(base: &str, line: &str, fields: &[&str], body: &[u8]) -> Self {
        let address = base.trim_start_matches("http://");
        let mut socket = TcpStream::connect(address).await.expect("a connection");
        let mut head = format!("{line} HTTP/1.1\r\nHost: {address}\r\n");
        for field in fields {
            head.push_str(&format!("{field}\r\n"));
        }
        head.push_str(&format!("Content-Length: {}\r\n\r\n", body.len()));
        socket.write_all(&[head.as_bytes(), body].concat()).await.expect("room");
        let mut raw = Vec::new();
        let end = loop {
            if let Some(at) = raw.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break at;
            }
            let read = timeout(WITHIN, socket.read_buf(&mut raw)).await.expect("an answer");
            assert!(read.expect("an answer") > 0, "the connection ends: {raw:?}");
        };
        let head = String::from_utf8(raw[..end].to_vec()).expect("a head").to_lowercase();
        raw.drain(..end + 4);
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status = status.expect("a status");
        Self { socket, read: Vec::new(), raw, status, head, ended: false }
    }

    /// The next bytes up to `end`, without it; `None` once the answer has ended.
    pub async fn until(&mut self, end: &[u8]) -> Option<Vec<u8>> {
        loop {
            if let Some(at) = self.read.windows(end.len()).position(|bytes| bytes == end) {
                let taken = self.read[..at].to_vec();
                self.read.drain(..at + end.len());
                return Some(taken);
            }
            if !self.more().await {
                return None;
            }
        }
    }

    /// The next reply of server-sent events, pings left out; `None` once they have ended.
    ///
    /// # Panics
    /// If it is not one.
    pub async fn event(&mut self) -> Option<Json> {
        loop {
            let event = self.until(b"\n\n").await?;
            let json = event.strip_prefix(b"data: ").expect("data");
            let reply: Json = serde_json::from_slice(json).expect("JSON");
            if reply != serde_json::json!({}) {
                return Some(reply);
            }
        }
    }

    /// The next reply of a stream of lines, pings left out; `None` once they have ended.
    ///
    /// # Panics
    /// If it is not one.
    pub async fn line(&mut self) -> Option<Json> {
        loop {
            let line = self.until(b"\n").await?;
            let reply: Json = serde_json::from_slice(&line).expect("JSON");
            if reply != serde_json::json!({}) {
                return Some(reply);
            }
        }
    }

    /// Reads more; false once the answer has ended.
    ///
    /// # Panics
    /// If its framing is wrong, or nothing comes.
    pub async fn more(&mut self) -> bool {
        loop {
            if self.ended {
                return false;
            }
            if let Some(at) = self.raw.windows(2).position(|bytes| bytes == b"\r\n") {
                let length = std::str::from_utf8(&self.raw[..at]).expect("a chunk's length");
                let length = usize::from_str_radix(length, 16).expect("a chunk's length");
                if self.raw.len() >= at + length + 4 {
                    self.read.extend_from_slice(&self.raw[at + 2..at + 2 + length]);
                    self.raw.drain(..at + length + 4);
                    self.ended = length == 0;
                    return !self.ended;
                }
            }
            let read = timeout(WITHIN, self.socket.read_buf(&mut self.raw)).await;
            match read.expect("something comes within twenty seconds") {
                Ok(0) | Err(_) => self.ended = true,
                Ok(_) => {}
            }
        }
    }
}

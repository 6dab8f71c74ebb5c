//! A plain WebSocket that speaks the client protocol in JSON.

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value as Json, json};
use std::{collections::VecDeque, time::Duration};
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream,
    tungstenite::{self, Message},
};

const WITHIN: Duration = Duration::from_secs(20);

/// An open socket.
pub struct Socket {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    next_id: u32,
    pushes: VecDeque<Json>,
    replies: VecDeque<Json>,
    /// The code and reason with which the server closed.
    pub closed: Option<(u16, String)>,
}

impl Socket {
    /// Opens a socket at `base` and sends nothing yet.
    ///
    /// # Panics
    /// If the node does not accept it.
    pub async fn open(base: &str) -> Self {
        Self::try_open(base).await.expect("a socket")
    }

    /// Opens a socket at `base` and sends nothing yet.
    ///
    /// # Errors
    /// If the node does not accept it.
    pub async fn try_open(base: &str) -> Result<Self, tungstenite::Error> {
        let url = format!("{}/connection/websocket", base.replacen("http", "ws", 1));
        let (socket, _) = tokio_tungstenite::connect_async(url).await?;
        Ok(Self::over(socket))
    }

    /// Opens a socket to `host` over a connection, and sends nothing yet.
    ///
    /// # Errors
    /// If the node does not accept it.
    pub async fn try_open_over(stream: TcpStream, host: &str) -> Result<Self, tungstenite::Error> {
        let url = format!("ws://{host}/connection/websocket");
        let stream = MaybeTlsStream::Plain(stream);
        Ok(Self::over(tokio_tungstenite::client_async(url, stream).await?.0))
    }

    fn over(socket: WebSocketStream<MaybeTlsStream<TcpStream>>) -> Self {
        let (pushes, replies) = (VecDeque::new(), VecDeque::new());
        Self { socket, next_id: 1, pushes, replies, closed: None }
    }

    /// Connects with `token`, and has the kernel keep little of what is not read: it would take
    /// more and more.
    ///
    /// # Panics
    /// If the node does not accept it.
    pub async fn connect_slowly(base: &str, token: &str) -> Self {
        let address = base.strip_prefix("http://").expect("an address");
        let tcp = TcpSocket::new_v4().expect("a socket");
        tcp.set_recv_buffer_size(64 * 1024).expect("a small buffer");
        let stream = tcp.connect(address.parse().expect("an address")).await.expect("a node");
        let url = format!("ws://{address}/connection/websocket");
        let opened = tokio_tungstenite::client_async(url, MaybeTlsStream::Plain(stream)).await;
        let mut socket = Self::over(opened.expect("a socket").0);
        socket.ask("connect", json!({ "token": token })).await.expect("a connection");
        socket
    }

    /// Opens a socket and connects with `token`.
    ///
    /// # Panics
    /// If the node does not accept it.
    pub async fn connect(base: &str, token: &str) -> Self {
        let mut socket = Self::open(base).await;
        socket.ask("connect", json!({ "token": token })).await.expect("a connection");
        socket
    }

    /// Sends a text frame as it is.
    pub async fn send_raw(&mut self, text: &str) {
        let _ = self.socket.send(Message::text(text)).await;
    }

    /// Sends a binary frame, which is not of this encoding.
    pub async fn send_binary(&mut self, bytes: &[u8]) {
        let _ = self.socket.send(Message::binary(bytes.to_vec())).await;
    }

    /// Sends a command and waits for its reply: the result, or the error.
    ///
    /// # Errors
    /// The reply's error; `null` if the socket closed, see [`Self::closed`].
    pub async fn ask(&mut self, command: &str, body: Json) -> Result<Json, Json> {
        let id = self.next_id;
        self.next_id += 1;
        self.send_raw(&json!({ "id": id, command: body }).to_string()).await;
        loop {
            if let Some(at) = self.replies.iter().position(|reply| reply["id"] == id) {
                let reply = self.replies.remove(at).unwrap_or_default();
                return match reply.get("error") {
                    Some(error) => Err(error.clone()),
                    None => Ok(reply[command].clone()),
                };
            }
            if !self.read().await {
                return Err(Json::Null);
            }
        }
    }

    /// Calls a method.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub async fn rpc(&mut self, method: &str, data: Json) -> Result<Json, Json> {
        let reply = self.ask("rpc", json!({ "method": method, "data": data })).await?;
        Ok(reply["data"].clone())
    }

    /// The next push; `null` once the socket has closed.
    pub async fn push(&mut self) -> Json {
        loop {
            if let Some(push) = self.pushes.pop_front() {
                return push;
            }
            if !self.read().await {
                return Json::Null;
            }
        }
    }

    /// A push that has come already.
    pub fn push_now(&mut self) -> Option<Json> {
        self.pushes.pop_front()
    }

    /// Waits until the server closes and returns its code.
    pub async fn close_code(&mut self) -> u16 {
        while self.read().await {}
        self.closed.as_ref().map_or(0, |(code, _)| *code)
    }

    /// Reads one message; false once the socket has closed.
    async fn read(&mut self) -> bool {
        let message = tokio::time::timeout(WITHIN, self.socket.next()).await;
        match message.expect("something comes within twenty seconds") {
            Some(Ok(Message::Text(text))) => {
                for line in text.split('\n') {
                    let reply: Json = serde_json::from_str(line).expect("replies are JSON");
                    if reply.get("push").is_some() {
                        self.pushes.push_back(reply["push"].clone());
                    } else if reply.get("id").is_some() {
                        self.replies.push_back(reply);
                    } else {
                        self.send_raw("{}").await;
                    }
                }
                true
            }
            Some(Ok(Message::Close(frame))) => {
                let parts = |f: tokio_tungstenite::tungstenite::protocol::CloseFrame| {
                    (u16::from(f.code), f.reason.to_string())
                };
                self.closed = self.closed.take().or(frame.map(parts));
                false
            }
            Some(Ok(_)) => true,
            Some(Err(_)) | None => false,
        }
    }
}

//! A plain WebSocket client that speaks the client protocol in JSON.

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value as Json, json};
use std::{collections::VecDeque, time::Duration};
use tokio::net::TcpStream;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, tungstenite::Message};

/// An open socket.
pub(crate) struct Socket {
    /// How long nothing may come.
    patience: Duration,
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    next_id: u32,
    pushes: VecDeque<Json>,
    replies: VecDeque<Json>,
}

impl Socket {
    /// Connects to the node at `base` with `token`.
    pub(crate) async fn open(base: &str, token: &str, patience: Duration) -> Result<Self, String> {
        let url = format!("{}/connection/websocket", base.replacen("http", "ws", 1));
        let connected = tokio_tungstenite::connect_async(url).await;
        let (socket, _) = connected.map_err(|error| format!("no socket: {error}"))?;
        let (pushes, replies) = (VecDeque::new(), VecDeque::new());
        let mut opened = Self { patience, socket, next_id: 1, pushes, replies };
        opened.ask("connect", json!({ "token": token })).await?;
        Ok(opened)
    }

    /// Sends a command and waits for its reply.
    pub(crate) async fn ask(&mut self, command: &str, body: Json) -> Result<Json, String> {
        let id = self.next_id;
        self.next_id += 1;
        let text = json!({ "id": id, command: body }).to_string();
        let sent = self.socket.send(Message::text(text)).await;
        sent.map_err(|error| format!("`{command}` could not be sent: {error}"))?;
        loop {
            if let Some(at) = self.replies.iter().position(|reply| reply["id"] == id) {
                let reply = self.replies.remove(at).unwrap_or_default();
                if let Some(error) = reply.get("error") {
                    return Err(format!("`{command}` was refused: {error}"));
                }
                return Ok(reply[command].clone());
            }
            self.read().await?;
        }
    }

    /// Calls a method.
    pub(crate) async fn rpc(&mut self, method: &str, data: Json) -> Result<Json, String> {
        let reply = self.ask("rpc", json!({ "method": method, "data": data })).await?;
        Ok(reply["data"].clone())
    }

    /// The next publication of a channel: its push.
    pub(crate) async fn publication(&mut self) -> Result<Json, String> {
        loop {
            if let Some(push) = self.pushes.pop_front() {
                return Ok(push);
            }
            self.read().await?;
        }
    }

    async fn read(&mut self) -> Result<(), String> {
        let message = tokio::time::timeout(self.patience, self.socket.next()).await;
        match message.map_err(|_| format!("nothing came on the socket for {:?}", self.patience))? {
            Some(Ok(Message::Text(text))) => {
                for line in text.split('\n') {
                    let reply: Json = serde_json::from_str(line)
                        .map_err(|error| format!("the reply is not JSON: {error}"))?;
                    if reply.get("push").is_some() {
                        self.pushes.push_back(reply["push"].clone());
                    } else if reply.get("id").is_some() {
                        self.replies.push_back(reply);
                    } else {
                        let pong = self.socket.send(Message::text("{}")).await;
                        pong.map_err(|error| format!("the pong could not be sent: {error}"))?;
                    }
                }
                Ok(())
            }
            Some(Ok(Message::Close(frame))) => Err(format!("the socket was closed: {frame:?}")),
            Some(Ok(_)) => Ok(()),
            Some(Err(error)) => Err(format!("the socket broke: {error}")),
            None => Err("the socket ended".into()),
        }
    }
}

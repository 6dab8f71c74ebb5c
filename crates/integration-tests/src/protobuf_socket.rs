//! A plain WebSocket that speaks the client protocol in Protobuf.

use crate::wire::{self, Fields, bytes, delimited, number};
use futures_util::{SinkExt, StreamExt};
use std::{collections::VecDeque, time::Duration};
use tokio::net::TcpStream;
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream,
    tungstenite::{Message, client::IntoClientRequest},
};

const WITHIN: Duration = Duration::from_secs(20);
const SUBPROTOCOL: &str = "centrifuge-protobuf";

/// An open socket. Commands and their results have the numbers of Centrifugo's schema.
pub struct ProtobufSocket {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    next_id: u64,
    pushes: VecDeque<Fields>,
    replies: VecDeque<Fields>,
}

impl ProtobufSocket {
    /// Opens a socket at `base` and sends nothing yet.
    ///
    /// # Panics
    /// If the node does not accept the subprotocol.
    pub async fn open(base: &str) -> Self {
        let url = format!("{}/connection/websocket", base.replacen("http", "ws", 1));
        let mut request = url.into_client_request().expect("an address");
        let name = SUBPROTOCOL.parse().expect("a header");
        request.headers_mut().insert("Sec-WebSocket-Protocol", name);
        let (socket, response) = tokio_tungstenite::connect_async(request).await.expect("a socket");
        let chosen = response.headers().get("Sec-WebSocket-Protocol").expect("a subprotocol");
        assert_eq!(chosen, SUBPROTOCOL);
        let (pushes, replies) = (VecDeque::new(), VecDeque::new());
        Self { socket, next_id: 1, pushes, replies }
    }

    /// Opens a socket and connects with `token`.
    ///
    /// # Panics
    /// If the node does not accept it.
    pub async fn connect(base: &str, token: &str) -> Self {
        let mut socket = Self::open(base).await;
        socket.ask(4, 5, bytes(1, token)).await.expect("a connection");
        socket
    }

    /// Sends a message as it is.
    pub async fn send_raw(&mut self, message: Message) {
        let _ = self.socket.send(message).await;
    }

    /// Sends the command of number `command` and waits for the result of number `result`.
    ///
    /// # Errors
    /// The error's code; 0 if the socket closed.
    pub async fn ask(&mut self, command: u64, result: u64, body: Vec<u8>) -> Result<Fields, u64> {
        let id = self.next_id;
        self.next_id += 1;
        let command = [number(1, id), bytes(command, body)].concat();
        self.send_raw(Message::binary(delimited(command))).await;
        loop {
            if let Some(at) = self.replies.iter().position(|reply| reply.number(1) == id) {
                let reply = self.replies.remove(at).unwrap_or_default();
                if reply.has(2) {
                    return Err(reply.message(2).number(1));
                }
                assert!(reply.has(result), "{reply:?} has no result {result}");
                return Ok(reply.message(result));
            }
            self.read().await.map_err(|_| 0_u64)?;
        }
    }

    /// Subscribes; `more` are fields of the request beside the channel.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub async fn subscribe(&mut self, channel: &str, more: &[Vec<u8>]) -> Result<Fields, u64> {
        self.ask(5, 6, [bytes(1, channel), more.concat()].concat()).await
    }

    /// Publishes.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub async fn publish(&mut self, channel: &str, data: &[u8]) -> Result<Fields, u64> {
        self.ask(7, 8, [bytes(1, channel), bytes(2, data)].concat()).await
    }

    /// The next push.
    ///
    /// # Panics
    /// If the socket closes before.
    pub async fn push(&mut self) -> Fields {
        loop {
            if let Some(push) = self.pushes.pop_front() {
                return push;
            }
            self.read().await.expect("an open socket");
        }
    }

    /// A push that has come already.
    pub fn push_now(&mut self) -> Option<Fields> {
        self.pushes.pop_front()
    }

    /// Waits until the server closes and returns its code.
    pub async fn close_code(&mut self) -> u16 {
        loop {
            if let Err(code) = self.read().await {
                return code;
            }
        }
    }

    /// Reads one message, or the code with which the socket has closed.
    async fn read(&mut self) -> Result<(), u16> {
        let message = tokio::time::timeout(WITHIN, self.socket.next()).await;
        match message.expect("something comes within twenty seconds") {
            Some(Ok(Message::Binary(message))) => {
                for reply in wire::messages(&message) {
                    if reply.has(4) {
                        self.pushes.push_back(reply.message(4));
                    } else if reply.has(1) {
                        self.replies.push_back(reply);
                    } else {
                        assert_eq!(reply, Fields::default(), "a ping is empty");
                        self.send_raw(Message::binary(delimited(""))).await;
                    }
                }
                Ok(())
            }
            Some(Ok(Message::Close(frame))) => Err(frame.map_or(0, |frame| frame.code.into())),
            Some(Ok(Message::Text(text))) => panic!("text on a binary socket: {text}"),
            Some(Ok(_)) => Ok(()),
            Some(Err(_)) | None => Err(0),
        }
    }
}

//! Opening a connection.

use crate::wire::{Seat, Wire};
use futures_util::{SinkExt, StreamExt};
use socket2::SockRef;
use std::{net::SocketAddr, time::Duration};
use tokio::{
    net::{TcpSocket, TcpStream},
    time::timeout,
};
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{Message, protocol::WebSocketConfig},
};

/// Time for a connection to open.
const WITHIN: Duration = Duration::from_secs(60);
/// Bytes of a segment, as on most networks, where the kernel shall buffer little.
const SEGMENT: u32 = 1_400;

pub(crate) type Socket = WebSocketStream<TcpStream>;

/// Where connections go, and how.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub(crate) wire: Wire,
    pub(crate) address: SocketAddr,
    /// The kernel's buffer for what was not read yet, in bytes, with segments as on a network;
    /// the kernel's own choice if 0.
    pub(crate) receive_buffer: u32,
}

impl Place {
    /// A WebSocket on which nothing was said yet.
    pub(crate) async fn connect(&self) -> Result<Socket, String> {
        let wrong = |error: std::io::Error| format!("no connection: {error}");
        let socket = TcpSocket::new_v4().map_err(wrong)?;
        if self.receive_buffer > 0 {
            // Before it connects: window and segments are agreed on then. With loopback's own
            // segments of 64 KiB the server's kernel would keep megabytes for a connection.
            socket.set_recv_buffer_size(self.receive_buffer).map_err(wrong)?;
            SockRef::from(&socket).set_tcp_mss(SEGMENT).map_err(wrong)?;
        }
        let stream = socket.connect(self.address).await.map_err(wrong)?;
        stream.set_nodelay(true).map_err(wrong)?;
        // Nothing is ever large but where the kernel is told what it may keep.
        let buffer = (self.receive_buffer as usize / 4).max(1024);
        let small = WebSocketConfig::default().read_buffer_size(buffer).write_buffer_size(0);
        let url = format!("ws://{}{}", self.address, self.wire.path());
        let connected = client_async_with_config(url, stream, Some(small)).await;
        connected.map(|(socket, _)| socket).map_err(|error| format!("no socket: {error}"))
    }

    /// A connection with its subscriptions.
    ///
    /// # Errors
    /// What was refused, or that it took longer than a minute.
    pub(crate) async fn open(&self, seat: &Seat) -> Result<Socket, String> {
        let opened = timeout(WITHIN, self.open_at_leisure(seat)).await;
        opened.map_err(|_| "a connection did not open within a minute".to_owned())?
    }

    async fn open_at_leisure(&self, seat: &Seat) -> Result<Socket, String> {
        let mut socket = self.connect().await?;
        let (mut at, mut greeting) = (0, String::new());
        while let Some(command) = self.wire.command(seat, at, &greeting) {
            if !command.is_empty() {
                let said = socket.send(Message::text(command)).await;
                said.map_err(|error| format!("a command could not be sent: {error}"))?;
            }
            loop {
                let Some(Ok(message)) = socket.next().await else {
                    return Err("a socket closed while it was opened".into());
                };
                let Message::Text(text) = message else {
                    return Err(format!("a socket was closed: {message}"));
                };
                if self.wire.answers(&text, at)? {
                    if at == 0 {
                        greeting = text.to_string();
                    }
                    break;
                }
            }
            at += 1;
        }
        Ok(socket)
    }
}

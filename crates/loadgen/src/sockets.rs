//! Many idle sockets.

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value as Json, json};
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{net::TcpStream, sync::Semaphore, time::timeout};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream,
    tungstenite::{Message, protocol::WebSocketConfig},
};

/// Connections that are being opened at a time.
const OPENING: usize = 64;
/// Time for a connection to open.
const WITHIN: Duration = Duration::from_secs(60);

#[derive(Default)]
struct Counts {
    open: AtomicUsize,
    pings: AtomicUsize,
    lost: AtomicUsize,
}

/// Opens a connection for each token, holds them, and tells how it went.
///
/// # Errors
/// The first connection that could not be opened, or how many were lost.
pub(crate) async fn hold(
    url: &str,
    user: &str,
    tokens: Vec<String>,
    hold: Duration,
) -> Result<(), String> {
    let counts = Arc::new(Counts::default());
    let (room, total) = (Arc::new(Semaphore::new(OPENING)), tokens.len());
    let mut opening = Vec::with_capacity(total);
    for (at, token) in tokens.into_iter().enumerate() {
        let permit = room.clone().acquire_owned().await.map_err(|error| error.to_string())?;
        let url = format!("{}/connection/websocket", url.replacen("http", "ws", 1));
        let (counts, channel) = (counts.clone(), format!("#{user}-{}", at + 1));
        opening.push(tokio::spawn(async move {
            let opened = timeout(WITHIN, open(&url, &token, &channel)).await;
            drop(permit);
            let socket = opened.map_err(|_| "a connection did not open within a minute")??;
            counts.open.fetch_add(1, Ordering::Relaxed);
            tokio::spawn(answer_pings(socket, counts));
            Ok::<_, String>(())
        }));
    }
    for opened in opening {
        opened.await.map_err(|error| error.to_string())??;
    }
    println!("{}", json!({ "open": counts.open.load(Ordering::Relaxed) }));
    tokio::time::sleep(hold).await;
    let lost = counts.lost.load(Ordering::Relaxed);
    println!("{}", json!({ "lost": lost, "pings": counts.pings.load(Ordering::Relaxed) }));
    if lost == 0 { Ok(()) } else { Err(format!("{lost} of {total} connections were lost")) }
}

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

async fn open(url: &str, token: &str, channel: &str) -> Result<Socket, String> {
    let small = WebSocketConfig::default().read_buffer_size(1024).write_buffer_size(0);
    let connected = tokio_tungstenite::connect_async_with_config(url, Some(small), true).await;
    let (mut socket, _) = connected.map_err(|error| format!("no socket: {error}"))?;
    let commands = [
        json!({ "id": 1, "connect": { "token": token } }),
        json!({ "id": 2, "subscribe": { "channel": channel } }),
        json!({ "id": 3, "subscribe": { "channel": "lobby" } }),
    ];
    for command in &commands {
        let sent = socket.send(Message::text(command.to_string())).await;
        sent.map_err(|error| format!("a command could not be sent: {error}"))?;
        let mut answered = false;
        while !answered {
            let Some(Ok(message)) = socket.next().await else {
                return Err("a socket closed while it was opened".into());
            };
            let Message::Text(text) = message else {
                return Err(format!("a socket was closed: {message}"));
            };
            for line in text.split('\n') {
                let reply: Json = serde_json::from_str(line).map_err(|error| error.to_string())?;
                if let Some(error) = reply.get("error") {
                    return Err(format!("{command} was refused: {error}"));
                }
                answered |= reply["id"] == command["id"];
            }
        }
    }
    Ok(socket)
}

async fn answer_pings(mut socket: Socket, counts: Arc<Counts>) {
    while let Some(Ok(message)) = socket.next().await {
        if matches!(&message, Message::Text(text) if text.as_str() == "{}") {
            counts.pings.fetch_add(1, Ordering::Relaxed);
            if socket.send(Message::text("{}")).await.is_err() {
                break;
            }
        }
    }
    counts.lost.fetch_add(1, Ordering::Relaxed);
}

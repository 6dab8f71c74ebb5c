//! A WebSocket as the transport of a connection.

#[cfg(feature = "echo")]
use crate::frame::Frame;
use crate::{
    CoreSockets,
    connection::{
        Closed,
        outlet::Outlet,
        socket::Socket,
        task::{MESSAGE_BYTES, Task},
    },
};
use bytes::Bytes;
use protocol::client::{Commands, Disconnect, Encoding};
use std::{
    net::IpAddr,
    pin::{Pin, pin},
    rc::Rc,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tokio::time::{Sleep, error::Elapsed, sleep_until, timeout};
use tokio_tungstenite::tungstenite::{
    self, Message,
    error::{CapacityError, ProtocolError},
    protocol::{CloseFrame, WebSocketConfig, frame::coding::CloseCode},
};
use transport::Stream;
use types::Caller;

/// What each socket keeps to read into; more is there while more comes.
const READ_BYTES: usize = 128;

/// Bytes of a reason that a close frame holds (RFC 6455, sections 5.5 and 5.5.1).
const REASON_BYTES_MAX: usize = 123;

fn socket_config(sockets: &CoreSockets) -> WebSocketConfig {
    let config = &sockets.node.config;
    // Small buffers: an idle connection has to cost little.
    WebSocketConfig::default()
        .read_buffer_size(READ_BYTES)
        .write_buffer_size(0)
        .max_write_buffer_size(config.queue_bytes_max.max(MESSAGE_BYTES) * 2)
        .max_message_size(Some(config.message_bytes_max))
        .max_frame_size(Some(config.message_bytes_max))
}

/// Serves a connection until it ends. `received` was read of its stream already.
pub(crate) fn serve(
    sockets: CoreSockets,
    stream: Stream,
    received: &Bytes,
    encoding: Encoding,
    caller: Option<Arc<Caller>>,
    ip: IpAddr,
) -> impl Future<Output = ()> + use<> {
    let (socket, out) = Socket::new(stream, received, socket_config(&sockets));
    sockets.node.open.fetch_add(1, Ordering::Relaxed);
    let task = Task::begin(sockets, encoding, caller, ip, None, Some(out.clone()));
    let mut served = Served { task, socket, out };
    // There are many of these: it holds nothing but what is served, once.
    async move {
        let timer = sleep_until(served.task.timer.at);
        let why = served.run(pin!(timer)).await;
        Box::pin(served.end(why)).await;
    }
}

struct Served {
    task: Task,
    socket: Socket,
    out: Rc<Outlet>,
}

enum Event {
    Queue,
    Message(Option<Result<Message, tungstenite::Error>>),
    Timer,
}

impl Served {
    async fn run(&mut self, mut timer: Pin<&mut Sleep>) -> Closed {
        loop {
            if timer.deadline() != self.task.timer.at {
                timer.as_mut().reset(self.task.timer.at);
            }
            let event = tokio::select! {
                biased;
                () = self.task.connection.queue.woken() => Event::Queue,
                message = self.socket.next() => Event::Message(message),
                () = timer.as_mut() => Event::Timer,
            };
            match event {
                Event::Queue => self.task.run_errands().await,
                Event::Message(Some(Ok(Message::Text(text)))) => {
                    self.task.take(Encoding::Json, Commands::json(&text)).await;
                    self.task.connection.count_received(text.len());
                }
                Event::Message(Some(Ok(Message::Binary(bytes)))) => {
                    self.task.take(Encoding::Protobuf, Commands::protobuf(&bytes)).await;
                    self.task.connection.count_received(bytes.len());
                }
                Event::Message(Some(Ok(
                    Message::Ping(_) | Message::Pong(_) | Message::Frame(_),
                ))) => {}
                Event::Message(Some(Ok(Message::Close(_))) | None) => return Closed::ByClient,
                Event::Message(Some(Err(error))) => return Box::pin(self.broken(error)).await,
                Event::Timer => self.task.timer_due().await,
            }
            if let Some(ended) = self.flush().await {
                return ended;
            }
        }
    }

    /// Writes what waits, then closes if that was asked for.
    async fn flush(&mut self) -> Option<Closed> {
        match self.write_out().await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Some(Closed::ByClient),
            Err(_) => return Some(Box::pin(self.close(Disconnect::Slow)).await),
        }
        match self.task.connection.closing.get() {
            Some(why) => Some(Box::pin(self.close(why)).await),
            None => None,
        }
    }

    async fn end(self, why: Closed) {
        let node = self.task.sockets.node.clone();
        self.task.end(why).await;
        node.open.fetch_sub(1, Ordering::Relaxed);
    }

    /// Writes what waits. The client has its time for each frame: one that reads slowly may
    /// take longer for all that comes meanwhile.
    async fn write_out(&mut self) -> Result<Result<(), tungstenite::Error>, Elapsed> {
        let within = self.task.sockets.node.config.write_timeout;
        let begun = async {
            if self.out.is_torn() {
                self.socket.flush().await?;
            }
            Ok(self.out.finish().await?)
        };
        let mut written = timeout(within, begun).await?;
        while written.is_ok()
            && let Some(frame) = self.task.next_frame()
        {
            let writing = self.out.write(frame.framed().clone());
            written = timeout(within, writing).await?.map_err(tungstenite::Error::from);
        }
        Ok(written)
    }

    async fn close(&mut self, why: Disconnect) -> Closed {
        let (code, reason) = self.task.connection.parting(why);
        let reason = &reason[..reason.floor_char_boundary(REASON_BYTES_MAX)];
        let frame = CloseFrame { code: CloseCode::from(code), reason: reason.to_owned().into() };
        // A client that does not read gets no close frame, only the end of the connection.
        let _ = timeout(Duration::from_secs(1), self.socket.close(frame)).await;
        // The client's own close frame ends the TCP connection in order (RFC 6455, 7.1.1).
        let drained = async { while let Some(Ok(_)) = self.socket.next().await {} };
        let _ = timeout(Duration::from_secs(1), drained).await;
        Closed::ByUs(why)
    }

    async fn broken(&mut self, error: tungstenite::Error) -> Closed {
        let code = match error {
            tungstenite::Error::Capacity(CapacityError::MessageTooLong { .. }) => CloseCode::Size,
            tungstenite::Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => {
                return Closed::ByClient;
            }
            tungstenite::Error::Protocol(_) => CloseCode::Protocol,
            tungstenite::Error::Utf8(_) => CloseCode::Invalid,
            tungstenite::Error::ConnectionClosed
            | tungstenite::Error::AlreadyClosed
            | tungstenite::Error::Io(_)
            | tungstenite::Error::Tls(_)
            | tungstenite::Error::Capacity(_)
            | tungstenite::Error::WriteBufferFull(_)
            | tungstenite::Error::AttackAttempt
            | tungstenite::Error::Url(_)
            | tungstenite::Error::Http(_)
            | tungstenite::Error::HttpFormat(_) => return Closed::ByClient,
        };
        let frame = CloseFrame { code, reason: "".into() };
        let _ = timeout(Duration::from_secs(1), self.socket.close(frame)).await;
        Closed::Broken
    }
}

/// Answers every message with itself.
#[cfg(feature = "echo")]
pub(crate) async fn echo(stream: Stream, received: Bytes) {
    // The largest message of the cases for performance has 16 MiB.
    let bytes_max = Some(32 * 1024 * 1024);
    let config = WebSocketConfig::default().max_message_size(bytes_max).max_frame_size(bytes_max);
    let (mut socket, out) = Socket::new(stream, &received, config);
    while let Some(Ok(message)) = socket.next().await {
        let frame = match message {
            Message::Text(text) => Frame::new(Encoding::Json, text),
            Message::Binary(bytes) => Frame::new(Encoding::Protobuf, bytes),
            Message::Ping(_) | Message::Pong(_) | Message::Close(_) | Message::Frame(_) => {
                if socket.flush().await.is_err() {
                    break;
                }
                continue;
            }
        };
        if out.is_torn() && socket.flush().await.is_err() {
            break;
        }
        if out.write(frame.framed().clone()).await.is_err() {
            break;
        }
    }
}

//! An HTTP answer without an end as the transport of a connection. The client's commands come
//! by requests of their own, which [`crate::Realtime::emulate`] hands on.

use crate::{
    CoreSockets,
    connection::{Closed, task::Task},
    frame::Frame,
    streams::{Entered, Form},
};
use bytes::{Bytes, BytesMut};
use protocol::client::{Body, Commands, Disconnect, Push, Reason, Reply};
use std::{net::IpAddr, sync::Arc, time::Duration};
use tokio::{
    sync::mpsc,
    time::{sleep_until, timeout},
};
use types::Caller;

/// What a client is served with.
pub(crate) struct Streaming {
    pub(crate) form: Form,
    /// The commands that came with the request for the stream.
    pub(crate) first: Bytes,
    pub(crate) caller: Option<Arc<Caller>>,
    pub(crate) ip: IpAddr,
    /// Where the answer's body takes from; closed once nobody reads it.
    pub(crate) out: mpsc::Sender<Bytes>,
    /// By which its client's commands find it.
    pub(crate) place: (Entered, mpsc::Receiver<Bytes>),
}

/// Serves a connection until it ends.
pub(crate) async fn serve(sockets: &CoreSockets, streaming: Streaming) {
    let Streaming { form, first, caller, ip, out, place: (session, inbox) } = streaming;
    let name = Some(session.name.clone());
    let task = Task::begin(sockets.clone(), form.encoding(), caller, ip, name, None);
    let mut served = Served { task, form, inbox, out };
    let why = served.run(first).await;
    drop(session);
    let Served { task, out, .. } = served;
    task.end(why).await;
    // Whoever waits for the end of the answer finds everything told.
    drop(out);
}

struct Served {
    task: Task,
    form: Form,
    inbox: mpsc::Receiver<Bytes>,
    out: mpsc::Sender<Bytes>,
}

enum Event {
    Queue,
    Commands(Option<Bytes>),
    Gone,
    Timer,
}

impl Served {
    async fn run(&mut self, first: Bytes) -> Closed {
        self.take(&first).await;
        loop {
            if let Some(closed) = self.flush().await {
                return closed;
            }
            let event = tokio::select! {
                biased;
                () = self.task.connection.queue.woken() => Event::Queue,
                commands = self.inbox.recv() => Event::Commands(commands),
                () = self.out.closed() => Event::Gone,
                () = sleep_until(self.task.timer.at) => Event::Timer,
            };
            match event {
                Event::Queue => self.task.run_errands().await,
                Event::Commands(Some(commands)) => self.take(&commands).await,
                Event::Commands(None) | Event::Gone => return Closed::ByClient,
                Event::Timer => self.task.timer_due().await,
            }
        }
    }

    async fn take(&mut self, message: &Bytes) {
        let encoding = self.form.encoding();
        match Commands::of(encoding, message) {
            Ok(commands) => {
                self.task.take(encoding, commands).await;
                self.task.connection.count_received(message.len());
            }
            Err(_) => self.task.connection.close(Disconnect::BadRequest),
        }
    }

    /// Writes what waits, then ends if that was asked for.
    async fn flush(&mut self) -> Option<Closed> {
        let within = self.task.sockets.node.config.write_timeout;
        while let Some(frame) = self.task.next_frame() {
            match timeout(within, self.out.send(write(self.form, &frame))).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Some(Closed::ByClient),
                Err(_) => return Some(Closed::ByUs(Disconnect::Slow)),
            }
        }
        let why = self.task.connection.closing.get()?;
        let (code, reason) = self.task.connection.parting(why);
        let disconnect = Some(Reason { code: code.into(), reason: reason.into() });
        let push = Body::Push(Push { disconnect, ..Push::default() });
        let frame = Frame::of(&Reply { id: 0, body: push }, self.form.encoding());
        // A client that does not read is told by the end of the answer.
        let told = self.out.send(write(self.form, &frame));
        let _ = timeout(Duration::from_secs(1), told).await;
        Some(Closed::ByUs(why))
    }
}

/// A frame as the stream carries it.
fn write(form: Form, frame: &Frame) -> Bytes {
    let bytes = frame.as_bytes();
    let mut written = BytesMut::with_capacity(bytes.len() + 64);
    match form {
        // Each reply is an event (HTML Standard, 9.2.6).
        Form::Events => {
            for reply in bytes.split(|byte| *byte == b'\n') {
                written.extend_from_slice(b"data: ");
                written.extend_from_slice(reply);
                written.extend_from_slice(b"\n\n");
            }
        }
        Form::Lines => {
            written.extend_from_slice(bytes);
            written.extend_from_slice(b"\n");
        }
        Form::Binary => written.extend_from_slice(bytes),
    }
    written.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::client::Encoding;

    #[test]
    fn replies_are_apart_in_every_form() {
        let text = Frame::new(Encoding::Json, "{}\n{\"id\":1}");
        assert_eq!(write(Form::Events, &text), "data: {}\n\ndata: {\"id\":1}\n\n");
        assert_eq!(write(Form::Lines, &text), "{}\n{\"id\":1}\n");
        let binary = Frame::new(Encoding::Protobuf, &b"\x00\x01\n"[..]);
        assert_eq!(write(Form::Binary, &binary), &b"\x00\x01\n"[..]);
    }
}

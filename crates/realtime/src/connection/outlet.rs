//! The writing half of a WebSocket. The connection's task writes to it, and so does its core's
//! hub, when nothing waits: then a publication does not have to wake the task.

use bytes::{Buf, Bytes};
use std::{
    cell::{Cell, RefCell},
    io::{self, ErrorKind},
    task::{Context, Poll, ready},
};
use transport::Writing;

/// Writes whole frames, one after the other, whoever hands them over.
#[derive(Debug)]
pub(crate) struct Outlet {
    stream: Writing,
    /// What is left of the frame that was begun last.
    rest: RefCell<Bytes>,
    /// Whether the codec has begun a frame of its own, and holds the rest of it.
    torn: Cell<bool>,
}

impl Outlet {
    pub(super) fn new(stream: Writing) -> Self {
        Self { stream, rest: RefCell::default(), torn: Cell::new(false) }
    }

    /// Whether a frame could begin now.
    fn is_between_frames(&self) -> bool {
        !self.torn.get() && self.rest.borrow().is_empty() && self.stream.is_flushed()
    }

    /// Writes as much of a frame as the kernel takes at once. Says whether it took all; `None`:
    /// nothing was written.
    pub(crate) fn try_begin(&self, frame: &Bytes) -> Option<bool> {
        if !self.is_between_frames() {
            return None;
        }
        // An error is met again by the connection's task, which ends with it.
        let written = self.stream.try_write(frame).ok()?;
        if written < frame.len() {
            *self.rest.borrow_mut() = frame.slice(written..);
            return Some(false);
        }
        Some(self.stream.is_flushed())
    }

    /// Writes a frame, after what was begun.
    pub(super) async fn write(&self, frame: Bytes) -> io::Result<()> {
        self.finish().await?;
        *self.rest.borrow_mut() = frame;
        self.finish().await
    }

    /// Writes what is left of a frame.
    pub(super) async fn finish(&self) -> io::Result<()> {
        std::future::poll_fn(|cx| self.poll_finish(cx)).await
    }

    fn poll_finish(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut rest = self.rest.borrow_mut();
        while !rest.is_empty() {
            match self.stream.try_write(&rest) {
                Ok(0) => return Poll::Ready(Err(ErrorKind::WriteZero.into())),
                Ok(written) => rest.advance(written),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    ready!(self.stream.poll_write_ready(cx))?;
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        // What was written is somebody else's memory, too.
        *rest = Bytes::new();
        self.stream.poll_flush(cx)
    }

    /// Waits until the kernel has all that was written.
    pub(super) fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.poll_flush(cx)
    }

    /// Writes for the codec, which hands over all that it holds each time.
    pub(super) fn poll_write(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_finish(cx))?;
        self.torn.set(true);
        loop {
            match self.stream.try_write(bytes) {
                Ok(written) => {
                    self.torn.set(written < bytes.len());
                    return Poll::Ready(Ok(written));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    ready!(self.stream.poll_write_ready(cx))?;
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// Whether the codec has to be flushed before a frame can begin.
    pub(super) fn is_torn(&self) -> bool {
        self.torn.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::{
        ClientConnection, ServerConfig, ServerConnection, crypto::ring,
        pki_types::PrivatePkcs8KeyDer,
    };
    use std::{sync::Arc, task::Waker};
    use tokio::{
        io::AsyncReadExt,
        net::{TcpListener, TcpStream},
    };
    use transport::{Stream, Tls};

    /// The two ends of a connection by TLS.
    async fn shaken(server: TcpStream, client: TcpStream) -> (Stream, Stream) {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(made.cert.der().clone()).unwrap();
        let trusting = Arc::new(transport::client(roots, None).unwrap());
        let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        let proving = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key.into())
            .unwrap();
        let name = "localhost".try_into().unwrap();
        let (proving, trusting) = (
            ServerConnection::new(Arc::new(proving)).unwrap(),
            ClientConnection::new(trusting, name).unwrap(),
        );
        let shaken = tokio::join!(Tls::shake(server, proving), Tls::shake(client, trusting));
        (Stream::Tls(Box::new(shaken.0.unwrap())), Stream::Tls(Box::new(shaken.1.unwrap())))
    }

    #[tokio::test]
    async fn frames_stay_whole_however_little_the_kernel_takes() {
        for is_tls in [false, true] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let (server, _) = listener.accept().await.unwrap();
            let (server, client) = match is_tls {
                true => shaken(server, client).await,
                false => (server.into(), client.into()),
            };
            frames_stay_whole(server, client).await;
        }
    }

    async fn frames_stay_whole(server: Stream, mut client: Stream) {
        let (_read, write) = server.into_halves();
        let outlet = Outlet::new(write);
        let frame = |byte: u8| Bytes::from(vec![byte; 3_000_000]);
        let mut expected = Vec::new();
        let mut cx = Context::from_waker(Waker::noop());
        for byte in 1.. {
            let taken = outlet.try_begin(&frame(byte)).expect("nothing was begun");
            expected.extend_from_slice(&frame(byte));
            // A session of TLS takes less at once than the kernel.
            if !taken && outlet.poll_finish(&mut cx).is_pending() {
                break;
            }
        }
        // In the middle of a frame nobody else begins one: neither the codec nor, though there is
        // room again, the hub.
        assert!(outlet.poll_write(&mut cx, b"pong").is_pending());
        assert!(!outlet.is_torn(), "the codec's frame was not begun");
        let mut first = vec![0; 2_000_000];
        client.read_exact(&mut first).await.unwrap();
        std::future::poll_fn(|cx| outlet.stream.poll_write_ready(cx)).await.unwrap();
        assert_eq!(outlet.try_begin(&frame(9)), None);
        let reading = async {
            let mut rest = vec![0; expected.len() - first.len() + 4 + 3_000_000];
            client.read_exact(&mut rest).await.unwrap();
            [first, rest].concat()
        };
        let writing = async {
            let pong = std::future::poll_fn(|cx| outlet.poll_write(cx, b"pong")).await;
            assert_eq!(pong.unwrap(), 4);
            outlet.write(frame(10)).await.unwrap();
        };
        let (got, ()) = tokio::join!(reading, writing);
        expected.extend_from_slice(b"pong");
        expected.extend_from_slice(&frame(10));
        assert!(got == expected, "frames were mixed");
        assert_eq!(outlet.try_begin(&Bytes::from_static(b"more")), Some(true));
    }
}

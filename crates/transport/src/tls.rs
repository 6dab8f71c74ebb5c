//! A session of rustls on a socket, driven by whoever uses it.

use rustls::{Connection, pki_types::CertificateDer};
use std::{
    cell::{Cell, RefCell},
    fmt,
    future::poll_fn,
    io::{self, ErrorKind, IoSlice, Read, Write},
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio::{
    io::{AsyncWrite, ReadBuf},
    net::TcpStream,
};

/// A connection by TLS. One thread at a time uses it, but need not own it alone.
pub struct Tls {
    socket: TcpStream,
    session: RefCell<Connection>,
    /// Bytes that the kernel took.
    sent: Cell<u64>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("socket", &self.socket).finish_non_exhaustive()
    }
}

impl Tls {
    /// Shakes hands on a socket.
    ///
    /// Cancel safe: the connection is dropped.
    ///
    /// # Errors
    /// The socket's; `InvalidData` with the reason if the peers do not agree, which the other
    /// one is told.
    pub async fn shake(socket: TcpStream, session: impl Into<Connection>) -> io::Result<Self> {
        let session = RefCell::new(session.into());
        let mut tls = Self { socket, session, sent: Cell::new(0) };
        poll_fn(|cx| tls.poll_shake(cx)).await?;
        Ok(tls)
    }

    fn poll_shake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.poll_flush(cx))?;
            if !self.session.get_mut().is_handshaking() {
                return Poll::Ready(Ok(()));
            }
            if !ready!(self.poll_receive(cx))? {
                return Poll::Ready(Err(ErrorKind::UnexpectedEof.into()));
            }
        }
    }

    /// The certificates by which the peer proved who it is, its own first.
    #[must_use]
    pub fn peer_certificates(&self) -> Option<Vec<CertificateDer<'static>>> {
        let session = self.session.borrow();
        session
            .peer_certificates()
            .map(|chain| chain.iter().map(|certificate| certificate.clone().into_owned()).collect())
    }

    /// Whether the handshake settled on this protocol (ALPN, RFC 7301).
    #[must_use]
    pub fn agreed_on(&self, protocol: &[u8]) -> bool {
        self.session.borrow().alpn_protocol() == Some(protocol)
    }

    pub(crate) fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// Bytes that have left, so that a slow peer can be told from one that takes nothing.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.sent.get()
    }

    /// Whether all that was written has left.
    #[must_use]
    pub fn is_flushed(&self) -> bool {
        !self.session.borrow().wants_write()
    }

    /// Writes a part of `slices`, after what was written before has left.
    ///
    /// # Errors
    /// The socket's; `WouldBlock` if nothing was written.
    pub fn try_write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.try_flush()?;
        let written = self.session.borrow_mut().writer().write_vectored(slices)?;
        match self.try_flush() {
            Err(error) if error.kind() != ErrorKind::WouldBlock => Err(error),
            Ok(()) | Err(_) => Ok(written),
        }
    }

    /// Says that nothing more comes, if that can leave at once.
    pub fn part(&self) {
        self.session.borrow_mut().send_close_notify();
        // Who does not listen need not know.
        let _ = self.try_flush();
    }

    pub(crate) fn poll_read(
        &self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let read = self.session.borrow_mut().reader().read(buffer.initialize_unfilled());
            match read {
                Ok(count) => {
                    buffer.advance(count);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() != ErrorKind::WouldBlock => {
                    return Poll::Ready(Err(error));
                }
                Err(_) => {}
            }
            // At its end, the session says how it ended.
            ready!(self.poll_receive(cx))?;
        }
    }

    pub(crate) fn poll_write(
        &self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        loop {
            match self.try_write(slices) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    ready!(self.socket.poll_write_ready(cx))?;
                }
                written => return Poll::Ready(written),
            }
        }
    }

    pub(crate) fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket.poll_write_ready(cx)
    }

    pub(crate) fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            match self.try_flush() {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    ready!(self.socket.poll_write_ready(cx))?;
                }
                flushed => return Poll::Ready(flushed),
            }
        }
    }

    pub(crate) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.session.get_mut().send_close_notify();
        ready!(self.poll_flush(cx))?;
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }

    /// Hands to the session what came; false at the end.
    fn poll_receive(&self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        loop {
            match self.try_receive() {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    ready!(self.socket.poll_read_ready(cx))?;
                }
                received => return Poll::Ready(received),
            }
        }
    }

    fn try_receive(&self) -> io::Result<bool> {
        let session = &mut *self.session.borrow_mut();
        let count = session.read_tls(&mut Now(&self.socket))?;
        if let Err(error) = session.process_new_packets() {
            // The peer is told why, if it listens.
            let _ = session.write_tls(&mut Now(&self.socket));
            return Err(io::Error::new(ErrorKind::InvalidData, error));
        }
        Ok(count > 0)
    }

    fn try_flush(&self) -> io::Result<()> {
        let session = &mut *self.session.borrow_mut();
        while session.wants_write() {
            match session.write_tls(&mut Now(&self.socket))? {
                0 => return Err(ErrorKind::WriteZero.into()),
                count => self.sent.set(self.sent.get() + count as u64),
            }
        }
        Ok(())
    }
}

/// A socket that never waits, and wakes nobody.
struct Now<'a>(&'a TcpStream);

impl Read for Now<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(buffer)
    }
}

impl Write for Now<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(slices)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;

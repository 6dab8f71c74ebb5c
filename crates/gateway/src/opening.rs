//! What comes before the first request of a connection: the word of a proxy that passes it on,
//! the handshake of TLS, and enough bytes to tell HTTP/2 from HTTP/1.

use crate::{
    acceptor,
    admission::Permit,
    certificate::ClientCertificate,
    core::Core,
    h2,
    proxy_protocol::{self, Source},
    tls::{EdgeTls, Material},
};
use rustls::ServerConnection;
use std::{
    cell::Cell,
    io::{self, ErrorKind},
    net::IpAddr,
    sync::Arc,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use transport::{Stream, Tls};

/// The type of the record that a handshake begins with (RFC 8446, section 5.1).
const HANDSHAKE: u8 = 22;

/// What a client is told that speaks HTTP where TLS is spoken.
const NOT_TLS: &[u8] = b"HTTP/1.1 400 Bad Request\r\n\
content-type: application/problem+json\r\n\
content-length: 101\r\n\
connection: close\r\n\r\n\
{\"code\":\"bad_request\",\"detail\":\"this port takes TLS only; ask by https\",\"retry\":\"never\",\"status\":400}";

/// A connection that requests can come on.
pub(crate) struct Opened {
    pub(crate) stream: Stream,
    /// What was read of the requests.
    pub(crate) first: Vec<u8>,
    /// From where it comes.
    pub(crate) ip: IpAddr,
    /// Whether that is known, so that it may be a trusted proxy.
    pub(crate) is_known: bool,
    /// By which the client has proved who it is, if it has.
    pub(crate) certificate: Option<Box<ClientCertificate>>,
}

/// Opens a connection from `peer`. To be given up after a while.
///
/// # Errors
/// The connection is of no use; its client was told why, if it can understand.
pub(crate) async fn open(
    core: &Core,
    mut socket: TcpStream,
    peer: IpAddr,
    permit: &mut Permit,
) -> io::Result<Opened> {
    let (takes_proxy, per_address_max, tls) = {
        let snapshot = core.snapshot();
        let config = &snapshot.config;
        (config.proxy_protocol, config.connections_per_ip_max, snapshot.tls.clone())
    };
    let (mut ip, mut is_known) = (peer, true);
    if takes_proxy {
        match proxy_protocol::read(&mut socket).await? {
            Source::Address(source) => ip = source,
            Source::Unknown => is_known = false,
        }
        if is_known && !permit.count_for(ip, per_address_max) {
            if tls.is_none() {
                let _ = socket.try_write(acceptor::FULL);
            }
            return Err(io::Error::other("its address has too many connections"));
        }
    }
    let (mut stream, certificate) = match tls {
        Some(tls) => {
            let material = tls.material();
            let session = shake(core, socket, &tls, &material).await?;
            let certificate = ClientCertificate::of(core, &session, material);
            (Stream::Tls(Box::new(session)), certificate.map(Box::new))
        }
        None => (Stream::Plain(socket), None),
    };
    let first = first_bytes(&mut stream).await?;
    Ok(Opened { stream, first, ip, is_known, certificate })
}

async fn shake(
    core: &Core,
    socket: TcpStream,
    tls: &EdgeTls,
    material: &Material,
) -> io::Result<Tls> {
    let mut handshake = Handshake::begin(&core.handshakes, tls)?;
    let mut first = [0];
    if socket.peek(&mut first).await? == 0 {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    if first != [HANDSHAKE] {
        if first[0].is_ascii_uppercase() {
            refuse_plain(socket).await?;
        }
        return Err(io::Error::new(ErrorKind::InvalidData, "it does not speak TLS"));
    }
    let session = ServerConnection::new(Arc::clone(&material.server)).map_err(io::Error::other)?;
    let shaken = Tls::shake(socket, session).await?;
    handshake.done = true;
    Ok(shaken)
}

/// Says so, and takes what still comes: an early reset would destroy the answer.
async fn refuse_plain(mut socket: TcpStream) -> io::Result<()> {
    socket.write_all(NOT_TLS).await?;
    socket.shutdown().await?;
    let mut rest = socket.take(64 * 1024);
    tokio::io::copy(&mut rest, &mut tokio::io::sink()).await.map(|_| ())
}

/// As many bytes as it takes to tell HTTP/2 from HTTP/1.
async fn first_bytes(stream: &mut Stream) -> io::Result<Vec<u8>> {
    let mut first = Vec::with_capacity(2048);
    loop {
        if stream.read_buf(&mut first).await? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        if first.len() >= h2::PREFACE.len() || !h2::PREFACE.starts_with(&first) {
            return Ok(first);
        }
    }
}

/// A handshake under way, for as long as it is held; it has failed if it is not `done` then.
struct Handshake<'a> {
    count: &'a Cell<usize>,
    tls: &'a EdgeTls,
    done: bool,
}

impl<'a> Handshake<'a> {
    fn begin(count: &'a Cell<usize>, tls: &'a EdgeTls) -> io::Result<Self> {
        if count.get() >= tls.config().handshakes_max {
            tls.failed();
            return Err(io::Error::other("too many handshakes are under way"));
        }
        count.set(count.get() + 1);
        Ok(Self { count, tls, done: false })
    }
}

impl Drop for Handshake<'_> {
    fn drop(&mut self) {
        self.count.set(self.count.get() - 1);
        if !self.done {
            self.tls.failed();
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_refusal_has_the_length_it_says() {
        let text = std::str::from_utf8(super::NOT_TLS).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}\r\n", body.len())), "{}", body.len());
    }
}

//! Clients that speak TLS.

use crate::support::{Client, Edge};
use rustls::{ClientConnection, pki_types::ServerName};
use std::{io, path::Path, sync::Arc};
use test_servers::Issued;
use tokio::net::TcpStream;
use transport::{Stream, Tls};

/// A client of rustls that trusts an authority.
pub(super) struct Trust(Arc<rustls::ClientConfig>);

impl Trust {
    /// That of a folder.
    pub(super) fn of(folder: &Path) -> Self {
        let roots = transport::read_roots(&folder.join("ca.pem")).unwrap();
        Self(Arc::new(transport::client(roots, None).unwrap()))
    }

    /// That of a folder, with a certificate to show.
    pub(super) fn showing(folder: &Path, own: &Issued) -> Self {
        let roots = transport::read_roots(&folder.join("ca.pem")).unwrap();
        let chain = transport::certificates(&own.certificate).unwrap();
        let key = transport::private_key(&own.key).unwrap();
        Self(Arc::new(transport::client(roots, Some((chain, key))).unwrap()))
    }

    pub(super) async fn connect(&self, edge: &Edge, name: &str) -> io::Result<Client<Stream>> {
        let socket = TcpStream::connect(edge.gateway.local_addr()).await?;
        self.shake(socket, name).await
    }

    /// Shakes hands on a connection on which something was said before.
    pub(super) async fn shake(&self, socket: TcpStream, name: &str) -> io::Result<Client<Stream>> {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let session = ClientConnection::new(Arc::clone(&self.0), name).unwrap();
        Ok(Client(Stream::Tls(Box::new(Tls::shake(socket, session).await?))))
    }
}

impl Client<Stream> {
    /// The certificate that the gateway has shown.
    pub(super) fn certificate(&self) -> Vec<u8> {
        let chain = self.0.tls().unwrap().peer_certificates().unwrap();
        chain[0].to_vec()
    }
}

/// Asks by curl: the status and the version of HTTP, and what it complained of.
pub(super) async fn curl(edge: &Edge, folder: &Path, options: &[&str]) -> (String, String) {
    let port = edge.gateway.local_addr().port();
    let output = tokio::process::Command::new("curl")
        .args(["-sS", "-o", "/dev/null", "-w", "%{http_code} %{http_version}", "--cacert"])
        .arg(folder.join("ca.pem"))
        .args(options)
        .arg(format!("https://localhost:{port}/x"))
        .output()
        .await
        .expect("curl runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (text(output.stdout), text(output.stderr))
}

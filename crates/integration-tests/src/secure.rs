//! Clients that speak TLS.

use rustls::{ClientConnection, pki_types::ServerName};
use std::{io, path::Path, process::Command, sync::Arc};
use test_servers::Issued;
use tokio::net::{TcpListener, TcpStream};
use transport::{Stream, Tls};

/// A connection to the edge at a port of this machine, which comes there by TLS: the edge has to
/// prove that it is `localhost` by a certificate that leads to `ca`, and is shown `own` if it
/// asks.
///
/// # Errors
/// If the two do not agree.
///
/// # Panics
/// If a file cannot be read.
pub async fn connect_by_tls(port: u16, ca: &Path, own: Option<&Issued>) -> io::Result<TcpStream> {
    let own = own.map(|own| {
        let chain = transport::certificates(&own.certificate).expect("a certificate");
        (chain, transport::private_key(&own.key).expect("a key"))
    });
    let roots = transport::read_roots(ca).expect("an authority");
    let client = transport::client(roots, own).expect("they belong together");
    let name = ServerName::try_from("localhost").expect("a name");
    let session = ClientConnection::new(Arc::new(client), name).map_err(io::Error::other)?;
    let socket = TcpStream::connect(("127.0.0.1", port)).await?;
    let mut secure = Stream::Tls(Box::new(Tls::shake(socket, session).await?));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let near = TcpStream::connect(listener.local_addr()?).await?;
    let (mut far, _) = listener.accept().await?;
    tokio::spawn(async move {
        let _ = tokio::io::copy_bidirectional(&mut far, &mut secure).await;
    });
    Ok(near)
}

/// Asks by curl, which shows `own` if it is asked: the body, then the status on a line of its
/// own.
///
/// # Panics
/// If curl is not there.
#[must_use]
pub fn curl(ca: &Path, own: Option<&Issued>, arguments: &[&str]) -> String {
    let mut command = Command::new("curl");
    command.args(["-sS", "-w", "\n%{http_code}", "--cacert"]).arg(ca);
    if let Some(own) = own {
        command.arg("--cert").arg(&own.certificate).arg("--key").arg(&own.key);
    }
    let output = command.args(arguments).output().expect("curl runs");
    let said = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&said).into_owned()
}

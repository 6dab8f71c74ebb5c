//! Calls by TLS: what a service has to prove, and what we show it.

use crate::{
    config::{ConfigError, Protocol},
    instance::Instance,
};
use rustls::{ClientConfig, ClientConnection, pki_types::ServerName};
use serde::{Deserialize, Serialize};
use std::{io, path::PathBuf, sync::Arc};
use tokio::net::TcpStream;
use transport::{Stream, Tls};

/// What instances at `https://host:port` have to prove, which is always checked.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TlsConfig {
    /// A PEM file with the certificates that theirs have to lead to. Default: those that the
    /// machine trusts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// The name that their certificates have to be valid for. Default: the host of each.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_name: Option<String>,
    /// A PEM file with the certificate to show to those who ask for one, and those that lead to
    /// its root. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<PathBuf>,
    /// A PEM file with its private key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
}

/// How the instances of a service are called by TLS.
#[derive(Debug, Clone)]
pub(crate) struct ServiceTls {
    client: Arc<ClientConfig>,
    name: Option<ServerName<'static>>,
    protocol: Protocol,
}

impl ServiceTls {
    /// Reads the files of `config`.
    ///
    /// # Errors
    /// [`ConfigError::Tls`].
    pub(crate) fn open(
        service: &str,
        config: &TlsConfig,
        protocol: Protocol,
    ) -> Result<Self, ConfigError> {
        Self::read(config, protocol)
            .map_err(|why| ConfigError::Tls { service: service.to_owned(), why })
    }

    fn read(config: &TlsConfig, protocol: Protocol) -> Result<Self, String> {
        let roots = match &config.ca {
            Some(file) => transport::read_roots(file)?,
            None => transport::system_roots()?,
        };
        let identity = match (&config.certificate, &config.key) {
            (Some(certificate), Some(key)) => {
                Some((transport::certificates(certificate)?, transport::private_key(key)?))
            }
            (None, None) => None,
            (Some(_), None) | (None, Some(_)) => {
                return Err("`certificate` and `key` go together".into());
            }
        };
        let name = config.server_name.clone().map(ServerName::try_from).transpose();
        let name = name.map_err(|_| "`server_name` is no name of a host")?;
        let mut client = transport::client(roots, identity)?;
        client.alpn_protocols = vec![alpn(protocol).to_vec()];
        Ok(Self { client: Arc::new(client), name, protocol })
    }
}

/// How the handshake calls it (RFC 7301).
fn alpn(protocol: Protocol) -> &'static [u8] {
    match protocol {
        Protocol::Http1 => b"http/1.1",
        Protocol::H2 => b"h2",
    }
}

/// Connects to an instance.
///
/// Cancel safe: the attempt is given up.
///
/// # Errors
/// Those of the socket and of the handshake.
pub(crate) async fn connect(instance: &Instance, tls: Option<&ServiceTls>) -> io::Result<Stream> {
    let socket = match instance.address {
        Some(address) => TcpStream::connect(address).await?,
        None => TcpStream::connect(instance.authority()).await?,
    };
    socket.set_nodelay(true)?;
    let Some(own) = &instance.tls_name else { return Ok(Stream::Plain(socket)) };
    let tls = tls.ok_or_else(|| io::Error::other("it is not configured how to call by TLS"))?;
    let name = tls.name.as_ref().unwrap_or(own).clone();
    let session = ClientConnection::new(Arc::clone(&tls.client), name).map_err(io::Error::other)?;
    let secure = Tls::shake(socket, session).await?;
    // HTTP/1.1 is what is spoken where nothing was agreed on; HTTP/2 has to be.
    if tls.protocol == Protocol::H2 && !secure.agreed_on(alpn(Protocol::H2)) {
        return Err(io::Error::other("the instance does not agree to speak HTTP/2"));
    }
    Ok(Stream::Tls(Box::new(secure)))
}

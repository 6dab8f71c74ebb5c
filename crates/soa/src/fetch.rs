//! A document that is fetched from an address which somebody named.

use crate::{
    config::Scheme,
    target::{Reach, Target, locate},
};
use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::{ClientConnection, pki_types::ServerName};
use std::{sync::Arc, time::Duration};
use tokio::net::TcpStream;
use transport::{Stream, Tls};
use url::Host;

/// Bytes of the part of a URL behind its host.
const PATH_BYTES_MAX: usize = 2_000;

/// Fetches `url` by `GET`. Its host is looked up once, every address of it has to be within
/// `reach`, and the connection goes to what was checked; nothing but 200 is an answer, so that
/// redirects lead nowhere.
///
/// Cancel safe: the attempt is given up.
///
/// # Errors
/// A sentence.
pub async fn fetch(
    url: &str,
    reach: &Reach<'_>,
    bytes_max: usize,
    within: Duration,
) -> Result<Bytes, String> {
    let (target, host, path) = parse(url)?;
    let fetched = async {
        let address = locate(&target, reach, None).await.map_err(|problem| problem.detail)?;
        let failed = |error: std::io::Error| format!("no connection to {address}: {error}");
        let socket = TcpStream::connect(address).await.map_err(failed)?;
        let stream = match target.scheme {
            Scheme::Http => Stream::Plain(socket),
            Scheme::Https => Stream::Tls(Box::new(shake(socket, &target.host).await?)),
        };
        get(stream, host, path, bytes_max).await
    };
    tokio::time::timeout(within, fetched).await.map_err(|_| "no answer in time".to_owned())?
}

/// The target, what is said to be its host, and the path.
fn parse(url: &str) -> Result<(Target, &str, &str), String> {
    let wrong = || "a URL is of the form `https://host/path`, without a fragment".to_owned();
    let (scheme, rest) = url.split_once("://").ok_or_else(wrong)?;
    let end = rest.find(['/', '?', '#', '\\']).unwrap_or(rest.len());
    let (host, path) = rest.split_at(end);
    let sound = |byte: u8| byte.is_ascii_graphic() && byte != b'#' && byte != b'\\';
    let is_path = path.starts_with('/') && path.len() <= PATH_BYTES_MAX;
    if !is_path || !path.bytes().all(sound) {
        return Err(wrong());
    }
    Ok((Target::parse(&format!("{scheme}://{host}"))?, host, path))
}

async fn shake(socket: TcpStream, host: &Host) -> Result<Tls, String> {
    let roots = transport::system_roots()?;
    let client = Arc::new(transport::client(roots, None)?);
    let name = match host {
        Host::Domain(name) => ServerName::try_from(name.clone()),
        Host::Ipv4(ip) => Ok(ServerName::from(std::net::IpAddr::V4(*ip))),
        Host::Ipv6(ip) => Ok(ServerName::from(std::net::IpAddr::V6(*ip))),
    };
    let name = name.map_err(|error| error.to_string())?;
    let session = ClientConnection::new(client, name).map_err(|error| error.to_string())?;
    Tls::shake(socket, session).await.map_err(|error| format!("TLS: {error}"))
}

async fn get(stream: Stream, host: &str, path: &str, bytes_max: usize) -> Result<Bytes, String> {
    let said = |error: hyper::Error| error.to_string();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(said)?;
    let request = Request::get(path)
        .header(header::HOST, host)
        .header(header::USER_AGENT, "crosstown")
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    let answered = async {
        let answer = sender.send_request(request).await.map_err(said)?;
        if answer.status() != StatusCode::OK {
            return Err(format!("it answers {}", answer.status()));
        }
        let body = Limited::new(answer.into_body(), bytes_max).collect().await;
        body.map(|body| body.to_bytes()).map_err(|error| error.to_string())
    };
    tokio::pin!(answered);
    tokio::select! {
        answer = &mut answered => answer,
        ended = connection => match ended {
            // The last of the answer may have come with the end.
            Ok(()) => answered.await,
            Err(error) => Err(error.to_string()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_leads_elsewhere_is_not_connected_to_in_any_spelling() {
        let here = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = here.local_addr().unwrap().port();
        let reach = Reach { networks: &[], loopback: false };
        let within = Duration::from_secs(5);
        for text in crate::target::tests::REFUSED {
            let url = format!("{}/openapi.json", text.replace(":80", &format!(":{port}")));
            // Where there is more than an address already, it is no address of a document.
            if text.matches('/').count() == 2 {
                assert!(fetch(&url, &reach, 1024, within).await.is_err(), "{url}");
            }
        }
        let connected = tokio::time::timeout(Duration::from_millis(200), here.accept()).await;
        assert!(connected.is_err(), "{connected:?}");
        // It would have been seen: where it is allowed, it is connected to.
        let reach = Reach { loopback: true, ..reach };
        let url = format!("http://127.0.0.1:{port}/openapi.json");
        let (fetched, accepted) = tokio::join!(
            fetch(&url, &reach, 1024, Duration::from_secs(1)),
            tokio::time::timeout(within, here.accept())
        );
        assert!(fetched.is_err() && accepted.unwrap().is_ok());
    }

    #[test]
    fn a_url_is_read_in_one_way() {
        let (target, host, path) = parse("https://api.example:8443/openapi.json?v=2").unwrap();
        assert_eq!((target.port, host, path), (8443, "api.example:8443", "/openapi.json?v=2"));
        for wrong in [
            "https://api.example",
            "https://api.example?x",
            "https://api.example/#x",
            "https://api.example/a b",
            "https://api.example/a\r\nx: y",
            "https://api.example\\@127.0.0.1/x",
            "https://user@api.example/x",
            "https://API.example/x",
            "http:/api.example/x",
            "file:///etc/passwd",
            "https:///x",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}

//! The edge by TLS: clients of rustls, curl and openssl.

mod clients;
mod mutual;

use crate::support::{Client, Edge, Origin, config, origin, services, soon};
use clients::{Trust, curl};
use gateway::{Config, HostCertificate, TlsConfig};
use std::{fs, path::Path, time::Duration};
use tempfile::TempDir;
use test_servers::{Authority, Issued};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

struct Files {
    folder: TempDir,
    authority: Authority,
    server: Issued,
}

impl Files {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut authority = Authority::new(folder.path(), "ca");
        let server = authority.server("server", &["localhost"]);
        Self { folder, authority, server }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Short times, and TLS by the server's certificate.
    fn config(&self) -> Config {
        Config { tls: Some(tls(&self.server)), ..config() }
    }
}

fn tls(issued: &Issued) -> TlsConfig {
    let (certificate, key) = (issued.certificate.display(), issued.key.display());
    let watch = "watch_interval = \"100ms\"";
    toml::from_str(&format!("certificate = \"{certificate}\"\nkey = \"{key}\"\n{watch}")).unwrap()
}

const ASK: &str = "GET /x HTTP/1.1\r\nhost: a\r\n\r\n";

#[tokio::test]
async fn requests_by_tls_are_served_as_others_are() {
    let (files, origin) = (Files::new(), Origin::echo().await);
    let edge = Edge::start(files.config(), &services(&[&origin.address]));
    let mut client = Trust::of(files.path()).connect(&edge, "localhost").await.unwrap();
    client.send(ASK).await;
    let answer = client.answer().await.unwrap();
    assert!(answer.text().contains("\r\nx-forwarded-proto: https\r\n"), "{}", answer.text());
    let body = vec![b'x'; 900_000];
    let head = format!("POST /y HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n", body.len());
    client.send([head.as_bytes(), &body].concat()).await;
    assert!(client.answer().await.unwrap().body.ends_with(&body));
    // Nor is a request that is ambiguous better for being encrypted.
    client
        .send("GET / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n")
        .await;
    assert_eq!(client.answer().await.unwrap().status, 400);
    assert!(client.is_closed().await);
}

#[tokio::test]
async fn versions_and_protocols_are_agreed_on() {
    let (files, origin) = (Files::new(), Origin::echo().await);
    let edge = Edge::start(files.config(), &services(&[&origin.address]));
    for (options, expected) in [
        (&["--http2"][..], "200 2"),
        (&["--http1.1"], "200 1.1"),
        (&["--tls-max", "1.2"], "200 2"),
        (&["--tlsv1.3"], "200 2"),
        (&["--tls-max", "1.1"], "000 0"),
    ] {
        let said = curl(&edge, files.path(), options).await;
        assert_eq!(said.0, expected, "{options:?}: {}", said.1);
    }
    assert!(Trust::of(files.path()).connect(&edge, "other.example").await.is_err());
}

#[tokio::test]
async fn http_on_a_port_of_tls_is_refused_and_not_left_hanging() {
    let (files, origin) = (Files::new(), Origin::echo().await);
    let edge = Edge::start(files.config(), &services(&[&origin.address]));
    let answer = edge.ask(ASK).await;
    assert_eq!((answer.status, answer.code().as_str()), (400, "bad_request"));
    for silent in ["", "\u{16}", "\u{16}\u{3}\u{1}\0\u{5}\u{1}", "\0\0\0"] {
        let mut client = edge.connect().await;
        client.send(silent).await;
        // What is told why is told so by an alert.
        let mut rest = Vec::new();
        let _ = soon(client.0.read_to_end(&mut rest)).await;
        assert!(rest.len() < 16, "{rest:?}");
    }
    assert!(origin.received().is_empty());
    assert!(edge.gateway.tls().unwrap().failed > 0);
}

#[tokio::test]
async fn handshakes_are_bounded() {
    let (files, origin) = (Files::new(), Origin::echo().await);
    let mut config = files.config();
    config.workers = 1;
    config.header_timeout = Duration::from_secs(20);
    config.tls.as_mut().unwrap().handshakes_max = 1;
    let edge = Edge::start(config, &services(&[&origin.address]));
    let trust = Trust::of(files.path());
    let mut slow = edge.connect().await;
    slow.send("\u{16}").await;
    let until = async |refused| {
        while trust.connect(&edge, "localhost").await.is_err() != refused {}
    };
    soon(until(true)).await;
    drop(slow);
    soon(until(false)).await;
}

#[tokio::test]
async fn certificates_are_renewed_under_open_connections() {
    let (mut files, origin) = (Files::new(), Origin::echo().await);
    let mut config = files.config();
    let edge = Edge::start(config.clone(), &services(&[&origin.address]));
    let trust = Trust::of(files.path());
    let mut open = trust.connect(&edge, "localhost").await.unwrap();
    let before = open.certificate();

    // A key that does not belong to the certificate; then no key; then both are new.
    let other = files.authority.server("other", &["localhost"]);
    for (key, why) in [(fs::read(&other.key).unwrap(), "belong together"), (vec![], "private key")]
    {
        fs::write(&files.server.key, key).unwrap();
        let is_told = || edge.gateway.tls().unwrap().problem.is_some_and(|told| told.contains(why));
        let told = async {
            while !is_told() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        soon(told).await;
        assert_eq!(trust.connect(&edge, "localhost").await.unwrap().certificate(), before);
        // A reload of everything else is not held up.
        edge.gateway.reload(config.clone(), &services(&[&origin.address])).unwrap();
    }
    fs::copy(&other.key, &files.server.key).unwrap();
    fs::copy(&other.certificate, &files.server.certificate).unwrap();
    let renewed =
        async { while trust.connect(&edge, "localhost").await.unwrap().certificate() == before {} };
    soon(renewed).await;
    let status = edge.gateway.tls().unwrap();
    assert_eq!((status.renewals, status.problem), (1, None));
    open.send(ASK).await;
    assert_eq!(open.answer().await.unwrap().status, 200);

    // Other files by a reload; files that are not there, not.
    let third = files.authority.server("third", &["localhost"]);
    config.tls = Some(tls(&third));
    edge.gateway.reload(config.clone(), &services(&[&origin.address])).unwrap();
    let shown = trust.connect(&edge, "localhost").await.unwrap().certificate();
    config.tls.as_mut().unwrap().key = files.path().join("nowhere");
    let error = edge.gateway.reload(config, &services(&[&origin.address])).unwrap_err();
    assert!(error.to_string().contains("nowhere"), "{error}");
    assert_eq!(trust.connect(&edge, "localhost").await.unwrap().certificate(), shown);
    open.send(ASK).await;
    assert_eq!(open.answer().await.unwrap().status, 200);
}

#[tokio::test]
async fn names_choose_certificates() {
    let (mut files, origin) = (Files::new(), Origin::echo().await);
    let api = files.authority.server("api", &["api.example", "*.api.example"]);
    let mut config = files.config();
    config.tls.as_mut().unwrap().hosts.push(HostCertificate {
        names: vec!["api.example".into(), "*.api.example".into()],
        certificate: api.certificate,
        key: api.key,
    });
    let edge = Edge::start(config, &services(&[&origin.address]));
    let trust = Trust::of(files.path());
    for (name, agrees) in [
        ("localhost", true),
        ("api.example", true),
        ("x.api.example", true),
        ("x.y.api.example", false),
        ("example", false),
    ] {
        assert_eq!(trust.connect(&edge, name).await.is_ok(), agrees, "{name}");
    }
}

#[tokio::test]
async fn streams_arrive_piece_by_piece_and_a_slow_reader_gets_all() {
    let files = Files::new();
    let address = origin(|mut client: Client, _| async move {
        while let Some((_, head)) = client.head().await {
            if head.starts_with("GET /events ") {
                let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
                client.send(head).await;
                for piece in ["3\r\none\r\n", "3\r\ntwo\r\n", "0\r\n\r\n"] {
                    client.send(piece).await;
                    let _ = client.0.read_u8().await;
                }
                return;
            }
            client.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", 4 << 20)).await;
            for _ in 0..64 {
                client.send([b'x'; 65536]).await;
            }
        }
    })
    .await;
    let edge = Edge::start(files.config(), &services(&[&address]));
    let trust = Trust::of(files.path());
    let mut client = trust.connect(&edge, "localhost").await.unwrap();
    client.send("GET /big HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let mut left = 4 << 20;
    assert_eq!(client.head().await.unwrap().0, 200);
    let mut buffer = vec![0; 256 * 1024];
    while left > 0 {
        // Slower than the gateway's patience in all, and never so long at a time.
        tokio::time::sleep(Duration::from_millis(150)).await;
        let some = left.min(buffer.len());
        soon(client.0.read_exact(&mut buffer[..some])).await.unwrap();
        left -= some;
    }
    client.send("GET /events HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert_eq!(client.head().await.unwrap().0, 200);
    // The service waits after each piece: none may be held back until there is more.
    assert_eq!(client.chunk().await.unwrap().unwrap(), b"one");
}

#[tokio::test]
async fn who_takes_nothing_of_an_answer_is_cut() {
    let files = Files::new();
    let address = origin(|mut client: Client, _| async move {
        client.head().await;
        let _ = client.0.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 99999999\r\n\r\n").await;
        while client.0.write_all(&[b'x'; 65536]).await.is_ok() {}
    })
    .await;
    let edge = Edge::start(files.config(), &services(&[&address]));
    let mut client = Trust::of(files.path()).connect(&edge, "localhost").await.unwrap();
    client.send(ASK).await;
    let gone = async {
        while edge.gateway.connections() > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    soon(gone).await;
}

#[tokio::test]
async fn bytes_flow_through_tls_after_an_upgrade() {
    let files = Files::new();
    let address = origin(|mut client: Client, _| async move {
        client.head().await;
        client.send("HTTP/1.1 101 Switching Protocols\r\nupgrade: echo\r\n\r\nhello").await;
        let mut buffer = vec![0; 4096];
        while let Ok(count @ 1..) = client.0.read(&mut buffer).await {
            client.send(&buffer[..count]).await;
        }
    })
    .await;
    let edge = Edge::start(files.config(), &services(&[&address]));
    let mut client = Trust::of(files.path()).connect(&edge, "localhost").await.unwrap();
    client.send("GET / HTTP/1.1\r\nhost: a\r\nupgrade: echo\r\nconnection: upgrade\r\n\r\n").await;
    assert_eq!(client.head().await.unwrap().0, 101);
    let mut told = [0; 5];
    soon(client.0.read_exact(&mut told)).await.unwrap();
    assert_eq!(&told, b"hello");
    for text in ["first", "again"] {
        client.send(text).await;
        soon(client.0.read_exact(&mut told)).await.unwrap();
        assert_eq!(told, text.as_bytes());
    }
}

#[tokio::test]
async fn a_drain_ends_connections_of_tls_in_order() {
    let (files, origin) = (Files::new(), Origin::echo().await);
    let edge = Edge::start(files.config(), &services(&[&origin.address]));
    let mut client = Trust::of(files.path()).connect(&edge, "localhost").await.unwrap();
    client.send(ASK).await;
    assert_eq!(client.answer().await.unwrap().status, 200);
    let cut = edge.gateway.drain(Duration::from_secs(10)).await;
    assert_eq!(cut, 0);
    // An end that is announced: a cut would be an error.
    let mut rest = Vec::new();
    assert_eq!(soon(client.0.read_to_end(&mut rest)).await.unwrap(), 0);
}

#[tokio::test]
async fn tls_makes_a_listener_fit_for_the_network() {
    let files = Files::new();
    let mut config = files.config();
    config.listen = "0.0.0.0:0".parse().unwrap();
    let checked = |config: &Config| gateway::Gateway::check(config, &services(&["127.0.0.1:9"]));
    checked(&config).unwrap();
    fs::write(&files.server.certificate, "nothing").unwrap();
    let said = checked(&config).unwrap_err().to_string();
    assert!(said.contains("holds no certificate"), "{said}");
    config.tls = None;
    assert!(checked(&config).unwrap_err().to_string().contains("[edge.tls]"));
}

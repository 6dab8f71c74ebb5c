//! Services that are called by TLS.

use crate::support::{Edge, Origin, config, services, soon};
use rustls::{
    ServerConfig, ServerConnection,
    crypto::ring,
    server::{NoClientAuth, WebPkiClientVerifier},
};
use soa::{ServiceConfig, TlsConfig};
use std::{path::Path, sync::Arc, time::Duration};
use test_servers::{Authority, Issued};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use transport::{Stream, Tls};

struct Files {
    folder: tempfile::TempDir,
    authority: Authority,
    server: Issued,
}

impl Files {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut authority = Authority::new(folder.path(), "ca");
        let server = authority.server("service", &["service.example", "127.0.0.1"]);
        Self { folder, authority, server }
    }

    fn trust(&self) -> TlsConfig {
        TlsConfig { ca: Some(self.folder.path().join("ca.pem")), ..TlsConfig::default() }
    }

    /// How a service of these shakes hands; with `asks`, only with clients of the authority.
    fn accepts(&self, asks: bool) -> Arc<ServerConfig> {
        let ca: &Path = &self.folder.path().join("ca.pem");
        let provider = Arc::new(ring::default_provider());
        let roots = Arc::new(transport::read_roots(ca).unwrap());
        let clients = match asks {
            true => WebPkiClientVerifier::builder_with_provider(roots, provider.clone())
                .build()
                .unwrap(),
            false => Arc::new(NoClientAuth),
        };
        let chain = transport::certificates(&self.server.certificate).unwrap();
        let key = transport::private_key(&self.server.key).unwrap();
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(clients)
            .with_single_cert(chain, key);
        Arc::new(config.unwrap())
    }

    async fn echo(&self, asks: bool) -> Origin {
        let server = self.accepts(asks);
        Origin::echo_over(move |socket| accept(socket, server.clone())).await
    }
}

async fn accept(socket: TcpStream, server: Arc<ServerConfig>) -> Option<Stream> {
    let session = ServerConnection::new(server).ok()?;
    Some(Stream::Tls(Box::new(Tls::shake(socket, session).await.ok()?)))
}

/// A service at this host and port, called as `tls` says.
fn service(address: &str, tls: TlsConfig) -> soa::Config {
    let at = ServiceConfig::at([format!("https://{address}")]);
    [("origin".to_owned(), ServiceConfig { tls: Some(tls), ..at })].into()
}

const ASK: &str = "GET /x HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";

#[tokio::test]
async fn a_service_has_to_prove_who_it_is() {
    let files = Files::new();
    let origin = files.echo(false).await;
    let others = tempfile::tempdir().unwrap();
    let _other = Authority::new(others.path(), "ca");
    let other_ca = TlsConfig { ca: Some(others.path().join("ca.pem")), ..TlsConfig::default() };
    let named = |name: &str| TlsConfig { server_name: Some(name.into()), ..files.trust() };
    for (tls, status) in [
        (files.trust(), 200),
        (named("service.example"), 200),
        (named("other.example"), 502),
        (other_ca, 502),
        // What the machine trusts does not include it.
        (TlsConfig::default(), 502),
    ] {
        let edge = Edge::start(config(), &service(&origin.address, tls.clone()));
        let answer = edge.ask(ASK).await;
        assert_eq!(answer.status, status, "{tls:?}");
        if status == 502 {
            assert_eq!(answer.code(), "upstream_unreachable");
        } else {
            // How the client came, not how the service is called.
            assert!(answer.text().contains("x-forwarded-proto: http\r\n"), "{}", answer.text());
        }
    }
    // Neither one that speaks no TLS, nor TLS to one that is called in the clear.
    let plain = Origin::echo().await;
    let edge = Edge::start(config(), &service(&plain.address, files.trust()));
    assert_eq!(edge.ask(ASK).await.status, 502);
    let edge = Edge::start(config(), &services(&[&origin.address]));
    assert_eq!(edge.ask(ASK).await.status, 502);
    assert_eq!(origin.requests().unwrap().len(), 2);
}

#[tokio::test]
async fn connections_by_tls_are_used_again_and_carry_large_bodies() {
    let files = Files::new();
    let origin = files.echo(false).await;
    let mut config = config();
    config.workers = 1;
    let edge = Edge::start(config.clone(), &service(&origin.address, files.trust()));
    let body = vec![b'x'; 900_000];
    let head = format!("POST /y HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n", body.len());
    let mut client = edge.connect().await;
    for _ in 0..3 {
        client.send([head.as_bytes(), &body].concat()).await;
        assert!(client.answer().await.unwrap().body.ends_with(&body));
    }
    assert_eq!(origin.received().len(), 1);
    // Not after a reload that asks for more, or less.
    let named = TlsConfig { server_name: Some("other.example".into()), ..files.trust() };
    edge.gateway.reload(config, &service(&origin.address, named)).unwrap();
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert_eq!(client.answer().await.unwrap().status, 502);
}

#[tokio::test]
async fn a_service_that_asks_is_shown_a_certificate() {
    let mut files = Files::new();
    let origin = files.echo(true).await;
    let own = files.authority.client("own", "crosstown", &[]);
    let showing =
        TlsConfig { certificate: Some(own.certificate), key: Some(own.key), ..files.trust() };
    for (tls, status) in [(showing, 200), (files.trust(), 502)] {
        let edge = Edge::start(config(), &service(&origin.address, tls));
        assert_eq!(edge.ask(ASK).await.status, status);
    }
}

#[tokio::test]
async fn checks_are_by_tls_too() {
    let files = Files::new();
    let origin = files.echo(false).await;
    let named = TlsConfig { server_name: Some("other.example".into()), ..files.trust() };
    for (tls, path, fit) in [
        (files.trust(), Some("/health"), true),
        (files.trust(), None, true),
        (named.clone(), Some("/health"), false),
        (named, None, false),
    ] {
        let mut services = service(&origin.address, tls);
        let health = "interval = \"20ms\"\nunfit_after = 1\nfit_after = 1";
        let mut health: soa::HealthConfig = toml::from_str(health).unwrap();
        health.path = path.map(str::to_owned);
        services.get_mut("origin").unwrap().health = Some(health);
        let edge = Edge::start(config(), &services);
        let is_fit = || {
            let mut is = true;
            edge.gateway.instances(|_, instance, _, _, elapsed| {
                is = instance.condition(elapsed) == soa::Condition::Fit;
            });
            is
        };
        let decided = async {
            while is_fit() != fit {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        soon(decided).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(is_fit(), fit);
    }
}

#[tokio::test]
async fn bytes_flow_to_a_service_by_tls_after_an_upgrade() {
    let files = Files::new();
    let (listener, server) =
        (TcpListener::bind("127.0.0.1:0").await.unwrap(), files.accepts(false));
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        let mut stream = accept(listener.accept().await.unwrap().0, server).await.unwrap();
        let mut buffer = vec![0; 4096];
        let _ = stream.read(&mut buffer).await;
        let head = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: echo\r\nconnection: upgrade\r\n\r\nhello";
        stream.write_all(head).await.unwrap();
        stream.flush().await.unwrap();
        while let Ok(count @ 1..) = stream.read(&mut buffer).await {
            stream.write_all(&buffer[..count]).await.unwrap();
            stream.flush().await.unwrap();
        }
    });
    let edge = Edge::start(config(), &service(&address, files.trust()));
    let mut client = edge.connect().await;
    client.send("GET / HTTP/1.1\r\nhost: a\r\nupgrade: echo\r\nconnection: upgrade\r\n\r\n").await;
    assert_eq!(client.head().await.unwrap().0, 101);
    let mut told = [0; 5];
    for text in ["hello", "first", "again"] {
        if text != "hello" {
            client.send(text).await;
        }
        soon(client.0.read_exact(&mut told)).await.unwrap();
        assert_eq!(told, text.as_bytes());
    }
}

#[test]
fn what_cannot_be_called_by_tls_is_refused() {
    let check = |services: &soa::Config| {
        gateway::Gateway::check(&config(), services).unwrap_err().to_string()
    };
    let of = |text: &str| toml::from_str::<soa::Config>(text).unwrap();
    let https = "[origin]\ninstances = [\"https://a.example\"]\n";
    for (config, why) in [
        (of(&format!("{https}tls = {{ ca = \"nowhere.pem\" }}")), "nowhere.pem"),
        (of(&format!("{https}tls = {{ certificate = \"c.pem\" }}")), "go together"),
        (of(&format!("{https}tls = {{ server_name = \"a b\" }}")), "server_name"),
        (
            of("[origin]\ninstances = [\"http://a.example\"]\ntls = { server_name = \"a\" }"),
            "there is none",
        ),
    ] {
        let said = check(&config);
        assert!(said.contains(why), "{said}");
    }
    assert!(toml::from_str::<soa::Config>(&format!("{https}tls = {{ verify = false }}")).is_err());
}

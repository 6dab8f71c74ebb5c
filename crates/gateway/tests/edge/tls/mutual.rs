//! Clients that prove by a certificate who they are.

use super::{Files, clients::Trust};
use crate::support::{Client, Edge, Origin, services, soon};
use gateway::{Auth, ClientAuth, Config, RouteConfig};
use rustls::{ClientConnection, HandshakeKind, StreamOwned};
use std::{
    fs,
    io::{Read, Write},
    sync::Arc,
    time::Duration,
};
use test_servers::Authority;
use transport::Stream;

const RULES: &str = "
[[certificates]]
uri = \"spiffe://example.org/{tenant}/{name}\"
roles = [\"internal\"]

[anonymous]
tenant = \"public\"
";

/// Routes for everybody who may, and for those who need a credential.
fn config(files: &Files, auth: ClientAuth) -> Config {
    let mut config = files.config();
    let tls = config.tls.as_mut().unwrap();
    tls.client_auth = auth;
    tls.client_ca = Some(files.path().join("ca.pem"));
    let route = |name: &str, auth, roles: &[&str]| RouteConfig {
        name: name.into(),
        service: "origin".into(),
        prefix: Some(format!("/{name}")),
        auth,
        roles: roles.iter().map(|role| (*role).to_owned()).collect(),
        ..RouteConfig::default()
    };
    config.routes.push(route("required", Auth::Required, &[]));
    config.routes.push(route("internal", Auth::Required, &["internal"]));
    config.routes.push(route("optional", Auth::Optional, &[]));
    config
}

fn edge(config: Config, origin: &Origin) -> Edge {
    let identity = toml::from_str(RULES).unwrap();
    let services = services(&[&origin.address]);
    Edge::identifying(config, &services, Vec::new(), &identity, Arc::new(|_| Vec::new()))
}

/// Asks: the status, and who the service was told calls.
async fn ask(client: &mut Client<Stream>, path: &str, fields: &str) -> String {
    client.send(format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n{fields}\r\n")).await;
    let Some(answer) = client.answer().await else { return "closed".into() };
    let told = |name: &str| {
        let line =
            answer.text().lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        line.unwrap_or("-").to_owned()
    };
    if answer.status != 200 {
        return answer.status.to_string();
    }
    let names = ["tenant", "kind", "principal", "roles"];
    names.map(|name| told(&format!("x-crosstown-{name}"))).join(" ")
}

#[tokio::test]
async fn a_certificate_that_a_rule_knows_is_a_credential() {
    let (mut files, origin) = (Files::new(), Origin::echo().await);
    let edge = edge(config(&files, ClientAuth::Optional), &origin);
    let known = files.authority.client("known", "x", &["spiffe://example.org/acme/billing"]);
    let other = files.authority.client("other", "x", &["spiffe://example.com/acme/billing"]);
    let key = edge.key("acme", "robot", &[]).await;
    let mut client =
        Trust::showing(files.path(), &known).connect(&edge, "localhost").await.unwrap();
    let billing = "acme service billing internal";
    for (path, fields, expected) in [
        ("/required", String::new(), billing),
        ("/internal", String::new(), billing),
        ("/optional", String::new(), billing),
        ("/none", String::new(), "- - - -"),
        // A claim is not a credential; a credential goes first, and a wrong one is wrong.
        ("/required", "x-crosstown-principal: root\r\n".into(), billing),
        ("/required", format!("authorization: Bearer {key}\r\n"), "acme service robot -"),
        ("/required", "authorization: Bearer wrong\r\n".into(), "401"),
        // A browser shows it for any page, so for others' pages it says nothing.
        ("/required", "origin: https://localhost\r\n".into(), billing),
        ("/required", "origin: https://evil.example\r\n".into(), "401"),
        ("/optional", "sec-fetch-site: cross-site\r\n".into(), "public user anonymous -"),
    ] {
        assert_eq!(ask(&mut client, path, &fields).await, expected, "{path} {fields}");
    }
    let mut nobody =
        Trust::showing(files.path(), &other).connect(&edge, "localhost").await.unwrap();
    assert_eq!(ask(&mut nobody, "/required", "").await, "401");
    assert_eq!(ask(&mut nobody, "/optional", "").await, "public user anonymous -");
    let mut without = Trust::of(files.path()).connect(&edge, "localhost").await.unwrap();
    assert_eq!(ask(&mut without, "/required", "").await, "401");
}

#[tokio::test]
async fn a_certificate_of_nobody_that_is_trusted_ends_the_handshake() {
    let (mut files, origin) = (Files::new(), Origin::echo().await);
    let elsewhere = tempfile::tempdir().unwrap();
    let mut stranger = Authority::new(elsewhere.path(), "stranger");
    let uri = "spiffe://example.org/acme/billing";
    let false_one = stranger.client("false", "x", &[uri]);
    // A server's certificate is not one of a client.
    let server = files.authority.server("other", &["localhost"]);
    let known = files.authority.client("known", "x", &[uri]);
    for (auth, without) in [(ClientAuth::Optional, "401"), (ClientAuth::Required, "closed")] {
        let edge = edge(config(&files, auth), &origin);
        for (trust, expected) in [
            (Trust::showing(files.path(), &false_one), "closed"),
            (Trust::showing(files.path(), &server), "closed"),
            (Trust::of(files.path()), without),
            (Trust::showing(files.path(), &known), "acme service billing internal"),
        ] {
            assert_eq!(told(&trust, &edge).await, expected);
        }
    }
}

/// What somebody is told who connects and asks. By TLS 1.3 a client learns only when it reads
/// that its certificate was refused.
async fn told(trust: &Trust, edge: &Edge) -> String {
    match trust.connect(edge, "localhost").await {
        Ok(mut client) => ask(&mut client, "/required", "").await,
        Err(_) => "closed".into(),
    }
}

#[tokio::test]
async fn what_is_revoked_ends_on_open_connections_too() {
    let (mut files, origin) = (Files::new(), Origin::echo().await);
    let mut config = config(&files, ClientAuth::Optional);
    config.tls.as_mut().unwrap().client_crl = Some(files.authority.revoke("crl", &[]));
    let edge = edge(config.clone(), &origin);
    let uri = "spiffe://example.org/acme/billing";
    let (lost, kept) =
        (files.authority.client("lost", "x", &[uri]), files.authority.client("kept", "x", &[uri]));
    let mut with_lost =
        Trust::showing(files.path(), &lost).connect(&edge, "localhost").await.unwrap();
    let mut with_kept =
        Trust::showing(files.path(), &kept).connect(&edge, "localhost").await.unwrap();
    let billing = "acme service billing internal";
    assert_eq!(ask(&mut with_lost, "/required", "").await, billing);
    assert_eq!(ask(&mut with_kept, "/required", "").await, billing);
    let _ = files.authority.revoke("crl", &[lost.serial]);
    let renewed = async {
        while edge.gateway.tls().unwrap().renewals == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    soon(renewed).await;
    assert_eq!(ask(&mut with_lost, "/required", "").await, "401");
    assert_eq!(ask(&mut with_kept, "/required", "").await, billing);
    assert_eq!(told(&Trust::showing(files.path(), &lost), &edge).await, "closed");
    // A list that cannot be read leaves the last in force.
    fs::write(files.path().join("crl.pem"), "").unwrap();
    edge.gateway.reload(config, &services(&[&origin.address])).unwrap();
    assert!(edge.gateway.tls().unwrap().problem.unwrap().contains("revocation list"));
    assert_eq!(ask(&mut with_lost, "/required", "").await, "401");
    assert_eq!(ask(&mut with_kept, "/required", "").await, billing);
}

#[tokio::test]
async fn the_certificate_of_a_proxy_is_not_its_clients() {
    let (mut files, origin) = (Files::new(), Origin::echo().await);
    let mut config = config(&files, ClientAuth::Optional);
    config.trusted_proxies = vec!["127.0.0.1".parse().unwrap()];
    let edge = edge(config, &origin);
    let proxy = files.authority.client("proxy", "x", &["spiffe://example.org/acme/proxy"]);
    let mut proxy = Trust::showing(files.path(), &proxy).connect(&edge, "localhost").await.unwrap();
    for fields in ["x-forwarded-for: 203.0.113.7\r\n", ""] {
        assert_eq!(ask(&mut proxy, "/required", fields).await, "401");
    }
}

#[tokio::test]
async fn a_session_is_not_resumed_where_a_certificate_is_asked_for() {
    let (files, origin) = (Files::new(), Origin::echo().await);
    for (config, kind) in [
        (files.config(), HandshakeKind::Resumed),
        (config(&files, ClientAuth::Optional), HandshakeKind::Full),
    ] {
        let edge = edge(config, &origin);
        let address = edge.gateway.local_addr();
        let roots = transport::read_roots(&files.path().join("ca.pem")).unwrap();
        let client = Arc::new(transport::client(roots, None).unwrap());
        let twice = tokio::task::spawn_blocking(move || {
            [(); 2].map(|()| {
                let name = "localhost".try_into().unwrap();
                let session = ClientConnection::new(Arc::clone(&client), name).unwrap();
                let socket = std::net::TcpStream::connect(address).unwrap();
                let mut stream = StreamOwned::new(session, socket);
                stream
                    .write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
                    .unwrap();
                // Tickets come with the answer.
                stream.read_to_end(&mut Vec::new()).unwrap();
                stream.conn.handshake_kind().unwrap()
            })
        });
        assert_eq!(twice.await.unwrap(), [HandshakeKind::Full, kind]);
    }
}

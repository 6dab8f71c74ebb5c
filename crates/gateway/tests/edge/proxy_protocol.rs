//! Connections that a proxy passes on, and says so first.

use crate::support::{Edge, Origin, config, services};
use gateway::Config;
use std::sync::Arc;
use tokio::io::AsyncWriteExt;

const ASK: &str = "GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";

fn behind(networks: &[&str]) -> Config {
    let trusted_proxies = networks.iter().map(|text| text.parse().unwrap()).collect();
    Config { proxy_protocol: true, trusted_proxies, ..config() }
}

/// A header of version 2 for a connection from this address.
fn version_2(from: [u8; 4], more: &[u8]) -> Vec<u8> {
    let length = u16::try_from(12 + more.len()).unwrap().to_be_bytes();
    let ports = [192, 0, 2, 1, 0x12, 0x34, 1, 0xbb];
    [b"\r\n\r\n\0\r\nQUIT\n\x21\x11", &length[..], &from, &ports, more].concat()
}

#[tokio::test]
async fn the_client_is_who_the_proxy_says() {
    let origin = Origin::echo().await;
    let edge = Edge::start(behind(&["127.0.0.1"]), &services(&[&origin.address]));
    let v1 = |line: &str| [line.as_bytes(), ASK.as_bytes()].concat();
    let spoofing = ASK.replace("host: a", "host: a\r\nx-forwarded-for: 198.51.100.1");
    for (bytes, client) in [
        (v1("PROXY TCP4 203.0.113.7 192.0.2.1 56324 443\r\n"), "203.0.113.7"),
        (v1("PROXY TCP6 2001:db8::7 2001:db8::1 56324 443\r\n"), "2001:db8::7"),
        (v1("PROXY UNKNOWN\r\n"), "127.0.0.1"),
        ([&version_2([203, 0, 113, 8], b"")[..], ASK.as_bytes()].concat(), "203.0.113.8"),
        (
            [&version_2([203, 0, 113, 9], b"\x01\0\x02h2")[..], ASK.as_bytes()].concat(),
            "203.0.113.9",
        ),
        // Who speaks through it is not trusted because it is.
        ([&version_2([203, 0, 113, 8], b"")[..], spoofing.as_bytes()].concat(), "203.0.113.8"),
        ([b"PROXY UNKNOWN\r\n", spoofing.as_bytes()].concat(), "127.0.0.1"),
        // Unless it is a trusted proxy itself.
        ([b"PROXY TCP4 127.0.0.1 127.0.0.1 1 2\r\n", spoofing.as_bytes()].concat(), "198.51.100.1"),
    ] {
        let mut client_side = edge.connect().await;
        client_side.send(&bytes).await;
        let answer = client_side.answer().await.unwrap();
        let told = format!("x-forwarded-for: {client}\r\n");
        assert!(answer.text().contains(&told), "{client}: {}", answer.text());
    }
    // It comes in pieces, byte by byte.
    for header in [b"PROXY TCP4 203.0.113.7 1.1.1.1 1 2\r\n".to_vec(), version_2([1, 1, 1, 1], b"")]
    {
        let mut client_side = edge.connect().await;
        client_side.0.set_nodelay(true).unwrap();
        for byte in header {
            client_side.send([byte]).await;
            tokio::task::yield_now().await;
        }
        client_side.send(ASK).await;
        assert_eq!(client_side.answer().await.unwrap().status, 200);
    }
}

#[tokio::test]
async fn who_does_not_say_first_is_closed() {
    let origin = Origin::echo().await;
    let edge = Edge::start(behind(&["127.0.0.1"]), &services(&[&origin.address]));
    for bytes in [
        ASK.as_bytes().to_vec(),
        b"PROXY TCP4 203.0.113.7 192.0.2.1 56324\r\nGET / HTTP/1.1\r\n".to_vec(),
        b"PROXY TCP4 203.0.113.7 192.0.2.1 1 2\nGET / HTTP/1.1\r\n".to_vec(),
        vec![b'P'; 4096],
        [&version_2([1, 1, 1, 1], &[0; 4])[..], ASK.as_bytes()].concat(),
    ] {
        let mut client = edge.connect().await;
        client.send(&bytes).await;
        assert!(client.is_closed().await, "{bytes:?}");
    }
    // Nor who says nothing at all, or not to the end.
    for begun in ["", "PROXY TCP4 203."] {
        let mut client = edge.connect().await;
        client.send(begun).await;
        assert!(client.is_closed().await);
    }
    // Others than the proxies are not even read.
    let edge = Edge::start(behind(&["10.0.0.0/8"]), &services(&[&origin.address]));
    let mut client = edge.connect().await;
    let _ = client.0.write_all(format!("PROXY UNKNOWN\r\n{ASK}").as_bytes()).await;
    assert!(client.is_closed().await);
    assert!(origin.received().is_empty());
}

#[tokio::test]
async fn addresses_behind_a_proxy_are_counted_one_by_one() {
    let origin = Origin::echo().await;
    let config = Config { connections_per_ip_max: 1, ..behind(&["127.0.0.1"]) };
    let none = Arc::new(|_| Vec::new());
    let edge = Edge::with(config, &services(&[&origin.address]), Vec::new(), None, none);
    let header = |last| format!("PROXY TCP4 203.0.113.{last} 192.0.2.1 1 2\r\n");
    let ask = ASK.replace("close", "keep-alive");
    let mut first = edge.connect().await;
    first.send(header(1) + &ask).await;
    assert_eq!(first.answer().await.unwrap().status, 200);
    let mut other = edge.connect().await;
    other.send(header(2) + &ask).await;
    assert_eq!(other.answer().await.unwrap().status, 200);
    let mut second = edge.connect().await;
    second.send(header(1)).await;
    assert_eq!(second.answer().await.unwrap().status, 503);
}

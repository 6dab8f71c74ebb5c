use crate::{Stream, client};
use rustls::{
    ClientConnection, RootCertStore, ServerConfig, ServerConnection, crypto::ring,
    pki_types::PrivatePkcs8KeyDer,
};
use std::{io::ErrorKind, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::Tls;

/// A server and a client that have shaken hands.
async fn pair() -> (Stream, Stream) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let proving = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key.into())
        .unwrap();
    let proving = ServerConnection::new(Arc::new(proving)).unwrap();
    let name = "localhost".try_into().unwrap();
    let trusting = ClientConnection::new(Arc::new(client(roots, None).unwrap()), name).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (far, _) = listener.accept().await.unwrap();
    let (server, client) = tokio::join!(Tls::shake(far, proving), Tls::shake(near, trusting));
    let stream = |tls| Stream::Tls(Box::new(tls));
    (stream(server.unwrap()), stream(client.unwrap()))
}

#[tokio::test]
async fn what_tls_says_of_itself_is_quiet_and_bytes_are_not() {
    let (mut server, mut client) = pair().await;
    // Tickets for another session are on their way.
    tokio::time::timeout(Duration::from_millis(100), client.read_u8()).await.unwrap_err();
    assert!(client.is_quiet() && server.is_quiet());
    server.write_all(b"x").await.unwrap();
    server.flush().await.unwrap();
    let said = async {
        while client.is_quiet() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), said).await.unwrap();
}

#[tokio::test]
async fn an_end_that_is_announced_is_told_from_a_cut() {
    let mut rest = Vec::new();
    let (mut server, mut client) = pair().await;
    server.write_all(b"all").await.unwrap();
    server.shutdown().await.unwrap();
    assert_eq!(client.read_to_end(&mut rest).await.unwrap(), 3);
    assert!(!client.is_quiet());

    let (mut server, mut client) = pair().await;
    server.write_all(b"some").await.unwrap();
    server.flush().await.unwrap();
    drop(server);
    let error = client.read_to_end(&mut rest).await.unwrap_err();
    assert_eq!((error.kind(), &rest[..]), (ErrorKind::UnexpectedEof, &b"allsome"[..]));
}

#[tokio::test]
async fn a_flush_says_that_all_has_left_however_much_it_is() {
    let (mut server, mut client) = pair().await;
    let shortly = Duration::from_millis(100);
    let mut all: Vec<u8> = Vec::new();
    loop {
        let more: Vec<u8> = (all.len()..all.len() + 50_000).map(|n| (n % 251) as u8).collect();
        match tokio::time::timeout(shortly, server.write(&more)).await {
            Ok(written) => all.extend_from_slice(&more[..written.unwrap()]),
            // The kernel takes no more.
            Err(_) => break,
        }
    }
    tokio::time::timeout(shortly, server.flush()).await.unwrap_err();
    assert!(!server.tls().unwrap().is_flushed());
    let mut read = vec![0; all.len()];
    let (flushed, read_all) = tokio::join!(server.flush(), client.read_exact(&mut read));
    flushed.unwrap();
    read_all.unwrap();
    assert!(read == all, "bytes were mixed");
    let tls = server.tls().unwrap();
    assert!(tls.is_flushed() && tls.sent() > all.len() as u64);
}

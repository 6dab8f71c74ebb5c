//! What a client writes about itself changes nothing in whom it is counted as.

use super::{WHOAMI, ready};
use integration_tests::Server;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// The status of a request with these header fields, on a connection of its own.
async fn status(server: &Server, token: &str, fields: &str) -> u16 {
    let mut stream = TcpStream::connect(server.edge()).await.unwrap();
    let request = format!(
        "GET {WHOAMI} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {token}\r\n\
         connection: close\r\n{fields}\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer.split(' ').nth(1).unwrap_or_else(|| panic!("{fields}: {answer}")).parse().unwrap()
}

/// Fields that other proxies believe, each with values that differ.
fn spoofs() -> Vec<String> {
    let names = [
        "X-Forwarded-For",
        "x-forwarded-for",
        "Forwarded",
        "X-Real-IP",
        "X-Client-IP",
        "X-Cluster-Client-IP",
        "True-Client-IP",
        "CF-Connecting-IP",
        "Fastly-Client-IP",
        "X-Original-Forwarded-For",
        "X-ProxyUser-Ip",
        "Via",
        "X-Crosstown-Tenant",
        "X-Crosstown-Principal",
        "X-Crosstown-Kind",
        "X-Crosstown-Session",
        "X-Crosstown-Peer",
        "X-User-Id",
        "X-Tenant-Id",
        "X-Session-Id",
        "X-RateLimit-Bypass",
        "RateLimit",
    ];
    let values = [
        "10.9.8.7",
        "10.9.8.7, 127.0.0.1",
        "127.0.0.2",
        "2001:db8::1",
        "for=10.9.8.6;proto=https",
        "for=\"[2001:db8::2]:80\", for=127.0.0.1",
        "other",
        "",
    ];
    let mut spoofs = Vec::new();
    for name in names {
        spoofs.extend(values.iter().map(|value| format!("{name}: {value}\r\n")));
        spoofs.push(format!("{name}: 10.1.1.1\r\n{name}: 10.1.1.2\r\n"));
    }
    spoofs
}

#[tokio::test]
async fn no_header_field_makes_a_client_somebody_else() {
    for per in ["ip", "user", "tenant", "session", "route", "global"] {
        let server = Server::start(&format!(
            "[[limits]]\nname = \"few\"\nper = \"{per}\"\nrequests = 3\nperiod = \"31d\"\n"
        ));
        ready(&server).await;
        let token = server.token("acme", "ann");
        for _ in 0..3 {
            assert_eq!(status(&server, &token, "").await, 200);
        }
        for spoof in spoofs() {
            let status = status(&server, &token, &spoof).await;
            assert!(matches!(status, 400 | 429), "{per}: {status} for {spoof}");
        }
        assert_eq!(status(&server, &token, "").await, 429);
    }
}

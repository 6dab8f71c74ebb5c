//! Clients that come by TLS, to everything that the edge has.

use integration_tests::{Server, Socket, connect_by_tls, curl};
use serde_json::{Value as Json, json};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};
use tempfile::TempDir;
use test_servers::{Authority, Issued, Process, free_ports};

struct Files {
    folder: TempDir,
    authority: Authority,
    server: Issued,
}

impl Files {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut authority = Authority::new(folder.path(), "ca");
        let server = authority.server("server", &["localhost", "127.0.0.1"]);
        Self { folder, authority, server }
    }

    fn ca(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// The table `edge.tls`.
    fn config(&self, more: &str) -> String {
        let Issued { certificate, key, .. } = &self.server;
        let (certificate, key) = (certificate.display(), key.display());
        let table = format!("[edge.tls]\ncertificate = \"{certificate}\"\nkey = \"{key}\"\n");
        format!("{table}watch_interval = \"100ms\"\n{more}\n")
    }

    async fn socket(&self, server: &Server, own: Option<&Issued>) -> Socket {
        let port = server.edge().1;
        let stream = connect_by_tls(port, &self.ca(), own).await.unwrap();
        Socket::try_open_over(stream, &format!("localhost:{port}")).await.unwrap()
    }

    async fn connected(&self, server: &Server, user: &str) -> Socket {
        let mut socket = self.socket(server, None).await;
        let token = server.token("acme", user);
        socket.ask("connect", json!({ "token": token })).await.unwrap();
        socket.ask("subscribe", json!({ "channel": "room" })).await.unwrap();
        socket
    }
}

async fn health(server: &Server) -> Json {
    server.admin().get("/health").await.unwrap()
}

#[tokio::test]
async fn sockets_by_tls_are_served_and_outlive_the_certificate_that_they_saw() {
    let mut files = Files::new();
    let mut server = Server::start(&files.config(""));
    let mut ann = files.connected(&server, "ann").await;
    let mut bob = files.connected(&server, "bob").await;
    // More than a record, and more than the kernel takes at once.
    let data = "x".repeat(40_000);
    for n in 0..50 {
        let data = json!({ "n": n, "data": data });
        ann.ask("publish", json!({ "channel": "room", "data": data })).await.unwrap();
    }
    for n in 0..50 {
        let push = bob.push().await;
        assert_eq!(push["pub"]["data"], json!({ "n": n, "data": data }));
        ann.push().await;
    }

    let renewed = files.authority.server("renewed", &["localhost"]);
    fs::copy(&renewed.certificate, &files.server.certificate).unwrap();
    fs::write(&files.server.key, "no key").unwrap();
    let said: Json = server.admin().post("/reload", &()).await.unwrap();
    assert!(said["status"].as_str().unwrap().contains("stay in use"), "{said}");
    let told = health(&server).await;
    assert_eq!(told["status"], "degraded");
    assert!(told["tls"]["problem"].as_str().unwrap().contains("no private key"), "{told}");
    assert_eq!(server.metric("crosstown_tls_problem").await, 1);
    fs::copy(&renewed.key, &files.server.key).unwrap();
    let _: Json = server.admin().post("/reload", &()).await.unwrap();
    let told = health(&server).await;
    assert_eq!((&told["status"], &told["tls"]["problem"]), (&json!("ok"), &Json::Null));
    assert_eq!(server.metric("crosstown_tls_problem").await, 0);

    let mut late = files.connected(&server, "late").await;
    ann.ask("publish", json!({ "channel": "room", "data": "still here" })).await.unwrap();
    for socket in [&mut bob, &mut late] {
        assert_eq!(socket.push().await["pub"]["data"], "still here");
    }
    // A node that ends tells its sockets, by TLS as otherwise.
    let ending = std::thread::spawn(move || server.stop());
    assert!((3000..4000).contains(&bob.close_code().await));
    ending.join().unwrap();
}

#[tokio::test]
async fn a_stream_comes_by_tls_as_it_is_said() {
    let files = Files::new();
    let server = Server::start(&files.config(""));
    let url = format!("https://localhost:{}/connection/http_stream", server.edge().1);
    let token = server.token("acme", "ann");
    let connect = json!({ "id": 1, "connect": { "token": token } }).to_string();
    // It has no end: what came in two seconds has left at once.
    let said = curl(&files.ca(), None, &["-N", "--max-time", "2", "-d", &connect, &url]);
    assert!(said.contains("\"connect\":{") && said.contains("\"client\":"), "{said}");
}

/// A service by TLS that asks for a certificate, and answers with the header fields it was sent.
const SERVICE: &str = r#"
import http.server, json, ssl, sys
class Told(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        told = dict((name.lower(), value) for name, value in self.headers.items())
        told["certificate"] = dict(pair[0] for pair in self.connection.getpeercert()["subject"])
        body = json.dumps(told).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_): pass
port, certificate, key, ca = sys.argv[1:]
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(certificate, key)
context.load_verify_locations(ca)
context.verify_mode = ssl.CERT_REQUIRED
class Server(http.server.ThreadingHTTPServer):
    def get_request(self):
        socket, address = super().get_request()
        return context.wrap_socket(socket, server_side=True, do_handshake_on_connect=False), address
Server(("127.0.0.1", int(port)), Told).serve_forever()
"#;

fn service(files: &Files, log: &Path) -> Process {
    let [port] = free_ports().unwrap();
    let mut command = Command::new("python3");
    command.args(["-c", SERVICE, &port.to_string()]);
    command.arg(&files.server.certificate).arg(&files.server.key).arg(files.ca());
    Process::start(&mut command, port, log).unwrap()
}

#[tokio::test]
async fn whom_a_certificate_names_is_known_to_services_the_api_and_sockets() {
    let mut files = Files::new();
    let service = service(&files, &files.folder.path().join("service.log"));
    let billing = files.authority.client("billing", "x", &["spiffe://example.org/acme/billing"]);
    let stranger = files.authority.client("stranger", "x", &["spiffe://example.net/acme/billing"]);
    let own = files.authority.client("own", "crosstown", &[]);
    let ca = files.ca();
    let tls = format!("client_auth = \"optional\"\nclient_ca = \"{}\"", ca.display());
    let config = format!(
        "{}
        [[identity.certificates]]
        uri = \"spiffe://example.org/{{tenant}}/{{name}}\"
        roles = [\"internal\"]
        [services.told]
        instances = [\"https://{}\"]
        tls = {{ ca = \"{}\", certificate = \"{}\", key = \"{}\" }}
        [[routes]]
        name = \"told\"
        service = \"told\"
        prefix = \"/told\"
        roles = [\"internal\"]",
        files.config(&tls),
        service.address(),
        ca.display(),
        own.certificate.display(),
        own.key.display(),
    );
    let server = Server::start(&config);
    let base = format!("https://localhost:{}", server.edge().1);
    let ask = |own: Option<&Issued>, path: &str| {
        let said = curl(&ca, own, &[&format!("{base}{path}")]);
        let (body, status) = said.rsplit_once('\n').unwrap();
        (status.to_owned(), serde_json::from_str::<Json>(body).unwrap_or(json!(said)))
    };
    let (status, told) = ask(Some(&billing), "/told");
    assert_eq!(status, "200", "{told}");
    for (field, value) in [
        ("x-crosstown-tenant", "acme"),
        ("x-crosstown-principal", "billing"),
        ("x-crosstown-kind", "service"),
        ("x-crosstown-roles", "internal"),
        ("x-forwarded-proto", "https"),
    ] {
        assert_eq!(told[field], value, "{told}");
    }
    assert_eq!(told["certificate"]["commonName"], "crosstown");
    let (status, told) = ask(Some(&billing), "/crosstown/v1/whoami");
    assert_eq!((status.as_str(), &told["credential"]), ("200", &json!("certificate")), "{told}");
    for who in [None, Some(&stranger)] {
        assert_eq!(ask(who, "/told").0, "401");
    }

    let mut ann = files.connected(&server, "ann").await;
    let mut socket = files.socket(&server, Some(&billing)).await;
    socket.ask("connect", json!({})).await.unwrap();
    socket.ask("publish", json!({ "channel": "room", "data": 1 })).await.unwrap();
    assert_eq!(ann.push().await["pub"]["info"]["user"], "billing");
    let mut nobody = files.socket(&server, Some(&stranger)).await;
    assert!(nobody.ask("connect", json!({})).await.is_err());

    // Blocked, he is out at once, whatever he holds.
    let admin = server.token_with("acme", "root", json!({ "roles": ["admin"] }));
    let block = format!("{base}/crosstown/v1/users/billing/block?kind=service");
    let bearer = format!("authorization: Bearer {admin}");
    let said = curl(&ca, None, &["-X", "POST", "-H", &bearer, &block]);
    assert!(said.ends_with("\n201"), "{said}");
    assert_eq!(ask(Some(&billing), "/told").0, "403");
}

//! A real proxy in front, which says for whom it speaks.

use integration_tests::{Server, curl};
use std::{fs, path::Path, process::Command};
use tempfile::TempDir;
use test_servers::{Authority, Process, free_ports};

/// A service that answers with the address that it is told of.
const SERVICE: &str = r#"
import http.server, sys
class Told(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        told = [self.headers.get(name, "-") for name in ("x-forwarded-for", "x-forwarded-proto")]
        self.wfile.write(" ".join(told).encode())
    def log_message(self, *_): pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Told).serve_forever()
"#;

fn service(folder: &Path) -> Process {
    let [port] = free_ports().unwrap();
    let mut command = Command::new("python3");
    command.args(["-c", SERVICE, &port.to_string()]);
    Process::start(&mut command, port, &folder.join("service.log")).unwrap()
}

/// A proxy that listens on a free port and passes on as `server` says.
fn haproxy(folder: &Path, mode: &str, server: &str) -> Process {
    let [port] = free_ports().unwrap();
    let config = format!(
        "defaults\n    timeout connect 5s\n    timeout client 30s\n    timeout server 30s\n\
         listen in\n    mode {mode}\n    bind 127.0.0.1:{port}\n    {server}\n"
    );
    let file = folder.join(format!("{port}.cfg"));
    fs::write(&file, config).unwrap();
    let mut command = Command::new("haproxy");
    command.arg("-db").arg("-f").arg(&file);
    Process::start(&mut command, port, &folder.join(format!("{port}.log"))).unwrap()
}

fn routes(service: &Process) -> String {
    let address = service.address();
    format!(
        "[services.told]\ninstances = [\"http://{address}\"]\n\
         [[routes]]\nname = \"told\"\nservice = \"told\"\nauth = \"none\"\n"
    )
}

/// Asks from 127.0.0.2, with fields that claim another address.
fn ask(folder: &TempDir, url: &str) -> String {
    let claims = ["-H", "x-forwarded-for: 203.0.113.1", "-H", "forwarded: for=203.0.113.1"];
    let ca = folder.path().join("ca.pem");
    curl(&ca, None, &[&["--interface", "127.0.0.2"], &claims[..], &[url]].concat())
}

#[test]
fn a_proxy_that_passes_bytes_on_says_first_from_where() {
    let folder = tempfile::tempdir().unwrap();
    let mut authority = Authority::new(folder.path(), "ca");
    let own = authority.server("server", &["localhost"]);
    let service = service(folder.path());
    let tls = format!(
        "[edge.tls]\ncertificate = \"{}\"\nkey = \"{}\"\n",
        own.certificate.display(),
        own.key.display()
    );
    let edge = "trusted_proxies = [\"127.0.0.1\"]\nproxy_protocol = true\n";
    let plain = Server::start_with(edge, &routes(&service));
    let secure = Server::start_with(edge, &format!("{tls}{}", routes(&service)));
    for (node, scheme) in [(&plain, "http"), (&secure, "https")] {
        let edge = node.edge().1;
        for version in ["send-proxy", "send-proxy-v2", "send-proxy-v2 proxy-v2-options crc32c"] {
            let server = format!("server node 127.0.0.1:{edge} {version}");
            let haproxy = haproxy(folder.path(), "tcp", &server);
            let url = format!("{scheme}://localhost:{}/", haproxy.address().port());
            assert_eq!(ask(&folder, &url), format!("127.0.0.2 {scheme}\n200"), "{version}");
        }
        // Without the header nobody is served; nor is who is no proxy, header or not.
        let silent = haproxy(folder.path(), "tcp", &format!("server node 127.0.0.1:{edge}"));
        let url = format!("{scheme}://localhost:{}/", silent.address().port());
        assert!(ask(&folder, &url).contains("\n000"), "{scheme}");
        let direct = format!("{scheme}://localhost:{edge}/");
        let ca = folder.path().join("ca.pem");
        let from = ["--interface", "127.0.0.2", "--haproxy-protocol", &direct];
        assert!(curl(&ca, None, &from).contains("\n000"));
    }
}

#[test]
fn a_proxy_that_passes_requests_on_adds_from_where() {
    let folder = tempfile::tempdir().unwrap();
    let service = service(folder.path());
    let node = Server::start_with("trusted_proxies = [\"127.0.0.1\"]", &routes(&service));
    let edge = node.edge().1;
    let server = format!(
        "option forwardfor\n    http-request set-header X-Forwarded-Proto https\n    \
         server node 127.0.0.1:{edge}"
    );
    let haproxy = haproxy(folder.path(), "http", &server);
    let url = format!("http://localhost:{}/", haproxy.address().port());
    assert_eq!(ask(&folder, &url), "127.0.0.2 https\n200");
    // Who is no proxy is not believed.
    assert_eq!(ask(&folder, &format!("http://localhost:{edge}/")), "127.0.0.2 http\n200");
}
